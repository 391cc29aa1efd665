"""Which layers go into INT8: what each costs the output, with a tick for each, and what the ticks add up to."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from kit.charts.quantization import sensitivity_bars
from kit.errors import unknown
from kit.int8.noise import decibels
from kit.layers import Sensitivity
from kit.need import need
from kit.ui.view import View

_SHOWN = 15  # rows before the rest is asked for: every row is three widgets that a browser has to draw
_STYLE = """<style>
.kit-panel .kit-layer { flex-flow: row wrap; align-items: center; min-height: 26px; margin: 0; overflow: visible; }
.kit-panel .kit-layer .widget-checkbox { width: 26em; max-width: 100%; margin: 0; }
.kit-panel .kit-layer .widget-checkbox label { width: 100%; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; display: block; }
.kit-panel .kit-cost { flex: 1 1 20em; margin: 0; }
.kit-panel .kit-cost > div { width: 100%; }
.kit-panel .kit-cost .kit-bar { display: flex; align-items: center; gap: 8px; white-space: nowrap; width: 100%; }
.kit-panel .kit-cost .kit-bar i { display: block; height: 14px; flex: none; background: #0072B2; min-width: 1px; }
.kit-panel .kit-cost .kit-out i { background: repeating-linear-gradient(45deg, #0072B2 0 2px, transparent 2px 6px);
  outline: 1px solid #0072B2; outline-offset: -1px; }
.kit-panel .kit-sum { font-size: 1.05em; margin: 4px 2px; }
</style>"""


def layers(sensitivity: Sensitivity) -> LayerView:
    """See what each layer costs, and tick which of them go into INT8.

    Args:
        sensitivity: what ``kit.sensitivity`` found, of either direction.

    Raises:
        MissingTool: ipywidgets is not installed.
    """
    return LayerView(sensitivity)


class LayerView(View):
    """What ``layers`` returns. ``get()`` gives the names of the nodes to keep in float; none where all are ticked.

    Attributes:
        ticks: name of each group in view -> its checkbox.
        find: the filter.
    """

    def __init__(self, sensitivity: Sensitivity) -> None:
        what = sensitivity.by
        more = " A tensor stays in float with the nodes that make and read it." if what == "tensor" else ""
        super().__init__(f"{what.capitalize()}s in INT8", f"A ticked {what} goes into INT8, one without a tick stays "
                         f"in float. Dearest first, by the noise that each adds to the output.{more}")
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self.sensitivity = sensitivity
        self._groups = {group.name: group for group in sensitivity.groups}
        self._float: set[str] = set()
        self._rows: dict[str, tuple[Any, Any, Any]] = {}
        self._open, self._busy = False, False
        self.find = widgets.Text(description="Find", placeholder=f"part of a {what}'s or operator's name",
                                 style={"description_width": "3em"}).add_class("kit-list")
        self.spare = widgets.Button(description="Float until 80% of the noise is gone", layout={"width": "auto"})
        self.all = widgets.Button(description="All INT8", layout={"width": "auto"})
        self.more = widgets.Button(layout={"width": "auto"})
        self._sum, self._list = widgets.HTML().add_class("kit-sum"), widgets.VBox()
        buttons = widgets.HBox([self.spare, self.all]).add_class("kit-buttons")
        self.box.children = (self._head, widgets.HTML(_STYLE), self.find, buttons, self._sum, self._list, self.more,
                             self._call)
        self.find.observe(lambda _: self._fill(), "value")
        self.spare.on_click(lambda _: self.keep_float(dearest(sensitivity)))
        self.all.on_click(lambda _: self.keep_float(()))
        self.more.on_click(lambda _: self._unfold())
        self._fill()
        self._tell()

    @property
    def ticks(self) -> dict[str, Any]:
        """Name of each layer drawn so far -> its checkbox, ticked for INT8."""
        return {name: row[1] for name, row in self._rows.items()}

    def get(self) -> tuple[str, ...]:
        """Names of the nodes to keep in float, for ``QuantizeOptions.keep_float``."""
        nodes = (node for group in self.sensitivity.groups if group.name in self._float for node in group.nodes)
        return tuple(dict.fromkeys(nodes))  # tensors share nodes

    def keep_float(self, groups: Iterable[str]) -> None:
        """Tick all layers but these; from code what the ticks do.

        Raises:
            BadInput: no such layer.
        """
        wanted = set(groups)
        for name in wanted - self._groups.keys():
            raise unknown(self.sensitivity.by, name, self._groups)
        self._float, self._busy = wanted, True
        for name, (_, tick, _cost) in self._rows.items():
            tick.value = name not in wanted
        self._busy = False
        for name in self._rows:
            self._draw(name)
        self._tell()

    def picture(self) -> Any:
        """The same costs as a chart."""
        return sensitivity_bars(self.sensitivity)

    # ---- what the widgets do ------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Show the rows that fit what is typed: the dearest, and the others once they are asked for."""
        word = self.find.value.strip().lower()
        names = [g.name for g in self.sensitivity.groups
                 if word in g.operator.lower() or any(word in node.lower() for node in (g.name, *g.nodes))]
        shown = names if self._open else names[:_SHOWN]
        self._list.children = tuple(self._row(name)[0] for name in shown)
        rest = len(names) - len(shown)
        noise = sum(self._groups[name].noise for name in names[len(shown):])
        self.more.layout.display = "" if rest or (self._open and len(names) > _SHOWN) else "none"
        self.more.description = "Show fewer" if self._open else (
            f"Show {rest} more ({noise / _total(self.sensitivity):.1%} of the noise together)")

    def _unfold(self) -> None:
        self._open = not self._open
        self._fill()

    def _row(self, name: str) -> tuple[Any, Any, Any]:
        """The widgets of a layer, made when it is first shown."""
        if name not in self._rows:
            widgets = need("ipywidgets", to="show a panel", extra="ui")
            group = self._groups[name]
            others = f" + {len(group.nodes) - 1}" if len(group.nodes) > 1 else ""
            tick = widgets.Checkbox(value=name not in self._float, indent=False,
                                    description=f"{name} ({group.operator}{others})",
                                    tooltip="INT8 where ticked: " + ", ".join(group.nodes))
            tick.observe(lambda change: self._ticked(name, change["new"]), "value")
            cost = widgets.HTML().add_class("kit-cost")
            self._rows[name] = (widgets.HBox([tick, cost]).add_class("kit-layer"), tick, cost)
            self._draw(name)
        return self._rows[name]

    def _ticked(self, name: str, is_int8: bool) -> None:
        if self._busy:
            return
        (self._float.discard if is_int8 else self._float.add)(name)
        self._draw(name)
        self._tell()

    def _draw(self, name: str) -> None:
        group, total = self._groups[name], _total(self.sensitivity)
        share, widest = group.noise / total, max(g.noise for g in self.sensitivity.groups) or 1.0
        is_float = name in self._float
        said = f"{share:.1%} of the noise" + (f", metric {group.metric:.4g}" if group.metric is not None else "")
        said += ", in float" if is_float else ""
        look = "kit-bar kit-out" if is_float else "kit-bar"
        self._rows[name][2].value = (f'<div class="{look}"><i style="width:{55 * group.noise / widest:.1f}%"></i>'
                                     f"<span>{escape(said)}</span></div>")

    def _tell(self) -> None:
        """The running sum, and the equal call."""
        ranking, kept = self.sensitivity, self.get()
        count, what = len(self._float), ranking.by
        if not count:
            said = f"All in INT8: output measured at {ranking.sqnr:.1f} dB."
        elif count == len(self._groups):
            said = f"All of these {what}s in float: they add no noise."
        else:
            said = (f"{count} of {len(self._groups)} {what}s in float: estimated output "
                    f"{estimated(ranking, self._float):.1f} dB (all in INT8: {ranking.sqnr:.1f} dB, measured). "
                    "Noise adds up only roughly: quantize and verify tell how it came out.")
        if ranking.metric_float is not None:
            said += f" Metric: {ranking.metric_float:.4g} in float, {ranking.metric_int8:.4g} with all in INT8."
        if ranking.untried:
            said += f" Not tried, and taken as INT8: {len(ranking.untried)} {what}s."
        self._sum.value = f'<span role="status">{escape(said)}</span>'
        options = f"kit.QuantizeOptions(keep_float={kept!r})" if kept else "kit.QuantizeOptions()"
        self._show_call(f"kit.quantize(model, calibration, {options})")


def estimated(sensitivity: Sensitivity, in_float: Iterable[str]) -> float:
    """What the output should reach, in dB, with some groups in float: their share of the noise is taken off.

    Args:
        sensitivity: of either direction; what was measured with all in INT8 is the start.
        in_float: names of groups.
    """
    kept = set(in_float)
    left = sum(group.noise for group in sensitivity.groups if group.name not in kept)
    return decibels(10 ** (-sensitivity.sqnr / 10) * left / _total(sensitivity))


def dearest(sensitivity: Sensitivity, share: float = 0.8) -> tuple[str, ...]:
    """The dearest groups that make up this share of the noise together, as few as will do."""
    total = _total(sensitivity)
    found, left = [], total
    for group in sensitivity.groups:
        if left <= (1 - share + 1e-9) * total:  # sums of shares are not exact
            break
        found.append(group.name)
        left -= group.noise
    return tuple(found)


def _total(sensitivity: Sensitivity) -> float:
    return sum(group.noise for group in sensitivity.groups) or 1.0
