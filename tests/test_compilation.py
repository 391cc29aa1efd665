"""Compiling for ONNX Runtime: same answers, a manifest that can be trusted, a script that needs nothing else."""

import errno
import getpass
import json
import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx_graphs import FLOAT, line, node, save
from tiny import conv_net

from kit import compiled_files
from kit.compilation import CompileOptions, compile
from kit.compiled_files import sha256
from kit.compiling import onnxruntime as compiler
from kit.errors import BadInput, UnsupportedModel
from kit.model import Model
from kit.runner import open_runner

SMALL = ("x=1,3,16,16",)


@pytest.fixture
def compiled(tiny_onnx, tmp_path):
    return compile(tiny_onnx, CompileOptions(bind=SMALL, threads=1, spinning=False), runs=tmp_path / "runs")


def feed(seed=0, shape=(1, 3, 16, 16)):
    return {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def test_the_graph_is_rewritten_and_answers_stay_the_same(compiled, tiny_onnx):
    assert compiled
    assert compiled.verdict == "equal"
    assert compiled.measured_at == {"x": "1x3x16x16"}
    assert "BatchNormalization" in compiled.operators_before
    assert "BatchNormalization" not in compiled.operators_after
    with open_runner(tiny_onnx, graph_level="none") as before, open_runner(compiled) as after:
        np.testing.assert_allclose(after(feed(7))["y"], before(feed(7))["y"], atol=1e-5)


def test_a_runner_uses_the_settings_it_was_compiled_with(compiled):
    with open_runner(compiled) as run:
        assert run.settings["graph level"] == compiled.settings.graph_level
        assert run.settings["providers"] == ", ".join(compiled.settings.providers)
    with open_runner(compiled, graph_level="basic") as run:
        assert run.settings["graph level"] == "basic", "what is asked for goes first"


def test_the_same_file_with_other_settings_is_another_candidate(tiny_onnx, tmp_path):
    from kit.evidence.entries import entries

    made = [compile(tiny_onnx, CompileOptions(bind=SMALL, spinning=on), runs=tmp_path) for on in (True, False)]
    first, second = (entries({"a": one}, "candidate")[0].digest() for one in made)
    assert first != second


def test_the_manifest_has_its_stable_layout(compiled, tiny_onnx):
    manifest = json.loads(compiled.manifest.read_text(encoding="utf-8"))
    assert list(manifest) == ["format", "version", "target", "level", "portable", "source", "artefact", "inputs",
                              "outputs", "settings", "parity", "command", "environment"]
    assert manifest["version"] == 1
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 3, "H", "W"],
                                   "example": [1, 3, 16, 16]}]
    assert manifest["settings"] == json.loads((compiled.manifest.parent / "session.json").read_text())
    assert manifest["settings"]["threads"] == 1
    assert manifest["settings"]["spinning"] is False
    assert manifest["parity"]["verdict"] == "equal"
    assert manifest["environment"]["packages"]["onnxruntime"]
    assert manifest["environment"]["packages"]["numpy"] == np.__version__


def test_the_hashes_are_those_of_the_files(compiled, tiny_onnx):
    manifest = json.loads(compiled.manifest.read_text(encoding="utf-8"))
    for part, path in (("source", tiny_onnx), ("artefact", compiled.model.path)):
        assert manifest[part]["sha256"] == sha256(path)
        assert manifest[part]["bytes"] == path.stat().st_size
        assert manifest[part]["file"] == path.name


def test_the_command_in_the_manifest_makes_the_same_again(compiled, tiny_onnx, tmp_path, monkeypatch):
    import kit

    command = json.loads(compiled.manifest.read_text())["command"]
    assert command.startswith("kit.compile('tiny.onnx', kit.CompileOptions(")
    monkeypatch.chdir(tiny_onnx.parent)
    again = eval(command.removesuffix(")") + ", runs='again')", {"kit": kit})
    assert sha256(again.model.path) == sha256(compiled.model.path)
    assert again.provenance.options == compiled.provenance.options


def test_nothing_tells_who_or_where(compiled, tmp_path):
    for name in ("manifest.json", "session.json", "run.py"):
        text = (compiled.manifest.parent / name).read_text(encoding="utf-8")
        assert str(tmp_path) not in text
        assert not re.search(r"/(home|root|tmp|Users|var|mnt)/|[A-Z]:\\\\", text)
        assert getpass.getuser() not in re.findall(r"\w+", text)


def test_the_script_runs_without_the_kit_and_gives_the_same_answers(compiled, tmp_path):
    np.savez(tmp_path / "feeds.npz", **feed(3))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-P", "-X", "importtime", str(compiled.script), str(tmp_path / "feeds.npz"),
                           str(tmp_path / "answers.npz")], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "y float32 [1, 1, 16, 16]\n"
    modules = {part.split("|")[-1].strip().partition(".")[0] for part in done.stderr.splitlines()}
    assert not modules & {"kit", "onnx"}, "it stands on onnxruntime and numpy alone"
    with open_runner(compiled) as run:
        np.testing.assert_array_equal(np.load(tmp_path / "answers.npz")["y"], run(feed(3))["y"])


def test_the_script_makes_its_own_feed_when_it_gets_none(compiled):
    done = subprocess.run([sys.executable, str(compiled.script)], capture_output=True, text=True)
    assert done.stdout == "y float32 [1, 1, 16, 16]\n", done.stderr


def test_a_stored_layout_is_recognised_and_not_rewritten_again(tmp_path):
    model = conv_net(tmp_path / "wide.onnx", channels=32)
    extended, stored = (compile(model, CompileOptions(level=level, bind=SMALL), runs=tmp_path / "runs")
                        for level in ("extended", "all"))
    assert extended.portable
    assert extended.settings.graph_level == "all"
    has_layout = any(name.startswith(compiler.NCHWC) for name in stored.operators_after)
    assert stored.portable is not has_layout
    if has_layout:  # the processor decides
        assert stored.settings.graph_level == "none"
        assert "another vector width" in str(stored)
    assert stored


def test_a_second_call_is_instant_and_other_options_are_another_folder(compiled, tiny_onnx, tmp_path, monkeypatch):
    options = CompileOptions(bind=SMALL, threads=1, spinning=False)
    other = compile(tiny_onnx, CompileOptions(bind=SMALL, threads=2), runs=tmp_path / "runs")
    assert other.provenance.folder != compiled.provenance.folder
    monkeypatch.setattr(compiler, "_optimise", lambda *_: pytest.fail("it was compiled again"))
    assert compile(tiny_onnx, options, runs=tmp_path / "runs") == compiled


def test_metadata_and_lineage_come_along(tmp_path):
    path = conv_net(tmp_path / "tiny.onnx")
    proto = onnx.load(str(path))
    proto.metadata_props.add(key="character", value="甲乙丙")
    onnx.save(proto, str(path))
    made = compile(Model.open(path), CompileOptions(bind=SMALL), runs=tmp_path)
    assert made.model.metadata["character"] == "甲乙丙"
    assert [step.stage for step in made.model.lineage] == ["compile"]
    assert made.model.inputs == Model.open(path).inputs


def test_external_weights_stay_external(tmp_path):
    path = conv_net(tmp_path / "tiny.onnx", channels=64)
    onnx.save(onnx.load(str(path)), str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.weights",
              size_threshold=0)
    made = compile(tmp_path / "big.onnx", CompileOptions(bind=SMALL), runs=tmp_path / "runs")
    manifest = json.loads(made.manifest.read_text())
    assert [entry["file"] for entry in manifest["source"]["external"]] == ["big.weights"]
    beside = manifest["artefact"]["external"]
    assert [entry["sha256"] for entry in beside] == [sha256(made.model.path.parent / entry["file"]) for entry in beside]
    assert beside
    assert subprocess.run([sys.executable, str(made.script)], capture_output=True).returncode == 0


def test_a_quantized_model_is_compared_at_its_own_level(tmp_path):
    weights = {"s": np.float32(0.05), "z": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0),
               "w": np.random.default_rng(0).integers(-90, 90, (8, 4, 3, 3)).astype(np.int8)}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["w", "ws", "wz"], ["v"]), node("Conv", ["d", "v"], ["c"]),
             node("QuantizeLinear", ["c", "s", "z"], ["r"]), node("DequantizeLinear", ["r", "s", "z"], ["y"])]
    made = compile(line(tmp_path / "int8.onnx", *nodes, weights=weights), runs=tmp_path)
    assert made
    assert made.reference == "the source rewritten to the same level"
    assert "quantized" in " ".join(made.notes)


def test_integer_inputs_are_fed_too(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Gather", ["table", "ids"], ["y"])], {"ids": (7, ["N", "length"])},
                {"y": (FLOAT, None)}, {"table": np.ones((4, 2), np.float32)})
    assert compile(path, runs=tmp_path).measured_at == {"ids": "1x64"}


def test_changed_answers_make_the_result_false(tiny_onnx, tmp_path, monkeypatch):
    def spoilt(source, path, level, providers):
        proto = onnx.load(str(source.path))
        first = proto.graph.initializer[0]
        first.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(first) * 1.5, first.name))
        onnx.save(proto, str(path))

    monkeypatch.setattr(compiler, "_optimise", spoilt)
    made = compile(tiny_onnx, CompileOptions(bind=SMALL), runs=tmp_path)
    assert not made
    assert "DIFFERENT answers" in made.title()
    assert "Usual causes" in str(made)


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_an_unknown_target_is_answered_with_the_closest():
    with pytest.raises(BadInput) as caught:
        CompileOptions(target="onnx-runtime")
    assert "onnxruntime" in caught.value.remedy


def test_a_truncated_file_and_missing_weights_are_named(tiny_onnx, tmp_path):
    onnx.save(onnx.load(str(tiny_onnx)), str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.data",
              size_threshold=0)
    (tmp_path / "big.data").unlink()
    with pytest.raises(BadInput, match=r"big\.data"):
        compile(tmp_path / "big.onnx", runs=tmp_path / "runs")
    tiny_onnx.write_bytes(tiny_onnx.read_bytes()[:300])
    with pytest.raises(BadInput, match=r"tiny\.onnx"):
        compile(tiny_onnx, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_model_that_the_runtime_refuses_leads_to_the_audit(tmp_path):
    path = line(tmp_path / "m.onnx", node("Frobnicate", ["x"], ["y"]))
    with pytest.raises(UnsupportedModel) as caught:
        compile(path, runs=tmp_path / "runs")
    assert "kit.audit" in caught.value.remedy
    assert not list((tmp_path / "runs").rglob("*.onnx"))


def test_a_size_that_the_model_cannot_take_asks_for_another(tmp_path):
    nodes = [node("Reshape", ["x", "eight"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    path = line(tmp_path / "m.onnx", *nodes, shape=("N", "C"), weights={"eight": np.int64([-1, 8]),
                                                                        "w": np.ones((8, 2), np.float32)})
    with pytest.raises(BadInput, match="does not run at x=1,13") as caught:
        compile(path, CompileOptions(bind=("x=1,13",)), runs=tmp_path / "runs")
    assert "bind=" in caught.value.remedy


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "No permission")])
def test_a_full_disk_or_a_missing_permission_loses_nothing(tiny_onnx, tmp_path, monkeypatch, number, words):
    kept = compile(tiny_onnx, CompileOptions(bind=SMALL), runs=tmp_path / "runs")

    def refuse(path, text):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(compiled_files, "_write", refuse)
    with pytest.raises(BadInput, match=words):
        compile(tiny_onnx, CompileOptions(bind=SMALL, threads=1), runs=tmp_path / "runs")
    assert [p for p in (tmp_path / "runs" / "tiny").iterdir()] == [kept.provenance.folder]


def test_a_really_full_disk_is_said_to_be_full(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that this user has not")
    try:
        with pytest.raises(BadInput, match="disk is full"):
            compile(conv_net(tmp_path / "wide.onnx", channels=2048), CompileOptions(bind=SMALL), runs=small)
        assert not list(small.rglob("*.onnx"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
