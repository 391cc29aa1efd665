"""Quantized models from elsewhere: what they hold, in the forms that other tools write."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantization_models import attention_net, conv_net, feeds, save

from kit.benchmarking import BenchmarkOptions, benchmark
from kit.calibration import calibrate
from kit.compilation import CompileOptions, compile
from kit.errors import UnsupportedModel
from kit.layers import layer_errors
from kit.model import Model
from kit.quantization import QuantizeOptions, quantize
from kit.quantized_file import read_quantized
from kit.verification import verify

node = helper.make_node


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model.open(conv_net(tmp_path_factory.mktemp("model") / "toy.onnx"))


@pytest.fixture(scope="module")
def foreign(model, tmp_path_factory) -> Model:
    """The model as ONNX Runtime's own tool writes it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.feeds = iter(feeds(4))

        def get_next(self):
            return next(self.feeds, None)

    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    quantize_static(str(model.path), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    nodes_to_exclude=["wide"])
    return Model.open(path)


def like_training(path, *, bits=8):
    """As exporters of quantization-aware training write it: float weights rounded on every run, constants as nodes."""
    values = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    kind = TensorProto.INT8

    def constant(name, value, of=None):
        tensor = numpy_helper.from_array(np.asarray(value), name) if of is None else helper.make_tensor(
            name, of, [], [value])
        return node("Constant", [], [name], value=tensor)

    nodes = [
        constant("xs", np.float32(0.15)), constant("xz", 118, TensorProto.UINT8), constant("w", values),
        constant("ws", np.float32(np.abs(values).max() / 127)), constant("wz", 0, kind),
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"]), node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"]),
        node("Conv", ["xd", "wd"], ["t"], "conv"), node("QuantizeLinear", ["t", "xs", "xz"], ["tq"]),
        node("DequantizeLinear", ["tq", "xs", "xz"], ["td"]), node("Sigmoid", ["td"], ["y"]),
    ]
    return save(nodes, {}, path, output_shape=[1, 4, 14, 14])


def four_bits(path):
    """A product whose int4 weights have a scale for 32 inputs (opset 21), and its float twin."""
    values = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    scale = np.abs(values.reshape(2, 32, 16)).max(1) / 7
    whole = np.rint(values / np.repeat(scale, 32, 0)).astype(np.int8)
    flat = whole.ravel()
    packed = ((flat[::2] & 15) | ((flat[1::2] & 15) << 4)).astype(np.uint8)
    graph = helper.make_graph(
        [node("DequantizeLinear", ["w_q", "s"], ["wd"], "dq", axis=0, block_size=32),
         node("MatMul", ["x", "wd"], ["y"], "product")], "g",
        [helper.make_tensor_value_info("x", 1, [5, 64])], [helper.make_tensor_value_info("y", 1, [5, 16])],
        [helper.make_tensor("w_q", TensorProto.INT4, [64, 16], packed.tobytes(), True),
         numpy_helper.from_array(scale, "s")])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))
    save([node("MatMul", ["x", "w"], ["y"], "product")], {"w": values}, path.with_name("float.onnx"), shape=(5, 64))
    return path, whole * np.repeat(scale, 32, 0), values


def test_nodes_ranges_and_weights_of_another_tools_file(model, foreign):
    found = read_quantized(foreign, model)
    settings = {one.node: (one.setting, one.why) for one in found.nodes}
    assert settings["first"][0] == settings["pointwise"][0] == "INT8"
    assert settings["wide"] == ("float", "its weights are float")  # its neighbours round what goes in and out
    assert "no integer kernel" in settings["swish"][1]
    ranges = {one.tensor: one for one in found.activations}
    assert ranges["x"].low < -2 < 2 < ranges["x"].high
    assert ranges["r1"].low == 0
    by_node = {one.node: one for one in found.weights}
    assert (by_node["first"].dtype, by_node["first"].bits) == ("int8", 8)
    assert by_node["first"].granularity == "one scale a channel (axis 0)"
    assert all(30 < one.sqnr < 60 for one in found.weights)
    assert "wide" not in by_node
    assert found.float_model == model.digest()


def test_rounded_on_every_run_and_constants_as_nodes(tmp_path):
    found = read_quantized(like_training(tmp_path / "qat.onnx"))
    assert {(one.operator, one.setting) for one in found.nodes} == {("Conv", "INT8"), ("Sigmoid", "float")}
    (weights,) = found.weights
    assert (weights.node, weights.dtype, weights.granularity) == ("conv", "int8", "one scale a tensor")
    assert [one.tensor for one in found.activations] == ["x", "t"]
    plain = save([node("Conv", ["x", "w"], ["t"], "conv"), node("Sigmoid", ["t"], ["y"])],
                 {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)},
                 tmp_path / "float.onnx", output_shape=[1, 4, 14, 14])
    row = {row.tensor: row for row in layer_errors(plain, found, feeds(2), runs=tmp_path).rows}["t"]
    assert row.sqnr > 20
    assert row.weights == pytest.approx(read_quantized(found, plain).weights[0].sqnr)
    assert found.activations[0].low == pytest.approx(-17.7)
    assert found.activations[0].high == pytest.approx(20.55)


def test_four_bits_in_blocks(tmp_path):
    path, expected, values = four_bits(tmp_path / "four.onnx")
    found = read_quantized(path, tmp_path / "float.onnx")
    (weights,) = found.weights
    assert (weights.dtype, weights.bits, weights.shape) == ("int4", 4, (64, 16))
    assert weights.granularity == "one scale for 32 values along axis 0"
    noise = np.square(values - expected).sum() / np.square(values).sum()
    assert weights.sqnr == pytest.approx(-10 * np.log10(noise), abs=0.01)
    assert found.nodes[0].setting == "INT4 weights"


def test_few_bit_products_of_the_kit_itself(tmp_path):
    block = Model.open(attention_net(tmp_path / "block.onnx"))
    packed = quantize(block, None, QuantizeOptions(precision="int4-weights"), runs=tmp_path / "runs")
    found = read_quantized(packed, block)
    assert {one.setting for one in found.nodes if one.operator == "MatMulNBits"} == {"INT4 weights"}
    assert len(found.weights) == 6
    assert all(15 < one.sqnr < 30 for one in found.weights)


def test_what_the_kit_wrote_itself_reads_back_the_same(model, tmp_path):
    quantized = quantize(model, calibrate(model, feeds(), runs=tmp_path), QuantizeOptions(method="mse"), runs=tmp_path)
    found = read_quantized(quantized, model)
    now = {one.node: one.setting for one in found.nodes}
    assert all(now.get(one.node, "INT8") == one.setting for one in quantized.nodes)


def test_a_float_model_is_refused_with_the_way_out(model):
    with pytest.raises(UnsupportedModel, match="it is a float model") as caught:
        read_quantized(model)
    assert "kit.quantize" in caught.value.remedy


def test_unlike_weights_are_told(foreign, tmp_path):
    other = conv_net(tmp_path / "other.onnx", seed=5)
    found = read_quantized(foreign, other)
    assert "training changed them" in " ".join(found.notes)
    narrow = conv_net(tmp_path / "narrow.onnx", channels=8)
    assert "no counterpart" in " ".join(read_quantized(foreign, narrow).notes)


def test_the_other_stages_take_it(model, foreign, tmp_path):
    found = read_quantized(foreign, model)
    errors = layer_errors(model, found, feeds(2), runs=tmp_path)
    assert {"first", "pointwise"} <= {row.node for row in errors.rows}
    assert verify({"float": model, "INT8": found}, feeds(2), runs=tmp_path).rows
    assert compile(found, CompileOptions(), runs=tmp_path).model.nodes
    timed = benchmark({"float": model, "INT8": found}, feeds(1)[0], BenchmarkOptions(rounds=5), runs=tmp_path)
    assert len(timed.timings) == 2
    assert "is quantized" in str(found)


@pytest.mark.parametrize(("operator", "limits", "zero", "setting"), [
    ("Relu", (), 0, "INT8"), ("Relu", (), 100, "INT8 weights"), ("Clip", (0, 6), 0, "INT8 weights"),
    ("Clip", (0, 40), 0, "INT8")])
def test_an_activation_that_the_rounding_does_anyway_does_not_stand_between(tmp_path, operator, limits, zero, setting):
    random = np.random.default_rng(0)
    w = {"w": random.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8), "ws": np.float32(0.01), "xs": np.float32(0.15),
         "xz": np.uint8(zero), **{f"limit{at}": np.float32(limit) for at, limit in enumerate(limits)}}
    nodes = [node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
             node("DequantizeLinear", ["w", "ws"], ["wd"]), node("Conv", ["xd", "wd"], ["t"], "conv"),
             node(operator, ["t", *(f"limit{at}" for at, _ in enumerate(limits))], ["r"], "act"),
             node("QuantizeLinear", ["r", "xs", "xz"], ["rq"]), node("DequantizeLinear", ["rq", "xs", "xz"], ["y"])]
    found = read_quantized(save(nodes, w, tmp_path / "net.onnx"))
    assert {one.node: one.setting for one in found.nodes}["conv"] == setting


def test_weights_without_common_names_are_compared_in_order(tmp_path):
    path, _, values = four_bits(tmp_path / "four.onnx")
    renamed = save([node("MatMul", ["x", "other"], ["y"], "another")], {"other": values}, tmp_path / "renamed.onnx",
                   shape=(5, 64))
    assert read_quantized(path, renamed).weights == read_quantized(path, tmp_path / "float.onnx").weights
