"""Charts of diffusion: pairs and grids of pictures, and errors on the way."""

import base64
import io
import json

import numpy as np
import pytest
import sd_pictures as toys
from PIL import Image

from kit import charts
from kit.charts.diffusion import difference
from kit.charts.style import pixels_of
from kit.errors import BadInput


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return toys.comparison(tmp_path_factory.mktemp("judge"), toys.int8(), toys.broken())


def notes(chart):
    return [note.text for note in chart.figure.layout.annotations]


def static(chart):
    return np.asarray(Image.open(io.BytesIO(chart.png(1))).convert("RGB")).astype(int)


def test_a_pair_is_the_two_pictures_and_what_they_differ_in(judged):
    chart = charts.picture_pair(judged, "INT8")
    left, right, apart = (pixels_of(trace.source).astype(int) for trace in chart.figure.data)
    assert notes(chart) == ["PyTorch", "INT8", "difference x 2"]
    for seen, name in ((left, "PyTorch"), (right, "INT8")):
        np.testing.assert_allclose(seen / 255, judged.drawn[name].pictures[3], atol=0.5 / 255 + 1e-6)
    assert np.abs(apart - 2 * (left - right)).max() <= 3, "rounded twice"
    assert "bright road<br>PSNR 10.5 dB, SSIM 0." in chart.figure.layout.title.text
    assert "Picture 3, 'bright road', drawn by PyTorch and by INT8" in chart.alt
    assert "judged wrong: [0]. PyTorch is judged right." in chart.alt


def test_any_picture_can_be_asked_for_and_alarms_are_said(judged):
    chart = charts.picture_pair(judged, number=2)  # the last pipeline
    assert "Picture 2, 'dark right', drawn by PyTorch and by FP16" in chart.alt
    assert "ALARM, FP16: picture 2 ('dark right') is NaN" in chart.alt
    assert notes(chart)[-1] == "orange: no number"
    assert (pixels_of(chart.figure.data[2].source) == (213, 94, 0)).all()
    assert (np.abs(static(chart) - (213, 94, 0)).max(axis=2) < 12).mean() > 0.15
    with pytest.raises(BadInput, match="no picture 5"):
        charts.picture_pair(judged, number=5)
    with pytest.raises(BadInput, match="'INT4'"):
        charts.picture_pair(judged, "INT4")


def test_the_gain_is_the_largest_that_cuts_nothing():
    left = np.full((8, 8, 3), 0.5, np.float32)
    for apart, wanted in ((0.5, 2), (0.3, 2), (0.15, 5), (0.04, 20), (1e-6, 100), (0.0, 1)):
        seen, gain = difference(left, left - np.float32(apart))
        assert gain == wanted
        np.testing.assert_allclose(seen, apart * gain, atol=1e-5)
    seen, gain = difference(left, left - np.float32(0.3), gain=10)
    assert (gain, seen.max()) == (10, 1), "what was asked for may cut"


def test_large_pictures_are_stored_small():
    small, large = (toys.compare_pictures(toys.reference(size=size), {"INT8": toys.int8(size=size)})
                    for size in (64, 288))
    assert charts.picture_pair(small).figure.data[0].source.startswith("data:image/png")
    spec = charts.picture_pair(large).spec
    assert [trace["source"][:15] for trace in spec["data"]] == ["data:image/jpeg"] * 3
    assert len(json.dumps(spec)) < 100_000


def test_the_static_form_keeps_the_colours_of_small_pictures():
    made = [toys.drawn(name, (0.5,)) for name in ("a", "b")]
    for each, lift in zip(made, (0.0, 2.2 / 255), strict=True):  # two steps apart, in 256 colours each
        each.pictures[0] = np.random.default_rng(0).random(each.pictures[0].shape) * 0.9 + lift
    chart = charts.picture_pair(toys.compare_pictures(made[0], {"b": made[1]}))
    seen = {tuple(pixel) for pixel in static(chart).reshape(-1, 3).tolist()}
    for each in made:
        wanted = np.round(each.pictures[0].reshape(-1, 3) * 255).astype(int).tolist()
        assert sum(tuple(pixel) in seen for pixel in wanted) >= 0.99 * len(wanted)


def test_without_a_judge_nothing_is_said_of_one():
    chart = charts.picture_pair(toys.comparison())
    assert "judged" not in chart.alt + chart.figure.layout.title.text


def test_words_of_a_prompt_are_no_html(judged):
    title = charts.picture_pair(judged, "INT8", 1).figure.layout.title.text
    assert "bright &lt;b&gt;sky&lt;/b&gt;" in title
    assert any("bright &lt;b&gt;sky" in note for note in notes(charts.picture_grid(judged, [1])))


def test_a_grid_has_a_line_for_each_prompt_and_a_column_for_each_pipeline(judged):
    chart = charts.picture_grid(judged, count=2, name="INT8")
    assert len(chart.figure.data) == 6
    said = notes(chart)
    assert [text for text in said if text.startswith("<b>")] == ["<b>PyTorch</b>", "<b>INT8</b>", "<b>FP16</b>"]
    assert "3: bright road" in said
    assert "10.5 dB, wrong" in said
    assert chart.alt.index("picture 3") < chart.alt.index("picture 1")
    assert "0.0 dB, wrong, ALARM" in notes(charts.picture_grid(judged, [2, 0]))
    assert static(chart).shape[:2] == chart.size()[::-1]
    with pytest.raises(BadInput, match="No picture"):
        charts.picture_grid(judged, count=0)
    with pytest.raises(BadInput, match="no picture 9"):
        charts.picture_grid(judged, [9])


def test_errors_of_steps_lie_on_a_logarithmic_axis_from_the_first_step_on():
    chart = charts.step_errors_chart(toys.step_errors())
    lines = {trace.name: trace for trace in chart.figure.data}
    assert tuple(lines["latents, all steps so far (closed loop)"].y) == (0.01, 0.02, 0.05)
    assert tuple(lines["latents, this step alone (open loop)"].x) == (901, 501, 1)
    np.testing.assert_allclose(lines["steps alone, if independent"].y, [0.01, 5 ** 0.5 / 100, 0.03])
    np.testing.assert_allclose(lines["steps alone, if all point the same way"].y, [0.01, 0.03, 0.05])
    assert tuple(lines["answers on captured inputs"].x) == (701,)
    assert (chart.figure.layout.yaxis.type, chart.figure.layout.xaxis.autorange) == ("log", "reversed")
    assert "latents off by 5.00% at the end; the errors of the steps add up" in chart.alt
    assert "step 1 (timestep 501) adds most, 2.00%" in chart.alt
    assert chart.png().startswith(b"\x89PNG")
    assert len(charts.step_errors_chart(toys.step_errors(captured=False)).figure.data) == 6


def test_what_is_exact_or_lost_is_a_gap():
    chart = charts.step_errors_chart(toys.step_errors(closed=(0.0, 0.1, np.inf)))
    closed = next(trace for trace in chart.figure.data if "closed" in trace.name)
    assert tuple(closed.y) == (None, 0.1, None)
    assert "the numbers are lost" in chart.alt
    assert base64.b64encode(chart.png())
