"""Which two models a walkthrough reads slips with: the small ones trained here, or the real PP-OCRv4."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.errors import BadInput, MissingTool, unknown

NAMES = ("receipts", "ppocrv4")


@dataclass(frozen=True)
class OcrModels:
    """Where a detector and a recogniser lie, and what they are.

    Attributes:
        detector: a Paddle inference folder or an .onnx file.
        recogniser: likewise.
        licence: of the weights.
    """

    detector: Path
    recogniser: Path
    licence: str


def is_here(which: str) -> bool:
    """Whether ``models(which)`` can find them without installing anything."""
    return which == "receipts" or importlib.util.find_spec("rapidocr_onnxruntime") is not None


def models(which: Literal["receipts", "ppocrv4"] = "receipts", data: Path | str = "data") -> OcrModels:
    """Find the models of a walkthrough.

    Args:
        which: ``receipts`` are the small ones in ``data/models``; ``ppocrv4`` are PaddleOCR's mobile models as the
            package rapidocr-onnxruntime carries them.
        data: the project's data folder.

    Raises:
        BadInput: another name, or the small models are not where they should be.
        MissingTool: the package with PP-OCRv4 is not installed.
    """
    if which == "receipts":
        home = Path(data) / "models"
        found = OcrModels(home / "receipts_det", home / "receipts_rec", "Apache-2.0")
        for folder in (found.detector, found.recogniser):
            if not folder.is_dir():
                raise BadInput(
                    f"{folder} does not exist.",
                    remedy="set data to the project's data folder, or train "
                    "the models again: python data/recipes/train_receipts.py",
                )
        return found
    if which != "ppocrv4":
        raise unknown("pair of OCR models", which, NAMES)
    # found without importing: the package's own import wants the OpenCV build that needs a screen's libraries
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if spec is None or not spec.origin:
        raise MissingTool(
            "PP-OCRv4 comes with the package rapidocr-onnxruntime, which is not installed.",
            remedy="pip install -c constraints.txt --no-deps rapidocr-onnxruntime",
        )
    home = Path(spec.origin).parent / "models"
    return OcrModels(home / "ch_PP-OCRv4_det_infer.onnx", home / "ch_PP-OCRv4_rec_infer.onnx", "Apache-2.0")
