"""Benchmark statistics on made-up times; a real runner only to see that everything arrives."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import kit
from kit import record
from kit.benchmarking import BenchmarkOptions, benchmark, compare, noise_alarms, take_turns
from kit.errors import BadInput
from kit.evidence.profiling import profile, summarise

FEED = {"x": np.ones((1, 4), np.float32)}
QUICK = BenchmarkOptions(rounds=20, runs=5, pause_ms=0, warm_up=1, alarm_busy=1.0)


class Fake:
    """A runner whose times are drawn from a known distribution."""

    def __init__(self, median, spread=0.02, seed=0, drift=0.0, log=None, name=""):
        self.median, self.spread, self.drift, self.log, self.name = median, spread, drift, log, name
        self.random, self.calls = np.random.default_rng(seed), 0
        self.settings, self.notes = {"runtime": "made up"}, []

    def time(self, feeds, runs):
        self.calls += 1
        if self.log is not None:
            self.log.append((self.name, runs))
        return list(self.median * (1 + self.drift * self.calls) * self.random.lognormal(0, self.spread, runs))

    def memory(self):
        return 123_000_000


@pytest.fixture
def model(tmp_path):
    weights = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, (4, 4), weights.tobytes(), raw=True)])
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_candidates_take_turns_and_the_first_run_of_a_turn_is_left_out():
    log, slept = [], []
    runners = {name: Fake(1.0, log=log, name=name) for name in "AB"}
    times = take_turns(runners, [FEED], BenchmarkOptions(rounds=5, runs=3, pause_ms=20), sleep=slept.append)
    assert [name for name, _ in log] == list("ABABABABAB")
    assert {runs for _, runs in log} == {4}
    assert times["A"].shape == (5, 3)
    assert slept == [0.02] * 10


def test_it_is_the_first_run_of_a_turn_that_is_left_out():
    class Cold(Fake):
        def time(self, feeds, runs):
            return [100.0] + [1.0] * (runs - 1)

    assert (take_turns({"A": Cold(1)}, [FEED], QUICK, sleep=lambda _: None)["A"] == 1).all()


def test_all_candidates_of_a_round_get_the_same_input():
    fed = []

    class Watching(Fake):
        def time(self, feeds, runs):
            fed.append(int(feeds["x"][0]))
            return [1.0] * runs

    feeds = [{"x": np.array([n])} for n in range(3)]
    take_turns({"A": Watching(1), "B": Watching(1)}, feeds, QUICK, sleep=lambda _: None)
    assert fed[:8] == [0, 0, 1, 1, 2, 2, 0, 0]


def test_a_candidate_that_is_twice_as_fast_is_called_faster_with_an_interval_around_two():
    found = benchmark({"slow": Fake(10.0, seed=1), "quick": Fake(5.0, seed=2)}, FEED, QUICK)
    quick = found.timing("quick")
    assert quick.verdict == "faster"
    assert quick.low < 2.0 < quick.high or quick.speedup == pytest.approx(2.0, rel=0.02)
    assert 1.9 < quick.low < quick.high < 2.1
    assert "2.0" in found.title()
    assert found.fastest is quick


def test_equals_show_no_difference_and_the_title_says_so():
    found = benchmark({"one": Fake(10.0, 0.1, seed=1), "two": Fake(10.0, 0.1, seed=3)}, FEED, QUICK)
    assert found.timing("two").verdict == "no difference shown"
    assert "No difference shown" in found.title()
    assert "no difference shown" in str(found)


def test_a_slower_candidate_is_called_slower():
    found = benchmark({"base": Fake(5.0, seed=1), "int8": Fake(7.0, seed=2)}, FEED, QUICK)
    assert found.timing("int8").verdict == "slower"
    assert found.title().startswith("base is the fastest")


def test_percentiles_and_frames_a_second_come_from_all_runs():
    times = np.arange(1, 101, dtype=float).reshape(20, 5)
    timing, = compare({"only": times}, QUICK)
    assert timing.p50_ms == pytest.approx(50.5)
    assert timing.p95_ms == pytest.approx(95.05)
    assert timing.fps == pytest.approx(1000 / 50.5)
    assert timing.verdict == "baseline"
    assert np.array(timing.times_ms).shape == (20, 5)


def test_a_machine_that_slows_down_raises_the_drift_alarm():
    steady = compare(take_turns({"a": Fake(1)}, [FEED], QUICK, sleep=lambda _: None), QUICK)
    drifting = compare(take_turns({"a": Fake(1, drift=0.05)}, [FEED], QUICK, sleep=lambda _: None), QUICK)
    assert noise_alarms(steady, QUICK) == ()
    alarm, = noise_alarms(drifting, QUICK)
    assert alarm.startswith("drift, time of the second half of the rounds over the first's: a 1.")


def test_uneven_times_raise_the_spread_alarm():
    alarm, = noise_alarms(compare({"a": np.array([[1.0] * 9 + [3.0]] * 20)}, QUICK), QUICK)
    assert alarm == "uneven times, 95th percentile over median: a 3.0x"


def test_a_busy_machine_is_an_alarm_and_the_title_says_so(monkeypatch):
    from kit import benchmarking

    monkeypatch.setattr(benchmarking, "busy_share", lambda: 0.8)
    found = benchmark({"a": Fake(2), "b": Fake(1)}, FEED, BenchmarkOptions(rounds=5, pause_ms=0))
    assert any("80% of the processor" in alarm for alarm in found.alarms)
    assert "noisy machine" in found.title()
    assert found.facts()["alarm 1"] == found.alarms[0]


def test_drift_hits_all_candidates_alike_and_leaves_the_ratio(monkeypatch):
    found = benchmark({"a": Fake(10, drift=0.05, seed=1), "b": Fake(5, drift=0.05, seed=2)}, FEED, QUICK)
    assert found.timing("b").speedup == pytest.approx(2.0, rel=0.03)
    assert any("drift" in alarm and "a 1." in alarm and "b 1." in alarm for alarm in found.alarms)


def test_settings_notes_memory_and_size_are_part_of_the_result():
    fell_back = Fake(3)
    fell_back.notes.append("runs without oneDNN")
    found = benchmark({"a": Fake(1), "b": fell_back}, FEED, QUICK)
    assert found.timing("b").notes == ("runs without oneDNN",)
    assert found.timing("a").memory == 123_000_000
    assert "runs without oneDNN" in str(found)
    assert "made up" in str(found)
    assert found.provenance is None  # made-up runners cannot be fingerprinted


def test_no_candidates_and_no_feeds_are_refused():
    with pytest.raises(BadInput, match="no candidate"):
        benchmark({}, FEED)
    with pytest.raises(BadInput, match="nothing to feed"):
        benchmark({"a": Fake(1)}, [])


def test_a_missing_model_is_named():
    with pytest.raises(BadInput, match=r"candidate 'gone'.*nowhere"):
        benchmark({"gone": "nowhere"}, FEED)


def test_a_real_model_with_two_settings_is_stored_and_repeated_on_demand(model, tmp_path):
    options = BenchmarkOptions(rounds=5, runs=2, pause_ms=0, warm_up=1, threads=1)
    candidates = {"rewritten": model, "as written": (model, {"graph_level": "none"})}
    first = kit.benchmark(candidates, FEED, options, runs=tmp_path / "runs")
    assert [t.settings["graph level"] for t in first.timings] == ["all", "none"]
    assert all(t.memory > 10_000_000 and t.size == model.stat().st_size for t in first.timings)
    assert first.timings[0].settings["runtime"].startswith("onnxruntime")
    assert "float32[1, 4]" in first.feeds
    again = kit.benchmark(candidates, FEED, options, runs=tmp_path / "runs")
    assert again == first
    assert again.provenance == first.provenance
    assert record.load(kit.Benchmark, first.provenance.folder) == first
    from dataclasses import replace

    anew = kit.benchmark(candidates, FEED, replace(options, repeat=1), runs=tmp_path / "runs")
    assert anew.provenance.key != first.provenance.key
    assert anew.timings[0].times_ms != first.timings[0].times_ms


def test_a_wrong_input_name_is_named(model, tmp_path):
    with pytest.raises(BadInput, match=r"'m'.*no input named 'image'"):
        benchmark({"m": model}, {"image": FEED["x"]}, QUICK, runs=tmp_path)


def test_the_memory_of_a_worker_is_its_own_and_not_its_parents():
    from kit import worker
    from kit.runtimes import peak_memory

    ballast = np.ones(400_000_000, np.uint8)
    assert peak_memory() > ballast.nbytes
    assert 10_000_000 < worker.run(peak_memory) < 300_000_000  # Python and numpy take some 60 MB


def test_a_profile_tells_the_operators(model):
    found = profile(model, FEED, runs=3, threads=1)
    assert {row.operator for row in found.rows} >= {"MatMul"}
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert found.runs == 3


def test_a_profile_leaves_the_warm_up_run_out():
    def node(ts, dur):
        return {"name": "conv1_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": "Conv"}}

    def whole(ts, dur):
        return {"name": "model_run", "ts": ts, "dur": dur, "args": {}}

    events = [node(1, 90_000), whole(0, 95_000), node(101, 2000), whole(100, 3000), node(201, 4000), whole(200, 5000)]
    found = summarise(events, runs=2)
    assert found.rows[0].ms == pytest.approx(3.0)
    assert found.ms == pytest.approx(4.0)
    assert found.rows[0].nodes == 1


def recorded(folder, **settings):
    from box_results import box_results

    return box_results(folder, [FEED], [{"y": FEED["x"]}], **settings)


def test_what_a_box_measured_is_shown_and_compared_with_nothing(model, tmp_path):
    found = benchmark({"here": Fake(10.0), "Ascend310P3": recorded(tmp_path, batches=(1, 4))}, FEED, QUICK)
    assert [timing.name for timing in found.timings] == ["here"]
    one, four = found.recorded
    assert (one.name, four.name, four.fps) == ("Ascend310P3", "Ascend310P3, batch 4", 1000.0)
    rows = {row[0]: row for row in found.tables()[0].rows}
    assert rows["Ascend310P3"][1:] == ("4.00", "4.08", "250.0", "-", "12.0 kB",
                                       "measured on Ascend310P3, not interleaved here")
    assert found.title().startswith("here: ")
    assert not any("Ascend" in alarm for alarm in found.alarms)


def test_a_fake_box_has_no_figures_anywhere(tmp_path):
    found = benchmark({"here": Fake(10.0), "npu": recorded(tmp_path, fake="FAKE acl")}, FEED, QUICK)
    row = found.tables()[0].rows[1]
    assert row == ("npu on Ascend310P3 (FAKE)", "-", "-", "-", "-", "-", "FAKE, nothing was measured: FAKE acl")
    assert "FAKE" in found.facts()["note on npu on Ascend310P3 (FAKE)"]


def test_a_box_is_no_baseline(tmp_path):
    with pytest.raises(BadInput, match="'Ascend310P3' was recorded on a box"):
        benchmark({"Ascend310P3": recorded(tmp_path), "here": Fake(1.0)}, FEED, QUICK)


def test_recorded_times_are_stored_with_those_measured_here(model, tmp_path):
    options = BenchmarkOptions(rounds=5, runs=2, pause_ms=0)
    made, again = (benchmark({"onnx": model, "npu": recorded(tmp_path / "box", batches=(2,))}, FEED, options,
                             runs=tmp_path / "runs") for _ in range(2))
    assert made.provenance
    assert again == made
    other = benchmark({"onnx": model, "npu": recorded(tmp_path / "box", batches=(4,))}, FEED, options,
                      runs=tmp_path / "runs")
    assert other.provenance.key != made.provenance.key
    assert other.recorded[0].name == "npu on Ascend310P3, batch 4"


def test_a_runner_of_fakes_is_not_timed(tmp_path):
    fake = Fake(1.0)
    fake.settings = {"runtime": "FAKE pyACL"}
    with pytest.raises(BadInput, match="'om' is run by FAKE pyACL: its times say nothing"):
        benchmark({"here": Fake(10.0), "om": fake}, FEED, QUICK)


def test_candidates_get_the_feed_under_their_own_name_and_in_their_own_layout(tmp_path):
    paths = {}
    for layout, shape in (("NCHW", [1, 3, 8, 8]), ("NHWC", [1, 8, 8, 3])):
        graph = helper.make_graph(
            [helper.make_node("Relu", [layout], ["y"])], "g",
            [helper.make_tensor_value_info(layout, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)])
        paths[layout] = tmp_path / f"{layout}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), paths[layout])
    feed = {"NCHW": np.ones((1, 3, 8, 8), np.float32)}
    found = benchmark(paths, feed, QUICK, runs=tmp_path)
    assert [timing.name for timing in found.timings] == ["NCHW", "NHWC"]
    assert all(timing.p50_ms > 0 for timing in found.timings)
    with pytest.raises(BadInput, match="'NCHW'"):
        benchmark(paths, {"NCHW": np.ones((1, 3, 9, 8), np.float32)}, QUICK, runs=tmp_path)
