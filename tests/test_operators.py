"""The audit: what it counts, what it finds, and that it finds all of it at once."""

import csv
import io
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import DOUBLE, FLOAT, INT64, line, node, save

from kit import operators
from kit.errors import BadInput
from kit.inspection.costs import cost
from kit.inspection.graph import graph_of
from kit.operators import Audit, AuditOptions, audit
from kit.record import find


def costs_of(path, bind=()):
    return {n.name: cost(n) for n in graph_of(path, bind).nodes}


def findings(made, words):
    return [f for f in made.findings if words in f.what]


# ---- what it counts -----------------------------------------------------------------------------------------------


def test_a_convolution_costs_its_kernel_at_every_output(tmp_path):
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=2),
                weights={"w": np.ones((6, 2, 3, 3), np.float32)})
    made = costs_of(path)["y"]
    assert made.macs == (1 * 6 * 8 * 8) * (2 * 3 * 3)
    assert made.flops == 2 * made.macs
    assert made.parameters == 6 * 2 * 9
    assert made.bytes == 4 * (4 * 64 + 108 + 6 * 64)


def test_a_transposed_convolution_costs_its_kernel_at_every_input(tmp_path):
    path = line(tmp_path / "m.onnx", node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], kernel_shape=[2, 2]),
                weights={"w": np.ones((4, 3, 2, 2), np.float32)})
    assert costs_of(path)["y"].macs == (4 * 8 * 8) * (3 * 2 * 2)


def test_matrix_products_and_recurrent_layers_are_counted(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["m"]),
             node("Gemm", ["m", "g"], ["h"], transB=1),
             node("Unsqueeze", ["h", "first"], ["steps"]),
             node("LSTM", ["steps", "lw", "lr"], ["y"], hidden_size=3)]
    path = line(tmp_path / "m.onnx", *nodes, shape=(5, 4), weights={
        "w": np.ones((4, 7), np.float32), "g": np.ones((6, 7), np.float32), "first": np.int64([1]),
        "lw": np.ones((1, 12, 6), np.float32), "lr": np.ones((1, 12, 3), np.float32)})
    made = costs_of(path)
    assert made["m"].macs == 5 * 7 * 4
    assert made["h"].macs == 5 * 6 * 7
    assert made["y"].macs == 5 * 1 * 4 * 3 * (6 + 3)
    assert made["steps"].flops == 0


@pytest.mark.parametrize(("nodes", "flops"), [
    ([node("Relu", ["x"], ["y"])], 256),
    ([node("Softmax", ["x"], ["y"])], 4 * 256),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], 64 * 4),
    ([node("GlobalAveragePool", ["x"], ["y"])], 256),
    ([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], 0),
])
def test_other_operators_follow_the_stated_convention(tmp_path, nodes, flops):
    assert costs_of(line(tmp_path / "m.onnx", *nodes))["y"].flops == flops


def test_totals_and_rows_add_up(tiny_onnx, tmp_path):
    made = audit(tiny_onnx, AuditOptions(bind=("x=1,3,16,16",)), runs=tmp_path)
    assert made.total_flops == sum(row.flops for row in made.operators) == sum(row.flops for row in made.nodes)
    assert made.total_parameters == 8 * 3 * 9 + 1 * 8 * 9 + 4 * 8
    assert {row.operator: row.count for row in made.operators} == {
        "Conv": 2, "BatchNormalization": 1, "Relu": 1, "Sigmoid": 1}
    assert made.operators[0].operator == "Conv"
    assert made.operators[0].shapes == "1x3x16x16, 8x3x3x3 -> 1x8x16x16"


# ---- sizes and shapes ---------------------------------------------------------------------------------------------


def test_open_axes_get_a_usual_size_which_is_said(tiny_onnx, tmp_path):
    made = audit(tiny_onnx, runs=tmp_path)
    assert made.bound == {"x": "1x3x640x640"}
    assert made.defaulted
    assert "chosen here" in str(made)
    bound = audit(tiny_onnx, AuditOptions(bind=("H=32", "W=64", "N=2")), runs=tmp_path)
    assert bound.bound == {"x": "2x3x32x64"}
    assert not bound.defaulted


def test_a_size_that_fits_is_found_among_the_usual_ones(tmp_path):
    # A head that is made for pictures of 48 rows: 640 cannot be inferred, the line of text can.
    nodes = [node("AveragePool", ["x"], ["p"], kernel_shape=[48, 1]), node("Squeeze", ["p", "two"], ["q"]),
             node("MatMul", ["q", "w"], ["y"])]
    path = line(tmp_path / "m.onnx", *nodes, shape=("N", 3, "H", "W"),
                weights={"two": np.int64([2]), "w": np.ones((320, 5), np.float32)})
    assert graph_of(path).bound == {"x": (1, 3, 48, 320)}


def test_computed_shapes_are_followed_through_slices_casts_and_reshapes(tmp_path):
    nodes = [node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two", "zero", "one"], ["batch"]),
             node("Cast", ["batch"], ["c"], to=6), node("Cast", ["c"], ["b"], to=7),
             node("Slice", ["s", "m1", "m9", "zero", "m1"], ["reversed"]),
             node("Concat", ["b", "rest"], ["wanted"], axis=0), node("Reshape", ["x", "wanted"], ["y"])]
    path = line(tmp_path / "m.onnx", *nodes, weights={
        "zero": np.int64([0]), "one": np.int64([1]), "two": np.int64([2]), "m1": np.int64([-1]), "m9": np.int64([-9]),
        "rest": np.int64([-1])})
    graph = graph_of(path)
    assert graph.unknown == 0
    assert graph.nodes[-1].outputs[0].shape == (4, 64)


def test_a_size_that_contradicts_the_model_or_a_wrong_name_is_refused(tiny_onnx, tmp_path):
    with pytest.raises(BadInput, match=r"\[1, 4, 8, 8\]"):
        audit(tiny_onnx, AuditOptions(bind=("x=1,4,8,8",)), runs=tmp_path)
    with pytest.raises(BadInput, match="no input or axis named 'y'"):
        audit(tiny_onnx, AuditOptions(bind=("y=1,3,8,8",)), runs=tmp_path)
    with pytest.raises(BadInput, match="not a name and sizes"):
        audit(tiny_onnx, AuditOptions(bind=("x=big",)), runs=tmp_path)


def test_nodes_inside_branches_and_loops_are_audited_too(tmp_path):
    def branch(name, operator):
        return helper.make_graph([helper.make_node(operator, ["x"], [name], name=f"{name}_{operator}")], name, [],
                                 [helper.make_tensor_value_info(name, FLOAT, None)])

    path = save(tmp_path / "m.onnx", [
        node("If", ["go"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Sigmoid"))],
        {"x": (FLOAT, [1, 4]), "go": (TensorProto.BOOL, [])}, {"y": (FLOAT, None)})
    made = audit(path, runs=tmp_path)
    assert {row.operator for row in made.operators} == {"If", "Relu", "Sigmoid"}
    assert {row.operator: row.state for row in made.operators}["If"] == "supported"


# ---- what it finds ------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """A model with a dozen different faults."""
    weight = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
        node("Mystery", ["a"], ["b"], "mystery", "my.domain"),
        node("Frobnicate", ["a"], ["c"], "frobnicate"),
        node("Cast", ["a"], ["d"], "cast", to=TensorProto.DOUBLE),
        node("Conv", ["d", "wd"], ["e"], "double"),
        node("Relu", ["a"], ["f"], "dead"),
        node("Shape", ["a"], ["g"], "shape"),
    ]
    return save(tmp_path / "broken.onnx", nodes, {"x": (FLOAT, ["N", 4, "H", "W"])},
                {"b": (FLOAT, ["A"]), "c": (FLOAT, ["B"]), "e": (DOUBLE, ["C"]), "g": (INT64, [4])},
                {"w": weight, "again": weight, "wd": np.ones((4, 8, 3, 3)), "nan": np.full(300, np.nan, np.float32)},
                domains={"my.domain": 1})


def test_every_defect_is_found_in_one_run(broken, tmp_path):
    made = audit(broken, runs=tmp_path)
    assert not made
    said = "\n".join(f"{f.severity} {f.operator} {f.what}" for f in made.findings)
    for words in ("error my.domain::Mystery the domain my.domain is not part of the runtime",
                  "error Frobnicate the installed runtime does not know it",
                  "error Conv no kernel for float64", "1 weight with NaN", "2 initializers used by no node",
                  "1 weight with the same content", "1 node leading to no output", "1 node in float64",
                  "outside the ONNX standard: my.domain", "dynamic axes: x[0] (N), x[2] (H), x[3] (W)",
                  "No Op registered for Frobnicate", "the runtime cannot load the model"):
        assert words in said, words
    assert findings(made, "no kernel for float64")[0].nodes == ("double",)
    assert made.findings == tuple(sorted(made.findings, key=lambda f: ("error", "warning", "note").index(f.severity)))


def test_every_finding_says_who_says_so(broken, tmp_path):
    import onnxruntime

    for target in ("onnxruntime", "ascend310p3"):
        made = audit(broken, AuditOptions(target=target), runs=tmp_path)
        assert all(f.source for f in made.findings)
        assert all(f.fix or f.advice for f in made.findings if f.severity == "error")
    by_runtime = [f for f in audit(broken, runs=tmp_path).findings if f.operator == "Frobnicate"]
    assert f"onnxruntime {onnxruntime.__version__} on this machine" in {f.source for f in by_runtime}


def test_a_sound_model_has_nothing_in_the_way(tiny_onnx, tmp_path):
    made = audit(tiny_onnx, runs=tmp_path)
    assert made
    assert made.ok
    assert not made.of("error") + made.of("warning")
    assert "nothing in the way" in made.title()


def test_the_checker_reports_every_faulty_node(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Relu", ["x"], ["a"], alpha=1.0), node("Elu", ["a"], ["b"], slope=2.0)],
                {"x": (FLOAT, [4])}, {"b": (FLOAT, [4])})
    made = audit(path, runs=tmp_path)
    assert {f.nodes for f in made.findings if f.source.startswith("onnx.checker")} == {("a",), ("b",)}


def test_an_ir_version_that_nobody_here_reads_is_an_error(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), ir_version=99)
    made = audit(path, runs=tmp_path)
    newer = findings(made, "IR version 99 is newer than")
    assert [f.severity for f in newer] == ["error", "warning"]
    assert (newer[0].fix, newer[0].asked) == ("", "lower-ir-version with ir_version=10")
    assert made.operators[0].state == "supported", "the operator itself is fine"


def test_an_opset_newer_than_the_runtime_is_an_error(tmp_path):
    made = audit(line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), opset=999), runs=tmp_path)
    assert not made
    assert findings(made, "opset 999 is outside 7 to")


def test_half_precision_on_a_cpu_is_partly_supported(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Conv", ["x", "w"], ["y"])], {"x": (10, [1, 4, 8, 8])}, {"y": (10, None)},
                {"w": np.ones((4, 4, 3, 3), np.float16)})
    row = audit(path, runs=tmp_path).operators[0]
    assert row.state == "partly"
    assert "casts to float32" in row.reasons[0]


def test_nodes_of_constants_and_nodes_that_compute_shapes_are_told_apart(tmp_path):
    nodes = [node("Identity", ["rest"], ["constant"]), node("Shape", ["x"], ["shape"]),
             node("Gather", ["shape", "zero"], ["batch"]), node("Concat", ["batch", "constant"], ["wanted"], axis=0),
             node("Reshape", ["x", "wanted"], ["y"])]
    path = line(tmp_path / "m.onnx", *nodes, shape=("N", 4, 8, 8), weights={
        "rest": np.int64([-1]), "zero": np.int64([0])})
    for target, severity in (("onnxruntime", "note"), ("ascend310p3", "warning")):
        made = audit(path, AuditOptions(target=target), runs=tmp_path)
        folding, = findings(made, "with constants only for inputs")
        computing, = findings(made, "computing shapes in int64 at every run")
        assert (folding.nodes, folding.fix) == (("constant",), "drop-identity")
        assert computing.nodes == ("shape", "batch", "wanted")
        assert (computing.fix, computing.asked) == ("", 'fix-shapes with shapes=("x=1,4,8,8",)')
        assert computing.severity == severity


def test_the_fix_rules_say_what_they_would_do(tiny_onnx, tmp_path):
    made = audit(tiny_onnx, runs=tmp_path)
    rules = {row.rule: row for row in made.rules}
    assert rules["fold-batchnorm"].edits == 1
    assert rules["fold-batchnorm"].because
    assert {row.operator: row.fix for row in made.operators}["BatchNormalization"] == "fold-batchnorm"
    assert not audit(tiny_onnx, AuditOptions(rules=False), runs=tmp_path).rules


def test_a_rule_that_trips_costs_only_its_own_answer(tiny_onnx, tmp_path, monkeypatch):
    def trip(*_):
        raise RuntimeError("a strange node")

    monkeypatch.setattr("kit.graph.asking.apply", trip)
    made = audit(tiny_onnx, runs=tmp_path)
    assert made
    assert findings(made, "could not be asked: RuntimeError: a strange node")


def test_rules_that_read_every_weight_are_not_asked_about_a_large_model(tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.inspection.repairs.LARGE", 10)
    made = audit(tiny_onnx, runs=tmp_path)
    assert findings(made, "fold-batchnorm, fold-affine, merge-initializers were not asked: they read every weight")
    assert "fold-batchnorm" not in {row.rule for row in made.rules}


def test_a_rule_that_does_not_exist_is_never_named(broken, tmp_path):
    rules = pytest.importorskip("kit.graph").RULES
    from kit.targets.ascend import MISSING_FIXES

    named = {f.fix for target in ("onnxruntime", "ascend310p3")
             for f in audit(broken, AuditOptions(target=target), runs=tmp_path).findings if f.fix}
    assert named
    assert named | set(MISSING_FIXES.values()) <= set(rules)


def test_a_rule_is_named_only_where_it_repairs_and_its_reason_where_it_does_not(tmp_path):
    even, odd = (node("Split", [name], [f"{name}0", f"{name}1", f"{name}2"], f"split_{name}", axis=1, num_outputs=3)
                 for name in ("known", "open"))
    cut = node("Slice", ["x", "zero", "end", "one"], ["open"], "cut")
    path = save(tmp_path / "m.onnx", [node("Relu", ["x"], ["known"], ""), cut, even, odd],
                {"x": (FLOAT, [2, 7]), "end": (INT64, [1])},
                {f"{name}{at}": (FLOAT, None) for name in ("known", "open") for at in range(3)},
                {"zero": np.int64([0]), "one": np.int64([1])}, opset=18)
    made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
    by_node = {f.nodes: f for f in made.findings if "num_outputs=3" in f.what}
    assert by_node[("split_known",)].fix == "plain-split"
    rows = {row.operator: row for row in made.operators}
    assert "plain-split" in rows["Split"].fix
    assert "size of axis 1 of open is not known" in {row.rule: row for row in made.rules}["plain-split"].reason


def test_what_a_rule_cannot_repair_carries_its_reason(tmp_path):
    path = line(tmp_path / "m.onnx", node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="ceil"),
                weights={"s": np.float32([1, 1, 2, 2])})
    found, = findings(audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path), "does not read nearest_mode")
    assert (found.fix, found.asked) == ("", "")
    assert found.left.startswith("plain-resize: no form that ATC reads takes the same pixels")
    assert f"no rule repairs it ({found.left})" in found.row()[4]


def test_an_edit_that_was_taken_back_is_not_named_again(tmp_path):
    import kit
    from kit.graph import Rejected

    random = np.random.default_rng(0)
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3]),
                node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"]), weights={
                    "w": random.normal(size=(4, 4, 3, 3)).astype(np.float32), "v": np.full(4, 9.79e7, np.float32),
                    **{name: random.normal(size=4).astype(np.float32) for name in "sbm"}})
    options = AuditOptions(target="ascend310p3")
    fixed = kit.fix(path, kit.FixOptions(target="ascend310p3", skip=("fold-batchnorm",)), runs=tmp_path)
    fixed = replace(fixed, rejected=(Rejected("fold-batchnorm:y", "fold-batchnorm", "y", 1.0, "it moves the answer"),))
    found, = findings(audit(fixed, options, runs=tmp_path), "more than float16 can")
    assert (found.nodes, found.fix) == (("v",), "")
    assert found.left == "fold-batchnorm: kit.fix took it back: it moves the answer"
    alone, = findings(audit(fixed.model, options, runs=tmp_path), "more than float16 can")
    assert alone.fix == "fold-batchnorm", "a file does not know what was tried"


def test_a_rule_that_knows_better_silences_a_finding(tmp_path):
    # Of the indices a Gather alone makes use, and it takes int32 as well: the rule says so, and nothing looks at them.
    unread = line(tmp_path / "a.onnx", node("TopK", ["x", "k"], ["y", "unread"]), weights={"k": np.int64([2])})
    read = line(tmp_path / "b.onnx", node("TopK", ["x", "k"], ["v", "at"]), node("Cast", ["at"], ["y"], to=6),
                result=6, weights={"k": np.int64([2])})
    for path in (unread, read):
        made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
        assert not findings(made, "indices are int32")


def test_nodes_without_a_name_meet_their_rules_too(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["x"], ["a"]), helper.make_node("Transpose", ["a"], ["y"])], "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 2])], [helper.make_tensor_value_info("y", FLOAT, [1, 2])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              str(tmp_path / "m.onnx"))
    made = audit(tmp_path / "m.onnx", AuditOptions(target="ascend310p3"), runs=tmp_path)
    found, = findings(made, "perm must be written out")
    assert found.nodes == ("Transpose -> a", "Transpose -> y")
    assert found.fix in {row.rule for row in made.rules if row.edits}


def test_without_the_rules_their_names_are_kept_as_guesses(tmp_path):
    path = line(tmp_path / "m.onnx", node("Transpose", ["x"], ["y"]), shape=("N", 4, 8, 8))
    made = audit(path, AuditOptions(target="ascend310p3", rules=False), runs=tmp_path)
    assert findings(made, "perm must be written out")[0].fix == "plain-attributes"
    assert findings(made, "dynamic axis")[0].asked == 'fix-shapes with shapes=("x=1,4,8,8",)'


# ---- as a stage ---------------------------------------------------------------------------------------------------


def test_an_audit_is_stored_found_again_and_instant(tiny_onnx, tmp_path, monkeypatch):
    ticks = []
    made = audit(tiny_onnx, runs=tmp_path, report=ticks.append)
    assert ticks[-1].done == ticks[-1].total
    assert all(tick.note for tick in ticks)
    monkeypatch.setattr(operators, "graph_of", lambda *_: pytest.fail("it was audited again"))
    assert audit(tiny_onnx, runs=tmp_path) == made
    assert find(Audit, "audit", "tiny", tmp_path) == [made]


def test_another_target_or_another_file_is_another_audit(tiny_onnx, tmp_path):
    keys = {audit(tiny_onnx, AuditOptions(target=name), runs=tmp_path).provenance.key
            for name in ("onnxruntime", "ascend310p3", "ascend910b3")}
    proto = onnx.load(str(tiny_onnx))
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
    onnx.save(proto, str(tiny_onnx))
    keys.add(audit(tiny_onnx, runs=tmp_path).provenance.key)
    assert len(keys) == 4


def test_an_unknown_target_is_answered_with_the_closest():
    with pytest.raises(BadInput, match="ascend310p4") as caught:
        AuditOptions(target="ascend310p4")
    assert "ascend310p3" in caught.value.remedy


def test_a_truncated_file_is_named(tiny_onnx, tmp_path):
    tiny_onnx.write_bytes(tiny_onnx.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"tiny\.onnx"):
        audit(tiny_onnx, runs=tmp_path)


def test_a_paddle_folder_is_sent_to_export_first(tmp_path):
    (tmp_path / "inference.json").write_text('{"base_code": {}}')
    (tmp_path / "inference.pdiparams").write_bytes(b"")
    with pytest.raises(BadInput, match="audit works on ONNX") as caught:
        audit(tmp_path, runs=tmp_path / "runs")
    assert "kit.export" in caught.value.remedy


def test_missing_external_weights_are_named(tiny_onnx, tmp_path):
    onnx.save(onnx.load(str(tiny_onnx)), str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.data",
              size_threshold=0)
    (tmp_path / "big.data").unlink()
    with pytest.raises(BadInput, match=r"big\.data"):
        audit(tmp_path / "big.onnx", runs=tmp_path)


def test_external_weights_are_left_on_the_disk(tmp_path):
    import psutil

    # 512 MB of weights that exist only as a hole in a file: reading them would show.
    weights = []
    with (tmp_path / "big.data").open("wb") as stream:
        stream.truncate(8 * 4096 * 4096 * 4)
    for at in range(8):
        tensor = TensorProto(name=f"w{at}", data_type=FLOAT, dims=[4096, 4096], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "big.data"), ("offset", at * 4096 * 4096 * 4), ("length", 4096 * 4096 * 4)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
    path = line(tmp_path / "big.onnx", *[node("MatMul", [f"y{at - 1}" if at else "x", f"w{at}"], [f"y{at}"])
                                         for at in range(8)], shape=(1, 4096))
    proto = onnx.load(str(path))
    proto.graph.initializer.extend(weights)
    onnx.save(proto, str(path))
    before = psutil.Process().memory_info().rss
    graph = graph_of(path)
    assert psutil.Process().memory_info().rss - before < 100_000_000
    assert sum(cost(n).macs for n in graph.nodes) == 8 * 4096 * 4096
    assert audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path).weight_bytes == 8 * 4096 * 4096 * 4


def test_tables_can_be_taken_as_csv_and_html(broken, tmp_path):
    made = audit(broken, runs=tmp_path)
    rows = list(csv.DictReader(io.StringIO(made.csv("operators"))))
    assert [row["operator"] for row in rows] == [row.operator for row in made.operators]
    assert len(list(csv.DictReader(io.StringIO(made.csv("nodes"))))) == len(made.nodes)
    assert len(list(csv.DictReader(io.StringIO(made.csv("findings"))))) == len(made.findings)
    assert ">Findings</caption>" in made.html()
    with pytest.raises(BadInput, match="no table named 'node'"):
        made.csv("node")


def test_the_stage_runs_in_a_worker(tiny_onnx, tmp_path):
    from kit import worker

    made = worker.run(audit, tiny_onnx, AuditOptions(target="ascend310p3"), runs=tmp_path, pass_report=True)
    assert made.target == "ascend310p3"


def test_the_chart_marks_support_in_words_and_pattern(broken, tmp_path):
    from kit.charts import operator_support

    chart = operator_support(audit(broken, runs=tmp_path))
    assert "Not supported:" in chart.alt
    assert "Frobnicate" in chart.alt
    words = [text for trace in chart.figure.data for text in trace.text]
    assert any("not supported" in text for text in words)
    patterns = {trace.name: trace.marker.pattern.shape for trace in chart.figure.data}
    assert patterns["not supported"] != patterns["supported"]
    assert chart.png().startswith(b"\x89PNG")
