"""Prompts as token numbers, against transformers' CLIPTokenizer; and damaged tokenizer folders."""

import json
import shutil

import numpy as np
import pytest
import sd_random

from kit.errors import BadInput, UnsupportedModel
from kit.families.diffusion_tokens import PromptTokens

HARD = ["", "a red circle", "A  RED\tcircle", "it's 12 o'clock, isn't it?!", "straße naïve ÉTÉ 日本語", "🙂 star",
        "<|endoftext|> a <|startoftext|>", "!!!...a", "a red circle above a blue square and a green star besides",
        "x" * 200]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(sd_random.folder() / "tokenizer", tmp_path / "tokenizer")


def as_pair(folder):
    """The same tokenizer as older pipelines store it: vocabulary and merges."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, whole["model"]["merges"])) + "\n")
    (folder / "tokenizer.json").unlink()
    return folder


@pytest.mark.parametrize("pair", [False, True], ids=["tokenizer.json", "vocab.json and merges.txt"])
def test_numbers_are_those_of_transformers(folder, pair):
    if pair:
        as_pair(folder)
    wanted = sd_random.worker().call(sd_random.clip_ids, folder, HARD, pair)
    tokens = PromptTokens.read(folder)
    found = tokens(HARD)
    assert found.dtype == np.int64
    assert found.shape == (len(HARD), sd_random.TOKENS)
    np.testing.assert_array_equal(found, wanted)
    assert [tokens.too_long(prompt) for prompt in HARD[-3:]] == [False, True, True]
    assert found.max() == tokens.vocabulary - 1


def test_old_settings_give_a_token_with_its_flags(folder):
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about["pad_token"] = {"content": "a</w>", "lstrip": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    tokens = PromptTokens.read(folder)
    assert tokens([""])[0, 2:].tolist() == [tokens.padding] * (sd_random.TOKENS - 2)
    assert tokens.padding == json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["a</w>"]


def settings(**changes):
    def change(folder):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def lacks_end(folder):
    path = as_pair(folder) / "vocab.json"
    vocabulary = json.loads(path.read_text())
    del vocabulary["<|endoftext|>"]
    path.write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(("damage", "kind", "said"), [
    (lambda f: (f / "tokenizer_config.json").unlink(), BadInput, "tokenizer_config.json"),
    (lambda f: (f / "tokenizer_config.json").write_text("{"), BadInput, "no whole JSON"),
    (lambda f: (f / "tokenizer_config.json").write_text("[]"), BadInput, "holds no settings"),
    (lambda f: (f / "tokenizer.json").write_text('{"version'), BadInput, "is no tokenizer"),
    (lambda f: (f / "tokenizer.json").unlink(), BadInput, "neither tokenizer.json nor vocab.json"),
    (lambda f: (as_pair(f) / "merges.txt").unlink(), BadInput, "nor merges.txt"),
    (lambda f: (as_pair(f) / "merges.txt").write_text("#version: 0.2\nq q\n"), BadInput, "do not belong together"),
    (lacks_end, BadInput, r"lacks the token '<\|endoftext\|>'|do not belong together"),
    (settings(tokenizer_class="T5Tokenizer"), UnsupportedModel, "class T5Tokenizer"),
    (settings(model_max_length=10**30), BadInput, "model_max_length 1000"),
    (settings(pad_token="<pad>"), BadInput, "padding token '<pad>'"),
], ids=["no settings", "cut settings", "list", "cut tokenizer", "nothing", "no merges", "other merges", "no end",
        "other class", "no limit", "padding"])
def test_a_damaged_tokenizer_is_named(folder, damage, kind, said):
    damage(folder)
    with pytest.raises(kind, match=said) as caught:
        PromptTokens.read(folder)
    assert caught.value.remedy
