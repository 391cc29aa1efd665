"""Trying rules: what a rule may move, and weights that lie beside the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from kit.graph import RULES
from kit.graph.rule import Rule
from kit.graph.values import bypass, is_op


def moving(limit: str = "Neg", moves: str = "it is a test.") -> Rule:
    """A rule that leaves an operator out, and says that this moves the answer."""

    def rewrite(node, setting) -> str:
        bypass(node, node.inputs[0])
        return f"{limit} is gone"

    return Rule("leave-out", "A test.", lambda node, setting: is_op(node, limit), lambda node, setting: "", rewrite,
                moves=moves)


def test_a_rule_that_is_meant_to_move_the_answer_is_kept_and_the_move_is_told(bench, monkeypatch):
    monkeypatch.setitem(RULES, "leave-out", moving())
    fixed = bench.fix(bench.text("{a = Neg(x) y = Sigmoid(a)}"), rules=("leave-out",))
    (change,) = fixed.changes
    assert change.difference > 0.1
    assert (f"leave-out moved the answer by {change.difference:.1e}, as it is meant to: it is a test. Rules after "
            "it are compared with the model it left.") in fixed.notes
    assert f"answers within {fixed.parity[0].relative:.1e}" in fixed.title()
    assert "as it is meant to" in str(fixed)


def test_without_the_word_the_same_rule_is_refused(bench, monkeypatch):
    monkeypatch.setitem(RULES, "leave-out", moving(moves=""))
    fixed = bench.fix(bench.text("{a = Neg(x) y = Sigmoid(a)}"), rules=("leave-out",))
    assert fixed.changes == ()
    assert "moves the answer by" in fixed.rejected[0].reason


def test_such_a_rule_may_not_break_the_model_either(bench, monkeypatch):
    def rewrite(node, setting) -> str:
        node.op_type = "NoSuchOperator"
        return "broken"

    monkeypatch.setitem(RULES, "breaks", Rule("breaks", "A test.", lambda node, setting: is_op(node, "Neg"),
                                              lambda node, setting: "", rewrite, moves="it is a test."))
    fixed = bench.fix(bench.text("{a = Neg(x) y = Sigmoid(a)}"), rules=("breaks",))
    assert fixed.changes == ()
    assert fixed.rejected[0].reason.startswith("the model no longer runs")


@pytest.mark.parametrize("rules", [("drop-identity", "fold-affine"), ("drop-identity", "fp16-constants")])
def test_weights_beside_the_file_are_read_after_the_first_measurement_too(bench, rules):
    """A measurement links them to the model it runs, and onnx-ir refuses to read a file with two links."""
    nodes = [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Gemm", ["i", "w"], ["g"]),
             helper.make_node("Add", ["g", "b"], ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.float32([0, -1e9, 0, 0])}
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", 1, [2, 4])], [helper.make_tensor_value_info("y", 1, [2, 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = bench.folder / "apart" / "net.onnx"
    path.parent.mkdir()
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    fixed = bench.fix(path, rules=rules)
    assert fixed.rejected == ()
    assert list(fixed.counts()) == list(rules)
    assert path.with_name("weights.bin").stat().st_nlink == 1
