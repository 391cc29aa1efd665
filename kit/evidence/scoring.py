"""A task as a number: what a search or a ranking maximises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from kit.errors import BadInput, unknown
from kit.evidence.feeding import fitted
from kit.evidence.judging import judged
from kit.record import digest
from kit.samples import Samples
from kit.verification import evenly


@dataclass(frozen=True)
class TaskScore:
    """A metric: ``score(runner)`` runs the samples and gives one number, larger is better.

    Attributes:
        task: turns outputs into answers and answers into scores, see ``kit.verification.Task``.
        samples: with their truths.
        name: of one of the task's scores; the main one by default.
        better: whether more or less of it is better; as the task says by default. Of less, the negative is given.
    """

    task: Any
    samples: Samples
    name: str = ""
    better: Literal["higher", "lower"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.samples, Samples) or not len(self.samples):
            raise BadInput("A task is scored on Samples with their truths.", remedy="make them with kit.Samples; a set "
                           "of labelled pages with kit.families.ocr_tasks.pages or lines")
        if not self.name:
            object.__setattr__(self, "name", self.task.name)
        if self.better is None:
            object.__setattr__(self, "better", self.task.better)

    def __len__(self) -> int:
        return len(self.samples)

    def subset(self, count: int) -> TaskScore:
        """The same score on at most ``count`` samples, evenly spread: sets come sorted."""
        items = tuple(self.samples.items[at] for at in evenly(len(self.samples), count))
        return replace(self, samples=replace(self.samples, items=items))

    def __call__(self, runner: Any) -> float:
        """Score an open runner.

        Raises:
            BadInput: the task has no score of that name; names the closest.
        """
        tallies = []
        for item, feed in zip(self.samples.items, self.samples, strict=True):
            fed = fitted(feed, runner, self.samples.scale_factor)
            tallies.append(self.task.tally(self.task.answer(runner(fed), item, fed), item))
        scores = judged(self.task, tallies, self.samples.items).scores()
        if self.name not in scores:
            raise unknown("score", self.name, scores, type(self.task).__name__)
        return float(scores[self.name] if self.better == "higher" else -scores[self.name])

    def digest(self) -> str:
        """Of the task, the samples and their truths."""
        truths = repr([item.truth for item in self.samples.items])  # a sample leaves its truth out of its digest
        return digest([self.task, self.samples, truths, self.name, self.better])
