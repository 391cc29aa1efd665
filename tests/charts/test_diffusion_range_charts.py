"""Charts of ranges along the walk from noise to picture: a map of all layers, and lines of those that change most."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from kit import charts
from kit.errors import BadInput
from kit.families.diffusion_ranges import LayerRanges, RangesByTimestep

STEPS = (901, 601, 301, 1)


def layer(name, reach, kind="Conv", low=None):
    return LayerRanges(name, kind, tuple(low or (-value / 2 for value in reach)), tuple(reach))


def ranges(*layers):
    return RangesByTimestep("unet", STEPS, layers, calibration=None)


@pytest.fixture
def found():
    """One layer that is the same throughout, one that falls to an eighth, one that the low end rules."""
    return ranges(layer("conv_in", (4, 4, 4, 4)), layer("block/attn/to_q", (8, 4, 2, 1), "MatMul"),
                  layer("proj", (1, 1, 1, 1), "Gemm", low=(-2, -2, -2, -8)))


def test_the_map_is_against_the_median_of_each_layer(found):
    chart = charts.timestep_ranges(found)
    (heat,) = chart.figure.data
    np.testing.assert_allclose(heat.z[0], 0)
    np.testing.assert_allclose(heat.z[1], np.log2(np.array([8, 4, 2, 1]) / 3), rtol=1e-6)
    np.testing.assert_allclose(heat.z[2], [0, 0, 0, 2])
    assert heat.zmin == -heat.zmax == -2
    assert tuple(heat.x) == ("901", "601", "301", "1")
    assert tuple(heat.y) == ("0 conv_in", "1 block/attn/to_q", "2 proj")
    assert chart.figure.layout.yaxis.autorange == "reversed", "the first layer is on top"
    np.testing.assert_allclose(heat.customdata[1], [(-4, 8), (-2, 4), (-1, 2), (-0.5, 1)])
    assert "%{customdata[0]:.4g} to %{customdata[1]:.4g}" in heat.hovertemplate


def test_the_words_name_what_changes_most(found):
    said = charts.timestep_ranges(found).alt
    assert "2 of 3 layers of unet have a range that changes more than twofold" in said
    assert "Most: block/attn/to_q (MatMul) by a factor of 8" in said
    assert "1 at timestep 1 and 8 at 901; proj (Gemm) by a factor of 4, 2 at timestep 901 and 8 at 1" in said


def test_lines_are_of_the_layers_that_change_most(found):
    chart = charts.timestep_range_lines(found, count=2)
    assert [trace.name for trace in chart.figure.data] == ["block/attn/to_q (MatMul)", "proj (Gemm)"]
    assert tuple(chart.figure.data[1].y) == (2, 2, 2, 8)
    assert chart.figure.data[0].hovertext[0] == "block/attn/to_q (MatMul)<br>timestep 901: -4 to 8"
    assert len({(trace.line.dash, trace.marker.symbol) for trace in chart.figure.data}) == 2
    assert len(charts.timestep_range_lines(found).figure.data) == 3, "no more than there are"
    assert chart.png().startswith(b"\x89PNG")
    assert "3 of 3 layers of unet" in charts.timestep_range_lines(found).alt
    with pytest.raises(BadInput, match="0 layers"):
        charts.timestep_range_lines(found, count=0)


def test_layers_that_are_fed_the_same_share_a_line(found):
    chart = charts.timestep_range_lines(ranges(*found.layers, layer("block/attn/to_k", (8, 4, 2, 1))), count=2)
    assert [trace.name for trace in chart.figure.data] == [
        "block/attn/to_q (MatMul) and 1 with the same", "proj (Gemm)"]
    assert "inputs of 3 of 4 layers" in chart.alt
    assert "block/attn/to_q (MatMul) and 1 with the same by a factor of 8" in chart.alt


def test_what_is_zero_is_a_gap():
    chart = charts.timestep_ranges(ranges(layer("waking", (0, 1, 4, 1)), layer("dead", (0, 0, 0, 0))))
    np.testing.assert_array_equal(chart.figure.data[0].z, [[np.nan, 0, 2, 0], [np.nan] * 4])
    assert "waking (Conv) by a factor of inf, 0 at timestep 901 and 4 at 301" in chart.alt
    lines = charts.timestep_range_lines(ranges(layer("dead", (0, 0, 0, 0))))
    assert tuple(lines.figure.data[0].y) == (None,) * 4
    for each in (chart, lines):
        assert each.png().startswith(b"\x89PNG")


def test_hundreds_of_layers_stay_legible_and_small():
    random = np.random.default_rng(0)
    many = ranges(*(layer(f"down_blocks.{n}/attentions.0/transformer_blocks.0/attn1/to_q/MatMul",
                          tuple(np.exp(random.normal(size=4)))) for n in range(340)))
    chart = charts.timestep_ranges(many)
    labels = chart.figure.layout.yaxis.tickvals
    assert 50 < len(labels) < 100
    assert all(label in chart.figure.data[0].y for label in labels)
    assert len(set(chart.figure.data[0].y)) == 340, "names that end alike are told apart"
    assert len(json.dumps(chart.spec)) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(chart.png(1))).convert("L"))
    assert pixels.shape == chart.size()[::-1]
    inked = (pixels[100:1000, 100:240] < 128).any(axis=1)
    starts = int((np.diff(inked.astype(int)) == 1).sum())
    assert 40 < starts < 100, "lines of text with white between them"


def test_a_category_axis_in_the_static_form_takes_chosen_ticks():
    from kit.charts import Chart, static_axes

    go = pytest.importorskip("plotly.graph_objects")
    figure = go.Figure(go.Heatmap(z=[[1, 2, 3]], x=["a", "b", "c"], y=["d"]))
    figure.update_xaxes(tickvals=["a", "c"], ticktext=["first", "last"])
    from matplotlib.figure import Figure

    sheet = Figure()
    from matplotlib.transforms import Bbox

    (plane,) = static_axes.planes(sheet, figure, Bbox.from_extents(0.1, 0.1, 0.9, 0.9)).values()
    plane.finish()
    assert [label.get_text() for label in plane.axes.get_xticklabels()] == ["first", "last"]
    np.testing.assert_array_equal(plane.axes.get_xticks(), [0, 2])
    assert plane.axes.get_xlim() == (-0.5, 2.5)
    assert Chart(figure, "words").png(1)
