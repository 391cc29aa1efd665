"""Resizes beside their ONNX nodes, without TensorFlow: its answers are written down as formulas."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.exporting.resizing import (
    compare_resizes,
    match_resizes,
    name_resizes,
    pixel_difference,
    ramp,
    read_modes,
    resize_cells,
    resize_tasks,
    resize_with,
)
from kit.exporting.tensorflow import Resized
from kit.resizes import Modes, TfResize

make = onnx.helper
LEGACY = TfResize("ResizeBicubic")


def nearest(picture, size, flag):
    """TensorFlow's ResizeNearestNeighbor as its kernel's scaler says it."""
    _, height, width, _ = picture.shape
    rows, columns = (
        np.minimum({"": lambda x, o, i: np.floor(x * i / o), "half": lambda x, o, i: np.floor((x + 0.5) * i / o),
                    "corners": lambda x, o, i: np.floor(x * (i - 1) / max(o - 1, 1) + 0.5)}[flag](
            np.arange(out), out, have), have - 1).astype(int)
        for out, have in zip(size, (height, width), strict=True))
    return picture[:, rows][:, :, columns]


@given(st.tuples(st.integers(2, 17), st.integers(2, 17)), st.tuples(st.integers(2, 33), st.integers(2, 33)))
@settings(max_examples=40, deadline=None)
def test_the_modes_for_nearest_take_tensorflows_pixels(size, out):
    picture = ramp(*size)
    for flag, tf in (("", TfResize("ResizeNearestNeighbor")), ("half", TfResize("ResizeNearestNeighbor", False, True))):
        wanted, got = nearest(picture, out, flag), resize_with(tf.modes(), picture, out)
        # A place on the border between two pixels may go either way in float32: those rows and columns say nothing.
        rows, columns = (clear(have, new, flag) for have, new in zip(size, out, strict=True))
        assert np.array_equal(wanted[:, rows][:, :, columns], got[:, rows][:, :, columns])


def clear(have, new, flag):
    """Which output pixels do not come from the border between two input pixels."""
    places = (np.arange(new) + (0.5 if flag == "half" else 0.0)) * have / new
    return (np.abs(places - np.round(places)) > 1e-5) | (have == new)


def test_a_wrong_mode_shows_in_pixels():
    picture = ramp(9, 13)
    right = resize_with(Modes("linear", "half_pixel"), picture, (18, 26))
    assert pixel_difference(Modes("linear", "half_pixel"), picture, right) == 0
    assert pixel_difference(Modes("linear", "asymmetric"), picture, right) > 0.05


@pytest.fixture
def proto():
    node = make.make_node("Resize", ["x", "", "s"], ["y"], name="Resize__4", mode="cubic", cubic_coeff_a=-0.5,
                          coordinate_transformation_mode="asymmetric", exclude_outside=1, extrapolation_value=2.0)
    other = make.make_node("Relu", ["y"], ["z"], name="taken")
    graph = make.make_graph([node, other], "g", [make.make_tensor_value_info("x", 1, [1, 1, 4, 6])],
                            [make.make_tensor_value_info("z", 1, None)],
                            [onnx.numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])


def test_a_resize_gets_the_sources_name_unless_it_is_taken(proto):
    row, = name_resizes(proto, [Resized("up", LEGACY, "Resize__4", (4, 6), (8, 12))])
    assert (row.node, proto.graph.node[0].name) == ("up", "up")
    row, = name_resizes(proto, [Resized("taken", LEGACY, "up", (4, 6), (8, 12))])
    assert (row.node, proto.graph.node[0].name) == ("taken/Resize", "taken/Resize")
    row, = name_resizes(proto, [Resized("lost", LEGACY, "Resize__9", (4, 6), (8, 12))])
    assert row.node == ""


def test_modes_are_matched_once_and_other_attributes_stay(proto):
    row = Resized("up", LEGACY, "Resize__4", (4, 6), (8, 12))
    before = read_modes(proto.graph.node[0])
    assert match_resizes(proto, [row]) == {"Resize__4": before}
    assert read_modes(proto.graph.node[0]) == LEGACY.modes()
    assert "extrapolation_value" in {attribute.name for attribute in proto.graph.node[0].attribute}
    assert match_resizes(proto, [row]) == {}


def test_both_differences_are_told_and_open_sizes_are_made_up(proto):
    rows = [Resized("up", LEGACY, "Resize__4", (4, 6), (8, 12)), Resized("gone", LEGACY, "", (0, 6), (0, 12))]
    tasks, pictures = resize_tasks(rows)
    assert [size for _, size in tasks] == [(8, 12), (27, 31)]
    changed = match_resizes(proto, rows)
    answers = [resize_with(LEGACY.modes(), picture, size) for (_, size), picture in zip(tasks, pictures, strict=True)]
    first, second = compare_resizes(proto, rows, changed, answers)
    assert first.difference > 1e-3
    assert first.left == 0
    assert (first.known, second.known, second.modes) == (True, False, None)
    assert resize_cells(first)[3].startswith("cubic, asymmetric, a = -0.5")
    assert "made up" in resize_cells(second)[2]
    assert resize_cells(second)[3] == "in another form"
