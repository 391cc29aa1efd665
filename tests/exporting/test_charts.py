"""What the charts of an export show, in words and numbers."""

from dataclasses import replace

import pytest

import kit
from kit.comparison import TensorParity
from kit.exporting import ExportOptions, export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from tiny import conv_net

    folder = tmp_path_factory.mktemp("charts")
    return export(conv_net(folder / "tiny.onnx"), ExportOptions(), runs=folder / "runs")


def test_the_operator_map_shows_every_operator_with_its_count(exported):
    chart = kit.charts.operator_map(replace(exported, operators_source={"conv2d": 2, "relu": 1}))
    assert "conv2d 2" in chart.alt
    assert "Conv 2" in chart.alt
    left, right = chart.figure.data
    assert dict(zip(left.y, left.x, strict=True)) == {"conv2d": 2, "relu": 1}
    assert sum(right.x) == sum(exported.operators_onnx.values())
    assert chart.png().startswith(b"\x89PNG")


def test_rare_operators_are_added_up(exported):
    many = {f"op{at:02}": 30 - at for at in range(30)}
    chart = kit.charts.operator_map(replace(exported, operators_source=many), most=5)
    left = chart.figure.data[0]
    assert left.y[0] == "25 others"
    assert sum(left.x) == sum(many.values())


@pytest.mark.parametrize("value", [0.0, 3e-6, 0.5, float("inf")])
def test_every_difference_can_be_drawn(exported, value):
    row = TensorParity("y", value, value, value, 1.0, (0, 1), 4)
    chart = kit.charts.export_parity(replace(exported, parity=(row,), dygraph_parity=(row,)))
    assert "layer against saved model" in chart.alt
    assert row.verdict in chart.alt
    assert chart.svg().startswith("<svg")


def test_nothing_compared_is_said(exported):
    assert "Nothing was compared" in kit.charts.export_parity(replace(exported, parity=())).alt
