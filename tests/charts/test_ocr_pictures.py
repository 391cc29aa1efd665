import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kit import charts
from kit.charts.ocr import cjk_font
from kit.families import ocr
from kit.samples import Sample, Samples

QUAD = np.float32([[40, 40], [300, 40], [300, 80], [40, 80]])


@pytest.fixture
def page():
    return np.full((400, 600, 3), 200, np.uint8)


def test_boxes_are_drawn_and_said(page):
    shown = charts.page(page, [SimpleNamespace(quad=QUAD)], truth=[QUAD + 5])
    assert "1 boxes found" in shown.alt
    assert (shown.pixels != 200).any()
    assert Image.open(io.BytesIO(shown.jpeg())).size == (760, 507)


def test_read_text_is_written_below_where_a_font_has_the_glyphs(page):
    shown = charts.page(page, [ocr.Line(QUAD, "金额 12", 0.9)], what="read")
    assert "1 金额 12" in shown.alt
    if not cjk_font():
        pytest.skip("no font with Chinese glyphs is installed")
    below = shown.pixels[shown.pixels.shape[0] // 2:]
    assert shown.pixels.shape[0] == 2 * 507
    assert (below != 255).any()
    assert (below[-100:] == 255).all(), "nothing is written where nothing was found"


def test_what_the_model_sees_shows_its_padding(tmp_path, page):
    Image.fromarray(page[:40, :80]).save(tmp_path / "line.png")
    seen = charts.seen(Samples((Sample(tmp_path / "line.png"),), ocr.RECOGNISER), (0,))
    assert "line.png" in seen.alt
    assert seen.pixels.shape == (48 + 6, 320, 3)
    assert abs(int(seen.pixels[10, 300, 0]) - 127) <= 1, "zero is mid-grey after (x / 255 - 0.5) / 0.5"


def test_a_picture_keeps_its_alt_text_in_every_form(page, tmp_path):
    shown = charts.page(page, [])
    data, metadata = shown._repr_mimebundle_()
    assert metadata["image/jpeg"]["alt"] == data["text/plain"] == str(shown)
    assert shown.alt in shown.html()
    assert shown.save(tmp_path / "a" / "b.jpg").stat().st_size > 500
