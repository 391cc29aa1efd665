"""What a stage finds otherwise than another one: which detections are lost, which are new, which have moved.

A metric says how many; this says which, for a person who looks at pictures. Truth plays no part here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kit.families.detection_metrics import Row

LEAST = 0.5  # IoU from which two boxes are of the same thing
STILL = 0.9  # IoU from which a box has not moved
KINDS = ("lost", "new", "moved")


class Found(NamedTuple):
    """One detection: class counted from 0, score, and (x1, y1, x2, y2) in pixels of the picture."""

    kind: int
    score: float
    box: tuple[float, float, float, float]


class Pair(NamedTuple):
    """The same thing as two stages found it, and how much the two boxes overlap (IoU)."""

    before: Found
    after: Found
    iou: float


@dataclass(frozen=True)
class PictureChange:
    """What became of the detections of one picture.

    Attributes:
        at: number of the sample.
        name: of the sample.
        lost: found before and not after.
        new: found after and not before.
        moved: found by both, with an IoU below 0.9.
        same: found by both, in the same place.
    """

    at: int
    name: str
    lost: tuple[Found, ...]
    new: tuple[Found, ...]
    moved: tuple[Pair, ...]
    same: tuple[Pair, ...]

    @property
    def amount(self) -> float:
        """How much has changed: the scores of what is lost or new, and for what has moved what IoU lacks to 1."""
        return sum(found.score for found in (*self.lost, *self.new)) + sum(1 - pair.iou for pair in self.moved)

    def has(self, kind: str = "", of_class: int | None = None) -> bool:
        """Whether anything changed, in one way (``lost``, ``new``, ``moved``) or any, for one class or any."""
        return any(of_class is None or self.class_of(each) == of_class
                   for name in ([kind] if kind else KINDS) for each in getattr(self, name))

    @staticmethod
    def class_of(each: Found | Pair) -> int:
        """The class of a detection, or of the two of a pair."""
        return each.before.kind if isinstance(each, Pair) else each.kind


def change(at: int, name: str, before: Iterable[Row], after: Iterable[Row], shown: float) -> PictureChange:
    """Compare what two stages found in a picture.

    Detections of the same class are paired from the largest overlap down (greedy), at an IoU of 0.5 or more, each with
    at most one. One whose score falls from just above ``shown`` to just below counts as lost: that is what a product
    with this threshold would see.

    Args:
        at: number of the sample.
        name: of the sample.
        before: rows of class, score, x1, y1, x2, y2 in pixels.
        after: likewise, of the other stage.
        shown: least score of a detection that counts.
    """
    left, right = ([Found(kind, score, tuple(box)) for kind, score, *box in rows if score >= shown]
                   for rows in (before, after))
    places = paired(left, right)
    pairs = [Pair(left[i], right[j], overlap) for i, j, overlap in places]
    lost, new = ([each for at, each in enumerate(side) if at not in taken]
                 for side, taken in ((left, {i for i, _, _ in places}), (right, {j for _, j, _ in places})))
    return PictureChange(at, name, tuple(lost), tuple(new), tuple(pair for pair in pairs if pair.iou < STILL),
                         tuple(pair for pair in pairs if pair.iou >= STILL))


def paired(left: Sequence[Found], right: Sequence[Found]) -> list[tuple[int, int, float]]:
    """Places in ``left`` and in ``right`` of what is the same thing, with its IoU, the largest first."""
    if not left or not right:
        return []
    overlap = ious(np.array([each.box for each in left]), np.array([each.box for each in right]))
    overlap[np.array([each.kind for each in left])[:, None] != np.array([each.kind for each in right])] = 0
    found, order = [], np.argsort(-overlap, axis=None, kind="stable")
    used: tuple[set[int], set[int]] = (set(), set())
    for i, j in zip(*np.unravel_index(order, overlap.shape), strict=True):
        if overlap[i, j] < LEAST:
            break
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            found.append((int(i), int(j), float(overlap[i, j])))
    return found


def ious(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes float [L, 4] and [R, 4], (x1, y1, x2, y2): float64 [L, R], 0 without area."""
    left, right = np.asarray(left, np.float64)[:, None], np.asarray(right, np.float64)[None]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    common = np.clip(sides, 0, None).prod(axis=-1)
    areas = [np.clip(side[..., 2:] - side[..., :2], 0, None).prod(axis=-1) for side in (left, right)]
    union = areas[0] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
