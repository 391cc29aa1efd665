"""The histogram gives the same bytes for any order, split and merge, and loses nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kit.collecting.histogram import BINS, Histogram
from kit.errors import BadInput

ANY = st.floats(width=32) | st.floats(-1, 1, width=32) | st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, math.nan, math.inf, -math.inf])
ARRAYS = hnp.arrays(np.float32, st.integers(0, 60), elements=ANY)
WIDE = hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64))


def of(*arrays) -> Histogram:
    made = Histogram()
    for array in arrays:
        made.add(array)
    return made


@settings(max_examples=300, deadline=None)
@given(ARRAYS | WIDE, st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=5))
def test_order_split_and_merge_give_the_same_bytes(values, random, cuts):
    whole = of(values)
    shuffled = values[random.sample(range(len(values)), len(values))]
    parts = np.split(shuffled, sorted(min(cut, len(values)) for cut in cuts))
    assert of(*parts).tobytes() == whole.tobytes()
    merged = Histogram()
    for part in random.sample(parts, len(parts)):
        merged.merge(of(part))
    assert merged.tobytes() == whole.tobytes()


@settings(max_examples=200, deadline=None)
@given(ARRAYS | WIDE)
def test_every_value_is_counted_where_it_lies(values):
    found = of(values)
    finite = values[np.isfinite(values)]
    assert found.fed == values.size
    assert found.elements == finite.size
    assert found.nan == np.isnan(values).sum()
    if finite.size:
        assert (found.minimum, found.maximum) == (finite.min(), finite.max())
        assert len(found.counts) <= BINS
        # Counted by hand, with Python's exact integers: a value lies in bin floor(value / 2**exponent).
        for index, count in zip(range(found.start, found.start + len(found.counts)), found.counts, strict=True):
            if count:
                assert sum(_bin(float(v), found.exponent) == index for v in finite) == count


def _bin(value: float, exponent: int) -> int:
    top, bottom = value.as_integer_ratio()
    return (top << max(-exponent, 0)) // (bottom << max(exponent, 0))


def test_float32_and_float64_of_the_same_values_agree():
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 1e-30
    assert of(values) == of(values.astype(np.float64))


def test_more_than_one_block_is_counted_whole():
    values = np.random.default_rng(0).standard_normal((3, 100_000)).astype(np.float32)
    assert of(values).elements == values.size
    assert of(values) == of(*values)


def test_growth_over_many_scales_keeps_the_bins_few():
    found = of(*(np.float32(10.0**power) * np.linspace(-1, 1, 50, dtype=np.float32) for power in range(-40, 38)))
    assert len(found.counts) <= BINS
    assert found.elements == 78 * 50


def test_resolution_of_a_one_sided_tensor_is_at_least_half_the_bins():
    found = of(np.maximum(np.random.default_rng(0).standard_normal(100_000), 0).astype(np.float32))
    assert len(found.counts) > BINS / 2


@pytest.mark.parametrize("values", [np.zeros(7, np.float32), np.full(3, 2.5), np.full(3, -1e-310), np.zeros((0, 4)),
                                    np.array([], np.float32)])
def test_constant_zero_denormal_and_empty(values):
    found = of(values)
    assert found.elements == values.size
    assert found.occupied == min(1, values.size)
    if values.size:
        assert found.minimum == found.maximum == values.flat[0]
        assert found.edges()[0] <= values.flat[0] <= found.edges()[-1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.bool_, np.float16])
def test_other_number_types(dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    found = of(values)
    assert (found.minimum, found.maximum, found.elements) == (0, 1, 5)
    assert sorted(found.counts[found.counts > 0]) == [2, 3]


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([1j]), np.array([object()])])
def test_what_cannot_be_counted_is_refused(values):
    with pytest.raises(BadInput, match="cannot count"):
        Histogram().add(values)


def test_restored_from_its_numbers():
    found = of(np.array([1.0, -2.0, np.nan, np.inf]))
    again = Histogram.restore(found.numbers(), found.counts)
    assert again == found
    again.add(np.array([5.0]))
    assert again != found


def test_copy_is_independent():
    found = of(np.arange(5.0))
    twin = found.copy()
    twin.add(np.arange(3.0))
    assert (found.elements, twin.elements) == (5, 8)
