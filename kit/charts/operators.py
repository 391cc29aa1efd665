"""Charts of an audit: which operators a model is made of, where the work is, and what the target makes of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.inspection.findings import STATES
from kit.need import need

if TYPE_CHECKING:
    from kit.operators import Audit, OperatorRow

# Colour, pattern and word: any one of the three is enough to tell them apart.
_LOOKS = {"supported": (COLOURS[0], "", "supported"), "partly": (COLOURS[5], "/", "partly"),
          "not": (COLOURS[1], "x", "not supported")}


def operator_support(audit: Audit, most: int = 16) -> Chart:
    """Operators by number of nodes and by share of the work, marked supported, partly or not.

    Args:
        audit: of one model for one target.
        most: operators shown; those that are not simply supported come first into the choice, then the most work.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    subplots = need("plotly.subplots", to="draw charts", extra="base")
    rows = _chosen(audit, most)
    figure = subplots.make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04,
                                    subplot_titles=("nodes", "share of FLOPs, %"))
    order = [row.operator for row in reversed(rows)]
    for state in STATES:
        colour, pattern, word = _LOOKS[state]
        own = [row for row in rows if row.state == state]
        if not own:
            continue
        shares = [_percent(row, audit) for row in own]
        for column, values, words in ((1, [row.count for row in own], [f"{row.count} {word}" for row in own]),
                                      (2, shares, [f"{share:.1f}" if share >= 0.05 else "" for share in shares])):
            figure.add_trace(go.Bar(
                y=[row.operator for row in own], x=values, orientation="h", name=word, legendgroup=word,
                showlegend=column == 1, text=words, textposition="outside", cliponaxis=False,
                marker={"color": colour, "pattern": {"shape": pattern}},
                hovertext=["; ".join(row.reasons) or word for row in own]), row=1, col=column)
    figure.update_yaxes(categoryorder="array", categoryarray=order)
    most_nodes = max((row.count for row in rows), default=1)
    figure.update_xaxes(range=[0, most_nodes * 1.45], row=1, col=1)
    figure.update_xaxes(range=[0, max([_percent(row, audit) for row in rows], default=1) * 1.2 + 1], row=1, col=2)
    shown = "" if len(rows) >= len(audit.operators) - 1 else f" ({len(rows)} of {len(audit.operators)} types)"
    figure.update_layout(title=f"Operators of {audit.file} for {audit.target_title}{shown}", barmode="stack",
                         height=150 + 26 * len(rows), legend={"orientation": "h", "y": -0.12})
    return Chart(figure, _words(audit))


def _chosen(audit: Audit, most: int) -> list[OperatorRow]:
    # A Constant does nothing, and there are often so many that the other bars could not be seen.
    rows = [row for row in audit.operators if row.operator != "Constant" or row.state != "supported"]
    ranked = sorted(rows, key=lambda row: (-STATES.index(row.state), -row.flops, -row.count))[:most]
    return sorted(ranked, key=lambda row: (-row.flops, -row.count))


def _percent(row: OperatorRow, audit: Audit) -> float:
    return 100 * row.flops / audit.total_flops if audit.total_flops else 0.0


def _words(audit: Audit) -> str:
    said = [f"{len(audit.operators)} types of operators, {len(audit.nodes)} nodes, in {audit.file}, judged for "
            f"{audit.target_title}."]
    for state in STATES:
        own = [row for row in audit.operators if row.state == state]
        if own and state == "supported":
            said.append(f"{len(own)} are supported.")
        elif own:
            names = ", ".join(f"{row.operator} ({row.count})" for row in own[:6])
            said.append(f"{_LOOKS[state][2].capitalize()}: {names}{' and others' if len(own) > 6 else ''}.")
    if audit.total_flops:
        top = max(audit.operators, key=lambda row: row.flops)
        said.append(f"{top.operator} does {_percent(top, audit):.0f}% of the work.")
    return " ".join(said)
