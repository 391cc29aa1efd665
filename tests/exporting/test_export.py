"""Whole exports, with Paddle in workers."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import paddle_tiny
import pytest

import kit
from kit.comparison import CAUSES
from kit.errors import BadInput, KitError, MissingTool, UnsupportedModel
from kit.exporting import ExportOptions, convert_paddle, export, onnx_route
from kit.exporting import paddle as inside
from kit.exporting.parity import Compared
from kit.exporting.specs import LayerSource, parse_inputs
from kit.progress import Cancelled
from kit.worker import Process

LAYER = f"{Path(paddle_tiny.__file__)}:seeded"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def exported(runs):
    return export(paddle_tiny.saved("net"), runs=runs)


def copy(kind, folder):
    return Path(shutil.copytree(paddle_tiny.saved(kind), folder / kind))


def test_a_paddle_model_becomes_onnx_that_answers_alike(exported):
    assert exported
    assert exported.verdict == "equal"
    assert exported.kind == "paddle"
    assert [row.name for row in exported.parity]
    assert len(exported.compared) == 2, "two sizes, so that a frozen shape shows"
    assert exported.reference_runtime.startswith("Paddle Inference")
    assert exported.candidate_runtime.startswith("onnxruntime")


def test_the_file_says_what_it_is(exported):
    model = exported.model
    assert str(model.inputs[0]) == "x float32[N, 3, H, W]"
    assert model.outputs[0].shape[0] == "N"
    assert exported.dynamic_axes == {"x": "N, 3, H, W"}
    assert model.producer.startswith("paddle2onnx")
    assert "paddlepaddle" in model.metadata["source"]
    assert (exported.opset, model.opset) == (17, 17)
    assert exported.size == model.path.stat().st_size
    assert model.lineage[0].stage == "export"
    proto = onnx.load(str(model.path))
    assert {"squeeze", "conv2d_0.w_0"} & {t.name for t in proto.graph.initializer}, "weights are initializers"
    assert "Constant" not in exported.operators_onnx


def test_another_layout_at_the_border_answers_alike_and_shows_its_transposes(exported, runs):
    made = export(paddle_tiny.saved("net"), ExportOptions(input_layout="NHWC", output_layout="NHWC"), runs=runs)
    assert made.verdict == "equal"
    assert made.model.inputs[0].shape == ("N", "H", "W", 3)
    assert exported.layout.at_inputs == 0
    assert made.layout.at_inputs == 1
    assert made.layout.runs > 0, "and they were timed"
    assert "inputs NHWC, outputs NHWC" in str(made)


def test_both_sides_of_the_operator_map_are_counted(exported):
    assert exported.operators_source["hardswish"] == 1
    assert exported.operators_onnx["HardSwish"] == 1
    assert exported.operators_onnx["ConvTranspose"] == 1
    assert "data" not in exported.operators_source


def test_the_card_reads_as_words(exported):
    text = str(exported)
    assert "answer alike" in exported.title()
    assert "of made-up" in exported.title(), "it says on which input the largest difference was"
    for word in ("verdict", "opset", "Paddle Inference", "max abs", "took"):
        assert word in text
    assert "<table>" in exported.html()


def test_the_log_stays_with_the_result(exported):
    assert "Paddle2ONNX" in (exported.provenance.folder / "log.txt").read_text()


def test_the_second_time_nothing_is_run(exported, runs, monkeypatch):
    def no_process(*args, **kwargs):
        raise AssertionError("a stored result should have been found")

    monkeypatch.setattr(convert_paddle, "Process", no_process)
    assert export(paddle_tiny.saved("net"), runs=runs) == exported


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    again = export(paddle_tiny.saved("net"), ExportOptions(compare=True), runs=tmp_path)
    assert again.model.path.read_bytes() == exported.model.path.read_bytes()


def test_the_old_format_is_read(runs, tmp_path):
    folder = copy("old", tmp_path)
    (folder / "inference.yml").write_text("PostProcess: {name: CTCLabelDecode, character_dict: [一, b]}", "utf-8")
    made = export(folder, ExportOptions(axes=("x=B,3,32,?",), opset=13), runs=runs)
    assert made.model.metadata["character"] == "一\nb", "from the inference.yml beside the model"
    assert made.verdict == "equal"
    assert made.opset == 13
    assert made.model.inputs[0].shape == ("B", 3, 32, "W")
    assert any(".pdmodel" in note for note in made.notes)


def test_what_paddle_33_saves_is_repaired_in_a_copy(runs):
    folder = paddle_tiny.saved("double")
    before = (folder / "inference.json").read_bytes()
    made = export(folder, runs=runs)
    assert made.verdict == "equal"
    assert any("nearest_interp.scale (2)" in note for note in made.notes)
    assert (folder / "inference.json").read_bytes() == before


def test_unrepaired_it_fails_with_the_known_message(paddle_process, tmp_path):
    """The row of the known-bad table is still true; when this fails, the converter has learned it."""
    folder = paddle_tiny.saved("double")
    prepared = inside.Prepared(folder / "inference.json", folder / "inference.pdiparams", {}, (), {}, False)
    with pytest.raises(KitError, match="the 0th elementwise MUST be"):
        paddle_process.call(inside.convert, prepared, tmp_path / "no.onnx", 17)


def test_every_unsupported_operator_is_named_at_once(tmp_path):
    with pytest.raises(UnsupportedModel) as caught:
        export(paddle_tiny.saved("lacking"), runs=tmp_path)
    error = caught.value
    assert "3 operator(s)" in error.what
    for name in ("erfinv", "kthvalue", "logit"):
        assert name in error.what
        assert name in error.detail
    assert "paddle.log" in error.remedy
    erfinv = next(line for line in error.detail.splitlines() if line.strip().startswith("erfinv"))
    assert erfinv.split()[1] == "2", "with how often it occurs"
    assert not list(tmp_path.rglob("*.onnx")), "nothing half written"


def test_no_installer_is_ever_loaded(tmp_path):
    folder = paddle_tiny.saved("net")
    with Process(framework="paddle") as process:
        prepared = process.call(inside.prepare, folder / "inference.json", folder / "inference.pdiparams", tmp_path)
        process.call(inside.convert, prepared, tmp_path / "net.onnx", 17)
        assert process.call(inside.loaded, "paddle2onnx", "polygraphy", "pip", "onnxoptimizer") == ["paddle2onnx"]


def test_a_layer_is_saved_exported_and_compared_at_both_steps(runs):
    options = ExportOptions(inputs=("x:float32[batch,4]",))
    made = export(LAYER, options, runs=runs)
    assert made.kind == "dygraph"
    assert made.source == "paddle_tiny.py:seeded", "no folder of this machine"
    assert made.verdict == "equal"
    assert made.dygraph_parity
    assert made.parity
    assert made.model.inputs[0].shape == ("batch", 4)
    assert (made.inference_model / "inference.json").is_file()
    assert any("eval mode" in note for note in made.notes), "the layer came in training mode, with Dropout"
    assert "Layer and saved inference model" in str(made)
    assert export(LAYER, options, runs=runs).provenance == made.provenance, "random weights, but the same seed"


def test_a_layer_whose_weights_changed_is_exported_anew(tmp_path, monkeypatch):
    weights = tmp_path / "weights.json"
    monkeypatch.setenv("TINY_WEIGHTS", str(weights))
    options = ExportOptions(inputs=("x:float32[?,4]",))
    keys = []
    for value in (1.0, 2.0):
        weights.write_text(json.dumps([[value, 0]] * 4))
        made = export("paddle_tiny:from_file", options, runs=tmp_path / "runs")
        keys.append(made.provenance.key)
        with kit.open_runner(made) as run:
            assert run({"x": np.ones((1, 4), np.float32)})[made.model.outputs[0].name][0, 0] == pytest.approx(4 * value)
    assert keys[0] != keys[1]


@pytest.fixture(scope="module")
def paddle_process():
    with Process(framework="paddle") as process:
        yield process


@pytest.mark.parametrize(("module", "factory", "words"), [
    ("paddle_tiny", "nett", "no factory named 'nett'"),
    ("paddle_tiny", "raising", "ValueError: no weights today"),
    ("paddle_tiny", "no_layer", "not a paddle.nn.Layer"),
    ("paddle_tiny", "number", "is a int, not a function"),
    ("no_such_module_here", "net", "could not be imported"),
    ("nowhere/file.py", "net", "nowhere/file.py does not exist"),
])
def test_a_factory_that_does_not_work_says_why(module, factory, words, paddle_process, tmp_path):
    specs = parse_inputs(["x:float32[?,4]"])
    with pytest.raises(BadInput, match=words) as caught:
        paddle_process.call(inside.save_layer, LayerSource(module, factory), specs, tmp_path)
    assert caught.value.remedy


def test_the_errors_of_a_factory_come_through_an_export(tmp_path):
    with pytest.raises(BadInput, match="no factory named 'nett'") as caught:
        export("paddle_tiny:nett", ExportOptions(inputs=("x:float32[?,4]",)), runs=tmp_path)
    assert "net" in caught.value.remedy


def test_a_layer_that_does_not_take_the_inputs_says_so(tmp_path):
    with pytest.raises(KitError, match="could not save") as caught:
        export(LAYER, ExportOptions(inputs=("x:float32[?,4]", "y:float32[?,4]")), runs=tmp_path)
    assert "y float32[?, 4]" in caught.value.remedy
    # Paddle 3.2 saves a product of sizes that do not fit without a word; the ONNX checker does not let it pass.
    with pytest.raises(UnsupportedModel, match="Incompatible dimensions"):
        export(LAYER, ExportOptions(inputs=("x:float32[?,5]",)), runs=tmp_path)


def test_inputs_are_asked_for_with_an_example(tmp_path):
    with pytest.raises(BadInput) as caught:
        export(LAYER, runs=tmp_path)
    assert 'inputs=("x:float32[N,3,H,W]",)' in caught.value.remedy


def test_inputs_for_a_saved_model_are_refused():
    with pytest.raises(BadInput, match="inputs of a layer"):
        export(paddle_tiny.saved("net"), ExportOptions(inputs=("x:float32[1]",)))


def test_a_missing_parameter_file_is_named(tmp_path):
    folder = copy("net", tmp_path)
    (folder / "inference.pdiparams").unlink()
    with pytest.raises(BadInput, match=r"inference\.pdiparams is missing"):
        export(folder, runs=tmp_path / "runs")


@pytest.mark.parametrize(("name", "words"), [
    ("inference.json", "is not whole"), ("inference.pdiparams", r"inference\.pdiparams of net lacks \d+ parameters"),
])
def test_a_truncated_file_is_named_and_nothing_is_left(name, words, tmp_path):
    folder = copy("net", tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=words) as caught:
        export(folder, runs=tmp_path / "runs")
    assert "again" in caught.value.remedy
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(BadInput, match="holds no model") as caught:
        export(tmp_path)
    assert "inference.json" in caught.value.remedy


def test_no_permission_is_named(tiny_onnx):
    with pytest.raises(BadInput, match="/proc/none"):
        export(tiny_onnx, runs="/proc/none")


@pytest.mark.parametrize("opset", [6, 22, 1.5])
def test_an_opset_out_of_range_is_refused(opset):
    with pytest.raises(BadInput, match=r"ExportOptions\.opset"):
        ExportOptions(opset=opset)


def test_one_text_where_several_belong_is_answered_with_the_right_form():
    with pytest.raises(BadInput, match=r"ExportOptions\.axes takes several") as caught:
        ExportOptions(axes="x=N,3,H,W")
    assert "axes=('x=N,3,H,W',)" in caught.value.remedy


def test_the_target_decides_the_opset():
    assert ExportOptions(target="ascend310p3").choose_opset()[0] == 16
    assert ExportOptions(target="ascend310p3", opset=11).choose_opset() == (11, "asked for")
    assert ExportOptions().choose_opset()[0] == 17


def test_an_unknown_input_in_axes_is_named_with_the_known(tiny_onnx, tmp_path):
    with pytest.raises(BadInput, match="no input named 'image'") as caught:
        export(tiny_onnx, ExportOptions(axes=("image=N,3,H,W",)), runs=tmp_path)
    assert "x" in caught.value.remedy


def test_cancel_leaves_nothing(tmp_path):
    def stop(tick):
        if "converting" in tick.note:
            raise Cancelled

    with pytest.raises(Cancelled):
        export(paddle_tiny.saved("net"), runs=tmp_path, report=stop)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_onnx_file_brought_along_is_checked_and_kept_as_it_is(tiny_onnx, tmp_path):
    made = export(tiny_onnx, runs=tmp_path)
    assert made.kind == "onnx"
    assert made.verdict == "equal"
    assert made.operators_source == made.operators_onnx
    assert "graph level none" in made.reference_runtime
    before, after = onnx.load(str(tiny_onnx)), onnx.load(str(made.model.path))
    assert before == after


def test_an_onnx_file_with_axes_of_a_machines_naming_gets_words(tiny_onnx, tmp_path):
    proto = onnx.load(str(tiny_onnx))
    for at, dim in enumerate(proto.graph.input[0].type.tensor_type.shape.dim):
        if at != 1:
            dim.Clear()
            if at == 0:
                dim.dim_value = -1
            else:
                dim.dim_param = f"p2o.DynamicDimension.{at}"
    onnx.save(proto, str(tmp_path / "machine.onnx"))
    made = export(tmp_path / "machine.onnx", runs=tmp_path / "runs")
    assert made.model.inputs[0].shape == ("N", 3, "H", "W")
    assert len(made.compared) == 2
    assert any("were named" in note for note in made.notes)


def test_an_onnx_file_whose_shapes_tell_can_be_turned(tiny_onnx, tmp_path):
    made = export(tiny_onnx, ExportOptions(input_layout="NHWC"), runs=tmp_path)
    assert made.verdict == "equal"
    assert made.model.inputs[0].shape[3] == 3
    assert made.layout.at_inputs == 1


def test_an_onnx_file_can_get_another_opset_and_fixed_axes(tiny_onnx, tmp_path):
    made = export(tiny_onnx, ExportOptions(opset=18, axes=("x=1,3,64,64",)), runs=tmp_path)
    assert (made.opset, made.model.inputs[0].shape) == (18, (1, 3, 64, 64))
    assert made.compared == ("made-up 1x3x64x64",)
    assert made


def test_an_onnx_file_with_weights_beside_it_keeps_them(tiny_onnx, tmp_path):
    (tmp_path / "big").mkdir()
    onnx.save(onnx.load(str(tiny_onnx)), str(tmp_path / "big" / "net.onnx"), save_as_external_data=True,
              location="net.weights", size_threshold=0)
    made = export(tmp_path / "big" / "net.onnx", runs=tmp_path / "runs")
    assert made.verdict == "equal"
    assert (made.model.path.parent / "net.weights").is_file()


def test_a_truncated_onnx_file_is_named(tiny_onnx, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(tiny_onnx.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"cut\.onnx"):
        export(cut, runs=tmp_path)


def test_given_sizes_are_compared_on(tiny_onnx, tmp_path):
    made = export(tiny_onnx, ExportOptions(probe=("x=3,3,7,5",)), runs=tmp_path)
    assert made.compared == ("made-up 3x3x7x5",)
    with pytest.raises(BadInput, match="A probe gives y"):
        export(tiny_onnx, ExportOptions(probe=("y=3",)), runs=tmp_path)


def test_samples_are_compared_on_and_one_other_size(tiny_onnx, tmp_path):
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for at in range(3):
        picture = np.random.default_rng(at).integers(0, 255, (20, 30, 3), np.uint8)
        cv2.imwrite(str(folder / f"{at}.png"), picture)
    samples = kit.Samples.from_folder(folder, kit.Preprocess(size=(32, 64)))
    made = export(tiny_onnx, ExportOptions(samples=2), samples=samples, runs=tmp_path)
    assert made.compared == ("0.png 1x3x32x64", "1.png 1x3x32x64", "made-up 2x3x96x128")


def test_a_configuration_gives_the_characters(tiny_onnx, tmp_path):
    config = tmp_path / "inference.yml"
    config.write_text("PostProcess: {character_dict: [a, b]}")
    made = export(tiny_onnx, ExportOptions(config=config), runs=tmp_path)
    assert made.model.metadata["character"] == "a\nb"
    config.write_text("PostProcess: {character_dict: [a, c]}")
    assert export(tiny_onnx, ExportOptions(config=config), runs=tmp_path).model.metadata["character"] == "a\nc"


def test_without_comparison_it_says_so(tiny_onnx, tmp_path):
    made = export(tiny_onnx, ExportOptions(compare=False), runs=tmp_path)
    assert "not compared" in made.title()
    assert made.parity == ()


def test_a_failed_export_lists_the_usual_causes(tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_route, "compare_on", lambda *_, **__: Compared(failures=["1x3x8x8: no"]))
    made = export(tiny_onnx, runs=tmp_path)
    assert not made
    text = str(made)
    assert all(cause in text for cause, _ in CAUSES)
    assert "1x3x8x8: no" in text


def test_a_known_bad_pair_stops_before_anything_runs(tmp_path, monkeypatch):
    from kit import preflight

    monkeypatch.setattr(preflight, "versions", lambda python=None: {
        "python": "3.11.0", "paddlepaddle": "2.6.2", "paddle2onnx": "2.1.0", "numpy": "1.26.4", "psutil": "7.0"})
    monkeypatch.setattr(convert_paddle, "Process", None)
    with pytest.raises(MissingTool, match=r"paddlepaddle 2\.6\.2 and paddle2onnx 2\.1\.0 are known to fail"):
        export(paddle_tiny.saved("net"), runs=tmp_path)


def test_it_runs_in_a_worker_as_panels_do(tiny_onnx, tmp_path):
    ticks = []
    made = kit.worker.run(export, tiny_onnx, ExportOptions(), runs=tmp_path, report=ticks.append, pass_report=True)
    assert made.verdict == "equal"
    assert any("comparing" in tick.note for tick in ticks)
