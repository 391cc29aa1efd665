"""What OCR outputs are for: the tasks that verify judges by, and the samples they are judged on.

A set of pages is a folder with ``labels.json``: ``splits`` (name -> files) and ``slips``, each with ``file``,
``width``, ``height`` and ``lines`` of ``quad`` and ``text``; pictures lie in ``images/``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import BadInput, unknown
from kit.families import ocr
from kit.families.ocr_metrics import detection_score, page_text
from kit.record import digest, explain_os_error
from kit.runner import open_runner
from kit.samples import Preprocess, Sample, Samples
from kit.source import recognise

#: A whole picture, as bytes in float32: for a reader of pages, which prepares its own inputs.
PICTURE = Preprocess(resize="none", scale=1.0, mean=(0, 0, 0), std=(1, 1, 1), layout="NHWC")


@dataclass(frozen=True)
class PageTruth:
    """What stands on a page: its size in pixels, and per line four corners and the text."""

    width: int
    height: int
    quads: tuple[tuple[tuple[float, float], ...], ...]
    texts: tuple[str, ...]


def pages(
    folder: Path | str, split: str, *, preprocess: Preprocess = ocr.DETECTOR, input: str = "x", limit: int | None = None
) -> Samples:
    """The pictures of a split as samples for a detector (or with ``PICTURE`` for a reader of pages).

    Raises:
        BadInput: no labels there, no such split, or a picture that is missing.
    """
    folder = Path(folder)
    items = []
    for slip in _labels(folder, split)[:limit]:
        quads = tuple(tuple((float(x), float(y)) for x, y in line["quad"]) for line in slip["lines"])
        texts = tuple(line["text"] for line in slip["lines"])
        truth = PageTruth(slip["width"], slip["height"], quads, texts)
        items.append(Sample(folder / "images" / slip["file"], truth=truth))
    return _present(Samples(tuple(items), preprocess, input), folder)


def lines(
    folder: Path | str,
    split: str,
    *,
    preprocess: Preprocess = ocr.RECOGNISER,
    input: str = "x",
    limit: int | None = None,
) -> Samples:
    """The true text lines of a split, cut out upright, as samples for a recogniser.

    ``limit`` takes lines evenly spaced over the whole split, so that every page has its share.

    Raises:
        BadInput: no labels there, no such split, or a picture that is missing.
    """
    folder = Path(folder)
    items = [
        Sample(folder / "images" / slip["file"], tuple((float(x), float(y)) for x, y in line["quad"]), line["text"])
        for slip in _labels(folder, split)
        for line in slip["lines"]
    ]
    if limit and limit < len(items):
        items = [items[round(at)] for at in np.linspace(0, len(items) - 1, limit)]
    return _present(Samples(tuple(items), preprocess, input), folder)


@dataclass(frozen=True)
class DetectorTask:
    """Boxes from a DB detector's map, judged by hmean (the harmonic mean of precision and recall) at an IoU of 0.5.

    Attributes:
        threshold: see ``ocr.boxes_from_map``.
        box_threshold: likewise.
        unclip: likewise.
        iou: least intersection over union that counts as found.
    """

    threshold: float = 0.3
    box_threshold: float = 0.6
    unclip: float = 1.5
    iou: float = 0.5
    name: str = "hmean"
    better: Literal["higher", "lower"] = "higher"

    def answer(self, outputs: dict[str, np.ndarray], sample: Sample, feed: dict[str, np.ndarray]) -> list[ocr.Box]:
        """The boxes of the page, in its pixels."""
        found = next(iter(outputs.values()))[0, 0]
        truth: PageTruth = sample.truth
        scale = (truth.width / found.shape[1], truth.height / found.shape[0])
        return ocr.boxes_from_map(
            found,
            threshold=self.threshold,
            box_threshold=self.box_threshold,
            unclip=self.unclip,
            scale=scale,
            size=(truth.height, truth.width),
        )

    def count(self, answer: list[ocr.Box]) -> int:
        """Boxes found."""
        return len(answer)

    def tally(self, answer: list[ocr.Box], sample: Sample) -> tuple[float, ...]:
        """Matched, found and true boxes."""
        score = detection_score([[box.quad for box in answer]], [[np.float32(q) for q in sample.truth.quads]], self.iou)
        return score.matched, score.found, score.truth

    def scores(self, totals: tuple[float, ...]) -> dict[str, float]:
        """hmean, precision and recall over all pages together."""
        matched, found, truth = totals
        precision = matched / found if found else float(truth == 0)
        recall = matched / truth if truth else float(found == 0)
        hmean = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {"hmean": hmean, "precision": precision, "recall": recall}


@dataclass(frozen=True)
class RecogniserTask:
    """Texts from a CTC recogniser, judged by the share of lines read without a mistake.

    Attributes:
        characters: the classes, blank first; see ``ocr.characters_of``.
    """

    characters: tuple[str, ...] = field(repr=False)
    name: str = "exact match"
    better: Literal["higher", "lower"] = "higher"

    def answer(self, outputs: dict[str, np.ndarray], sample: Sample, feed: dict[str, np.ndarray]) -> str:
        """The text of the line."""
        return ocr.decode_ctc(next(iter(outputs.values()))[0], self.characters)[0]

    def count(self, answer: str) -> int:
        """Characters read."""
        return len(answer)

    def tally(self, answer: str, sample: Sample) -> tuple[float, ...]:
        """Exact lines, edits needed, true characters, lines."""
        return float(answer == sample.truth), _edits(answer, sample.truth), len(sample.truth), 1

    def scores(self, totals: tuple[float, ...]) -> dict[str, float]:
        """Exact match, and the character error rate (edits per true character; lower is better)."""
        exact, edits, characters, count = totals
        return {"exact match": exact / count if count else 0.0, "character error rate": edits / (characters or 1)}


@dataclass(frozen=True)
class Reader:
    """A detector and a recogniser that read whole pages: an artefact for ``kit.verify`` like any other.

    Feed ``{"image": float32 [1, H, W, 3]}`` with bytes in BGR (samples with ``PICTURE`` do); the answer is
    ``{"text": str}``, rows as on the page.

    Attributes:
        detector: anything ``kit.open_runner`` takes.
        recogniser: likewise.
        characters: the recogniser's classes, blank first.
    """

    detector: Any
    recogniser: Any
    characters: tuple[str, ...] = field(repr=False)

    def digest(self) -> str:
        """Of both models' files and the characters."""
        return digest([recognise(self.detector), recognise(self.recogniser), self.characters])

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Read one page with models opened for it alone; in a ``with`` block they stay open."""
        with self as read:
            return read(feeds)

    def __enter__(self):
        stack = self._stack()
        detect = stack.enter_context(open_runner(self.detector))
        recognise_lines = stack.enter_context(open_runner(self.recogniser))

        def read(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            image = feeds["image"][0].astype(np.uint8)
            found = ocr.read_page(
                image,
                detect,
                recognise_lines,
                self.characters,
                detector_name=detect.inputs[0].name,
                recogniser_name=recognise_lines.inputs[0].name,
            )
            return {"text": np.array(page_text(found))}

        return read

    def __exit__(self, *exc: object) -> None:
        self._stack().close()

    def _stack(self) -> contextlib.ExitStack:
        # The open models of a with block; not a field: two readers of the same files are equal.
        if "_open" not in self.__dict__:
            object.__setattr__(self, "_open", contextlib.ExitStack())
        return self.__dict__["_open"]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}


@dataclass(frozen=True)
class PageTask:
    """The text of whole pages, judged by the share of characters that need no edit."""

    name: str = "page text"
    better: Literal["higher", "lower"] = "higher"

    def answer(self, outputs: dict[str, np.ndarray], sample: Sample, feed: dict[str, np.ndarray]) -> str:
        """The page's text."""
        return str(outputs["text"])

    def count(self, answer: str) -> int:
        """Characters read."""
        return len(answer)

    def tally(self, answer: str, sample: Sample) -> tuple[float, ...]:
        """Edits needed, at most as many as there are characters; true characters; exact pages; pages."""
        true = page_text(
            [
                ocr.Line(np.float32(quad), text, 1.0)
                for quad, text in zip(sample.truth.quads, sample.truth.texts, strict=True)
            ]
        )
        edits = min(_edits(answer, true), len(true))
        return edits, len(true), float(edits == 0), 1

    def scores(self, totals: tuple[float, ...]) -> dict[str, float]:
        """1 minus edits per character, and the share of pages read without a mistake."""
        edits, characters, exact, count = totals
        return {"page text": 1 - edits / (characters or 1), "exact pages": exact / count if count else 0.0}


def _edits(read: str, true: str) -> float:
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.distance(read, true))


def _labels(folder: Path, split: str) -> list[dict[str, Any]]:
    path = folder / "labels.json"
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        wanted = labels["splits"]
        if split not in wanted:
            raise unknown("split", split, wanted, str(path))
        slips = {slip["file"]: slip for slip in labels["slips"]}
        return [slips[file] for file in wanted[split]]
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a list of labelled pages ({type(error).__name__}: {error}).",
            remedy="make it again with data/recipes/receipts.py",
        ) from error


def _present(samples: Samples, folder: Path) -> Samples:
    missing = sorted({item.path.name for item in samples.items if not item.path.is_file()})
    if missing:
        raise BadInput(
            f"{len(missing)} pictures of {folder} are missing, the first is {missing[0]}.",
            remedy="copy them there, or make the set again with data/recipes/receipts.py",
        )
    return samples
