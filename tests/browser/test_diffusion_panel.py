"""The browser of diffusion pictures in a real JupyterLab: wipe, filter, step, and read what the next cell has."""

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

DRAWN = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
import sd_pictures as toys
import kit
comparison = toys.comparison(Path("judge"), toys.broken(), toys.int8())
comparison"""


def test_wipe_filter_and_step(notebook):
    opened = notebook([DRAWN, "browser = kit.ui.pictures(comparison)\nbrowser", "browser.get()"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    panel = opened.widgets
    upper, lower = panel.locator(".kit-upper"), panel.locator(".kit-wipe > .widget-html img")
    expect(upper.locator("img")).to_have_attribute("alt", "bright road, drawn by PyTorch", timeout=60_000)
    expect(lower).to_have_attribute("alt", "bright road, drawn by INT8")
    expect(panel.get_by_text("INT8 against PyTorch: PSNR 10.5 dB")).to_be_visible()
    whole = lower.bounding_box()
    assert (round(whole["width"]), round(whole["height"])) == (360, 360)
    over, shown = upper.locator("img").bounding_box(), upper.bounding_box()
    for key, value in whole.items():  # one picture lies exactly on the other ...
        assert over[key] == pytest.approx(value, abs=1)
    assert shown["width"] == pytest.approx(180, abs=2)  # ... and is cut
    opened.shot("diffusion")

    handle = panel.locator(".noUi-handle")
    handle.focus()
    for _ in range(3):
        opened.page.keyboard.press("PageUp")
    expect(upper).not_to_have_css("width", f"{shown['width']:g}px", timeout=30_000)
    opened.page.wait_for_timeout(1000)
    percent = float(handle.get_attribute("aria-valuenow"))
    assert percent > 55
    line, knob = upper.bounding_box(), handle.bounding_box()
    assert line["width"] == pytest.approx(3.6 * percent, abs=3)
    assert knob["x"] + knob["width"] / 2 == pytest.approx(line["x"] + line["width"], abs=10), "it stands at the line"

    following = panel.get_by_role("button", name="Next", exact=True)
    following.focus()
    opened.page.keyboard.press("Enter")
    expect(panel.get_by_text("2 of 5, farthest first")).to_be_visible(timeout=30_000)
    expect(panel.locator("pre.kit-call")).to_contain_text("kit.charts.picture_pair(comparison, 'INT8', 1)")

    panel.get_by_label("Pipeline", exact=True).select_option("FP16")
    panel.get_by_label("Show", exact=True).select_option("with an alarm")
    expect(panel.locator(".kit-alarm")).to_contain_text("picture 2 ('dark right') is NaN", timeout=30_000)
    expect(following).to_be_disabled()
    opened.shot("diffusion_alarm")
    opened.run(2)
    expect(opened.output(2).last).to_have_text("(2,)")
