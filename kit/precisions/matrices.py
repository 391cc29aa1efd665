"""Matrix products with constant weights: which nodes are one, and how their weights give way to others in a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kit.int8.quantizable import Network
from kit.weights_file import Weights

Key = tuple[str, bool]  # name of the weights, and whether the node transposes them


def obstacle(network: Network, node: Any) -> str:
    """Why a node is no plain product with one constant float32 matrix; "" when it is one."""
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
        return "it has no matrix of weights"
    if len(node.input) < 2 or node.input[1] not in network.constants:
        return "its second factor is not constant"
    weights = network.constants[node.input[1]]
    if weights.data_type != 1 or node.input[0] not in network.floats:
        return "its values are not float32"
    if len(weights.dims) != 2:
        return "its weights are not one matrix"
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1 or attribute(node, "transA", 0)
                                   or (len(node.input) > 2 and node.input[2] and attribute(node, "beta", 1.0) != 1)):
        return "its alpha, beta or transA would need more nodes"
    return ""


def key(node: Any) -> Key:
    """What tells a node's matrix from others."""
    return node.input[1], node.op_type == "Gemm" and attribute(node, "transB", 0) == 1


def shape(network: Network, node: Any) -> tuple[int, int]:
    """Inputs and outputs of a node's matrix."""
    first, second = network.constants[node.input[1]].dims
    return (second, first) if key(node)[1] else (first, second)


def values(stored: Weights, key: Key) -> np.ndarray:
    """A matrix, float32 [inputs, outputs]."""
    weights = stored.array(key[0])
    return np.ascontiguousarray(weights.T if key[1] else weights)


def put(proto: Any, nodes: Sequence[Any], declared: Mapping[str, tuple[int, Iterable[int]]]) -> None:
    """Give a graph other nodes; constants that nothing reads any more go, new ones are declared without values.

    Args:
        declared: name of each new constant -> (ONNX's number of its type, shape).
    """
    import onnx

    graph = proto.graph
    nodes = [_copy(node) for node in nodes]  # they live in the list that is emptied next
    before = {name for node in graph.node for name in reads(node)}
    del graph.node[:]
    graph.node.extend(nodes)
    after = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    for at in reversed(range(len(graph.initializer))):
        if graph.initializer[at].name in before - after:
            del graph.initializer[at]
    for name, (kind, size) in declared.items():
        graph.initializer.add(name=name, data_type=kind, dims=size, data_location=onnx.TensorProto.EXTERNAL)


def attribute(node: Any, name: str, default: float) -> float:
    """A number among a node's attributes."""
    for found in node.attribute:
        if found.name == name:
            return found.f if found.type == 1 else found.i
    return default


def reads(node: Any) -> list[str]:
    """Tensors a node reads, those that its own graphs take from outside included."""
    graphs = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else list(a.graphs))]
    inner = (name for graph in graphs for one in (*(reads(n) for n in graph.node), [v.name for v in graph.output])
             for name in one)
    return [*node.input, *inner]


def _copy(node: Any) -> Any:
    twin = type(node)()
    twin.CopyFrom(node)
    return twin
