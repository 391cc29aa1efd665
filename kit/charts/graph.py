"""Charts of a rewritten graph: the operators before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.need import need

if TYPE_CHECKING:
    from kit.compilation import Compiled
    from kit.graph import Fixed

MOST = 16  # operators shown; the table has all
_ROW = 34  # CSS pixels of height for each


def operator_counts(made: Fixed | Compiled) -> Chart:
    """How often each operator occurs before and after; those that changed most come first."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    before, after = made.operators_before, made.operators_after
    names = sorted({*before, *after}, key=lambda name: (-abs(after.get(name, 0) - before.get(name, 0)),
                                                        -before.get(name, 0), name))
    shown = names[:MOST]
    figure = go.Figure()
    for title, counts, colour, pattern in (("before", before, COLOURS[4], "/"), ("after", after, COLOURS[0], "")):
        values = [counts.get(name, 0) for name in shown]
        figure.add_bar(y=shown, x=values, name=title, orientation="h", text=[str(value) for value in values],
                       textposition="outside", marker={"color": colour, "pattern": {"shape": pattern}})
    totals = sum(before.values()), sum(after.values())
    more = f" ({len(names) - MOST} more did not change)" if len(names) > MOST and not _changed(
        made, names[MOST:]) else f" ({len(names) - MOST} more operators)" if len(names) > MOST else ""
    figure.update_layout(
        title=f"Operators before and after: {totals[0]} nodes became {totals[1]}", barmode="group",
        xaxis={"title": f"nodes{more}"}, yaxis={"autorange": "reversed", "type": "category"},
        legend={"orientation": "h"}, height=150 + _ROW * len(shown))
    changed = [f"{name} {before.get(name, 0)} to {after.get(name, 0)}" for name in _changed(made, names)]
    words = "; ".join(changed) if changed else "no operator's number changed"
    return Chart(figure, f"Operators of {made.model.path.name} before and after being {type(made).__name__.lower()}, "
                 f"{totals[0]} nodes and {totals[1]}: {words}.")


def _changed(made: Fixed | Compiled, names: list[str]) -> list[str]:
    return [name for name in names if made.operators_before.get(name, 0) != made.operators_after.get(name, 0)]
