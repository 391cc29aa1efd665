"""How charts look in both of their forms: colours, sizes, and how plotly's words for them read in matplotlib."""

from __future__ import annotations

import base64
import functools
import html
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common form of colour blindness. Without their
# yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SCALE = "Cividis"  # perceptually even, the same to colour-blind readers
WIDTH, HEIGHT = 760, 420  # CSS pixels
_BELOW = 68  # CSS pixels from the axes down to a legend under them: room for the numbers and the title
INK, GRID = "#333333", "#E3E6EA"
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei",
         "Microsoft YaHei", "PingFang SC")
DASHES = {"solid": "-", "dot": ":", "dash": "--", "longdash": (0, (8, 3)), "dashdot": "-.",
          "longdashdot": (0, (8, 3, 1, 3))}
SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X", "triangle-up": "^",
           "triangle-down": "v", "triangle-left": "<", "triangle-right": ">", "star": "*", "hexagon": "h",
           "pentagon": "p", "line-ns": "|", "line-ew": "_", "x-thin": "x", "cross-thin": "+"}
HATCHES = {"": "", "/": "//", "\\": "\\\\", "x": "xx", "-": "--", "|": "||", "+": "++", ".": ".."}


def dressed(spec: dict[str, Any]) -> dict[str, Any]:
    """The plotly JSON in the kit's style, where the figure does not say otherwise."""
    layout = spec.setdefault("layout", {})
    layout.pop("template", None)
    layout.setdefault("colorway", list(COLOURS))
    layout.setdefault("hoverlabel", {}).setdefault("namelength", -1)  # names in full
    layout.setdefault("font", {}).setdefault("color", INK)
    # plotly's own paper is white too; said here, so that dark ink never meets a dark page.
    layout.setdefault("paper_bgcolor", "#FFFFFF")
    layout.setdefault("plot_bgcolor", "#FFFFFF")
    # Both forms have the same size: JupyterLab shows the picture first and the figure once the mouse is over it.
    layout.setdefault("width", WIDTH)
    layout.setdefault("height", HEIGHT)
    above = 30 + 30 * bool((layout.get("title") or {}).get("text")) + 10 * bool(layout.get("annotations"))
    layout["margin"] = {"l": 60, "r": 20, "b": 50, "t": above, **layout.get("margin", {})}
    legend = layout.get("legend") or {}
    if legend.get("orientation") == "h" and "y" not in legend:
        # plotly's own place for it, a tenth under the axes, is where the axis has its title.
        inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
        layout["legend"] = {**legend, "y": -_BELOW / max(inner, 1), "yanchor": "top"}
    if "title" in layout and isinstance(layout["title"], dict):
        layout["title"] = {"x": 0.02, "xanchor": "left", "font": {"size": 16}, **layout["title"]}
    pairs = {(trace.get("xaxis", "x"), trace.get("yaxis", "y")) for trace in spec.get("data", ())} or {("x", "y")}
    for name in {key for pair in pairs for key in pair} | {_axis_id(key) for key in layout if _is_axis(key)}:
        axis = layout.setdefault(f"{name[0]}axis{name[1:]}", {})
        for key, value in {"gridcolor": GRID, "zerolinecolor": "#B8BDC4", "automargin": True}.items():
            axis.setdefault(key, value)
    for trace in spec.get("data", ()):
        if trace.get("type") == "heatmap" and not trace.get("coloraxis"):
            trace.setdefault("colorscale", SCALE)
        if trace.get("type") == "image" and "z" in trace:
            trace.update(source=picture_source(_plain(trace.pop("z"))))
    if "coloraxis" in layout:
        layout["coloraxis"].setdefault("colorscale", SCALE)
    spec["config"] = {"displaylogo": False, **spec.get("config", {})}  # no link to plotly's site
    return spec


def _is_axis(key: str) -> bool:
    return re.fullmatch(r"[xy]axis\d*", key) is not None


def _axis_id(key: str) -> str:
    return key[0] + key[5:]


def _plain(value: Any) -> np.ndarray:
    """An array from plotly JSON, whether a list or base64 bytes."""
    if isinstance(value, dict) and "bdata" in value:
        array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        return array.reshape([int(n) for n in str(value["shape"]).split(",")]) if "shape" in value else array
    return np.asarray(value)


def logarithmic(title: str, values: Iterable[float | None]) -> dict[str, Any]:
    """A logarithmic axis for these values; with 2 and 5 beside the powers of ten where those are few."""
    seen = [value for value in values if value]
    few = {"dtick": "D2"} if seen and max(seen) < 1000 * min(seen) else {}
    return {"type": "log", "title": {"text": title}, **few}


def picture_source(pixels: np.ndarray) -> str:
    """Pixels (uint8 [H, W, 3 or 4]) as a data address: JPEG, or PNG where there is transparency."""
    import io

    from PIL import Image

    made = io.BytesIO()
    kind = "PNG" if pixels.shape[-1] == 4 else "JPEG"
    Image.fromarray(np.asarray(pixels, np.uint8)).save(made, kind, **({} if kind == "PNG" else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(made.getvalue()).decode()}"


def pixels_of(source: str) -> np.ndarray:
    """The pixels of a data address."""
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def words(text: Any) -> str:
    """Plotly's small HTML as plain text: ``<br>`` becomes a new line, other tags go."""
    lines = re.sub(r"<br\s*/?>", "\n", str(text or ""))
    return html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", lines))


def rgba(colour: Any, opacity: float | None = None) -> tuple[float, float, float, float]:
    """A CSS colour as matplotlib takes it."""
    from matplotlib.colors import to_rgba

    opacity = 1.0 if opacity is None else opacity
    found = re.fullmatch(r"rgba?\(([^)]*)\)", str(colour).replace(" ", ""))
    if found:
        parts = [float(part.rstrip("%")) for part in found[1].split(",")]
        alpha = parts[3] if len(parts) > 3 else 1.0
        return parts[0] / 255, parts[1] / 255, parts[2] / 255, alpha * opacity
    red, green, blue, alpha = to_rgba(str(colour))
    return red, green, blue, alpha * opacity


def colour_map(scale: Any, reverse: bool | None = None) -> Any:
    """A matplotlib colour map from a plotly colour scale: its name, or pairs of position and colour."""
    from matplotlib.colors import LinearSegmentedColormap
    from plotly.colors import get_colorscale

    pairs = get_colorscale(scale or SCALE) if isinstance(scale or SCALE, str) else scale
    made = LinearSegmentedColormap.from_list("scale", [(float(at), rgba(colour)) for at, colour in pairs])
    return (made.reversed() if reverse else made).with_extremes(bad="#DDDDDD")


@functools.cache
def families() -> list[str]:
    """Those of ``FONTS`` that are installed: asking matplotlib for absent ones fills the log."""
    from matplotlib import font_manager

    present = set(font_manager.get_font_names())
    return [name for name in FONTS if name in present] or ["sans-serif"]


def text_style(font: Any = None, size: float = 12) -> dict[str, Any]:
    """Keyword arguments for a matplotlib text; ``size`` in CSS pixels where ``font`` gives none."""
    return {"fontsize": ((font and font.size) or size) * 0.75, "color": rgba((font and font.color) or INK),
            "fontfamily": families(), "parse_math": False}
