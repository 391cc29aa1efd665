"""GELU, LayerNormalization of a sum and GroupNormalization put into one operator each."""

from __future__ import annotations

import pytest

from kit.graph.table import DEFAULTS

GELU = "<float r={1.4142135}, float one={1.0}, float half={0.5}> {d = Div(x, r) e = Erf(d) a = Add(e, one) "
HALF_FIRST = GELU + "h = Mul(half, a) y = Mul(x, h)}"
BY_ITSELF = {"half last": GELU + "m = Mul(x, a) y = Mul(m, half)}",
             "half of x": GELU + "h = Mul(x, half) y = Mul(h, a)}"}


def test_gelu_that_halves_the_bell_becomes_one_operator(bench):
    fixed = bench.promises(bench.text(HALF_FIRST), "fuse-gelu")
    assert fixed.operators_after == {"com.microsoft.Gelu": 1}
    assert "fuse-gelu" in bench.fix(bench.text(HALF_FIRST)).counts()  # by default


@pytest.mark.parametrize("form", [*BY_ITSELF, "half first"])
def test_only_what_onnxruntime_does_not_merge_by_itself_is_touched(bench, tmp_path, form):
    import onnx
    import onnxruntime as ort

    path = bench.text(BY_ITSELF.get(form, HALF_FIRST))
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, str(tmp_path / "seen.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    in_parts = "Erf" in {node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node}
    assert in_parts == (form == "half first")
    if not in_parts:
        assert "merges factors in this order by itself" in bench.reason(path, "fuse-gelu")


def test_gelu_is_left_to_the_standard_operator_and_to_others(bench):
    assert "has a Gelu of its own" in bench.reason(bench.text(HALF_FIRST, opset=20, ir_version=9), "fuse-gelu")
    path = bench.text(HALF_FIRST)
    assert "this is for ascend310p3" in bench.reason(path, "fuse-gelu", target="ascend310p3")


# -- LayerNormalization of a sum

NORM = "<float[6] s={1.0,2.0,0.5,1.5,1.0,-1.0}, float[6] b={0.1,0.2,0.3,0.4,0.5,0.6}> {t = Add(x, z) "
TWO = {"inputs": "float[N,5,6] x, float[N,5,6] z", "outputs": "float[N,5,6] y"}


@pytest.mark.parametrize(("body", "left"), [
    ("y = LayerNormalization<epsilon=0.001>(t, s, b)}", {}),
    ("n = LayerNormalization<axis=2>(t, s, b) y = Mul(n, t)}", {"Mul": 1}),
    ("n = LayerNormalization(t, s) y = Sub(t, n)}", {"Sub": 1}),
])  # fmt: skip
def test_a_sum_and_its_norm_become_one(bench, body, left):
    fixed = bench.promises(bench.text(NORM + body, **TWO), "fuse-skip-layernorm")
    assert fixed.operators_after == {"com.microsoft.SkipLayerNormalization": 1, **left}


def test_a_sum_of_other_shapes_is_left_alone(bench):
    path = bench.text(NORM + "y = LayerNormalization(t, s, b)}", inputs="float[N,5,6] x, float[6] z",
                      outputs="float[N,5,6] y")
    assert "not known to be of one shape" in bench.reason(path, "fuse-skip-layernorm")


# -- GroupNormalization

GROUP = "<int64[3] g={0,2,-1}, float[2] one={1.0,1.0}, float[2] nought={0.0,0.0}, float[4,1,1] s={1.0,2.0,0.5,1.5}, " \
        "float[4,1,1] b={0.1,0.2,0.3,0.4}> {r = Reshape(x, g) " \
        "i = InstanceNormalization<epsilon=0.001>(r, one, nought) w = Shape(x) " \
        "k = Reshape(i, w) m = Mul(k, s) y = Add(m, b)}"


def test_a_group_norm_becomes_one_operator(bench):
    fixed = bench.promises(bench.text(GROUP, opset=21, ir_version=10), "merge-groupnorm")
    assert fixed.operators_after == {"GroupNormalization": 1}


@pytest.mark.parametrize(("old", "new", "opset", "reason"), [
    ("", "", 18, "came with opset 21, and this model is of opset 18"),
    ("one={1.0,1.0}", "one={1.0,2.0}", 21, "has a scale or bias for each group"),
    ("s={1.0,2.0,0.5,1.5}", "s={1.0,2.0,0.5,1.5}, float[1,6] o={1.0}", 21, "scale and bias are not one number"),
])  # fmt: skip
def test_another_norm_is_left_alone(bench, old, new, opset, reason):
    body = GROUP.replace(old, new).replace("Mul(k, s)", "Mul(k, o)" if " o=" in new else "Mul(k, s)")
    body = body.replace("float[1,6] o={1.0}", "float[1,6] o={1.0,2.0,3.0,4.0,5.0,6.0}")
    assert reason in bench.reason(bench.text(body, opset=opset, ir_version=10), "merge-groupnorm")


def test_what_gains_nothing_is_in_no_set():
    for rule in ("fuse-skip-layernorm", "merge-groupnorm"):
        assert all(rule not in rules for rules in DEFAULTS.values())


def test_shapes_go_on_behind_the_runtimes_own_operators(bench):
    import kit

    body = NORM + "n = LayerNormalization(t, s, b) h = com.microsoft.Gelu(n) " \
        "u = com.microsoft.MultiHeadAttention<num_heads=2>(h, z, z) w = Add(u, t) y = Relu(w)}"
    fused = bench.fix(bench.text(body, domains=', "com.microsoft": 1', **TWO), rules=("fuse-skip-layernorm",))
    assert fused.operators_after["com.microsoft.SkipLayerNormalization"] == 1
    found = kit.audit(fused.model, kit.AuditOptions(target="onnxruntime"), runs=bench.folder / "runs")
    assert not [finding for finding in found.findings if "unknown" in finding.what]
