"""Constants of a graph that are scaled channel by channel, so that a float model keeps its answers and INT8 loses less.

What equalization across layers and SmoothQuant share: which axis of a node's weights counts what, who else reads a
constant, and the new values, kept in float64 until they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.int8.quantizable import Network
from kit.weights_file import Weights

MATRICES = ("MatMul", "Gemm")
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class ScaledPair:
    """Two places between which scales were moved.

    Attributes:
        first: the node whose output channels were divided.
        second: the nodes whose input channels were multiplied by the same.
        through: operators between them.
        channels: how many.
        before: largest over smallest range of the channels, before. Of the first node's weights (cross-layer), or of
            the activations (SmoothQuant).
        after: the same after.
    """

    first: str
    second: tuple[str, ...]
    through: tuple[str, ...]
    channels: int
    before: float
    after: float


@dataclass(frozen=True)
class NotScaled:
    """A place that was looked at and left alone, and why."""

    node: str
    reason: str


class Rescaled:
    """The constants of a network while they are scaled.

    Attributes:
        changed: name of a constant -> its new values, float64.
    """

    def __init__(self, network: Network, stored: Weights) -> None:
        self.network, self.stored = network, stored
        self.changed: dict[str, np.ndarray] = {}

    def values(self, name: str) -> np.ndarray:
        """A constant as it is now, float64."""
        return self.changed[name] if name in self.changed else np.asarray(self.stored.array(name), np.float64)

    def scale(self, name: str, factors: np.ndarray, axis: int, groups: int = 1) -> None:
        """Multiply a constant by one factor a channel.

        Args:
            factors: as many as channels.
            axis: that counts them; with groups the input axis of a convolution, which counts those of one group.
            groups: of the convolution.
        """
        values = self.values(name)
        if groups > 1:  # [out, in of a group, ...]: the factors of its own group for every output channel
            each = np.repeat(factors.reshape(groups, -1), values.shape[0] // groups, axis=0)
            self.changed[name] = values * each.reshape(each.shape + (1,) * (values.ndim - 2))
        else:
            if values.ndim == 0 or (values.size == 1 and factors.size > 1):
                self.changed[name] = values.reshape(()) * factors  # one number for all channels becomes one for each
                return
            shape = [1] * values.ndim
            shape[axis] = -1
            self.changed[name] = values * factors.reshape(shape)

    def is_alone(self, *names: str) -> str:
        """Why constants cannot be scaled for one node only: another node reads them; "" when none does."""
        for name in names:
            readers = self.network.consumers.get(name, [])
            places = sum(list(node.input).count(name) for node in readers)
            if places != 1 or name in self.network.outputs:
                return f"its weights {name!r} serve {places} places"
        return ""

    def ranges(self, node: Any, side: str) -> np.ndarray:
        """The largest magnitude of a node's weights for every ``output`` or ``input`` channel, float64."""
        name = self.network.weights(node)
        values = np.abs(self.values(name))
        axis, groups = (output_axis(node), 1) if side == "output" else input_axis(node)
        if groups > 1:
            inner = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
            return inner.max(axis=(1, 3)).ravel()
        return values.max(axis=tuple(at for at in range(values.ndim) if at != axis))


def output_axis(node: Any) -> int:
    """Axis of a node's weights that counts its output channels; a ConvTranspose must have one group."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if number(node, "transB", 0) else 1
    return 1


def input_axis(node: Any) -> tuple[int, int]:
    """Axis of a node's weights that counts its input channels, and the number of groups it has to be spread over."""
    if node.op_type == "Conv":
        return 1, int(number(node, "group", 1))
    if node.op_type == "Gemm":
        return (1 if number(node, "transB", 0) else 0), 1
    return 0, 1


def output_parts(node: Any, network: Network) -> list[tuple[str, int]]:
    """The constants that make a node's output, each with the axis that counts its channels: weights, and bias."""
    parts = [(network.weights(node), output_axis(node))]
    if len(node.input) > 2 and node.input[2]:
        parts.append((node.input[2], -1))
    return parts


def number(node: Any, name: str, default: float) -> float:
    """A number among a node's attributes."""
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute.f if attribute.type == 1 else attribute.i
    return default


def spread(ranges: np.ndarray) -> float:
    """The largest over the smallest of the ranges that are not zero; 1 when there is none."""
    alive = ranges[ranges > 0]
    return float(alive.max() / alive.min()) if alive.size else 1.0
