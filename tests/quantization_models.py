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


def attention_net(path: Path, *, seed=0, width=64, tokens=12, heads=4, outlier=1.0, opset=17) -> Path:
    """One encoder block on x [1, tokens, width]: normalization, attention, residual, normalization, two MatMul.

    ``outlier`` multiplies three channels of both normalizations, and divides the weights that read them: the answer
    stays, but the activations are as hard for INT8 as those of large transformers.
    """
    random = np.random.default_rng(seed)
    node, depth = helper.make_node, width // heads

    def weights(rows, columns):
        return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    stretch = np.ones(width, np.float32)
    stretch[[3, width // 2, width - 2]] = outlier
    w = {
        "g1": stretch, "n1": np.zeros(width, np.float32), "g2": stretch, "n2": np.zeros(width, np.float32),
        **{f"w{part}": weights(width, width) / stretch[:, None] for part in "qkv"}, "wo": weights(width, width),
        "up": weights(width, 4 * width) / stretch[:, None], "upb": random.standard_normal(4 * width).astype(np.float32),
        "down": weights(4 * width, width),
        "split": np.array([1, tokens, heads, depth]), "join": np.array([1, tokens, width]),
        "scale": np.float32(1 / np.sqrt(depth)),
    }
    nodes = [node("LayerNormalization", ["x", "g1", "n1"], ["ln1"], "norm1", axis=-1)]
    for part in "qkv":
        nodes += [node("MatMul", ["ln1", f"w{part}"], [part], f"to_{part}"),
                  node("Reshape", [part, "split"], [f"{part}4"], f"split_{part}"),
                  node("Transpose", [f"{part}4"], [f"{part}t"], f"turn_{part}",
                       perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])]
    nodes += [
        node("MatMul", ["qt", "kt"], ["scores"], "scores"), node("Mul", ["scores", "scale"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["shares"], "softmax", axis=-1),
        node("MatMul", ["shares", "vt"], ["mixed"], "mixed"),
        node("Transpose", ["mixed"], ["mt"], "turn_back", perm=[0, 2, 1, 3]),
        node("Reshape", ["mt", "join"], ["mj"], "join"), node("MatMul", ["mj", "wo"], ["att"], "to_out"),
        node("Add", ["x", "att"], ["res"], "residual1"),
        node("LayerNormalization", ["res", "g2", "n2"], ["ln2"], "norm2", axis=-1),
        node("MatMul", ["ln2", "up"], ["h"], "up"), node("Add", ["h", "upb"], ["hb"], "up_bias"),
        node("Relu", ["hb"], ["hr"], "relu"), node("MatMul", ["hr", "down"], ["d"], "down"),
        node("Add", ["res", "d"], ["y"], "residual2"),
    ]
    return save(nodes, w, path, shape=(1, tokens, width), opset=opset, output_shape=[1, tokens, width])


def depthwise_net(path: Path, *, seed=0, channels=16, spread=1.0, activation="Relu") -> Path:
    """Two pairs of pointwise and depthwise convolutions with ReLU between, then a classifier.

    ``spread`` is the factor (up and down, in decades) by which the channels of a convolution's output differ, undone
    by the next one: the answer stays, but one INT8 scale a tensor no longer fits.
    """
    random = np.random.default_rng(seed)
    node, c = helper.make_node, channels

    def weights(*shape, fan):
        return (random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)

    def wild():
        return (10 ** random.uniform(-spread, spread, c)).astype(np.float32)

    a, b, d = wild(), wild(), wild()
    w = {
        "w0": weights(c, 3, 3, 3, fan=27) * a[:, None, None, None], "b0": weights(c, fan=9) * a,
        "w1": weights(c, 1, 3, 3, fan=9) * (b / a)[:, None, None, None], "b1": weights(c, fan=9) * b,
        "w2": weights(c, c, 1, 1, fan=c) / b[None, :, None, None] * d[:, None, None, None], "b2": weights(c, fan=9) * d,
        "w3": weights(c, 1, 3, 3, fan=9) / d[:, None, None, None], "b3": weights(c, fan=9),
        "w4": weights(10, c, fan=c), "b4": weights(10, fan=1), "shape": np.array([1, c]),
    }
    more = {} if activation != "Clip" else {"low": np.float32(0), "high": np.float32(6)}
    tail = list(more)
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["t0"], "first", pads=[1, 1, 1, 1]),
        node(activation, ["t0", *tail], ["r0"], "act0"),
        node("Conv", ["r0", "w1", "b1"], ["t1"], "depthwise1", pads=[1, 1, 1, 1], group=c),
        node(activation, ["t1", *tail], ["r1"], "act1"),
        node("Conv", ["r1", "w2", "b2"], ["t2"], "pointwise"), node(activation, ["t2", *tail], ["r2"], "act2"),
        node("Conv", ["r2", "w3", "b3"], ["t3"], "depthwise2", pads=[1, 1, 1, 1], group=c),
        node("GlobalAveragePool", ["t3"], ["pool"], "pool"), node("Reshape", ["pool", "shape"], ["flat"], "flat"),
        node("Gemm", ["flat", "w4", "b4"], ["y"], "head", transB=1),
    ]
    return save(nodes, {**w, **more}, path, output_shape=[1, 10])
