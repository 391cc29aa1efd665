"""A pipeline that stays open while it is timed: one process for each part, one step or one picture at a time.

What is resident at the same time is what the memory takes. The baseline is in every group, so that each candidate is
compared with it over rounds in which both took their turns; candidates of different groups are never compared directly.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kit.ascend.box.recorded import FAKE
from kit.errors import BadInput, KitError
from kit.families.diffusion_drawing import scheduler_of, starting_noise, step_feed
from kit.families.diffusion_drawn import DrawOptions
from kit.families.diffusion_on_box import DRIVEN
from kit.families.diffusion_pipeline import Pipeline, ask, open_parts
from kit.families.diffusion_schedulers import guided
from kit.progress import Report, Tick, silent
from kit.runner import Runner
from kit.source import recognise

# What opening takes at most, over the bytes of the files: the file itself, the runtime's own form of the weights, and
# activations. Seen: ONNX Runtime and OpenVINO at 2.0 to 2.2 while they load 3.4 GB.
_LOADING = 2.5
_PROCESS = 600_000_000  # bytes: a process with its framework and nothing in it


class Resident:
    """An open pipeline; a context manager.

    Args:
        name: of the candidate.
        pipeline: what draws.
        options: how pictures are drawn.
        whole: open the text encoder and the decoder too, for whole pictures.

    Attributes:
        opened: seconds until all parts were loaded.
        first: seconds of the first step, in which ``torch.compile`` compiles.
    """

    def __init__(self, name: str, pipeline: Pipeline, options: DrawOptions, whole: bool) -> None:
        self.name, self.pipeline, self._options = name, pipeline, options
        self._stack = contextlib.ExitStack()
        began = time.monotonic()
        self.parts = self._stack.enter_context(open_parts(pipeline, DRIVEN if whole else ("unet",), options.threads,
                                                          isolated=True))
        self.opened, self.first = time.monotonic() - began, 0.0
        self._feeds: list[Mapping[str, np.ndarray]] = []

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> dict[str, str]:
        """Of the UNet's runner, as words."""
        return {name: str(value) for name, value in self.parts["unet"].settings.items()}

    def begin(self, feed: Mapping[str, np.ndarray]) -> None:
        """Run the first step, and keep the feed as this UNet takes it.

        Raises:
            BadInput: it does not take the feed, or only a FAKE runs it.
        """
        if FAKE in self.settings.get("runtime", ""):
            raise BadInput(f"The UNet is run by {self.settings['runtime']}: its times say nothing.",
                           remedy="leave it out")
        heard, began = _Heard(self.parts["unet"]), time.monotonic()
        answer = ask(heard, "unet", feed)
        self.first, self._feeds = time.monotonic() - began, heard.feeds
        if not np.isfinite(answer).all():
            raise BadInput("The first step answers with numbers that are not finite.",
                           remedy="verify the parts first with verify_parts")

    def time(self, feed: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Milliseconds of ``runs`` steps, measured beside the runtime; a UNet with a batch of one takes two runs.

        ``feed`` is that of ``begin``.
        """
        times = [self.parts["unet"].time(each, runs) for each in self._feeds]
        return [sum(step) for step in zip(*times, strict=True)]

    def picture(self, prompt: str) -> np.ndarray:
        """Draw one picture with the parts that are open: float32 [3, H, W], -1 to 1."""
        options, hidden = self._options, _encoded(self.pipeline, self.parts, prompt)
        sampler = scheduler_of(self.pipeline, options).sampler(options.steps)
        latents = starting_noise(self.pipeline, 1, options.seed)
        for timestep in sampler.timesteps:
            answer = ask(self.parts["unet"], "unet", step_feed(latents, timestep, hidden))
            latents = sampler.step(guided(answer, options.guidance), latents)
        return ask(self.parts["vae_decoder"], "vae_decoder", {
            "latents": latents / np.float32(self.pipeline.latent_scale)})[0]

    def memory(self) -> tuple[int, int]:
        """Bytes: the highest resident memory of the UNet's process, and of all parts' processes together."""
        each = {name: int(runner.memory()) for name, runner in self.parts.items()}
        return each["unet"], sum(each.values())


class _Heard:
    """A runner that keeps what it is fed."""

    def __init__(self, runner: Any) -> None:
        self._runner, self.inputs, self.feeds = runner, runner.inputs, []

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.feeds.append(feeds)
        return self._runner(feeds)


def first_feed(pipeline: Pipeline, prompt: str, options: DrawOptions) -> dict[str, np.ndarray]:
    """What the UNet is fed at the first step of a picture."""
    with open_parts(pipeline, ("text_encoder",), options.threads) as parts:
        hidden = _encoded(pipeline, parts, prompt)
    timestep = scheduler_of(pipeline, options).timesteps(options.steps)[0]
    return step_feed(starting_noise(pipeline, 1, options.seed), timestep, hidden)


def _encoded(pipeline: Pipeline, parts: Mapping[str, Runner], prompt: str) -> np.ndarray:
    """What the text encoder makes of "nothing" and of a prompt: float32 [2, tokens, width]."""
    tokens = pipeline.prompt_tokens()
    return np.concatenate([ask(parts["text_encoder"], "text_encoder", {"input_ids": tokens([text])})
                           for text in ("", prompt)])


def opening_memory(pipeline: Pipeline, whole: bool) -> int:
    """Bytes that opening a pipeline may take at most, as a forecast from its files."""
    sources = [recognise(pipeline.part(name)[0]) for name in (DRIVEN if whole else ("unet",))]
    return sum(_PROCESS + round(_LOADING * weight_bytes(source)) for source in sources)


def weight_bytes(source: Any) -> int:
    """Bytes of the weights as they are loaded: a diffusers folder in float16 is loaded in float32."""
    if source.kind != "diffusers":
        return source.size
    from kit.runtimes.safetensors_file import float32_bytes

    return float32_bytes(source.folder)


def groups(pipelines: Mapping[str, Pipeline], options: DrawOptions, whole: bool, limit: int,
           feed: Mapping[str, np.ndarray], failed: dict[str, str], report: Report = silent
           ) -> Iterator[dict[str, Resident]]:
    """Open pipelines, as many at once as the memory takes; the first is in every group.

    Args:
        pipelines: by name, the baseline first.
        options: how pictures are drawn.
        whole: for whole pictures.
        limit: bytes that all may take together. A pair of the baseline and one more is opened in any case.
        feed: of the first step.
        failed: name -> why it could not be opened or run, filled here.
        report: hears progress.

    Yields:
        Name -> open pipeline. They are closed when the next group is asked for.

    Raises:
        KitError: the baseline cannot be opened or run.
    """
    base, *waiting = pipelines
    while True:
        with contextlib.ExitStack() as stack:
            report(Tick(0, None, f"opening {base}"))
            resident = {base: stack.enter_context(_opened(base, pipelines[base], options, whole, feed))}
            while waiting:
                # Not what is no longer free: weights that are mapped count as free, and go when memory is short.
                taken = sum(each.memory()[1] for each in resident.values())
                if len(resident) > 1 and taken + opening_memory(pipelines[waiting[0]], whole) > limit:
                    break
                name = waiting.pop(0)
                report(Tick(0, None, f"opening {name}"))
                try:
                    resident[name] = stack.enter_context(_opened(name, pipelines[name], options, whole, feed))
                except KitError as error:
                    failed[name] = error.what
            yield resident
        if not waiting:
            return


def _opened(name: str, pipeline: Pipeline, options: DrawOptions, whole: bool, feed: Mapping[str, np.ndarray]
            ) -> Resident:
    made = Resident(name, pipeline, options, whole)
    try:
        made.begin(feed)
    except BaseException:
        made.__exit__()
        raise
    return made


def draw_in_turns(resident: Mapping[str, Resident], prompts: Sequence[str], rounds: int, pause_ms: float,
                  report: Report = silent) -> dict[str, np.ndarray]:
    """Milliseconds of whole pictures, A B A B: name -> float64 [rounds, 1]. A first one each does not count."""
    times: dict[str, list[float]] = {name: [] for name in resident}
    for turn in range(-1, rounds):
        report(Tick(max(turn, 0), rounds, "drawing in turns"))
        for name, each in resident.items():
            time.sleep(pause_ms / 1000)
            began = time.perf_counter()
            each.picture(prompts[turn % len(prompts)])
            if turn >= 0:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: np.array(found)[:, None] for name, found in times.items()}
