"""The version of the standard operators: brought down with the older forms written, or left with the first obstacle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.graph import rules_opset
from kit.targets import ascend

NEW = {"opset": 21, "ir_version": 9}
ASCEND = {"target": "ascend310p3"}
ANY = {"outputs": "float[A,B,C,D] y"}


def opset(fixed) -> int:
    return fixed.model.opset


def test_a_model_that_is_too_new_for_atc_is_brought_to_17(bench):
    path = bench.text("<int64[4] n = {0, -1, 2, 3}> {a = Relu(x) b = Transpose <perm: ints = [0, 2, 3, 1]> (a) "
                      "c = Cast <to: int = 1> (b) i = Identity(c) s = Softmax <axis: int = 1> (i) "
                      "y = Reshape <allowzero: int = 0> (s, n)}", **NEW, **ANY)
    fixed = bench.promises(path, "lower-opset", **ASCEND)
    assert opset(fixed) == 17
    assert fixed.changes[0].what == "opset 21 became 17"


OLDER = {
    "reductions": ("<int64[2] at = {-1, 1}, int64[0] none = {}> {a = ReduceMax <keepdims: int = 1> (x, at) "
                   "b = ReduceMean(a, none) y = ReduceSumSquare <noop_with_empty_axes: int = 0> (b)}",
                   "1 ReduceMax, 1 ReduceMean, 1 ReduceSumSquare"),
    "parts": ("{a, b = Split <axis: int = 3, num_outputs: int = 2> (x) y = Add(a, b)}", "1 Split"),
    "pads": ("<int64[2] p = {1, 2}, int64[1] at = {2}> {y = Pad(x, p, , at)}", "1 Pad"),
    "resizing": ("<float[2] s = {2.0, 2.0}> {y = Resize <mode: string = \"linear\", axes: ints = [2, 3], "
                 "antialias: int = 1> (x, , s)}", "1 Resize"),
    "a grid": ("<float[1,2,2,2] g = {0.1, -0.5, 0.7, 0.9, 0.0, 0.3, -0.2, 0.4}> {y = GridSample <mode: string = "
               "\"linear\"> (x, g)}", "1 GridSample"),
}


@pytest.mark.parametrize("case", OLDER)
def test_newer_forms_are_written_in_the_older_way(bench, case):
    body, kinds = OLDER[case]
    inputs = "float[1,4,6,6] x" if case == "a grid" else "float[N,4,6,6] x"
    fixed = bench.promises(bench.text(body, **NEW, **ANY, inputs=inputs), "lower-opset", **ASCEND)
    assert fixed.changes[0].what == f"opset 21 became 17; written in the older form: {kinds}"


OLDEST = {
    "axes and sizes": "<int64[1] at = {1}, int64[2] two = {3, 3}> {a = Unsqueeze(x, at) b = Squeeze(a, at) "
                      "c, d = Split <axis: int = -1> (b, two) e = ReduceSum(c, at) y = Sub(d, e)}",
    "a softmax": "{a = Softmax(x) y = LogSoftmax <axis: int = 3> (a)}",
    "resizing": "<float[4] s = {1.0, 1.0, 2.0, 2.0}> {y = Resize(x, , s)}",
}


@pytest.mark.parametrize("case", OLDEST)
def test_an_older_opset_can_be_asked_for_whatever_the_target(bench, case):
    fixed = bench.promises(bench.text(OLDEST[case], opset=13, **ANY), "lower-opset", opset=11)
    assert opset(fixed) == 11


def test_new_attributes_that_say_nothing_are_left_out(bench):
    path = bench.text("<float[4] s = {1.0, 1.0, 1.3, 1.3}> {y = Resize <antialias: int = 0, keep_aspect_ratio_policy: "
                      'string = "stretch"> (x, , s)}', **NEW, inputs="float[N,4,H,W] x", outputs=ANY["outputs"])
    fixed = bench.promises(path, "lower-opset", **ASCEND)  # though which pixels ATC takes cannot be told here
    assert fixed.changes[0].what == "opset 21 became 17"


def test_it_asks_nothing_of_other_targets_or_of_a_model_in_range(bench):
    assert bench.fix(bench.text("{y = Relu(x)}", **NEW), rules=("lower-opset", "raise-opset")).changes == ()
    for version in (11, 13, 17):
        path = bench.text("{y = Relu(x)}", opset=version)
        assert bench.fix(path, rules=("lower-opset", "raise-opset"), **ASCEND).changes == ()


def test_a_model_that_is_too_old_for_atc_is_raised_to_11(bench):
    path = bench.text("{y = Relu(x)}", opset=9)
    assert opset(bench.promises(path, "raise-opset", target="ascend910b3")) == 11


def test_private_operators_bring_a_model_to_16(bench):
    path = bench.text("{a = BatchMultiClassNMS(x) y = Relu(x)}", **NEW)
    fixed = bench.fix(path, rules=("lower-opset",), check=False, **ASCEND)
    assert opset(fixed) == 16


BLOCKED = {
    "Gelu": ("{y = Gelu(x)}", "Gelu Gelu_y has no equal form at opset 17: the operator came with opset 20"),
    "the first of two": ("{a = Relu(x) b = Mish(a) y = Gelu(b)}", "Mish Mish_b has no equal form at opset 17: the "
                         "operator came with opset 18"),
    "a wrapping pad": ("<int64[8] p = {0,0,1,1,0,0,1,1}> {y = Pad <mode: string = \"wrap\"> (x, p)}", "Pad Pad_y has "
                       "no equal form at opset 17: mode wrap came with opset 19, and no other mode gives the same "
                       "numbers"),
    "computed axes": ("<int64[1] one = {1}> {n = Size(x) at = Reshape(n, one) y = ReduceMean(x, at)}",
                      "ReduceMean ReduceMean_y has no equal form at opset 17: its axes (at) are computed at run time"),
    "nothing to reduce": ("{y = ReduceMean <noop_with_empty_axes: int = 1> (x)}", "ReduceMean ReduceMean_y has no "
                          "equal form at opset 17: without axes it reduces nothing (noop_with_empty_axes), which older "
                          "reductions cannot say"),
    "holes in a pool": ("{y = AveragePool <kernel_shape: ints = [2, 2], dilations: ints = [2, 2]> (x)}", "AveragePool "
                        "AveragePool_y has no equal form at opset 17: attribute dilations=(2, 2) is not there"),
    "another reduction": ("<int64[1,4] i = {0,0,0,0}, float[1] u = {1.0}> {y = ScatterND <reduction: string = "
                          "\"max\"> (x, i, u)}", "ScatterND ScatterND_y has no equal form at opset 17: its "
                          "reduction came with opset 18"),
    "unknown": ("{y = Nonsense(x)}", "Nonsense Nonsense_y has no equal form at opset 17: the installed onnx does not "
                "know the operator"),
}


@pytest.mark.parametrize("case", BLOCKED)
def test_the_first_node_without_an_older_form_is_named(bench, case):
    body, reason = BLOCKED[case]
    assert bench.reason(bench.text(body, **NEW, **ANY), "lower-opset", check=False, **ASCEND) == reason


@pytest.mark.parametrize(("body", "reason"), [
    ("{y = Softmax <axis: int = 1> (x)}", "Softmax Softmax_y has no equal form at opset 11: below opset 13 it would go "
     "over all axes from 1 on together"),
    ("{y = Celu(x)}", "Celu Celu_y has no equal form at opset 11: the operator came with opset 12"),
    ("<float[1,4] r = {0.0, 0.0, 4.0, 4.0}, int64[1] i = {0}> {y = RoiAlign (x, r, i)}", "RoiAlign RoiAlign_y "
     "has no equal form at opset 11: coordinate mode half_pixel came with opset 16"),
    ("{b = Cast <to: int = 16> (x) c = Abs(b) y = Cast <to: int = 1> (c)}", "Cast Cast_b has no equal form at opset "
     "11: type bfloat16 is not there for output output"),
    ("{a = HardSwish(x) y = Relu(a)}", "HardSwish HardSwish_a has no equal form at opset 11: the operator came with "
     "opset 14")])
def test_far_down_there_is_more_that_has_no_form(bench, body, reason):
    path = bench.text(body, opset=16, outputs=ANY["outputs"])
    assert bench.reason(path, "lower-opset", check=False, opset=11) == reason


def test_what_another_rule_splits_goes_first_and_the_rest_follows(bench):
    path = bench.text("<int64[2] at = {2, 3}, float[4] s = {1.0, 2.0, 0.5, 1.0}, float[4] b = {0.0, 0.1, 0.2, 0.3}> "
                      "{g = GroupNormalization <num_groups: int = 2> (x, s, b) h = Gelu(g) m = Mish(h) "
                      "y = ReduceMean(m, at)}", **NEW, **ANY)
    fixed = bench.fix(path, target="Ascend910B3")
    assert fixed.model.opset == 17
    assert {"split-groupnorm", "split-gelu", "split-mish", "lower-opset"} <= set(fixed.counts())
    assert not set(fixed.operators_after) - set(ascend.facts("operators")["operators"])
    bench.same_answers(path, fixed.model.path)
    again = bench.fix(fixed.model.path, target="ascend910b3")
    assert again.changes == ()


def test_every_change_of_form_between_11_and_today_is_known():
    """An operator whose inputs or defaults changed must be in CHANGES, or be caught by comparing its schemas."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    moved = set()
    for schema in onnx.defs.get_all_schemas():
        versions = sorted({s.since_version for s in onnx.defs.get_all_schemas_with_history()
                           if (s.name, s.domain) == (schema.name, "") and s.since_version <= newest})
        for older, newer in itertools.pairwise(versions):
            if newer <= 11:
                continue
            before, after = (onnx.defs.get_schema(schema.name, version) for version in (older, newer))
            defaults = {name: (str(a.default_value), str(before.attributes[name].default_value))
                        for name, a in after.attributes.items() if name in before.attributes}
            if any(new != old for new, old in defaults.values()) or set(before.attributes) - set(after.attributes):
                moved.add(schema.name)
    assert moved - {"Dropout"} <= set(rules_opset.CHANGES)  # Dropout's new inputs are more than the older one takes


REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceLogSumExp")


@given(kind=st.sampled_from(REDUCTIONS), axes=st.lists(st.integers(-3, 2), max_size=3, unique_by=lambda at: at % 3),
       keep=st.integers(0, 1), given_axes=st.booleans(), lowest=st.sampled_from((11, 13, 17)))
@settings(max_examples=60, deadline=None)
def test_every_reduction_answers_the_same_at_every_opset(kind, axes, keep, given_axes, lowest):
    import onnx
    import onnx_ir as ir
    import onnxruntime as ort

    from kit.graph import RULES
    from kit.graph.inference import infer
    from kit.graph.rule import Setting, apply
    from kit.graph.values import name_nodes

    node = onnx.helper.make_node(kind, ["x", "axes"] if given_axes else ["x"], ["y"], keepdims=keep)
    graph = onnx.helper.make_graph(
        [node], "net", [onnx.helper.make_tensor_value_info("x", 1, [2, 3, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(np.int64(axes), "axes")] if given_axes else [])
    source = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=8)
    model = ir.from_proto(source)
    name_nodes(model)
    infer(model)
    edits, left = apply([RULES["lower-opset"]], Setting(model, opset=lowest))
    assert (len(edits), left, model.opset_imports[""]) == (1, [], lowest)
    answers = [ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": np.random.default_rng(len(axes)).standard_normal((2, 3, 4)).astype(np.float32)})[0]
        for proto in (source, ir.to_proto(model))]
    np.testing.assert_array_equal(*answers)
