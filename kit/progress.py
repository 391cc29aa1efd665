"""One callable does progress and cancel: a stage calls ``report(Tick(...))``, which may raise ``Cancelled``.

Stages never print and never import a progress bar; what a tick looks like is the caller's choice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TextIO, TypeVar

T = TypeVar("T")


class Tick(NamedTuple):
    """How far a stage has come: ``done`` of ``total`` steps; ``total`` is None while it is unknown."""

    done: int
    total: int | None = None
    note: str = ""


Report = Callable[[Tick], None]


class Cancelled(Exception):
    """Raised by a report to make the stage unwind. Nothing half written stays behind."""

    def __init__(self, what: str = "Cancelled. Nothing was written.") -> None:
        super().__init__(what)

    def _render_traceback_(self) -> list[str]:
        """The short form that IPython shows: that it was cancelled is all there is to say."""
        return [str(self)]


def silent(tick: Tick) -> None:
    """Report nothing: the default of every stage."""


def track(items: Iterable[T], report: Report, total: int | None = None, note: str = "") -> Iterator[T]:
    """Yield ``items`` unchanged, reporting before the first and after each."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    report(Tick(0, total, note))
    for done, item in enumerate(items, start=1):
        yield item
        report(Tick(done, total, note))


def part(report: Report, note: str) -> Report:
    """A report for a part of a stage: the same ticks, the part's name put before each note."""
    return lambda tick: report(tick._replace(note=f"{note}: {tick.note}" if tick.note else note))


def time_left(tick: Tick, seconds: float) -> str:
    """Words for the time left, judged from ``seconds`` spent on ``tick.done`` steps; "" while unknown."""
    if not tick.total or not tick.done or tick.done >= tick.total:
        return ""
    left = seconds / tick.done * (tick.total - tick.done)
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


def words(tick: Tick, seconds: float = 0.0) -> str:
    """A tick as a sentence: ``calibrating 14/60, about 5 s left``."""
    said = tick.note or "working"
    if tick.total:
        said = f"{said} {tick.done}/{tick.total}"
    elif tick.done:  # of how many is unknown: a bare number would read as a part of the note
        said = f"{said} ({tick.done} done)"
    return ", ".join(filter(None, [said, time_left(tick, seconds)]))


def console(stream: TextIO | None = None, every: float = 1.0) -> Report:
    """A report that prints a line at most ``every`` seconds, and at each new note."""
    start = last = time.monotonic()
    noted = None

    def report(tick: Tick) -> None:
        nonlocal last, noted, start
        now = time.monotonic()
        if tick.note != noted:
            start, noted = now, tick.note
        elif now - last < every:
            return
        last = now
        print(f"  {words(tick, now - start)}", file=stream or sys.stderr, flush=True)

    return report
