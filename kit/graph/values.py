"""Small questions about values and nodes, and the one way in which rules replace nodes.

Shapes are lists of int, or None where a dimension is unknown or symbolic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of an initializer (that is no graph input) or of a Constant node; None for anything else."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.numpy()


def is_constant(value: ir.Value) -> bool:
    """Is it an initializer (and no graph input) or made by a Constant node? Reads no numbers."""
    import onnx_ir as ir

    return not value.is_graph_input() and ir.convenience.get_const_tensor(value) is not None


def scalar(value: ir.Value | None, small: int = 64) -> float | None:
    """The number of a constant with one element; None for anything else. Never reads a large weight."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes > small or tensor.size != 1:
        return None
    return float(tensor.numpy().reshape(()))


def close(a: float | None, b: float) -> bool:
    """Equal up to the rounding of constants that were written as float32 or with five digits."""
    return a is not None and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)


def kind(value: ir.Value | None) -> str:
    """Operator type of the node that makes ``value``; "" when none does."""
    node = value.producer() if value is not None else None
    return node.op_type if node is not None and node.domain in ("", "ai.onnx") else ""


def is_op(node: ir.Node, *types: str) -> bool:
    """Is this one of these operators of the standard domain?"""
    return node.op_type in types and node.domain in ("", "ai.onnx")


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    return node.attributes.get_int(name, default)


def shape(value: ir.Value | None) -> list[int | None] | None:
    """Sizes, None where one is not fixed; None when even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) and dim >= 0 else None for dim in value.shape]


def outside_reader(nodes: Iterable[ir.Node], root: ir.Node) -> str:
    """Why ``nodes`` cannot go: a value inside the group that something else reads too; "" when none is."""
    inside = {root, *nodes}
    for node in inside:
        if node is root:
            continue
        for value in node.outputs:
            if value.is_graph_output():
                return f"{node.op_type} {node.name} inside it is an output of the model"
            for reader in value.consumers():
                if reader not in inside:
                    return f"{node.op_type} {node.name} inside it is also read by {reader.op_type} {reader.name}"
    return ""


def replace(root: ir.Node, made: Sequence[ir.Node], result: ir.Value) -> None:
    """Put ``made`` in the place of ``root``, let ``result`` take over its first output, and clear what is now unused.

    The output keeps its name, type and shape.
    """
    import onnx_ir as ir

    graph, old = root.graph, root.outputs[0]
    inputs = list(root.inputs)
    result.type, result.shape = old.type or result.type, old.shape or result.shape
    name = old.name
    graph.insert_before(root, made)
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(root, safe=True)
    result.name = name
    retire(inputs)


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Let the readers of ``node`` read ``source``; the model's output names stay."""
    import onnx_ir as ir

    old, graph = node.outputs[0], node.graph
    inputs = list(node.inputs)
    was_output, name = old.is_graph_output(), old.name
    if source.type is None:
        source.type = old.type
    if source.shape is None:
        source.shape = old.shape
    ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        source.name = name
    retire(inputs)


def cannot_bypass(node: ir.Node, source: ir.Value) -> str:
    """Why ``node`` cannot be bypassed: it is the only thing between an input or weight and an output. "" if it can."""
    if node.outputs[0].is_graph_output():
        if source.is_graph_input() or source.is_initializer():
            return f"it makes the output {node.outputs[0].name!r} straight from an input or weight"
        if source.is_graph_output():
            return f"{source.name!r} and {node.outputs[0].name!r} are both outputs of the model"
        if source.graph is not node.graph:
            return f"{source.name!r} belongs to the graph around this one"
    return ""


def retire(values: Iterable[ir.Value | None]) -> None:
    """Remove the producers and weights that nothing reads any more, and theirs in turn."""
    waiting = [value for value in values if value is not None]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None:
            graph = value.graph
            if value.is_initializer() and not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                graph.initializers.pop(value.name)
        elif node.graph is not None and not any(out.uses() or out.is_graph_output() for out in node.outputs):
            waiting += [v for v in node.inputs if v is not None]
            node.graph.remove(node, safe=True)


class Builder:
    """Makes the nodes and constants that take the place of ``root``, with readable names that are not taken."""

    def __init__(self, root: ir.Node, model: ir.Model) -> None:
        self.root, self.model, self.nodes = root, model, []
        self._names: set[str] | None = None

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None,
           *, domain: str = "", like: ir.Value | None = None, name: str = "") -> ir.Value:
        """A new node; returns its output, with the type of ``like``."""
        import onnx_ir as ir

        label = self.free(name or f"{self.root.name}/{op_type}")
        output = ir.Value(name=self.free(f"{label}_output"), type=like.type if like is not None else None)
        self.nodes.append(ir.node(op_type, inputs, attributes, domain=domain, outputs=[output], name=label))
        return output

    def weight(self, array: np.ndarray, name: str) -> ir.Value:
        """A new constant among the model's weights, under ``name`` or that with a number."""
        import onnx_ir as ir

        label = self.free(name)
        tensor = ir.tensor(np.asarray(array, order="C"), name=label)
        value = ir.Value(name=label, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def number(self, number: float, like: ir.Value, name: str) -> ir.Value:
        """A scalar constant of the type of ``like``."""
        return self.weight(np.asarray(number, like.dtype.numpy()), f"{self.root.name}/{name}")

    def free(self, name: str) -> str:
        """``name``, with a number after it when something is called so already."""
        if self._names is None:
            self._names = names(self.model)
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found


def names(model: ir.Model) -> set[str]:
    """Every name of a node or value, subgraphs included."""
    import onnx_ir as ir

    taken: set[str] = set()
    for graph in model.graphs():
        taken.update(value.name for value in graph.inputs if value.name)
        taken.update(graph.initializers)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        taken.add(node.name or "")
        taken.update(value.name for value in node.outputs if value.name)
    return taken


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own: an edit is asked for, reported and undone by it."""
    import onnx_ir as ir

    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    taken = {node.name for node in nodes if node.name}
    used: set[str] = set()
    counts: dict[str, int] = {}
    for node in nodes:
        if node.name and node.name not in used:
            used.add(node.name)
            continue
        base = node.name or node.op_type
        while True:
            number = counts.get(base, 0)
            counts[base] = number + 1
            if (label := f"{base}_{number}") not in taken and label not in used:
                break
        node.name = label
        used.add(label)


def infer(model: ir.Model) -> None:
    """Fill in types and shapes as far as ONNX can tell; a model it fails on stays as it is."""
    import onnx_ir.passes.common as common

    from kit.graph.rule import quiet_library

    with quiet_library():
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def infer_again(model: ir.Model) -> None:
    """Forget every shape but the inputs' and infer anew: what an input's new axes mean further on."""
    import onnx_ir as ir

    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            if value.is_graph_output() and value.shape is not None:
                value.shape = ir.Shape([None] * len(value.shape))
            else:
                value.shape = None
    infer(model)
