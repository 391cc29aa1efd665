"""``draw``: pictures from prompts through any runtime, with starting noise that is the same for all of them.

The loop is the kit's own and in numpy: parts are asked through `open_runner`, so PyTorch, ONNX Runtime, OpenVINO and a
chip draw by the same code and differ in nothing but the parts.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kit.errors import BadInput
from kit.families.diffusion_alarms import Alarm, PictureWatch
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_pipeline import Pipeline, ask, open_parts
from kit.families.diffusion_schedulers import Scheduler, guided
from kit.families.diffusion_tokens import PromptTokens
from kit.options import expect
from kit.progress import Report, Tick, silent
from kit.runner import Runner


@dataclass(frozen=True)
class StepSeen:
    """One call of the UNet, as ``watch`` hears of it.

    Attributes:
        prompt: number of the picture.
        step: of the walk, from 0.
        timestep: fed.
        feed: what the UNet was fed: a batch of two, without prompt and with.
        noise: what it answered, float32 [2, 4, h, w], before guidance.
    """

    prompt: int
    step: int
    timestep: int
    feed: dict[str, np.ndarray]
    noise: np.ndarray


def draw(pipeline: Pipeline, prompts: Sequence[str], options: DrawOptions = DrawOptions(), *,  # noqa: B008
         latents: np.ndarray | None = None, watch: Callable[[StepSeen], None] | None = None,
         report: Report = silent) -> Drawn:
    """Draw one picture for each prompt.

    Parts are opened one after the other, so that memory is that of the largest. The UNet is asked once a step for each
    picture, with a batch of two: without prompt and with it.

    Args:
        pipeline: what to draw with.
        prompts: what to draw.
        options: see the class.
        latents: starting noise, float32 [n, 4, h, w], instead of that of the seed.
        watch: hears every call of the UNet.
        report: hears progress.

    Raises:
        BadInput: no prompts, starting noise of another shape, steps that do not fit the scheduler, or a part with other
            inputs than the pipeline's.
    """
    expect(DrawOptions, options)
    if isinstance(prompts, str) or not len(prompts):
        raise BadInput("There are no prompts." if not len(prompts) else "The prompts are one text.",
                       remedy='give several, such as ["a red circle above a blue square"]')
    prompts = tuple(prompts)
    walk = scheduler_of(pipeline, options)
    walk.timesteps(options.steps)  # refused before anything is loaded
    noise = starting_noise(pipeline, len(prompts), options.seed)
    if latents is not None:
        noise = _given(latents, noise.shape)
    tokens = pipeline.prompt_tokens()
    watches = [PictureWatch(at, prompt) for at, prompt in enumerate(prompts)]
    clock = _Clock()
    encoded = _encode(pipeline, tokens, prompts, options, watches, clock, report)
    final = _denoise(pipeline, walk, encoded, noise, options, watches, watch, clock, report)
    pictures, alarms = _decode(pipeline, final, options, watches, clock, report)
    cut = [str(at) for at, prompt in enumerate(prompts) if tokens.too_long(prompt)]
    notes = [f"Prompts longer than {tokens.tokens - 2} tokens were cut: {', '.join(cut)}."] if cut else []
    return Drawn(pipeline.name, prompts, options, pictures, final, walk.timesteps(options.steps), clock.medians(),
                 alarms, (*pipeline.notes, *notes))


def scheduler_of(pipeline: Pipeline, options: DrawOptions) -> Scheduler:
    """The scheduler that pictures are drawn with."""
    if options.scheduler == "as saved":
        return pipeline.scheduler
    return dataclasses.replace(pipeline.scheduler, kind=options.scheduler)


def starting_noise(pipeline: Pipeline, count: int, seed: int) -> np.ndarray:
    """Noise for ``count`` pictures, float32 [count, 4, h, w]; that of picture n depends on the seed and n alone."""
    return np.stack([np.random.default_rng((seed, at)).standard_normal(pipeline.latent_shape, np.float32)
                     for at in range(count)])


def step_feed(latents: np.ndarray, timestep: int, hidden: np.ndarray) -> dict[str, np.ndarray]:
    """What the UNet is fed at a step of one picture, a batch of two: without prompt and with it."""
    return {"sample": np.concatenate([latents, latents]), "timestep": np.array([timestep], np.int64),
            "encoder_hidden_states": hidden}


def _given(latents: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    if np.shape(latents) != wanted:
        raise BadInput(f"Starting noise for {wanted[0]} pictures has shape {list(wanted)}, not "
                       f"{list(np.shape(latents))}.", remedy="give one [4, h, w] for each prompt")
    return np.asarray(latents, np.float32)


def _encode(pipeline: Pipeline, tokens: PromptTokens, prompts: tuple[str, ...], options: DrawOptions,
            watches: list[PictureWatch], clock: _Clock, report: Report) -> list[np.ndarray]:
    """What the text encoder makes of "nothing" and each prompt, pair by pair: float32 [2, tokens, width] each."""
    report(Tick(0, None, "encoding the prompts"))
    kept: dict[str, np.ndarray] = {}
    with open_parts(pipeline, ("text_encoder",), options.threads) as parts:
        for prompt in ("", *prompts):
            if prompt not in kept:
                kept[prompt] = clock.ask(parts, "text_encoder", {"input_ids": tokens([prompt])})
    for watch, prompt in zip(watches, prompts, strict=True):
        watch.text(kept[""])
        watch.text(kept[prompt])
    return [np.concatenate([kept[""], kept[prompt]]) for prompt in prompts]


def _denoise(pipeline: Pipeline, walk: Scheduler, encoded: list[np.ndarray], noise: np.ndarray, options: DrawOptions,
             watches: list[PictureWatch], watch: Callable[[StepSeen], None] | None, clock: _Clock,
             report: Report) -> np.ndarray:
    """Walk every picture's noise to latents, float32 [n, 4, h, w]."""
    final, total = [], len(encoded) * len(walk.timesteps(options.steps))
    with open_parts(pipeline, ("unet",), options.threads) as parts:
        for prompt, hidden in enumerate(encoded):
            sampler, latents = walk.sampler(options.steps), noise[prompt : prompt + 1]
            for step, timestep in enumerate(sampler.timesteps):
                report(Tick(prompt * len(sampler.timesteps) + step, total, "drawing"))
                feed = step_feed(latents, timestep, hidden)
                answer = clock.ask(parts, "unet", feed)
                if watch:
                    watch(StepSeen(prompt, step, timestep, feed, answer))
                with np.errstate(over="ignore", invalid="ignore"):  # an alarm tells of it
                    latents = sampler.step(guided(answer, options.guidance), latents)
                watches[prompt].step(step, timestep, answer, latents)
            final.append(latents[0])
    report(Tick(total, total, "drawing"))
    return np.stack(final)


def _decode(pipeline: Pipeline, final: np.ndarray, options: DrawOptions, watches: list[PictureWatch], clock: _Clock,
            report: Report) -> tuple[np.ndarray, tuple[Alarm, ...]]:
    """Pictures from latents, and those of them that cannot be right."""
    report(Tick(0, None, "decoding the latents"))
    pictures, alarms = [], []
    with open_parts(pipeline, ("vae_decoder",), options.threads) as parts:
        for watch, latents in zip(watches, final, strict=True):
            feed = {"latents": latents[None] / np.float32(pipeline.latent_scale)}
            picture = np.clip(clock.ask(parts, "vae_decoder", feed)[0] / 2 + np.float32(0.5), 0, 1)
            pictures.append(picture.transpose(1, 2, 0))
            alarms.append(watch.alarm(picture))
    return np.stack(pictures), tuple(filter(None, alarms))


class _Clock:
    """Milliseconds of the calls of each part."""

    def __init__(self) -> None:
        self._spent: dict[str, list[float]] = defaultdict(list)

    def ask(self, parts: dict[str, Runner], part: str, feed: dict[str, np.ndarray]) -> np.ndarray:
        """What the part answers, timed."""
        began = time.perf_counter()
        answer = ask(parts[part], part, feed)
        self._spent[part].append((time.perf_counter() - began) * 1000)
        return answer

    def medians(self) -> dict[str, float]:
        return {part: round(float(np.median(spent)), 3) for part, spent in self._spent.items()}
