"""Dynamic quantization: products on bytes, convolutions left alone, and models that live in them refused."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from quantization_models import attention_net, conv_net, feeds, save

from kit.errors import BadInput, UnsupportedModel
from kit.int8.noise import decibels
from kit.model import Model, read
from kit.precisions import dynamic
from kit.progress import silent
from kit.quantization import QuantizeOptions, quantize
from kit.runner import open_runner

TOKENS = feeds(3, shape=(1, 12, 64))


@pytest.fixture
def block(tmp_path) -> Model:
    return Model.open(attention_net(tmp_path / "block.onnx"))


def write(model, folder, **options):
    return dynamic.write(model, folder, QuantizeOptions(precision="dynamic", **options), None, silent)


def sqnr(model, other, samples) -> float:
    with open_runner(model) as left, open_runner(other) as right:
        pairs = [(left(feed)["y"], right(feed)["y"]) for feed in samples]
    return decibels(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def recogniser(path, *, width=96):
    """A small convolution, then Gemm layers with bias that hold most weights."""
    random = np.random.default_rng(0)
    node = helper.make_node
    w = {"w0": random.standard_normal((4, 3, 3, 3)), "g": random.standard_normal((width, 4 * 196)) / 28,
         "c": random.standard_normal(width), "h": random.standard_normal((width, 8)) / 10}
    nodes = [node("Conv", ["x", "w0"], ["t"], "conv"), node("Flatten", ["t"], ["f"], "flat"),
             node("Gemm", ["f", "g", "c"], ["a"], "gemm", transB=1), node("Relu", ["a"], ["r"], "relu"),
             node("MatMul", ["r", "h"], ["y"], "head")]
    return save(nodes, {k: v.astype(np.float32) for k, v in w.items()}, path, output_shape=[1, 8])


@given(st.integers(1, 60), st.integers(1, 30), st.booleans(), st.booleans(), st.integers(0, 99))
def test_rounded_weights_are_within_half_a_step(inputs, outputs, per_channel, reduced, seed):
    weights = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    made = dynamic.rounded(weights, per_channel=per_channel, reduce_range=reduced)
    assert np.abs(made.values).max() <= (63 if reduced else 127)
    assert (np.abs(made.values * made.scales - weights) <= made.scales * 0.501).all()
    assert per_channel or len(set(made.scales)) == 1


def test_products_of_attention_become_dynamic_and_the_answer_stays_near(block, tmp_path):
    written = write(block, tmp_path)
    made = [name for name, (setting, _) in written.nodes.items() if setting == "INT8 dynamic"]
    assert made == ["to_q", "to_k", "to_v", "to_out", "up", "down"]
    assert written.nodes["scores"] == ("float", "its second factor is not constant")
    assert sqnr(block, written.path, TOKENS) > 30
    kinds = [node.op_type for node in read(written.path).graph.node]
    assert kinds.count("DynamicQuantizeLinear") == 4  # q, k and v read the same tensor
    assert Model.open(written.path).size < 0.35 * block.size
    onnx.checker.check_model(str(written.path))


def test_a_model_that_lives_in_convolutions_is_refused_with_the_way_out(tmp_path):
    model = Model.open(conv_net(tmp_path / "conv.onnx"))
    with pytest.raises(UnsupportedModel, match="Convolutions hold 100% of the weights") as caught:
        write(model, tmp_path)
    assert "static INT8" in caught.value.remedy
    assert "ConvInteger took 5 times" in caught.value.detail


def test_in_a_mixed_model_convolutions_stay_in_float_and_that_is_told(tmp_path):
    model = Model.open(recogniser(tmp_path / "mixed.onnx"))
    written = write(model, tmp_path)
    assert written.nodes["gemm"][0] == "INT8 dynamic"
    assert written.nodes["conv"][0] == "float"
    assert "ConvInteger" in written.nodes["conv"][1]
    assert "fewer than 4096 weights" in written.nodes["head"][1]
    assert any("1 convolutions stay in float" in note for note in written.notes)
    assert sqnr(model, written.path, feeds(3)) > 30


def test_openvino_reads_the_same_file(block, tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    compiled = openvino.Core().compile_model(str(write(block, tmp_path).path), "CPU",
                                             {"INFERENCE_PRECISION_HINT": "f32"})
    with open_runner(block) as runner:
        for feed in TOKENS:
            left, right = runner(feed)["y"], compiled(feed)["y"]
            assert decibels(np.square(left - right).sum() / np.square(left).sum()) > 30


def test_named_nodes_stay_in_float_and_unknown_ones_are_refused(block, tmp_path):
    assert write(block, tmp_path, keep_float=("up",)).nodes["up"] == ("float", "asked for by name")
    with pytest.raises(BadInput, match="no node named 'upp'"):
        write(block, tmp_path, keep_float=("upp",))


@pytest.mark.parametrize("precision", ["dynamic", "int8-weights", "int4-weights", "fp16"])
def test_the_stage_writes_every_precision(block, tmp_path, precision):
    found = quantize(block, None, QuantizeOptions(precision=precision), runs=tmp_path)
    assert found.size_after < 0.6 * found.size_before
    assert {node.setting for node in found.nodes} & {"INT8 dynamic", "INT8 weights", "INT4 weights", "FP16"}
    with open_runner(found) as runner:
        assert np.isfinite(runner(TOKENS[0])["y"]).all()
    assert str(found)
