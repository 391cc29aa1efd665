"""What the installed OpenVINO says when it is asked about a model."""

import numpy as np
import openvino
import pytest
from onnx_graphs import FLOAT, line, node, save

import kit
from kit import targets
from kit.graph.table import default_rules
from kit.inspection.graph import graph_of
from kit.operators import AuditOptions, audit


def judged(path):
    target = targets.get("openvino")
    graph = graph_of(path)
    return {n.name: said[0] for n, said in zip(graph.nodes, target.judge(graph), strict=True)}


def said(path):
    target = targets.get("OpenVINO")
    return [finding.what for finding in target.findings(graph_of(path))]


def test_it_is_named_with_its_version():
    target = targets.get("openvino")
    assert target.source == f"openvino {openvino.__version__.partition('-')[0]} on this machine"
    assert target.digest() == targets.get("openvino").digest()


def test_an_ordinary_model_is_taken_whole(tiny_onnx, tmp_path):
    made = audit(tiny_onnx, AuditOptions(target="openvino"), runs=tmp_path / "runs")
    assert made
    assert {node.state for node in made.nodes} == {"supported"}
    assert all(row.source.startswith("openvino") for row in made.operators)
    assert made.recommended_opset == 17


def test_an_operator_without_a_rule_is_refused_with_what_to_do(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("Det", ["a"], ["y"]))
    found = judged(path)
    assert found["a"].state == "supported"
    assert (found["y"].state, found["y"].reason) == ("not", "OpenVINO has no rule to convert it")
    assert not audit(path, AuditOptions(target="openvino"), runs=tmp_path / "runs")


def test_what_stands_behind_an_unknown_operator_is_not_blamed(tmp_path):
    path = line(tmp_path / "m.onnx", node("Frobnicate", ["x"], ["a"], domain="my.own"),
                node("Gelu", ["a"], ["y"], domain="com.microsoft"), domains={"my.own": 1, "com.microsoft": 1})
    found = judged(path)
    assert found["a"].state == "not"
    assert found["y"].state == "partly"
    assert "stands behind an operator" in found["y"].reason


def test_an_attribute_that_it_refuses_is_said_in_its_words_and_only_of_that_node(tmp_path):
    weights = {"s": np.float32([1, 1, 2, 2])}
    path = line(tmp_path / "m.onnx", node("Resize", ["x", "", "s"], ["good"], mode="linear"),
                node("Resize", ["good", "", "s"], ["y"], mode="wobbly"), weights=weights)
    found = judged(path)
    assert found["y"].state == "not"
    assert "wobbly" in found["y"].reason
    assert found["good"].state == "partly"
    assert "another Resize" in found["good"].reason


def test_private_operators_that_it_understands_are_told(tmp_path):
    path = line(tmp_path / "m.onnx", node("Gelu", ["x"], ["y"], domain="com.microsoft"), domains={"com.microsoft": 1})
    assert judged(path)["y"].state == "supported"
    assert any("com.microsoft::Gelu" in what and "understands" in what for what in said(path))


def test_open_axes_and_the_precision_of_this_processor_are_told(tiny_onnx, monkeypatch):
    from kit.runtimes import openvino as runtime

    assert any(what.startswith("open axes (x[0], x[2], x[3])") for what in said(tiny_onnx))
    for precision, told in (("bf16", True), ("f32", False)):
        monkeypatch.setattr(runtime, "float_precision", lambda asked="auto", answer=precision: answer)
        assert any("computes float layers in bf16" in what for what in said(tiny_onnx)) is told


def test_a_file_that_cannot_be_read_is_an_error_of_the_model(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Add", ["x", "nowhere"], ["y"])], {"x": (FLOAT, [1])}, {"y": (FLOAT, [1])})
    made = audit(path, AuditOptions(target="openvino", rules=False), runs=tmp_path / "runs")
    assert not made
    assert any("cannot" in finding.what for finding in made.findings)


def test_a_body_of_a_loop_or_branch_is_judged_with_the_rest(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    branches = [helper.make_attribute(name, helper.make_graph(
        [helper.make_node(kind, ["x"], [f"{name}_y"], f"{name}_node")], name, [],
        [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 4, 8, 8])]))
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Sigmoid"))]
    choice = helper.make_node("If", ["c"], ["y"], "choice")
    choice.attribute.extend(branches)
    path = save(tmp_path / "m.onnx", [choice], {"x": (FLOAT, [1, 4, 8, 8]), "c": (9, [1])}, {"y": (FLOAT, None)})
    assert onnx.load(path)
    assert {support.state for support in judged(path).values()} == {"supported"}


@pytest.mark.parametrize("rule", ["merge-hardswish", "merge-layernorm", "split-swish", "fold-batchnorm"])
def test_its_rules_make_standard_operators(rule):
    assert rule in default_rules("openvino")


def test_a_private_activation_is_written_in_standard_operators_for_it(tmp_path):
    path = line(tmp_path / "m.onnx", node("QuickGelu", ["x"], ["y"], domain="com.microsoft", alpha=1.0),
                domains={"com.microsoft": 1})
    made = kit.fix(path, kit.FixOptions(target="openvino"), runs=tmp_path / "runs")
    assert {"Sigmoid", "Mul"} <= set(made.operators_after)
    assert not any(name.startswith("com.microsoft") for name in made.operators_after)
