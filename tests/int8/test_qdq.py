"""The written INT8 model: the same bytes as the quantizer's own, although it never sees a weight."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from quantization_models import feeds, save

from kit.int8 import qdq
from kit.int8.quantizable import LAYOUTS, Network
from kit.weights_file import read_light

RNG = np.random.default_rng(7)


def values(*shape):
    return (RNG.standard_normal(shape) * np.geomspace(0.01, 3, shape[-1])).astype(np.float32)


def convolutions(path):
    node = helper.make_node
    return save(
        [node("Conv", ["x", "w0", "b0"], ["a"], "conv", pads=[1, 1, 1, 1]), node("Relu", ["a"], ["r"], "relu"),
         node("Conv", ["r", "w1"], ["b"], "depthwise", group=8, pads=[1, 1, 1, 1]),
         node("ConvTranspose", ["b", "w2", "b2"], ["c"], "up", strides=[2, 2]),
         node("ConvTranspose", ["c", "w3"], ["d"], "grouped", strides=[2, 2], group=2),
         node("Add", ["d", "plane"], ["e"], "plus"), node("Conv", ["e", "w4"], ["y"], "last")],
        {"w0": values(8, 3, 3, 3), "b0": values(8), "w1": values(8, 1, 3, 3), "w2": values(8, 6, 2, 2),
         "b2": values(6), "w3": values(6, 4, 2, 2), "plane": values(1, 8, 1, 64), "w4": values(5, 8, 1, 1)}, path,
        output_shape=[1, 5, 64, 64])


def matrices(path):
    node = helper.make_node
    return save(
        [node("Gemm", ["x", "g0", "c0"], ["a"], "turned", transA=1, transB=1),
         node("Gemm", ["a", "g1"], ["b"], "plain"), node("MatMul", ["b", "m0"], ["c"], "right"),
         node("MatMul", ["m1", "c"], ["d"], "left"), node("MatMul", ["d", "m2"], ["e"], "stacked"),
         node("MatMul", ["e", "m0b"], ["f"], "again"), node("Softmax", ["f"], ["y"], "soft")],
        {"g0": values(7, 8), "c0": values(7), "g1": values(7, 6), "m0": values(6, 9), "m1": values(5, 4),
         "m2": values(3, 9, 9), "m0b": values(9, 4)}, path, shape=(8, 4), output_shape=[3, 5, 4])


def shared_along_two_axes(path):
    node = helper.make_node
    return save([node("Gemm", ["x", "w"], ["a"], "straight"), node("Gemm", ["a", "w"], ["y"], "turned", transB=1)],
                {"w": values(8, 8)}, path, shape=(4, 8), output_shape=[4, 8])


MODELS = {"convolutions": convolutions, "matrices": matrices, "shared": shared_along_two_axes}


def ranges_of(network, shape):
    """Ranges of every activation, from one run with everything handed out."""
    proto = onnx.ModelProto()
    proto.CopyFrom(onnx.load(str(network.path)))
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for node in proto.graph.node
                              for name in node.output if name not in known)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = feeds(1, shape=shape)[0]
    answers = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
    return {name: (float(array.min()), float(array.max())) for name, array in {**feed, **answers}.items()}


def by_the_quantizer(network, ranges, nodes, recipe):
    """What ONNX Runtime's quantizer makes when it is handed the weights themselves."""
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    proto.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    chosen = [network.by_name[name] for name in nodes]
    axes = network.weight_axes(chosen) if recipe.per_channel else {}
    given = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    return QDQQuantizer(
        proto, recipe.per_channel, recipe.reduce_range, kinds[recipe.weight], kinds[recipe.activation], given,
        list(nodes), [], sorted({node.op_type for node in chosen}),
        {"TensorQuantOverrides": {name: [{"symmetric": True}] for name, axis in axes.items() if axis is None},
         "WeightSymmetric": recipe.weight == "int8" or recipe.per_channel}).quantize_model()


def stored(proto):
    """Of every node and input that is a rounded constant: values, scale, zero point and axis."""
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    unpacked = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants}
    found = {}
    for node in proto.graph.node:
        for at, name in enumerate(node.input):
            if name in unpacked:
                source = unpacked[name]
                axis = next((a.i for a in source.attribute if a.name == "axis"), None)
                found[node.name, at] = (*(constants[part] for part in source.input), axis)
    return found


RECIPES = [qdq.Recipe(activation, per_channel, reduce, weight=weight) for activation, per_channel, reduce, weight in
           itertools.product(("uint8", "int8"), (True, False), (True, False), ("int8", "uint8"))]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.activation}-{r.weight}-{r.per_channel}-{r.reduce_range}")
def test_bytes_scales_zero_points_and_biases_are_those_of_the_quantizer_given_the_weights(tmp_path, name, recipe):
    path = MODELS[name](tmp_path / "m.onnx")
    network = Network.of(path)
    shape = tuple(d.dim_value for d in network.proto.graph.input[0].type.tensor_type.shape.dim)
    ranges = ranges_of(network, shape)
    nodes = [node.name for node in network.nodes if node.op_type not in ("Softmax", "Relu")]
    want = stored(by_the_quantizer(network, ranges, nodes, recipe))
    made = qdq.write(network, ranges, nodes, recipe)
    have = stored(made)
    assert set(have) == set(want)
    assert len(have) >= len(network.constants) - 1
    for key, parts in want.items():
        for mine, theirs in zip(have[key][:3], parts[:3], strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert mine.tobytes() == theirs.tobytes(), key
        assert have[key][3] == parts[3]
    onnx.checker.check_model(made, full_check=True)


def test_weights_that_two_nodes_read_along_two_axes_get_one_scale_and_it_is_said(tmp_path):
    network = Network.of(shared_along_two_axes(tmp_path / "m.onnx"))
    assert network.weight_axes(network.nodes) == {"w": None}
    assert "another node reads them along another axis" in network.one_scale(network.by_name["straight"])


def test_the_reason_for_one_scale_is_told(tmp_path):
    network = Network.of(convolutions(tmp_path / "c.onnx"))
    assert network.one_scale(network.by_name["conv"]) == network.one_scale(network.by_name["up"]) == ""
    assert "groups" in network.one_scale(network.by_name["grouped"])
    network = Network.of(matrices(tmp_path / "m.onnx"))
    assert network.one_scale(network.by_name["right"]) == ""
    assert "left" in network.one_scale(network.by_name["left"])
    assert "stack" in network.one_scale(network.by_name["stacked"])


@pytest.mark.parametrize("external_above", [0, 10**9])
def test_a_model_written_piece_by_piece_is_the_model_written_whole(tmp_path, external_above):
    path = convolutions(tmp_path / "m.onnx")
    network = Network(Network.of(path).proto, "m.onnx", path)
    ranges = ranges_of(network, (1, 3, 16, 16))
    nodes = ["conv", "relu", "depthwise", "last"]
    recipe = qdq.Recipe(store_int8=True)
    target = tmp_path / "int8.onnx"
    qdq.skeleton(network, ranges, nodes, recipe).save(target, external_above)
    whole = qdq.write(network, ranges, nodes, recipe)
    feed = feeds(1, shape=(1, 3, 16, 16))[0]
    answers = [ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feed)[0]
               for model in (str(target), whole.SerializeToString())]
    np.testing.assert_array_equal(*answers)


def test_the_layout_for_openvino_rounds_what_goes_into_products_and_nothing_else(tmp_path):
    path = convolutions(tmp_path / "m.onnx")
    network = Network.of(path)
    made = qdq.write(network, ranges_of(network, (1, 3, 16, 16)), ["conv", "depthwise", "last"],
                     qdq.Recipe(layout="openvino"))
    assert set(qdq.rounded(made)) == {"x", "r", "e"}  # not "a", "b" and "y": what follows reads sums of 32 bits
    assert qdq.effective(made, "openvino")["depthwise"] == "INT8"
    assert qdq.effective(made)["depthwise"] == "INT8 weights"  # ONNX Runtime's convolution cannot answer in float
    assert LAYOUTS["openvino"].types == ("Conv", "Gemm", "MatMul")


@pytest.mark.parametrize("factor", ["alpha", "beta"])
def test_gemm_with_a_factor_beside_a_bias_stays_in_float_and_says_why(tmp_path, factor):
    path = save([helper.make_node("Gemm", ["x", "w", "b"], ["y"], "g", **{factor: 0.5})],
                {"w": values(8, 8), "b": values(8)}, tmp_path / "m.onnx", shape=(4, 8))
    network = Network.of(path)
    assert "alpha or beta is not 1" in network.obstacle(network.by_name["g"])


def test_large_float_weights_are_left_on_the_disk(tmp_path):
    path = save([helper.make_node("MatMul", ["x", "m"], ["a"], "small"),
                 helper.make_node("MatMul", ["a", "n"], ["y"], "large")],
                {"m": values(8, 300), "n": values(300, 200)}, tmp_path / "m.onnx", shape=(4, 8))
    network = Network(read_light(path), "m.onnx", path)
    assert network.constants["n"].data_location == onnx.TensorProto.EXTERNAL
    made = qdq.skeleton(network, {"x": (-3, 3), "a": (-9, 9)}, ["small"], qdq.Recipe())
    assert "n" in made.sources
    assert "n" not in made.rounding
    made.save(tmp_path / "int8.onnx")
    after = {t.name: t for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert numpy_helper.to_array(after["n"]).tobytes() == network.values("n").tobytes()


def test_a_product_that_is_the_answer_is_not_rounded(tmp_path):
    path = save([helper.make_node("MatMul", ["x", "m"], ["y"], "last")], {"m": values(8, 6)}, tmp_path / "m.onnx",
                shape=(4, 8), output_shape=[4, 6])
    network = Network.of(path)
    # With weights of 7 bits, so that the sums of bytes overflow on no processor.
    made = qdq.write(network, ranges_of(network, (4, 8)), ["last"], qdq.Recipe(reduce_range=True))
    assert set(qdq.rounded(made)) == {"x"}
    assert qdq.effective(made)["last"] == "INT8"
    feed = feeds(1, shape=(4, 8))[0]
    want, have = (ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["y"], feed)[0]
                  for model in (str(path), made.SerializeToString()))
    assert np.abs(want - have).max() < 0.05 * np.abs(want).max()
