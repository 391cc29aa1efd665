"""SmoothQuant: the scales, where they go, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper
from quantization_models import attention_net, save

from kit.equalizing import smoothquant
from kit.equalizing.rescaling import Rescaled
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import read
from kit.weights_file import Weights

node = helper.make_node
POSITIVE = st.floats(1e-3, 1e3)


def tried(path, *, alpha=0.5, insert=False):
    proto = prepare(read(path), "toy")
    network = Network(proto, "toy")
    rescaled = Rescaled(network, Weights(path, proto))

    def maxima(tensor):
        reader = next(n for n in network.consumers[tensor] if n.op_type in ("MatMul", "Gemm"))
        size = rescaled.ranges(reader, "input").size
        return np.where(np.arange(size) == 3, 100.0, 1.0)

    pairs, refused, inserted = smoothquant.smooth(rescaled, maxima, alpha, insert=insert)
    return pairs, {one.node: one.reason for one in refused}, inserted


@given(arrays.arrays(np.float64, 5, elements=POSITIVE), arrays.arrays(np.float64, 5, elements=POSITIVE),
       st.floats(0, 1))
def test_the_difficulty_is_shared_as_alpha_says(x, w, alpha):
    s = smoothquant.scales(x, w, alpha)
    np.testing.assert_allclose(x / s, x ** (1 - alpha) * w ** (1 - alpha), rtol=1e-6)
    np.testing.assert_allclose(w * s, x**alpha * w**alpha, rtol=1e-6)


def test_channels_that_are_never_used_keep_their_scale():
    assert smoothquant.scales(np.array([0.0, 4.0]), np.array([1.0, 0.0]), 0.5).tolist() == [1, 1]


def test_normalizations_and_products_take_the_scales_and_attention_is_refused(tmp_path):
    pairs, refused, _ = tried(attention_net(tmp_path / "net.onnx", outlier=50))
    assert {(p.first, p.second) for p in pairs} == {
        ("norm1", ("to_q", "to_k", "to_v")), ("norm2", ("up",)), ("up", ("down",))}
    assert all(p.after < p.before for p in pairs)
    assert refused["scores"] == refused["mixed"] == "it multiplies two activations"
    assert "Reshape 'join', which makes its input, cannot take the scales" in refused["to_out"]


def test_a_node_of_its_own_is_added_only_where_asked(tmp_path):
    _, refused, inserted = tried(attention_net(tmp_path / "net.onnx"), insert=True)
    assert set(refused) == {"scores", "mixed"}
    assert list(inserted) == ["mj"]


def test_a_second_reader_and_model_inputs_are_refused(tmp_path):
    w = {"g": np.ones(8), "b": np.zeros(8), "w": np.ones((8, 8)), "v": np.ones((8, 8))}
    path = save([node("LayerNormalization", ["x", "g", "b"], ["n"], "norm"), node("MatMul", ["n", "w"], ["m"], "one"),
                 node("Sigmoid", ["n"], ["s"], "gate"), node("Mul", ["m", "s"], ["y"], "mul"),
                 node("MatMul", ["x", "v"], ["z"], "two")], {k: v.astype(np.float32) for k, v in w.items()},
                tmp_path / "m.onnx", shape=(5, 8), outputs=("y", "z"))
    pairs, refused, _ = tried(path)
    assert not pairs
    assert refused["one"] == "'gate' reads 'n' too"
    assert refused["two"] == "'x' is an input of the model"


@pytest.mark.parametrize("scalar", [False, True])
def test_a_normalization_in_pieces_takes_the_scales_in_its_multiplication_and_addition(tmp_path, scalar):
    w = {"m": np.float32(2) if scalar else np.full(8, 2, np.float32), "a": np.ones(8, np.float32),
         "w": np.eye(8, dtype=np.float32)}
    path = save([node("Tanh", ["x"], ["t"], "tanh"), node("Mul", ["t", "m"], ["u"], "mul"),
                 node("Add", ["u", "a"], ["v"], "add"), node("MatMul", ["v", "w"], ["y"], "product")], w,
                tmp_path / "m.onnx", shape=(5, 8))
    pairs, _, _ = tried(path)
    assert [(p.first, p.through, p.second) for p in pairs] == [("mul", ("Add",), ("product",))]
