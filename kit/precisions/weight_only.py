"""Weights in 8 or 4 bits, everything else in float: ``MatMulNBits``, the operator that ONNX Runtime and OpenVINO share.

Each block of 32 to 128 weights along the inputs of a matrix has a scale. A matrix product that serves few rows at once
waits for its weights to come from memory, so smaller weights make it faster; nothing needs to be calibrated. The
packing is ONNX Runtime's own routine, called matrix by matrix, so that weights are never all in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.calibration import Calibration, short_name
from kit.errors import BadInput, UnsupportedModel
from kit.int8.noise import decibels
from kit.int8.preparing import prepare
from kit.int8.qdq import Rounding
from kit.int8.qdq_edits import store_int8
from kit.int8.qdq_read import effective
from kit.int8.quantizable import Network
from kit.model import Model
from kit.need import need
from kit.precisions import Written, matrices
from kit.precisions.matrices import Key
from kit.progress import Report, Tick
from kit.weights_file import Weights, read_light, save_streamed

if TYPE_CHECKING:
    from kit.quantization import QuantizeOptions

DOMAIN = "com.microsoft"
CONVOLUTIONS = ("Conv", "ConvTranspose")
#: Products add up bytes: what goes in is rounded to bytes block by block while it runs. With 0 (all in float32)
#: ONNX Runtime 1.31 unpacks 8-bit weights on every run: 79 ms against 0.3 ms for 32 rows by 768 x 3072, measured; it
#: was 3 dB nearer to float, of 44.
ACCURACY_LEVEL = 4


@dataclass(frozen=True)
class Packed:
    """A matrix [inputs, outputs] in few bits, as ``MatMulNBits`` stores it.

    Attributes:
        values: uint8 [outputs, blocks, bytes a block]; of two 4-bit numbers in a byte the low one is first.
        scales: float32 [outputs, blocks].
        zero_points: uint8 [outputs, bytes], packed likewise; None when every zero point is the middle.
        bits: 8 or 4.
        block: weights along the inputs that share a scale.
        inputs: rows of the matrix.
    """

    values: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    bits: int
    block: int
    inputs: int

    def restore(self) -> np.ndarray:
        """The matrix as float32 [inputs, outputs], with what rounding has left of it."""
        outputs, blocks = self.scales.shape
        values = _unpacked(self.values, self.bits).reshape(outputs, blocks, self.block).astype(np.float32)
        if self.zero_points is None:
            zero = np.float32(1 << (self.bits - 1))
        else:
            zero = _unpacked(self.zero_points, self.bits)[:, :blocks, None].astype(np.float32)
        values -= zero
        values *= self.scales[:, :, None]
        return values.reshape(outputs, -1)[:, : self.inputs].T


def pack(weights: np.ndarray, bits: int, block: int) -> Packed:
    """Round a matrix to 8 bits (around zero) or 4 (with a zero point a block) by ONNX Runtime's routine.

    Zero points cost half a byte a block. On normal weights they gain 0.5 dB at 4 bits, measured; at 8 bits there is
    nothing left to gain.

    Args:
        weights: float32 [inputs, outputs].
        bits: 8 or 4.
        block: weights along the inputs that share a scale, a power of two.
    """
    tool = need("onnxruntime.quantization.matmul_nbits_quantizer", to="store weights in few bits", extra="base")
    config = tool.DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=bits == 8, bits=bits)
    values, scales, zeros = tool.DefaultWeightOnlyQuantizer(config).qbits_block_quant(weights)
    return Packed(values, scales.reshape(weights.shape[1], -1), zeros if bits == 4 else None, bits, block,
                  weights.shape[0])


def write(model: Model, folder: Path, options: QuantizeOptions, calibration: Calibration | None,
          report: Report) -> Written:
    """Store the constant matrices of MatMul and Gemm in 8 or 4 bits.

    Args:
        model: the float model.
        folder: where the file goes.
        options: ``precision``, ``block``, and which nodes stay in float.
        calibration: not needed.
        report: hears the progress.

    Raises:
        BadInput: an unknown node name or operator type, or a block that is no power of two.
        UnsupportedModel: nothing in the model is a matrix product with constant weights.
    """
    bits, block = (8 if options.precision == "int8-weights" else 4), options.block
    if block & (block - 1):
        raise BadInput(f"A block of {block} weights is not possible: MatMulNBits takes powers of two.",
                       remedy="give block=32, 64 or 128")
    proto = prepare(read_light(model.path), model.path.name, quantized=True)
    network = Network(proto, model.path.name, model.path)
    why = _plan(network, options)
    chosen = [node for node in network.nodes if not why[node.name] and node.op_type not in CONVOLUTIONS]
    convolutions = [node for node in network.nodes if not why[node.name] and node.op_type in CONVOLUTIONS]
    stored = Weights(model.path, proto)
    weights_of = {node.name: matrices.key(node) for node in chosen}
    # Several nodes may share one matrix.
    shapes = {weights_of[node.name]: matrices.shape(network, node) for node in chosen}
    before = effective(proto, options.runtime)
    rounding = _store_convolutions(proto, network, convolutions)
    _rewrite(proto, network, weights_of, shapes, bits, block)
    lost: dict[str, float] = {}
    source = _Source(stored, tuple(shapes), bits, block, lost, rounding, report)
    path = folder / f"{short_name(model)}.{options.precision}.onnx"
    save_streamed(proto, path, source)
    setting = f"INT{bits} weights"
    nodes = {name: (before.get(name, "float"), "" if before.get(name) == "INT8" else reason) for name, reason
             in why.items()}
    nodes |= {node.name: (setting, f"its weights keep {lost[weights_of[node.name][0]]:.1f} dB") for node in chosen}
    nodes |= {node.name: (setting, f"its weights keep {lost[network.weights(node)]:.1f} dB") for node in convolutions}
    return Written(path, nodes, _notes(network, lost, bits, block, before))


def _plan(network: Network, options: QuantizeOptions) -> dict[str, str]:
    """For every node, why its weights stay as they are; "" for those that are packed."""
    network.check_names(options.keep_float)
    network.check_types(options.keep_float_types)
    network.check_types(options.quantize_types, ("MatMul", "Gemm"))
    network.check_names(options.int8_weights)
    why = {}
    for node in network.nodes:
        named = node.name in options.int8_weights
        reason = _conv_obstacle(network, node) if named else _obstacle(network, node, options.block)
        if named and reason:
            raise BadInput(f"{node.name!r} is named in int8_weights: {reason}.",
                           remedy="name convolutions with constant float32 weights")
        why[node.name] = reason or options.spares(node)
    if all(why.values()):
        convolutions = sum(node.op_type in CONVOLUTIONS for node in network.nodes)
        told = f" Its {convolutions} convolutions are stored as int8 only by name." if convolutions else ""
        ways = "name them in int8_weights, or " if convolutions else ""
        raise UnsupportedModel(
            f"Nothing in {network.name} is a MatMul or Gemm with constant weights that could be stored in few "
            f"bits.{told}", remedy=f"{ways}make it INT8 with a calibration; float_weights='int8' then stores what "
            "stays in float as int8 too, which saves room and costs time",
            detail="\n".join(f"{n}: {w}" for n, w in why.items()))
    return why


def _obstacle(network: Network, node: Any, block: int) -> str:
    if node.op_type in CONVOLUTIONS:
        return "MatMulNBits multiplies matrices only; int8_weights, by its name, stores these as int8"
    reason = matrices.obstacle(network, node)
    if reason:
        return reason
    inputs, _ = matrices.shape(network, node)
    return f"its {inputs} inputs do not fill a block of {block}" if inputs < block else ""


def _conv_obstacle(network: Network, node: Any) -> str:
    if node.op_type not in CONVOLUTIONS or node.domain not in ("", "ai.onnx"):
        return f"it is a {node.op_type}, and int8_weights is for convolutions"
    weights = network.constants.get(node.input[1])
    return "" if weights is not None and weights.data_type == 1 else "its weights are not constant float32"


def _store_convolutions(proto: Any, network: Network, nodes: list[Any]) -> dict[str, tuple[str, Rounding]]:
    """Give convolutions int8 weights, declared and still empty: constant -> float weights and how to round them."""
    import onnx

    stored = store_int8(proto.graph, network, nodes)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = {}
    for name, weights in stored.items():
        constants[name].ClearField("doc_string")
        scale, zero = (onnx.numpy_helper.to_array(constants[f"{weights}_{part}"]) for part in ("scale", "zero_point"))
        axis = next(network.channel_axis(node) for node in nodes if node.input[1] == weights)
        found[name] = weights, Rounding(scale, zero, axis)
    return found


def _rewrite(proto: Any, network: Network, weights_of: Mapping[str, Key], shapes: Mapping[Key, tuple[int, int]],
             bits: int, block: int) -> None:
    """Put MatMulNBits in the place of the chosen nodes; the new weights are declared and hold nothing yet."""
    import onnx

    nodes = []
    for node in network.nodes:
        if node.name not in weights_of:
            nodes.append(node)
            continue
        key = weights_of[node.name]
        inputs, outputs = shapes[key]
        bias = node.input[2] if len(node.input) > 2 else ""
        result = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(onnx.helper.make_node(
            "MatMulNBits", [node.input[0], *_names(key, bits)], [result], node.name, domain=DOMAIN, K=inputs, N=outputs,
            bits=bits, block_size=block, accuracy_level=ACCURACY_LEVEL))
        if bias:
            nodes.append(onnx.helper.make_node("Add", [result, bias], [node.output[0]], f"{node.name}_bias"))
    declared = {}
    for key, (inputs, outputs) in shapes.items():
        blocks = -(-inputs // block)
        sizes = ((outputs, blocks, block * bits // 8), (outputs, blocks), (outputs, -(-blocks * bits // 8)))
        declared |= {name: (kind, size) for name, size, kind in zip(_names(key, bits), sizes, (2, 1, 2), strict=False)}
    matrices.put(proto, nodes, declared)
    if all(entry.domain != DOMAIN for entry in proto.opset_import):
        proto.opset_import.add(domain=DOMAIN, version=1)


class _Source:
    """Hands ``save_streamed`` one array at a time, and notes what rounding has cost each matrix."""

    def __init__(self, stored: Weights, keys: tuple[Key, ...], bits: int, block: int, lost: dict[str, float],
                 rounding: Mapping[str, tuple[str, Rounding]], report: Report) -> None:
        self.rounding = rounding
        self.stored, self.bits, self.block, self.lost, self.report = stored, bits, block, lost, report
        self.parts = {name: (key, part) for key in keys for part, name in enumerate(_names(key, bits))}
        self.total, self.last = len(keys) + len(rounding), (("", False), None)

    def __call__(self, name: str) -> np.ndarray:
        """The values of a constant that the graph does not hold itself."""
        if name in self.rounding:
            weights, rounding = self.rounding[name]
            self.report(Tick(len(self.lost), self.total, "packing weights"))
            values = self.stored.array(weights)
            noise = sum(float(np.square(gap, dtype=np.float64).sum()) for _, gap in rounding.errors(values))
            self.lost[weights] = _decibels(noise, values)
            return rounding.round(values)
        if name not in self.parts:
            return self.stored.array(name)
        key, part = self.parts[name]
        if self.last[0] != key:
            self.report(Tick(len(self.lost), self.total, "packing weights"))
            matrix = matrices.values(self.stored, key)
            packed = pack(matrix, self.bits, self.block)
            self.lost[key[0]] = _decibels(float(np.square(matrix - packed.restore(), dtype=np.float64).sum()), matrix)
            self.last = (key, packed)
        packed = self.last[1]
        return (packed.values, packed.scales, packed.zero_points)[part]


def _decibels(noise: float, values: np.ndarray) -> float:
    power = float(np.square(values, dtype=np.float64).sum())
    return decibels(noise / power if power else 0.0)


def _notes(network: Network, lost: dict[str, float], bits: int, block: int, before: Mapping[str, str]
           ) -> tuple[str, ...]:
    worst = min(lost, key=lost.__getitem__)
    notes = [f"{len(lost)} weights in {bits} bits, matrices with a scale for {block} each; {worst!r} keeps least, "
             f"{lost[worst]:.1f} dB.", "What goes into matrices is rounded to bytes while the model runs."]
    left = sum(node.op_type in CONVOLUTIONS and before.get(node.name, "float") == "float"
               and node.input[1] not in lost for node in network.nodes)
    if left:
        notes.append(f"{left} convolutions keep float weights; those named in int8_weights are stored as int8, which "
                     "saves room, and time only where the runtime does not unpack them on every run.")
    return tuple(notes)


def _names(key: Key, bits: int) -> tuple[str, ...]:
    """Names of the values, the scales and (4 bits) the zero points of a matrix."""
    base = f"{key[0]}_turned" if key[1] else key[0]
    return (f"{base}_q{bits}", f"{base}_scales", *((f"{base}_zeros",) if bits == 4 else ()))


def _unpacked(values: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return values
    return np.stack((values & 15, values >> 4), axis=-1).reshape(*values.shape[:-1], -1)
