"""Quantization: what becomes INT8, that it computes right, that names are checked, and how large the file is."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantization_models import conv_net, depthwise_net, feeds, save

from kit.calibration import CalibrateOptions, calibrate
from kit.compilation import compile
from kit.errors import BadInput, StaleResult, UnsupportedModel
from kit.int8 import qdq
from kit.int8.byte_kernels import why_not
from kit.int8.integer_kernels import why_not_faster
from kit.int8.noise import decibels
from kit.int8.preparing import prepare
from kit.int8.processor import Processor, byte_types
from kit.int8.quantizable import Network
from kit.model import Model, read
from kit.quantization import QuantizeOptions, quantize
from kit.runner import open_runner


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model.open(conv_net(tmp_path_factory.mktemp("model") / "toy.onnx"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def calibration(model, runs):
    return calibrate(model, feeds(), runs=runs)


@pytest.fixture(scope="module")
def quantized(model, calibration, runs):
    return quantize(model, calibration, runs=runs)


def run(model, feed) -> dict:
    with open_runner(model) as runner:
        return runner(feed)


def sqnr(a, b) -> float:
    return decibels(float(np.square(a - b).sum() / np.square(a).sum()))


def settings_of(result) -> dict[str, str]:
    return {node.node: node.setting for node in result.nodes}


def test_int8_answers_like_float_on_samples_it_has_not_seen(model, quantized):
    for feed in feeds(3, seed=99):
        assert sqnr(run(model, feed)["y"], run(quantized, feed)["y"]) > 25


def test_names_metadata_and_form_are_kept(model, quantized):
    assert quantized.model.inputs == model.inputs
    assert [o.name for o in quantized.model.outputs] == ["y"]
    assert quantized.model.metadata == {"character": "a\nb", "note": "kept"}
    assert set(quantized.model.domains) == {"ai.onnx"}
    assert quantized.model.lineage[-1].stage == "quantize"
    onnx.checker.check_model(str(quantized.model.path), full_check=True)


def test_every_node_is_told_with_its_reason(model, quantized):
    settings = settings_of(quantized)
    assert len(settings) == model.nodes
    assert settings["first"] == settings["wide"] == settings["residual"] == "INT8"
    assert settings["up"] == settings["swish"] == settings["sigmoid"] == "float"
    reasons = {node.node: node.why for node in quantized.nodes}
    assert "no integer kernel" in reasons["swish"]
    assert "neighbour" in reasons["excite"]
    assert all(bool(node.why) == (node.setting != "INT8") for node in quantized.nodes)


def steps_of(quantized):
    """Steps on either side of zero: weights have 7 bits on processors without VNNI."""
    return 64 if quantized.reduce_range else 127


def test_weights_have_one_scale_a_channel_and_stay_near(model, quantized):
    proto = read(quantized.model.path)
    constants = {t.name: t for t in proto.graph.initializer}
    scales = [numpy_helper.to_array(constants[n.input[1]]) for n in proto.graph.node
              if n.op_type == "DequantizeLinear" and n.input[0] in constants
              and constants[n.input[0]].data_type == onnx.TensorProto.INT8]
    assert {scale.shape for scale in scales} == {(16,)}
    float_weights = {t.name: numpy_helper.to_array(t) for t in read(model.path).graph.initializer}
    after = qdq.weights(proto)
    assert set(after) == {"w0", "w1", "w2", "w3", "w4"}
    for name, values in after.items():
        axes = tuple(range(1, values.ndim))
        limit = np.abs(float_weights[name]).max(axis=axes, keepdims=True) / steps_of(quantized) * 0.5001
        assert (np.abs(values - float_weights[name]) <= limit).all()


def test_auto_takes_the_best_method_it_tried(model, calibration, quantized, runs):
    best = max(quantized.trials, key=lambda trial: trial.sqnr)
    assert quantized.method == best.method == quantized.trials[0].method
    assert len({trial.method for trial in quantized.trials}) == 6
    single = quantize(model, calibration, QuantizeOptions(method="minmax", bias_correction="no"), runs=runs)
    assert single.trials == ()
    tried = next(trial for trial in quantized.trials if trial.method == "minmax")
    assert single.sqnr == pytest.approx(tried.sqnr, abs=0.01)


def test_named_nodes_stay_in_float(model, calibration, runs):
    names = ("wide", "first")
    found = quantize(model, calibration, QuantizeOptions(method="mse", keep_float=names), runs=runs)
    reasons = {node.node: (node.setting, node.why) for node in found.nodes}
    assert all(reasons[name] == ("float", "asked for by name") for name in names)
    assert reasons["pointwise"][0] == "INT8"
    assert set(names) <= set(found.kept_float)
    run(found, feeds(1)[0])


def every_node():
    return ["first", "depthwise", "relu", "pool", "squeeze", "excite", "pointwise", "wide", "residual", "again"]


@pytest.mark.parametrize("name", every_node())
def test_leaving_out_any_single_node_gives_a_model_that_runs(model, calibration, runs, name):
    found = quantize(model, calibration, QuantizeOptions(method="minmax", keep_float=(name,)), runs=runs)
    setting = next(node for node in found.nodes if node.node == name)
    # A node without weights between two INT8 nodes is still handed bytes; that is said.
    assert setting.setting == "float" or "bytes come in" in setting.why
    assert setting.setting == "float" or name in ("pool", "residual")
    assert "asked for by name" in setting.why or name == "excite"
    feed = feeds(1, seed=9)[0]
    assert sqnr(run(model, feed)["y"], run(found, feed)["y"]) > 20


def test_keeping_by_type(model, calibration, runs):
    found = quantize(model, calibration, QuantizeOptions(method="mse", keep_float_types=("Add",)), runs=runs)
    assert next(n for n in found.nodes if n.node == "residual").why.startswith("asked for by type")


@pytest.mark.parametrize(("options", "words", "hint"), [
    ({"keep_float": ("wild",)}, "no node named 'wild' in toy.onnx", "wide"),
    ({"keep_float_types": ("Convv",)}, "no operator type named 'Convv'", "Conv"),
    ({"quantize_types": ("ConvTransposed",)}, "no operator type named 'ConvTransposed'", "ConvTranspose"),
    ({"keep_float_types": ("Conv",)}, "Nothing in toy.onnx would become INT8", "fewer")])
def test_wrong_settings_are_refused(model, calibration, runs, options, words, hint):
    with pytest.raises(BadInput, match=words) as raised:
        quantize(model, calibration, QuantizeOptions(**options), runs=runs)
    assert hint in raised.value.remedy


def test_a_calibration_of_another_model_is_refused(calibration, tmp_path):
    with pytest.raises(StaleResult, match="another model"):
        quantize(conv_net(tmp_path / "toy.onnx", seed=3), calibration, runs=tmp_path)


def test_an_int8_model_is_not_quantized_again(quantized, tmp_path):
    with pytest.raises(UnsupportedModel, match="quantized already"):
        calibrate(quantized, feeds(1), runs=tmp_path)


@pytest.mark.parametrize("activation", ["uint8", "int8"])
def test_activation_type_is_followed(model, calibration, runs, activation):
    found = quantize(model, calibration, QuantizeOptions(method="mse", activation_type=activation), runs=runs)
    kinds = {r.dtype for r in qdq.rounded(read(found.model.path)).values()}
    assert kinds == {activation}
    assert found.activation_type == activation
    feed = feeds(1, seed=9)[0]
    assert sqnr(run(model, feed)["y"], run(found, feed)["y"]) > 25


def test_seven_bit_weights(model, calibration, runs):
    found = quantize(model, calibration, QuantizeOptions(method="mse", reduce_range="yes"), runs=runs)
    weights = [numpy_helper.to_array(t) for t in read(found.model.path).graph.initializer
               if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    assert weights
    assert max(np.abs(w.astype(int)).max() for w in weights) <= 64
    assert found.reduce_range
    assert "7-bit" in found.reason or "7 bits" in found.reason


@pytest.mark.parametrize(("processor", "activation", "reduced", "word"), [
    (Processor("Xeon", "x86", True), "uint8", False, "VNNI"),
    (Processor("Old", "x86", False), "uint8", True, "no VNNI"),
    (Processor("Silent", "x86", None), "uint8", True, "does not tell"),
    (Processor("Apple", "arm", None), "int8", False, "ARM"),
    (Processor("Odd", "other", None), "uint8", True, "safe on every")])
def test_types_follow_the_processor(processor, activation, reduced, word):
    found = byte_types(processor)
    assert (found.activation, found.reduce_range) == (activation, reduced)
    assert word in found.reason
    asked = byte_types(processor, activation="int8", reduce_range="no")
    assert found.weight == "int8"
    assert (asked.activation, asked.reduce_range) == ("int8", False)
    if activation != "int8":
        assert "asked for" in asked.reason


def test_unsigned_weights_need_no_seventh_bit_where_products_are_widened():
    found = byte_types(Processor("Old", "x86", False), weight="uint8")
    assert (found.activation, found.weight, found.reduce_range) == ("uint8", "uint8", False)
    assert "widened first" in found.reason
    assert "uint8 weights were asked for" in found.reason


def test_types_that_a_runtime_cannot_multiply_are_refused_with_those_it_can():
    def why_not(runtime, activation, weight):
        return "It cannot multiply int8 by uint8" if (activation, weight) == ("int8", "uint8") else ""

    with pytest.raises(BadInput, match="It cannot multiply int8 by uint8") as raised:
        byte_types(Processor("Xeon", "x86", True), activation="int8", weight="uint8", why_not=why_not)
    assert "activation_type='uint8' with weight_type='uint8'" in raised.value.remedy
    assert "activation_type='int8' with weight_type='uint8'" not in raised.value.remedy


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("weight", ["uint8", "int8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_pair_of_types_that_the_installed_runtime_takes_answers_right(model, calibration, runs, activation,
                                                                            weight, per_channel):
    options = QuantizeOptions(method="mse", activation_type=activation, weight_type=weight, per_channel=per_channel)
    if why_not("onnxruntime", activation, weight):
        with pytest.raises(BadInput, match=r"no integer kernel|refuses"):
            quantize(model, calibration, options, runs=runs)
        return
    found = quantize(model, calibration, options, runs=runs)
    assert found.weight_type == weight
    assert weight in found.facts()["weights"]
    kinds = {t.data_type for t in read(found.model.path).graph.initializer if len(t.dims) == 4}
    assert (2 if weight == "uint8" else 3) in kinds
    feed = feeds(1, seed=9)[0]
    assert sqnr(run(model, feed)["y"], run(found, feed)["y"]) > 25


def test_openvino_takes_no_unsigned_weights_and_that_is_asked_of_it(model, calibration, runs):
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert why_not("openvino", "uint8", "int8") == ""
    with pytest.raises(BadInput, match=r"OpenVINO \d+\.\d+.* has no integer kernel for uint8 activations with uint8"):
        quantize(model, calibration, QuantizeOptions(runtime="openvino", weight_type="uint8"), runs=runs)


def test_for_openvino_other_nodes_become_int8(model, calibration, runs):
    found = quantize(model, calibration, QuantizeOptions(method="mse", runtime="openvino"), runs=runs)
    reasons = {node.node: (node.setting, node.why) for node in found.nodes}
    assert reasons["first"] == reasons["wide"] == ("INT8", "")
    assert reasons["residual"][0] == "float"
    assert "OpenVINO" in reasons["residual"][1]
    rounded = set(qdq.rounded(read(found.model.path)))
    assert "t4" not in rounded  # the Add behind it reads the sums of the convolution
    assert "sum" in rounded
    feed = feeds(1, seed=9)[0]
    assert sqnr(run(model, feed)["y"], run(found, feed)["y"]) > 25
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    compiled = openvino.Core().compile_model(str(found.model.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled(feed)[0]
    assert sqnr(run(model, feed)["y"], answer) > 25
    about = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    bytes_ = [a for a in about if "layerType" in a and a["layerType"].astype(str) == "Convolution"
              and a["runtimePrecision"].astype(str) in ("u8", "i8")]
    assert len(bytes_) == sum(node.setting == "INT8" and node.operator == "Conv" for node in found.nodes)


def test_depthwise_convolutions_stay_in_float_for_openvino_only_beside_bf16(model):
    network = Network(prepare(read(model.path)))
    node = network.by_name["depthwise"]
    assert network.reluctance(node, "openvino") == network.reluctance(node) == ""
    assert "BF16" in network.reluctance(node, "openvino", bf16=True)
    assert network.reluctance(network.by_name["wide"], "openvino", bf16=True) == ""


def test_what_was_asked_is_set_beside_what_came_of_it(model, calibration, runs):
    options = QuantizeOptions(method="mse", keep_float=("residual", "wide"), bias_correction="no")
    found = quantize(model, calibration, options, runs=runs)
    by_name = {node.node: node for node in found.nodes}
    assert by_name["wide"].asked == "float"
    assert by_name["wide"].is_as_asked
    assert by_name["first"].asked == ""
    for node in found.not_as_asked:
        assert node.asked != node.setting
        assert node.why
        assert node.node in str(found)
    types = QuantizeOptions(method="mse", quantize_types=("Conv", "Sigmoid"), keep_float=("first",))
    found = quantize(model, calibration, types, runs=runs)
    by_name = {node.node: node for node in found.nodes}
    assert by_name["sigmoid"].asked == by_name["wide"].asked == "INT8"
    assert by_name["first"].asked == "float"


def test_int8_without_a_calibration_is_refused_with_what_needs_none(model, runs):
    with pytest.raises(BadInput, match="there is no calibration") as raised:
        quantize(model, runs=runs)
    assert "kit.calibrate" in raised.value.remedy


@pytest.mark.parametrize(("options", "remedy"), [
    ({"precision": "int8-weights", "tensor_methods": ("t0=minmax",)}, "precision='int8'"),
    ({"precision": "fp16", "per_channel": False}, "precision='int8' or 'dynamic'"),
    ({"precision": "dynamic", "method": "mse"}, "precision='int8'"),
    ({"precision": "fp16", "quantize_types": ("Conv",)}, "'int4-weights'"),
    ({"precision": "int8", "block": 64}, "precision='int8-weights' or 'int4-weights'")])
def test_an_option_that_the_precision_does_not_follow_is_refused(model, calibration, runs, options, remedy):
    *_, name = options
    with pytest.raises(BadInput, match=f"{name}=.* has no effect with precision='{options['precision']}'") as raised:
        quantize(model, calibration, QuantizeOptions(**options), runs=runs)
    assert raised.value.remedy.startswith(f"leave {name} out")
    assert remedy in raised.value.remedy


def test_float_nodes_of_other_precisions_are_checked_too(model, runs):
    with pytest.raises(BadInput, match="no node named 'wild'"):
        quantize(model, None, QuantizeOptions(precision="fp16", keep_float=("wild",)), runs=runs)


def test_ranges_chosen_tensor_by_tensor_are_not_worse_than_the_best_single_method(model, calibration, quantized, runs):
    options = QuantizeOptions(method="tensor", bias_correction="no")
    found = quantize(model, calibration, options, runs=runs)
    assert found.method == "tensor"
    assert set(found.range_methods) <= {t.name for t in calibration.tensors}
    assert len(set(found.range_methods.values())) > 1
    assert len(found.trials) == 7, "the six single methods were written and run beside it"
    assert found.sqnr == max(trial.sqnr for trial in found.trials) >= quantized.trials[0].sqnr


def test_where_a_single_method_is_better_as_written_it_is_taken_and_said(model, calibration, tmp_path, monkeypatch):
    from kit.int8 import tuned

    def misled(network, model, calibration, *rest, **more):
        """What simulation may come to: ranges that the runtime answers worse with."""
        ranges = {name: (low / 8, high / 8) for name, (low, high) in calibration.ranges("minmax").items()}
        return tuned.Tuned(ranges, dict.fromkeys(ranges, "mse"), 30.0, 31.0, 5)

    monkeypatch.setattr(tuned, "tuned_ranges", misled)
    found = quantize(model, calibration, QuantizeOptions(method="tensor", bias_correction="no"), runs=tmp_path)
    assert found.method == found.trials[0].method != "tensor"
    assert found.trials[-1].method == "tensor"
    assert found.range_methods == {}
    assert any(f"{found.method} for all tensors was not worse" in note for note in found.notes)


def test_without_probes_tensor_by_tensor_falls_back_to_one_method(model, runs):
    found = quantize(model, calibrate(model, feeds(), CalibrateOptions(probes=0), runs=runs),
                     QuantizeOptions(method="tensor"), runs=runs)
    assert (found.method, found.range_methods) == ("mse", {})
    assert any("could not be compared" in note for note in found.notes)


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution_uses_the_axis_of_its_outputs(tmp_path, group):
    random = np.random.default_rng(0)
    weights = random.standard_normal((4, 6 // group, 2, 2)).astype(np.float32)
    weights[:, 0] *= 100  # one output channel far larger: with the wrong axis the others would vanish
    path = save([helper.make_node("Conv", ["x", "w0"], ["a"], "conv"),
                 helper.make_node("ConvTranspose", ["a", "w", "b"], ["y"], "up", strides=[2, 2], group=group)],
                {"w0": random.standard_normal((4, 3, 1, 1)).astype(np.float32), "w": weights,
                 "b": np.zeros(6, np.float32)}, tmp_path / "m.onnx")
    network = Network(prepare(onnx.load(path)))
    assert network.channel_axis(network.by_name["up"]) == (1 if group == 1 else None)
    options = QuantizeOptions(method="minmax", quantize_types=("Conv", "ConvTranspose"))
    found = quantize(path, calibrate(path, feeds(4), runs=tmp_path), options, runs=tmp_path)
    assert settings_of(found)["up"] == "INT8"
    after = qdq.weights(read(found.model.path))["w"]
    channel = (slice(None), slice(1, None))
    error = np.abs(after[channel] - weights[channel]).max()
    assert error < (0.02 if group == 1 else 3)
    run(found, feeds(1)[0])


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_and_matmul_axes(tmp_path, transposed):
    random = np.random.default_rng(0)
    gemm = random.standard_normal((8, 12)).astype(np.float32) * np.geomspace(1, 100, 12, dtype=np.float32)
    mat = random.standard_normal((12, 5)).astype(np.float32) * np.geomspace(1, 100, 5, dtype=np.float32)
    path = save([helper.make_node("Gemm", ["x", "g", "b"], ["a"], "gemm", transB=transposed),
                 helper.make_node("MatMul", ["a", "m"], ["c"], "mat"), helper.make_node("Softmax", ["c"], ["y"], "s")],
                {"g": gemm.T.copy() if transposed else gemm, "b": np.ones(12, np.float32), "m": mat},
                tmp_path / "m.onnx", shape=(4, 8))
    found = quantize(path, calibrate(path, feeds(4, shape=(4, 8)), runs=tmp_path), runs=tmp_path)
    after = qdq.weights(read(found.model.path))
    gemm_after = after["g"].T if transposed else after["g"]
    for name, values, want in (("g", gemm_after, gemm), ("m", after["m"], mat)):
        assert (np.abs(values - want).max(axis=0) <= np.abs(want).max(axis=0) / steps_of(found) * 0.51).all(), name
    # Nothing but float reads the product, so it is not rounded; the kernel is an integer one all the same.
    assert settings_of(found)["mat"] == "INT8"
    assert "c" not in qdq.rounded(read(found.model.path))
    assert why_not_faster(found).operators.get("MatMulIntegerToFloat") == 1


def test_products_of_two_activations_stay_in_float(tmp_path):
    path = save([helper.make_node("MatMul", ["x", "w"], ["q"], "project"),
                 helper.make_node("Transpose", ["q"], ["k"], "turn", perm=[1, 0]),
                 helper.make_node("MatMul", ["q", "k"], ["y"], "attend")],
                {"w": np.eye(8, dtype=np.float32)}, tmp_path / "m.onnx", shape=(4, 8))
    found = quantize(path, calibrate(path, feeds(2, shape=(4, 8)), runs=tmp_path), runs=tmp_path)
    assert "two activations" in next(n for n in found.nodes if n.node == "attend").why


def test_float_nodes_can_store_their_weights_as_int8(model, calibration, runs):
    kept = QuantizeOptions(method="mse", keep_float=("wide",))
    small = QuantizeOptions(method="mse", keep_float=("wide",), float_weights="int8")
    plain, packed = (quantize(model, calibration, options, runs=runs) for options in (kept, small))
    assert packed.size_after < plain.size_after
    assert settings_of(packed)["wide"] == "INT8 weights"
    assert next(n for n in packed.nodes if n.node == "wide").why == "asked for by name"
    feed = feeds(1, seed=9)[0]
    assert sqnr(run(plain, feed)["y"], run(packed, feed)["y"]) > 30


def test_single_float_nodes_store_their_weights_as_int8(model, calibration, runs):
    found = quantize(model, calibration, QuantizeOptions(
        method="mse", keep_float=("wide", "first"), int8_weights=("wide",)), runs=runs)
    assert settings_of(found)["wide"] == "INT8 weights"
    assert settings_of(found)["first"] == "float"
    with pytest.raises(BadInput, match="no node named 'wid'"):
        quantize(model, calibration, QuantizeOptions(int8_weights=("wid",)), runs=runs)


def test_a_megabyte_of_weights_takes_less_than_a_third(tmp_path):
    path = conv_net(tmp_path / "wide.onnx", channels=160)
    found = quantize(path, calibrate(path, feeds(1), CalibrateOptions(probes=0), runs=tmp_path), runs=tmp_path)
    assert found.size_before > 1_000_000
    assert found.ratio < 0.30
    assert found.weights_after / found.weights_before < 0.28
    assert found.sqnr is None
    assert "could not be compared" in found.notes[0]


def test_nothing_is_written_twice(quantized):
    proto = read(quantized.model.path)
    read_names = {name for node in proto.graph.node for name in node.input}
    tensors = [t for t in proto.graph.initializer if t.data_type in (2, 3)]
    keys = [(t.data_type, tuple(t.dims), t.raw_data) for t in tensors]
    assert len(keys) == len(set(keys))
    assert all(t.name in read_names for t in proto.graph.initializer)
    assert not proto.graph.value_info
    assert len({n.name for n in proto.graph.node}) == len(proto.graph.node)


def test_two_nodes_that_share_weights(quantized, model):
    # pointwise and again both use w3 and b3; the biases differ in scale and so must be stored apart
    after = qdq.weights(read(quantized.model.path))
    assert "w3" in after
    assert settings_of(quantized)["pointwise"] == settings_of(quantized)["again"] == "INT8"


def test_instant_the_second_time_and_made_again_for_other_options(model, calibration, tmp_path):
    first = quantize(model, calibration, QuantizeOptions(method="mse"), runs=tmp_path)
    ticks = []
    assert quantize(model, calibration, QuantizeOptions(method="mse"), runs=tmp_path, report=ticks.append) == first
    assert not ticks
    quantize(model, calibration, QuantizeOptions(method="minmax"), runs=tmp_path, report=ticks.append)
    assert ticks


def test_the_card_reads_as_words(quantized):
    text = str(quantized)
    assert "nodes are INT8" in text
    assert "What became of the nodes" in text
    assert "Range methods tried" in text


def test_why_not_faster_names_the_causes(model, calibration, quantized, runs):
    found = why_not_faster(quantized)
    assert found.integer > 0
    words = " ".join(found.reasons)
    assert "1 HardSwish, 1 HardSigmoid, 1 ConvTranspose" in words
    assert "depthwise" in words
    assert found.written == 6
    signed = quantize(model, calibration, QuantizeOptions(method="mse", activation_type="int8"), runs=runs)
    assert any("int8" in reason for reason in why_not_faster(signed).reasons)
    with pytest.raises(UnsupportedModel, match="not INT8"):
        why_not_faster(model)


def test_a_layer_kept_in_float_between_int8_layers_stays_float_in_the_session_and_when_compiled(tmp_path):
    model = Model.open(depthwise_net(tmp_path / "net.onnx", spread=0.5))
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]
    measured = calibrate(model, samples, runs=tmp_path)
    options = QuantizeOptions(keep_float=("depthwise1",), bias_correction="no")
    mixed = quantize(model, measured, options, runs=tmp_path)
    compiled = compile(mixed.model, runs=tmp_path)
    assert compiled.operators_after["Conv"] == 1, "ONNX Runtime would make it INT8 with one scale for all weights"
    with open_runner(mixed.model) as written:
        kinds = [layer.kind for layer in written.layers(samples[0], runs=1)]
    assert "Conv" in kinds
