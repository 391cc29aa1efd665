"""GatherND and ScatterND in the one form that ATC's parser takes.

    GatherND(x, i, batch_dims=b)      -> GatherND(x, [places in the batch, i])
    ScatterND(x, i, u, reduction=mul) -> ScatterND(x, i, GatherND(x, i) * u)      likewise add, max and min

The second where no place comes twice. Source: ``limits`` of both in ``kit/targets/ascend/operators.json``: batch_dims
must be 0, mul is rejected, and older releases do not read the reduction at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, is_op, rank, replace, shape

if TYPE_CHECKING:
    import onnx_ir as ir


def _batch(node: ir.Node) -> int:
    return node.attributes.get_int("batch_dims", 0)


def _gathernd_blocked(node: ir.Node, setting: Setting) -> str:
    sizes = shape(node.inputs[1])
    if sizes is None or None in sizes[:-1]:
        return f"the sizes of its indices {node.inputs[1].name} are not known: fix the input shapes"
    return ""


def _plain_gathernd(node: ir.Node, setting: Setting) -> str:
    builder, (data, indices), count = Builder(node, setting.model), node.inputs, _batch(node)
    sizes = shape(indices)[:-1]
    places = np.stack([np.broadcast_to(np.arange(size).reshape(-1, *[1] * (len(sizes) - at - 1)), sizes)
                       for at, size in enumerate(sizes[:count])], axis=-1)
    whole = builder.op("Concat", [builder.weight(places, f"{node.name}/batch"), indices], {"axis": rank(indices) - 1},
                       like=indices)
    replace(node, builder.nodes, builder.op("GatherND", [data, whole], like=node.outputs[0]))
    return f"batch_dims={count} became {count} constant columns of its indices"


_REDUCTIONS = {"mul": "Mul", "add": "Add", "max": "Max", "min": "Min"}


def _reduction(node: ir.Node) -> str:
    return _REDUCTIONS.get(node.attributes.get_string("reduction", "none"), "") if is_op(node, "ScatterND") else ""


def _scatternd_blocked(node: ir.Node, setting: Setting) -> str:
    data, indices = node.inputs[:2]
    places, sizes = constant(indices), shape(data)
    if places is None:
        return f"its indices {indices.name} are computed at run time, and a place may come twice"
    count = places.shape[-1]
    if (places < 0).any() and (sizes is None or None in sizes[:count]):
        return f"the sizes of {data.name} are not known, so that a place counted from behind may come twice"
    rows = places.reshape(-1, count)
    if (places < 0).any():
        rows = rows % sizes[:count]
    return "" if len(np.unique(rows, axis=0)) == len(rows) else "a place comes twice in its indices"


def _plain_scatternd(node: ir.Node, setting: Setting) -> str:
    builder, (data, indices, updates), kind = Builder(node, setting.model), node.inputs, _reduction(node)
    new = builder.op(kind, [builder.op("GatherND", [data, indices], like=data), updates], like=updates)
    replace(node, builder.nodes, builder.op("ScatterND", [data, indices, new], like=node.outputs[0]))
    return f"its reduction became a {kind} before it"


RULES = (
    Rule("plain-gathernd", "ATC's parser takes GatherND with batch_dims=0 only.",
         lambda node, setting: is_op(node, "GatherND") and _batch(node) > 0, _gathernd_blocked, _plain_gathernd),
    Rule("plain-scatternd", "ATC rejects ScatterND with reduction=mul, and older CANN releases read no reduction.",
         lambda node, setting: bool(_reduction(node)), _scatternd_blocked, _plain_scatternd),
)
