"""The small texts: what is taken, and what is said about those that are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.exporting.specs import (
    LayerSource,
    layer_source,
    named,
    parse_axes,
    parse_inputs,
    parse_probe,
    trial_shapes,
)
from kit.model import TensorSpec
from kit.samples import generated

X = TensorSpec("x", "float32", ("?", 3, "?", "?"))


@pytest.mark.parametrize(("text", "expected"), [
    ("package.module:factory", LayerSource("package.module", "factory")),
    ("folder/file.py:factory", LayerSource("folder/file.py", "factory")),
    (r"C:\models\net.py:factory", LayerSource(r"C:\models\net.py", "factory")),
    ("C:model", None), ("model.onnx", None), ("folder/model", None), ("package.module:", None), (None, None),
])
def test_a_layer_is_told_from_a_path(text, expected):
    assert layer_source(text) == expected


@pytest.mark.parametrize("shape", ["?,3,?,?", "None, 3, -1, ?", " ? ,3,?,?"])
def test_an_input_is_read_in_any_usual_spelling(shape):
    assert parse_inputs([f" x : float32 [{shape}] "]) == (X,)


def test_words_at_axes_are_kept():
    assert parse_inputs(["x:float32[N,3,48,W]"])[0].shape == ("N", 3, 48, "W")


@pytest.mark.parametrize("text", ["x", "x:float32", "x:float32[1,-2]", "float32[1]", "x:float32[a b]", "x:float32(1)"])
def test_a_wrong_input_text_is_answered_with_the_form(text):
    with pytest.raises(BadInput) as caught:
        parse_inputs([text])
    assert text.partition("[")[0] in caught.value.what
    assert 'x:float32[N,3,H,W]' in caught.value.remedy


def test_an_unknown_type_is_answered_with_the_closest():
    with pytest.raises(BadInput, match="float23") as caught:
        parse_inputs(["x:float23[1]"])
    assert "float32" in caught.value.remedy


def test_no_input_at_all_is_answered_with_the_form():
    with pytest.raises(BadInput, match="does not say what its inputs are"):
        parse_inputs([])


@pytest.mark.parametrize("text", ["x", "=N", "x=N,3,-1", "x=1.5"])
def test_a_wrong_axes_text_is_answered_with_the_form(text):
    with pytest.raises(BadInput) as caught:
        parse_axes([text])
    assert "x=N,3,H,W" in caught.value.remedy


def test_a_name_given_twice_is_refused():
    with pytest.raises(BadInput, match="named twice"):
        parse_axes(["x=N", "x=M"])
    with pytest.raises(BadInput, match="named twice"):
        parse_inputs(["x:float32[1]", "x:float32[2]"])


def test_a_probe_gives_every_input_a_shape():
    assert parse_probe(["x=1,3,64,64; s=1,2"]) == [{"x": (1, 3, 64, 64), "s": (1, 2)}]
    with pytest.raises(BadInput, match="every size as a number"):
        parse_probe(["x=N,3,64,64"])


def test_dynamic_axes_get_words():
    assert named([X], {})[0].shape == ("N", 3, "H", "W")
    assert named([TensorSpec("p", "float32", ("?", "?", "?", 3))], {})[0].shape == ("N", "H", "W", 3)
    assert named([TensorSpec("token ids", "int64", ("?", "?"))], {})[0].shape == ("N", "token_ids_1")
    assert named([X], {"x": ("B", 3, 640, "?")})[0].shape == ("B", 3, 640, "W")


@pytest.mark.parametrize(("axes", "words"), [
    ({"y": ("N",)}, "no input named 'y'"), ({"x": ("N", 3)}, "has 4 axes"),
    ({"x": ("N", 4, "H", "W")}, "cannot become 4"),
])
def test_axes_that_do_not_fit_are_refused(axes, words):
    with pytest.raises(BadInput, match=words):
        named([X], axes)


def test_trials_differ_in_every_dynamic_axis_and_agree_where_names_do():
    specs = [TensorSpec("x", "float32", ("N", 3, "H", "W")), TensorSpec("s", "float32", ("N", 2))]
    first, second = trial_shapes(specs)
    assert all(a != b for a, b, side in zip(first["x"], second["x"], specs[0].shape, strict=True)
               if isinstance(side, str))
    assert first["x"][2] != first["x"][3], "a swap of height and width must show"
    assert (first["s"][0], second["s"][0]) == (first["x"][0], second["x"][0])
    assert len(trial_shapes([TensorSpec("x", "float32", (1, 3))])) == 1
    assert trial_shapes([TensorSpec("ids", "int64", ("N", "T"))]) == [{"ids": (1, 8)}, {"ids": (2, 12)}]
    assert trial_shapes([TensorSpec("x", "float32", ("S", 3, "S"))])[0]["x"] == (1, 3, 1)


def test_minus_one_is_a_dynamic_axis():
    assert named([TensorSpec("x", "float32", (-1, 3, -1, -1))], {})[0].shape == ("N", 3, "H", "W")


def test_a_machines_word_is_replaced_by_a_readable_one():
    spec = TensorSpec("x", "float32", ("p2o.DynamicDimension.0", 3, "height", "?"))
    assert named([spec], {})[0].shape == ("N", 3, "height", "W")


@given(st.integers(0, 2**31 - 1), st.sampled_from(["float32", "int64", "bool", "uint8"]))
def test_made_up_inputs_are_the_same_for_the_same_seed(seed, dtype):
    spec = TensorSpec("x", dtype, (2, 3))
    one, two = (generated([spec], {"x": (2, 3)}, seed)["x"] for _ in range(2))
    assert one.dtype.name == dtype
    assert (one == two).all()
    if dtype != "float32":
        assert set(one.astype(int).ravel()) <= {0, 1}, "must be valid as an index"
