"""A walked graph as pieces that can be merged: copies and constant arithmetic are gone, attributes are plain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kit.describing.attributes import plain
from kit.describing.vocabulary import neutral
from kit.inspection.graph import Graph, Node, Tensor


@dataclass(eq=False)
class Piece:
    """One operator of the vocabulary, made of one ONNX node or of several.

    Attributes:
        inputs: names of values and constants; "" for one left out.
        nodes: what it stands for, the innermost first.
        layout: ``first`` or ``last`` where its result is known to hold the channels there, else "".
    """

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    nodes: tuple[Node, ...]
    layout: str = ""


@dataclass
class Net:
    """The main graph as pieces.

    Attributes:
        tensors: every value and constant by name.
        names: what else a value is called by copies that were dropped.
        dropped: how many nodes of each type stand for nothing.
        captured: values that bodies of If, Loop and Scan read from here.
        results: names of the model's outputs -> the values that they are.
        layouts: value -> ``first`` or ``last``, where its channels are known to be.
    """

    graph: Graph
    pieces: list[Piece]
    tensors: dict[str, Tensor]
    names: dict[str, list[str]]
    dropped: Counter[str]
    captured: set[str]
    results: dict[str, str]
    layouts: dict[str, str] = field(default_factory=dict)

    def is_constant(self, name: str) -> bool:
        """Is it stored, or computed from stored ones?"""
        tensor = self.tensors.get(name)
        return tensor is not None and tensor.constant

    def number(self, name: str) -> float | None:
        """The number that a small constant is, or that all its elements are; None for anything else."""
        numbers = self.graph.value(self.tensors.get(name))
        if numbers is None or not numbers.size or numbers.dtype.kind not in "fiu":
            return None
        first = numbers.flat[0]
        return float(first) if (numbers == first).all() else None

    def stored(self, name: str) -> list[str]:
        """The stored constants that a constant is computed from; itself where it is stored."""
        node = self.graph.producers.get(name)
        if node is None or node.operator == "Constant":
            return [name]
        return list(dict.fromkeys(root for tensor in node.inputs if tensor is not None
                                  for root in self.stored(tensor.name)))

    def readers(self) -> Counter[str]:
        """How often each value is read: by pieces, by bodies, as a result."""
        found = Counter(name for piece in self.pieces for name in piece.inputs)
        found.update(self.captured)
        found.update(self.results.values())
        return found

    def rename(self, old: str, new: str) -> None:
        """Let everything that reads ``old`` read ``new``."""
        for piece in self.pieces:
            piece.inputs = [new if name == old else name for name in piece.inputs]
        self.results = {result: new if name == old else name for result, name in self.results.items()}
        if old in self.captured:
            self.captured = (self.captured - {old}) | {new}


def net_of(graph: Graph) -> Net:
    """The main graph of a walked model, copies dropped."""
    inside = [node for node in graph.nodes if not node.scope]
    tensors = {t.name: t for node in graph.nodes for t in (*node.inputs, *node.outputs) if t is not None}
    tensors.update({t.name: t for node in inside for t in node.outputs})  # with what the walk found out about them
    made = {name for node in inside for name in (t.name for t in node.outputs)} | set(graph.bound)
    captured = {t.name for node in graph.nodes if node.scope for t in node.inputs
                if t is not None and t.name in made and not t.constant}
    net = Net(graph, [], tensors, {}, Counter(), captured, {v.name: v.name for v in graph.proto.graph.output})
    same: dict[str, str] = {}
    for node in inside:
        if node.outputs and all(t.constant for t in node.outputs) and node.operator not in ("If", "Loop", "Scan"):
            net.dropped[f"{node.operator} of constants" if node.inputs else node.operator] += 1
            continue
        if (kept := _copied(node)) is not None:
            source = same.get(kept, kept)
            same[node.outputs[0].name] = source
            net.names.setdefault(source, []).append(node.outputs[0].name)
            net.dropped[node.operator] += 1
            continue
        attributes, inputs = plain(node, graph)
        net.pieces.append(Piece(neutral(node.label), [same.get(name, name) for name in inputs],
                                [t.name for t in node.outputs], attributes, (node,)))
    net.results = {name: same.get(value, value) for name, value in net.results.items()}
    net.captured = {same.get(name, name) for name in net.captured}
    _prune(net)
    return net


def _prune(net: Net) -> None:
    """Drop what no result needs: dead ends, and what computed a shape that is known."""
    needed, kept = {*net.results.values(), *net.captured}, []
    for piece in reversed(net.pieces):
        if needed.intersection(piece.outputs):
            needed.update(piece.inputs)
            kept.append(piece)
        else:
            net.dropped[f"{piece.nodes[0].label} that no result needs"] += 1
    net.pieces = kept[::-1]


def _copied(node: Node) -> str | None:
    """The input that a node hands on as it is; None for one that does something."""
    if node.domain or not node.inputs or node.inputs[0] is None or not node.outputs:
        return None
    before, after = node.inputs[0], node.outputs[0]
    same_shape = before.elements is not None and before.shape == after.shape
    if node.operator in ("Identity", "Dropout"):
        return before.name
    if node.operator in ("Cast", "CastLike") and before.dtype == after.dtype != "?":
        return before.name
    if node.operator in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand") and same_shape:
        return before.name
    if node.operator == "Transpose" and list(node.attributes.get("perm", [])) == list(range(len(before.shape or ()))):
        return before.name if before.shape else None
    return None


def bodies(graph: Graph) -> Iterator[Node]:
    """Nodes inside If, Loop and Scan, in the file's order."""
    return (node for node in graph.nodes if node.scope and not (node.outputs and all(t.constant for t in node.outputs)))
