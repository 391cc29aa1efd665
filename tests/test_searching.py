"""Searches of a tiny model with real trials: files, resuming, guards, and what takes a result."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from quantization_models import attention_net, conv_net, feeds, save
from search_metric import SMALL, never, run, slow

import kit
from kit.errors import BadInput, StaleResult, ToolFailed
from kit.record import load
from kit.trials.log import read_trials

TESTS = Path(__file__).resolve().parent
ONLY = {**SMALL, "runtimes": ("onnxruntime",), "precisions": ("fp32", "int8")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return conv_net(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    """The whole search, done once."""
    return run(model, tmp_path_factory.mktemp("runs"))


def test_a_search_measures_every_kind_and_picks_the_fastest_accurate_one(found):
    assert found.ended
    assert {trial.candidate.runtime for trial in found.trials} == {"onnxruntime", "openvino"}
    assert not [trial.why for trial in found.trials if trial.state == "failed"]
    good = [trial for trial in found.trials if trial.is_accurate(found.allowed)]
    assert found.pick in good
    assert found.baseline.ratio == 1.0
    assert found.pick.score >= 20.0, "the default asks for 20 dB where there is no metric"
    assert len(found.trials) < found.space


def test_the_result_runs_as_its_pick(found):
    feed = feeds(1)[0]
    with kit.open_runner(found) as run_it:
        assert found.pick.candidate.runtime in str(run_it.settings["runtime"]).lower()
        assert run_it(feed)["y"].shape == (1, 2, 32, 32)
    options = kit.BenchmarkOptions(rounds=5, runs=2, pause_ms=0, resamples=100)
    timed = kit.benchmark({"float": found.trials[0].artifact, "pick": found}, feed, options, runs=found.folder.parent)
    assert timed.timing("pick").p50_ms > 0
    verdict = kit.verify({"float": found.trials[0].artifact, "pick": found}, feeds(2), runs=found.folder.parent)
    assert [row.name for row in verdict.rows] == ["float", "pick"]


def test_the_front_has_no_trial_that_another_beats(found):
    front = found.pareto()
    assert front
    assert all(a.ratio <= b.ratio and a.loss > b.loss for a, b in itertools.pairwise(front))


def test_another_trial_can_be_chosen(found):
    other = next(t for t in found.trials if t.number != found.pick.number)
    chosen = found.choose(other.number)
    assert (chosen.pick, chosen.artifact, chosen.why) == (other, other.artifact, "chosen by hand")
    with pytest.raises(BadInput, match="trial"):
        found.choose(99)


def test_the_result_is_stored_and_says_what_it_found(found):
    assert kit.Found.open(found.folder) == found
    assert load(kit.Found, found.folder).pick.candidate == found.pick.candidate
    text = str(found)
    assert found.pick.candidate.label in text
    assert "Trials, fastest first" in text
    assert "<table" in found.html()


def test_the_same_call_again_only_reads_the_log(found, model):
    began = (found.folder / "trials.jsonl").stat().st_mtime_ns
    again = run(model, found.folder.parent.parent)
    assert (again.folder, again.pick) == (found.folder, found.pick)
    assert (found.folder / "trials.jsonl").stat().st_mtime_ns == began


def test_more_seconds_go_on_with_the_log_and_another_allowed_loss_does_not(model, tmp_path):
    def searched(**options):
        return kit.search(model, feeds(), kit.SearchOptions(**ONLY, **options), metric=slow, runs=tmp_path)

    short = searched(seconds=1)
    assert not short.ended
    assert len(short.trials) == 1
    longer = searched(seconds=500)
    assert longer.ended
    assert longer.folder == short.folder
    assert longer.trials[0] == short.trials[0]
    assert searched(seconds=1, loss=0.02).folder != short.folder


def test_another_model_or_other_samples_begin_anew(model, tmp_path):
    options = kit.SearchOptions(seconds=1, **ONLY)
    folders = {kit.search(model, feeds(), options, runs=tmp_path).folder,
               kit.search(model, feeds(seed=5), options, runs=tmp_path).folder,
               kit.search(model, feeds(), options, metric=never, runs=tmp_path).folder,
               kit.search(conv_net(tmp_path / "toy.onnx", seed=9), feeds(), options, runs=tmp_path).folder}
    assert len(folders) == 4


def test_where_nothing_faster_is_accurate_the_float_model_stays(model, tmp_path):
    found = run(model, tmp_path, sqnr=100.0, **ONLY)
    assert found.pick == found.baseline
    assert "float model stays" in found.title()
    assert "nothing" in found.why
    assert found.artifact == model


def test_a_metric_decides_what_is_accurate(model, tmp_path):
    options = kit.SearchOptions(**{**SMALL, "precisions": ("fp32", "bf16")})
    found = kit.search(model, feeds(), options, metric=never, runs=tmp_path)
    assert found.metric == "never"
    openvino = [t for t in found.trials if t.candidate.runtime == "openvino" and t.state == "measured"]
    assert all(t.loss == 1.0 for t in openvino)
    assert found.pick.candidate.runtime == "onnxruntime"


@pytest.mark.parametrize("moment", [1, 2, 4])
def test_a_killed_search_goes_on_where_it_was(moment, model, tmp_path):
    child = subprocess.Popen([sys.executable, str(TESTS / "search_metric.py"), str(model), str(tmp_path)],
                             env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS)))},
                             stderr=subprocess.DEVNULL)
    logs = lambda: list(tmp_path.glob("toy/search-*/trials.jsonl"))  # noqa: E731
    while child.poll() is None and not (logs() and len(read_trials(logs()[0])) >= moment):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = read_trials(logs()[0])
    so_far = kit.Found.open(logs()[0].parent)
    with kit.open_runner(so_far) as run_it:
        assert np.isfinite(run_it(feeds(1)[0])["y"]).all()
    found = run(model, tmp_path)
    assert found.ended
    assert read_trials(logs()[0])[: len(before)] == before


def test_a_trial_over_the_memory_limit_is_stopped_and_said(model, tmp_path):
    with pytest.raises(ToolFailed, match="more than the limit of 30"):
        run(model, tmp_path, memory_limit_mb=30, **ONLY)


def test_a_calibration_will_do_for_samples_and_one_of_another_model_will_not(model, tmp_path):
    calibration = kit.calibrate(model, feeds(), runs=tmp_path)
    found = kit.search(model, calibration, kit.SearchOptions(**ONLY), runs=tmp_path)
    assert any(t.candidate.precision == "int8" and t.state != "failed" for t in found.trials)
    with pytest.raises(StaleResult, match="another model"):
        kit.search(conv_net(tmp_path / "other.onnx", seed=3), calibration, runs=tmp_path)


def test_a_model_that_cannot_be_int8_is_searched_in_float(tmp_path):
    old = conv_net(tmp_path / "old.onnx", opset=11)
    found = kit.search(old, feeds(), kit.SearchOptions(**ONLY), runs=tmp_path)
    assert {t.candidate.precision for t in found.trials} == {"fp32"}
    assert any("opset" in note for note in found.not_reached)


def test_a_net_of_matrix_products_is_also_tried_with_weights_in_few_bits(tmp_path):
    options = kit.SearchOptions(**{**SMALL, "runtimes": ("onnxruntime",), "everything": True,
                                   "precisions": ("fp32", "int8-weights", "int4-weights")})
    found = kit.search(attention_net(tmp_path / "block.onnx"), feeds(2, shape=(1, 12, 64)), options, runs=tmp_path)
    scores = {t.candidate.precision: (t.state, t.score) for t in found.trials}
    assert {state for state, _ in scores.values()} == {"measured"}
    assert scores["fp32"][1] > scores["int8-weights"][1] > scores["int4-weights"][1] > 15


def test_products_too_small_to_pack_cost_one_trial_and_say_why(tmp_path):
    small = save([helper.make_node("MatMul", ["x", "w"], ["y"], "small")], {"w": np.ones((8, 8), np.float32)},
                 tmp_path / "small.onnx", shape=(4, 8), output_shape=[4, 8])
    options = kit.SearchOptions(**{**SMALL, "threads": (1, 2), "runtimes": ("onnxruntime",),
                                   "precisions": ("fp32", "int8-weights")})
    found = kit.search(small, feeds(2, shape=(4, 8)), options, runs=tmp_path)
    (failed,) = [t for t in found.trials if t.state == "failed"]
    assert failed.candidate.precision == "int8-weights"
    assert "MatMul or Gemm" in failed.why
    assert any(failed.why in note for note in found.not_reached)


def test_everything_tries_the_whole_space(model, tmp_path):
    found = run(model, tmp_path, everything=True, **{**ONLY, "methods": ("mse",)})
    assert len(found.trials) == found.space == 3
    assert all(t.complete for t in found.trials)


def test_trials_run_on_a_dask_cluster(model, tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: no Dask cluster to test on")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                  local_directory=str(tmp_path / "dask")) as cluster, \
            distributed.Client(cluster) as client:
        found = kit.search(model, feeds(), kit.SearchOptions(**ONLY), executor=client.get_executor(), runs=tmp_path)
    assert found.ended
    assert not [t.why for t in found.trials if t.state == "failed"]


@pytest.mark.parametrize(("field", "value", "hint"), [
    ("runtimes", ("openvin",), "openvino"), ("precisions", ("int",), "int8"), ("methods", ("mean",), "mse"),
    ("threads", (0,), "from 1"), ("keep", (-1,), "from 0"), ("methods", (), "at least one")])
def test_options_that_cannot_be_are_answered_with_what_can(field, value, hint):
    with pytest.raises(BadInput) as caught:
        kit.SearchOptions(**{field: value})
    assert hint in caught.value.remedy


def test_what_cannot_be_a_metric_is_refused(model, tmp_path):
    with pytest.raises(BadInput, match="function from a runner"):
        kit.search(model, feeds(), kit.SearchOptions(**ONLY), metric=0.5, runs=tmp_path)
    with pytest.raises(BadInput, match="no samples"):
        kit.search(model, [], runs=tmp_path)


def test_a_folder_without_a_search_is_said(tmp_path):
    with pytest.raises(BadInput, match="no search"):
        kit.Found.open(tmp_path)
