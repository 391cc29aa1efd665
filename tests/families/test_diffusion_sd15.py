"""The pipeline with SD 1.5's configuration: its numbers at full size, its files at a small one."""

import json
import shutil
from collections import namedtuple

import numpy as np
import pytest
import sd_random

from kit.errors import BadInput
from kit.families import diffusion_random, diffusion_sd15
from kit.families.diffusion import Pipeline, Scheduler
from kit.families.diffusion_sd15 import sd15, sd15_forecast, vocabulary

SMALL = {
    "text_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "projection_dim": 32},
    "unet": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "cross_attention_dim": 32},
    "vae": {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
}


@pytest.fixture(scope="module")
def small():
    """The same pipeline, thinner: built by the same code within a second, beside the loading of torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion_sd15, "CONFIGS",
                      {part: {**config, **SMALL[part]} for part, config in diffusion_sd15.CONFIGS.items()})
        yield


@pytest.fixture(scope="module")
def built(small, tmp_path_factory):
    return sd15(tmp_path_factory.mktemp("built") / "sd", seed=3)


def count(configs, folder):
    """Runs in the worker."""
    return {part: sum(int(np.prod(shape)) for shape in diffusion_random._declare(part, config, folder / part).values())
            for part, config in configs.items()}


def test_the_configuration_has_the_published_number_of_parameters(tmp_path):
    assert sd_random.worker().call(count, diffusion_sd15.CONFIGS, tmp_path) == diffusion_sd15.PARAMETERS
    unet = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert (unet["attention_head_dim"], unet["cross_attention_dim"]) == (8, 768)


def test_the_vocabulary_has_clips_size_and_numbers():
    words = vocabulary()
    assert len(words) == 49_408
    assert sorted(words.values()) == list(range(49_408))
    assert (words["<|startoftext|>"], words["<|endoftext|>"]) == (49_406, 49_407)
    # As in CLIP's own vocab.json.
    assert (words["!"], words["a"], words["!</w>"], words["a</w>"], words["Ġ"]) == (0, 64, 256, 320, 220)


def test_diffusers_reads_what_is_built_and_finds_every_tensor(built):
    assert built.dtype == "float32"
    assert 0 < built.memory_peak < 20e9
    pipeline = Pipeline.read(built.folder)
    assert pipeline.scheduler == Scheduler()
    assert (pipeline.latent_shape, pipeline.tokens, pipeline.latent_scale) == ((4, 64, 64), 77, 0.18215)
    assert pipeline.prompt_tokens()(["ab"])[0, :4].tolist() == [49_406, 64, 321, 49_407]
    check(built)


def test_half_of_the_disk_is_enough(built, tmp_path):
    half = sd15(tmp_path / "sd", seed=3, half=True)
    assert half.dtype == "float16"
    assert half.disk < 0.6 * built.disk
    check(half)


def check(built):
    lacking, answers = sd_random.worker().call(read_back, built.folder)
    assert lacking == []
    for part, spread in answers.items():
        assert 1e-3 < spread < 100, f"{part} answers as a net at the beginning of a training does"


def read_back(folder):
    """Runs in the worker: names of tensors that are missing, too many or of another shape; how far answers spread."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    lacking, nets = [], {}
    for part, kind in (("text_encoder", CLIPTextModel), ("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        nets[part], info = kind.from_pretrained(folder / part, output_loading_info=True, torch_dtype=torch.float32)
        lacking += [f"{part} {key} {name}" for key, names in info.items() for name in names]
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")("ab", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = nets["text_encoder"](ids)[0]
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        answers = {"text_encoder": hidden, "unet": nets["unet"](latents, torch.tensor([500]), hidden).sample,
                   "vae": nets["vae"].decode(latents).sample}
    return lacking, {part: float(answer.std()) for part, answer in answers.items()}


def test_a_folder_built_before_is_taken_and_another_is_refused(built, tmp_path):
    again = sd15(built.folder, seed=3)
    assert again.memory_peak is None
    assert "there already" in str(again)
    with pytest.raises(BadInput, match=r"is there already and holds .*'seed': 3.*not .*'seed': 4"):
        sd15(built.folder, seed=4)
    with pytest.raises(BadInput, match="holds something else"):
        sd15(tmp_path)


def test_weights_depend_on_seed_and_name_alone():
    fans = {"conv.": 18, "proj.": 4}
    def values(name, shape, seed=0):
        return diffusion_random._values(name, shape, fans, seed)

    conv = values("conv.weight", (64, 2, 3, 3))
    np.testing.assert_array_equal(conv, values("conv.weight", (64, 2, 3, 3)))
    assert np.abs(conv - values("conv.weight", (64, 2, 3, 3), seed=1)).max() > 0.1
    assert 0.9 / 18**0.5 < np.abs(conv).max() <= 1 / 18**0.5
    assert np.abs(values("proj.bias", (400,))).max() > 0.45
    assert values("norm.weight", (5,)).tolist() == [1] * 5
    assert values("norm.bias", (5,)).tolist() == [0] * 5
    assert 0.015 < values("token_embedding.weight", (400, 8)).std() < 0.025


def test_disk_and_memory_are_told_and_asked_for_first(tmp_path, monkeypatch):
    whole, half = sd15_forecast(tmp_path / "sd"), sd15_forecast(tmp_path / "sd", half=True)
    assert 4.2e9 < whole.disk < 4.4e9
    assert half.disk < 0.51 * whole.disk
    assert whole.memory < 2e9, "tensor by tensor: far below the size of the weights"
    assert "4.3 GB of disk" in str(whole)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12, 10**9))
    with pytest.raises(BadInput, match=r"takes 4.3 GB of disk; there are 1.0 GB"):
        sd15(tmp_path / "sd")
    assert not (tmp_path / "sd").exists()
