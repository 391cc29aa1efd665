"""What a detector has found: ``Detections`` of a picture, read from the outputs of a graph, and scaled to the picture.

Public through ``detection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit.errors import BadInput


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture.

    Attributes:
        boxes: float32 [M, 4] as (x1, y1, x2, y2) in pixels.
        scores: float32 [M].
        classes: int64 [M], counted from 0.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def none(cls) -> Detections:
        """Nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        """The same numbers in the same order, to the last bit."""
        return isinstance(other, Detections) and all(
            np.array_equal(left, right) for left, right in zip(self.arrays(), other.arrays(), strict=True))

    __hash__ = None  # type: ignore[assignment]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, scores and classes."""
        return self.boxes, self.scores, self.classes

    def rows(self) -> list[tuple[int, float, float, float, float, float]]:
        """(class, score, x1, y1, x2, y2) of each, as plain numbers."""
        return [(int(kind), float(score), *map(float, box))
                for box, score, kind in zip(*self.arrays(), strict=True)]

    def taken(self, which: np.ndarray) -> Detections:
        """Those at these places, or where this mask is true."""
        return Detections(self.boxes[which], self.scores[which], self.classes[which])


def scale_boxes(detections: Detections, factor: Sequence[float]) -> Detections:
    """From pixels of the network's input to those of the original picture.

    Args:
        detections: in pixels of the input.
        factor: (y, x) of input over original, as PaddleDetection's ``scale_factor``.

    Raises:
        BadInput: a factor that is not above 0.
    """
    y, x = (float(value) for value in np.asarray(factor).reshape(-1))
    if not (y > 0 and x > 0):
        raise BadInput(f"A scale factor is above 0; this is ({y}, {x}).",
                       remedy="give (input height / picture height, input width / picture width)")
    return Detections(detections.boxes / np.float32([x, y, x, y]), detections.scores, detections.classes)


def read_detections(outputs: Mapping[str, np.ndarray], images: int = 1, total: int = 0) -> list[Detections]:
    """What a graph with post-processing inside has found, whichever of four forms it answers in.

    ``boxes``, ``scores``, ``classes``, ``batch`` (of ``add_nms``, a row for each box); the same without ``batch``
    ([N, total, 4], padded); Paddle's ``[M, 6]`` with a count for each picture; TensorFlow's four outputs of
    ``combined_non_max_suppression`` (boxes y1, x1, y2, x2). Rows of -1, as an Ascend chip fills up with, are left out.

    Args:
        outputs: by name.
        images: in the batch, where no row may tell: a picture in which nothing is found has none.
        total: the best so many of each picture, of equal scores those that come first; 0 for all.

    Raises:
        BadInput: none of these forms.
    """
    found = _read(outputs, images)
    return [one.taken(np.argsort(-one.scores, kind="stable")[:total]) for one in found] if total else found


def _read(outputs: Mapping[str, np.ndarray], images: int) -> list[Detections]:
    named = {name.rpartition("/")[2].partition(":")[0]: np.asarray(array) for name, array in outputs.items()}
    if {"boxes", "scores", "classes"} <= set(named):
        boxes, scores, classes = (named[name] for name in ("boxes", "scores", "classes"))
        if boxes.ndim == 2 and "batch" in named:
            return _by_image(boxes, scores, classes, named["batch"], images)
        if boxes.ndim == 3:
            return [_real(*parts) for parts in zip(boxes, scores, classes, strict=True)]
    arrays = {name: np.asarray(array) for name, array in outputs.items()}
    rows = [array for array in arrays.values() if array.ndim == 2 and array.shape[1] == 6]
    counts = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind in "iu"]
    if len(rows) == 1 and len(counts) <= 1 and len(arrays) == len(rows) + len(counts):
        count = counts[0] if counts else np.array([len(rows[0])])
        batch = np.repeat(np.arange(len(count)), count)
        return _by_image(rows[0][:, 2:], rows[0][:, 1], rows[0][:, 0], batch, len(count))
    if (found := _combined(arrays)) is not None:
        return found
    told = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items())
    raise BadInput(f"These outputs are in no form of detections that is known: {told}.",
                   remedy="use detect(outputs, heads) for a model that gives raw heads, or add_nms to put the "
                   "post-processing into its graph")


def _combined(arrays: Mapping[str, np.ndarray]) -> list[Detections] | None:
    """TensorFlow's form: boxes [N, T, 4] as y1, x1, y2, x2, scores and classes [N, T], and the count [N]."""
    boxes = [array for array in arrays.values() if array.ndim == 3 and array.shape[2] == 4]
    pair = {name: array for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"}
    counts = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind in "iu"]
    if (len(boxes), len(pair), len(counts)) != (1, 2, 1):
        return None
    # a SavedModel gives its outputs by name, not in the order of the operator
    scores, classes = (pair[name] for name in sorted(pair, key=lambda name: "class" in name.lower()))
    return [_real(b[:n][:, [1, 0, 3, 2]], s[:n], c[:n])
            for b, s, c, n in zip(boxes[0], scores, classes, counts[0], strict=True)]


def _by_image(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, batch: np.ndarray,
              images: int) -> list[Detections]:
    count = max(images, int(batch.max(initial=-1)) + 1)
    return [_real(boxes[batch == image], scores[batch == image], classes[batch == image]) for image in range(count)]


def _real(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> Detections:
    """Without the rows of -1."""
    real = classes >= 0
    return Detections(boxes[real].astype(np.float32), scores[real].astype(np.float32), classes[real].astype(np.int64))
