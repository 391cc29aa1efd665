"""Pools in the form ATC takes best.

    MaxPool with indices that nothing reads       -> MaxPool
    AveragePool, MaxPool over the whole of an axis -> GlobalAveragePool, GlobalMaxPool

CANN's MaxPool has no second output, and kernels above 255, or of more than 256 elements, run on AI CPU or fail (5.x
document). Source: ``limits`` of both in ``kit/targets/ascend/operators.json``.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, is_op, replace, shape

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST, MOST = 255, 256  # elements along an axis, and all in all: beyond, AI Core has no kernel


def _has_indices(node: ir.Node, setting: Setting) -> bool:
    return is_op(node, "MaxPool") and (len(node.outputs) > 1 or node.attributes.get_int("storage_order", 0) != 0)


def _indices_blocked(node: ir.Node, setting: Setting) -> str:
    for value in node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            return f"its indices {value.name} are read, and no rule can give them: cut the model there"
    return ""


def _plain_maxpool(node: ir.Node, setting: Setting) -> str:
    node.resize_outputs(1)
    node.attributes.pop("storage_order", None)  # of the indices
    return "the indices that nothing reads are gone"


def _kernel(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("kernel_shape", None) or [])


def _is_large(node: ir.Node, setting: Setting) -> bool:
    if not is_op(node, "AveragePool", "MaxPool"):
        return False
    return prod(_kernel(node)) > MOST or max(_kernel(node), default=0) > LARGEST


def _global_blocked(node: ir.Node, setting: Setting) -> str:
    kernel, sizes = _kernel(node), shape(node.inputs[0])
    if sizes is None or None in sizes[2:]:
        return f"the size of {node.inputs[0].name} is not known: fix the input shapes"
    if sizes[2:] != kernel or any(node.attributes.get_ints("pads", None) or ()) or len(node.outputs) > 1:
        return f"its kernel {kernel} is not the whole of {sizes[2:]}, and no rule splits it"
    if any(size != 1 for size in node.attributes.get_ints("dilations", None) or ()):
        return "it leaves elements out (dilations)"
    return ""


def _global(node: ir.Node, setting: Setting) -> str:
    builder, kernel = Builder(node, setting.model), _kernel(node)
    result = builder.op(f"Global{node.op_type}", [node.inputs[0]], like=node.outputs[0])
    replace(node, builder.nodes, result)
    return f"{node.op_type} over all of {kernel} became Global{node.op_type}"


RULES = (
    Rule("plain-maxpool", "ATC's MaxPool has no second output, and no storage_order for it.", _has_indices,
         _indices_blocked, _plain_maxpool),
    Rule("global-pool", "AI Core has no kernel for a pool of more than 256 elements; over the whole of an input it is "
         "a plain reduction.", _is_large, _global_blocked, _global),
)
