"""Traces of the static picture: one small function per plotly trace type, in the table ``DRAW`` at the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.charts import style
from kit.charts.static_axes import Plane, number
from kit.errors import BadInput

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_traces(figure: go.Figure, planes: dict[tuple[str, str], Plane], paper: Any) -> list[Any]:
    """Draw every visible trace; returns the legend's handles in order."""
    handles = []
    colours = figure.layout.colorway or style.COLOURS
    several = len([trace for trace in figure.data if trace.name]) > 1
    for place, trace in enumerate(figure.data):
        if trace.visible in (False, "legendonly"):
            continue
        plane = planes[trace.xaxis or "x", trace.yaxis or "y"]
        brush = Brush(figure, trace, plane, colours[place % len(colours)], paper)
        handle = DRAW[trace.type](brush)
        if handle is not None and trace.showlegend is not False and (trace.name or several):
            handle.set_label(style.words(trace.name or f"trace {place}"))
            handles.append(handle)
    return handles


def refuse_unknown(figure: go.Figure) -> None:
    """Raise BadInput when a trace is of a type that is not in ``DRAW``."""
    for trace in figure.data:
        if trace.type not in DRAW:
            raise BadInput(f"A chart cannot have a static picture of a {trace.type!r} trace.",
                           remedy=f"use one of {', '.join(sorted(DRAW))}")


class Brush:
    """What drawing one trace needs: the figure around it, its Axes and its colour."""

    def __init__(self, figure: go.Figure, trace: Any, plane: Plane, colour: str, paper: Any) -> None:
        self.figure, self.trace, self.plane, self.axes, self.paper = figure, trace, plane, plane.axes, paper
        given = getattr(trace, "marker", None) and trace.marker.color
        line = getattr(trace, "line", None)
        self.colour = given if isinstance(given, str) else (line and getattr(line, "color", None)) or colour

    def siblings(self, kind: str) -> list[Any]:
        """Visible traces of the same type on the same axes, this one among them."""
        return [t for t in self.figure.data if t.type == kind and t.visible not in (False, "legendonly")
                and (t.xaxis or "x", t.yaxis or "y") == (self.trace.xaxis or "x", self.trace.yaxis or "y")]

    def colours(self, count: int) -> Any:
        """One colour, or one for each point where the trace gives them."""
        given, marker, opacity = self.trace.marker.color, self.trace.marker, self.trace.opacity
        opacity = opacity if marker.opacity is None or not isinstance(marker.opacity, int | float) else marker.opacity
        if given is None or isinstance(given, str):
            return style.rgba(given or self.colour, opacity)
        if all(isinstance(value, str) for value in given):
            return [style.rgba(value, opacity) for value in given][:count]
        numbers = np.asarray(given, float)
        low = numbers.min() if marker.cmin is None else marker.cmin
        high = numbers.max() if marker.cmax is None else marker.cmax
        return style.colour_map(marker.colorscale, marker.reversescale)((numbers - low) / max(high - low, 1e-30))

    def said(self, at: int, **values: Any) -> str:
        """The text of one point, after ``texttemplate`` where there is one."""
        text = self.trace.text
        own = text if isinstance(text, str) else text[at] if text is not None and at < len(text) else ""
        template = self.trace.texttemplate
        if not template:
            return style.words("" if own is None else own)
        template = template if isinstance(template, str) else template[at]

        def fill(found: re.Match) -> str:
            value = {**values, "text": own}.get(found[1], "")
            return number(float(value), found[2]) if found[2] and value != "" else str(value)

        return style.words(re.sub(r"%\{(\w+)(?::([^}]*))?\}", fill, template))


def _points(brush: Brush) -> tuple[np.ndarray, np.ndarray]:
    trace, plane = brush.trace, brush.plane
    x, y = trace.x, trace.y
    x = np.arange(len(y)) if x is None else x
    y = np.arange(len(x)) if y is None else y
    return plane.x.positions(x), plane.y.positions(y)


def _errors(error: Any, values: np.ndarray) -> np.ndarray | None:
    """Lengths of error bars, shape [2, n], or None."""
    if error is None or error.visible is False:
        return None
    if error.type in ("constant", "percent") and error.value is not None:
        length = np.full(len(values), error.value) if error.type == "constant" else np.abs(values) * error.value / 100
        return np.stack([length, length])
    if error.array is None:
        return None
    up = np.asarray(error.array, float)
    down = up if error.arrayminus is None else np.asarray(error.arrayminus, float)
    return np.stack([down, up])


def _error_bars(brush: Brush, x: np.ndarray, y: np.ndarray, ink: Any) -> None:
    trace = brush.trace
    across, up = _errors(trace.error_x, x), _errors(trace.error_y, y)
    if across is None and up is None:
        return
    given = trace.error_y if up is not None else trace.error_x
    brush.axes.errorbar(x, y, xerr=across, yerr=up, fmt="none", ecolor=style.rgba(given.color or ink), zorder=3,
                        elinewidth=(given.thickness or 2) * 0.75, capsize=(4 if given.width is None else given.width))


def _scatter(brush: Brush) -> Any:
    from matplotlib.lines import Line2D

    trace, axes = brush.trace, brush.axes
    x, y = _points(brush)
    mode = trace.mode or ("lines+markers" if len(x) < 20 else "lines")
    line = style.rgba(trace.line.color or brush.colour, trace.opacity)
    width = (2 if trace.line.width is None else trace.line.width) * 0.75
    dash = style.DASHES.get(trace.line.dash or "solid", "--")
    _fill(brush, x, y)
    handle = Line2D([], [], color=line, linewidth=width if "lines" in mode else 0, linestyle=dash)
    if "lines" in mode and width:
        steps = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}.get(trace.line.shape or "", "default")
        gaps = np.isnan(y) | np.isnan(x)
        kept = ~gaps if trace.connectgaps else np.ones(len(x), bool)
        axes.plot(x[kept], y[kept], color=line, linewidth=width, linestyle=dash, drawstyle=steps, zorder=3)
    if "markers" in mode:
        _markers(brush, x, y, handle)
    _error_bars(brush, x, y, brush.colour)
    if "text" in mode:
        across, down = _text_side(trace.textposition or "middle center")
        for at in range(len(x)):
            if np.isfinite(x[at]) and np.isfinite(y[at]):
                _write(axes, brush.said(at, x=x[at], y=y[at]), x[at], y[at], across, down, trace.textfont)
    return handle


def _markers(brush: Brush, x: np.ndarray, y: np.ndarray, handle: Any) -> None:
    marker, count = brush.trace.marker, len(x)
    colours = brush.colours(count)
    size = marker.size if marker.size is not None else 7
    sizes = np.broadcast_to(np.asarray(size, float), (count,)) * 0.75
    symbols = marker.symbol
    symbols = [symbols or "circle"] * count if symbols is None or isinstance(symbols, str) else list(symbols)
    edge = style.rgba(marker.line.color) if isinstance(marker.line.color, str) else "none"
    for symbol in dict.fromkeys(symbols):
        at = np.array([s == symbol for s in symbols])
        shape, is_open = _symbol(symbol)
        ink = colours if isinstance(colours, tuple) else np.asarray([style.rgba(c) if isinstance(c, str) else c
                                                                    for c in colours])[at]
        thin = is_open or shape in ("x", "+", "|", "_")
        ink = [ink] if isinstance(ink, tuple) else ink
        brush.axes.scatter(x[at], y[at], s=sizes[at] ** 2, marker=shape, zorder=3.5,
                           **({"color": ink} if shape in ("x", "+", "|", "_") else
                              {"facecolors": "none" if is_open else ink, "edgecolors": ink if thin else edge}),
                           linewidths=1.2 if thin else (marker.line.width or 0.8) * 0.75)
    shape, is_open = _symbol(symbols[0] if symbols else "circle")
    first = colours if isinstance(colours, tuple) else colours[0] if len(colours) else style.rgba(brush.colour)
    handle.set(marker=shape, markersize=min(float(sizes[0]) if count else 5, 9), markeredgecolor=first,
               markerfacecolor="none" if is_open else first)


def _symbol(name: Any) -> tuple[str, bool]:
    plain = str(name).removesuffix("-dot").removesuffix("-open")
    return style.SYMBOLS.get(plain, "o"), "-open" in str(name)


def _fill(brush: Brush, x: np.ndarray, y: np.ndarray) -> None:
    trace, axes = brush.trace, brush.axes
    kind = trace.fill
    if not kind or kind == "none":
        return
    ink = style.rgba(trace.fillcolor) if trace.fillcolor else style.rgba(brush.colour, 0.5)
    if kind == "tonexty":
        before = [t for t in brush.siblings("scatter")]
        place = next(i for i, t in enumerate(before) if t is trace)
        if place:
            other = before[place - 1]
            axes.fill_between(x, y, np.interp(x, brush.plane.x.positions(other.x), brush.plane.y.positions(other.y)),
                              color=ink, linewidth=0, zorder=2)
            return
    if kind == "toself":
        axes.fill(x, y, color=ink, linewidth=0, zorder=2)
    elif kind == "tozerox":
        axes.fill_betweenx(y, x, 0, color=ink, linewidth=0, zorder=2)
    else:
        axes.fill_between(x, y, 0, color=ink, linewidth=0, zorder=2)


def _bar(brush: Brush) -> Any:
    trace, axes, plane = brush.trace, brush.axes, brush.plane
    x, y = _points(brush)
    flat = trace.orientation == "h"
    at, length = (y, x) if flat else (x, y)
    mode = brush.figure.layout.barmode or "group"
    family = [t for t in brush.siblings("bar") if (t.orientation == "h") == flat]
    place = next(i for i, t in enumerate(family) if t is trace)
    gap = brush.figure.layout.bargap
    room = (1 - (0.2 if gap is None else gap)) * _spacing(at)
    thickness = room / len(family) if mode == "group" else room
    middle = at + ((place - (len(family) - 1) / 2) * thickness if mode == "group" else 0)
    if trace.width is not None:
        thickness = np.asarray(trace.width, float)
    stacked = mode in ("stack", "relative")
    base = _stack_base(plane, at, length, flat) if stacked else np.zeros(len(at))
    if trace.base is not None:
        base = np.broadcast_to(np.asarray(trace.base, float), base.shape)
    edge = trace.marker.line
    pattern = trace.marker.pattern.shape
    common = {"color": brush.colours(len(at)), "zorder": 2.5,
              "edgecolor": style.rgba(edge.color) if isinstance(edge.color, str) else "white",
              "linewidth": (edge.width if isinstance(edge.width, int | float) else 0.5) * 0.75}
    drawn = (axes.barh(middle, length, thickness, left=base, **common) if flat
             else axes.bar(middle, length, thickness, bottom=base, **common))
    for i, patch in enumerate(drawn):
        shape = pattern if isinstance(pattern, str) else pattern[i] if pattern is not None else ""
        patch.set_hatch(style.HATCHES.get(shape or "", ""))
    end = base + length
    _error_bars(brush, *((end, middle) if flat else (middle, end)), style.INK)
    _bar_texts(brush, middle, base, length, flat, stacked)
    return drawn[0] if len(drawn) else None


def _stack_base(plane: Plane, at: np.ndarray, length: np.ndarray, flat: bool) -> np.ndarray:
    """Where each stacked bar begins: positive and negative lengths pile up apart."""
    piles = plane.__dict__.setdefault("piles", {})
    base = np.zeros(len(at))
    for i, (where, size) in enumerate(zip(at, np.nan_to_num(length), strict=True)):
        key = (flat, round(float(where), 6), size < 0)
        base[i] = piles.get(key, 0.0)
        piles[key] = base[i] + size
    return base


def _bar_texts(brush: Brush, middle: np.ndarray, base: np.ndarray, length: np.ndarray, flat: bool,
               stacked: bool) -> None:
    trace = brush.trace
    position = trace.textposition or "auto"
    if (trace.text is None and not trace.texttemplate) or position == "none":
        return
    longest = np.nanmax(np.abs(length)) if len(length) else 0
    for i in range(len(middle)):
        if not np.isfinite(length[i]):
            continue
        place = position if isinstance(position, str) else position[i]
        said = brush.said(i, x=length[i] if flat else middle[i], y=middle[i] if flat else length[i])
        room = abs(length[i]) >= (0.15 if not flat else 0.02 * len(said) + 0.05) * longest
        outside = place == "outside" or (place == "auto" and not room and not stacked)
        if not outside and not room and place == "auto":
            continue
        ahead = length[i] >= 0
        tip = base[i] + length[i]
        sides = [("left" if ahead else "right"), "center"] if flat else ["center", "bottom" if ahead else "top"]
        if not outside:
            tip = base[i] + length[i] / 2
            sides = ["center", "center"]
        ink = style.INK if outside else _contrast(brush.colours(len(middle)), i)
        nudge = (0.0 if not outside else 3.0 if ahead else -3.0)
        _write(brush.axes, said, *((tip, middle[i]) if flat else (middle[i], tip)), *sides, trace.textfont, ink,
               (nudge, 0) if flat else (0, nudge))


def _contrast(colours: Any, at: int) -> str:
    red, green, blue = (colours if isinstance(colours, tuple) else colours[at])[:3]
    return "#FFFFFF" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "#000000"


def _spacing(at: np.ndarray) -> float:
    steps = np.diff(np.unique(at[np.isfinite(at)]))
    return float(steps.min()) if len(steps) else 1.0


def _text_side(position: Any) -> tuple[str, str]:
    down, _, across = str(position).partition(" ")
    return ({"left": "right", "right": "left"}.get(across, "center"),
            {"top": "bottom", "bottom": "top"}.get(down, "center"))


def _write(axes: Any, text: str, x: float, y: float, across: str, down: str, font: Any = None, ink: Any = None,
           nudge: tuple[float, float] | None = None) -> None:
    shift = nudge or ({"left": 4, "right": -4}.get(across, 0), {"bottom": 4, "top": -4}.get(down, 0))
    is_one = font is not None and isinstance(font.size, int | float | None) and isinstance(font.color, str | None)
    look = style.text_style(font if is_one else None, 11)
    if ink and not (font and font.color):
        look["color"] = ink
    axes.annotate(text, (x, y), xytext=shift, textcoords="offset points", ha=across, va=down, zorder=5,
                  annotation_clip=True, **look)


def _histogram(brush: Brush) -> Any:
    trace, axes = brush.trace, brush.axes
    flat = trace.x is None
    values = (brush.plane.y if flat else brush.plane.x).positions(trace.y if flat else trace.x)
    values = values[np.isfinite(values)]
    bins = trace.ybins if flat else trace.xbins
    if bins.size is not None and bins.start is not None and bins.end is not None:
        edges = np.arange(float(bins.start), float(bins.end) + float(bins.size) / 2, float(bins.size))
    else:
        every = np.concatenate([np.asarray(t.y if flat else t.x, float) for t in brush.siblings("histogram")])
        edges = np.histogram_bin_edges(every[np.isfinite(every)], (trace.nbinsy if flat else trace.nbinsx) or "auto")
    heights = np.histogram(values, edges)[0].astype(float)
    share = trace.histnorm or ""
    if "probability" in share or share == "percent":
        heights *= (100 if share == "percent" else 1) / max(1, heights.sum())
    if "density" in share:
        heights /= np.diff(edges) * (max(1, np.histogram(values, edges)[0].sum()) if share == "probability density"
                                     and "probability" not in share.split()[0] else 1)
    if trace.cumulative.enabled:
        heights = heights.cumsum()
    ink = {"color": brush.colours(len(heights)), "edgecolor": "white", "linewidth": 0.4, "zorder": 2.5}
    drawn = (axes.barh(edges[:-1], heights, np.diff(edges), align="edge", **ink) if flat
             else axes.bar(edges[:-1], heights, np.diff(edges), align="edge", **ink))
    return drawn[0]


def _box(brush: Brush) -> Any:
    from matplotlib.cbook import boxplot_stats
    from matplotlib.patches import Patch

    trace, axes = brush.trace, brush.axes
    flat = trace.orientation == "h" or (trace.y is None and trace.x is not None and trace.q1 is None)
    data, groups = (trace.x, trace.y) if flat else (trace.y, trace.x)
    own, values = (brush.plane.y, brush.plane.x) if flat else (brush.plane.x, brush.plane.y)
    if trace.q1 is not None:
        where = own.positions(groups if groups is not None else [trace.name or ""] * len(trace.q1))
        low = trace.lowerfence if trace.lowerfence is not None else trace.q1
        high = trace.upperfence if trace.upperfence is not None else trace.q3
        stats = [{"whislo": low[i], "q1": trace.q1[i], "med": trace.median[i], "q3": trace.q3[i], "whishi": high[i],
                  "fliers": []} for i in range(len(where))]
    else:
        numbers = values.positions(data)
        labels = own.positions(groups if groups is not None else [trace.name or ""] * len(numbers))
        labels = np.where(np.isfinite(labels), labels, 0)
        where = np.unique(labels)
        stats = [boxplot_stats(numbers[(labels == at) & np.isfinite(numbers)])[0] for at in where]
    family = brush.siblings("box")
    grouped = brush.figure.layout.boxmode == "group" and len(family) > 1
    room = 0.6 / (len(family) if grouped else 1)
    shift = (next(i for i, t in enumerate(family) if t is trace) - (len(family) - 1) / 2) * room if grouped else 0
    ink = style.rgba(brush.colour)
    axes.bxp(stats, positions=where + shift, widths=room * 0.85, orientation="horizontal" if flat else "vertical",
             patch_artist=True, showfliers=trace.boxpoints is not False, manage_ticks=False,
             boxprops={"facecolor": style.rgba(brush.colour, 0.35), "edgecolor": ink}, zorder=2.5,
             medianprops={"color": ink, "linewidth": 2}, whiskerprops={"color": ink}, capprops={"color": ink},
             flierprops={"markeredgecolor": ink, "markersize": 3.5})
    return Patch(facecolor=style.rgba(brush.colour, 0.35), edgecolor=ink)


def _heatmap(brush: Brush) -> None:
    trace, axes, plane = brush.trace, brush.axes, brush.plane
    grid = np.array([[np.nan if v is None else v for v in row] for row in trace.z], float)
    x = plane.x.positions(trace.x) if trace.x is not None else np.arange(grid.shape[1], dtype=float)
    y = plane.y.positions(trace.y) if trace.y is not None else np.arange(grid.shape[0], dtype=float)
    shared = brush.figure.layout[trace.coloraxis] if trace.coloraxis else None
    low, high = (shared.cmin, shared.cmax) if shared else (trace.zmin, trace.zmax)
    colours = style.colour_map((shared or trace).colorscale, (shared or trace).reversescale)
    mesh = axes.pcolormesh(_edges(x, grid.shape[1]), _edges(y, grid.shape[0]), np.ma.masked_invalid(grid),
                           cmap=colours, vmin=low, vmax=high, zorder=2)
    bar = shared.colorbar if shared else trace.colorbar
    # A colour axis shared by several traces has one bar, drawn with the first of them.
    first = not shared or next(t for t in brush.figure.data if t.type == "heatmap"
                               and t.coloraxis == trace.coloraxis) is trace
    if trace.showscale is not False and first:
        _colour_bar(brush, mesh, bar, brush.paper if shared else None)
    if trace.text is not None or trace.texttemplate:
        for i, j in np.ndindex(grid.shape):
            if np.isfinite(grid[i, j]):
                text = trace.text[i][j] if trace.text is not None else ""
                template = trace.texttemplate or "%{text}"
                said = re.sub(r"%\{z(?::([^}]*))?\}", lambda m, v=grid[i, j]: number(v, m[1]), template)
                said = style.words(said.replace("%{text}", str(text)))
                ink = _contrast(tuple(mesh.cmap(mesh.norm(grid[i, j]))), 0)
                _write(axes, said, x[j], y[i], "center", "center", trace.textfont, ink)


def _colour_bar(brush: Brush, mesh: Any, bar: Any, paper: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    place = brush.axes.inset_axes([1.02, 0, 0.025, 1], transform=paper or brush.axes.transAxes)
    drawn = brush.axes.figure.colorbar(mesh, cax=place)
    drawn.outline.set_visible(False)
    drawn.ax.tick_params(labelsize=8, length=2, colors=style.INK, labelfontfamily=style.families())
    drawn.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, bar.tickformat)))
    if bar.title.text:
        drawn.ax.set_title(style.words(bar.title.text), fontsize=9, color=style.INK, loc="left", parse_math=False,
                           fontfamily=style.families())


def _edges(centres: np.ndarray, count: int) -> np.ndarray:
    if len(centres) == count + 1:  # plotly takes edges as well as centres
        return centres
    if count == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


def _image(brush: Brush) -> None:
    trace, axes = brush.trace, brush.axes
    pixels = style.pixels_of(trace.source) if trace.z is None else np.asarray(trace.z, np.uint8)
    x0, y0, dx, dy = trace.x0 or 0, trace.y0 or 0, trace.dx or 1, trace.dy or 1
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(x0 - dx / 2, x0 + (width - 0.5) * dx, y0 + (height - 0.5) * dy, y0 - dy / 2),
                aspect="equal", zorder=1.5, interpolation="antialiased")
    axes.set_anchor("N")  # so that a subplot's title stands right above it


DRAW = {"bar": _bar, "box": _box, "heatmap": _heatmap, "histogram": _histogram, "image": _image, "scatter": _scatter}
