"""The loop of a search: kills, resumes, executors, failures; on made-up trials."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import search_toys
from search_toys import ALLOWED, OPTIONS, Attempt, World, candidates, search

import kit
from kit.errors import KitError, ToolFailed
from kit.progress import Cancelled
from kit.searching import Found
from kit.trials.conduct import conduct
from kit.trials.log import Log, Trial, best, read_trials
from kit.trials.space import baseline

TESTS = Path(__file__).resolve().parent.parent
SEED = 4


def lines(folder):
    """The log without what time has put there."""
    return [replace(trial, seconds=0.0, at=0.0, artifact=None) for trial in read_trials(folder / "search/trials.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    search(SEED, folder)
    return folder


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment_nothing_is_lost_and_the_answer_is_the_same(moment, whole, tmp_path):
    child = subprocess.Popen([sys.executable, str(TESTS / "search_toys.py"), str(SEED), str(tmp_path), "0.03"],
                             env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))})
    log = tmp_path / "search" / "trials.jsonl"
    while not log.is_file() and child.poll() is None:
        time.sleep(0.002)
    time.sleep(random.Random(moment).uniform(0, 0.4))
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = lines(tmp_path)
    assert before == lines(whole)[: len(before)]
    if len(before) > 1:
        assert kit.Found.open(tmp_path / "search").artifact.is_file()
    search(SEED, tmp_path)
    assert lines(tmp_path) == lines(whole)
    found, expected = Found.open(tmp_path / "search"), Found.open(whole / "search")
    assert (found.pick.number, found.why) == (expected.pick.number, expected.why)
    assert best(tmp_path / "search")[0] == best(whole / "search")[0]


def test_the_best_so_far_runs_at_every_moment(tmp_path, whole):
    import numpy as np

    for moment in range(1, len(lines(whole)) - 1):
        def stop(tick, moment=moment):
            if tick.done >= moment:
                raise Cancelled

        with pytest.raises(Cancelled):
            search(SEED, tmp_path, report=stop)
        found = Found.open(tmp_path / "search")
        number, path = best(tmp_path / "search")
        assert number == found.pick.number
        assert found.pick.ratio == min(t.ratio for t in found.trials if t.is_accurate(ALLOWED))
        for thing in (path, found.model):
            with kit.open_runner(thing) as run:
                assert np.isfinite(run({"x": np.zeros((1, 4), np.float32)})["y"]).all()


def test_the_time_allowed_is_for_all_calls_together(tmp_path):
    now = [0.0]

    def clock():
        now[0] += 10.0
        return now[0]

    log = search(SEED, tmp_path, seconds=60, clock=clock)
    early = len(log.trials)
    assert not Found.open(log.folder).ended
    assert any("more seconds" in note for note in Found.open(log.folder).not_reached)
    assert len(search(SEED, tmp_path, seconds=60, clock=clock).trials) == early, "it was used up before"
    assert len(search(SEED, tmp_path, seconds=1e9, clock=clock).trials) > early


def test_everything_tries_every_candidate_in_order(tmp_path):
    log = search(SEED, tmp_path, everything=True)
    assert len(log.trials) == len(candidates())
    rest = [trial.candidate for trial in log.trials[1:]]
    assert rest == [candidate for candidate in candidates() if candidate != baseline(OPTIONS)]


def test_a_search_finds_what_trying_everything_finds(tmp_path, whole):
    log = search(SEED, tmp_path, everything=True)
    assert Found.open(whole / "search").pick.ratio <= 1.05 * Found.open(log.folder).pick.ratio


@dataclass(frozen=True)
class Broken(Attempt):
    """Trials of OpenVINO fail: one with an error of the kit's, others with any other."""

    def __call__(self, ask, report=None) -> Trial:
        if ask.candidate.runtime == "openvino":
            raise ToolFailed("it broke", remedy="none") if ask.number % 2 else ZeroDivisionError("by zero")
        return super().__call__(ask)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_runs_the_trials_several_at_a_time(pool, tmp_path, whole):
    with pool(3) as executor:
        log = search(SEED, tmp_path, 0.05, executor=executor)
    assert sorted(t.number for t in log.trials) == list(range(len(log.trials)))
    assert Found.open(log.folder).pick.ratio <= 1.03 * Found.open(whole / "search").pick.ratio


def test_a_trial_that_fails_in_an_executor_is_a_line_in_the_log(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    log = Log(tmp_path / "search", {"allowed": ALLOWED})
    with ThreadPoolExecutor(2) as executor:
        assert conduct(log, Broken(World(SEED), files), baseline(OPTIONS), candidates(), allowed=ALLOWED, seconds=1e9,
                       executor=executor)
    failed = [t for t in log.trials if t.state == "failed"]
    assert {t.candidate.runtime for t in failed} == {"openvino"}
    assert {t.why for t in failed} <= {"it broke", "ZeroDivisionError: by zero"}
    assert log.trials[0].state == "measured"


def test_a_dask_cluster_runs_the_trials(tmp_path, whole):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: no Dask cluster to test on")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                  local_directory=str(tmp_path / "dask")) as cluster, \
            distributed.Client(cluster) as client:
        client.run(lambda path: sys.path.insert(0, path), str(TESTS))
        log = search(SEED, tmp_path, 0.05, executor=client.get_executor())
    assert Found.open(log.folder).pick.ratio <= 1.03 * Found.open(whole / "search").pick.ratio


def test_cancelling_keeps_the_log_and_the_next_call_goes_on(tmp_path, whole):
    def report(tick):
        if tick.done >= 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        search(SEED, tmp_path, report=report)
    assert lines(tmp_path) == lines(whole)[:5]
    search(SEED, tmp_path)
    assert lines(tmp_path) == lines(whole)


def test_a_number_that_a_killed_run_left_out_is_used(tmp_path):
    log = search(SEED, tmp_path)
    kept = log.path.read_bytes().split(b"\n")
    log.path.write_bytes(b"\n".join(kept[:3] + kept[4:]))  # trial 3 was under way beside trial 4
    again = search(SEED, tmp_path)
    assert sorted(t.number for t in again.trials) == list(range(len(again.trials)))
    assert {t.candidate for t in again.trials} == {t.candidate for t in log.trials}


def test_a_float_model_that_cannot_be_measured_ends_the_search(tmp_path):
    log = Log(tmp_path, {"allowed": ALLOWED})

    def attempt(ask, report=None):
        return Trial(ask.number, ask.candidate, "failed", why="no memory")

    with pytest.raises(ToolFailed, match="no memory"):
        conduct(log, attempt, baseline(OPTIONS), candidates(), allowed=ALLOWED, seconds=10)


def test_an_executor_that_was_shut_down_is_said(tmp_path):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(KitError, match="takes no more"):
        search_toys.search(SEED, tmp_path, executor=executor)
