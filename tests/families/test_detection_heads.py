"""Facts about raw heads: what detection.json says, where anchors stand, and how boxes are decoded."""

from __future__ import annotations

import json
from dataclasses import replace

import heads_nets
import numpy as np
import pytest

from kit.errors import BadInput
from kit.families.detection import Anchors, Heads, decode
from kit.samples import Preprocess


def test_anchors_are_ordered_by_level_row_column_scale_and_ratio():
    anchors = Anchors((8, 16), (1.0, 2.0), (1.0, 4.0), size=4.0)
    boxes = anchors.boxes((16, 24))
    assert boxes.shape == (2 * 3 * 4 + 1 * 2 * 4, 4)
    assert boxes.dtype == np.float32
    # y, x, height, width: the first place has its four boxes, scale before ratio
    np.testing.assert_array_equal(boxes[:4], [[4, 4, 32, 32], [4, 4, 16, 64], [4, 4, 64, 64], [4, 4, 32, 128]])
    np.testing.assert_array_equal(boxes[4, :2], [4, 12])  # the next column
    np.testing.assert_array_equal(boxes[12, :2], [12, 4])  # the next row
    np.testing.assert_array_equal(boxes[24], [8, 8, 64, 64])  # the next level


def test_a_side_that_is_no_multiple_of_the_stride_has_one_more_row():
    assert len(Anchors((32,), (1.0,), (1.0,)).boxes((33, 64))) == 2 * 2


def test_decoding_anchors_moves_by_their_sides_and_stretches_by_exp():
    heads = Heads(("a",), (16, 16), "s", "b", "none", 2, "anchors", Anchors((16,), (1.0,), (4.0,), size=2.0))
    # one anchor: centre (8, 8), 16 high and 64 wide
    deltas = np.float32([[[0.5, -0.25, 0.0, np.log(0.5)]]])
    boxes, scores = decode({"b": deltas, "s": np.float32([[[0.5]]])}, heads)
    # centre y 8 + 8, x 8 - 16; 16 high, 32 wide
    np.testing.assert_allclose(boxes, [[[-24, 8, 8, 24]]], rtol=1e-6)
    np.testing.assert_array_equal(scores, [[[0.5]]])


@pytest.mark.parametrize(("coding", "box"), [("xyxy", (1, 2, 5, 8)), ("yxyx", (2, 1, 8, 5)), ("cxcywh", (3, 5, 4, 6))])
def test_boxes_of_every_coding_become_corners_with_x_first(coding, box):
    heads = Heads(("a", "b"), (16, 16), "s", "b", "sigmoid", 1, coding)
    boxes, scores = decode({"b": np.float32([[box]]), "s": np.float32([[[0], [-200]]])}, heads)
    np.testing.assert_array_equal(boxes, [[[1, 2, 5, 8]]])
    np.testing.assert_array_equal(scores, [[[0.5, 0]]])


def test_what_is_written_is_read_back(tmp_path):
    heads = heads_nets.heads("anchors", "sigmoid", 1, image="x", scale_factor="scale",
                             preprocess=Preprocess(size=(128, 160), scale=1.0, mean=(1.0, 2.0, 3.0), layout="NHWC"))
    path = heads.write(tmp_path)
    assert path == tmp_path / "detection.json"
    (tmp_path / "model.onnx").write_bytes(b"")
    for where in (tmp_path, path, tmp_path / "model.onnx", tmp_path / "inference.json"):
        assert Heads.read(where) == heads


@pytest.mark.parametrize(("change", "said"), [
    ({"format": "coco"}, "its format is not 'kit-detection'"),
    ({"outputs": {"boxes": "b"}}, "lacks 'scores'"),
    ({"boxes": {"coding": "polar"}}, r"Heads.coding cannot be 'polar'"),
    ({"boxes": {"coding": "anchors"}}, "none are described"),
    ({"scores": {"activation": "softmax"}}, r"Heads.activation cannot be 'softmax'"),
    ({"size": [256]}, "cannot be understood"),
    ({"preprocess": {"mena": [0, 0, 0]}}, "no field of Preprocess named 'mena'"),
    ({"boxes": {"coding": "anchors", "anchors": {"strides": [8], "scales": [1], "ratios": [1], "order": "xywh"}}},
     "anchors in the order 'xywh'"),
])
def test_a_file_that_says_what_cannot_be_is_refused_with_its_name(tmp_path, change, said):
    told = {**heads_nets.heads().told(), **change}
    path = tmp_path / "detection.json"
    path.write_text(json.dumps(told))
    with pytest.raises(BadInput, match=said) as caught:
        Heads.read(tmp_path)
    assert "detection.json" in str(caught.value) + "".join(caught.value.__notes__)


def test_a_folder_without_the_file_and_a_damaged_file_are_told(tmp_path):
    with pytest.raises(BadInput, match=r"detection.json does not exist"):
        Heads.read(tmp_path)
    (tmp_path / "detection.json").write_text("{")
    with pytest.raises(BadInput, match="no whole JSON"):
        Heads.read(tmp_path)


def test_outputs_that_do_not_fit_are_refused_with_both_shapes():
    heads = heads_nets.heads("anchors")
    boxes = np.zeros((1, 7, 4), np.float32)
    with pytest.raises(BadInput, match=r"'the_boxes' has the shape \[1, 7, 4\].*156 anchors"):
        decode({"the_boxes": boxes, "the_scores": boxes[..., :3]}, heads)
    with pytest.raises(BadInput, match=r"'the_scores' has the shape \[1, 7, 4\]; heads of 3 classes"):
        decode({"the_boxes": boxes, "the_scores": boxes}, heads_nets.heads())
    with pytest.raises(BadInput, match="no output named 'the_scores'"):
        decode({"the_boxes": boxes}, heads)


def test_the_committed_descriptions_can_be_read():
    from pathlib import Path

    models = Path(__file__).parent.parent.parent / "data" / "models"
    found = [Heads.read(path) for path in sorted(models.glob("*/detection.json"))]
    assert {heads.classes for heads in found} == {("scratch", "pit", "inclusion", "stain")}
    assert all(heads == replace(heads) and heads.size == (256, 256) for heads in found)
