"""Sizes that a graph computes, as far as they can be read from it: numbers, and the names of axes without one.

Exporters compute the target of a Reshape from Shape, Gather, Concat and Div, and the scale of an attention as
1 / sqrt(the last size). ONNX's own shape inference stops at the first Div; a rule that has to know that heads times
width is the last axis goes on here. A batch stays a name (``"N"``), so that two of them can be told to be the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.graph.values import is_op, kind, numbers

if TYPE_CHECKING:
    import onnx_ir as ir

Size = int | float | str | None  # a number, the name of an axis, or not known
DEEPEST = 40  # nodes looked back
SHORT = 64  # elements: no shape and no scale is longer
_PASSING = ("Identity", "Squeeze", "Unsqueeze")  # of a list: the numbers stay
_OF_TWO = {"Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b}


def sizes(value: ir.Value | None, depth: int = DEEPEST) -> list[Size] | None:
    """Every axis of a tensor; None when even the rank is not known."""
    if value is None:
        return None
    if depth and kind(value) == "Reshape" and (wanted := elements(value.producer().inputs[1], depth - 1)) is not None:
        return _reshaped(sizes(value.producer().inputs[0], depth - 1), wanted)
    if depth and kind(value) == "Transpose" and (source := sizes(value.producer().inputs[0], depth - 1)) is not None:
        order = value.producer().attributes.get_ints("perm", tuple(range(len(source)))[::-1])
        return [source[axis] for axis in order]
    if value.shape is None:
        return None
    return [axis if isinstance(axis, int) else axis.value for axis in value.shape]


def elements(value: ir.Value | None, depth: int = DEEPEST) -> list[Size] | None:
    """The numbers in a small tensor that is computed from sizes, flat; None when it is not such a one."""
    if value is None or depth == 0:
        return None
    if (stored := _stored(value)) is not None:
        return stored
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "Shape"):
        end = node.attributes.get_int("end") if "end" in node.attributes else None
        found = sizes(node.inputs[0], depth - 1)
        return None if found is None else found[node.attributes.get_int("start", 0):end]
    if is_op(node, "Concat"):
        parts = [elements(part, depth - 1) for part in node.inputs]
        return None if None in parts else [size for part in parts for size in part]
    found = elements(node.inputs[0], depth - 1) if node.inputs else None
    if found is None:
        return None
    if is_op(node, *_PASSING):
        return found
    if is_op(node, "Cast"):
        return [_cast(size, value) for size in found]
    if is_op(node, "Gather", "Slice"):
        return _picked(node, found)
    if is_op(node, "Sqrt"):
        return [math.sqrt(size) if isinstance(size, int | float) and size >= 0 else None for size in found]
    if is_op(node, "Div", *_OF_TWO):
        return _computed(node, found, elements(node.inputs[1], depth - 1))
    return None


def number(value: ir.Value | None) -> float | None:
    """The one number in a tensor that is constant, or computed from sizes that are known; None for anything else."""
    found = elements(value)
    return float(found[0]) if found is not None and len(found) == 1 and isinstance(found[0], int | float) else None


def _stored(value: ir.Value) -> list[Size] | None:
    import onnx_ir as ir

    tensor = None if value.is_graph_input() else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > SHORT or tensor.dtype == ir.DataType.STRING:
        return None
    return np.asarray(tensor.numpy()).reshape(-1).tolist()


def _reshaped(source: list[Size] | None, wanted: list[Size]) -> list[Size]:
    """What a Reshape makes; an axis of 0 is copied (no shape here has an empty one)."""
    made = [(source[at] if source is not None and at < len(source) else None) if size == 0 else size
            for at, size in enumerate(wanted)]
    if -1 not in made:
        return made
    have, others = list(source or [None]), [size for size in made if size != -1]
    for size in list(others):  # axes of the same name on both sides cancel out
        if isinstance(size, str) and size in have:
            have.remove(size)
            others.remove(size)
    known = all(isinstance(size, int) for size in (*have, *others)) and math.prod(others) > 0
    rest = math.prod(have) // math.prod(others) if known else None
    return [rest if size == -1 else size for size in made]


def _cast(size: Size, value: ir.Value) -> Size:
    """The number as the type it becomes, which decides how it is divided; a name stands for a whole number."""
    if isinstance(size, int | float) and value.dtype is not None:
        return float(size) if value.dtype.is_floating_point() else int(size)
    return size if isinstance(size, str) else None


def _picked(node: ir.Node, found: list[Size]) -> list[Size] | None:
    if node.op_type == "Gather":
        places = numbers(node.inputs[1])
        good = places is not None and all(-len(found) <= place < len(found) for place in places)
        return [found[place] for place in places] if good else None
    limits = [numbers(part) for part in node.inputs[1:]]
    if any(part is None or len(part) != 1 for part in limits):
        return None
    return found[slice(limits[0][0], limits[1][0], limits[3][0] if len(limits) > 3 else 1)]


def _computed(node: ir.Node, left: list[Size], right: list[Size] | None) -> list[Size] | None:
    if right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
        return None
    count = max(len(left), len(right))
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    return [_of_two(node, *pair) for pair in pairs]


def _of_two(node: ir.Node, left: Any, right: Any) -> Size:
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return None
    if node.op_type != "Div":
        return _OF_TWO[node.op_type](left, right)
    whole = isinstance(left, int) and isinstance(right, int)
    return None if right == 0 else left // right if whole else left / right
