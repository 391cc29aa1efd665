"""Whole exports from TensorFlow, with TensorFlow in workers."""

import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import tensorflow_tiny

from kit.errors import BadInput, MissingTool, ToolFailed, UnsupportedModel
from kit.exporting import ExportOptions, convert_tensorflow, export
from kit.exporting.tensorflow import Converted
from kit.graph import FixOptions, fix
from kit.progress import Cancelled
from kit.resizes import METADATA, recall
from kit.worker import Process

FACTORY = f"{Path(tensorflow_tiny.__file__)}:"


@pytest.fixture(scope="module")
def folder():
    return tensorflow_tiny.models()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def saved(folder, runs):
    return export(folder / "exported", runs=runs)


@pytest.fixture(scope="module")
def turned(folder, runs):
    return export(folder / "exported", ExportOptions(input_layout="NCHW", output_layout="NCHW"), runs=runs)


@pytest.fixture(scope="module")
def keras(folder, runs):
    return export(folder / "pictures.keras", runs=runs)


@pytest.fixture(scope="module")
def frozen(folder, runs):
    return export(folder / "resizes.pb", runs=runs)


def test_a_saved_model_becomes_onnx_that_answers_alike(saved):
    assert saved.verdict == "equal"
    assert saved.kind == "savedmodel"
    assert saved.reference_runtime.startswith("TensorFlow 2")
    assert len(saved.compared) == 2, "two batches, so that a frozen one shows"
    assert saved.tools.keys() >= {"tf2onnx"}


def test_names_are_those_of_the_signature_and_open_axes_have_words(saved):
    assert str(saved.model.inputs[0]) == "image float32[N, 16, 24, 3]"
    assert {str(spec) for spec in saved.model.outputs} == {"scores float32[N, 16, 24, 2]", "small float32[N, 6]"}
    assert saved.model.producer.startswith("tf2onnx")


def test_the_operators_of_both_sides_and_the_log_stay_with_the_result(saved):
    assert saved.operators_source["ResizeBilinear"] == 1
    assert saved.operators_onnx["Resize"] == 1
    assert "Const" not in saved.operators_source
    assert (saved.provenance.folder / "log.txt").is_file()


def test_the_second_time_nothing_is_run(saved, folder, runs, monkeypatch):
    def no_process(*args, **kwargs):
        raise AssertionError("a stored result should have been found")

    monkeypatch.setattr(convert_tensorflow, "Process", no_process)
    assert export(folder / "exported", runs=runs) == saved


def test_the_resize_is_compared_pixel_by_pixel_and_remembered(saved):
    row, = saved.resizes
    assert str(row.tf) == "ResizeBilinear(half_pixel_centers)"
    assert (row.size, row.out, row.known) == ((8, 12), (16, 24), True)
    assert row.left < 1e-6
    assert recall(saved.model.metadata[METADATA]) == {row.node: row.tf}
    assert row.node in {node.name for node in onnx.load(str(saved.model.path)).graph.node}
    assert "linear, half_pixel" in str(saved)


def test_another_layout_is_written_and_compared_in_the_sources(saved, turned):
    assert turned.verdict == "equal"
    assert turned.model.inputs[0].shape == ("N", 3, 16, 24)
    assert {spec.name: spec.shape for spec in turned.model.outputs} == {"scores": ("N", 2, 16, 24), "small": ("N", 6)}
    assert [row.name for row in turned.parity] == [row.name for row in saved.parity]
    assert (saved.layout.at_inputs, turned.layout.at_inputs) == (1, 0)
    assert (saved.layout.at_outputs, turned.layout.at_outputs) == (1, 0)
    assert "inputs NCHW, outputs NCHW" in str(turned)
    assert "at inputs" in str(saved)


def test_a_layout_it_has_already_changes_nothing(folder, saved, runs):
    made = export(folder / "exported", ExportOptions(input_layout="NHWC", output_layout="NHWC"), runs=runs)
    assert made.model.inputs == saved.model.inputs
    assert made.operators_onnx == saved.operators_onnx


def test_a_layout_for_a_model_without_pictures_is_refused(folder, runs):
    with pytest.raises(BadInput, match="input_layout='NCHW' is about pictures"):
        export(folder / "net", ExportOptions(input_layout="NCHW"), runs=runs)


def test_a_signature_is_chosen_and_a_misspelt_one_answered_with_those_there_are(folder, runs):
    made = export(folder / "net", ExportOptions(signature="half"), runs=runs)
    assert made.verdict == "equal"
    assert [spec.name for spec in made.model.outputs] == ["y"]
    with pytest.raises(BadInput, match="no signature named 'hlaf'") as caught:
        export(folder / "net", ExportOptions(signature="hlaf"), runs=runs)
    assert "half" in caught.value.remedy
    assert "serving_default" in caught.value.detail


def test_every_unsupported_operator_is_named_at_once(folder, tmp_path):
    with pytest.raises(UnsupportedModel) as caught:
        export(folder / "lacking", runs=tmp_path)
    error = caught.value
    for name in ("Digamma", "Lgamma", "Erfinv"):
        assert name in error.what
        assert f"{name}: " in error.remedy
    digamma = next(line for line in error.detail.splitlines() if line.strip().startswith("Digamma"))
    assert digamma.split()[1] == "2", "with how often it occurs"
    assert not list(tmp_path.rglob("*.onnx")), "nothing half written"


def test_a_cut_off_saved_model_is_named(folder, tmp_path):
    copy = Path(shutil.copytree(folder / "net", tmp_path / "cut"))
    graph = copy / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:500])
    with pytest.raises(BadInput, match="cut off"):
        export(copy, runs=tmp_path / "runs")
    whole = Path(shutil.copytree(folder / "net", tmp_path / "empty"))
    shutil.rmtree(whole / "variables")
    with pytest.raises(ToolFailed, match="cannot load empty") as caught:
        export(whole, runs=tmp_path / "runs")
    assert "variables" in caught.value.remedy


def test_a_keras_file_goes_by_way_of_a_saved_model_and_says_so(keras):
    assert keras.verdict == "equal"
    assert (keras.kind, keras.source) == ("keras", "pictures.keras")
    assert {row.name for row in keras.dygraph_parity} == {"scores", "small"}
    assert any("model.export made a SavedModel first" in note for note in keras.notes)
    assert "Keras model and SavedModel" in str(keras)
    assert (keras.inference_model / "saved_model.pb").is_file()
    assert {spec.name for spec in keras.model.outputs} == {"scores", "small"}


def test_an_h5_file_and_a_factory_do_too_with_sizes_as_asked(folder, runs):
    made = export(folder / "pictures.h5", ExportOptions(inputs=("image:float32[2,16,24,3]",)), runs=runs)
    assert made.verdict == "equal"
    assert made.model.inputs[0].shape == (2, 16, 24, 3)
    made = export(f"{FACTORY}subclassed", ExportOptions(framework="tensorflow", inputs=("x:float32[batch,5]",)),
                  runs=runs)
    assert made.verdict == "equal"
    assert (made.source, made.model.inputs[0].shape) == ("tensorflow_tiny.py:subclassed", ("batch", 5))


@pytest.mark.parametrize(("factory", "error", "words"), [
    ("subclassed", BadInput, "does not say what it takes"), ("no_model", BadInput, "gave a int, not a Keras"),
    ("gone", BadInput, "no factory named 'gone'"), ("open_upsampling", ToolFailed, "could not save"),
])
def test_a_factory_that_will_not_do_is_refused_in_words(factory, error, words, tmp_path):
    with pytest.raises(error, match=words) as caught:
        export(FACTORY + factory, ExportOptions(framework="tensorflow"), runs=tmp_path)
    assert caught.value.remedy
    if factory == "open_upsampling":
        assert "fixed sizes" in caught.value.remedy
        assert "UpSampling2D" in caught.value.what
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_open_upsampling_exports_with_fixed_sizes(runs):
    made = export(f"{FACTORY}open_upsampling", ExportOptions(
        framework="tensorflow", inputs=("image:float32[N,8,12,3]",)), runs=runs)
    assert made.verdict == "equal"


def test_a_keras_file_that_is_none_is_refused(folder, tmp_path):
    with pytest.raises(BadInput, match=r"weights\.h5 holds weights only|cannot load weights\.h5"):
        export(folder / "weights.h5", runs=tmp_path)
    (tmp_path / "pointer.keras").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BadInput, match=r"is not a Keras model"):
        export(tmp_path / "pointer.keras", runs=tmp_path)


def test_a_frozen_graph_says_where_it_begins_and_ends(frozen):
    assert frozen.kind == "graphdef"
    assert [spec.name for spec in frozen.model.inputs] == ["picture"]
    assert {spec.name for spec in frozen.model.outputs} == {f"out_{name}" for name in tensorflow_tiny.RESIZES}
    assert any("fed through picture" in note for note in frozen.notes)


def test_resizes_get_the_modes_with_which_tensorflow_computes(frozen):
    """Cubic ones stay a little off: TensorFlow rounds the place between two pixels to 1/1024."""
    rows = {row.name: row for row in frozen.resizes}
    assert rows.keys() == tensorflow_tiny.RESIZES.keys()
    for name, row in rows.items():
        assert row.modes == row.tf.modes()
        assert row.left < (1e-3 if name.startswith("cubic") else 1e-5), name
    for name in ("cubic_legacy", "cubic_corners"):
        assert rows[name].difference > 10 * rows[name].left, "as tf2onnx writes them they are another picture"
    assert rows["near_half"].written.place == "tf_half_pixel_for_nn"
    assert rows["near_half"].modes.place == "half_pixel"
    assert "failed" not in {row.verdict for row in frozen.parity}


def test_a_frozen_graph_is_cut_where_it_is_asked_to(folder, runs):
    options = ExportOptions(inputs=("picture:float32[1,15,20,3]",), outputs=("out_linear_half",))
    made = export(folder / "resizes.pb", options, runs=runs)
    assert made.verdict == "equal"
    assert [str(spec) for spec in (*made.model.inputs, *made.model.outputs)] == [
        "picture float32[1, 15, 20, 3]", "out_linear_half float32[1, 27, 37, 3]"]
    with pytest.raises(BadInput, match="no node named 'out_linear_hlaf'"):
        export(folder / "resizes.pb", ExportOptions(outputs=("out_linear_hlaf",)), runs=runs)


def test_what_is_no_frozen_graph_is_refused(folder, tmp_path):
    with pytest.raises(BadInput, match=r"loose\.pb is not frozen.*w"):
        export(folder / "loose.pb", runs=tmp_path)
    (tmp_path / "text.pb").write_text("node { name: 'x' }")
    with pytest.raises(BadInput, match=r"text\.pb is not a frozen TensorFlow graph"):
        export(tmp_path / "text.pb", runs=tmp_path)


def test_a_rule_mends_what_another_tool_wrote(frozen, tmp_path):
    """The metadata says what TensorFlow did; the modes are as tf2onnx writes them by itself."""
    proto = onnx.load(str(frozen.model.path))
    rows = {row.node: row for row in frozen.resizes}
    for node in proto.graph.node:
        if node.name in rows:
            attributes = {"coordinate_transformation_mode": rows[node.name].written.place}
            if rows[node.name].written.mode == "cubic":
                attributes |= {"cubic_coeff_a": -0.5, "exclude_outside": 1}
            for attribute in [a for a in node.attribute if a.name in attributes]:
                node.attribute.remove(attribute)
            node.attribute.extend(onnx.helper.make_attribute(*pair) for pair in attributes.items())
    onnx.save(proto, str(tmp_path / "tf2onnx.onnx"))
    fixed = fix(tmp_path / "tf2onnx.onnx", FixOptions(rules=("resize-like-tensorflow",)), runs=tmp_path / "runs")
    assert {change.node for change in fixed.changes} == {
        rows[node].node for node in rows if rows[node].written != rows[node].modes}
    assert any("as it is meant to" in note for note in fixed.notes)
    again = fix(fixed, FixOptions(rules=("resize-like-tensorflow",)), runs=tmp_path / "runs")
    assert not again.changes


@pytest.mark.parametrize(("options", "name"), [
    ({"inputs": ("x:float32[N,3]",)}, "inputs"), ({"outputs": ("y",)}, "outputs"), ({"dequantize": True}, "dequantize"),
])
def test_an_option_that_a_saved_model_has_no_use_for_is_refused(folder, options, name):
    with pytest.raises(BadInput, match=rf"ExportOptions\.{name}"):
        export(folder / "net", ExportOptions(**options))


def test_a_conversion_without_a_file_is_not_taken_for_one(folder, tmp_path, monkeypatch):
    """Issue threads tell of commands that end well and leave nothing."""
    monkeypatch.setattr(Process, "call", lambda self, *args, **kwargs: Converted())
    with pytest.raises(ToolFailed, match="ended without a file"):
        export(folder / "net", runs=tmp_path)
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_worker_that_dies_brings_its_last_words(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_tensorflow.inside, "convert", _die)
    with pytest.raises(ToolFailed, match="tf2onnx stopped while converting net") as caught:
        export(folder / "net", runs=tmp_path)
    assert "these were the last words" in caught.value.detail


def test_a_known_bad_pair_stops_before_anything_runs(folder, tmp_path, monkeypatch):
    from kit import preflight

    monkeypatch.setattr(preflight, "versions", lambda python=None: {
        "python": "3.11.0", "tensorflow-cpu": "2.18.0", "tf2onnx": "1.16.1", "numpy": "2.0.2", "psutil": "7.0"})
    monkeypatch.setattr(convert_tensorflow, "Process", None)
    with pytest.raises(MissingTool, match=r"tf2onnx 1\.16\.1 and numpy 2\.0\.2 are known to fail"):
        export(folder / "net", runs=tmp_path)


def test_cancel_leaves_nothing(folder, tmp_path):
    def stop(tick):
        if "converting" in tick.note:
            raise Cancelled

    with pytest.raises(Cancelled):
        export(folder / "net", runs=tmp_path, report=stop)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_metadata_is_plain_json(saved):
    assert list(json.loads(saved.model.metadata[METADATA]).values()) == [["ResizeBilinear", False, True]]
    assert saved.model.metadata["kit.source_framework"] == "tensorflow"


def _die(asked, path):
    import os

    print("these were the last words", flush=True)
    os._exit(3)


def test_an_error_from_the_worker_brings_words_and_no_tensorflow(folder, tmp_path):
    """TensorFlow makes pickle take the causes of an exception along, which would import it here."""
    whole = Path(shutil.copytree(folder / "net", tmp_path / "empty"))
    shutil.rmtree(whole / "variables")
    with pytest.raises(ToolFailed):
        export(whole, runs=tmp_path / "runs")
    assert not {"tensorflow", "keras"} & {name.partition(".")[0] for name in sys.modules}
