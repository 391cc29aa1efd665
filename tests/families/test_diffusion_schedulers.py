"""The numpy schedulers against diffusers', step by step."""

from dataclasses import asdict

import numpy as np
import pytest
import sd_random
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.families.diffusion_schedulers import Scheduler

NAMES = {"pndm": "PNDMScheduler", "ddim": "DDIMScheduler"}


def of_diffusers(scheduler, steps, start, answers):
    about = asdict(scheduler)
    kind = about.pop("kind")
    about["num_train_timesteps"] = about.pop("train_steps")
    about |= {"skip_prk_steps": True} if kind == "pndm" else {"clip_sample": False}
    return sd_random.worker().call(sd_random.diffusers_walk, NAMES[kind], about, steps, start, answers)


@pytest.mark.parametrize("kind", ["pndm", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 50, 333])
@pytest.mark.parametrize("change", [
    {}, {"prediction_type": "v_prediction"}, {"beta_schedule": "linear", "steps_offset": 0, "set_alpha_to_one": True}],
    ids=["as in SD", "velocity", "other settings"])
def test_every_step_is_that_of_diffusers(kind, steps, change):
    scheduler = Scheduler(kind=kind, **change)
    random = np.random.default_rng(steps)
    start = random.standard_normal((1, 4, 3, 5), np.float32)
    answers = random.standard_normal((steps + 1, 1, 4, 3, 5), np.float32)
    timesteps, wanted = of_diffusers(scheduler, steps, start, answers)
    walk = scheduler.sampler(steps)
    assert list(walk.timesteps) == timesteps
    latents = start
    for at, answer in enumerate(answers[: len(timesteps)]):
        latents = walk.step(answer, latents)
        assert latents.dtype == np.float32
        # In float32 diffusers' own sums differ by about 1e-6 of the largest value.
        np.testing.assert_allclose(latents, wanted[at], atol=2e-5 * np.abs(wanted[at]).max(), rtol=0)


@given(steps=st.integers(1, 400), kind=st.sampled_from(["pndm", "ddim"]))
def test_a_perfect_ddim_answer_brings_the_picture_back(steps, kind):
    """Where the UNet names the noise exactly, every walk ends at the clean latents with the first timestep's noise."""
    scheduler = Scheduler(kind=kind)
    random = np.random.default_rng(0)
    clean, noise = random.standard_normal((2, 4, 2, 2))
    alphas = scheduler.alphas()
    walk = scheduler.sampler(steps)
    first = alphas[walk.timesteps[0]]
    latents = first**0.5 * clean + (1 - first) ** 0.5 * noise
    for _ in walk.timesteps:
        latents = walk.step(noise, latents)
    end = alphas[max(walk.timesteps[-1] - 1000 // steps, 0)]
    np.testing.assert_allclose(latents, end**0.5 * clean + (1 - end) ** 0.5 * noise, atol=1e-9)


def test_pndm_asks_once_more_than_it_has_steps():
    assert Scheduler(kind="ddim").timesteps(4) == (751, 501, 251, 1)
    assert Scheduler(kind="pndm").timesteps(4) == (751, 501, 501, 251, 1)


@pytest.mark.parametrize("steps", [0, 1000, 1001])
def test_steps_that_do_not_fit_are_refused(steps):
    with pytest.raises(BadInput, match=f"{steps} steps do not fit"):
        Scheduler().timesteps(steps)
