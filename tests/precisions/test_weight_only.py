"""Weights in 8 and 4 bits: what is stored, what it costs, what is refused, on both runtimes."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from quantization_models import attention_net, conv_net, feeds, save

import kit
from kit.errors import BadInput, UnsupportedModel
from kit.int8.noise import decibels
from kit.model import Model, read
from kit.precisions import weight_only
from kit.progress import silent
from kit.quantization import QuantizeOptions
from kit.runner import open_runner

TOKENS = [{"x": np.random.default_rng(seed).standard_normal((1, 12, 64)).astype(np.float32)} for seed in range(3)]


@pytest.fixture
def block(tmp_path) -> Model:
    return Model.open(attention_net(tmp_path / "block.onnx"))


def write(model, folder, precision="int8-weights", **options):
    return weight_only.write(model, folder, QuantizeOptions(precision=precision, **options), None, silent)


def sqnr(model, other, samples, **settings) -> float:
    with open_runner(model) as left, open_runner(other, **settings) as right:
        pairs = [(left(feed)["y"], right(feed)["y"]) for feed in samples]
    return decibels(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def mixed_net(path):
    """A convolution, then a Gemm with transposed weights and bias, a Gemm with alpha, and a small MatMul."""
    random = np.random.default_rng(0)
    node = helper.make_node
    w = {"w0": random.standard_normal((8, 3, 3, 3)), "g": random.standard_normal((64, 8 * 36)) / 17,
         "c": random.standard_normal(64), "a": random.standard_normal((64, 64)) / 8,
         "m": random.standard_normal((8, 8))}
    nodes = [node("Conv", ["x", "w0"], ["t"], "conv"), node("Flatten", ["t"], ["f"], "flat"),
             node("Gemm", ["f", "g", "c"], ["h"], "gemm", transB=1),
             node("Gemm", ["h", "a"], ["i"], "scaled", alpha=0.5),
             node("Reshape", ["i", "s"], ["r"], "rows"), node("MatMul", ["r", "m"], ["y"], "small")]
    return save(nodes, {**{k: v.astype(np.float32) for k, v in w.items()}, "s": np.array([8, 8])}, path,
                shape=(1, 3, 8, 8), output_shape=[8, 8])


@given(st.integers(33, 200), st.integers(1, 40), st.sampled_from([8, 4]), st.sampled_from([32, 64]),
       st.integers(0, 1000))
def test_what_is_packed_is_within_a_step_of_the_weights(inputs, outputs, bits, block, seed):
    weights = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    packed = weight_only.pack(weights, bits, block)
    assert packed.restore().shape == weights.shape
    step = np.repeat(np.abs(packed.scales).T, block, 0)[:inputs]
    # Half a step, and a whole one at the largest value of a block: 8 bits around zero reach -128 but only 127.
    assert (np.abs(packed.restore() - weights) <= step * 1.001).all()


@pytest.mark.parametrize(("precision", "bits", "least", "size"),
                         [("int8-weights", 8, 35, 0.32), ("int4-weights", 4, 15, 0.21)])
def test_matrices_are_packed_and_the_answer_stays_near(block, tmp_path, precision, bits, least, size):
    written = write(block, tmp_path, precision)
    packed = [node for node, (setting, _) in written.nodes.items() if setting == f"INT{bits} weights"]
    assert packed == ["to_q", "to_k", "to_v", "to_out", "up", "down"]
    assert all("dB" in written.nodes[node][1] for node in packed)
    assert written.nodes["scores"] == ("float", "its second factor is not constant")
    assert sqnr(block, written.path, TOKENS) > least
    assert Model.open(written.path).size < size * block.size
    assert Model.open(written.path).inputs == block.inputs


def test_the_operator_computes_with_exactly_the_weights_we_restore(tmp_path):
    """The identity as input: MatMulNBits then shows its weights; its bytes hold 1 and 0 without loss."""
    values = np.random.default_rng(5).standard_normal((96, 48)).astype(np.float32)
    path = save([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], {"w": values}, tmp_path / "m.onnx",
                shape=(96, 96), output_shape=[96, 48])
    for precision, bits in (("int8-weights", 8), ("int4-weights", 4)):
        written = write(Model.open(path), tmp_path, precision)
        with open_runner(written.path) as runner:
            shown = runner({"x": np.eye(96, dtype=np.float32)})["y"]
        expected = weight_only.pack(values, bits, 32).restore()
        np.testing.assert_allclose(shown, expected, rtol=0.01, atol=0.01 * np.abs(values).max())


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_openvino_reads_the_same_file(block, tmp_path, precision):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    written = write(block, tmp_path, precision, runtime="openvino")
    compiled = openvino.Core().compile_model(str(written.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with open_runner(written.path) as runner:
        for feed in TOKENS:
            ours, theirs = runner(feed)["y"], compiled(feed)["y"]
            # Both round what goes in to bytes, in blocks of their own: as far apart as 8 bits are from float.
            assert decibels(np.square(ours - theirs).sum() / np.square(ours).sum()) > 30


def test_gemm_becomes_a_product_and_an_addition_where_that_is_exact(tmp_path):
    model = Model.open(mixed_net(tmp_path / "mixed.onnx"))
    written = write(model, tmp_path)
    assert written.nodes["gemm"][0] == "INT8 weights"
    assert "alpha" in written.nodes["scaled"][1]
    assert "do not fill a block" in written.nodes["small"][1]
    assert "int8_weights" in written.nodes["conv"][1]
    assert any("1 convolutions keep float weights" in note for note in written.notes)
    kinds = [node.op_type for node in read(written.path).graph.node]
    assert kinds == ["Conv", "Flatten", "MatMulNBits", "Add", "Gemm", "Reshape", "MatMul"]
    assert sqnr(model, written.path, feeds(3, shape=(1, 3, 8, 8))) > 35
    onnx.checker.check_model(str(written.path))


def test_nothing_but_convolutions_is_refused_with_the_way_out(tmp_path):
    model = Model.open(conv_net(tmp_path / "conv.onnx"))
    with pytest.raises(UnsupportedModel, match="MatMul or Gemm with constant weights") as caught:
        write(model, tmp_path)
    assert "float_weights='int8'" in caught.value.remedy
    assert "Its 7 convolutions are stored as int8 only by name" in caught.value.what
    assert "int8_weights" in caught.value.remedy


def test_named_nodes_stay_in_float_and_unknown_ones_are_refused(block, tmp_path):
    written = write(block, tmp_path, keep_float=("up",))
    assert written.nodes["up"] == ("float", "asked for by name")
    assert written.nodes["down"][0] == "INT8 weights"
    with pytest.raises(BadInput, match="no node named 'upp'") as caught:
        write(block, tmp_path, keep_float=("upp",))
    assert "did you mean up" in caught.value.remedy
    with pytest.raises(BadInput, match="powers of two"):
        write(block, tmp_path, block=96)


def test_weights_beside_the_model_work_alike(block, tmp_path):
    proto = read(block.path)
    outside = tmp_path / "outside" / "block.onnx"
    outside.parent.mkdir()
    onnx.save_model(proto, str(outside), save_as_external_data=True, location="block.data", size_threshold=100)
    inside, beside = write(block, tmp_path, "int4-weights"), write(Model.open(outside), outside.parent, "int4-weights")
    assert inside.path.read_bytes() == beside.path.read_bytes()


def test_matrices_behind_a_fused_attention_are_packed_too(tmp_path):
    random = np.random.default_rng(0)
    weights = {name: (random.standard_normal((64, 64)) / 8).astype(np.float32) for name in "qkvo"}
    nodes = [*(helper.make_node("MatMul", ["x", name], [f"{name}x"], name) for name in "qkv"),
             helper.make_node("MultiHeadAttention", ["qx", "kx", "vx"], ["a"], "mha", domain="com.microsoft",
                              num_heads=2),
             helper.make_node("MatMul", ["a", "o"], ["y"], "out")]
    path = save(nodes, weights, tmp_path / "m.onnx", shape=(1, 12, 64), output_shape=[1, 12, 64])
    proto = onnx.load(str(path))
    proto.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(proto, str(path))
    written = write(Model.open(path), tmp_path)
    assert {name: setting for name, (setting, _) in written.nodes.items()} == {
        "q": "INT8 weights", "k": "INT8 weights", "v": "INT8 weights", "mha": "float", "out": "INT8 weights"}
    assert sqnr(path, written.path, TOKENS) > 35


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_an_int8_model_computes_in_float_is_stored_in_few_bits(tmp_path, runtime):
    model = Model.open(mixed_net(tmp_path / "mixed.onnx"))
    samples = feeds(4, shape=(1, 3, 8, 8))
    calibration = kit.calibrate(model, samples, runs=tmp_path)
    first = kit.quantize(model, calibration, QuantizeOptions(
        method="minmax", quantize_types=("Conv",), runtime=runtime), runs=tmp_path)
    second = kit.quantize(first.model, options=QuantizeOptions(precision="int8-weights", runtime=runtime),
                          runs=tmp_path)
    settings = {node.node: node.setting for node in second.nodes}
    assert settings["conv"] == "INT8"
    assert settings["gemm"] == "INT8 weights"
    assert second.size_after < first.size_after
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.operator for node in second.nodes}
    assert sqnr(first.model, second.model.path, samples) > 35


def test_convolutions_store_int8_weights_where_they_are_named(tmp_path):
    model = Model.open(conv_net(tmp_path / "conv.onnx"))
    names = tuple(node.name for node in read(model.path).graph.node if node.op_type == "Conv")
    written = write(model, tmp_path, int8_weights=names[1:])
    assert written.nodes[names[0]][0] == "float"
    assert {written.nodes[name][0] for name in names[1:]} == {"INT8 weights"}
    onnx.checker.check_model(str(written.path))
    found = {t.name: onnx.numpy_helper.to_array(t) for t in read(written.path).graph.initializer}
    before = {t.name: onnx.numpy_helper.to_array(t) for t in read(model.path).graph.initializer}
    stored = [name for name in before if f"{name}_q" in found]
    assert stored
    for name in stored:
        scale = found[f"{name}_scale"].reshape(-1, *[1] * (before[name].ndim - 1))
        assert np.abs(found[f"{name}_q"] * scale - before[name]).max() <= scale.max() * 0.5001
    with pytest.raises(BadInput, match="int8_weights is for convolutions"):
        write(model, tmp_path, int8_weights=(next(name for name in written.nodes if name not in names),))
