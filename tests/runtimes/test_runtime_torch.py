"""Sub-models of a diffusers pipeline behind open_runner."""

import json
import shutil

import numpy as np
import pytest
import sd_random

from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.runner import open_runner
from kit.runtimes.torch_parts import read_part
from kit.source import recognise


@pytest.fixture(scope="module")
def folder():
    return sd_random.folder()


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def feed(batch=2):
    return {"sample": noise(batch, 4, 8, 8), "timestep": np.array([500]),
            "encoder_hidden_states": noise(batch, sd_random.TOKENS, 32)}


@pytest.fixture(scope="module")
def unet(folder):
    with open_runner(folder / "unet", threads=1) as run:
        yield run


def test_a_unet_answers_like_its_onnx_file(unet):
    with open_runner(sd_random.onnx_parts()["unet"]) as exported:
        np.testing.assert_allclose(unet(feed())["noise"], exported(feed())["noise"], atol=2e-5)
    assert unet.settings["mode"] == "eager"
    assert unet.settings["threads"] == 1
    assert unet.memory() > 100e6
    assert len(unet.time(feed(1), 2)) == 2


def test_what_goes_in_and_out_is_known_without_pytorch(folder):
    assert [str(spec) for spec in read_part(folder / "unet").inputs] == [
        "sample float32[N, 4, 8, 8]", "timestep int64[1]", f"encoder_hidden_states float32[N, {sd_random.TOKENS}, 32]"]
    assert str(read_part(folder / "vae").output) == "picture float32[N, 3, 32, 32]"
    assert str(read_part(folder / "vae", "encoder").output) == "latents float32[N, 4, 8, 8]"
    assert str(read_part(folder / "vae", any_size=True).inputs[0]) == "latents float32[N, 4, h, w]"
    assert str(read_part(folder / "text_encoder").output) == f"hidden_states float32[N, {sd_random.TOKENS}, 32]"


def test_a_shape_that_does_not_fit_is_named_before_pytorch_sees_it(unet):
    with pytest.raises(BadInput, match="takes shape"):
        unet({**feed(), "sample": noise(2, 4, 7, 8)})


def test_a_half_of_an_autoencoder_answers_like_its_onnx_file_at_other_sizes_too(folder):
    given = {"latents": noise(1, 4, 8, 8)}
    with open_runner(folder / "vae", any_size=True) as run, open_runner(sd_random.onnx_parts()["vae_decoder"]) as other:
        np.testing.assert_allclose(run(given)["picture"], other(given)["picture"], atol=2e-5)
        assert run({"latents": noise(1, 4, 4, 12)})["picture"].shape == (1, 3, 16, 48)
        assert run.settings["part"] == "decoder"


def test_weights_stored_in_half_precision_are_computed_in_float32():
    folder = sd_random.folder(half=True)
    with open_runner(folder / "text_encoder") as run:
        answer = run({"input_ids": np.ones((1, sd_random.TOKENS), np.int64)})["hidden_states"]
    assert answer.dtype == np.float32
    assert np.any(answer != answer.astype(np.float16)), "not rounded to half precision"


def test_an_index_that_the_model_lacks_is_explained(folder):
    with open_runner(folder / "text_encoder") as run, pytest.raises(BadInput, match="could not run text_encoder"):
        run({"input_ids": np.full((1, sd_random.TOKENS), 10**6)})


def test_only_an_autoencoder_has_halves(folder):
    with pytest.raises(BadInput, match="has no part 'encoder'"):
        read_part(folder / "unet", "encoder")


def test_weights_that_belong_to_another_configuration_are_refused(folder, tmp_path):
    broken = shutil.copytree(folder / "unet", tmp_path / "unet")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "block_out_channels": [32, 96]}))
    with pytest.raises(ToolFailed, match="cannot load"):
        open_runner(broken)


def test_a_cut_off_file_is_named(folder, tmp_path):
    broken = shutil.copytree(folder / "unet", tmp_path / "unet")
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInput, match="is cut off"):
        open_runner(broken)


def test_a_sub_models_folder_is_recognised_and_a_whole_pipeline_is_not(folder, tmp_path):
    found = recognise(folder / "unet")
    assert (found.kind, found.name, found.graph.name) == ("diffusers", "unet", "config.json")
    assert recognise(folder / "unet" / "config.json") == recognise(found.graph)
    assert found.digest() != recognise(folder / "vae").digest()
    with pytest.raises(BadInput, match="a whole diffusers pipeline") as caught:
        recognise(folder)
    assert "unet" in caught.value.remedy
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "Transformer3D", "_diffusers_version": "1"}))
    with pytest.raises(BadInput, match="holds a Transformer3D"):
        recognise(tmp_path)
    with pytest.raises(UnsupportedModel, match="class Transformer3D"):
        read_part(tmp_path)


def test_a_folder_without_weights_says_so(folder, tmp_path):
    shutil.copy(folder / "unet" / "config.json", tmp_path)
    with pytest.raises(BadInput, match="no weights beside config"):
        recognise(tmp_path)
