"""What would fall back to the CPU under ONNX Runtime's CANN provider, by its own list; nothing of it is run."""

from typing import Literal, get_args, get_origin

import numpy as np
import pytest
from onnx_graphs import FLOAT, line, node, save

import kit
from kit import targets
from kit.errors import BadInput, MissingTool
from kit.graph.table import RULES, default_rules
from kit.inspection.graph import graph_of
from kit.operators import AuditOptions, audit
from kit.options import fields
from kit.runtimes.cann_provider import CannProvider
from kit.runtimes.onnxruntime import _with_options, providers
from kit.targets.ascend import facts
from kit.targets.onnxruntime_cann import FIXES, OnnxRuntimeCannTarget

NORM = {"g": np.ones(8, np.float32)}


def seams(path):
    return OnnxRuntimeCannTarget().seams(graph_of(path))


def made(tmp_path, path, **options):
    return audit(path, AuditOptions(target="onnxruntime-cann", **options), runs=tmp_path / "runs")


def test_it_says_that_it_is_a_forecast_and_that_nothing_is_installed(tiny_onnx, tmp_path):
    found = made(tmp_path, tiny_onnx)
    assert found
    assert "is not installed here" in found.target_title
    assert "nothing was run" in found.fine_print
    assert "cann_graph.cc" in found.operators[0].source
    assert {row.state for row in found.operators} == {"supported"}
    said = "0 nodes of 5 on the CPU; 1 piece for CANN; 1 tensor copied to the device and 1 tensor back in every run"
    assert said in [f.what for f in found.findings]


def test_an_operator_outside_the_list_splits_the_model_and_costs_copies(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("LayerNormalization", ["a", "g"], ["b"]),
                node("Relu", ["b"], ["y"]), weights=NORM)
    found = made(tmp_path, path, rules=False)
    assert found, "it still runs: on the CPU"
    (row,) = [row for row in found.operators if row.operator == "LayerNormalization"]
    assert row.state == "partly"
    assert "runs on the CPU" in row.reasons[0]
    # x in, the result of the norm in; the first Relu's back, y back
    assert seams(path) == type(seams(path))(on_cpu=1, pieces=2, to_device=2, to_host=2)
    assert any("1 node of 3 on the CPU; 2 pieces for CANN; 2 tensors" in f.what for f in found.of("warning"))


def test_the_fix_rules_write_it_in_operators_of_the_list(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("LayerNormalization", ["a", "g"], ["b"]),
                node("Relu", ["b"], ["y"]), weights=NORM)
    assert "split-layernorm" in made(tmp_path, path).fixes()
    fixed = kit.fix(path, kit.FixOptions(target="onnxruntime-cann"), runs=tmp_path / "runs")
    assert seams(fixed.model.path).on_cpu == 0
    assert fixed


def test_every_rule_that_is_named_exists_and_is_applied_for_it():
    assert set(FIXES.values()) <= set(default_rules("onnxruntime-cann")) <= set(RULES)


def test_a_tensor_that_several_nodes_read_is_copied_once(tmp_path):
    path = save(tmp_path / "m.onnx", [
        node("Relu", ["x"], ["a"]), node("Mish", ["a"], ["b"]), node("Mish", ["a"], ["c"]),
        node("Add", ["b", "c"], ["d"]), node("Mul", ["b", "d"], ["y"])],
        {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, None)}, opset=18)
    found = seams(path)
    assert (found.on_cpu, found.pieces) == (2, 2)
    assert (found.to_device, found.to_host) == (3, 2)  # x, b, c in; a and y back


def test_arithmetic_on_constants_is_folded_before_anything_is_divided(tmp_path):
    path = line(tmp_path / "m.onnx", node("Trilu", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"]), shape=(1, 4, 4),
                weights={"w": np.ones((4, 4), np.float32)})
    assert seams(path) == type(seams(path))(on_cpu=0, pieces=1, to_device=1, to_host=1)


def test_a_model_without_any_listed_operator_is_an_error(tmp_path):
    path = line(tmp_path / "m.onnx", node("Frobnicate", ["x"], ["y"], domain="my.own"), domains={"my.own": 1})
    found = made(tmp_path, path, rules=False)
    assert not found
    assert any("everything would run on the CPU" in f.what for f in found.of("error"))


def test_opsets_are_told_apart(tmp_path):
    relu = node("Relu", ["x"], ["y"])
    assert any("stop at 15" in f.what for f in made(tmp_path, line(tmp_path / "a.onnx", relu)).findings)
    assert not any("stop at 15" in f.what for f in made(tmp_path, line(tmp_path / "b.onnx", relu, opset=15)).findings)
    old = made(tmp_path, line(tmp_path / "c.onnx", relu, opset=7, ir_version=3), rules=False)
    assert not old
    assert "takes 8 and later" in old.operators[0].reasons[0]


def test_facts_say_where_they_come_from_and_agree_with_the_typed_options():
    told = facts("cann_ep")
    assert told["checked"].startswith("2026")
    assert told["source"]
    assert len(told["graph_mode"]["operators"]) == 134
    assert len(told["single_operator_mode"]["operators"]) == 31
    defaults = CannProvider().entries()
    assert set(defaults) | {"optypelist_for_implmode", "npu_mem_limit"} == {
        name for name, entry in told["options"].items() if "default" in entry}
    kinds = {field.name: field.kind for field in fields(CannProvider)}
    for option, name in (("precision_mode", "precision"), ("op_select_impl_mode", "implementation"),
                         ("arena_extend_strategy", "arena")):
        assert get_origin(kinds[name]) is Literal
        assert set(get_args(kinds[name])) == set(told["options"][option]["values"])
        assert defaults[option] == told["options"][option]["default"]


def test_options_are_typed_checked_and_written_as_the_provider_takes_them():
    told = CannProvider(device=1, precision="must_keep_origin_dtype", memory_gb=2, graph=False,
                        implementation_for=("Softmax", "Gelu")).entries()
    assert told["device_id"] == "1"
    assert told["precision_mode"] == "must_keep_origin_dtype"
    assert (told["npu_mem_limit"], told["enable_cann_graph"]) == ("2000000000", "0")
    assert told["optypelist_for_implmode"] == "Softmax,Gelu"
    assert _with_options(["CPUExecutionProvider"], CannProvider()) == [
        ("CANNExecutionProvider", CannProvider().entries()), "CPUExecutionProvider"]
    assert _with_options(["CPUExecutionProvider"], None) == ["CPUExecutionProvider"]
    with pytest.raises(BadInput, match="precision"):
        CannProvider(precision="allow_quantize")
    with pytest.raises(BadInput, match="several names"):
        CannProvider(implementation_for="Softmax")


@pytest.mark.skipif("CANNExecutionProvider" in providers(), reason="onnxruntime-cann is installed here")
def test_without_the_package_it_is_said_plainly_and_nothing_is_run(tiny_onnx):
    for asked in ({"cann": CannProvider()}, {"providers": ["CANNExecutionProvider"]}):
        with pytest.raises(MissingTool, match="onnxruntime-cann is not installed here, and nothing was run") as caught:
            kit.open_runner(tiny_onnx, **asked)
        assert 'target="onnxruntime-cann"' in caught.value.remedy
    with pytest.raises(BadInput, match="takes CannProvider"):
        kit.open_runner(tiny_onnx, cann={"precision_mode": "force_fp16"})


def test_its_name_is_found_when_it_is_misspelt():
    with pytest.raises(BadInput) as caught:
        targets.get("onnxruntime-can")
    assert "onnxruntime-cann" in caught.value.remedy
