"""What options classes share: ranges a panel can draw, and a check that names the bad value.

An options class is a frozen dataclass that inherits ``Options``; its field types say what is allowed:
``Literal[...]`` a choice, ``bool`` a switch, ``Annotated[int, Range(1, 512)]`` a number with bounds.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from kit.errors import BadInput


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included; ``step`` is how far a slider moves."""

    low: float
    high: float
    step: float | None = None


@dataclass(frozen=True)
class Help:
    """A sentence about a field, shown beside its control."""

    text: str


@dataclass(frozen=True)
class Field:
    """One option as a panel sees it. ``kind`` is the type without Annotated and without ``| None``."""

    name: str
    kind: Any
    default: Any
    range: Range | None
    help: str
    optional: bool


class Options:
    """Base of every options class: values are checked when it is made."""

    def __post_init__(self) -> None:
        for field in fields(type(self)):
            _check(type(self).__name__, field, getattr(self, field.name))


def expect(kind: type, options: Any) -> None:
    """Refuse an options object of another stage.

    Raises:
        BadInput: says which class was given and which is wanted.
    """
    if not isinstance(options, kind):
        room = "kit.ascend" if kind.__module__.startswith("kit.ascend.") else "kit"
        raise BadInput(f"The options are of type {type(options).__name__}; this stage takes {kind.__name__}.",
                       remedy=f"give {room}.{kind.__name__}(...)")


def fields(kind: type) -> tuple[Field, ...]:
    """The fields of an options class, in order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(_field(f, hints[f.name]) for f in dataclasses.fields(kind) if f.init)


def _field(declared: dataclasses.Field, hint: Any) -> Field:
    found = []
    optional = False
    while True:
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            found += notes
        elif get_origin(hint) in (typing.Union, types.UnionType) and type(None) in get_args(hint):
            rest = [a for a in get_args(hint) if a is not type(None)]
            optional, hint = True, (rest[0] if len(rest) == 1 else typing.Union[tuple(rest)])  # noqa: UP007
            if len(rest) > 1:
                break
        else:
            break
    if declared.default is not dataclasses.MISSING:
        default = declared.default
    else:
        default = declared.default_factory() if declared.default_factory is not dataclasses.MISSING else None
    bounds = next((n for n in found if isinstance(n, Range)), None)
    text = next((n.text for n in found if isinstance(n, Help)), "")
    return Field(declared.name, hint, default, bounds, text, optional)


def _check(owner: str, field: Field, value: Any) -> None:
    if value is None and field.optional:
        return
    if get_origin(field.kind) is Literal and value not in get_args(field.kind):
        choices = ", ".join(repr(choice) for choice in get_args(field.kind))
        raise BadInput(f"{owner}.{field.name} cannot be {value!r}.", remedy=f"choose one of {choices}")
    if field.kind is bool and not isinstance(value, bool):
        raise BadInput(f"{owner}.{field.name} cannot be {value!r}.", remedy="give True or False")
    if field.kind in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (field.kind is int and value != int(value)):
            raise BadInput(f"{owner}.{field.name} cannot be {value!r}.", remedy=f"give a {field.kind.__name__}")
        if field.range and not field.range.low <= value <= field.range.high:
            raise BadInput(f"{owner}.{field.name} cannot be {value!r}.",
                           remedy=f"give a number from {field.range.low} to {field.range.high}")
