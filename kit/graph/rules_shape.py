"""Gives the axes of the inputs their sizes or names.

A wish is text: ``x=1,3,640,640`` fixes axes, ``x=batch,3,height,width`` names them, ``?`` leaves one as it is, and both
can be mixed. Without a wish, axes that have no usable name (unnamed, "?", -1) get one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kit.errors import BadInput, unknown
from kit.graph.inference import infer_again
from kit.graph.rule import Rule, Setting

if TYPE_CHECKING:
    import onnx_ir as ir

Axes = tuple[int | str | None, ...]


def parse(wishes: Iterable[str], inputs: dict[str, int], where: str) -> dict[str, Axes]:
    """Read ``("x=1,3,640,640",)``.

    Args:
        wishes: one text an input.
        inputs: name of every input -> its rank.
        where: the model's file name, for errors.

    Raises:
        BadInput: unreadable, an unknown input, or the wrong number of axes.
    """
    found: dict[str, Axes] = {}
    for wish in wishes:
        name, sign, text = wish.rpartition("=")
        parts = [part.strip() for part in text.split(",")]
        if not sign or not all(parts):
            raise BadInput(f"shapes cannot be {wish!r}.", remedy='write input=axes, such as "x=1,3,640,640" or '
                           '"x=batch,3,height,width"; ? leaves an axis as it is')
        if name.strip() not in inputs:
            raise unknown("input", name.strip(), inputs, where)
        if len(parts) != inputs[name.strip()]:
            raise BadInput(f"{wish!r} has {len(parts)} axes; input {name.strip()!r} of {where} has "
                           f"{inputs[name.strip()]}.", remedy="give one entry for each axis; ? leaves one as it is")
        found[name.strip()] = tuple(_axis(part, wish) for part in parts)
    return found


def _axis(part: str, wish: str) -> int | str | None:
    if part == "?":
        return None
    if part.lstrip("+-").isdigit():
        if int(part) < 1:
            raise BadInput(f"{wish!r}: an axis cannot have size {part}.", remedy="give 1 or more, a name, or ?")
        return int(part)
    return part


def dims(value: ir.Value) -> list[int | str | None]:
    """The axes of an input: a size, a name, or None where there is neither (unnamed, "?", -1)."""
    found: list[int | str | None] = []
    for dim in value.shape or ():
        plain = dim if isinstance(dim, int) else dim.value
        usable = plain >= 0 if isinstance(plain, int) else plain not in (None, "", "?", "-1", "None")
        found.append(plain if usable else None)
    return found


def _is_data(value: ir.Value) -> bool:
    return value.shape is not None and not value.is_initializer()


def _fixes(value: ir.Value, setting: Setting) -> dict[int, int]:
    wish = setting.shapes.get(value.name, ())
    return {at: want for at, (have, want) in enumerate(zip(dims(value), wish, strict=False))
            if isinstance(want, int) and have != want}


def _fix_blocked(value: ir.Value, setting: Setting) -> str:
    have = dims(value)
    for at, want in _fixes(value, setting).items():
        if isinstance(have[at], int):
            return f"axis {at} of input {value.name!r} is {have[at]} in the graph already and cannot become {want}"
    return ""


def _fix(value: ir.Value, setting: Setting) -> str:
    return _set_axes(value, setting, _fixes(value, setting))


def _new_names(value: ir.Value, setting: Setting) -> dict[int, str]:
    have = dims(value)
    wish = setting.shapes.get(value.name, (None,) * len(have))
    return {at: want if isinstance(want, str) else _default_name(value, at)
            for at, want in enumerate(wish)
            if (isinstance(want, str) and have[at] != want) or (want is None and have[at] is None)}


def _default_name(value: ir.Value, at: int) -> str:
    """batch, height, width where the layout can be told from 1 or 3 channels; ``<input>_<axis>`` otherwise."""
    have = dims(value)
    if len(have) == 4 and have[1] in (1, 3, 4):
        return ("batch", "", "height", "width")[at]
    if len(have) == 4 and have[3] in (1, 3, 4):
        return ("batch", "height", "width", "")[at]
    return "batch" if at == 0 and len(have) > 1 else f"{value.name}_{at}"


def _name_blocked(value: ir.Value, setting: Setting) -> str:
    have = dims(value)
    for at, name in _new_names(value, setting).items():
        if isinstance(have[at], int):
            return f"axis {at} of input {value.name!r} has the fixed size {have[at]}; it cannot be named {name!r}"
    return ""


def _name(value: ir.Value, setting: Setting) -> str:
    return _set_axes(value, setting, _new_names(value, setting))


def _set_axes(value: ir.Value, setting: Setting, wanted: Mapping[int, int | str]) -> str:
    import onnx_ir as ir

    new = [wanted.get(at, have) for at, have in enumerate(dims(value))]
    value.shape = ir.Shape(new)
    infer_again(setting.model)
    return f"input {value.name} is {_text(new)} now"


def _text(axes: list[int | str | None]) -> str:
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in axes) + "]"


RULES = (
    Rule("fix-shapes", "With fixed sizes a compiler plans memory ahead, and what computes shapes turns into constants.",
         lambda value, setting: _is_data(value) and bool(_fixes(value, setting)), _fix_blocked, _fix, "inputs"),
    Rule("name-axes", "An axis without a name says nothing about what may vary, and tools take -1 or ? for a size.",
         lambda value, setting: _is_data(value) and bool(_new_names(value, setting)), _name_blocked, _name, "inputs"),
)
