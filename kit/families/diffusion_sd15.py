"""``sd15``: Stable Diffusion 1.5 in its real size with random weights, for export, audit, quantization and benchmark.

Speed and memory depend on the sizes of the tensors and not on what they hold, so a pipeline that cannot draw anything
is enough to measure them, and it needs no download. The configuration is the published one (model card and config files
of runwayml/stable-diffusion-v1-5). Of the tokenizer only its size and the numbers of its special tokens and of single
bytes are CLIP's: every letter of a prompt is a token of its own.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from kit import worker
from kit.card import Card, bytes_text
from kit.errors import BadInput
from kit.families import diffusion_random
from kit.families.diffusion_tokens import BEGIN, END
from kit.progress import Report, Tick, silent
from kit.record import appearing, read_json, runs_folder

VERSION = 1
ABOUT = "kit_random.json"  # what a folder was built with
#: Sub-folder -> class and published number of parameters.
PARAMETERS = {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863}
VOCABULARY = 49_408

CONFIGS = {
    "text_encoder": {
        "vocab_size": VOCABULARY, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "projection_dim": 768, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
    "unet": {
        "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "act_fn": "silu",
        "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768,
        "norm_num_groups": 32, "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3},
    "vae": {
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2, "act_fn": "silu",
        "block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32, "sample_size": 512,
        "scaling_factor": 0.18215, "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4},
}
SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False}
TOKENIZER = {
    "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": BEGIN, "eos_token": END, "pad_token": END,
    "unk_token": END, "do_lower_case": True, "add_prefix_space": False}

# What a process takes that has torch, diffusers and transformers loaded, and a few copies of the largest tensor (the
# text encoder's 49,408 x 768 numbers). Measured: 0.75 GB in all.
_LIBRARIES, _COPIES, _LARGEST = 600_000_000, 3, VOCABULARY * 768 * 4


@dataclass(frozen=True)
class BuildForecast(Card):
    """What building a pipeline with random weights will take.

    Attributes:
        disk: bytes of its files.
        free: bytes free where they go.
        memory: bytes of the process that builds it, at its peak.
        available: bytes of memory that are available now.
    """

    disk: int
    free: int
    memory: int
    available: int

    def title(self) -> str:
        return f"Stable Diffusion 1.5 will take {bytes_text(self.disk)} of disk and {bytes_text(self.memory)} of memory"

    def facts(self) -> dict[str, object]:
        return {"free on the disk": bytes_text(self.free), "memory available": bytes_text(self.available)}


@dataclass(frozen=True)
class BuiltPipeline(Card):
    """A pipeline's folder with random weights.

    Attributes:
        folder: for ``Pipeline.read``.
        seed: of the weights.
        dtype: they are stored in.
        parameters: part -> how many.
        disk: bytes of its files.
        forecast: what was said before.
        memory_peak: bytes of the process that built it; None where the folder was there already.
    """

    folder: Path
    seed: int
    dtype: str
    parameters: dict[str, int]
    disk: int
    forecast: BuildForecast
    memory_peak: int | None = None

    def title(self) -> str:
        return (f"{self.folder.name}: Stable Diffusion 1.5 with random weights, {sum(self.parameters.values()):,} "
                f"parameters in {self.dtype}")

    def facts(self) -> dict[str, object]:
        peak = bytes_text(self.memory_peak) if self.memory_peak else "not measured: the folder was there already"
        return {
            **{part: f"{count:,} parameters" for part, count in self.parameters.items()},
            "disk": f"{bytes_text(self.disk)} (forecast {bytes_text(self.forecast.disk)})",
            "peak memory": f"{peak} (forecast {bytes_text(self.forecast.memory)})",
            "seed": self.seed,
            "tokenizer": f"{VOCABULARY:,} numbers, the special tokens at their places; every letter is a token "
            "of its own, unlike CLIP's",
        }


def sd15_forecast(folder: Path | str, *, half: bool = False) -> BuildForecast:
    """What ``sd15`` with the same arguments will take."""
    import psutil

    return BuildForecast(
        disk=sum(PARAMETERS.values()) * (2 if half else 4) + 2_000_000, free=shutil.disk_usage(_there(folder)).free,
        memory=_LIBRARIES + _COPIES * _LARGEST, available=psutil.virtual_memory().available)


def sd15(folder: Path | str | None = None, seed: int = 0, *, half: bool = False,
         report: Report = silent) -> BuiltPipeline:
    """Write a diffusers pipeline folder with the exact configuration of Stable Diffusion 1.5 and random weights.

    Weights are written one tensor after the other, so memory does not grow with the model. A folder that was built with
    the same seed before is taken as it is.

    Args:
        folder: where to; by default ``sd15-random`` in the folder of results.
        seed: of the weights.
        half: store them in float16, as downloads often are.
        report: hears progress.

    Raises:
        BadInput: the folder holds something else, or disk or memory do not suffice.
        MissingTool: torch, diffusers or transformers are missing.
    """
    folder = Path(folder) if folder else runs_folder() / f"sd15-random{'-half' if half else ''}"
    forecast = sd15_forecast(folder, half=half)
    asked = {"what": "sd15", "version": VERSION, "seed": seed, "half": half}
    if folder.exists():
        _check_ours(folder, asked)
        return _built(folder, seed, half, forecast, None)
    for need, have, what, remedy in (
            (forecast.disk, forecast.free, "of disk", "free some, choose another folder, or give half=True"),
            (forecast.memory, forecast.available, "of memory", "close other programs")):
        if need > have:
            raise BadInput(f"Building Stable Diffusion 1.5 takes {bytes_text(need)} {what}; there are "
                           f"{bytes_text(have)}.", remedy=remedy)
    with appearing(folder) as scratch:
        report(Tick(0, None, "loading torch and diffusers"))
        peak = worker.run(diffusion_random.write, scratch, CONFIGS, seed, half, report=report, pass_report=True,
                          framework="torch")
        _write_rest(scratch)
        _json(scratch / ABOUT, asked)
    return _built(folder, seed, half, forecast, peak)


def _there(folder: Path | str) -> Path:
    return next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.is_dir())


def _check_ours(folder: Path, asked: dict) -> None:
    about = folder / ABOUT
    found = read_json(about, f"{about} is damaged.", "remove the folder") if about.is_file() else "something else"
    if found != asked:
        raise BadInput(f"{folder} is there already and holds {found}, not {asked}.",
                       remedy="give another folder, or remove this one")


def _built(folder: Path, seed: int, half: bool, forecast: BuildForecast, peak: int | None) -> BuiltPipeline:
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return BuiltPipeline(folder, seed, "float16" if half else "float32", dict(PARAMETERS), disk, forecast, peak)


def _write_rest(folder: Path) -> None:
    """Everything besides the weights and their configurations."""
    for name in ("scheduler", "tokenizer"):
        (folder / name).mkdir()
    _json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _json(folder / "tokenizer" / "tokenizer_config.json", TOKENIZER)
    _json(folder / "tokenizer" / "vocab.json", vocabulary())
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None], "image_encoder": [None, None],
        "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]})


def vocabulary() -> dict[str, int]:
    """CLIP's numbers for single bytes (0 to 255), bytes that end a word (to 511) and special tokens; the rest unused.

    A byte stands as a printable character: itself where it is one, otherwise the next from 256 on, in that order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [*map(chr, printable), *(chr(256 + at) for at in range(256 - len(printable)))]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    unused = [f"<|unused{at}|>" for at in range(VOCABULARY - len(words) - 2)]
    return {word: at for at, word in enumerate([*words, *unused, BEGIN, END])}


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
