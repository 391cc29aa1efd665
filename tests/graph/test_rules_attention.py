"""Attention in parts becomes ONNX Runtime's own operator, as both of PyTorch's exporters write it."""

from __future__ import annotations

import pytest

RULE = "fuse-attention"
SHAPES = {"inputs": "float[N,6,32] q, float[N,5,32] k, float[N,5,32] v", "outputs": "float[N,6,32] y"}
HEAD = "<int64[4] split={0,-1,4,8}, int64[4] open={0,6,-1,8}, " \
       "int64[3] join={0,-1,32}, float s={0.6}, float two={2.0}, int64[1] none={-1}, " \
       "int64[1] two1={-2}, int64[1] none1={-1}, int64[1] far={9223372036854775807}, int64[1] start={-1000}, " \
       "int64[4] wrong={0,-1,8,4}, float[1,5] mask={0.0,-1.0,0.0,-9.0,0.0}, " \
       "int64[1] four={4}, int64[1] zero={0}, int64 first={0}, int64 last={2}, int64 heads={4}, float one={1.0}>"
SPLIT = "{q4 = Reshape(q, split) qt = Transpose<perm=[0,2,1,3]>(q4) k4 = Reshape(k, split) " \
        "v4 = Reshape(v, split) vt = Transpose<perm=[0,2,1,3]>(v4) "
REST = "p = Softmax<axis=-1>(a) o = MatMul(p, vt) ot = Transpose<perm=[0,2,1,3]>(o) y = Reshape(ot, join)}"
PLAIN = SPLIT + "kt = Transpose<perm=[0,2,3,1]>(k4) qs = Mul(qt, s) a = MatMul(qs, kt) " + REST
FORMS = {
    "scale on the queries": PLAIN,
    "number of heads left open": PLAIN.replace("Reshape(q, split)", "Reshape(q, open)"),
    "scale on both": SPLIT + "kt = Transpose<perm=[0,2,3,1]>(k4) qs = Mul(qt, s) ks = Mul(s, kt) a = MatMul(qs, ks) "
        + REST,
    "scores divided": SPLIT + "kt = Transpose<perm=[0,2,3,1]>(k4) m = MatMul(qt, kt) a = Div(m, two) " + REST,
    "keys turned twice": SPLIT + "kh = Transpose<perm=[0,2,1,3]>(k4) kt = Transpose<perm=[0,1,3,2]>(kh) "
        "qs = Mul(qt, s) a = MatMul(qs, kt) " + REST,
    "keys by way of three axes": SPLIT + "kh = Transpose<perm=[0,2,1,3]>(k4) sh = Shape(kh) "
        "l = Slice(sh, none, far) m = Slice(sh, two1, none1) b = Slice(sh, start, two1) "
        "f3 = Concat<axis=0>(none, m, l) kf = Reshape(kh, f3) kr = Transpose<perm=[0,2,1]>(kf) "
        "f4 = Concat<axis=0>(b, l, m) kt = Reshape(kr, f4) ks = Mul(kt, s) qs = Mul(qt, s) a = MatMul(qs, ks) " + REST,
    "scale computed, heads divided": "{sh = Shape(k) n = Gather(sh, first) nu = Unsqueeze(n, zero) "
        "c = Gather(sh, last) w = Div(c, heads) wu = Unsqueeze(w, zero) t = Concat<axis=0>(nu, none, four, wu) "
        "q4 = Reshape(q, t) qt = Transpose<perm=[0,2,1,3]>(q4) k4 = Reshape(k, t) kt = Transpose<perm=[0,2,3,1]>(k4) "
        "v4 = Reshape(v, t) vt = Transpose<perm=[0,2,1,3]>(v4) qsh = Shape(qt) l = Slice(qsh, none, far) "
        "lf = Cast<to=1>(l) r = Sqrt(lf) d = Div(one, r) r2 = Sqrt(d) qs = Mul(qt, r2) ks = Mul(kt, r2) "
        "a = MatMul(qs, ks) p = Softmax<axis=-1>(a) o = MatMul(p, vt) ot = Transpose<perm=[0,2,1,3]>(o) "
        "cu = Unsqueeze(c, zero) j = Concat<axis=0>(nu, none, cu) y = Reshape(ot, j)}",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_operator(bench, form):
    fixed = bench.promises(bench.text(HEAD + FORMS[form], **SHAPES), RULE)
    assert fixed.operators_after == {"com.microsoft.MultiHeadAttention": 1}
    assert "4 heads of 8" in fixed.changes[0].what


def test_onnxruntime_does_not_merge_it_by_itself(bench, tmp_path):
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, str(tmp_path / "seen.onnx")
    for form in ("scale on both", "keys by way of three axes"):
        ort.InferenceSession(str(bench.text(HEAD + FORMS[form], **SHAPES)), options,
                             providers=["CPUExecutionProvider"])
        assert "Softmax" in {node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node}


def test_it_is_for_onnxruntime_alone(bench):
    path = bench.text(HEAD + PLAIN, **SHAPES)
    assert "ONNX Runtime's own, and this is for openvino" in bench.reason(path, RULE, target="openvino")


@pytest.mark.parametrize(("old", "new", "reason"), [
    ("a = MatMul(qs, kt)", "m = MatMul(qs, kt) a = Add(m, mask)", "a mask is added to the scores"),
    ("q4 = Reshape(q, split)", "q4 = Reshape(q, wrong)", "not split into the same heads"),
    ("ot = Transpose", "h = Relu(p) z = ReduceMax<keepdims=0>(h) ot = Transpose", "also read by Relu"),
])  # fmt: skip
def test_what_is_something_else_is_left_alone(bench, old, new, reason):
    assert old in PLAIN
    body, shapes = PLAIN.replace(old, new), SHAPES
    if "wrong" in new:  # such a product does not run: nothing is measured, the reason must do
        assert any(reason in row.reason for row in bench.fix(
            bench.text(HEAD + body, **shapes), rules=(RULE,), check=False).left_alone)
        return
    if "Relu" in new:
        shapes = {**SHAPES, "outputs": "float[N,6,32] y, float z"}
    assert reason in bench.reason(bench.text(HEAD + body, **shapes), RULE)


def test_a_softmax_over_the_queries_is_no_attention(bench):
    path = bench.text(HEAD + PLAIN.replace("Softmax<axis=-1>", "Softmax<axis=2>"), **SHAPES)
    assert bench.fix(path, rules=(RULE,)).left_alone == ()


def test_a_batch_that_is_not_known_to_stay_is_left_alone(bench):
    body = PLAIN.replace("Reshape(k, split)", "Reshape(k, w)").replace("Reshape(v, split)", "Reshape(v, w)")
    path = bench.text(HEAD + body, inputs=SHAPES["inputs"] + ", int64[4] w", outputs=SHAPES["outputs"])
    assert bench.fix(path, rules=(RULE,), check=False).left_alone == ()  # the heads themselves are not known
    short = HEAD.replace("<int64[4]", "<int64[4] w={-1,3,4,8}, int64[4]", 1)
    assert "fix the input shapes" in next(row.reason for row in bench.fix(
        bench.text(short + body, **SHAPES), rules=(RULE,), check=False).left_alone)


def test_queries_of_one_batch_for_many_are_left_alone(bench):
    path = bench.text(HEAD + PLAIN, outputs="float[N,6,32] y",
                      inputs="float[1,6,32] q, float[N,5,32] k, float[N,5,32] v")
    assert "batches of different sizes" in bench.reason(path, RULE)
