"""Finding the stored result that a panel's run would give, without running anything.

A result counts as the one when its options read the same and every argument's digest is among its inputs. When in
doubt nothing is claimed: the stage itself decides, and is instant when its result is there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import record
from kit.errors import KitError
from kit.model import Model
from kit.source import recognise


@dataclass(frozen=True)
class Stored:
    """A result on disk: its folder, when it was made, how long that took, and its title if it can be read."""

    folder: Path
    made: str
    seconds: float
    title: str

    def words(self) -> str:
        """Such as ``from 14:02 yesterday (took 12 s): INT8, 3.9 times smaller``."""
        took = f" (took {self.seconds:.0f} s)" if self.seconds >= 1 else ""
        return f"from {when(self.made)}{took}" + (f": {self.title}" if self.title else "")


def find(stage: Callable[..., Any], options: Any, digests: tuple[frozenset[str], ...], runs: Path) -> Stored | None:
    """The newest stored result of ``stage`` for these options and inputs, or None."""
    found = []
    for path in runs.glob(f"*/{stage.__name__}-*/{record.RESULT}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            origin = json.loads(path.read_text(encoding="utf-8"))["provenance"]
            inputs = set(origin["inputs"].values())
            if origin["options"] == repr(options) and all(forms & inputs for forms in digests):
                found.append((origin["made"], path.parent, float(origin["seconds"])))
    if not found:
        return None
    made, folder, seconds = max(found)
    return Stored(folder, made, seconds, _title(stage, folder))


def find_of(stage: Callable[..., Any], result: Any) -> Stored | None:
    """Where ``result`` is stored if ``stage`` gave it: exact where a stage fingerprints its arguments its own way."""
    made = getattr(result, "provenance", None)
    if made is None or made.stage != stage.__name__ or not (made.folder / record.RESULT).is_file():
        return None
    return Stored(made.folder, made.made, made.seconds, result.title())


def digests_of(values: Iterable[Any]) -> tuple[frozenset[str], ...] | None:
    """For each of a stage's arguments the digests it may be known by; None where one has none.

    A stage may take a path, a Model and an earlier result alike, and fingerprints what it made of them.
    """
    made = []
    for value in values:
        if value is None:
            continue
        digests = set()
        for form in _forms(value):
            with contextlib.suppress(TypeError, ValueError, OSError, KitError):
                digests.add(record.digest(form()))
        if not digests:
            return None
        made.append(frozenset(digests))
    return tuple(made)


def _forms(value: Any) -> list[Callable[[], Any]]:
    found = [lambda: value, lambda: recognise(value)]
    if hasattr(value, "model"):
        found.append(lambda: value.model)
    if isinstance(value, str | Path):
        found += [lambda: Path(value), lambda: Model.open(value)]
    return found


@contextlib.contextmanager
def set_aside(stored: Stored | None) -> Iterator[None]:
    """Hide a stored result so that the stage works afresh; it comes back if the block does not end well."""
    if stored is None or not stored.folder.is_dir():
        yield
        return
    aside = stored.folder.with_name(f".{stored.folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    stored.folder.replace(aside)
    try:
        yield
    except BaseException:
        if not stored.folder.exists():
            aside.replace(stored.folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def when(made: str, now: float | None = None) -> str:
    """``2026-11-20 14:02:10`` -> ``14:02 yesterday``."""
    try:
        then = time.strptime(made, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return made
    today = time.localtime(now)
    clock = time.strftime("%H:%M", then)
    # Noon to noon: a day with a change of clocks still counts as one.
    days = round((time.mktime((*today[:3], 12, 0, 0, 0, 0, -1)) - time.mktime((*then[:3], 12, 0, 0, 0, 0, -1))) / 86400)
    return f"{clock} {'today' if days == 0 else 'yesterday' if days == 1 else 'on ' + made[:10]}"


def _title(stage: Callable[..., Any], folder: Path) -> str:
    with contextlib.suppress(Exception):  # a title is a courtesy: any reason not to have one is fine
        return record.load(typing.get_type_hints(stage)["return"], folder).title()
    return ""
