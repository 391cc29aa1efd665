"""Pictures drawn by the kit, against those of diffusers' own pipeline and against what cannot be right."""

import dataclasses

import numpy as np
import onnx
import pytest
import sd_random
from onnx import TensorProto, helper

from kit import record
from kit.errors import BadInput, StaleResult
from kit.families.diffusion import PARTS, Drawn, DrawOptions, draw, open_parts, starting_noise
from kit.families.diffusion_pipeline import ask
from kit.families.diffusion_schedulers import Scheduler

PROMPTS = sd_random.PROMPTS
FAST = DrawOptions(steps=3)


def psnr(left, right):
    return -10 * np.log10(np.mean((left - right) ** 2))


@pytest.mark.parametrize("kind", ["pndm", "ddim"])
def test_onnx_runtime_draws_what_diffusers_draws(kind):
    pipeline = sd_random.pipeline()
    noise = starting_noise(pipeline, len(PROMPTS), seed=3)
    options = DrawOptions(steps=8, guidance=5, scheduler=kind)
    drawn = draw(pipeline, PROMPTS, options, latents=noise)
    pictures, latents = sd_random.worker().call(sd_random.diffusers_pictures, sd_random.folder(), kind, noise, 8, 5.0)
    assert drawn.pictures.shape == pictures.shape == (2, 32, 32, 3)
    assert np.abs(drawn.latents - latents).max() < 1e-4 * np.abs(latents).max()
    assert np.abs(drawn.pictures - pictures).max() < 1e-4
    assert psnr(drawn.pictures, pictures) > 90
    assert pictures.std() > 0.02, "pictures of one colour would be equal by chance"
    assert not drawn.alarms


def test_another_runtime_draws_the_same():
    pipeline = sd_random.pipeline()
    other = pipeline.replaced("in OpenVINO", **{
        part: (path, {"runtime": "openvino", "precision": "f32"}) for part, path in pipeline.parts.items()})
    pictures = draw(pipeline, PROMPTS, FAST).pictures
    assert np.abs(draw(other, PROMPTS, FAST).pictures - pictures).max() < 1e-3


def test_a_picture_depends_on_its_prompt_seed_and_number_alone():
    pipeline = sd_random.pipeline()
    both, again = draw(pipeline, PROMPTS, FAST), draw(pipeline, (PROMPTS[0],), FAST)
    np.testing.assert_array_equal(both.pictures[0], again.pictures[0])
    other = draw(pipeline, (PROMPTS[0],), dataclasses.replace(FAST, seed=1))
    assert np.abs(other.pictures - again.pictures).max() > 0.05
    assert both == draw(pipeline, PROMPTS, FAST)
    assert both != draw(pipeline, PROMPTS, DrawOptions(steps=4))


def test_every_call_of_the_unet_is_heard():
    seen = []
    drawn = draw(sd_random.pipeline(), PROMPTS, FAST, watch=seen.append)
    assert [(step.prompt, step.step) for step in seen] == [(p, s) for p in range(2) for s in range(4)]
    assert [step.timestep for step in seen[:4]] == list(drawn.timesteps) == [667, 334, 334, 1]
    first = seen[0]
    assert first.feed["sample"].shape == first.noise.shape == (2, 4, 8, 8)
    assert first.feed["timestep"].tolist() == [667]
    np.testing.assert_array_equal(first.feed["sample"][0], first.feed["sample"][1])
    np.testing.assert_array_equal(first.feed["sample"][0], starting_noise(sd_random.pipeline(), 1, 0)[0])
    without, with_prompt = first.feed["encoder_hidden_states"]
    np.testing.assert_array_equal(without, seen[4].feed["encoder_hidden_states"][0])
    assert np.abs(with_prompt - seen[4].feed["encoder_hidden_states"][1]).max() > 0.01


def test_guidance_of_one_takes_the_answer_with_the_prompt():
    seen = []
    drawn = draw(sd_random.pipeline(), PROMPTS[:1], DrawOptions(steps=2, guidance=1, scheduler="ddim"),
                 watch=seen.append)
    walk = Scheduler(kind="ddim").sampler(2)
    latents = seen[0].feed["sample"][1:]
    for step in seen:
        latents = walk.step(step.noise[1:], latents)
    np.testing.assert_allclose(drawn.latents, latents, rtol=0, atol=1e-4)


def test_drawn_pictures_survive_the_disk_and_damage_is_told(tmp_path):
    drawn = draw(sd_random.pipeline(), PROMPTS, FAST)
    record.save(drawn, tmp_path)
    back = record.load(Drawn, tmp_path)
    assert back == drawn
    np.testing.assert_array_equal(back.pictures, drawn.pictures)
    assert back.options == drawn.options
    assert str(back) == str(drawn)
    assert back.html().count("data:image/png") == 2
    for path in tmp_path.glob("*.npy"):
        np.save(path, np.load(path) * 0.5)
    with pytest.raises(StaleResult, match="cannot be read"):
        record.load(Drawn, tmp_path)


def changed(part, into, add):
    """A part whose output goes through more nodes: ``add(name)`` gives nodes that make it from ``name``."""
    model = onnx.load(sd_random.onnx_parts()[part])
    output = model.graph.output[0].name
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == output:
                node.output[at] = "before"
    nodes, constants = add("before", output)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    path = into / f"{part}.onnx"
    onnx.save(model, path)
    return sd_random.pipeline().replaced(**{part: path})


def scalar(name, value):
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def late(value):
    """The UNet answers ``value`` below timestep 500, and its own before."""
    def add(before, output):
        return [
            helper.make_node("Cast", ["timestep"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Less", ["as_float", "limit"], ["is_late"]),
            helper.make_node("Where", ["is_late", "other", before], [output]),
        ], [scalar("limit", 500.0), scalar("other", value)]

    return add


def constant(value):
    def add(before, output):
        return [helper.make_node("Mul", [before, "nothing"], ["zero"]),
                helper.make_node("Add", ["zero", "value"], [output])], [scalar("nothing", 0.0), scalar("value", value)]

    return add


@pytest.mark.parametrize(("part", "add", "kind", "place", "why"), [
    ("unet", late(float("nan")), "NaN", ("unet", 1, 334), "its answer holds 512 NaN"),
    ("unet", late(3e38), "NaN", ("unet", 1, 334), "the latents reach"),
    ("vae_decoder", constant(float("nan")), "NaN", ("vae_decoder", None, None), "its answer holds"),
    ("text_encoder", constant(float("inf")), "NaN", ("text_encoder", None, None), "its answer holds"),
    ("vae_decoder", constant(-1.0), "black", ("vae_decoder", None, None), "look sound"),
    ("vae_decoder", constant(0.3), "flat", ("vae_decoder", None, None), "look sound"),
], ids=["NaN step", "overflow", "NaN decoder", "inf text", "black", "flat"])
def test_a_picture_that_cannot_be_right_is_told_with_where_it_began(tmp_path, part, add, kind, place, why):
    drawn = draw(changed(part, tmp_path, add), PROMPTS, FAST)
    assert [alarm.prompt for alarm in drawn.alarms] == [0, 1]
    alarm = drawn.alarms[1]
    assert (alarm.kind, alarm.text) == (kind, PROMPTS[1])
    assert (alarm.part, alarm.step, alarm.timestep) == place
    assert why in alarm.why
    assert "2 cannot be right" in drawn.title()
    assert str(alarm) in str(drawn)
    assert "data:image/png" in drawn.html()


def test_flat_pictures_of_a_silent_unet_are_traced_to_its_step(tmp_path):
    pipeline = changed("unet", tmp_path, late(1e4)).replaced(
        vae_decoder=changed("vae_decoder", tmp_path, constant(0.3)).parts["vae_decoder"])
    alarm = draw(pipeline, PROMPTS[:1], FAST).alarms[0]
    assert (alarm.kind, alarm.part, alarm.step) == ("flat", "unet", 1)
    assert "the latents reach" in alarm.why


def test_a_part_with_a_fixed_batch_is_asked_one_by_one(tmp_path):
    pipeline = sd_random.pipeline()
    model = onnx.load(pipeline.parts["unet"])
    for value in (*model.graph.input, *model.graph.output):
        if value.name != "timestep":
            value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    drawn = draw(pipeline.replaced(unet=tmp_path / "one.onnx"), PROMPTS, FAST)
    np.testing.assert_allclose(drawn.pictures, draw(pipeline, PROMPTS, FAST).pictures, atol=1e-4, rtol=0)


def test_parts_open_together_with_settings_and_close():
    pipeline = sd_random.pipeline()
    pipeline = pipeline.replaced(unet=(pipeline.parts["unet"], {"graph_level": "basic"}))
    with open_parts(pipeline, PARTS, threads=1) as parts:
        assert list(parts) == list(PARTS)
        assert parts["unet"].settings["graph level"] == "basic"
        assert parts["vae_encoder"].settings["threads"] == 1
        picture = np.zeros((1, 3, 32, 32), np.float32)
        assert ask(parts["vae_encoder"], "vae_encoder", {"picture": picture}).shape == (1, 4, 8, 8)
    with pytest.raises(BadInput, match="closed"):
        parts["unet"]({"sample": np.zeros((1, 4, 8, 8), np.float32), "timestep": np.zeros(1, np.int64),
                       "encoder_hidden_states": np.zeros((1, 12, 32), np.float32)})


@pytest.mark.parametrize(("change", "said"), [
    ({"prompts": ()}, "no prompts"), ({"prompts": "a star"}, "one text"),
    ({"latents": np.zeros((1, 4, 8, 8))}, r"has shape \[2, 4, 8, 8\], not \[1, 4, 8, 8\]"),
])
def test_what_cannot_be_drawn_is_refused(change, said):
    asked = {"prompts": PROMPTS, "latents": None, **change}
    with pytest.raises(BadInput, match=said):
        draw(sd_random.pipeline(), asked["prompts"], FAST, latents=asked["latents"])


def test_a_part_in_the_wrong_place_is_named():
    pipeline = sd_random.pipeline()
    with pytest.raises(BadInput, match=r"The unet of 'random' takes latents and gives picture; wanted is sample"):
        draw(pipeline.replaced(unet=pipeline.parts["vae_decoder"]), PROMPTS, FAST)


def test_long_prompts_are_cut_and_told():
    drawn = draw(sd_random.pipeline(), ("a star", "a red star above " * 6), FAST)
    assert drawn.notes == ("Prompts longer than 10 tokens were cut: 1.",)
