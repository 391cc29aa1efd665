"""Small models built in code for the tests of calibration, quantization and layers, and feeds that fit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(nodes, weights, path: Path, *, shape=(1, 3, 16, 16), outputs=("y",), opset=17, metadata=None,
         output_shape=None) -> Path:
    graph = helper.make_graph(
        nodes, "toy", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, output_shape) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if metadata:
        helper.set_model_props(model, metadata)
    onnx.save_model(model, str(path))
    return path


def conv_net(path: Path, *, seed=0, channels=16, opset=17, outlier=False) -> Path:
    """Conv, HardSwish, depthwise Conv, ReLU, squeeze-and-excite, residual Add, ConvTranspose, Sigmoid."""
    random = np.random.default_rng(seed)

    def weights(*shape, fan):
        return (random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)

    c = channels
    w = {
        "w0": weights(c, 3, 3, 3, fan=27), "b0": weights(c, fan=1),
        "w1": weights(c, 1, 3, 3, fan=9), "b1": weights(c, fan=1),
        "w2": weights(c, c, 1, 1, fan=c), "b2": weights(c, fan=1),
        "w3": weights(c, c, 1, 1, fan=c), "b3": weights(c, fan=1),
        "w4": weights(c, c, 3, 3, fan=9 * c), "b4": weights(c, fan=1),
        "w5": weights(c, 2, 2, 2, fan=c), "b5": weights(2, fan=1),
    }
    if outlier:
        w["w2"][0] *= 400
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["t0"], "first", pads=[1, 1, 1, 1]),
        node("HardSwish", ["t0"], ["h0"], "swish") if opset >= 14 else node("HardSigmoid", ["t0"], ["h0"], "swish"),
        node("Conv", ["h0", "w1", "b1"], ["t1"], "depthwise", pads=[1, 1, 1, 1], group=c),
        node("Relu", ["t1"], ["r1"], "relu"),
        node("GlobalAveragePool", ["r1"], ["pool"], "pool"),
        node("Conv", ["pool", "w2", "b2"], ["s0"], "squeeze"),
        node("HardSigmoid", ["s0"], ["s1"], "gate"),
        node("Mul", ["r1", "s1"], ["m"], "excite"),
        node("Conv", ["m", "w3", "b3"], ["t3"], "pointwise"),
        node("Conv", ["t3", "w4", "b4"], ["t4"], "wide", pads=[1, 1, 1, 1]),
        node("Add", ["t3", "t4"], ["sum"], "residual"),
        node("Conv", ["sum", "w3", "b3"], ["t6"], "again"),
        node("ConvTranspose", ["t6", "w5", "b5"], ["up"], "up", strides=[2, 2]),
        node("Sigmoid", ["up"], ["y"], "sigmoid"),
    ]
    return save(nodes, w, path, opset=opset, metadata={"character": "a\nb", "note": "kept"},
                output_shape=["N", 2, 32, 32])


def feeds(count=6, *, seed=1, shape=(1, 3, 16, 16), name="x") -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{name: random.standard_normal(shape).astype(np.float32)} for _ in range(count)]
