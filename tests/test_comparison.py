import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kit.comparison import Parity, pair
from kit.errors import BadInput

ARRAYS = hnp.arrays(np.float32, (2, 5), elements=st.floats(-1e3, 1e3, width=32))


def one(reference, other):
    parity = Parity()
    parity.add({"y": np.asarray(reference)}, {"y": np.asarray(other)})
    return parity.result()[0]


@given(ARRAYS)
def test_the_same_is_equal(array):
    row = one(array, array)
    assert (row.max_abs, row.verdict) == (0.0, "equal")
    assert row.cosine == pytest.approx(1.0)


@given(ARRAYS, ARRAYS)
def test_figures_are_those_of_numpy(left, right):
    row = one(left, right)
    gap = np.abs(left.astype(np.float64) - right)
    assert row.max_abs == gap.max()
    assert row.relative == pytest.approx(gap.max() / max(1, np.abs(left).max()))
    assert gap[row.where[1:]] == gap.max()


@given(st.lists(st.tuples(ARRAYS, ARRAYS), min_size=1, max_size=4))
def test_samples_add_up_to_all_at_once(pairs):
    parity = Parity()
    for left, right in pairs:
        parity.add({"y": left}, {"y": right})
    streamed = parity.result()[0]
    whole = one(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))
    assert streamed.max_abs == whole.max_abs
    assert streamed.l2 == pytest.approx(whole.l2)
    assert streamed.elements == whole.elements


@pytest.mark.parametrize(("gap", "verdict"), [
    (9e-6, "equal"), (1.1e-5, "warning"), (9e-4, "warning"), (1.1e-3, "failed")])
def test_the_two_bounds(gap, verdict):
    assert one(np.float64([0.5, 1.0]), np.float64([0.5, 1.0 + gap])).verdict == verdict


def test_large_outputs_are_judged_relative_to_their_size():
    assert one(np.float64([1000.0]), np.float64([1000.005])).verdict == "equal"


def test_nan_against_a_number_is_as_bad_as_can_be():
    row = one(np.float32([1.0, 2.0]), np.float32([1.0, np.nan]))
    assert row.max_abs == np.inf
    assert (row.verdict, row.where) == ("failed", (0, 1))
    assert one(np.float32([np.nan, np.inf]), np.float32([np.nan, np.inf])).verdict == "equal"


def test_outputs_pair_by_name_or_else_by_position():
    assert pair(["a", "b"], ["b", "a"]) == [("a", "a"), ("b", "b")]
    assert pair(["fetch_0"], ["sigmoid.tmp"]) == [("fetch_0", "sigmoid.tmp")]
    with pytest.raises(BadInput, match="2 outputs"):
        pair(["a", "b"], ["a"])


def test_shapes_that_differ_are_named():
    with pytest.raises(BadInput, match=r"\[2\] on one side and \[3\]"):
        one(np.zeros(2), np.zeros(3))
