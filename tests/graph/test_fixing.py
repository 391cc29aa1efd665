"""The stage: what it measures, names, refuses, undoes and keeps."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

import kit
from kit.graph import RULES, applicable, default_rules, table, trial
from kit.graph.rule import Rule
from kit.graph.values import Builder, is_op, replace

GATES = "<float three={3.0}, float low={0.0}, float high={6.0}, float six={6.0}, float[6] unused={1,1,1,1,1,1}> " \
        "{t = Add(x, three) c = Clip(t, low, high) m = Mul(x, c) a = Div(m, six) i = Identity(a) " \
        "t2 = Add(i, three) c2 = Clip(t2, low, high) m2 = Mul(i, c2) y = Div(m2, six)}"
RELUS = "{a = Relu(x) b = Relu(a) s = Neg(b) c = Relu(s) e = Exp(c) y = Relu(e)}"


def wrong(node_name: str) -> Rule:
    """A rule that writes LeakyRelu for Relu: right after another Relu, and wrong at ``node_name``."""

    def rewrite(node, setting) -> str:
        builder = Builder(node, setting.model)
        slope = 0.5 if node.name == node_name else 0.0
        replace(node, builder.nodes, builder.op("LeakyRelu", node.inputs, {"alpha": slope}, like=node.outputs[0]))
        return "Relu became LeakyRelu"

    return Rule("wrong-relu", "A test of the net below.", lambda node, setting: is_op(node, "Relu"),
                lambda node, setting: "", rewrite)


def use(monkeypatch, rule: Rule) -> None:
    monkeypatch.setitem(RULES, rule.name, rule)


def test_a_rule_that_moves_the_answer_is_found_out_and_its_harmless_edits_stay(bench, monkeypatch):
    use(monkeypatch, wrong("Relu_c"))
    path = bench.text(RELUS)
    fixed = bench.fix(path, rules=("wrong-relu",))
    (refused,) = fixed.rejected
    assert (refused.id, refused.node) == ("wrong-relu:Relu_c", "Relu_c")
    assert refused.difference > 0.1
    assert f"moves the answer by {refused.difference:.2e}" in refused.reason
    assert [change.node for change in fixed.changes] == ["Relu_a", "Relu_b", "Relu_y"]
    assert fixed.operators_after == {"Exp": 1, "LeakyRelu": 3, "Neg": 1, "Relu": 1}
    bench.same_answers(path, fixed.model.path)
    assert "1 edits that moved the answer" in str(fixed)


def test_several_culprits_are_all_named(bench, monkeypatch):
    def rewrite(node, setting) -> str:
        return wrong(node.name).rewrite(node, setting)

    use(monkeypatch, dataclasses.replace(wrong(""), rewrite=rewrite))
    path = bench.text("{a = Relu(x) s = Neg(a) b = Relu(s) e = Exp(b) y = Relu(e)}")
    fixed = bench.fix(path, rules=("wrong-relu",))
    assert {refused.node for refused in fixed.rejected} == {"Relu_a", "Relu_b"}
    assert [change.node for change in fixed.changes] == ["Relu_y"]
    bench.same_answers(path, fixed.model.path)


def test_of_two_edits_that_are_harmless_alone_but_not_together_one_is_refused(bench, monkeypatch):
    def rewrite(node, setting) -> str:
        return wrong(node.name).rewrite(node, setting)

    use(monkeypatch, dataclasses.replace(wrong(""), rewrite=rewrite))
    path = bench.text("{b = Relu(x) c = Relu(b) y = Exp(c)}")  # each hides what the other does wrong
    fixed = bench.fix(path, rules=("wrong-relu",))
    (refused,) = fixed.rejected
    assert refused.node == "Relu_c"
    assert refused.reason.startswith("harmless alone, but beside this rule's edits before it it moves the answer by")
    assert [change.node for change in fixed.changes] == ["Relu_b"]
    bench.same_answers(path, fixed.model.path)


def test_an_edit_after_which_the_model_no_longer_runs_is_refused(bench, monkeypatch):
    def rewrite(node, setting) -> str:
        builder = Builder(node, setting.model)
        kind = "NoSuchOperator" if node.name == "Relu_b" else "Relu"
        replace(node, builder.nodes, builder.op(kind, node.inputs, like=node.outputs[0], name=f"{node.name}x"))
        return "new"

    use(monkeypatch, Rule("breaks", "A test.", lambda node, setting: is_op(node, "Relu") and node.name[-1] != "x",
                          lambda node, setting: "", rewrite))
    fixed = bench.fix(bench.text(RELUS), rules=("breaks",))
    (refused,) = fixed.rejected
    assert refused.node == "Relu_b"
    assert refused.difference == float("inf")
    assert refused.reason.startswith("the model no longer runs")
    assert len(fixed.changes) == 3


def test_a_rule_that_crashes_costs_only_its_own_edit(bench, monkeypatch):
    def rewrite(node, setting) -> str:
        if node.name == "Relu_b":
            node.graph.remove(node)  # leaves the graph broken
        return wrong("").rewrite(node, setting)

    use(monkeypatch, dataclasses.replace(wrong(""), rewrite=rewrite))
    path = bench.text(RELUS)
    fixed = bench.fix(path, rules=("wrong-relu",))
    assert [(refused.node, "the rule failed" in refused.reason) for refused in fixed.rejected] == [("Relu_b", True)]
    assert len(fixed.changes) == 3
    bench.same_answers(path, fixed.model.path)


def test_small_answers_are_compared_too():
    quiet, moved = [{"y": np.float32([1e-4, 2e-4])}], [{"y": np.float32([2e-4, 1e-4])}]
    assert trial.difference(quiet, moved) > 1e-4
    assert trial.difference(quiet, quiet) == 0
    assert trial.difference([{"y": np.float32([1e-8])}], [{"y": np.float32([3e-8])}]) < 1e-6


def test_one_edit_is_undone_alone(bench):
    path = bench.text(GATES)
    fixed = bench.fix(path)
    assert fixed.operators_after == {"HardSwish": 2}
    assert fixed.counts() == {"drop-identity": 1, "merge-hardswish": 2, "drop-unused": 1}
    back = fixed.undo("merge-hardswish:Div_a")
    assert back.operators_after == {"Add": 1, "Clip": 1, "Mul": 1, "Div": 1, "HardSwish": 1}
    assert ("merge-hardswish", "Div_a", "skipped, as asked") in [dataclasses.astuple(row) for row in back.left_alone]
    assert back.undo("merge-hardswish").operators_after == {"Add": 2, "Clip": 2, "Mul": 2, "Div": 2}
    assert back.provenance.folder.parent == fixed.provenance.folder.parent


def test_undoing_something_that_was_not_done_offers_what_was(bench):
    fixed = bench.fix(bench.text(GATES))
    with pytest.raises(kit.BadInput, match="no edit named 'merge-hardswish:Div_b'") as caught:
        fixed.undo("merge-hardswish:Div_b")
    assert "merge-hardswish:Div_a" in caught.value.remedy


def test_undoing_after_the_source_was_changed_is_refused(bench):
    path = bench.text(GATES)
    fixed = bench.fix(path)
    bench.text("{y = Relu(x)}")
    with pytest.raises(kit.StaleResult, match="was changed after it was fixed"):
        fixed.undo("merge-hardswish")


def test_unknown_rules_and_targets_are_named_with_the_closest(bench):
    path = bench.text(GATES)
    with pytest.raises(kit.BadInput, match="merge-hardswich") as caught:
        bench.fix(path, rules=("merge-hardswich",))
    assert "merge-hardswish" in caught.value.remedy
    with pytest.raises(kit.BadInput, match="no rule named 'merge-relu'"):
        bench.fix(path, skip=("merge-relu:Div_a",))
    with pytest.raises(kit.BadInput, match="undo each other"):
        bench.fix(path, rules=("merge-hardswish", "split-hardswish"))
    with pytest.raises(kit.BadInput, match="no target named 'rk3588'"):
        kit.FixOptions(target="rk3588")
    with pytest.raises(kit.BadInput, match="no target named"):
        default_rules("onnxruntim")


def test_every_chip_has_the_same_rules_in_upper_and_lower_case():
    from kit.targets import ascend

    assert kit.FixOptions(target="Ascend310P3").target == "ascend310p3"
    assert {default_rules(name) for name in ascend.NAMES} == {default_rules("ascend")}
    assert "strip-qdq" not in default_rules("ascend")
    order = list(default_rules("ascend"))
    for earlier in ("split-gelu", "split-groupnorm", "plain-split", "plain-pad", "plain-resize"):
        assert order.index(earlier) < order.index("lower-opset")
    assert not {"plain-resize", "einsum-to-matmul"} & set(default_rules("onnxruntime"))


def test_names_and_metadata_are_kept(bench):
    import onnx

    proto = onnx.load(str(bench.text(GATES)))
    onnx.helper.set_model_props(proto, {"character": "壹\n贰\n叁", "note": ""})
    proto.producer_name, proto.doc_string = "maker", "words"
    fixed = bench.fix(bench.save(proto))
    after = onnx.load(str(fixed.model.path))
    assert {entry.key: entry.value for entry in after.metadata_props} == {"character": "壹\n贰\n叁", "note": ""}
    assert (after.producer_name, after.doc_string, after.graph.name) == ("maker", "words", "net")
    assert [node.name for node in after.graph.node] == ["Div_a/HardSwish", "Div_y/HardSwish"]
    assert [after.graph.input[0].name, after.graph.output[0].name] == ["x", "y"]


def test_the_same_input_gives_the_same_bytes(bench):
    path = bench.text(GATES)
    first = bench.fix(path)
    data = first.model.path.read_bytes()
    shutil.rmtree(first.provenance.folder)
    assert bench.fix(path).model.path.read_bytes() == data


def test_nodes_without_names_or_with_the_same_are_told_apart(bench):
    import onnx

    proto = onnx.load(str(bench.text(GATES)))
    for node in proto.graph.node:
        node.name = ""
    fixed = bench.fix(bench.save(proto))
    assert [change.id for change in fixed.changes if "merge" in change.rule] == ["merge-hardswish:Div_0",
                                                                               "merge-hardswish:Div_1"]
    for node in proto.graph.node:
        node.name = "same" if node.op_type == "Div" else ""
    rows = applicable(bench.save(proto), "onnxruntime")  # ONNX Runtime refuses to load it
    assert [row[1] for row in rows if row[0] == "merge-hardswish"] == ["same", "same_0"]


def test_a_stored_result_comes_back_whole_and_follows_its_inputs(bench):
    path = bench.text(GATES)
    fixed = bench.fix(path)
    assert bench.fix(path) == fixed
    assert kit.record.load(type(fixed), fixed.provenance.folder) == fixed
    feeds = [{"x": np.ones((1, 4, 6, 6), np.float32)}]
    other = bench.fix(path, samples=feeds)
    assert other.provenance.key != fixed.provenance.key
    assert other.checked_on == "1 samples: x [1, 4, 6, 6]"
    fixed.model.path.write_bytes(b"changed")
    with pytest.raises(kit.StaleResult):
        kit.fix(fixed, runs=bench.folder / "runs")


def test_samples_that_do_not_fit_the_sizes_asked_for_are_passed_over(bench):
    path = bench.text("{i = Identity(x) y = Relu(i)}")
    fixed = bench.fix(path, samples=[{"x": np.ones((1, 4, 6, 6), np.float32)}], shapes=("x=2,4,6,6",))
    assert "None of 1 samples fits" in fixed.notes[0]
    assert fixed.checked_on == "2 made-up inputs: x [2, 4, 6, 6]"


def test_a_sample_for_an_input_that_is_not_there_is_named(bench):
    with pytest.raises(kit.BadInput, match="no input named 'image'"):
        bench.fix(bench.text(GATES), samples=[{"image": np.ones((1, 4, 6, 6), np.float32)}])


def test_weights_beside_the_file_stay_beside_it(bench):
    import onnx

    body = "<float[6] unused={1.0,1.0,1.0,1.0,1.0,1.0}> {i = Identity(x) y = Relu(i)}"
    proto = onnx.load(str(bench.text(body, inputs="float[N,64] x", outputs="float[N,64] y")))
    big = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), "big")
    proto.graph.initializer.append(big)
    proto.graph.node[0].op_type = "MatMul"
    proto.graph.node[0].input.append("big")
    source = bench.folder / "apart" / "net.onnx"
    source.parent.mkdir()
    onnx.save(proto, str(source), save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = (source.parent / "weights.bin").read_bytes()
    fixed = bench.fix(source, rules=("drop-unused",))
    data = fixed.model.path.with_name("net.onnx.data")
    assert data.stat().st_size >= big.ByteSize() - 100
    assert fixed.model.path.stat().st_size < 2000
    assert (source.parent / "weights.bin").read_bytes() == before
    bench.same_answers(source, fixed.model.path)
    again = bench.fix(fixed.model, rules=("drop-unused",))
    assert again.changes == ()
    bench.same_answers(source, again.model.path)


def test_a_model_that_onnxruntime_cannot_run_is_said_so_and_can_be_fixed_unmeasured(bench):
    path = bench.text("{i = Identity(x) y = com.acme.Thing(i)}", domains=', "com.acme": 1')
    with pytest.raises(kit.UnsupportedModel, match="cannot load"):
        bench.fix(path)
    fixed = bench.fix(path, check=False)
    assert fixed.operators_after == {"com.acme.Thing": 1}
    assert fixed.checked_on == ""
    assert "answers not compared" in fixed.title()


def test_a_file_that_is_cut_off_or_missing_is_named(bench):
    path = bench.text(GATES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(kit.BadInput, match=r"net\.onnx"):
        bench.fix(path)
    with pytest.raises(kit.BadInput, match=r"gone\.onnx"):
        bench.fix(bench.folder / "gone.onnx")


def test_a_model_of_another_format_is_told_what_this_stage_takes(bench):
    (bench.folder / "net.xml").write_text("<net/>")
    (bench.folder / "net.bin").write_bytes(b"")
    for stage in (bench.fix, kit.fix, applicable):
        with pytest.raises(kit.BadInput, match=r"works on ONNX; .*net\.xml is an OpenVINO model") as caught:
            stage(bench.folder / "net.xml")
        assert "give the ONNX model" in caught.value.remedy


def test_cancelling_leaves_nothing_behind(bench):
    def report(tick) -> None:
        if "merge-hardswish" in tick.note:
            raise kit.Cancelled

    with pytest.raises(kit.Cancelled):
        kit.fix(bench.text(GATES), runs=bench.folder / "runs", report=report)
    assert list((bench.folder / "runs").rglob("*.onnx")) == []


def test_the_audit_sees_what_the_fix_would_do(bench):
    path = bench.text(GATES)
    found = applicable(path, "onnxruntime")
    assert [row for row in found if not row[2]] == [
        (change.rule, change.node, "") for change in bench.fix(path).changes]
    swish = applicable(bench.text("{s = Sigmoid(x) y = Mul(x, s)}"), "onnxruntime")
    assert [(rule, node) for rule, node, reason in swish if "QuickGelu" in reason] == [("merge-swish", "Mul_y")]


def test_every_rule_is_in_the_table_once_and_explains_itself():
    names = [rule.name for module in table._MODULES for rule in module.RULES]
    assert sorted(names) == sorted(RULES)
    assert all(rule.because.endswith(".") for rule in RULES.values())
    for target in table.DEFAULTS:
        assert set(default_rules(target)) <= set(RULES)


def test_the_stage_runs_in_a_worker(bench):
    fixed = kit.worker.run(kit.fix, bench.text(GATES), options=kit.FixOptions(), runs=bench.folder / "runs")
    assert fixed.operators_after == {"HardSwish": 2}


def test_the_chart_says_what_changed(bench):
    from kit.charts.graph import operator_counts

    chart = operator_counts(bench.fix(bench.text(GATES)))
    assert "9 nodes and 2" in chart.alt
    assert "HardSwish 0 to 2" in chart.alt
    assert [list(trace.x) for trace in chart.figure.data] == [[2, 2, 2, 2, 0, 1], [0, 0, 0, 0, 2, 0]]
    assert chart.png().startswith(b"\x89PNG")


def test_a_rule_that_crashes_while_it_only_looks_costs_that_place_and_ends(bench, monkeypatch):
    def matches(node, setting) -> bool:
        if node.name == "Relu_b":
            raise ValueError("no such thing")
        return is_op(node, "Relu")

    use(monkeypatch, dataclasses.replace(wrong(""), matches=matches))
    path = bench.text(RELUS)
    fixed = bench.fix(path, rules=("wrong-relu",))
    assert [(refused.node, refused.reason) for refused in fixed.rejected] == [
        ("Relu_b", "the rule failed: ValueError('no such thing')")]
    assert len(fixed.changes) == 3
    assert fixed.left_alone == ()
    bench.same_answers(path, fixed.model.path)
