"""Do two sets of outputs say the same? The one yardstick for export parity, graph rules and verification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kit.errors import BadInput

EQUAL = 1e-5  # at or below: the rounding of another order of float32 sums
FAILED = 1e-3  # above: not rounding any more

CAUSES = (
    ("preprocessing", "the two sides were fed different tensors: compare the inputs first, channel order included"),
    ("normalisation layers", "BatchNorm or Dropout was exported in training mode: call model.eval() before saving"),
    ("dynamic shapes", "a shape was frozen at export: run both at the size that was exported, then at another"),
    ("layout", "NCHW and NHWC, or height and width, are exchanged somewhere"),
)


@dataclass(frozen=True)
class TensorParity:
    """How far one output is from its reference, over all samples.

    Attributes:
        name: of the output in the reference.
        max_abs: largest ``|reference - other|``, in the output's units; inf where only one side is finite.
        relative: ``max_abs`` over the largest magnitude of the reference, where that is above 1. Judged by this.
        l2: Euclidean norm of the difference over that of the reference.
        cosine: of the angle between the two, 1 when both are zero.
        where: index of the worst element, with the sample's number first.
        elements: how many numbers were compared.
    """

    name: str
    max_abs: float
    relative: float
    l2: float
    cosine: float
    where: tuple[int, ...]
    elements: int

    @property
    def verdict(self) -> Literal["equal", "warning", "failed"]:
        """At or below 1e-5 equal, above 1e-3 failed, a warning between."""
        if self.relative <= EQUAL:
            return "equal"
        return "warning" if self.relative <= FAILED else "failed"

    def row(self) -> tuple[str, ...]:
        """For a table with the columns of ``PARITY_COLUMNS``."""
        return (self.name, f"{self.max_abs:.2e}", f"{self.relative:.2e}", f"{self.l2:.2e}", f"{self.cosine:.7f}",
                str(list(self.where)), self.verdict)


PARITY_COLUMNS = ("output", "max abs", "relative", "L2", "cosine", "worst at", "verdict")


class Parity:
    """Compares outputs sample by sample in constant memory; ``result()`` gives one row an output."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._samples = 0

    def add(self, reference: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
        """Take one sample's outputs. Outputs are paired by name, or by position when the names differ.

        Raises:
            BadInput: the numbers of outputs or two shapes differ.
        """
        for name, match in pair(list(reference), list(other)):
            left, right = np.asarray(reference[name]), np.asarray(other[match])
            if left.shape != right.shape:
                raise BadInput(f"Output {name!r} has shape {list(left.shape)} on one side and {list(right.shape)} on "
                               "the other.", remedy="a shape was frozen or an axis exchanged: see the model's outputs")
            self._sums.setdefault(name, _Sums()).add(left, right, self._samples)
        self._samples += 1

    def result(self) -> tuple[TensorParity, ...]:
        """One row per output seen."""
        return tuple(sums.result(name) for name, sums in self._sums.items())


def pair(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, str]]:
    """Pair output names: by name where all agree, otherwise by position.

    Raises:
        BadInput: the numbers differ.
    """
    if set(left) == set(right):
        return [(name, name) for name in left]
    if len(left) != len(right):
        raise BadInput(f"One side has {len(left)} outputs ({', '.join(left)}), the other {len(right)} "
                       f"({', '.join(right)}).", remedy="compare models with the same outputs")
    return list(zip(left, right, strict=True))


def worst(rows: Iterable[TensorParity]) -> TensorParity | None:
    """The row with the largest relative difference."""
    return max(rows, key=lambda row: row.relative, default=None)


class _Sums:
    def __init__(self) -> None:
        self.max_abs, self.scale, self.where, self.elements = -1.0, 0.0, (), 0
        self.difference, self.left, self.right, self.dot = 0.0, 0.0, 0.0, 0.0

    def add(self, left: np.ndarray, right: np.ndarray, sample: int) -> None:
        left, right = left.astype(np.float64), right.astype(np.float64)
        if not left.size:
            return
        same = (left == right) | (np.isnan(left) & np.isnan(right))  # inf - inf would be nan
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(left - right))
        gap[np.isnan(gap)] = np.inf  # finite against nan: as different as can be
        at = int(gap.argmax())
        if gap.flat[at] > self.max_abs:
            self.max_abs = float(gap.flat[at])
            self.where = (sample, *(int(i) for i in np.unravel_index(at, gap.shape)))
        a, b = np.nan_to_num(left, posinf=0, neginf=0), np.nan_to_num(right, posinf=0, neginf=0)
        self.scale = max(self.scale, float(np.abs(a).max()))
        self.elements += left.size
        self.difference += float(np.square(gap).sum())
        self.left += float((a * a).sum())
        self.right += float((b * b).sum())
        self.dot += float((a * b).sum())

    def result(self, name: str) -> TensorParity:
        norms = np.sqrt(self.left * self.right)
        cosine = self.dot / norms if norms else float(self.left == self.right)
        l2 = float(np.sqrt(self.difference / self.left)) if self.left else float(np.sqrt(self.difference))
        gap = max(self.max_abs, 0.0)
        return TensorParity(name, gap, gap / max(1.0, self.scale), l2, float(min(cosine, 1.0)), self.where,
                            self.elements)
