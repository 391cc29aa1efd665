"""FP16: near float where it fits, float where it does not, and a reason for each."""

import numpy as np
import onnx
import pytest
from onnx import helper
from quantization_models import attention_net, conv_net, feeds, save

from kit.calibration import CalibrateOptions, calibrate
from kit.errors import BadInput, StaleResult
from kit.model import Model, read
from kit.precisions import half
from kit.progress import silent
from kit.quantization import QuantizeOptions
from kit.runner import open_runner

EPSILON = 2.0**-10  # of FP16: what one rounding does to a number, twice over


def write(model, folder, calibration=None, **options):
    return half.write(model, folder, QuantizeOptions(precision="fp16", **options), calibration, silent)


def answers(model, samples) -> list[np.ndarray]:
    with open_runner(model) as runner:
        return [runner(feed)["y"] for feed in samples]


def overflow_net(path):
    """x -> Mul 1000 -> Mul 1000 -> ReduceMean -> Mul 1e-6: the middle is beyond FP16, the answer is not."""
    node = helper.make_node
    w = {"big": np.float32(1000), "small": np.float32(0.001), "w": np.random.default_rng(0).standard_normal(
        (16, 3, 3, 3)).astype(np.float32) / 5}
    nodes = [node("Conv", ["x", "w"], ["c"], "conv"), node("Mul", ["c", "big"], ["a"], "up1"),
             node("Mul", ["a", "big"], ["b"], "up2"), node("Mul", ["b", "small"], ["d"], "down1"),
             node("Mul", ["d", "small"], ["e"], "down2"), node("Relu", ["e"], ["y"], "relu")]
    return save(nodes, w, path, output_shape=[1, 16, 14, 14])


@pytest.mark.parametrize("build", [conv_net, attention_net])
def test_fp16_answers_within_its_own_rounding(tmp_path, build):
    model = Model.open(build(tmp_path / "net.onnx"))
    samples = feeds(3, shape=model.inputs[0].shape)
    written = write(model, tmp_path)
    made = Model.open(written.path)
    assert made.inputs == model.inputs
    assert made.outputs == model.outputs
    assert {setting for setting, _ in written.nodes.values()} >= {"FP16"}
    # Rounding errors of a dozen layers add up like a random walk.
    for left, right in zip(answers(model, samples), answers(made, samples), strict=True):
        assert np.abs(left - right).max() < 16 * EPSILON * np.abs(left).max()
    onnx.checker.check_model(str(written.path), full_check=True)


def test_weights_take_half_the_room_and_the_float_ones_are_gone(tmp_path):
    model = Model.open(attention_net(tmp_path / "net.onnx"))
    written = write(model, tmp_path)
    kinds = {t.data_type for t in read(written.path).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert Model.open(written.path).size < 0.55 * model.size


def test_an_overflow_is_shown_and_then_repaired_by_keeping_its_nodes_in_float(tmp_path):
    model = Model.open(overflow_net(tmp_path / "net.onnx"))
    samples = feeds(3)
    blind = write(model, tmp_path)
    assert not all(np.isfinite(y).all() for y in answers(blind.path, samples))
    assert "Without a calibration" in " ".join(blind.notes)
    calibration = calibrate(model, feeds(4), CalibrateOptions(), runs=tmp_path / "runs")
    (tmp_path / "mixed").mkdir()
    mixed = write(model, tmp_path / "mixed", calibration)
    kept = {name for name, (setting, _) in mixed.nodes.items() if setting == "float"}
    assert kept == {"up2", "down1"}
    assert "FP16 ends at 65504" in mixed.nodes["up2"][1]
    for left, right in zip(answers(model, samples), answers(mixed.path, samples), strict=True):
        assert np.abs(left - right).max() < 8 * EPSILON * np.abs(left).max()
    # Between the two that stay in float the values never pass through FP16.
    casts = [node for node in read(mixed.path).graph.node if node.op_type == "Cast"]
    assert len(casts) == 4


def test_values_too_small_for_fp16_stay_in_float(tmp_path):
    node = helper.make_node
    w = {"tiny": np.float32(1e-7), "huge": np.float32(1e5)}
    model = Model.open(save([node("Mul", ["x", "tiny"], ["a"], "shrink"), node("Relu", ["a"], ["b"], "relu"),
                             node("Mul", ["b", "huge"], ["c"], "grow"), node("Sigmoid", ["c"], ["y"], "sigmoid")], w,
                            tmp_path / "net.onnx", output_shape=[1, 3, 16, 16]))
    calibration = calibrate(model, feeds(4), CalibrateOptions(), runs=tmp_path / "runs")
    written = write(model, tmp_path, calibration)
    assert "reaches only" in written.nodes["shrink"][1]
    assert "reaches only" in written.nodes["relu"][1]
    assert written.nodes["grow"][0] == "float"
    assert written.nodes["sigmoid"] == ("FP16", "")


def test_named_nodes_and_types_stay_in_float(tmp_path):
    model = Model.open(conv_net(tmp_path / "net.onnx"))
    written = write(model, tmp_path, keep_float=("wide",), keep_float_types=("Sigmoid",))
    assert written.nodes["wide"] == ("float", "asked for by name")
    assert written.nodes["sigmoid"] == ("float", "asked for by type")
    with pytest.raises(BadInput, match="no node named 'wdie'"):
        write(model, tmp_path, keep_float=("wdie",))


def test_operators_that_only_take_float_keep_it(tmp_path):
    node = helper.make_node
    w = {"scales": np.float32([1, 1, 2, 2]), "k": np.array([2])}
    model = Model.open(save([node("Resize", ["x", "", "scales"], ["r"], "resize", mode="nearest"),
                             node("TopK", ["r", "k"], ["y", "i"], "top")], w, tmp_path / "net.onnx",
                            output_shape=[1, 3, 32, 2]))
    written = write(model, tmp_path)
    assert written.nodes["resize"] == ("FP16", "")
    assert "change places" in written.nodes["top"][1]
    kinds = {t.name: t.data_type for t in read(written.path).graph.initializer}
    assert kinds["scales"] == onnx.TensorProto.FLOAT  # ONNX says float32 there
    left, right = answers(model, feeds(1))[0], answers(written.path, feeds(1))[0]
    np.testing.assert_allclose(left, right, rtol=EPSILON, atol=EPSILON)


def test_it_says_that_a_cpu_gains_nothing_and_refuses_a_foreign_calibration(tmp_path):
    model = Model.open(conv_net(tmp_path / "net.onnx"))
    assert any("slower than float32" in note for note in write(model, tmp_path).notes)
    other = Model.open(conv_net(tmp_path / "other.onnx", seed=3))
    calibration = calibrate(other, feeds(2), CalibrateOptions(), runs=tmp_path / "runs")
    with pytest.raises(StaleResult, match="another model"):
        write(model, tmp_path, calibration)


def test_weights_beside_the_model_work_alike(tmp_path):
    model = Model.open(attention_net(tmp_path / "net.onnx"))
    outside = tmp_path / "outside" / "net.onnx"
    outside.parent.mkdir()
    onnx.save_model(read(model.path), str(outside), save_as_external_data=True, location="net.data", size_threshold=100)
    inside, beside = write(model, tmp_path), write(Model.open(outside), outside.parent)
    assert inside.path.read_bytes() == beside.path.read_bytes()


def test_large_weights_are_read_where_they_lie_and_the_source_stays_as_it_was(tmp_path):
    """Weights above 64 kB are references to the source's own file while FP16 is written."""
    model = Model.open(attention_net(tmp_path / "net.onnx", width=256))
    before = model.digest()
    samples = feeds(2, shape=(1, 12, 256))
    calibration = calibrate(model, samples, CalibrateOptions(), runs=tmp_path / "runs")
    written = write(model, tmp_path, calibration)
    assert model.digest() == before
    for left, right in zip(answers(model, samples), answers(written.path, samples), strict=True):
        assert np.abs(left - right).max() < 16 * EPSILON * np.abs(left).max()
