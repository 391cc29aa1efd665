"""A Stable Diffusion pipeline with random weights, 32 x 32 pixels, and diffusers' own answers: built in one worker.

torch, diffusers and transformers never enter the process of the tests; the worker is kept, since loading them takes
longer than all it is asked for.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from kit.worker import Process

PROMPTS = ("a red circle above a blue square", "a green star")
TOKENS, LATENT, SIZE = 12, 8, 32
_WORDS = ("a", "red", "blue", "green", "circle", "square", "star", "above")


@functools.cache
def worker() -> Process:
    """A process that may import torch, for the rest of the test run."""
    process = Process(framework="torch")
    atexit.register(process.close)
    return process


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kit-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def folder(half: bool = False) -> Path:
    """A folder as ``StableDiffusionPipeline.save_pretrained`` writes it; weights in float16 with ``half``."""
    path = _scratch() / ("half" if half else "random")
    worker().call(save, path, half)
    return path


@functools.cache
def onnx_parts() -> dict[str, Path]:
    """Every part of `folder` as ONNX, by PyTorch's classic exporter, with the kit's names."""
    worker().call(export, folder(), _scratch() / "onnx")
    return {part: _scratch() / "onnx" / f"{part}.onnx" for part in ("text_encoder", "unet", "vae_decoder",
                                                                    "vae_encoder")}


def pipeline():
    """The ONNX parts as a `kit.families.diffusion.Pipeline`."""
    from kit.families.diffusion import Pipeline

    return Pipeline.read(folder()).replaced(**onnx_parts())


# ---- what runs in the worker ----------------------------------------------------------------------------------------


def tokenizer():
    """CLIP's kind, every word of `_WORDS` one token."""
    from transformers import CLIPTokenizer

    letters = [chr(at) for at in range(ord("a"), ord("z") + 1)]
    tokens, merges = letters + [f"{letter}</w>" for letter in letters], []
    for word in _WORDS:
        end = word[-1] + "</w>"
        for letter in reversed(word[:-1]):
            if (letter, end) not in merges:
                merges.append((letter, end))
            end = letter + end
            if end not in tokens:
                tokens.append(end)
    vocab = {token: at for at, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)


def made(seed: int = 0):
    """The pipeline itself."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # tests share the cores: two threads that wait for each other take ten times as long
    words = tokenizer()
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=TOKENS, projection_dim=32, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id))
    unet = UNet2DConditionModel(
        sample_size=LATENT, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=4, norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=4, norm_num_groups=8,
        sample_size=SIZE, scaling_factor=0.5)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1))


def save(path: Path, half: bool) -> None:
    import torch

    pipeline = made()
    (pipeline.to(torch.float16) if half else pipeline).save_pretrained(path)


def loaded(path: Path):
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    pipeline = StableDiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True,
                                                       safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(path: Path, into: Path) -> None:
    import torch

    pipeline = loaded(path)
    text, unet, vae = pipeline.text_encoder, pipeline.unet, pipeline.vae

    class Call(torch.nn.Module):
        def __init__(self, net, answer):
            super().__init__()
            self.net, self.answer = net, answer

        def forward(self, *feeds):
            return self.answer(*feeds)

    hidden, latents = torch.randn(2, TOKENS, 32), torch.randn(2, 4, LATENT, LATENT)
    parts = {
        "text_encoder": (text, lambda ids: text(ids)[0], {"input_ids": torch.ones(2, TOKENS, dtype=torch.int64)},
                         "hidden_states"),
        "unet": (unet, lambda *feeds: unet(*feeds, return_dict=False)[0],
                 {"sample": latents, "timestep": torch.tensor([5]), "encoder_hidden_states": hidden}, "noise"),
        "vae_decoder": (vae, lambda x: vae.decode(x, return_dict=False)[0], {"latents": latents}, "picture"),
        "vae_encoder": (vae, lambda x: vae.encode(x, return_dict=False)[0].mode(),
                        {"picture": torch.randn(2, 3, SIZE, SIZE)}, "latents"),
    }
    into.mkdir(exist_ok=True)
    with torch.no_grad():
        for name, (net, answer, feeds, output) in parts.items():
            axes = {label: {0: "N"} for label in (*feeds, output) if label != "timestep"}
            torch.onnx.export(Call(net, answer).eval(), tuple(feeds.values()), into / f"{name}.onnx", dynamo=False,
                              opset_version=17, input_names=list(feeds), output_names=[output], dynamic_axes=axes)


def diffusers_pictures(path: Path, kind: str, latents: np.ndarray, steps: int, guidance: float):
    """What StableDiffusionPipeline itself draws of `PROMPTS`: pictures [n, H, W, 3] and the latents before them."""
    import torch
    from diffusers import DDIMScheduler

    pipeline = loaded(path)
    if kind == "ddim":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    asked = {"prompt": list(PROMPTS), "num_inference_steps": steps, "guidance_scale": guidance,
             "height": SIZE, "width": SIZE}
    pictures = pipeline(**asked, latents=torch.from_numpy(latents), output_type="np").images
    return pictures, pipeline(**asked, latents=torch.from_numpy(latents), output_type="latent").images.numpy()


def diffusers_walk(name: str, config: dict, steps: int, start: np.ndarray, answers: np.ndarray):
    """The timesteps that a scheduler of diffusers visits, and the latents after each, given the UNet's answers."""
    import diffusers
    import torch

    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    latents, seen = torch.from_numpy(start), []
    for timestep, answer in zip(scheduler.timesteps, answers, strict=False):
        latents = scheduler.step(torch.from_numpy(answer), timestep, latents).prev_sample
        seen.append(latents.numpy())
    return scheduler.timesteps.tolist(), np.stack(seen)


def clip_ids(path: Path, prompts: list[str], pair: bool) -> np.ndarray:
    """Token numbers by transformers' CLIPTokenizer; ``pair``: made from vocab.json and merges.txt."""
    from transformers import CLIPTokenizer

    words = CLIPTokenizer(vocab=str(path / "vocab.json"), merges=str(path / "merges.txt"), model_max_length=TOKENS) \
        if pair else CLIPTokenizer.from_pretrained(path)
    return np.array(words(prompts, padding="max_length", truncation=True, max_length=TOKENS).input_ids)
