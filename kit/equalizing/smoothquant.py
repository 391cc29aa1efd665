"""SmoothQuant: move the outlier channels of activations into the weights that read them.

Large transformers have a few channels a hundred times larger than the rest, so that one INT8 scale leaves the others
few steps. Each channel j is divided by s_j = max|X_j|^a / max|W_j|^(1-a) where it is made (a normalization, another
product) and the weights that read it are multiplied by it; the float answer stays.

Source: Xiao et al. 2022, "SmoothQuant", equation 4 (https://arxiv.org/abs/2211.10438).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kit.equalizing.rescaling import (
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

SMALLEST = 1e-5  # of a range: below, a channel counts as so small


@dataclass
class _Way:
    """Back from a tensor to what can take its scales: constants to divide (with their axis), and the nodes passed."""

    parts: list[tuple[str, int]] = field(default_factory=list)
    maker: str = ""
    through: list[str] = field(default_factory=list)


def smooth(rescaled: Rescaled, maxima: Callable[[str], np.ndarray], alpha: float, *,
           insert: bool = False) -> tuple[tuple[ScaledPair, ...], tuple[NotScaled, ...], dict[str, np.ndarray]]:
    """Scale every tensor that only matrix products with constant weights read.

    Args:
        rescaled: holds the constants, which are changed.
        maxima: the largest magnitude of every channel (last axis) of a tensor, from calibration.
        alpha: how much of the difficulty moves to the weights, 0 to 1.
        insert: multiply a tensor by 1/s with a node of its own where nothing before it can take the scales.

    Returns:
        The pairs, every matrix product whose input was left alone with the reason, and for each tensor that needs a
        node of its own the factors to multiply it by.
    """
    network = rescaled.network
    groups: dict[str, list[Any]] = {}
    refused = []
    for node in network.nodes:
        if node.op_type in MATRICES:
            trouble = _unfit(network, rescaled, node)
            if trouble:
                refused.append(NotScaled(node.name, trouble))
            else:
                groups.setdefault(node.input[0], []).append(node)
    pairs, inserted = [], {}
    for tensor, readers in groups.items():
        way = _way(network, rescaled, tensor, [node.name for node in readers])
        if isinstance(way, str) and not insert:
            refused += [NotScaled(node.name, way) for node in readers]
            continue
        largest = np.asarray(maxima(tensor), np.float64)
        factors = scales(largest, np.max([rescaled.ranges(node, "input") for node in readers], axis=0), alpha)
        for node in readers:
            rescaled.scale(network.weights(node), factors, input_axis(node)[0])
        if isinstance(way, str):
            inserted[tensor] = 1 / factors
            way = _Way(maker=f"a Mul after {tensor}")
        for name, axis in way.parts:
            rescaled.scale(name, 1 / factors, axis)
        pairs.append(ScaledPair(way.maker, tuple(node.name for node in readers), tuple(reversed(way.through)),
                                factors.size, spread(largest), spread(largest / factors)))
    return tuple(pairs), tuple(refused), inserted


def scales(activations: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """What to divide the channels of activations by; 1 for channels that are zero on either side."""
    alive = (activations > 0) & (weights > 0)
    found = np.ones(activations.shape)
    x, w = np.maximum(activations[alive], SMALLEST), np.maximum(weights[alive], SMALLEST)
    found[alive] = np.maximum(x**alpha / w ** (1 - alpha), SMALLEST)
    return found


def _unfit(network: Network, rescaled: Rescaled, node: Any) -> str:
    if len(node.input) < 2 or node.input[1] not in network.constants:
        return "it multiplies two activations" if node.op_type == "MatMul" else "its weights are not constant"
    weights = network.constants[node.input[1]]
    if weights.data_type != 1 or len(weights.dims) != 2:
        return "its weights are not one float32 matrix"
    if node.op_type == "Gemm" and number(node, "transA", 0):
        return "it transposes what goes in"
    if node.input[0] in network.constants:
        return "what goes in is constant"
    return rescaled.is_alone(node.input[1])


def _way(network: Network, rescaled: Rescaled, tensor: str, readers: list[str]) -> _Way | str:
    """Where the scales of a tensor can go, or why nowhere."""
    way, expected = _Way(), set(readers)
    while True:
        node = network.producers.get(tensor)
        if node is None:
            return f"{tensor!r} is an input of the model"
        if tensor in network.outputs:
            return f"{tensor!r} is an output of the model"
        others = {reader.name for reader in network.consumers.get(tensor, [])} - expected
        if others:
            return f"{sorted(others)[0]!r} reads {tensor!r} too"
        if node.op_type == "LayerNormalization" and number(node, "axis", -1) == -1 and tensor == node.output[0]:
            return _end(way, rescaled, node, [(name, -1) for name in node.input[1:] if name])
        if node.op_type in MATRICES and node.input[1] in network.constants and len(
                network.constants[node.input[1]].dims) == 2:
            return _end(way, rescaled, node, output_parts(node, network))
        constant = next((name for name in node.input if name in network.constants), "")
        if node.op_type in ("Add", "Mul") and constant:
            if not _is_per_channel(network, constant):
                return f"{node.op_type} {node.name!r} before it has a constant that is not one number a channel"
            trouble = rescaled.is_alone(constant)
            if trouble:
                return f"{node.op_type} {node.name!r} before it: {trouble}"
            if node.op_type == "Mul":
                return _end(way, rescaled, node, [(constant, -1)])
            way.parts.append((constant, -1))
        elif node.op_type not in ("Relu", "LeakyRelu", "Identity"):
            return f"{node.op_type} {node.name!r}, which makes its input, cannot take the scales"
        way.through.append(node.op_type)
        expected = {node.name}
        tensor = next(name for name in node.input if name not in network.constants)


def _is_per_channel(network: Network, name: str) -> bool:
    tensor = network.constants[name]
    return tensor.data_type == 1 and all(size == 1 for size in tensor.dims[:-1])


def _end(way: _Way, rescaled: Rescaled, node: Any, parts: list[tuple[str, int]]) -> _Way | str:
    for name, _ in parts:
        if name not in rescaled.network.constants:
            return f"{node.op_type} {node.name!r} before it computes {name!r}"
    trouble = rescaled.is_alone(*(name for name, _ in parts))
    if trouble:
        return f"{node.op_type} {node.name!r} before it: {trouble}"
    way.parts += parts
    way.maker = node.name
    return way
