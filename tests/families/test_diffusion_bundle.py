"""A pipeline's bundle goes through a FAKE box: every part is built and compared, the pictures are the golden ones."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sd_random

import kit
from kit.ascend.box import rehearsing
from kit.errors import BadInput
from kit.families.diffusion import (
    DrawOptions,
    Pipeline,
    PipelineBundleOptions,
    bundle_pipeline,
    draw,
    read_pipeline_results,
    rehearse_pipeline,
)
from kit.families.diffusion_bundle import _pairs
from kit.families.diffusion_likeness import psnr
from kit.families.diffusion_on_box import DRIVEN

OPTIONS = PipelineBundleOptions(steps=3, goldens=2, float_parts=("vae_decoder",), timed=3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def bundled(runs):
    # atc takes no path with a space in it.
    return bundle_pipeline(sd_random.pipeline().replaced("my draw"), sd_random.PROMPTS, OPTIONS, runs=runs)


@pytest.fixture(scope="module")
def rehearsed(bundled, tmp_path_factory):
    return rehearse_pipeline(bundled, into=tmp_path_factory.mktemp("results") / "out")


@pytest.fixture
def copied(bundled, tmp_path):
    """A copy of the bundle that may be damaged."""
    return shutil.copytree(bundled.folder, tmp_path / "bundle")


def sealed(path):
    """After a change: the manifest that lists the file says so, and pipeline.json what lies in that manifest."""
    whole = next(folder for folder in path.parents if (folder / "pipeline.json").is_file())
    for manifest in (path.parents[1] / "bundle.json", whole / "pipeline.json"):
        if manifest.is_file():
            about = json.loads(manifest.read_text())
            about["files"] = {name: hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
                              for name in about["files"]}
            manifest.write_text(json.dumps(about))


# ---- what lies in it ------------------------------------------------------------------------------------------------


def test_every_part_is_an_ordinary_bundle_with_fixed_shapes_and_what_was_really_fed(bundled):
    about = {name: json.loads((bundled.folder / name / "bundle.json").read_text()) for name in DRIVEN}
    assert {name: [spec["shape"] for spec in own["inputs"]] for name, own in about.items()} == {
        "text_encoder": [[1, 12]], "unet": [[2, 4, 8, 8], [1], [2, 12, 32]], "vae_decoder": [[1, 4, 8, 8]]}
    assert [golden["name"] for golden in about["unet"]["goldens"]] == [
        "picture 0, timestep 667", "picture 1, timestep 1"]
    assert "--precision_mode_v2=origin" in about["vae_decoder"]["atc"]["argv"]
    assert not [flag for flag in about["unet"]["atc"]["argv"] if "precision" in flag], "float16 is what atc does"
    fed = kit.ascend.goldens(bundled.folder / "vae_decoder")[1]["latents"]
    assert np.array_equal(fed[0], bundled.drawn.latents[1] / np.float32(0.5))


def test_prompts_noise_and_pictures_lie_beside_them_and_nothing_tells_where_it_was_made(bundled, runs):
    plan = json.loads((bundled.folder / "pipeline.json").read_text())
    tokens = sd_random.pipeline().prompt_tokens()
    drawn = draw(sd_random.pipeline(), sd_random.PROMPTS, DrawOptions(steps=3))
    assert np.array_equal(np.load(bundled.folder / plan["nothing"]), tokens([""]))
    for at, row in enumerate(plan["prompts"]):
        assert row["text"] == sd_random.PROMPTS[at]
        assert np.array_equal(np.load(bundled.folder / row["tokens"]), tokens([row["text"]]))
        assert np.array_equal(np.load(bundled.folder / row["picture"]), drawn.pictures[at])
        shown = (bundled.folder / "goldens" / f"{at:03d}.png").read_bytes()
        assert shown.startswith(b"\x89PNG")
    assert (plan["scheduler"]["kind"], plan["scheduler"]["steps_offset"], plan["steps"]) == ("pndm", 1, 3)
    for file in bundled.folder.rglob("*"):
        if file.is_file():
            assert str(runs).encode() not in file.read_bytes(), file


def test_the_card_shows_parts_and_pictures_and_a_second_time_is_the_same_bundle(bundled, runs):
    assert "3 parts and 2 golden pictures for Ascend310P3" in bundled.title()
    assert "not built here" in bundled.title()
    assert [row[0] for row in bundled.tables()[0].rows] == list(DRIVEN)
    assert bundled.html().count("data:image/png;base64,") == 2
    again = bundle_pipeline(sd_random.pipeline().replaced("my draw"), sd_random.PROMPTS, OPTIONS, runs=runs)
    assert again.provenance == bundled.provenance
    assert again.drawn == bundled.drawn


def test_captured_inputs_go_two_by_two_at_one_timestep():
    feeds = [{"sample": np.full((1, 4, 2, 2), at, np.float32), "timestep": np.array([timestep], np.int64),
              "encoder_hidden_states": np.full((1, 3, 2), at, np.float32)}
             for at, timestep in enumerate((1, 500, 1, 500, 500))]
    pairs = [item.feed for item in _pairs(feeds)]
    assert [int(pair["timestep"][0]) for pair in pairs] == [500, 500, 1]
    assert [pair["sample"][:, 0, 0, 0].tolist() for pair in pairs] == [[1, 3], [4, 4], [0, 2]]
    assert all(pair["encoder_hidden_states"].shape == (2, 3, 2) for pair in pairs)
    with pytest.raises(BadInput, match="no captured inputs"):
        _pairs([])


def test_parts_that_are_not_onnx_are_refused_by_name(tmp_path):
    pipeline = Pipeline.read(sd_random.folder()).replaced(text_encoder=sd_random.onnx_parts()["text_encoder"])
    with pytest.raises(BadInput, match="unet of 'random' is a part of a diffusers pipeline") as caught:
        bundle_pipeline(pipeline, sd_random.PROMPTS, runs=tmp_path)
    assert "export_pipeline(folder" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_part_of_other_sizes_is_refused_by_name(tmp_path):
    wrong = sd_random.pipeline().replaced(vae_decoder=sd_random.onnx_parts()["vae_encoder"])
    with pytest.raises(BadInput, match="vae_decoder"):
        bundle_pipeline(wrong, sd_random.PROMPTS, OPTIONS, runs=tmp_path)
    with pytest.raises(BadInput, match="no part named 'vae'"):
        PipelineBundleOptions(float_parts=("vae",))


# ---- on a FAKE box --------------------------------------------------------------------------------------------------


def test_the_rehearsal_builds_every_part_and_draws_the_golden_pictures(rehearsed, bundled):
    assert rehearsed, str(rehearsed)
    assert rehearsed.title().startswith("FAKE rehearsal of my draw for Ascend310P3: 2 pictures like the golden ones")
    assert rehearsed.fake == "FAKE acl, FAKE atc, FAKE npu-smi"
    assert [step.state for step in rehearsed.steps] == ["done"] * 6
    assert all(len(own.comparison) == 2 for own in rehearsed.parts.values())
    pictures = rehearsed.array("pictures")
    for at, row in enumerate(rehearsed.pictures):
        found = psnr(bundled.drawn.pictures[at], pictures[at])
        assert row.psnr == pytest.approx(found, abs=1e-3)
        assert 45 < found < 99, "float16 of the FAKE chip shows, and no more than that"
        assert row.latents_cosine > 0.9999
        assert row.file.read_bytes().startswith(b"\x89PNG")
    assert rehearsed.ms == {}, "a FAKE gives no time"
    assert "Milliseconds" not in str(rehearsed)


def test_a_wrong_golden_answer_of_one_part_fails_that_part_and_still_draws(copied):
    path = copied / "unet" / "goldens" / "001.npz"
    with np.load(path) as kept:
        arrays = dict(kept)
    arrays["out:noise"] = arrays["out:noise"][::-1]
    np.savez(path, **arrays)
    sealed(path)
    results = rehearse_pipeline(copied)
    assert not results
    assert [step.step for step in results.failed] == ["unet"]
    assert "compare of unet failed: 1 of 2 answers are out of tolerance, worst noise of picture 1, timestep 1" in \
        results.failed[0].message
    assert results.title().startswith("FAKE rehearsal of my draw for Ascend310P3: unet FAILED: compare of unet failed")
    assert all(row.ok for row in results.pictures)


def test_a_golden_picture_of_something_else_is_told_with_its_prompt(copied):
    path = copied / "goldens" / "001.npy"
    np.save(path, np.load(copied / "goldens" / "000.npy")[::-1])
    sealed(path)
    results = rehearse_pipeline(copied, backend="ais_bench")
    assert results.fake == "FAKE ais_bench, FAKE atc, FAKE npu-smi"
    assert [step.step for step in results.failed] == ["compare"]
    assert "1 of 2 pictures are not the golden ones, worst pictures/001.png ('a green star'): PSNR" in \
        results.failed[0].message


def test_numbers_that_overflow_are_an_alarm_that_says_where_it_began(bundled, tmp_path):
    results = rehearse_pipeline(bundled, fault="nan", into=tmp_path / "out")
    assert [step.step for step in results.failed] == [*DRIVEN, "compare"]
    assert "ALARM: picture 0 ('a red circle above a blue square') is NaN; it began in text_encoder" in \
        results.failed[-1].message
    assert [row.psnr for row in results.pictures] == [0, 0]
    assert "ALARM 1" in results.facts()


def test_a_device_without_memory_is_told_for_every_part_and_for_the_pictures(bundled, tmp_path):
    results = rehearse_pipeline(bundled, fault="no-memory", into=tmp_path / "out")
    assert [step.step for step in results.failed] == [*DRIVEN, "draw"]
    assert results.failed[1].message == "infer of unet failed: acl.rt.malloc failed: error code 207001."
    assert results.failed[1].explained[0]["next"]
    assert results.failed[3].message == "text_encoder: acl.rt.malloc failed: error code 207001."


def test_a_file_that_was_cut_short_ends_it_at_the_check(bundled, tmp_path):
    results = rehearse_pipeline(bundled, fault="damaged", into=tmp_path / "out")
    assert results.failed[0].message.startswith("noise.npy is damaged or was changed")
    assert (results.parts, results.pictures) == ({}, ())


def test_where_an_om_is_missing_there_is_nothing_to_draw_with(copied, tmp_path):
    environment = rehearsing.install(tmp_path / "box", soc="Ascend310P3")

    def run(*options):
        done = subprocess.run([sys.executable, str(copied / "draw_on_box.py"), *options], env=environment, text=True,
                              capture_output=True)
        return done.returncode, read_pipeline_results(copied)

    code, results = run("--build-only")
    assert code == 0
    assert [step.state for step in results.steps] == ["done"] * 4 + ["skipped"] * 2
    assert not results, "nothing was drawn"
    (copied / "unet" / "om" / "unet.om").unlink()
    code, results = run("--skip-build")
    assert code == 1
    assert [step.step for step in results.failed] == ["unet", "draw"]
    assert "There is no .om of this bundle in om/: run without --skip-build" in results.failed[0].message
    assert results.failed[1].message == "There is no .om of unet to draw with: see the step unet."


@pytest.mark.parametrize(("thing", "words"), [("none", "not a whole bundle of a pipeline"), (3, "A int is no bundle")])
def test_what_is_no_bundle_is_not_rehearsed(tmp_path, thing, words):
    with pytest.raises(BadInput, match=words):
        rehearse_pipeline(tmp_path / thing if isinstance(thing, str) else thing)
    with pytest.raises(BadInput, match="no backend named 'acll'"):
        rehearse_pipeline(tmp_path, backend="acll")
