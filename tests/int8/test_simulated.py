"""INT8 simulated in one session gives the answers of the INT8 models that would be written for the same question."""

import numpy as np
import onnx
import pytest
from quantization_models import attention_net, conv_net, depthwise_net, feeds

from kit.calibration import calibrate
from kit.errors import BadInput, UnsupportedModel
from kit.int8 import qdq
from kit.int8.noise import OutputError, decibels
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.int8.simulated import Simulated
from kit.model import Model, read
from kit.quantization import QuantizeOptions, plan, recipe_for
from kit.runner import open_runner

TOYS = {"conv": (conv_net, (1, 3, 16, 16)), "depthwise": (depthwise_net, (1, 3, 16, 16)),
        "attention": (attention_net, (1, 12, 64))}


class Case:
    def __init__(self, folder, kind, **more):
        build, shape = TOYS[kind]
        self.folder, self.model = folder, Model.open(build(folder / "toy.onnx"))
        self.calibration = calibrate(self.model, feeds(shape=shape), runs=folder)
        self.network = Network(prepare(read(self.model.path)), "toy")
        options = QuantizeOptions(**more)
        self.nodes = [name for name, why in plan(self.network, self.calibration, options).items() if not why]
        self.recipe = recipe_for(options)[0]
        self.ranges = self.calibration.ranges("percentile")
        self.feeds = feeds(2, seed=3, shape=shape)

    def written(self, ranges=None, nodes=None, level="none"):
        """Answers of the model that qdq.write makes; level none leaves its arithmetic in float."""
        path = self.folder / "written.onnx"
        onnx.save(qdq.write(self.network, ranges or self.ranges, self.nodes if nodes is None else nodes, self.recipe),
                  path)
        with open_runner(path, graph_level=level) as runner:
            return [runner(feed)["y"] for feed in self.feeds]

    def open(self):
        return Simulated(self.network, self.model, self.ranges, self.nodes, self.recipe)


@pytest.fixture(scope="module", params=TOYS)
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp(request.param), request.param)


def same(left, right):
    # Float additions in another order; no value of these toys lies so near a border that it falls to the other side.
    return all(np.allclose(a, b, atol=2e-5 * np.abs(b).max(), rtol=0) for a, b in zip(left, right, strict=True))


def test_all_in_int8_answers_as_the_written_model(case):
    with case.open() as simulated:
        assert same([simulated(feed)["y"] for feed in case.feeds], case.written())


def test_output_sqnr_agrees_with_a_session_on_integer_kernels(case):
    with open_runner(case.model) as runner:
        probes = [(feed, runner(feed)) for feed in case.feeds]
    error = OutputError(probes)
    with case.open() as simulated:
        ours = decibels(error(simulated))
    answers = iter(case.written(level="all"))
    theirs = decibels(error(lambda feed: {"y": next(answers)}))
    assert ours == pytest.approx(theirs, abs=0.7)  # integer kernels round halves elsewhere; dB


def test_other_ranges_answer_as_a_model_written_with_them(case):
    others = {**case.ranges, **{name: (low / 2, high / 3) for name, (low, high) in list(case.ranges.items())[1:4]}}
    with case.open() as simulated:
        simulated(case.feeds[0])
        changed = {name: span for name, span in others.items() if span != case.ranges[name]}
        assert same([simulated(feed, ranges=changed)["y"] for feed in case.feeds], case.written(others))
        assert same([simulated(feed)["y"] for feed in case.feeds], case.written())  # the switch goes back


@pytest.mark.parametrize("alone", [True, False])
def test_some_nodes_in_int8_answer_as_a_model_written_so(case, alone):
    with case.open() as simulated:
        for group in case.network.groups(case.nodes):
            if not case.network.weights(case.network.by_name[group[0]]):
                continue
            nodes = [name for name in case.nodes if (name in group) == alone]
            off = simulated.without(nodes)
            assert same([simulated(feed, off=off)["y"] for feed in case.feeds], case.written(nodes=nodes)), group


def test_with_everything_off_it_is_the_float_model(case):
    with case.open() as simulated, open_runner(case.model) as runner:
        off = [*simulated.tensors, *simulated.weights]
        for feed in case.feeds:
            exact = runner(feed)["y"]
            assert np.allclose(simulated(feed, off=off)["y"], exact, atol=1e-5 * np.abs(exact).max())
            assert not np.allclose(simulated(feed)["y"], exact, atol=1e-5 * np.abs(exact).max())


def test_it_rounds_exactly_what_the_written_model_rounds(case):
    made = qdq.write(case.network, case.ranges, case.nodes, case.recipe)
    with case.open() as simulated:
        assert set(simulated.tensors) == set(qdq.rounded(made))
        assert set(simulated.weights) >= set(qdq.weights(made))
        assert set(simulated.sources.values()) <= set(case.ranges)


def test_signed_activations_and_one_scale_a_tensor(tmp_path):
    case = Case(tmp_path, "conv", activation_type="int8", per_channel=False)
    with case.open() as simulated:
        assert same([simulated(feed)["y"] for feed in case.feeds], case.written())


def test_forced_operators_and_a_fixed_range(tmp_path):
    case = Case(tmp_path, "attention", quantize_types=("MatMul", "Softmax", "Add"))
    with case.open() as simulated:
        assert "shares" in simulated.tensors
        assert "shares" not in simulated.sources  # ONNX Runtime rounds Softmax to 0..1, whatever was measured
        assert same([simulated(feed)["y"] for feed in case.feeds], case.written())


def test_equal_and_empty_ranges_are_told_apart(tmp_path):
    case = Case(tmp_path, "conv")
    spans = {name: (-1.0 if low < 0 else 0.0, 1.0) for name, (low, _) in case.ranges.items()}
    case.ranges = {**spans, "x": (0.0, 0.0), "t3": (0.0, 1e-42)}
    with case.open() as simulated:
        assert simulated.sources["x"] == "x"
        assert len(set(simulated.sources.values())) == len(simulated.sources)
        assert same([simulated(feed)["y"] for feed in case.feeds], case.written())


def test_unknown_names_are_refused_with_the_closest(tmp_path):
    case = Case(tmp_path, "conv")
    with case.open() as simulated, pytest.raises(BadInput, match="summ") as raised:
        simulated(case.feeds[0], off=["summ"])
    assert "sum" in raised.value.remedy


def test_more_than_two_gigabytes_are_refused_before_anything_is_loaded(tmp_path):
    case = Case(tmp_path, "conv")
    large = case.network.proto.graph.initializer.add(name="large", data_type=1, dims=[600_000_000])
    assert not large.raw_data
    with pytest.raises(UnsupportedModel, match=r"2\.\d GB"):
        case.open()
