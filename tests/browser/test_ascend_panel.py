"""The bundle for an Ascend box in a real JupyterLab: made from a panel, rehearsed in the next cell."""

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

MODEL = f"""import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from quantization_models import conv_net, feeds
import kit
path = kit.fix(conv_net("boxed.onnx", channels=16), kit.FixOptions(target="ascend310p3")).model.path"""
PANEL = """panel = kit.ui.panel(kit.compile, path, samples=feeds(2), options=kit.BundleOptions(target="ascend310p3"))
panel"""


def test_a_bundle_is_made_from_a_panel_and_its_rehearsal_says_fake(notebook):
    opened = notebook([MODEL, PANEL, "bundled = panel.get()\nbundled", "kit.ascend.rehearse(bundled)"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    panel = opened.widgets
    batches = panel.get_by_label("Batches", exact=True)
    batches.fill("one")
    batches.press("Enter")
    expect(panel).to_contain_text("whole numbers, with commas")
    opened.shot("bundle_wrong")
    batches.fill("1")
    batches.press("Enter")
    expect(panel.locator("pre.kit-call")).to_contain_text("kit.BundleOptions(batches=(1,))")
    panel.get_by_role("button", name="Run", exact=True).click()
    expect(panel).to_contain_text("bundle for Ascend310P3, not built here", timeout=120_000)
    opened.shot("bundle")
    opened.run(2, 3)
    opened.finished(3, timeout=120_000)
    expect(opened.output(2).last).to_contain_text("python3 run_on_box.py")
    expect(opened.output(3).last).to_contain_text("FAKE rehearsal of boxed for Ascend310P3: the bundle is whole")
    opened.shot("rehearsal")
