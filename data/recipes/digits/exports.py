"""From PyTorch to ONNX files: the float network, and a network that pt2e has converted, in QDQ form."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

IMAGE = torch.zeros(2, 1, 8, 8)


def export_float(net: torch.nn.Module, path: Path) -> None:
    """Write the float network: opset 17, batch norm folded, any number of images.

    The older exporter, because the newer one of torch 2.13 starts at opset 18, and the kit aims at 17.
    """
    names = {"input_names": ["image"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net.eval(), (IMAGE,), str(path), dynamo=False, opset_version=17, **names,
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )


def export_qdq(converted: torch.nn.Module, path: Path, *, bits: int) -> None:
    """Write what ``convert_pt2e`` made: QuantizeLinear and DequantizeLinear around float operators.

    torch's exporter maps the quantized_decomposed operators itself. It keeps 4-bit weights in bytes; here they become
    ONNX's INT4, two in a byte, which needs opset 21.
    """
    program = torch.onnx.export(
        converted, (IMAGE,), dynamo=True, opset_version=21 if bits == 4 else 18, input_names=["image"],
        output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False,
    )
    proto = program.model_proto
    _forget_the_machine(proto)
    _name_after_layers(proto)
    if bits == 4:
        _pack_four_bits(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _forget_the_machine(proto: onnx.ModelProto) -> None:
    """Drop stack traces with the paths of the machine that exported."""
    graph = proto.graph
    for thing in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        thing.ClearField("metadata_props")
        thing.doc_string = ""


def _name_after_layers(proto: onnx.ModelProto) -> None:
    """Name the bytes of a layer's weights and their scales after the layer, as its bias already is."""
    graph = proto.graph
    made_by = {node.output[0]: node for node in graph.node}
    new = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        layer = node.input[2].removesuffix(".weight_bias").removesuffix(".bias")
        restore = made_by[node.input[1]]
        while restore.op_type != "DequantizeLinear":
            restore = made_by[restore.input[0]]
        new |= dict(zip(restore.input, (f"{layer}.weight_q", f"{layer}.scale", f"{layer}.zero"), strict=False))
        new |= {node.input[2]: f"{layer}.bias", restore.output[0]: f"{layer}.weight"}
        node.name = layer
    for thing in (*graph.initializer, *graph.value_info):
        thing.name = new.get(thing.name, thing.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def _pack_four_bits(graph: onnx.GraphProto) -> None:
    """Turn the weights' bytes and their zero points into INT4."""
    wanted = {
        name for node in graph.node if node.op_type == "DequantizeLinear" for name in (node.input[0], *node.input[2:])
    }
    for at, tensor in enumerate(graph.initializer):
        if tensor.name in wanted and tensor.data_type == TensorProto.INT8:
            values = numpy_helper.to_array(tensor).astype(np.int8)
            packed = helper.make_tensor(tensor.name, TensorProto.INT4, values.shape, values.ravel())
            graph.initializer[at].CopyFrom(packed)
    del graph.value_info[:]  # the types noted there were bytes
