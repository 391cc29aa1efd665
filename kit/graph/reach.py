"""How far a tensor reaches, read from the graph: of integers the lowest and highest value, or why that is not known.

Read from constants, sizes, positions (ArgMax, TopK, NonZero, NonMaxSuppression) and what is computed from them. An
input of the model is known where a Gather takes it for an index: anything beyond the axis would be an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.values import constant, is_op, kind, shape

if TYPE_CHECKING:
    import onnx_ir as ir

OPEN = 1 << 24  # what an open axis counts for: longer than any picture side, sentence, or minute of sound
DEEPEST = 60  # nodes looked back; a longer chain is not known


@dataclass(frozen=True)
class Reach:
    """``low <= value <= high`` for every element; ``unknown`` says why there is no such promise."""

    low: int = 0
    high: int = 0
    unknown: str = ""

    def within(self, dtype: type[np.signedinteger]) -> bool:
        """Does every value fit?"""
        limits = np.iinfo(dtype)
        return not self.unknown and limits.min <= self.low and self.high <= limits.max


def reach(value: ir.Value) -> Reach:
    """Of an integer or bool tensor."""
    return _Reader().of(value, DEEPEST)


def not_negative(value: ir.Value, depth: int = 12) -> bool:
    """Can no element be below 0?"""
    node = value.producer()
    if node is None:
        found = constant(value)
        return found is not None and bool((found >= 0).all())
    if kind(value) in _NOT_NEGATIVE:
        return True
    parts = node.inputs if kind(value) in _COMBINES else node.inputs[:1] if kind(value) in _PASSES_ON else []
    return depth > 0 and bool(parts) and all(not_negative(part, depth - 1) for part in parts)


class _Reader:
    """Looks every value up once."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, Reach] = {}

    def of(self, value: ir.Value, depth: int) -> Reach:
        if value not in self._known:
            self._known[value] = self._of(value, depth)
        return self._known[value]

    def _of(self, value: ir.Value, depth: int) -> Reach:
        dtype = value.dtype.name if value.dtype is not None else ""
        if (array := _stored(value)) is not None:
            if array.dtype.kind not in "iub":
                return Reach(unknown=f"{value.name} is {array.dtype}, not an integer")
            return Reach(int(array.min()), int(array.max())) if array.size else Reach()
        node = value.producer()
        found = _of_input(value) if node is None else self._made(node, value, depth)
        return Reach(*_TYPES[dtype]) if found.unknown and dtype in _TYPES else found

    def _made(self, node: ir.Node, value: ir.Value, depth: int) -> Reach:
        handler = _MADE.get(kind(value))
        if handler is None:
            return Reach(unknown=f"how far {value.name} reaches is not known: {node.op_type} {node.name} computes it")
        if depth == 0:
            return Reach(unknown=f"how far {value.name} reaches is not known: it is the end of a long chain")
        return handler(node, value, lambda other: self.of(other, depth - 1))


Ask = Callable[["ir.Value"], Reach]


def _stored(value: ir.Value) -> np.ndarray | None:
    return constant(value) if value.producer() is None or kind(value) == "Constant" else None


def _of_input(value: ir.Value) -> Reach:
    """Of an input: what the Gathers that read it allow."""
    for node in value.consumers():
        if is_op(node, "Gather", "GatherElements") and node.inputs[1] is value and node.graph is value.graph:
            sizes, axis = shape(node.inputs[0]), node.attributes.get_int("axis", 0)
            if sizes is not None and sizes[axis] is not None:
                return Reach(-sizes[axis], sizes[axis] - 1)
    return Reach(unknown=f"how far the input {value.name} reaches is not known")


def _size(size: int | None) -> int:
    return OPEN if size is None else size


def _position(value: ir.Value, axis: int) -> Reach:
    """Of indices along an axis of ``value``."""
    sizes = shape(value)
    return Reach(0, max(0, _size(sizes[axis] if sizes else None) - 1))


def _longest(*values: ir.Value) -> Reach:
    sizes = [size for value in values for size in (shape(value) or [None])]
    return Reach(0, max([0, *(_size(size) - 1 for size in sizes)]))


def _hull(parts: Iterator[Reach] | list[Reach]) -> Reach:
    parts = list(parts)
    unknown = next((part for part in parts if part.unknown), None)
    return unknown or Reach(min(part.low for part in parts), max(part.high for part in parts))


def _corners(compute: Callable[[int, int], int]) -> Callable[[ir.Node, ir.Value, Ask], Reach]:
    """Of an operation that is monotonic in either input."""

    def read(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
        left, right = ask(node.inputs[0]), ask(node.inputs[1])
        if left.unknown or right.unknown:
            return left if left.unknown else right
        found = [compute(a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
        return Reach(min(found), max(found))

    return read


def _div(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    left, right = ask(node.inputs[0]), ask(node.inputs[1])
    if left.unknown:
        return left
    if right.unknown or right.low <= 0:
        most = max(abs(left.low), abs(left.high))  # at most: dividing by 1 or -1; by 0 is an error
        return Reach(-most, most)
    return Reach(min(0, -(-left.low // right.low)), max(0, left.high // right.low))


def _mod(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    right = ask(node.inputs[1])
    if right.unknown:
        return right
    most = max(0, abs(right.low) - 1, abs(right.high) - 1)
    return Reach(0 if right.low > 0 and not node.attributes.get_int("fmod", 0) else -most, most)


def _abs(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    part = ask(node.inputs[0])
    return part if part.unknown else Reach(0, max(abs(part.low), abs(part.high)))


def _neg(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    part = ask(node.inputs[0])
    return part if part.unknown else Reach(-part.high, -part.low)


def _extreme(choose: Callable[..., int]) -> Callable[[ir.Node, ir.Value, Ask], Reach]:
    def read(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
        parts = [ask(part) for part in node.inputs]
        unknown = next((part for part in parts if part.unknown), None)
        return unknown or Reach(choose(part.low for part in parts), choose(part.high for part in parts))

    return read


def _clip(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    limits = [ask(part) if part is not None else None for part in (*node.inputs[1:], None, None)[:2]]
    if all(limit is not None and not limit.unknown for limit in limits):
        return Reach(min(limits[0].low, limits[1].low), max(limits[0].high, limits[1].high))
    inner = ask(node.inputs[0])
    return inner if inner.unknown else _hull([inner, *(limit for limit in limits if limit is not None)])


def _summed(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    part, sizes = ask(node.inputs[0]), shape(node.inputs[0])
    if part.unknown:
        return part
    axes = node.attributes.get_ints("axes", None) or (constant(node.inputs[1]) if len(node.inputs) > 1 else None)
    if sizes is not None and axes is not None:
        sizes = [sizes[axis] for axis in np.reshape(axes, -1)]
    count = prod(_size(size) for size in (sizes if sizes is not None else [None]))  # at most: all of it
    return Reach(min(0, part.low * count), max(0, part.high * count))


def _range(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    return _hull([ask(node.inputs[0]), ask(node.inputs[1])])


def _filled(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    tensor = node.attributes.get_tensor("value")
    number = int(tensor.numpy().reshape(-1)[0]) if tensor is not None else 0
    return Reach(number, number)


def _cast(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    source = node.inputs[0]
    dtype = source.dtype.name if source.dtype is not None else "an unknown type"
    if dtype in _TYPES or dtype == "INT64":
        return ask(source)
    return Reach(unknown=f"Cast {node.name} makes {value.name} from {dtype}, which may be anything")


def _of_some(*places: int) -> Callable[[ir.Node, ir.Value, Ask], Reach]:
    """Of an operator that only moves the elements of these inputs; no place stands for all of them."""

    def read(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
        return _hull([ask(part) for part in (node.inputs if not places else [node.inputs[at] for at in places])
                      if part is not None])

    return read


def _padded(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return _hull([ask(node.inputs[0]), Reach() if fill is None else ask(fill)])


def _scattered(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    if node.attributes.get_string("reduction", "none") != "none":
        return Reach(unknown=f"{node.op_type} {node.name} computes {value.name}")
    return _hull([ask(node.inputs[0]), ask(node.inputs[2])])


def _best(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    if value is node.outputs[0]:
        return ask(node.inputs[0])
    return _position(node.inputs[0], node.attributes.get_int("axis", -1))


def _sizes(node: ir.Node, value: ir.Value, ask: Ask) -> Reach:
    sizes = shape(node.inputs[0])
    if sizes == []:
        return Reach()
    return Reach(min(size or 0 for size in sizes), max(_size(size) for size in sizes)) if sizes else Reach(0, OPEN)


# What cannot give a negative number; what gives none where all its inputs hold none; what passes its first input on.
_NOT_NEGATIVE = ("Sigmoid", "Softmax", "HardSigmoid", "Relu", "Exp", "Abs", "Sqrt")
_COMBINES = ("Add", "Concat", "Max", "Min", "Mul")
_PASSES_ON = ("Cast", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "ReduceMax", "ReduceMin", "Reshape",
              "Slice", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze")

_TYPES = {"BOOL": (0, 1), **{kind.upper(): (np.iinfo(kind).min, np.iinfo(kind).max) for kind in (
    "int8", "uint8", "int16", "uint16", "int32", "uint32")}}

_MADE: dict[str, Callable[[ir.Node, ir.Value, Ask], Reach]] = {
    "Shape": _sizes,
    "Size": lambda node, value, ask: Reach(0, prod(_size(size) for size in (shape(node.inputs[0]) or [None]))),
    "ArgMax": lambda node, value, ask: _position(node.inputs[0], node.attributes.get_int("axis", 0)),
    "ArgMin": lambda node, value, ask: _position(node.inputs[0], node.attributes.get_int("axis", 0)),
    "TopK": _best,
    "NonZero": lambda node, value, ask: _longest(node.inputs[0]),
    # -1 in the rows that Ascend pads
    "NonMaxSuppression": lambda node, value, ask: Reach(-1, _longest(node.inputs[0], node.inputs[1]).high),
    "Add": _corners(lambda a, b: a + b), "Sub": _corners(lambda a, b: a - b), "Mul": _corners(lambda a, b: a * b),
    "Div": _div, "Mod": _mod, "Neg": _neg, "Abs": _abs, "Min": _extreme(min), "Max": _extreme(max), "Clip": _clip,
    "ReduceSum": _summed, "CumSum": _summed, "ReduceMax": _of_some(0), "ReduceMin": _of_some(0),
    "Range": _range, "ConstantOfShape": _filled, "Cast": _cast, "OneHot": _of_some(2),
    "Identity": _of_some(0), "Reshape": _of_some(0), "Flatten": _of_some(0), "Squeeze": _of_some(0),
    "Unsqueeze": _of_some(0), "Transpose": _of_some(0), "Slice": _of_some(0), "Expand": _of_some(0),
    "Tile": _of_some(0), "Split": _of_some(0), "Gather": _of_some(0), "GatherElements": _of_some(0),
    "GatherND": _of_some(0), "Compress": _of_some(0), "Concat": _of_some(), "Where": _of_some(1, 2), "Pad": _padded,
    "ScatterND": _scattered, "ScatterElements": _scattered,
    "Trilu": lambda node, value, ask: _hull([ask(node.inputs[0]), Reach()]),
    "EyeLike": lambda node, value, ask: Reach(0, 1),
}
