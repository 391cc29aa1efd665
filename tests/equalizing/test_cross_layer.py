"""Cross-layer equalization: the scales, where they can pass and where they cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper
from quantization_models import depthwise_net, save

from kit.equalizing import cross_layer
from kit.equalizing.rescaling import Rescaled
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model, read
from kit.weights_file import Weights

node = helper.make_node
POSITIVE = st.floats(1e-6, 1e6)


def tried(path):
    proto = prepare(read(path), "toy")
    rescaled = Rescaled(Network(proto, "toy"), Weights(path, proto))
    pairs, refused = cross_layer.equalize(rescaled)
    return rescaled, pairs, {one.node: one.reason for one in refused}


def between(path, *middle, group=1, last="t9", weights=None, outputs=("y",), opset=17):
    """Conv -> middle -> Conv on 4 channels."""
    random = np.random.default_rng(0)
    w = {"w1": random.standard_normal((4, 3, 3, 3)), "b1": random.standard_normal(4),
         "w2": random.standard_normal((4, 4 // group, 1, 1)), **(weights or {})}
    nodes = [node("Conv", ["x", "w1", "b1"], ["t"], "first"), *middle,
             node("Conv", [last, "w2"], ["y"], "second", group=group)]
    return save(nodes, {k: np.asarray(v, np.float32 if np.asarray(v).dtype.kind == "f" else None)
                        for k, v in w.items()}, path, outputs=outputs, opset=opset)


@given(arrays.arrays(np.float64, 7, elements=POSITIVE), arrays.arrays(np.float64, 7, elements=POSITIVE))
def test_both_ranges_become_their_geometric_mean(first, second):
    s = cross_layer.scales(first, second)
    np.testing.assert_allclose(first / s, np.sqrt(first * second), rtol=1e-9)
    np.testing.assert_allclose(second * s, np.sqrt(first * second), rtol=1e-9)


def test_a_channel_that_is_zero_on_one_side_is_left_as_it_is():
    assert cross_layer.scales(np.array([0.0, 4.0, 2.0]), np.array([3.0, 0.0, 8.0])).tolist() == [1, 1, 0.5]


def test_chains_settle_with_equal_ranges_on_both_sides(tmp_path):
    rescaled, pairs, refused = tried(depthwise_net(tmp_path / "net.onnx", spread=1.5))
    assert [(p.first, p.second) for p in pairs] == [
        ("first", ("depthwise1",)), ("depthwise1", ("pointwise",)), ("pointwise", ("depthwise2",))]
    assert all(p.before > 20 > p.after for p in pairs)
    network = rescaled.network
    for pair in pairs:
        out = rescaled.ranges(network.by_name[pair.first], "output")
        into = rescaled.ranges(network.by_name[pair.second[0]], "input")
        # Neighbours pull at the same weights: 1e-3 is what ends the rounds.
        np.testing.assert_allclose(out, into, rtol=5e-3)
    assert "whose channels lie on another axis" in refused["depthwise2"] or "mixes the channel axis" in \
        refused["depthwise2"]
    assert "is an output of the model" in refused["head"]


@pytest.mark.parametrize(("operator", "reason"), [
    ("HardSwish", "not positively homogeneous"), ("Sigmoid", "not positively homogeneous"),
    ("Tanh", "not positively homogeneous"), ("HardSigmoid", "not positively homogeneous"),
    ("Elu", "not positively homogeneous")])
def test_nothing_passes_through_other_activations(tmp_path, operator, reason):
    _, pairs, refused = tried(between(tmp_path / "n.onnx", node(operator, ["t"], ["t9"], "act")))
    assert not pairs
    assert reason in refused["first"]
    assert operator in refused["first"]


def test_relu6_is_refused_and_a_clip_at_zero_alone_is_not(tmp_path):
    limits = {"low": np.float32(0), "high": np.float32(6)}
    _, pairs, refused = tried(between(tmp_path / "a.onnx", node("Clip", ["t", "low", "high"], ["t9"], "clip"),
                                      weights=limits))
    assert not pairs
    assert "cuts at fixed values" in refused["first"]
    _, pairs, _ = tried(between(tmp_path / "b.onnx", node("Clip", ["t", "low"], ["t9"], "clip"), weights=limits))
    assert len(pairs) == 1


def test_batch_normalization_says_to_fold_it(tmp_path):
    w = {name: np.ones(4) for name in ("s", "b", "m", "v")}
    _, _, refused = tried(between(tmp_path / "a.onnx", node(
        "BatchNormalization", ["t", "s", "b", "m", "v"], ["t9"], "norm"), weights=w))
    assert "kit.fix folds it" in refused["first"]


def test_branches_and_outputs_are_refused(tmp_path):
    _, pairs, refused = tried(between(tmp_path / "a.onnx", node("Relu", ["t"], ["r"], "relu"),
                                      node("Sigmoid", ["r"], ["g"], "gate"), node("Mul", ["r", "g"], ["t9"], "mul")))
    assert not pairs
    assert refused["first"] == "2 nodes read 'r'"
    _, pairs, refused = tried(between(tmp_path / "b.onnx", node("Relu", ["t"], ["t9"], "relu"), outputs=("y", "t9")))
    assert not pairs
    assert "is an output of the model" in refused["first"]


def test_weights_that_serve_two_nodes_are_refused(tmp_path):
    path = between(tmp_path / "a.onnx", node("Conv", ["t", "w2"], ["t9"], "again"))
    _, pairs, refused = tried(path)
    assert not pairs
    assert "serve 2 places" in refused["again"]
    assert "serve 2 places" in refused["first"]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("operator", ["", "Relu", "LeakyRelu", "MaxPool"])
def test_any_grouping_keeps_the_answer(tmp_path, group, operator):
    from kit.equalization import equalize

    middle = [node(operator, ["t"], ["t9"], "act", **({"kernel_shape": [2, 2]} if operator == "MaxPool" else {}))] \
        if operator else []
    path = between(tmp_path / "a.onnx", *middle, group=group, last="t9" if operator else "t",
                   weights={"w1": np.random.default_rng(1).standard_normal((4, 3, 3, 3)) * [[[[1e3]]], [[[1]]],
                                                                                          [[[1e-3]]], [[[10]]]]})
    found = equalize(Model.open(path), runs=tmp_path / "runs")
    assert found.parity[0].relative < 1e-5
    assert found.pairs[0].after < found.pairs[0].before / 10


def test_matrix_products_share_scales_through_their_bias(tmp_path):
    random = np.random.default_rng(0)
    w = {"w1": random.standard_normal((8, 6)) * [100, 1, 1, 1, 1, 0.01], "b": random.standard_normal(6),
         "w2": random.standard_normal((3, 6)), "c": random.standard_normal(3)}
    path = save([node("MatMul", ["x", "w1"], ["t"], "one"), node("Add", ["b", "t"], ["a"], "bias"),
                 node("Relu", ["a"], ["r"], "relu"), node("Gemm", ["r", "w2", "c"], ["y"], "two", transB=1)],
                {k: v.astype(np.float32) for k, v in w.items()}, tmp_path / "m.onnx", shape=(5, 8), output_shape=[5, 3])
    from kit.equalization import equalize

    found = equalize(path, runs=tmp_path / "runs")
    assert [(p.first, p.through, p.second) for p in found.pairs] == [("one", ("Add", "Relu"), ("two",))]
    assert found.parity[0].relative < 1e-5
