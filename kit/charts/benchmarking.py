"""Charts of a benchmark: the times themselves, the speed-ups with their intervals, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kit.card import bytes_text
from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.need import need

if TYPE_CHECKING:
    from kit.benchmarking import Benchmark, Timing

BLUE, VERMILLION, GREEN, _, _, ORANGE, BLACK = COLOURS
LOOKS = {"baseline": (BLACK, "diamond"), "faster": (GREEN, "circle"), "slower": (VERMILLION, "x"),
         "no difference shown": (BLUE, "square")}
_ROW = 62  # CSS pixels of height for each candidate


def latency(result: Benchmark) -> Chart:
    """Every timed run as a point, with a box over each candidate's: the middle half and the median.

    What a box measured is a hatched bar up to its median: other rounds on another machine.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    figure = go.Figure()
    far = max([*(float(np.percentile(np.array(t.times_ms), 99)) for t in result.timings),
               *(row.p50_ms for row in result.recorded)]) * 1.15
    random = np.random.default_rng(0)  # the same picture each time
    beyond = 0
    for at, t in enumerate(result.timings):
        times = np.array(t.times_ms).ravel()
        beyond += int((times > far).sum())
        shown = times[times <= far]
        # A sample of the points is enough to see their spread, and keeps the figure small.
        some = shown if len(shown) <= 300 else random.choice(shown, 300, replace=False)
        figure.add_scatter(x=some.round(4).tolist(), y=(at + random.uniform(-0.32, 0.32, len(some))).round(3).tolist(),
                           mode="markers", marker={"size": 4, "opacity": 0.35, "color": COLOURS[at % len(COLOURS)]},
                           hoverinfo="skip", showlegend=False)
        quartiles = np.percentile(times, [25, 50, 75])
        figure.add_shape(type="rect", x0=quartiles[0], x1=quartiles[2], y0=at - 0.36, y1=at + 0.36,
                         line={"color": BLACK, "width": 1.2})
        figure.add_shape(type="line", x0=quartiles[1], x1=quartiles[1], y0=at - 0.36, y1=at + 0.36,
                         line={"color": BLACK, "width": 3})
        figure.add_annotation(x=quartiles[1], y=at - 0.36, text=f"{t.p50_ms:.2f} ms", showarrow=False,
                              yanchor="bottom", font={"size": 11})
    places = range(len(result.timings), len(result.timings) + len(result.recorded))
    figure.add_bar(x=[row.p50_ms for row in result.recorded], y=list(places), orientation="h", width=0.5,
                   showlegend=False, hoverinfo="skip", marker={"color": ORANGE, "pattern": {"shape": "/"}})
    for at, row in zip(places, result.recorded, strict=True):
        figure.add_annotation(x=0, y=at - 0.27, text=row.where if row.fake else f"{row.p50_ms:.2f} ms, {row.where}",
                              showarrow=False, xanchor="left", yanchor="bottom", font={"size": 11})
    count = len(result.timings) + len(result.recorded)
    hatched = "; hatched: recorded elsewhere" if result.recorded else ""
    figure.update_layout(title=f"Time of a run: every run a point, the box holds the middle half{hatched}",
                         xaxis={"title": "milliseconds a run", "range": [0, far]},
                         yaxis=_candidates(result, recorded=True), height=150 + _ROW * count)
    left_out = f" {beyond} of the slowest runs lie outside the picture." if beyond else ""
    said = "; ".join(f"{t.name} {t.p50_ms:.2f}, {t.p95_ms:.2f}" for t in result.timings)
    elsewhere = "".join(f" Hatched: {row.name}, {row.where}" + ("." if row.fake else f": median {row.p50_ms:.2f}.")
                        for row in result.recorded)
    return Chart(figure, "Milliseconds a run, median and 95th percentile over "
                 f"{result.rounds} rounds of {result.runs}: {said}.{left_out}{elsewhere}")


def speedup(result: Benchmark) -> Chart:
    """How many times as fast as the first candidate each is, with the interval; 1 means no difference."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    figure = go.Figure()
    for verdict in dict.fromkeys(t.verdict for t in result.timings):
        colour, symbol = LOOKS[verdict]
        own = [(at, t) for at, t in enumerate(result.timings) if t.verdict == verdict]
        figure.add_scatter(
            x=[t.speedup for _, t in own], y=[at for at, _ in own], mode="markers", name=verdict,
            marker={"color": colour, "symbol": symbol, "size": 12},
            error_x={"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 7,
                     "array": [max(0.0, t.high - t.speedup) for _, t in own],
                     "arrayminus": [max(0.0, t.speedup - t.low) for _, t in own]})
        for at, t in own:
            figure.add_annotation(x=t.speedup, y=at - 0.18, text=_words(t), showarrow=False, yanchor="bottom",
                                  font={"size": 11})
    figure.add_vline(x=1, line={"color": BLACK, "dash": "dash", "width": 1.2})
    top = max(max(t.high, t.speedup) for t in result.timings)
    figure.update_layout(title=f"Speed against {result.timings[0].name}", yaxis=_candidates(result),
                         xaxis={"title": "times as fast (right is faster)", "range": [0, top * 1.15]},
                         showlegend=True, legend={"orientation": "h"}, height=170 + _ROW * len(result.timings))
    return Chart(figure, f"Speed against {result.timings[0].name}, with {result.confidence:.0%} intervals: "
                 + "; ".join(f"{t.name} {t.words()}" for t in result.timings) + ".")


def memory(result: Benchmark) -> Chart:
    """Highest resident memory of each candidate's process, and the size of its files."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    figure = go.Figure()
    for name, colour, pattern, values in (
            ("peak memory", BLUE, "", [t.memory for t in result.timings]),
            ("file size", ORANGE, "/", [t.size for t in result.timings])):
        figure.add_bar(x=[value / 1e6 for value in values], y=list(range(len(values))), name=name, orientation="h",
                       marker={"color": colour, "pattern": {"shape": pattern}},
                       text=[bytes_text(value) if value else "not known" for value in values], textposition="outside")
    most = max(max(t.memory, t.size) for t in result.timings) / 1e6
    figure.update_layout(title="Peak memory of each process, and size on disk", yaxis=_candidates(result),
                         xaxis={"title": "MB", "range": [0, most * 1.2 or 1]}, barmode="group", showlegend=True,
                         legend={"orientation": "h"}, height=170 + _ROW * len(result.timings))
    return Chart(figure, "Peak memory and file size: " + "; ".join(
        f"{t.name} {bytes_text(t.memory) if t.memory else 'not known'}, "
        f"{bytes_text(t.size) if t.size else 'no file'}" for t in result.timings) + ".")


def _words(timing: Timing) -> str:
    if timing.verdict == "baseline":
        return "1 (baseline)"
    return f"{timing.speedup:.2f} [{timing.low:.2f}, {timing.high:.2f}]"


def _candidates(result: Benchmark, *, recorded: bool = False) -> dict[str, Any]:
    """The axis of candidates, the first on top: numbers, so that points can be spread around them."""
    names = [t.name for t in result.timings] + ([row.name for row in result.recorded] if recorded else [])
    return {"tickvals": list(range(len(names))), "ticktext": names, "range": [len(names) - 0.45, -0.6],
            "showgrid": False, "zeroline": False}
