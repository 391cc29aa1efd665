"""Calibration: what is measured, that it does not depend on order, and what is refused."""

import dataclasses
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper
from quantization_models import conv_net, feeds, save

from kit.calibration import CalibrateOptions, Calibration, calibrate, merge_calibrations
from kit.collecting import measuring
from kit.errors import BadInput, StaleResult, UnsupportedModel
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model
from kit.progress import Cancelled
from kit.runner import open_runner


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model.open(conv_net(tmp_path_factory.mktemp("model") / "toy.onnx"))


@pytest.fixture(scope="module")
def calibration(model, tmp_path_factory) -> Calibration:
    return calibrate(model, feeds(), runs=tmp_path_factory.mktemp("runs"))


def test_every_value_of_every_sample_is_counted(model, calibration):
    samples = feeds()
    assert calibration.samples == 6
    assert calibration.histogram("x").fed == sum(f["x"].size for f in samples)
    assert calibration.histogram("x").minimum == min(f["x"].min() for f in samples)
    with open_runner(model) as run:
        seen = [run(f)["y"] for f in samples]
    assert calibration.histogram("y").fed == sum(a.size for a in seen)
    assert calibration.histogram("y").maximum == pytest.approx(max(a.max() for a in seen), rel=1e-5)


def test_only_tensors_that_int8_needs_are_measured(model, calibration):
    names = {t.name for t in calibration.tensors}
    # t1 is cut off by the ReLU behind it, so its range is that of r1.
    assert names == {"x", "t0", "h0", "r1", "pool", "s0", "s1", "m", "t3", "t4", "sum", "t6", "up", "y"}
    assert {t.operator for t in calibration.tensors if t.name in ("x", "h0")} == {"input", "HardSwish"}


def test_order_and_passes_do_not_change_a_byte(model, calibration, tmp_path):
    turned = calibrate(model, feeds()[::-1], CalibrateOptions(passes=3), runs=tmp_path)
    for name, histogram in calibration.histograms().items():
        assert turned.histogram(name).tobytes() == histogram.tobytes(), name


def test_ranges_by_every_method(calibration):
    full = calibration.ranges("minmax")
    for method in ("percentile", "mse", "entropy"):
        for name, (low, high) in calibration.ranges(method).items():
            assert full[name][0] <= low <= 0 <= high <= full[name][1]


def test_instant_the_second_time(model, tmp_path):
    calibrate(model, feeds(), runs=tmp_path)
    ticks = []
    again = calibrate(model, feeds(), runs=tmp_path, report=ticks.append)
    assert not ticks
    assert again.histogram("x").fed == 6 * 3 * 16 * 16
    calibrate(model, feeds(5), runs=tmp_path, report=ticks.append)
    assert ticks


def test_at_most_so_many_samples(model, tmp_path):
    assert calibrate(model, feeds(5), CalibrateOptions(samples=2), runs=tmp_path).samples == 2


def test_probes_hold_feeds_and_float_outputs(model, calibration):
    probes = list(calibration.probes())
    assert len(probes) == 6
    with open_runner(model) as run:
        for feed, outputs in probes:
            np.testing.assert_allclose(run(feed)["y"], outputs["y"], rtol=1e-4, atol=1e-6)


def test_the_choice_of_probes_does_not_depend_on_the_order(model, tmp_path):
    samples = feeds(9)
    found, turned = (calibrate(model, given, CalibrateOptions(probes=3), runs=tmp_path)
                     for given in (samples, samples[::-1]))
    assert len(list(found.probes())) == 3
    assert found.probe != turned.probe
    assert found.probe.read_bytes() == turned.probe.read_bytes()
    assert all(any(np.array_equal(feed["x"], sample["x"]) for sample in samples) for feed, _ in found.probes())


def test_another_model_is_refused(calibration, tmp_path):
    other = Model.open(conv_net(tmp_path / "toy.onnx", seed=5))
    with pytest.raises(StaleResult, match="another model"):
        calibration.check(other)


def test_unknown_tensor_is_named(calibration):
    with pytest.raises(BadInput, match="no calibrated tensor named 'poool'") as raised:
        calibration.histogram("poool")
    assert "pool" in raised.value.remedy


@pytest.mark.parametrize(("samples", "words"), [
    ([], "no samples"), (feeds(2, name="image"), "no input named 'image'"),
    (feeds(1, shape=(1, 4, 16, 16)), r"takes shape"), ([{"x": np.zeros((1, 3, 16, 16))}], "takes float32"),
    (iter([]), "must be a sequence")])
def test_samples_that_do_not_fit(model, tmp_path, samples, words):
    with pytest.raises(BadInput, match=words):
        calibrate(model, samples, runs=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


def test_old_opset_names_the_remedy(tmp_path):
    old = conv_net(tmp_path / "old.onnx", opset=12)
    with pytest.raises(UnsupportedModel, match="opset 12") as raised:
        calibrate(old, feeds(1), runs=tmp_path)
    assert "opset=17" in raised.value.remedy


def test_cancel_leaves_nothing(model, tmp_path):
    def cancel(tick):
        if tick.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        calibrate(model, feeds(), runs=tmp_path, report=cancel)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def bad_feeds(value=np.nan):
    samples = feeds(3)
    samples[1] = {"x": samples[1]["x"].copy()}
    samples[1]["x"][0, 0, 0, 0] = value
    return samples


def test_nan_in_a_sample_is_refused_by_name(model, tmp_path):
    with pytest.raises(BadInput, match="sample 1: its input holds 1 NaN and 0 infinite values in 'x'") as raised:
        calibrate(model, bad_feeds(), runs=tmp_path)
    assert "bad_values='skip'" in raised.value.remedy


def test_nan_sample_left_out_leaves_no_trace(model, tmp_path):
    found = calibrate(model, bad_feeds(), CalibrateOptions(bad_values="skip"), runs=tmp_path)
    clean = calibrate(model, [bad_feeds()[0], bad_feeds()[2]], runs=tmp_path)
    assert found.left_out == ("sample 1",)
    assert found.samples == 2
    assert found.faults[0].tensor == "x"
    assert all(found.histogram(n) == h for n, h in clean.histograms().items())


def test_bad_values_counted(model, tmp_path):
    found = calibrate(model, bad_feeds(np.inf), CalibrateOptions(bad_values="count"), runs=tmp_path)
    assert found.histogram("x").infinite == 1
    assert found.samples == 3
    assert next(t for t in found.tensors if t.name == "x").infinite == 1


def test_the_first_node_that_makes_nan_is_named(tmp_path):
    node = helper.make_node
    path = save([node("Sub", ["x", "half"], ["low"], "shift"), node("Sqrt", ["low"], ["root"], "root"),
                 node("Conv", ["root", "w"], ["y"], "conv")],
                {"half": np.float32(0.5), "w": np.ones((2, 3, 1, 1), np.float32)}, tmp_path / "m.onnx")
    good, bad = np.full((1, 3, 16, 16), 0.75, np.float32), np.full((1, 3, 16, 16), 0.25, np.float32)
    with pytest.raises(BadInput, match="sample 1: Sqrt node 'root' made 768 NaN"):
        calibrate(path, [{"x": good}, {"x": bad}], runs=tmp_path)
    with pytest.raises(BadInput, match="Every sample"):
        calibrate(path, [{"x": bad}], CalibrateOptions(bad_values="skip"), runs=tmp_path)


def test_batches_count_like_single_samples(tmp_path):
    path = conv_net(tmp_path / "toy.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(proto, path)
    single = feeds(4)
    batch = [{"x": np.concatenate([f["x"] for f in single])}]
    one, many = calibrate(path, batch, runs=tmp_path), calibrate(path, single, runs=tmp_path)
    assert one.histogram("x") == many.histogram("x")
    assert one.histogram("y").fed == many.histogram("y").fed


def test_shape_arithmetic_is_neither_measured_nor_quantized(tmp_path):
    node = helper.make_node
    path = save([node("Conv", ["x", "w"], ["c"], "conv"), node("Shape", ["c"], ["s"], "shape"),
                 node("Cast", ["s"], ["f"], "cast", to=1), node("Mul", ["f", "two"], ["g"], "double"),
                 node("Cast", ["g"], ["i"], "back", to=7), node("Resize", ["c", "", "", "i"], ["y"], "resize")],
                {"w": np.ones((2, 3, 1, 1), np.float32), "two": np.array([1, 1, 2, 2], np.float32)},
                tmp_path / "m.onnx")
    network = Network(prepare(onnx.load(path)))
    assert network.shape_arithmetic == {"shape", "cast", "double", "back"}
    assert "shapes" in network.obstacle(network.by_name["double"])
    assert {t.name for t in calibrate(path, feeds(2), runs=tmp_path).tensors} == {"x", "c", "y"}


def test_constants_and_nameless_nodes_are_prepared(tmp_path):
    node = helper.make_node
    w = helper.make_tensor("v", 1, [2, 3, 1, 1], np.ones(6, np.float32))
    path = save([node("Constant", [], ["w"], value=w), node("Conv", ["x", "w"], ["a"]), node("Conv", ["x", "w"], ["b"]),
                 node("Add", ["a", "b"], ["y"], "sum")], {}, tmp_path / "m.onnx")
    network = Network(prepare(onnx.load(path)))
    assert "w" in network.constants
    assert len({n.name for n in network.nodes}) == 3
    assert all(n.name for n in network.nodes)
    assert network.weights(network.nodes[0]) == "w"


def test_weights_kept_outside_the_file(model, calibration, tmp_path):
    outside = tmp_path / "toy.onnx"
    onnx.save_model(onnx.load(model.path), str(outside), save_as_external_data=True, location="toy.bin",
                    size_threshold=0)
    found = calibrate(outside, feeds(), runs=tmp_path)
    assert all(found.histogram(n) == h for n, h in calibration.histograms().items())


def test_the_card_reads_as_words(calibration):
    text = str(calibration)
    assert "14 tensors of toy.onnx measured over 6 samples" in text
    assert "widest range" in text
    assert "<table>" in calibration.html()


def test_an_outlier_is_told(model, tmp_path):
    samples = feeds(3)
    samples[0] = {"x": samples[0]["x"].copy()}
    samples[0]["x"][0, 0, 0, 0] = 3e4
    found = calibrate(model, samples, runs=tmp_path)
    assert "stretched by an outlier" in found.facts()


def test_statistics_that_were_changed_are_not_used(model, tmp_path):
    first = calibrate(model, feeds(), runs=tmp_path)
    first.statistics.write_bytes(b"nonsense")
    again = calibrate(model, feeds(), runs=tmp_path)
    assert again.histogram("x").fed == 6 * 3 * 16 * 16
    assert dataclasses.replace(again, provenance=None) == dataclasses.replace(first, provenance=None)


KILLED = """
import sys
import numpy as np
import kit.collecting.measuring as measuring
from kit.calibration import CalibrateOptions, calibrate
measuring.CHECKPOINT_SECONDS = 0
random = np.random.default_rng(1)
samples = [{"x": random.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(40)]
def say(tick):
    print(tick.done, flush=True)
calibrate(sys.argv[1], samples, CalibrateOptions(probes=4), runs=sys.argv[2], report=say)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(model, tmp_path):
    whole = calibrate(model, feeds(40), CalibrateOptions(probes=4), runs=tmp_path / "whole")
    runs, reached = tmp_path / "killed", []
    for at in (3, 11, 26):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(model.path), str(runs)], stdout=subprocess.PIPE,
                                 text=True)
        first = None
        for line in child.stdout:
            first = int(line) if first is None else first
            if int(line) >= at:
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.close()
        child.wait()
        reached.append(first)
    assert reached[0] == 0
    assert reached[2] > 0
    assert not list(runs.rglob("result.json"))
    found = calibrate(model, feeds(40), CalibrateOptions(probes=4), runs=runs)
    assert found.statistics.read_bytes() == whole.statistics.read_bytes()
    assert found.probe.read_bytes() == whole.probe.read_bytes()
    assert not list(runs.rglob("*.partial"))


def test_the_statistics_file_is_the_same_bytes_in_any_order_and_number_of_parts(model, calibration, tmp_path):
    for options in (CalibrateOptions(), CalibrateOptions(passes=1), CalibrateOptions(passes=9, threads=1)):
        turned = calibrate(model, feeds()[::-1], options, runs=tmp_path)
        assert turned.statistics.read_bytes() == calibration.statistics.read_bytes()


def test_merged_parts_are_the_whole(model, calibration, tmp_path):
    parts = [calibrate(model, part, runs=tmp_path) for part in (feeds()[4:], feeds()[:1], feeds()[1:4])]
    merged = merge_calibrations(parts, runs=tmp_path)
    assert merged.statistics.read_bytes() == calibration.statistics.read_bytes()
    assert merged.samples == 6
    assert len(merged.sample_maxima("x")) == 6
    assert {t.name: t for t in merged.tensors} == {t.name: t for t in calibration.tensors}


def test_a_sample_is_not_merged_twice(model, calibration, tmp_path):
    again = calibrate(model, feeds()[:2], runs=tmp_path)
    with pytest.raises(BadInput, match="counted by two"):
        merge_calibrations([calibration, again], runs=tmp_path)
    with pytest.raises(BadInput, match="no calibrations"):
        merge_calibrations([], runs=tmp_path)
    other = calibrate(conv_net(tmp_path / "toy.onnx", seed=5), feeds(2, seed=9), runs=tmp_path)
    with pytest.raises(StaleResult, match="different models"):
        merge_calibrations([calibration, other], runs=tmp_path)


def test_channels_of_what_convolutions_read(model, calibration):
    found = calibration.channels("x")
    stacked = np.concatenate([f["x"] for f in feeds()])
    assert found.axis == 1
    np.testing.assert_array_equal(found.maximum, stacked.max(axis=(0, 2, 3)))
    # float64 sums of 1536 values differ from the exact one by their rounding only.
    np.testing.assert_allclose(found.mean, stacked.astype(np.float64).mean(axis=(0, 2, 3)), rtol=0, atol=1e-15)
    with pytest.raises(BadInput, match="no tensor with measured channels named 's1x'"):
        calibration.channels("s1x")


def test_largest_magnitude_of_each_sample(calibration):
    assert calibration.sample_maxima("x") == {
        f"sample {at}": float(np.abs(f["x"]).max()) for at, f in enumerate(feeds())}


def test_a_stopped_run_can_be_used_and_goes_on(model, calibration, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "resident", lambda: 10**12)
    early = calibrate(model, feeds(), CalibrateOptions(threads=1), runs=tmp_path)
    assert not early.complete
    assert 0 < early.samples < 6
    assert "memory reached" in early.stopped
    assert "stopped early: memory reached" in str(early)
    assert early.ranges("minmax")
    monkeypatch.undo()
    ticks = []
    whole = calibrate(model, feeds(), CalibrateOptions(), runs=tmp_path, report=ticks.append)
    assert whole.complete
    assert ticks[0].done == early.samples
    assert whole.statistics.read_bytes() == calibration.statistics.read_bytes()


def test_a_limit_that_cannot_be_kept_is_told_before_the_run(model, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"would take .* the limit is 1\.0 MB") as raised:
        calibrate(model, feeds(), CalibrateOptions(memory_limit_mb=1), runs=tmp_path)
    assert "memory_limit_mb" in raised.value.remedy


def test_extremes_alone_give_min_max_and_say_what_they_lack(model, calibration, tmp_path):
    found = calibrate(model, feeds(), CalibrateOptions(histograms=False), runs=tmp_path)
    assert found.ranges("minmax") == calibration.ranges("minmax")
    with pytest.raises(BadInput, match="extremes alone") as raised:
        found.ranges("mse")
    assert "histograms=True" in raised.value.remedy
    with pytest.raises(BadInput, match="no histograms"):
        found.histogram("x")
