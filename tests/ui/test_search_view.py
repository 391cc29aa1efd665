"""The search panel: draws the log while the search runs, then lets a person pick another trial."""

import html
import threading
import time

import pytest
import search_toys as toys
from quantization_models import conv_net

import kit.ui
from kit.errors import BadInput, ToolFailed
from kit.progress import Cancelled, Tick
from kit.trials.conduct import conduct
from kit.trials.found import Found
from kit.trials.log import Log
from kit.trials.space import baseline
from kit.ui.search_view import SearchPanel


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class StepwiseSearch:
    """A ``call`` for panels: a search in a made-up world, each trial of which waits until it may go on."""

    def __init__(self, *, free=False):
        self.steps, self.free = threading.Semaphore(0), free

    def __call__(self, stage, model, samples, *, report, runs, options, pass_report=False, **more):
        home = runs / "toy"
        home.mkdir(parents=True, exist_ok=True)
        log = Log(home / "search-1", {
            "title": "toy.onnx", "metric": "score", "allowed": toys.ALLOWED, "space": len(toys.candidates()),
            "float_model": "", "notes": [], "ended": False})
        attempt, said = toys.Attempt(toys.World(5), home), report

        def after_leave(ask, report=None):
            while not self.free and not self.steps.acquire(timeout=0.02):
                said(Tick(ask.number, None, "trying"))
            return attempt(ask)

        ended = conduct(log, after_leave, baseline(toys.OPTIONS), toys.candidates(), allowed=toys.ALLOWED, seconds=1e9)
        log.say(ended=ended)
        return Found.open(log.folder)


@pytest.fixture
def toy(tmp_path):
    return conv_net(tmp_path / "toy.onnx")


def panel(toy, call, **kwargs):
    return SearchPanel(toy, [], kwargs, call=call)


def until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited 30 s for something that did not happen")


def test_it_shows_the_options_that_matter_and_folds_the_others(toy):
    for kwargs, first in (({"metric": len}, "loss"), ({}, "sqnr")):
        made = panel(toy, StepwiseSearch(), **kwargs)
        shown = [name for name, control in made.controls.items() if control.view in made.look.box.children]
        assert sorted(shown) == sorted([first, "seconds", "runtimes", "precisions", "threads"])
        assert made._live.layout.display == "none"


def test_the_equal_call_names_metric_and_samples_as_they_were_written(toy):
    lines, judge = [1, 2], len
    made = kit.ui.search(toy, lines[:1], metric=judge)
    assert "kit.search(toy, lines[:1], metric=judge)" in html.unescape(made.look.call.value).replace(
        repr(str(toy)), "toy")


def test_points_appear_while_the_search_runs(toy):
    call = StepwiseSearch()
    made = panel(toy, call)
    made.start()
    until(lambda: made._live.layout.display == "" or made.chart.chart)
    for step in range(3):
        call.steps.release()
        until(lambda step=step: made.chart.chart is not None
              and sum(len(trace.x) for trace in made.chart.chart.figure.data[1:]) == step + 1)
    assert "seconds of searching" in str(made.chart.chart.figure.layout.xaxis.title.text)
    assert made._picker.layout.display == "none"
    call.free = True
    found = made.get()
    assert made.show.value == "loss against time"
    assert found.pick.candidate.label in made.chart.chart.alt
    assert made._picker.layout.display == ""


def test_get_gives_the_trial_that_a_person_picked(toy):
    made = panel(toy, StepwiseSearch(free=True))
    found = made.get()
    assert made.use.disabled
    other = next(t.number for t in found.trials if t.number != found.pick.number and t.artifact)
    made.trials.options = [(str(other), other)]
    made.trials.value = other
    made.use.click()
    assert made.get().pick.number == other
    assert made.get().artifact == found.trials[other].artifact
    assert f"Trial {other} is picked" in made.look.status.value
    assert made.use.disabled
    assert len(made.get().trials) == len(found.trials)  # nothing was searched again


def test_every_trial_can_be_picked_where_the_float_model_stays(toy, monkeypatch):
    is_float = baseline(toys.OPTIONS).__eq__
    monkeypatch.setattr(toys.World, "ratio", lambda world, candidate: 1.0 if is_float(candidate) else 1.5)
    monkeypatch.setattr(toys.World, "loss", lambda world, candidate: 0.0 if is_float(candidate) else 0.5)
    made = panel(toy, StepwiseSearch(free=True))
    found = made.get()
    assert found.pick == found.baseline
    assert len(found.pareto()) == 1
    assert {number for _, number in made.trials.options} == {t.number for t in found.trials if t.ratio}
    words, other = next((words, number) for words, number in made.trials.options if number)
    assert "more than allowed" in words
    made.trials.value = other
    made.use.click()
    assert made.get().pick.number == other


def test_changed_settings_make_a_pick_outdated(toy):
    made = panel(toy, StepwiseSearch(free=True))
    found = made.get()
    made.pick(0)
    made.controls["seconds"].value = 700
    assert made.get().pick.number == found.pick.number


def test_a_stopped_search_keeps_what_it_found_and_can_be_picked_from(toy):
    call = StepwiseSearch()
    made = panel(toy, call)
    made.start()
    for step in range(3):
        call.steps.release()
        until(lambda step=step: made._found and len(made._found.trials) == step + 1)
    made.cancel()
    until(lambda: not made.running)
    assert "What was found so far is kept" in made.look.status.value
    assert made.result is None
    assert [value for _, value in made.trials.options]
    made.pick(0)
    assert made.get().pick.number == 0
    assert not made.running


def test_a_failed_search_shows_its_remedy_and_no_chart(toy):
    def broken(*args, **kwargs):
        raise ToolFailed("no", remedy="do this instead")

    made = panel(toy, broken)
    with pytest.raises(ToolFailed):
        made.get()
    assert "do this instead" in made.look.error.value
    assert made.chart.chart is None
    assert made._live.layout.display == "none"


def test_a_trial_that_is_gone_is_told_in_place(toy):
    made = panel(toy, StepwiseSearch(free=True))
    found = made.get()
    other = next(t for t in found.trials if t.number != found.pick.number)
    other.artifact.unlink()
    made.pick(other.number)
    assert "has no file any more" in made.look.error.value
    assert made.get().pick.number == found.pick.number


def test_a_model_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(BadInput):
        kit.ui.search(tmp_path / "nothing.onnx", [])


def test_a_cancelled_search_raises_in_get(toy):
    made = panel(toy, StepwiseSearch())
    made.start()
    made.cancel()
    with pytest.raises(Cancelled, match="Run goes on from there"):
        made._wait()
