"""The compiled loops and numpy give the same integers, and both are exact."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kit.collecting import counting
from kit.collecting.collector import Watched

FLOATS = st.floats(width=32) | st.floats(-1, 1, width=32) | st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, float("nan"), float("inf"), -float("inf")])


def arrays(most=4):
    shapes = st.tuples(st.integers(1, most), st.integers(1, most), st.integers(0, 12), st.integers(1, 2))
    return hnp.arrays(np.float32, shapes, elements=FLOATS)


def state(given_, axis, monkeypatch, numba):
    monkeypatch.setenv("KIT_NUMBA", numba)
    watched = Watched(axis)
    for array in given_:
        watched.add(array, "s")
    return (watched.histogram.tobytes(), watched.low.tobytes(), watched.high.tobytes(), watched.seen.tobytes(),
            watched.slots.tobytes(), watched.maxima)


@settings(max_examples=300, deadline=None)
@given(st.lists(arrays(), min_size=1, max_size=3), st.sampled_from([0, 1, -1]))
def test_numba_and_numpy_agree(given_, axis):
    with pytest.MonkeyPatch.context() as patch:
        assert state(given_, axis, patch, "1") == state(given_, axis, patch, "0")


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("inner", [1, 49, 4096, 10_001])
def test_long_rows_agree(monkeypatch, scale, inner):
    random = np.random.default_rng(inner)
    values = (random.standard_normal((2, 3, inner)) * scale).astype(np.float32)
    given_ = [values, np.maximum(values, 0), values * np.float32(7)]
    assert state(given_, 1, monkeypatch, "1") == state(given_, 1, monkeypatch, "0")


def test_numba_is_there_to_be_tested():
    assert counting.kernels() is not None


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS))
def test_means_are_correctly_rounded(values):
    finite = values[np.isfinite(values)]
    found = counting.means(counting.sums(values[None]), np.array([finite.size]))[0]
    if finite.size:
        assert found == float(sum(map(Fraction, finite.tolist())) / finite.size)
    else:
        assert np.isnan(found)


def test_a_sum_that_floats_would_lose():
    values = np.array([3e38, 1.0, -3e38, 1e-45], np.float32)
    total = counting.sums(values[None])
    assert counting.means(total, np.array([1]))[0] == 1.0 + float(np.float32(1e-45))


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, 8, elements=FLOATS.filter(lambda x: x == x)))
def test_keys_are_in_the_order_of_the_floats(values):
    np.testing.assert_array_equal(np.sort(counting.keys(values)), counting.keys(np.sort(values))
                                  if not (values == 0).any() else np.sort(counting.keys(values)))
    np.testing.assert_array_equal(counting.unkeys(counting.keys(values)), values)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (-0.1, 0.0), (-1e300, 1e300), (0.0, 0.0)])
def test_ends_that_float32_cannot_say_are_taken_inwards(low, high):
    ends = counting.unkeys(np.array(counting.inner_keys(low, high), np.int32))
    assert low <= float(ends[0]) <= float(ends[1]) <= high
