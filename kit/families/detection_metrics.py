"""Mean average precision, computed by pycocotools, and again quickly for thousands of resampled sets of pictures.

pycocotools matches what was found with what is there, picture by picture; that is done once. What follows, ranking all
pictures' detections together, depends on which pictures there are, so it is done anew for every resample: in numpy, on
the places where recall rises, which are few. ``MeanPrecision`` keeps both; a test holds them against each other.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.need import need

MAIN, STRICT = "mAP@0.5", "mAP@0.5:0.95"
MOST = 100  # detections of a class in a picture that count, the best ones: COCO's limit

Row = tuple[int, float, float, float, float, float]  # class, score, x1, y1, x2, y2


@dataclass(frozen=True)
class ImageTruth:
    """What is in a picture.

    Attributes:
        width: of the picture, pixels.
        height: likewise.
        boxes: (x1, y1, x2, y2) of each thing, pixels.
        classes: the class of each, counted from 0.
        crowd: whether a box holds many that are not told apart: finding something in it is neither right nor wrong.
    """

    width: int
    height: int
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    classes: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()


@dataclass(frozen=True)
class _Ranked:
    """What one class at one IoU looks like from the places where recall rises, best score first.

    Attributes:
        owner: the picture of each right detection, [rights].
        wrong: how many wrong ones each picture has before it, float64 [pictures, rights].
    """

    owner: np.ndarray
    wrong: np.ndarray


class MeanPrecision:
    """The average precision of what was found in a set of pictures (see ``kit.evidence.judging.Judged``).

    Made for sets of up to some thousands of pictures: memory grows with pictures times things in them.

    Args:
        found: for each picture what was found, rows of class, score, x1, y1, x2, y2 in pixels.
        truths: for each picture what is there.
        classes: names.

    Raises:
        BadInput: no classes, another number of pictures, or a class that has no name.
        MissingTool: pycocotools is not installed.
    """

    def __init__(self, found: Sequence[Sequence[Row]], truths: Sequence[ImageTruth], classes: Sequence[str]) -> None:
        _check(found, truths, classes)
        self._classes, self._count = tuple(classes), len(truths)
        self._coco = _matched(found, truths, len(classes))
        self._recalls = np.asarray(self._coco.params.recThrs)
        self._there = np.zeros((len(classes), len(truths)))
        self._ranked = [self._rank(at) for at in range(len(classes))]

    def scores(self) -> dict[str, float]:
        """mAP@0.5, mAP@0.5:0.95 and the AP@0.5 of each class as pycocotools gives them; NaN for what is not there."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.accumulate()
        precision = self._coco.eval["precision"][:, :, :, 0, 0]  # [IoUs, recalls, classes], -1 for absent classes
        return {MAIN: _mean(precision[0]), STRICT: _mean(precision),
                **{class_score(name): _mean(precision[0, :, at]) for at, name in enumerate(self._classes)}}

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The same under weights, see Judged. Of equal scores, the earlier picture's comes first, as in pycocotools."""
        each = np.stack([[self._precision(at, ranked, weights) for ranked in of_class]
                         for at, of_class in enumerate(self._ranked)])  # [classes, IoUs, rows]
        there = ~np.isnan(each[:, 0])
        count = there.sum(axis=0)
        with np.errstate(invalid="ignore"):
            main = np.where(there, each[:, 0], 0).sum(axis=0) / count
            strict = np.where(there, each.mean(axis=1), 0).sum(axis=0) / count
        return np.stack([main, strict, *each[:, 0]], axis=1)

    def _rank(self, at: int) -> list[_Ranked]:
        """One class: pycocotools' matches in the order of all pictures' scores, an entry for each IoU."""
        of_class = self._coco.evalImgs[at * self._count:(at + 1) * self._count]
        known = [(image, each) for image, each in enumerate(of_class) if each is not None]
        for image, each in known:
            self._there[at, image] = np.count_nonzero(np.asarray(each["gtIgnore"]) == 0)
        ious = len(self._coco.params.iouThrs)
        if not known:
            return [_Ranked(np.zeros(0, np.int64), np.zeros((self._count, 0)))] * ious
        scores = np.concatenate([each["dtScores"] for _, each in known])
        owner = np.repeat([image for image, _ in known], [len(each["dtScores"]) for _, each in known])
        order = np.argsort(-scores, kind="mergesort")
        matched = np.concatenate([each["dtMatches"] for _, each in known], axis=1)[:, order] > 0
        ignored = np.concatenate([each["dtIgnore"] for _, each in known], axis=1)[:, order].astype(bool)
        owner = owner[order].astype(np.int64)
        made = []
        for right, wrong in zip(matched & ~ignored, ~matched & ~ignored, strict=True):
            rights, wrongs = np.flatnonzero(right), np.flatnonzero(wrong)
            before = np.zeros((self._count, len(rights)))
            behind = np.searchsorted(rights, wrongs)  # the first right one that comes after each wrong one
            counts = behind < len(rights)
            np.add.at(before, (owner[wrongs[counts]], behind[counts]), 1)
            made.append(_Ranked(owner[rights], before.cumsum(axis=1)))
        return made

    def _precision(self, at: int, ranked: _Ranked, weights: np.ndarray) -> np.ndarray:
        """AP of one class at one IoU, float64 [rows]; NaN where nothing of the class is there.

        Precision counts at 101 recalls, each time the best at that recall or beyond. Recall rises at right detections
        only; so each of these stands for the recalls between the one before and itself.
        """
        there = weights @ self._there[at]
        with np.errstate(invalid="ignore", divide="ignore"):
            if not ranked.owner.size:
                return np.where(there > 0, 0.0, np.nan)
            right = weights[:, ranked.owner].cumsum(axis=1).astype(np.float64)
            wrong = weights @ ranked.wrong
            recall = right / there[:, None]
            precision = right / (wrong + right + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(self._recalls, np.nan_to_num(recall), side="right")
        covered = np.diff(reached, axis=1, prepend=0)
        return np.where(there > 0, (covered * best).sum(axis=1) / len(self._recalls), np.nan)


def class_score(name: str) -> str:
    """What the average precision of a class is called among the scores."""
    return f"AP@0.5 {name}"


def _matched(found: Sequence[Sequence[Row]], truths: Sequence[ImageTruth], classes: int) -> Any:
    """A COCOeval that has matched everything. What is numbered begins at 1: it takes 0 for none."""
    coco = need("pycocotools.coco", to="compute mean average precision", extra="detection")
    cocoeval = need("pycocotools.cocoeval", to="compute mean average precision", extra="detection")
    true, mine = [], []
    for image, (rows, truth) in enumerate(zip(found, truths, strict=True), start=1):
        crowd = truth.crowd or (False,) * len(truth.boxes)
        for box, kind, many in zip(truth.boxes, truth.classes, crowd, strict=True):
            true.append(_annotation(len(true), image, kind, box) | {"iscrowd": int(many)})
        mine += [_annotation(0, image, kind, box) | {"score": score} for kind, score, *box in rows]
    for number, each in enumerate(mine, start=1):
        each["id"] = number
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on every step
        for annotations in (true, mine):
            made = coco.COCO()
            made.dataset = {"images": [{"id": image} for image in range(1, len(truths) + 1)],
                            "categories": [{"id": kind} for kind in range(1, classes + 1)], "annotations": annotations}
            made.createIndex()
            sides.append(made)
        judge = cocoeval.COCOeval(*sides, iouType="bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.params.maxDets = [MOST]
        judge.evaluate()
    return judge


def _annotation(number: int, image: int, kind: int, box: Sequence[float]) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, box)
    width, height = max(0.0, x2 - x1), max(0.0, y2 - y1)
    return {"id": number + 1, "image_id": image, "category_id": int(kind) + 1, "bbox": [x1, y1, width, height],
            "area": width * height, "iscrowd": 0}


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _check(found: Sequence[Any], truths: Sequence[ImageTruth], classes: Sequence[str]) -> None:
    if not classes:
        raise BadInput("There are no classes to tell apart.", remedy="name them, as detection.json does")
    if len(found) != len(truths) or not truths:
        raise BadInput(f"Detections of {len(found)} pictures stand against the truth of {len(truths)}.",
                       remedy="give one list of detections for each picture, empty where there is none")
    for what, kinds in (("found", {int(row[0]) for rows in found for row in rows}),
                        ("true", {kind for truth in truths for kind in truth.classes})):
        strange = sorted(kind for kind in kinds if not 0 <= kind < len(classes))
        if strange:
            raise BadInput(f"A {what} box has class {strange[0]}; there are {len(classes)} classes, counted from 0: "
                           f"{', '.join(classes)}.", remedy="use the class list that the model was trained with")
