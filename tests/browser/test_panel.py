"""Panels in a real JupyterLab, driven in Chromium as a person would."""

import json
import re

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

START = "from fake_stages import *\nfrom kit.ui import panel\n"
SLOW = START + "slow = panel(bake, {name!r}, options=BakeOptions(steps={steps}))\nslow"


def button(within, name):
    return within.get_by_role("button", name=name, exact=True)


def test_run_all_then_change_a_control_and_run_it_again_by_keyboard(notebook):
    opened = notebook([SLOW.format(name="run-all.onnx", steps=3), "baked = slow.get()\nbaked", "baked.steps",
                       "slow.get().method, slow.result.method"])
    opened.run_all()
    opened.finished(3)
    expect(opened.output(1).last).to_contain_text("Baked in 3 steps by minmax")
    expect(opened.output(2).last).to_have_text("3")
    expect(opened.widgets.get_by_role("status")).to_contain_text("Done")
    expect(opened.widgets.get_by_role("region", name="Result of bake")).to_contain_text("Baked in 3 steps by minmax")

    opened.widgets.get_by_label("Method").select_option("entropy")
    expect(opened.widgets.locator("pre.kit-call")).to_have_text(
        "bake('run-all.onnx', BakeOptions(method='entropy'))")
    expect(opened.widgets.get_by_role("status")).to_contain_text("made with other settings")
    button(opened.widgets, "Run").focus()
    opened.page.keyboard.press("Enter")
    expect(opened.widgets.get_by_role("region", name="Result of bake")).to_contain_text("by entropy", timeout=30_000)
    opened.shot("panel_run_again")
    opened.run(3)
    expect(opened.output(3).last).to_have_text("('entropy', 'entropy')", timeout=30_000)


def test_every_control_has_a_label_and_a_wrong_value_is_told_in_place(notebook):
    opened = notebook([SLOW.format(name="labels.onnx", steps=3)])
    opened.run_all()
    opened.finished(0)
    for label in ("Method", "Steps", "Share", "Per channel", "Keep float", "Extra"):
        expect(opened.widgets.get_by_label(label, exact=True)).to_have_count(1)
    steps = opened.widgets.get_by_label("Steps", exact=True)
    steps.fill("500")
    steps.press("Tab")
    expect(opened.widgets.get_by_role("alert")).to_contain_text("give a number from 1 to 200")
    expect(button(opened.widgets, "Run")).to_be_disabled()
    steps.fill("5")
    steps.press("Tab")
    expect(opened.widgets.get_by_role("alert")).to_have_count(0)
    expect(button(opened.widgets, "Run")).to_be_enabled()


def test_cancel_by_button_while_the_kernel_is_idle(notebook, lab):
    opened = notebook([SLOW.format(name="cancel.onnx", steps=150), "slow.result is None"])
    opened.run(0)
    opened.finished(0)
    button(opened.widgets, "Run").click()
    expect(opened.widgets.get_by_role("status")).to_contain_text(re.compile(r"baking \d+/150, about \d+ s left"),
                                                                 timeout=30_000)
    expect(opened.widgets.get_by_role("progressbar")).to_have_count(1)
    expect(button(opened.widgets, "Run")).to_be_disabled()
    expect(button(opened.widgets, "Cancel")).to_be_focused()
    opened.shot("panel_running")
    opened.page.keyboard.press("Enter")  # the focus moved to Cancel
    expect(opened.widgets.get_by_role("status")).to_have_text("Cancelled. Nothing was written.", timeout=15_000)
    expect(button(opened.widgets, "Run")).to_be_enabled()
    expect(button(opened.widgets, "Cancel")).to_be_disabled()
    opened.run(1)
    expect(opened.output(1).last).to_have_text("True")
    assert not list((lab[1] / "runs").glob("*/.bake*"))


def test_cancel_by_button_while_a_cell_waits_in_get(notebook):
    opened = notebook([SLOW.format(name="blocked.onnx", steps=150), "slow.get()", "'kernel lives'"])
    opened.run(0, 1)
    expect(opened.widgets.get_by_role("status")).to_contain_text("baking", timeout=30_000)
    button(opened.widgets, "Cancel").click()
    expect(opened.widgets.get_by_role("status")).to_have_text("Cancelled. Nothing was written.", timeout=15_000)
    expect(opened.output(1).last).to_contain_text("Cancelled. Nothing was written.")
    opened.run(2)
    expect(opened.output(2).last).to_have_text("'kernel lives'")


def test_an_interrupt_of_the_kernel_while_a_cell_waits_in_get_cancels_the_run(notebook, lab):
    opened = notebook([SLOW.format(name="interrupt.onnx", steps=150), "slow.get()", "slow.running, slow.result"])
    opened.run(0, 1)
    expect(opened.widgets.get_by_role("status")).to_contain_text("baking", timeout=30_000)
    opened.page.get_by_title("Interrupt the kernel").click()
    expect(opened.output(1).last).to_contain_text("KeyboardInterrupt", timeout=15_000)
    expect(opened.widgets.get_by_role("status")).to_have_text("Cancelled. Nothing was written.")
    opened.run(2)
    expect(opened.output(2).last).to_have_text("(False, None)")
    assert not list((lab[1] / "runs").glob("*/.bake*"))


def test_a_failing_stage_says_what_and_what_to_do_in_place(notebook):
    opened = notebook([START + "failing = panel(refuse, 'two.onnx')\nfailing", "failing.get()", "'kernel lives'"])
    opened.run(0)
    opened.finished(0)
    button(opened.widgets, "Run").click()
    alert = opened.widgets.get_by_role("alert")
    expect(alert).to_contain_text("UnsupportedModel: two.onnx has 2 inputs (<image>, mask)", timeout=30_000)
    expect(alert).to_contain_text("Try: choose one with inputs=['image']")
    expect(alert.get_by_text("node 17")).to_be_hidden()
    alert.get_by_text("Details").click()
    expect(alert.get_by_text("node 17")).to_be_visible()
    opened.shot("panel_failed")
    opened.run(1)
    expect(opened.output(1).last).to_contain_text("Try: choose one with inputs=['image']", timeout=30_000)


def test_a_killed_worker_costs_neither_kernel_nor_panel(notebook):
    opened = notebook([START + "killed = panel(die, 'big.onnx')\nkilled", "before = 41", "before + 1"])
    opened.run(0, 1)
    opened.finished(1)
    button(opened.widgets, "Run").click()
    expect(opened.widgets.get_by_role("alert")).to_contain_text("The worker was killed (signal 9)", timeout=30_000)
    expect(opened.widgets.get_by_role("alert")).to_contain_text("ran out of memory")
    expect(button(opened.widgets, "Run")).to_be_enabled()
    opened.run(2)
    expect(opened.output(2).last).to_have_text("42")  # the same kernel: its variable is still there


def test_after_a_restart_of_the_kernel_the_result_is_found_again(notebook, lab):
    opened = notebook([SLOW.format(name="restart.onnx", steps=4), "slow.get().process"])
    opened.run(0, 1)
    opened.finished(1)
    process = opened.output(1).last.inner_text()
    opened.restart()
    expect(opened.output(1)).to_have_count(0)
    opened.run(0)
    expect(opened.widgets).to_contain_text("A stored result fits these settings", timeout=60_000)
    expect(opened.widgets).to_contain_text("Baked in 4 steps by minmax")
    expect(button(opened.widgets, "Run again")).to_be_enabled()
    opened.shot("panel_restarted")
    opened.run(1)
    opened.finished(1)
    assert opened.output(1).last.inner_text() == process  # not made again
    expect(opened.widgets.get_by_role("status")).to_contain_text("nothing had to run")
    stored = json.loads(next((lab[1] / "runs" / "cake").glob("bake-*/result.json")).read_text())
    assert stored["provenance"]["stage"] == "bake"


def test_a_saved_notebook_tells_a_reader_without_a_kernel_what_the_panel_is(notebook, lab):
    opened = notebook([SLOW.format(name="saved.onnx", steps=3)])
    opened.run(0)
    opened.finished(0)
    expect(opened.widgets).to_have_count(1)
    opened.page.keyboard.press("Control+s")
    opened.page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    saved = json.loads((lab[1] / opened.name).read_text())
    data = saved["cells"][0]["outputs"][0]["data"]
    assert "".join(data["text/plain"]) == "Panel for bake: needs a running kernel. In code: panel.get()"
    assert "widgets" not in saved["metadata"]  # no widget state in the file


def test_a_chart_is_a_picture_until_the_mouse_is_over_it(notebook):
    opened = notebook(["import plotly.graph_objects as go\nfrom kit.charts import Chart\n"
                       "Chart(go.Figure(go.Bar(x=['det', 'rec'], y=[1, 2])), 'rec takes twice as long as det')"])
    opened.run(0)
    opened.finished(0)
    picture = opened.output(0).locator("img")
    expect(picture).to_be_visible()
    place = picture.bounding_box()
    # Not picture.hover(): the figure takes the picture's place as soon as the mouse is there.
    opened.page.mouse.move(place["x"] + 300, place["y"] + 200)
    figure = opened.output(0).locator("svg.main-svg").first
    expect(figure).to_be_visible(timeout=30_000)
    assert figure.bounding_box()["width"] == place["width"] == 760
