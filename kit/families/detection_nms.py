"""Non-maximum suppression in numpy, exactly as ONNX's operator does it in ONNX Runtime.

Public through ``detection``. The rules, all in float32:

- a box is a candidate where its score is above ``score_threshold``, not at it;
- candidates come by falling score; of equal scores the one with the lower index comes first;
- a candidate goes where its IoU with one that was kept before is above ``iou``; at the threshold it stays;
- IoU is 0 where the two do not overlap, or where one has no area; corners may be given in either order.

Source: ONNX Runtime, non_max_suppression.cc and non_max_suppression_helper.h in
onnxruntime/core/providers/cpu/object_detection. TensorFlow's NonMaxSuppressionV3 to V5 have the same rules. Others
differ for ties (``benchmarks/nms_equality.py`` counts how often, and shows that these rules account for all of it):

- ``tf.image.combined_non_max_suppression`` takes equal scores in the order of a binary heap
  (tensorflow/core/kernels/image/non_max_suppression_op.cc, DoNMSPerClass);
- TensorFlow's sigmoid may round equal logits apart, by where they stand in the array, so that they are no tie;
- Paddle's ``multiclass_nms3`` drops a box without area that lies on another one without area, since 0/0 is not at or
  below the threshold, and its ``nms_top_k`` limits the candidates, not the boxes that are kept
  (paddle/phi/kernels/cpu/multiclass_nms3_kernel.cc, JaccardOverlap, NMSFast and GetMaxScoreIndex).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from kit.errors import BadInput
from kit.families.detection_boxes import Detections
from kit.families.detection_heads import Heads, decode
from kit.options import Help, Options, Range

MOST = 2**31 - 1
BLOCK = 256  # candidates looked at together


@dataclass(frozen=True)
class NmsOptions(Options):
    """Which boxes stay."""

    score_threshold: Annotated[float, Range(-1, 1, 0.01), Help(
        "a box counts above this score, not at it; -1 lets every probability count")] = 0.25
    iou: Annotated[float, Range(0, 1, 0.05), Help(
        "a box goes that overlaps a better one by more than this (intersection over union)")] = 0.5
    most: Annotated[int, Range(1, MOST), Help(
        "kept for each class of a picture; of all classes together where class_agnostic")] = 100
    total: Annotated[int, Range(0, MOST), Help("the best so many of a picture, over all classes; 0 for no limit")] = 0
    class_agnostic: Annotated[bool, Help(
        "each place counts with its best class only (of equal ones the first), and boxes of different classes "
        "suppress each other")] = False


@dataclass(frozen=True)
class AddNmsOptions(NmsOptions):
    """Which boxes stay, and in which form the graph gives them."""

    form: Annotated[Literal["rows", "padded"], Help(
        "rows: one for each box kept, with the number of its picture; padded: [pictures, total], filled up with -1, "
        "so that every shape is fixed")] = "rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "padded" and not self.total:
            raise BadInput("The padded form needs to know how many rows it has.",
                           remedy="give total=, such as AddNmsOptions(form='padded', total=100)")


def detect(outputs: Mapping[str, np.ndarray], heads: Heads,
           options: NmsOptions = NmsOptions()) -> list[Detections]:
    """From raw outputs to what was found in each picture: ``decode``, then ``nms``.

    Raises:
        BadInput: an output is missing or has another shape.
    """
    return nms(*decode(outputs, heads), options)


def nms(boxes: np.ndarray, scores: np.ndarray,
        options: NmsOptions = NmsOptions()) -> list[Detections]:
    """Keep the best of boxes that overlap.

    Args:
        boxes: float32 [N, A, 4], (x1, y1, x2, y2).
        scores: float32 [N, A, C].
        options: thresholds and limits.

    Returns:
        One ``Detections`` for each picture. In order of class, falling score, index; with ``total`` in order of
        falling score, class, index. Class-agnostic: of falling score, index.

    Raises:
        BadInput: shapes that do not belong together.
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[:2] != scores.shape[:2] or boxes.shape[2] != 4:
        raise BadInput(f"Boxes are [N, A, 4] and scores [N, A, C]; these are {list(boxes.shape)} and "
                       f"{list(scores.shape)}.", remedy="pass what decode(outputs, heads) gives")
    by_class = scores.transpose(0, 2, 1)
    best = None
    if options.class_agnostic and by_class.shape[1]:
        best = by_class.argmax(axis=1)
        by_class = by_class.max(axis=1, keepdims=True)
    rows = select(boxes, by_class, options.score_threshold, options.iou, options.most)
    found = []
    for image in range(len(boxes)):
        _, kinds, places = rows[rows[:, 0] == image].T
        one = Detections(boxes[image, places], by_class[image, kinds, places],
                         kinds if best is None else best[image, places])
        if options.total:
            first = np.lexsort((places, kinds, -one.scores))[: options.total]
            one = one.taken(first)
        found.append(one)
    return found


def select(boxes: np.ndarray, scores: np.ndarray, score_threshold: float, iou: float, most: int) -> np.ndarray:
    """ONNX's NonMaxSuppression with ``center_point_box`` 0.

    Args:
        boxes: float32 [N, A, 4], two opposite corners; x and y may be in either order.
        scores: float32 [N, C, A].
        score_threshold: candidates are above it.
        iou: what overlaps more than this goes.
        most: kept for each class of each picture.

    Returns:
        int64 [M, 3]: picture, class and index of the box, by picture, class and falling score.
    """
    first, second = boxes[..., :2], boxes[..., 2:]
    low, high = np.minimum(first, second), np.maximum(first, second)
    sides = high - low
    area = sides[..., 0] * sides[..., 1]
    threshold, limit = np.float32(score_threshold), np.float32(iou)
    rows = []
    for image, kinds in enumerate(scores):
        for kind, row in enumerate(kinds):
            candidates = np.flatnonzero(row > threshold)
            order = candidates[np.argsort(-row[candidates], kind="stable")]
            kept = _kept(low[image, order], high[image, order], area[image, order], limit, most)
            rows += [(image, kind, index) for index in order[kept]]
    return np.array(rows, np.int64).reshape(-1, 3)


def _kept(low: np.ndarray, high: np.ndarray, area: np.ndarray, limit: np.float32, most: int) -> list[int]:
    """Places of the boxes that stay, the best first.

    Block by block: first go those that overlap one kept before, then each one kept strikes out others of its block.
    """
    corners = (*low.T.copy(), *high.T.copy(), area)  # columns of their own are read faster
    kept: list[int] = []
    for start in range(0, len(area), BLOCK):
        alive = np.arange(start, min(start + BLOCK, len(area)))
        if kept:
            before = np.array(kept)[:, None]
            alive = alive[~_over([part[before] for part in corners], [part[alive] for part in corners], limit).any(0)]
        while len(alive) and len(kept) < most:
            at, alive = alive[0], alive[1:]
            kept.append(at)
            alive = alive[~_over([part[at] for part in corners], [part[alive] for part in corners], limit)]
        if len(kept) == most:
            break
    return kept


def _over(one: Sequence[np.ndarray], two: Sequence[np.ndarray], limit: np.float32) -> np.ndarray:
    """Is the IoU above the limit? Boxes are two lower sides, two upper ones, and the area."""
    width = np.minimum(one[2], two[2]) - np.maximum(one[0], two[0])
    height = np.minimum(one[3], two[3]) - np.maximum(one[1], two[1])
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        common = width * height
        union = one[4] + two[4] - common
        over = common / union > limit
    return over & (width > 0) & (height > 0) & (common > 0) & (one[4] > 0) & (two[4] > 0) & (union > 0)
