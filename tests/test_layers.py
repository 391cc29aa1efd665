"""Layers: errors by tensor, and the ranking finds the layer that was made bad."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from quantization_models import conv_net, feeds

from kit.calibration import CalibrateOptions, calibrate
from kit.errors import BadInput, StaleResult
from kit.layers import (
    LayerErrorOptions,
    Sensitivity,
    SensitivityOptions,
    layer_errors,
    sensitivity,
    suggest_float,
)
from kit.model import Model
from kit.quantization import QuantizeOptions, quantize


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model.open(conv_net(tmp_path_factory.mktemp("model") / "toy.onnx"))


@pytest.fixture(scope="module")
def calibration(model, runs):
    return calibrate(model, feeds(), runs=runs)


@pytest.fixture(scope="module")
def quantized(model, calibration, runs):
    return quantize(model, calibration, QuantizeOptions(method="mse"), runs=runs)


@pytest.fixture(scope="module")
def errors(model, quantized, runs):
    return layer_errors(model, quantized, feeds(3, seed=4), runs=runs)


@pytest.fixture(scope="module")
def ranking(model, calibration, runs) -> Sensitivity:
    return sensitivity(model, calibration, runs=runs)


def test_every_measured_tensor_that_is_left_has_a_row(errors):
    names = [row.tensor for row in errors.rows]
    assert names == ["t0", "h0", "r1", "pool", "s0", "s1", "m", "t3", "t4", "sum", "t6", "up", "y"]
    assert errors.samples == 3
    rows = {row.tensor: row for row in errors.rows}
    assert rows["t0"].operator == "Conv"
    assert 25 < rows["t0"].weights < 60
    assert rows["h0"].weights is None
    assert rows["up"].own is None  # ConvTranspose stays in float
    assert all(10 < row.sqnr < 80 for row in errors.rows)
    # Rounding a tensor alone can only be better than rounding it and all before it.
    assert all(row.own > row.sqnr - 1 for row in errors.rows if row.own is not None)


def test_errors_by_hand(model, quantized, errors):
    from kit.int8 import qdq
    from kit.int8.exposed import exposed
    from kit.int8.preparing import prepare
    from kit.int8.quantizable import Network
    from kit.model import read

    network = Network(prepare(read(model.path)))
    about = qdq.rounded(read(quantized.model.path))["t0"]
    with exposed(network, model, ["t0"]) as run:
        values = np.concatenate([run(f)["t0"].ravel() for f in feeds(3, seed=4)]).astype(np.float64)
    limits = np.array([0, 255]) - about.zero
    expected = np.clip(np.rint(values / about.scale), *limits) * about.scale
    want = 10 * np.log10(np.square(values).sum() / np.square(values - expected).sum())
    row = next(row for row in errors.rows if row.tensor == "t0")
    assert row.own == pytest.approx(want, abs=0.01)


def test_passes_do_not_change_the_answer(model, quantized, errors, runs):
    parts = layer_errors(model, quantized, feeds(3, seed=4), LayerErrorOptions(passes=4), runs=runs)
    assert [r.tensor for r in parts.rows] == [r.tensor for r in errors.rows]
    for one, other in zip(parts.rows, errors.rows, strict=True):
        assert one.sqnr == pytest.approx(other.sqnr, abs=0.2)


def test_the_worst_come_first(errors):
    worst = errors.worst(3)
    assert worst[0].sqnr == min(row.sqnr for row in errors.rows)
    assert worst[0].sqnr <= worst[1].sqnr <= worst[2].sqnr
    assert errors.drops(1)[0][1] == max(drop for _, drop in errors.drops(100))
    assert worst[0].node in errors.title()
    assert "worst first" in str(errors)


def test_another_float_model_is_refused(quantized, tmp_path):
    with pytest.raises(StaleResult, match="was not made from"):
        layer_errors(conv_net(tmp_path / "toy.onnx", seed=8), quantized, feeds(1), runs=tmp_path)


def test_samples_are_needed(model, quantized, runs):
    with pytest.raises(BadInput, match="no samples"):
        layer_errors(model, quantized, [], runs=runs)


def test_every_group_is_tried_once(ranking, quantized):
    assert {group.name for group in ranking.groups} == {
        "first", "depthwise", "squeeze", "pointwise", "wide", "again"}
    assert not ranking.untried
    assert [g.noise for g in ranking.groups] == sorted((g.noise for g in ranking.groups), reverse=True)
    names = [name for group in ranking.groups for name in group.nodes]
    assert len(names) == len(set(names))
    assert "residual" in next(g.nodes for g in ranking.groups if g.name in ("wide", "pointwise") and len(g.nodes) > 1)
    # Each alone is better than all together.
    assert all(group.sqnr > ranking.sqnr - 1 for group in ranking.groups)


def plant(path, bad):
    """One input channel of a node is made 300 times smaller and its weights as much larger: the same float answer, but
    one scale a channel now has to serve weights that differ by a factor of 300."""
    proto = onnx.load(path)
    node = next(n for n in proto.graph.node if n.name == bad)
    values = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == node.input[1]).copy()
    values[:, 0] *= 300
    gain = np.ones((1, values.shape[1], 1, 1), np.float32)
    gain[0, 0] = 1 / 300
    proto.graph.initializer.extend([numpy_helper.from_array(values, "planted"), numpy_helper.from_array(gain, "gain")])
    at = list(proto.graph.node).index(node)
    quieten = onnx.helper.make_node("Mul", [node.input[0], "gain"], ["quiet"], "quieten")
    node.input[0], node.input[1] = "quiet", "planted"
    proto.graph.node.insert(at, quieten)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("bad", ["first", "wide", "again"])
def test_the_planted_bad_layer_is_found_and_keeping_it_in_float_repairs(tmp_path, bad):
    path = plant(conv_net(tmp_path / "toy.onnx", seed=2), bad)
    calibration = calibrate(path, feeds(4), runs=tmp_path)
    found = sensitivity(path, calibration, runs=tmp_path)
    assert found.groups[0].name == bad
    keep = suggest_float(found, groups=1)
    assert bad in keep
    naive, repaired = (quantize(path, calibration, QuantizeOptions(method="percentile", keep_float=names),
                                runs=tmp_path) for names in ((), keep))
    assert repaired.sqnr > naive.sqnr + 3


def test_sparing_a_group_is_the_other_direction(model, calibration, runs):
    found = sensitivity(model, calibration, options=SensitivityOptions(direction="spared"), runs=runs)
    assert max(group.sqnr for group in found.groups) > found.sqnr
    with pytest.raises(BadInput, match="groups alone"):
        suggest_float(found)


def test_own_samples_are_used(model, calibration, runs):
    found = sensitivity(model, calibration, feeds(5, seed=7), SensitivityOptions(samples=3), runs=runs)
    assert found.samples == 3


def test_time_that_is_up_is_told(model, calibration, runs, monkeypatch):
    import kit.int8.ranking

    now = iter(range(0, 10_000, 4))
    monkeypatch.setattr(kit.int8.ranking.time, "monotonic", lambda: next(now))
    found = sensitivity(model, calibration, options=SensitivityOptions(seconds=5), runs=runs)
    assert found.untried
    assert len(found.groups) + len(found.untried) == 6
    assert "lack of time" in str(found)


def test_without_probes_or_samples_it_says_so(model, tmp_path):
    bare = calibrate(model, feeds(), CalibrateOptions(probes=0), runs=tmp_path)
    with pytest.raises(BadInput, match="no samples to rank by"):
        sensitivity(model, bare, runs=tmp_path)


def test_suggestions_reach_what_is_asked(ranking):
    total = sum(group.noise for group in ranking.groups)
    for share in (0.3, 0.8):
        names = suggest_float(ranking, share=share)
        gone = sum(group.noise for group in ranking.groups if group.name in names)
        assert gone >= share * total
    assert suggest_float(ranking, groups=0) == ()
    assert suggest_float(ranking, target=-10) == ()
    assert len(suggest_float(ranking, target=190)) == sum(len(g.nodes) for g in ranking.groups)
