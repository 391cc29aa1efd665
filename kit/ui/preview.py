"""What a model really sees: each sample as it lies on disk beside the tensor turned back into a picture."""

from __future__ import annotations

import base64
import functools
from html import escape
from typing import Any

import numpy as np

from kit.errors import KitError
from kit.need import need
from kit.samples import Samples


def preview(samples: Samples, at: int = 0) -> Preview:
    """Show samples and what the model sees of them, with a slider to go through them.

    Args:
        samples: the samples with their preprocessing.
        at: which one to begin with.
    """
    return Preview(samples, at)


class Preview:
    """What ``preview`` returns. A reader without a kernel sees the picture of one sample.

    Attributes:
        slider: the ipywidgets slider over the samples.
    """

    def __init__(self, samples: Samples, at: int = 0) -> None:
        widgets = need("ipywidgets", to="show samples with a slider", extra="ui")
        self.samples, self._at = samples, at
        self.slider = widgets.IntSlider(value=at, min=0, max=max(0, len(samples) - 1), description="Sample",
                                        continuous_update=False)
        self._view = widgets.HTML(self._html(at))
        self.slider.observe(lambda change: setattr(self._view, "value", self._html(change["new"])), "value")
        self.box = widgets.VBox([self.slider, self._view])

    @functools.cached_property
    def chart(self) -> Any:
        """The first picture as a Chart: original and what the model sees, side by side."""
        go = need("plotly.graph_objects", to="draw samples", extra="base")
        from plotly.subplots import make_subplots

        from kit.charts.chart import Chart

        original, seen = self._pair(self._at)
        figure = make_subplots(1, 2, subplot_titles=("on disk", "what the model sees"))
        figure.add_trace(go.Image(z=original), 1, 1)
        figure.add_trace(go.Image(z=seen), 1, 2)
        figure.update_layout(title=self.samples.items[self._at].name, height=_height(original, seen))
        return Chart(figure, self._words(self._at, original, seen))

    def __repr__(self) -> str:
        return f"Preview of {self.samples.title()}: the slider needs a running kernel"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        bundle = self.box._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        width, height = self.chart.size()
        return ({**data, "image/png": base64.b64encode(self.chart.png()).decode(), "text/plain": self.chart.alt},
                {**metadata, "image/png": {"alt": self.chart.alt, "width": width, "height": height}})

    def _pair(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        """Original and seen, uint8 [h, w, 3], RGB."""
        return self.samples.items[at].load()[:, :, ::-1], self.samples.preview(at)

    def _words(self, at: int, original: np.ndarray, seen: np.ndarray) -> str:
        sizes = [f"{picture.shape[1]} x {picture.shape[0]} pixels" for picture in (original, seen)]
        return (f"Sample {at} of {len(self.samples)}, {self.samples.items[at].name}: on disk {sizes[0]}; the model "
                f"sees {sizes[1]} ({self.samples.preprocess.resize}, {self.samples.preprocess.channels}).")

    def _html(self, at: int) -> str:
        from kit.charts.style import picture_source

        try:
            original, seen = self._pair(at)
        except KitError as error:
            return f'<p role="alert">{escape(error.what)} Try: {escape(error.remedy)}</p>'
        shown = [(original, "on disk"), (seen, "what the model sees")]
        figures = "".join(
            f'<figure style="margin:0;max-width:{max(240, min(picture.shape[1], 480))}px;flex:1 1 240px">'
            f'<img src="{picture_source(picture)}" alt="{escape(self.samples.items[at].name)}, {words}" '
            f'style="width:100%;image-rendering:{"pixelated" if picture.shape[1] < 240 else "auto"}">'
            f'<figcaption style="line-height:1.4">{words}</figcaption></figure>' for picture, words in shown)
        return (f'<p role="status">{escape(self._words(at, original, seen))}</p>'
                f'<div style="display:flex;flex-wrap:wrap;gap:16px">{figures}</div>')


def _height(original: np.ndarray, seen: np.ndarray) -> int:
    """Height in CSS pixels at which two pictures side by side leave little empty."""
    tallest = max(picture.shape[0] / picture.shape[1] for picture in (original, seen))
    return int(min(560, 340 * tallest + 110))
