"""Integers 32 bits wide, as AI Core computes them, where no value is lost.

    Add(a, b) of int64       -> Cast to int32, Add, Cast to int64       where inputs and result fit (kit.graph.reach)
    TopK: indices of int64   -> indices, Cast to int32, Cast to int64   whatever an .om makes of them, readers get int64

Every node gets Casts of its own; those that meet another one's are left out, so that a chain ends up with Casts at its
borders only: before what demands int64 (Reshape, Expand, an output), behind what makes int64 (Shape, an input). The
inputs and outputs of the model keep their types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.reach import reach
from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, is_constant, is_op, kind, replace, retire

if TYPE_CHECKING:
    import onnx_ir as ir

# ReduceSum is not among them: on the 310P its AI Core kernel takes int64 and no int32 (CANN 8.1.RC1).
_COMPUTES = ("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "CumSum")
_COMPARES = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
# What only moves elements gains nothing by itself; on the way to arithmetic it goes along, so that no Casts cut a chain
# in two. With the places of what is moved; () for all inputs.
_MOVES = {"Reshape": (0,), "Flatten": (0,), "Squeeze": (0,), "Unsqueeze": (0,), "Transpose": (0,), "Slice": (0,),
          "Expand": (0,), "Tile": (0,), "Gather": (0,), "GatherElements": (0,), "Concat": (), "Where": (1, 2)}
_INDEXES = ("Gather", "GatherElements")  # take int32 as well as int64


def _is(value: ir.Value | None, dtype: str) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == dtype


def _hidden(value: ir.Value | None) -> ir.Value | None:
    """The int32 tensor that ``value`` is a Cast of."""
    if value is None or kind(value) != "Cast" or not _is(value, "INT64"):
        return None
    source = value.producer().inputs[0]
    return source if _is(source, "INT32") else None


def _reads_hidden_indices(node: ir.Node) -> bool:
    return is_op(node, *_INDEXES) and _hidden(node.inputs[1]) is not None


def _data(node: ir.Node) -> tuple[int, ...]:
    """The places of the numbers that a node computes with, or moves."""
    if node.op_type == "CumSum":
        return (0,)
    return _MOVES.get(node.op_type) or tuple(range(len(node.inputs)))


def _matches(node: ir.Node, setting: Setting) -> bool:
    if _reads_hidden_indices(node):
        return True
    if not is_op(node, *_COMPUTES, *_COMPARES, *_MOVES):
        return False
    data = [node.inputs[at] for at in _data(node)]
    if not all(_is(value, "INT64") for value in data) or all(is_constant(value) for value in data):
        return False
    return node.op_type not in _MOVES or (all(_hidden(value) is not None or is_constant(value) for value in data)
                                          and _is_computed_with(node))


def _is_computed_with(node: ir.Node, depth: int = 12) -> bool:
    """Does what a node moves come to arithmetic, or to a Gather as indices?"""
    for reader, at in node.outputs[0].uses():
        if is_op(reader, *_COMPUTES, *_COMPARES) or (is_op(reader, *_INDEXES) and at == 1):
            return True
        if depth and is_op(reader, *_MOVES) and at in _data(reader) and _is_computed_with(reader, depth - 1):
            return True
    return False


def _blocked(node: ir.Node, setting: Setting) -> str:
    if _reads_hidden_indices(node):
        return ""
    results = () if is_op(node, *_COMPARES) else node.outputs
    for value in (*(node.inputs[at] for at in _data(node)), *results):
        found = reach(value)
        if found.unknown:
            return f"{found.unknown}, so it stays int64"
        if not found.within(np.int32):
            return f"{value.name} may lie anywhere from {found.low:,} to {found.high:,}, which int32 does not hold"
    return ""


def _narrow(node: ir.Node, setting: Setting) -> str:
    builder, inputs, name = Builder(node, setting.model), list(node.inputs), node.name
    if _reads_hidden_indices(node):
        node.replace_input_with(1, _hidden(inputs[1]))
        retire([inputs[1]])
        return f"it takes the int32 indices {node.inputs[1].name}"
    old = node.outputs[0]
    for at in _data(node):
        inputs[at] = _narrowed(inputs[at], builder)
    result = builder.op(node.op_type, inputs, dict(node.attributes))
    (made,) = builder.nodes
    if is_op(node, *_COMPARES):
        said = "compared as int32"
    else:
        found = reach(old)
        result.type, result.shape = _type("INT32"), old.shape
        result = builder.op("Cast", [result], {"to": _number("INT64")}, like=old)
        said = f"in int32: its result lies between {found.low:,} and {found.high:,}"
    replace(node, builder.nodes, result)
    made.name = name
    return said


def _narrowed(value: ir.Value, builder: Builder) -> ir.Value:
    """The same numbers as int32: a constant anew, what a Cast hides, or a Cast right behind where they are made."""
    if (stored := constant(value)) is not None:
        return builder.weight(stored.astype(np.int32), f"{value.name}_int32")
    return _hidden(value) or _cast_behind(value, f"{value.name}/int32", builder)


def _cast_behind(value: ir.Value, name: str, builder: Builder) -> ir.Value:
    """A Cast to int32 in front of all other readers of ``value``; the one that is there already, if it is."""
    for reader in value.consumers():
        if is_op(reader, "Cast") and reader.name == name:
            return reader.outputs[0]
    result = builder.op("Cast", [value], {"to": _number("INT32")}, name=name)
    result.type, result.shape = _type("INT32"), value.shape
    cast = builder.nodes.pop()
    if value.producer() is not None:
        value.graph.insert_after(value.producer(), cast)
    else:  # an input, of the model or of a body
        value.graph.insert_before(value.graph[0], cast)
    return result


def _number(dtype: str) -> int:
    import onnx_ir as ir

    return int(ir.DataType[dtype])


def _type(dtype: str) -> ir.TensorType:
    import onnx_ir as ir

    return ir.TensorType(ir.DataType[dtype])


def _indices(node: ir.Node) -> ir.Value | None:
    """The indices of a TopK, when someone reads them as the int64 that ONNX says they are."""
    if not is_op(node, "TopK") or len(node.outputs) < 2:
        return None
    value = node.outputs[1]
    narrowed = all(is_op(reader, "Cast") and _is(reader.outputs[0], "INT32") for reader in value.consumers())
    return None if narrowed and not value.is_graph_output() else value


def _topk_blocked(node: ir.Node, setting: Setting) -> str:
    value = _indices(node)
    takes_both = [reader for reader, at in value.uses()
                  if is_op(reader, "Cast") or (is_op(reader, *_INDEXES) and at == 1)]
    if len(takes_both) == len(value.uses()) and not value.is_graph_output():
        return f"what reads its indices ({takes_both[0].op_type} {takes_both[0].name}) takes int32 as well as int64"
    found = reach(value)
    return "" if found.within(np.int32) else f"its indices go up to {found.high:,}, which int32 does not hold"


def _cast_indices(node: ir.Node, setting: Setting) -> str:
    builder, value = Builder(node, setting.model), node.outputs[1]
    name, uses = value.name, list(value.uses())
    narrow = _cast_behind(value, f"{name}/int32", builder)
    wide = builder.op("Cast", [narrow], {"to": _number("INT64")}, like=value, name=f"{name}/int64")
    wide.shape = value.shape
    node.graph.insert_after(narrow.producer(), builder.nodes.pop())
    for reader, at in uses:
        if reader is not narrow.producer():
            reader.replace_input_with(at, wide)
    if value.is_graph_output():
        value.name = builder.free(f"{name}_raw")
        for at, output in enumerate(value.graph.outputs):
            if output is value:
                value.graph.outputs[at] = wide
        wide.name = name
    return f"its indices go through int32, and its {len(uses)} readers get int64 on the chip too"


RULES = (
    Rule("topk-int32", "The indices of a TopK are int32 in an .om and int64 in ONNX: an Add or Concat that takes int64 "
         "beside them fails (E89999).", lambda node, setting: _indices(node) is not None, _topk_blocked, _cast_indices),
    Rule("int64-to-int32", "Arithmetic in int64 lands on AI CPU, which is slow; indices and sizes fit int32.", _matches,
         _blocked, _narrow),
)
