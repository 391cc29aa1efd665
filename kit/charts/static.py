"""The static picture of a plotly figure, drawn by matplotlib: no browser is needed, and no global state is touched.

What it draws is what the kit's charts are made of: Bar, Scatter, Histogram, Box, Heatmap and Image traces on linear,
logarithmic and category axes, in subplots, with titles, legends, annotations and shapes. A figure with anything else
is refused by name, so that a chart never silently shows less than the interactive one.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

from kit.charts import style
from kit.charts.static_axes import Plane, planes
from kit.charts.static_traces import draw_traces, refuse_unknown
from kit.need import need

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PAD = 12  # CSS pixels kept free at every edge


def draw(figure: go.Figure, form: str, *, scale: float, size: tuple[int, int], title: str = "") -> bytes:
    """Draw a figure.

    Args:
        figure: the plotly figure.
        form: ``"png"`` or ``"svg"``.
        scale: picture pixels per CSS pixel (PNG only).
        size: width and height in CSS pixels.
        title: goes into the file as its description.

    Raises:
        BadInput: a trace is of a type that cannot be drawn.
    """
    refuse_unknown(figure)
    need("matplotlib", to="draw the static picture of a chart", extra="base")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox, BboxTransformTo

    sheet = Figure(figsize=(size[0] / 96, size[1] / 96), dpi=96 * scale, facecolor="white")
    canvas = FigureCanvasAgg(sheet)
    heading = _heading(sheet, figure, size)
    rect = Bbox.from_extents(0.08, 0.12, 0.97, 0.95 - heading)
    paper = BboxTransformTo(rect) + sheet.transFigure
    made = planes(sheet, figure, rect)
    handles = draw_traces(figure, made, paper)
    for plane in made.values():
        plane.finish()
    _shapes(figure, made, paper)
    _annotations(figure, made, paper)
    legend = _legend(sheet, figure, handles, paper, size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # boxes are better than no picture
        _fit(sheet, canvas, made, rect, paper, legend, heading, size)
        stream = io.BytesIO()
        if form == "png":
            canvas.print_png(stream, metadata={"Description": title} if title.isascii() else None)
        else:
            FigureCanvasSVG(sheet).print_svg(stream, metadata={"Date": None, "Title": title})
    return stream.getvalue()


def _heading(sheet: Any, figure: go.Figure, size: tuple[int, int]) -> float:
    """Write the title; returns the part of the height it takes."""
    title = figure.layout.title
    said = style.words(title.text)
    if not said:
        return 0.0
    font = title.font.size or 16
    lines = [line for part in said.splitlines() for line in textwrap.wrap(part, int((size[0] - 30) / (font * 0.56)))]
    sheet.text(15 / size[0], 1 - _PAD / size[1], "\n".join(lines), va="top", ha="left", linespacing=1.25,
               **{**style.text_style(title.font, font), "in_layout": False})
    return (len(lines) * font * 1.3 + _PAD * 0.75) / size[1]


def _legend(sheet: Any, figure: go.Figure, handles: list[Any], paper: Any, size: tuple[int, int]) -> Any:
    wanted = figure.layout.showlegend
    if not handles or wanted is False or (wanted is None and len(figure.data) < 2):
        return None
    place = figure.layout.legend
    flat = place.orientation == "h"
    x = place.x if place.x is not None else (0.0 if flat else 1.02)
    y = place.y if place.y is not None else (-0.1 if flat else 1.0)
    across = {"center": "center", "right": "right"}.get(place.xanchor or "", "left")
    down = {"bottom": "lower", "middle": "center"}.get(place.yanchor or "", "upper")
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(size[0] * 0.9 / (longest * 6.5 + 45)))) if flat else 1
    legend = sheet.legend(
        handles=handles, loc="center" if (down, across) == ("center", "center") else f"{down} {across}",
        bbox_to_anchor=(x, y), bbox_transform=paper, ncols=columns, frameon=False, borderaxespad=0,
        labelcolor=style.INK, prop={"size": 9, "family": style.families()}, title=style.words(place.title.text) or None)
    for text in legend.get_texts():
        text.set_parse_math(False)
    # Where the figure leaves the place open: under or beside everything else, once its extent is known.
    legend.moves = "below" if flat and place.y is None else "aside" if not flat and place.x is None else ""
    return legend


def _annotations(figure: go.Figure, made: dict[Any, Plane], paper: Any) -> None:
    for note in figure.layout.annotations:
        across, down = _where(note.xref, made, paper, 0), _where(note.yref, made, paper, 1)
        plane = across[1] or down[1] or next(iter(made.values()))
        font = style.text_style(note.font, 14 if note.xref == note.yref == "paper" else 12)
        x, y = across[2](note.x), down[2](note.y)
        common = {"ha": {"left": "left", "right": "right"}.get(note.xanchor or "", "center"),
                  "va": {"top": "top", "bottom": "bottom"}.get(note.yanchor or "", "center"),
                  "rotation": -(note.textangle or 0), "annotation_clip": False, "zorder": 6, **font}
        shift = ((note.xshift or 0) * 0.75, (note.yshift or 0) * 0.75)
        if note.showarrow is False:
            common |= {"xytext": shift, "textcoords": "offset points"}
        else:
            common |= {"xytext": ((note.ax if note.ax is not None else 0) * 0.75 + shift[0],
                                  -(note.ay if note.ay is not None else -30) * 0.75 + shift[1]),
                       "textcoords": "offset points", "arrowprops": {"arrowstyle": "->", "color": style.INK}}
        if note.bgcolor:
            common["bbox"] = {"facecolor": style.rgba(note.bgcolor), "edgecolor": "none", "pad": 2}
        plane.axes.annotate(style.words(note.text), (x, y), xycoords=(across[0], down[0]), **common)


def _where(ref: str | None, made: dict[Any, Plane], paper: Any, side: int) -> tuple[Any, Plane | None, Any]:
    """Transform, plane and value converter for a plotly reference such as ``x2``, ``y domain`` or ``paper``."""
    ref = ref or "xy"[side]
    if ref == "paper":
        return paper, None, float
    name, _, domain = ref.partition(" ")
    plane = next((p for p in made.values() if (p.x, p.y)[side].name == name), next(iter(made.values())))
    if domain:
        return plane.axes.transAxes, plane, float
    scale = (plane.x, plane.y)[side]

    def place(value: Any) -> float:
        if scale.log and not isinstance(value, str):
            return 10.0 ** float(value)  # plotly gives positions on a logarithmic axis as exponents
        return scale.position(value)

    return plane.axes.transData, plane, place


def _shapes(figure: go.Figure, made: dict[Any, Plane], paper: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Ellipse, Rectangle
    from matplotlib.transforms import blended_transform_factory

    for shape in figure.layout.shapes:
        across, down = _where(shape.xref, made, paper, 0), _where(shape.yref, made, paper, 1)
        plane = across[1] or down[1] or next(iter(made.values()))
        (x0, x1), (y0, y1) = ([f(v) for v in pair] for f, pair in
                              ((_linear(across, plane.x), (shape.x0, shape.x1)),
                               (_linear(down, plane.y), (shape.y0, shape.y1))))
        transform = blended_transform_factory(across[0], down[0])
        edge = {"color": style.rgba(shape.line.color or style.INK, shape.opacity),
                "linewidth": (2 if shape.line.width is None else shape.line.width) * 0.75,
                "linestyle": style.DASHES.get(shape.line.dash or "solid", "--")}
        common = {"transform": transform, "zorder": 1 if shape.layer in ("below", "between") else 4}
        if shape.type == "line":
            plane.axes.add_artist(Line2D([x0, x1], [y0, y1], **edge, **common))
            continue
        fill = {"facecolor": style.rgba(shape.fillcolor, shape.opacity) if shape.fillcolor else "none",
                "edgecolor": edge["color"] if edge["linewidth"] else "none", "linewidth": edge["linewidth"],
                "linestyle": edge["linestyle"]}
        patch = (Ellipse(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0, **fill, **common)
                 if shape.type == "circle" else Rectangle((x0, y0), x1 - x0, y1 - y0, **fill, **common))
        plane.axes.add_artist(patch)


def _linear(where: tuple[Any, Plane | None, Any], scale: Any) -> Any:
    """Shapes, unlike annotations, give plain values on a logarithmic axis."""
    return scale.position if where[1] is not None and where[2] is not float else where[2]


def _fit(sheet: Any, canvas: Any, made: dict[Any, Plane], rect: Any, paper: Any, legend: Any, heading: float,
         size: tuple[int, int]) -> None:
    """Move the axes' rectangle until labels, legend and notes all lie inside the sheet."""
    from matplotlib.transforms import Bbox

    margin = (_PAD / size[0], _PAD / size[1])
    for turn in range(3):
        for plane in made.values():
            plane.place(rect)
            plane.turn_long_labels(size)
        if legend is not None and legend.moves:
            legend.set_in_layout(False)
            rest = _tight(sheet, canvas)
            free = ((0, (rest.y0 - margin[1] / 2 - rect.y0) / rect.height) if legend.moves == "below" else
                    (max(1.02, (rest.x1 + margin[0] / 2 - rect.x0) / rect.width), 1))
            legend.set_bbox_to_anchor(free, paper)
            legend.set_in_layout(True)
        tight = _tight(sheet, canvas)
        left = rect.x0 + margin[0] - tight.x0
        low = rect.y0 + margin[1] - tight.y0
        right = rect.x1 + 1 - margin[0] - tight.x1
        high = rect.y1 + 1 - heading - margin[1] - tight.y1
        rect.set(Bbox.from_extents(min(left, 0.6), min(low, 0.6), max(right, min(left, 0.6) + 0.2),
                                   max(high, min(low, 0.6) + 0.2)))
        if turn == 2:
            for plane in made.values():
                plane.place(rect)


def _tight(sheet: Any, canvas: Any) -> Any:
    """What is drawn, as a box in parts of the sheet."""
    from matplotlib.transforms import Bbox

    box = sheet.get_tightbbox(canvas.get_renderer())  # inches
    width, height = sheet.get_size_inches()
    return Bbox.from_extents(box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height)
