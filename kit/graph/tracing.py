"""Where one number of a computed shape comes from: the size of which axis of which tensor.

Exporters write ``Resize(x, Concat(Shape(x)[0:2], [80, 80]))`` so that the batch may vary; to see that the batch is not
resized, one number has to be followed through Concat, Slice and Gather back to a Shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.graph.values import is_op, numbers, rank, shape

if TYPE_CHECKING:
    import onnx_ir as ir

PASSING = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")  # of a list of one number: it stays the same number
DEEPEST = 20


def axis_behind(value: ir.Value, at: int, depth: int = DEEPEST) -> tuple[ir.Value, int] | None:
    """The tensor and its axis of which number ``at`` of a 1-D tensor is the size; None when that cannot be told."""
    node = value.producer()
    if node is None or depth == 0:
        return None
    source = node.inputs[0]
    if is_op(node, "Shape"):
        count = rank(source)
        start = node.attributes.get_int("start", 0)
        return (source, at + start) if start >= 0 and count is not None and at + start < count else None
    if is_op(node, "Concat"):
        for part in node.inputs:
            length = (shape(part) or [None])[0]
            if length is None or at < length:
                return None if length is None else axis_behind(part, at, depth - 1)
            at -= length
        return None
    if is_op(node, "Gather"):
        indices = numbers(node.inputs[1])
        inner = (shape(source) or [None])[0]
        if indices is None or at >= len(indices) or (indices[at] < 0 and inner is None):
            return None
        return axis_behind(source, indices[at] + inner if indices[at] < 0 else indices[at], depth - 1)
    if is_op(node, "Slice") and len(node.inputs) > 2:
        starts, steps = numbers(node.inputs[1]), numbers(node.inputs[4]) if len(node.inputs) > 4 else [1]
        if starts is None or len(starts) != 1 or starts[0] < 0 or steps != [1]:
            return None
        return axis_behind(source, starts[0] + at, depth - 1)
    if is_op(node, *PASSING) and (node.op_type in ("Cast", "Identity") or at == 0):
        return axis_behind(source, at, depth - 1)
    return None


def is_axis(value: ir.Value, at: int, tensor: ir.Value, axis: int) -> bool:
    """Is number ``at`` of a computed shape the size of this axis of this tensor?"""
    found = axis_behind(value, at)
    if found is None:
        return False
    if found == (tensor, axis):
        return True
    theirs, ours = (source.shape[place] if source.shape is not None else None
                    for source, place in (found, (tensor, axis)))
    return ours is not None and theirs == ours and bool(getattr(ours, "value", ours))
