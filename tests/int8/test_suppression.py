"""Graphs that suppress boxes: the error is looked at before the suppression, whose rows come and go."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import kit
from kit.int8.suppression import as_overlap_sees, behind, looked_at_before, suppresses
from kit.model import read


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Two convolutions in a row give boxes, another scores; the third of the layers is much dearer than the others."""
    random = np.random.default_rng(0)
    weights = {"first": random.normal(0, 0.3, (8, 3, 3, 3)), "boxes": random.normal(0, 0.3, (4, 8, 1, 1)),
               "scores": random.normal(0, 0.3, (2, 8, 1, 1))}
    weights["scores"][0] *= 300  # one scale for both rows leaves nothing of the second
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "boxes"], ["c"], "box head"),
        helper.make_node("Conv", ["b", "scores"], ["d"], "score head"),
        helper.make_node("Reshape", ["c", "four"], ["e"], "flat boxes"),
        helper.make_node("Transpose", ["e"], ["corners"], "corners", perm=[0, 2, 1]),
        helper.make_node("Reshape", ["d", "two"], ["f"], "flat scores"),
        helper.make_node("Sigmoid", ["f"], ["likely"], "likely"),
        helper.make_node("NonMaxSuppression", ["corners", "likely", "most", "iou", "least"], ["kept"], "nms"),
        helper.make_node("Cast", ["kept"], ["rows"], "rows", to=TensorProto.FLOAT),
    ]
    constants = [helper.make_tensor(n, TensorProto.FLOAT, v.shape, v.astype(np.float32).ravel())
                 for n, v in weights.items()]
    constants += [helper.make_tensor("four", TensorProto.INT64, [3], [1, 4, -1]),
                  helper.make_tensor("two", TensorProto.INT64, [3], [1, 2, -1]),
                  helper.make_tensor("most", TensorProto.INT64, [1], [50]),
                  helper.make_tensor("iou", TensorProto.FLOAT, [1], [0.5]),
                  helper.make_tensor("least", TensorProto.FLOAT, [1], [0.6])]
    graph = helper.make_graph(nodes, "detector", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
                              [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 3])], constants)
    path = tmp_path_factory.mktemp("nms") / "detector.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    samples = [{"x": random.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(6)]
    return kit.Model.open(path), samples


def test_the_number_of_rows_follows_from_the_values(detector):
    model, samples = detector
    with kit.open_runner(model) as run:
        assert len({len(run(sample)["rows"]) for sample in samples}) > 1, "else these tests would show nothing"


def test_boxes_and_scores_take_the_place_of_the_outputs(detector):
    proto = read(detector[0].path)
    assert suppresses(proto)
    looked_at_before(proto)
    onnx.checker.check_model(proto)
    assert [value.name for value in proto.graph.output] == ["boxes into suppression 0", "scores into suppression 0"]


def test_what_lies_behind_a_suppression_is_known(detector):
    assert behind(read(detector[0].path)) == {"kept", "rows"}


def test_a_graph_without_suppression_stays_as_it_is(detector):
    proto = read(detector[0].path)
    del proto.graph.node[-2:]
    before = proto.SerializeToString()
    assert not suppresses(proto)
    assert looked_at_before(proto).SerializeToString() == before


def test_the_dear_layer_is_found_through_the_suppression(detector):
    model, samples = detector
    calibration = kit.calibrate(model, samples)
    options = kit.SensitivityOptions(per_channel=False, method="minmax")
    ranking = kit.sensitivity(model, calibration, options=options)
    assert ranking.groups[0].name == "score head"
    assert ranking.groups[0].noise > 3 * ranking.groups[1].noise


@pytest.mark.parametrize("method", ["auto", "tensor"])
def test_ranges_are_chosen_by_what_goes_into_the_suppression(detector, method):
    model, samples = detector
    quantized = kit.quantize(model, kit.calibrate(model, samples), kit.QuantizeOptions(method=method))
    assert quantized.sqnr is not None
    with kit.open_runner(quantized.model) as run:
        assert list(run(samples[0])) == ["rows"], "the model that is kept has its own outputs"


def test_layer_errors_leave_out_what_lies_behind(detector):
    model, samples = detector
    quantized = kit.quantize(model, kit.calibrate(model, samples))
    errors = kit.layer_errors(model, quantized, samples)
    assert "d" in {row.tensor for row in errors.rows}
    assert not {"kept", "rows"} & {row.tensor for row in errors.rows}


def test_a_pixel_counts_more_on_a_small_box_and_on_a_likely_one():
    boxes = np.float32([[[10, 10, 20, 20], [100, 100, 200, 200], [50, 50, 60, 60]]])
    scores = np.float32([[[0.9, 0.9, 0.1]]])
    right = {"boxes into suppression 0": boxes, "scores into suppression 0": scores}
    seen = as_overlap_sees(right, right)["boxes into suppression 0"]
    moved = as_overlap_sees({**right, "boxes into suppression 0": boxes + 1}, right)["boxes into suppression 0"]
    small, large, unlikely = np.abs(moved - seen)[0, :, 0]
    assert small == pytest.approx(np.sqrt(0.9) / 10)
    assert large == pytest.approx(np.sqrt(0.9) / 100)
    assert unlikely == pytest.approx(np.sqrt(0.1) / 10)


def test_centred_boxes_are_seen_as_their_corners():
    corners = {"boxes into suppression 0": np.float32([[[10, 20, 30, 60]]]),
               "scores into suppression 0": np.float32([[[1.0]]])}
    centred = {"centred boxes into suppression 0": np.float32([[[20, 40, 20, 40]]]),
               "scores into suppression 0": np.float32([[[1.0]]])}
    one, two = as_overlap_sees(corners, corners), as_overlap_sees(centred, centred)
    assert np.allclose(one["boxes into suppression 0"], two["centred boxes into suppression 0"])


def test_outputs_of_other_graphs_are_left_alone():
    outputs = {"boxes": np.ones((2, 4), np.float32)}
    assert as_overlap_sees(outputs, outputs)["boxes"] is outputs["boxes"]
