"""One feed for models that want it differently."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.evidence.feeding import fitted
from kit.model import TensorSpec

PICTURE = np.random.default_rng(0).random((1, 8, 6, 3), np.float32)


def model(*inputs):
    return SimpleNamespace(inputs=tuple(TensorSpec(name, "float32", shape) for name, shape in inputs))


def test_what_fits_or_comes_from_a_function_is_left_alone():
    feed = {"image": PICTURE}
    assert fitted(feed, print) is feed
    assert fitted(feed, model(("image", ("N", 8, 6, 3))))["image"] is PICTURE


def test_channels_are_moved_where_only_the_other_layout_fits():
    turned = fitted({"image": PICTURE}, model(("image", ("N", 3, "H", "W"))))["image"]
    np.testing.assert_array_equal(turned, PICTURE.transpose(0, 3, 1, 2))
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(fitted({"image": turned}, model(("image", (-1, 8, 6, 3))))["image"], PICTURE)


@given(st.permutations([1, 2, 3]))
def test_nothing_else_is_turned(order):
    """Height and width exchanged stay an error for the runner to tell."""
    shape = (1, *(PICTURE.shape[at] for at in order))
    got = fitted({"image": PICTURE}, model(("image", shape)))["image"]
    assert (got is PICTURE) == (shape != (1, 3, 8, 6))


def test_the_optional_entry_is_left_out_where_it_is_not_taken():
    feed = {"image": PICTURE, "scale_factor": np.ones((1, 2), np.float32)}
    both = model(("image", ("N", 8, 6, 3)), ("scale_factor", ("N", 2)))
    assert list(fitted(feed, both, "scale_factor")) == ["image", "scale_factor"]
    one = model(("image", ("N", 8, 6, 3)))
    assert list(fitted(feed, one, "scale_factor")) == ["image"]
    assert list(fitted(feed, one)) == ["image", "scale_factor"], "without leave, the runner refuses it"


def test_a_single_input_gets_its_own_name():
    assert list(fitted({"x": PICTURE}, model(("serving_default_image:0", ("N", 8, 6, 3))))) == [
        "serving_default_image:0"]
    two = model(("a", ("N", 8, 6, 3)), ("b", ("N", 2)))
    assert list(fitted({"x": PICTURE}, two)) == ["x"]
