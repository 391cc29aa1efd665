"""A pipeline's weights made up and written tensor by tensor; runs in the worker that may load torch.

The classes themselves say which tensors there are: they are made on PyTorch's meta device, where tensors have a shape
and no memory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kit.need import need
from kit.progress import Report, Tick, silent
from kit.runtimes import peak_memory

_FILES = {"text_encoder": "model.safetensors"}


def write(folder: Path, configs: Mapping[str, Mapping[str, Any]], seed: int, half: bool,
          report: Report = silent) -> int:
    """Write ``config.json`` and weights of text encoder, UNet and autoencoder.

    Args:
        folder: of the pipeline.
        configs: sub-folder -> arguments of its class.
        seed: of the weights: each tensor's depend on it and on the tensor's name.
        half: store float16.
        report: hears progress.

    Returns:
        Bytes: the highest resident memory of this process.
    """
    need("diffusers", to="make a Stable Diffusion pipeline", extra="diffusion")
    for part, config in configs.items():
        tensors = _declare(part, config, folder / part)
        fans = {name.removesuffix("weight"): int(np.prod(shape[1:])) for name, shape in tensors.items()
                if name.endswith("weight") and len(shape) > 1}
        target = folder / part / _FILES.get(part, "diffusion_pytorch_model.safetensors")
        _write(target, tensors, fans, seed, np.dtype("float16" if half else "float32"), report, part)
    return peak_memory()


def _declare(part: str, config: Mapping[str, Any], folder: Path) -> dict[str, tuple[int, ...]]:
    """Write a part's configuration; gives the shapes of its tensors."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        if part == "text_encoder":
            made = CLIPTextModel(CLIPTextConfig(**config))
            made.config.architectures = [type(made).__name__]
            made.config.save_pretrained(folder)
        else:
            made = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**config)
            made.save_config(folder)
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def _write(path: Path, tensors: dict[str, tuple[int, ...]], fans: dict[str, int], seed: int, dtype: np.dtype,
           report: Report, part: str) -> None:
    """A .safetensors file: length of the table, table, tensors one after the other."""
    table, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        begin, end = end, end + int(np.prod(shape)) * dtype.itemsize
        table[name] = {"dtype": "F16" if dtype.itemsize == 2 else "F32", "shape": list(shape),
                       "data_offsets": [begin, end]}
    said = json.dumps(table).encode()
    said += b" " * (-len(said) % 8)  # so that tensors begin at a multiple of 8 bytes
    with path.open("wb") as stream:
        stream.write(len(said).to_bytes(8, "little") + said)
        for at, (name, shape) in enumerate(tensors.items()):
            report(Tick(at, len(tensors), f"writing {part}"))
            stream.write(_values(name, shape, fans, seed).astype(dtype, copy=False).data)
    report(Tick(len(tensors), len(tensors), f"writing {part}"))


def _values(name: str, shape: tuple[int, ...], fans: dict[str, int], seed: int) -> np.ndarray:
    """As PyTorch begins a training: uniform within 1 / sqrt(inputs); norms 1 and 0; embeddings normal, 0.02 wide."""
    random = np.random.default_rng((seed, zlib.crc32(name.encode())))
    layer, _, kind = name.rpartition(".")
    if "embedding" in layer and "time" not in layer and len(shape) == 2:
        return random.standard_normal(shape, np.float32) * np.float32(0.02)
    fan = fans.get(f"{layer}.")
    if fan is None:  # a norm: it scales and shifts
        return np.full(shape, float(kind == "weight"), np.float32)
    return (random.random(shape, np.float32) * 2 - 1) / np.float32(fan**0.5)
