"""A panel without a browser: controls in, a run in its own process, the result or the error out."""

import html
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets
import pytest
from fake_stages import Baked, BakeOptions, at_once, bake, bare, break_down, die, rebake, refuse

import kit
from kit.errors import BadInput, KitError, MissingTool, ToolFailed, UnsupportedModel, WorkerDied
from kit.progress import Cancelled, Tick
from kit.ui import panel
from kit.ui.panel import Panel


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def quick(stage, *args, report, pass_report=False, runs=None, **kwargs):
    """Call a stage right here instead of in a worker: what a test passes as ``call``."""
    return stage(*args, **kwargs)


def fake(stage=None, call=quick, options=None, **kwargs):
    """A panel on ``stage``, or on one that returns at once, run in this process."""
    return Panel(stage or at_once, ("cake.onnx",), kwargs, options=options, call=call)


class Gate:
    """A ``call`` that waits until it is opened, and reports meanwhile."""

    def __init__(self):
        self.open, self.calls = threading.Event(), 0

    def __call__(self, stage, *args, report, pass_report=False, **kwargs):
        self.calls += 1
        while not self.open.wait(0.01):
            report(Tick(3, 10, "baking"))
        return stage(*args, **kwargs)


def until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited 30 s for something that did not happen")


def wait(made):
    until(lambda: not made.running)


# ---- what a person sees before anything runs -----------------------------------------------------------------------


def test_a_panel_without_a_kernel_is_a_sentence():
    made = fake()
    assert repr(made) == "Panel for at_once: needs a running kernel. In code: panel.get()"
    data, _ = made._repr_mimebundle_()
    assert data["text/plain"] == repr(made)
    assert "application/vnd.jupyter.widget-view+json" in data


def test_run_can_be_pressed_and_cancel_cannot():
    look = fake().look
    assert not look.run.disabled
    assert look.cancel.disabled


def test_the_controls_start_at_the_options_given_or_the_stage_s_own():
    assert fake().options == BakeOptions()
    assert fake(options=BakeOptions(steps=7)).options == BakeOptions(steps=7)


def test_the_equal_call_follows_the_controls():
    made = fake()
    assert "<code>at_once(&#x27;cake.onnx&#x27;)</code>" in made.look.call.value
    made.controls["keep_float"].value = ("Conv_3",)
    assert "BakeOptions(keep_float=(&#x27;Conv_3&#x27;,))" in made.look.call.value


def test_the_equal_call_reads_as_the_arguments_were_written():
    cakes = {"first": [Path("cake.onnx")]}
    made = panel(bare, len(cakes["first"] * 2))
    assert "<code>bare(2)</code>" in made.look.call.value  # a plain value is written out
    made = panel(at_once,
                 cakes["first"][:1], options=BakeOptions(steps=4))
    assert "<code>at_once(cakes['first'][:1], BakeOptions(steps=4))</code>" in html.unescape(made.look.call.value)
    assert "at_once(model)" in panel(*[at_once, cakes["first"]]).look.call.value  # not known from the source line


def test_run_again_is_offered_where_the_stage_fingerprints_its_arguments_its_own_way():
    made = panel(rebake, {"first": "cake.onnx"})
    assert made.look.note.value == ""
    first = made.get()
    assert first.provenance is not None
    assert not made.look.again.disabled
    made.look.again.click()
    assert made.get() is not first
    made.controls["steps"].value = 2
    assert made.look.again.disabled


def test_the_equal_call_of_a_family_s_stage_begins_with_the_module_that_notebooks_import():
    from kit.families import diffusion

    made = Panel(diffusion.quantize_unet, ("unet.onnx",), {}, options=diffusion.UnetQuantizeOptions(spare=0.1),
                 call=quick)
    assert "diffusion.quantize_unet('unet.onnx', options=diffusion.UnetQuantizeOptions(spare=0.1))" in html.unescape(
        made.look.call.value)
    assert "<h4>Quantize UNet</h4>" in made.look.head.value


def test_mending_a_setting_after_an_error_is_noticed_and_the_error_stays():
    made = panel(refuse, "two.onnx")
    with pytest.raises(UnsupportedModel):
        made.get()
    made.controls["steps"].value = 2
    assert "The settings have changed since. Run for these." in made.look.status.value
    assert "choose one with inputs" in made.look.error.value
    made.controls["steps"].value = 3
    assert "gave no result" in made.look.status.value


def test_without_ipywidgets_the_error_names_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingTool, match="ipywidgets") as caught:
        panel(at_once, "cake.onnx")
    assert "[ui]" in caught.value.remedy


def test_a_value_out_of_range_is_told_in_place_and_nothing_can_run():
    made = fake()
    made.controls["steps"].widget.value = 500
    note = made.controls["steps"].view.children[1].value
    assert "cannot be 500" in note
    assert "from 1 to 200" in note
    assert made.look.run.disabled
    assert made.start() is False
    with pytest.raises(BadInput, match="500"):
        made.get()
    made.controls["steps"].widget.value = 5
    assert not made.look.run.disabled
    assert made.get().steps == 5


# ---- running -------------------------------------------------------------------------------------------------------


def test_get_runs_with_the_controls_as_they_stand_and_shows_the_card():
    made = fake()
    made.controls["method"].value = "entropy"
    assert made.get() == Baked("entropy", 3, os.getpid())
    assert made.result == made.get()
    assert "Baked in 3 steps by entropy" in made.look.result.value
    assert 'role="status">Done.' in made.look.status.value


def test_get_does_not_run_again_for_the_same_settings_but_does_for_others():
    gate = Gate()
    gate.open.set()
    made = fake(call=gate)
    made.get()
    made.get()
    assert gate.calls == 1
    made.controls["steps"].value = 9
    assert "made with other settings" in made.look.status.value
    assert made.get().steps == 9
    assert gate.calls == 2


def test_while_running_only_cancel_can_be_pressed_and_progress_is_in_words():
    gate = Gate()
    made = fake(call=gate)
    made.look.run.click()
    until(lambda: "baking" in made.look.status.value)
    assert made.look.run.disabled
    assert not made.look.cancel.disabled
    assert all(control.widget.disabled for control in made.controls.values())
    assert 'role="status">baking 3/10' in made.look.status.value
    assert '<progress aria-label="at_once progress" value="3" max="10">' in made.look.bar.value
    gate.open.set()
    wait(made)
    assert not made.look.run.disabled
    assert made.look.cancel.disabled
    assert not any(control.widget.disabled for control in made.controls.values())
    assert made.look.bar.value == ""


def test_a_double_click_runs_once():
    gate = Gate()
    made = fake(call=gate)
    made.look.run.click()
    made.look.run.click()
    assert made.start() is False
    gate.open.set()
    wait(made)
    assert gate.calls == 1


def test_the_cancel_button_stops_the_run_and_get_says_so():
    made = fake(call=Gate())
    made.start()
    made.look.cancel.click()
    with pytest.raises(Cancelled):
        made._wait()
    assert "Cancelled. Nothing was written." in made.look.status.value
    assert made.result is None
    assert not made.look.run.disabled


def test_an_interrupt_of_the_kernel_cancels_the_run_under_way(monkeypatch):
    made = fake(call=Gate())
    made.start()
    thread, joins = made._thread, []
    join = thread.join

    def interrupted(timeout=None):
        joins.append(timeout)
        if len(joins) == 2:
            raise KeyboardInterrupt
        join(timeout)

    monkeypatch.setattr(thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.get()
    assert not made.running
    assert "Cancelled" in made.look.status.value


def test_a_run_after_a_cancelled_one_starts_afresh():
    gate = Gate()
    made = fake(call=gate)
    made.start()
    made.cancel()
    wait(made)
    gate.open.set()
    assert made.get().steps == 3
    assert gate.calls == 2


def test_an_error_of_the_stage_shows_in_place_with_its_remedy_and_is_raised_by_get():
    made = fake(refuse)
    with pytest.raises(UnsupportedModel):
        made.get()
    shown = made.look.error.value
    assert 'role="alert"' in shown
    assert "&lt;image&gt;" in shown  # names come from strangers' models
    assert "<b>Try:</b> choose one with inputs=" in shown
    assert "<details>" in shown
    assert made.look.result.value == ""
    assert not made.look.run.disabled


def test_an_unforeseen_error_is_wrapped_with_its_traceback_folded():
    with pytest.raises(ToolFailed, match="ZeroDivisionError") as caught:
        fake(break_down).get()
    assert "Conv_3" in caught.value.detail
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_plain_function_without_options_works_too():
    made = Panel(bare, (3,), {}, call=quick)
    assert made.controls == {}
    assert made.options is None
    assert made.get() == 4
    assert "<pre>4</pre>" in made.look.result.value


def test_the_next_run_takes_the_last_one_s_error_away():
    outcomes = [UnsupportedModel("no", remedy="yes"), Baked("minmax", 3, 1)]

    def call(stage, *args, **kwargs):
        outcome = outcomes.pop(0)
        if isinstance(outcome, KitError):
            raise outcome
        return outcome

    made = fake(call=call)
    with pytest.raises(UnsupportedModel):
        made.get()
    assert made.look.error.value
    made.get()
    assert made.look.error.value == ""


# ---- in a real worker process --------------------------------------------------------------------------------------


def test_a_stage_runs_in_another_process_and_is_found_again_by_the_next_panel(tmp_path):
    first = panel(bake, "cake.onnx").get()
    assert first.process != os.getpid()
    second = panel(bake, "cake.onnx")
    assert "A stored result fits these settings: from " in second.look.note.value
    assert "Baked in 3 steps by minmax" in second.look.note.value
    assert second.look.again.layout.display == ""
    assert second.get() == first
    assert "nothing had to run" in second.look.status.value
    second.controls["steps"].value = 4
    assert second.look.again.layout.display == "none"


def test_run_again_works_afresh_and_replaces_the_stored_result():
    first = panel(bake, "cake.onnx").get()
    made = panel(bake, "cake.onnx")
    assert made.start(again=True)
    assert made.get().process != first.process
    assert panel(bake, "cake.onnx").get().process == made.result.process


def test_a_cancelled_run_leaves_nothing_behind_and_keeps_what_was_stored(tmp_path):
    options = BakeOptions(steps=20)
    first = panel(bake, "cake.onnx", options=options).get()
    before = sorted(path for path in tmp_path.rglob("*"))
    made = panel(bake, "cake.onnx", options=options)
    made.start(again=True)
    until(lambda: "baking" in made.look.status.value)
    made.cancel()
    wait(made)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert made.get() == first


def test_a_killed_worker_is_an_error_with_its_last_words():
    made = panel(die, "cake.onnx")
    with pytest.raises(WorkerDied):
        made.get()
    assert "killed (signal 9)" in made.look.error.value
    assert "last words of the worker" in made.look.error.value


def test_a_function_typed_into_a_notebook_is_refused_with_the_way_out():
    def local(model):
        return None

    with pytest.raises(BadInput, match="cannot import it"):
        panel(local, "cake.onnx").get()


def test_other_options_or_another_input_are_not_taken_for_stored():
    panel(bake, "cake.onnx").get()
    assert panel(bake, "other.onnx").look.note.value == ""
    assert panel(bake, "cake.onnx", options=replace(BakeOptions(), steps=5)).look.note.value == ""


# ---- the kit's own stages ------------------------------------------------------------------------------------------


OPTIONS = [name for name in kit._HOME if name.endswith("Options")]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_stage_of_the_kit_can_be_shown_and_explains_its_controls(name):
    options = getattr(kit, name)()
    compiles = name in ("BundleOptions", "SavedModelOptions")  # one stage, several kinds of options
    stage = getattr(kit, "compile" if compiles else name.removesuffix("Options").lower())
    made = panel(stage, options=options)
    assert made.options == options
    assert made.look.call.value.count(f"kit.{stage.__name__}(") == 1
    for control in made.controls.values():
        assert control.field.help, f"{name}.{control.field.name} has no Help"


def test_a_real_stage_runs_in_its_worker_from_the_panel(tiny_onnx):
    made = panel(kit.audit, tiny_onnx)
    made.controls["target"].value = "ascend310p3"
    assert "kit.audit(&#x27;" in made.look.call.value
    assert "kit.AuditOptions(target=&#x27;ascend310p3&#x27;)" in made.look.call.value
    audit = made.get()
    assert audit.target == "ascend310p3"
    assert audit.title().split()[0] in made.look.result.value
    assert "A stored result" in panel(kit.audit, tiny_onnx, options=kit.AuditOptions(target="ascend310p3")
                                      ).look.note.value


# ---- what goes into an HTML widget ---------------------------------------------------------------------------------


def test_every_widget_of_a_panel_belongs_to_its_box():
    made = fake()
    assert isinstance(made.look.box, ipywidgets.VBox)
    assert made.controls["steps"].view in made.look.box.children
