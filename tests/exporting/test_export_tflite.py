"""Exports of TFLite models, float and quantized, with TensorFlow in workers."""

import numpy as np
import pytest
import tensorflow_tiny

from kit.comparison import TensorParity
from kit.errors import BadInput, ToolFailed
from kit.exporting import ExportOptions, export
from kit.exporting.quantized_parity import judge
from kit.runner import open_runner


@pytest.fixture(scope="module")
def folder():
    return tensorflow_tiny.models()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def quantized(folder, runs):
    return export(folder / "int8.tflite", runs=runs)


def test_a_tflite_goes_straight_to_onnx_with_the_signatures_names(folder, runs):
    made = export(folder / "pictures.tflite", ExportOptions(input_layout="NCHW"), runs=runs)
    assert made.verdict == "equal"
    assert (made.kind, made.reference_runtime[:6]) == ("tflite", "TFLite")
    assert str(made.model.inputs[0]) == "image float32[N, 3, 16, 24]"
    assert {spec.name for spec in made.model.outputs} == {"scores", "small"}
    assert made.operators_source["CONV_2D"] == 2
    assert made.layout.at_inputs == 0
    assert not any("SavedModel" in note for note in made.notes)


def test_a_quantized_one_keeps_its_scales(quantized):
    assert quantized.operators_onnx["DequantizeLinear"] > 2
    assert any("TFLite's kernels differ among themselves" in note for note in quantized.notes)
    assert "graph level basic" in quantized.candidate_runtime, "as it is written, on every processor alike"
    assert max(row.l2 for row in quantized.parity) < 0.05


def test_or_is_made_float_when_asked(folder, runs, quantized):
    made = export(folder / "int8.tflite", ExportOptions(dequantize=True), runs=runs)
    assert "DequantizeLinear" not in made.operators_onnx
    assert any("float, as asked" in note for note in made.notes)
    assert max(row.l2 for row in made.parity) < 0.2
    feed = {"image": np.random.default_rng(1).standard_normal((1, 16, 24, 3)).astype(np.float32)}
    with open_runner(folder / "pictures.tflite") as source, open_runner(made) as run:
        assert np.abs(source(feed)["scores"] - run(feed)["scores"]).max() < 0.1 * np.abs(source(feed)["scores"]).max()


def test_a_misspelt_signature_is_answered(folder, tmp_path):
    with pytest.raises(BadInput, match="no signature named 'x'") as caught:
        export(folder / "pictures.tflite", ExportOptions(signature="x"), runs=tmp_path)
    assert "serving_default" in caught.value.remedy


def test_a_damaged_file_is_named(folder, tmp_path):
    (tmp_path / "cut.tflite").write_bytes((folder / "pictures.tflite").read_bytes()[:700])
    with pytest.raises(ToolFailed, match=r"cut\.tflite") as caught:
        export(tmp_path / "cut.tflite", runs=tmp_path / "runs")
    assert caught.value.remedy
    (tmp_path / "none.tflite").write_bytes(b"nothing of the sort")
    with pytest.raises(BadInput, match=r"none\.tflite is not a TFLite model"):
        export(tmp_path / "none.tflite", runs=tmp_path / "runs")


@pytest.mark.parametrize(("relative", "own", "failures", "verdict"), [
    (0.1, 0.2, (), "warning"), (0.1, 0.05, (), "failed"), (0.1, 0.2, ("it did not run",), "failed"),
    (1e-6, 0.0, (), "equal"), (1e-4, 0.0, (), "warning"),
])
def test_what_tflites_own_kernels_differ_by_is_no_failure(relative, own, failures, verdict):
    assert judge([TensorParity("y", relative, relative, relative, 1.0, (0,), 4)], {"y": own}, failures) == verdict
