"""Facts about post-processing that exporters leave in a graph: it is recognised, and numpy can take its place."""

from __future__ import annotations

from dataclasses import replace

import heads_nets
import numpy as np
import onnx
import pytest
from nms_exports import exported

import kit
from kit.errors import BadInput, UnsupportedModel
from kit.families.detection import AddNmsOptions, Heads, add_nms, cut_nms, detect, find_nms, read_detections
from kit.families.detection_proof import made_up_heads

RANDOM = np.random.default_rng(2)
MANY = [{"b": heads_nets.boxes_with_ties(RANDOM, 2, 50)[..., [1, 0, 3, 2]],
         "s": RANDOM.choice([0, 0.25, 0.5, 0.75], (2, 50, 3)).astype(np.float32)} for _ in range(3)]
ONE = [{"b": feed["b"][0], "s": feed["s"][0, :, 0]} for feed in MANY]
PICTURE = [{"image": RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32), "scale_factor": np.float32([[0.5, 0.75]])}
           for _ in range(3)]


def sorted_rows(found):
    return [sorted(one.rows()) for one in found]


# -- recognising


def test_tensorflows_combined_operator_is_recognised_with_all_its_limits():
    (found,) = find_nms(exported("combined"))
    assert (found.maker, found.coding, found.clipped) == ("tensorflow combined", "yxyx", False)
    assert found.options == AddNmsOptions(score_threshold=0.25, iou=0.5, most=20, total=30)
    assert set(found.outputs) == {"found_boxes", "found_scores", "found_classes", "count"}
    assert "tf.image.combined_non_max_suppression" in str(found)
    (clipped,) = find_nms(exported("clipped"))
    assert clipped.clipped
    assert "clipped to [0, 1]" in str(clipped)


def test_tensorflows_single_operator_is_recognised_each_time_it_occurs():
    (found,) = find_nms(exported("single"))
    assert (found.maker, found.coding, found.outputs) == ("tensorflow", "yxyx", ("kept",))
    assert found.options == AddNmsOptions(score_threshold=0.25, iou=0.5, most=20)
    found = find_nms(exported("apart"))
    assert [one.maker for one in found] == ["tensorflow"] * 3
    assert {one.outputs for one in found} == {("kept0",), ("kept1",), ("kept2",)}
    assert found[0].options.score_threshold == -1
    assert "no score threshold" in str(found[0])


def test_paddles_operator_is_recognised_and_what_its_export_changes_is_told():
    (found,) = find_nms(exported("paddle"))
    assert (found.maker, found.coding, found.grown) == ("paddle", "xyxy", False)
    assert replace(found.options, score_threshold=0.3, iou=0.4) == AddNmsOptions(
        score_threshold=0.3, iou=0.4, most=16, total=10)
    assert found.options.score_threshold == np.float32(0.3)
    assert "batches of one only" in str(found)
    (grown,) = find_nms(exported("grown"))
    assert grown.maker == "paddle"
    assert grown.grown


def test_what_this_kit_added_is_recognised_and_a_bare_operator_is_of_nobody_known(tmp_path):
    heads = heads_nets.heads("anchors", "sigmoid")
    net = heads_nets.net(tmp_path, heads)
    assert find_nms(net) == ()
    options = AddNmsOptions(most=5, class_agnostic=True)
    (found,) = find_nms(add_nms(net, heads, options, runs=tmp_path / "runs"))
    assert (found.maker, found.coding, found.options) == ("kit", "yxyx", options)
    (bare,) = find_nms(operator(tmp_path, "b, s, most, iou"))
    assert (bare.maker, bare.coding, bare.options.most, bare.options.score_threshold) == ("onnx", "cxcywh", 5, -1)


def operator(folder, inputs, weights="int64 most = {5}, float iou = {0.5}"):
    """The operator and nothing else, boxes by their centres."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[2,50,4] b, float[2,3,50] s, int64[1] n) => (int64[M,3] y) '
        f"<{weights}> {{ y = NonMaxSuppression <center_point_box: int = 1> ({inputs}) }}")
    proto.graph.node[0].name = "nms"
    onnx.save(proto, str(folder / "bare.onnx"))
    return folder / "bare.onnx"


# -- cutting


def test_paddles_model_is_cut_and_numpy_finds_the_same(tmp_path):
    path = exported("paddle")
    cut = cut_nms(path, samples=PICTURE, runs=tmp_path)
    assert cut.detections > 10
    assert "NonMaxSuppression" not in [node.op_type for node in onnx.load(str(cut.model.path)).graph.node]
    assert [row.max_abs for row in cut.parity] == [0, 0]
    for feed in PICTURE:
        whole = read_detections(heads_nets.run(path, **feed))
        assert len(whole[0])
        mine = detect(heads_nets.run(cut.model.path, **feed), cut.heads, cut.options)
        assert sorted_rows(mine) == sorted_rows(whole)


def test_tensorflows_model_is_cut_and_numpy_finds_the_same(tmp_path):
    path = exported("combined")
    cut = cut_nms(path, samples=MANY, runs=tmp_path)
    assert cut.detections > 100
    for feed in MANY:
        whole = read_detections(heads_nets.run(path, **feed))
        mine = detect(heads_nets.run(cut.model.path, **feed), cut.heads, cut.options)
        assert sum(map(len, whole)) > 30
        assert sorted_rows(mine) == sorted_rows(whole)
    single = cut_nms(exported("single"), samples=ONE, runs=tmp_path)
    for feed in ONE:
        kept = heads_nets.run(exported("single"), **feed)["kept"]
        (mine,) = detect(heads_nets.run(single.model.path, **feed), single.heads, single.options)
        np.testing.assert_array_equal(mine.boxes[:, [1, 0, 3, 2]], kept)


def test_names_that_are_known_say_where_to_cut_and_what_the_classes_are(tmp_path):
    (found,) = find_nms(exported("paddle"))
    known = Heads(("a", "b", "c"), (8, 8), found.scores, found.boxes, "none", 1, scale_factor="scale_factor")
    cut = cut_nms(exported("paddle"), known, samples=PICTURE, runs=tmp_path)
    assert cut.heads == known
    other = cut_nms(exported("paddle"), replace(known, boxes="of another export"), samples=PICTURE, runs=tmp_path)
    assert other.heads == known
    assert "no tensors of the graph" in " ".join(other.notes)


@pytest.mark.parametrize("form", ["rows", "padded"])
@pytest.mark.parametrize("agnostic", [False, True])
def test_what_was_added_is_cut_back_to_the_raw_heads_or_before_the_operator(tmp_path, form, agnostic):
    heads = replace(heads_nets.heads("anchors", "sigmoid"), boxes="boxes")  # a name that the outputs take
    options = AddNmsOptions(score_threshold=0.3, most=20, total=9, class_agnostic=agnostic, form=form)
    source = heads_nets.net(tmp_path, heads)
    added = add_nms(source, heads, options, runs=tmp_path / "runs")
    made = made_up_heads(heads, *heads_nets.shapes(heads, 2), 5)
    given = {"b": made["boxes"], "s": made["the_scores"]}
    back = cut_nms(added, samples=[given], runs=tmp_path / "runs")
    assert back.heads == heads
    assert back.options == options
    assert back.detections > 10
    assert [node.name for node in onnx.load(str(back.model.path)).graph.node] == ["copy_b", "copy_s"]
    assert "kit.detection" not in back.model.metadata
    decoded = cut_nms(added, at="nms", samples=[given], runs=tmp_path / "runs")
    assert (decoded.heads.coding, decoded.heads.activation, decoded.heads.classes) == ("yxyx", "none", heads.classes)
    whole = read_detections(heads_nets.run(added.model.path, **given))
    assert detect(heads_nets.run(decoded.model.path, **given), decoded.heads, decoded.options) == whole


@pytest.mark.parametrize("agnostic", [False, True])
def test_after_the_rules_of_fix_it_is_still_known_and_cut(tmp_path, agnostic):
    heads = heads_nets.heads("anchors", "sigmoid")
    options = AddNmsOptions(score_threshold=0.3, class_agnostic=agnostic)
    added = add_nms(heads_nets.net(tmp_path, heads), heads, options, runs=tmp_path / "runs")
    fixed = kit.fix(added, runs=tmp_path / "runs")
    assert "drop-identity" in fixed.counts(), "the tensors of the raw heads have another name now"
    made = made_up_heads(heads, *heads_nets.shapes(heads, 2), 5)
    given = {"b": made["the_boxes"], "s": made["the_scores"]}
    cut = cut_nms(fixed, samples=[given], runs=tmp_path / "runs")
    assert "cut right before nms/NonMaxSuppression" in " ".join(cut.notes)
    assert cut.heads.classes == heads.classes
    assert cut.options == options
    whole = read_detections(heads_nets.run(added.model.path, **given))
    assert detect(heads_nets.run(cut.model.path, **given), cut.heads, cut.options) == whole


def test_a_bare_operator_by_centres_is_cut_and_an_input_that_nothing_reads_goes(tmp_path):
    path = operator(tmp_path, "b, s, most, iou, least", "int64 most = {5}, float iou = {0.5}, float least = {0.1}")
    corners = heads_nets.boxes_with_ties(RANDOM, 2, 50)
    feed = {"b": np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], 2),
            "s": RANDOM.choice([0, 0.25, 0.5], (2, 3, 50)).astype(np.float32), "n": np.int64([1])}
    cut = cut_nms(path, samples=[feed], runs=tmp_path / "runs")
    assert cut.heads.coding == "cxcywh"
    assert [spec.name for spec in cut.model.inputs] == ["b", "s"]
    assert cut.detections > 10


def test_what_cannot_be_cut_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UnsupportedModel, match="3 of NonMaxSuppression, perhaps one for each class"):
        cut_nms(exported("apart"), runs=tmp_path / "runs")
    with pytest.raises(UnsupportedModel, match="grown by a pixel"):
        cut_nms(exported("grown"), runs=tmp_path / "runs")
    with pytest.raises(UnsupportedModel, match="n is computed at run time"):
        cut_nms(operator(tmp_path, "b, s, n, iou"), runs=tmp_path / "runs")
    with pytest.raises(UnsupportedModel, match="keeps nothing at all"):
        cut_nms(operator(tmp_path, "b, s"), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="has no NonMaxSuppression"):
        cut_nms(heads_nets.net(tmp_path, heads_nets.heads()), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="cannot be made at 'end'"):
        cut_nms(exported("paddle"), at="end", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("result.json"))
