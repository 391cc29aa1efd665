"""Sizes and names of input axes."""

from __future__ import annotations

import pytest

import kit

RESHAPED = "<int64[1] zero={0}, int64[1] rest={-1}> {s = Shape(x) b = Gather <axis: int = 0> (s, zero) " \
           "t = Concat <axis: int = 0> (b, rest) y = Reshape(x, t)}"
OPEN = {"inputs": "float[N,3,H,W] x", "outputs": "float[A,B] y"}


def test_fixed_sizes_reach_the_outputs_and_turn_shape_arithmetic_into_constants(bench):
    fixed = bench.promises(bench.text(RESHAPED, **OPEN), "fix-shapes", shapes=("x=1,3,4,4",),
                           rules=("fix-shapes", "fold-constants"))
    assert fixed.operators_after == {"Reshape": 1}
    assert fixed.model.inputs[0].shape == (1, 3, 4, 4)
    assert fixed.model.outputs[0].shape == (1, 48)
    assert fixed.changes[0].what == "input x is [1, 3, 4, 4] now"
    assert fixed.checked_on == "2 made-up inputs: x [1, 3, 4, 4]"


def test_axes_are_named_and_others_left(bench):
    fixed = bench.promises(bench.text(RESHAPED, **OPEN), "name-axes", shapes=("x=batch,3,?,width",))
    assert fixed.model.inputs[0].shape == ("batch", 3, "H", "width")


def test_a_size_and_a_name_can_be_asked_for_together(bench):
    path = bench.text("{y = Relu(x)}", inputs="float[N,C] x", outputs="float[N,C] y")
    fixed = bench.promises(path, "fix-shapes", shapes=("x=batch,7",), rules=("fix-shapes", "name-axes"))
    assert fixed.model.inputs[0].shape == ("batch", 7)
    assert fixed.model.outputs[0].shape == ("batch", 7)


def test_an_axis_that_is_fixed_already_is_left_alone(bench):
    path = bench.text("{y = Relu(x)}")
    assert bench.reason(path, "fix-shapes", shapes=("x=1,3,6,6",)) == (
        "axis 1 of input 'x' is 4 in the graph already and cannot become 3")


def test_a_fixed_axis_cannot_be_named(bench):
    assert "has the fixed size 4; it cannot be named 'channels'" in bench.reason(
        bench.text("{y = Relu(x)}"), "name-axes", shapes=("x=?,channels,?,?",))


@pytest.mark.parametrize(("size", "channels", "named"), [
    (-1, 3, ("batch", 3, "height", "width")), (None, 3, ("batch", 3, "height", "width")),
    (-1, 7, ("batch", 7, "x_2", "x_3"))])
def test_axes_without_a_usable_name_get_one(bench, size, channels, named):
    import onnx

    proto = onnx.load(str(bench.text("{y = Relu(x)}", inputs="float[N,4,H,W] x", outputs="float[N,4,H,W] y")))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.Clear()
            if at == 1:
                dim.dim_value = channels
            elif size is not None:
                dim.dim_value = size
    fixed = bench.fix(bench.save(proto), rules=("name-axes",), shapes=())
    assert fixed.model.inputs[0].shape == named
    assert fixed.model.outputs[0].shape == named
    assert bench.fix(fixed.model.path, rules=("name-axes",)).changes == ()


@pytest.mark.parametrize(("wish", "said"), [
    ("x", "x"), ("x=1,,3", "1,,3"), ("x=1,3", "2 axes"), ("x=0,4,6,6", "cannot have size 0"),
    ("image=1,4,6,6", "no input named 'image'")])
def test_a_wish_that_cannot_be_read_is_named(bench, wish, said):
    path = bench.text("{y = Relu(x)}")
    with pytest.raises(kit.BadInput, match=said) as caught:
        bench.fix(path, shapes=(wish,))
    assert caught.value.remedy
