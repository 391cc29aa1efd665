"""Charts of a verdict: the task's metric stage by stage, and how far the tensors are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.comparison import EQUAL, FAILED, worst
from kit.need import need

if TYPE_CHECKING:
    from kit.evidence.verdict import StageRow, Verdict

BLUE, VERMILLION, GREEN, _, _, ORANGE, BLACK = COLOURS
# status -> colour and marker: never colour alone
LOOKS = {"reference": (BLACK, "diamond"), "equal": (GREEN, "circle"), "kept": (BLUE, "circle"),
         "warning": (ORANGE, "triangle-up"), "lost": (VERMILLION, "x")}
_EXACT = 1e-9  # where an error of zero is drawn on a logarithmic axis


def accuracy_waterfall(verdict: Verdict) -> Chart:
    """The main metric at every stage with its interval, and the line that no stage may cross.

    Without a task, the tensors' errors instead. What a box recorded has an open marker.
    """
    if not verdict.metric:
        return tensor_error(verdict)
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    rows, metric = verdict.rows, verdict.metric
    figure = go.Figure()
    values = [row.scores[metric] for row in rows]
    figure.add_scatter(x=[row.name for row in rows], y=values, mode="lines", line={"color": "#8A9099", "width": 1.5},
                       showlegend=False, hoverinfo="skip")
    for status, device in dict.fromkeys((row.status, row.device) for row in rows):
        colour, symbol = LOOKS[status]
        own = [row for row in rows if (row.status, row.device) == (status, device)]
        ends = [row.interval or (row.scores[metric],) * 2 for row in own]
        figure.add_scatter(
            x=[row.name for row in own], y=[row.scores[metric] for row in own], mode="markers",
            name=f"{status}, recorded on {device}" if device else status,
            marker={"color": colour, "symbol": f"{symbol}-open" if device else symbol, "size": 12},
            error_y={"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 7,
                     "array": [max(0.0, high - row.scores[metric]) for row, (_, high) in zip(own, ends, strict=True)],
                     "arrayminus": [max(0.0, row.scores[metric] - low)
                                    for row, (low, _) in zip(own, ends, strict=True)]})
    for row in rows:
        figure.add_annotation(x=row.name, y=row.scores[metric], text=f"{row.scores[metric]:.3f}", showarrow=False,
                              xanchor="left", yanchor="bottom", xshift=9, yshift=3, bgcolor="#FFFFFF")
    sign = -1 if verdict.better == "higher" else 1
    limit = values[0] + sign * verdict.allowed_loss
    figure.add_hline(y=limit, line={"color": VERMILLION, "dash": "dash", "width": 1.5})
    # Between the first two stages, where no interval is in the way.
    figure.add_annotation(x=0.5 if len(rows) > 1 else 0.2, y=limit, text=f"allowed: {limit:.3f}", showarrow=False,
                          yanchor="top" if sign < 0 else "bottom", yshift=3 * sign,
                          font={"color": VERMILLION, "size": 11})
    edges = [edge for row in rows for edge in (row.interval or ())] + values + [limit]
    room = max(max(edges) - min(edges), 0.005) * 0.15
    figure.update_layout(title=_heading(verdict), yaxis={"title": f"{metric} ({verdict.better} is better)",
                                                         "range": [min(edges) - room, max(edges) + room]},
                         xaxis={"type": "category", "categoryorder": "array", "title": "stage",
                                "categoryarray": [row.name for row in rows], "range": [-0.4, len(rows) - 0.4]},
                         showlegend=True, legend={"orientation": "h"})
    return Chart(figure, f"{metric} at each stage with {verdict.confidence:.0%} intervals: "
                 + "; ".join(_stage_words(row, metric) for row in rows)
                 + f". A loss of {verdict.allowed_loss:g} is allowed. {verdict.title()}.")


def tensor_error(verdict: Verdict) -> Chart:
    """The largest error of each output at every stage, against the first, with the limits of what counts as equal."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    rows = verdict.rows[1:]
    figure = go.Figure()
    symbols = ("circle", "square", "diamond", "triangle-up", "cross", "star")
    names = list(dict.fromkeys(parity.name for row in rows for parity in row.parity))
    for at, name in enumerate(names[:len(symbols)]):
        found = {row.name: parity.relative for row in rows for parity in row.parity if parity.name == name}
        figure.add_scatter(
            x=list(found), y=[min(max(value, _EXACT), 1e6) for value in found.values()], mode="markers+text", name=name,
            marker={"symbol": symbols[at], "size": 11, "color": COLOURS[at]}, textposition="middle right",
            text=["  exact" if value == 0 else f"  {value:.0e}" for value in found.values()])
    for limit, words in ((EQUAL, f"equal up to {EQUAL:g}"), (FAILED, f"not rounding above {FAILED:g}")):
        figure.add_hline(y=limit, line={"dash": "dash", "width": 1.5, "color": BLACK})
        figure.add_scatter(x=[rows[0].name] if rows else [], y=[limit], mode="markers", showlegend=False,
                           marker={"opacity": 0}, hoverinfo="skip")
        figure.layout.annotations += (go.layout.Annotation(
            x=1, xref="paper", y=_exponent(limit), text=words, showarrow=False, xanchor="right", yanchor="bottom",
            font={"size": 11}),)
    drawn = [y for trace in figure.data for y in trace.y]
    figure.update_layout(
        title="How far the outputs are from the first stage's",
        yaxis={"type": "log", "title": "largest error over largest value", "dtick": 1, "exponentformat": "power",
               "range": [_exponent(min(drawn)) - 0.5, _exponent(max(drawn)) + 0.5]},
        xaxis={"type": "category", "categoryorder": "array", "categoryarray": [row.name for row in rows],
               "title": "stage", "range": [-0.4, len(rows) - 0.4]},
        showlegend=len(names) > 1, legend={"orientation": "h"})
    said = [f"{row.name} {far.relative:.1e}{_recorded(row)}" for row in rows if (far := worst(row.parity))]
    return Chart(figure, f"Largest error of the outputs, relative to the largest value of {verdict.rows[0].name}: "
                 + ("; ".join(said) or "no numbers to compare")
                 + f". Up to {EQUAL:g} counts as equal, above {FAILED:g} it is not rounding.")


def _exponent(value: float) -> float:
    import math

    return math.log10(value)


def _heading(verdict: Verdict) -> str:
    if verdict.where:
        return f"{verdict.metric}: lost first at {verdict.where!r}"
    return f"{verdict.metric}: every stage keeps the answers"


def _stage_words(row: StageRow, metric: str) -> str:
    ends = "" if row.interval is None else " [{:.3f}, {:.3f}]".format(*row.interval)
    return f"{row.name} {row.scores[metric]:.3f}{ends} ({row.status}{_recorded(row)})"


def _recorded(row: StageRow) -> str:
    return f", recorded on {row.device}" if row.device else ""
