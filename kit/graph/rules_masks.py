"""Constants that float16 cannot hold, where they only mask a Softmax.

    Softmax(x + (1 - mask) * -1e9), Softmax(Where(mask, x, -inf)), Softmax(x + [0, -3.4e38 ...])

All that counts is that a masked place is far below the others: its exponential is 0. ATC computes in float16 by
default, where -1e9 is -inf, 0 * -inf is not a number, and one such row spoils the answer. -32752 is half the largest
float16: a score can be added to it, and a second mask, without leaving the range.

A row that is masked throughout answers otherwise than before (from -inf: not a number before).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, is_op, kind, scalar, set_input

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = 65504.0  # of float16
MASK = LARGEST / 2
WEIGHT = 1 << 24  # bytes: a larger constant is a weight, not a mask

# Operator -> places where a constant may be the mask, or a part of it.
_SITES = {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Where": (1, 2), "Slice": (0,), "Expand": (0,), "Gather": (0,),
          "Unsqueeze": (0,), "Reshape": (0,), "Trilu": (0,), "Max": (0, 1)}
# What a mask may go through on its way to the Softmax: what only moves it, and what adds or chooses.
_MOVES = ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Trilu",
          "Unsqueeze")
_WAY = (*_MOVES, "Add", "Concat", "Max", "Mul", "Neg", "Sub", "Where")


def _beyond(node: ir.Node) -> list[int]:
    """The places of its constants that float16 cannot hold; infinities are no numbers of float16 either."""
    import onnx_ir as ir

    found = []
    for at in _SITES.get(node.op_type, ()) if is_op(node, node.op_type) else ():
        value = node.inputs[at] if at < len(node.inputs) else None
        tensor = ir.convenience.get_const_tensor(value) if value is not None and not value.is_graph_input() else None
        if tensor is None or tensor.dtype.name not in ("FLOAT", "DOUBLE") or tensor.nbytes > WEIGHT:
            continue
        array = tensor.numpy()
        if array.size and (np.abs(array) > LARGEST).any():
            found.append(at)
    return found


def _blocked(node: ir.Node, setting: Setting) -> str:
    sides = set()
    for at in _beyond(node):
        side = _side(node, at)
        if isinstance(side, str):
            return side
        sides.add(side)
    if len(sides) > 1:
        return "its large constants pull both ways"
    return _elsewhere(node, sides.pop())


def _side(node: ir.Node, at: int) -> int | str:
    """1 or -1: on which side of the scores a large constant puts what it masks; or why it is no mask."""
    value, array = node.inputs[at], constant(node.inputs[at])
    if np.isnan(array).any():
        return f"{value.name} holds numbers that are none (NaN)"
    sides = set(np.sign(array[np.abs(array) > LARGEST]).astype(int).tolist())
    if len(sides) > 1:
        return f"{value.name} reaches from {array.min():.3g} to {array.max():.3g}, and a mask is large on one side only"
    side = sides.pop()
    if is_op(node, "Mul"):
        other = node.inputs[1 - at]
        if not (switch := _switch(other)):
            return f"it multiplies {value.name} with {other.name}, of which nothing says that it is only 0 or 1"
        return side * switch
    return -side if is_op(node, "Sub") and at == 1 else side


def _switch(value: ir.Value, depth: int = 8) -> int:
    """1 where ``value`` is 0 or 1, -1 where it is 0 or -1, else 0. What a mask is cast from is taken for one."""
    node = value.producer()
    if node is None or depth == 0:
        found = constant(value)
        if found is None:
            return 0
        return 1 if np.isin(found, (0, 1)).all() else -1 if np.isin(found, (0, -1)).all() else 0
    if is_op(node, "Cast"):
        source = node.inputs[0]
        if source.dtype is not None and source.dtype.name in ("BOOL", "INT64", "INT32", "UINT8"):
            return 1
        return _switch(source, depth - 1)
    if is_op(node, "Sub"):
        if scalar(node.inputs[0]) == 1 and _is_mask(node.inputs[1], depth):
            return 1
        return -1 if scalar(node.inputs[1]) == 1 and _is_mask(node.inputs[0], depth) else 0
    if is_op(node, "Neg"):
        return -_switch(node.inputs[0], depth - 1)
    return _switch(node.inputs[0], depth - 1) if kind(value) in _MOVES else 0


def _is_mask(value: ir.Value, depth: int) -> bool:
    """Is it 0 or 1? An input that one is subtracted from, and that is multiplied with -1e9, is meant to be."""
    while kind(value) in _MOVES and kind(value) != "Cast":
        value = value.producer().inputs[0]
    return value.is_graph_input() or _switch(value, depth - 1) == 1


def _elsewhere(node: ir.Node, side: int) -> str:
    """What else than a Softmax, far below its other numbers, the masked ones reach; "" when nothing."""
    waiting, seen, softmax = [(node.outputs[0], side)], set(), False
    while waiting:
        value, side = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            return f"it reaches the output {value.name}, not only a Softmax"
        for reader, at in value.uses():
            if is_op(reader, "Softmax"):
                softmax = True
                if side > 0:
                    return f"it makes numbers in front of Softmax {reader.name} large, which masks all others"
            elif not is_op(reader, *_WAY) or (is_op(reader, "Mul") and _switch(reader.inputs[1 - at]) != 1):
                return f"it reaches {reader.op_type} {reader.name}, not only a Softmax"
            else:
                turns = is_op(reader, "Neg") or (is_op(reader, "Sub") and at == 1)
                waiting.append((reader.outputs[0], -side if turns else side))
    return "" if softmax else "no Softmax reads it"


def _soften(node: ir.Node, setting: Setting) -> str:
    builder, said = Builder(node, setting.model), []
    for at in _beyond(node):
        value, array = node.inputs[at], constant(node.inputs[at])
        new = np.where(np.abs(array) > LARGEST, np.sign(array) * MASK, array).astype(array.dtype)
        worst = array.flat[np.abs(array).argmax()]
        said.append(f"{worst:.3g} became {np.sign(worst) * MASK:g}")
        set_input(node, at, builder.weight(new, f"{value.name}_fp16"))
    return ", ".join(said) + ": as good a mask, within float16"


RULES = (
    Rule("fp16-constants", "ATC computes in float16 by default, where a mask of -1e9 is -inf, and 0 * -inf is not a "
         "number.", lambda node, setting: bool(_beyond(node)), _blocked, _soften),
)
