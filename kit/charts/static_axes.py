"""Axes of the static picture: where each plotly subplot lies, and where each value goes on its axes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.charts import style

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Scale:
    """One axis: its plotly layout, its categories if it has any, and the place of a value on it."""

    def __init__(self, name: str, layout: Any, values: Iterable[Any]) -> None:
        self.name, self.layout = name, layout
        self.log = layout.type == "log"
        self.categories = _categories(layout, values)

    def position(self, value: Any) -> float:
        """Where one value goes, in data coordinates; a gap (None) is nan."""
        if self.categories is not None and str(value) in self.categories:
            return float(self.categories.index(str(value)))
        try:
            return float(value)
        except (TypeError, ValueError):
            return float("nan")

    def positions(self, values: Iterable[Any]) -> np.ndarray:
        """Where values go, float64."""
        return np.array([self.position(value) for value in values], float)


class Plane:
    """One subplot: a matplotlib Axes with its two scales and the part of the paper it covers."""

    def __init__(self, axes: Any, x: Scale, y: Scale, domain: tuple[float, float, float, float], second: bool) -> None:
        self.axes, self.x, self.y, self.domain, self.second = axes, x, y, domain, second
        axes.set_facecolor("none")
        axes.set_axisbelow(True)
        for scale, axis in ((x, axes.xaxis), (y, axes.yaxis)):
            if scale.log:
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log", nonpositive="clip")

    def place(self, rect: Any) -> None:
        """Put the Axes at its domain inside the paper's rectangle."""
        x0, x1, y0, y1 = self.domain
        self.axes.set_position([rect.x0 + x0 * rect.width, rect.y0 + y0 * rect.height,
                                (x1 - x0) * rect.width, (y1 - y0) * rect.height])

    def finish(self) -> None:
        """Ticks, grid, limits and titles, after the traces are drawn."""
        for side, scale in (("x", self.x), ("y", self.y)):
            self._finish_axis(side, scale)
        for name, spine in self.axes.spines.items():
            spine.set_visible(name in ("left", "bottom") and not self.second)
            spine.set_color("#8A9099")
        self.axes.tick_params(colors=style.INK, labelsize=9, length=3, color="#8A9099",
                              labelfontfamily=style.families())

    def _finish_axis(self, side: str, scale: Scale) -> None:
        from matplotlib.ticker import NullFormatter

        layout = scale.layout
        axis = getattr(self.axes, f"{side}axis")
        limits = getattr(self.axes, f"set_{side}lim")
        if layout.tickvals is not None:
            shown = layout.ticktext if layout.ticktext is not None else layout.tickvals
            axis.set_ticks(scale.positions(layout.tickvals), [style.words(text) for text in shown], minor=False)
            axis.set_minor_formatter(NullFormatter())  # a logarithmic axis would add its own between them
        elif scale.categories is not None:
            axis.set_ticks(range(len(scale.categories)), [style.words(name) for name in scale.categories])
        else:
            self._number_ticks(axis, scale)
        if scale.categories is not None:
            for label in axis.get_ticklabels():
                label.set_parse_math(False)
            limits(-0.5, len(scale.categories) - 0.5)
        if layout.range is not None:
            low, high = (10.0 ** float(v) if scale.log else scale.position(v) for v in layout.range)
            limits(low, high)
        elif layout.rangemode == "tozero" and not scale.log:
            low, high = getattr(self.axes, f"get_{side}lim")()
            limits(min(low, 0), max(high, 0))
        if layout.autorange == "reversed":
            axis.set_inverted(True)
        grid = layout.showgrid if layout.showgrid is not None else scale.categories is None and not self.second
        axis.grid(True, which="major", color=style.GRID, linewidth=0.8 if grid else 0)
        if layout.title.text:
            getattr(self.axes, f"set_{side}label")(style.words(layout.title.text),
                                                   **style.text_style(layout.title.font, 13))
        if layout.showticklabels is False or layout.visible is False:
            axis.set_tick_params(labelleft=False, labelright=False, labelbottom=False, labeltop=False, length=0)
        if layout.visible is False:
            axis.set_visible(False)
        if layout.side in ("right", "top"):
            getattr(axis, f"tick_{layout.side}")()
            axis.set_label_position(layout.side)
        if layout.tickangle is not None:
            axis.set_tick_params(rotation=-layout.tickangle)

    def _number_ticks(self, axis: Any, scale: Scale) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullFormatter

        layout = scale.layout
        if scale.log:
            axis.set_major_locator(LogLocator(numticks=9, subs=(1, 2, 5) if layout.dtick == "D2" else (1,)))
            axis.set_minor_formatter(NullFormatter())
        elif isinstance(layout.dtick, int | float):
            axis.set_major_locator(MultipleLocator(layout.dtick))
        else:
            axis.set_major_locator(MaxNLocator(layout.nticks or 7, steps=[1, 2, 2.5, 5, 10]))
        before, after, form = layout.tickprefix or "", layout.ticksuffix or "", layout.tickformat

        def said(value: float, _: Any) -> str:
            return f"{before}{number(value, form)}{after}"

        axis.set_major_formatter(FuncFormatter(said))

    def turn_long_labels(self, size: tuple[int, int]) -> None:
        """Slant category names that would run into each other, and leave some out when there are very many."""
        names, given = self.x.categories, self.x.layout
        chosen = given.tickangle is not None or given.tickvals is not None
        if names is None or chosen or not self.axes.xaxis.get_visible():
            return
        room = self.axes.get_position().width * size[0] / max(1, len(names))
        longest = max((len(line) for name in names for line in style.words(name).splitlines()), default=0)
        turned = longest * 6.6 > room
        if room < 12:
            every = int(np.ceil(12 / room))
            self.axes.xaxis.set_ticks(range(0, len(names), every), [style.words(n) for n in names[::every]])
        for label in self.axes.get_xticklabels():
            label.set(rotation=(90 if room < 22 else 35) if turned else 0,
                      ha="right" if turned and room >= 22 else "center", rotation_mode="anchor" if turned and
                      room >= 22 else "default", parse_math=False, fontfamily=style.families())


def planes(sheet: Any, figure: go.Figure, rect: Any) -> dict[tuple[str, str], Plane]:
    """A plane for each pair of axes that a trace uses, at its place on the paper."""
    pairs = list(dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data)) or [("x", "y")]
    scales: dict[str, Scale] = {}
    for name in {name for pair in pairs for name in pair}:
        layout = figure.layout[f"{name[0]}axis{name[1:]}"]
        family = {n for pair in pairs for n in pair if n[0] == name[0] and _leader(figure, n) == _leader(figure, name)}
        values = [v for trace in figure.data for n in (trace.xaxis or "x", trace.yaxis or "y") if n in family
                  for v in _values(trace, name[0])]
        scales[name] = Scale(name, layout, values)
    made: dict[tuple[str, str], Plane] = {}
    for x, y in sorted(pairs, key=lambda pair: bool(scales[pair[1]].layout.overlaying)):
        over = scales[y].layout.overlaying
        base = made.get((x, over)) if over else None
        if base is not None:
            axes, domain = base.axes.twinx(), base.domain
        else:
            domain = (*(scales[x].layout.domain or (0, 1)), *(scales[y].layout.domain or (0, 1)))
            shared = {side: next((p.axes for p in made.values() if _leader(figure, getattr(p, side).name) ==
                                  _leader(figure, name)), None) for side, name in (("x", x), ("y", y))}
            axes = sheet.add_axes((0.1, 0.1, 0.8, 0.8), sharex=shared["x"], sharey=shared["y"])
            if shared["x"] is not None or shared["y"] is not None:
                axes.tick_params(labelbottom=True, labelleft=True)
        made[x, y] = Plane(axes, scales[x], scales[y], domain, base is not None)
        made[x, y].place(rect)
    return {pair: made[pair] for pair in pairs}


def number(value: float, form: str | None = None) -> str:
    """A number as plotly writes it, under a d3 format such as ``.1%``, ``.2f`` or ``.3s`` where one is given."""
    if form and (found := re.fullmatch(r"(,?)\.?(\d*)(~?)s", form)):
        return _metric(value, int(found[2] or 3))
    if form:
        try:
            text = format(value, form.replace("~", ""))
        except ValueError:
            return f"{value:g}"
        return re.sub(r"\.?0+(?=%|$)", "", text) if "~" in form and "." in text else text
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.6g}"
    return _metric(value, 6) if abs(value) >= 1e4 else re.sub(r"e-0", "e-", f"{value:.3g}")


def _metric(value: float, digits: int) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def _leader(figure: go.Figure, name: str) -> str:
    """The axis whose range this one follows (``matches``), or itself."""
    return figure.layout[f"{name[0]}axis{name[1:]}"].matches or name


def _values(trace: Any, side: str) -> Iterable[Any]:
    if trace.type == "image":
        return ()
    given = trace[side]
    if trace.type == "box" and given is None and (side == "x") == (trace.orientation != "h"):
        return () if trace[f"{side}0"] is not None else (trace.name or "",)
    return () if given is None else given


def _categories(layout: Any, values: Iterable[Any]) -> list[str] | None:
    if layout.type in ("linear", "log"):
        return None
    seen = list(dict.fromkeys(str(value) for value in values if value is not None))
    if layout.type != "category" and (not seen or all(_is_number(text) for text in seen)):
        return None
    fixed = [str(name) for name in (layout.categoryarray if layout.categoryarray is not None else ())]
    names = [*fixed, *(name for name in seen if name not in fixed)]
    order = layout.categoryorder or ""
    if order.startswith("category "):
        names = sorted(names, reverse=order.endswith("descending"))
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
