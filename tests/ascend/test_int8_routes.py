"""INT8 routes: AMCT's configuration and commands, the QDQ model in AMCT's form, atc's own calibration."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from prototxt_judges import amct_takes
from quantization_models import attention_net, conv_net, feeds, save

from kit.ascend.precision.amct_layers import Layers
from kit.ascend.precision.calibration_files import write_calibration
from kit.ascend.precision.int8_routes import (
    AmctOptions,
    amct_config,
    amct_steps,
    compression_conf,
    name_nodes,
    qat_check,
    qat_model,
    qat_steps,
)
from kit.calibration import calibrate
from kit.errors import BadInput, UnsupportedModel
from kit.layers import sensitivity
from kit.model import Model, TensorSpec
from kit.quantization import QuantizeOptions, quantize
from kit.runner import open_runner

node = helper.make_node
SPECS = (TensorSpec("x", "float32", ("n", 3, 16, 16)),)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    path = conv_net(folder / "toy.onnx")
    calibration = calibrate(path, feeds(4), runs=folder)
    return {"folder": folder, "path": path, "calibration": calibration,
            "ranking": sensitivity(path, calibration, runs=folder)}


def quantized(made, **options):
    options = {"bias_correction": "no", "method": "minmax", **options}
    return quantize(made["path"], made["calibration"], QuantizeOptions(**options), runs=made["folder"])


def layers(path, family="ascend310p"):
    return {layer.operator: layer.why_float for layer in Layers(Model.open(path), family).layers}


def constant_of(shape, name="w"):
    return {name: np.ones(shape, np.float32)}


# ---------------------------------------------------------------------------------------------------- AMCT


def test_the_configuration_is_protobuf_text_with_known_fields(made):
    config = amct_config(made["path"], AmctOptions(batches=3, keep_float=("wide",)))
    said = amct_takes(config.text)
    assert (said.batch_num, said.activation_offset, list(said.skip_layers)) == (3, True, ["wide"])
    assert said.common_config.arq_quantize.channel_wise
    assert not said.common_config.arq_quantize.HasField("quant_bits"), "8 bits are its own"
    assert said.common_config.ifmr_quantize.max_percentile == pytest.approx(0.999999, abs=1e-7)
    assert config.kept == {"wide": "asked for"}
    assert "HardSwish" in str(config)
    assert "AMCT has no INT8 form of it" in str(config)


def test_the_dearest_layers_are_kept_in_float_with_their_share(made):
    ranking = made["ranking"]
    config = amct_config(made["path"], ranking=ranking, groups=2)
    first = [next(name for name in group.nodes if name in {"first", "depthwise", "squeeze", "pointwise", "wide",
                                                           "again", "up"}) for group in ranking.groups[:2]]
    assert list(amct_takes(config.text).skip_layers) == first
    assert all("of the INT8 noise" in why for why in config.kept.values())
    assert "swish" not in config.kept, "AMCT leaves it in float anyway"
    few, many = (len(amct_config(made["path"], ranking=ranking, share=share).kept) for share in (0.2, 0.9))
    assert few < many


def test_both_dialects_name_types_in_their_own_way(tmp_path):
    path = attention_net(tmp_path / "a.onnx")
    ours = amct_takes(amct_config(path).text)
    theirs_text = amct_config(path, AmctOptions(reader="atc")).text
    theirs = amct_takes(theirs_text)
    assert [one.layer_type for one in ours.override_layer_types] == ["MatMul"]
    assert [one.layer_type for one in theirs.override_layer_types] == ["BatchMatMulV2"]
    assert not theirs.override_layer_types[0].calibration_config.arq_quantize.channel_wise
    assert (ours.HasField("batch_num"), theirs.HasField("batch_num"), theirs.version) == (True, False, 1)
    assert not amct_takes(amct_config(path, AmctOptions(channel_wise=False)).text).override_layer_types


def test_fewer_bits_and_symmetric_data(made):
    said = amct_takes(amct_config(made["path"], AmctOptions(weight_bits=7, activation_offset=False)).text)
    assert (said.common_config.arq_quantize.quant_bits, said.activation_offset) == (7, False)


def test_names_that_are_not_there_are_refused(made, tmp_path):
    with pytest.raises(BadInput) as caught:
        amct_config(made["path"], AmctOptions(keep_float=("wid",)))
    assert "no node named 'wid'" in caught.value.what
    assert "wide" in caught.value.remedy
    nameless = save([node("Conv", ["x", "w"], ["t"]), node("Relu", ["t"], ["y"])], constant_of((2, 3, 1, 1)),
                    tmp_path / "n.onnx")
    with pytest.raises(BadInput) as caught:
        amct_config(nameless, AmctOptions(keep_float=("Conv_0",)))
    assert "2 of its nodes have no name at all" in caught.value.what
    named = name_nodes(nameless, tmp_path / "named.onnx")
    assert [one.name for one in onnx.load(named.path).graph.node] == ["Conv_0", "Relu_1"]
    config = amct_config(nameless)
    assert "without a name" in " ".join(config.notes)
    with pytest.raises(BadInput, match="All 1 layers"):
        amct_config(named, AmctOptions(keep_float=("Conv_0",)))
    with pytest.raises(BadInput, match="is the model itself"):
        name_nodes(named, named.path)


def test_what_amct_leaves_in_float_anyway_is_said_and_not_listed(made):
    config = amct_config(made["path"], AmctOptions(keep_float=("swish", "wide")))
    assert list(config.kept) == ["wide"]
    assert "leaves them in float anyway: swish" in " ".join(config.notes)
    assert "opset 17" in " ".join(config.notes)


def test_a_model_without_anything_for_amct_is_refused(tmp_path):
    path = save([node("Relu", ["x"], ["y"], "r")], {}, tmp_path / "r.onnx")
    with pytest.raises(UnsupportedModel, match="can make nothing of"):
        amct_config(path)


@pytest.mark.parametrize(("nodes", "weights", "operator", "why"), [
    ([node("Conv", ["x", "x"], ["y"])], {}, "Conv", "computed from the input"),
    ([node("Conv", ["x", "w"], ["y"])], constant_of((2, 3, 3)), "Conv", "3 axes; AMCT takes 4 and 5"),
    ([node("Conv", ["x", "w"], ["y"], dilations=[2, 1, 1])], constant_of((2, 3, 1, 1, 1)), "Conv",
     "first dilation is not 1"),
    ([node("Conv", ["x", "w"], ["y"], dilations=[2, 2])], constant_of((2, 3, 1, 1)), "Conv", ""),
    ([node("ConvTranspose", ["x", "w"], ["y"], dilations=[2, 2])], constant_of((3, 2, 2, 2)), "ConvTranspose",
     "dilation is not 1"),
    ([node("Gemm", ["x", "w"], ["y"], transA=1)], constant_of((3, 4)), "Gemm", "transA is set"),
    ([node("Gemm", ["x", "w"], ["y"], transB=1)], constant_of((3, 4)), "Gemm", ""),
    ([node("MatMul", ["x", "w"], ["y"])], constant_of((1, 16, 4)), "MatMul", "3 axes; AMCT takes 2"),
    ([node("MatMul", ["w", "x"], ["y"])], constant_of((4, 16)), "MatMul", "constant is the first input"),
    ([node("MatMul", ["x", "x"], ["y"])], {}, "MatMul", "both inputs are computed"),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])], {}, "MaxPool", "only where tensor_quantize names it"),
    ([node("GlobalAveragePool", ["x"], ["y"])], {}, "GlobalAveragePool", "no INT8 form"),
    ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2])], {}, "AveragePool", ""),
])
def test_each_rule_of_amct(tmp_path, nodes, weights, operator, why):
    found = layers(save(nodes, weights, tmp_path / "m.onnx"))[operator]
    assert (why in found) if why else not found, found


def test_weights_that_are_made_of_constants_count_as_constant(tmp_path):
    path = save([node("Transpose", ["w"], ["wt"], perm=[1, 0, 2, 3]), node("Conv", ["x", "wt"], ["y"])],
                constant_of((3, 2, 1, 1)), tmp_path / "m.onnx")
    assert layers(path) == {"Conv": ""}


def test_products_of_two_computed_inputs_depend_on_the_chip(tmp_path):
    path = save([node("MatMul", ["x", "x"], ["y"])], {}, tmp_path / "m.onnx")
    assert layers(path, "ascend910b") == {"MatMul": ""}


def test_the_command_names_folders_shapes_and_types(made, tmp_path):
    files = write_calibration(feeds(6), SPECS, tmp_path / "calibration", batch=2)
    config = amct_config(made["path"], AmctOptions(batches=3))
    steps = amct_steps("model/toy.onnx", files, config, save="amct/toy")
    words = dict(zip(steps.argv[0][2::2], steps.argv[0][3::2], strict=True))
    assert steps.argv[0][:2] == ("amct_onnx", "calibration")
    assert words == {"--model": "model/toy.onnx", "--save_path": "amct/toy", "--input_shape": "x:2,3,16,16",
                     "--data_dir": "calibration/x", "--data_types": "float32",
                     "--calibration_config": "config/amct.cfg"}
    assert steps.deploy == "amct/toy_deploy_model.onnx"
    assert "only ATC reads it" in str(steps)
    with pytest.raises(BadInput, match="asks for 4 batches; there are 3 files"):
        amct_steps("m.onnx", files, amct_config(made["path"], AmctOptions(batches=4)))
    with pytest.raises(BadInput, match="written for atc"):
        amct_steps("m.onnx", files, amct_config(made["path"], AmctOptions(reader="atc")))


def test_the_command_is_quoted_for_a_shell(made, tmp_path):
    specs = (TensorSpec("a b", "float32", (1,)), TensorSpec("c", "float32", (1,)))
    samples = [{"a b": np.ones(1, np.float32), "c": np.ones(1, np.float32)}]
    steps = amct_steps("m.onnx", write_calibration(samples, specs, tmp_path / "c"), amct_config(made["path"]))
    assert "'a b:1;c:1'" in steps.text
    assert "'calibration/a_b;calibration/c'" in steps.text


# ---------------------------------------------------------------------------------------------------- QDQ


def answers(model, samples):
    with open_runner(model, graph_level="none") as run:
        return np.concatenate([run(feed)["y"].ravel() for feed in samples])


def test_our_qdq_model_is_refused_with_its_nodes_named(made):
    model = quantized(made)
    found = qat_check(model)
    assert not found
    said = {one.operator: one.what for one in found.problems}
    assert "AMCT converts pairs around" in said["HardSwish"]
    assert "no QuantizeLinear before it: its values are stored as integers" in said["DequantizeLinear"]
    with pytest.raises(UnsupportedModel) as caught:
        qat_steps(model, "model/toy.int8.onnx")
    assert "more" in caught.value.what
    assert "qat_model" in caught.value.remedy
    assert "swish" in caught.value.detail


def test_in_amcts_form_it_is_taken_and_answers_exactly_alike(made, tmp_path):
    source = quantized(made, runtime="openvino", activation_type="int8", weight_type="int8")
    ours = qat_model(source, tmp_path / "qat.onnx")
    assert ours.check
    assert not ours.floated
    assert not ours.unrounded
    onnx.checker.check_model(str(ours.model.path))
    # Whether the depthwise convolution is INT8 in OpenVINO's layout depends on the processor.
    rounded = {one.node for one in source.nodes if one.setting == "INT8"}
    assert {"first", "squeeze", "pointwise", "wide", "again"} <= rounded <= set(ours.int8)
    assert np.array_equal(answers(ours.model, feeds(3)), answers(source.model, feeds(3)))
    steps = qat_steps(ours, "model/qat.onnx", save="amct/toy")
    assert steps.argv == (("amct_onnx", "convert", "--model", "model/qat.onnx", "--save_path", "amct/toy"),)
    assert set(steps.outputs) == {"deploy", "simulated"}


def test_roundings_that_amct_has_not_go_but_what_they_cut_off_stays_cut_off(made, tmp_path):
    source = quantized(made)  # ONNX Runtime's layout: ReLU is left to the rounding behind it
    assert "relu" not in {one.name for one in onnx.load(source.model.path).graph.node}
    ours = qat_model(source, tmp_path / "qat.onnx")
    assert ours.check
    assert {"swish", "pool", "gate"} <= set(ours.unrounded)
    clips = [one for one in onnx.load(ours.model.path).graph.node if one.op_type == "Clip"]
    assert any(one.input[0] == "r1" for one in clips), "the ReLU before pool and excite"
    samples = feeds(6)
    true = answers(made["path"], samples)
    error, before = (np.abs(answers(model, samples) - true).mean() for model in (ours.model, source.model))
    assert error < 1.1 * before, "fewer roundings: not farther from float than the QDQ model is"


def test_products_with_a_scale_a_channel_go_back_to_float(tmp_path):
    path = attention_net(tmp_path / "a.onnx")
    samples = feeds(3, shape=(1, 12, 64))
    calibration = calibrate(path, samples, runs=tmp_path)
    options = QuantizeOptions(bias_correction="no", method="minmax", activation_type="int8", runtime="openvino")
    with pytest.raises(UnsupportedModel) as caught:
        qat_model(quantize(path, calibration, options, runs=tmp_path), tmp_path / "q.onnx")
    assert "per_channel=False" in caught.value.remedy
    assert "64 scales; AMCT takes one for MatMul" in caught.value.detail
    assert not (tmp_path / "q.onnx").exists()
    source = quantize(path, calibration, replace(options, per_channel=False), runs=tmp_path)
    ours = qat_model(source, tmp_path / "q.onnx")
    assert {"to_q", "to_k", "to_v", "to_out", "up", "down"} <= set(ours.int8)
    assert ours.check


def qdq(path, *, data=(0.05, 0.05), data_zero=(3, 3), weight=0.01, weight_zero=0, between=(), bias=None, opset=17,
        wtype=np.float32):
    """x -> pair -> Conv with weights behind a pair -> y."""
    weights = {"w": np.linspace(-1, 1, 6, dtype=wtype).reshape(2, 3, 1, 1), "s1": np.float32(data[0]),
               "s2": np.float32(data[1]), "z1": np.int8(data_zero[0]), "z2": np.int8(data_zero[1]),
               "sw": np.float32(weight), "zw": np.full(np.shape(weight), weight_zero, np.int8)}
    nodes = [node("QuantizeLinear", ["x", "s1", "z1"], ["xq"], "xQ"),
             node("DequantizeLinear", ["xq", "s2", "z2"], ["xd"], "xDQ"), *between,
             node("QuantizeLinear", ["w", "sw", "zw"], ["wq"], "wQ", axis=0),
             node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], "wDQ", axis=0),
             node("Conv", ["xd", "wd"], ["y"], "conv")]
    return save(nodes, weights, path, opset=opset)


def test_a_model_of_pairs_around_a_convolution_is_taken(tmp_path):
    found = qat_check(qdq(tmp_path / "m.onnx", weight=[0.01, 0.02]))
    assert found, str(found)
    assert found.int8 == {"conv": "Conv"}
    assert any("Opset 17" in note for note in found.notes)
    assert qat_check(qdq(tmp_path / "n.onnx", opset=13)).notes == ()


@pytest.mark.parametrize(("more", "name", "what"), [
    ({"data": (0.05, 0.06)}, "xQ", "differs from that of 'xDQ'"),
    ({"data_zero": (3, 4)}, "xQ", "differs from that of 'xDQ'"),
    ({"weight_zero": 2}, "conv", "have an offset"),
    ({"between": [node("Sigmoid", ["xd"], ["s"], "sig")]}, "sig", "AMCT converts pairs around"),
    ({"between": [node("QuantizeLinear", ["x", "s1", "z1"], ["lost"], "lost")]}, "lost", "nothing reads it"),
    ({"between": [node("Flatten", ["xq"], ["f"], "flat")]}, "xQ", "read by Flatten 'flat'"),
])
def test_each_condition_of_amct_names_its_node(tmp_path, more, name, what):
    found = qat_check(qdq(tmp_path / "m.onnx", **more))
    assert [one.node for one in found.problems] == [name], str(found)
    assert what in found.problems[0].what


def test_data_with_many_scales_a_lone_weight_pair_and_16_bits(tmp_path):
    weights = {"w": np.ones((2, 3, 1, 1), np.float32), "s": np.full(3, 0.1, np.float32), "z": np.zeros(3, np.int8),
               "sw": np.float32(0.1), "zw": np.int8(0), "h": np.ones(1, np.float16)}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["xq"], "xQ"),
             node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "xDQ"), node("Conv", ["xd", "w"], ["t"], "a"),
             node("QuantizeLinear", ["w", "sw", "zw"], ["wq"], "wQ"),
             node("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], "wDQ"), node("Conv", ["x", "wd"], ["y"], "b"),
             node("Cast", ["h"], ["hf"], "cast", to=1)]
    said = {(one.node, one.what.split(";")[0]) for one in qat_check(save(nodes, weights, tmp_path / "m.onnx")).problems}
    assert ("xQ", "data with 3 scales") in said
    assert ("b", "its weights are rounded, its data is not") in said
    assert ("a", "its weights have no pair of QuantizeLinear and DequantizeLinear") in said
    assert ("cast", "its values are 16 bits wide") in said


def test_a_float_model_is_no_qdq_model(made):
    with pytest.raises(UnsupportedModel, match="holds no QuantizeLinear"):
        qat_check(made["path"])


def test_a_rounded_output_becomes_a_plain_one(tmp_path):
    path = qdq(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node[-1].output[0] = "t"
    proto.graph.node.extend([node("QuantizeLinear", ["t", "s1", "z1"], ["tq"], "tQ"),
                             node("DequantizeLinear", ["tq", "s1", "z1"], ["y"], "tDQ")])
    onnx.save(proto, path)
    assert "makes an output" in qat_check(path).problems[0].what
    ours = qat_model(path, tmp_path / "q.onnx")
    assert ours.check
    sample = [{"x": np.random.default_rng(0).uniform(-3, 3, (1, 3, 16, 16)).astype(np.float32)}]
    assert np.abs(answers(ours.model, sample) - answers(path, sample)).max() <= 0.05 / 2 + 1e-6


# ---------------------------------------------------------------------------------------------------- atc itself


@pytest.fixture
def whole(tmp_path):
    return write_calibration(feeds(4), SPECS, tmp_path / "calibration", batch=4)


def test_the_compression_file(whole):
    made = compression_conf(whole, "ascend310p3", config_path="config/simple.cfg", first_layer=True)
    assert made.text.splitlines() == [
        "enable_first_layer_quantization: true", "calibration:", "{",
        "    input_data_dir: calibration/x/000000.bin", "    input_shape: x:4,3,16,16",
        "    config_file: config/simple.cfg", "    infer_soc: Ascend310P3", "    infer_device_id: 0", "    log: info",
        "}"]
    said = str(made)
    assert "NPU" in said
    assert '--input_shape="x:4,3,16,16"' in said
    assert "enable_small_channel" in said
    assert "say nothing about Ascend310" in str(compression_conf(whole, "Ascend310"))


@pytest.mark.parametrize(("soc", "more", "what", "remedy"), [
    ("Ascend910B3", {"first_layer": True}, "is not there for Ascend910B3", "first_layer=False"),
    ("Ascend310P3", {"precision_mode": "force_fp32"}, "precision_mode=force_fp32 exclude each other", "leave"),
    ("Ascend310P3", {"precision_mode_v2": "origin"}, "precision_mode_v2=origin exclude", "leave"),
    ("Ascend310P3", {"op_precision": ["high_precision"]}, "high_precision", "leave one"),
    ("Ascend310P3", {"log": "loud"}, "log cannot be 'loud'", "debug"),
    ("Ascend310PX", {}, "no Ascend chip", "Ascend310P"),
])
def test_what_excludes_calibration_is_refused(whole, soc, more, what, remedy):
    with pytest.raises(BadInput) as caught:
        compression_conf(whole, soc, **more)
    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_atc_reads_one_file_an_input(tmp_path):
    files = write_calibration(feeds(4), SPECS, tmp_path / "c")
    with pytest.raises(BadInput) as caught:
        compression_conf(files, "Ascend310P3")
    assert "'x' has 4" in caught.value.what
    assert "batch=4" in caught.value.remedy


def test_zero_point_types_are_told(tmp_path):
    path = qdq(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name in ("z1", "z2"):
            tensor.CopyFrom(numpy_helper.from_array(np.array(3, np.uint8), tensor.name))
    onnx.save(proto, path)
    assert any("uint8" in note for note in qat_check(path).notes)
