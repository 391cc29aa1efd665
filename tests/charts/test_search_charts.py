"""Charts of a search: where every trial lies, what is said of it, and how the best came about."""

from dataclasses import replace

import numpy as np
import pytest
import search_toys as toys

from kit import charts
from kit.errors import BadInput
from kit.trials.conduct import conduct
from kit.trials.found import Found
from kit.trials.log import Log, Trial
from kit.trials.space import baseline


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return toys.search(5, tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def found(log):
    return Found.open(log.folder)


def points(chart):
    """Trial number -> where it lies and what hovering says."""
    return {number: (x, y, text) for trace in chart.figure.data if trace.customdata is not None
            for number, x, y, text in zip(trace.customdata, trace.x, trace.y, trace.hovertext, strict=True)}


def without_metric(folder, change=lambda trial: trial):
    """A search in a made-up world judged by the output's error, whose trials may be changed."""
    folder.mkdir()
    log = Log(folder / "search", {"title": "toy.onnx", "metric": "", "allowed": 0.01, "space": 40, "float_model": "",
                                  "notes": [], "ended": True})
    attempt = toys.Attempt(toys.World(5), folder)

    def judged(ask, report=None):
        trial = attempt(ask)
        return change(replace(trial, score=float(min(200, -10 * np.log10(max(trial.loss, 1e-20))))))

    conduct(log, judged, baseline(toys.OPTIONS), toys.candidates(), allowed=0.01, seconds=1e9)
    return log


def test_every_trial_lies_at_its_loss_and_time(found):
    shown = points(charts.pareto(found))
    assert set(shown) == {trial.number for trial in found.trials}
    for trial in found.trials:
        assert shown[trial.number][0] == pytest.approx(min(trial.loss, 8 * found.allowed))
        assert shown[trial.number][1] == trial.ratio


def test_hovering_says_everything_about_a_trial(found):
    text = points(charts.pareto(found))[found.pick.number][2]
    for said in (found.pick.candidate.label, f"{found.pick.ms:.2f} ms", f"{found.pick.speedup:.2f} times as fast",
                 f"{1 / found.pick.high:.2f}", found.loss_text(found.pick), "on disk", "of memory", "the pick"):
        assert said in text


def test_one_symbol_a_runtime_one_colour_a_precision_and_a_name_for_both(found):
    traces = [trace for trace in charts.pareto(found).figure.data if trace.customdata is not None]
    symbols = {trace.name.rpartition(" ")[0]: set(trace.marker.symbol) for trace in traces}
    assert symbols["ONNX Runtime"] == {"circle"}
    assert symbols["OpenVINO"] == {"diamond"}
    colours = {}
    for trace in traces:
        colours.setdefault(trace.name.rpartition(" ")[2], set()).add(trace.marker.color)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours)


def test_the_pick_has_a_ring_the_front_a_line_and_the_allowed_loss_too(found):
    chart = charts.pareto(found)
    by_name = {trace.name: trace for trace in chart.figure.data}
    assert by_name["pick"].x[0] == found.pick.loss
    assert by_name["pick"].y[0] == found.pick.ratio
    assert list(by_name["front"].y) == [trial.ratio for trial in found.pareto()]
    assert any(shape.x0 == shape.x1 == found.allowed for shape in chart.figure.layout.shapes)
    assert found.pick.candidate.label in chart.alt
    assert "allowed: 0.01" in chart.alt
    assert chart.png().startswith(b"\x89PNG")


def test_the_log_and_its_folder_give_the_same_chart(log, found):
    assert charts.pareto(log.path).alt == charts.pareto(log.folder).alt == charts.pareto(found).alt


def test_without_a_metric_the_output_s_noise_is_the_loss_and_worse_is_right(tmp_path):
    chart = charts.pareto(without_metric(tmp_path / "w").folder)
    left, right = chart.figure.layout.xaxis.range
    assert left > right
    assert points(chart)[0][0] == 80  # more than that is only another order of sums
    assert "dB" in chart.figure.layout.xaxis.title.text
    assert "80 stands for more too" in chart.figure.layout.xaxis.title.text


def test_what_failed_is_told_in_words_and_what_was_not_measured_stands_apart(tmp_path):
    def change(trial: Trial) -> Trial:
        if trial.candidate.precision == "bf16":
            return replace(trial, state="failed", ratio=None, low=None, high=None, loss=None, score=None,
                           complete=False, artifact=None, why="out of memory")
        if trial.candidate.runtime == "onnxruntime" and trial.number:
            return replace(trial, state="slower", loss=None, score=None, complete=False)
        return trial

    log = without_metric(tmp_path / "w", change)
    chart, trials = charts.pareto(log.folder), log.trials
    failed = [t for t in trials if t.state == "failed"]
    slower = [t for t in trials if t.state == "slower"]
    assert failed
    assert slower
    assert all(t.number not in points(chart) for t in failed)
    assert f"Failed: {failed[0].candidate.label} (out of memory)" in chart.alt
    assert f"{len(slower)} trials were slower than the best" in chart.alt
    limit = 20
    assert all(points(chart)[t.number][0] < limit for t in slower)
    assert any("loss not" in (note.text or "") for note in chart.figure.layout.annotations)
    assert charts.search_progress(log.folder).png().startswith(b"\x89PNG")


def test_a_far_loser_stands_at_the_edge_and_says_its_own_figure(found):
    far = replace(found.trials[-1], loss=0.9, complete=True, state="measured")
    chart = charts.pareto(replace(found, trials=(*found.trials[:-1], far)))
    assert points(chart)[far.number][0] == pytest.approx(0.08)
    assert "+0.9000" in points(chart)[far.number][2]
    assert "0.08 stands for worse too" in chart.figure.layout.xaxis.title.text


def test_the_best_so_far_never_falls(found):
    chart = charts.search_progress(found)
    line = chart.figure.data[0]
    assert line.name == "best so far"
    assert list(line.y) == sorted(line.y)
    assert line.y[-1] == pytest.approx(max(t.speedup for t in found.trials if t.is_accurate(found.allowed)))
    assert sum(len(trace.x) for trace in chart.figure.data[1:]) == len(found.trials)
    assert f"{len(found.trials)} of {found.space} candidates" in chart.alt


def test_a_folder_without_a_search_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no search"):
        charts.pareto(tmp_path)
