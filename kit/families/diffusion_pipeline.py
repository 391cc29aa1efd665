"""A Stable Diffusion pipeline as the kit draws with it: four sub-models, each on whatever runtime, and a scheduler.

Public through ``diffusion``. What goes in and out of each part is fixed (`PARTS`), so a part can be exchanged for its
exported, quantized or compiled form while the others stay: ``pipeline.replaced(unet=quantized)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput, UnsupportedModel, unknown
from kit.families.diffusion_folder import Folder
from kit.families.diffusion_schedulers import Scheduler
from kit.families.diffusion_tokens import PromptTokens
from kit.record import digest
from kit.runner import Runner, open_runner, runtime_for
from kit.source import recognise

PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
#: Part -> its inputs, and its output.
FEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "text_encoder": (("input_ids",), "hidden_states"),
    "unet": (("sample", "timestep", "encoder_hidden_states"), "noise"),
    "vae_decoder": (("latents",), "picture"),
    "vae_encoder": (("picture",), "latents"),
}
_MIXED = "put the parts of one pipeline together; copy the folder again"
_VAE = {"vae_decoder": "decoder", "vae_encoder": "encoder"}


@dataclass(frozen=True)
class Pipeline(Card):
    """What draws pictures from prompts.

    Attributes:
        name: for the reader.
        source: the diffusers folder that tokenizer and configurations are read from.
        parts: part -> what `open_runner` takes, or a pair of that and the runner's settings.
        scheduler: how noise becomes latents.
        latent_scale: what latents of the autoencoder are multiplied by for the UNet.
        latent_shape: channels, height and width of the latents.
        tokens: length of a prompt.
        width: of the text encoder's answer for each token.
        notes: sentences for the reader.
    """

    name: str
    source: Path
    parts: dict[str, Any]
    scheduler: Scheduler
    latent_scale: float
    latent_shape: tuple[int, int, int]
    tokens: int
    width: int
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Any) -> Pipeline:
        """The pipeline of a diffusers folder, running in PyTorch from the folder itself. Loads no weights.

        Args:
            folder: that ``StableDiffusionPipeline.save_pretrained`` wrote, or what `sd15` gave.

        Raises:
            BadInput: it is no such folder, a part is missing or cut off, or its parts do not fit each other.
            UnsupportedModel: classes, a scheduler or sizes that the kit does not draw with.
        """
        found = Folder.read(getattr(folder, "folder", folder))
        text, unet, vae = (found.configs[part] for part in ("text_encoder", "unet", "vae"))
        _check_sizes(found.path, text, unet, vae, PromptTokens.read(found.path / "tokenizer"))
        scheduler, notes = found.scheduler()
        sides = unet.get("sample_size") or 64
        height, width = sides if isinstance(sides, list) else (sides, sides)
        return cls(
            name=found.path.resolve().name, source=found.path,
            parts={"text_encoder": found.path / "text_encoder", "unet": found.path / "unet",
                   **{part: (found.path / "vae", {"part": half}) for part, half in _VAE.items()}},
            scheduler=scheduler, latent_scale=float(vae.get("scaling_factor", 0.18215)),
            latent_shape=(int(unet["in_channels"]), int(height), int(width)),
            tokens=int(text["max_position_embeddings"]), width=int(text["hidden_size"]), notes=notes)

    def replaced(self, name: str | None = None, **parts: Any) -> Pipeline:
        """The same pipeline with some of its parts exchanged.

        Args:
            name: of the new one; by default the old one's.
            parts: part -> what `open_runner` takes, or a pair of that and the runner's settings.

        Raises:
            BadInput: no such part.
        """
        for part in parts:
            if part not in PARTS:
                raise unknown("part", part, PARTS, "a Stable Diffusion pipeline")
        return dataclasses.replace(self, name=name or self.name, parts={**self.parts, **parts})

    def part(self, name: str) -> tuple[Any, dict[str, Any]]:
        """A part's artefact and the settings of its runner.

        Raises:
            BadInput: the pipeline has no such part.
        """
        if name not in self.parts:
            raise unknown("part", name, self.parts, f"the pipeline {self.name!r}")
        given = self.parts[name]
        artifact, settings = given if isinstance(given, tuple) else (given, {})
        return artifact, dict(settings)

    def prompt_tokens(self) -> PromptTokens:
        """The pipeline's tokenizer."""
        return PromptTokens.read(self.source / "tokenizer")

    def digest(self) -> str:
        """Of the parts' files and settings, the tokenizer, the scheduler and the sizes."""
        parts = {}
        for name in self.parts:
            artifact, settings = self.part(name)
            parts[name] = recognise(artifact).digest(), repr(sorted(_settings(artifact, settings).items()))
        return digest([parts, self.source / "tokenizer", self.scheduler, self.latent_scale, self.latent_shape,
                       self.tokens, self.width])

    def title(self) -> str:
        _, height, width = self.latent_shape
        return f"{self.name}: latents of {height} x {width}, prompts of {self.tokens} tokens"

    def facts(self) -> dict[str, object]:
        walk = self.scheduler
        return {
            "scheduler": f"{walk.kind}, {walk.beta_schedule} from {walk.beta_start:g} to {walk.beta_end:g}, "
            f"{walk.train_steps} timesteps, predicts {walk.prediction_type}",
            "latents": f"{list(self.latent_shape)}, scaled by {self.latent_scale:g}",
            "text": f"{self.tokens} tokens of width {self.width}",
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = []
        for name in self.parts:
            artifact, settings = self.part(name)
            source, asked = recognise(artifact), _settings(artifact, settings)
            runtime = asked.pop("runtime", None) or runtime_for(source)
            rows.append((name, source.path.name, runtime, ", ".join(f"{k} {v}" for k, v in asked.items())))
        return (Table("Parts", ("part", "file", "runtime", "settings"), tuple(rows)),)


def _settings(artifact: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**getattr(artifact, "runner_settings", {}), **settings}


def _check_sizes(path: Path, text: dict, unet: dict, vae: dict, tokens: PromptTokens) -> None:
    """Refuse parts that cannot work together."""
    pairs = (
        ("tokens", "tokenizer/tokenizer_config.json", "model_max_length", tokens.tokens,
         "text_encoder/config.json", "max_position_embeddings", text.get("max_position_embeddings")),
        ("widths of text", "unet/config.json", "cross_attention_dim", unet.get("cross_attention_dim"),
         "text_encoder/config.json", "hidden_size", text.get("hidden_size")),
        ("channels of latents", "unet/config.json", "in_channels", unet.get("in_channels"),
         "vae/config.json", "latent_channels", vae.get("latent_channels", 4)),
    )
    for what, file, key, value, other_file, other_key, other in pairs:
        if value != other or not isinstance(value, int):
            raise BadInput(f"The {what} of {path} do not fit: {file} says {key} {value}, {other_file} says {other_key} "
                           f"{other}.", remedy=_MIXED)
    if tokens.vocabulary > int(text.get("vocab_size", 49408)):
        raise BadInput(f"The tokenizer of {path} has {tokens.vocabulary} tokens, its text encoder only "
                       f"{text.get('vocab_size')}.", remedy=_MIXED)
    for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim", "encoder_hid_dim"):
        if unet.get(key) is not None:
            raise UnsupportedModel(f"{path}/unet/config.json: {key} is {unet[key]!r}, an input besides noise, timestep "
                                   "and text.", remedy="give a UNet of the Stable Diffusion 1 or 2 kind")


@contextlib.contextmanager
def open_parts(pipeline: Pipeline, parts: Sequence[str] = PARTS, threads: int = 2,
               isolated: bool = False) -> Iterator[dict[str, Runner]]:
    """Open some parts of a pipeline; all are closed again at the end.

    Args:
        pipeline: whose.
        parts: which.
        threads: of a run.
        isolated: each in a process of its own even where that is not needed, so that its memory can be measured.

    Raises:
        BadInput: no such part, or one with other inputs than `PARTS` have; names them.
    """
    with contextlib.ExitStack() as stack:
        runners = {}
        for name in parts:
            artifact, settings = pipeline.part(name)
            runner = open_runner(artifact, **{"threads": threads, "isolated": isolated, **settings})
            runners[name] = stack.enter_context(runner)
            _check_ends(pipeline.name, name, runner)
        yield runners


def _check_ends(pipeline: str, part: str, runner: Runner) -> None:
    inputs, output = FEEDS[part]
    has = {spec.name for spec in runner.inputs}, {spec.name for spec in runner.outputs}
    if has[0] != set(inputs) or (output not in has[1] and len(has[1]) > 1):
        raise BadInput(
            f"The {part} of {pipeline!r} takes {', '.join(sorted(has[0]))} and gives {', '.join(sorted(has[1]))}; "
            f"wanted is {', '.join(inputs)}, and {output}.",
            remedy="export it with kit.families.diffusion.export_pipeline, or rename its inputs and outputs")


def ask(runner: Runner, part: str, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a part answers, float32.

    A part with a fixed batch is asked for one after the other; inputs are converted to the types it takes.

    Args:
        runner: of the part.
        part: its name.
        feed: as `FEEDS` names it.
    """
    kinds = {spec.name: spec for spec in runner.inputs}
    typed = {name: array if kinds[name].dtype in ("unknown", array.dtype.name) else array.astype(kinds[name].dtype)
             for name, array in feed.items()}
    batched = [name for name in typed if name != "timestep"]
    batch = len(typed[batched[0]])
    firsts = [side for name in batched for side in kinds[name].shape[:1]]
    fixed = next((side for side in firsts if isinstance(side, int) and side > 0), batch)  # dynamic: a word, or -1
    output = FEEDS[part][1]

    def run(rows: slice) -> np.ndarray:
        answers = runner({name: array[rows] if name in batched else array for name, array in typed.items()})
        return answers[output] if output in answers else next(iter(answers.values()))

    whole = run(slice(None)) if fixed == batch else np.concatenate(
        [run(slice(at, at + fixed)) for at in range(0, batch, fixed)])
    return np.asarray(whole, np.float32)
