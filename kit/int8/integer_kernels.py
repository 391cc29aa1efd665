"""Why is INT8 not faster? Counts what ONNX Runtime really made of a QDQ model, and says it in sentences."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.card import Card, Table
from kit.errors import UnsupportedModel
from kit.int8.processor import this_processor
from kit.model import Model, read
from kit.need import need

_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "QAttention")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_NO_INTEGER_FORM = ("HardSwish", "HardSigmoid", "Swish", "Gelu", "Mish", "Erf", "LSTM", "GRU", "ConvTranspose",
                    "LayerNormalization", "InstanceNormalization", "Softmax")


@dataclass(frozen=True)
class IntegerUse(Card):
    """How much of an INT8 model runs on integers.

    Attributes:
        written: nodes with weights that the file has in QDQ form.
        integer: integer nodes after ONNX Runtime's own rewriting.
        conversions: QuantizeLinear and DequantizeLinear nodes that are left and run every time.
        unpacked: of these, those that unpack stored weights.
        float_products: convolutions and matrix products that run in float.
        depthwise: integer convolutions that treat every channel alone.
        operators: operator -> number of nodes, after rewriting.
        reasons: sentences, weightiest first; never empty.
    """

    written: int
    integer: int
    conversions: int
    unpacked: int
    float_products: int
    depthwise: int
    operators: dict[str, int] = field(repr=False)
    reasons: tuple[str, ...]

    def title(self) -> str:
        total = sum(self.operators.values())
        return f"{self.integer} of {total} nodes run on integers; {self.conversions} convert to and fro"

    def facts(self) -> dict[str, object]:
        return {f"reason {number}": reason for number, reason in enumerate(self.reasons, 1)}

    def tables(self) -> tuple[Table, ...]:
        rows = tuple(sorted(self.operators.items(), key=lambda item: -item[1]))
        return (Table("Operators after ONNX Runtime's rewriting", ("operator", "nodes"), rows),)


def why_not_faster(quantized: Any) -> IntegerUse:
    """Say what keeps an INT8 model from being faster in ONNX Runtime on this processor.

    Args:
        quantized: a QDQ model: an .onnx file, a Model, or ``Quantized``.

    Raises:
        UnsupportedModel: ONNX Runtime cannot load it, or it holds no QDQ nodes.
    """
    found = getattr(quantized, "model", quantized)
    model = found if isinstance(found, Model) else Model.open(found)
    proto = read(model.path, weights=False)
    before = Counter(node.op_type for node in proto.graph.node)
    if not any(before[name] for name in _CONVERSIONS):
        raise UnsupportedModel(f"{model.path.name} holds no QuantizeLinear nodes: it is not INT8.",
                               remedy="quantize it first: kit.quantize")
    graph = _rewritten(model)
    after = Counter(node.op_type for node in graph.node)
    constants = {tensor.name for tensor in graph.initializer}
    integer = sum(count for name, count in after.items() if name.startswith(_INTEGER))
    conversions = sum(after[name] for name in _CONVERSIONS)
    unpacked = sum(node.op_type == "DequantizeLinear" and node.input[0] in constants for node in graph.node)
    floats = sum(after[name] for name in ("Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "ConvTranspose"))
    depthwise = sum(_is_depthwise(node) for node in graph.node if node.op_type == "QLinearConv")
    restored = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    written = sum(node.op_type in ("Conv", "MatMul", "Gemm", "ConvTranspose")
                  and all(name in restored for name in node.input[:2]) for node in proto.graph.node)
    signed = any(node.op_type == "QuantizeLinear" and _signed(proto, node) for node in proto.graph.node)
    reasons = _reasons(before, integer, conversions, unpacked, floats, depthwise, written, signed)
    return IntegerUse(written, integer, conversions, unpacked, floats, depthwise, dict(after), tuple(reasons))


def _reasons(before: Counter, integer: int, conversions: int, unpacked: int, floats: int, depthwise: int,
             written: int, signed: bool) -> list[str]:
    found = []
    processor = this_processor()
    if processor.family == "x86" and signed:
        found.append("Activations are int8. On x86, ONNX Runtime is several times slower with them than with uint8.")
    if processor.family == "x86" and processor.vnni is False:
        found.append(f"{processor.name} has no VNNI, so a product of bytes takes as many steps as one of floats.")
    between = {name: before[name] for name in _NO_INTEGER_FORM if before[name]}
    if between and conversions:
        listed = ", ".join(f"{count} {name}" for name, count in between.items())
        found.append(f"{listed} have no integer kernel: values are converted to float before each and back after it.")
    if conversions - unpacked > integer / 2:
        found.append(f"{conversions - unpacked} conversions run beside {integer} integer nodes. Each reads and writes "
                     "a whole tensor, so on small convolutions they cost more than the integer arithmetic saves.")
    if depthwise:
        found.append(f"{depthwise} integer convolutions are depthwise: they wait for memory, not for arithmetic, and "
                     "gain little from bytes.")
    if floats:
        found.append(f"{floats} convolutions or matrix products run in float: they were kept so, or are not fused.")
    if unpacked:
        found.append(f"{unpacked} nodes unpack int8 weights on every run.")
    if written and integer < written:
        found.append(f"The file has {written} products in INT8 form, but only {integer} integer nodes came of it.")
    return found or [f"Nothing stands out: {integer} integer nodes, {conversions} conversions. Measure it: "
                     "kit.benchmark."]


def _rewritten(model: Model) -> Any:
    import onnx

    from kit.runtimes.onnxruntime import AS_WRITTEN

    ort = need("onnxruntime", to="see what ONNX Runtime makes of a model", extra="base")
    with tempfile.TemporaryDirectory(prefix="kit-optimised-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The level above this one depends on the processor and may not be saved.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "rewritten.onnx")
        for name, value in AS_WRITTEN.items():
            options.add_session_config_entry(name, value)
        try:
            ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise UnsupportedModel(f"onnxruntime {ort.__version__} cannot load {model.path.name}.",
                                   remedy="run onnx.checker on the file; the details name the place",
                                   detail=str(error)) from error
        return onnx.load(options.optimized_model_filepath).graph


def _is_depthwise(node: Any) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def _signed(proto: Any, node: Any) -> bool:
    zero = node.input[2] if len(node.input) > 2 else ""
    return any(tensor.name == zero and tensor.data_type == 3 for tensor in proto.graph.initializer)
