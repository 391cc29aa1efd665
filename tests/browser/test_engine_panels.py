"""The panels of the quantization engine in a real JupyterLab: ranges, layers, search."""

import re

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

TOY = """import sys
sys.path.insert(0, {tests!r})
from quantization_models import conv_net, feeds
import kit
path = conv_net("{name}.onnx", channels=32)
measured = kit.calibrate(path, feeds(6))"""


def toy(name):
    from pathlib import Path

    return TOY.format(tests=str(Path(__file__).parent.parent), name=name)


def button(within, name):
    return within.get_by_role("button", name=name, exact=True)


def choices(select):
    """The words of a list's options; ipywidgets writes their blanks as no-break spaces."""
    return [words.replace("\xa0", " ") for words in select.locator("option").all_inner_texts()]


def choose(select, part):
    """The option of a list that has ``part`` in its words."""
    select.select_option(index=next(at for at, words in enumerate(choices(select)) if part in words))


def test_choose_a_tensor_see_its_chart_and_overrule_its_method(notebook):
    opened = notebook([toy("ranges"), "ranges = kit.ui.ranges(measured)\nranges", "ranges.get()"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    panel = opened.widgets
    chart = panel.locator(".kit-chart svg.main-svg").first
    expect(chart).to_be_visible(timeout=60_000)
    tensors = panel.get_by_label("Tensor", exact=True)
    worst = tensors.locator("option").first.inner_text()
    name = worst.split("dB")[1].split()[0]
    title = panel.locator(".kit-chart .gtitle")
    expect(title).to_contain_text(f"Values of {name}")
    opened.shot("ranges")

    choose(tensors, " h0 (")
    expect(title).to_contain_text("Values of h0", timeout=30_000)
    expect(panel.get_by_role("status").first).to_contain_text(re.compile(r"\d+ of 1\d, worst first"))
    place = panel.locator(".kit-chart").bounding_box()
    opened.page.mouse.move(place["x"] + 250, place["y"] + 200)
    expect(panel.locator(".kit-chart .hoverlayer .hovertext").first).to_be_visible(timeout=10_000)

    choose(panel.get_by_label("Method", exact=True), "entropy:")
    expect(panel.locator("pre.kit-call")).to_contain_text("tensor_methods=('h0=entropy',)")
    choose(panel.get_by_label("Show", exact=True), "samples")
    expect(title).to_contain_text("Largest magnitude of h0", timeout=30_000)
    opened.shot("ranges_samples")
    opened.run(2)
    expect(opened.output(2).last).to_have_text("{'h0': 'entropy'}")


def test_tick_a_layer_out_of_int8_and_read_it_in_the_next_cell(notebook):
    opened = notebook([toy("layers") + "\nranking = kit.sensitivity(path, measured)",
                       "picker = kit.ui.layers(ranking)\npicker", "picker.get()", "ranking.groups[1].nodes"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    panel = opened.widgets
    ticks = panel.get_by_role("checkbox")
    expect(ticks).to_have_count(6)
    expect(panel.get_by_role("status")).to_contain_text("All in INT8: output measured at")
    ticks.nth(1).uncheck()
    expect(panel.get_by_role("status")).to_contain_text("1 of 6 layers in float: estimated output")
    opened.shot("layers")
    opened.run(2, 3)
    opened.finished(3)
    assert opened.output(2).last.inner_text() == opened.output(3).last.inner_text()
    button(panel, "All INT8").click()
    expect(ticks.nth(1)).to_be_checked()
    button(panel, "Float until 80% of the noise is gone").click()
    expect(ticks.nth(0)).not_to_be_checked()
    opened.shot("layers_spared")
    panel.get_by_label("Find", exact=True).press_sequentially("wid")
    expect(ticks).to_have_count(1)


def test_a_search_draws_its_trials_as_they_end_and_another_one_can_be_picked(notebook):
    options = "kit.SearchOptions(runtimes=('onnxruntime',), methods=('minmax',), keep=(), rounds=5)"
    opened = notebook([toy("search"), f"search = kit.ui.search(path, measured, options={options})\nsearch",
                       "search.get().pick.number", "search.get().why"])
    opened.run(0, 1)
    opened.finished(1, timeout=120_000)
    panel = opened.widgets
    expect(panel.locator("pre.kit-call")).to_contain_text("kit.search('search.onnx', measured, kit.SearchOptions(")
    button(panel, "Run").click()
    title = panel.locator(".kit-chart .gtitle")
    expect(title).to_contain_text("Search on search.onnx", timeout=120_000)
    points = panel.locator(".kit-chart .scatterlayer .points path")
    before = points.count()
    assert panel.get_by_role("progressbar").count() == 1
    opened.page.wait_for_function(
        "before => document.querySelectorAll('.kit-chart .scatterlayer .points path').length > before", arg=before,
        timeout=120_000)
    expect(button(panel, "Run")).to_be_disabled()
    opened.shot("search_running")
    expect(title).to_contain_text("times as fast as FP32", timeout=240_000)
    button(panel, "Use this one").scroll_into_view_if_needed()
    opened.shot("search_done")
    place = points.first.bounding_box()
    opened.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    expect(panel.locator(".kit-chart .hoverlayer .hovertext").first).to_contain_text("Trial", timeout=10_000)
    opened.shot("search_hover")

    trials = panel.get_by_label("Trial", exact=True)
    other = next(words for words in choices(trials) if "(the pick)" not in words)
    expect(button(panel, "Use this one")).to_be_disabled()
    choose(trials, other)
    button(panel, "Use this one").click()
    number = other.partition(":")[0]
    expect(panel.get_by_role("status").first).to_contain_text(f"Trial {number} is picked", timeout=30_000)
    opened.run(2, 3)
    opened.finished(3)
    expect(opened.output(2).last).to_have_text(number)
    expect(opened.output(3).last).to_have_text("'chosen by hand'")
    opened.shot("search_picked")
