"""Types and shapes of a graph, as far as ONNX can tell; weights that steer no shape stay behind.

onnx-ir's own pass writes the whole model out, weights and known shapes too, and reads all of it again, which takes most
of the time of opening a model and half of that of a rule that infers. Only models with functions, or with bodies of If
and Loop, are left to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.weights_file import tensor_bytes, without_constants

if TYPE_CHECKING:
    import onnx_ir as ir

STEERING = 1000  # bytes of constants that may steer shapes, and go along


def infer(model: ir.Model) -> None:
    """Fill in types and shapes as far as ONNX can tell; a model it fails on stays as it is."""
    import onnx
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    from kit.graph.rule import quiet_library

    if model.functions or any(node.graph is not model.graph for node in ir.traversal.RecursiveGraphIterator(
            model.graph)):
        with quiet_library():
            common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        return
    try:
        found = onnx.shape_inference.infer_shapes(_light(model), data_prop=True).graph
    except Exception:  # onnx raises several kinds
        return
    values = {value.name: value for node in model.graph for value in node.outputs}
    for info in (*found.value_info, *found.output):
        value, kind = values.get(info.name), info.type.tensor_type
        if value is None or not info.type.HasField("tensor_type"):
            continue
        if kind.elem_type and value.dtype != kind.elem_type:
            value.type = ir.TensorType(ir.DataType(kind.elem_type))
        if kind.HasField("shape"):
            value.shape = ir.Shape([axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
                                    for axis in kind.shape.dim])


def _light(model: ir.Model) -> Any:
    """The model as onnx has it, for shape inference: large weights are inputs, and what is to be found is left out."""
    import onnx
    import onnx_ir as ir

    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(ir.serde.serialize_node(node) for node in model.graph)
    graph.input.extend(ir.serde.serialize_value(value) for value in model.graph.inputs)
    graph.output.extend(ir.serde.serialize_value(value) for value in model.graph.outputs)
    given = {value.name for value in model.graph.inputs}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if name not in given:
            graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tuple(tensor.shape)))
        if tensor.nbytes <= STEERING:
            stored = ir.serde.serialize_tensor(tensor)
            stored.name = name
            graph.initializer.append(stored)
    # Behind operators that onnx does not know, what is known already is all there is to go on with.
    foreign = (value for node in model.graph if node.domain not in ("", "ai.onnx") for value in node.outputs)
    graph.value_info.extend(ir.serde.serialize_value(value) for value in foreign
                            if value.shape is not None and not value.is_graph_output())
    return proto


def infer_again(model: ir.Model) -> None:
    """Forget every shape but the inputs' and infer anew: what an input's new axes mean further on."""
    import onnx_ir as ir

    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            if value.is_graph_output() and value.shape is not None:
                value.shape = ir.Shape([None] * len(value.shape))
            else:
                value.shape = None
    infer(model)


def infer_proto(proto: Any) -> bool:
    """Write types and shapes into an ``onnx.ModelProto``; False where that is left to onnx-ir."""
    import onnx

    if proto.functions or any(a.HasField("g") or a.graphs for node in proto.graph.node for a in node.attribute):
        return False
    light = without_constants(proto)
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor_bytes(tensor) <= STEERING and not tensor.external_data:
            light.graph.initializer.add().CopyFrom(tensor)
        if tensor.name not in inputs:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        found = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # a model it fails on stays as it is
        return True
    for ours, theirs in ((proto.graph.value_info, found.value_info), (proto.graph.output, found.output)):
        del ours[:]
        ours.extend(theirs)
    return True
