"""A QDQ model for AMCT: what ``amct_onnx convert`` asks of its graph, and how ours is brought into that form.

AMCT replaces pairs of QuantizeLinear and DequantizeLinear around convolutions and products (and, for data alone,
additions) by its own operators. Other pairs it does not take, nor weights and biases that are stored as integers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.ascend.precision.qdq_graph import Q, QatProblem, QdqGraph
from kit.ascend.precision.qdq_rewriting import Rewriting
from kit.calibration import model_of
from kit.card import Card, Table
from kit.errors import UnsupportedModel
from kit.model import Model
from kit.record import explain_os_error
from kit.targets.ascend import facts


@dataclass(frozen=True)
class QatCheck(Card):
    """Whether ``amct_onnx convert`` takes a QDQ model; true when it should.

    Attributes:
        model_name: its file's name.
        problems: one a node.
        int8: nodes that become INT8 -> operator.
        notes: sentences for the reader.
    """

    model_name: str
    problems: tuple[QatProblem, ...]
    int8: dict[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def title(self) -> str:
        if self.problems:
            return f"AMCT does not take {self.model_name}: {len(self.problems)} nodes are in its way"
        return f"AMCT takes {self.model_name}: {len(self.int8)} nodes become INT8"

    def facts(self) -> dict[str, object]:
        counts = Counter(self.int8.values())
        return {"INT8": ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing",
                "checked": "against the documented conditions, not by AMCT",
                **({"note": " ".join(self.notes)} if self.notes else {})}

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((one.node, one.operator, one.what) for one in self.problems)
        return (Table("In the way", ("node", "operator", "why"), rows),) if rows else ()


@dataclass(frozen=True)
class QatModel(Card):
    """A QDQ model in the form that AMCT converts.

    Attributes:
        model: the file.
        source: the QDQ model it was made from.
        int8: nodes that AMCT makes INT8 -> operator.
        floated: nodes that computed in INT8 and now are float -> why.
        unrounded: nodes that AMCT cannot round and that read the tensors as they were before the rounding.
        check: of the new file.
    """

    model: Model
    source: Model
    int8: dict[str, str] = field(repr=False)
    floated: dict[str, str]
    unrounded: tuple[str, ...] = field(repr=False)
    check: QatCheck = field(repr=False)

    def title(self) -> str:
        return f"{self.model.path.name} for amct_onnx convert: {len(self.int8)} nodes become INT8"

    def facts(self) -> dict[str, object]:
        return {"made from": self.source.path.name,
                "read unrounded values": f"{len(self.unrounded)} nodes, such as pooling, that AMCT does not round",
                "back in float": len(self.floated),
                "answers": "as in the source but for those; compare the two with kit.verify"}

    def tables(self) -> tuple[Table, ...]:
        rows = tuple(self.floated.items())
        return (Table("Back in float", ("node", "why"), rows),) if rows else ()


def qat_check(model: Any) -> QatCheck:
    """Hold a QDQ model against the conditions of ``amct_onnx convert``.

    Args:
        model: a path, a Model or a result that carries one.

    Raises:
        UnsupportedModel: it holds no QuantizeLinear.
    """
    model = model_of(model)
    graph = QdqGraph(model)
    problems = tuple(dict.fromkeys(graph.problems()))
    blocked = {one.node for one in problems}
    int8 = {node.name: node.op_type for node in graph.rounded_nodes() if node.name not in blocked}
    return QatCheck(model.path.name, problems, int8, _notes(model, graph))


def qat_model(quantized: Any, path: Path | str) -> QatModel:
    """Write a QDQ model in the form that AMCT converts.

    Weights stored as integers become floats with a pair behind them, exactly equal; integer biases become floats.
    Where a pair feeds something that AMCT does not round, that reads the tensor before the rounding instead; a node
    whose weights AMCT would round in another way (one scale a channel in Gemm and MatMul, an offset) goes back to
    float.

    Args:
        quantized: result of ``kit.quantize``, or another QDQ model.
        path: of the new file.

    Raises:
        UnsupportedModel: not QDQ, or nothing would be left in INT8.
        BadInput: the path cannot be written.
    """
    import onnx

    source = model_of(quantized)
    graph = QdqGraph(source)
    floated, unrounded = Rewriting(graph).run()
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save_model(graph.proto, str(path))
    except OSError as error:
        raise explain_os_error(error, path) from error
    except ValueError as error:  # protobuf's limit
        raise UnsupportedModel(f"{source.path.name} with float weights is larger than a file of 2 GB.",
                               remedy="calibrate the float model with AMCT instead: amct_config, amct_steps") from error
    model = source.derived(path, "qat_model", "QDQ in the form that amct_onnx convert takes")
    found = qat_check(model) if any(node.op_type == Q for node in graph.proto.graph.node) else None
    if found is None or not found.int8:
        path.unlink()
        raise UnsupportedModel(f"Nothing of {source.path.name} is left in INT8 in the form that AMCT takes.",
                               remedy="quantize with per_channel=False for Gemm and MatMul, or calibrate the float "
                               "model with AMCT", detail="\n".join(f"{node}: {why}" for node, why in floated.items()))
    return QatModel(model, source, found.int8, floated, unrounded, found)


def _notes(model: Model, graph: QdqGraph) -> tuple[str, ...]:
    about = facts("amct")["opset"]
    notes = []
    if model.opset > about["best"]:
        notes.append(f"Opset {model.opset}: {about['why']}; {about['best']} is safer for older CANN.")
    data = {str(found[1].dtype) for node in graph.proto.graph.node if node.op_type == Q
            and node.input[0] not in graph.constants and (found := graph.factors(node)) is not None}
    if "uint8" in data:
        notes.append("Data is rounded to uint8: the documents do not say that AMCT takes it; "
                     "QuantizeOptions(activation_type='int8') is the safer form.")
    return tuple(notes)
