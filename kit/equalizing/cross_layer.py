"""Cross-layer equalization: move scales from one layer's output channels to the next layer's input channels.

A positively homogeneous function f obeys f(s x) = s f(x) for s > 0; so W2 f(W1 x) = (W2 S) f((W1 / S) x). The scales
that make the channel ranges of both weights equal are s = sqrt(r1 r2) / r2; chains are gone through until nothing
moves. After it one INT8 scale a tensor fits all channels of depthwise nets.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1
(https://arxiv.org/abs/1906.04721).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.equalizing.rescaling import (
    CONVOLUTIONS,
    MATRICES,
    NotScaled,
    Rescaled,
    ScaledPair,
    input_axis,
    number,
    output_parts,
    spread,
)
from kit.int8.quantizable import Network

#: f(s x) = s f(x), channel by channel.
HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool")
_REASONS = {
    "BatchNormalization": "kit.fix folds it into the convolution before it: run that first",
    "Add": "it adds another tensor, which would have to be scaled too",
    "Concat": "it joins other tensors",
    "Flatten": "it mixes the channel axis with others", "Reshape": "it mixes the channel axis with others",
    "Transpose": "it moves the channel axis",
}
ROUNDS = 50
SETTLED = 1e-3  # a round that moves no scale by more has converged


@dataclass(frozen=True)
class Link:
    """Two nodes with weights and what lies between them; ``biases`` are constants added to the first's output."""

    first: Any
    second: Any
    between: tuple[Any, ...]
    biases: tuple[str, ...]


def equalize(rescaled: Rescaled) -> tuple[tuple[ScaledPair, ...], tuple[NotScaled, ...]]:
    """Scale every pair of layers that can be; the constants are changed in ``rescaled``.

    Returns:
        The pairs, and every node with weights whose output was left alone, with the reason.
    """
    network = rescaled.network
    links, refused = [], []
    for node in network.nodes:
        if node.op_type in (*CONVOLUTIONS, *MATRICES) and network.weights(node):
            found = _link(network, rescaled, node)
            if isinstance(found, str):
                refused.append(NotScaled(node.name, found))
            else:
                links.append(found)
    before = [spread(rescaled.ranges(link.first, "output")) for link in links]
    for _ in range(ROUNDS):
        if max((_balance(rescaled, link) for link in links), default=0.0) < SETTLED:
            break
    pairs = tuple(
        ScaledPair(link.first.name, (link.second.name,), tuple(node.op_type for node in link.between),
                   rescaled.ranges(link.first, "output").size, was, spread(rescaled.ranges(link.first, "output")))
        for link, was in zip(links, before, strict=True))
    return pairs, tuple(refused)


def scales(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What to divide the first layer's channels by so that both layers' ranges become sqrt(first * second).

    A channel that is zero on either side keeps its scale of 1.
    """
    alive = (first > 0) & (second > 0)
    found = np.ones(first.shape)
    found[alive] = np.sqrt(first[alive] / second[alive])
    return found


def _balance(rescaled: Rescaled, link: Link) -> float:
    """Equalize one pair; returns how far the scales moved, as the largest |log|."""
    factors = scales(rescaled.ranges(link.first, "output"), rescaled.ranges(link.second, "input"))
    moved = float(np.abs(np.log(factors)).max())
    if moved < SETTLED:
        return moved
    for name, axis in (*output_parts(link.first, rescaled.network), *((name, -1) for name in link.biases)):
        rescaled.scale(name, 1 / factors, axis)
    axis, groups = input_axis(link.second)
    rescaled.scale(rescaled.network.weights(link.second), factors, axis, groups)
    return moved


def _link(network: Network, rescaled: Rescaled, first: Any) -> Link | str:
    """The layer that follows ``first``, or why there is none to share scales with."""
    trouble = _unfit(network, first) or rescaled.is_alone(*(name for name, _ in output_parts(first, network)))
    if trouble:
        return trouble
    kind = CONVOLUTIONS if first.op_type in CONVOLUTIONS else MATRICES
    tensor, between, biases = first.output[0], [], []
    while True:
        if tensor in network.outputs:
            return f"{tensor!r} is an output of the model"
        readers = network.consumers.get(tensor, [])
        if len(readers) != 1:
            return f"{len(readers)} nodes read {tensor!r}"
        node = readers[0]
        if list(node.input).count(tensor) != 1:
            return f"{node.name!r} reads {tensor!r} twice"
        if network.weights(node) and node.op_type in (*CONVOLUTIONS, *MATRICES) and node.input[0] == tensor:
            break
        bias = _bias(network, node, tensor, first)
        if bias:
            trouble = rescaled.is_alone(bias)
            if trouble:
                return trouble
            biases.append(bias)
        else:
            trouble = _not_homogeneous(network, node, tensor)
            if trouble:
                return f"{node.op_type} {node.name!r} follows: {trouble}"
        between.append(node)
        tensor = node.output[0]
    if node.op_type not in kind:
        return f"{node.op_type} {node.name!r} follows, whose channels lie on another axis"
    trouble = _unfit(network, node, is_second=True) or rescaled.is_alone(network.weights(node))
    return f"{node.name!r} follows: {trouble}" if trouble else Link(first, node, tuple(between), tuple(biases))


def _unfit(network: Network, node: Any, *, is_second: bool = False) -> str:
    weights = network.constants[network.weights(node)]
    if weights.data_type != 1:
        return "its weights are not float32"
    if node.op_type == "ConvTranspose" and number(node, "group", 1) > 1 and not is_second:
        return "one slice of its weights serves several output channels"
    if node.op_type in MATRICES and (network.weights(node) != node.input[1] or len(weights.dims) != 2):
        return "its weights are not one matrix on the right"
    if node.op_type == "Gemm" and number(node, "transA", 0):
        return "it transposes what goes in"
    if len(node.input) > 2 and node.input[2] and not is_second:
        if node.input[2] not in network.constants:
            return "its bias is not constant"
        if node.op_type == "Gemm" and not _is_per_channel(network, node.input[2], weights.dims[_out(node)]):
            return "its bias is not one number a channel"
    return ""


def _out(node: Any) -> int:
    return 0 if node.op_type == "Gemm" and number(node, "transB", 0) else 1


def _is_per_channel(network: Network, name: str, channels: int) -> bool:
    dims = list(network.constants[name].dims)
    return bool(dims) and dims[-1] == channels and all(size == 1 for size in dims[:-1])


def _bias(network: Network, node: Any, tensor: str, first: Any) -> str:
    """The constant that an Add gives every channel of a matrix product; "" when the node is something else."""
    if node.op_type != "Add" or first.op_type not in MATRICES:
        return ""
    other = next((name for name in node.input if name != tensor), "")
    channels = network.constants[network.weights(first)].dims[_out(first)]
    return other if other in network.constants and _is_per_channel(network, other, channels) else ""


def _not_homogeneous(network: Network, node: Any, tensor: str) -> str:
    """Why scales cannot pass through a node; "" when they can."""
    if node.domain not in ("", "ai.onnx"):
        return "it is not an operator of ONNX"
    if node.op_type == "Clip":
        low, high = (_constant(network, node, at) for at in (1, 2))
        if low == 0 and high is None:
            return ""
        return "it cuts at fixed values, which a scaled channel reaches elsewhere (not positively homogeneous)"
    if node.op_type == "PRelu":
        slope = network.constants.get(node.input[1])
        return "" if slope is not None and node.input[0] == tensor else "its slope is not constant"
    if node.op_type in HOMOGENEOUS:
        return ""
    return _REASONS.get(node.op_type, "f(s x) is not s f(x) (not positively homogeneous)")


def _constant(network: Network, node: Any, at: int) -> float | None:
    """A number among a node's inputs; None when it is left out or infinite, nan when it is computed."""
    import onnx

    if len(node.input) <= at or not node.input[at]:
        return None
    if node.input[at] not in network.constants:
        return float("nan")
    value = float(onnx.numpy_helper.to_array(network.constants[node.input[at]]))
    return None if np.isinf(value) or value >= np.finfo(np.float32).max else value
