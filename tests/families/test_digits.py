"""Facts about the digits: what the samples are, and what the networks trained on them show."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import kit
from kit.errors import BadInput
from kit.families import digits

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
MODELS = DATA / "models" / "digits"
LOG = json.loads((MODELS / "training.json").read_text(encoding="utf-8"))
ROUNDED = ("ptq_int8_tensor", "qat_int8_tensor", "ptq_int8", "qat_int8", "ptq_int4", "qat_int4")


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    stages = {"float": MODELS / "digits.onnx"} | {name: MODELS / f"digits_{name}.onnx" for name in ROUNDED}
    samples = digits.digits_samples("test", DATA)
    return kit.verify(stages, samples, task=digits.DigitsTask(), runs=tmp_path_factory.mktemp("runs"))


# ------------------------------------------------------------------------------------------------ samples


def test_every_digit_lies_in_exactly_one_split_and_every_split_has_all_ten():
    numbers = {split: [item.number for item in digits.digits_samples(split, DATA).items] for split in digits.SPLITS}
    assert sorted(number for each in numbers.values() for number in each) == list(range(1797))
    assert {split: len(each) for split, each in numbers.items()} == {"train": 997, "calibration": 200, "test": 600}
    for split in digits.SPLITS:
        assert (np.bincount(digits.digits_arrays(split, DATA)[1]) >= 19).all()


def test_a_sample_is_one_channel_from_paper_0_to_ink_1_and_equals_its_row_of_the_arrays():
    samples = digits.digits_samples("calibration", DATA)
    images, labels = digits.digits_arrays("calibration", DATA)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    for at, feed in enumerate(samples):
        assert np.array_equal(feed["image"], images[at : at + 1])  # sixteenths are exact in float32
        assert samples.items[at].truth == labels[at]
    assert samples[0]["image"].shape == (1, 1, 8, 8)


def test_a_preview_shows_the_pixels_that_the_network_gets():
    samples = digits.digits_samples("test", DATA, limit=3)
    assert np.array_equal(samples.preview(2), samples.items[2].load())
    assert len(samples[1:]) == 2
    assert samples.items[0].name == f"digit {samples.items[0].number}"


def test_other_pixels_are_another_digest_though_all_lie_in_one_file():
    first, again = (digits.digits_samples("test", DATA, limit=5).digest() for _ in range(2))
    others = (digits.digits_samples("train", DATA, limit=5), digits.digits_samples("test", DATA, limit=5, input="x"))
    assert first == again
    assert first not in {other.digest() for other in others}


def test_a_split_a_file_and_a_content_that_are_not_there_are_named(tmp_path):
    with pytest.raises(BadInput, match="no split named 'tset'"):
        digits.digits_samples("tset", DATA)
    with pytest.raises(BadInput, match=r"digits\.npz does not exist"):
        digits.digits_samples("test", tmp_path)
    (tmp_path / "digits").mkdir()
    np.savez(tmp_path / "digits" / "digits.npz", images=np.zeros(3))
    with pytest.raises(BadInput, match="not the set of digits"):
        digits.digits_arrays("test", tmp_path)


def test_the_task_counts_right_digits():
    sample = digits.digits_samples("test", DATA, limit=1).items[0]
    task = digits.DigitsTask()
    for digit in range(10):
        answer = task.answer({"logits": np.eye(10, dtype=np.float32)[digit : digit + 1]}, sample, {})
        assert task.tally(answer, sample) == (float(digit == sample.truth), 1.0)
    assert task.scores((3.0, 4.0)) == {"accuracy": 0.75}


# ------------------------------------------------------------------------------------------------ networks


def test_every_file_is_as_good_in_onnx_runtime_as_its_training_says(verdict):
    for row in verdict.rows:
        file = "digits.onnx" if row.name == "float" else f"digits_{row.name}.onnx"
        assert row.scores["accuracy"] == pytest.approx(LOG["files"][file]["accuracy in PyTorch"]), row.name
    assert verdict.rows[0].scores["accuracy"] >= 0.97


def test_one_scale_a_tensor_loses_and_one_a_channel_repairs(verdict):
    assert verdict.stage("ptq_int8_tensor").change.loss > 0.05
    assert verdict.stage("ptq_int8").change.loss < 0.01


def test_training_with_rounding_wins_where_rounding_afterwards_loses(verdict):
    before, after = verdict.stage("ptq_int4"), verdict.stage("qat_int4")
    assert after.interval[0] > before.interval[1]  # the intervals do not even touch
    (gain,) = (row for row in LOG["gains"] if (row["of"], row["over"]) == ("qat_int4", "ptq_int4"))
    assert gain["low"] > 0
    assert gain["seeds that gain"] == len(LOG["seeds"])


def test_the_float_network_is_plain_opset_17_with_batch_norm_folded():
    proto = onnx.load(MODELS / "digits.onnx")
    assert [entry.version for entry in proto.opset_import] == [17]
    kinds = {node.op_type for node in proto.graph.node}
    assert kinds == {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    model = kit.Model.open(MODELS / "digits.onnx")
    assert [str(spec) for spec in model.inputs] == ["image float32[N, 1, 8, 8]"]
    assert model.size < 400_000


def test_planted_channels_are_the_widest_of_their_depthwise_layer():
    graph = onnx.load(MODELS / "digits.onnx").graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {node.name: arrays[node.input[1]] for node in graph.node if node.op_type == "Conv"}
    for block in range(3):
        planted = LOG["wide channels"]["planted"][f"blocks.{block}.depthwise"]
        widths = np.abs(weights[f"/blocks/blocks.{block}/depthwise/Conv"]).max(axis=(1, 2, 3))
        assert set(np.argsort(widths)[-2:]) == set(planted)
        assert widths[planted].min() > 5 * np.delete(widths, planted).max()


@pytest.mark.parametrize("name", ROUNDED)
def test_weights_have_the_bits_that_the_name_says_and_no_trace_of_the_machine(name):
    path = MODELS / f"digits_{name}.onnx"
    proto = onnx.load(path)
    four = name.endswith("int4")
    stored = [t for t in proto.graph.initializer if t.name.endswith(".weight_q")]
    assert len(stored) == 11
    assert {t.data_type for t in stored} == {onnx.TensorProto.INT4 if four else onnx.TensorProto.INT8}
    values = np.concatenate([onnx.numpy_helper.to_array(t).astype(np.int8).ravel() for t in stored])
    assert (values.min(), values.max()) == ((-7, 7) if four else (-127, 127))
    scales = [t.dims for t in proto.graph.initializer if t.name.endswith(".scale")]
    assert all(bool(dims) != name.endswith("tensor") for dims in scales)
    assert b"stack_trace" not in path.read_bytes()


# ------------------------------------------------------------------------------------------------ recipe


def test_the_recipe_trains_rounds_and_exports_what_agrees_with_pytorch(tmp_path):
    absent = [name for name in ("torch", "torchao") if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed: pip install -c constraints.txt '.[qat]'")
    command = [sys.executable, str(DATA / "recipes" / "digits" / "train.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "training.json").read_text())
    assert set(log["files"]) == {"digits.onnx", "digits_ptq_int8.onnx", "digits_qat_int4.onnx"}
    for name, row in log["files"].items():
        # a value that lies on the edge of two steps may go either way: a step moves a logit by some hundredths
        assert row["largest difference of a logit"] < (1e-4 if name == "digits.onnx" else 0.2), name
        assert row["same digit"] >= 0.99, name


def test_digits_from_one_file_are_told_apart(tmp_path):
    samples = digits.digits_samples("calibration", DATA, limit=20)
    assert len(set(samples.identities())) == 20
    measured = kit.calibrate(MODELS / "digits.onnx", samples, kit.CalibrateOptions(probes=8), runs=tmp_path)
    assert len(list(measured.probes())) == 8
