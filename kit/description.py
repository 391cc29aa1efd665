"""One neutral description of a model: the same words for a net from Paddle, TensorFlow and PyTorch.

Some articles call it CIR. Exporters write the same layer in different ways: a bias apart, HardSwish in four nodes, the
channels last. ``describe`` undoes what means nothing, keeps the rest, and puts the nodes in one order, so that two
descriptions can be compared line by line. Nothing is run, and weights are read one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from kit.describing import forms, layouts, ordering
from kit.describing.attributes import plain
from kit.describing.net import Net, Piece, bodies, net_of
from kit.describing.result import DescribedNode, Description, Part, Port
from kit.describing.vocabulary import framework, neutral, source_operator, target_operator
from kit.describing.weights import Weight, weight_of
from kit.inspection.graph import Node, Tensor, graph_of, onnx_source
from kit.options import Help, Options, expect

__all__ = ["DescribeOptions", "Description", "describe"]

# Whose constants were learnt: named as weights even where one is a single number.
_WEIGHTED = frozenset({
    "convolution", "transposed_convolution", "deformable_convolution", "linear", "gemm", "matmul", "prelu", "lstm",
    "gru", "batch_normalization", "layer_normalization", "rms_normalization", "instance_normalization",
    "group_normalization"})


@dataclass(frozen=True)
class DescribeOptions(Options):
    """What to describe a model at."""

    bind: Annotated[tuple[str, ...], Help("Sizes for open axes, such as x=1,3,48,320. Shapes are for these.")] = ()
    weights: Annotated[bool, Help("Read every weight once, for its digest and figures. Off: types and shapes only, "
                                  "at once for any size.")] = True


def describe(model: Any, options: DescribeOptions = DescribeOptions()) -> Description:
    """Describe a model in the words of one vocabulary.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: sizes for open axes; whether weights are read.

    Returns:
        Description: ``save`` writes it as JSON, ``diff`` compares it with another.

    Raises:
        BadInput: the file cannot be read, or the options name an input that is not there.
    """
    expect(DescribeOptions, options)
    graph = graph_of(onnx_source(model, "describe").graph, options.bind)
    net = net_of(graph)
    changes = layouts.settle(net)
    forms.merge(net)
    together = forms.grouped(net)
    writer = _Writer(net, framework(graph.proto.producer_name, (t for piece in net.pieces for t in piece.outputs)))
    pieces = ordering.settle(net)
    inputs = tuple(writer.input(value.name) for value in graph.proto.graph.input if value.name in graph.bound)
    numbers: dict[int, int] = {}
    nodes = []
    for piece in pieces:
        name, number = together.get(piece, ("", 0))
        mark = f"{name} #{numbers.setdefault(number, len(numbers) + 1)}" if name else ""
        nodes.append(writer.node(piece, mark))
    nodes += [writer.inner(node) for node in bodies(graph)]
    outputs = tuple(writer.port(name, value) for name, value in net.results.items())
    stored = dict(graph.weights)
    weights = tuple(weight_of(name, source, stored[source], graph.path.parent, read=options.weights)
                    if source in stored else Weight(name, source, "?", ())
                    for source, name in writer.weights.items())
    return Description(
        file=graph.path.name, framework=writer.framework,
        producer=" ".join(filter(None, (graph.proto.producer_name, graph.proto.producer_version))), opset=graph.opset,
        bound={name: "x".join(map(str, shape)) for name, shape in graph.bound.items()}, inputs=inputs, outputs=outputs,
        nodes=tuple(nodes), weights=weights, layout_changes=tuple(changes),
        dropped=dict(sorted(net.dropped.items())), weights_read=options.weights)


class _Writer:
    """Gives canonical names in the order of use."""

    def __init__(self, net: Net, came_from: str) -> None:
        self.net, self.framework = net, came_from
        self.values: dict[str, str] = {}
        self.weights: dict[str, str] = {}
        self.nodes = self.results = 0

    def input(self, name: str) -> Port:
        self.values[name] = f"in{len(self.values)}"
        return self.port(name, name)

    def port(self, name: str, value: str) -> Port:
        """A value as the file has it: ``name`` there, which may be ``value`` in another layout."""
        tensor = self.net.tensors.get(name, Tensor(name, "?", None))
        return Port(self.values.get(value, value), name, tensor.dtype, tensor.shape, self.net.layouts.get(name, ""))

    def node(self, piece: Piece, group: str) -> DescribedNode:
        inputs = tuple(text for name in piece.inputs for text in self._inputs(name, piece.operator in _WEIGHTED))
        for name in piece.outputs:
            self.values[name] = f"v{self.results}"
            self.results += 1
        return DescribedNode(
            self._name(), piece.operator, inputs, tuple(self.port(name, name) for name in piece.outputs),
            dict(sorted(piece.attributes.items())), tuple(self.part(node) for node in piece.nodes), group)

    def inner(self, node: Node) -> DescribedNode:
        """A node of a body: under the vocabulary too, but not merged with others, and its values keep their names."""
        attributes, inputs = plain(node, self.net.graph)
        self.net.tensors.update({t.name: t for t in node.outputs})
        return DescribedNode(
            self._name(), neutral(node.label), tuple(text for name in inputs for text in self._inputs(name)),
            tuple(self.port(t.name, t.name) for t in node.outputs), attributes, (self.part(node),), scope=node.scope)

    def part(self, node: Node) -> Part:
        names = [name for t in node.outputs for name in (t.name, *self.net.names.get(t.name, ()))]
        return Part(node.name, node.label, source_operator(node, names, self.framework), target_operator(node))

    def _name(self) -> str:
        self.nodes += 1
        return f"n{self.nodes - 1}"

    def _inputs(self, name: str, weighted: bool = False) -> list[str]:
        if not name or not self.net.is_constant(name):
            return [self.values.get(name, name)]
        number = None if weighted or self.net.tensors[name].elements != 1 else self.net.number(name)
        if number is not None:
            return [f"{number:.6g}"]
        return [self.weights.setdefault(root, f"w{len(self.weights)}") for root in self.net.stored(name)]
