"""What the installed ONNX Runtime says when it is asked about single nodes."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_graphs import DOUBLE, FLOAT, INT64, line, node, save

from kit import targets
from kit.errors import BadInput
from kit.inspection.graph import graph_of
from kit.targets import onnxruntime as asked


def judged(path):
    target = targets.get("onnxruntime")
    graph = graph_of(path)
    return {n.name: said[0] for n, said in zip(graph.nodes, target.judge(graph), strict=True)}


def test_the_runtime_is_named_with_its_version_and_its_limits():
    target = targets.get("ONNXRuntime")
    assert target.source == f"onnxruntime {onnxruntime.__version__} on this machine"
    assert target.opsets[1] >= 20
    assert target.ir_version >= 10


def test_a_kernel_that_exists_is_supported_and_one_that_does_not_says_why(tmp_path):
    path = save(tmp_path / "m.onnx", [
        node("Relu", ["x"], ["a"]), node("Cast", ["a"], ["d"], to=TensorProto.DOUBLE),
        node("ConvTranspose", ["d", "d"], ["b"]), node("Frobnicate", ["x"], ["c"])],
        {"x": (FLOAT, [1, 1, 4, 4])}, {"b": (DOUBLE, None), "c": (FLOAT, None)})
    said = judged(path)
    assert said["a"].state == "supported"
    assert (said["b"].state, said["b"].reason) == ("not", "no kernel for float64 inputs")
    assert (said["c"].state, said["c"].reason) == ("not", "the installed runtime does not know it")


def test_an_attribute_that_the_kernel_refuses_is_not_supported_silently(tmp_path):
    good = line(tmp_path / "good.onnx", node("Resize", ["x", "", "s"], ["y"], mode="linear"), weights={
        "s": np.float32([1, 1, 2, 2])})
    bad = line(tmp_path / "bad.onnx", node("Resize", ["x", "", "s"], ["y"], mode="wobbly"), weights={
        "s": np.float32([1, 1, 2, 2])})
    assert judged(bad)["y"].state != "supported"
    assert "wobbly" in judged(bad)["y"].reason
    assert judged(good)["y"].state == "supported"


def test_a_foreign_operator_behind_another_is_judged_although_types_are_unknown(tmp_path):
    path = line(tmp_path / "m.onnx", node("One", ["x"], ["a"], domain="my.domain"),
                node("Two", ["a"], ["b"], domain="my.domain"), domains={"my.domain": 1})
    assert {s.reason for s in judged(path).values()} == {"the domain my.domain is not part of the runtime"}


def test_a_function_without_a_kernel_says_what_runs_in_its_place(tmp_path):
    path = line(tmp_path / "m.onnx", node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2), opset=21,
                ir_version=10, weights={"s": np.ones(4, np.float32)})
    said = judged(path)["y"]
    assert said.state == "partly"
    assert "no kernel of its own" in said.reason


def test_control_flow_is_asked_with_a_small_body_of_its_own(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["s"], ["t"], name="inner")], "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", FLOAT, [4])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("t", FLOAT, [4])])
    path = save(tmp_path / "m.onnx", [node("Loop", ["n", "", "x"], ["y"], body=body)], {"x": (FLOAT, [4])},
                {"y": (FLOAT, [4])}, {"n": 3})
    said = judged(path)
    assert said["y"].state == "supported"
    assert said["inner"].state == "supported"


def test_equal_nodes_are_asked_once(tmp_path, monkeypatch):
    asked._probe.cache_clear()
    calls = []
    became = asked._became
    monkeypatch.setattr(asked, "_became", lambda model: calls.append(1) or became(model))
    nodes = [node("Elu", ["x"], ["e0"], alpha=0.7), *[node("Elu", [f"e{at}"], [f"e{at + 1}"], alpha=0.7)
                                                     for at in range(30)]]
    judged(line(tmp_path / "m.onnx", *nodes))
    assert len(calls) == 1


def test_a_model_that_is_too_large_to_load_is_asked_node_by_node_and_says_so(tiny_onnx, monkeypatch):
    monkeypatch.setattr(asked, "WHOLE", 10)
    found = targets.get("onnxruntime").findings(graph_of(tiny_onnx))
    assert [f.severity for f in found] == ["note"]
    assert "was not loaded" in found[0].what


def test_an_unknown_target_is_answered_with_the_closest():
    with pytest.raises(BadInput, match="no target named 'onnxruntme'") as caught:
        targets.get("onnxruntme")
    assert "did you mean onnxruntime" in caught.value.remedy
