"""The ranking finds what was made bad, in ten toys of different build, and confirms it by a metric.

Each toy is a sound float model in which one place is hard for INT8 and nothing else is: mostly large numbers that the
answer does not depend on, but a scale does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from quantization_models import conv_net, feeds, save

from kit.calibration import calibrate
from kit.errors import BadInput
from kit.layers import SensitivityOptions, sensitivity, suggest_float
from kit.quantization import QuantizeOptions, quantize

node = helper.make_node
C = 8


class Net:
    """Nodes and weights of a toy, filled in layer by layer."""

    def __init__(self, seed=0):
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], {}

    def conv(self, source, name, out=C, into=C, *, relu=True, size=3, group=1):
        w = self.random.standard_normal((out, into // group, size, size)) / np.sqrt(into // group * size * size)
        self.weights |= {f"w_{name}": w.astype(np.float32), f"b_{name}": np.full(out, 0.1, np.float32)}
        pads = [size // 2] * 4
        self.nodes.append(node("Conv", [source, f"w_{name}", f"b_{name}"], [f"t_{name}"], name, pads=pads, group=group))
        return self.add("Relu", [f"t_{name}"], f"r_{name}") if relu else f"t_{name}"

    def add(self, kind, sources, name, **more):
        self.nodes.append(node(kind, sources, [name], f"{kind}_{name}", **more))
        return name

    def silence(self, name, channel, factor):
        """Make a channel's weights large and its bias so low that ReLU always gives 0."""
        self.weights[f"w_{name}"][channel] *= factor
        self.weights[f"b_{name}"][channel] = -50 * factor

    def save(self, path, last, shape=(1, 3, 12, 12)):
        self.nodes[-1].output[0] = "y"
        return save(self.nodes, self.weights, path, shape=shape)


@dataclass(frozen=True)
class Toy:
    path: Path
    samples: list
    bad: str  # the node, or the tensor where by is tensor
    by: str = "layer"
    around: tuple = ()  # the layers that make or read a bad tensor
    per_channel: bool = True
    types: tuple = ()


def weights_per_tensor(path):
    """A channel that ReLU always cuts off has weights a hundred times as large: one scale for all loses the others."""
    net = Net(1)
    x = net.conv("x", "one", into=3)
    x = net.conv(x, "two")
    net.silence("two", 3, 100)
    x = net.conv(x, "three")
    return Toy(net.save(path, net.conv(x, "four", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "two",
               per_channel=False)


def activation_outlier(path):
    """A channel of a hundred times the others' size, which the next layer does not look at: the step is too coarse."""
    net = Net(2)
    x = net.conv("x", "one", into=3)
    x = net.conv(x, "two")
    net.weights["w_two"][5] *= 100
    x = net.conv(x, "three")
    net.weights["w_three"][:, 5] = 0
    return Toy(net.save(path, net.conv(x, "four", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "r_two", "tensor",
               ("two", "three"))


def wild_depthwise(path):
    """Channels of a depthwise convolution differ by a factor of 300, and one scale serves them all."""
    net = Net(3)
    x = net.conv("x", "one", into=3)
    x = net.conv(x, "deep", group=C)
    net.silence("deep", 1, 300)
    net.silence("deep", 6, 100)
    x = net.conv(x, "point", size=1)
    return Toy(net.save(path, net.conv(x, "last", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "deep",
               per_channel=False)


def forced_sigmoid(path):
    """Sigmoid answers near 0.002 with rare ones near 1: all of the former become 0, and the next layer reads them."""
    net = Net(4)
    x = net.conv("x", "one", into=3)
    net.conv(x, "gate", relu=False)
    net.weights["b_gate"][:] = -6.5
    net.weights["b_gate"][0] = 4
    x = net.add("Sigmoid", ["t_gate"], "soft")
    x = net.conv(x, "two")
    net.weights["w_two"] *= 300
    net.weights["w_two"][:, 0] = 0
    return Toy(net.save(path, net.conv(x, "three", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "soft", "tensor",
               ("gate", "two"), types=("Conv", "Relu", "Sigmoid"))


def wide_residual(path):
    """A small detail is added to a carrier a hundred times as large, which the next layer takes off again."""
    net = Net(5)
    x = net.conv("x", "one", into=3)
    detail = net.conv(x, "detail", relu=False)
    net.conv(x, "carrier", relu=False)
    half = C // 2
    net.weights["w_carrier"] *= 100
    net.weights["w_carrier"][half:] = net.weights["w_carrier"][:half]
    net.weights["w_detail"][half:] = 0
    total = net.add("Add", ["t_carrier", detail], "total")
    y = net.conv(total, "head", size=1, out=half, relu=False)
    net.weights["w_head"][:, half:] = -net.weights["w_head"][:, :half]
    return Toy(net.save(path, y), feeds(8, shape=(1, 3, 12, 12)), "total", "tensor", ("carrier", "detail", "head"))


def unlike_concat(path):
    """Two maps side by side, one three hundred times as large and not read: one scale leaves nothing of the other."""
    net = Net(6)
    x = net.conv("x", "one", into=3)
    small, large = net.conv(x, "small"), net.conv(x, "large")
    net.weights["w_large"] *= 300
    both = net.add("Concat", [small, large], "both", axis=1)
    y = net.conv(both, "head", into=2 * C)
    net.weights["w_head"][:, C:] = 0
    return Toy(net.save(path, net.conv(y, "last", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "both", "tensor",
               ("small", "large", "head"))


def matmul_row(path):
    """A row of a MatMul that multiplies zeros is five hundred times as large: it sets the scale of every column."""
    random = np.random.default_rng(7)
    w = {f"w{at}": (random.standard_normal((24, 24)) / 5).astype(np.float32) for at in range(4)}
    w["b"] = np.zeros(24, np.float32)
    w["b"][9] = -100
    w["w2"][9] *= 500
    nodes = [node("MatMul", ["x", "w0"], ["t0"], "one"), node("Add", ["t0", "b"], ["a0"], "shift"),
             node("Relu", ["a0"], ["r0"], "relu0"),
             node("MatMul", ["r0", "w2"], ["t1"], "outlier"), node("Relu", ["t1"], ["r1"], "relu1"),
             node("MatMul", ["r1", "w3"], ["t2"], "three"), node("Relu", ["t2"], ["r2"], "relu2"),
             node("MatMul", ["r2", "w1"], ["y"], "four")]
    return Toy(save(nodes, w, path, shape=(1, 10, 24)), feeds(8, shape=(1, 10, 24)), "outlier")


def narrow_bottleneck(path):
    """Everything passes through two channels that carry an offset of 50, which the next layer takes off again."""
    net = Net(8)
    x = net.conv(net.conv("x", "one", into=3), "two")
    x = net.conv(x, "narrow", out=2, relu=False)
    net.weights["b_narrow"][:] = 50
    x = net.conv(x, "wide", into=2, size=1)
    net.weights["w_wide"] = np.sign(net.weights["w_wide"])  # which INT8 stores exactly
    net.weights["b_wide"] -= 50 * net.weights["w_wide"].sum((1, 2, 3))
    x = net.conv(x, "three")
    return Toy(net.save(path, net.conv(x, "four", relu=False)), feeds(8, shape=(1, 3, 12, 12)), "t_narrow", "tensor",
               ("narrow", "wide"))


def last_layer(path):
    """The last layer's weights for a channel that is always 0 are three hundred times as large."""
    net = Net(9)
    x = net.conv(net.conv("x", "one", into=3), "two")
    x = net.conv(x, "three")
    net.weights["b_three"][2] = -100
    y = net.conv(x, "last", relu=False)
    net.weights["w_last"][:, 2] *= 300
    return Toy(net.save(path, y), feeds(8, shape=(1, 3, 12, 12)), "last")


def first_layer(path):
    """The third channel of the pictures is always 0, and the first layer's weights for it are large."""
    net = Net(10)
    x = net.conv("x", "first", into=3)
    net.weights["w_first"][:, 2] *= 300
    x = net.conv(net.conv(x, "two"), "three")
    samples = feeds(8, shape=(1, 3, 12, 12))
    for feed in samples:
        feed["x"][:, 2] = 0
    return Toy(net.save(path, net.conv(x, "four", relu=False)), samples, "first")


TOYS = (weights_per_tensor, activation_outlier, wild_depthwise, forced_sigmoid, wide_residual, unlike_concat,
        matmul_row, narrow_bottleneck, last_layer, first_layer)


@pytest.fixture(scope="module", params=TOYS, ids=[toy.__name__ for toy in TOYS])
def planted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy = request.param(folder / "toy.onnx")
    return toy, calibrate(toy.path, toy.samples, runs=folder), folder


def ranked(planted, **more):
    toy, calibration, folder = planted
    options = SensitivityOptions(method="minmax", per_channel=toy.per_channel, quantize_types=toy.types, **more)
    return sensitivity(toy.path, calibration, options=options, runs=folder)


@pytest.mark.parametrize("direction", ["alone", "spared"])
def test_what_was_planted_comes_first_in_both_directions(planted, direction):
    toy = planted[0]
    found = ranked(planted, by=toy.by, direction=direction)
    assert found.groups[0].name == toy.bad
    assert len(found.groups) >= 4
    # Not by a hair: what is planted costs more than twice as much as anything else, and alone nearly all there is.
    if direction == "alone":
        assert found.groups[0].noise > 2 * found.groups[1].noise
    else:
        assert found.groups[0].sqnr > found.sqnr + 3


def test_the_layer_that_makes_or_reads_a_bad_tensor_comes_first(planted):
    toy = planted[0]
    assert ranked(planted).groups[0].name in (toy.around or (toy.bad,))


def test_bad_weights_are_found_as_a_tensor_too(planted):
    toy = planted[0]
    if toy.by == "layer":
        found = ranked(planted, by="tensor").groups[0]
        assert (found.operator, found.nodes) == ("weights", (toy.bad,))


def test_keeping_what_is_suggested_in_float_repairs(planted):
    toy = planted[0]
    found = ranked(planted, by=toy.by)
    keep = suggest_float(found, groups=1)
    assert set(keep) <= {name for group in found.groups for name in group.nodes}
    spared = ranked(planted, by=toy.by, keep_float=keep)
    assert spared.sqnr > found.sqnr + 3


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    path = conv_net(folder / "toy.onnx")
    return path, calibrate(path, feeds(), runs=folder), folder


def closeness(runner) -> float:
    """A metric: how near the outputs of fixed feeds are to 0.5, negative."""
    return -float(np.mean([np.abs(runner(feed)["y"] - 0.5).mean() for feed in feeds(3, seed=5)]))


@dataclass(frozen=True)
class Agreement:
    """A metric with data of its own: minus the mean distance from known answers."""

    answers: tuple

    def __call__(self, runner) -> float:
        pairs = zip(feeds(len(self.answers), seed=6), self.answers, strict=True)
        return -float(np.mean([np.abs(runner(feed)["y"] - answer).mean() for feed, answer in pairs]))


@pytest.mark.parametrize(("by", "direction"), [("layer", "alone"), ("layer", "spared"), ("tensor", "alone")])
def test_the_dearest_are_confirmed_by_the_metric_on_written_models(plain, by, direction):
    from kit.runner import open_runner

    path, calibration, folder = plain
    with open_runner(path) as runner:
        metric = Agreement(tuple(runner(feed)["y"] for feed in feeds(3, seed=6)))
    options = SensitivityOptions(by=by, direction=direction, confirm=2)
    found = sensitivity(path, calibration, options=options, metric=metric, runs=folder)
    assert [group.metric is not None for group in found.groups[:4]] == [True, True, False, False]
    assert found.metric_float == pytest.approx(0, abs=1e-7)
    whole = quantize(path, calibration, QuantizeOptions(method="percentile", bias_correction="no"), runs=folder)
    with open_runner(whole.model) as runner:
        assert found.metric_int8 == metric(runner)
    first = found.groups[0]
    if direction == "spared":
        apart = quantize(path, calibration, QuantizeOptions(
            method="percentile", bias_correction="no", keep_float=first.nodes, quantize_types=()), runs=folder)
        assert first.metric > found.metric_int8
        assert set(first.nodes) <= {n.node for n in apart.nodes if n.setting != "INT8"}
    else:
        assert found.metric_int8 < first.metric < found.metric_float
    assert "metric" in str(found)
    assert "in float" in str(found)


def test_a_metric_is_part_of_what_a_stored_result_belongs_to(plain):
    path, calibration, folder = plain
    options = SensitivityOptions(confirm=1)
    one, two = (sensitivity(path, calibration, options=options, metric=Agreement((np.float32(value),)), runs=folder)
                for value in (0.0, 1.0))
    assert one.provenance.key != two.provenance.key
    assert one.groups[0].metric != two.groups[0].metric
    assert sensitivity(path, calibration, options=options, metric=closeness, runs=folder).metric_float < 0


def test_metrics_that_cannot_serve_are_refused(plain):
    path, calibration, folder = plain
    with pytest.raises(BadInput, match="no metric to confirm by"):
        sensitivity(path, calibration, options=SensitivityOptions(confirm=3), runs=folder)
    with pytest.raises(BadInput, match="confirm=0"):
        sensitivity(path, calibration, metric=closeness, runs=folder)
    with pytest.raises(BadInput, match="inside another"):
        sensitivity(path, calibration, options=SensitivityOptions(confirm=1), metric=lambda runner: 0.0, runs=folder)


def test_every_rounded_tensor_is_tried_once(plain):
    path, calibration, folder = plain
    found = sensitivity(path, calibration, options=SensitivityOptions(by="tensor"), runs=folder)
    names = [group.name for group in found.groups]
    assert len(names) == len(set(names))
    assert {"x", "sum", "w0", "w4"} <= set(names)
    by_name = {group.name: group for group in found.groups}
    assert by_name["w3"].nodes == ("pointwise", "again")  # one constant, two readers
    assert by_name["sum"].nodes == ("residual", "again")
    assert by_name["x"].operator == "input"
    assert "tensors" in found.title()
