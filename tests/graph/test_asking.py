"""Rules are asked what they would do: with reasons, without keeping anything, and without reading what need not be."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_graphs import line, node

from kit.errors import BadInput
from kit.graph.asking import WEIGHTY, ask


def test_edits_reasons_names_and_the_edited_graph_come_back(tmp_path):
    path = line(tmp_path / "m.onnx", node("Gelu", ["x"], ["a"]), node("Resize", ["a", "", "s"], ["y"], mode="nearest",
                                                                     nearest_mode="ceil"),
                opset=20, ir_version=9, weights={"s": np.float32([1, 1, 2, 2])})
    before = path.read_bytes()
    answers = ask(path, "ascend910b3")
    rows = {(rule, where): reason for rule, where, reason in answers.rows}
    assert rows["split-gelu", "a"] == ""
    assert "no form that ATC reads" in rows["plain-resize", "y"]
    assert answers.names == ("a", "y")
    assert "Erf" in {each.op_type for each in answers.graph.graph}
    assert path.read_bytes() == before


def test_rules_besides_the_targets_own_are_asked_and_edit_nothing(tmp_path):
    path = line(tmp_path / "m.onnx", node("HardSwish", ["x"], ["y"]), shape=("N", 3, 8, 8))
    answers = ask(path, "ascend310p3", besides={"split-hardswish": {}, "fix-shapes": {"shapes": {"x": (1, 3, 8, 8)}}})
    assert answers.requests == (("split-hardswish", "y", ""), ("fix-shapes", "x", ""))
    assert [each.op_type for each in answers.graph.graph] == ["HardSwish"]


def test_rules_that_read_weights_can_be_left_out_and_large_weights_stay_on_the_disk(tmp_path):
    import psutil

    path = line(tmp_path / "m.onnx", node("MatMul", ["x", "w"], ["a"]), node("Gelu", ["a"], ["y"]), shape=(1, 8192),
                opset=20, ir_version=9)
    proto, size = onnx.load(str(path)), 8192 * 16384 * 4
    tensor = TensorProto(name="w", data_type=1, dims=[8192, 16384], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.data"), ("offset", 0), ("length", size)):
        tensor.external_data.add(key=key, value=str(value))
    proto.graph.initializer.append(tensor)
    onnx.save(proto, str(path))
    with (tmp_path / "w.data").open("wb") as stream:
        stream.truncate(size)  # half a gigabyte of nothing
    ask(path, "ascend310p3", weights=False)  # the libraries are imported by now
    before = psutil.Process().memory_info().rss
    answers = ask(path, "ascend310p3", weights=False)
    assert psutil.Process().memory_info().rss - before < 100_000_000
    assert answers.skipped == WEIGHTY
    assert ("split-gelu", "y", "") in answers.rows


def test_a_rule_that_crashes_is_named_and_the_others_are_still_asked(tmp_path, monkeypatch):
    from kit.graph import table

    def trip(*_):
        raise RuntimeError("a strange node")

    monkeypatch.setitem(table.RULES, "split-gelu", replace(table.RULES["split-gelu"], blocked=trip))
    path = line(tmp_path / "m.onnx", node("Gelu", ["x"], ["a"]), node("Transpose", ["a"], ["y"]), opset=20,
                ir_version=9)
    rows = {(rule, where): reason for rule, where, reason in ask(path, "ascend310p3").rows}
    assert rows["split-gelu", "a"] == "the rule fails here: a strange node"
    assert rows["plain-attributes", "y"] == ""


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no target named"):
        ask(line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"])), "abacus")
