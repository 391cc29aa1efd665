"""Which nodes of a model can become INT8, which tensors must be measured for that, and why a node stays in float.

``Network`` answers questions about a graph that ``kit.int8.preparing`` has prepared. Calibration and quantization both
start here, so they agree on names.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import unknown
from kit.int8.layouts import (
    BETWEEN,
    DEFAULT_TYPES,
    KNOWN_TYPES,
    LAYOUTS,
    MOVERS,
    NO_KERNEL,
    WEIGHTED,
    WHY_FLOAT,
    Layout,
)
from kit.int8.preparing import prepare
from kit.weights_file import Weights, read_light

__all__ = ["BETWEEN", "DEFAULT_TYPES", "KNOWN_TYPES", "LAYOUTS", "MOVERS", "WEIGHTED", "Layout", "Network",
           "gemm_factors"]


@dataclass(frozen=True)
class Network:
    """A prepared graph with its wiring worked out once.

    Attributes:
        proto: the ``onnx.ModelProto``.
        name: of the model, for messages.
        path: of the file, where ``proto`` refers to weights in it or beside it.
    """

    proto: Any = field(repr=False)
    name: str = "the model"
    path: Path | None = None

    @classmethod
    def of(cls, path: Path, *, quantized: bool = False) -> Network:
        """The network of a file, with its large weights left on the disk; ``quantized`` as `prepare` has it.

        Raises:
            BadInput: the file is missing, truncated or not ONNX.
            UnsupportedModel: the opset is older than 13, or the model is quantized already.
        """
        return cls(prepare(read_light(path), path.name, quantized=quantized), path.name, path)

    def values(self, name: str) -> np.ndarray:
        """The values of a constant, read when asked for."""
        return self._weights.array(name)

    def extent(self, name: str, axis: int | None) -> np.ndarray:
        """The smallest and the largest value of a constant, for every channel where ``axis`` counts channels.

        Returns:
            An array that a quantizer cannot tell from the constant when it looks for its range: as many axes, the
            same number of channels, two values a channel.
        """
        key = name, axis
        if key not in self._extents:
            values = self.values(name)
            others = tuple(at for at in range(values.ndim) if at != axis)
            spread = [np.asarray(take(axis=others, keepdims=True)) for take in (values.min, values.max)]
            self._extents[key] = np.concatenate(spread, others[-1]).astype(values.dtype)
        return self._extents[key]

    @functools.cached_property
    def _weights(self) -> Weights:
        return Weights(self.path or Path(self.name), self.proto)

    @functools.cached_property
    def _extents(self) -> dict[tuple[str, int | None], np.ndarray]:
        return {}

    @property
    def nodes(self) -> Sequence[Any]:
        """The nodes in topological order."""
        return self.proto.graph.node

    @functools.cached_property
    def by_name(self) -> dict[str, Any]:
        """Node name -> node."""
        return {node.name: node for node in self.nodes}

    @functools.cached_property
    def producers(self) -> dict[str, Any]:
        """Tensor -> the node that makes it."""
        return {output: node for node in self.nodes for output in node.output if output}

    @functools.cached_property
    def consumers(self) -> dict[str, list[Any]]:
        """Tensor -> the nodes that read it."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        """Initializers by name."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(value.name for value in self.proto.graph.output)

    @functools.cached_property
    def floats(self) -> frozenset[str]:
        """Tensors known to hold float32, constants left out."""
        graph = self.proto.graph
        values = [*graph.input, *graph.value_info, *graph.output]
        return frozenset(v.name for v in values if v.type.tensor_type.elem_type == 1 and v.name not in self.constants)

    @functools.cached_property
    def shape_arithmetic(self) -> frozenset[str]:
        """Nodes that compute with shapes, not with data: rounding them would change the sizes of tensors."""
        derived: set[str] = set()
        found = set()
        for node in self.nodes:
            inputs = [name for name in node.input if name and name not in self.constants]
            if node.op_type in ("Shape", "Size") or (inputs and all(name in derived for name in inputs)):
                derived.update(node.output)
                found.add(node.name)
        return frozenset(found)

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse a node name that is not in the graph, naming the closest.

        Raises:
            BadInput: names the first that is unknown.
        """
        for name in names:
            if name not in self.by_name:
                raise unknown("node", name, self.by_name, self.name)

    def check_types(self, types: Iterable[str], known: Iterable[str] | None = None) -> None:
        """Refuse an operator type that is not in ``known`` (the graph's own types when None).

        Raises:
            BadInput: names the first that is unknown.
        """
        known = {node.op_type for node in self.nodes} if known is None else set(known)
        for name in types:
            if name not in known:
                raise unknown("operator type", name, known, self.name)

    def obstacle(self, node: Any) -> str:
        """Why a node cannot become INT8 whatever is asked for; "" when it can."""
        if node.op_type not in KNOWN_TYPES or node.domain not in ("", "ai.onnx"):
            return NO_KERNEL
        if node.name in self.shape_arithmetic:
            return "it computes shapes, not data"
        if not any(name in self.floats for name in (node.input[0], *node.output)):
            return "its values are not float32"
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and node.input[1] not in self.constants:
            return "its weights are not constant"
        if node.op_type == "Gemm" and len(node.input) > 2 and gemm_factors(node) != (1.0, 1.0):
            # onnxruntime 1.31: the quantizer drops beta, and the kernel multiplies the bias by alpha.
            return "its alpha or beta is not 1, which ONNX Runtime's quantizer and kernel get wrong beside a bias"
        return ""

    def reluctance(self, node: Any, layout: str = "onnxruntime", *, bf16: bool = False) -> str:
        """Why a node that could become INT8 is left in float unless it is asked for; "" when it is made INT8.

        Args:
            layout: of ``LAYOUTS``.
            bf16: the processor computes in BF16.
        """
        about = LAYOUTS[layout]
        if node.op_type not in about.types:
            return WHY_FLOAT.get(node.op_type, about.why_not) if about.why_not == NO_KERNEL else about.why_not
        if bf16 and about.depthwise and node.op_type == "Conv" and self._is_depthwise(node):
            return about.depthwise
        if node.op_type == "MatMul" and not any(name in self.constants for name in node.input):
            return "it multiplies two activations, both of which would be rounded (attention)"
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] not in self.constants:
            return "its bias is not constant"
        return ""

    def stranded(self, chosen: Collection[str]) -> frozenset[str]:
        """Those of the chosen ``BETWEEN`` nodes that have a float neighbour.

        Making them INT8 would add a rounding and two conversions, and save nothing: on nets with HardSwish and
        squeeze-and-excite that costs both accuracy and time.
        """
        alive = {name for name in chosen if self.by_name[name].op_type in BETWEEN}
        core = {name for name in chosen if self.by_name[name].op_type in WEIGHTED}

        def comes_as_bytes(tensor: str) -> bool:
            node = self.producers.get(tensor)
            if node is None:
                return tensor in self.constants
            if node.name in chosen and (node.op_type in MOVERS or node.op_type in ("Relu", "Clip")):
                return comes_as_bytes(node.input[0])
            return node.name in alive or node.name in core

        def goes_as_bytes(tensor: str) -> bool:
            if tensor in self.outputs:
                return False
            return all(node.name in alive or node.name in core or (
                node.name in chosen and (node.op_type in MOVERS or node.op_type in ("Relu", "Clip"))
                and goes_as_bytes(node.output[0])) for node in self.consumers.get(tensor, ()))

        lost: set[str] = set()
        while True:
            now = {name for name in alive if not (
                all(comes_as_bytes(t) for t in self.by_name[name].input if t)
                and all(goes_as_bytes(t) for t in self.by_name[name].output))}
            if not now:
                return frozenset(lost)
            alive -= now
            lost |= now

    def measured(self) -> tuple[str, ...]:
        """Tensors whose values calibration must see, in topological order; see also ``same_range``."""
        wanted = set()
        for node in self.nodes:
            if not self.obstacle(node):
                wanted.update(name for name in (*node.input, *node.output) if name in self.floats)
        order = [value.name for value in self.proto.graph.input]
        order += [output for node in self.nodes for output in node.output]
        return tuple(name for name in order if name in wanted and name not in self.same_range)

    @functools.cached_property
    def same_range(self) -> dict[str, str]:
        """Tensors that need no measuring, each with the one whose range it takes.

        What ReLU or Clip cuts off need not be resolved before them; moving values does not change them.
        """
        found: dict[str, str] = {}
        for node in self.nodes:
            source, target = (node.input[0] if node.input else ""), node.output[0]
            if source not in self.floats or target not in self.floats:
                continue
            if node.op_type in ("Relu", "Clip") and len(self.consumers[source]) == 1 and source in self.producers \
                    and source not in self.outputs:
                found[source] = target
            elif node.op_type in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"):
                found[target] = source
        return {name: _end(found, name) for name in found}

    def weights(self, node: Any) -> str:
        """Name of the constant weights of a node, "" when it has none."""
        if node.op_type == "MatMul":
            return next((name for name in reversed(node.input) if name in self.constants), "")
        return node.input[1] if node.op_type in WEIGHTED and node.input[1] in self.constants else ""

    def channel_axis(self, node: Any) -> int | None:
        """Axis of a node's weights that counts its output channels; None when one scale must do for all.

        Conv [out, in, ...]: 0. ConvTranspose [in, out, ...]: 1, and with groups none, as one slice then serves several
        output channels. Gemm: 0 when transposed, else 1. MatMul [..., in, out]: the last, for matrices only.
        ``one_scale`` says why there is none.
        """
        weights = self.constants.get(self.weights(node))
        if weights is None:
            return None
        rank = len(weights.dims)
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type == "Conv":
            return 0
        if node.op_type == "ConvTranspose":
            return 1 if attributes.get("group", 1) == 1 else None
        if node.op_type == "Gemm":
            return 0 if attributes.get("transB", 0) else 1
        return 1 if rank == 2 and node.input[1] == weights.name else None

    def one_scale(self, node: Any) -> str:
        """Why the weights of a node have one scale for all output channels; "" when they have one for each."""
        weights = self.constants.get(self.weights(node))
        if weights is None:
            return ""
        if self.channel_axis(node) is not None:
            shared = self.weight_axes([n for n in self.consumers[weights.name] if self.weights(n) == weights.name])
            return "" if shared[weights.name] is not None else \
                "one scale for all its weights: another node reads them along another axis"
        if node.op_type == "ConvTranspose":
            return "one scale for all its weights: with groups, a slice of them serves several output channels"
        if node.input[0] == weights.name:
            return "one scale for all its weights: they are on the left, where the kernels take one scale"
        return "one scale for all its weights: they are a stack of matrices, for which the kernels take one scale"

    def weight_axes(self, nodes: Iterable[Any]) -> dict[str, int | None]:
        """Weights of some nodes -> the axis of their output channels; None too where nodes that share them disagree."""
        found: dict[str, int | None] = {}
        for node in nodes:
            name = self.weights(node)
            if name:
                axis = self.channel_axis(node)
                found[name] = axis if found.get(name, axis) == axis else None
        return found

    def depthwise(self) -> int:
        """How many convolutions treat every channel alone."""
        return sum(self._is_depthwise(node) for node in self.nodes if node.op_type == "Conv")

    @staticmethod
    def _is_depthwise(node: Any) -> bool:
        return any(a.name == "group" and a.i > 1 for a in node.attribute)

    def groups(self, nodes: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Put nodes that will be INT8 into groups: one with weights and those that follow it up to the next.

        Yields:
            Names of the nodes of a group, the one that names it first.
        """
        chosen, owner = set(nodes), {}
        groups: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.name not in chosen:
                continue
            before = [self.producers[name].name for name in node.input if name in self.producers]
            lead = node.name if self.weights(node) else next((owner[b] for b in before if b in owner), node.name)
            owner[node.name] = lead
            groups.setdefault(lead, []).append(node.name)
        yield from map(tuple, groups.values())


def gemm_factors(node: Any) -> tuple[float, float]:
    """Alpha and beta of a Gemm."""
    given = {a.name: a.f for a in node.attribute}
    return given.get("alpha", 1.0), given.get("beta", 1.0)


def _end(links: dict[str, str], name: str) -> str:
    while name in links:
        name = links[name]
    return name
