"""Charts of verdicts and benchmarks: every figure has a static form and words that carry its facts."""

from dataclasses import replace

import numpy as np
import pytest

from kit import charts, verify
from kit.benchmarking import Benchmark, BenchmarkOptions, compare
from kit.comparison import TensorParity
from kit.verification import Change, StageRow, Verdict

RANDOM = np.random.default_rng(0)
PNG = b"\x89PNG\r\n\x1a\n"


def stage(name, status, value, relative=None, change=None):
    parity = () if relative is None else (TensorParity("maps", relative, relative, relative, 1.0, (0,), 9),)
    return StageRow(name, status, "because", "onnxruntime", "float", 1000, parity, None, {"hmean": value},
                    (value - 0.02, value + 0.01), change, change, 9, (), {}, (), 1.0)


@pytest.fixture
def verdict():
    rows = (stage("paddle", "reference", 0.93), stage("onnx", "equal", 0.93, 0.0, Change("paddle", 0.0, 0.0, 0.0)),
            stage("int8", "lost", 0.80, 0.3, Change("paddle", 0.13, 0.1, 0.2)))
    return Verdict(rows, "hmean", "higher", (), 40, 40, 0.95, 0.01)


@pytest.fixture
def benchmark():
    times = {"paddle": RANDOM.lognormal(3, 0.1, (20, 5)), "onnx": RANDOM.lognormal(2, 0.1, (20, 5))}
    return Benchmark(compare(times, BenchmarkOptions()), 20, 5, 2, 0.95, "x float32[1, 3, 8, 8]", {}, ())


def test_the_waterfall_says_every_stage_with_value_interval_and_status(verdict):
    chart = charts.accuracy_waterfall(verdict)
    for words in ("paddle 0.930 [0.910, 0.940] (reference)", "onnx 0.930", "int8 0.800 [0.780, 0.810] (lost)",
                  "A loss of 0.01 is allowed", "lost first"):
        assert words in chart.alt
    assert chart.png().startswith(PNG)


def test_the_waterfall_tells_statuses_apart_without_colour(verdict):
    markers = [trace.marker.symbol for trace in charts.accuracy_waterfall(verdict).figure.data if trace.name]
    assert len(set(markers)) == len(markers) == 3


def test_the_allowed_limit_is_above_the_reference_where_lower_is_better(verdict):
    def limit(verdict):
        return charts.accuracy_waterfall(verdict).figure.layout.shapes[0].y0

    assert limit(verdict) == pytest.approx(0.92)
    assert limit(replace(verdict, better="lower")) == pytest.approx(0.94)


def test_an_error_of_zero_can_be_drawn_on_a_logarithmic_axis_and_is_called_exact(verdict):
    chart = charts.tensor_error(verdict)
    trace = next(trace for trace in chart.figure.data if trace.name == "maps")
    assert min(trace.y) > 0
    assert trace.text[0].strip() == "exact"
    assert "onnx 0.0e+00; int8 3.0e-01" in chart.alt
    assert chart.png().startswith(PNG)


def test_without_a_task_the_waterfall_shows_the_tensors():
    feeds = [{"x": np.float32([[n, 1]])} for n in range(3)]
    verdict = verify({"a": lambda f: {"y": f["x"]}, "b": lambda f: {"y": f["x"] + np.float32(1e-4)}}, feeds)
    assert charts.accuracy_waterfall(verdict).alt == charts.tensor_error(verdict).alt


def test_latency_shows_every_run_that_fits_and_counts_the_others(benchmark):
    chart = charts.latency(benchmark)
    shown = sum(len(trace.x) for trace in chart.figure.data)
    assert shown == 200
    assert "outside" not in chart.alt
    spike = np.full((20, 5), 10.0)
    spike[0, 0] = 10_000
    chart = charts.latency(replace(benchmark, timings=compare({"a": spike}, BenchmarkOptions())))
    assert "1 of the slowest runs lie outside" in chart.alt
    assert chart.png().startswith(PNG)


def test_the_speed_chart_says_how_many_times_as_fast(benchmark):
    chart = charts.speedup(benchmark)
    assert "paddle baseline; onnx 2." in chart.alt
    assert "95% intervals" in chart.alt
    assert chart.figure.layout.shapes[0].x0 == 1
    assert chart.png().startswith(PNG)


def test_memory_that_is_not_known_is_not_drawn_as_a_figure(benchmark):
    assert "paddle not known, no file" in charts.memory(benchmark).alt
    known = tuple(replace(t, memory=250_000_000, size=5_000_000) for t in benchmark.timings)
    chart = charts.memory(replace(benchmark, timings=known))
    assert "onnx 250.0 MB, 5.0 MB" in chart.alt
    assert list(chart.figure.data[0].x) == [250, 250]
    assert chart.png().startswith(PNG)


def recorded(tmp_path, **settings):
    from box_results import box_results

    feed = {"x": np.ones((1, 4), np.float32)}
    return box_results(tmp_path, [feed], [feed], **settings)


def test_what_a_box_measured_is_a_hatched_bar_and_no_speed(benchmark, tmp_path):
    from kit.ascend.box.recorded import timings

    told = replace(benchmark, recorded=timings("npu on Ascend310P3", recorded(tmp_path / "a")))
    chart = charts.latency(told)
    bar = next(trace for trace in chart.figure.data if trace.type == "bar")
    assert (list(bar.x), list(bar.y), bar.marker.pattern.shape) == ([4.0], [2], "/")
    assert list(chart.figure.layout.yaxis.ticktext) == ["paddle", "onnx", "npu on Ascend310P3"]
    assert "Hatched: npu on Ascend310P3, measured on Ascend310P3, not interleaved here: median 4.00." in chart.alt
    assert "hatched" in chart.figure.layout.title.text
    assert chart.png().startswith(PNG)
    assert "npu" not in charts.speedup(told).alt, "it is compared with nothing"
    assert "npu" not in charts.memory(told).alt


def test_a_fake_box_has_a_label_and_no_bar(benchmark, tmp_path):
    from kit.ascend.box.recorded import timings

    chart = charts.latency(replace(benchmark, recorded=timings("npu (FAKE)", recorded(tmp_path, fake="FAKE acl"))))
    assert next(list(trace.x) for trace in chart.figure.data if trace.type == "bar") == [0.0]
    assert "Hatched: npu (FAKE), FAKE, nothing was measured: FAKE acl." in chart.alt
    assert any("FAKE" in note.text for note in chart.figure.layout.annotations)


def test_without_a_box_nothing_is_said_of_one(benchmark):
    chart = charts.latency(benchmark)
    assert "atched" not in chart.alt + chart.figure.layout.title.text


def test_a_stage_from_a_box_has_an_open_marker(verdict):
    rows = (*verdict.rows, replace(verdict.rows[1], name="npu", device="Ascend310P3"))
    chart = charts.accuracy_waterfall(replace(verdict, rows=rows))
    marks = {trace.name: trace.marker.symbol for trace in chart.figure.data if trace.name}
    assert marks["equal, recorded on Ascend310P3"] == "circle-open"
    assert marks["equal"] == "circle"
    assert "npu 0.930 [0.910, 0.940] (equal, recorded on Ascend310P3)" in chart.alt
    assert "recorded on Ascend310P3" in charts.tensor_error(replace(verdict, rows=rows)).alt
    assert chart.png().startswith(PNG)
