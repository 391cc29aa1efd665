"""Which trial comes next: on made-up worlds, where the best is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_toys import ALLOWED, OPTIONS, World, candidates

from kit.trials.log import Trial
from kit.trials.space import baseline
from kit.trials.strategy import Seen, propose

FIRST = Trial(0, baseline(OPTIONS), "measured", 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, None, 1, True)


def measured(number, candidate, ratio, loss, complete=True):
    return Trial(number, candidate, "measured", ratio, ratio, ratio, 1.0, 1.0, loss, None, None, 1, complete)


def run(world):
    """The trials of a search in a world; what is slower than an accurate one gets no loss, as in a real search."""
    trials = [FIRST]
    while (candidate := propose(candidates(), trials, ALLOWED)) is not None:
        ratio = world.ratio(candidate)
        slower = ratio > 1.1 * Seen(trials, ALLOWED).best.ratio
        trial = measured(len(trials), candidate, ratio, None if slower else world.loss(candidate), not slower)
        trials.append(replace(trial, state="slower") if slower else trial)
    return trials


@pytest.mark.parametrize("seed", range(60))
def test_the_pick_is_within_5_percent_of_the_best_after_a_quarter_of_the_trials(seed):
    world = World(seed)
    trials = run(world)
    assert Seen(trials, ALLOWED).best.ratio <= 1.05 * world.best()
    assert len(trials) <= len(candidates()) / 4


@given(st.integers(0, 10_000), st.floats(0, 0.5))
def test_a_search_ends_and_never_tries_anything_twice(seed, luck):
    trials = run(World(seed, luck))
    assert len({trial.candidate for trial in trials}) == len(trials) <= len(candidates())


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_what_comes_next_does_not_depend_on_the_order_of_the_log(seed, random):
    trials = run(World(seed))
    part = trials[: random.randint(1, len(trials))]
    expected = propose(candidates(), part, ALLOWED)
    shuffled = random.sample(part, len(part))
    assert propose(candidates(), shuffled, ALLOWED) == expected


def test_every_kind_but_a_covered_one_is_tried_first():
    space = candidates()
    trials = [FIRST]
    for ratio in (0.4, 0.5):
        candidate = propose(space, trials, ALLOWED)
        trials.append(measured(len(trials), candidate, ratio, 0.001))
    kinds = {trial.candidate.kind for trial in trials}
    assert kinds == {("onnxruntime", "fp32"), ("openvino", "int8+bf16"), ("openvino", "bf16")}
    rest = []
    while (candidate := propose(space, trials, ALLOWED)) is not None:
        trials.append(measured(len(trials), candidate, 0.9, 0.001))
        rest.append(candidate.kind)
    assert ("openvino", "fp32") not in rest, "BF16 of the same runtime is accurate, and FP32 cannot be faster"


def fast_but_lossy(method_that_helps=None, keep_that_helps=None):
    """Trials of a world in which OpenVINO INT8 is fastest and loses too much as it is."""
    def loss(candidate):
        if not candidate.method:
            return 0.0
        good = candidate.method == method_that_helps or (keep_that_helps and candidate.keep >= keep_that_helps)
        return 0.001 if good else {"mse": 0.3, "minmax": 0.2, "tensor": 0.1}[candidate.method]

    trials = [FIRST]
    while (candidate := propose(candidates(), trials, ALLOWED)) is not None:
        ratio = {"int8": 0.4, "int8+bf16": 0.3, "bf16": 0.6, "fp32": 0.95}[candidate.precision]
        ratio *= (1.5 if candidate.runtime == "onnxruntime" else 1) * (1 + 0.01 * candidate.keep)
        ratio *= 1.5 if candidate.threads == 1 else 1.0
        trials.append(measured(len(trials), candidate, ratio, loss(candidate)))
    return trials


def test_a_fast_kind_that_loses_too_much_is_repaired_by_other_ranges():
    best = Seen(fast_but_lossy(method_that_helps="tensor"), ALLOWED).best.candidate
    assert (best.kind, best.method, best.keep) == (("openvino", "int8+bf16"), "tensor", 0)


def test_where_no_ranges_help_the_dearest_groups_are_kept_in_float_with_the_ranges_that_lose_least():
    trials = fast_but_lossy(keep_that_helps=10)
    best = Seen(trials, ALLOWED).best.candidate
    assert (best.kind, best.method, best.keep) == (("openvino", "int8+bf16"), "tensor", 10)
    assert not any(t.candidate.keep and t.candidate.method == "mse" for t in trials)


def test_a_slower_kind_is_not_repaired():
    trials = fast_but_lossy()
    assert Seen(trials, ALLOWED).best.candidate.precision == "bf16"
    assert not any(t.candidate.runtime == "onnxruntime" and t.candidate.keep for t in trials)


def test_only_the_best_is_tried_with_other_threads():
    trials = fast_but_lossy(method_that_helps="tensor")
    alone = [trial.candidate for trial in trials if trial.candidate.threads == 1]
    assert {c.made_of for c in alone} == {Seen(trials, ALLOWED).best.candidate.made_of}


def test_kinds_are_tried_at_the_same_time_but_repairs_wait_for_them():
    space, running = candidates(), []
    while (candidate := propose(space, [FIRST], ALLOWED, running)) is not None:
        running.append(candidate)
    assert len(running) == len({candidate.kind for candidate in running}) == 5
    assert not any(candidate.keep for candidate in running)


def test_a_failed_kind_is_not_repaired():
    trials = [FIRST]
    while (candidate := propose(candidates(), trials, ALLOWED)) is not None:
        trials.append(Trial(len(trials), candidate, "failed", why="it crashed"))
    # the five kinds, then the baseline's own file run otherwise
    assert np.unique([t.candidate.kind for t in trials], axis=0).shape == (6, 2)
    assert not any(t.candidate.keep or t.candidate.method not in ("", "mse") for t in trials)
