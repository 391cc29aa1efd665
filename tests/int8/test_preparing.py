"""Preparing a graph: constants, names, types; what cannot be quantized is refused."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantization_models import save

from kit.errors import UnsupportedModel
from kit.int8.preparing import plain, prepare


def untidy(path, **settings):
    """A value in a Constant node, two nodes of one name, one without, and a weight that is also an input."""
    node = helper.make_node
    nodes = [node("Constant", [], ["two"], value_float=2.0), node("Mul", ["x", "two"], ["a"], "same"),
             node("Add", ["a", "w"], ["b"], "same"), node("Relu", ["b"], ["y"])]
    proto = onnx.load(str(save(nodes, {"w": np.ones(16, np.float32)}, path, **settings)))
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [16]))
    return proto


def test_constants_become_initializers_and_initializers_are_no_inputs(tmp_path):
    graph = plain(untidy(tmp_path / "m.onnx")).graph
    assert [node.op_type for node in graph.node] == ["Mul", "Add", "Relu"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert set(stored) == {"w", "two"}
    assert stored["two"] == np.float32(2)
    assert [value.name for value in graph.input] == ["x"]


def test_every_node_gets_a_name_of_its_own_and_the_same_each_time(tmp_path):
    first, again = ([node.name for node in prepare(untidy(tmp_path / "m.onnx")).graph.node] for _ in range(2))
    assert first == again == ["same_0", "same_1", "Relu_2"]


def test_types_of_tensors_between_nodes_are_inferred(tmp_path):
    known = {value.name: value.type.tensor_type.elem_type
             for value in prepare(untidy(tmp_path / "m.onnx")).graph.value_info}
    assert known == {"a": 1, "b": 1}


def test_types_are_known_behind_operators_of_onnx_runtime_and_nothing_is_left_of_how(tmp_path):
    nodes = [helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft"), helper.make_node("Relu", ["a"], ["y"])]
    proto = onnx.load(str(save(nodes, {}, tmp_path / "m.onnx")))
    proto.opset_import.add(domain="com.microsoft", version=1)
    found = prepare(proto)
    assert {value.name: value.type.tensor_type.elem_type for value in found.graph.value_info} == {"a": 1}
    assert not found.functions


def test_an_old_opset_and_a_quantized_model_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(UnsupportedModel, match=r"old\.onnx has opset 11") as caught:
        prepare(untidy(tmp_path / "m.onnx", opset=11), "old.onnx")
    assert "opset=17" in caught.value.remedy
    proto = untidy(tmp_path / "m.onnx")
    proto.graph.node.append(helper.make_node("QuantizeLinear", ["a", "two"], ["q"], "q"))
    with pytest.raises(UnsupportedModel, match="quantized already"):
        prepare(proto)
