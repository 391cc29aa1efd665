"""The order of axes at the border: the answers stay, the Transposes go where they can."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper as make
from onnx import numpy_helper

from kit.errors import BadInput
from kit.exporting.layouts import TO, Relayout, inverse, turn, turns
from kit.exporting.transposes import count, layout_cost
from kit.model import TensorSpec

RANDOM = np.random.default_rng(0)


def model(nodes, weights=(), shape=(2, 5, 6, 3), outputs=(("y", 4),), opset=17):
    graph = make.make_graph(nodes, "g", [make.make_tensor_value_info("x", 1, shape)],
                            [make.make_tensor_value_info(name, 1, [None] * rank) for name, rank in outputs],
                            [numpy_helper.from_array(array, name) for name, array in weights])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=8)


def answers(proto, feed):
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def nhwc_conv(before=(), weights=()):
    """x NHWC, some nodes that give ``a``, a convolution in NCHW, back to NHWC."""
    kernel = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [*before, make.make_node("Transpose", ["a" if before else "x"], ["b"], name="in", perm=[0, 3, 1, 2]),
             make.make_node("Conv", ["b", "w"], ["c"], name="conv"),
             make.make_node("Transpose", ["c"], ["y"], name="out", perm=[0, 2, 3, 1])]
    return model(nodes, [("w", kernel), *weights])


def check(proto, relayout):
    """Turn a copy; both answer alike. Returns the copy."""
    feed = {"x": RANDOM.standard_normal((2, 5, 6, 3)).astype(np.float32)}
    expected = answers(proto, feed)
    turned = onnx.ModelProto.FromString(proto.SerializeToString())
    turn(turned, relayout.inputs, relayout.outputs)
    found = relayout.answer(answers(turned, relayout.feed(feed)))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
        assert relayout.as_model({name: value})[name].shape == relayout.as_model(found)[name].shape
    return turned


BOTH = Relayout({"x": TO["NCHW"]}, {"y": TO["NCHW"]})


def test_transposes_at_the_border_cancel():
    turned = check(nhwc_conv(), BOTH)
    assert count(nhwc_conv()) == (1, 1, 0)
    assert count(turned) == (0, 0, 0)
    assert [node.op_type for node in turned.graph.node] == ["Conv"]
    assert [d.dim_value for d in turned.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 5, 6]


def test_arithmetic_before_the_transpose_is_turned_along_with_its_numbers_per_channel():
    before = [make.make_node("Mul", ["x", "scale"], ["s"]), make.make_node("Sub", ["s", "mean"], ["m"]),
              make.make_node("Clip", ["m", "", "six"], ["a"])]
    weights = [("scale", np.float32(0.5)), ("mean", np.float32([1, 2, 3])), ("six", np.float32(6))]
    proto = nhwc_conv(before, weights)
    assert count(proto) == (1, 1, 0), "behind arithmetic it is at the border too"
    assert count(check(proto, BOTH)) == (0, 0, 0)


def test_a_quantized_input_is_turned_along():
    before = [make.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
              make.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
              make.make_node("DequantizeLinear", ["n", "s", "z"], ["half"]),
              make.make_node("Mul", ["d", "half"], ["a"])]
    weights = [("s", np.float32(0.03)), ("z", np.int8(3)), ("n", np.int8([100]))]
    assert count(check(nhwc_conv(before, weights), BOTH)) == (0, 0, 0)


def test_what_reads_the_old_order_keeps_it():
    nodes = [make.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=1)]
    turned = check(model(nodes), BOTH)
    assert count(turned) == (1, 1, 0), "one each that nothing cancels"


def test_a_transpose_of_another_order_becomes_the_rest_of_it():
    nodes = [make.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3])]
    turned = check(model(nodes), Relayout({"x": TO["NCHW"]}))
    assert [list(node.attribute[0].ints) for node in turned.graph.node] == [[0, 3, 2, 1]]


def test_an_input_that_is_an_output_keeps_its_place():
    nodes = [make.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])]
    turned = check(model(nodes), Relayout({"x": TO["NCHW"]}))
    assert [node.op_type for node in turned.graph.node] == ["Identity"]


def test_an_output_that_is_read_inside_too_is_turned_at_the_end_only():
    nodes = [make.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2]), make.make_node("Relu", ["y"], ["z"])]
    proto = model(nodes, outputs=(("y", 4), ("z", 4)))
    check(proto, Relayout({}, {"y": TO["NHWC"]}))
    check(proto, Relayout({"x": TO["NCHW"]}, {"y": TO["NHWC"], "z": TO["NHWC"]}))


def test_branches_inside_follow():
    def branch(op):
        return make.make_graph([make.make_node(op, ["x"], [f"{op}_y"])], op, [],
                               [make.make_tensor_value_info(f"{op}_y", 1, [2, 5, 6, 3])])

    nodes = [make.make_node("If", ["yes"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))]
    check(model(nodes, [("yes", np.array(False))]), BOTH)


@given(st.permutations(range(4)), st.sampled_from(["Relu", "Transpose"]), st.booleans())
def test_any_order_leaves_the_answers(perm, op, outputs_too):
    nodes = [make.make_node(op, ["x"], ["y"], **({"perm": [3, 1, 0, 2]} if op == "Transpose" else {}))]
    check(model(nodes), Relayout({"x": tuple(perm)}, {"y": inverse(perm)} if outputs_too else {}))


def test_what_has_no_four_axes_or_gives_no_order_away_is_refused():
    picture, row = TensorSpec("p", "float32", ("N", 3, "H", "W")), TensorSpec("r", "float32", ("N", 9))
    assert turns((picture, row), "NHWC", "onnx", "input") == {"p": TO["NHWC"]}
    assert turns((picture,), "NCHW", "onnx", "input") == {}
    assert turns((picture,), "as is", "onnx", "input") == {}
    with pytest.raises(BadInput, match="is about pictures with four axes"):
        turns((row,), "NCHW", "onnx", "input")
    with pytest.raises(BadInput, match="Nothing says whether output f"):
        turns((TensorSpec("f", "float32", ("N", 8, 8, 8)),), "NCHW", "onnx", "output")


def test_what_transposes_cost_is_measured(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(nhwc_conv(), str(path))
    plain = layout_cost(path)
    assert (plain.count, plain.runs, plain.share) == (2, 0, 0.0)
    cost = layout_cost(path, {"x": np.zeros((2, 5, 6, 3), np.float32)}, threads=1, runs=4)
    assert cost.run
    assert 0 < cost.ms < cost.total_ms
    assert cost.share == pytest.approx(cost.ms / cost.total_ms)
    inward = next(turn for turn in cost.run if turn.shape == (2, 5, 6, 3))
    assert inward.moved == 2 * 2 * 5 * 6 * 3 * 4, "every byte is read and written"
    assert "of the time" in cost.title()
    assert "x".join(map(str, inward.shape)) in str(cost)
    with pytest.raises(BadInput, match="takes shape"):
        layout_cost(path, {"x": np.zeros((2, 5, 6), np.float32)})
