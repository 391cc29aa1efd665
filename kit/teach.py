"""For lessons: a guess compared with what came out, exercises that answer in plain words, models to play with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kit.card import Card
from kit.teach_models import broken_model, merged_heads, passing_model

__all__ = ["Comparison", "Exercise", "Feedback", "Task", "broken_model", "compare", "merged_heads", "passing_model"]


@dataclass(frozen=True)
class Comparison(Card):
    """A guess beside the value. ``close``: within a fifth of it, or equal where it is no number; None: no guess.

    Attributes:
        guess: what was guessed; None when nothing was.
        value: what came out.
        unit: of both, such as ``"MB"`` or ``"×"``.
    """

    guess: Any
    value: Any
    unit: str = ""

    @property
    def close(self) -> bool | None:
        """Whether the guess was good; None without a guess."""
        if not _given(self.guess):
            return None
        if _is_number(self.guess) and _is_number(self.value):
            return abs(self.guess - self.value) <= 0.2 * abs(self.value)
        return self.guess == self.value

    def title(self) -> str:
        value = _said(self.value, self.unit)
        if not _given(self.guess):
            return f"It is {value}. (No guess was made: set guess above and run again, if you like.)"
        return f"You guessed {_said(self.guess, self.unit)}; it is {value}: {self._verdict()}."

    def _verdict(self) -> str:
        guess, value = self.guess, self.value
        if not (_is_number(guess) and _is_number(value)):
            return "right" if guess == value else "not what you expected"
        if guess == value:
            return "exactly right"
        off = abs(guess - value) / abs(value) if value else math.inf
        if off <= 0.05:
            return "very close"
        if off <= 0.2:
            return "close"
        side = "high" if guess > value else "low"
        if guess * value <= 0 or not math.isfinite(guess) or not math.isfinite(value):
            return f"your guess was too {side}"
        times = max(guess / value, value / guess)
        return f"your guess was {times:.1f} times too {side}" if times >= 1.5 else f"your guess was a little {side}"


def compare(guess: Any, value: Any, unit: str = "") -> Comparison:
    """Compare a guess with what came out, in words.

    Args:
        guess: a number, a text or True/False; None (or ``...``) says that nobody guessed.
        value: what came out.
        unit: said after both.

    Example:
        >>> print(compare(4, 3.9, "×"))
        You guessed 4×; it is 3.9×: very close.
    """
    return Comparison(guess, value, unit)


@dataclass(frozen=True)
class Feedback(Card):
    """What an exercise says to an answer. True when the answer is right.

    Attributes:
        right: whether it is.
        said: the answer to the answer, in words.
        hint: help for another try; empty when there is none left.
    """

    right: bool
    said: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.right

    def title(self) -> str:
        return self.said

    def facts(self) -> dict[str, object]:
        return {"hint": self.hint} if self.hint else {}


@dataclass(frozen=True)
class Task(Card):
    """What an exercise asks."""

    spec: str
    hints: int

    def title(self) -> str:
        return self.spec

    def facts(self) -> dict[str, object]:
        return {"hints": f"{self.hints}, one after each try"} if self.hints else {}


class Exercise:
    """A task for the reader and a way to know that it is done.

    Args:
        spec: what to do, in a sentence or two.
        check: takes the answer; returns True (or None, or "") when it is right, otherwise False or, better, a
            sentence that says what is not right yet. An AssertionError's message counts as such a sentence.
        hints: one is given after each try that is not right, in order.
        picture: takes the answer and draws it; what ``show(answer)`` returns.
        praise: said when the answer is right.
    """

    def __init__(self, spec: str, check: Callable[[Any], Any], *, hints: Sequence[str] = (),
                 picture: Callable[[Any], Any] | None = None, praise: str = "Right.") -> None:
        self.spec, self._check, self._hints, self._picture, self._praise = spec, check, tuple(hints), picture, praise
        self._tries = 0

    def show(self, answer: Any = None) -> Any:
        """The task; or, where the exercise can draw, a picture of ``answer``."""
        if self._picture is not None and _given(answer):
            return self._picture(answer)
        return Task(self.spec, len(self._hints))

    def check(self, answer: Any) -> Feedback:
        """Say in words whether ``answer`` is right. Never raises, so an unsolved notebook still runs to its end."""
        if not _given(answer):
            return Feedback(False, f"No answer yet. {self.spec}")
        try:
            found = self._check(answer)
        except AssertionError as error:
            found = str(error) or False
        except Exception as error:  # whatever a reader's answer does, it is told in words
            found = f"Your answer made the check fail with {type(error).__name__}: {error}"
        if found is None or found is True or found == "":
            return Feedback(True, self._praise)
        self._tries += 1
        hint = self._hints[min(self._tries, len(self._hints)) - 1] if self._hints else ""
        return Feedback(False, str(found) if isinstance(found, str) else "Not right yet.", hint)


def _given(answer: Any) -> bool:
    return answer is not None and answer is not ...


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _said(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    gap = "" if not unit or unit in ("×", "%", "x") else " "
    return f"{text}{gap}{unit}"
