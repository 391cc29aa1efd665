"""Charts of calibration and INT8: they say in words what they draw, and both forms can be made."""

import numpy as np
import onnx
import pytest
from quantization_models import conv_net, feeds, save

from kit import charts
from kit.calibration import calibrate
from kit.errors import BadInput
from kit.int8.range_cost import mean_square
from kit.int8.ranges import error_curve
from kit.layers import layer_errors, sensitivity
from kit.quantization import quantize


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    path = conv_net(folder / "toy.onnx")
    calibration = calibrate(path, feeds(4), runs=folder)
    quantized = quantize(path, calibration, runs=folder)
    return {"path": path, "calibration": calibration, "quantized": quantized,
            "errors": layer_errors(path, quantized, feeds(2), runs=folder),
            "ranking": sensitivity(path, calibration, runs=folder)}


def drawn(chart, *words):
    for word in words:
        assert word in chart.alt
    assert chart.png().startswith(b"\x89PNG")
    return chart.figure


def test_activation_histogram_shows_every_clip(made):
    histogram = made["calibration"].histogram("h0")
    figure = drawn(charts.activation_histogram(made["calibration"], "h0"), "tensor h0", "HardSwish", "minmax", "mse")
    assert [trace.name for trace in figure.data] == ["values", "minmax", "percentile 99.99", "mse", "entropy"]
    assert sum(figure.data[0].y) == histogram.elements
    assert figure.data[1].x[0] == histogram.minimum
    assert figure.data[1].x[-1] == histogram.maximum
    with pytest.raises(BadInput, match="no calibrated tensor"):
        charts.activation_histogram(made["calibration"], "nothing")


def test_range_widths(made):
    figure = drawn(charts.range_widths(made["calibration"], count=5), "5 of 14 tensors")
    assert len(figure.data[0].y) == 5
    assert all(0 < x <= 1 for x in figure.data[0].x)


def test_layer_errors_worst_at_the_top(made):
    figure = drawn(charts.layer_error_bars(made["errors"], count=6), made["errors"].worst(1)[0].tensor)
    assert figure.data[0].x[-1] == min(row.sqnr for row in made["errors"].rows)
    path = drawn(charts.error_path(made["errors"]), "largest fall")
    assert len(path.data[0].y) == len(made["errors"].rows)


def test_sensitivity_dearest_at_the_top(made):
    figure = drawn(charts.sensitivity_bars(made["ranking"]), made["ranking"].groups[0].name)
    assert sum(figure.data[0].x) == pytest.approx(1)
    assert made["ranking"].groups[0].name in figure.data[0].y[-1]


def test_weights_before_and_after(made):
    figure = drawn(charts.weight_histogram(made["path"], made["quantized"], "wide"), "node wide", "2,304")
    assert sum(y or 0 for y in figure.data[0].y) == 16 * 16 * 9
    with pytest.raises(BadInput, match="no node with INT8 weights named 'up'"):
        charts.weight_histogram(made["path"], made["quantized"], "up")


def test_size_by_type_adds_up_to_the_files(made):
    figure = drawn(charts.size_by_type(made["path"], made["quantized"]), "int8", f"{made['quantized'].ratio:.2f}")
    totals = [sum(trace.y[side] for trace in figure.data) * 1e6 for side in (0, 1)]
    assert totals == pytest.approx([made["quantized"].size_before, made["quantized"].size_after])


def test_range_chart_shows_the_error_below_the_histogram(made):
    histogram = made["calibration"].histogram("h0")
    chart = charts.range_chart(made["calibration"], "h0", chosen=("in the model", (-0.3, 2.0)))
    figure = drawn(chart, "tensor h0", "in the model -0.3 to 2", "most: in the model")
    by_name = {trace.name: trace for trace in figure.data}
    assert {"error", "of it rounding", "of it clipping"} <= set(by_name)
    curve = error_curve(histogram)
    shown = np.array([y for y in by_name["error"].y if y is not None])
    assert shown[-1] == pytest.approx(curve.errors[-1] / mean_square(histogram))
    assert max(x for x in by_name["error"].x if x is not None) == pytest.approx(histogram.maximum)
    assert by_name["error"].xaxis == "x2"
    assert figure.layout.xaxis.matches == "x2"
    with pytest.raises(BadInput, match="no calibrated tensor"):
        charts.range_chart(made["calibration"], "nothing")


def test_range_chart_of_two_signs_draws_the_error_on_both_sides(made):
    figure = drawn(charts.range_chart(made["calibration"], "x"), "tensor x")
    x = [value for trace in figure.data if trace.name == "error" for value in trace.x if value is not None]
    assert min(x) == pytest.approx(made["calibration"].histogram("x").minimum)
    assert max(x) == pytest.approx(made["calibration"].histogram("x").maximum)


def test_a_tensor_of_zeros_has_nothing_to_clip(tmp_path):
    path = save([onnx.helper.make_node("Conv", ["x", "w"], ["y"], "only")], {"w": np.zeros((2, 3, 1, 1), np.float32)},
                tmp_path / "zero.onnx", output_shape=[1, 2, 16, 16])
    calibration = calibrate(path, feeds(2), runs=tmp_path)
    drawn(charts.range_chart(calibration, "y"), "nothing to clip")


def test_weight_channels_finds_the_layer_whose_channels_differ_most(tmp_path):
    path = conv_net(tmp_path / "toy.onnx", outlier=True)
    chart = charts.weight_channels(path)
    figure = drawn(chart, "Conv squeeze", "15 channels are left with fewer than 16 of 127 steps")
    assert sum(len(trace.x) for trace in figure.data[:-1]) == 16
    assert figure.data[-1].y[0] == max(max(trace.y) for trace in figure.data[:-1])
    assert "0 channels are left" in charts.weight_channels(path, "wide").alt
    with pytest.raises(BadInput, match="no node with weights by channel named 'relu'"):
        charts.weight_channels(path, "relu")


def test_weight_channels_of_a_transposed_convolution_count_its_outputs(made):
    figure = charts.weight_channels(made["path"], "up").figure
    assert sum(len(trace.x) for trace in figure.data[:-1]) == 2
