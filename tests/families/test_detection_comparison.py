"""One call, one line: a detector in several frameworks."""

import re

import detections as toys
import numpy as np
import pytest

from kit import VerifyOptions
from kit.errors import BadInput
from kit.families import detection
from kit.families.detection_comparison import Difference, compare
from kit.families.detection_metrics import MAIN
from kit.families.detection_tasks import DetectionTask, images

JUDGED = VerifyOptions(judge_by_task=("int8",))


@pytest.fixture
def folder(tmp_path):
    return toys.plates(tmp_path / "plates")


@pytest.fixture
def comparison(folder):
    return compare({"TensorFlow": toys.right, "int8": toys.worse}, toys.samples(folder), toys.task(), JUDGED)


def test_the_line_names_every_stage_with_difference_and_interval(comparison):
    found = re.fullmatch(r"mAP@0\.5: TensorFlow 1\.000, int8 (0\.\d{3}) \(difference (-0\.\d{3}), 95% interval "
                         r"(-0\.\d{3}) to (-?0\.\d{3})\)", comparison.title())
    value, gap, low, high = map(float, found.groups())
    assert gap == pytest.approx(value - 1, abs=0.0011)
    assert low < gap < high
    assert str(comparison).splitlines()[0] == comparison.title()
    assert not comparison


def test_the_interval_is_the_one_that_verify_judges_by(comparison):
    change = comparison.verdict.rows[1].change
    gap = comparison.stages[1].differences[MAIN]
    np.testing.assert_allclose((-gap.value, -gap.high, -gap.low), (change.loss, change.low, change.high), atol=1e-12)


def test_every_class_has_its_row_with_a_difference(comparison):
    table = comparison.tables()[0]
    assert table.columns == ("class", "true", "TensorFlow", "int8", "difference", "95% interval")
    scratch, pit = table.rows
    assert scratch[:5] == ("scratch", 12, "1.000", "1.000", "0.000")
    assert pit[:3] == ("pit", 9, "1.000")
    assert float(pit[3]) < 1
    assert float(pit[4]) == pytest.approx(float(pit[3]) - 1, abs=0.0011)


def test_changes_come_with_the_most_changed_first_and_are_counted(comparison):
    changes = comparison.changes()
    assert [each.name for each in changes[:3]] == ["plate_05.png", "plate_00.png", "plate_08.png"]
    assert not any(each.has() for each in changes[3:])
    counts = comparison.counts()
    assert {kind: dict(count) for kind, count in counts.items()} == {"lost": {1: 1}, "new": {1: 1}, "moved": {0: 1}}
    assert comparison.tables()[1].rows == (("scratch", 0, 0, 1), ("pit", 1, 1, 0))
    turned = comparison.changes("TensorFlow", "int8")
    assert [len(each.new) for each in turned[:3]] == [len(each.lost) for each in changes[:3]]
    with pytest.raises(BadInput, match="'int9'"):
        comparison.changes("int9")


def test_vanished_detections_stand_among_the_facts(folder):
    comparison = compare({"TensorFlow": toys.right, "int8": toys.blind}, toys.samples(folder), toys.task(), JUDGED)
    assert "finds nothing in any of 12 samples" in comparison.facts()["ALARM 1"]
    assert "int8 0.000 (difference -1.000" in comparison.title()
    assert "TensorFlow 21, int8 0" in comparison.facts()["found"]


def test_a_class_that_is_not_there_has_dashes(folder):
    from dataclasses import replace

    heads = replace(toys.HEADS, classes=("scratch", "pit", "dent"))

    def widened(feed):
        made = toys.right(feed)
        return {**made, "class_logits": np.pad(made["class_logits"], ((0, 0), (0, 0), (0, 1)), constant_values=-12)}

    comparison = compare({"a": widened, "b": widened}, images(folder, "test", heads=heads), DetectionTask(heads))
    assert comparison
    assert comparison.tables()[0].rows[2] == ("dent", 0, "-", "-", "-", "-")
    assert "difference 0.000, 95% interval 0.000 to 0.000" in comparison.title()


def test_one_picture_gives_no_interval(folder):
    comparison = compare({"a": toys.right, "b": toys.right}, toys.samples(folder)[:1], toys.task())
    assert comparison.title().endswith("(difference 0.000, no interval)")
    assert Difference(-0.0004, -0.01, 0.0001).words(0.9) == "0.000, 90% interval -0.010 to 0.000"


def test_a_subset_is_compared_with_the_truths_of_its_own_pictures(folder):
    options = VerifyOptions(samples=4, judge_by_task=("int8",))
    comparison = compare({"TensorFlow": toys.right, "int8": toys.worse}, toys.samples(folder), toys.task(), options)
    assert "4 of 12" in str(comparison)
    assert [row[1] for row in comparison.tables()[0].rows] == [4, 3]
    assert {each.at for each in comparison.changes()} == {0, 4, 7, 11}


def test_real_models_are_compared_and_the_verdict_is_kept(folder, tmp_path):
    stages = {"nhwc": toys.graph(tmp_path / "a.onnx", layout="NHWC", input="image"),
              "nchw": toys.graph(tmp_path / "b.onnx", shift=0.001)}
    runs = tmp_path / "runs"
    comparison = compare(stages, toys.samples(folder), toys.task(), runs=runs)
    assert comparison.verdict.provenance.folder.is_relative_to(runs)
    assert compare(stages, toys.samples(folder), toys.task(), runs=runs) == comparison


def test_a_graph_with_its_post_processing_inside_finds_the_same(folder, tmp_path):
    from dataclasses import replace

    heads = replace(toys.HEADS, scores="class_logits", boxes="corners", activation="none")
    raw = toys.merged(tmp_path / "raw.onnx", one_scale=False)
    inside = detection.add_nms(raw, heads, detection.FOR_MAP, runs=tmp_path / "runs")
    comparison = detection.compare({"numpy": raw, "in graph": inside}, images(folder, "test", heads=heads),
                                   DetectionTask(heads), runs=tmp_path / "runs")
    first, other = comparison.verdict.rows
    assert other.parity == ()
    assert first.found == other.found > 0
    assert all(row.tallies["numpy"] == row.tallies["in graph"] for row in comparison.verdict.answers)


def test_another_task_is_refused(folder):
    with pytest.raises(BadInput, match="DetectionTask; this is a str"):
        compare({"a": toys.right}, toys.samples(folder), "boxes")
