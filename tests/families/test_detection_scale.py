"""Facts about PaddleDetection's second input: folded to 1, and boxes scaled afterwards are the same."""

from __future__ import annotations

import heads_nets
import numpy as np
import onnx
import pytest
from nms_exports import exported

from kit.errors import BadInput, UnsupportedModel
from kit.families.detection import Heads, cut_nms, detect, fold_scale_factor, read_detections, scale_boxes

PICTURES = [np.random.default_rng(at).normal(size=(1, 3, 8, 8)).astype(np.float32) for at in range(4)]
ONE, OTHER = np.float32([[1, 1]]), np.float32([[0.8, 0.6]])


def rows(found):
    return np.array(sorted(found.rows()))


def test_the_second_input_goes_and_the_answers_stay(tmp_path):
    path = exported("paddle")
    folded = fold_scale_factor(path, runs=tmp_path)
    assert [spec.name for spec in folded.model.inputs] == ["image"]
    assert len(folded.parity) == 4, "fed with 1, and divided afterwards"
    assert all(row.max_abs == 0 for row in folded.parity)
    left = {node.op_type for node in onnx.load(str(folded.model.path)).graph.node}
    assert "Split" not in left
    for image in PICTURES:
        mine = read_detections(heads_nets.run(folded.model.path, image=image))[0]
        assert mine == read_detections(heads_nets.run(path, image=image, scale_factor=ONE))[0]
        theirs = read_detections(heads_nets.run(path, image=image, scale_factor=OTHER))[0]
        assert len(theirs)
        np.testing.assert_allclose(rows(scale_boxes(mine, OTHER)), rows(theirs), rtol=2e-6)


def test_every_edit_is_told_and_the_division_is_gone(tmp_path):
    path = exported("paddle")
    folded = fold_scale_factor(path, runs=tmp_path)
    before = {node.name for node in onnx.load(str(path)).graph.node}
    after = {node.name for node in onnx.load(str(folded.model.path)).graph.node}
    assert {edit.where for edit in folded.edits if edit.what.startswith("removed")} == before - after
    assert "removed: it divides by 1" in [edit.what for edit in folded.edits]


def test_after_folding_it_is_cut_and_numpy_finds_the_same(tmp_path):
    path = exported("paddle")
    cut = cut_nms(fold_scale_factor(path, runs=tmp_path), runs=tmp_path)
    for image in PICTURES:
        (mine,) = detect(heads_nets.run(cut.model.path, image=image), cut.heads, cut.options)
        whole = read_detections(heads_nets.run(path, image=image, scale_factor=ONE))[0]
        np.testing.assert_array_equal(rows(mine), rows(whole))


# heads that are clipped to the picture, as two-stage detectors have them: origin = floor(im_shape / factor + 0.5)
CLIPPED = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,8,16] image, float[N,2] im_shape, float[N,2] scale_factor, float[N,5,4] raw)
=> (float[N,5,4] boxes) <float half = {0.5}, int64[2] order = {1,0}, int64[1] axis = {1}, float zero = {0}>
{ d = Div(im_shape, scale_factor) r = Add(d, half) origin = Floor(r)
  s = Gather <axis: int = 1> (scale_factor, order) twice = Concat <axis: int = 1> (s, s) by = Unsqueeze(twice, axis)
  o = Gather <axis: int = 1> (origin, order) both = Concat <axis: int = 1> (o, o) edge = Unsqueeze(both, axis)
  free = Div(raw, by) low = Max(free, zero) boxes = Min(low, edge) }"""


def clipped(folder, text=CLIPPED):
    onnx.save(onnx.parser.parse_model(text), str(folder / "clipped.onnx"))
    return folder / "clipped.onnx"


def test_im_shape_becomes_the_size_of_the_picture(tmp_path):
    path = clipped(tmp_path)
    feed = {"image": np.zeros((2, 3, 8, 16), np.float32),
            "raw": np.random.default_rng(0).uniform(-9, 30, (2, 5, 4)).astype(np.float32)}
    folded = fold_scale_factor(path, samples=[feed], runs=tmp_path / "runs")
    assert [spec.name for spec in folded.model.inputs] == ["image", "raw"]
    assert all(row.max_abs == 0 for row in folded.parity)
    boxes = heads_nets.run(folded.model.path, **feed)["boxes"]
    assert boxes[..., ::2].max() == 16
    assert boxes[..., 1::2].max() == 8


def test_heads_come_back_without_the_second_input(tmp_path):
    heads = Heads(("a", "b"), (8, 16), "no output of it", "boxes", scale_factor="factor")
    path = clipped(tmp_path, CLIPPED.replace("scale_factor", "factor"))
    folded = fold_scale_factor(path, heads, runs=tmp_path / "runs")
    assert folded.heads == Heads(("a", "b"), (8, 16), "no output of it", "boxes")
    with pytest.raises(BadInput, match="no input 'scale_factor': it takes image, im_shape, factor, raw"):
        fold_scale_factor(path, runs=tmp_path / "runs")


def test_what_cannot_be_folded_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"scale_factor float32\[N, 3\]"):
        fold_scale_factor(clipped(tmp_path, CLIPPED.replace("[N,2] scale", "[N,3] scale")), runs=tmp_path / "runs")
    with pytest.raises(UnsupportedModel, match="size of its picture is not fixed"):
        fold_scale_factor(clipped(tmp_path, CLIPPED.replace("[N,3,8,16]", "[N,3,H,W]")), runs=tmp_path / "runs")
