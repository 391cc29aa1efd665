"""Constants beyond float16: masks in front of a Softmax become smaller, everything else stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCORES = "float[1,2,4,4] s"
OUT = "float[1,2,4,4] y"


def fed(seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Scores of attention, and a mask in which every row keeps a place."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, 2, (1, 1, 1, 4))
    mask[..., random.integers(0, 4)] = 1
    return [{"s": random.normal(0, 20, (1, 2, 4, 4)).astype(np.float32), "m": mask}]


def constants(fixed) -> set[float]:
    graph = onnx.load(str(fixed.model.path)).graph
    return {float(value) for tensor in graph.initializer if tensor.data_type == 1
            for value in onnx.numpy_helper.to_array(tensor).reshape(-1)}


MASKS = {  # the usual ways to write one
    "added": ("<float low = {-1e9}, float one = {1}> { f = Cast <to: int = 1> (m) i = Sub(one, f) b = Mul(i, low) "
              "a = Add(s, b) y = Softmax(a) }", -1e9),
    "added, the other way round": ("<float high = {10000000}, float one = {1}> { f = Cast <to: int = 1> (m) "
                                   "i = Sub(f, one) b = Mul(i, high) a = Add(b, s) y = Softmax(a) }", 1e7),
    "subtracted": ("<float high = {1e30}, float one = {1}> { f = Cast <to: int = 1> (m) i = Sub(one, f) "
                   "b = Mul(high, i) a = Sub(s, b) y = Softmax(a) }", 1e30),
    "chosen": ("<float low = {-3.4028234663852886e38}, int64 none = {0}> { c = Greater(m, none) e = Where(c, s, low) "
               "y = Softmax(e) }", float(np.finfo(np.float32).min)),
    "moved on the way": ("<float low = {-1e9}, float zero = {0}, int64 none = {0}, int64[4] d = {1, 2, 4, 4}> { "
                         "c = Equal(m, none) b = Where(c, low, zero) e = Expand(b, d) a = Add(s, e) y = Softmax(a) }",
                         -1e9),
}


@pytest.mark.parametrize("how", MASKS)
def test_a_mask_becomes_one_that_float16_holds(bench, how):
    body, number = MASKS[how]
    path = bench.text(body, inputs=f"{SCORES}, int64[1,1,1,4] m", outputs=OUT)
    fixed = bench.fix(path, rules=("fp16-constants",), samples=fed())
    assert not fixed.rejected
    assert max(row.max_abs for row in fixed.parity) == 0
    assert number not in constants(fixed)
    assert np.sign(number) * 32752.0 in constants(fixed)
    assert fixed.changes[0].what == (f"{number:.3g} became {np.sign(number) * 32752:g}: as good a mask, within float16")
    assert bench.fix(fixed.model.path, rules=("fp16-constants",), samples=fed()).changes == ()


def test_a_stored_triangle_of_minus_infinity_keeps_its_zeros(bench):
    path = bench.text("{ a = Add(s, t) y = Softmax(a) }", inputs=f"{SCORES}, float[4,4] t", outputs=OUT)
    proto = onnx.load(str(path))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(
        np.triu(np.full((4, 4), -np.inf, np.float32), 1), "t"))
    del proto.graph.input[1]
    fixed = bench.promises(bench.save(proto), "fp16-constants")
    assert constants(fixed) == {0.0, -32752.0}
    assert max(row.max_abs for row in fixed.parity) == 0


def test_a_mask_that_many_softmaxes_share_is_changed_once(bench):
    path = bench.text("<float low = {-1e9}, float zero = {0}, int64 none = {0}> { c = Equal(m, none) "
                      "b = Where(c, low, zero) a = Add(s, b) p = Softmax(a) d = Add(p, b) y = Softmax(d) }",
                      inputs=f"{SCORES}, int64[1,1,1,4] m", outputs=OUT)
    fixed = bench.fix(path, rules=("fp16-constants",), samples=fed(1))
    assert [change.node for change in fixed.changes] == ["Where_b"]
    assert max(row.max_abs for row in fixed.parity) == 0


def test_float16_makes_numbers_of_it(bench):
    """The reason for the rule: in float16, (1 - mask) * -1e9 is 0 * -inf where nothing is masked, and that is none."""
    path = bench.text(MASKS["added"][0], inputs=f"{SCORES}, int64[1,1,1,4] m", outputs=OUT)
    (mask,) = constants(bench.fix(path, rules=("fp16-constants",), samples=fed())) - {1.0}

    def masked(number: float) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.float16([0, 1]) * np.array([number]).astype(np.float16) + np.float16(-30000)

    assert np.isnan(masked(-1e9)[0])
    assert np.isfinite(masked(mask)).all()


@pytest.mark.parametrize(("body", "said"), [
    ("<float low = {-1e9}> { a = Add(s, low) y = Relu(a) }", "it reaches Relu Relu_y, not only a Softmax"),
    ("<float low = {-1e9}> { y = Add(s, low) }", "it reaches the output y, not only a Softmax"),
    ("<float high = {1e9}> { y = Add(s, high) }", "it reaches the output y, not only a Softmax"),
    ("<float high = {1e9}> { a = Add(s, high) y = Softmax(a) }",
     "it makes numbers in front of Softmax Softmax_y large, which masks all others"),
    ("<float low = {-1e9}> { g = Relu(s) b = Mul(g, low) a = Add(s, b) y = Softmax(a) }",
     "it multiplies low with g, of which nothing says that it is only 0 or 1"),
    ("<float[4] both = {-1e9, 0, 0, 1e9}> { a = Add(s, both) y = Softmax(a) }",
     "both reaches from -1e+09 to 1e+09, and a mask is large on one side only"),
    ("<float low = {-1e9}> { a = Max(s, low) y = LogSoftmax(a) }", "it reaches LogSoftmax LogSoftmax_y, not only a "
     "Softmax")])
def test_what_does_more_than_mask_is_left_alone_and_it_says_why(bench, body, said):
    path = bench.text(body, inputs=SCORES, outputs=OUT)
    assert bench.reason(path, "fp16-constants", tolerance=1.0) == said


def test_a_row_that_is_masked_throughout_answers_otherwise_and_is_found_out(bench):
    """Its softmax was even, every score lost in -1e9; in a smaller mask the scores show, and the stage refuses that."""
    path = bench.text(MASKS["added"][0], inputs=f"{SCORES}, int64[1,1,1,4] m", outputs=OUT)
    feeds = [{**fed()[0], "m": np.zeros((1, 1, 1, 4), np.int64)}]
    fixed = bench.fix(path, rules=("fp16-constants",), samples=feeds)
    assert fixed.changes == ()
    assert "moves the answer by" in fixed.rejected[0].reason


def test_a_large_number_in_a_weight_is_no_business_of_the_rule(bench):
    path = bench.text("<float[4,4] w = {1e6,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> { y = MatMul(s, w) }", inputs=SCORES,
                      outputs=OUT)
    fixed = bench.fix(path, rules=("fp16-constants",))
    assert (fixed.changes, fixed.left_alone) == ((), ())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 9999), how=st.sampled_from(sorted(MASKS)), spread=st.sampled_from([1, 100, 2000]))
def test_random_masks_answer_bit_by_bit_the_same(bench, seed, how, spread):
    path = bench.text(MASKS[how][0], inputs=f"{SCORES}, int64[1,1,1,4] m", outputs=OUT)
    feeds = fed(seed)
    feeds[0]["s"] *= np.float32(spread / 20)
    fixed = bench.fix(path, rules=("fp16-constants",), samples=feeds)
    assert fixed.changes
    assert max(row.max_abs for row in fixed.parity) == 0
