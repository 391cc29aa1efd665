"""Tiny models built in code."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def conv_net(path: Path, channels: int = 8, opset: int = 17) -> Path:
    """Conv -> BatchNormalization -> Relu -> Conv -> Sigmoid on x float32 [N, 3, H, W]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)

    norm = [numpy_helper.from_array(random.uniform(0.5, 1.5, channels).astype(np.float32), name)
            for name in ("scale", "bias", "mean", "variance")]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "bias", "mean", "variance"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c2"], ["y"], "sigmoid"),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [weight("w1", channels, 3, 3, 3), weight("w2", 1, channels, 3, 3), *norm])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
