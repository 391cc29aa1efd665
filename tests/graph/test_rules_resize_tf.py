"""Resizes get the modes with which TensorFlow computed them, from metadata or as asked."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from kit.graph import FixOptions, fix
from kit.graph.table import default_rules
from kit.resizes import METADATA, TfResize, remember

RULE = "resize-like-tensorflow"
WRONG = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}


@pytest.fixture
def resize(tmp_path):
    """Writes a model with one Resize of 6x7 to 12x14 pixels."""
    def write(attributes=WRONG, metadata=None, opset=13):
        import onnx

        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], name="up", **attributes)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 6, 7])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 12, 14])],
            [onnx.numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if metadata:
            helper.set_model_props(model, {METADATA: remember({"up": metadata})})
        path = tmp_path / "up.onnx"
        onnx.save(model, str(path))
        return path

    return write


def run(path, tmp_path, **options):
    return fix(path, FixOptions(rules=(RULE,), **options), runs=tmp_path / "runs")


def test_the_metadata_says_what_tensorflow_did_and_the_move_is_told(resize, tmp_path):
    fixed = run(resize(metadata=TfResize("ResizeBilinear", half_pixel_centers=True)), tmp_path)
    change, = fixed.changes
    assert change.id == f"{RULE}:up"
    assert change.what == ("linear, asymmetric became linear, half_pixel, as ResizeBilinear(half_pixel_centers) "
                           "computes")
    assert change.difference > 1e-2, "measured, and accepted: that is what the rule is for"
    assert any("with which the model was trained" in note for note in fixed.notes)
    assert not run(fixed, tmp_path).changes, "a second time there is nothing to do"


@pytest.mark.parametrize(("flag", "attributes", "modes"), [
    ("half_pixel", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
     "nearest, half_pixel, round_prefer_ceil"),
    ("align_corners", WRONG, "linear, align_corners"),
    ("legacy", {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.5},
     "cubic, asymmetric, a = -0.75"),
])
def test_without_metadata_it_is_asked_for(resize, tmp_path, flag, attributes, modes):
    fixed = run(resize(attributes), tmp_path, tensorflow_resize=flag)
    assert f"became {modes}, as" in fixed.changes[0].what
    assert not run(fixed, tmp_path, tensorflow_resize=flag).changes


def test_what_is_right_already_is_not_looked_at(resize, tmp_path):
    fixed = run(resize(metadata=TfResize("ResizeBilinear")), tmp_path)
    assert not fixed.changes
    assert not fixed.left_alone


@pytest.mark.parametrize(("attributes", "metadata", "opset", "options", "reason"), [
    (WRONG, None, 13, {}, "nothing says what TensorFlow computed here"),
    (WRONG, TfResize("ResizeNearestNeighbor"), 13, {}, "another interpolation is another model"),
    ({"mode": "linear", "coordinate_transformation_mode": "asymmetric", "antialias": 1}, None, 18,
     {"tensorflow_resize": "half_pixel"}, "it blurs before it makes smaller"),
])
def test_it_is_left_alone_with_the_reason(resize, tmp_path, attributes, metadata, opset, options, reason):
    fixed = run(resize(attributes, metadata, opset), tmp_path, **options)
    assert not fixed.changes
    assert [row.node for row in fixed.left_alone] == ["up"]
    assert reason in fixed.left_alone[0].reason


def test_it_is_in_no_default_set():
    assert all(RULE not in default_rules(target) for target in ("onnxruntime", "openvino", "ascend310p3"))
