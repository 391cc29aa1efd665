"""The bundle for an Ascend chip: what is refused, what is written, built by a FAKE atc, and the way back."""

import getpass
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx_graphs import FLOAT, node, save
from tiny import conv_net

import kit
from kit.ascend.box import rehearsing
from kit.ascend.box.box_script import script_text
from kit.ascend.box.rehearsal import rehearse
from kit.ascend.box.results import load_results
from kit.ascend.bundling.bundle import BundleOptions
from kit.ascend.bundling.golden_samples import goldens
from kit.compilation import CompileOptions, compile
from kit.compiled_files import sha256
from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.progress import Cancelled
from kit.runner import open_runner
from kit.samples import Preprocess, Samples

SMALL = ("x=1x3x16x16",)
FEEDS = [{"x": np.random.default_rng(n).normal(size=(1, 3, 16, 16)).astype(np.float32)} for n in range(5)]


@pytest.fixture(autouse=True)
def no_atc(monkeypatch):
    """A real atc on this machine must not take part."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the bundle that most tests look at was made: the model, and ``runs``."""
    folder = tmp_path_factory.mktemp("home")
    conv_net(folder / "tiny.onnx")
    return folder


@pytest.fixture(scope="module")
def compiled(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        return compile(home / "tiny.onnx", BundleOptions(goldens=3), samples=FEEDS, runs=home / "runs")


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "pictures").mkdir()
    for n in range(4):
        picture = np.random.default_rng(n).integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"slip_{n}.png"), picture)
    return Samples.from_folder(tmp_path / "pictures", Preprocess(size=(16, 16), channels="RGB"))


def about(made):
    return json.loads((made.bundle.folder / "bundle.json").read_text(encoding="utf-8"))


def gelu_net(path):
    """Conv and Gelu at opset 20, for which ATC has no parser."""
    weights = {"w": np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)}
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Gelu", ["c"], ["y"])]
    return save(path, nodes, {"x": (FLOAT, ("N", 3, "H", "W"))}, {"y": (FLOAT, None)}, weights, opset=20, ir_version=9)


# ---- what is written ----------------------------------------------------------------------------------------------


def test_the_result_says_that_nothing_was_built_here(compiled):
    assert compiled
    assert compiled.title() == "tiny: bundle for Ascend310P3, not built here"
    assert compiled.facts()["on the box"] == "python3 run_on_box.py"
    assert compiled.parity == ()
    assert compiled.reference == "copied byte for byte from the file given"
    assert compiled.bundle.om is None


def test_the_folder_holds_all_that_the_box_needs(compiled, home):
    names = {path.relative_to(compiled.bundle.folder).as_posix() for path in compiled.bundle.folder.rglob("*")
             if path.is_file()}
    assert names == {"README.md", "bundle.json", "run_on_box.py", "explain.json", "model/tiny.onnx", "config/atc.sh",
                     "goldens/000.npz", "goldens/001.npz", "goldens/002.npz"}
    assert sha256(compiled.bundle.folder / "model" / "tiny.onnx") == sha256(home / "tiny.onnx")
    assert compiled.bundle.files == len(names)
    assert compiled.bundle.size == sum((compiled.bundle.folder / name).stat().st_size for name in names)
    assert compiled.script.read_text(encoding="utf-8") == script_text()


def test_the_manifest_has_its_stable_layout(compiled):
    found = about(compiled)
    assert list(found) == ["format", "version", "name", "soc_version", "cann", "precision", "model", "atc", "inputs",
                           "outputs", "profiles", "batches", "preprocess", "goldens", "tolerances", "benchmark", "int8",
                           "files"]
    assert (found["format"], found["version"]) == ("kit-ascend-bundle", 1)
    assert found["atc"] == {"argv": ["atc", "--model=model/tiny.onnx", "--framework=5", "--input_shape=x:1,3,16,16",
                                     "--output=om/tiny", "--soc_version=Ascend310P3"], "output": "om/tiny"}
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 16, 16]}]
    assert found["profiles"] == {"kind": "static", "values": []}
    assert found["batches"] == [1]
    assert [entry["name"] for entry in found["goldens"]] == ["sample 0", "sample 2", "sample 4"]
    assert found["int8"]["route"] == "none"
    assert found["files"] == {name: sha256(compiled.bundle.folder / name) for name in found["files"]}


def test_golden_answers_are_those_of_the_float_model(compiled, home):
    found = goldens(compiled)
    with open_runner(home / "tiny.onnx", graph_level="none") as run:
        for at, number in enumerate((0, 2, 4)):
            np.testing.assert_array_equal(found[at]["x"], FEEDS[number]["x"])
            np.testing.assert_allclose(found.answers(at)["y"], run(FEEDS[number])["y"], atol=1e-6)


def test_nothing_tells_who_or_where(compiled, home):
    for path in compiled.bundle.folder.rglob("*"):
        if path.suffix in (".json", ".md", ".sh", ".cfg"):
            text = path.read_text(encoding="utf-8")
            assert str(home) not in text, path.name
            assert not re.search(r"/(home|root|tmp|Users|var|mnt)/", text), path.name
            assert getpass.getuser() not in re.findall(r"\w+", text), path.name


def test_plain_compile_options_make_the_same_bundle(compiled, home):
    made = compile(home / "tiny.onnx", CompileOptions(target="Ascend310P3"), samples=FEEDS, runs=home / "runs")
    assert made.bundle.goldens == 5
    assert made.bundle.atc == compiled.bundle.atc


def test_a_second_call_is_instant_and_other_samples_are_another_bundle(compiled, home, monkeypatch):
    from kit.compiling import ascend

    other = compile(home / "tiny.onnx", BundleOptions(goldens=3), samples=FEEDS[1:], runs=home / "runs")
    assert other.provenance.key != compiled.provenance.key
    monkeypatch.setattr(ascend, "make", lambda *_, **__: pytest.fail("it was made again"))
    again = compile(home / "tiny.onnx", BundleOptions(goldens=3), samples=FEEDS, runs=home / "runs")
    assert again == compiled
    assert again.title() == compiled.title()


def test_without_samples_the_inputs_are_made_up_and_the_notes_say_so(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, BundleOptions(shapes=SMALL, goldens=2), runs=tmp_path)
    assert [entry["name"] for entry in about(made)["goldens"]] == ["made-up 0", "made-up 1"]
    assert "made up" in " ".join(made.notes)
    assert "made up" in (made.bundle.folder / "README.md").read_text(encoding="utf-8")


def test_batches_become_profiles_with_golden_inputs_of_one(tiny_onnx, tmp_path):
    found = about(compile(tiny_onnx, BundleOptions(batches=(1, 4)), samples=FEEDS, runs=tmp_path))
    assert "--dynamic_batch_size=1,4" in found["atc"]["argv"]
    assert found["inputs"][0]["shape"] == [-1, 3, 16, 16]
    assert found["profiles"] == {"kind": "batch", "values": [[1], [4]]}
    assert found["batches"] == [1, 4]


def test_external_weights_stay_outside_the_file(tmp_path):
    path = conv_net(tmp_path / "tiny.onnx", channels=64)
    onnx.save(onnx.load(str(path)), str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.weights",
              size_threshold=0)
    made = compile(tmp_path / "big.onnx", BundleOptions(goldens=1), samples=FEEDS, runs=tmp_path / "runs")
    there = sorted(path.name for path in (made.bundle.folder / "model").iterdir())
    assert there == ["big.onnx", "big.weights"]
    assert about(made)["files"]["model/big.weights"] == sha256(tmp_path / "big.weights")


def test_with_aipp_bytes_go_in_and_answers_are_those_of_the_float_preprocessing(tiny_onnx, samples, tmp_path):
    made = compile(tiny_onnx, BundleOptions(aipp=True, goldens=2), samples=samples, runs=tmp_path / "runs")
    found = about(made)
    assert "--insert_op_conf=config/aipp.cfg" in found["atc"]["argv"]
    assert found["inputs"] == [{"name": "x", "dtype": "uint8", "shape": [1, 16, 16, 3]}]
    with np.load(made.bundle.folder / "goldens" / "000.npz") as kept:
        np.testing.assert_array_equal(kept["in:x"][0], samples.preprocess.resized(samples.items[0].load()))
        with open_runner(tiny_onnx, graph_level="none") as run:
            np.testing.assert_allclose(kept["out:y"], run(samples[0])["y"], atol=1e-6)
    golden = goldens(made)
    assert [item.name for item in golden.items] == ["slip_0.png", "slip_3.png"]
    np.testing.assert_array_equal(golden[1]["x"], samples[3]["x"])
    assert [item.name for item in goldens(made, samples).items] == ["slip_0.png", "slip_3.png"]
    assert "differ from the Preprocess by" in made.bundle.aipp


def test_a_line_that_the_host_pads_keeps_its_own_floats(tiny_onnx, samples, tmp_path):
    lines = Samples(samples.items, Preprocess(resize="height", size=(16, 64), multiple=32, channels="RGB"))
    made = compile(tiny_onnx, BundleOptions(aipp=True, goldens=2), samples=lines, runs=tmp_path / "runs")
    np.testing.assert_array_equal(goldens(made)[0]["x"], lines[0]["x"])
    assert rehearse(made, into=tmp_path / "back")


def test_a_fix_is_compared_with_its_source(tmp_path):
    fixed = kit.fix(gelu_net(tmp_path / "gelu.onnx"), kit.FixOptions(target="ascend310p3"), runs=tmp_path / "runs")
    made = compile(fixed, BundleOptions(goldens=2), samples=FEEDS, runs=tmp_path / "runs")
    assert made
    assert "both in ONNX Runtime, on 2 golden inputs" in made.reference
    assert [row.name for row in made.parity] == ["y"]
    assert 0 <= made.parity[0].relative < 1e-5
    assert "Gelu" in made.operators_before
    assert "Gelu" not in made.operators_after
    assert [step.stage for step in made.model.lineage] == ["fix", "compile"]
    (tmp_path / "gelu.onnx").unlink()
    moved = compile(fixed, BundleOptions(goldens=1), samples=FEEDS, runs=tmp_path / "runs")
    assert "as measured then" in moved.reference
    assert moved.parity == fixed.parity


# ---- INT8 routes --------------------------------------------------------------------------------------------------


def test_amct_calibrates_on_the_box_and_atc_reads_what_it_wrote(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, BundleOptions(int8="amct", keep_float=("conv2",), goldens=2), samples=FEEDS,
                   runs=tmp_path / "runs")
    int8, argv = about(made)["int8"], about(made)["atc"]["argv"]
    assert int8["route"] == "amct"
    assert int8["steps"][0][:4] == ["amct_onnx", "calibration", "--model", "model/tiny.onnx"]
    assert "--model=amct/model_deploy_model.onnx" in argv
    assert len([name for name in int8["files"] if name.endswith(".bin")]) == 5
    assert all((made.bundle.folder / name).is_file() for name in int8["files"])
    assert 'skip_layers : "conv2"' in (made.bundle.folder / "config" / "amct.cfg").read_text()
    lines = (made.bundle.folder / "config" / "atc.sh").read_text().splitlines()
    assert next(n for n, line in enumerate(lines) if line.startswith("amct_onnx")) < lines.index("atc \\")
    assert rehearse(made, into=tmp_path / "back")


def test_the_dearest_layers_of_a_sensitivity_stay_in_float(tiny_onnx, tmp_path):
    measured = kit.calibrate(tiny_onnx, FEEDS, runs=tmp_path / "runs")
    ranking = kit.sensitivity(tiny_onnx, measured, runs=tmp_path / "runs")
    made = compile(tiny_onnx, BundleOptions(int8="amct", share=0.05, goldens=1), samples=FEEDS, sensitivity=ranking,
                   runs=tmp_path / "runs")
    kept = (made.bundle.folder / "config" / "amct.cfg").read_text()
    assert f'skip_layers : "{ranking.groups[0].nodes[0]}"' in kept


def test_atc_calibrates_with_the_batch_that_it_builds_for(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, BundleOptions(int8="atc", batches=(4,), goldens=2), samples=FEEDS, runs=tmp_path / "runs")
    assert "--compression_optimize_conf=config/compression.cfg" in about(made)["atc"]["argv"]
    assert "input_shape: x:4,3,16,16" in (made.bundle.folder / "config" / "compression.cfg").read_text()
    assert rehearse(made, into=tmp_path / "back"), "golden inputs of one sample are filled up to the batch"
    with pytest.raises(BadInput, match="one batch of 8, and 5 samples fit"):
        compile(tiny_onnx, BundleOptions(int8="atc", batches=(8,)), samples=FEEDS, runs=tmp_path / "runs")


def test_a_qdq_model_goes_in_the_form_that_amct_takes(tiny_onnx, tmp_path):
    runs = tmp_path / "runs"
    int8 = kit.quantize(tiny_onnx, kit.calibrate(tiny_onnx, FEEDS, runs=runs), runs=runs)
    made = compile(int8, BundleOptions(int8="qat", goldens=2), samples=FEEDS, runs=runs)
    assert about(made)["int8"]["steps"][0][:2] == ["amct_onnx", "convert"]
    assert "the QDQ model given" in made.reference
    assert made.verdict in ("equal", "warning")
    assert "QDQ model" in " ".join(made.notes)
    assert rehearse(made, into=tmp_path / "back")
    with pytest.raises(UnsupportedModel, match="has no parser for DequantizeLinear") as caught:
        compile(int8, BundleOptions(goldens=1), samples=FEEDS, runs=runs)
    assert 'int8="qat"' in caught.value.remedy


@pytest.mark.parametrize(("wrong", "words"), [
    ({"batches": (1, 4)}, "takes no profiles"), ({"precision": "origin"}, "exclude each other"),
    ({"keep_float": ("conv9",)}, "no node named 'conv9'")])
def test_what_int8_excludes_is_refused(tiny_onnx, tmp_path, wrong, words):
    with pytest.raises(BadInput, match=words):
        compile(tiny_onnx, BundleOptions(int8="amct", **wrong), samples=FEEDS, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="there are none"):
        compile(tiny_onnx, BundleOptions(int8="amct", shapes=SMALL), runs=tmp_path / "runs")


# ---- mixed precision ----------------------------------------------------------------------------------------------


def overflowing(path):
    """A MatMul whose product leaves float16."""
    weights = {"w": np.full((8, 8), 600, np.float32), "s": np.full((8, 8), 1e-4, np.float32)}
    return save(path, [node("MatMul", ["x", "w"], ["big"], "large"), node("MatMul", ["big", "s"], ["y"], "small")],
                {"x": (FLOAT, ("N", 8))}, {"y": (FLOAT, None)}, weights)


def test_what_leaves_float16_is_kept_precise(tmp_path):
    path, runs = overflowing(tmp_path / "big.onnx"), tmp_path / "runs"
    feeds = [{"x": np.full((1, 8), 20 + n, np.float32)} for n in range(3)]
    measured = kit.calibrate(path, feeds, runs=runs)
    made = compile(path, BundleOptions(goldens=1), samples=feeds, calibration=measured, runs=runs)
    assert "--keep_dtype=config/keep_dtype.cfg" in about(made)["atc"]["argv"]
    assert set((made.bundle.folder / "config" / "keep_dtype.cfg").read_text().split()) == {"large", "small"}
    assert "2 kept precise by --keep_dtype" in made.bundle.precision
    calm = compile(path, BundleOptions(goldens=1), samples=feeds, runs=runs)
    assert "keep_dtype" not in calm.bundle.atc


def test_named_nodes_are_kept_by_type_under_mixed_precision(tiny_onnx, tmp_path):
    made = compile(tiny_onnx, BundleOptions(keep_float=("sigmoid",), keep_by="mixlist", precision="mixed_float16",
                                            goldens=1), samples=FEEDS, runs=tmp_path / "runs")
    assert "--modify_mixlist=config/mixlist.json" in about(made)["atc"]["argv"]
    assert json.loads((made.bundle.folder / "config" / "mixlist.json").read_text())["black-list"]["to-add"]
    with pytest.raises(BadInput, match="no effect with precision='fp16'"):
        compile(tiny_onnx, BundleOptions(keep_float=("sigmoid",), keep_by="mixlist"), samples=FEEDS,
                runs=tmp_path / "runs")


# ---- what is refused ----------------------------------------------------------------------------------------------


def kept(folder):
    return list(folder.rglob("compile-*")) + list(folder.rglob(".compile-*"))


def test_a_model_with_errors_is_refused_with_what_repairs_it_unless_forced(tmp_path):
    path = gelu_net(tmp_path / "gelu.onnx")
    with pytest.raises(UnsupportedModel, match=r"gelu.onnx cannot be built for Ascend310P3 as it is") as caught:
        compile(path, BundleOptions(), samples=FEEDS, runs=tmp_path / "runs")
    assert 'kit.fix(model, kit.FixOptions(target="ascend310p3"))' in caught.value.remedy
    assert "split-gelu" in caught.value.remedy
    assert "Gelu" in caught.value.detail
    assert not kept(tmp_path)
    made = compile(path, BundleOptions(force=True, goldens=1), samples=FEEDS, runs=tmp_path / "runs")
    assert "error" in made.bundle.audited


@pytest.mark.parametrize(("wrong", "words"), [
    ({"extra": ("--enable_paddle_opt=1",)}, "enable_paddle_opt"),
    ({"extra": ("--soc_version=Ascend310",)}, "a field"),
    ({"extra": ("--precision_mode_v2=fp16",)}, "a field"),
    ({"batches": tuple(range(1, 102))}, "101 profiles"),
    ({"batches": (2, 2)}, "twice"),
    ({"profiles": ("1x16x16", "1x16")}, "whole numbers"),
    ({"precision": "mixed_hif8"}, "mixed_hif8"),
    ({"cann": "eight"}, "eight"),
    ({"aipp": True}, "how pictures are prepared"),
    ({"shapes": ("x=1x3x24x24",)}, "No sample fits"),
])
def test_what_atc_would_refuse_is_refused_here_with_the_valid_choices(tiny_onnx, tmp_path, wrong, words):
    with pytest.raises(BadInput, match=words) as caught:
        compile(tiny_onnx, BundleOptions(**wrong), samples=FEEDS, runs=tmp_path / "runs")
    assert caught.value.remedy
    assert not kept(tmp_path)


def test_aipp_that_does_not_fit_the_model_is_refused(samples, tmp_path):
    path = save(tmp_path / "grey.onnx", [node("Relu", ["x"], ["y"])], {"x": (FLOAT, (1, 1, 16, 16))},
                {"y": (FLOAT, None)})
    with pytest.raises(BadInput):
        compile(path, BundleOptions(aipp=True), samples=samples, runs=tmp_path / "runs")
    wide = save(tmp_path / "wide.onnx", [node("Relu", ["x"], ["y"])], {"x": (FLOAT, (1, 3, 16, 32))},
                {"y": (FLOAT, None)})
    with pytest.raises(BadInput, match="16"):
        compile(wide, BundleOptions(aipp=True), samples=samples, runs=tmp_path / "runs")


def test_no_samples_at_all_and_a_model_of_another_kind_are_refused(tiny_onnx, tmp_path):
    with pytest.raises(BadInput, match="no samples"):
        compile(tiny_onnx, BundleOptions(), samples=[], runs=tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        compile(tmp_path / "none.onnx", BundleOptions(), samples=FEEDS, runs=tmp_path)


def test_a_bundle_is_not_run_here_under_another_name(compiled):
    with pytest.raises(BadInput, match="not built here") as caught:
        open_runner(compiled)
    assert "compiled.model" in caught.value.remedy
    with open_runner(compiled.model) as run:
        assert run.settings["runtime"].startswith("onnxruntime")


# ---- built here ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_atc(tmp_path, monkeypatch):
    for name, value in rehearsing.install(tmp_path / "box", soc="Ascend310P3", cann="8.1.RC1").items():
        monkeypatch.setenv(name, value)


def stub(tmp_path, monkeypatch, body):
    """An ``atc`` on the PATH that does what a test wants of it."""
    path = tmp_path / "bin" / "atc"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n# FAKE\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_with_an_atc_on_the_path_it_is_built_here_and_a_fake_one_is_called_fake(tiny_onnx, tmp_path, fake_atc):
    heard = []
    made = compile(tiny_onnx, BundleOptions(goldens=1), samples=FEEDS, runs=tmp_path / "runs", report=heard.append)
    assert made.title().startswith("tiny: bundle for Ascend310P3, FAKE build, of no use on a device (FAKE atc")
    assert made.artifact.name == "tiny.om"
    assert made.artifact.is_file()
    assert "FAKE .om" in made.facts()
    assert any("ATC run success" in line for line in made.bundle.log_tail.splitlines())
    assert any("running atc" in tick.note for tick in heard)
    plain = compile(tiny_onnx, BundleOptions(goldens=1, build=False), samples=FEEDS, runs=tmp_path / "runs")
    assert plain.bundle.state == "not built here"
    page = kit.report([made], kit.ReportOptions(charts=False), runs=tmp_path / "runs")
    assert "FAKE" in page.warnings[0]


def test_what_atc_refuses_is_explained_and_nothing_is_kept(tiny_onnx, tmp_path, monkeypatch):
    stub(tmp_path, monkeypatch, "print('E10016: [PID: 1] Opname [y] specified in input_shape is not found'); exit(1)")
    with pytest.raises(ToolFailed, match=r"step build: .*E10016") as caught:
        compile(tiny_onnx, BundleOptions(goldens=1), samples=FEEDS, runs=tmp_path / "runs")
    assert "build=False" in caught.value.remedy
    assert "Opname [y]" in caught.value.detail
    assert caught.value.what.startswith("FAKE atc: ")
    assert not kept(tmp_path)


def test_a_cancel_ends_atc_and_leaves_nothing(tiny_onnx, tmp_path, monkeypatch):
    note = tmp_path / "pid"
    stub(tmp_path, monkeypatch, f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")

    def stop(tick):
        if note.is_file() and note.read_text():
            raise Cancelled

    with pytest.raises(Cancelled):
        compile(tiny_onnx, BundleOptions(goldens=1), samples=FEEDS, runs=tmp_path / "runs", report=stop)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{note.read_text()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{note.read_text()}").exists()
    assert not kept(tmp_path)


# ---- the whole way ------------------------------------------------------------------------------------------------


def test_from_audit_to_report_through_a_rehearsal(tmp_path):
    path, runs = gelu_net(tmp_path / "gelu.onnx"), tmp_path / "runs"
    assert not kit.audit(path, kit.AuditOptions(target="ascend310p3"), runs=runs)
    fixed = kit.fix(path, kit.FixOptions(target="ascend310p3"), samples=FEEDS, runs=runs)
    made = compile(fixed, BundleOptions(batches=(1, 2), goldens=2), samples=FEEDS, runs=runs)
    rehearsed = rehearse(made, into=tmp_path / "back")
    assert rehearsed
    results = load_results(tmp_path / "back")
    golden = goldens(made)
    verdict = kit.verify({"float": path, "Ascend310P3": results}, golden, runs=runs)
    assert verdict
    assert verdict.rows[1].name == "Ascend310P3 (FAKE)"
    measured = kit.benchmark({"float": path, "Ascend310P3": results}, golden[0],
                             kit.BenchmarkOptions(rounds=5, runs=1, warm_up=1, pause_ms=0), runs=runs)
    assert [row.name for row in measured.recorded] == ["Ascend310P3 (FAKE)", "Ascend310P3 (FAKE), batch 2"]
    page = kit.report([fixed, made, results, verdict, measured], kit.ReportOptions(charts=False), runs=runs)
    assert "FAKE" in page.warnings[0]
    assert all("FAKE" in " ".join(line) for line in page.lines if "Ascend" in line[0])


def test_the_panel_draws_and_runs_it(tiny_onnx, tmp_path, monkeypatch):
    pytest.importorskip("ipywidgets")
    import kit.ui

    monkeypatch.chdir(tmp_path)
    feeds = FEEDS[:2]
    panel = kit.ui.panel(compile, tiny_onnx, options=BundleOptions(goldens=1), samples=feeds, runs=tmp_path / "runs")
    panel.controls["batches"].value = (1, 4)
    panel.controls["target"].value = "ascend910b3"
    made = panel.get()
    assert made.title() == "tiny: bundle for Ascend910B3, not built here"
    assert "--dynamic_batch_size=1,4" in about(made)["atc"]["argv"]
    assert os.path.realpath(made.bundle.folder).startswith(os.path.realpath(tmp_path))
