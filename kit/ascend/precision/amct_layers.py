"""Which layers of a model AMCT makes INT8, and why it leaves the others in float: the carried rules, node by node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kit.errors import BadInput, unknown
from kit.int8.preparing import plain
from kit.model import Model
from kit.targets.ascend import facts
from kit.weights_file import Weights, read_light, save_streamed

FLOAT = 1  # ONNX's number of float32


@dataclass(frozen=True)
class AmctLayer:
    """A node as AMCT sees it.

    Attributes:
        node: its name in the file.
        operator: its type.
        why_float: why AMCT does not make it INT8; "" when it does.
    """

    node: str
    operator: str
    why_float: str


class Layers:
    """The nodes of a model with what AMCT's rules say of each.

    Args:
        model: the float model.
        family: of the chip, for products of two computed inputs.
    """

    def __init__(self, model: Model, family: str) -> None:
        self.name, self.family = model.path.name, family
        proto = read_light(model.path)
        self.nodes = list(proto.graph.node)
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
        self._types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        self._fixed = set(self._shapes)
        for node in self.nodes:  # in topological order: what is made of constants is one too
            if node.op_type == "Constant" or (node.input and all(not name or name in self._fixed for name in
                                                                 node.input)):
                self._fixed.update(node.output)
                for attribute in node.attribute:
                    if attribute.name == "value" and node.op_type == "Constant":
                        self._shapes[node.output[0]] = tuple(attribute.t.dims)
        self.layers = tuple(AmctLayer(node.name, node.op_type, self._why(node)) for node in self.nodes
                            if node.op_type != "Constant" and not set(node.output) <= self._fixed)

    @property
    def by_name(self) -> dict[str, AmctLayer]:
        """Those that have a name."""
        return {layer.node: layer for layer in self.layers if layer.node}

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names that are not in the file: AMCT and atc find layers by name.

        Raises:
            BadInput: names the first.
        """
        known = {node.name for node in self.nodes if node.name}
        unnamed = sum(not node.name for node in self.nodes)
        for name in names:
            if name in known:
                continue
            if unnamed:
                raise BadInput(f"There is no node named {name!r} in {self.name}, and {unnamed} of its nodes have no "
                               "name at all: names in the file are all that AMCT and atc go by.",
                               remedy="write a copy with names, and use it from here on: "
                               "kit.ascend.name_nodes(model, 'named.onnx')")
            raise unknown("node", name, known, self.name)

    def _why(self, node: Any) -> str:
        rules = facts("amct")["layers"].get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rules is None:
            return "AMCT has no INT8 form of it"
        if rules["how"] != "weights and data":
            return f"AMCT rounds {node.op_type} {rules['how']}"
        numbers = {a.name: (list(a.ints) if a.ints else a.i) for a in node.attribute}
        if node.op_type == "AveragePool":
            return ""
        if node.op_type == "MatMul":
            return self._why_product(node)
        weights = node.input[1]
        if weights not in self._fixed:
            return "its weights are computed from the input"
        if self._types.get(weights, FLOAT) != FLOAT:
            return "its weights are not float32"
        if node.op_type == "Gemm":
            return "transA is set" if numbers.get("transA") else ""
        axes, dilations = len(self._shapes.get(weights, (0,) * 4)), numbers.get("dilations") or [1]
        if node.op_type == "ConvTranspose":
            if axes != 4:
                return f"its weights have {axes} axes; AMCT takes 4"
            return "its dilation is not 1" if set(dilations) != {1} else ""
        if axes not in (4, 5):
            return f"its weights have {axes} axes; AMCT takes 4 and 5"
        return "its first dilation is not 1" if axes == 5 and dilations[0] != 1 else ""

    def _why_product(self, node: Any) -> str:
        first, second = node.input[:2]
        if second in self._fixed:
            axes = len(self._shapes.get(second, (0, 0)))
            return "" if axes == 2 else f"its constant has {axes} axes; AMCT takes 2"
        if first in self._fixed:
            return "its constant is the first input; AMCT takes the second"
        if self.family not in facts("amct")["computed_matmul_families"]:
            return "both inputs are computed: AMCT's INT8 gains nothing on this chip, and loses accuracy"
        return ""


def name_nodes(model: Any, path: Any) -> Model:
    """Write a copy in which every node has a name of its own; names that are there and unique stay.

    They are the names that ``kit.sensitivity`` and ``kit.quantize`` use for nodes without one.

    Args:
        model: a path, a Model or a result that carries one.
        path: where the copy goes.
    """
    from pathlib import Path

    from kit.calibration import model_of

    model, path = model_of(model), Path(path)
    if path.exists() and path.samefile(model.path):
        raise BadInput(f"{path} is the model itself.", remedy="give another path: the copy is read from it")
    proto = plain(read_light(model.path))
    save_streamed(proto, path, Weights(model.path, proto).array)
    return model.derived(path, "name_nodes", "every node has a name")
