"""The whole state is the same bytes for any order, split, merge and resumption."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.collecting.arrays import load_arrays
from kit.collecting.collector import Collector
from kit.errors import StaleResult

AXES = {"conv": 1, "dense": -1, "plain": 0}


def feed(seed: int, batch: int) -> dict[str, np.ndarray]:
    """Heavy-tailed data over many scales, zeros and denormals, now and then NaN or infinity."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((batch, 3, 2, 5)) * 10.0 ** random.integers(-44, 38, (batch, 1, 1, 1))
    values *= random.random(values.shape) < 0.8
    values = values.astype(np.float32)
    if seed % 4 == 0:
        values = np.maximum(values, 0)
    if seed % 7 == 0:
        values.flat[seed % values.size] = (np.nan, np.inf, -np.inf)[seed % 3]
    return {"conv": values, "dense": np.ascontiguousarray(values.reshape(batch, 3, 10)), "plain": values[:, 0]}


def bytes_of(collector: Collector) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in collector.arrays().items()}


def collect(parts) -> Collector:
    made = Collector(AXES)
    for arrays, items in parts:
        made.add(arrays, items)
    return made


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 3)), min_size=1, max_size=4), st.data())
def test_order_batches_merge_and_resume_leave_no_trace(seeds, data):
    whole = [(feed(seed, batch), [f"{at}.{i}" for i in range(batch)]) for at, (seed, batch) in enumerate(seeds)]
    expected = bytes_of(collect(whole))
    single = [({name: array[i : i + 1] for name, array in arrays.items()}, [items[i]])
              for arrays, items in whole for i in range(len(items))]
    mixed = data.draw(st.permutations(single))
    cut = data.draw(st.integers(0, len(mixed)))
    first, second = collect(mixed[:cut]), collect(mixed[cut:])
    # Stopped and taken up again: through the arrays that a file would hold.
    first = Collector.restore(first.arrays())
    if data.draw(st.booleans()):
        first, second = second, first
    first.merge(second)
    assert bytes_of(first) == expected


def test_the_file_is_the_same_bytes(tmp_path):
    parts = [(feed(seed, 1), [str(seed)]) for seed in range(6)]
    for name, order in (("a", parts), ("b", parts[::-1])):
        collect(order).save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert set(load_arrays(tmp_path / "a.npz")) >= {"names", "counts", "sums"}
    assert bytes_of(Collector.load(tmp_path / "a.npz")) == bytes_of(collect(parts))


def test_channels_hold_extremes_and_means():
    arrays = [feed(seed, 2) for seed in (1, 2, 3)]
    found = collect((a, ["x", "y"]) for a in arrays).tensors
    values = np.concatenate([a["conv"] for a in arrays])
    about = found["conv"].channels()
    assert about.axis == 1
    np.testing.assert_array_equal(about.minimum, values.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(about.maximum, values.max(axis=(0, 2, 3)))
    # The exact mean against a float64 one: its rounding grows with the largest of 60 values.
    np.testing.assert_allclose(about.mean, values.astype(np.float64).mean(axis=(0, 2, 3)), rtol=1e-12,
                               atol=1e-14 * np.abs(values).max())
    dense = found["dense"].channels()
    assert dense.axis == -1
    np.testing.assert_array_equal(dense.maximum, values.reshape(6, 3, 10).max(axis=(0, 1)))
    assert found["plain"].channels() is None


def test_each_item_of_a_batch_has_its_largest_magnitude():
    arrays = feed(1, 3)
    found = collect([(arrays, ["a", "b", "c"])]).tensors["conv"].maxima
    assert found == {name: float(np.abs(arrays["conv"][at]).max()) for at, name in enumerate("abc")}


def test_a_channel_without_a_finite_value_has_no_mean():
    values = np.ones((1, 2, 3), np.float32)
    values[0, 1] = np.nan
    found = collect([({"conv": values}, ["s"])]).tensors["conv"]
    assert (found.histogram.elements, found.histogram.nan) == (3, 3)
    about = found.channels()
    assert about.mean[0] == 1.0
    assert np.isnan(about.mean[1])
    assert np.isinf(about.minimum[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, np.bool_])
def test_other_types_are_counted(dtype):
    values = np.array([[0, 1], [1, 1]]).astype(dtype)
    found = collect([({"conv": values}, ["s"])]).tensors["conv"]
    assert (found.histogram.elements, found.histogram.maximum, found.maxima["s"]) == (4, 1.0, 1.0)
    assert (found.channels() is None) == (dtype != np.float16)


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 0, 2), (1, 3, 0)])
def test_empty_tensors(shape):
    found = collect([({"conv": np.zeros(shape, np.float32)}, ["s"])]).tensors["conv"]
    assert found.histogram.elements == 0
    assert found.maxima == {"s": 0.0}


def test_a_changing_number_of_channels_has_no_channels():
    parts = [({"conv": np.ones((1, c, 2), np.float32)}, [str(c)]) for c in (3, 4)]
    assert collect(parts).tensors["conv"].channels() is None
    assert bytes_of(collect(parts)) == bytes_of(collect(parts[::-1]))


def test_extremes_alone():
    made = Collector(AXES, histograms=False)
    arrays = feed(1, 2)
    made.add(arrays, ["a", "b"])
    found = made.tensors["conv"].histogram
    assert (found.elements, found.minimum, found.maximum) == (
        arrays["conv"].size, arrays["conv"].min(), arrays["conv"].max())
    again = Collector.restore(made.arrays())
    assert bytes_of(again) == bytes_of(made)
    with pytest.raises(StaleResult, match="different tensors"):
        made.merge(Collector(AXES))
