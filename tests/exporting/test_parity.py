"""The comparison of source and export, with functions for runtimes."""

import contextlib

import numpy as np
import pytest

from kit.comparison import Parity
from kit.errors import BadInput, ToolFailed
from kit.exporting import parity
from kit.exporting.parity import Trial, compare, compare_answers, overall
from kit.progress import silent


class Fake:
    """A runner that answers by a function."""

    def __init__(self, function, notes=()):
        self.settings = {"runtime": "fake 1.0", "oneDNN": "off", "threads": 2}
        self.function, self.notes = function, list(notes)

    def __call__(self, feed):
        return {"y": self.function(feed["x"])}


@pytest.fixture
def against(monkeypatch):
    """compare() with a fake candidate."""

    def run(reference, candidate, trials):
        monkeypatch.setattr(parity, "open_runner", lambda _: contextlib.nullcontext(Fake(candidate)))
        return compare(lambda: contextlib.nullcontext(Fake(reference, ["slow today"])), "candidate", trials, silent)

    return run


def trial(*shape, optional=True):
    return Trial("x".join(map(str, shape)), {"x": np.ones(shape, np.float32)}, optional)


def refuse_large(x):
    if x.size > 4:
        raise ToolFailed("too large", remedy="less")
    return x


@pytest.mark.parametrize(("off", "verdict"), [(0, "equal"), (9e-6, "equal"), (1e-4, "warning"), (1e-2, "failed")])
def test_the_limits_decide_the_verdict(against, off, verdict):
    found = against(lambda x: x, lambda x: x + np.float32(off), [trial(2, 3)])
    assert overall(found.rows, found.failures) == verdict
    assert found.rows[0].elements == 6
    assert (found.reference_runtime, found.notes) == ("fake 1.0 (oneDNN off)", ["slow today"])


def test_a_size_the_source_refuses_is_left_out_with_a_note(against):
    found = against(refuse_large, lambda x: x, [trial(2, 2), trial(3, 3)])
    assert [t.what for t in found.trials] == ["2x2"]
    assert "left out" in found.notes[-1]


def test_spares_are_tried_only_while_too_few_were_taken(against):
    spare = [Trial(f"spare {n}", {"x": np.ones(n, np.float32)}, optional=True, spare=True) for n in (3, 9, 4, 2)]
    found = against(refuse_large, lambda x: x, [trial(2, 2), trial(3, 3), *spare])
    assert [t.what for t in found.trials] == ["2x2", "spare 3"]
    found = against(refuse_large, lambda x: x, [trial(5, 5), trial(3, 3), *spare])
    assert [t.what for t in found.trials] == ["spare 3", "spare 4"]


def test_a_frozen_shape_is_a_failure_although_the_rest_agrees(against):
    found = against(lambda x: x, refuse_large, [trial(2, 2), trial(3, 3)])
    assert overall(found.rows, []) == "equal"
    assert overall(found.rows, found.failures) == "failed"
    assert found.failures == ["3x3: too large"]


def test_a_changed_output_shape_is_a_failure(against):
    found = against(lambda x: x, lambda x: x[:1], [trial(2, 2)])
    assert "shape" in found.failures[0]


def test_when_the_source_takes_nothing_the_reader_is_asked_for_sizes(against):
    with pytest.raises(BadInput, match="3x3") as caught:
        against(refuse_large, lambda x: x, [trial(3, 3)])
    assert "probe" in caught.value.remedy


def test_an_input_that_was_asked_for_is_not_left_out(against):
    with pytest.raises(ToolFailed, match="too large"):
        against(refuse_large, lambda x: x, [trial(3, 3, optional=False)])


def test_a_layer_with_another_number_of_outputs_is_refused():
    one = np.ones(2, np.float32)
    assert compare_answers([[one]], [{"y": one}])[0].verdict == "equal"
    with pytest.raises(BadInput, match="gives 2 outputs"):
        compare_answers([[one, one]], [{"y": one}])


def test_nothing_compared_is_nothing_found():
    assert Parity().result() == ()
