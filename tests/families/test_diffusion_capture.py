"""Inputs of the UNet, picked from its way: evenly, by lot, or as they come."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import sd_random
from hypothesis import given
from hypothesis import strategies as st

import kit
from kit import record
from kit.errors import BadInput
from kit.families.diffusion import Captured, CaptureOptions, DrawOptions, capture, range_by_timestep
from kit.families.diffusion_capture import Call, choose
from kit.families.diffusion_trajectory import walk

FEW = CaptureOptions(inputs=8, steps=4, bins=2, guidance=5, threads=1)


def calls(prompts, steps, bins):
    return [Call(prompt, step, 1000 - step, branch, step * bins // steps) for prompt in range(prompts)
            for step in range(steps) for branch in (0, 1)]


@given(st.integers(1, 6), st.integers(2, 20), st.integers(1, 10), st.integers(0, 99), st.data())
def test_strata_differ_by_one_at_most(prompts, steps, bins, seed, data):
    bins = min(bins, steps)
    every = calls(prompts, steps, bins)
    wanted = data.draw(st.integers(1, len(every)))
    taken = choose(every, CaptureOptions(inputs=wanted, steps=steps, bins=bins, seed=seed))
    assert len(taken) == len(set(taken)) == wanted
    room, kept = (Counter((call.bin, call.branch) for call in some) for some in (every, taken))
    least = min(kept[key] for key in room)
    assert all(kept[key] <= least + 1 or least == room[min(room, key=kept.__getitem__)] for key in room)


def test_stratified_takes_every_prompt_and_random_is_by_lot():
    every = calls(8, 20, 10)
    stratified = choose(every, CaptureOptions(inputs=40))
    assert set(Counter(call.prompt for call in stratified).values()) == {5}
    assert set(Counter((call.bin, call.branch) for call in stratified).values()) == {2}
    by_lot = [choose(every, CaptureOptions(inputs=40, choice="random", seed=seed)) for seed in (0, 1)]
    assert by_lot[0] != by_lot[1]
    assert by_lot[0] == choose(every, CaptureOptions(inputs=40, choice="random", seed=0))
    assert choose(every, CaptureOptions(inputs=3, choice="first")) == every[:3]


def test_what_is_kept_is_what_the_unet_was_fed(tmp_path):
    pipeline = sd_random.pipeline()
    captured = capture(pipeline, sd_random.PROMPTS, FEW, runs=tmp_path)
    feeds = walk(pipeline, sd_random.PROMPTS, DrawOptions(steps=4, guidance=5, threads=1)).feeds()
    assert len(captured) == 8
    per_prompt = len(feeds) // 2
    for at, call in enumerate(captured.calls):
        true = feeds[call.prompt * per_prompt + call.step * 2 + call.branch]
        assert set(captured[at]) == set(true)
        for name, array in captured[at].items():
            np.testing.assert_array_equal(array, true[name])
    assert {call.branch for call in captured.calls} == {0, 1}
    assert "timestep" in captured.items[0].name
    (tmp_path / "kept").mkdir()
    record.save(captured, tmp_path / "kept")
    assert record.load(Captured, tmp_path / "kept") == captured
    assert captured[:3].digest() != captured.digest()
    assert "8 of" in captured.title()


def test_a_later_prompt_alone_starts_from_its_own_noise(tmp_path):
    pipeline = sd_random.pipeline()
    options = CaptureOptions(inputs=1, steps=2, choice="random", threads=1)
    seed = next(seed for seed in range(50) if capture(
        pipeline, sd_random.PROMPTS, CaptureOptions(inputs=1, steps=2, choice="random", seed=seed, threads=1),
        runs=tmp_path).calls[0].prompt == 1)
    captured = capture(pipeline, sd_random.PROMPTS, dataclasses.replace(options, seed=seed), runs=tmp_path)
    call = captured.calls[0]
    feeds = walk(pipeline, sd_random.PROMPTS, DrawOptions(steps=2, seed=seed, threads=1)).feeds()
    true = feeds[len(feeds) // 2 + call.step * 2 + call.branch]
    np.testing.assert_array_equal(captured[0]["sample"], true["sample"])


def test_more_than_there_are_and_no_prompts_are_refused(tmp_path):
    pipeline = sd_random.pipeline()
    with pytest.raises(BadInput, match="There are 20 inputs to keep") as caught:
        capture(pipeline, sd_random.PROMPTS, CaptureOptions(inputs=21, steps=4), runs=tmp_path)
    assert "more prompts" in caught.value.remedy
    with pytest.raises(BadInput, match="no prompts"):
        capture(pipeline, [], runs=tmp_path)


def test_ranges_by_timestep_are_those_of_their_inputs_and_merge_to_the_whole(tmp_path):
    pipeline = sd_random.pipeline()
    captured = capture(pipeline, sd_random.PROMPTS, FEW, runs=tmp_path)
    unet = sd_random.onnx_parts()["unet"]
    found = range_by_timestep(unet, captured, runs=tmp_path)
    whole = kit.calibrate(unet, captured, runs=tmp_path)
    assert found.calibration.ranges("mse") == whole.ranges("mse")
    assert found.timesteps == tuple(sorted(found.timesteps, reverse=True))
    assert len(found.timesteps) == 2
    first = next(layer for layer in found.layers if "conv_in" in layer.layer)
    for at, inputs in enumerate(captured.by_bin().values()):
        assert first.low[at] == inputs.samples.min()
        assert first.high[at] == inputs.samples.max()
    assert found.most_changed(1)[0].growth >= first.growth
    assert "span" in str(found.facts())
    with pytest.raises(BadInput, match="need to know the timesteps"):
        range_by_timestep(unet, [captured[0]], runs=tmp_path)
