"""What draw_on_box.py wrote is read back whole, with the device's name, and never a FAKE for a device."""

import json

import numpy as np
import pytest
from box_results import box_results

from kit.ascend.box.results import load_results
from kit.errors import BadInput
from kit.families.diffusion import read_pipeline_results
from kit.families.diffusion_on_box import DRIVEN, PIPELINE_STEPS


@pytest.fixture
def folder(tmp_path):
    """Results as of a real box: every part, two pictures."""
    for name in DRIVEN:
        feed = {"x": np.ones(2, np.float32)}
        box_results(tmp_path / name, [feed], [feed])
    (tmp_path / "results.json").write_text(json.dumps({
        "format": "kit-box-pipeline", "version": 1, "fake": "", "started": "2026-01-02T03:04:05+0000",
        "device": {"soc": "Ascend310P3", "driver": "24.1.rc2", "cann": "8.1.RC1", "host": "linux", "backend": "acl"},
        "pipeline": {"name": "tiny", "soc_version": "Ascend310P3", "least_psnr": 25.0, "prompts": ["a", "b"]},
        "steps": [{"step": step, "state": "done", "seconds": 0.5, "message": "", "explained": []}
                  for step in PIPELINE_STEPS],
        "parts": {name: {"om": f"om/{name}.om", "backend": "acl"} for name in DRIVEN},
        "ms": {name: {"calls": 4, "p50_ms": 12.5, "p95_ms": 13.0, "times_ms": [12.5]} for name in DRIVEN},
        "pictures": [{"prompt": prompt, "file": f"pictures/{prompt}.png", "psnr": 41.5, "latents_cosine": 0.9999,
                      "alarm": "", "ok": True} for prompt in "ab"]}))
    np.save(tmp_path / "pictures.npy", np.full((2, 4, 4, 3), 0.5, np.float32))
    return tmp_path


def changed(folder, **parts):
    file = folder / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))
    return folder


def test_a_device_has_its_name_and_its_times(folder):
    results = read_pipeline_results(folder)
    assert results
    assert results.title() == "tiny on Ascend310P3: 2 pictures like the golden ones, PSNR 41.5 dB or more"
    assert results.ms["unet"].p50_ms == 12.5
    assert results.pictures[1].file == folder / "pictures" / "b.png"
    assert results.array("pictures").shape == (2, 4, 4, 3)
    assert "Milliseconds a call on Ascend310P3" in str(results)
    assert "FAKE" not in str(results)
    with pytest.raises(BadInput, match=r"latents\.npy is not there"):
        results.array("latents")


def test_whoever_empties_the_field_the_parts_still_say_fake(folder):
    feed = {"x": np.ones(2, np.float32)}
    box_results(folder / "unet", [feed], [feed], fake="FAKE atc")
    results = read_pipeline_results(folder / "results.json")
    assert results.fake == "FAKE atc"
    assert results.title().startswith("FAKE rehearsal of tiny")
    assert (results.ms, results.label) == ({}, "FAKE Ascend310P3")
    device = {"soc": "Ascend310P3 (FAKE)", "driver": "", "cann": "", "host": "", "backend": "acl"}
    box_results(folder / "unet", [feed], [feed])
    assert read_pipeline_results(changed(folder, device=device)).fake


@pytest.mark.parametrize("change", [
    {"pictures": []},
    {"pictures": [{"prompt": p, "file": "x.png", "psnr": 3.0, "latents_cosine": None, "alarm": "", "ok": p == "a"}
                  for p in "ab"]},
    {"steps": [{"step": step, "state": "skipped" if step == "draw" else "done", "seconds": 0.0, "message": "",
                "explained": []} for step in PIPELINE_STEPS]},
])
def test_less_than_everything_is_no_yes(folder, change):
    assert not read_pipeline_results(changed(folder, **change))


def test_a_part_that_did_not_come_back_is_no_yes(folder):
    (folder / "unet" / "results.json").unlink()
    results = read_pipeline_results(folder)
    assert not results
    assert "what came back is not whole" in results.title()


def test_what_is_no_such_file_is_refused_with_what_to_give(folder, tmp_path):
    with pytest.raises(BadInput, match="no results of a box"):
        read_pipeline_results(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="kit-box-results") as caught:
        read_pipeline_results(folder / "unet")
    assert "load_results" in caught.value.remedy
    with pytest.raises(BadInput, match=r"not what run_on_box\.py writes"):
        load_results(folder)


@pytest.mark.parametrize("change", [{"steps": []}, {"pictures": [{"prompt": "a"}]}, {"pipeline": {}}, {"ms": 3},
                                    {"device": None}])
def test_damaged_results_are_refused(folder, change):
    with pytest.raises(BadInput, match="is damaged"):
        read_pipeline_results(changed(folder, **change))
