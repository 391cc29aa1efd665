"""Intervals from resampling."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.evidence import bootstrap
from kit.evidence.judging import alone, judged


def test_every_resample_draws_as_many_samples_as_there_are():
    rows = np.concatenate(list(bootstrap.weights(37, 500, seed=1)))
    assert rows.shape == (500, 37)
    assert (rows.sum(axis=1) == 37).all()


@dataclass(frozen=True)
class Rate:
    """A task, as far as scoring asks: the first count over the second, and both."""

    def scores(self, totals):
        return {"rate": totals[0] / totals[1], "first": totals[0], "second": totals[1]}


def drawn(tallies, resamples, seed):
    return bootstrap.scores(judged(Rate(), tallies, ()), len(tallies), resamples, seed)


def test_the_same_seed_gives_the_same_scores_and_another_seed_others():
    tallies = np.random.default_rng(0).integers(1, 9, (50, 2))
    one, again, other = (drawn(tallies, 300, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_blocks_do_not_change_how_many_resamples_there_are(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)  # three rows a block
    assert len(drawn(np.ones((30, 2)), 100, seed=0)) == 100


def test_totals_are_the_sums_of_the_samples_drawn():
    tallies = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    found = drawn(tallies, 200, seed=3)
    np.testing.assert_allclose(found[:, 2], 10 * found[:, 1])  # counts are drawn together
    assert found[:, 1].min() >= 3
    assert found[:, 1].max() <= 9


def test_a_sample_alone_is_scored_by_its_own_counts():
    records = judged(Rate(), [[1.0, 2.0], [3.0, 4.0]], ())
    assert alone(records, 2) == [0.5, 0.75]
    assert records.scores() == {"rate": 4 / 6, "first": 4, "second": 6}


def test_the_interval_of_a_rate_agrees_with_theory():
    """80 of 100 right: the textbook's standard error is sqrt(0.8 * 0.2 / 100) = 0.04."""
    tallies = np.array([[1.0, 1.0]] * 80 + [[0.0, 1.0]] * 20)
    low, high = bootstrap.interval(drawn(tallies, 20_000, seed=0)[:, 0], 0.95)
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
