"""Reading text as PP-OCR does: where is text (DB detector), what does each line say (CTC recogniser).

The one idea: everything around the two networks is plain numpy and OpenCV, so that a Paddle model, its ONNX export,
its INT8 version and its compiled form are fed and read by the very same lines of code. What differs between two
runtimes is then the network alone. Boxes out of a probability map are in ``ocr_boxes``, measures in ``ocr_metrics``.

Pictures are uint8 [H, W, 3] in BGR, as ``cv2.imread`` gives them. A box is four points (x, y) in pixels of the
original picture, clockwise from the top left of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.errors import BadInput
from kit.families.ocr_boxes import Box, boxes_from_map, sort_boxes
from kit.samples import Preprocess, crop

__all__ = [
    "Box", "Line", "boxes_from_map", "characters_of", "crop", "decode_ctc", "detector_input", "read_lines", "read_page",
    "recogniser_input", "sort_boxes",
]  # fmt: skip

#: PP-OCR's detectors use ImageNet's statistics on BGR, although they were measured on RGB.
DETECTOR = Preprocess(
    resize="limit", size=(960, 960), multiple=32, channels="BGR", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
#: (x / 255 - 0.5) / 0.5, padded with 0, which is mid-grey. A multiple of 8 columns spares compiled targets many shapes.
RECOGNISER = Preprocess(resize="height", size=(48, 320), multiple=8, channels="BGR", mean=(0.5,) * 3, std=(0.5,) * 3)

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Line:
    """A read line: where (``quad`` float32 [4, 2]), what (``text``), how sure (``score`` in [0, 1])."""

    quad: np.ndarray
    text: str
    score: float


def read_page(
    image: np.ndarray,
    detect: Run,
    recognise: Run,
    characters: Sequence[str],
    *,
    limit: int = 960,
    threshold: float = 0.3,
    box_threshold: float = 0.6,
    unclip: float = 1.5,
    batch: int = 6,
    min_score: float = 0.5,
    detector_name: str = "x",
    recogniser_name: str = "x",
) -> list[Line]:
    """Find and read every line of a picture.

    Args:
        image: uint8 [H, W, 3], BGR.
        detect: takes {name: float32 [1, 3, H, W]}, gives one map [1, 1, H, W] (see `detector_input`).
        recognise: takes {name: float32 [N, 3, 48, W]}, gives one array [N, T, C] (see `recogniser_input`).
        characters: the C classes, blank first (see `characters_of`).
        limit: longest side given to the detector, in pixels.
        threshold: see `boxes_from_map`.
        box_threshold: see `boxes_from_map`.
        unclip: see `boxes_from_map`.
        batch: lines read at once; lines of like width go together, since a batch is as wide as its widest line.
        min_score: lines read with less confidence are dropped, as PP-OCR drops them.
        detector_name: name of the detector's input.
        recogniser_name: name of the recogniser's input.

    Returns:
        Lines in reading order; empty where nothing was found.

    Raises:
        BadInput: the picture is no BGR picture, or characters and model disagree.
    """
    x, scale = detector_input(image, limit)
    probabilities = _only(detect({detector_name: x}))[0, 0]
    found = boxes_from_map(
        probabilities,
        threshold=threshold,
        box_threshold=box_threshold,
        unclip=unclip,
        scale=scale,
        size=image.shape[:2],
    )
    boxes = sort_boxes(found)
    texts = read_lines(
        [crop(image, box.quad) for box in boxes], recognise, characters, batch=batch, name=recogniser_name
    )
    return [
        Line(box.quad, text, score)
        for box, (text, score) in zip(boxes, texts, strict=True)
        if text and score >= min_score
    ]


def read_lines(
    crops: Sequence[np.ndarray], recognise: Run, characters: Sequence[str], *, batch: int = 6, name: str = "x"
) -> list[tuple[str, float]]:
    """Read upright crops of one line each; the answer has the order of ``crops``: (text, confidence)."""
    texts: list[tuple[str, float]] = [("", 0.0)] * len(crops)
    by_width = sorted(range(len(crops)), key=lambda index: crops[index].shape[1] / crops[index].shape[0])
    for start in range(0, len(by_width), batch):
        chosen = by_width[start : start + batch]
        output = _only(recognise({name: recogniser_input([crops[index] for index in chosen])}))
        for index, probabilities in zip(chosen, output, strict=True):
            texts[index] = decode_ctc(probabilities, characters)
    return texts


# --------------------------------------------------------------------------------------------- before the networks


def detector_input(image: np.ndarray, limit: int = 960) -> tuple[np.ndarray, tuple[float, float]]:
    """Make a detector's input: shrink to ``limit`` on the longer side, sides to a multiple of 32, normalise.

    A picture within the limit keeps its size but for the rounding; it is never enlarged to the limit. PP-OCR rounds
    to the nearest multiple, not up; the aspect changes by a few per cent, undone by (sx, sy).

    Args:
        image: uint8 [H, W, 3], BGR.
        limit: longest side in pixels.

    Returns:
        float32 [1, 3, H', W'] and (sx, sy): what to multiply x and y of the map with, to get pixels of ``image``.

    Raises:
        BadInput: not a uint8 picture with three channels.
    """
    _check_picture(image)
    x = replace(DETECTOR, size=(limit, limit))(image)
    height, width = x.shape[2:]
    return x, (image.shape[1] / width, image.shape[0] / height)


def recogniser_input(crops: Sequence[np.ndarray], preprocess: Preprocess = RECOGNISER) -> np.ndarray:
    """Make a recogniser's batch: 48 pixels high, ratio kept, padded on the right with zeros to the widest.

    Args:
        crops: uint8 [h, w, 3] each, BGR, upright lines; at least one.
        preprocess: height, least width, statistics.

    Returns:
        float32 [N, 3, 48, W], W a multiple of 8 and at least 320, values in [-1, 1].

    Raises:
        BadInput: no crops, or one is no uint8 picture.
    """
    if not len(crops):
        raise BadInput("There is no line to read: the list of crops is empty.", remedy="pass at least one crop")
    for image in crops:
        _check_picture(image)
    rows = [preprocess(image) for image in crops]
    width = max(row.shape[3] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, 0), (0, 0), (0, width - row.shape[3]))) for row in rows])


# --------------------------------------------------------------------------------------------- after the networks


def decode_ctc(probabilities: np.ndarray, characters: Sequence[str]) -> tuple[str, float]:
    """Read the best path of a CTC network: repeats become one, blanks (class 0) vanish.

    Args:
        probabilities: float [T, C], a softmax per step.
        characters: C classes, the blank's name first.

    Returns:
        The text, and the mean probability of the characters kept; 0.0 for an empty text.

    Raises:
        BadInput: not C classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(characters):
        raise BadInput(
            f"The recogniser gives {probabilities.shape[-1]} classes; the character list has {len(characters)}.",
            remedy="pass the list that belongs to this model: ocr.characters_of(path of the model)",
        )
    best = probabilities.argmax(axis=1)
    kept = best != 0
    kept[1:] &= best[1:] != best[:-1]
    if not kept.any():
        return "", 0.0
    text = "".join(characters[index] for index in best[kept])
    return text, float(probabilities.max(axis=1)[kept].mean())


def characters_of(model: str | Path) -> list[str]:
    """Find the classes of a recogniser, in the order of its output: "" for the blank, the characters, a space.

    Args:
        model: an .onnx file with the metadata key ``character`` (one per line, as RapidOCR writes it), or an .onnx
            file or Paddle directory beside an ``inference.yml`` that holds ``PostProcess.character_dict``.

    Returns:
        As many strings as the model has classes, where the model tells its class count.

    Raises:
        BadInput: no list there, or its length is not the model's class count.
    """
    model = Path(model)
    classes = None
    if model.suffix == ".onnx":
        listed, classes = _from_onnx(model)
    else:
        listed = _from_yaml(model if model.is_dir() else model.parent)
    if listed is None:
        raise BadInput(
            f"{model} does not tell its characters.",
            remedy="keep inference.yml beside it, or add the metadata key 'character' to the ONNX file",
        )
    characters = ["", *listed, " "]
    # files that list the space themselves, and models trained without one, are one shorter
    if classes is not None and len(characters) == classes + 1:
        characters = characters[:-1]
    if classes is not None and len(characters) != classes:
        raise BadInput(
            f"{model} has {classes} classes, but its list gives {len(characters)} with blank and space.",
            remedy="use the character list this model was trained with",
        )
    return characters


# --------------------------------------------------------------------------------------------- helpers


def _from_onnx(path: Path) -> tuple[list[str] | None, int | None]:
    """Read metadata and class count from an ONNX file without loading its weights into a runtime."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    last = model.graph.output[0].type.tensor_type.shape.dim
    classes = last[-1].dim_value or None if len(last) else None
    for entry in model.metadata_props:
        if entry.key == "character":
            # a line may be a blank character of its own, so only the line ends are cut, nothing is stripped
            return entry.value.split("\n"), classes
    return _from_yaml(path.parent), classes


def _from_yaml(folder: Path) -> list[str] | None:
    import yaml

    path = folder / "inference.yml"
    if not path.exists():
        return None
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    listed = (settings.get("PostProcess") or {}).get("character_dict")
    # YAML reads an unquoted 0 as a number
    return None if listed is None else [str(character) for character in listed]


def _only(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Take the one output of a network."""
    if len(outputs) != 1:
        names = ", ".join(outputs)
        raise BadInput(f"One output was expected, {len(outputs)} came: {names}.", remedy="pass a model with one output")
    return np.asarray(next(iter(outputs.values())))


def _check_picture(image: np.ndarray) -> None:
    if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise BadInput(
            f"A picture is uint8 [H, W, 3] in BGR; this is {what}.",
            remedy="read it with cv2.imread(path); for grey pictures cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)",
        )
    if 0 in image.shape:
        raise BadInput(f"The picture is empty: {image.shape}.", remedy="leave boxes without area out")
