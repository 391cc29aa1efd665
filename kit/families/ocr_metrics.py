"""How well was text found and read: matching of boxes, exact lines, wrong characters.

Kept apart from ``ocr`` because it needs other libraries (shapely, rapidfuzz) and because a device that only reads
pages never needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.errors import BadInput


@dataclass(frozen=True)
class DetectionScore:
    """Boxes found and missed over all pages; each of the three numbers lies in [0, 1], higher is better."""

    precision: float
    recall: float
    hmean: float
    matched: int
    found: int
    truth: int


def detection_score(
    found: Sequence[Sequence[np.ndarray]], truth: Sequence[Sequence[np.ndarray]], iou: float = 0.5
) -> DetectionScore:
    """Match found boxes with true ones, page by page, each with at most one.

    Pairs are taken from the best overlap down (greedy). For an ``iou`` of 0.5 or more and boxes that do not overlap
    their own kind this is the best matching there is, for no box can overlap two others that much.

    Args:
        found: per page the quads found, [4, 2] each; anything with four or more corners is fine.
        truth: per page the true quads; same number of pages.
        iou: least intersection over union that counts as found, in (0, 1].

    Returns:
        DetectionScore over all pages together. Nothing found where nothing was is perfect (1.0).

    Raises:
        BadInput: another number of pages.
    """
    if len(found) != len(truth):
        raise BadInput(
            f"{len(found)} pages of found boxes stand against {len(truth)} pages of true ones.",
            remedy="pass one list of boxes per page on both sides, empty where there is none",
        )
    matched = sum(_matches(page, true, iou) for page, true in zip(found, truth, strict=True))
    found_count, truth_count = sum(map(len, found)), sum(map(len, truth))
    precision = matched / found_count if found_count else float(truth_count == 0)
    recall = matched / truth_count if truth_count else float(found_count == 0)
    hmean = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return DetectionScore(precision, recall, hmean, matched, found_count, truth_count)


def exact_match(read: Sequence[str], truth: Sequence[str]) -> float:
    """Share of lines read without any mistake, in [0, 1]; 1.0 for no lines at all.

    Raises:
        BadInput: another number of lines.
    """
    _check_pairs(read, truth)
    return sum(a == b for a, b in zip(read, truth, strict=True)) / len(truth) if truth else 1.0


def character_error_rate(read: Sequence[str], truth: Sequence[str]) -> float:
    """Edits (insert, delete, replace one character) needed over all lines, per true character; 0 is perfect.

    Can exceed 1 where far too much was read. With no true characters at all the edits themselves are returned.

    Raises:
        BadInput: another number of lines.
    """
    from rapidfuzz.distance import Levenshtein

    _check_pairs(read, truth)
    edits = sum(Levenshtein.distance(a, b) for a, b in zip(read, truth, strict=True))
    return edits / (sum(map(len, truth)) or 1)


def page_text(lines: Sequence, *, same_line: float = 0.5) -> str:
    """Write the lines of a page as text: rows as on the page, fields of one row with two spaces between.

    Args:
        lines: objects with ``quad`` [4, 2] and ``text``, as `ocr.read_page` gives them.
        same_line: two fields stand in one row when their middles differ by less than this share of the height.
    """
    rows: list[list] = []
    for line in sorted(lines, key=lambda line: float(line.quad[:, 1].mean())):
        height = float(np.linalg.norm(line.quad[3] - line.quad[0]))
        if rows and line.quad[:, 1].mean() - rows[-1][-1].quad[:, 1].mean() < same_line * height:
            rows[-1].append(line)
        else:
            rows.append([line])
    return "\n".join("  ".join(line.text for line in sorted(row, key=lambda line: line.quad[0, 0])) for row in rows)


def _matches(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], iou: float) -> int:
    from shapely.geometry import Polygon

    found_shapes = [Polygon(np.asarray(quad, float)).buffer(0) for quad in found]  # buffer(0) mends crossed corners
    truth_shapes = [Polygon(np.asarray(quad, float)).buffer(0) for quad in truth]
    pairs = []
    for i, one in enumerate(found_shapes):
        for j, other in enumerate(truth_shapes):
            common = one.intersection(other).area
            overlap = common / (one.area + other.area - common) if common else 0.0
            if overlap >= iou:
                pairs.append((overlap, i, j))
    taken_found: set[int] = set()
    taken_truth: set[int] = set()
    for _, i, j in sorted(pairs, reverse=True):
        if i not in taken_found and j not in taken_truth:
            taken_found.add(i)
            taken_truth.add(j)
    return len(taken_found)


def _check_pairs(read: Sequence[str], truth: Sequence[str]) -> None:
    if len(read) != len(truth):
        raise BadInput(
            f"{len(read)} lines read stand against {len(truth)} true lines.",
            remedy="compare line by line; use detection_score for pages whose lines were found, not given",
        )
