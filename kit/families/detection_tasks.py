"""What detection is for: labelled pictures as samples, and the task that verify, search and sensitivity judge by.

A set of pictures is a folder with a COCO file for each split (``test.json``) and the pictures in ``images/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import BadInput, unknown
from kit.families.detection_boxes import Detections, read_detections, scale_boxes
from kit.families.detection_heads import Heads
from kit.families.detection_metrics import MAIN, ImageTruth, MeanPrecision, Row
from kit.families.detection_nms import NmsOptions, detect
from kit.record import read_json
from kit.samples import Preprocess, Sample, Samples
from kit.verification import evenly

#: Low, so that precision at high recall is measured too: a threshold that a product would use cuts the curve off.
FOR_MAP = NmsOptions(score_threshold=0.01, iou=0.6, most=100, total=100)
_FIELDS = 6  # of a row


def images(
    folder: Path | str,
    split: str,
    *,
    heads: Heads | None = None,
    preprocess: Preprocess | None = None,
    input: str = "",
    limit: int | None = None,
    scale_factor: str = "",
) -> Samples:
    """The pictures of a split, each with an ``ImageTruth``.

    Args:
        folder: with ``<split>.json`` in COCO's form and ``images/``.
        split: ``train``, ``val`` or ``test``, whatever lies there.
        heads: of the model, with its preprocessing, its inputs and the order of its classes.
        preprocess: instead of that of the heads.
        input: name of the input with the picture, instead of that of the heads.
        limit: take only so many, evenly spaced over the split.
        scale_factor: name of the second input of PaddleDetection's models, instead of that of the heads.

    Raises:
        BadInput: no such file, no COCO file, a picture that is missing or a class that the heads do not have; names it.
    """
    folder = Path(folder)
    preprocess = preprocess or (heads.preprocess if heads else None)
    if preprocess is None:
        raise BadInput("It is not said how pictures become inputs.",
                       remedy="give heads=Heads.read(model), or preprocess=kit.Preprocess(...)")
    path = folder / f"{split}.json"
    if not path.is_file() and (known := sorted(each.stem for each in folder.glob("*.json"))):
        raise unknown("split", split, known, str(folder))
    told = read_json(path, f"{path} is no whole JSON.", "copy the file again")
    try:
        labelled = _truths(told, heads.classes if heads else None, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is no COCO file of boxes ({type(error).__name__}: {error}).",
                       remedy="it needs images (id, file_name, width, height), annotations (image_id, category_id, "
                       "bbox) and categories (id, name)") from error
    items = [Sample(folder / "images" / name, truth=truth) for name, truth in labelled]
    items = [items[at] for at in evenly(len(items), limit)]
    missing = [item.path.name for item in items if not item.path.is_file()]
    if missing:
        raise BadInput(f"{len(missing)} of {len(items)} pictures of {path} are missing in {folder / 'images'}, the "
                       f"first is {missing[0]}.", remedy="copy them there, or make the set again with its recipe")
    return Samples(tuple(items), preprocess, input or (heads.image if heads else "image"),
                   scale_factor=scale_factor or (heads.scale_factor if heads else ""))


@dataclass(frozen=True)
class DetectionTask:
    """Boxes, judged by mean average precision at an IoU of 0.5 (and by AP of each class, and over IoUs to 0.95).

    Outputs may be raw heads, which are decoded and suppressed in numpy here, or the detections of a graph with its
    post-processing inside, in any form that ``read_detections`` knows; which, is seen from the outputs.

    Boxes are taken to be in pixels of the picture where the model was fed its scale factor, else in those of its
    input. They are cut off at the picture's edge, as both TensorFlow's and Paddle's own evaluations do.

    Attributes:
        heads: what raw outputs mean, and the names of the classes.
        options: of the decoding and suppression here; a graph with its own has its own.
        shown: score from which a detection counts as found: for alarms and for pictures, not for the metric.
    """

    heads: Heads
    options: NmsOptions = FOR_MAP
    shown: float = 0.5
    name: str = field(default=MAIN)
    better: Literal["higher", "lower"] = "higher"

    def answer(self, outputs: Mapping[str, np.ndarray], sample: Sample, feed: Mapping[str, np.ndarray]) -> Detections:
        """What was found, in pixels of the picture.

        Raises:
            BadInput: outputs of no known form.
        """
        raw = self.tensors(outputs)
        found = (detect(raw, self.heads, self.options) if raw else read_detections(outputs))[0]
        truth: ImageTruth = sample.truth
        if not self.heads.scale_factor or self.heads.scale_factor not in feed:
            sides = (truth.height, truth.width)
            found = scale_boxes(found, np.divide(self.heads.preprocess.target_size(*sides), sides))
        # INT8 and 16 bits can make numbers that are none: such a box is nowhere.
        found = found.taken(np.isfinite(found.scores) & ~np.isnan(found.boxes).any(axis=1))
        edges = np.float32([truth.width, truth.height] * 2)
        return Detections(np.clip(found.boxes, 0, edges), found.scores, found.classes)

    def count(self, answer: Detections) -> int:
        """Things found with a score of ``shown`` or more."""
        return int((answer.scores >= self.shown).sum())

    def tally(self, answer: Detections, sample: Sample) -> tuple[float, ...]:
        """All rows of class, score, x1, y1, x2, y2 one after the other; ``rows_of`` takes them apart."""
        # The shortest decimals that are the same float32: what is stored stays small.
        return tuple(float(str(np.float32(value))) for row in answer.rows() for value in row)

    def judged(self, tallies: Sequence[Sequence[float]], samples: Sequence[Sample]) -> MeanPrecision:
        """The average precision of many samples together: it does not add up over them."""
        return MeanPrecision([rows_of(tally) for tally in tallies], [sample.truth for sample in samples],
                             self.heads.classes)

    def tensors(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The raw heads under the names that ``heads`` has for them; empty where the outputs are detections.

        Raises:
            BadInput: two outputs look alike and neither is named as it should be.
        """
        named = {_plain(name): np.asarray(array) for name, array in outputs.items()}
        if {"boxes", "scores", "classes"} <= set(named):
            return {}
        names = (self.heads.boxes, self.heads.scores)
        if set(names) <= set(outputs):
            return {name: np.asarray(outputs[name]) for name in names}
        if {_plain(name) for name in names} <= set(named):
            return {name: named[_plain(name)] for name in names}
        return self._by_shape(outputs)

    def _by_shape(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Heads under other names, told apart by their shapes."""
        arrays = [np.asarray(array) for array in outputs.values()]
        if len(arrays) != 2 or any(array.ndim != 3 for array in arrays):
            return {}
        axis, count = self.heads.classes_axis, len(self.heads.classes)
        fits = [(boxes, scores) for boxes, scores in (arrays, arrays[::-1]) if boxes.shape[2] == 4
                and scores.shape[axis] == count and scores.shape[3 - axis] == boxes.shape[1]]
        if len(fits) == 2:
            told = ", ".join(f"{name} {list(np.shape(array))}" for name, array in outputs.items())
            raise BadInput(f"Which of the outputs are boxes and which are scores? With {count} classes both look "
                           f"alike: {told}.", remedy="give them the names that detection.json has for them: "
                           f"{self.heads.boxes}, {self.heads.scores}")
        return dict(zip((self.heads.boxes, self.heads.scores), fits[0], strict=True)) if fits else {}

    def why_fewer(self, precision: str) -> str:
        """The likely cause where a stage finds far fewer things than the first."""
        if precision == "quantized":
            return ("likely boxes and scores pass through one tensor with one INT8 scale, whose step is wider than "
                    "any score: keep the head from there on in float (keep_float), or give the two ranges of their own")
        if precision == "half":
            return "likely a number beyond what 16 bits hold (65504): keep the decoding of the boxes in float"
        return ("likely another preprocessing (channel order, mean and std, layout), or scores that pass a sigmoid "
                "twice or never: compare the inputs, then 'activation' in detection.json")


def rows_of(tally: Sequence[float]) -> list[Row]:
    """Rows of class, score, x1, y1, x2, y2 from what ``DetectionTask.tally`` noted."""
    rows = np.asarray(tally, np.float64).reshape(-1, _FIELDS).tolist()
    return [(int(row[0]), *row[1:]) for row in rows]  # type: ignore[misc]


def _plain(name: str) -> str:
    """``StatefulPartitionedCall/class_logits:0`` -> ``class_logits``."""
    return name.rpartition("/")[2].partition(":")[0]


def _truths(told: Mapping[str, Any], classes: Sequence[str] | None, path: Path) -> list[tuple[str, ImageTruth]]:
    """File name and truth of every picture, in the order of the file."""
    named = {each["id"]: str(each["name"]) for each in sorted(told["categories"], key=lambda each: each["id"])}
    order = list(classes or named.values())
    for name in named.values():
        if name not in order:
            raise unknown("class", name, order, f"the model ({path} has it)")
    boxes: dict[Any, list[tuple[tuple[float, ...], int, bool]]] = {each["id"]: [] for each in told["images"]}
    for each in told["annotations"]:
        if each["image_id"] not in boxes:
            raise BadInput(f"{path}: annotation {each.get('id')} belongs to picture {each['image_id']}, which is not "
                           "among the images.", remedy="remove the annotation, or add the picture")
        x, y, width, height = map(float, each["bbox"])
        if not (width > 0 and height > 0 and np.isfinite([x, y, width, height]).all()):
            raise BadInput(f"{path}: annotation {each.get('id')} has the box {each['bbox']}, which has no area.",
                           remedy="correct it, or remove it; a box is x, y, width, height")
        kind = order.index(named[each["category_id"]])
        boxes[each["image_id"]].append(((x, y, x + width, y + height), kind, bool(each.get("iscrowd"))))
    found = []
    for each in told["images"]:
        corners, kinds, crowd = zip(*boxes[each["id"]], strict=True) if boxes[each["id"]] else ((), (), ())
        found.append((str(each["file_name"]), ImageTruth(int(each["width"]), int(each["height"]), corners, kinds,
                                                         crowd)))
    if not found:
        raise BadInput(f"{path} has no pictures.", remedy="choose another split")
    return found
