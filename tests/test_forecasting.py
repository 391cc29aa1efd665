"""The forecast says what a calibration takes, and chooses parts by it."""

import pytest
from quantization_models import conv_net, feeds

import kit
from kit.calibration import CalibrateOptions
from kit.errors import BadInput, UnsupportedModel


@pytest.fixture
def model(tmp_path):
    return conv_net(tmp_path / "toy.onnx")


def test_tensors_of_one_sample_are_added_up(model):
    found = kit.forecast(model, feeds(6))
    assert found.samples == 6
    assert found.tensors == 14
    assert found.memory > found.adds > found.state > 0
    assert found.seconds > 0
    assert "toy.onnx over 6 samples" in str(found)


def test_parts_asked_for_are_kept_and_hold_less_at_a_time(model):
    one, many = (kit.forecast(model, feeds(1), CalibrateOptions(passes=passes)) for passes in (1, 4))
    assert (one.passes, many.passes) == (1, 4)
    assert many.together < one.together
    assert many.activations == one.activations


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(UnsupportedModel, match="would take"):
        kit.forecast(model, feeds(1), CalibrateOptions(memory_limit_mb=1))
    with pytest.raises(BadInput, match="no samples"):
        kit.forecast(model, [])
