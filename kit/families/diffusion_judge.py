"""A judge of drawn pictures: a small classifier that says whether a picture shows what its prompt asks for.

A folder with ``judge.onnx`` and ``judge.json``. The classifier answers several questions at once (which axis, which
colour, which shape ...); a picture is right when every answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kit.errors import BadInput, unknown
from kit.record import read_json
from kit.runner import open_runner

_BATCH = 64
_RELATIONS = ("left of", "above")  # of the first thing to the second, by the answer to the first question


@dataclass(frozen=True)
class PictureJudge:
    """Reads pictures and compares what it reads with what the prompts ask for.

    Attributes:
        model: ``judge.onnx``: ``picture`` float32 [n, 3, H, W] in 0..1 to ``logits`` [n, sum of ``parts``].
        parts: how many answers each question has; the logits lie in this order.
        labels: prompt -> the right answer to each question.
        colours: names, for words.
        shapes: names, for words.
    """

    model: Path
    parts: tuple[int, ...]
    labels: dict[str, tuple[int, ...]] = field(repr=False)
    colours: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path | str) -> PictureJudge:
        """The judge of a folder.

        Raises:
            BadInput: a file is missing or damaged, or its prompts do not fit its questions.
        """
        folder = Path(folder)
        path, again = folder / "judge.json", "copy judge.json and judge.onnx again, from one training"
        about = read_json(path, f"{path} is no whole JSON.", again)
        if not (folder / "judge.onnx").is_file():
            raise BadInput(f"{folder} has no judge.onnx.", remedy=again)
        try:
            parts = tuple(int(count) for count in about["parts"])
            labels = {str(row["prompt"]): tuple(int(answer) for answer in row["label"]) for row in about["prompts"]}
            made = cls(folder / "judge.onnx", parts, labels, tuple(map(str, about.get("colours", ()))),
                       tuple(map(str, about.get("shapes", ()))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path} lacks its parts or its prompts with their labels.", remedy=again,
                           detail=repr(error)) from error
        for prompt, label in labels.items():
            if len(label) != len(parts) or not all(0 <= a < count for a, count in zip(label, parts, strict=True)):
                raise BadInput(f"{path}: the label of {prompt!r} is {list(label)}; the questions have {list(parts)} "
                               "answers.", remedy=again)
        return made

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts whose right answers are known."""
        return tuple(self.labels)

    def answers(self, pictures: np.ndarray) -> np.ndarray:
        """What it reads, int64 [n, questions].

        Args:
            pictures: float32 [n, H, W, 3] in 0..1; what is not finite is read as black.

        Raises:
            BadInput: pictures of a size that it does not take, or a model with other logits than judge.json says.
        """
        fed = np.nan_to_num(np.asarray(pictures, np.float32), posinf=1, neginf=0).transpose(0, 3, 1, 2)
        with open_runner(self.model) as runner:
            logits = np.concatenate([next(iter(runner({runner.inputs[0].name: np.ascontiguousarray(
                fed[at : at + _BATCH])}).values())) for at in range(0, len(fed), _BATCH)])
        if logits.shape != (len(fed), sum(self.parts)):
            raise BadInput(f"{self.model} answers {list(logits.shape)} to {len(fed)} pictures; judge.json says "
                           f"{sum(self.parts)} logits.", remedy="copy judge.json and judge.onnx from one training")
        pieces = np.split(logits, np.cumsum(self.parts)[:-1], axis=1)
        return np.stack([piece.argmax(axis=1) for piece in pieces], axis=1)

    def right(self, answers: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Whether each picture shows what was asked for: bool [n].

        Args:
            answers: as ``answers`` gives them.
            prompts: one a picture.

        Raises:
            BadInput: a prompt whose right answers are not known.
        """
        for prompt in prompts:
            if prompt not in self.labels:
                raise unknown("prompt", prompt, self.labels, "the judge")
        return (answers == np.array([self.labels[prompt] for prompt in prompts])).all(axis=1)

    def words(self, answer: Sequence[int]) -> str:
        """``a red circle above a blue square``; numbers where the questions are others."""
        colours, shapes = len(self.colours) + 1, len(self.shapes) + 1  # the last answer is "none"
        if self.parts != (len(_RELATIONS), colours, shapes, colours, shapes):
            return str(list(map(int, answer)))
        relation, *things = map(int, answer)
        first, second = (f"a {[*self.colours, 'colourless'][colour]} {[*self.shapes, 'nothing'][shape]}"
                         for colour, shape in (things[:2], things[2:]))
        return f"{first} {_RELATIONS[relation]} {second}"
