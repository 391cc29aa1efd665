"""Bias correction: the mean of every channel comes back, in the right constant, and what cannot be done is said."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantization_models import attention_net, save

from kit.calibration import CalibrateOptions, calibrate
from kit.int8.qdq import Rounding
from kit.model import Model
from kit.quantization import QuantizeOptions, quantize
from kit.runner import open_runner

CHANNELS = 8


def biased(*shape, axis):
    """Weights whose rounding always errs to the same side: a little below the middle between two steps."""
    random = np.random.default_rng(3)
    level = random.integers(-100, 100, shape) + 0.45
    np.moveaxis(level, axis, 0)[:, ..., 0] = 127  # fixes the scale of every channel
    return (level * 0.01).astype(np.float32)


def samples(shape, count=24):
    """Inputs far from mean zero, and another mean in every channel."""
    random = np.random.default_rng(5)
    offsets = np.linspace(0.5, 2, shape[1] if len(shape) == 4 else shape[-1], dtype=np.float32)
    offsets = offsets.reshape((1, -1, 1, 1) if len(shape) == 4 else (1, -1))
    return [{"x": random.random(shape, dtype=np.float32) + offsets} for _ in range(count)]


def convolution(path, **settings):
    has_bias = settings.pop("bias", True)
    group, size = settings.get("group", 1), settings.pop("size", 12)
    weights = {"w": biased(CHANNELS, CHANNELS // group, 3, 3, axis=0), **({"b": np.zeros(CHANNELS, np.float32)}
                                                                          if has_bias else {})}
    nodes = [helper.make_node("Conv", ["x", *weights], ["y"], "conv", **settings)]
    return save(nodes, weights, path, shape=(1, CHANNELS, size, size))


def gemm(path, **settings):
    weights = biased(CHANNELS, CHANNELS, axis=0 if settings.get("transB") else 1)
    return save([helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm", **settings)],
                {"w": weights, "b": np.ones(CHANNELS, np.float32)}, path, shape=(4, CHANNELS))


def matmul(path):
    return save([helper.make_node("MatMul", ["x", "w"], ["t"], "product"),
                 helper.make_node("Add", ["t", "b"], ["y"], "plus")],
                {"w": biased(CHANNELS, CHANNELS, axis=1), "b": np.ones(CHANNELS, np.float32)}, path,
                shape=(4, CHANNELS))


def mean_shift(model, quantized, feeds):
    """Largest difference of the mean of an output channel over the samples."""
    def means(which):
        with open_runner(which) as runner:
            answers = np.stack([runner(feed)["y"] for feed in feeds])
        axes = (0, 1, 3, 4) if answers.ndim == 5 else (0, 1)
        return answers.mean(axis=axes, dtype=np.float64)
    return float(np.abs(means(model) - means(quantized)).max())


MODELS = {
    "conv": (convolution, {}, (1, CHANNELS, 12, 12)),
    "conv without a bias": (convolution, {"bias": False}, (1, CHANNELS, 12, 12)),
    "grouped conv": (convolution, {"group": 4}, (1, CHANNELS, 12, 12)),
    "gemm": (gemm, {}, (4, CHANNELS)),
    "gemm, transposed": (gemm, {"transB": 1}, (4, CHANNELS)),
    "matmul and add": (matmul, {}, (4, CHANNELS)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_shift_is_taken_off_every_channel(tmp_path, name):
    build, settings, shape = MODELS[name]
    model = Model.open(build(tmp_path / "m.onnx", **settings))
    feeds = samples(shape)
    calibration = calibrate(model, feeds, runs=tmp_path)
    # Only the product is INT8: an Add in INT8 rounds its own result, which would hide what is measured here.
    common = {"method": "minmax", "keep_float_types": ("Add",) if name == "matmul and add" else ()}
    plain = quantize(model, calibration, QuantizeOptions(**common, bias_correction="no"), runs=tmp_path)
    better = quantize(model, calibration, QuantizeOptions(**common, bias_correction="yes"), runs=tmp_path)
    before, after = (mean_shift(model, found, feeds) for found in (plain, better))
    assert plain.biases == ()
    (about,) = better.biases
    assert about.why == ""
    assert about.after < 0.05 * about.before
    assert after < 0.35 * before  # what is left is the rounding of activations, which is not biased by much
    assert better.sqnr > plain.sqnr


def test_at_a_padded_border_a_part_of_the_shift_stays(tmp_path):
    model = Model.open(convolution(tmp_path / "m.onnx", pads=[1, 1, 1, 1]))
    feeds = samples((1, CHANNELS, 12, 12))
    calibration = calibrate(model, feeds, runs=tmp_path)
    options = QuantizeOptions(method="minmax", bias_correction="yes")
    better = quantize(model, calibration, options, runs=tmp_path)
    with open_runner(model) as left, open_runner(better) as right:
        gap = np.mean([left(feed)["y"] - right(feed)["y"] for feed in feeds], axis=(0, 1))
    inner, border = np.abs(gap[:, 2:-2, 2:-2].mean(axis=(1, 2))), np.abs(gap[:, 0, :].mean(axis=1))
    assert inner.max() < border.max()


def test_auto_keeps_a_correction_that_helps(tmp_path):
    model = Model.open(convolution(tmp_path / "m.onnx"))
    feeds = samples((1, CHANNELS, 12, 12))
    found = quantize(model, calibrate(model, feeds, runs=tmp_path), QuantizeOptions(method="minmax"), runs=tmp_path)
    assert [b.why for b in found.biases] == [""]
    assert "biases corrected" in str(found)


def test_auto_drops_a_correction_that_does_harm_and_says_by_how_much(tmp_path):
    # Of 2 x 2 places padded to 4 x 4, each sees 4 of 9 weights: correcting for 9 errs more than leaving it.
    model = Model.open(convolution(tmp_path / "m.onnx", size=2, pads=[1, 1, 1, 1]))
    calibration = calibrate(model, samples((1, CHANNELS, 2, 2)), runs=tmp_path)
    plain, forced, auto = (quantize(model, calibration, QuantizeOptions(method="minmax", bias_correction=asked),
                                    runs=tmp_path) for asked in ("no", "yes", "auto"))
    assert forced.sqnr < plain.sqnr
    assert (auto.sqnr, auto.biases) == (plain.sqnr, ())
    assert any(f"from {plain.sqnr:.1f} to {forced.sqnr:.1f} dB" in note for note in auto.notes)


def test_auto_leaves_biases_alone_where_no_probe_can_tell(tmp_path):
    model = Model.open(convolution(tmp_path / "m.onnx"))
    none = calibrate(model, samples((1, CHANNELS, 12, 12)), CalibrateOptions(probes=0), runs=tmp_path)
    left = quantize(model, none, QuantizeOptions(method="minmax"), runs=tmp_path)
    assert left.biases == ()
    assert any("without probe samples" in note for note in left.notes)


def test_nodes_whose_bias_cannot_take_it_are_named_with_the_reason(tmp_path):
    random = np.random.default_rng(0)
    path = save(
        [helper.make_node("MatMul", ["x", "w0"], ["a"], "alone"), helper.make_node("Softmax", ["a"], ["s"], "soft"),
         helper.make_node("MatMul", ["w1", "s"], ["y"], "left")],
        {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("w0", "w1")}, tmp_path / "m.onnx",
        shape=(8, 8))
    feeds = samples((8, 8))
    options = QuantizeOptions(method="minmax", bias_correction="yes")
    found = quantize(path, calibrate(path, feeds, runs=tmp_path), options, runs=tmp_path)
    reasons = {b.node: b.why for b in found.biases}
    assert "no constant is added" in reasons["alone"]
    assert "on the left" in reasons["left"]


def test_a_bias_that_two_nodes_share_is_corrected_for_each(tmp_path):
    weights = {"w": biased(CHANNELS, CHANNELS, 3, 3, axis=0), "v": biased(CHANNELS, CHANNELS, 3, 3, axis=0) / 9,
               "b": np.zeros(CHANNELS, np.float32)}
    path = save([helper.make_node("Conv", ["x", "w", "b"], ["t"], "one"),
                 helper.make_node("Conv", ["t", "v", "b"], ["y"], "two")], weights, tmp_path / "m.onnx",
                shape=(1, CHANNELS, 12, 12))
    feeds = samples((1, CHANNELS, 12, 12))
    options = QuantizeOptions(method="minmax", bias_correction="yes")
    found = quantize(path, calibrate(path, feeds, runs=tmp_path), options, runs=tmp_path)
    assert all(b.after < 0.05 * b.before and not b.why for b in found.biases)
    proto = onnx.load(str(found.model.path))
    biases = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.INT32 and len(t.dims) == 1]
    assert len({numpy_helper.to_array(t).tobytes() for t in biases if t.dims[0] == CHANNELS}) >= 2
    assert "b" not in {t.name for t in proto.graph.initializer}


def test_a_bias_that_is_rounded_with_its_own_scale_is_described(tmp_path):
    path = attention_net(tmp_path / "m.onnx")  # the Add behind a MatMul rounds its constant like a weight
    shape = Model.open(path).inputs[0].shape
    feeds = [{"x": np.random.default_rng(at).standard_normal(shape).astype(np.float32)} for at in range(6)]
    found = quantize(path, calibrate(path, feeds, runs=tmp_path), QuantizeOptions(bias_correction="yes"), runs=tmp_path)
    done = {b.node: b for b in found.biases if not b.why}
    assert "up" in done
    assert np.isfinite(done["up"].after)


def test_errors_of_rounding_are_what_the_bytes_lack():
    random = np.random.default_rng(1)
    values = random.standard_normal((2100, 700)).astype(np.float32)  # more than is rounded at a time
    for axis, scale in ((None, np.float32(0.03)), (0, np.full(2100, 0.03, np.float32)),
                        (1, np.full(700, 0.03, np.float32))):
        rounding = Rounding(np.asarray(scale), np.zeros(np.shape(scale), np.int8), axis)
        codes = rounding.round(values)
        for rows, error in rounding.errors(values):
            np.testing.assert_array_equal(error, values[rows] - codes[rows] * np.float32(0.03))
