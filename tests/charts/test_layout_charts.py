"""What the charts of layouts and resizes show, in words and numbers."""

import kit
from kit.exporting.transposes import LayoutCost, Turn
from kit.resizes import Modes, TfResize

COSTS = {"NHWC in": LayoutCost("a.onnx", 1, 2, 3, (Turn("t", (1, 2), 800, 0.5), Turn("u", (2, 2), 200, 0.25)), 10.0, 5),
         "NCHW in": LayoutCost("b.onnx", 0, 0, 3, (Turn("t", (1, 2), 800, 0.5),), 8.0, 5)}


def test_transposes_of_two_layouts_stand_side_by_side():
    chart = kit.charts.layout_costs(COSTS)
    assert "NHWC in: 6 in the file (1 at inputs, 2 at outputs), 2 run, moving 1.0 kB, 7.5% of the time" in chart.alt
    by_name = {trace.name: list(trace.y) for trace in chart.figure.data}
    assert by_name["in the file, at inputs"] == [1, 0]
    assert by_name["as run"] == [2, 1]
    assert by_name["of the time"] == [7.5, 6.25]
    assert chart.png().startswith(b"\x89PNG")


def test_two_ways_to_resize_show_where_and_how_far():
    chart = kit.charts.resize_grids(Modes("linear", "asymmetric"), TfResize("ResizeBilinear", False, True).modes())
    assert "they lie up to 0.25 pixels apart" in chart.alt
    assert list(chart.figure.data[0].x) == [x / 2 for x in range(8)]
    assert list(chart.figure.data[1].x) == [(x + 0.5) / 2 - 0.5 for x in range(8)]
    assert chart.svg().startswith("<svg")


def test_the_same_way_differs_nowhere():
    modes = Modes("nearest", "half_pixel", "round_prefer_ceil")
    assert "differ by up to 0." in kit.charts.resize_grids(modes, modes).alt
