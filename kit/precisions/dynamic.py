"""Dynamic quantization: int8 weights, and activations whose range is found anew on every run. Nothing is calibrated.

Finding the range takes a pass over what goes in. Before a product with large weights and few rows that is little;
before a convolution it is not, and ONNX Runtime has no fast kernel for ConvInteger: a net of six 3x3 convolutions,
64 channels at 56x56, took 5.2 times as long as in float (median of 40 paired runs, ONNX Runtime 1.31, two cores with
VNNI). So convolutions stay in float, and models that live in them are refused.

The form is that of ONNX Runtime's ``quantize_dynamic``, which the runtime fuses into one integer product; written
here so that weights are never all in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.calibration import Calibration, short_name
from kit.errors import UnsupportedModel
from kit.int8.noise import decibels
from kit.int8.preparing import prepare
from kit.int8.processor import byte_types, this_processor
from kit.int8.quantizable import Network
from kit.model import Model
from kit.precisions import Written, matrices
from kit.precisions.matrices import Key
from kit.progress import Report, Tick
from kit.weights_file import Weights, read_light, save_streamed, tensor_bytes

if TYPE_CHECKING:
    from kit.quantization import QuantizeOptions

CONVOLUTION = ("its input would be measured and rounded on every run, and ConvInteger took 5 times as long as the "
               "float convolution; static INT8 knows the ranges beforehand")
LEAST = 4096  # weights; below, finding the range costs more than the product


@dataclass(frozen=True)
class Rounded:
    """A matrix as int8: ``values`` [inputs, outputs], ``scales`` float32 [outputs]; zero stands for zero."""

    values: np.ndarray
    scales: np.ndarray


def rounded(weights: np.ndarray, *, per_channel: bool, reduce_range: bool) -> Rounded:
    """Round a float32 matrix [inputs, outputs] to int8, or to 7 bits of it."""
    limit = np.float32(63 if reduce_range else 127)
    largest = np.abs(weights).max(axis=0) if per_channel else np.full(weights.shape[1], np.abs(weights).max())
    scales = (largest / limit).astype(np.float32)
    scales[scales == 0] = 1
    return Rounded(np.rint(weights / scales).astype(np.int8), scales)


def write(model: Model, folder: Path, options: QuantizeOptions, calibration: Calibration | None,
          report: Report) -> Written:
    """Write a model whose products with constant weights work on bytes with ranges found on every run.

    Args:
        model: the float model.
        folder: where the file goes.
        options: ``per_channel``, ``reduce_range``, and which nodes stay in float.
        calibration: not needed.
        report: hears the progress.

    Raises:
        BadInput: an unknown node name or operator type.
        UnsupportedModel: most weights belong to convolutions, or no product has constant weights.
    """
    proto = prepare(read_light(model.path), model.path.name)
    network = Network(proto, model.path.name)
    why = _plan(network, options)
    stored = Weights(model.path, proto)
    chosen = {node.name: matrices.key(node) for node in network.nodes if not why[node.name]}
    shapes = {chosen[node.name]: matrices.shape(network, node) for node in network.nodes if node.name in chosen}
    convolutions = sum(why[node.name] == CONVOLUTION for node in network.nodes)
    _rewrite(proto, network, chosen, shapes)
    reduce_range = byte_types(this_processor(), "uint8", options.reduce_range).reduce_range
    source = _Source(stored, tuple(shapes), options.per_channel, reduce_range, report)
    path = folder / f"{short_name(model)}.dynamic.onnx"
    save_streamed(proto, path, source)
    nodes = {name: ("float", reason) for name, reason in why.items() if reason}
    nodes |= {name: ("INT8 dynamic", f"its weights keep {source.lost[weights]:.1f} dB")
              for name, (weights, _) in chosen.items()}
    notes = [f"{len(chosen)} products measure and round what goes in on every run; the rest is float."]
    if convolutions:
        notes.append(f"{convolutions} convolutions stay in float: {CONVOLUTION}.")
    return Written(path, nodes, tuple(notes))


def _plan(network: Network, options: QuantizeOptions) -> dict[str, str]:
    """For every node, why it stays in float; "" for those made dynamic."""
    network.check_names(options.keep_float)
    network.check_types(options.keep_float_types)
    network.check_types(options.quantize_types, ("MatMul", "Gemm"))
    why, size = {}, {"Conv": 0, "product": 0}
    for node in network.nodes:
        is_convolution = node.op_type in ("Conv", "ConvTranspose")
        reason = CONVOLUTION if is_convolution else matrices.obstacle(network, node)
        weights = network.constants.get(network.weights(node))
        if weights is not None and (is_convolution or not reason):
            size["Conv" if is_convolution else "product"] += tensor_bytes(weights)
        if not reason and np.prod(network.constants[node.input[1]].dims) < LEAST:
            reason = f"it has fewer than {LEAST} weights: finding the range would cost more than it saves"
        why[node.name] = reason or options.spares(node)
    detail = "\n".join(f"{name}: {reason}" for name, reason in why.items())
    if size["Conv"] > size["product"]:
        share = size["Conv"] / (size["Conv"] + size["product"])
        raise UnsupportedModel(
            f"Convolutions hold {share:.0%} of the weights of {network.name}, and dynamic quantization makes those "
            "slower: their input would be measured and rounded on every run.",
            remedy="calibrate and use static INT8: kit.quantize(model, kit.calibrate(model, samples))", detail=detail)
    if all(why.values()):
        raise UnsupportedModel(f"{network.name} has no product with constant weights that is large enough for dynamic "
                               "quantization to pay.", remedy="leave it in float", detail=detail)
    return why


def _rewrite(proto: Any, network: Network, chosen: Mapping[str, Key], shapes: Mapping[Key, tuple[int, int]]) -> None:
    """Put an integer product in the place of each chosen node; the new weights are declared and hold nothing yet."""
    import onnx

    make, nodes, measured = onnx.helper.make_node, [], set()
    for node in network.nodes:
        if node.name not in chosen:
            nodes.append(node)
            continue
        data, result = node.input[0], node.output[0]
        byte, scale, zero = (f"{data}_{part}" for part in ("bytes", "scale", "zero"))
        if data not in measured:  # products that read the same tensor measure it once
            measured.add(data)
            nodes.append(make("DynamicQuantizeLinear", [data], [byte, scale, zero], f"{data}_measure"))
        values, scales, zeros = _names(chosen[node.name])
        bias = node.input[2] if len(node.input) > 2 else ""
        steps, product = f"{result}_steps", f"{result}_product" if bias else result
        nodes += [
            make("MatMulInteger", [byte, values, zero, zeros], [f"{result}_integer"], node.name),
            make("Cast", [f"{result}_integer"], [f"{result}_cast"], f"{node.name}_cast", to=1),
            make("Mul", [scale, scales], [steps], f"{node.name}_steps"),
            make("Mul", [f"{result}_cast", steps], [product], f"{node.name}_scale"),
        ]
        if bias:
            nodes.append(make("Add", [product, bias], [result], f"{node.name}_bias"))
    declared: dict[str, tuple[int, tuple[int, ...]]] = {}
    for key, (inputs, outputs) in shapes.items():
        values, scales, zeros = _names(key)
        declared |= {values: (3, (inputs, outputs)), scales: (1, (outputs,)), zeros: (3, (outputs,))}
    matrices.put(proto, nodes, declared)


class _Source:
    """Hands ``save_streamed`` one array at a time, and notes what rounding has cost each matrix (``lost``, dB)."""

    def __init__(self, stored: Weights, keys: tuple[Key, ...], per_channel: bool, reduce_range: bool,
                 report: Report) -> None:
        self.stored, self.report, self.total = stored, report, len(keys)
        self.settings = {"per_channel": per_channel, "reduce_range": reduce_range}
        self.parts = {name: (key, part) for key in keys for part, name in enumerate(_names(key))}
        self.lost: dict[str, float] = {}
        self.last: tuple[Key, Rounded | None] = (("", False), None)

    def __call__(self, name: str) -> np.ndarray:
        """The values of a constant that the graph does not hold itself."""
        if name not in self.parts:
            return self.stored.array(name)
        key, part = self.parts[name]
        if self.last[0] != key:
            self.report(Tick(len(self.lost), self.total, "rounding weights"))
            matrix = matrices.values(self.stored, key)
            made = rounded(matrix, **self.settings)
            power = float(np.square(matrix, dtype=np.float64).sum())
            noise = float(np.square(matrix - made.values * made.scales, dtype=np.float64).sum())
            self.lost[key[0]] = decibels(noise / power if power else 0.0)
            self.last = (key, made)
        made = self.last[1]
        return (made.values, made.scales, np.zeros(made.scales.shape, np.int8))[part]


def _names(key: Key) -> tuple[str, str, str]:
    """Names of the values, the scales and the zero points of a matrix."""
    base = f"{key[0]}_turned" if key[1] else key[0]
    return f"{base}_q", f"{base}_q_scales", f"{base}_q_zeros"
