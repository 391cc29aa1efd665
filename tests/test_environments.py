"""Environments of their own: made whole or not at all, shown, removable, and their absence explained."""

import os
import sys

import pytest
import tool_environment

from kit import environments, preflight, worker
from kit.errors import BadInput, MissingTool, ToolFailed
from kit.progress import Cancelled, Tick

SMALL = {"small": {"for": "try the making", "module": "six", "download": 11_000, "disk": 20_000_000,
                   "pins": ["six==1.17.0"], "source": "-", "checked": "2026-11-25"}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and one small environment to make in it."""
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(environments, "_table", lambda: SMALL)
    monkeypatch.delenv("KIT_PYTHON_SMALL", raising=False)
    return tmp_path / "home"


def test_onnx2tf_is_made_as_pinned_and_runs_in_a_worker(monkeypatch):
    monkeypatch.delenv("KIT_PYTHON_ONNX2TF", raising=False)
    found, ticks = tool_environment.made()
    installed = preflight.versions(str(found.python))
    pins = dict(pin.split("==") for pin in found.pins)
    assert {name: installed.get(preflight._canonical(name)) for name in pins} == pins
    assert set(installed) - {preflight._canonical(name) for name in pins} <= {
        "pip", "python", "migration-notebook-kit"}
    assert found.size == pytest.approx(found.disk, rel=0.2), "the room that is told before is about what it takes"
    assert "remove" in str(found)
    if ticks:
        notes = " ".join(tick.note for tick in ticks)
        assert "downloading tensorflow-cpu 2.19.1" in notes
        assert ticks[-1].done == ticks[-1].total
    assert environments.ready("onnx2tf") == str(found.python)
    assert worker.run(tool_environment.inside, framework="onnx2tf") == ("1.29.24", str(found.folder))
    again = []
    assert environments.make("onnx2tf", report=again.append) == found
    assert not again, "a second call has nothing to do"
    print(f"onnx2tf: {found.size / 1e9:.2f} GB in {found.seconds:.0f} s")


def test_where_nothing_may_be_downloaded_it_says_what_would_be(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    with pytest.raises(MissingTool, match="onnx2tf needs an environment of its own") as caught:
        environments.make("onnx2tf", install=False)
    assert "333.0 MB" in caught.value.remedy
    assert "kit.environments.make('onnx2tf')" in caught.value.remedy
    assert "kit.environments.remove('onnx2tf')" in caught.value.remedy
    assert not environments.find("onnx2tf")
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_answered_with_the_known():
    with pytest.raises(BadInput, match="no environment named 'onx2tf'") as caught:
        environments.find("onx2tf")
    assert "onnx2tf" in caught.value.remedy


def test_it_is_made_used_and_taken_away(home):
    assert environments.find("small").title().startswith("small has no environment yet")
    made = environments.make("small")
    assert made
    assert made.folder.parent == home
    assert [path.name for path in home.iterdir()] == [made.folder.name], "nothing else stays"
    assert environments.ready("small") == str(made.python) == worker.interpreter("small")
    freed = environments.remove("small")
    assert freed >= made.size > 10_000
    assert not environments.find("small")
    assert not list(home.iterdir())
    assert worker.interpreter("small") == sys.executable


@pytest.mark.parametrize("when", ["making", "trying"])
def test_cancelled_nothing_stays(home, when):
    def cancel(tick: Tick) -> None:
        if when in tick.note:
            raise Cancelled()

    with pytest.raises(Cancelled):
        environments.make("small", report=cancel)
    assert not list(home.iterdir())
    assert not environments.find("small")


def test_without_the_index_the_log_and_a_way_out_are_told(home, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(MissingTool, match="could not be installed") as caught:
        environments.make("small")
    assert "No matching distribution" in caught.value.detail
    assert "kit.worker.use" in caught.value.remedy
    assert not list(home.iterdir())


def test_what_cannot_be_imported_is_not_kept(home, monkeypatch):
    monkeypatch.setattr(environments, "_table", lambda: {"small": {**SMALL["small"], "module": "seven"}})
    with pytest.raises(ToolFailed, match="cannot be imported") as caught:
        environments.make("small")
    assert "No module named 'seven'" in caught.value.detail
    assert not list(home.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_fetched(home, monkeypatch):
    monkeypatch.setattr(environments, "_table", lambda: {"small": {**SMALL["small"], "disk": 10**18}})
    with pytest.raises(MissingTool, match="are free") as caught:
        environments.make("small")
    assert "KIT_HOME" in caught.value.remedy


def test_what_a_killed_process_left_is_not_taken_for_whole_and_goes(home):
    found = environments.find("small")
    found.folder.mkdir(parents=True)
    (found.folder / "made.json").write_text("{")
    left = home / ".small-0123.abcd"
    left.mkdir()
    os.utime(left, (0, 0))
    assert not environments.find("small")
    assert environments.make("small")
    assert not left.exists()


def test_an_interpreter_that_was_chosen_by_hand_is_left(home):
    worker.use("small", python=sys.executable)
    os.environ["KIT_PYTHON_SMALL"] = "/bin/true"
    assert environments.ready("small", install=False) == "/bin/true"
    worker.use("small", python=None)
