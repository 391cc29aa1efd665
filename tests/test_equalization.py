"""The stage ``equalize``: the float answers stay, INT8 loses less, and what was not done is said."""

import numpy as np
import onnx
import pytest
from quantization_models import attention_net, conv_net, depthwise_net, feeds

from kit.calibration import CalibrateOptions, calibrate
from kit.equalization import Equalized, EqualizeOptions, equalize
from kit.errors import BadInput, StaleResult, UnsupportedModel
from kit.model import Model, read
from kit.quantization import QuantizeOptions, quantize
from kit.record import find

SHAPES = {"net": (1, 3, 16, 16), "block": (1, 12, 64)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def wild(tmp_path_factory, runs) -> Model:
    """A depthwise net whose channels differ a thousandfold."""
    return Model.open(depthwise_net(tmp_path_factory.mktemp("m") / "net.onnx", spread=1.5))


@pytest.fixture(scope="module")
def block(tmp_path_factory) -> Model:
    """An encoder block with outlier channels."""
    return Model.open(attention_net(tmp_path_factory.mktemp("m") / "block.onnx", outlier=60.0))


def calibrated(model, runs):
    shape = model.inputs[0].shape
    return calibrate(model, feeds(8, shape=shape), CalibrateOptions(), runs=runs)


def int8_sqnr(model, runs, **options) -> float:
    settings = QuantizeOptions(method="minmax", bias_correction="no", **options)
    return quantize(model, calibrated(model, runs), settings, runs=runs).sqnr


def test_depthwise_nets_gain_where_one_scale_serves_a_tensor(wild, runs):
    found = equalize(wild, runs=runs)
    assert found.parity[0].verdict == "equal"
    assert "made-up inputs" in found.checked_on
    assert max(pair.before for pair in found.pairs) > 100
    assert max(pair.after for pair in found.pairs) < 30
    before = int8_sqnr(wild, runs, per_channel=False)
    after = int8_sqnr(found.model, runs, per_channel=False)
    assert after > before + 6  # a bit more of the eight


def test_attention_with_outlier_channels_gains_by_smoothquant(block, runs):
    calibration = calibrated(block, runs)
    found = equalize(block, calibration, EqualizeOptions(method="smoothquant"), runs=runs)
    assert found.parity[0].verdict == "equal"
    assert "samples of the calibration" in found.checked_on
    assert {pair.first for pair in found.pairs} == {"norm1", "norm2", "up"}
    assert int8_sqnr(found.model, runs) > int8_sqnr(block, runs) + 3


def test_a_multiplication_is_added_where_asked_and_the_answer_stays(block, runs):
    options = EqualizeOptions(method="smoothquant", insert=True, alpha=0.7)
    found = equalize(block, calibrated(block, runs), options, runs=runs)
    assert any(pair.first == "a Mul after mj" for pair in found.pairs)
    assert found.parity[0].verdict == "equal"
    assert found.model.nodes == block.nodes + 1
    onnx.checker.check_model(str(found.model.path), full_check=True)


def test_the_old_calibration_does_not_fit_the_new_model(wild, runs):
    found = equalize(wild, runs=runs)
    with pytest.raises(StaleResult, match="another model"):
        quantize(found.model, calibrated(wild, runs), runs=runs)
    with pytest.raises(StaleResult, match="another model"):
        equalize(found, calibrated(wild, runs), runs=runs)


def test_what_was_left_alone_is_listed_with_its_reason(tmp_path, runs):
    model = Model.open(conv_net(tmp_path / "conv.onnx"))
    with pytest.raises(UnsupportedModel, match="evened out by cross-layer") as caught:
        equalize(model, runs=runs)
    assert "first: HardSwish 'swish' follows: f(s x) is not s f(x)" in caught.value.detail
    assert "wide" in caught.value.detail


def test_smoothquant_without_a_calibration_is_refused(block, runs):
    with pytest.raises(BadInput, match="how large each channel") as caught:
        equalize(block, None, EqualizeOptions(method="smoothquant"), runs=runs)
    assert "kit.calibrate" in caught.value.remedy


def test_the_result_is_kept_and_reads_as_a_card(wild, runs):
    found = equalize(wild, runs=runs)
    assert equalize(wild, runs=runs) == found
    assert found in find(Equalized, "equalize", "net", runs)
    assert "3 places evened out by cross-layer" in found.title()
    assert "calibrate this model" in str(found)
    assert "Left alone" in str(found)
    assert found.model.lineage[-1].stage == "equalize"


def test_weights_beside_the_model_work_alike(wild, runs, tmp_path):
    outside = tmp_path / "net.onnx"
    onnx.save_model(read(wild.path), str(outside), save_as_external_data=True, location="net.data", size_threshold=100)
    inside, beside = equalize(wild, runs=runs), equalize(outside, runs=tmp_path / "runs")
    left, right = (read(found.model.path).graph.initializer for found in (inside, beside))
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b))


def test_given_samples_are_what_is_compared_on(wild, runs):
    found = equalize(wild, None, EqualizeOptions(samples=2), samples=feeds(5, seed=4), runs=runs)
    assert found.checked_on == "2 samples: x [1, 3, 16, 16]"
    with pytest.raises(BadInput, match="sequence of feeds"):
        equalize(wild, samples="folder", runs=runs)


def test_large_weights_are_read_where_they_lie_and_the_source_stays_as_it_was(tmp_path):
    model = Model.open(attention_net(tmp_path / "large.onnx", width=256, outlier=30.0))
    before = model.digest()
    calibration = calibrate(model, feeds(2, shape=(1, 12, 256)), CalibrateOptions(), runs=tmp_path)
    found = equalize(model, calibration, EqualizeOptions(method="smoothquant", insert=True), runs=tmp_path)
    assert model.digest() == before
    assert found.parity[0].verdict == "equal"
