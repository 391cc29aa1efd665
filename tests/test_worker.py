import os
import sys
import time

import helpers
import psutil
import pytest

from kit import worker
from kit.errors import BadInput, ToolFailed, WorkerDied
from kit.progress import Cancelled


def test_a_result_comes_back_and_output_goes_to_the_log(tmp_path):
    assert worker.run(helpers.add, 1, 2, log=tmp_path / "log.txt") == 3
    assert (tmp_path / "log.txt").read_text() == "adding\n"


def test_a_segfault_is_an_error_with_the_place_in_its_detail():
    with pytest.raises(WorkerDied, match="SIGSEGV") as caught:
        worker.run(helpers.crash)
    assert "in crash" in caught.value.detail
    assert caught.value.remedy


def test_a_killed_worker_points_to_memory():
    with pytest.raises(WorkerDied, match="signal 9") as caught:
        worker.run(helpers.kill_self)
    assert "memory" in caught.value.remedy


def test_a_worker_that_leaves_brings_its_last_words():
    with pytest.raises(WorkerDied, match="exit code 3") as caught:
        worker.run(helpers.leave)
    assert "exit code 3" in caught.value.what


def test_running_out_of_memory_is_told_apart():
    with pytest.raises(WorkerDied, match="out of memory"):
        worker.run(helpers.run_out_of_memory)


def test_the_memory_limit_stops_a_worker():
    with pytest.raises(WorkerDied, match="more than the limit"):
        worker.run(helpers.hog, 400_000_000, memory_limit=200_000_000)


def test_an_error_of_the_tool_keeps_its_traceback():
    with pytest.raises(ToolFailed, match="ZeroDivisionError") as caught:
        worker.run(helpers.divide, 1, 0)
    assert "return left / right" in caught.value.detail


def test_a_kit_error_arrives_as_it_was_raised():
    with pytest.raises(BadInput, match="sky is green") as caught:
        worker.run(helpers.refuse)
    assert (caught.value.remedy, caught.value.detail) == ("look again", "it was a filter")


def test_a_full_disk_in_the_worker_is_named():
    with pytest.raises(BadInput, match=r"disk is full.*weights\.bin"):
        worker.run(helpers.fill_disk)


def test_cancelling_stops_the_worker_and_everything_it_started(tmp_path):
    note = tmp_path / "pid"

    def report(tick):
        if note.exists() and note.read_text():
            raise Cancelled

    with pytest.raises(Cancelled):
        worker.run(helpers.spawn_child_and_sleep, str(note), report=report)
    pid = int(note.read_text())
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the worker's own child is still alive")


def test_a_keyboard_interrupt_passes_and_leaves_no_process():
    seen = []

    def report(tick):
        seen.append(tick)
        raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        worker.run(helpers.sleep, 60, report=report)
    assert set(psutil.Process().children()) <= before
    assert seen


def test_ticks_arrive_with_their_words():
    ticks = []
    assert worker.run(helpers.count, 4, report=ticks.append, pass_report=True) == 4
    assert ticks[-1] == (4, 4, "counting")


def test_a_function_from_the_notebook_is_refused_with_the_way_out():
    with pytest.raises(BadInput, match="defined in the notebook") as caught:
        worker.run(lambda: 1)
    assert ".py file" in caught.value.remedy


def test_a_kept_object_answers_several_calls():
    with worker.Process() as process:
        process.make(list, (3, 1, 2))
        process.call("sort")
        assert process.call("index", 3) == 2


def test_the_interpreter_of_a_framework_can_be_set(tmp_path):
    with pytest.raises(BadInput, match="not a program"):
        worker.use("paddle", python=tmp_path / "none")
    worker.use("paddle", python=sys.executable)
    try:
        assert worker.run(os.getpid, framework="paddle") != os.getpid()
    finally:
        worker.use("paddle", python=None)


def test_an_interpreter_without_the_kit_s_packages_is_explained(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such interpreter >&2\nexit 7\n")
    script.chmod(0o755)
    worker.use("paddle", python=script)
    try:
        with pytest.raises(WorkerDied, match="exit code 7") as caught:
            worker.run(os.getpid, framework="paddle")
        assert "no such interpreter" in caught.value.detail
    finally:
        worker.use("paddle", python=None)
