"""The order of axes at a model's border: NCHW or NHWC, by edits of the graph that cancel where they can.

A model from TensorFlow takes NHWC and computes in NCHW once it is ONNX, so that it turns its input over in every run.
Taking NCHW at the border instead saves that, when whoever feeds it can make NCHW as cheaply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.model import TensorSpec

#: From NHWC to NCHW, and back.
TO = {"NCHW": (0, 3, 1, 2), "NHWC": (0, 2, 3, 1)}
#: How the pictures of a source lie; of an ONNX file only its shapes tell.
OF_KIND = {"savedmodel": "NHWC", "keras": "NHWC", "graphdef": "NHWC", "tflite": "NHWC", "paddle": "NCHW",
           "dygraph": "NCHW", "torch": "NCHW"}

Perms = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Relayout:
    """Which inputs and outputs have another order of axes in the model than in its source.

    Attributes:
        inputs: name -> for each axis of the model's, which of the source's it is.
        outputs: likewise.
    """

    inputs: Perms = field(default_factory=dict)
    outputs: Perms = field(default_factory=dict)

    def feed(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The source's feed as the model takes it."""
        return _turned(feed, self.inputs)

    def answer(self, answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's answer as the source gives it."""
        return _turned(answer, {name: inverse(perm) for name, perm in self.outputs.items()})

    def as_model(self, answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The source's answer as the model gives it."""
        return _turned(answer, self.outputs)

    def specs(self, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """The source's inputs as the model takes them."""
        return tuple(replace(spec, shape=tuple(spec.shape[at] for at in self.inputs[spec.name]))
                     if spec.name in self.inputs else spec for spec in specs)


def turns(specs: Sequence[TensorSpec], wanted: str, kind: str, what: str) -> dict[str, tuple[int, ...]]:
    """What has to be turned so that everything with four axes lies as ``wanted``.

    Args:
        specs: the inputs, or the outputs.
        wanted: ``as is``, ``NCHW`` or ``NHWC``.
        kind: of the source.
        what: ``input`` or ``output``, for words.

    Raises:
        BadInput: nothing has four axes, or nothing says how it lies now.
    """
    if wanted == "as is":
        return {}
    pictures = [spec for spec in specs if len(spec.shape) == 4]
    if not pictures:
        raise BadInput(f"{what}_layout={wanted!r} is about pictures with four axes; the model has none among its "
                       f"{what}s ({'; '.join(map(str, specs))}).", remedy=f"leave {what}_layout='as is'")
    found = {}
    for spec in pictures:
        now = OF_KIND.get(kind) or _lies(spec)
        if not now:
            raise BadInput(f"Nothing says whether {what} {spec} is NCHW or NHWC.", remedy=f"leave {what}_layout="
                           "'as is', or export from the framework's own model, which has a fixed order")
        if now != wanted:
            found[spec.name] = TO[wanted]
    return found


def turn(proto: Any, inputs: Perms, outputs: Perms) -> None:
    """Change the order of axes at the border, in place, and let Transposes that meet their opposite vanish.

    Args:
        proto: an onnx.ModelProto.
        inputs: name -> for each axis of the new input, which of the old one it is.
        outputs: likewise.
    """
    for value in proto.graph.input:
        if value.name in inputs:
            _turn_input(proto.graph, value, inputs[value.name])
    for value in proto.graph.output:
        if value.name in outputs:
            _turn_output(proto.graph, value, outputs[value.name])


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes one."""
    return tuple(int(at) for at in np.argsort(perm))


def _lies(spec: TensorSpec) -> str:
    """The order that the channels (1, 3 or 4 of them) give away."""
    first, last = spec.shape[1] in (1, 3, 4), spec.shape[3] in (1, 3, 4)
    return "NCHW" if first and not last else "NHWC" if last and not first else ""


def _turned(arrays: Mapping[str, np.ndarray], perms: Perms) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array.transpose(perms[name])) if name in perms else array
            for name, array in arrays.items()}


def _turn_input(graph: Any, value: Any, perm: tuple[int, ...]) -> None:
    import onnx

    _reshape(value, perm)
    inside = _free(graph, f"{value.name}_as_before")
    for node in _all_nodes(graph):
        _rename(node, value.name, inside)
    readers = [node for node in graph.node if inside in node.input]
    kept = [node for node in graph.output if node.name == value.name]  # an input that is an output as well
    for node in list(readers):
        if node.op_type == "Transpose" and (both := _perm(node)):
            _set(graph, node, value.name, tuple(inverse(perm)[at] for at in both))
            readers.remove(node)
    nested = any(inside in node.input for node in _all_nodes(graph) if node not in list(graph.node))
    if readers or nested or kept:
        node = onnx.helper.make_node("Transpose", [value.name], [inside], name=_free(graph, f"{value.name}/as_before"),
                                     perm=inverse(perm))
        graph.node.insert(0, node)
        _sink(graph, graph.node[0])


def sink_inputs(proto: Any) -> None:
    """Move Transposes that read an input behind the arithmetic that follows, where others undo them there; in place."""
    names = {value.name for value in proto.graph.input}
    for node in [node for node in proto.graph.node if node.op_type == "Transpose" and node.input[0] in names]:
        _sink(proto.graph, node)


def _sink(graph: Any, node: Any) -> None:
    """Take a Transpose away when nothing but element-wise work lies between it and other Transposes."""
    from onnx import numpy_helper

    perm, weights = _perm(node), {tensor.name: tensor for tensor in graph.initializer}
    for other in graph.node:  # a single number that was dequantized is one still
        single = all(name in weights and _single(weights[name]) for name in other.input if name)
        if other.op_type in ALIKE and single and len(other.output) == 1:
            weights[other.output[0]] = weights[other.input[0]]
    outputs, top = {value.name for value in graph.output}, list(graph.node)
    if not perm or any(node.output[0] in other.input for other in _all_nodes(graph) if other not in top):
        return
    region, leaves, spread = [], [], [node.output[0]]
    fixed: dict[str, Any] = {}  # per-channel weights, as the new order takes them
    while spread:
        name = spread.pop()
        if name in outputs:
            return
        for other in (other for other in top if name in other.input):
            if other.op_type == "Transpose" and _perm(other):
                leaves.append(other)
            elif other in region:
                continue
            elif (turned := _alike(other, perm, weights, {name, *(o for n in region for o in n.output)})) is not None:
                region.append(other)
                fixed |= turned
                spread += other.output
            else:
                return
    for other in region:
        other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
        for name, array in fixed.items():
            if name in other.input:
                tensor = graph.initializer.add()
                tensor.CopyFrom(numpy_helper.from_array(array, _free(graph, f"{name}_turned")))
                _rename(other, name, tensor.name)
    for other in leaves:
        source = node.input[0] if other.input[0] == node.output[0] else other.input[0]
        _set(graph, other, source, tuple(perm[at] for at in _perm(other)))
    graph.node.remove(node)


def _alike(node: Any, perm: Sequence[int], weights: Mapping[str, Any], known: set[str]) -> dict[str, Any] | None:
    """The weights an element-wise node needs to work in another order of axes; None where it cannot."""
    from onnx import numpy_helper

    if node.op_type not in ALIKE:
        return None
    turned = {}
    for name in node.input:
        if not name or name in known:
            continue
        if name not in weights:
            return None
        if _single(weights[name]):
            continue
        shape = list(weights[name].dims)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or len(shape) > len(perm):
            return None  # a scale for each channel counts its axis by an attribute
        array = numpy_helper.to_array(weights[name])
        wide = array.reshape([1] * (len(perm) - len(shape)) + shape)
        turned[name] = wide.transpose(inverse(perm))
    return turned


def _single(tensor: Any) -> bool:
    return tensor is not None and int(np.prod(list(tensor.dims))) == 1


#: What leaves the order of axes as it is.
ALIKE = frozenset({"Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Mul", "Add", "Sub", "Div", "Relu", "Clip",
                   "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Neg", "Sqrt", "Exp", "Pow", "Max",
                   "Min"})


def _turn_output(graph: Any, value: Any, perm: tuple[int, ...]) -> None:
    import onnx

    _reshape(value, perm)
    before = _free(graph, f"{value.name}_as_before")
    for node in _all_nodes(graph):
        _rename(node, value.name, before)
        node.output[:] = [before if name == value.name else name for name in node.output]
    node = onnx.helper.make_node("Transpose", [before], [value.name], name=_free(graph, f"{value.name}/turned"),
                                 perm=perm)
    producer = next((other for other in graph.node if before in other.output), None)
    alone = sum(before in other.input for other in _all_nodes(graph)) == 0
    if producer is None or producer.op_type != "Transpose" or not alone or not _perm(producer):
        graph.node.append(node)
        return
    producer.output[0] = value.name
    _set(graph, producer, producer.input[0], tuple(_perm(producer)[at] for at in perm))


def _set(graph: Any, node: Any, source: str, perm: tuple[int, ...]) -> None:
    """Make a Transpose read ``source`` with ``perm``; one that changes nothing goes away."""
    import onnx

    node.input[0] = source
    if perm != tuple(range(len(perm))):
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("perm", perm))
        return
    name, outputs = node.output[0], {value.name for value in graph.output}
    producer = next((other for other in graph.node if source in other.output), None)
    if name not in outputs:
        for other in _all_nodes(graph):
            _rename(other, name, source)
    elif producer is not None and source not in outputs:
        producer.output[:] = [name if old == source else old for old in producer.output]
        for other in _all_nodes(graph):
            _rename(other, source, name)
    else:  # from an input straight to an output
        node.op_type = "Identity"
        del node.attribute[:]
        return
    graph.node.remove(node)


def _perm(node: Any) -> tuple[int, ...]:
    return tuple(next((attribute.ints for attribute in node.attribute if attribute.name == "perm"), ()))


def _reshape(value: Any, perm: Sequence[int]) -> None:
    dims = value.type.tensor_type.shape.dim
    old = [type(dim).FromString(dim.SerializeToString()) for dim in dims]
    for at, source in enumerate(perm):
        dims[at].CopyFrom(old[source])


def _rename(node: Any, old: str, new: str) -> None:
    if old in node.input:
        node.input[:] = [new if name == old else name for name in node.input]


def _all_nodes(graph: Any) -> Iterator[Any]:
    from kit.exporting.onnx_file import graphs

    for part in graphs(graph):
        yield from part.node


def _free(graph: Any, name: str) -> str:
    taken = {name for node in _all_nodes(graph) for name in (node.name, *node.input, *node.output)}
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
