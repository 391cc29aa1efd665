"""Train a tiny Stable Diffusion on the captioned pictures of ``shapes.py``, and the classifier that judges it.

    python data/recipes/train_sd_tiny.py --minutes 15 --work runs/sd-tiny
    python data/recipes/train_sd_tiny.py --evaluate      how many prompts of the test list are rendered right

The classes are those of SD 1.5 (CLIPTextModel, UNet2DConditionModel with cross attention, AutoencoderKL, DDIM, epsilon
prediction, scaled_linear betas); only their widths differ, and pictures have 64 pixels, latents 8. Four trainings
follow each other, each kept as a checkpoint in the work folder: judge, autoencoder, text encoder, UNet. As in SD 1.5
the text encoder is trained on its own and then left alone. It and the UNet see no scene of the test list.

Loss weights by noise level (min-SNR) are those of Hang et al. 2023, https://arxiv.org/abs/2303.09556.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
import shapes

FOLDER = Path(__file__).resolve().parents[1] / "models" / "sd-tiny"
TOKENS, BATCH = 16, 64
MEANING = (2, 4, 3, 4, 3)  # axis, colour and shape of one thing, of the other
NOISE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
             steps_offset=1, clip_sample=False, set_alpha_to_one=False)  # fmt: skip
TEST = 100  # prompts of the test list: never trained on


def split() -> tuple[list[shapes.Scene], list[shapes.Scene]]:
    """The scenes trained on, and those of the test list."""
    everything = shapes.scenes()
    order = np.random.default_rng(6).permutation(len(everything))
    return [everything[i] for i in order[TEST:]], [everything[i] for i in order[:TEST]]


class Judge(nn.Module):
    """What a picture [n, 3, 64, 64] in 0..1 shows.

    Logits [n, 20]: the axis, then colour (one of 4, or none) and shape (one of 3, or none) of each of two things.
    """

    PARTS = (2, 5, 4, 5, 4)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48, 64)
        self.body = nn.Sequential(*[
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())
            for a, b in itertools.pairwise(widths)
        ])  # fmt: skip
        self.head = nn.Linear(64 * 16, sum(self.PARTS))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.body(picture * 2 - 1).flatten(1))


def main() -> None:
    """Train for so many minutes, or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15, help="of the last training; those before take 17 more")
    parser.add_argument("--work", type=Path, default=Path("runs/sd-tiny"), help="checkpoints, log, sheets of pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluate", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    if chosen.evaluate:
        print(json.dumps(evaluate(FOLDER), indent=1))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    log = Log(chosen.work / "training.log")
    judge = once(chosen.work / "judge.pt", Judge(), lambda net: train_judge(net, log))
    vae = once(chosen.work / "vae.pt", autoencoder(), lambda net: train_vae(net, log, 12))
    tokenizer, unet = words(), denoiser()
    text = once(chosen.work / "text.pt", text_encoder(), lambda net: train_text(net, tokenizer, log))
    train_unet(unet, text, tokenizer, vae, log, chosen.minutes, chosen.work, judge)
    save(FOLDER, vae, text, tokenizer, unet, judge)
    (FOLDER / "training.log").write_text((chosen.work / "training.log").read_text())
    log(json.dumps(evaluate(FOLDER)))


class Log:
    """Prints, and keeps what it printed."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.time()

    def __call__(self, line: str) -> None:
        line = f"{(time.time() - self.start) / 60:6.1f} min  {line}"
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def once(path: Path, net: nn.Module, train) -> nn.Module:
    """The net with the checkpoint's weights, or trained now."""
    if path.exists():
        net.load_state_dict(torch.load(path))
    else:
        train(net)
        torch.save(net.state_dict(), path)
    return net.eval().requires_grad_(False)


# ---------------------------------------------------------------- pictures


def pictures(scenes: list[shapes.Scene], rng: np.random.Generator) -> torch.Tensor:
    """Drawn scenes, float [n, 3, 64, 64] in 0..1."""
    return torch.from_numpy(np.stack([shapes.draw(scene, rng) for scene in scenes])).permute(0, 3, 1, 2).float() / 255


def some(scenes: list[shapes.Scene], count: int, rng: np.random.Generator) -> list[shapes.Scene]:
    """So many of them, by chance."""
    return [scenes[i] for i in rng.integers(len(scenes), size=count)]


# ---------------------------------------------------------------- judge


def train_judge(judge: Judge, log: Log, steps: int = 1200) -> None:
    """Teach it to read pictures, slightly blurred and noisy ones too, and to refuse what shows no scene."""
    rng, everything = np.random.default_rng(10), shapes.scenes()
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    judge.train()
    for step in range(steps):
        drawn = some(everything, 48, rng)
        bad = torch.from_numpy(np.stack([shapes.spoiled(rng) for _ in range(16)])).permute(0, 3, 1, 2).float() / 255
        batch = torch.cat([pictures(drawn, rng), bad])
        batch[::3] = F.avg_pool2d(batch[::3], 3, 1, 1)
        batch = (batch + torch.rand(len(batch), 1, 1, 1) * 0.08 * torch.randn_like(batch)).clamp(0, 1)
        labels = torch.tensor([scene.label for scene in drawn] + [(0, 4, 3, 4, 3)] * 16)
        parts = judge(batch).split(Judge.PARTS, 1)
        loss = F.cross_entropy(parts[0][:48], labels[:48, 0])
        loss = loss + sum(F.cross_entropy(part, labels[:, i + 1]) for i, part in enumerate(parts[1:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            log(f"judge step {step + 1} loss {loss.item():.4f}")
    judge.eval()
    fresh = some(everything, 1000, rng)
    log(f"judge: {verdicts(judge, pictures(fresh, rng), fresh).mean():.4f} of 1000 fresh pictures read right")


@torch.no_grad()
def verdicts(judge: nn.Module, batch: torch.Tensor, scenes: list[shapes.Scene]) -> np.ndarray:
    """True where the picture shows its scene: axis, colours and shapes all read right."""
    read = torch.stack([part.argmax(1) for part in judge(batch).split(Judge.PARTS, 1)], 1)
    return (read == torch.tensor([scene.label for scene in scenes])).all(1).numpy()


# ---------------------------------------------------------------- autoencoder


def autoencoder() -> AutoencoderKL:
    """64 x 64 x 3 to 8 x 8 x 4 and back."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=8,
        sample_size=shapes.SIZE,
    )  # fmt: skip


def train_vae(vae: AutoencoderKL, log: Log, minutes: float) -> None:
    """Absolute and squared error, and a small pull towards the normal distribution; then the latents' scale is set."""
    rng, everything = np.random.default_rng(20), shapes.scenes()
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=1e-5)
    start, step = time.time(), 0
    vae.train()
    while (spent := (time.time() - start) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * max(0.01, 0.5 * (1 + np.cos(np.pi * spent)))
        batch = pictures(some(everything, 24, rng), rng) * 2 - 1
        posterior = vae.encode(batch).latent_dist
        back = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(back, batch) + 2 * F.mse_loss(back, batch) + 1e-4 * posterior.kl().mean() / 64
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log(f"autoencoder step {step} loss {loss.item():.4f} mse {F.mse_loss(back, batch).item():.5f}")
    vae.eval()
    with torch.no_grad():
        fresh = pictures(some(everything, 256, rng), rng) * 2 - 1
        posterior = vae.encode(fresh).latent_dist
        error = F.mse_loss(vae.decode(posterior.mode()).sample.clamp(-1, 1), fresh).item() / 4
    log(f"autoencoder: {step} steps, PSNR {-10 * np.log10(error):.2f} dB on 256 fresh pictures")


def scale_of(vae: AutoencoderKL) -> float:
    """What makes the latents' standard deviation 1, as SD's 0.18215 does."""
    rng = np.random.default_rng(21)
    with torch.no_grad():
        return float(1 / vae.encode(pictures(some(shapes.scenes(), 256, rng), rng) * 2 - 1).latent_dist.mode().std())


# ---------------------------------------------------------------- UNet and text encoder


def words() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of the captions' words: every word is one token, letters remain for others."""
    letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
    tokens, merges = letters + [letter + "</w>" for letter in letters], []
    for word in sorted({word for scene in shapes.scenes() for word in scene.caption.split()}):
        end = word[-1] + "</w>"
        for letter in reversed(word[:-1]):  # from the end, where no pair of another word can come between
            if (letter, end) not in merges:
                merges.append((letter, end))
            end = letter + end
            if end not in tokens:
                tokens.append(end)
    vocab = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
    for scene in shapes.scenes()[::37]:
        assert len(tokenizer(scene.caption)["input_ids"]) == len(scene.caption.split()) + 2, scene.caption
    return tokenizer


def text_encoder() -> CLIPTextModel:
    """CLIP's text model, 3 layers of width 64."""
    tokenizer = words()
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=TOKENS, projection_dim=64, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def denoiser() -> UNet2DConditionModel:
    """SD 1.5's kind of UNet at 8 x 8 latents."""
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(48, 80, 96), layers_per_block=1, cross_attention_dim=64,
        attention_head_dim=4, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token numbers [n, 16]."""
    return tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def train_text(text: CLIPTextModel, tokenizer: CLIPTokenizer, log: Log, steps: int = 2500) -> None:
    """Teach it what a caption means: from its end on, every token's answer must tell what lies where."""
    rng = np.random.default_rng(40)
    train, test = split()
    heads = nn.Linear(text.config.hidden_size, sum(MEANING))
    optimizer = torch.optim.AdamW([*text.parameters(), *heads.parameters()], 1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)

    def told(scenes: list[shapes.Scene]) -> list[torch.Tensor]:
        ids = tokens(tokenizer, [scene.caption for scene in scenes])
        ended = (ids == tokenizer.eos_token_id)[..., None]  # padding is the same token
        return heads((text(ids)[0] * ended).sum(1) / ended.sum(1)).split(MEANING, 1)

    text.train()
    for step in range(steps):
        drawn = some(train, 64, rng)
        labels = torch.tensor([scene.label for scene in drawn])
        loss = sum(F.cross_entropy(part, labels[:, i]) for i, part in enumerate(told(drawn)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 499:
            log(f"text encoder step {step + 1} loss {loss.item():.4f}")
    text.eval()
    with torch.no_grad():
        read = torch.stack([part.argmax(1) for part in told(test)], 1)
    right = (read == torch.tensor([scene.label for scene in test])).all(1).float().mean()
    log(f"text encoder: {right:.2f} of the test list understood")


def train_unet(unet, text, tokenizer, vae, log: Log, minutes: float, work: Path, judge: Judge) -> None:
    """Predict the noise in latents of a fixed stock of pictures; one caption in ten is left out, for guidance."""
    rng = np.random.default_rng(30)
    train, test = split()
    stock = some(train, 30000, rng)
    scale = scale_of(vae)
    latents = work / "latents.pt"
    if not latents.exists():
        with torch.no_grad():
            parts = [vae.encode(pictures(stock[i : i + 200], rng) * 2 - 1).latent_dist.mode() * scale
                     for i in range(0, len(stock), 200)]  # fmt: skip
        torch.save(torch.cat(parts), latents)
    clean_stock = torch.load(latents)
    captions = sorted({scene.caption for scene in stock})
    with torch.no_grad():
        encoded, empty = text(tokens(tokenizer, captions))[0], text(tokens(tokenizer, [""]))[0]
    number = torch.tensor([captions.index(scene.caption) for scene in stock])
    log(f"UNet {count(unet):,} parameters, text encoder {count(text):,}, autoencoder {count(vae):,}; scale {scale:.4f}")
    noiser = DDIMScheduler(**NOISE)
    snr = noiser.alphas_cumprod / (1 - noiser.alphas_cumprod)
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-3, betas=(0.9, 0.99))
    average = [p.detach().clone() for p in parameters]
    start, step, mean, told = time.time(), 0, 0.0, 0.0
    while (spent := (time.time() - start) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 200) * max(0.02, 0.5 * (1 + np.cos(np.pi * spent)))
        at = torch.from_numpy(rng.integers(len(stock), size=BATCH))
        clean, prompt = clean_stock[at], encoded[number[at]].clone()
        prompt[torch.rand(len(at)) < 0.1] = empty
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(at),))
        guess = unet(noiser.add_noise(clean, noise, t), t, prompt).sample
        weight = snr[t].clamp(max=5) / snr[t]
        loss = (weight * (guess - noise).pow(2).mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        keep = min(0.999, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
        mean += (loss.item() - mean) / min(step, 100)
        if step % 100 == 0:
            log(f"UNet step {step} loss {mean:.4f} spent {spent:.2f}")
        if spent - told > 0.09:
            told = spent
            swap(parameters, average)
            right = judged(unet, text, tokenizer, vae, scale, judge, test[:50], work / "sheet.png").mean()
            torch.save({"unet": unet.state_dict(), "step": step}, work / "unet.pt")
            swap(parameters, average)
            log(f"UNet step {step}: {right:.2f} of 50 test prompts rendered right")
    swap(parameters, average)
    torch.save({"unet": unet.state_dict(), "step": step}, work / "unet.pt")
    log(f"UNet: {step} steps of {BATCH}")


def swap(parameters: list[torch.Tensor], average: list[torch.Tensor]) -> None:
    """Exchange the weights with their running average."""
    with torch.no_grad():
        for live, kept in zip(parameters, average, strict=True):
            both = live.clone()
            live.copy_(kept)
            kept.copy_(both)


def count(net: nn.Module) -> int:
    """Parameters."""
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def judged(unet, text, tokenizer, vae, scale, judge, scenes, sheet: Path, steps=20, guidance=4.0) -> np.ndarray:
    """Which of the scenes are rendered right, by DDIM with fixed noise."""
    sampler = DDIMScheduler(**NOISE)
    sampler.set_timesteps(steps)
    said = [""] * len(scenes) + [scene.caption for scene in scenes]
    context = text(tokens(tokenizer, said))[0]
    latents = torch.randn(len(scenes), 4, 8, 8, generator=torch.Generator().manual_seed(5))
    for t in sampler.timesteps:
        without, with_ = unet(torch.cat([latents, latents]), t, context).sample.chunk(2)
        latents = sampler.step(without + guidance * (with_ - without), t, latents).prev_sample
    batch = (vae.decode(latents / scale).sample / 2 + 0.5).clamp(0, 1)
    tiles = (batch[:48].permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)[..., ::-1]
    cv2.imwrite(str(sheet), np.concatenate([np.concatenate(list(tiles[i : i + 8]), 1) for i in range(0, 48, 8)]))
    return verdicts(judge, batch, scenes)


# ---------------------------------------------------------------- the folder


def save(folder: Path, vae, text, tokenizer, unet, judge) -> None:
    """A pipeline's folder as diffusers writes it, weights in float16; beside it the judge as ONNX and the prompts."""
    vae.register_to_config(scaling_factor=round(scale_of(vae), 5))
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(**NOISE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(torch.float16).save_pretrained(folder)
    torch.onnx.export(
        judge.float(), (torch.zeros(1, 3, 64, 64),), folder / "judge.onnx", dynamo=False, opset_version=17,
        input_names=["picture"], output_names=["logits"], dynamic_axes={"picture": {0: "n"}, "logits": {0: "n"}},
    )  # fmt: skip
    _, test = split()
    described = {"parts": Judge.PARTS, "colours": list(shapes.COLOURS), "shapes": shapes.SHAPES,
                 "prompts": [{"prompt": s.caption, "label": s.label} for s in test]}  # fmt: skip
    (folder / "judge.json").write_text(json.dumps(described, indent=1) + "\n")


def evaluate(folder: Path, steps: int = 20) -> dict[str, float]:
    """Share of the test list's prompts rendered right by the saved pipeline in float32, with three seeds."""
    import onnxruntime

    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    judge = onnxruntime.InferenceSession(str(folder / "judge.onnx"))
    listed = json.loads((folder / "judge.json").read_text())["prompts"]
    right = []
    for seed in range(3):
        for i in range(0, len(listed), 25):
            part = listed[i : i + 25]
            made = pipeline([p["prompt"] for p in part], num_inference_steps=steps, guidance_scale=4.0, height=64,
                            width=64, output_type="np",
                            generator=torch.Generator().manual_seed(100 * seed + i)).images  # fmt: skip
            logits = judge.run(None, {"picture": made.transpose(0, 3, 1, 2).astype(np.float32)})[0]
            read = np.stack([p.argmax(1) for p in np.split(logits, np.cumsum(Judge.PARTS)[:-1], 1)], 1)
            right += list((read == np.array([p["label"] for p in part])).all(1))
    return {"right": float(np.mean(right)), "pictures": len(right), "steps": steps}


if __name__ == "__main__":
    main()
