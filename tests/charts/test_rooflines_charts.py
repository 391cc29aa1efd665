"""The chart of a forecast: points under the peaks, words for those who cannot see it, and no measured figure."""

import io

import numpy as np
import pytest
from onnx_graphs import line, node
from PIL import Image

from kit import charts
from kit.rooflines import RooflineOptions, roofline


@pytest.fixture
def forecast(tmp_path):
    path = line(tmp_path / "net.onnx", node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
                node("Conv", ["r", "v"], ["d"]), node("Sigmoid", ["d"], ["s"]),
                node("Concat", ["s", "s"], ["y"], axis=1), shape=(1, 16, 64, 64),
                weights={"w": np.ones((64, 16, 3, 3), np.float32), "v": np.ones((8, 64, 1, 1), np.float32)})
    return roofline(path, "ascend310p3")


def points(chart):
    return {name: (x, y, text) for trace in chart.figure.data if trace.customdata is not None
            for name, x, y, text in zip(trace.customdata, trace.x, trace.y, trace.hovertext, strict=True)}


def test_every_layer_with_arithmetic_lies_at_its_intensity_and_speed(forecast):
    shown = points(charts.roofline(forecast))
    working = [layer for layer in forecast.layers if layer.flops]
    assert set(shown) == {layer.name for layer in working}
    assert len(working) < len(forecast.layers), "a Concat has no place here"
    for layer in working:
        assert shown[layer.name][0] == pytest.approx(layer.intensity)
        assert shown[layer.name][1] == pytest.approx(layer.flops / (layer.us * 1e-6) / 1e12)


def test_no_point_lies_above_the_peak_of_the_matrix_units(forecast):
    top = 2 * forecast.speed.cube / 1e12
    assert all(y <= top * 1.0001 for _, y, _ in points(charts.roofline(forecast)).values())


def test_it_says_forecast_in_title_axes_and_words(forecast):
    chart = charts.roofline(forecast)
    assert chart.figure.layout.title.text.startswith("FORECAST, not measured")
    assert "(forecast)" in chart.figure.layout.xaxis.title.text
    assert "(forecast)" in chart.figure.layout.yaxis.title.text
    assert chart.alt.startswith("A forecast, nothing measured")
    assert f"{forecast.ms:.3g} milliseconds" in chart.alt
    assert all("forecast:" in text for _, _, text in points(chart).values())


def test_the_static_picture_shows_points_of_every_limit(forecast):
    chart = charts.roofline(forecast)
    pixels = np.asarray(Image.open(io.BytesIO(chart.png(1))).convert("RGB")).astype(int)
    assert pixels.shape[1::-1] == chart.size()
    for trace in chart.figure.data:
        if trace.mode == "markers":
            wanted = np.array([int(trace.marker.color[i:i + 2], 16) for i in (1, 3, 5)])
            paled = 255 - (255 - wanted) * trace.marker.opacity  # drawn on white
            assert (np.abs(pixels - paled).max(axis=-1) < 25).any(), trace.name


def test_without_a_bandwidth_there_is_no_line_for_it_and_that_is_said(tiny_onnx):
    chart = charts.roofline(roofline(tiny_onnx, "ascend310"))
    assert not any("memory" in trace.name for trace in chart.figure.data if trace.mode == "lines")
    assert "bandwidth is not known" in chart.alt


def test_a_model_without_arithmetic_still_gives_a_chart(tmp_path):
    path = line(tmp_path / "m.onnx", node("Concat", ["x", "x"], ["y"], axis=1))
    assert charts.roofline(roofline(path, "ascend310p3", RooflineOptions(fuse=False))).png()
