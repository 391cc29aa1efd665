"""What the notebook shows of ONNX Runtime's calibrators is true of the version installed here."""

import numpy as np
import pytest

import kit
from kit.evidence.other_calibrators import onnxruntime_ranges


@pytest.fixture
def toy(tmp_path):
    return kit.teach.passing_model(tmp_path / "toy.onnx")


@pytest.fixture
def samples():
    random = np.random.default_rng(0)
    made = [{"x": random.standard_normal((1, 1, 32, 32)).astype(np.float32)} for _ in range(8)]
    made[2]["x"][0, 0, 3, 3] = 60
    return made


def test_minmax_sees_the_outlier_unless_it_may_keep_only_three_outputs(toy, samples):
    assert onnxruntime_ranges(toy, samples)["x"][1] == 60
    assert onnxruntime_ranges(toy, samples, max_intermediate_outputs=3)["x"][1] < 10


def test_the_default_entropy_equals_minmax(toy, samples):
    assert onnxruntime_ranges(toy, samples, "entropy")["x"] == onnxruntime_ranges(toy, samples)["x"]


def test_the_histogram_methods_depend_on_order_and_portions_and_ours_does_not(toy, samples, tmp_path):
    theirs = {onnxruntime_ranges(toy, some, "percentile", batches=4)["x"] for some in (samples, samples[::-1])}
    assert len(theirs) == 2
    ours = [kit.calibrate(toy, some, runs=tmp_path / str(at)) for at, some in enumerate((samples, samples[::-1]))]
    assert ours[0].ranges("percentile") == ours[1].ranges("percentile")


def test_a_calibrator_that_stops_is_told_in_words(toy, samples):
    with pytest.raises(kit.ToolFailed, match="No data is collected"):
        onnxruntime_ranges(toy, samples, max_intermediate_outputs=4)
