"""What is done to a model after ONNX Runtime's quantizer: float nodes are left alone, and the file is made small."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kit.int8.qdq_read import QDQ
from kit.int8.quantizable import Network

_SUFFIXES = (  # what ONNX Runtime appends -> what we append
    ("_QuantizeLinear_Output", "_q"), ("_DequantizeLinear_Output", "_dq"), ("_QuantizeLinear_Input", "_f"),
    ("_quantized", "_q"), ("_QuantizeLinear", "_Q"), ("_DequantizeLinear", "_DQ"),
)


def leave_float_alone(graph: Any, network: Network, chosen: set[str]) -> None:
    """Let float nodes read what float nodes made, unrounded, and weights they share with INT8 nodes as they were."""
    made = {output: node for node in graph.node for output in node.output}
    present = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in QDQ or node.name in chosen:
            continue
        for at, name in enumerate(node.input):
            second = made.get(name)
            if second is None or second.op_type != "DequantizeLinear":
                continue
            first = made.get(second.input[0])
            weights = name.removesuffix("_DequantizeLinear_Output")
            if first is not None:
                maker = made.get(first.input[0])
                if maker is None or maker.name not in chosen:
                    node.input[at] = first.input[0]
            elif weights in network.constants:
                # The rounded bias goes by the name of the bias.
                node.input[at] = own = f"{weights}_float" if weights in made else weights
                if own not in present:
                    present.add(own)
                    graph.initializer.append(place(weights, network.constants[weights]))
                    graph.initializer[-1].name = own
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == kind and node.output[0] not in read]:
            graph.node.remove(node)


def place(source: str, tensor: Any, data_type: int = 0) -> Any:
    """An empty constant of the shape of ``tensor``, to be filled from the float weight ``source`` when written."""
    import onnx

    # The documentation string travels with the tensor through every renaming; qdq takes it off in the end.
    return onnx.TensorProto(name=tensor.name, data_type=data_type or tensor.data_type, dims=tensor.dims,
                            doc_string=source, data_location=onnx.TensorProto.EXTERNAL)


def store_int8(graph: Any, network: Network, nodes: list[Any]) -> dict[str, str]:
    """Store the weights of float nodes as int8 behind a DequantizeLinear; the runtime unpacks them.

    Returns:
        The new constants, still empty -> the float weights that they are to be rounded from.
    """
    import onnx

    present = {tensor.name: tensor for tensor in graph.initializer}
    restored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    added, stored = [], {}
    for weights, node in {network.weights(node): node for node in nodes if network.weights(node)}.items():
        if weights not in present:
            continue
        # Between bytes on one side and int8 weights on the other ONNX Runtime would make it an integer node after all.
        # A convolution with a float bias is safe.
        if any(name in restored for name in node.input) and not (node.op_type == "Conv" and len(node.input) > 2):
            continue
        tensor, axis = network.constants[weights], network.channel_axis(node)
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        others = tuple(at for at in range(len(tensor.dims)) if at != axis)
        scale = np.abs(network.extent(weights, axis)).max(axis=others) / np.float32(127)
        scale = np.where(scale == 0, np.float32(1), scale)
        empty = place(weights, tensor, onnx.TensorProto.INT8)
        empty.name = f"{weights}_q"
        stored[empty.name] = weights
        graph.initializer.remove(present[weights])
        graph.initializer.append(empty)
        graph.initializer.extend(onnx.numpy_helper.from_array(array, f"{weights}_{part}") for part, array in (
            ("scale", scale), ("zero_point", np.zeros(scale.shape, np.int8))))
        added.append(onnx.helper.make_node(
            "DequantizeLinear", [f"{weights}_{part}" for part in ("q", "scale", "zero_point")], [weights],
            f"{weights}_DQ", **({"axis": axis} if axis is not None else {})))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*added, *rest])
    return stored


def open_ends(graph: Any) -> None:
    """Take the rounding off products that only float nodes or the caller read: the kernel can answer in float."""
    outputs = {value.name for value in graph.output}
    quantized = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    dequantized = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    made = {node.output[0]: node for node in graph.node}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    gone = []
    for node in graph.node:
        first = quantized.get(node.output[0]) if node.op_type in ("MatMul", "Gemm") else None
        second = dequantized.get(first.output[0]) if first is not None else None
        if second is None or made[node.input[0]].op_type != "DequantizeLinear" if node.input[0] in made else True:
            continue
        after = readers.get(second.output[0], [])
        if not after and second.output[0] in outputs:  # it has the model's own name for it behind the rounding
            node.output[0] = second.output[0]
            gone += [first, second]
            continue
        if not after or any(any(output in quantized for output in reader.output) for reader in after):
            continue
        for reader in after:
            for at, name in enumerate(reader.input):
                if name == second.output[0]:
                    reader.input[at] = node.output[0]
        gone += [first, second]
    for node in gone:
        graph.node.remove(node)


def tidy(proto: Any) -> Any:
    """Shorten what the quantizer has added, in place: names, identical small constants, inferred shapes."""
    graph = proto.graph
    del graph.value_info[:]
    _sort(graph)
    _shorten(graph)
    _share(graph)
    return proto


def _sort(graph: Any) -> None:
    """Put every node behind those it reads from, as the standard asks; the order stays otherwise."""
    made = {output: at for at, node in enumerate(graph.node) for output in node.output if output}
    nodes, placed, order = list(graph.node), set(), []
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            at = stack[-1]
            missing = [made[name] for name in _reads(nodes[at]) if name in made and made[name] not in placed]
            if missing and at not in placed:
                stack += missing
                continue
            stack.pop()
            if at not in placed:
                placed.add(at)
                order.append(nodes[at])
    del graph.node[:]
    graph.node.extend(order)


def _reads(node: Any) -> list[str]:
    """Tensors a node reads, those that its own graphs take from outside included."""
    graphs = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else list(a.graphs))]
    return [*node.input, *(name for graph in graphs for inner in graph.node for name in _reads(inner))]


def _shorten(graph: Any) -> None:
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in QDQ:
            continue
        for name in (*node.input[:1], *node.output):
            for suffix, short in _SUFFIXES:
                if name.endswith(suffix) and name not in renamed:
                    new = name.removesuffix(suffix) + short
                    if new not in taken:
                        renamed[name] = new
                        taken.add(new)
                    break
        node.name = next((node.name.removesuffix(long) + short for long, short in _SUFFIXES
                          if node.name.endswith(long)), node.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name in renamed:
                    names[at] = renamed[name]
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)


def _share(graph: Any) -> None:
    """Keep one of each scale and zero point that occurs with the same bytes; rename those that stay."""
    parameters = Counter(name for node in graph.node if node.op_type in QDQ for name in node.input[1:])
    others = {name for node in graph.node for at, name in enumerate(node.input)
              if node.op_type not in QDQ or at == 0}
    first: dict[tuple, str] = {}
    renamed: dict[str, str] = {}
    taken = {tensor.name for tensor in graph.initializer}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in parameters or tensor.name in others:
            kept.append(tensor)
            continue
        key = (tensor.data_type, tuple(tensor.dims), _bytes(tensor))
        if key not in first:
            short = next(name for number in range(len(first), len(taken) + len(first) + 1)
                         if (name := f"p{number}") not in taken)
            taken.add(short)
            first[key] = short
            renamed[tensor.name] = short
            tensor.name = short
            kept.append(tensor)
        else:
            renamed[tensor.name] = first[key]
    for node in graph.node:
        if node.op_type in QDQ:
            for at, name in enumerate(node.input):
                if at and name in renamed:
                    node.input[at] = renamed[name]
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [_copy(tensor) for tensor in kept if tensor.name in read or _has_subgraphs(graph)]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _has_subgraphs(graph: Any) -> bool:
    """Whether a node holds a graph of its own, which may read any tensor."""
    return any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute)


def _bytes(tensor: Any) -> bytes:
    import onnx

    return onnx.numpy_helper.to_array(tensor).tobytes()


def _copy(tensor: Any) -> Any:
    """The tensor with raw bytes: a list of int32 takes up to five times the room of an int8 array."""
    import onnx

    if tensor.raw_data or tensor.data_location == onnx.TensorProto.EXTERNAL or not (
            tensor.int32_data or tensor.float_data):
        twin = onnx.TensorProto()
        twin.CopyFrom(tensor)
        return twin
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
