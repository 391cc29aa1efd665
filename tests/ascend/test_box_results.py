"""load_results: what the box wrote comes back whole; damaged and foreign files are refused; a FAKE shows no time."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.ascend.box.box_tools import summary, write_json
from kit.ascend.box.results import BoxResults, load_results
from kit.ascend.box.run_on_box import STEPS
from kit.errors import BadInput

RESULTS = {
    "format": "kit-box-results", "version": 1, "fake": "",
    "device": {"soc": "Ascend310P3", "npu_smi": "| 0 310P3 |", "driver": "24.1.rc3", "cann": "8.1.RC1",
               "host": "linux aarch64 python 3.10.12", "backend": "acl"},
    "bundle": {"name": "receipts", "soc_version": "Ascend310P3", "sha256": "0" * 64, "precision": "", "int8": "none",
               "tolerances": {"cosine": 0.99, "relative": 0.02}, "goldens": [{"name": "slip.png", "feed": "1" * 64}]},
    "started": "2026-11-25T08:00:00+0800",
    "steps": [{"step": name, "state": "skipped" if name == "profile" else "done", "seconds": 1.5, "message": "fine",
               "explained": []} for name in STEPS],
    "build": {"command": "atc --model=m.onnx", "om": "om/net.om", "om_sha256": "2" * 64, "om_bytes": 4_000_000,
              "seconds": 81.5, "log_tail": "ATC run success", "reused": False},
    "comparison": [{"golden": "slip.png", "output": "y", "cosine": 0.9999, "relative": 0.001, "max_abs": 0.5,
                    "note": "", "ok": True}],
    "benchmark": [{"batch": 4, "profile": None, "warm_up": 10, "runs": 3, **summary([2.0, 4.0, 3.0], 4),
                   "with_copies": summary([5.0, 5.0, 5.0], 4)}],
    "profile": {"folder": "msprof", "top": [{"name": "conv1", "type": "Conv2D", "us": 12.5}]},
    "outputs": "outputs.npz",
}


def written(folder, **changes):
    data = copy.deepcopy(RESULTS)
    data.update(changes)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", data)
    np.savez(folder / "outputs.npz", **{"0/y": np.float32([[1, 2]])})
    return folder


def failed(step, message, **more):
    steps = copy.deepcopy(RESULTS["steps"])
    at = STEPS.index(step)
    steps[at].update(state="failed", message=message, **more)
    for later in steps[at + 1:]:
        later.update(state="skipped", message="not reached")
    return steps


# ---- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "results.json", ".."])
def test_the_folder_its_file_and_the_bundle_around_it_are_read_alike(tmp_path, place):
    folder = written(tmp_path / "bundle" / "results")
    results = load_results(folder / place if place != ".." else folder.parent)
    assert results.path == folder / "results.json"
    assert results
    assert results.label == "Ascend310P3"
    assert results.title() == "receipts on Ascend310P3: all 1 answers within tolerance, 3.00 ms at batch 4"


def test_everything_that_was_measured_is_there_with_its_device(tmp_path):
    results = load_results(written(tmp_path))
    assert results.times_ms(4) == (2.0, 4.0, 3.0)
    assert results.benchmark[0].copies_ms == (5.0, 5.0, 5.0)
    assert results.benchmark[0].fps == pytest.approx(4 / 0.003, abs=0.01)
    np.testing.assert_array_equal(results.answer(0, "y"), [[1, 2]])
    np.testing.assert_array_equal(results.answer("slip.png", "y"), [[1, 2]])
    text = str(results)
    for words in ("Ascend310P3, driver 24.1.rc3", "8.1.RC1", "om/net.om, 4.0 MB in 81.5 s", "Milliseconds a run on "
                  "Ascend310P3", "Slowest operators on Ascend310P3 (msprof)", "0.999900", "linux aarch64"):
        assert words in text


@pytest.mark.parametrize(("ask", "words"), [
    (lambda r: r.times_ms(8), r"Batch 8 was not measured on Ascend310P3 \(measured: 4\)"),
    (lambda r: r.answer("slap.png", "y"), r"no golden input named 'slap\.png'"),
    (lambda r: r.answer(0, "z"), "no answer named '0/z'")])
def test_what_was_not_recorded_is_refused_with_what_was(tmp_path, ask, words):
    with pytest.raises(BadInput, match=words) as caught:
        ask(load_results(written(tmp_path)))
    assert caught.value.remedy


def test_a_failed_step_says_what_the_log_means_and_makes_it_false(tmp_path):
    row = {"code": "E16002", "cause": "no parser", "node": "g", "next": "export at 17", "line": "E16002"}
    results = load_results(written(tmp_path, steps=failed("build", "atc ended with 1", explained=[row]), comparison=[],
                                   benchmark=[], outputs="",
                                   build={"command": "atc", "log_tail": "E16002: No parser", "seconds": 1}))
    assert not results
    assert results.title() == "receipts on Ascend310P3: build FAILED: atc ended with 1"
    text = str(results)
    assert "What the log means" in text
    assert "export at 17" in text
    assert "E16002: No parser" in text
    (tmp_path / "outputs.npz").unlink()
    with pytest.raises(BadInput, match=r"holds no answers: the step infer was skipped \(not reached\)"):
        results.answer(0, "y")


def test_one_answer_out_of_tolerance_or_a_step_left_out_is_not_a_yes(tmp_path):
    row = {**RESULTS["comparison"][0], "ok": False, "cosine": None, "relative": None, "max_abs": None,
           "note": "1 of 2 numbers are NaN or inf where the float model has none"}
    results = load_results(written(tmp_path / "a", comparison=[row], steps=failed("compare", "NaN")))
    assert not results
    assert results.comparison[0].row()[2:] == ("-", "-", "-", "NO", row["note"])
    steps = copy.deepcopy(RESULTS["steps"])
    steps[4].update(state="skipped", message="--build-only")
    results = load_results(written(tmp_path / "b", steps=steps))
    assert not results
    assert results.title() == "receipts on Ascend310P3: no failure, but not done: benchmark"


def test_the_card_can_be_shown_in_a_notebook(tmp_path):
    html = load_results(written(tmp_path, bundle={**RESULTS["bundle"], "name": "<b>"}))._repr_mimebundle_()["text/html"]
    assert "&lt;b&gt; on Ascend310P3" in html


# ---- FAKE ---------------------------------------------------------------------------------------------------------


def test_results_of_fakes_say_so_everywhere_and_hold_no_time(tmp_path):
    results = load_results(written(tmp_path, fake="FAKE acl, FAKE atc"))
    assert results, "a rehearsal that went through is a yes about the bundle"
    assert results.title() == "FAKE rehearsal of receipts for Ascend310P3: the bundle is whole; nothing ran on a device"
    assert results.label == "FAKE Ascend310P3"
    assert results.benchmark[0].times_ms == ()
    assert results.benchmark[0].copies_ms == ()
    assert results.benchmark[0].p50_ms == results.benchmark[0].fps == 0
    with pytest.raises(BadInput, match="hold no times of a device"):
        results.times_ms(4)
    text = str(results)
    assert "3.000" not in text
    assert "us a run" not in text
    assert all(table.caption.startswith("FAKE") for table in results.tables())


# ---- files that are not what they should be -----------------------------------------------------------------------


@pytest.mark.parametrize(("text", "words"), [
    ('{"format": "kit-box', "is no whole JSON"), ("[]", "is not what run_on_box.py writes"),
    ('{"format": "kit-ascend-bundle"}', "is not what run_on_box.py writes"),
    ('{"format": "kit-box-results", "version": 9}', "is of version 9; this kit reads version 1"),
    ('{"format": "kit-box-results", "version": 1}', "is damaged"), ("\x00\xff", "no whole JSON")])
def test_foreign_and_cut_files_are_refused(tmp_path, text, words):
    (tmp_path / "results.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=words) as caught:
        load_results(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize("change", [
    {"steps": []}, {"steps": RESULTS["steps"][:3]}, {"steps": "done"}, {"device": {}}, {"device": None},
    {"bundle": {"name": "x"}}, {"comparison": [{"golden": "a"}]}, {"comparison": None}, {"benchmark": {"batch": 1}},
    {"benchmark": [{"batch": 1}]}, {"fake": None}, {"started": 3}, {"profile": 4},
    {"steps": [{**row, "state": "perhaps"} for row in RESULTS["steps"]]},
    {"benchmark": [{**RESULTS["benchmark"][0], "times_ms": ["fast"]}]}])
def test_a_file_with_parts_missing_or_of_another_kind_is_refused(tmp_path, change):
    with pytest.raises(BadInput, match="is damaged"):
        load_results(written(tmp_path, **change))


def test_a_path_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outputs.npz").write_bytes(b"elsewhere")
    results = load_results(written(tmp_path / "results", outputs="../outputs.npz"))
    assert results.outputs == tmp_path / "results" / "outputs.npz"


def test_where_nothing_is_the_remedy_names_the_folder_to_give(tmp_path):
    with pytest.raises(BadInput, match="no results of a box") as caught:
        load_results(tmp_path / "none")
    assert "results/" in caught.value.remedy


# ---- round trip ---------------------------------------------------------------------------------------------------

WORDS = st.text(max_size=20)
FIGURE = st.floats(0, 1e9, allow_nan=False)
TIMES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6)


@st.composite
def whole(draw):
    """A results file that run_on_box.py may write."""
    data = copy.deepcopy(RESULTS)
    data["fake"] = draw(st.sampled_from(["", "FAKE acl, FAKE atc"]))
    data["started"] = draw(WORDS)
    data["device"] = {name: draw(WORDS) for name in data["device"]}
    data["bundle"].update(name=draw(WORDS), goldens=draw(st.lists(st.fixed_dictionaries(
        {"name": WORDS, "feed": WORDS}), max_size=3)))
    for row in data["steps"]:
        row.update(state=draw(st.sampled_from(["done", "failed", "skipped"])), message=draw(WORDS),
                   seconds=draw(FIGURE), explained=draw(st.lists(st.fixed_dictionaries(
                       {name: WORDS for name in ("code", "cause", "node", "next", "line")}), max_size=2)))
    figure = st.none() | FIGURE
    data["comparison"] = draw(st.lists(st.fixed_dictionaries(
        {"golden": WORDS, "output": WORDS, "cosine": figure, "relative": figure, "max_abs": figure, "note": WORDS,
         "ok": st.booleans()}), max_size=3))
    data["benchmark"] = [{"batch": draw(st.integers(1, 64)), "warm_up": 1, "runs": 2,
                          "profile": draw(st.none() | st.lists(st.integers(1, 999), min_size=1, max_size=3)),
                          **summary(draw(TIMES), 1), "with_copies": summary(draw(TIMES), 1)}
                         for _ in range(draw(st.integers(0, 2)))]
    return data


@given(whole())
def test_what_the_box_writes_is_what_is_read(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "round-trip"
    write_json(folder / "results.json", data)
    results = load_results(folder)
    assert isinstance(results, BoxResults)
    assert (results.fake, results.device, results.bundle) == (data["fake"], data["device"], data["bundle"])
    assert [vars(step) | {"explained": list(step.explained)} for step in results.steps] == data["steps"]
    assert [vars(row) for row in results.comparison] == data["comparison"]
    for row, kept in zip(results.benchmark, data["benchmark"], strict=True):
        assert (row.batch, list(row.profile)) == (kept["batch"], kept["profile"] or [])
        assert list(row.times_ms) == ([] if data["fake"] else kept["times_ms"])
        assert row.p99_ms == (0 if data["fake"] else kept["p99_ms"])
    assert str(results)
    json.dumps(results.bundle)


@pytest.mark.parametrize("content", [b"PK\x03\x04 broken", b"", b"no archive"])
def test_damaged_answers_are_refused_and_missing_ones_named(tmp_path, content):
    results = load_results(written(tmp_path / "results"))
    results.outputs.write_bytes(content)
    with pytest.raises(BadInput, match=r"outputs\.npz is damaged"):
        results.answer("slip.png", "y")
    with pytest.raises(BadInput, match=r"outputs\.npz is damaged"):
        results.answers(0)
    results.outputs.unlink()
    with pytest.raises(BadInput, match=r"outputs\.npz is not there"):
        results.answer(0, "y")


@pytest.mark.parametrize("goldens", [3, [{}], [{"name": "slip.png"}], [{"name": "slip.png", "feed": 1}]])
def test_golden_inputs_without_name_or_digest_are_damage(tmp_path, goldens):
    with pytest.raises(BadInput, match="is damaged"):
        load_results(written(tmp_path / "results", bundle={**RESULTS["bundle"], "goldens": goldens}))


def test_what_is_no_path_is_refused():
    with pytest.raises(BadInput, match="takes a folder"):
        load_results(None)


def test_a_fake_device_is_fake_although_somebody_emptied_the_field(tmp_path):
    device = {**RESULTS["device"], "driver": "FAKE 0.0"}
    results = load_results(written(tmp_path, fake="", device=device))
    assert results.fake
    assert "FAKE" in results.title()
    assert results.benchmark[0].times_ms == ()


def test_fakes_claim_nothing_about_int8(tmp_path):
    bundle = {**RESULTS["bundle"], "int8": "amct"}
    assert "do not quantize" in str(load_results(written(tmp_path / "fake", fake="FAKE atc", bundle=bundle)))
    assert "do not quantize" not in str(load_results(written(tmp_path / "real", bundle=bundle)))
