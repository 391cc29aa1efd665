"""Intervals from resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.evidence import bootstrap


def test_every_resample_draws_as_many_samples_as_there_are():
    rows = np.concatenate(list(bootstrap.weights(37, 500, seed=1)))
    assert rows.shape == (500, 37)
    assert (rows.sum(axis=1) == 37).all()


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    tallies = np.random.default_rng(0).integers(0, 9, (50, 2))
    one, again, other = (bootstrap.totals(tallies, 300, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_blocks_do_not_change_how_many_resamples_there_are(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)  # three rows a block
    assert len(bootstrap.totals(np.ones((30, 1)), 100, seed=0)) == 100


def test_totals_are_the_sums_of_the_samples_drawn():
    tallies = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    found = bootstrap.totals(tallies, 200, seed=3)
    np.testing.assert_allclose(found[:, 1], 10 * found[:, 0])  # columns are drawn together
    assert found[:, 0].min() >= 3
    assert found[:, 0].max() <= 9


def test_the_interval_of_a_rate_agrees_with_theory():
    """80 of 100 right: the textbook's standard error is sqrt(0.8 * 0.2 / 100) = 0.04."""
    tallies = np.array([[1.0, 1.0]] * 80 + [[0.0, 1.0]] * 20)
    values = bootstrap.scores(tallies, lambda t: t[0] / t[1], 20_000, seed=0)
    low, high = bootstrap.interval(values, 0.95)
    # within a quarter of a standard error: both the percentiles' own noise and the binomial's steps are smaller
    assert low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.01)
    assert high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.01)


def test_a_score_that_is_undefined_for_some_draws_does_not_spoil_the_interval():
    assert bootstrap.interval(np.array([1.0, np.nan, 1.0]), 0.9) == (1.0, 1.0)
    assert all(np.isnan(bootstrap.interval(np.array([np.nan]), 0.9)))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        left = random.lognormal(0.0, 0.2, (20, 5))
        right = random.lognormal(np.log(0.5), 0.2, (20, 5))
        low, high = bootstrap.interval(bootstrap.median_ratios(left, right, 400, trial), 0.95)
        covered += low <= 2.0 <= high
    # 95 % of 200 is 190, its standard deviation 3; percentile intervals of 20 rounds run a little narrow
    assert 178 <= covered <= 200


def test_a_wandering_machine_does_not_make_equals_look_different():
    """Paired by round: both candidates suffer the same slow spells, which cancel out of the ratio."""
    random = np.random.default_rng(2)
    wrong = 0
    for trial in range(100):
        mood = random.lognormal(0, 0.5, (20, 1))
        left, right = (mood * random.lognormal(0, 0.02, (20, 5)) for _ in range(2))
        low, high = bootstrap.interval(bootstrap.median_ratios(left, right, 400, trial), 0.95)
        wrong += not low <= 1 <= high
    assert wrong <= 15  # 5 expected, standard deviation 2.2


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10), st.integers(2, 12), st.integers(1, 6))
def test_the_ratio_of_exact_multiples_is_exact(factor, rounds, runs):
    base = np.random.default_rng(1).uniform(1, 2, (rounds, runs))
    np.testing.assert_allclose(bootstrap.median_ratios(base * factor, base, 50, 0), factor)
