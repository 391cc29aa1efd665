"""The Python call that a panel stands for, so that a learner can leave the widgets behind."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kit


def python_call(stage: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Any) -> str:
    """Such as ``kit.quantize(model, calibration, kit.QuantizeOptions(keep_float=('Conv_3',)))``.

    Arguments are named as the stage's signature names them; plain values are written out.
    """
    names = [p.name for p in inspect.signature(stage).parameters.values()
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "options"]
    names += [f"argument_{place}" for place in range(len(names), len(args))]
    parts = [_word(name, value) for name, value in zip(names, args, strict=False)]
    if options is not None and (said := _options(options)):
        order = list(inspect.signature(stage).parameters)
        straight = order.index("options") == len(args) if "options" in order else False
        parts.append(said if straight else f"options={said}")
    parts += [f"{name}={_word(name, value)}" for name, value in kwargs.items()]
    return f"{_public(stage)}({', '.join(parts)})"


def _options(options: Any) -> str:
    """The options with the fields that differ from their defaults; "" when none does."""
    given = []
    for field in dataclasses.fields(options):
        if not field.init:
            continue
        value = getattr(options, field.name)
        default = (field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default)
        if value != default:
            given.append(f"{field.name}={_word('', value)}")
    return f"{_public(type(options))}({', '.join(given)})" if given else ""


def _word(name: str, value: Any) -> str:
    if isinstance(value, Path):
        return repr(str(value))
    if not name or value is None or isinstance(value, bool | int | float) or (isinstance(value, str)
                                                                             and len(value) < 60):
        return repr(value)
    return name


def _public(thing: Any) -> str:
    """The name a reader would write: ``kit.quantize`` where the kit exports it."""
    name = thing.__name__
    ours = thing.__module__.startswith("kit.") and name in kit.__all__ and getattr(kit, name) is thing
    return f"kit.{name}" if ours else name
