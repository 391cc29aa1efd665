"""Small models for lessons: one that passes its input on, and some that a compiler would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import unknown
from kit.model import Model, read
from kit.need import need
from kit.source import recognise

# Each is a way in which conversions for Ascend are reported to fail; all of them run in ONNX Runtime.
_BROKEN = {
    "boxes": '''<ir_version: 9, opset_import: ["": 17]>
        boxes (float[1, 40, 4] boxes, float[1, 3, 40] scores) => (int64[n, 3] kept)
        <int64 most = {10}, float overlap = {0.5}> {
            kept = NonMaxSuppression (boxes, scores, most, overlap)
        }''',
    "modern": '''<ir_version: 10, opset_import: ["": 20]>
        modern (float[1, 8, 12, 12] x) => (float[1, 8] y)
        <float[2] scale = {1.5, 0.5}, float[2] bias = {0.1, -0.2}, int64[2] axes = {2, 3}> {
            normal = GroupNormalization <num_groups: int = 2> (x, scale, bias)
            bent = Gelu (normal)
            y = ReduceMean <keepdims: int = 0> (bent, axes)
        }''',
    "loop": '''<ir_version: 8, opset_import: ["": 16]>
        loop (float[1, 8] x) => (float[1, 8] y)
        <int64 times = {4}, bool go = {1}> {
            y = Loop (times, go, x) <body = refine (int64 step, bool going, float[1, 8] state)
                => (bool still, float[1, 8] next) <float slope = {0.9}> {
                still = Identity (going)
                scaled = Mul (state, slope)
                next = Tanh (scaled)
            }>
        }''',
    "mask": '''<ir_version: 8, opset_import: ["": 17]>
        mask (float[1, 4, 6, 6] scores, float[1, 1, 6, 6] allowed) => (float[1, 4, 6, 6] weights)
        <float one = {1}, float far = {-1000000000}> {
            forbidden = Sub (one, allowed)
            penalty = Mul (forbidden, far)
            masked = Add (scores, penalty)
            weights = Softmax <axis: int = -1> (masked)
        }''',
    "counted": '''<ir_version: 8, opset_import: ["": 17]>
        counted (float[1, 16] x) => (float[n] found)
        <float limit = {0.5}> {
            high = Greater (x, limit)
            places = NonZero (high)
            turned = Transpose <perm: ints = [1, 0]> (places)
            found = GatherND (x, turned)
        }''',
}


def passing_model(path: Path | str, shape: tuple[int, ...] = (1, 1, 32, 32)) -> Model:
    """A model of one convolution and one ReLU that passes its input on, negative values cut off: ``x`` -> ``z``.

    Args:
        path: where to write the .onnx file; its folder is made.
        shape: of the input, [batch, 1, height, width].
    """
    onnx = need("onnx", to="make a model", extra="base")
    helper, path = onnx.helper, Path(path)
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape)) for name in "xz"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
             helper.make_node("Relu", ["y"], ["z"], name="relu")]
    weights = [onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")]
    graph = helper.make_graph(nodes, "passing", value[:1], value[1:], weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return Model.open(path)


def broken_model(path: Path | str, fault: str) -> Model:
    """A small model that ONNX Runtime runs and Ascend's compiler does not take as it is.

    Args:
        path: where to write the .onnx file; its folder is made.
        fault: ``boxes``: a NonMaxSuppression that crashes the compiler; ``modern``: an opset and operators that it
            does not know; ``loop``; ``mask``: a constant that float16 cannot hold; ``counted``: a size that depends
            on the data, which nothing repairs.

    Raises:
        BadInput: there is no such fault.
    """
    if fault not in _BROKEN:
        raise unknown("fault", fault, _BROKEN)
    onnx, path = need("onnx", to="make a model", extra="base"), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.parser.parse_model(_BROKEN[fault]), str(path))
    return Model.open(path)


def merged_heads(model: Any, path: Path | str, boxes: str, scores: str) -> Model:
    """A detector whose boxes and scores pass through one tensor, as in the exports that have a single output.

    Its answers are those of the model; in INT8 the one tensor has one scale, made for pixels.

    Args:
        model: an .onnx path, a Model, or a result that carries one.
        path: where to write the .onnx file; its folder is made.
        boxes: name of the output [N, A, 4].
        scores: name of the output [N, C, A].

    Raises:
        BadInput: there are no such outputs.
    """
    onnx = need("onnx", to="make a model", extra="base")
    source, path = recognise(model).graph, Path(path)
    proto = read(source)
    graph, outputs = proto.graph, [value.name for value in proto.graph.output]
    for name in (boxes, scores):
        if name not in outputs:
            raise unknown("output", name, outputs, source.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = f"{name} apart" if name in (boxes, scores) else name
    sizes = onnx.numpy_helper.from_array(np.int64([4]), "merge/boxes")
    rest = onnx.numpy_helper.from_array(np.int64([np.iinfo(np.int32).max]), "merge/end")
    axis, zero = (onnx.numpy_helper.from_array(np.int64([at]), f"merge/{at}") for at in (2, 0))
    graph.initializer.extend([sizes, rest, axis, zero])
    make = onnx.helper.make_node
    graph.node.extend([
        make("Transpose", [f"{scores} apart"], ["merge/by box"], "merge/Transpose", perm=[0, 2, 1]),
        make("Concat", [f"{boxes} apart", "merge/by box"], ["merged"], "merge/Concat", axis=2),
        make("Slice", ["merged", "merge/0", "merge/boxes", "merge/2"], [boxes], "merge/Boxes"),
        make("Slice", ["merged", "merge/boxes", "merge/end", "merge/2"], ["merge/scores"], "merge/Scores"),
        make("Transpose", ["merge/scores"], [scores], "merge/Back", perm=[0, 2, 1])])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(path))
    return Model.open(path)
