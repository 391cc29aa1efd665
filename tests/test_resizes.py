"""What TensorFlow's resizes are called in ONNX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.resizes import OPERATORS, Modes, TfResize, recall, remember

resizes = st.builds(TfResize, st.sampled_from(OPERATORS), st.booleans(), st.booleans())


@pytest.mark.parametrize(("tf", "modes"), [
    (TfResize("ResizeBilinear", half_pixel_centers=True), Modes("linear", "half_pixel")),
    (TfResize("ResizeBilinear"), Modes("linear", "asymmetric")),
    (TfResize("ResizeNearestNeighbor"), Modes("nearest", "asymmetric", "floor")),
    (TfResize("ResizeNearestNeighbor", align_corners=True), Modes("nearest", "align_corners", "round_prefer_ceil")),
    (TfResize("ResizeBicubic", half_pixel_centers=True), Modes("cubic", "half_pixel", "", -0.5, True)),
    (TfResize("ResizeBicubic"), Modes("cubic", "asymmetric", "", -0.75, False)),
])
def test_each_has_its_modes(tf, modes):
    assert tf.modes() == modes


@given(st.dictionaries(st.text(max_size=8), resizes, max_size=5))
def test_what_is_remembered_is_recalled(found):
    assert recall(remember(found)) == found


@pytest.mark.parametrize("text", ["", "no json", "3", '{"a": 3}', '{"a": ["ResizeArea", true, false]}', "[1]"])
def test_other_text_says_nothing(text):
    assert recall(text) == {}


def test_words_name_the_flags():
    assert str(TfResize("ResizeBilinear", align_corners=True)) == "ResizeBilinear(align_corners)"
    assert "legacy" in str(TfResize("ResizeBilinear"))
    assert str(Modes("cubic", "half_pixel", "", -0.5, True)) == "cubic, half_pixel, a = -0.5, exclude_outside"
