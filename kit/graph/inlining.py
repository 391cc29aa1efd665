"""Puts the body of a Loop, Scan or If into the graph around it, as often as it runs.

A copy keeps reading what the body read from outside. All its names are new ones, those of graphs inside it too, because
ONNX lets a name mean one thing only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.graph.inference import infer
from kit.graph.values import Builder, retire

if TYPE_CHECKING:
    import onnx_ir as ir


def count(body: ir.Graph) -> int:
    """How many nodes a body has, those of graphs inside it included."""
    import onnx_ir as ir

    return sum(1 for _ in ir.traversal.RecursiveGraphIterator(body))


def prepare(body: ir.Graph, builder: Builder) -> None:
    """Make a body fit to be copied: its weights move to the model's, so that the copies share them."""
    import onnx_ir as ir

    inside = {*body.inputs, *(value for node in body for value in node.outputs)}
    for at, value in enumerate(body.outputs):
        if value not in inside:  # a weight handed out as it is: a graph can only be copied with outputs of its own
            node = ir.node("Identity", [value], name=builder.free("Identity"))
            node.outputs[0].name = builder.free(f"{value.name}_copy")
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            body.append(node)
            body.outputs[at] = node.outputs[0]
    for name in list(body.initializers):
        weight = body.initializers.pop(name)
        weight.name = builder.free(name)
        builder.model.graph.register_initializer(weight)


def copy(body: ir.Graph, before: ir.Node, values: Sequence[ir.Value], builder: Builder, label: str) -> list[ir.Value]:
    """Put a copy of a prepared body in front of ``before``.

    Args:
        values: what the body's inputs stand for this time.
        label: what the names of the copy begin with.

    Returns:
        What the body's outputs stand for this time.
    """
    import onnx_ir as ir

    again = body.clone(allow_outer_scope_values=True)
    results = list(again.outputs)
    again.outputs.clear()
    bound = dict(zip(again.inputs, values, strict=True))
    for inside, value in bound.items():
        inside.replace_all_uses_with(value, replace_graph_outputs=True)
    nodes = list(again)
    again.remove(nodes)
    before.graph.insert_before(before, nodes)
    for node in nodes:
        for part in (node, *(deeper for attribute in node.attributes.values() for graph in _graphs(attribute)
                             for deeper in ir.traversal.RecursiveGraphIterator(graph))):
            _rename(part, builder, label)
    return [bound.get(value, value) for value in results]


def stand_in(node: ir.Node, results: Sequence[ir.Value], builder: Builder, seen: Sequence[ir.Value] = ()) -> None:
    """Let ``results`` take over from the outputs of ``node``, which goes with all its bodies; then infer shapes anew.

    Outputs of the model keep their names. What was ``seen`` on the way goes too, where nothing reads it any more.
    """
    import onnx_ir as ir

    inputs, graph, names = list(node.inputs), node.graph, {}
    for old, new in zip(node.outputs, results, strict=True):
        if not (old.uses() or old.is_graph_output()):
            continue
        new.type = new.type or old.type
        if old.is_graph_output():
            if new.producer() is None or new.graph is not graph or new.is_graph_output():
                own = ir.node("Identity", [new], name=builder.free(f"{node.name}/Identity"))
                own.outputs[0].type = old.type
                graph.insert_before(node, own)
                new = own.outputs[0]
            names[new] = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    _dissolve(node)
    graph.remove(node, safe=True)
    for value, name in names.items():
        value.name = name
    retire([*inputs, *results, *seen])
    infer(builder.model)


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


def _rename(node: ir.Node, builder: Builder, label: str) -> None:
    """A name of its own for a copied node and its values; shapes are forgotten, they may differ from turn to turn."""
    node.name = builder.free(f"{label}/{node.name or node.op_type}")
    for value in node.outputs:
        value.name = builder.free(f"{label}/{value.name}")
        value.shape = None
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            for value in (*graph.inputs, *list(graph.initializers.values())):
                value.name = builder.free(f"{label}/{value.name}")


def _dissolve(node: ir.Node) -> None:
    """Take the nodes out of the bodies of ``node``, so that nobody takes them for part of the model."""
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            graph.outputs.clear()
            for inner in reversed(list(graph)):
                _dissolve(inner)
                graph.remove(inner, safe=True)
