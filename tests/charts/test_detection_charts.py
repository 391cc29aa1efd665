"""Pictures with the boxes of two stages."""

import io

import detections as toys
import numpy as np
import pytest
from PIL import Image

from kit import VerifyOptions, charts
from kit.errors import BadInput
from kit.families.detection_comparison import compare


@pytest.fixture
def comparison(tmp_path):
    samples = toys.samples(toys.plates(tmp_path / "plates"))
    stages = {"TensorFlow": toys.right, "int8": toys.worse, "blind": toys.blind}
    return compare(stages, samples, toys.task(), VerifyOptions(judge_by_task=("int8", "blind")))


def lines(chart, name):
    return [trace for trace in chart.figure.data if trace.type == "scatter" and trace.name == name]


def test_the_boxes_of_both_are_told_apart_by_colour_and_by_line(comparison):
    chart = charts.changed_picture(comparison, 2, stage="int8")
    solid, dashed = lines(chart, "TensorFlow"), lines(chart, "int8")
    assert (len(solid), len(dashed)) == (2, 2)
    assert {trace.line.dash for trace in solid} == {"solid"}
    assert {trace.line.dash for trace in dashed} == {"dash"}
    assert solid[0].line.color != dashed[0].line.color
    moved = next(trace for trace in solid if min(trace.x) == 36 - 0.5)
    assert (max(moved.x), min(moved.y), max(moved.y)) == (75.5, 15.5, 39.5), "the edge of the first pixel is at -0.5"
    assert sorted(note.text for note in chart.figure.layout.annotations) == [
        "pit 0.74 to 0.72", "scratch 0.72", "scratch 0.74"]


def test_the_words_say_what_became_of_each(comparison):
    said = [charts.changed_picture(comparison, at, stage="int8").alt for at in range(4)]
    assert "lost: pit 0.80 at (70, 75) to (94, 99)" in said[0]
    assert "new: pit 0.70 at (80, 80) to (104, 104)" in said[1]
    assert "moved: scratch 0.74 at (36, 16) to (76, 40), overlap 0.54" in said[2]
    assert "boxes of TensorFlow solid and of int8 dashed: 0 lost, 0 new, 0 moved, 1 the same." in said[3]


def test_truth_is_dotted_and_only_drawn_when_asked_for(comparison):
    assert not lines(charts.changed_picture(comparison, stage="int8"), "truth")
    truth = lines(charts.changed_picture(comparison, stage="int8", truth=True), "truth")
    assert [trace.line.dash for trace in truth] == ["dot", "dot"]


def test_a_stage_that_finds_nothing_is_in_the_legend(comparison):
    chart = charts.changed_picture(comparison)
    assert [trace.name for trace in lines(chart, "blind (nothing)")] == ["blind (nothing)"]
    assert "2 lost, 0 new, 0 moved, none the same" in chart.alt


def test_the_static_form_shows_picture_and_boxes(comparison):
    chart = charts.changed_picture(comparison, 2, stage="int8")
    pixels = np.asarray(Image.open(io.BytesIO(chart.png(1))).convert("RGB")).astype(int)
    for colour in ((0, 114, 178), (213, 94, 0), (90, 90, 90)):
        assert (np.abs(pixels - colour).max(axis=2) < 24).sum() > 60
    assert tuple(pixels.shape[1::-1]) == chart.size()


def test_bars_count_each_fate_by_class_with_a_pattern_each(comparison):
    chart = charts.changes_by_class(comparison, "int8")
    assert "in 12 pictures. scratch: 0 lost, 0 new, 1 moved; pit: 1 lost, 1 new, 0 moved." in chart.alt
    assert {trace.name: tuple(trace.y) for trace in chart.figure.data} == {
        "lost": (0, 1), "new": (0, 1), "moved": (1, 0)}
    assert len({trace.marker.pattern.shape for trace in chart.figure.data}) == 3
    assert chart.png().startswith(b"\x89PNG")


def test_a_picture_that_is_not_there_is_told(comparison):
    with pytest.raises(BadInput, match="no picture 12"):
        charts.changed_picture(comparison, 12)
