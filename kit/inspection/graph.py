"""A model's operators with the shapes and types they work on, read without holding its weights.

Dynamic axes are bound to an example size first, because cost and support depend on it. Nodes inside If, Loop and Scan
are walked too. ONNX's own shape inference comes first; where it loses the thread behind computed shapes, the walk
computes them (``kit.inspection.shape_arithmetic``) and goes on. What stays unknown is counted.
"""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.inspection.binding import PICTURES, bind_axes
from kit.inspection.shape_arithmetic import LIMIT, ShapeArithmetic, dtype_name, type_of
from kit.inspection.stand_ins import infer_shapes
from kit.model import read
from kit.need import need
from kit.source import EXPORTABLE, NAMES, TO_ONNX, Source, recognise
from kit.weights_file import read_light, tensor_array, tensor_bytes

SMALL = 1024  # elements: constants up to this many may steer shapes, and are looked at
LARGE = 300_000_000  # bytes: weights of more than this stay where they are, unseen
_BITS = {"float32": 32, "float64": 64, "float16": 16, "bfloat16": 16, "int64": 64, "uint64": 64, "int32": 32,
         "uint32": 32, "int16": 16, "uint16": 16, "int4": 4, "uint4": 4, "complex64": 64, "complex128": 128}


@dataclass(frozen=True)
class Tensor:
    """A value between nodes.

    Attributes:
        shape: None when its rank is unknown; "?" stands for an unknown axis.
        constant: stored in the file, or computed from nothing else.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    constant: bool = False

    @property
    def elements(self) -> int | None:
        """How many numbers; None where the shape is not wholly known."""
        if self.shape is None or any(isinstance(axis, str) for axis in self.shape):
            return None
        return prod(self.shape)  # type: ignore[arg-type]

    @property
    def bytes(self) -> int:
        """In memory; 0 where the shape is unknown."""
        return -(-(self.elements or 0) * _BITS.get(self.dtype, 8) // 8)

    def __str__(self) -> str:
        return "?" if self.shape is None else "x".join(map(str, self.shape)) or "scalar"


@dataclass(frozen=True)
class Node:
    """One operator in place.

    Attributes:
        name: its own, or one made from its type and first output where it has none.
        operator: its type.
        domain: empty for the standard one.
        version: of its domain, as the model imports it; 0 where it does not.
        inputs: None for an optional one that is left out.
        attributes: plain values; tensors and graphs stay onnx protos.
        scope: names of the nodes whose bodies it lies in.
    """

    name: str
    operator: str
    domain: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: dict[str, Any]
    proto: Any = field(repr=False, compare=False)
    scope: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Type with its domain, ``com.microsoft::Gelu``; the standard domain is left out."""
        return f"{self.domain}::{self.operator}" if self.domain else self.operator

    def input(self, at: int) -> Tensor | None:
        """The input at a place; None where it is left out."""
        return self.inputs[at] if at < len(self.inputs) else None


@dataclass
class Graph:
    """A whole model, walked.

    Attributes:
        path: of its file; weights that are kept outside, or that are large, are references to a place beside or in it.
        proto: the model, without those weights.
        nodes: every node, bodies of If, Loop and Scan included, in the file's order.
        opsets: version of each domain; "" is the standard one.
        bound: shape that each input was given.
        dynamic: (input, axis, name of the axis) of every axis the file leaves open.
        trouble: what shape inference complained about.
        weights: (name, onnx tensor) of every initializer and constant, bodies included; may repeat a name.
    """

    path: Path
    proto: Any
    nodes: list[Node]
    opsets: dict[str, int]
    ir_version: int
    bound: dict[str, tuple[int, ...]]
    dynamic: tuple[tuple[str, int, str], ...]
    trouble: str
    values: Mapping[str, Any] = field(repr=False)
    weights: list[tuple[str, Any]] = field(repr=False)
    numbers: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def opset(self) -> int:
        """Of the standard domain; 0 where it is not imported."""
        return self.opsets.get("", 0)

    @property
    def unknown(self) -> int:
        """How many nodes have an output whose shape is not known."""
        return sum(any(t.elements is None for t in node.outputs) for node in self.nodes)

    @functools.cached_property
    def producers(self) -> Mapping[str, Node]:
        """Name of a tensor -> the node that makes it."""
        return {tensor.name: node for node in self.nodes for tensor in node.outputs}

    @functools.cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """Name of a tensor -> the nodes that take it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in {tensor.name for tensor in node.inputs if tensor is not None}:
                found.setdefault(name, []).append(node)
        return found

    @functools.cached_property
    def results(self) -> frozenset[str]:
        """Names of what the model gives back."""
        return frozenset(value.name for value in self.proto.graph.output)

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Of all constants, wherever they are."""
        return sum(tensor_bytes(tensor) for _, tensor in self.weights)

    def array(self, tensor: Any) -> np.ndarray | None:
        """The numbers of one of ``weights``; None where it is a reference and all together are too large to go through.

        Raises:
            BadInput: the file that it refers to is too short.
        """
        if tensor.external_data and self.weight_bytes > LARGE:
            return None
        return tensor_array(tensor, self.path.parent)

    def value(self, tensor: Tensor | None) -> np.ndarray | None:
        """The numbers of a small constant; None for what depends on inputs, is large, or kept outside the file."""
        if tensor is None or not tensor.constant:
            return None
        stored = self.values.get(tensor.name)
        if stored is None:
            return self.numbers.get(tensor.name)
        from onnx import numpy_helper

        return numpy_helper.to_array(stored)


def onnx_source(thing: Any, stage: str) -> Source:
    """The ONNX file behind what a stage was given.

    Raises:
        BadInput: there is none, or it is a model of another format.
    """
    source = recognise(thing)
    if source.kind != "onnx":
        raise BadInput(f"{stage} works on ONNX; {source.path} is {NAMES[source.kind]}.",
                       remedy=TO_ONNX[source.kind].format(path=str(source.path)) + f", then kit.{stage} what comes out"
                       if source.kind in EXPORTABLE else TO_ONNX[source.kind])
    return source


def graph_of(path: Path, bind: tuple[str, ...] = ()) -> Graph:
    """Read and walk a model.

    Args:
        path: the .onnx file; its external data is left where it is.
        bind: sizes for dynamic axes, ``"x=1,3,640,640"`` for an input or ``"width=640"`` for a named axis. For the
            others a usual size is chosen: the first of ``PICTURES`` at which every shape can be inferred.

    Raises:
        BadInput: the file cannot be read, or ``bind`` names no input or axis, or contradicts a fixed one.
    """
    need("onnx", to="read an ONNX file", extra="base")
    large = path.is_file() and path.stat().st_size > LARGE
    return graph_from(path, read_light(path) if large else read(path, weights=False), bind)


def graph_from(path: Path, proto: Any, bind: tuple[str, ...] = ()) -> Graph:
    """As ``graph_of``, for a model that is read already; ``path`` says where its weights are."""
    opsets = {("" if e.domain == "ai.onnx" else e.domain): e.version for e in proto.opset_import}
    best: Graph | None = None
    seen = set()
    for picture in PICTURES:
        bound, dynamic = bind_axes(proto, bind, path.name, picture)
        if tuple(bound.values()) in seen:
            continue
        seen.add(tuple(bound.values()))
        graph = _walk(path, proto, opsets, bound, dynamic)
        if best is None or graph.unknown < best.unknown:
            best = graph
        if not best.unknown:
            break
    assert best is not None
    return best


def _walk(path: Path, proto: Any, opsets: dict[str, int], bound: dict[str, tuple[int, ...]], dynamic: tuple) -> Graph:
    import onnx

    stripped = _light(onnx, proto, bound)
    inferred, trouble = stripped, ""
    try:
        inferred = infer_shapes(stripped)
    except Exception as error:  # onnx raises several kinds, some of them bare RuntimeErrors
        trouble = str(error).strip()
    walker = _Walker(proto, inferred, opsets)
    graph = Graph(path, proto, list(walker.nodes()), opsets, proto.ir_version, bound, dynamic, trouble,
                  walker.constants, walker.weights, walker.arithmetic.numbers)
    if graph.unknown and not trouble:
        try:  # lenient inference gave every shape it could; the strict one says what went wrong, all of it
            infer_shapes(stripped, strict=True)
        except Exception as error:  # as above
            graph.trouble = str(error).strip()
    return graph


def light(graph: Graph) -> Any:
    """The model without large weights: they are inputs of their shape."""
    import onnx

    return _light(onnx, graph.proto, graph.bound)


def _light(onnx: Any, proto: Any, bound: Mapping[str, tuple[int, ...]]) -> Any:
    """The model for shape inference: large weights become inputs of their shape, and sizes are bound."""
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    light.graph.name = proto.graph.name or "graph"
    light.graph.node.extend(proto.graph.node)
    stored = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in bound:
            code = value.type.tensor_type.elem_type
            light.graph.input.append(onnx.helper.make_tensor_value_info(value.name, code, bound[value.name]))
        elif value.name not in stored:
            light.graph.input.append(value)
    for tensor in proto.graph.initializer:
        if prod(tensor.dims) <= SMALL and not tensor.external_data:
            light.graph.initializer.append(tensor)
        light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    # Stored shapes were inferred for other sizes. Only where inference is blind, behind foreign operators, they stay.
    foreign = {name for node in proto.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    light.graph.value_info.extend(v for v in proto.graph.value_info if v.name in foreign)
    for value in proto.graph.output:
        kept = light.graph.output.add(name=value.name)
        kept.type.CopyFrom(value.type)
        if value.name not in foreign:
            kept.type.tensor_type.ClearField("shape")
    return light


class _Walker:
    def __init__(self, proto: Any, inferred: Any, opsets: Mapping[str, int]) -> None:
        self.proto, self.inferred, self.opsets = proto, inferred, opsets
        self.constants: dict[str, Any] = {}
        self.weights: list[tuple[str, Any]] = []
        self.arithmetic = ShapeArithmetic(opsets)

    def nodes(self) -> Iterator[Node]:
        yield from self._graph(self.inferred.graph, ChainMap(), (), self.proto.graph.initializer)

    def _graph(self, graph: Any, outer: ChainMap, scope: tuple[str, ...], initializers: Any) -> Iterator[Node]:
        known = outer.new_child()
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type"):
                known[value.name] = Tensor(value.name, *type_of(value.type))
        for tensor in initializers:
            known[tensor.name] = Tensor(tensor.name, dtype_name(tensor.data_type), tuple(tensor.dims), True)
            self._keep(tensor.name, tensor)
        for proto in graph.node:
            yield from self._node(proto, known, scope)

    def _keep(self, name: str, tensor: Any) -> None:
        self.weights.append((name, tensor))
        if prod(tensor.dims) <= SMALL and not tensor.external_data:
            self.constants[name] = tensor
            if prod(tensor.dims) <= LIMIT:
                self.arithmetic.know(name, tensor)

    def _node(self, proto: Any, known: ChainMap, scope: tuple[str, ...]) -> Iterator[Node]:
        from onnx import AttributeProto, helper

        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        if proto.op_type == "Constant":
            self._constant(proto, attributes, known)
        name = proto.name or f"{proto.op_type} -> {proto.output[0] if proto.output else '?'}"
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs = tuple(known.get(n, Tensor(n, "?", None)) if n else None for n in proto.input)
        outputs = tuple(known.get(n, Tensor(n, "?", None)) for n in proto.output if n)
        if any(tensor.elements is None for tensor in outputs):
            for output, (kind, shape) in self.arithmetic.infer(proto, inputs).items():
                known[output] = Tensor(output, kind, shape)
            outputs = tuple(known.get(tensor.name, tensor) for tensor in outputs)
        self.arithmetic.evaluate(proto, inputs)
        if proto.input and all(t is None or t.constant for t in inputs) and not proto.op_type.startswith("Random"):
            outputs = tuple(replace(tensor, constant=True) for tensor in outputs)  # it can be folded away
            known.update({tensor.name: tensor for tensor in outputs})
        yield Node(name, proto.op_type, domain, self.opsets.get(domain, 0), inputs, outputs, attributes, proto, scope)
        for attribute in proto.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                yield from self._graph(body, known, (*scope, name), body.initializer)

    def _constant(self, proto: Any, attributes: Mapping[str, Any], known: ChainMap) -> None:
        from onnx import numpy_helper

        stored = attributes.get("value")
        if stored is None:
            plain = next((v for k, v in attributes.items() if k in ("value_int", "value_ints", "value_float",
                                                                    "value_floats")), None)
            if plain is None:
                return
            kind = np.float32 if any(k.startswith("value_float") for k in attributes) else np.int64
            stored = numpy_helper.from_array(np.asarray(plain, kind))
        name = proto.output[0]
        known[name] = Tensor(name, dtype_name(stored.data_type), tuple(stored.dims), True)
        self._keep(name, stored)
