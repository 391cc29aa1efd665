"""Labelled pictures as samples, and the task that makes detections of whatever a model answers."""

import json
import pickle

import detections as toys
import numpy as np
import pytest

from kit import verify
from kit.errors import BadInput
from kit.evidence.scoring import TaskScore
from kit.families.detection_metrics import MAIN
from kit.families.detection_nms import NmsOptions
from kit.families.detection_tasks import DetectionTask, images, rows_of
from kit.record import digest
from kit.runner import open_runner


@pytest.fixture
def folder(tmp_path):
    return toys.plates(tmp_path / "plates")


# ---- samples ------------------------------------------------------------------------------------------------------


def test_a_coco_file_becomes_samples_with_truths(folder):
    samples = toys.samples(folder)
    assert len(samples) == 12
    assert list(samples[0]) == ["image"]
    assert samples[0]["image"].shape == (1, 64, 64, 3)
    truth = samples.items[4].truth
    assert (truth.width, truth.height) == (128, 128)
    assert list(zip(truth.classes, truth.boxes, strict=True)) == toys.truth(4)
    assert truth.crowd == (False, False)


def test_a_limit_takes_pictures_from_the_whole_split(folder):
    assert [item.name for item in toys.samples(folder, limit=3).items] == [
        "plate_00.png", "plate_06.png", "plate_11.png"]


def test_classes_are_numbered_as_the_model_numbers_them(folder):
    from dataclasses import replace

    turned = images(folder, "test", heads=replace(toys.HEADS, classes=("pit", "dent", "scratch")))
    assert [item.truth.classes for item in turned.items[2:4]] == [(2,), (2, 0)]
    with pytest.raises(BadInput, match="'pit'"):
        images(folder, "test", heads=replace(toys.HEADS, classes=("scratch", "pits")))


def test_the_scale_factor_is_fed_where_the_heads_have_one(folder):
    feed = images(folder, "test", heads=toys.told_factor())[0]
    assert feed["scale_factor"].tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("change", "words"), [
    (lambda told: told.pop("categories"), r"no COCO file of boxes \(KeyError"),
    (lambda told: told["annotations"][0].update(image_id=99), "annotation 1 belongs to picture 99"),
    (lambda told: told["annotations"][1].update(bbox=[1, 2, 0, 5]), r"annotation 2 has the box \[1, 2, 0, 5\]"),
    (lambda told: told["annotations"][1].update(bbox=[1, 2, 3]), "no COCO file of boxes"),
    (lambda told: told["annotations"][1].update(category_id=3), "no COCO file of boxes"),
    (lambda told: told["images"].append({"id": 50, "file_name": "gone.png", "width": 9, "height": 9}),
     "1 of 13 pictures .*gone.png"),
    (lambda told: told.update(images=[], annotations=[]), "has no pictures"),
])
def test_what_is_wrong_with_the_labels_is_told(folder, change, words):
    told = json.loads((folder / "test.json").read_text())
    change(told)
    (folder / "test.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=words):
        toys.samples(folder)


def test_a_split_that_is_not_there_and_no_preprocessing_are_told(folder):
    with pytest.raises(BadInput, match="'tests'") as caught:
        images(folder, "tests", heads=toys.HEADS)
    assert "test" in caught.value.remedy
    with pytest.raises(BadInput, match="how pictures become inputs"):
        images(folder, "test")
    with pytest.raises(BadInput, match="does not exist"):
        images(folder / "none", "test", heads=toys.HEADS)


# ---- answers ------------------------------------------------------------------------------------------------------


def answers(task, samples, stage, at=5):
    feed = samples[at]
    return task.answer(stage(feed), samples.items[at], feed)


def rows(found):
    return [(kind, round(score, 4), *(round(edge, 3) for edge in box)) for kind, score, *box in found.rows()]


WANTED = [(kind, 0.8, *box) for kind, box in toys.truth(5)]


def test_raw_heads_become_boxes_in_pixels_of_the_picture(folder):
    samples = toys.samples(folder)
    assert rows(answers(toys.task(), samples, toys.right)) == WANTED


@pytest.mark.parametrize("fed", [True, False])
def test_paddles_rows_are_in_pixels_of_the_picture_where_the_factor_was_fed(folder, fed):
    heads = toys.told_factor()
    samples = images(folder, "test", heads=heads)
    assert "scale_factor" in samples[0]

    def stage(feed):
        return toys.paddle_like(feed if fed else {"image": feed["image"]})

    feed = samples[5] if fed else {"image": samples[5]["image"]}
    assert rows(DetectionTask(heads).answer(stage(feed), samples.items[5], feed)) == WANTED


def test_a_graph_with_its_nms_inside_and_padded_rows_is_read(folder):
    def stage(feed):
        made = toys.truth(5, 64)
        return {"boxes": np.float32([*(box for _, box in made), (-1, -1, -1, -1)]),
                "scores": np.float32([0.8, 0.8, -1]),
                "classes": np.int64([*(kind for kind, _ in made), -1]), "batch": np.int64([0, 0, -1])}

    samples = toys.samples(folder)
    task = toys.task()
    assert rows(answers(task, samples, stage)) == WANTED
    assert task.tensors(stage(samples[5])) == {}


@pytest.mark.parametrize("names", [("StatefulPartitionedCall/class_logits:0", "StatefulPartitionedCall/corners:0"),
                                   ("b", "a"), ("output_1", "output_0")])
def test_heads_are_known_by_name_or_else_by_shape(folder, names):
    def stage(feed):
        return dict(zip(names, toys.right(feed).values(), strict=True))

    samples = toys.samples(folder)
    assert rows(answers(toys.task(), samples, stage)) == WANTED
    assert list(toys.task().tensors(stage(samples[5]))) == ["corners", "class_logits"]


def test_heads_that_look_alike_must_be_named():
    from dataclasses import replace

    task = DetectionTask(replace(toys.HEADS, classes=("a", "b", "c", "d")))
    same = np.zeros((1, 6, 4), np.float32)
    with pytest.raises(BadInput, match=r"both look alike: one .*, two") as caught:
        task.tensors({"one": same, "two": same})
    assert "class_logits" in caught.value.remedy


def test_boxes_end_at_the_edge_and_numbers_that_are_none_are_nowhere(folder):
    def stage(feed):
        return toys.heads_of([(0, 0.9, -8, 10, 20, 90), (1, 0.8, 5, np.nan, 9, 9), (1, 0.7, 1, 1, np.inf, 2)])

    assert rows(answers(toys.task(), toys.samples(folder), stage)) == [
        (0, 0.9, 0, 20, 40, 128), (1, 0.7, 2, 2, 128, 4)]


def test_a_tally_holds_every_row_and_gives_it_back(folder):
    samples = toys.samples(folder)
    found = answers(toys.task(), samples, toys.right)
    tally = toys.task().tally(found, samples.items[5])
    assert np.float32(rows_of(tally)).tolist() == np.float32(found.rows()).tolist()
    assert rows_of(()) == []


def test_only_what_is_sure_enough_counts_as_found(folder):
    found = answers(toys.task(), toys.samples(folder), toys.right)
    assert [toys.task(shown=shown).count(found) for shown in (0.5, 0.7, 0.81)] == [2, 2, 0]


# ---- verify and search --------------------------------------------------------------------------------------------


def test_stages_that_answer_in_other_forms_are_judged_by_the_task(folder):
    verdict = verify({"heads": toys.right, "rows": toys.paddle_like}, toys.samples(folder), task=toys.task())
    assert verdict
    assert verdict.metric == MAIN
    first, other = verdict.rows
    assert other.status == "kept"
    assert other.parity == ()
    assert other.snr_db is None
    assert other.scores[MAIN] == first.scores[MAIN] == pytest.approx(1)
    assert all(row.snr_db == {} for row in verdict.answers)


def test_heads_are_compared_as_tensors_too(folder):
    verdict = verify({"one": toys.right, "two": toys.worse}, toys.samples(folder), task=toys.task())
    assert [parity.name for parity in verdict.rows[1].parity] == ["corners", "class_logits"]
    assert verdict.where == "two"


def test_models_with_another_layout_and_other_names_share_samples_and_are_stored(folder, tmp_path):
    stages = {"nhwc": toys.graph(tmp_path / "a.onnx", layout="NHWC", input="image"),
              "nchw": toys.graph(tmp_path / "b.onnx")}
    samples, runs = images(folder, "test", heads=toys.told_factor()), tmp_path / "runs"
    verdict = verify(stages, samples, task=DetectionTask(toys.told_factor()), runs=runs)
    assert [row.status for row in verdict.rows] == ["reference", "equal"]
    again = verify(stages, samples, task=DetectionTask(toys.told_factor()), runs=runs)
    assert again == verdict
    assert again.provenance == verdict.provenance
    assert again.answers[3].tallies == verdict.answers[3].tallies != ()
    assert again.provenance.key != verify(stages, samples, task=DetectionTask(toys.told_factor(), shown=0.4),
                                          runs=runs).provenance.key


def test_it_is_a_metric_for_a_search(folder, tmp_path):
    samples = toys.samples(folder)
    score = pickle.loads(pickle.dumps(TaskScore(toys.task(), samples)))
    assert (score.name, score.better, len(score)) == (MAIN, "higher", 12)
    assert score(toys.right) == pytest.approx(1)
    assert score(toys.worse) == verify({"a": toys.worse}, samples, task=toys.task()).rows[0].scores[MAIN] < 1
    assert score.subset(4)(toys.right) == pytest.approx(1)
    with open_runner(toys.graph(tmp_path / "a.onnx")) as runner:
        assert 0 <= score(runner) < 1
    assert digest(score) != digest(TaskScore(toys.task(options=NmsOptions()), samples))
    assert TaskScore(toys.task(), samples, "AP@0.5 pit")(toys.blind) == 0


def test_a_stage_that_finds_nothing_raises_an_alarm_with_the_likely_cause(folder, tmp_path):
    samples = toys.samples(folder)
    blind = verify({"float": toys.right, "blind": toys.blind}, samples, task=toys.task())
    assert blind.where == "blind"
    assert blind.rows[1].alarms[0].startswith("finds nothing in any of 12 samples, where 'float' found 21; likely ")
    assert "one INT8 scale" in toys.task().why_fewer("quantized")
    assert "16 bits" in toys.task().why_fewer("half")
    assert "sigmoid" in toys.task().why_fewer("float")


def test_boxes_and_scores_under_one_scale_are_named_as_the_cause(folder, tmp_path):
    """A step of 600 / 255 pixels rounds every score to nothing."""
    from dataclasses import replace

    stages = {"float": toys.merged(tmp_path / "float.onnx", one_scale=False),
              "int8": toys.merged(tmp_path / "int8.onnx", one_scale=True)}
    verdict = verify(stages, toys.samples(folder), task=DetectionTask(replace(toys.HEADS, activation="none")),
                     runs=tmp_path / "runs")
    assert verdict.rows[0].found > 0
    assert verdict.where == "int8"
    assert verdict.rows[1].precision == "quantized"
    assert "finds nothing" in verdict.rows[1].why
    assert "one tensor with one INT8 scale" in verdict.rows[1].why


def test_far_fewer_is_an_alarm_too(folder):
    def few(feed):
        return toys.right(feed) if toys.number_of(feed) < 4 else toys.blind(feed)

    alarms = verify({"float": toys.right, "few": few}, toys.samples(folder), task=toys.task()).rows[1].alarms
    assert any(alarm.startswith("finds 5 in 12 samples, where 'float' found 21: fewer than 50%; likely")
               for alarm in alarms)
