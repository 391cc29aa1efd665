"""What a search leaves on the disk while it runs: one line a trial, and the best artefact so far.

``trials.jsonl`` gets a line as each trial ends, written through to the disk; a line that a crash has cut off is left
out when it is read. ``search.json`` says what the search is about. ``best/best.json`` names the best trial and its
files, which lie beside it; it is replaced in one step, so that it always names whole files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit.errors import StaleResult
from kit.trials.space import Candidate

TRIALS, ABOUT, BEST = "trials.jsonl", "search.json", "best"


@dataclass(frozen=True)
class Trial:
    """One candidate as measured.

    Attributes:
        number: of the trial; 0 is the baseline.
        candidate: what was tried.
        state: ``measured``; ``slower``: not measured further, for it is slower than one that is accurate enough;
            ``failed``: ``why`` tells.
        ratio: its time over the baseline's, medians of the same rounds: 0.5 is twice as fast. None where it failed.
        low: end of the interval (95 %) of the ratio.
        high: the other end.
        ms: median time of a run in milliseconds, for a picture of the size only: machines are noisy.
        baseline_ms: of the baseline in the same rounds.
        loss: what accuracy it loses: the metric's loss against float, or without a metric the share of noise in the
            outputs' power (0.01 is 20 dB). None where it was not measured.
        score: the metric itself, or the signal-to-noise ratio in dB.
        first: the score on the first few samples, where the metric can be measured on them.
        samples: how many samples the loss was measured on; 0 where the metric does not tell.
        complete: on all samples, not only on the first few.
        artifact: the model file.
        size: bytes on disk.
        memory: bytes, the highest of the trial's process, both models included.
        seconds: the trial took.
        at: seconds since the search began, pauses between runs of it not counted.
        why: of a failure, or why something was not measured.
    """

    number: int
    candidate: Candidate
    state: Literal["measured", "slower", "failed"]
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    ms: float | None = None
    baseline_ms: float | None = None
    loss: float | None = None
    score: float | None = None
    first: float | None = None
    samples: int = 0
    complete: bool = False
    artifact: Path | None = None
    size: int = 0
    memory: int = 0
    seconds: float = 0.0
    at: float = 0.0
    why: str = ""

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the baseline."""
        return 1 / self.ratio if self.ratio else None

    def is_accurate(self, allowed: float) -> bool:
        """Whether its loss was measured on all samples and is at most ``allowed``."""
        return self.ratio is not None and self.complete and self.loss is not None and self.loss <= allowed


def read_trials(path: Path | str) -> tuple[Trial, ...]:
    """The trials in a log, in the order in which they ended; none where there is no file.

    May be called while the search runs.

    Raises:
        StaleResult: a line in the middle is damaged, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        return ()
    lines = path.read_bytes().split(b"\n")
    found = []
    for at, line in enumerate(lines[:-1]):  # what follows the last end of line is not whole
        try:
            found.append(_trial(json.loads(line), path.parent))
        except (ValueError, TypeError, KeyError) as error:
            raise StaleResult(f"Line {at + 1} of {path} is damaged.", remedy="remove the folder and search again",
                              detail=repr(error)) from error
    return tuple(found)


class Log:
    """The folder of one search.

    Args:
        folder: made where it is missing.
        about: what the search is about, kept in ``search.json`` for whoever reads the log.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / TRIALS
        folder.mkdir(parents=True, exist_ok=True)
        _mend(self.path)
        self.trials = list(read_trials(self.path))
        self._about = about
        self.say()

    def say(self, **more: Any) -> None:
        """Add to what ``search.json`` says."""
        self._about |= more
        replace_text(self.folder / ABOUT, json.dumps(self._about, indent=1))

    @property
    def spent(self) -> float:
        """Seconds of searching that the log stands for."""
        return max((trial.at for trial in self.trials), default=0.0)

    def add(self, trial: Trial) -> None:
        """Append a line and see it to the disk."""
        values = dataclasses.asdict(trial)
        if trial.artifact is not None:
            with contextlib.suppress(ValueError):  # another drive
                values["artifact"] = Path(os.path.relpath(trial.artifact, self.folder)).as_posix()
            values["artifact"] = str(values["artifact"])
        with self.path.open("ab") as stream:
            stream.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.trials.append(trial)


def about(folder: Path | str) -> dict[str, Any]:
    """What ``search.json`` says: ``allowed``, ``metric``, ``space``, ``title`` and more; empty while there is none."""
    path = Path(folder) / ABOUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep_best(folder: Path, trial: Trial) -> None:
    """Make a trial's files the ones in ``best/``. At every moment ``best.json`` names whole files."""
    from kit.model import external_files

    home = folder / BEST
    note = home / f"{BEST}.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8"))["trial"] == trial.number:
        return
    place = home / f"trial-{trial.number}"
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed while it copied
    place.mkdir(parents=True)
    assert trial.artifact is not None
    for file in (trial.artifact, *external_files(trial.artifact)):
        shutil.copyfile(file, place / file.name)
        _to_disk(place / file.name)
    values = {"trial": trial.number, "file": f"{place.name}/{trial.artifact.name}", "ratio": trial.ratio,
              "loss": trial.loss, "label": trial.candidate.label, "runner_settings": trial.candidate.runner_settings}
    replace_text(note, json.dumps(values, indent=1))
    for other in home.glob("trial-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)


def best(folder: Path | str) -> tuple[int, Path] | None:
    """Number and model file of the best trial so far; None before there is one."""
    note = Path(folder) / BEST / f"{BEST}.json"
    if not note.is_file():
        return None
    values = json.loads(note.read_text(encoding="utf-8"))
    return values["trial"], note.parent / values["file"]


def _trial(values: dict[str, Any], folder: Path) -> Trial:
    values["candidate"] = Candidate(**values["candidate"])
    if values["artifact"] is not None:
        values["artifact"] = Path(os.path.normpath(folder / values["artifact"]))
    return Trial(**values)


def _mend(path: Path) -> None:
    """Cut off what a killed process left of a line."""
    if path.is_file():
        whole = path.read_bytes().rpartition(b"\n")
        if whole[2]:
            with path.open("r+b") as stream:
                stream.truncate(len(whole[0]) + len(whole[1]))


def replace_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees the old text or the new one, whole."""
    half = path.with_name(f".{path.name}")
    half.write_text(text, encoding="utf-8")
    _to_disk(half)
    half.replace(path)


def _to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
