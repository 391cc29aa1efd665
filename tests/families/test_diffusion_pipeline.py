"""What a pipeline's folder says, what is refused, and parts exchanged."""

import json
import shutil

import pytest
import sd_random

from kit.errors import BadInput, UnsupportedModel
from kit.families.diffusion import PARTS, Pipeline, Scheduler


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(sd_random.folder(), tmp_path / "pipeline")


def edit(path, **changes):
    about = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in about.items() if value is not ...}))


def test_a_folder_says_all_that_drawing_needs(folder):
    pipeline = Pipeline.read(folder)
    assert (pipeline.name, pipeline.source) == ("pipeline", folder)
    assert tuple(pipeline.parts) == PARTS
    assert pipeline.part("vae_decoder") == (folder / "vae", {"part": "decoder"})
    assert pipeline.part("unet") == (folder / "unet", {})
    assert pipeline.scheduler == Scheduler("pndm", 1000, 0.00085, 0.012, "scaled_linear", 1, "epsilon", False)
    assert (pipeline.latent_scale, pipeline.latent_shape) == (0.5, (4, 8, 8))
    assert (pipeline.tokens, pipeline.width) == (sd_random.TOKENS, 32)
    assert pipeline.notes == ()


def test_exchanged_parts_change_the_digest_and_nothing_else(folder, tmp_path):
    first = sd_random.pipeline()
    other = first.replaced("INT8", unet=(first.parts["unet"], {"graph_level": "basic"}))
    assert (other.name, first.name) == ("INT8", "random")
    assert other.parts["vae_decoder"] == first.parts["vae_decoder"]
    assert other.digest() != first.digest()
    assert first.digest() == sd_random.pipeline().digest()
    assert first.replaced(unet=first.parts["unet"], name="again").digest() == first.digest()
    assert "basic" in str(other)
    assert "unet.onnx" in str(other)
    with pytest.raises(BadInput, match="no part named 'vae'"):
        first.replaced(vae="x.onnx")


def test_schedulers_are_taken_as_stable_diffusion_takes_them(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "DDIMScheduler", "beta_schedule": "linear"}))
    edit(folder / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    pipeline = Pipeline.read(folder)
    assert pipeline.scheduler == Scheduler("ddim", 1000, 0.0001, 0.02, "linear", 1, "epsilon", True)
    assert [note.split(" ")[2] for note in pipeline.notes] == ["steps_offset", "clip_sample"]
    assert "clip_sample" in pipeline.facts()["note"]


def cut(path, keep):
    with path.open("r+b") as stream:
        stream.truncate(keep)


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(("damage", "kind", "said"), [
    (lambda f: (f / "model_index.json").unlink(), BadInput, "has no model_index.json"),
    (lambda f: edit(f / "model_index.json", _class_name="FluxPipeline"), UnsupportedModel, "holds a FluxPipeline"),
    (lambda f: edit(f / "model_index.json", unet=["diffusers", "UNet3D"]), UnsupportedModel, "unet is of .* UNet3D"),
    (lambda f: edit(f / "model_index.json", unet=...), UnsupportedModel, "unet is of the class None"),
    (lambda f: shutil.rmtree(f / "vae"), BadInput, "lacks its part 'vae'"),
    (lambda f: (f / "vae" / "config.json").unlink(), BadInput, "vae/config.json is missing"),
    (lambda f: (f / WEIGHTS).unlink(), BadInput, "unet holds no weights"),
    (lambda f: cut(f / WEIGHTS, 100_000), BadInput, r"not whole: it has 100.0 kB of"),
    (lambda f: cut(f / WEIGHTS, 20), BadInput, "does not fit its own table"),
    (lambda f: cut(f / WEIGHTS, 0), BadInput, "does not fit its own table"),
    (lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n"), BadInput, "not whole"),
    (lambda f: edit(f / SCHEDULER, _class_name="EulerDiscreteScheduler"), UnsupportedModel,
     "class EulerDiscreteScheduler"),
    (lambda f: edit(f / "model_index.json", scheduler=["diffusers", "LMSDiscreteScheduler"]), UnsupportedModel,
     "class LMSDiscreteScheduler"),
    (lambda f: edit(f / SCHEDULER, skip_prk_steps=False), UnsupportedModel, "Runge-Kutta"),
    (lambda f: edit(f / SCHEDULER, timestep_spacing="trailing"), UnsupportedModel, "timestep_spacing is 'trailing'"),
    (lambda f: edit(f / SCHEDULER, prediction_type="sample"), UnsupportedModel, "prediction_type is 'sample'"),
    (lambda f: edit(f / SCHEDULER, beta_schedule="squaredcos_cap_v2"), UnsupportedModel, "squaredcos_cap_v2"),
    (lambda f: edit(f / "tokenizer/tokenizer_config.json", model_max_length=77), BadInput,
     "model_max_length 77, .* max_position_embeddings 12"),
    (lambda f: edit(f / "unet/config.json", cross_attention_dim=768), BadInput, "cross_attention_dim 768"),
    (lambda f: edit(f / "unet/config.json", in_channels=9), BadInput, "in_channels 9"),
    (lambda f: edit(f / "text_encoder/config.json", vocab_size=10), BadInput, "text encoder only 10"),
    (lambda f: edit(f / "unet/config.json", addition_embed_type="text_time"), UnsupportedModel, "addition_embed_type"),
])
def test_what_is_wrong_with_a_folder_is_said_by_name(folder, damage, kind, said):
    damage(folder)
    with pytest.raises(kind, match=said) as caught:
        Pipeline.read(folder)
    assert caught.value.remedy
