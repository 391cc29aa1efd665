"""Ranges: what each method must hold, and mse against a plain search written again here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.int8.histogram import Histogram
from kit.int8.ranges import METHODS, candidates, choose, squared_errors


def of(values) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


def real_error(values: np.ndarray, low: float, high: float) -> float:
    """Rounding done value by value, as ONNX Runtime does it."""
    scale = (high - low) / 255 or 1.0
    zero = np.rint(-low / scale)
    level = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(np.mean(((level - zero) * scale - values) ** 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(METHODS)),
       st.sampled_from(["normal", "relu", "heavy", "negative"]))
def test_every_range_holds_zero_and_stays_inside_the_extremes(seed, method, shape):
    values = np.random.default_rng(seed).standard_normal(500) * 10.0 ** (seed % 9 - 4)
    values = {"normal": values, "relu": np.maximum(values, 0), "heavy": values**3, "negative": -np.abs(values)}[shape]
    low, high = choose(of(values), method)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
    assert low < high


@pytest.mark.parametrize("seed", range(6))
def test_mse_is_the_best_of_its_candidates_value_by_value(seed):
    random = np.random.default_rng(seed)
    values = (random.standard_normal(4000) * random.exponential(1, 4000) ** 2).astype(np.float32)
    values = np.maximum(values, 0) if seed % 2 else values
    found = of(values)
    lows, highs = candidates(found)
    best = min(real_error(values, low, high) for low, high in zip(lows, highs, strict=True))
    assert real_error(values, *choose(found, "mse")) <= best * 1.02  # a value counts as the middle of its bin


def test_squared_errors_agree_with_rounding_the_values():
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    for low, high in ((-4, 4), (-1, 3), (-0.5, 0.5)):
        told = squared_errors(of(values), np.array([low]), np.array([high]))[0]
        assert told == pytest.approx(real_error(values, low, high), rel=0.02)


def test_percentile_leaves_out_what_it_says():
    values = np.random.default_rng(0).standard_normal(100_000)
    low, high = choose(of(values), "percentile", percentile=99)
    outside = np.mean((values < low) | (values > high))
    assert outside == pytest.approx(0.01, abs=0.002)
    assert choose(of(values), "percentile", percentile=100) == (values.min(), values.max())


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_one_far_value_does_not_rule(method):
    values = np.append(np.random.default_rng(0).standard_normal(200_000), 50.0)
    assert choose(of(values), method)[1] < 48
    assert choose(of(values), "minmax") == (values.min(), 50)


@pytest.mark.parametrize("method", METHODS)
def test_the_farther_the_outlier_the_wider_min_max_only(method):
    bulk = np.random.default_rng(0).standard_normal(50_000)
    widths = [choose(of(np.append(bulk, far)), method)[1] for far in (5, 50, 500)]
    assert all(width <= far for width, far in zip(widths, (5, 50, 500), strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("values", "expected"), [([], (0, 0)), ([0.0, 0.0], (0, 0)), ([3.0] * 4, (0, 3)),
                                                  ([-3.0] * 4, (-3, 0)), ([np.nan], (0, 0))])
def test_degenerate_tensors(method, values, expected):
    assert choose(of(np.array(values)), method) == pytest.approx(expected, abs=1e-6)


def test_unknown_method_is_named():
    with pytest.raises(BadInput, match="entropie") as raised:
        choose(of(np.ones(3)), "entropie")
    assert "entropy" in raised.value.remedy
