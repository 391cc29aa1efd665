"""Computes ahead what follows from an input that became a constant, and nothing else: other names and nodes stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.families.detection_result import GraphEdit
from kit.graph.mapped import mapped
from kit.graph.values import constant, is_constant, names, retire

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDED = "kit: computed ahead"  # marks the constants made here, while the graph is worked on


def new_constant(graph: ir.Model, number: np.ndarray, name: str) -> ir.Value:
    """A new weight of the graph, marked as made here."""
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(number), name=name)
    value = ir.Value(name=name, shape=ir.Shape(number.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    value.metadata_props[FOLDED] = "yes"
    graph.graph.register_initializer(value)
    return value


def compute_ahead(graph: ir.Model, starts: list[ir.Value]) -> list[GraphEdit]:
    """Replace the nodes that depend on ``starts`` and constants alone by what they give."""
    import onnx
    import onnx_ir as ir

    known, fixed, nodes = set(starts), {}, []
    for node in graph.graph:
        needs = [value for value in node.inputs if value is not None]
        if not all(value in known or value in fixed or is_constant(value) for value in needs):
            continue
        if any(value in known for value in needs):
            nodes.append(node)
            known.update(node.outputs)
        else:
            fixed.update(dict.fromkeys(node.outputs, node))
    if not nodes:
        return []
    inside = set(nodes)
    ends = [value for node in nodes for value in node.outputs
            if value.is_graph_output() or any(reader not in inside for reader in value.consumers())]
    feeds, ahead = _needed(nodes, fixed)
    part = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in (*ahead, *nodes)], "part", [], [onnx.ValueInfoProto(name=value.name)
                                                                       for value in ends],
        [onnx.numpy_helper.from_array(number, name) for name, number in feeds.items()])
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
    proto = onnx.helper.make_model(part, opset_imports=opsets, ir_version=graph.ir_version)
    answers = mapped(proto.SerializeToString(), Path(), "the scale factor's part of the graph")({})
    for value in ends:
        if not value.is_graph_output():
            ir.convenience.replace_all_uses_with(value, new_constant(graph, answers[value.name],
                                                                  free_name(f"{value.name}_folded", graph)))
    edits = [GraphEdit("removed: computed ahead", node.name) for node in nodes]
    retire(value for node in nodes for value in node.outputs)
    return edits


def _needed(nodes: list[ir.Node], fixed: Mapping[ir.Value, ir.Node]) -> tuple[dict[str, np.ndarray], list[ir.Node]]:
    """The constants that nodes need, and the nodes that make some of them, in order."""
    feeds: dict[str, np.ndarray] = {}
    made: dict[ir.Node, None] = {}

    def visit(node: ir.Node) -> None:
        for value in node.inputs:
            if value is None or value.name in feeds:
                continue
            if value in fixed and fixed[value] not in made:
                visit(fixed[value])
                made[fixed[value]] = None
            elif value.producer() is None:
                feeds[value.name] = constant(value)

    for node in nodes:
        visit(node)
    return feeds, list(made)


def free_name(name: str, graph: ir.Model) -> str:
    """``name``, longer where something is called so already."""
    taken = names(graph)
    while name in taken:
        name += "_"
    return name
