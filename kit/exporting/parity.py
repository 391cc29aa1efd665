"""Do source and export answer alike? Both are run on the same inputs, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kit.comparison import Parity, TensorParity
from kit.errors import BadInput, KitError
from kit.exporting.layouts import Relayout
from kit.progress import Report, track
from kit.runner import open_runner

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One input to compare on.

    Attributes:
        what: for the reader.
        feed: the arrays.
        optional: left out when the source does not take it.
        spare: tried only while fewer than two were taken.
    """

    what: str
    feed: Feed
    optional: bool = False
    spare: bool = False


@dataclass
class Compared:
    """What came of it; ``rows`` is empty when nothing could be compared."""

    rows: tuple[TensorParity, ...] = ()
    trials: list[Trial] = field(default_factory=list)
    references: list[dict[str, np.ndarray]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reference_runtime: str = ""
    candidate_runtime: str = ""


def compare(reference: Callable[[], Any], candidate: Any, trials: Sequence[Trial], report: Report,
            relayout: Relayout = Relayout(), **settings: Any) -> Compared:  # noqa: B008
    """Run the reference on every trial, then the candidate on those it took.

    Args:
        reference: opens the reference's runner.
        candidate: what `open_runner` takes.
        trials: the inputs, as the reference takes them.
        relayout: what lies in another order in the candidate.
        settings: of the candidate's runner.

    Raises:
        BadInput: the reference takes none of them.
    """
    result = Compared()
    refusals: list[KitError] = []
    with reference() as run:
        for trial in track(trials, report, note="running the source"):
            if trial.spare and len(result.trials) > 1:
                continue
            try:
                result.references.append(run(trial.feed))
                result.trials.append(trial)
            except KitError as error:
                if not trial.optional:
                    raise
                refusals.append(error)
        result.reference_runtime = runtime_words(run)
        result.notes += run.notes
    if not result.trials:
        raise BadInput(f"The source takes none of the inputs tried: {', '.join(trial.what for trial in trials)}.",
                       remedy="give samples=, or sizes it takes: ExportOptions(probe=('x=1,3,640,640',))",
                       detail=refusals[-1].detail if refusals else "") from (refusals[-1] if refusals else None)
    if refusals:
        result.notes.append(f"{len(refusals)} made-up input(s) were left out, because the source does not take their "
                            "sizes; give others with ExportOptions(probe=...)")
    parity = Parity()
    with open_runner(candidate, **settings) as run:
        for trial, answer in track(list(zip(result.trials, result.references, strict=True)), report,
                                   note="running the ONNX model"):
            try:
                parity.add(answer, relayout.answer(run(relayout.feed(trial.feed))))
            except KitError as error:
                result.failures.append(f"{trial.what}: {error.what}")
        result.candidate_runtime = runtime_words(run)
    result.rows = parity.result()
    return result


def compare_answers(reference: Sequence[Sequence[np.ndarray]], answers: Sequence[dict[str, np.ndarray]],
                    ) -> tuple[TensorParity, ...]:
    """Compare outputs that are already there, paired by position."""
    parity = Parity()
    for expected, found in zip(reference, answers, strict=True):
        if len(expected) != len(found):
            raise BadInput(f"The layer gives {len(expected)} outputs, its saved inference model {len(found)}.",
                           remedy="return the same outputs in eval mode as the saved program has")
        parity.add(dict(zip(found, expected, strict=True)), found)
    return parity.result()


def overall(rows: Sequence[TensorParity], failures: Sequence[str]) -> str:
    """The worst verdict of all rows; a failure to run counts as failed."""
    verdicts = {row.verdict for row in rows}
    return "failed" if failures or "failed" in verdicts else "warning" if "warning" in verdicts else "equal"


def runtime_words(run: Any) -> str:
    """A runner's settings in a few words."""
    rest = ", ".join(f"{name} {value}" for name, value in run.settings.items()
                     if name in ("oneDNN", "providers", "graph level"))
    return f"{run.settings['runtime']}" + (f" ({rest})" if rest else "")
