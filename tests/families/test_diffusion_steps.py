"""Errors of single steps and of all together, and parts verified alone: where does a pipeline leave the reference?"""

import numpy as np
import onnx
import pytest
import sd_random
from onnx import TensorProto, helper

from kit.errors import BadInput
from kit.families.diffusion import DrawOptions, Scheduler, starting_noise
from kit.families.diffusion_parts import verify_parts
from kit.families.diffusion_steps import step_errors
from kit.families.diffusion_trajectory import far, walk

PROMPTS = sd_random.PROMPTS
FAST = DrawOptions(steps=4, guidance=3)


def scaled(part, into, factor, from_timestep=None):
    """A part whose answer is multiplied by ``factor``; of the UNet only below a timestep, if given."""
    model = onnx.load(sd_random.onnx_parts()[part])
    output = model.graph.output[0].name
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == output:
                node.output[at] = "before"
    constants = {"factor": factor, "one": 1.0, "limit": float(from_timestep or 0)}
    model.graph.initializer.extend(helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in constants.items())
    if from_timestep is None:
        model.graph.node.append(helper.make_node("Mul", ["before", "factor"], [output]))
    else:
        model.graph.node.extend([
            helper.make_node("Cast", ["timestep"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Less", ["as_float", "limit"], ["is_late"]),
            helper.make_node("Where", ["is_late", "factor", "one"], ["times"]),
            helper.make_node("Mul", ["before", "times"], [output])])
    onnx.save(model, into / f"{part}.onnx")
    return sd_random.pipeline().replaced("scaled", **{part: into / f"{part}.onnx"})


def test_a_walk_keeps_feeds_answers_and_latents():
    seen = walk(sd_random.pipeline(), PROMPTS, FAST)
    assert [len(steps) for steps in seen.steps] == [5, 5]
    latents = seen.latents(1)
    assert latents.shape == (5, 4, 8, 8)
    np.testing.assert_array_equal(latents[-1], seen.drawn.latents[1])
    np.testing.assert_array_equal(latents[0], seen.steps[1][1].feed["sample"][0])
    feeds = seen.feeds()
    assert len(feeds) == 2 * 5 * 2
    assert feeds[0]["sample"].shape == (1, 4, 8, 8)
    np.testing.assert_array_equal(feeds[0]["sample"][0], starting_noise(sd_random.pipeline(), 1, 0)[0])


def test_distance_is_of_norms():
    assert far(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(0.1)
    assert far(np.zeros(2), np.zeros(2)) == 0
    assert far(np.zeros(2), np.ones(2)) == far(np.ones(2), np.array([1, np.nan])) == np.inf


@pytest.mark.parametrize("kind", ["ddim", "pndm"])
def test_single_errors_are_what_was_put_in_and_the_loop_begins_with_the_first(tmp_path, kind):
    options = DrawOptions(steps=4, guidance=3, scheduler=kind)
    found = step_errors(sd_random.pipeline(), scaled("unet", tmp_path, 1.01), None, options, prompts=PROMPTS,
                        runs=tmp_path)
    assert len(found.rows) == (5 if kind == "pndm" else 4)
    for row in found.rows:
        assert row.without == pytest.approx(0.01, rel=1e-3)
        assert row.prompted == pytest.approx(0.01, rel=1e-3)
        assert row.guided == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(found.closed[:, 0], found.added[:, 0], rtol=1e-6)
    assert found.independent <= found.aligned
    assert found.verdict in ("repaired", "added up", "amplified")
    assert found.candidate == "scaled"
    assert str(found).startswith("scaled against random: latents off by")


def test_an_error_of_late_steps_shows_there_alone(tmp_path):
    options = DrawOptions(steps=4, guidance=3, scheduler="ddim")
    found = step_errors(sd_random.pipeline(), scaled("unet", tmp_path, 1.1, from_timestep=400), None, options,
                        prompts=PROMPTS[:1], runs=tmp_path)
    assert [row.timestep for row in found.rows] == [751, 501, 251, 1]
    np.testing.assert_array_equal(found.closed[0, :2] < 1e-7, True)
    np.testing.assert_array_equal(found.closed[0, 2:] > 1e-3, True)
    assert found.rows[2].added > 1e-3 > found.rows[1].added


def test_another_runtime_is_exact_and_the_result_is_kept(tmp_path):
    pipeline = sd_random.pipeline()
    other = pipeline.replaced("OpenVINO", unet=(pipeline.parts["unet"], {"runtime": "openvino", "precision": "f32"}))
    found = step_errors(pipeline, other, None, FAST, prompts=PROMPTS[:1], runs=tmp_path)
    assert found.verdict == "exact"
    again = step_errors(pipeline, other, None, FAST, prompts=PROMPTS[:1], runs=tmp_path)
    assert again.provenance == found.provenance
    np.testing.assert_array_equal(again.closed, found.closed)


def test_captured_inputs_are_compared_by_timestep(tmp_path):
    captured = walk(sd_random.pipeline(), PROMPTS, FAST).feeds()
    found = step_errors(sd_random.pipeline(), scaled("unet", tmp_path, 1.02), captured, FAST, prompts=PROMPTS[:1],
                        runs=tmp_path)
    assert [(row.timestep, row.count) for row in found.captured] == [(751, 4), (501, 8), (251, 4), (1, 4)]
    assert all(row.median == pytest.approx(0.02, rel=1e-3) for row in found.captured)
    assert "Single answers on captured inputs" in str(found)


def test_numbers_that_are_lost_are_said_to_be(tmp_path):
    found = step_errors(sd_random.pipeline(), scaled("unet", tmp_path, float("nan")), None, FAST, prompts=PROMPTS[:1],
                        runs=tmp_path)
    assert found.verdict == "lost"
    assert "lost" in found.tables()[0].rows[0]


def test_what_cannot_be_compared_is_refused(tmp_path):
    pipeline = sd_random.pipeline()
    import dataclasses

    other = dataclasses.replace(pipeline, scheduler=Scheduler(steps_offset=0))
    with pytest.raises(BadInput, match="another scheduler"):
        step_errors(pipeline, other, None, FAST, prompts=PROMPTS, runs=tmp_path)
    with pytest.raises(BadInput, match="no prompts"):
        step_errors(pipeline, pipeline, None, FAST, runs=tmp_path)
    with pytest.raises(BadInput, match="one text"):
        step_errors(pipeline, pipeline, None, FAST, prompts="a star", runs=tmp_path)


def test_every_part_alone_in_another_runtime(tmp_path):
    pipeline = sd_random.pipeline()
    other = pipeline.replaced("OpenVINO", **{
        part: (path, {"runtime": "openvino", "precision": "f32"}) for part, path in pipeline.parts.items()})
    found = verify_parts(pipeline, other, prompts=PROMPTS, drawing=FAST, runs=tmp_path)
    assert found
    assert list(found.verdicts) == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    assert [verdict.samples for verdict in found.verdicts.values()] == [3, 20, 2, 2]
    assert {row[6] for row in found.tables()[0].rows} <= {"equal", "warning"}


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae_decoder"])
def test_the_part_that_fails_is_named_and_no_other_is_blamed(tmp_path, part):
    found = verify_parts(sd_random.pipeline(), scaled(part, tmp_path, 1.05), prompts=PROMPTS, drawing=FAST,
                         runs=tmp_path)
    assert not found
    assert found.where == part
    assert f"{part} is the first part that fails" in found.title()
    assert list(found.verdicts) == [part]
    assert set(found.skipped.values()) == {"both have the same"}


def test_captured_inputs_stand_for_the_unets(tmp_path):
    captured = walk(sd_random.pipeline(), PROMPTS, FAST).feeds()[:3]
    found = verify_parts(sd_random.pipeline(), scaled("unet", tmp_path, 1.0), captured, prompts=PROMPTS, drawing=FAST,
                         runs=tmp_path)
    assert found
    assert found.verdicts["unet"].samples == 3
    same = verify_parts(sd_random.pipeline(), sd_random.pipeline(), prompts=PROMPTS, drawing=FAST, runs=tmp_path)
    assert same
    assert not same.verdicts
    assert "no part compared" in same.title()
