"""Weights one at a time: the same values by every way, and memory that does not hold them all."""

import subprocess
import sys

import hypothesis.extra.numpy as arrays_of
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from kit.errors import BadInput
from kit.model import Model
from kit.weights_file import Weights, read_light, save_streamed, weights_bytes

DTYPES = (np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_)
TENSORS = some.dictionaries(
    some.sampled_from("abcdef"),
    some.sampled_from(DTYPES).flatmap(lambda dtype: arrays_of.arrays(
        dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40))), min_size=1)


def model_of(tensors, nodes=None):
    nodes = nodes or [helper.make_node("Identity", ["x"], ["y"], "same")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"note": "kept"})
    return model


def assert_holds(path, tensors):
    found = onnx.load(str(path))
    onnx.checker.check_model(str(path))
    assert found.metadata_props[0].value == "kept"
    assert {t.name for t in found.graph.initializer} == set(tensors)
    for tensor in found.graph.initializer:
        values = numpy_helper.to_array(tensor)
        assert values.dtype == tensors[tensor.name].dtype
        assert values.shape == tensors[tensor.name].shape
        assert values.tobytes() == tensors[tensor.name].tobytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=TENSORS, above=some.sampled_from([0, 100, 10**9]), external=some.sampled_from([0, 10**9]))
def test_reading_light_and_writing_in_a_stream_keeps_every_byte(tmp_path, tensors, above, external):
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model_of(tensors), str(source))
    light = read_light(source, above=above)
    weights = Weights(source, light)
    assert set(weights.names) == set(tensors)
    for name, value in tensors.items():
        assert weights.array(name).tobytes() == value.tobytes()
        assert weights.array(name).shape == value.shape
    save_streamed(light, target, weights.array, external_above=external)
    assert_holds(target, tensors)
    assert (tmp_path / "target.onnx.data").exists() or external


def test_values_inside_the_file_become_references_to_their_place(tmp_path):
    value = np.arange(50_000, dtype=np.float32)
    path = tmp_path / "m.onnx"
    model = model_of({"big": value, "small": value[:4]})
    as_floats = model.graph.initializer.add(name="listed", data_type=TensorProto.FLOAT, dims=[50_000])
    as_floats.float_data.extend(value)
    constant = helper.make_node("Constant", [], ["c"], "stored", value=numpy_helper.from_array(value))
    model.graph.node.insert(0, constant)
    onnx.save(model, str(path))
    light = read_light(path)
    assert light.ByteSize() < 2000
    by_name = {tensor.name: tensor for tensor in light.graph.initializer}
    assert by_name["small"].data_location == TensorProto.DEFAULT
    weights = Weights(path, light)
    assert isinstance(weights.array("big").base, np.memmap)
    for name in ("big", "listed"):
        assert by_name[name].data_location == TensorProto.EXTERNAL
        np.testing.assert_array_equal(weights.array(name), value)
    inside = light.graph.node[0].attribute[0].t
    assert inside.data_location == TensorProto.EXTERNAL


def test_weights_beside_the_model_are_read_from_there(tmp_path):
    value = np.arange(50_000, dtype=np.float32)
    onnx.save_model(model_of({"w": value}), str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data",
                    size_threshold=0)
    np.testing.assert_array_equal(Weights(tmp_path / "m.onnx", read_light(tmp_path / "m.onnx")).array("w"), value)
    (tmp_path / "m.data").write_bytes(b"short")
    with pytest.raises(BadInput, match="ends before the values of 'w'"):
        Weights(tmp_path / "m.onnx", read_light(tmp_path / "m.onnx")).array("w")


def test_a_misspelt_constant_is_answered_with_the_closest(tmp_path):
    onnx.save(model_of({"weight": np.zeros(3, np.float32)}), str(tmp_path / "m.onnx"))
    with pytest.raises(BadInput, match="no constant named 'wieght'") as raised:
        Weights(tmp_path / "m.onnx", read_light(tmp_path / "m.onnx")).array("wieght")
    assert "weight" in raised.value.remedy


def test_values_of_another_size_are_refused(tmp_path):
    model = model_of({})
    model.graph.initializer.add(name="w", data_type=TensorProto.INT8, dims=[4], data_location=TensorProto.EXTERNAL)
    with pytest.raises(BadInput, match="'w' take 5 bytes"):
        save_streamed(model, tmp_path / "m.onnx", lambda name: np.zeros(5, np.int8))
    with pytest.raises(BadInput, match="no values for the constant 'w'"):
        save_streamed(model, tmp_path / "m.onnx", lambda name: None)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(model_of({"w": np.zeros(100_000, np.float32)}), str(path))
    path.write_bytes(path.read_bytes()[:200_000])
    with pytest.raises(BadInput, match="not a whole ONNX file"):
        read_light(path)


def test_the_size_of_weights_is_told_without_reading_them(tmp_path):
    onnx.save(model_of({"w": np.zeros((100, 7), np.float16), "i": np.zeros(3, np.int64)}), str(tmp_path / "m.onnx"))
    assert weights_bytes(read_light(tmp_path / "m.onnx")) == 1400 + 24


MEASURED = """
import sys, threading, time
from pathlib import Path
import onnxruntime.quantization.qdq_quantizer
from kit.int8 import qdq
from kit.int8.quantizable import Network

def held():  # memory of the process itself, without pages of files that are mapped
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    while watching:
        peaks.append(held())
        time.sleep(0.002)

source, target, external_above = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
before, peaks, watching = held(), [], True
thread = threading.Thread(target=watch)
thread.start()
network = Network.of(source)
ranges = {name: (-4.0, 4.0) for name in ("x", "a", "b", "y")}
qdq.skeleton(network, ranges, ["one", "two"], qdq.Recipe()).save(target, external_above)
watching = False
thread.join()
print(max(peaks) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status, which only Linux has")
@pytest.mark.parametrize("external_above", [1_000_000, 10**9], ids=["beside", "inside"])
def test_writing_int8_holds_less_than_one_float_weight(tmp_path, external_above):
    side, random = 4096, np.random.default_rng(0)
    block = random.standard_normal((side, side), dtype=np.float32)
    node = helper.make_node
    nodes = [node("MatMul", ["x", "w0"], ["a"], "one"), node("MatMul", ["a", "w1"], ["b"], "two"),
             node("MatMul", ["b", "w2"], ["y"], "kept")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, side])],
                              [numpy_helper.from_array(block, f"w{at}") for at in range(3)])
    source, target = tmp_path / "m.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(source))
    done = subprocess.run([sys.executable, "-c", MEASURED, str(source), str(target), str(external_above)], check=True,
                          capture_output=True, text=True)
    added = int(done.stdout)
    # The bytes of one weight, a few rows in float, and the graph: never one weight in float, let alone the model.
    assert added < block.nbytes, f"{added / 1e6:.0f} MB were held beside a weight of {block.nbytes / 1e6:.0f} MB"
    assert Model.open(target).size < 0.51 * Model.open(source).size
