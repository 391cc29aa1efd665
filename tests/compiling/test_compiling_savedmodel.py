"""Compiling to a SavedModel: same answers, names kept, a layout that is stated, and the layer named where it fails."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tool_environment
from onnx_graphs import FLOAT, line, node, save
from paddle_tiny import saved as paddle_saved
from tiny import conv_net

import kit
from kit import worker
from kit.compilation import CompileOptions, SavedModelOptions, compile
from kit.compiling import savedmodel_attempts
from kit.compiling.saved import Saved
from kit.compiling.savedmodel_answers import answers
from kit.compiling.savedmodel_convert import convert
from kit.errors import BadInput, MissingTool, ToolFailed
from kit.model import Model
from kit.record import load
from kit.runner import open_runner

SMALL = ("x=1,3,16,16",)
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def feed(seed=0, shape=(1, 3, 16, 16), name="x"):
    return {name: np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


@pytest.fixture(scope="module", autouse=True)
def environment():
    tool_environment.made()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("savedmodel")


@pytest.fixture(scope="module")
def source(folder):
    return conv_net(folder / "tiny.onnx")


@pytest.fixture(scope="module")
def compiled(source, folder):
    return compile(source, CompileOptions(target="savedmodel", bind=SMALL, threads=1, checks=2), runs=folder / "runs")


def test_it_is_a_version_directory_with_the_same_answers_at_any_batch(compiled, source):
    assert compiled
    assert compiled.verdict == "equal"
    assert max(row.relative for row in compiled.parity) <= 1e-5
    assert compiled.artifact.parts[-2:] == ("tiny", "1")
    assert (compiled.artifact / "saved_model.pb").is_file()
    assert compiled.saved.batch == "open"
    with open_runner(source, graph_level="none") as before, open_runner(compiled) as after:
        assert after.settings["runtime"].startswith("TensorFlow")
        assert [str(spec) for spec in after.inputs] == ["x float32[?, 3, 16, 16]"]
        assert [spec.name for spec in after.outputs] == ["y"]
        for batch in (1, 3):
            one = feed(7, (batch, 3, 16, 16))
            np.testing.assert_allclose(after(one)["y"], before(one)["y"], atol=1e-5)


def test_layout_batch_and_needs_are_stated_on_the_card_and_in_the_readme(compiled):
    text = str(compiled)
    assert compiled.facts()["batch"] == "open"
    for words in ("x NCHW", "y NCHW", "onnx2tf 1.29.24", "TensorFlow 2.19.1"):
        assert words in text
    readme = (compiled.manifest.parent / "README.md").read_text(encoding="utf-8")
    assert "`x`: NCHW" in readme
    assert "tensorflow_model_server --model_name=tiny" in readme


def test_manifest_and_files_name_no_folder_of_this_machine(compiled, folder):
    manifest = json.loads(compiled.manifest.read_text(encoding="utf-8"))
    assert manifest["artefact"]["file"] == "saved_model.pb"
    assert "tf_serving_warmup_requests" in [one["file"] for one in manifest["artefact"]["external"]]
    assert "SavedModelOptions(" in manifest["command"]
    for path in (*compiled.manifest.parent.glob("*.json"), compiled.script, compiled.manifest.parent / "README.md"):
        if path.name != "result.json":
            assert str(folder) not in path.read_text(encoding="utf-8"), path.name
    graph = (compiled.artifact / "saved_model.pb").read_bytes()
    assert str(folder).encode() not in graph
    assert not re.search(rb"/(home|root|Users)/", graph)


def test_the_script_runs_with_tensorflow_alone(compiled, tmp_path):
    np.savez(tmp_path / "feeds.npz", **feed(3))
    clean = {key: value for key, value in QUIET.items() if not key.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", str(compiled.script), str(tmp_path / "feeds.npz"),
                           str(tmp_path / "answers.npz")], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "y float32 [1, 1, 16, 16]\n"
    with open_runner(compiled) as run:
        np.testing.assert_allclose(np.load(tmp_path / "answers.npz")["y"], run(feed(3))["y"], atol=1e-6)


def test_warm_up_requests_are_what_tensorflows_own_reader_finds(compiled):
    path = compiled.artifact / "assets.extra" / "tf_serving_warmup_requests"
    records = worker.run(read_records, path, framework="tensorflow")
    assert len(records) == compiled.saved.warm_up == 3
    for model, signature, inputs in records:
        assert (model, signature) == ("tiny", "serving_default")
        assert {name: values.shape for name, values in inputs.items()} == {"x": (1, 3, 16, 16)}


def read_records(path):
    """Runs in the worker: TFRecord and TensorProto are read by TensorFlow itself."""
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    from kit.serving import messages

    kind = messages.message("tensorflow.serving.PredictionLog")
    found = []
    for record in tf.data.TFRecordDataset(str(path)):
        asked = kind.FromString(record.numpy()).predict_log.request
        inputs = {entry.key: tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value.SerializeToString()))
                  for entry in asked.inputs}
        found.append((asked.model_spec.name, asked.model_spec.signature_name, inputs))
    return found


def test_it_is_stored_and_verify_and_benchmark_take_it(compiled, source, folder):
    again = compile(source, CompileOptions(target="savedmodel", bind=SMALL, threads=1, checks=2), runs=folder / "runs")
    assert again == compiled == load(type(compiled), compiled.provenance.folder)
    assert kit.verify({"onnx": source, "savedmodel": compiled}, [feed(1), feed(2)], runs=folder / "runs")
    timed = kit.benchmark({"onnx": source, "savedmodel": compiled}, feed(), kit.BenchmarkOptions(rounds=5, runs=1),
                          runs=folder / "runs")
    assert timed.timing("savedmodel").settings["signature"] == "serving_default"


def test_channels_last_any_names_and_a_fixed_batch_as_asked(tmp_path):
    path = tmp_path / "odd.onnx"
    weights = {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)}
    save(path, [node("Conv", ["images/x:0", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["map.out/1"]),
                node("ReduceMean", ["c"], ["mean:0"], axes=[2, 3], keepdims=0),
                node("Mul", ["mean:0", "factor"], ["scaled"])],
         {"images/x:0": (FLOAT, ("N", 3, 8, 12)), "factor": (FLOAT, ("N", 4))},
         {"map.out/1": (FLOAT, None), "scaled": (FLOAT, None)}, weights)
    made = compile(path, SavedModelOptions(layout="NHWC", version=12, name="eyes", signature="look", batch=2, warm_up=5,
                                           checks=2), runs=tmp_path / "runs")
    assert made.verdict == "equal"
    assert made.artifact.parts[-2:] == ("eyes", "12")
    assert made.saved.inputs == {"images/x:0": "NHWC", "factor": "as in the ONNX model"}
    assert made.saved.outputs == {"map.out/1": "NHWC", "scaled": "as in the ONNX model"}
    assert (made.saved.batch, made.saved.warm_up) == ("2", 5)
    one = {"images/x:0": feed(1, (2, 3, 8, 12))["x"], "factor": np.float32([[1, 2, 3, 4], [5, 6, 7, 8]])}
    with open_runner(path, graph_level="none") as before, open_runner(made) as after:
        assert [str(spec) for spec in after.inputs] == ["factor float32[2, 4]", "images/x:0 float32[2, 8, 12, 3]"]
        want, have = before(one), after({**one, "images/x:0": one["images/x:0"].transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(have["map.out/1"].transpose(0, 3, 1, 2), want["map.out/1"], atol=1e-5)
    np.testing.assert_allclose(have["scaled"], want["scaled"], atol=1e-5)
    spec = json.loads(made.manifest.read_text(encoding="utf-8"))["inputs"][0]
    assert spec["example"] == [2, 8, 12, 3]


def test_a_batch_that_cannot_be_open_is_answered_item_by_item(source, tmp_path):
    model = Model.open(source)
    options = SavedModelOptions(bind=SMALL)
    feeds = [feed()]
    wanted = answers(model, feeds, graph_level="none")
    plan = savedmodel_attempts.plan_for(model, tmp_path / "each", options, feeds, wanted, "each", lambda tick: None)
    written = savedmodel_attempts.in_tool(convert, plan, lambda tick: None)
    rows = savedmodel_attempts.compare(plan, written, model, options, feeds, wanted)
    assert max(row.relative for row in rows) <= 1e-5
    with open_runner(plan.folder) as run, open_runner(source, graph_level="none") as before:
        assert [str(spec) for spec in run.inputs] == ["x float32[?, 3, 16, 16]"]
        np.testing.assert_allclose(run(feed(1, (3, 3, 16, 16)))["y"], before(feed(1, (3, 3, 16, 16)))["y"], atol=1e-5)


def test_a_paddle_model_enters_tensorflow_within_one_in_a_hundred_thousand(tmp_path):
    folder = paddle_saved("net")
    exported = kit.export(folder, runs=tmp_path / "runs")
    made = compile(exported, SavedModelOptions(bind=("x=1,3,32,32",), reference=folder, checks=2),
                   runs=tmp_path / "runs")
    assert "net (paddle)" in made.reference
    assert made.verdict == "equal"
    assert max(row.relative for row in made.parity) <= 1e-5
    assert max(row.l2 for row in made.parity) <= 1e-5
    assert made.saved.onnx, "the rows against the ONNX model in between are told too"
    assert str(folder) not in made.manifest.read_text(encoding="utf-8")


def test_where_the_answers_differ_the_first_layer_is_named(tmp_path):
    """onnx2tf 1.29.24 turns CumSum with exclusive and reverse into another sum."""
    weights = {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "axis": np.int64(1)}
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
                node("CumSum", ["r", "axis"], ["s"], name="the_sum", exclusive=1, reverse=1),
                node("Tanh", ["s"], ["y"]), weights=weights, shape=(1, 3, 8, 8))
    made = compile(path, SavedModelOptions(checks=1, warm_up=0), runs=tmp_path / "runs")
    assert not made
    assert made.verdict == "failed"
    gap = made.saved.diverging
    assert (gap.operator, gap.node, gap.tensor) == ("CumSum", "the_sum", "s")
    assert gap.relative > 1e-3
    before = [row for row in made.saved.layers if row.operator in ("Conv", "Relu")]
    assert before
    assert max(row.relative for row in before) <= 1e-5
    text = str(made)
    assert "DIFFERENT answers" in text
    assert "CumSum 'the_sum'" in text
    assert "Usual causes" in text
    assert not (made.artifact / "assets.extra").exists()


def test_what_onnx2tf_cannot_convert_is_said_with_the_operator_and_nothing_stays(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["r"]),
                node("FusedMatMul", ["r", "w"], ["y"], name="the_product", domain="com.microsoft", alpha=2.0),
                weights={"w": np.ones((4, 2), np.float32)}, shape=(3, 4), domains={"com.microsoft": 1})
    with pytest.raises(ToolFailed, match=r"onnx2tf cannot convert .*FusedMatMul") as caught:
        compile(path, SavedModelOptions(), runs=tmp_path / "runs")
    assert 'how="call"' in caught.value.remedy
    assert not list((tmp_path / "runs").rglob("saved_model.pb"))
    assert not list((tmp_path / "runs").rglob("work"))


def test_an_answer_of_another_shape_is_refused_with_the_layer(tmp_path):
    """onnx2tf 1.29.24 pads for SAME_LOWER along the wrong axes."""
    weights = {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)}
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
                node("AveragePool", ["c"], ["p"], name="the_pool", kernel_shape=[3, 3], strides=[2, 2],
                     auto_pad="SAME_LOWER"), node("Relu", ["p"], ["y"]), weights=weights, shape=(1, 3, 16, 16))
    with pytest.raises(ToolFailed, match="AveragePool 'the_pool'") as caught:
        compile(path, SavedModelOptions(checks=1), runs=tmp_path / "runs")
    assert "the ONNX model has [1, 4, 8, 8]" in caught.value.what


def test_without_the_environment_it_says_what_it_would_download(source, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("KIT_PYTHON_ONNX2TF", raising=False)
    with pytest.raises(MissingTool, match="environment of its own") as caught:
        compile(source, SavedModelOptions(bind=SMALL, install=False), runs=tmp_path / "runs")
    assert "333.0 MB" in caught.value.remedy


def test_samples_must_have_the_sizes(source, tmp_path):
    with pytest.raises(BadInput, match="No sample has the sizes") as caught:
        compile(source, SavedModelOptions(bind=SMALL), samples=[feed(0, (1, 3, 8, 8))], runs=tmp_path / "runs")
    assert "bind" in caught.value.remedy


@pytest.mark.parametrize("wrong", [{"name": "a/b"}, {"name": ".hidden"}, {"signature": ""}, {"layout": "NWHC"},
                                   {"version": 0}])
def test_options_that_no_server_would_take_are_refused(wrong):
    with pytest.raises(BadInput) as caught:
        SavedModelOptions(**wrong)
    assert caught.value.remedy


def test_a_misspelt_target_is_answered_with_it():
    with pytest.raises(BadInput) as caught:
        CompileOptions(target="savedmodle")
    assert "savedmodel" in caught.value.remedy


# ---- a SavedModel that calls an artefact --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calling(source, folder):
    fast = compile(source, CompileOptions(bind=SMALL, threads=1), runs=folder / "runs")
    return fast, compile(fast, SavedModelOptions(how="call", bind=SMALL, threads=1, checks=2, warm_up=2),
                         runs=folder / "runs")


def test_a_called_artefact_answers_as_it_does_alone(calling):
    fast, made = calling
    assert made.verdict == "equal"
    with open_runner(fast) as alone, open_runner(made) as run:
        one = feed(5, (2, 3, 8, 24))
        np.testing.assert_allclose(run(one)["y"], alone(one)["y"], atol=1e-6)
    assert (made.artifact / "assets.extra" / fast.model.path.name).is_file()


def test_it_says_what_must_be_installed_and_that_the_server_cannot_run_it(calling):
    _, made = calling
    readme = (made.manifest.parent / "README.md").read_text(encoding="utf-8")
    for text in (str(made), readme):
        assert "Python process with TensorFlow, numpy and onnxruntime" in text
        assert "TensorFlow Serving" in text
    with pytest.raises(BadInput, match="holds no Python"), kit.serving.serve(made):
        pass


def test_its_loader_works_in_a_fresh_process_after_moving_and_without_it_tensorflow_refuses(calling, tmp_path):
    _, made = calling
    place = shutil.copytree(made.artifact.parent, tmp_path / "moved") / "1"
    np.savez(tmp_path / "feeds.npz", **feed(3))
    clean = {key: value for key, value in QUIET.items() if not key.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", str(place / "assets.extra" / "kit_call.py"),
                           str(tmp_path / "feeds.npz"), str(tmp_path / "answers.npz")], cwd=tmp_path, env=clean,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with open_runner(made) as run:
        np.testing.assert_allclose(np.load(tmp_path / "answers.npz")["y"], run(feed(3))["y"], atol=1e-6)
    with pytest.raises(ToolFailed) as caught:
        worker.run(load_without, place, feed(3)["x"], framework="tensorflow")
    assert "Could not find callback with key=kit-" in caught.value.detail


def load_without(folder: Path, x):
    import tensorflow as tf

    return tf.saved_model.load(str(folder)).signatures["serving_default"](x=tf.constant(x))


def test_an_openvino_artefact_is_called_as_well(source, folder, tmp_path):
    made = compile(source, CompileOptions(target="openvino", precision="f32", bind=SMALL, threads=1),
                   runs=folder / "runs")
    called = compile(made, SavedModelOptions(how="call", bind=SMALL, threads=1, checks=1, warm_up=0),
                     runs=folder / "runs")
    assert called.verdict == "equal"
    assert "openvino" in called.saved.needs
    assert {path.suffix for path in (called.artifact / "assets.extra").iterdir()} == {".xml", ".bin", ".py", ".json"}


def test_a_layout_cannot_be_chosen_for_what_is_called(source, tmp_path):
    with pytest.raises(BadInput, match="takes what the artefact takes"):
        compile(source, SavedModelOptions(how="call", layout="NHWC", bind=SMALL), runs=tmp_path / "runs")


def test_nothing_is_known_of_layers_for_a_result_that_was_equal(compiled):
    assert isinstance(compiled.saved, Saved)
    assert compiled.saved.diverging is None
    assert not compiled.saved.layers
