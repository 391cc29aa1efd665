"""Facts about suppression: numpy is ONNX Runtime's operator to the last bit, and what is read from graphs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from heads_nets import boxes_with_ties
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.families.detection import (
    AddNmsOptions,
    Detections,
    NmsOptions,
    nms,
    read_detections,
    scale_boxes,
    select,
)


@functools.cache
def operator():
    """ONNX's own, in a session without any rewriting."""
    import onnx.parser
    import onnxruntime as ort

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,A,4] b, float[N,C,A] s, int64[1] most, float[1] iou, '
        "float[1] least) => (int64[M,3] y) { y = NonMaxSuppression(b, s, most, iou, least) }")
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def runtime(boxes, scores, score_threshold, iou, most):
    return operator().run(None, {"b": boxes, "s": scores, "most": np.int64([most]), "iou": np.float32([iou]),
                                 "least": np.float32([score_threshold])})[0]


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 2), classes=st.integers(1, 3), count=st.integers(0, 60),
       lattice=st.booleans(), least=st.sampled_from([-1.0, 0.0, 0.25, 0.5]), most=st.sampled_from([1, 3, 100]),
       iou=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 1.0]))
def test_numpy_keeps_what_onnx_runtime_keeps(seed, images, classes, count, lattice, least, most, iou):
    random = np.random.default_rng(seed)
    boxes = boxes_with_ties(random, images, count)
    if not lattice:  # corners in either order, boxes without area, large and small numbers
        boxes = (random.normal(size=boxes.shape) * random.choice([0, 1e-3, 1, 1e6], boxes.shape)).astype(np.float32)
    scores = random.choice([-1, 0, 0.25, 0.25, 0.5, 0.75, 1], (images, classes, count)).astype(np.float32)
    np.testing.assert_array_equal(select(boxes, scores, least, iou, most),
                                  runtime(boxes, scores, least, iou, most))


def test_twelve_thousand_anchors_are_what_onnx_runtime_keeps():
    random = np.random.default_rng(0)
    low = random.uniform(0, 500, (1, 12_276, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 80, low.shape)], axis=2).astype(np.float32)
    scores = random.random((1, 4, 12_276), np.float32)
    kept = select(boxes, scores, 0.5, 0.5, 300)
    assert len(kept) > 1000
    np.testing.assert_array_equal(kept, runtime(boxes, scores, 0.5, 0.5, 300))


def test_at_a_threshold_a_score_is_dropped_and_an_overlap_is_kept():
    boxes = np.float32([[[0, 0, 2, 1], [0, 0, 3, 1], [1, 0, 3, 1], [9, 9, 10, 10]]])  # IoU of the first two: 2/3
    scores = np.float32([[[0.9], [0.8], [0.7], [0.5]]])
    (found,) = nms(boxes, scores, NmsOptions(score_threshold=0.5, iou=float(np.float32(2) / np.float32(3))))
    assert found.scores.tolist() == np.float32([0.9, 0.8, 0.7]).tolist()
    (found,) = nms(boxes, scores, NmsOptions(score_threshold=0.5, iou=0.6))
    assert found.scores.tolist() == np.float32([0.9, 0.7]).tolist()


def test_limits_apply_to_each_class_and_to_all_and_ties_go_to_the_first():
    boxes = np.float32([[[9 * at, 0, 9 * at + 1, 1] for at in range(4)]])
    scores = np.float32([[[0.5, 0.9], [0.9, 0.9], [0.9, 0.3], [0.3, 0.9]]])
    (found,) = nms(boxes, scores, NmsOptions(most=2))
    assert [(kind, x) for kind, _, x, *_ in found.rows()] == [(0, 9), (0, 18), (1, 0), (1, 9)]
    (found,) = nms(boxes, scores, NmsOptions(most=4, total=3))
    assert [(kind, x) for kind, _, x, *_ in found.rows()] == [(0, 9), (0, 18), (1, 0)]


def test_class_agnostic_each_place_has_its_best_class_and_classes_suppress_each_other():
    boxes = np.float32([[[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 10, 10]]])
    scores = np.float32([[[0.6, 0.7], [0.8, 0.1], [0.5, 0.5]]])
    (found,) = nms(boxes, scores, NmsOptions(class_agnostic=True))
    assert found.rows() == [(0, pytest.approx(0.8), 0, 0, 4, 4), (0, pytest.approx(0.5), 9, 9, 10, 10)]


def test_pictures_are_apart_and_nothing_is_an_empty_answer():
    boxes, scores = np.zeros((3, 2, 4), np.float32), np.zeros((3, 2, 1), np.float32)
    scores[1, 0] = 1
    assert [len(found) for found in nms(boxes, scores)] == [0, 1, 0]
    assert nms(boxes[:1], scores[:1]) == [Detections.none()]
    assert nms(boxes[:, :0], scores[:, :0]) == [Detections.none()] * 3


def test_shapes_and_options_that_cannot_be_are_refused():
    with pytest.raises(BadInput, match=r"\[1, 2, 4\] and \[1, 3, 1\]"):
        nms(np.zeros((1, 2, 4)), np.zeros((1, 3, 1)))
    with pytest.raises(BadInput, match="iou"):
        NmsOptions(iou=1.5)
    with pytest.raises(BadInput, match="most"):
        NmsOptions(most=0)
    with pytest.raises(BadInput, match="how many rows"):
        AddNmsOptions(form="padded")


# -- what comes out of graphs


ROWS = {"boxes": np.float32([[1, 2, 3, 4], [5, 6, 7, 8], [-1, -1, -1, -1]]), "scores": np.float32([0.5, 0.9, -1]),
        "classes": np.int64([2, 0, -1]), "batch": np.int64([0, 2, -1])}


def test_rows_are_sorted_into_their_pictures_and_those_of_minus_one_are_left_out():
    found = read_detections(ROWS)
    assert [one.rows() for one in found] == [[(2, 0.5, 1, 2, 3, 4)], [], [(0, pytest.approx(0.9), 5, 6, 7, 8)]]
    assert len(read_detections(ROWS, images=4)) == 4
    nothing = {name: array[2:] for name, array in ROWS.items()}
    assert read_detections(nothing) == [Detections.none()]


def test_names_of_a_savedmodel_or_a_chip_are_known_too():
    assert read_detections({f"detections/{name}:0": array for name, array in ROWS.items()}) == read_detections(ROWS)


def test_the_padded_form_and_a_total_of_the_host():
    padded = {"boxes": np.float32([[[1, 2, 3, 4], [5, 6, 7, 8]], [[-1] * 4] * 2]),
              "scores": np.float32([[0.5, 0.75], [-1, -1]]), "classes": np.int64([[1, 0], [-1, -1]])}
    both = [(1, 0.5, 1, 2, 3, 4), (0, 0.75, 5, 6, 7, 8)]
    assert [one.rows() for one in read_detections(padded)] == [both, []]
    assert [one.rows() for one in read_detections(padded, total=1)] == [both[1:], []]


def test_paddles_rows_with_a_count_for_each_picture():
    rows = np.float32([[1, 0.5, 1, 2, 3, 4], [0, 0.25, 5, 6, 7, 8], [-1, 0, 0, 0, 0, 0]])
    found = read_detections({"bbox": rows, "bbox_num": np.int32([0, 2, 1])})
    assert [one.rows() for one in found] == [[], [(1, 0.5, 1, 2, 3, 4), (0, 0.25, 5, 6, 7, 8)], []]


def test_tensorflows_four_outputs_in_any_order():
    outputs = {"b": np.float32([[[2, 1, 4, 3], [0] * 4]]), "kind_classes": np.float32([[1, 0]]),
               "kind_scores": np.float32([[0.5, 0]]), "n": np.int32([1])}
    assert read_detections(outputs)[0].rows() == [(1, 0.5, 1, 2, 3, 4)]


def test_raw_heads_are_no_detections_and_it_says_so():
    with pytest.raises(BadInput, match=r"box_deltas float32\[1, 3, 4\]"):
        read_detections({"box_deltas": np.zeros((1, 3, 4), np.float32), "logits": np.zeros((1, 3, 2), np.float32)})


def test_boxes_are_scaled_to_the_picture():
    found = read_detections(ROWS)[0]
    assert scale_boxes(found, (0.5, 0.25)).rows() == [(2, 0.5, 4, 4, 12, 8)]
    with pytest.raises(BadInput, match="above 0"):
        scale_boxes(found, (0, 1))
