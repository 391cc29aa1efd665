"""From a DB detector's probability map to boxes in reading order.

Public through ``ocr``; a file of its own because it is geometry alone and knows nothing of pictures or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.errors import BadInput


@dataclass(frozen=True)
class Box:
    """A found text region: ``quad`` float32 [4, 2] clockwise from top left, ``score`` in [0, 1]."""

    quad: np.ndarray
    score: float


def boxes_from_map(
    probabilities: np.ndarray,
    *,
    threshold: float = 0.3,
    box_threshold: float = 0.6,
    unclip: float = 1.5,
    max_boxes: int = 1000,
    scale: tuple[float, float] = (1.0, 1.0),
    size: tuple[int, int] | None = None,
    min_side: float = 3.0,
) -> list[Box]:
    """Turn a DB detector's probability map into boxes (PP-OCR's ``quad`` mode).

    Each connected region above ``threshold`` becomes its smallest turned rectangle. A region scores the map's mean
    inside that rectangle. The network was taught shrunken text, so the rectangle then grows on each side by
    area x ``unclip`` / perimeter.

    Args:
        probabilities: float [H, W] in [0, 1].
        threshold: a pixel is text above this.
        box_threshold: a region is text from this mean on.
        unclip: how much to grow; 1.5 to 2.0 is usual.
        max_boxes: regions looked at, the first ones OpenCV finds.
        scale: (sx, sy) from map pixels to the picture's, as `detector_input` gives it.
        size: (height, width) of the picture, to clip boxes to; without it the scaled map's.
        min_side: smaller rectangles are dropped, in map pixels; after growing, two pixels more are asked for.

    Returns:
        Boxes in the order found; see `sort_boxes`.

    Raises:
        BadInput: the map has not two dimensions.

    Source: Liao et al. 2020, section 3.5 (https://arxiv.org/abs/1911.08947); limits as in PaddleOCR's DBPostProcess.
    """
    import cv2

    probabilities = np.asarray(probabilities, np.float32)
    if probabilities.ndim != 2:
        raise BadInput(
            f"A probability map has two dimensions [H, W]; this one has shape {probabilities.shape}.",
            remedy="take one page and its only channel: output[0, 0]",
        )
    height, width = (round(side * step) for side, step in zip(probabilities.shape, scale[::-1], strict=True))
    height, width = size or (height, width)
    mask = (probabilities > threshold).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours[:max_boxes]:
        quad, side = _smallest_rectangle(contour)
        if side < min_side:
            continue
        score = _mean_inside(probabilities, quad)
        if score < box_threshold:
            continue
        quad, side = _smallest_rectangle(_grow(quad, unclip))
        if side < min_side + 2:
            continue
        quad = np.round(quad * np.float32(scale))
        quad = np.clip(quad, 0, np.float32([width - 1, height - 1])).astype(np.float32)
        if min(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[0] - quad[3])) > 3:
            boxes.append(Box(quad, score))
    return boxes


def sort_boxes(boxes: Sequence[Box], *, same_line: float = 10) -> list[Box]:
    """Put boxes into reading order: from top to bottom, and left to right where tops differ by < ``same_line`` px."""
    ordered = sorted(boxes, key=lambda box: (float(box.quad[0, 1]), float(box.quad[0, 0])))
    # as PP-OCR: neighbours change places while they stand on one line in the wrong order; a slanted line of many
    # fields still sorts well, since only direct neighbours are compared
    for last in range(1, len(ordered)):
        for index in range(last, 0, -1):
            left, right = ordered[index - 1].quad[0], ordered[index].quad[0]
            if abs(right[1] - left[1]) >= same_line or right[0] >= left[0]:
                break
            ordered[index - 1], ordered[index] = ordered[index], ordered[index - 1]
    return ordered


def _smallest_rectangle(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the smallest turned rectangle: corners clockwise from top left, and its shorter side."""
    import cv2

    rectangle = cv2.minAreaRect(np.asarray(points, np.float32).reshape(-1, 2))
    corners = sorted(cv2.boxPoints(rectangle).tolist())  # by x: two on the left, two on the right
    top_left, bottom_left = sorted(corners[:2], key=lambda point: point[1])
    top_right, bottom_right = sorted(corners[2:], key=lambda point: point[1])
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32), min(rectangle[1])


def _mean_inside(probabilities: np.ndarray, quad: np.ndarray) -> float:
    """Average the map inside a quad, looking only at the part of the map around it."""
    import cv2

    height, width = probabilities.shape
    x0, y0 = np.clip(np.floor(quad.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(quad.max(axis=0)).astype(int), 0, [width - 1, height - 1])
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    cv2.fillPoly(mask, [(quad - [x0, y0]).astype(np.int32)], 1)
    return float(cv2.mean(probabilities[y0 : y1 + 1, x0 : x1 + 1], mask)[0])


def _grow(quad: np.ndarray, unclip: float) -> np.ndarray:
    """Move a quad's sides outwards by area x unclip / perimeter, with round corners as the method has it."""
    import cv2
    import pyclipper

    distance = cv2.contourArea(quad) * unclip / cv2.arcLength(quad, True)
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(np.round(quad).astype(int).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    grown = offset.Execute(distance)
    return np.array(grown[0], np.float32) if grown else quad
