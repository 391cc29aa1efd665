"""How verify runs its stages: one after the other, the first one's outputs kept on disk, and how it judges them.

Memory stays flat: one model is open at a time, one sample in hand; what the first stage said waits in the scratch
folder, and of the rest only sums and what the task notes down are kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ascend.box.recorded import FAKE
from kit.comparison import EQUAL, FAILED, Parity, TensorParity, pair, worst
from kit.errors import BadInput
from kit.evidence import bootstrap
from kit.evidence.alarms import alarms_of
from kit.evidence.entries import Entry
from kit.evidence.feeding import fitted
from kit.evidence.judging import Judged, alone, judged
from kit.evidence.verdict import Change, SampleRow, StageRow, Verdict, decibels
from kit.progress import Report, part, track
from kit.samples import sample_name

if TYPE_CHECKING:
    from kit.verification import Task, VerifyOptions

Outputs = dict[str, np.ndarray]
_TEXT = 200  # characters kept of an answer that is a text


@dataclass
class Heard:
    """What one stage said over all samples, as far as it is kept."""

    entry: Entry
    parity: tuple[TensorParity, ...] = ()
    snr: list[float] = field(default_factory=list)  # a sample, decibels; NaN where no tensor could be compared
    tallies: list[tuple[float, ...]] = field(default_factory=list)
    records: Judged | None = None
    alone: list[float] = field(default_factory=list)  # main metric, a sample
    found: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    fed: set[bytes] = field(default_factory=set)  # digests of the feeds
    seen: dict[str, set[bytes]] = field(default_factory=dict)  # output -> digests of its values
    flat: dict[str, bool] = field(default_factory=dict)  # output -> one single value everywhere, always the same
    broken: list[int] = field(default_factory=list)  # samples with a NaN or an infinity
    settings: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    device: str = ""  # where the answers were recorded, or that the tools were FAKE


def run_stages(made: Sequence[Entry], samples: Any, chosen: Sequence[int], options: VerifyOptions,
               task: Task | None, scratch: Path, report: Report) -> Verdict:
    """Run and judge; the body of ``kit.verify``."""
    store = scratch / "reference"
    store.mkdir()
    heard = []
    for entry in made:
        heard.append(_listen(entry, samples, chosen, options, task, store, not heard, part(report, entry.name)))
        if task:
            stage = heard[-1]
            stage.records = judged(task, stage.tallies, [samples.items[at] for at in chosen])
            stage.alone = alone(stage.records, len(chosen))
    floor = _noise_floor(made[0], samples, chosen, options, task, store, report) if options.noise_floor else ()
    shutil.rmtree(store)  # scaffolding: no part of the result
    names = [sample_name(samples, at) for at in chosen]
    draws = [_resampled(stage, options) for stage in heard]
    rows: list[StageRow] = []
    for at in range(len(heard)):
        rows.append(_judge(at, heard, draws, rows, names, options, task, floor))
    answers = tuple(_sample_row(n, at, names[n], heard, task) for n, at in enumerate(chosen))
    return Verdict(
        rows=tuple(rows), metric=next(iter(rows[0].scores), ""), better=task.better if task else "higher",
        answers=answers, samples=len(chosen), of=len(samples), confidence=options.confidence,
        allowed_loss=options.allowed_loss, noise_floor=floor)


# ---- listening ----------------------------------------------------------------------------------------------------


def _listen(entry: Entry, samples: Any, chosen: Sequence[int], options: VerifyOptions, task: Task | None,
            store: Path, first: bool, report: Report) -> Heard:
    heard, parity, began = Heard(entry), Parity(), time.monotonic()
    with entry.open(threads=options.threads) as runner:
        for n, at, feed, outputs in _outputs(entry, runner, samples, chosen, report):
            with entry.naming(f" on {sample_name(samples, at)}"):
                tensors = _tensors(task, outputs)
                if first:
                    np.savez(store / f"{n}.npz", **{f"{i:03d} {k}": a for i, (k, a) in enumerate(tensors.items())})
                else:
                    tensors = _compared(heard, parity, load(store / f"{n}.npz"), tensors, task)
            if not hasattr(task, "tensors"):
                outputs = tensors
            _notice(heard, n, feed, tensors or outputs)
            if task:
                answer = task.answer(outputs, samples.items[at], feed)
                heard.tallies.append(tuple(float(v) for v in task.tally(answer, samples.items[at])))
                heard.found.append(int(task.count(answer)))
                heard.texts.append(answer[:_TEXT] if isinstance(answer, str) else "")
        heard.settings = entry.settings_of(runner)
        heard.device = entry.device
        if not entry.device and FAKE in heard.settings.get("runtime", ""):  # the tools of a rehearsal, live
            heard.device = heard.settings["runtime"]
            heard.entry = replace(entry, name=f"{entry.name} ({FAKE})")
        heard.notes = tuple(map(str, getattr(runner, "notes", ())))
    heard.parity, heard.seconds = parity.result(), round(time.monotonic() - began, 3)
    return heard


def _outputs(entry: Entry, runner: Any, samples: Any, chosen: Sequence[int], report: Report
             ) -> Iterator[tuple[int, int, Outputs, Outputs]]:
    for n, at in enumerate(track(chosen, report, note="running")):
        feed = fitted(samples[at], runner, getattr(samples, "scale_factor", ""))
        with entry.naming(f" on {sample_name(samples, at)}"):
            outputs = runner(feed)
        if not isinstance(outputs, dict) or not outputs:
            raise BadInput(f"{entry.name!r} answered with {type(outputs).__name__}, not with named outputs.",
                           remedy="a stage given as a function returns a dictionary of arrays")
        yield n, at, feed, {name: _plain(np.asarray(array)) for name, array in outputs.items()}


def _plain(array: np.ndarray) -> np.ndarray:
    """Texts come as Python objects from some runtimes, which cannot be kept without pickling."""
    return array.astype(str) if array.dtype.kind == "O" else array


def load(path: Path) -> Outputs:
    """The outputs kept in a file, in their order."""
    with np.load(path) as kept:
        return {name[4:]: kept[name] for name in sorted(kept.files)}


def _tensors(task: Task | None, outputs: Outputs) -> Outputs:
    """What can be compared number by number: all of it, unless the task knows better."""
    return task.tensors(outputs) if hasattr(task, "tensors") else outputs


def _compared(heard: Heard, parity: Parity, reference: Outputs, outputs: Outputs, task: Task | None) -> Outputs:
    """Take in the difference; returns the outputs under the names and in the order of the first stage's.

    A task that says what can be compared names it alike in all stages: what one of the two lacks is left out.
    """
    if hasattr(task, "tensors"):
        left, right = ({n: a for n, a in side.items() if n in reference and n in outputs}
                       for side in (reference, outputs))
        if not left:
            heard.snr.append(float("nan"))
            return outputs
    else:
        outputs = {name: outputs[other] for name, other in pair(list(reference), list(outputs))}
        left, right = numbers(reference), numbers(outputs)
    parity.add(left, right)
    heard.snr.append(min((snr_db(left[name], right[name]) for name in left), default=float("inf")))
    return outputs


def numbers(outputs: Outputs) -> Outputs:
    """Those outputs that are numbers: texts are left to the task."""
    return {name: array for name, array in outputs.items() if array.dtype.kind in "fiub"}


def snr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Power of the reference over power of the difference, in decibels; inf when equal, -inf when not finite."""
    left, right = reference.astype(np.float64), other.astype(np.float64)
    signal, noise = float(np.square(left).sum()), float(np.square(left - right).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 and np.isfinite(noise) else float("-inf")


def _notice(heard: Heard, n: int, feed: Outputs, outputs: Outputs) -> None:
    """Keep what the alarms need: is it finite, does it change with the input?"""
    heard.fed.add(b"".join(_print_of(np.asarray(array)) for array in feed.values()))
    values = numbers(outputs)
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in values.values()):
        heard.broken.append(n)
    for name, array in values.items():
        heard.seen.setdefault(name, set()).add(_print_of(array))
        level = bool(array.size) and bool((array == array.flat[0]).all())
        heard.flat[name] = heard.flat.get(name, True) and level


def _print_of(array: np.ndarray) -> bytes:
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(array).tobytes() + str(array.shape).encode(), digest_size=16).digest()


def _noise_floor(entry: Entry, samples: Any, chosen: Sequence[int], options: VerifyOptions, task: Task | None,
                 store: Path, report: Report) -> tuple[TensorParity, ...]:
    """The first stage against itself with one thread and other kernels: what the order of float sums does."""
    if entry.source is None:
        return ()
    other = {"onnx": {"graph_level": "none"}, "paddle": {"onednn": False}}.get(entry.source.kind, {})
    again = Entry(f"{entry.name} again", entry.thing, {**entry.settings, **other})
    parity = Parity()
    with again.open(threads=1) as runner:
        for n, _, _, outputs in _outputs(again, runner, samples, chosen, part(report, "rounding")):
            parity.add(numbers(load(store / f"{n}.npz")), numbers(_tensors(task, outputs)))
    return parity.result()


# ---- judging ------------------------------------------------------------------------------------------------------


def _resampled(heard: Heard, options: VerifyOptions) -> np.ndarray | None:
    """The main metric, once a resample: float64 [resamples]."""
    if heard.records is None or len(heard.tallies) < 2:
        return None
    return bootstrap.scores(heard.records, len(heard.tallies), options.resamples, options.seed)[:, 0]


def _first(scores: dict[str, float]) -> float:
    return next(iter(scores.values()))


def _judge(at: int, heard: list[Heard], draws: list[np.ndarray | None], rows: list[StageRow], names: list[str],
           options: VerifyOptions, task: Task | None, floor: tuple[TensorParity, ...]) -> StageRow:
    stage = heard[at]
    scores = stage.records.scores() if stage.records else {}
    change = _change(at, 0, heard, draws, rows, scores, options, task) if at else None
    step = _change(at, at - 1, heard, draws, rows, scores, options, task) if at else None
    deadly, alarms = alarms_of(at, heard, names, task)
    snr = min((-20 * float(np.log10(p.l2)) if p.l2 else float("inf") for p in stage.parity), default=None)
    status, why = "reference", "what the others are compared with"
    if at:
        status, why = ("lost", alarms[0]) if deadly else _status(stage, snr, change, options, task, floor)
    drawn = draws[at]
    return StageRow(
        name=stage.entry.name, status=status, why=why, runtime=stage.settings.get("runtime", "a function"),
        precision=stage.entry.precision, size=stage.entry.size, parity=stage.parity, snr_db=snr, scores=scores,
        interval=None if drawn is None else bootstrap.interval(drawn, options.confidence), change=change, step=step,
        found=sum(stage.found) if task else None, alarms=tuple(alarms), settings=stage.settings, notes=stage.notes,
        seconds=stage.seconds, device=stage.device)


def _change(at: int, other: int, heard: list[Heard], draws: list[np.ndarray | None], rows: list[StageRow],
            scores: dict[str, float], options: VerifyOptions, task: Task | None) -> Change | None:
    if task is None:
        return None
    sign = 1.0 if task.better == "higher" else -1.0
    loss = sign * (_first(rows[other].scores) - _first(scores))
    before, after = draws[other], draws[at]
    if before is None or after is None:
        return Change(rows[other].name, loss)
    low, high = bootstrap.interval(sign * (before - after), options.confidence)
    return Change(rows[other].name, loss, low, high)


def _status(stage: Heard, snr: float | None, change: Change | None, options: VerifyOptions, task: Task | None,
            floor: tuple[TensorParity, ...]) -> tuple[Any, str]:
    far = worst(stage.parity)
    exact = stage.entry.precision in ("float", "unknown") and stage.entry.name not in options.judge_by_task
    if task and change and not change.loss <= options.allowed_loss:
        return "lost", f"{task.name}: {change}; a loss of {options.allowed_loss:g} is allowed"
    if exact and far:
        spread = worst(floor)
        where = f"output {far.name!r} differs by {far.relative:.1e} of its largest value at {list(far.where)}"
        if far.relative <= EQUAL:
            return "equal", f"{where}; {EQUAL:g} counts as equal"
        if far.relative > FAILED:
            also = f" ({task.name}: {change})" if task else ""
            return "lost", f"{where}; above {FAILED:g} it is not rounding{also}"
        if spread and far.relative <= spread.relative:
            return "equal", f"{where}; rounding alone moves it by {spread.relative:.1e}"
        return "warning", f"{where}; above {EQUAL:g} it is worth a look, above {FAILED:g} it is not rounding"
    if task and change:
        return "kept", f"{task.name}: {change}; a loss of {options.allowed_loss:g} is allowed" + _reach(change, options)
    if snr is not None and snr < options.least_snr_db:
        return "lost", f"SNR {decibels(snr)}, below {options.least_snr_db:g} dB"
    return "kept", f"SNR {decibels(snr)}; without a task nobody can say what that costs"


def _reach(change: Change, options: VerifyOptions) -> str:
    far = change.high is not None and change.high > options.allowed_loss
    return ", and the interval reaches beyond: more samples would tell" if far else ""


def _sample_row(n: int, at: int, name: str, heard: list[Heard], task: Task | None) -> SampleRow:
    stages = {stage.entry.name: stage for stage in heard}
    snr = {key: stage.snr[n] for key, stage in stages.items() if stage.snr}
    return SampleRow(
        at=at, name=name,
        tallies={key: stage.tallies[n] for key, stage in stages.items()} if task else {},
        scores={key: stage.alone[n] for key, stage in stages.items()} if task else {},
        found={key: stage.found[n] for key, stage in stages.items()} if task else {},
        snr_db={key: value for key, value in snr.items() if not np.isnan(value)},
        texts={key: stage.texts[n] for key, stage in stages.items() if stage.texts and stage.texts[n]})
