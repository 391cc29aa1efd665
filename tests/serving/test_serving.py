"""Asking a model server: the client against a FAKE that speaks the protocol, and the real server where there is one."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kit import serving, worker
from kit.errors import BadInput, MissingTool, ToolFailed
from kit.serving import messages

sys.path.insert(0, str(Path(__file__).parent))
import fake_model_server

FEEDS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float32([0.5])}
ASKED = {"signature": "double", "version": 3}
DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "bool")


@given(st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(
    dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))))
def test_an_array_survives_the_way_through_a_message(values):
    made = messages.message("tensorflow.TensorProto").FromString(messages.tensor(values).SerializeToString())
    back = messages.array(made)
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(back, values)


def test_tensorflow_reads_what_is_written_and_its_own_tensors_are_read():
    given = {dtype: (np.arange(6).reshape(2, 3) % 2).astype(dtype) for dtype in DTYPES}
    sent = {dtype: messages.tensor(values).SerializeToString() for dtype, values in given.items()}
    read, written = worker.run(through_tensorflow, sent, given, framework="tensorflow")
    kind = messages.message("tensorflow.TensorProto")
    for dtype, values in given.items():
        np.testing.assert_array_equal(read[dtype], values)
        for data in written[dtype]:
            back = messages.array(kind.FromString(data))
            assert back.dtype == values.dtype
            np.testing.assert_array_equal(back, values)


def through_tensorflow(sent, given):
    """Runs in the worker. TensorFlow writes numbers in one piece, or one by one as TensorFlow Serving does."""
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    fields = {"float16": "half_val", "float32": "float_val", "float64": "double_val", "int64": "int64_val",
              "uint32": "uint32_val", "uint64": "uint64_val", "bool": "bool_val"}
    read = {dtype: tf.make_ndarray(tensor_pb2.TensorProto.FromString(data)) for dtype, data in sent.items()}
    written = {}
    for dtype, values in given.items():
        whole = tf.make_tensor_proto(values)
        single = tensor_pb2.TensorProto(dtype=whole.dtype, tensor_shape=whole.tensor_shape)
        flat = values.ravel().view(np.uint16) if dtype == "float16" else values.ravel()
        getattr(single, fields.get(dtype, "int_val")).extend(flat.tolist())
        written[dtype] = [whole.SerializeToString(), single.SerializeToString()]
    return read, written


def test_a_value_that_stands_for_the_rest_is_repeated():
    made = messages.message("tensorflow.TensorProto")(dtype=1, float_val=[1, 2])
    made.tensor_shape.dim.add(size=4)
    assert messages.array(made).tolist() == [1, 2, 2, 2]
    del made.float_val[:]
    assert messages.array(made).tolist() == [0, 0, 0, 0]


def test_what_cannot_be_sent_or_read_says_so():
    with pytest.raises(BadInput, match="complex64 cannot be sent") as caught:
        messages.tensor(np.zeros(1, np.complex64))
    assert "float32" in caught.value.remedy
    with pytest.raises(BadInput, match="TensorFlow type 7"):
        messages.array(messages.message("tensorflow.TensorProto")(dtype=7))


@pytest.mark.parametrize("content", [True, False])
def test_the_fake_is_asked_through_grpc_and_answers_bit_for_bit(content):
    with fake_model_server.running(content) as (_, grpc):
        found = serving.ask_grpc(grpc, "net", FEEDS, **ASKED)
    assert {name: values.tolist() for name, values in found.items()} == {
        "x_doubled": [[0, 2, 4], [6, 8, 10]], "bias_doubled": [1.0]}
    assert found["x_doubled"].dtype == np.float32


def test_the_fake_is_asked_through_rest_and_tells_its_versions():
    with fake_model_server.running() as (rest, _):
        assert serving.state(rest, "net") == {3: "AVAILABLE"}
        found = serving.ask_rest(rest, "net", FEEDS, **ASKED)
        assert {name: values.tolist() for name, values in found.items()} == {
            "x_doubled": [[0, 2, 4], [6, 8, 10]], "bias_doubled": [1.0]}
        assert found["x_doubled"].dtype == np.float32
        assert list(serving.ask_rest(rest, "net", {"x": FEEDS["x"]}, **ASKED)) == ["outputs"]


def test_a_refusal_comes_in_the_servers_own_words():
    with fake_model_server.running() as (rest, grpc):
        with pytest.raises(ToolFailed, match="refuses: Servable not found") as caught:
            serving.ask_rest(rest, "net", FEEDS, signature="double", version=4)
        assert "version" in caught.value.remedy
        with pytest.raises(ToolFailed, match='"half" not found'):
            serving.ask_rest(rest, "net", FEEDS, signature="half", version=3)
        with pytest.raises(ToolFailed, match="NOT_FOUND: Servable not found"):
            serving.ask_grpc(grpc, "other", FEEDS, **ASKED)


def test_nobody_at_the_address_is_told():
    with pytest.raises(ToolFailed, match=r"No model server answers at 127\.0\.0\.1:9") as caught:
        serving.ask_rest("127.0.0.1:9", "net", FEEDS)
    assert "rest_api_port" in caught.value.remedy
    with pytest.raises(ToolFailed, match="UNAVAILABLE"):
        serving.ask_grpc("127.0.0.1:9", "net", FEEDS, timeout=5)


def test_without_the_server_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / "saved_model.pb").touch()
    with pytest.raises(MissingTool, match="not on the PATH") as caught, serving.serve(tmp_path / "net" / "1"):
        pass
    assert "tensorflow/serving" in caught.value.remedy


def test_a_folder_that_no_server_takes_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no version directory"), serving.serve(tmp_path):
        pass


def test_a_server_that_ends_at_once_brings_its_last_words(tmp_path, monkeypatch):
    program = tmp_path / serving.server.PROGRAM
    program.write_text("#!/bin/sh\necho FAKE server: $3 has no room\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    folder = tmp_path / "net" / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    with pytest.raises(ToolFailed, match="exit code 3") as caught, serving.serve(folder):
        pass
    assert "--model_name=net has no room" in caught.value.detail


def test_the_real_server_answers_through_rest_and_grpc(tmp_path):
    if not shutil.which(serving.server.PROGRAM):
        pytest.skip(f"{serving.server.PROGRAM} is not on the PATH: the client is tested against the FAKE server alone")
    folder = tensorflow_tiny.saved(tmp_path / "net" / "1")
    with serving.serve(folder) as server:
        for through in ("rest", "grpc"):
            answers = server.ask({"x": np.float32([[1, 0, 2]])}, through)
            assert answers["y"].tolist() == [[12, 15]]
            assert answers["sum"].tolist() == [27]
