"""Charts of a search: what every trial loses and how long it takes, and how the best so far came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import bytes_text
from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.need import need
from kit.trials.found import Found
from kit.trials.log import TRIALS, Trial

_SYMBOLS = {"onnxruntime": "circle", "openvino": "diamond"}
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_COLOURS = {"fp32": COLOURS[6], "bf16": COLOURS[0], "fp16": COLOURS[4], "int8": COLOURS[1], "int8+bf16": COLOURS[2],
            "int8-weights": COLOURS[3], "int4-weights": COLOURS[5]}
_EXACT = 80.0  # dB above which a difference from float is only that of another order of sums
_FAR = 8  # losses beyond so many times the allowed one, or dB beneath it, stand at the edge
_TICKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50)


def pareto(found: Found | Path | str) -> Chart:
    """Loss of every trial against its time, beside the float model in ONNX Runtime.

    One symbol for each runtime, one colour for each precision; names stand at the best. The line of the front joins
    the trials that no other beats in both; the pick has a ring. Open symbols were measured on a few samples only.

    Args:
        found: what ``kit.search`` gave; or the folder of a search, or its ``trials.jsonl``, also while it runs.

    Raises:
        BadInput: there is no search there, or none of its trials has ended.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    found = _opened(found)
    timed = [t for t in found.trials if t.ratio is not None]
    placed = [t for t in timed if t.loss is not None]
    unplaced = [t for t in timed if t.loss is None]
    low, high, strip = _span(found, placed, bool(unplaced))
    figure = go.Figure()
    front = found.pareto()
    if len(front) > 1:
        figure.add_scatter(x=[_loss(found, t) for t in front], y=[t.ratio for t in front], mode="lines", name="front",
                           line={"color": "#8A9099", "width": 1.5, "shape": "vh"},
                           hoverinfo="skip")
    for runtime, precision in dict.fromkeys((t.candidate.runtime, t.candidate.precision) for t in timed):
        own = [t for t in timed if (t.candidate.runtime, t.candidate.precision) == (runtime, precision)]
        symbol = _SYMBOLS.get(runtime, "square")
        figure.add_scatter(
            x=[strip if t.loss is None else _loss(found, t) for t in own], y=[t.ratio for t in own], mode="markers",
            name=f"{_RUNTIMES.get(runtime, runtime)} {_precision(precision)}",
            marker={"symbol": [symbol if t.complete else f"{symbol}-open" for t in own], "size": 9,
                    "color": _COLOURS.get(precision, COLOURS[5])},
            error_y={"type": "data", "array": [t.high - t.ratio for t in own], "thickness": 1, "width": 2,
                     "arrayminus": [t.ratio - t.low for t in own], "color": "#8A9099"},
            customdata=[t.number for t in own], hovertext=[_hover(found, t) for t in own], hoverinfo="text")
    if found.pick.loss is not None:
        figure.add_scatter(x=[_loss(found, found.pick)], y=[found.pick.ratio], mode="markers", name="pick",
                           hoverinfo="skip", marker={"symbol": "circle-open", "size": 22, "color": COLOURS[6],
                                                     "line": {"width": 2.5, "color": COLOURS[6]}})
    for trial in _named(found, front):
        figure.add_annotation(x=_loss(found, trial), y=float(np.log10(trial.ratio)), showarrow=False, xshift=14,
                              xanchor="left", text=_precision(trial.candidate.precision), font={"size": 11},
                              bgcolor="rgba(255,255,255,0.75)")
    _limits(figure, found, (low, high), strip if unplaced else None)
    figure.update_layout(title={"text": _title(found)}, height=480, legend={"orientation": "h"}, showlegend=True,
                         hoverlabel={"align": "left"}, yaxis=_time_axis([t.ratio for t in timed]),
                         xaxis={"range": [low, high], "zeroline": False, "title": {"text": _loss_title(found, placed)}})
    return Chart(figure, _words(found, front, unplaced))


def search_progress(found: Found | Path | str) -> Chart:
    """How many times as fast as the float model the best accurate trial was, as the search went on.

    Args:
        found: what ``kit.search`` gave; or the folder of a search, or its ``trials.jsonl``, also while it runs.

    Raises:
        BadInput: there is no search there, or none of its trials has ended.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    found = _opened(found)
    trials = sorted(found.trials, key=lambda t: t.at)
    best, at, speed = 1.0, [0.0], [1.0]
    for trial in trials:
        if trial.is_accurate(found.allowed) and trial.speedup > best:
            best = trial.speedup
        at.append(trial.at)
        speed.append(best)
    figure = go.Figure(go.Scatter(x=at, y=speed, mode="lines", name="best so far", hoverinfo="skip",
                                  line={"shape": "hv", "width": 2.5, "color": COLOURS[0]}))
    for name, symbol, colour, own in _kinds(found, trials):
        figure.add_scatter(x=[t.at for t in own], y=[t.speedup or 0 for t in own], mode="markers", name=name,
                           hovertext=[_hover(found, t) for t in own], hoverinfo="text",
                           marker={"symbol": symbol, "size": 9, "color": colour})
    figure.update_layout(title={"text": f"Search on {_file(found)}: {best:.2f} times as fast so far"}, showlegend=True,
                         legend={"orientation": "h"}, hoverlabel={"align": "left"},
                         xaxis={"title": {"text": "seconds of searching"}, "rangemode": "tozero"},
                         yaxis={"title": {"text": "times as fast as FP32"}, "rangemode": "tozero"})
    counts = ", ".join(f"{len(own)} {name}" for name, _, _, own in _kinds(found, trials))
    return Chart(figure, f"Speed of the best accurate trial against time: {best:.2f} times as fast as the float model "
                 f"after {at[-1]:.0f} seconds and {len(trials)} of {found.space} candidates. Trials: {counts}.")


def _opened(found: Found | Path | str) -> Found:
    if isinstance(found, Found):
        return found
    path = Path(found)
    return Found.open(path.parent if path.name == TRIALS else path)


def _limit(found: Found) -> float:
    """The allowed loss as it stands on the axis."""
    return found.allowed if found.metric else -10 * float(np.log10(max(found.allowed, 1e-20)))


def _limit_words(found: Found) -> str:
    return f"allowed: {_limit(found):g}" if found.metric else f"at least {_limit(found):.0f} dB"


def _edge(found: Found) -> float:
    """The worst that the axis shows: a far loser would press all others into a corner, so it stands here."""
    limit = _limit(found)
    return max(_FAR * limit, 0.02) if found.metric else limit - 2 * _FAR


def _loss(found: Found, trial: Trial) -> float:
    """Where a trial lies across: its loss; without a metric its signal-to-noise ratio, the axis running backwards."""
    if found.metric:
        return min(float(trial.loss), _edge(found))
    return max(min(float(trial.score), _EXACT), _edge(found))


def _loss_title(found: Found, placed: Sequence[Trial]) -> str:
    what = f"loss of {found.metric} against float" if found.metric else "output against float, dB"
    ends = []
    if not found.metric and any(t.score > _EXACT for t in placed):
        ends.append(f"{_EXACT:.0f} stands for more too")
    if any((t.loss > _edge(found)) if found.metric else (t.score < _edge(found)) for t in placed):
        ends.append(f"{_edge(found):g} stands for worse too")
    return f"{what} ({'; '.join(['further right is worse', *ends])})"


def _span(found: Found, placed: Sequence[Trial], strip: bool) -> tuple[float, float, float]:
    """Both ends of the axis, the left one first, and where trials without a loss stand."""
    limit = _limit(found)
    seen = [limit, *(_loss(found, t) for t in placed)]
    sign = 1 if found.metric else -1
    left, right = min(sign * v for v in seen), max(sign * v for v in seen)
    width = (right - left) or abs(limit) or 0.01
    at = right + 0.12 * width
    return sign * (left - 0.06 * width), sign * ((at if strip else right) + 0.1 * width), sign * at


def _limits(figure: Any, found: Found, span: tuple[float, float], strip: float | None) -> None:
    """The line of the allowed loss, the one of the float model's time, and the strip of what was not measured."""
    limit = _limit(found)
    said = _limit_words(found)
    figure.add_vline(x=limit, line={"dash": "dash", "color": COLOURS[1], "width": 1.5})
    figure.add_annotation(x=limit, y=1, yref="y domain", text=said, showarrow=False, yanchor="bottom",
                          font={"size": 11, "color": COLOURS[1]})
    figure.add_hline(y=1, line={"dash": "dot", "color": "#8A9099", "width": 1.2})
    if strip is not None:
        width = abs(span[1] - strip)
        figure.add_vrect(x0=strip - 0.7 * width, x1=strip + 0.7 * width, fillcolor="#8A9099", opacity=0.12,
                         line={"width": 0}, layer="below")
        figure.add_annotation(x=strip, y=0, yref="y domain", text="loss not<br>measured", showarrow=False,
                              yanchor="bottom", font={"size": 10})


def _time_axis(ratios: Sequence[float]) -> dict[str, Any]:
    low, high = min([*ratios, 0.9]) * 0.85, max([*ratios, 1.1]) * 1.18
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    return {"type": "log", "range": [float(np.log10(low)), float(np.log10(high))], "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks], "title": {"text": "time of a run, FP32 is 1 (less is faster)"}}


def _named(found: Found, front: Sequence[Trial]) -> list[Trial]:
    """The front's trials with room for a name: those that lie well apart from the one named before."""
    named: list[Trial] = []
    for trial in sorted({t.number: t for t in (*front, found.pick) if t.loss is not None}.values(),
                        key=lambda t: (t.number != found.pick.number, t.ratio)):
        if all(abs(np.log(trial.ratio / other.ratio)) > 0.12 for other in named):
            named.append(trial)
    return named


def _hover(found: Found, trial: Trial) -> str:
    """Everything about a trial."""
    lines = [f"<b>Trial {trial.number}: {trial.candidate.label}</b>"]
    if trial.ratio is not None:
        lines.append(f"{trial.ms:.2f} ms; {trial.speedup:.2f} times as fast as FP32"
                     f" [{1 / trial.high:.2f}, {1 / trial.low:.2f}]")
    lines.append(f"loss: {found.loss_text(trial)}" + (f", score {trial.score:.4f}" if found.metric and trial.score
                                                      is not None else ""))
    lines.append(f"{bytes_text(trial.size)} on disk, {bytes_text(trial.memory)} of memory, trial took "
                 f"{trial.seconds:.0f} s")
    lines.append(_state(found, trial) + (f": {trial.why}" if trial.why else ""))
    return "<br>".join(lines)


def _state(found: Found, trial: Trial) -> str:
    if trial.number == found.pick.number:
        return "the pick"
    if trial.state != "measured":
        return trial.state
    return "accurate enough" if trial.is_accurate(found.allowed) else "loses too much"


def _kinds(found: Found, trials: Sequence[Trial]) -> list[tuple[str, str, str, list[Trial]]]:
    looks = {"accurate enough": ("circle", COLOURS[2]), "losing too much": ("x", COLOURS[1]),
             "slower, loss not measured": ("triangle-down", COLOURS[4]), "failed": ("cross-open", COLOURS[6])}
    own: dict[str, list[Trial]] = {name: [] for name in looks}
    for trial in trials:
        own["failed" if trial.state == "failed" else "slower, loss not measured" if trial.state == "slower" else
            "accurate enough" if trial.is_accurate(found.allowed) else "losing too much"].append(trial)
    return [(name, *looks[name], members) for name, members in own.items() if members]


def _words(found: Found, front: Sequence[Trial], unplaced: Sequence[Trial]) -> str:
    failed = [t for t in found.trials if t.state == "failed"]
    said = [f"Loss against time of a run for {len(found.trials)} trials on {_file(found)}; {_limit_words(found)}.",
            f"The pick is {found.pick.candidate.label}: {found.pick.speedup:.2f} times as fast as FP32, loss "
            f"{found.loss_text(found.pick)}.",
            "The front, fastest first: " + "; ".join(
                f"{t.candidate.label} ({t.speedup:.2f} times, loss {found.loss_text(t)})" for t in front) + "."]
    if unplaced:
        said.append(f"{len(unplaced)} trials were slower than the best, so their loss was not measured.")
    if failed:
        said.append("Failed: " + "; ".join(f"{t.candidate.label} ({t.why})" for t in failed) + ".")
    return " ".join(said)


def _title(found: Found) -> str:
    return f"{_file(found)}: {len(found.trials)} trials, the pick {found.pick.speedup:.2f} times as fast as FP32"


def _file(found: Found) -> str:
    base = found.baseline.artifact
    return base.name if base is not None else "the model"


def _precision(name: str) -> str:
    return name.upper().replace("-WEIGHTS", " weights")
