"""One way to score samples, whether the counts of a task add up over them or not.

An accuracy is a sum over the samples; a mean average precision is not: it ranks what was found in all pictures
together. So what is scored is a set of records under weights, how often each sample was drawn. Weights of one give the
score itself, drawn weights an interval, a single one the score of a sample alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from kit.samples import Sample


class Judged(Protocol):
    """Records of one stage, ready to be scored. What does not depend on the weights has been worked out already."""

    def scores(self) -> dict[str, float]:
        """Metrics of all samples; the first one is the main one."""

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The same metrics under weights.

        Args:
            weights: int64 [rows, samples], how often each sample counts.

        Returns:
            float64 [rows, metrics], in the order of ``scores``; NaN where a metric is not defined.
        """


class Sums:
    """Judged records of a task whose counts add up."""

    def __init__(self, task: Any, tallies: Sequence[Sequence[float]]) -> None:
        self._task, self._tallies = task, np.array(tallies, np.float64)

    def scores(self) -> dict[str, float]:
        """See Judged."""
        return {name: float(value) for name, value in self._task.scores(
            tuple(self._tallies.sum(axis=0).tolist())).items()}

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """See Judged. Equal sums are scored once."""
        rows, back = np.unique(weights @ self._tallies, axis=0, return_inverse=True)
        return np.array([list(self._task.scores(tuple(row)).values()) for row in rows.tolist()],
                        np.float64)[back.reshape(-1)]


def judged(task: Any, tallies: Sequence[Sequence[float]], samples: Sequence[Sample]) -> Judged:
    """A task's records of some samples, ready to be scored.

    Args:
        task: see ``kit.verification.Task``.
        tallies: what the task's ``tally`` made of each answer.
        samples: the samples that they belong to.
    """
    return task.judged(tallies, samples) if hasattr(task, "judged") else Sums(task, tallies)


def alone(records: Judged, count: int) -> list[float]:
    """The main metric of each of ``count`` samples by itself; NaN where it is not defined."""
    return records.resampled(np.eye(count, dtype=np.int64))[:, 0].tolist()
