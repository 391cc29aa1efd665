"""Merges a LayerNormalization that was exported in parts.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias -> LayerNormalization (opset 17)

over the last axes; the square as Mul or Pow, the division as Div or as Mul with a Reciprocal, one Sub or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.formula import squared
from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, is_constant, is_op, kind, outside_reader, replace, scalar, shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Norm:
    """A LayerNormalization in parts: its core, and the scale and bias after it (None where there is none)."""

    source: ir.Value
    axis: int
    epsilon: float
    scale: ir.Value | None
    bias: ir.Value | None
    last: ir.Node
    nodes: tuple[ir.Node, ...]


def _norm(node: ir.Node) -> _Norm | None:
    """``node`` divides a deviation by its spread; what stands before and after it."""
    if is_op(node, "Div"):
        deviation, spread, nodes = node.inputs[0], node.inputs[1], [node]
    elif is_op(node, "Mul"):
        at = next((at for at in (0, 1) if kind(node.inputs[at]) == "Reciprocal"), None)
        if at is None:
            return None
        inverse = node.inputs[at].producer()
        deviation, spread, nodes = node.inputs[1 - at], inverse.inputs[0], [node, inverse]
    else:
        return None
    if kind(spread) == "Sqrt" or (kind(spread) == "Pow" and scalar(spread.producer().inputs[1]) == 0.5):
        root, variance = spread.producer(), spread.producer().inputs[0]
    else:
        return None
    if kind(variance) != "Add" or kind(deviation) != "Sub":
        return None
    add = variance.producer()
    at = next((at for at in (0, 1) if scalar(add.inputs[at]) is not None), None)
    if at is None or (axes := _mean_axes(add.inputs[1 - at])) is None:
        return None
    mean = add.inputs[1 - at].producer()
    square = squared(mean.inputs[0])
    sub = deviation.producer()
    if square is None or kind(square[0]) != "Sub" or _mean_axes(sub.inputs[1]) is None:
        return None
    other, average = square[0].producer(), sub.inputs[1].producer()
    means = {average, other.inputs[1].producer()}
    if other.inputs[0] is not sub.inputs[0]:
        return None
    if None in means or any(_mean_axes(part.outputs[0]) != axes for part in means):
        return None
    if any(part.inputs[0] is not sub.inputs[0] for part in means):
        return None
    nodes += [root, add, mean, square[1], other, sub, *means]
    scale, after = _next(node, "Mul")
    bias, last = _next(after, "Add") if scale is not None else (None, node)
    nodes += [after, last]
    return _Norm(sub.inputs[0], axes[0], scalar(add.inputs[at]), scale, bias, last, tuple(nodes))


def _mean_axes(value: ir.Value) -> tuple[int, ...] | None:
    """The axes of a ReduceMean that keeps its dimensions, counted from the end; None when not the last ones."""
    node = value.producer()
    if node is None or not is_op(node, "ReduceMean") or not node.attributes.get_int("keepdims", 1):
        return None
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        found = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = [] if found is None else found.reshape(-1).tolist()
    rank = len(node.inputs[0].shape) if node.inputs[0].shape is not None else None
    if any(axis >= 0 for axis in axes):
        if rank is None:
            return None
        axes = [axis - rank if axis >= 0 else axis for axis in axes]
    return tuple(sorted(axes)) if axes and sorted(axes) == list(range(-len(axes), 0)) else None


def _next(node: ir.Node, op_type: str) -> tuple[ir.Value | None, ir.Node]:
    """The constant that the only reader of ``node`` combines it with, and that reader; else (None, node)."""
    value = node.outputs[0]
    readers = value.consumers()
    if len(readers) == 1 and not value.is_graph_output() and is_op(readers[0], op_type):
        reader = readers[0]
        other = reader.inputs[1] if reader.inputs[0] is value else reader.inputs[0]
        if other is not value and is_constant(other):
            return other, reader
    return None, node


def _layernorm_blocked(node: ir.Node, setting: Setting) -> str:
    found = _norm(node)
    if setting.version < 17:
        return (f"LayerNormalization came with opset 17, and this model is of opset {setting.version}: fix it with "
                "opset=17 or export it so")
    sizes = shape(found.source)
    wanted = None if sizes is None else sizes[found.axis:]
    if found.source.dtype is None or found.source.dtype.name not in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"):
        return f"the type of {found.source.name} is not known to be a float"
    if found.scale is None and (wanted is None or None in wanted):
        return f"no scale follows it, and the last size of {found.source.name} is not known"
    for value in (found.scale, found.bias):
        if value is not None and _plain(constant(value), -found.axis, wanted) is None:
            return f"{value.name} of shape {list(value.shape or ())} is not one number for each element normalised"
    return outside_reader(found.nodes, found.last)


def _plain(array: np.ndarray, rank: int, wanted: list[int | None] | None) -> np.ndarray | None:
    """``array`` as LayerNormalization takes a scale: of the normalised axes only; None when it has others."""
    while array.ndim > rank and array.shape[0] == 1:
        array = array[0]
    if wanted is not None and None not in wanted and array.ndim <= rank:
        try:
            return np.broadcast_to(array, wanted)
        except ValueError:
            return None
    return array if array.ndim == rank and (rank > 1 or array.size > 1) else None


def _merge_layernorm(node: ir.Node, setting: Setting) -> str:
    found = _norm(node)
    builder = Builder(found.last, setting.model)
    sizes = shape(found.source)
    wanted = None if sizes is None else sizes[found.axis:]
    inputs = [found.source]
    for value, name in ((found.scale, "scale"), (found.bias, "bias")):
        if value is None and name == "scale":
            inputs.append(builder.weight(np.ones(wanted, found.source.dtype.numpy()), f"{node.name}/scale"))
        elif value is not None:
            array, plain = constant(value), _plain(constant(value), -found.axis, wanted)
            inputs.append(value if array.shape == plain.shape else builder.weight(plain, f"{value.name}_flat"))
    result = builder.op("LayerNormalization", inputs, {"axis": found.axis, "epsilon": found.epsilon},
                        like=found.last.outputs[0])
    count = len(set(found.nodes))
    replace(found.last, builder.nodes, result)
    return f"{count} nodes became LayerNormalization (epsilon={found.epsilon:.6g})"


RULES = (
    Rule("merge-layernorm", "One LayerNormalization reads and writes the tensor once instead of nine times, and "
         "sums in one place.", lambda node, setting: _norm(node) is not None, _layernorm_blocked, _merge_layernorm),
)
