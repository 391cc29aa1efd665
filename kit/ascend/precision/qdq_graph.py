"""A QDQ graph with its wiring, and what stands between it and ``amct_onnx convert``, node by node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.errors import UnsupportedModel
from kit.int8.preparing import plain
from kit.model import Model, read
from kit.targets.ascend import facts

Q, DQ = "QuantizeLinear", "DequantizeLinear"
_SIXTEEN_BITS = (10, 16)  # ONNX's numbers of float16 and bfloat16


@dataclass(frozen=True)
class QatProblem:
    """A node that AMCT cannot convert, and why."""

    node: str
    operator: str
    what: str


class QdqGraph:
    """The nodes of a QDQ model and who makes and reads each tensor.

    Raises:
        UnsupportedModel: it holds no QuantizeLinear.
    """

    def __init__(self, model: Model) -> None:
        self.proto = plain(read(model.path))
        self.name = model.path.name
        if not any(node.op_type == Q for node in self.proto.graph.node):
            raise UnsupportedModel(f"{self.name} holds no QuantizeLinear: it is no QDQ model.", remedy="make one with "
                                   "kit.quantize, or take the float model: amct_config, amct_steps")
        self.wire()

    def wire(self) -> None:
        """Work out makers and readers again, after the graph was edited."""
        graph = self.proto.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}

    def array(self, name: str) -> np.ndarray:
        """The values of a constant."""
        import onnx

        return onnx.numpy_helper.to_array(self.constants[name])

    def factors(self, node: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and zero point of a Q or DQ node; None where they are computed."""
        if node.input[1] not in self.constants or (len(node.input) > 2 and node.input[2] not in self.constants):
            return None
        zero = self.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)
        return np.asarray(self.array(node.input[1])), np.asarray(zero)

    def pair(self, name: str) -> Any:
        """The QuantizeLinear of the pair that makes a tensor; None when none does."""
        after = self.makers.get(name)
        before = self.makers.get(after.input[0]) if after is not None and after.op_type == DQ else None
        return before if before is not None and before.op_type == Q else None

    def rounded_data(self, name: str) -> bool:
        """Whether a tensor is data behind a pair with one scale."""
        before = self.pair(name)
        found = self.factors(before) if before is not None and before.input[0] not in self.constants else None
        return found is not None and found[0].size == 1

    def weighted(self, node: Any) -> str:
        """``channel`` or ``tensor``: how AMCT may round this operator's weights; "" for others."""
        return facts("amct")["qat"]["weighted"].get(node.op_type, "") if node.domain in ("", "ai.onnx") else ""

    def rounded_nodes(self) -> Iterator[Any]:
        """The nodes that read a pair."""
        for node in self.proto.graph.node:
            if node.op_type not in (Q, DQ) and any(self.pair(name) is not None for name in node.input):
                yield node

    def weight_trouble(self, node: Any) -> str:
        """Why the weights' pair of a node is none that AMCT takes; "" when it is."""
        before = self.pair(node.input[1])
        if before is None or before.input[0] not in self.constants:
            return "its weights have no pair of QuantizeLinear and DequantizeLinear"
        found = self.factors(before)
        if found is None:
            return "the scale of its weights is computed"
        return self.scale_trouble(node, *found, self.constants[before.input[0]].dims)

    def scale_trouble(self, node: Any, scale: np.ndarray, zero: np.ndarray, shape: Any) -> str:
        """Why AMCT does not round weights of this shape with these factors; "" when it does."""
        if scale.size > 1 and self.weighted(node) == "tensor":
            return f"its weights have {scale.size} scales; AMCT takes one for {node.op_type}"
        if np.any(zero):
            return "its weights have an offset; AMCT's have none"
        if node.op_type == "MatMul" and len(shape) != 2:
            return f"its weights have {len(shape)} axes; AMCT takes 2"
        return ""

    def problems(self) -> Iterator[QatProblem]:
        """What AMCT would not convert."""
        ends = [node for node in self.proto.graph.node if node.op_type == Q and node.output[0] in self.outputs]
        for node in ends[1:]:
            yield QatProblem(node.name, Q, "a second output is rounded; AMCT takes one")
        for node in self.proto.graph.node:
            if node.op_type == Q:
                yield from self._of_quantize(node)
            elif node.op_type == DQ:
                yield from self._of_dequantize(node)
            elif any(self.pair(name) is not None for name in node.input):
                yield from self._of_operator(node)
        for tensor in self.proto.graph.initializer:
            if tensor.data_type in _SIXTEEN_BITS:
                reader = self.readers.get(tensor.name, [None])[0]
                yield QatProblem(getattr(reader, "name", tensor.name), getattr(reader, "op_type", "constant"),
                                 "its values are 16 bits wide; AMCT takes a float32 graph")

    def _of_quantize(self, node: Any) -> Iterator[QatProblem]:
        mine = self.factors(node)
        if mine is None:
            yield QatProblem(node.name, Q, "its scale is computed")
        elif mine[0].size > 1 and node.input[0] not in self.constants:
            yield QatProblem(node.name, Q, f"data with {mine[0].size} scales; AMCT takes one a tensor")
        after = self.readers.get(node.output[0], [])
        if not after and node.output[0] not in self.outputs:
            yield QatProblem(node.name, Q, "nothing reads it")
        for reader in after:
            other = self.factors(reader) if reader.op_type == DQ else None
            if other is None:
                yield QatProblem(node.name, Q, f"it is read by {reader.op_type} {reader.name!r}, not by a "
                                 "DequantizeLinear")
            elif mine is not None and not (np.array_equal(mine[0], other[0]) and np.array_equal(mine[1], other[1])):
                yield QatProblem(node.name, Q, f"its scale or zero point differs from that of {reader.name!r}")

    def _of_dequantize(self, node: Any) -> Iterator[QatProblem]:
        before = self.makers.get(node.input[0])
        if before is None or before.op_type != Q:
            stored = node.input[0] in self.constants
            yield QatProblem(node.name, DQ, "it has no QuantizeLinear before it" + (
                ": its values are stored as integers" if stored else ""))
        elif node.output[0] in self.outputs:
            yield QatProblem(node.name, DQ, "it makes an output of the model; AMCT takes a QuantizeLinear there")

    def _of_operator(self, node: Any) -> Iterator[QatProblem]:
        if node.op_type in facts("amct")["qat"]["only_data"]:
            return
        if not self.weighted(node):
            yield QatProblem(node.name, node.op_type, "AMCT converts pairs around "
                             f"{', '.join(facts('amct')['qat']['weighted'])} and Add only")
            return
        if not self.rounded_data(node.input[0]):
            yield QatProblem(node.name, node.op_type, "its weights are rounded, its data is not")
        if trouble := self.weight_trouble(node):
            yield QatProblem(node.name, node.op_type, trouble)
        if any(self.pair(name) is not None for name in node.input[2:]):
            yield QatProblem(node.name, node.op_type, "its bias is rounded by a pair; AMCT rounds it itself")
