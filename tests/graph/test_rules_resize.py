"""Resize in the form that CANN reads as ONNX means it, and the exact pixels behind it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.graph import pixels

FIXED = {"inputs": "float[1,4,6,6] x", "outputs": "float[A,B,C,D] y"}
OPEN = {"inputs": "float[N,4,6,6] x", "outputs": "float[A,B,C,D] y"}
TWICE, SMALLER = "<float[4] s = {1.0, 1.0, 2.0, 2.0}>", "<int64[4] s = {1, 4, 3, 2}>"


def resize(bench, steer: str, reads: str, place: str = "", *, mode: str = "nearest", rounding: str = "", more: str = "",
           opset: int = 17, **how):
    said = [f'mode: string = "{mode}"', *([f'coordinate_transformation_mode: string = "{place}"'] if place else []),
            *([f'nearest_mode: string = "{rounding}"'] if rounding else []), *([more] if more else [])]
    return bench.text(f"{steer} {{y = Resize <{', '.join(said)}> ({reads})}}", opset=opset, ir_version=9,
                      **{**OPEN, **how})


def form(fixed) -> tuple[str, str]:
    import onnx

    (node,) = [n for n in onnx.load(str(fixed.model.path)).graph.node if n.op_type == "Resize"]
    said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert not {"antialias", "axes", "keep_aspect_ratio_policy"} & set(said)
    return said["coordinate_transformation_mode"].decode(), said.get("nearest_mode", b"").decode()


THREE = "<float[4] s = {1.0, 1.0, 3.0, 3.0}>"
NEAREST = {
    "a newer mode": ((TWICE, "x, , s", "half_pixel_symmetric"), {"opset": 19}, ("half_pixel", "")),
    "an older mode": (("<float[0] e = {}, int64[4] s = {1, 4, 3, 2}>", "x, e, e, s", "tf_half_pixel_for_nn"), {
        "rounding": "floor", "opset": 12, **FIXED}, ("half_pixel", "round_prefer_ceil")),
    "axes by factors": (("<float[2] s = {2.0, 3.0}>", "x, , s"), {"more": "axes: ints = [-2, -1]", "opset": 18},
                        ("half_pixel", "")),
    "axes by sizes": (("<int64[2] s = {12, 18}>", "x, , , s", "asymmetric"), {
        "rounding": "floor", "more": "axes: ints = [3, 2]", "opset": 18}, ("asymmetric", "floor")),
}


@pytest.mark.parametrize("case", NEAREST)
def test_nearest_gets_a_form_that_cann_reads(bench, case):
    steer, how, wanted = NEAREST[case]
    assert form(bench.promises(resize(bench, *steer, **how), "plain-resize")) == wanted


@pytest.mark.parametrize(("steer", "place", "rounding"), [
    ((TWICE, "x, , s"), "half_pixel", ""), ((TWICE, "x, , s"), "half_pixel", "round_prefer_ceil"),
    ((TWICE, "x, , s"), "asymmetric", "floor"), ((THREE, "x, , s"), "pytorch_half_pixel", ""),
    ((SMALLER, "x, , , s"), "align_corners", "round_prefer_ceil"), ((SMALLER, "x, , , s"), "half_pixel", "ceil")])
def test_where_cann_takes_the_same_pixels_nothing_is_changed(bench, steer, place, rounding):
    fixed = bench.fix(resize(bench, *steer, place, rounding=rounding, **FIXED), rules=("plain-resize",))
    assert (fixed.changes, fixed.left_alone) == ((), ())


@pytest.mark.parametrize(("place", "rounding"), [("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil")])
def test_what_cann_computes_itself_is_right_at_every_size(bench, place, rounding):
    path = resize(bench, "<int64[4] s = {1, 4, 7, 9}>", "x, , , s", place, rounding=rounding, inputs="float[1,4,H,W] x")
    fixed = bench.fix(path, rules=("plain-resize",))
    assert (fixed.changes, fixed.left_alone) == ((), ())


LEFT = {
    "other pixels": ((TWICE, "x, , s", "asymmetric"), {"rounding": "ceil"},
                     "no form that ATC reads takes the same pixels as asymmetric with ceil"),
    "shifted by a third": ((THREE, "x, , s", "asymmetric"), {},
                           "no form that ATC reads takes the same pixels as asymmetric with round_prefer_floor"),
    "sizes not known": (("<float[4] s = {1.0, 1.0, 1.5, 1.5}>", "x, , s"), {"inputs": "float[N,4,H,W] x"},
                        "the size of axis 2 is not known, so that ATC may take other pixels for half_pixel and "
                        "round_prefer_floor: fix the input shapes"),
    "channels": (("<float[4] s = {1.0, 2.0, 2.0, 2.0}>", "x, , s"), {},
                 "it resizes axis 1: for nearest ATC looks at the third and fourth axis only (NCHW)"),
    "five axes": (("<float[5] s = {1.0, 1.0, 1.0, 2.0, 2.0}>", "x, , s"), {
        "inputs": "float[N,4,2,3,3] x", "outputs": "float[A,B,C,D,E] y"}, "nearest needs 4 axes (NCHW), this has 5"),
    "aspect": ((SMALLER, "x, , , s"), {"more": 'keep_aspect_ratio_policy: string = "not_larger"', "opset": 18, **FIXED},
               "keep_aspect_ratio_policy not_larger is not read: export fixed sizes"),
    "a blur": (("<float[4] s = {1.0, 1.0, 0.5, 0.5}>", "x, , s"), {"mode": "linear", "more": "antialias: int = 1",
                                                                  "opset": 18},
               "antialias blurs what is made smaller, which ATC does not"),
    "another cubic": ((TWICE, "x, , s"), {"mode": "cubic", "more": "cubic_coeff_a: float = -0.5"},
                      "cubic_coeff_a -0.5 is not read, and no other attribute says it"),
    "edges left out": ((TWICE, "x, , s"), {"mode": "cubic", "more": "exclude_outside: int = 1"},
                       "exclude_outside is not read, and no other attribute says it"),
    "rounded sizes": (("<float[4] s = {1.0, 1.0, 1.3, 1.3}>", "x, , s", "half_pixel_symmetric"), {
        "mode": "linear", "opset": 19}, "ATC does not read half_pixel_symmetric, and no mode that it reads is known to "
        "give the same"),
    "a region": (("<float[8] r = {0.0,0.0,0.1,0.0,1.0,1.0,1.0,1.0}, int64[4] s = {1, 4, 9, 9}>", "x, r, , s",
                  "tf_crop_and_resize"), {"mode": "linear", **FIXED}, "ATC does not read tf_crop_and_resize, and no "
                 "mode that it reads is known to give the same"),
    "computed factors": (("<float[4] t = {1.0, 1.0, 2.0, 2.0}>", "x, , s"), {},
                         "its scales are computed at run time: fix the input shapes, then fold constants"),
    "no such factor": (("<int64[2] s = {12, 17}>", "x, , , s"), {"more": "axes: ints = [2, 3]", "opset": 18},
                       "no factor makes exactly 17 of 6, and the sizes of the other axes are not known"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_has_no_equal_form_is_left_alone(bench, case):
    steer, how, reason = LEFT[case]
    if case == "computed factors":
        path = bench.text(steer[0] + " {s = Abs(t) y = Resize (x, , s)}", **OPEN)
    else:
        path = resize(bench, *steer, **how)
    assert bench.reason(path, "plain-resize") == reason


@pytest.mark.parametrize(("steer", "how", "wanted"), [
    ((TWICE, "x, , s", "half_pixel_symmetric"), {"opset": 19}, "half_pixel"),
    ((SMALLER, "x, , , s", "half_pixel_symmetric"), {"opset": 19, **FIXED}, "half_pixel"),
    ((TWICE, "x, , s"), {"more": "antialias: int = 1", "opset": 18}, "half_pixel"),
    (("<float[5] s = {1.0, 1.0, 2.0, 2.0, 2.0}>", "x, , s"), {
        "inputs": "float[N,4,2,3,3] x", "outputs": "float[A,B,C,D,E] y"}, "pytorch_half_pixel"),
    (("<float[8] r = {0.0,0.0,0.0,0.0,1.0,1.0,1.0,1.0}, int64[4] s = {1, 4, 9, 9}>", "x, r, , s",
      "tf_crop_and_resize"), FIXED, "align_corners")])
def test_linear_gets_a_coordinate_mode_that_cann_reads(bench, steer, how, wanted):
    fixed = bench.promises(resize(bench, *steer, mode="linear", **how), "plain-resize")
    assert form(fixed) == (wanted, "")


@pytest.mark.parametrize(("steer", "reads", "opset"), [
    ("<float[3] s = {1.0, 1.0, 2.0}>", "x, , s", 17), ("<int64[3] s = {1, 4, 18}>", "x, , , s", 17),
    ("<float[0] e = {}, int64[3] s = {1, 4, 18}>", "x, e, e, s", 11)])
def test_nearest_over_three_axes_gets_a_fourth(bench, steer, reads, opset):
    path = bench.text(f"{steer} {{y = Resize ({reads})}}", opset=opset, inputs="float[1,4,6] x",
                      outputs="float[A,B,C] y")
    assert bench.promises(path, "plain-resize").operators_after == {"Unsqueeze": 1, "Resize": 1, "Squeeze": 1}


@pytest.mark.parametrize("batch", [
    "g = Slice(h, zero, two)", "g = Gather(h, both)",
    "a = Gather(h, first) b = Gather(h, last) u = Unsqueeze(a, zero) g = Concat <axis: int = 0> (u, b)"])
def test_sizes_that_only_carry_the_batch_along_become_factors(bench, batch):
    path = bench.text("<int64[2] hw = {12, 18}, int64[1] zero = {0}, int64[1] two = {2}, int64[2] both = {0, 1}, "
                      "int64 first = {0}, int64[1] last = {-3}> {r = Relu(x) h = Shape(r) " + batch +
                      ' s = Concat <axis: int = 0> (g, hw) y = Resize <mode: string = "linear"> (r, , , s)}', **OPEN)
    fixed = bench.promises(path, "plain-resize")
    assert fixed.operators_after == {"Relu": 1, "Resize": 1}
    assert fixed.changes[0].what == "scales are the constants 1, 1, 2, 3"


def test_sizes_of_another_batch_are_left_alone(bench):
    path = bench.text("<int64[3] rest = {4, 12, 12}, int64[1] one = {1}> {h = Shape(x) w = Gather(h, one) "
                      's = Concat <axis: int = 0> (w, rest) y = Resize <mode: string = "linear"> (x, , , s)}',
                      inputs="float[N,M,6,6] x", outputs=OPEN["outputs"])
    assert bench.reason(path, "plain-resize", check=False) == (
        "the size of axis 0 is computed at run time: fix the input shapes, then fold constants")


PLACES = st.sampled_from(("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn"))
ROUNDINGS = st.sampled_from(("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))


@given(place=PLACES, rounding=ROUNDINGS, size=st.integers(1, 12), out=st.integers(1, 24), factor=st.sampled_from(
    (None, 2, 3, 4, Fraction(1, 2), Fraction(3, 2), Fraction(1, 4))))
@settings(max_examples=120, deadline=None)
def test_pixels_are_those_that_onnxruntime_takes(place, rounding, size, out, factor):
    import onnx
    import onnxruntime as ort

    axis = pixels.by_size(size, out) if factor is None else pixels.by_scale(size, factor)
    assume(axis.out > 0)
    assume(axis.out != size or place != "tf_half_pixel_for_nn")  # ONNX Runtime copies then, and ONNX's formula shifts
    steer = np.int64([1, 1, 1, out]) if factor is None else np.float32([1, 1, 1, factor])
    node = onnx.helper.make_node("Resize", ["x", "e", *(["e"] if factor is None else []), "s"], ["y"], mode="nearest",
                                 coordinate_transformation_mode=place, nearest_mode=rounding)
    graph = onnx.helper.make_graph(
        [node], "net", [onnx.helper.make_tensor_value_info("x", 1, [1, 1, 1, size])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(steer, "s"), onnx.numpy_helper.from_array(np.zeros(0, np.float32), "e")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)})
    for x, (have, want) in enumerate(zip(found.ravel().astype(int), pixels.onnx_pixels(axis, place, rounding),
                                         strict=True)):
        # Exactly between two pixels, ONNX Runtime's float32 scale may fall to either side (7 to 1, half_pixel, floor).
        assert have == want or (abs(have - want) == 1 and is_between(pixels.coordinate(x, axis, place), rounding)
                                and Fraction(float(np.float32(axis.scale))) != axis.scale), (x, have, want)


def is_between(coordinate, rounding):
    """Does the rounding turn from one pixel to the next right there?"""
    return (coordinate - (pixels.HALF if rounding.startswith("round") else 0)).denominator == 1


def test_the_pixel_exactly_between_two_is_the_formula_s_and_not_the_float_s():
    assert pixels.onnx_pixels(pixels.by_size(7, 1), "half_pixel", "floor") == (3,)


@given(size=st.integers(1, 40), out=st.integers(1, 80))
def test_canns_own_pixels_are_onnx_forms_at_every_size(size, out):
    axis = pixels.by_size(size, out)
    for place, rounding in (("half_pixel", "round_prefer_ceil"), ("asymmetric", "floor"),
                            ("align_corners", "round_prefer_ceil")):
        assert pixels.cann_pixels(axis, place) == pixels.onnx_pixels(axis, place, rounding)


@given(factor=st.integers(2, 6), size=st.integers(1, 30), place=PLACES.filter(pixels.SHIFTING.__contains__),
       rounding=ROUNDINGS)
def test_a_few_sizes_speak_for_all_where_the_factor_is_whole(factor, size, place, rounding):
    def agrees(axis):
        return pixels.onnx_pixels(axis, place, rounding) == pixels.cann_pixels(axis, place)

    few = all(agrees(pixels.by_scale(n, Fraction(factor))) for n in pixels.STEADY)
    assert not few or agrees(pixels.by_scale(size, Fraction(factor)))


def test_a_factor_stands_for_the_fraction_it_was_made_from():
    assert pixels.exact(np.float32(1 / 3)) == Fraction(1, 3)
    assert pixels.exact(2.5) == Fraction(5, 2)
    assert float(pixels.exact(float(np.float32(np.pi)))) == pytest.approx(np.pi)
