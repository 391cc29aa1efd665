"""Small questions about values and nodes, and the one way in which rules replace nodes.

Shapes are lists of int, or None where a dimension is unknown or symbolic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.graph.rule import TAKEN

if TYPE_CHECKING:
    import onnx_ir as ir

SMALL = 4096  # elements: what steers an operator (axes, sizes, pads) is never larger


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


def rank(value: ir.Value | None) -> int | None:
    """How many axes; None when that is not known."""
    return None if value is None or value.shape is None else len(value.shape)


def given(node: ir.Node, at: int) -> ir.Value | None:
    """The input at a place; None where it is left out."""
    return node.inputs[at] if at < len(node.inputs) else None


def numbers(value: ir.Value | None) -> list[int] | None:
    """The whole numbers of a small constant, flat; None for anything else."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > SMALL or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return tensor.numpy().reshape(-1).tolist()


def set_input(node: ir.Node, at: int, value: ir.Value | None) -> None:
    """Let ``node`` read ``value`` at a place; what is then unused goes, and so do empty places at the end."""
    if at >= len(node.inputs):
        node.resize_inputs(at + 1)
    old = node.inputs[at]
    node.replace_input_with(at, value)
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    retire([old])


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


def is_read(node: ir.Node, at: int) -> bool:
    """Is there an output at this place that something reads, or that the model gives?"""
    return at < len(node.outputs) and bool(node.outputs[at].uses() or node.outputs[at].is_graph_output())


def replace(root: ir.Node, made: Sequence[ir.Node], *results: ir.Value | None) -> None:
    """Put ``made`` in the place of ``root``, let ``results`` take over its outputs, and clear what is now unused.

    The outputs keep their names, types and shapes; those without a result must have no reader.
    """
    import onnx_ir as ir

    graph, inputs = root.graph, list(root.inputs)
    pairs = [(old, result) for old, result in zip(root.outputs, results, strict=False) if result is not None]
    names = [old.name for old, _ in pairs]
    graph.insert_before(root, made)
    for old, result in pairs:
        result.type, result.shape = old.type or result.type, old.shape or result.shape
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(root, safe=True)
    for name, (_, result) in zip(names, pairs, strict=True):
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

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None,
           *, domain: str = "", like: ir.Value | None = None, name: str = "") -> ir.Value:
        """A new node; returns its output, with the type of ``like``."""
        import onnx_ir as ir

        label = self.free(name or f"{self.root.name}/{op_type}")
        output = ir.Value(name=self.free(f"{label}_output"), type=like.type if like is not None else None)
        self.nodes.append(ir.node(op_type, inputs, attributes, domain=domain, outputs=[output], name=label))
        return output

    def over(self, op_type: str, value: ir.Value, axes: Sequence[int], attributes: Mapping[str, Any] | None = None,
             *, like: ir.Value | None = None) -> ir.Value:
        """A new node that works over ``axes``: an attribute in older opsets, an input since 13, in reductions 18."""
        since = 18 if op_type.startswith("Reduce") and op_type != "ReduceSum" else 13
        if self.model.opset_imports[""] < since:
            return self.op(op_type, [value], {**(attributes or {}), "axes": list(axes)}, like=like)
        return self.op(op_type, [value, self.weight(np.int64(axes), f"{self.root.name}/axes")], attributes, like=like)

    def parts(self, value: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """A new Split of ``value`` into parts of these sizes along ``axis``."""
        import onnx_ir as ir

        label = self.free(f"{self.root.name}/Split")
        outputs = [ir.Value(name=self.free(f"{label}_output"), type=value.type) for _ in sizes]
        old = self.model.opset_imports[""] < 13
        inputs = [value] if old else [value, self.weight(np.int64(sizes), f"{self.root.name}/sizes")]
        attributes = {"axis": axis, **({"split": list(sizes)} if old else {})}
        self.nodes.append(ir.node("Split", inputs, attributes, outputs=outputs, name=label))
        return outputs

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
        # Kept with the model from edit to edit of a rule: gathering them each time made the whole work quadratic.
        taken = self.model.meta.get(TAKEN)
        if taken is None:
            taken = self.model.meta[TAKEN] = names(self.model)
        found, count = name, 1
        while found in taken:
            count += 1
            found = f"{name}_{count}"
        taken.add(found)
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
