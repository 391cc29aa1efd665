"""The Python call that a panel stands for, so that a learner can leave the widgets behind."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import kit


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How a person wrote the arguments of a stage: source text, in order and by name."""

    args: tuple[str, ...] = ()
    kwargs: Mapping[str, str] = dataclasses.field(default_factory=dict)


UNKNOWN = Spelling()


def spelling(frame: FrameType | None, count: int, names: Sequence[str], *, before: int = 1) -> Spelling:
    """The arguments as the line now running in ``frame`` spells them, such as ``detector.model``; empty if unknown.

    Args:
        frame: of the code that called ``panel(stage, *args, **kwargs)``.
        count: how many ``args`` there were.
        names: of ``kwargs``.
        before: arguments that stand before those, as ``stage`` does.
    """
    try:
        place = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals)))
    except (AttributeError, IndexError, SyntaxError, ValueError):
        return UNKNOWN  # no source at hand: the caller is compiled, or exec'd from a string
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and place == (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset):
            said = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            if len(node.args) == count + before and not any(isinstance(arg, ast.Starred) for arg in node.args):
                return Spelling(tuple(map(ast.unparse, node.args[before:])), {n: said[n] for n in names if n in said})
    return UNKNOWN


def python_call(stage: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Any,
                spelt: Spelling = UNKNOWN) -> str:
    """Such as ``kit.quantize(fixed.model, calibration, kit.QuantizeOptions(keep_float=('Conv_3',)))``.

    Arguments read as they were written where the panel was made, so that the call works in the next cell too; where
    that is not known, as the stage's signature names them. Plain values are written out.
    """
    names = [p.name for p in inspect.signature(stage).parameters.values()
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "options"]
    names += [f"argument_{place}" for place in range(len(names), len(args))]
    names = [*spelt.args, *names[len(spelt.args):]]
    parts = [_word(name, value) for name, value in zip(names, args, strict=False)]
    if options is not None and (said := _options(options)):
        order = list(inspect.signature(stage).parameters)
        straight = order.index("options") == len(args) if "options" in order else False
        parts.append(said if straight else f"options={said}")
    parts += [f"{name}={_word(spelt.kwargs.get(name, name), value)}" for name, value in kwargs.items()]
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
    """The name a reader would write: ``kit.quantize``; ``diffusion.draw`` where ``kit.families`` has it."""
    name = thing.__name__
    if thing.__module__.startswith("kit.") and name in kit.__all__ and getattr(kit, name) is thing:
        return f"kit.{name}"
    if thing.__module__.startswith("kit.families."):
        family = thing.__module__.split(".")[2].partition("_")[0]
        if getattr(sys.modules.get(f"kit.families.{family}"), name, None) is thing:
            return f"{family}.{name}"
    return name
