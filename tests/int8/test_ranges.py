"""Ranges: what each method must hold, and mse against a plain search written again here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.collecting.histogram import Histogram
from kit.errors import BadInput
from kit.int8.ranges import METHODS, candidates, choose, entropy_shares, error_curve, squared_errors


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


def brute_force(histogram: Histogram, lows, highs) -> np.ndarray:
    """Mean squared error of every range, bin by bin in float64: the definition, written again."""
    centres, shares = histogram.centres(), histogram.counts / histogram.elements
    found = []
    for low, high in zip(lows, highs, strict=True):
        scale = (high - low) / 255 or 1.0
        zero = round(-low / scale)
        level = np.clip(np.rint(centres / scale) + zero, 0, 255) - zero
        found.append(float(shares @ np.square(level * scale - centres)))
    return np.array(found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 3), st.sampled_from(["both", "positive", "negative"]),
       st.integers(1, 400))
def test_mse_is_what_a_plain_search_over_its_grid_finds(seed, weight, sign, count):
    random = np.random.default_rng(seed)
    values = random.standard_normal(count) * np.exp(weight * random.standard_normal(count))
    found = of({"both": values, "positive": np.abs(values), "negative": -np.abs(values)}[sign].astype(np.float32))
    lows, highs = candidates(found)
    errors = brute_force(found, lows, highs)
    best = errors[list(zip(lows, highs, strict=True)).index(choose(found, "mse"))]
    # The search is done in float32, where two ranges that differ by less may change places.
    assert best <= errors.min() * (1 + 1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300), st.floats(-40, 30), st.floats(0, 6))
def test_there_are_always_two_ranges_to_choose_from(seed, count, decade, reach):
    """Also for one value, denormals, and outliers that leave a few bins for the rest."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(count) * 10.0**decade
    found = of(np.append(values, values[0] * 10.0**reach).astype(np.float32))
    if found.minimum or found.maximum:
        assert len(entropy_shares(found)) >= 2
        assert len(set(zip(*map(np.ndarray.tolist, candidates(found)), strict=True))) >= 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(90, 100), st.floats(1, 1e6), st.floats(1, 1e6))
def test_a_farther_outlier_never_narrows_min_max_or_percentile(seed, percent, one, other):
    """It must hold for percentile too: a coarser grid only moves an edge outwards."""
    bulk = np.random.default_rng(seed).standard_normal(1000)
    near, far = sorted((one, other))
    for method in ("minmax", "percentile"):
        narrow, wide = (choose(of(np.append(bulk, at)), method, percentile=percent) for at in (near, far))
        assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_a_farther_outlier_widens_the_best_of_the_same_candidates():
    """On one grid and one list of ranges the least error must move out with the outlier: clipping costs more."""
    bulk = np.append(np.random.default_rng(0).standard_normal(20_000), -64.0)  # which keeps the grid as it is
    highs = np.linspace(1, 64, 127)
    best = []
    for outlier in (8, 12, 18, 27, 40, 60):
        found = of(np.append(bulk, [outlier] * 20))
        best.append(int(np.argmin(squared_errors(found, np.full(127, -64.0), highs))))
    assert best == sorted(best)
    assert best[0] < best[-1]


@pytest.mark.parametrize("method", METHODS)
def test_denormals_and_a_huge_outlier_give_a_range_that_holds_zero(method):
    for values in (np.float32([1e-42, -3e-42, 2e-40]), np.append(np.linspace(-1, 1, 5000), 1e30)):
        found = of(values)
        low, high = choose(found, method)
        assert min(values) <= low <= 0 <= high <= max(values)
        assert high > 0
    assert found.occupied < 64


def test_the_error_curve_is_the_sum_of_clipping_and_rounding():
    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    curve = error_curve(of(values), points=40)
    assert [len(part) for part in curve] == [40] * 4
    assert np.allclose(curve.errors, curve.clipping + curve.rounding)
    assert (np.diff(curve.clips) > 0).all()
    assert curve.clips[-1] == pytest.approx(np.abs(values).max())
    assert curve.clipping[-1] == 0  # nothing is outside min-max
    assert (np.diff(curve.clipping) <= 1e-9).all()  # a wider range clips less
    assert curve.rounding[-1] > curve.rounding[20]  # and rounds coarser
    low, high = values.min() * 0.5, values.max() * 0.5
    near = int(np.argmin(np.abs(curve.clips - np.abs(values).max() * 0.5)))
    assert curve.errors[near] == pytest.approx(real_error(values, low, high), rel=0.15)  # the nearest of 40 points


def test_the_error_curve_of_nothing_and_of_zeros_is_zero():
    for histogram in (Histogram(), of(np.zeros(4))):
        assert not any(part.any() for part in error_curve(histogram, points=5))


def test_the_error_curve_of_denormals_keeps_its_shape():
    values = np.random.default_rng(0).standard_normal(5000)
    plain, tiny = (error_curve(of((values * factor).astype(np.float64))) for factor in (1.0, 2.0**-120))
    assert np.allclose(tiny.errors * 2.0**240, plain.errors)
