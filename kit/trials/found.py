"""What a search has found, read from its folder: at the end, while it runs, or after it was killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table, bytes_text
from kit.errors import BadInput, unknown
from kit.model import Model
from kit.record import Provenance
from kit.trials import log as files
from kit.trials.log import Trial

CONFIRMED = "confirmed.json"  # the figures of the best, timed against each other


@dataclass(frozen=True)
class Found(Card):
    """What a search has found: every trial, and the one that was picked. Runs as the pick: ``kit.open_runner(found)``.

    Attributes:
        trials: all, in the order of their numbers; 0 is the baseline.
        pick: the fastest that is accurate enough; the baseline where nothing faster is.
        artifact: the pick's model file.
        why: why this pick, in words.
        not_reached: what was not tried or did not work, in words.
        metric: name of the metric; "" where the output's error was judged.
        allowed: the largest loss that is accurate enough, see ``Trial.loss``.
        space: how many candidates there were.
        ended: the search came to its end before the time was over.
        seconds: spent in all.
        folder: holds ``trials.jsonl`` and ``best/``.
        float_model: digest of the float model.
    """

    trials: tuple[Trial, ...] = field(repr=False)
    pick: Trial
    artifact: Path
    why: str
    not_reached: tuple[str, ...]
    metric: str
    allowed: float
    space: int
    ended: bool
    seconds: float
    folder: Path
    float_model: str
    provenance: Provenance | None = field(default=None, compare=False)

    @classmethod
    def open(cls, folder: Path | str) -> Found:
        """What the search in ``folder`` has found so far; also while it runs and after it was killed.

        Raises:
            BadInput: there is no search, or not one trial has ended yet.
        """
        return _found(Path(folder))

    @property
    def model(self) -> Model:
        """The pick's model."""
        return Model.open(self.artifact)

    @property
    def runner_settings(self) -> dict[str, Any]:
        """How ``open_runner`` runs the pick."""
        return self.pick.candidate.runner_settings

    @property
    def baseline(self) -> Trial:
        """ONNX Runtime in FP32, with which every latency was compared."""
        return self.trials[0]

    def pareto(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both loss and latency, fastest first."""
        whole = sorted((t for t in self.trials if t.complete and t.ratio is not None),
                       key=lambda t: (t.ratio, t.loss))
        front: list[Trial] = []
        for trial in whole:
            if not front or trial.loss < front[-1].loss:
                front.append(trial)
        return tuple(front)

    def choose(self, number: int) -> Found:
        """The same search with another pick.

        Raises:
            BadInput: no such trial, it failed, or its file is gone.
        """
        chosen = next((trial for trial in self.trials if trial.number == number), None)
        if chosen is None:
            raise unknown("trial", str(number), [str(t.number) for t in self.trials], "this search")
        if chosen.artifact is None or not chosen.artifact.is_file():
            what = f"failed ({chosen.why})" if chosen.state == "failed" else "has no file any more"
            raise BadInput(f"Trial {number} {what}.", remedy="choose another, or search again with repeat raised")
        return replace(self, pick=chosen, artifact=chosen.artifact, why="chosen by hand")

    def loss_text(self, trial: Trial) -> str:
        """A trial's loss in the unit that a reader thinks in: points of the metric, or dB."""
        if trial.loss is None:
            return "not measured"
        if not self.metric:
            return f"{trial.score:.1f} dB"
        return f"{trial.loss:+.4f}" + ("" if trial.complete else f" (on {trial.samples} samples)")

    def title(self) -> str:
        if self.pick == self.baseline:
            return f"The float model stays: nothing faster among {len(self.trials) - 1} trials was accurate enough"
        return f"{self.pick.candidate.label}: {self.pick.speedup:.2f} times as fast as ONNX Runtime FP32"

    def facts(self) -> dict[str, object]:
        judged = self.metric or "output against float"
        allowed = f"{self.allowed:g}" if self.metric else f"{-10 * np.log10(max(self.allowed, 1e-20)):.0f} dB at least"
        tried = f"{len(self.trials)} of {self.space} candidates in {self.seconds:.0f} s"
        return {
            "why": self.why,
            "speed": _interval(self.pick),
            f"loss ({judged})": f"{self.loss_text(self.pick)}; allowed {allowed}",
            "size": f"{bytes_text(self.baseline.size)} -> {bytes_text(self.pick.size)}",
            "tried": tried if self.ended else f"{tried}; the time was over before the end",
            **({"not reached": " ".join(self.not_reached)} if self.not_reached else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = sorted(self.trials, key=lambda t: t.ratio if t.ratio is not None else float("inf"))
        verdict = lambda t: ("picked" if t.number == self.pick.number else "failed: " + t.why  # noqa: E731
                             if t.state == "failed" else "accurate enough" if t.is_accurate(self.allowed)
                             else t.state if t.state == "slower" else "too lossy")
        return (Table("Trials, fastest first", ("trial", "candidate", "speed", "loss", "verdict"), tuple(
            (t.number, t.candidate.label, f"{t.speedup:.2f}x" if t.speedup else "-", self.loss_text(t), verdict(t))
            for t in rows)),)


def _found(folder: Path) -> Found:
    about, trials = files.about(folder), list(files.read_trials(folder / files.TRIALS))
    if not about or not trials or trials[0].state == "failed":
        raise BadInput(f"{folder} holds no search with a trial that ended.", remedy="give the folder of a search, "
                       "<runs>/<model>/search-<fingerprint>")
    measured, path = {}, folder / CONFIRMED
    if path.is_file():
        measured = json.loads(path.read_text(encoding="utf-8"))["measured"]
        measured.pop("0", None)  # of an older search: the baseline against itself, which is 1 by definition
    trials = sorted((replace(t, **measured.get(str(t.number), {})) for t in trials), key=lambda t: t.number)
    allowed = about["allowed"]
    good = [t for t in trials if t.is_accurate(allowed)]
    # Those timed against each other and the baseline go before the others: their figures are the better ones.
    last = [t for t in good if str(t.number) in measured or t.number == 0] if measured else good
    pick = min(last, key=lambda t: (t.ratio, t.number))
    kept = files.best(folder)
    artifact = pick.artifact if pick.artifact and pick.artifact.is_file() else None
    artifact = kept[1] if artifact is None and kept and kept[0] == pick.number else artifact
    if artifact is None:
        raise BadInput(f"The files of trial {pick.number}, the best, are gone.",
                       remedy="search again with repeat raised")
    return Found(
        trials=tuple(trials), pick=pick, artifact=artifact, why=_why(pick, trials, allowed, len(measured)),
        not_reached=_not_reached(about, trials), metric=about["metric"], allowed=allowed, space=about["space"],
        ended=about["ended"], seconds=max(t.at for t in trials), folder=folder, float_model=about["float_model"])


def _why(pick: Trial, trials: Sequence[Trial], allowed: float, finalists: int) -> str:
    lossy = [t for t in trials if t.ratio is not None and t.loss is not None and not t.is_accurate(allowed)
             and t.ratio < pick.ratio]
    said = [f"{len(lossy)} faster trial{'s' if len(lossy) > 1 else ''} lost too much"] if lossy else []
    if pick.number:
        said.insert(0, "the fastest of those that are accurate enough")
    elif finalists:
        who = f"the best {finalists} were" if finalists > 1 else "the best was"
        said.insert(0, f"{who} slower than the float model, or lost too much, when measured once more")
    else:
        said.insert(0, "nothing that is accurate enough was faster than the float model")
    if pick.number and finalists > 1:
        said.append(f"the best {finalists} were timed against each other")
    return "; ".join(said)


def _not_reached(about: dict[str, Any], trials: Sequence[Trial]) -> tuple[str, ...]:
    failed = [f"Trial {t.number} failed ({t.candidate.label}): {t.why}" for t in trials if t.state == "failed"]
    left = [] if about["ended"] else ["The search has not come to its end: call it again with more seconds."]
    unconfirmed = [f"The best could not be timed against each other: {about['unconfirmed']}"] \
        if about.get("unconfirmed") else []
    return (*about["notes"], *left, *failed, *unconfirmed)


def _interval(trial: Trial) -> str:
    if trial.number == 0:
        return f"1 (baseline, {trial.ms:.2f} ms)"
    return (f"{trial.speedup:.2f}x [{1 / trial.high:.2f}, {1 / trial.low:.2f}], {trial.ms:.2f} ms against "
            f"{trial.baseline_ms:.2f} ms")
