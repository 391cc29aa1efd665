"""Read a quantized model that came from elsewhere: quantization-aware training, NNCF, ONNX Runtime's own tools.

What it holds is shown like the result of ``kit.quantize``: what every node works on, the range of every rounded
activation, type and scales of every weight. The file is not changed; ``.model`` goes into ``layer_errors``,
``verify``, ``compile`` and ``benchmark`` like any other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from kit.calibration import model_of
from kit.card import Card, Table, bytes_text
from kit.errors import UnsupportedModel
from kit.int8 import qdq_read
from kit.int8.noise import decibels
from kit.int8.preparing import plain
from kit.int8.quantizable import KNOWN_TYPES, Network
from kit.int8.result import NodeSetting
from kit.model import Model, read
from kit.precisions.weight_only import Packed

_INTEGER = {  # operators that work on bytes by their nature
    "QLinearConv": "INT8", "QLinearMatMul": "INT8", "QGemm": "INT8", "QLinearAdd": "INT8", "QLinearMul": "INT8",
    "ConvInteger": "INT8 dynamic", "MatMulInteger": "INT8 dynamic", "DynamicQuantizeMatMul": "INT8 dynamic",
    "DynamicQuantizeLSTM": "INT8 dynamic",
}
_HELPERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant")


@dataclass(frozen=True)
class ActivationRange:
    """An activation that is rounded to bytes: ``scale * (byte - zero)`` for bytes from ``low`` to ``high``."""

    tensor: str
    dtype: str
    low: float
    high: float
    scale: float
    zero: int


@dataclass(frozen=True)
class StoredWeights:
    """Weights stored in few bits.

    Attributes:
        name: as the file has them.
        node: the first node that reads them.
        dtype: such as ``int8``, ``uint4``.
        bits: of one value.
        granularity: which values share a scale.
        shape: of the weights.
        sqnr: against the float model's weights, dB; None where they cannot be told.
    """

    name: str
    node: str
    dtype: str
    bits: int
    granularity: str
    shape: tuple[int, ...]
    sqnr: float | None


@dataclass(frozen=True)
class QuantizedFile(Card):
    """What a quantized model holds.

    Attributes:
        model: the file, unchanged.
        nodes: what every node works on.
        activations: those rounded to bytes, in topological order.
        weights: those stored in few bits.
        float_model: digest of the float model compared with; "" without one.
        notes: sentences for the reader.
    """

    model: Model
    nodes: tuple[NodeSetting, ...] = field(repr=False)
    activations: tuple[ActivationRange, ...] = field(repr=False)
    weights: tuple[StoredWeights, ...] = field(repr=False)
    float_model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def kept_float(self) -> tuple[str, ...]:
        """Names of the nodes that compute in float."""
        return tuple(node.node for node in self.nodes if not node.setting.startswith("INT8") or
                     node.setting.endswith("weights"))

    def title(self) -> str:
        counts = Counter(node.setting for node in self.nodes)
        told = ", ".join(f"{count} {setting}" for setting, count in counts.most_common())
        return f"{self.model.path.name} is quantized: of {len(self.nodes)} nodes {told}"

    def facts(self) -> dict[str, object]:
        kinds = Counter((w.dtype, w.granularity) for w in self.weights)
        known = [w for w in self.weights if w.sqnr is not None]
        worst = min(known, key=lambda w: w.sqnr, default=None)
        return {
            "weights": "; ".join(f"{n} {dtype}, {how}" for (dtype, how), n in kinds.most_common()) or "float",
            "activations": "; ".join(f"{n} {dtype}" for dtype, n in Counter(
                a.dtype for a in self.activations).most_common()) or "float",
            "size": bytes_text(self.model.size),
            "made by": self.model.producer or "unknown",
            **({"weights farthest from float": f"{worst.name!r}, {worst.sqnr:.1f} dB"} if worst else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        by_kind = Counter((n.operator, n.setting, n.why) for n in self.nodes)
        nodes = tuple((count, *kind) for kind, count in sorted(by_kind.items(), key=lambda one: (one[0][1], -one[1])))
        weights = tuple((w.name, w.node, w.dtype, w.granularity, str(list(w.shape)),
                         "-" if w.sqnr is None else f"{w.sqnr:.1f}") for w in self.weights)
        ranges = tuple((a.tensor, a.dtype, f"{a.low:.4g}", f"{a.high:.4g}") for a in self.activations)
        return (Table("What the nodes work on", ("nodes", "operator", "now", "why"), nodes),
                Table("Weights", ("weights", "node", "type", "scales", "shape", "against float, dB"), weights),
                Table("Rounded activations", ("tensor", "type", "low", "high"), ranges))


def read_quantized(model: Any, float_model: Any = None, *,
                   runtime: Literal["onnxruntime", "openvino"] = "onnxruntime") -> QuantizedFile:
    """Describe a model that carries QuantizeLinear and DequantizeLinear, or other quantized operators.

    Args:
        model: its path, a Model, or a result that carries one.
        float_model: the float model it was made from. Weights are compared where node or weight names agree, or all
            shapes in order.
        runtime: whose integer kernels decide what a node works on.

    Raises:
        BadInput: no such file, or not ONNX.
        UnsupportedModel: the model is float.
    """
    model = model_of(model)
    proto = plain(read(model.path))
    operators = {node.op_type for node in proto.graph.node}
    if not operators & {"QuantizeLinear", "DequantizeLinear", "MatMulNBits", *_INTEGER}:
        raise UnsupportedModel(f"{model.path.name} holds nothing quantized: it is a float model.",
                               remedy="make it INT8 with kit.quantize, or give the file that a tool has quantized")
    settings = qdq_read.effective(proto, runtime)
    bits = {stored.output: stored.bits for stored in qdq_read.stored_weights(proto)}
    for node in proto.graph.node:
        other = next((bits[name] for name in node.input if bits.get(name, 8) != 8), 8)
        if other != 8 and node.op_type not in _HELPERS:  # no integer kernel takes these: they are unpacked to float
            settings[node.name] = f"INT{other} weights"
    nodes = tuple(_setting(node, settings.get(node.name, "float"), proto) for node in proto.graph.node
                  if node.op_type not in _HELPERS)
    references = _float_weights(float_model) if float_model is not None else {}
    weights = _by_order(proto, tuple(_weights(proto, references)), references)
    return QuantizedFile(
        model, nodes, tuple(_range(one) for one in qdq_read.rounded(proto).values()), weights,
        model_of(float_model).digest() if float_model is not None else "", _notes(weights, float_model))


def _setting(node: Any, found: str, proto: Any) -> NodeSetting:
    """What a node works on, and why where that can be told from the file."""
    if node.op_type in _INTEGER:
        return NodeSetting(node.name, node.op_type, _INTEGER[node.op_type], "", 0)
    if node.op_type == "MatMulNBits":
        bits = next((a.i for a in node.attribute if a.name == "bits"), 4)
        return NodeSetting(node.name, node.op_type, f"INT{bits} weights", "its values are not rounded in the file", 0)
    return NodeSetting(node.name, node.op_type, found, "" if found == "INT8" else _why(node, proto), 0)


def _why(node: Any, proto: Any) -> str:
    restored = {n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    to_bytes = {n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    constants = {tensor.name for tensor in proto.graph.initializer}
    if node.op_type not in KNOWN_TYPES:
        return "ONNX Runtime has no integer kernel for it on a CPU"
    rough = [name for name in node.input if name and name not in restored and name not in constants]
    if rough:
        return "what goes in is not rounded"
    if not any(name in to_bytes for name in node.output):
        return "what comes out is not rounded"
    return "its weights are float"


def _range(one: qdq_read.Rounded) -> ActivationRange:
    limits = np.iinfo(one.dtype)
    return ActivationRange(one.tensor, one.dtype, one.scale * (int(limits.min) - one.zero),
                           one.scale * (int(limits.max) - one.zero), one.scale, one.zero)


def _weights(proto: Any, references: dict[str, np.ndarray]) -> Any:
    readers: dict[str, str] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, node.name)
    for stored in qdq_read.stored_weights(proto):
        yield StoredWeights(stored.name, readers.get(stored.output, ""), stored.dtype, stored.bits,
                            stored.granularity, stored.values.shape,
                            _sqnr(stored.values, references, (readers.get(stored.output, ""), stored.name)))
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "MatMulNBits" and node.input[1] in constants:
            packed = _packed(node, constants)
            values = packed.restore()
            yield StoredWeights(node.input[1], node.name, f"uint{packed.bits}", packed.bits,
                                f"one scale for {packed.block} inputs of an output", values.shape,
                                _sqnr(values, references, (node.name, node.input[1])))


def _by_order(proto: Any, weights: tuple[StoredWeights, ...], references: dict[str, np.ndarray]) -> \
        tuple[StoredWeights, ...]:
    """Compare by order what no name has told, where both models have weights of the same shapes in the same order."""
    reference = list({id(values): values for values in references.values()}.values())
    order = {node.name: at for at, node in enumerate(proto.graph.node)}
    mine = sorted(weights, key=lambda one: order.get(one.node, 0))
    if [one.shape for one in mine] != [values.shape for values in reference]:
        return weights
    values = {stored.name: stored.values for stored in qdq_read.stored_weights(proto)}
    told = {one.name: _sqnr(values[one.name], {"": found}, ("",))
            for one, found in zip(mine, reference, strict=True) if one.sqnr is None and one.name in values}
    return tuple(replace(one, sqnr=told.get(one.name, one.sqnr)) for one in weights)


def _packed(node: Any, constants: dict[str, Any]) -> Packed:
    import onnx

    numbers = {a.name: a.i for a in node.attribute}
    values, scales = (onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:3])
    bits, outputs = numbers.get("bits", 4), numbers["N"]
    zeros = onnx.numpy_helper.to_array(constants[node.input[3]]).reshape(outputs, -1) \
        if len(node.input) > 3 and node.input[3] else None
    return Packed(values, scales.reshape(outputs, -1), zeros, bits, numbers["block_size"], numbers["K"])


def _sqnr(values: np.ndarray, references: dict[str, np.ndarray], names: tuple[str, ...]) -> float | None:
    """Of weights against those of the float model that go by one of the names; transposed ones count too."""
    for name in names:
        for found in (references.get(name), references.get(qdq_read.float_name(name))):
            if found is None:
                continue
            if found.shape != values.shape and found.T.shape == values.shape:
                found = found.T
            if found.shape == values.shape:
                power = float(np.square(found, dtype=np.float64).sum())
                noise = float(np.square(found.astype(np.float64) - values).sum())
                return decibels(noise / power if power else noise)
    return None


def _float_weights(thing: Any) -> dict[str, np.ndarray]:
    """The weights of the float model, by their own names and by those of the nodes that read them."""
    import onnx

    model = model_of(thing)
    proto = plain(read(model.path))
    network = Network(proto, model.path.name)
    found = {}
    for node in network.nodes:
        name = network.weights(node)
        if name:
            found[node.name] = found[name] = onnx.numpy_helper.to_array(network.constants[name])
    return found


def _notes(weights: tuple[StoredWeights, ...], float_model: Any) -> tuple[str, ...]:
    notes = []
    if float_model is not None:
        unknown = sum(one.sqnr is None for one in weights)
        if unknown:
            notes.append(f"{unknown} weights have no counterpart of that name and shape in the float model.")
        if any(one.sqnr is not None and one.sqnr < 10 for one in weights):
            notes.append("Weights below 10 dB are other weights rather than rounded ones: training changed them.")
    return tuple(notes)
