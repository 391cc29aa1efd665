"""A chart has three forms: interactive, picture and words; the picture shows what the figure says."""

import io
import json
import re
import warnings

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image
from plotly.subplots import make_subplots

import kit
from kit.charts import style
from kit.charts.chart import PLOTLY, Chart
from kit.charts.static_axes import number
from kit.errors import BadInput

BARS = go.Figure(go.Bar(x=["det", "rec"], y=[1, 2], marker_color="#D55E00"))


def pixels(chart, scale=1.0):
    return np.asarray(Image.open(io.BytesIO(chart.png(scale))).convert("RGB")).astype(int)


def share(picture, colour):
    """Part of the picture in (nearly) this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(picture - wanted).max(axis=-1) < 12).mean())


def box(picture, colour):
    """Where this colour is: left, top, right, bottom, in pixels."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(picture - wanted).max(axis=-1) < 12)
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_a_notebook_gets_figure_picture_and_words():
    data, metadata = Chart(BARS, "rec is twice det")._repr_mimebundle_()
    assert set(data) == {"text/plain", PLOTLY, "image/png"}
    assert data["text/plain"] == "rec is twice det"
    assert metadata["image/png"] == {"alt": "rec is twice det", "width": 760, "height": 420}
    json.dumps(data)


def test_the_interactive_form_is_small_and_as_large_as_the_picture():
    chart = Chart(BARS, "words")
    assert "template" not in chart.spec["layout"]
    assert len(json.dumps(chart.spec)) < 2000
    assert (chart.spec["layout"]["width"], chart.spec["layout"]["height"]) == chart.size()
    assert Image.open(io.BytesIO(chart.png(1))).size == chart.size()


def test_a_chart_without_words_is_refused():
    with pytest.raises(BadInput, match="text alternative"):
        Chart(BARS, "  ")


def test_a_trace_that_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(BadInput, match="pie") as caught:
        Chart(go.Figure(go.Pie(values=[1, 2])), "pie").png()
    assert "scatter" in caught.value.remedy


def test_html_is_self_contained_and_escaped():
    html = Chart(BARS, 'rec > det & "so on"').html()
    assert 'alt="rec &gt; det &amp; &quot;so on&quot;"' in html
    assert "data:image/png;base64," in html
    assert "http" not in html


def test_svg_is_named_for_screen_readers():
    svg = Chart(BARS, "rec > det").svg()
    assert svg.startswith('<svg role="img" aria-label="rec &gt; det"')


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html", ".json"])
def test_a_chart_can_be_saved(tmp_path, suffix):
    path = Chart(BARS, "words").save(tmp_path / f"chart{suffix}")
    assert path.stat().st_size > 300


def test_an_unknown_suffix_and_a_missing_folder_say_so(tmp_path):
    with pytest.raises(BadInput, match=r"\.bmp"):
        Chart(BARS, "words").save(tmp_path / "chart.bmp")
    with pytest.raises(BadInput, match="does not exist"):
        Chart(BARS, "words").save(tmp_path / "no" / "chart.png")


def test_the_taller_bar_is_drawn_taller():
    figure = go.Figure([go.Bar(x=["a"], y=[1], marker_color="#FF0000"), go.Bar(x=["b"], y=[2], marker_color="#0000FF")])
    picture = pixels(Chart(figure.update_layout(showlegend=False), "b is twice a"))
    red, blue = box(picture, "#FF0000"), box(picture, "#0000FF")
    assert red[2] < blue[0]  # a stands left of b
    # Twice as tall; two pixels of a bar's edge are white.
    assert (blue[3] - blue[1]) / (red[3] - red[1]) == pytest.approx(2, rel=0.05)


def test_stacked_bars_lie_on_each_other_and_grouped_ones_beside():
    traces = [go.Bar(x=["a"], y=[1], marker_color="#FF0000"), go.Bar(x=["a"], y=[1], marker_color="#0000FF")]
    stacked = pixels(Chart(go.Figure(traces).update_layout(barmode="stack", showlegend=False), "stacked"))
    grouped = pixels(Chart(go.Figure(traces).update_layout(barmode="group", showlegend=False), "grouped"))
    assert box(stacked, "#0000FF")[3] <= box(stacked, "#FF0000")[1] + 2
    assert box(grouped, "#FF0000")[2] <= box(grouped, "#0000FF")[0] + 2


def test_horizontal_bars_grow_to_the_right():
    figure = go.Figure(go.Bar(y=["a", "b"], x=[1, 3], orientation="h", marker_color=["#FF0000", "#0000FF"]))
    picture = pixels(Chart(figure, "b is longer"))
    red, blue = box(picture, "#FF0000"), box(picture, "#0000FF")
    assert (blue[2] - blue[0]) / (red[2] - red[0]) == pytest.approx(3, rel=0.05)
    assert blue[1] < red[1]  # the first category is at the bottom, as plotly has it


def test_a_reversed_axis_puts_the_first_category_on_top():
    figure = go.Figure(go.Bar(y=["a", "b"], x=[1, 3], orientation="h", marker_color=["#FF0000", "#0000FF"]))
    picture = pixels(Chart(figure.update_yaxes(autorange="reversed"), "b is longer"))
    assert box(picture, "#FF0000")[1] < box(picture, "#0000FF")[1]


def test_a_logarithmic_axis_spaces_powers_evenly():
    figure = go.Figure(go.Scatter(x=[1, 2, 3], y=[1, 100, 10000], mode="markers", marker={
        "size": 16, "color": ["#FF0000", "#00FF00", "#0000FF"]}))
    picture = pixels(Chart(figure.update_yaxes(type="log"), "powers"))
    red, green, blue = (box(picture, colour)[1] for colour in ("#FF0000", "#00FF00", "#0000FF"))
    assert red - green == pytest.approx(green - blue, abs=3)


@pytest.mark.parametrize(("values", "labels"), [
    ([0.04, None, 1.5], ["0.05", "0.1", "0.2", "0.5", "1"]), ([1e-4, 0.1, 1.0], [
        "0.0001", "0.001", "0.01", "0.1", "1"])])
def test_a_short_logarithmic_axis_has_more_than_powers_of_ten(values, labels):
    figure = go.Figure(go.Scatter(x=["a", "b", "c"], y=values)).update_yaxes(**style.logarithmic("how much", values))
    said = re.findall(r"<!-- ([^ ]+) -->", Chart(figure, "words").svg())
    assert [label for label in labels if label not in said] == []
    assert ("0.2" in said) == ("0.2" in labels)


def test_a_gap_in_a_line_stays_a_gap():
    whole = go.Figure(go.Scatter(y=[1, 1, 1, 1], mode="lines", line_color="#FF0000"))
    gap = go.Figure(go.Scatter(y=[1, None, None, 1], mode="lines", line_color="#FF0000"))
    assert share(pixels(Chart(gap, "gap")), "#FF0000") < share(pixels(Chart(whole, "whole")), "#FF0000") / 2


def test_a_picture_in_a_chart_keeps_its_colours_and_stays_small():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
    image[:240] = (255, 0, 0)
    chart = Chart(go.Figure(go.Image(z=image)), "upper half red")
    picture = pixels(chart)
    assert box(picture, "#FF0000")[3] < picture.shape[0] * 0.55
    assert len(json.dumps(chart.spec)) < 500_000  # as numbers it would be 1.2 MB
    assert "z" not in chart.spec["data"][0]


def test_every_kind_of_trace_draws_without_a_warning():
    rng = np.random.default_rng(0)
    figure = make_subplots(2, 3, subplot_titles=("bar", "line", "histogram", "box", "heat", "picture"))
    figure.add_bar(x=["页面", "b"], y=[1, 2], error_y={"array": [0.1, 0.2]}, marker_pattern_shape="/", text=["1", "2"],
                   row=1, col=1)
    figure.add_scatter(y=[1, 2, 3], mode="lines+markers+text", text=list("abc"), fill="tozeroy", row=1, col=2)
    figure.add_histogram(x=rng.normal(size=100), nbinsx=10, row=1, col=3)
    figure.add_box(y=rng.normal(size=50), name="fp32", row=2, col=1)
    figure.add_box(q1=[1], median=[2], q3=[3], lowerfence=[0], upperfence=[4], name="int8", row=2, col=1)
    figure.add_heatmap(z=[[1, None], [3, 4]], x=["q", "k"], texttemplate="%{z:.1f}", row=2, col=2)
    figure.add_trace(go.Image(z=np.zeros((4, 4, 3), np.uint8)), 2, 3)
    figure.add_hline(y=2, annotation_text="limit", row=1, col=2)
    figure.add_vrect(x0=0, x1=1, fillcolor="orange", opacity=0.2, row=1, col=2)
    figure.add_annotation(x=1, y=2, text="<b>here</b>", row=1, col=2)
    figure.update_layout(title="A $title$ with <br> two lines", width=900, height=700,
                         legend={"orientation": "h", "title": {"text": "which"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = Chart(figure, "everything")
        assert Image.open(io.BytesIO(chart.png(1))).size == (900, 700)
        assert "<svg" in chart.svg()


def test_nothing_is_cut_off_at_the_edges():
    names = [f"backbone.block{n}.depthwise.convolution" for n in range(6)]
    figure = go.Figure([go.Bar(y=names, x=[1] * 6, orientation="h", name="a rather long name of a trace"),
                        go.Bar(y=names, x=[2] * 6, orientation="h", name="another")])
    picture = pixels(Chart(figure.update_layout(title="title", xaxis_title="error"), "long names"))
    edge = np.concatenate([picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3), picture[:, :4].reshape(-1, 3),
                           picture[:, -4:].reshape(-1, 3)])
    assert (edge == 255).all()


def test_the_same_chart_gives_the_same_bytes():
    assert Chart(BARS, "words").png() == Chart(BARS, "words").png()


def test_drawing_leaves_pyplot_alone():
    import subprocess
    import sys

    code = ("import sys, plotly.graph_objects as go\nfrom kit.charts import Chart\nChart(go.Figure(go.Bar(y=[1])), 'a')"
            ".png()\nprint('matplotlib.pyplot' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(("value", "form", "said"), [
    (0.934, ".1%", "93.4%"), (1e-6, None, "1e-6"), (12000.0, None, "12k"), (0.25, None, "0.25"), (0.0, None, "0"),
    (1500.0, ".3s", "1.5k"), (3.0, ".2f", "3.00"), (0.5, ".2~f", "0.5"), (2.0, "nonsense", "2"),
])
def test_numbers_read_as_plotly_writes_them(value, form, said):
    assert number(value, form) == said


def test_colours_of_every_notation():
    assert style.rgba("rgba(255, 0, 0, 0.5)", 0.5) == (1, 0, 0, 0.25)
    assert style.rgba("rgb(0,128,255)")[2] == 1
    assert style.rgba("orange")[3] == 1


def test_the_namespace_gives_charts_of_every_stage_and_names_them_on_a_typo():
    assert kit.charts.Chart is Chart
    with pytest.raises(AttributeError, match="Chart"):
        kit.charts.Chrat  # noqa: B018


def test_small_markers_of_like_colours_stay_apart():
    random = np.random.default_rng(0)
    cloud = go.Scatter(x=random.normal(size=400), y=random.normal(size=400), mode="markers", opacity=0.75,
                       marker={"color": "#0072B2", "size": 9})
    few = [go.Scatter(x=[at], y=[4], mode="markers", marker={"color": colour, "size": 14, "opacity": 0.75})
           for at, colour in ((-2, "#D55E00"), (2, "#E69F00"))]
    picture = pixels(Chart(go.Figure([cloud, *few]), "words"))
    assert all(share(picture, colour) > 0 for colour in ("#E08640", "#ECB740"))
