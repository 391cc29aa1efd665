"""Which types of bytes the installed runtimes really multiply: asked with a model of one convolution, not looked up."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kit.need import need

_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@functools.cache
def why_not(runtime: str, activation: str, weight: str) -> str:
    """Why a runtime, as installed here, cannot multiply activations by weights of these types; "" when it can.

    Where the runtime is not installed nothing can be said against it.

    Args:
        runtime: ``onnxruntime`` or ``openvino``.
        activation: ``uint8`` or ``int8``.
        weight: ``uint8`` or ``int8``.
    """
    module = need("onnxruntime", to="ask for its integer kernels", extra="base") if runtime == "onnxruntime" \
        else _openvino()
    if module is None:
        return ""
    name = f"{_NAMES[runtime]} {module.__version__.partition('-')[0]}"
    with tempfile.TemporaryDirectory(prefix="kit-kernel-") as folder:
        path = Path(folder) / "one.onnx"
        path.write_bytes(_one_convolution(activation, weight).SerializeToString())
        try:
            integer = (_runs_in_onnxruntime if runtime == "onnxruntime" else _runs_in_openvino)(path)
        except Exception as error:  # of either runtime: neither documents what it raises
            return (f"{name} refuses {activation} activations with {weight} weights: "
                    f"{str(error).splitlines()[-1][:160]}")
    return "" if integer else (f"{name} has no integer kernel for {activation} "
                               f"activations with {weight} weights: it would convert both back to float")


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        return None
    return openvino


def _one_convolution(activation: str, weight: str) -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    middle = {"uint8": 128, "int8": 0}
    channels = 16
    constants = {
        "s": np.float32(0.05), "z": np.array(middle[activation], activation), "ws": np.full(channels, 0.01, np.float32),
        "wz": np.full(channels, middle[weight], weight),
        "w": (random.integers(-100, 100, (channels, channels, 3, 3)) + middle[weight]).astype(weight)}
    node = helper.make_node
    graph = helper.make_graph(
        [node("QuantizeLinear", ["x", "s", "z"], ["xq"]), node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
         node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
         node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
         node("QuantizeLinear", ["c", "s", "z"], ["cq"]), node("DequantizeLinear", ["cq", "s", "z"], ["y"])],
        "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _runs_in_onnxruntime(path: Path) -> bool:
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("rewritten.onnx"))
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((1, 16, 8, 8), np.float32)})
    return any(node.op_type == "QLinearConv" for node in onnx.load(options.optimized_model_filepath).graph.node)


def _runs_in_openvino(path: Path) -> bool:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return any(about["layerType"].astype(str) == "Convolution" and about["runtimePrecision"].astype(str) in ("u8", "i8")
               for about in found if "layerType" in about)
