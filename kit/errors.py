"""Errors a person can act on: what happened, to which thing, and what to do.

KitError
├── BadInput          a file, value or name given to the kit cannot be used
├── MissingTool       a package or program this stage needs is not installed
├── UnsupportedModel  the model has something this stage cannot handle
├── StaleResult       a stored result no longer belongs to the files it was made from
├── ToolFailed        an external exporter, compiler or runtime reported an error
└── WorkerDied        the worker process crashed or was killed (often: out of memory)

The remedy is a required argument, so no error can be raised without one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KitError(Exception):
    """What every foreseeable failure of the kit is.

    Args:
        what: one or two sentences: what happened, to which file or node, with the offending value.
        remedy: what the reader can do now.
        detail: long text to fold away: a log's tail, a list of names.
    """

    def __init__(self, what: str, *, remedy: str, detail: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy, self.detail = what, remedy, detail
        # PEP 678: the note shows under the message in IPython, pytest and a terminal alike.
        self.add_note(f"Try: {remedy}")

    def __reduce__(self):
        # Keyword-only arguments would not survive pickling on the way back from a worker.
        return _rebuild, (type(self), self.what, self.remedy, self.detail)

    def _render_traceback_(self) -> list[str]:
        """The short form that IPython shows: a reader needs the message, not sixty frames."""
        lines = [f"{type(self).__name__}: {self.what}", f"Try: {self.remedy}"]
        return [*lines, "", self.detail] if self.detail else lines


def _rebuild(kind: type[KitError], what: str, remedy: str, detail: str) -> KitError:
    return kind(what, remedy=remedy, detail=detail)


class BadInput(KitError):
    """A file, value or name given to the kit cannot be used."""


class MissingTool(KitError):
    """A package or program this stage needs is not installed, or fails to load."""


class UnsupportedModel(KitError):
    """The model has something this stage cannot handle."""


class StaleResult(KitError):
    """A stored result no longer belongs to the files, samples or options it was made from."""


class ToolFailed(KitError):
    """An external exporter, compiler or runtime reported an error."""


class WorkerDied(KitError):
    """The worker process crashed or was killed; the kernel is unharmed."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> BadInput:
    """The error for a name that is not there, with the closest that are.

    Args:
        kind: what the name should have been, such as ``"node"``.
        name: what was asked for.
        known: every valid name.
        where: what was searched, such as a file name.
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    place = f" in {where}" if where else ""
    hint = f"did you mean {', '.join(close)}?" if close else f"choose one of: {', '.join(names[:12])}" + (
        f" and {len(names) - 12} more" if len(names) > 12 else ""
    )
    return BadInput(f"There is no {kind} named {name!r}{place}.", remedy=hint, detail="\n".join(names))
