"""A quantizer for torchao's pt2e flow: where the digits CNN is rounded, and to how many levels.

torchao calls ``annotate`` with the captured graph; ``prepare_pt2e`` then puts an observer (``prepare_qat_pt2e``: a
fake quantizer) at every annotated place. Activations are unsigned bytes, one scale a tensor; weights are signed and
symmetric, with one scale a tensor or one an output channel. Biases stay float until the end, when ``round_biases``
gives them the steps of integer kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchao.quantization.pt2e import (
    FakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

ATEN, DECOMPOSED = torch.ops.aten, torch.ops.quantized_decomposed
WITH_WEIGHTS = (ATEN.conv2d.default, ATEN.linear.default)
#: Operators that compute on bytes: their inputs are rounded.
ON_BYTES = (*WITH_WEIGHTS, ATEN.add.Tensor, ATEN.adaptive_avg_pool2d.default)


@dataclass(frozen=True)
class Scheme:
    """How weights are rounded.

    Attributes:
        bits: of the weights; 4-bit ones lie in -7 to 7, 8-bit ones in -127 to 127.
        per_channel: one weight scale an output channel instead of one a tensor.
    """

    bits: int = 8
    per_channel: bool = True


class DigitsQuantizer(Quantizer):
    """Annotates convolutions, linear layers, additions and the average pool, as integer kernels take them."""

    def __init__(self, scheme: Scheme, *, qat: bool):
        super().__init__()
        self.weight, self.activation = _weight_spec(scheme, qat), _activation_spec(qat)

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Mark what is rounded; convolution, batch norm and ReLU count as one step, rounded at its end."""
        for node in model.graph.nodes:
            if node.target not in ON_BYTES:
                continue
            places = _annotation(node).input_qspec_map
            if node.target in WITH_WEIGHTS:
                places |= {node.args[0]: self.activation, node.args[1]: self.weight}
            else:
                places |= dict.fromkeys(node.all_input_nodes, self.activation)
            if end := _end_of_step(node):
                _annotation(end).output_qspec = self.activation
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Nothing to refuse: the network is ours."""


def _annotation(node: torch.fx.Node) -> QuantizationAnnotation:
    return node.meta.setdefault("quantization_annotation", QuantizationAnnotation(_annotated=True))


def _end_of_step(node: torch.fx.Node) -> torch.fx.Node | None:
    """The node whose output is rounded for ``node``; None for the model's own output, which stays float."""
    while True:
        (user, *others) = node.users
        if others or user.target not in (ATEN.batch_norm.default, ATEN.relu.default):
            return None if user.op == "output" else node
        node = user


def _weight_spec(scheme: Scheme, qat: bool) -> QuantizationSpec:
    top = 2 ** (scheme.bits - 1) - 1
    kind = torch.per_channel_symmetric if scheme.per_channel else torch.per_tensor_symmetric
    if qat:
        # Not FusedMovingAvgObsFakeQuantize: its kernel takes -7 to 7 for 4 bits to be -8 to 7, and so trains with other
        # scales than convert_pt2e then writes (torchao 0.18 with torch 2.13; with 8 bits the gap is a 255th).
        # Weights are seen whole at every step: their range is that of now, not an average over steps.
        observer = MovingAveragePerChannelMinMaxObserver if scheme.per_channel else MovingAverageMinMaxObserver
        maker = FakeQuantize.with_args(observer=observer, averaging_constant=1.0)
    else:
        maker = PerChannelMinMaxObserver if scheme.per_channel else MinMaxObserver
    return QuantizationSpec(torch.int8, maker, -top, top, kind, 0 if scheme.per_channel else None)


def _activation_spec(qat: bool) -> QuantizationSpec:
    maker = (FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, averaging_constant=0.01)
             if qat else MinMaxObserver)
    return QuantizationSpec(torch.uint8, maker, 0, 255, torch.per_tensor_affine)


@torch.no_grad()
def round_biases(converted: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Round biases to multiples of the activation's scale times the weight's, in place.

    An integer kernel adds its bias to sums of products, which count in these steps. Where a file leaves biases float,
    ONNX Runtime rounds them when it loads the file (WeightBiasQuantization, since 1.21), and its answers differ from
    PyTorch's; rounded already, they agree. With 4 bits the steps are coarse enough to matter.
    """
    for node in converted.graph.nodes:
        value = node.args[0] if node.target in WITH_WEIGHTS else None
        if value is None or value.target is not DECOMPOSED.dequantize_per_tensor.default:
            continue
        step = value.args[1] * _value(converted, node.args[1].args[1])
        bias = _value(converted, node.args[2])
        bias.copy_(torch.round(bias / step) * step)
    return converted


def _value(model: torch.fx.GraphModule, thing: torch.fx.Node | float) -> torch.Tensor | float:
    if not isinstance(thing, torch.fx.Node):
        return thing
    found = model
    for part in thing.target.split("."):
        found = getattr(found, part)
    return found
