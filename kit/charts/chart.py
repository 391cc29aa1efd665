"""One chart, three forms: an interactive plotly figure, a static picture of the same figure, and words.

A notebook shows the interactive form where JupyterLab can, code-hosting sites and nbconvert show the picture, and a
screen reader or terminal gets the words. The picture is drawn by matplotlib, so no browser is needed to make it.
"""

from __future__ import annotations

import base64
import functools
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit.errors import BadInput

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY = "application/vnd.plotly.v1+json"
_PHOTO = 200_000  # bytes of PNG above which a chart holds a photograph


@dataclass(frozen=True, eq=False)
class Chart:
    """A plotly figure with a text alternative.

    Attributes:
        figure: made of the trace types that ``kit.charts.static`` draws.
        alt: what a person who cannot see the picture should know: what is plotted, and what the facts say.

    Raises:
        BadInput: the text alternative is empty.
    """

    figure: go.Figure
    alt: str

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise BadInput("A chart needs a text alternative.", remedy="say in alt= what the picture shows")

    def __str__(self) -> str:
        return self.alt

    def __repr__(self) -> str:
        return f"Chart: {self.alt}"

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """The figure as plotly JSON without its template, which would add 7 kB to every chart in a notebook."""
        from kit.charts.style import dressed

        return dressed(json.loads(self.figure.to_json()))

    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels."""
        from kit.charts.style import HEIGHT, WIDTH

        return int(self.figure.layout.width or WIDTH), int(self.figure.layout.height or HEIGHT)

    def png(self, scale: float = 1.5) -> bytes:
        """The static picture; ``scale`` is picture pixels per CSS pixel."""
        drawn = self._draw("png", scale)
        # Pictures that are to be compared keep their colours, as long as that stays small enough to store.
        true = len(drawn) <= _PHOTO and any(trace.type == "image" for trace in self.figure.data)
        return drawn if true else _fewer_colours(drawn)

    def svg(self) -> str:
        """The static picture as one ``<svg>`` element, named for screen readers by the text alternative."""
        text = self._draw("svg", 1).decode()
        return text[text.index("<svg"):].replace("<svg", f'<svg role="img" aria-label="{escape(self.alt)}"', 1)

    def html(self, kind: Literal["png", "svg"] = "png") -> str:
        """The static picture as a self-contained ``<img>`` element with its alt text."""
        width, height = self.size()
        data, mime = (self.png(), "image/png") if kind == "png" else (self.svg().encode(), "image/svg+xml")
        return (f'<img src="data:{mime};base64,{base64.b64encode(data).decode()}" alt="{escape(self.alt)}" '
                f'width="{width}" height="{height}" style="max-width:100%;height:auto">')

    def save(self, path: Path | str) -> Path:
        """Write the chart; the suffix chooses the form: .png, .svg, .html (a picture) or .json (plotly).

        Raises:
            BadInput: another suffix, or the file cannot be written.
        """
        from kit.record import explain_os_error

        path = Path(path)
        forms = {".png": self.png, ".svg": lambda: self.svg().encode(), ".html": lambda: self.html().encode(),
                 ".json": lambda: json.dumps(self.spec).encode()}
        if path.suffix not in forms:
            raise BadInput(f"{path.name}: a chart cannot be saved as {path.suffix or 'a file without suffix'}.",
                           remedy=f"use one of {', '.join(forms)}")
        try:
            path.write_bytes(forms[path.suffix]())
        except OSError as error:
            raise explain_os_error(error, path) from error
        return path

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = self.size()
        # One picture pixel per CSS pixel: JupyterLab's plotly renderer shows the picture in its own size.
        data = {"text/plain": self.alt, PLOTLY: self.spec, "image/png": base64.b64encode(self.png(1)).decode()}
        return data, {"image/png": {"alt": self.alt, "width": width, "height": height}}

    def _draw(self, form: str, scale: float) -> bytes:
        from kit.charts.static import draw

        return draw(self.figure, form, scale=scale, size=self.size(), title=self.alt)


def _fewer_colours(png: bytes) -> bytes:
    """A palette instead of true colour: a third of the bytes, and a chart has few colours. A notebook stores many."""
    import io

    from PIL import Image

    # Median cut shares colours out by area: of two markers in a chart one would take the colour of the other.
    colours, method = (256, Image.Quantize.MEDIANCUT) if len(png) > _PHOTO else (64, Image.Quantize.MAXCOVERAGE)
    made = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(colours, method, dither=Image.Dither.NONE)
    picture.save(made, "PNG", optimize=True)
    return min(made.getvalue(), png, key=len)
