"""Merged activations, in the forms in which exporters write them."""

from __future__ import annotations

import pytest

SIX = "<float three={3.0}, float low={0.0}, float high={6.0}, float six={6.0}, float sixth={0.16666667}, " \
      "float[1] three1={3.0}, float[1] six1={6.0}>"
HARDSWISH = {
    "paddle2onnx: (x * clip(x + 3)) / 6": "{t = Add(x, three) c = Clip(t, low, high) m = Mul(x, c) y = Div(m, six)}",
    "torch: x * (clip(x + 3) / 6)": "{t = Add(x, three) c = Clip(t, low, high) d = Div(c, six) y = Mul(x, d)}",
    "tf2onnx: (x * 1/6) * clip(3 + x)": "{t = Add(three, x) c = Clip(t, low, high) m = Mul(sixth, x) y = Mul(m, c)}",
    "scalars of shape [1]": "{t = Add(x, three1) c = Clip(t, low, high) m = Mul(c, x) y = Div(m, six1)}",
    "Relu6 as Min and Max": "{t = Add(x, three) a = Max(t, low) c = Min(a, high) m = Mul(x, c) y = Div(m, six)}",
    "Relu6 as Min of Relu": "{t = Add(x, three) a = Relu(t) c = Min(high, a) m = Mul(x, c) y = Div(m, six)}",
    "Sub of -3": "{n = Neg(three) t = Sub(x, n) c = Clip(t, low, high) m = Mul(x, c) y = Div(m, six)}",
    "HardSigmoid": "{h = HardSigmoid <alpha: float = 0.16666667, beta: float = 0.5> (x) y = Mul(h, x)}",
    "of a scaled x": "{s = Mul(x, six) t = Add(s, three) c = Clip(t, low, high) m = Mul(s, c) y = Div(m, six)}",
}


@pytest.mark.parametrize("form", HARDSWISH)
def test_every_form_of_hardswish_becomes_one_operator(bench, form):
    path = bench.text(SIX + HARDSWISH[form])
    rules = ("fold-constants", "merge-hardswish") if "Sub" in form else ("merge-hardswish",)
    fixed = bench.promises(path, "merge-hardswish", rules=rules)
    assert fixed.operators_after == ({"HardSwish": 1, "Mul": 1} if "scaled" in form else {"HardSwish": 1})
    assert fixed.model.outputs[0].name == "y"
    assert "HardSwish" in fixed.changes[-1].what
    assert "quantizer" in fixed.changes[-1].because


def test_a_clip_with_attributes_is_recognised_and_needs_a_later_opset(bench):
    body = SIX + "{t = Add(x, three) c = Clip <min: float = 0.0, max: float = 6.0> (t) m = Mul(x, c) y = Div(m, six)}"
    path = bench.text(body, opset=9, ir_version=6)
    assert "came with opset 14, and this model is of opset 9" in bench.reason(path, "merge-hardswish")
    fixed = bench.promises(path, "merge-hardswish", rules=("raise-opset", "merge-hardswish"), opset=14)
    assert fixed.operators_after == {"HardSwish": 1, "Constant": 2} or fixed.operators_after == {"HardSwish": 1}


def test_a_hardswish_with_other_constants_is_left_alone(bench):
    path = bench.text("{h = HardSigmoid <alpha: float = 0.2, beta: float = 0.5> (x) y = Mul(x, h)}")
    assert "x * clip(0.2 x + 0.5, 0, 1)" in bench.reason(path, "merge-hardswish")


def test_a_gate_on_another_tensor_is_no_hardswish(bench):
    body = "{z = Tanh(x) h = HardSigmoid <alpha: float = 0.16666667, beta: float = 0.5> (z) y = Mul(x, h)}"
    assert bench.fix(bench.text(body), rules=("merge-hardswish",)).left_alone == ()


def test_a_part_that_something_else_reads_stops_the_merge(bench):
    body = SIX + "{t = Add(x, three) c = Clip(t, low, high) m = Mul(x, c) d = Div(m, six) y = Add(d, c)}"
    assert "Clip Clip_c inside it is also read by Add Add_y" in bench.reason(bench.text(body), "merge-hardswish")


def test_a_part_that_is_an_output_stops_the_merge(bench):
    body = SIX + "{t = Add(x, three) c = Clip(t, low, high) m = Mul(x, c) y = Div(m, six)}"
    path = bench.text(body, outputs="float[N,4,6,6] y, float[N,4,6,6] c")
    assert "is an output of the model" in bench.reason(path, "merge-hardswish")


HARDSIGMOID = {
    "clip(x + 3, 0, 6) / 6": "{t = Add(x, three) c = Clip(t, low, high) y = Div(c, six)}",
    "clip(0.2 x + 0.5, 0, 1)": "<float a={0.2}, float b={0.5}, float low={0.0}, float one={1.0}>"
                              "{m = Mul(a, x) t = Add(m, b) y = Clip(t, low, one)}",
    "min(max(x / 6 + 0.5, 0), 1)": "<float d={6.0}, float b={0.5}, float low={0.0}, float one={1.0}>"
                                  "{m = Div(x, d) t = Add(b, m) a = Max(t, low) y = Min(a, one)}",
}


@pytest.mark.parametrize("form", HARDSIGMOID)
def test_every_form_of_hardsigmoid_becomes_one_operator(bench, form):
    body = HARDSIGMOID[form] if "<" in HARDSIGMOID[form] else SIX + HARDSIGMOID[form]
    assert bench.promises(bench.text(body), "merge-hardsigmoid").operators_after == {"HardSigmoid": 1}


def test_a_plain_clip_is_no_hardsigmoid(bench):
    body = "<float low={0.0}, float one={1.0}> {t = Tanh(x) y = Clip(t, low, one)}"
    assert bench.fix(bench.text(body), rules=("merge-hardsigmoid",)).left_alone == ()


def test_a_hardsigmoid_whose_part_is_read_elsewhere_is_left_alone(bench):
    body = SIX + "{t = Add(x, three) c = Clip(t, low, high) d = Div(c, six) y = Mul(d, t)}"
    assert "inside it is also read by Mul Mul_y" in bench.reason(bench.text(body), "merge-hardsigmoid")


def test_the_gate_after_a_convolution_stays_a_hardsigmoid(bench):
    body = "<float[4,4,1,1] w={0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6}, float three={3.0}, " \
           "float low={0.0}, float high={6.0}, float six={6.0}>" \
           "{v = Conv(x, w) t = Add(v, three) c = Clip(t, low, high) y = Div(c, six)}"
    assert bench.fix(bench.text(body)).operators_after == {"Conv": 1, "HardSigmoid": 1}


SWISH = "{s = Sigmoid(x) y = Mul(x, s)}"


def test_swish_is_left_to_onnxruntime_which_merges_it_itself(bench):
    assert "QuickGelu when it loads the model" in bench.reason(bench.text(SWISH), "merge-swish")


def test_swish_needs_opset_24_elsewhere(bench):
    reason = bench.reason(bench.text(SWISH), "merge-swish", target="ascend310p3")
    assert reason.startswith("Swish came with opset 24, and this model is of opset 17")


@pytest.mark.parametrize("body", [SWISH, "<float b={1.5}> {m = Mul(x, b) s = Sigmoid(m) y = Mul(s, x)}"])
def test_swish_is_merged_at_opset_24(bench, body):
    # Below the stage: the onnx of this project checks files up to opset 22.
    from kit.graph import RULES, files
    from kit.graph.rule import Setting, apply

    path = bench.text(body, opset=24, ir_version=10)
    model = files.open_graph(path)
    setting = Setting(model, "ascend310p3")
    edits, _ = apply([RULES["merge-swish"]], setting)
    assert [node.op_type for node in model.graph] == ["Swish"]
    assert len(edits) == 1
    assert apply([RULES["merge-swish"]], setting)[0] == []
    files.write(model, bench.folder / "after.onnx")
    bench.same_answers(path, bench.folder / "after.onnx")


GELU = {
    "torch: (x * (1 + erf(x / 1.4142))) * 0.5": "<float r={1.4142135}, float one={1.0}, float half={0.5}>"
        "{d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)}",
    "x * (0.5 * (1 + erf(x * 0.7071)))": "<float r={0.70710677}, float one={1.0}, float half={0.5}>"
        "{d = Mul(x, r) e = Erf(d) a = Add(one, e) m = Mul(half, a) y = Mul(x, m)}",
    "(0.5 * x) * (1 + erf)": "<float r={1.4142135}, float[1] one={1.0}, float half={0.5}>"
        "{h = Mul(x, half) d = Div(x, r) e = Erf(d) a = Add(e, one) y = Mul(h, a)}",
    "tanh": "<float r={0.7978846}, float one={1.0}, float half={0.5}, float three={3.0}, float c={0.044715}>"
        "{p = Pow(x, three) q = Mul(c, p) s = Add(x, q) d = Mul(r, s) e = Tanh(d) a = Add(e, one) h = Mul(half, a) "
        "y = Mul(x, h)}",
    "tanh, cube by hand": "<float r={0.7978846}, float one={1.0}, float half={0.5}, float c={0.044715}>"
        "{t = Mul(x, x) p = Mul(t, x) q = Mul(p, c) s = Add(q, x) d = Mul(r, s) e = Tanh(d) a = Add(e, one) "
        "h = Mul(x, a) y = Mul(half, h)}",
}  # fmt: skip


@pytest.mark.parametrize("form", GELU)
def test_every_form_of_gelu_becomes_one_operator(bench, form):
    fixed = bench.promises(bench.text(GELU[form], opset=20, ir_version=9), "merge-gelu")
    assert fixed.operators_after == {"Gelu": 1}


def test_gelu_needs_opset_20(bench):
    reason = bench.reason(bench.text(next(iter(GELU.values()))), "merge-gelu")
    assert reason == ("Gelu came with opset 20, and this model is of opset 17: fix it with opset=20 or export it so")
