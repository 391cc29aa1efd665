"""LayerNormalization merged from its parts."""

from __future__ import annotations

import pytest

WEIGHTS = "<float[6] s={1.0,2.0,0.5,1.5,1.0,-1.0}, float[6] b={0.1,0.2,0.3,0.4,0.5,0.6}, float two={2.0}, " \
          "float e={0.00001}, float half={0.5}, int64[1] last={-1}>"
SHAPES = {"inputs": "float[N,5,6] x", "outputs": "float[N,5,6] y"}
HEAD = "{m = ReduceMean <axes: ints = [-1]> (x) d = Sub(x, m) "
FORMS = {
    "pow, div": HEAD + "q = Pow(d, two) v = ReduceMean <axes: ints = [-1]> (q) a = Add(v, e) r = Sqrt(a) n = Div(d, r) "
        "t = Mul(n, s) y = Add(t, b)}",
    "mul, reciprocal": HEAD + "q = Mul(d, d) v = ReduceMean <axes: ints = [-1]> (q) a = Add(e, v) r = Sqrt(a) "
        "i = Reciprocal(r) n = Mul(i, d) t = Mul(s, n) y = Add(b, t)}",
    "two Subs, axis 2, power of a half": "{m = ReduceMean <axes: ints = [2]> (x) d = Sub(x, m) d2 = Sub(x, m) "
        "q = Pow(d2, two) v = ReduceMean <axes: ints = [2]> (q) a = Add(v, e) r = Pow(a, half) n = Div(d, r) "
        "t = Mul(n, s) y = Add(t, b)}",
    "no bias": HEAD + "q = Pow(d, two) v = ReduceMean <axes: ints = [-1]> (q) a = Add(v, e) r = Sqrt(a) n = Div(d, r) "
        "y = Mul(n, s)}",
    "neither scale nor bias": HEAD + "q = Pow(d, two) v = ReduceMean <axes: ints = [-1]> (q) a = Add(v, e) r = Sqrt(a) "
        "y = Div(d, r)}",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_operator(bench, form):
    fixed = bench.promises(bench.text(WEIGHTS + FORMS[form], **SHAPES), "merge-layernorm")
    assert fixed.operators_after == {"LayerNormalization": 1}


def test_axes_given_as_an_input_are_read(bench):
    body = WEIGHTS + "{m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last) a = Add(v, e) " \
        "r = Sqrt(a) n = Div(d, r) t = Mul(n, s) y = Add(t, b)}"
    fixed = bench.promises(bench.text(body, opset=18, **SHAPES), "merge-layernorm")
    assert fixed.operators_after == {"LayerNormalization": 1}


def test_an_older_opset_is_left_alone(bench):
    reason = bench.reason(bench.text(WEIGHTS + FORMS["pow, div"], opset=13, **SHAPES), "merge-layernorm")
    assert reason.startswith("LayerNormalization came with opset 17, and this model is of opset 13")


def test_a_norm_over_a_middle_axis_is_none(bench):
    body = WEIGHTS + FORMS["pow, div"].replace("-1", "1")
    assert bench.fix(bench.text(body, **SHAPES), rules=("merge-layernorm",)).left_alone == ()


def test_a_norm_without_scale_of_unknown_size_is_left_alone(bench):
    path = bench.text(WEIGHTS + FORMS["neither scale nor bias"], inputs="float[N,5,C] x", outputs="float[N,5,C] y")
    assert bench.reason(path, "merge-layernorm") == "no scale follows it, and the last size of x is not known"


def test_a_norm_whose_deviation_is_read_elsewhere_is_left_alone(bench):
    body = WEIGHTS + FORMS["no bias"].replace("y = Mul(n, s)", "t = Mul(n, s) y = Add(t, d)")
    reason = bench.reason(bench.text(body, **SHAPES), "merge-layernorm")
    assert reason == "Sub Sub_d inside it is also read by Add Add_y"


def test_a_scale_over_other_axes_is_left_alone(bench):
    body = "<float[5,1] w={1.0,2.0,3.0,4.0,5.0}, float two={2.0}, float e={0.00001}>" + FORMS["no bias"].replace(
        "Mul(n, s)", "Mul(n, w)")
    assert "w of shape [5, 1] is not one number for each element normalised" in bench.reason(
        bench.text(body, **SHAPES), "merge-layernorm")
