"""Compiling for OpenVINO: same answers, a manifest and a script that stand alone, precisions read back."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import openvino
import pytest
import quantization_models
from onnx_graphs import line, node
from tiny import conv_net

import kit
from kit.compilation import CompileOptions, compile
from kit.compiled_files import sha256
from kit.errors import BadInput, UnsupportedModel
from kit.evidence.entries import entries
from kit.model import Model
from kit.record import load
from kit.runner import open_runner
from kit.runtimes import openvino as runtime

SMALL = ("x=1,3,16,16",)
OPTIONS = CompileOptions(target="openvino", precision="f32", bind=SMALL, threads=1)


@pytest.fixture
def compiled(tiny_onnx, tmp_path):
    return compile(tiny_onnx, OPTIONS, runs=tmp_path / "runs")


def feed(seed=0, shape=(1, 3, 16, 16)):
    return {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def qdq(path):
    weights = {"s": np.float32(0.05), "z": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0),
               "w": np.random.default_rng(0).integers(-90, 90, (8, 3, 3, 3)).astype(np.int8)}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["w", "ws", "wz"], ["v"]), node("Conv", ["d", "v"], ["c"]),
             node("QuantizeLinear", ["c", "s", "z"], ["r"]), node("DequantizeLinear", ["r", "s", "z"], ["y"])]
    return line(path, *nodes, weights=weights, shape=(1, 3, 16, 16))


def test_it_is_openvinos_own_format_with_the_same_answers(compiled, tiny_onnx):
    assert compiled
    assert compiled.verdict == "equal"
    assert (compiled.artifact.name, compiled.model.path.resolve()) == ("tiny.xml", tiny_onnx.resolve())
    assert compiled.artifact.with_suffix(".bin").is_file()
    assert compiled.reference == "the source in ONNX Runtime, not rewritten"
    with open_runner(tiny_onnx, graph_level="none") as before, open_runner(compiled) as after:
        np.testing.assert_allclose(after(feed(7))["y"], before(feed(7))["y"], atol=1e-5)
        shape = (2, 3, 8, 24)
        np.testing.assert_allclose(after(feed(7, shape))["y"], before(feed(7, shape))["y"], atol=1e-5)


def test_a_runner_uses_the_settings_it_was_compiled_with(compiled):
    with open_runner(compiled) as run:
        assert run.settings["runtime"].startswith("openvino")
        assert run.settings["precision"] == "f32"
        assert [spec.name for spec in (*run.inputs, *run.outputs)] == ["x", "y"]


def test_what_runs_in_which_precision_is_read_back(compiled):
    assert {layer.kind for layer in compiled.layers} >= {"Convolution"}
    assert "What runs in which precision" in str(compiled)
    assert "Slowest layers" in str(compiled)
    assert "BatchNormalization" in compiled.operators_before
    assert sum(compiled.operators_after.values()) == len(compiled.layers)


def test_a_quantized_model_stays_quantized_and_is_compared_in_the_same_runtime(tmp_path):
    made = compile(qdq(tmp_path / "int8.onnx"), CompileOptions(target="openvino", precision="f32"), runs=tmp_path)
    assert made.verdict == "equal"
    assert made.reference == "the source, run by OpenVINO too"
    assert [layer.precision for layer in made.layers if layer.kind == "Convolution"] == ["u8"]
    assert entries({"int8": made}, "candidate")[0].precision == "quantized"


def test_what_the_kit_quantized_is_exported_in_integers_and_told_layer_by_layer(tmp_path):
    path = quantization_models.conv_net(tmp_path / "net.onnx", channels=32)
    feeds = quantization_models.feeds(4)
    runs = tmp_path / "runs"
    int8 = kit.quantize(path, kit.calibrate(path, feeds, runs=runs), runs=runs)
    options = CompileOptions(target="openvino", precision="f32", threads=1)
    made, whole = (compile(model, options, runs=runs) for model in (int8, path))
    assert made.verdict == "equal"
    weights = [compiled.artifact.with_suffix(".bin").stat().st_size for compiled in (made, whole)]
    assert weights[0] < 0.5 * weights[1], "the weights are stored in 8 bits"
    precisions = [layer.precision for layer in made.layers if layer.kind == "Convolution"]
    assert precisions
    assert set(precisions) <= {"u8", "i8"}
    with open_runner(made.artifact, precision="f32", threads=1) as run:
        again = run.layers(feeds[0], 5)
    told = [{(one.name, one.precision) for one in found if one.kind == "Convolution"} for found in (again, made.layers)]
    assert told[0] == told[1]
    assert all(layer.ms >= 0 for layer in again)
    table = next(table for table in made.tables() if table.caption == "What runs in which precision")
    counted = {row[0]: row[1] for row in table.rows}
    assert sum(counted.values()) == len(made.layers)
    assert counted["u8"] >= len(precisions)


def test_rounding_that_was_chosen_is_told_and_not_judged(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, CompileOptions(target="openvino", bind=SMALL), runs=tmp_path)
    assert made.verdict == "equal", "the file is judged in FP32"
    taken = runtime.float_precision()
    assert bool(made.at_precision) is (taken != "f32")
    assert f"run in {taken} on this processor" in made.notes[0]
    assert entries({"m": made}, "candidate")[0].precision == ("float" if taken == "f32" else "half")


def test_weights_in_sixteen_bits_halve_the_file_and_are_told(tmp_path):
    path = conv_net(tmp_path / "wide.onnx", channels=256)
    whole, half = (compile(path, CompileOptions(target="openvino", precision="f32", bind=SMALL, half_weights=asked),
                           runs=tmp_path / "runs") for asked in (False, True))
    sizes = [made.artifact.with_suffix(".bin").stat().st_size for made in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert half.verdict == "equal"
    assert 0 < half.at_precision[0].relative < 0.01, "half precision keeps three digits"
    assert "16 bits" in half.notes[-1]


def test_the_manifest_names_both_files_and_how_to_run_them(compiled, tiny_onnx):
    manifest = json.loads(compiled.manifest.read_text(encoding="utf-8"))
    assert list(manifest) == ["format", "version", "target", "level", "portable", "source", "artefact", "inputs",
                              "outputs", "settings", "parity", "command", "environment"]
    assert manifest["source"]["sha256"] == sha256(tiny_onnx)
    assert manifest["artefact"]["sha256"] == sha256(compiled.artifact)
    beside, = manifest["artefact"]["external"]
    assert (beside["file"], beside["sha256"]) == ("tiny.bin", sha256(compiled.artifact.with_suffix(".bin")))
    assert manifest["settings"]["properties"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert manifest["settings"] == json.loads((compiled.manifest.parent / "session.json").read_text())
    assert manifest["environment"]["packages"]["openvino"]
    assert "target='openvino'" in manifest["command"]


def test_left_to_openvino_the_precision_is_left_to_the_machine_that_runs_it(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, CompileOptions(target="openvino", bind=SMALL), runs=tmp_path)
    assert "INFERENCE_PRECISION_HINT" not in json.loads(made.manifest.read_text())["settings"]["properties"]


def test_nothing_tells_who_or_where(compiled, tmp_path):
    for path in (*compiled.manifest.parent.glob("*.json"), compiled.script, compiled.artifact):
        if path.name != "result.json":
            assert str(tmp_path) not in path.read_text(encoding="utf-8"), path.name
            assert not re.search(r"/(home|root|tmp|Users|var|mnt)/", path.read_text(encoding="utf-8")), path.name


def test_the_script_runs_without_the_kit_and_gives_the_same_answers(compiled, tmp_path):
    np.savez(tmp_path / "feeds.npz", **feed(3))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", "-X", "importtime", str(compiled.script), str(tmp_path / "feeds.npz"),
                           str(tmp_path / "answers.npz")], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "y float32 [1, 1, 16, 16]\n"
    modules = {part.split("|")[-1].strip().partition(".")[0] for part in done.stderr.splitlines()}
    assert not modules & {"kit", "onnx", "onnxruntime"}
    with open_runner(compiled, threads=1) as run:
        np.testing.assert_array_equal(np.load(tmp_path / "answers.npz")["y"], run(feed(3))["y"])


def test_metadata_of_the_model_comes_along(tmp_path):
    path = conv_net(tmp_path / "tiny.onnx")
    proto = onnx.load(str(path))
    proto.metadata_props.add(key="character", value="甲\n乙\n丙 <&\"")
    onnx.save(proto, str(path))
    made = compile(Model.open(path), CompileOptions(target="openvino", bind=SMALL), runs=tmp_path)
    stored = openvino.Core().read_model(made.artifact)
    assert stored.get_rt_info(["onnx", "character"]).astype(str) == "甲\n乙\n丙 <&\""


def test_it_is_stored_and_a_second_call_gives_the_same(compiled, tiny_onnx, tmp_path):
    assert compile(tiny_onnx, OPTIONS, runs=tmp_path / "runs") == compiled
    again = load(type(compiled), compiled.provenance.folder)
    assert again.layers == compiled.layers
    assert compile(tiny_onnx, CompileOptions(bind=SMALL), runs=tmp_path / "runs").artifact is None


def test_verify_and_benchmark_take_it(compiled, tiny_onnx, tmp_path):
    verdict = kit.verify({"onnx": tiny_onnx, "openvino": compiled}, [feed(1), feed(2)], runs=tmp_path / "runs")
    assert verdict
    timed = kit.benchmark({"onnx": tiny_onnx, "openvino": compiled}, feed(), kit.BenchmarkOptions(rounds=5, runs=1),
                          runs=tmp_path / "runs")
    assert timed.timing("openvino").settings["precision"] == "f32"
    assert timed.timing("openvino").size == compiled.size


def test_operators_that_openvino_lacks_lead_to_the_audit(tmp_path):
    path = line(tmp_path / "m.onnx", node("Det", ["x"], ["y"]))
    with pytest.raises(UnsupportedModel, match="Det cannot be converted") as caught:
        compile(path, CompileOptions(target="openvino"), runs=tmp_path / "runs")
    assert "kit.audit" in caught.value.remedy
    assert not list((tmp_path / "runs").rglob("*.xml"))


def test_a_stage_that_works_on_onnx_refuses_it_with_the_remedy(compiled):
    with pytest.raises(BadInput, match="audit works on ONNX"):
        kit.audit(compiled)
