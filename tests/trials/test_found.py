"""What a search's folder is read as: the pick after the best were measured once more."""

import json
from concurrent.futures import Executor, Future
from types import SimpleNamespace

import pytest
from search_toys import ALLOWED, search

from kit.progress import silent
from kit.searching import _confirm
from kit.trials.found import CONFIRMED, Found
from kit.trials.log import Trial


@pytest.fixture
def log(tmp_path):
    return search(4, tmp_path)


def best_of(log, count=3) -> list[Trial]:
    good = sorted((t for t in log.trials if t.is_accurate(ALLOWED)), key=lambda t: t.ratio)
    assert all(t.number for t in good[:count])
    return good[:count]


def confirm(log, measured) -> Found:
    """What is found where the best were measured once more, with these figures."""
    (log.folder / CONFIRMED).write_text(json.dumps({"numbers": [], "measured": measured}), encoding="utf-8")
    return Found.open(log.folder)


def test_figures_against_each_other_go_before_those_of_single_trials(log):
    first, second, third = best_of(log)
    found = confirm(log, {first.number: {"ratio": 0.7}, second.number: {"ratio": 0.6}, third.number: {"ratio": 0.8}})
    assert (found.pick.number, found.pick.ratio) == (second.number, 0.6)
    assert "the best 3 were timed against each other" in found.why


def test_where_the_best_turn_out_slower_than_the_float_model_it_stays(log):
    first, second, _ = best_of(log)
    found = confirm(log, {first.number: {"ratio": 1.04}, second.number: {"ratio": 1.1}})
    assert found.pick == found.baseline
    assert "the best 2 were slower than the float model" in found.why
    assert "float model stays" in found.title()
    assert confirm(log, {first.number: {"ratio": 1.04}}).why.startswith("the best was slower")


def test_one_that_turns_out_too_lossy_is_not_picked(log):
    first, second, _ = best_of(log)
    measured = {first.number: {"ratio": 0.5, "loss": 0.2}, second.number: {"ratio": 0.6}}
    found = confirm(log, measured)
    assert found.pick.number == second.number
    assert found.trials[first.number].loss == 0.2
    assert "lost too much" in found.why


def test_the_baseline_is_its_own_measure(log):
    first = best_of(log, 1)[0]
    found = confirm(log, {"0": {"ratio": 0.94, "low": 0.9, "high": 0.98}, first.number: {"ratio": 0.97}})
    assert (found.baseline.ratio, found.baseline.speedup) == (1.0, 1.0)
    assert found.pick.number == first.number


class Here(Executor):
    """Answers every question with the figures given, and remembers what it was asked."""

    def __init__(self, figures):
        self.figures, self.asked = figures, []

    def submit(self, work, job, trials, first):
        self.asked.append((work.__name__, [t.number for t in trials], first.number))
        future: Future = Future()
        future.set_result({t.number: self.figures for t in trials})
        return future


def test_the_baseline_is_not_timed_against_itself(log):
    everyone = SimpleNamespace(options=SimpleNamespace(finalists=len(log.trials)))
    here = Here({"ratio": 1.2})
    _confirm(log, everyone, ALLOWED, here, silent)
    ((work, numbers, first),) = here.asked
    assert (work, first) == ("run_duel", 0)
    assert 0 not in numbers
    assert set(numbers) == {t.number for t in log.trials if t.is_accurate(ALLOWED)} - {0}
    assert Found.open(log.folder).pick.number == 0
