"""Handwritten digits of 8 x 8 pixels: samples and the task of telling which digit it is.

All pictures lie in one small file, ``data/digits/digits.npz``; its README says where they come from. The network that
reads them is ``data/models/digits/digits.onnx``, trained by ``data/recipes/digits/train.py``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from kit.errors import BadInput, unknown
from kit.record import digest, explain_os_error
from kit.samples import Preprocess, Sample, Samples

SPLITS = ("train", "calibration", "test")
LEVELS = 16  # a pixel counts how many of 4 x 4 finer pixels are ink
BYTES_A_LEVEL = 15  # so that a full pixel is 240, nearly white


@dataclass(frozen=True)
class Grey(Preprocess):
    """A grey picture as one channel of numbers from 0 (paper) to 1 (ink): float32 [1, 1, 8, 8]."""

    resize: Literal["stretch", "limit", "height", "none"] = "none"
    size: tuple[int, int] = (8, 8)
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (LEVELS * BYTES_A_LEVEL,) * 3

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The tensor of one picture, batch of one; its three equal channels become one."""
        return super().__call__(picture)[:, :1]

    def picture(self, tensor: np.ndarray) -> np.ndarray:
        """Back from a tensor to bytes (uint8 [8, 8, 3])."""
        return super().picture(np.repeat(tensor, 3, axis=1))


@dataclass(frozen=True)
class Digit(Sample):
    """One picture of the set.

    Attributes:
        number: its place in the whole set, 0 to 1796.
        pixels: 64 values of 0 (paper) to 16 (ink), row by row.
    """

    number: int = 0
    pixels: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        return f"digit {self.number}"

    def load(self) -> np.ndarray:
        """The picture, uint8 [8, 8, 3], ink bright."""
        grey = np.frombuffer(self.pixels, np.uint8).reshape(8, 8) * np.uint8(BYTES_A_LEVEL)
        return np.repeat(grey[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class Digits(Samples):
    """Samples whose pictures all lie in one file."""

    def identities(self) -> tuple[str, ...]:
        """A digest of each digit's pixels, in order."""
        return tuple(digest(item.pixels) for item in self.items)


def digits_samples(
    split: Literal["train", "calibration", "test"],
    data: Path | str = "data",
    *,
    input: str = "image",
    limit: int | None = None,
) -> Samples:
    """The digits of a split, each ``{input: float32 [1, 1, 8, 8]}`` in [0, 1], with the digit (0 to 9) as truth.

    Args:
        split: ``train`` (997), ``calibration`` (200) or ``test`` (600).
        data: the project's data folder; the pictures lie in ``digits/digits.npz`` there.
        input: name of the model's input.
        limit: take only the first so many; a split comes in the order of the whole set, which is not sorted by digit.

    Raises:
        BadInput: no such split, or no such file.
    """
    images, labels, numbers = (each[:limit] for each in _read(split, data))
    items = (
        Digit(_file(data), truth=int(label), number=int(number), pixels=image.tobytes())
        for image, label, number in zip(images, labels, numbers, strict=True)
    )
    return Digits(tuple(items), Grey(), input)


def digits_arrays(split: str, data: Path | str = "data") -> tuple[np.ndarray, np.ndarray]:
    """A whole split at once: images float32 [N, 1, 8, 8] in [0, 1], and digits int64 [N].

    Raises:
        BadInput: no such split, or no such file.
    """
    images, labels, _ = _read(split, data)
    return (images / np.float32(LEVELS))[:, None], labels.astype(np.int64)


@dataclass(frozen=True)
class DigitsTask:
    """Which digit it is, judged by the share that is right."""

    name: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"

    def answer(self, outputs: dict[str, np.ndarray], sample: Sample, feed: dict[str, np.ndarray]) -> str:
        """The digit, as a text, so that verify shows what was read."""
        return str(int(next(iter(outputs.values()))[0].argmax()))

    def count(self, answer: str) -> int:
        """Always one."""
        return 1

    def tally(self, answer: str, sample: Sample) -> tuple[float, ...]:
        """Right ones, and all."""
        return float(answer == str(sample.truth)), 1.0

    def scores(self, totals: Sequence[float]) -> dict[str, float]:
        """The share of digits that are right."""
        right, count = totals
        return {"accuracy": right / count if count else 0.0}


def _file(data: Path | str) -> Path:
    return Path(data) / "digits" / "digits.npz"


def _read(split: str, data: Path | str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 [N, 8, 8], digits [N] and places in the whole set [N]."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, "the digits")
    path = _file(data)
    try:
        with np.load(path) as stored:
            numbers = stored[split]
            return stored["images"][numbers], stored["labels"][numbers], numbers
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path} is not the set of digits ({type(error).__name__}: {error}).",
            remedy="make it again with data/recipes/digits/make_data.py",
        ) from error
