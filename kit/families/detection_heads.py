"""What the raw outputs of a detector mean, and how they become boxes and scores: ``Heads`` and ``decode``.

Public through ``detection``. A folder with a detector keeps this in ``detection.json``, so that the same file serves
the model in its own framework, as ONNX and compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from kit.errors import BadInput, unknown
from kit.record import explain_os_error, read_json
from kit.samples import Preprocess

FILE, FORMAT = "detection.json", "kit-detection"


@dataclass(frozen=True)
class Anchors:
    """The boxes that an EfficientDet-like head moves and stretches.

    At every place of a level with stride s, of an input of H x W pixels (ceil(H/s) rows, ceil(W/s) columns), stand
    boxes centred at ((column + 0.5) s, (row + 0.5) s): one for each scale and ratio, with the side
    ``size * s * scale``, ``sqrt(ratio)`` times as wide and 1/sqrt(ratio) times as high.

    Attributes:
        strides: of each level, in pixels.
        scales: of the boxes of one place.
        ratios: width over height of the boxes of one place.
        size: side of the plain box, in strides.

    Source: Lin et al. 2017 (https://arxiv.org/abs/1708.02002), section 4; Tan et al. 2020
    (https://arxiv.org/abs/1911.09070).
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    size: float = 4.0

    def boxes(self, size: tuple[int, int]) -> np.ndarray:
        """Centre y, centre x, height, width of every anchor in pixels, float32 [A, 4].

        Order: level, row, column, scale, ratio. Computed in float64 and rounded once.

        Args:
            size: height and width of the input.
        """
        return _anchor_boxes(self, tuple(size)).copy()


@functools.lru_cache(maxsize=8)  # a picture's worth of decoding takes less time than these
def _anchor_boxes(anchors: Anchors, size: tuple[int, int]) -> np.ndarray:
    levels = []
    for stride in anchors.strides:
        rows, columns = (-(-side // stride) for side in size)
        y, x = np.meshgrid((np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij")
        sides = np.repeat(anchors.size * stride * np.float64(anchors.scales), len(anchors.ratios))
        roots = np.tile(np.sqrt(np.float64(anchors.ratios)), len(anchors.scales))
        level = np.empty((rows, columns, len(sides), 4))
        level[..., 0], level[..., 1] = y[..., None], x[..., None]
        level[..., 2], level[..., 3] = sides / roots, sides * roots
        levels.append(level.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


@dataclass(frozen=True)
class Heads:
    """The raw outputs of a detector, before decoding and suppression.

    Attributes:
        classes: names, in the order of the scores.
        size: height and width of the network's input in pixels.
        scores: name of the output with the scores.
        boxes: name of the output with the boxes, [N, A, 4].
        activation: ``sigmoid`` where the scores are logits still, ``none`` where they are probabilities.
        classes_axis: 2 for scores [N, A, C], 1 for [N, C, A].
        coding: ``xyxy`` corners, ``yxyx`` likewise with y first, ``cxcywh`` centre and sides, all in pixels of the
            input; ``anchors`` for (ty, tx, th, tw) relative to ``anchors``.
        anchors: needed for that.
        image: name of the input with the picture.
        scale_factor: name of PaddleDetection's second input, by which the boxes are divided in the graph; "" without
            one.
        preprocess: from picture to input.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    scores: str
    boxes: str
    activation: Literal["sigmoid", "none"] = "none"
    classes_axis: Literal[1, 2] = 2
    coding: Literal["xyxy", "yxyx", "cxcywh", "anchors"] = "xyxy"
    anchors: Anchors | None = None
    image: str = "image"
    scale_factor: str = ""
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        for name in ("activation", "classes_axis", "coding"):
            allowed = get_args(get_type_hints(type(self))[name])
            if getattr(self, name) not in allowed:
                raise BadInput(f"Heads.{name} cannot be {getattr(self, name)!r}.",
                               remedy=f"choose one of {', '.join(map(repr, allowed))}")
        if self.coding == "anchors" and self.anchors is None:
            raise BadInput("The boxes are coded by anchors, and none are described.",
                           remedy="give anchors=Anchors(...)")

    @classmethod
    def read(cls, path: Path | str) -> Heads:
        """Read them from ``detection.json``.

        Args:
            path: that file, the folder it lies in, or a model's file or folder beside it.

        Raises:
            BadInput: there is none, or it says something that cannot be; names file, field and value.
        """
        path = Path(path)
        file = path if path.suffix == ".json" and path.name != "inference.json" else next(
            (folder / FILE for folder in (path, path.parent) if (folder / FILE).is_file()), path / FILE)
        told = read_json(file, f"{file} is no whole JSON.", f"write it with Heads(...).write({str(file.parent)!r})")
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise BadInput(f"{file} does not describe a detector: its format is not {FORMAT!r}.",
                           remedy="write it with Heads(...).write(folder)")
        return from_told(told, file)

    def write(self, path: Path | str) -> Path:
        """Write ``detection.json`` into a folder, or the file ``path`` when it ends in .json; returns its path.

        Raises:
            BadInput: it cannot be written.
        """
        path = Path(path)
        path = path if path.suffix == ".json" else path / FILE
        try:
            path.write_text(json.dumps(self.told(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, path) from error
        return path

    def told(self) -> dict[str, Any]:
        """What ``detection.json`` holds."""
        boxes: dict[str, Any] = {"coding": self.coding}
        if self.anchors is not None:
            boxes["anchors"] = {**dataclasses.asdict(self.anchors), "order": "yxhw"}
        inputs = {"image": self.image} | ({"scale_factor": self.scale_factor} if self.scale_factor else {})
        return {"format": FORMAT, "classes": list(self.classes), "size": list(self.size),
                "preprocess": dataclasses.asdict(self.preprocess), "inputs": inputs,
                "outputs": {"scores": self.scores, "boxes": self.boxes},
                "scores": {"activation": self.activation, "classes_axis": self.classes_axis}, "boxes": boxes}

    def anchor_boxes(self) -> np.ndarray:
        """Centre y, centre x, height, width of every anchor, float32 [A, 4]."""
        assert self.anchors is not None
        return self.anchors.boxes(self.size)


def decode(outputs: Mapping[str, np.ndarray], heads: Heads) -> tuple[np.ndarray, np.ndarray]:
    """Turn raw outputs into boxes and scores, in float32 and in the order of work of the graph's own decoding.

    Args:
        outputs: by name; what ``heads`` does not name is not looked at.
        heads: what they mean.

    Returns:
        Boxes float32 [N, A, 4] as (x1, y1, x2, y2) in pixels of the input, and scores float32 [N, A, C].

    Raises:
        BadInput: an output is missing or has another shape.
    """
    for name in (heads.boxes, heads.scores):
        if name not in outputs:
            raise unknown("output", name, outputs, "what the model answered")
    boxes, scores = (np.asarray(outputs[name], np.float32) for name in (heads.boxes, heads.scores))
    check_shapes(boxes.shape, scores.shape, heads)
    if heads.activation == "sigmoid":
        with np.errstate(over="ignore"):  # exp(100) is inf, and 1 / inf the 0 that is meant
            scores = np.float32(1) / (np.float32(1) + np.exp(-scores))
    if heads.classes_axis == 1:
        scores = scores.transpose(0, 2, 1)
    if heads.coding == "anchors":
        anchors = heads.anchor_boxes()
        centre = boxes[..., :2] * anchors[:, 2:] + anchors[:, :2]
        with np.errstate(over="ignore"):
            half = np.exp(boxes[..., 2:]) * (anchors[:, 2:] * np.float32(0.5))
        low, high = centre - half, centre + half
        boxes = np.concatenate([low[..., ::-1], high[..., ::-1]], axis=-1)
    elif heads.coding == "cxcywh":
        half = boxes[..., 2:] * np.float32(0.5)
        boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)
    elif heads.coding == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    return np.ascontiguousarray(boxes), np.ascontiguousarray(scores)


def check_shapes(boxes: tuple, scores: tuple, heads: Heads) -> None:
    """Refuse outputs whose shapes cannot be what ``heads`` says; sizes that are no numbers are taken on trust.

    Raises:
        BadInput: names the output, its shape and what was expected.
    """
    anchors = len(heads.anchor_boxes()) if heads.coding == "anchors" else None
    count = anchors or (boxes[1] if len(boxes) == 3 else "A")
    classes = len(heads.classes) or "C"
    wanted = {heads.boxes: (boxes, ("N", count, 4)),
              heads.scores: (scores, ("N", count, classes) if heads.classes_axis == 2 else ("N", classes, count))}
    for name, (shape, want) in wanted.items():
        fits = len(shape) == 3 and all(
            have == size for have, size in zip(shape[1:], want[1:], strict=True)
            if isinstance(have, int) and isinstance(size, int))
        if not fits:
            raise BadInput(f"The output {name!r} has the shape {list(shape)}; heads of {classes} classes "
                           f"{f'and {anchors:,} anchors ' if anchors else ''}have [{', '.join(map(str, want))}].",
                           remedy="correct classes, size, anchors or classes_axis of the heads (detection.json)")


def from_told(told: dict[str, Any], file: Path) -> Heads:
    """Heads of what the file says, or an error that names the field."""
    try:
        anchors = told["boxes"].get("anchors")
        if anchors and anchors.get("order", "yxhw") != "yxhw":
            raise BadInput(f"{file} has anchors in the order {anchors['order']!r}; only 'yxhw' is known.",
                           remedy="reorder the last axis of the box output when the model is exported")
        return Heads(
            classes=tuple(map(str, told["classes"])), size=_two(told["size"]),
            scores=told["outputs"]["scores"], boxes=told["outputs"]["boxes"],
            activation=told["scores"].get("activation", "none"), classes_axis=told["scores"].get("classes_axis", 2),
            coding=told["boxes"]["coding"],
            anchors=Anchors(tuple(map(int, anchors["strides"])), tuple(map(float, anchors["scales"])),
                            tuple(map(float, anchors["ratios"])), float(anchors.get("size", 4.0)))
            if anchors else None,
            image=told["inputs"]["image"], scale_factor=told["inputs"].get("scale_factor") or "",
            preprocess=_preprocess(told.get("preprocess", {}), file))
    except KeyError as error:
        raise BadInput(f"{file} lacks {error}.", remedy="write it with Heads(...).write(folder)") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{file} cannot be understood: {error}.", remedy="write it with Heads(...).write(folder)",
                       detail=repr(error)) from error
    except BadInput as error:
        error.add_note(f"in {file}")
        raise


def _two(sizes: Any) -> tuple[int, int]:
    height, width = map(int, sizes)
    return height, width


def _preprocess(told: dict[str, Any], file: Path) -> Preprocess:
    known = {each.name for each in dataclasses.fields(Preprocess)}
    for name in told:
        if name not in known:
            raise unknown("field of Preprocess", name, known, str(file))
    return Preprocess(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})
