"""The browser of changed detections in a real JupyterLab: filter, step, and read what is left in the next cell."""

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PLATES = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
import detections as toys
import kit
from kit.families.detection_comparison import compare
comparison = compare({{"TensorFlow": toys.right, "int8": toys.worse}}, toys.samples(toys.plates(Path("plates"))),
                     toys.task(), kit.VerifyOptions(judge_by_task=("int8",)))
comparison"""


def test_filter_what_is_lost_and_step_through_the_rest(notebook):
    opened = notebook([PLATES, "browser = kit.ui.detections(comparison)\nbrowser",
                       "[change.name for change in browser.get()]"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    expect(opened.output(0).last).to_contain_text("mAP@0.5: TensorFlow 1.000, int8 0.9")
    panel = opened.widgets
    expect(panel.locator(".kit-chart svg.main-svg").first).to_be_visible(timeout=60_000)
    title = panel.locator(".kit-chart .gtitle")
    expect(title).to_contain_text("plate_05.png: 1 lost, 0 new, 0 moved")
    opened.shot("detections")

    following = panel.get_by_role("button", name="Next", exact=True)
    following.focus()
    opened.page.keyboard.press("Enter")
    expect(title).to_contain_text("plate_00.png: 0 lost, 1 new", timeout=30_000)
    expect(panel.get_by_text("2 of 3, most changed first")).to_be_visible()
    expect(panel.locator("pre.kit-call")).to_contain_text("kit.charts.changed_picture(comparison, 1)")

    panel.get_by_label("Show", exact=True).select_option("moved")
    expect(title).to_contain_text("plate_08.png: 0 lost, 0 new, 1 moved", timeout=30_000)
    expect(following).to_be_disabled()
    panel.get_by_label("True boxes too, dotted").check()
    expect(panel.locator(".kit-chart .legend")).to_contain_text("truth", timeout=30_000)
    opened.shot("detections_moved")
    opened.run(2)
    expect(opened.output(2).last).to_have_text("['plate_08.png']")
