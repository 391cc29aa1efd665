"""A prompt as the numbers that CLIP's text encoder takes, made with the ``tokenizers`` library alone.

A pipeline's folder brings ``tokenizer.json``, which says everything, or the older pair ``vocab.json`` and
``merges.txt``, for which CLIP's way to cut a text into words stands here (Radford et al. 2021; a test holds it against
transformers' CLIPTokenizer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, UnsupportedModel
from kit.need import need
from kit.record import read_json

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
# What CLIP takes for a word: its special tokens, English endings, a run of letters, one digit, a run of anything else.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class PromptTokens:
    """Turns prompts into rows of token numbers.

    Attributes:
        tokens: length of a row.
        vocabulary: numbers go from 0 to one below this.
        padding: the number that fills a row up.
    """

    tokens: int
    vocabulary: int
    padding: int
    _made: Any = field(repr=False, compare=False)

    @classmethod
    def read(cls, folder: Path | str) -> PromptTokens:
        """Read the ``tokenizer`` folder of a pipeline.

        Raises:
            BadInput: a file is missing or damaged.
            UnsupportedModel: it is not CLIP's kind of tokenizer.
            MissingTool: the package ``tokenizers`` is missing.
        """
        tokenizers = need("tokenizers", to="read prompts", extra="diffusion")
        folder = Path(folder)
        about = _settings(folder)
        kind = str(about.get("tokenizer_class") or "CLIPTokenizer")
        if not kind.startswith("CLIPTokenizer"):
            raise UnsupportedModel(f"{folder} is of the class {kind}; the kit reads CLIPTokenizer.",
                                   remedy="give a pipeline of the Stable Diffusion 1 or 2 kind")
        made = _read_whole(tokenizers, folder / "tokenizer.json") if (folder / "tokenizer.json").is_file() \
            else _from_pair(tokenizers, folder)
        tokens = about.get("model_max_length")
        if not isinstance(tokens, int) or not 2 < tokens <= 4096:  # transformers writes 1e30 for "no limit"
            raise BadInput(f"{folder}/tokenizer_config.json says model_max_length {tokens!r}.",
                           remedy="set it to the length that the text encoder takes (77 in Stable Diffusion)")
        made.no_padding()
        made.enable_truncation(tokens)
        padding = made.token_to_id(_word(about.get("pad_token")) or END)
        if padding is None:
            raise BadInput(f"The padding token {about.get('pad_token')!r} of {folder} is not in its vocabulary.",
                           remedy="copy the whole tokenizer folder again")
        return cls(tokens, max(made.get_vocab().values()) + 1, padding, made)

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """Token numbers, int64 [number of prompts, tokens]: begin, words, end, padding. What is too long is cut."""
        rows = np.full((len(prompts), self.tokens), self.padding, np.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            found = self._made.encode(prompt).ids
            row[: len(found)] = found
        return rows

    def too_long(self, prompt: str) -> bool:
        """Whether a part of the prompt is cut off."""
        return bool(self._made.encode(prompt).overflowing)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    about = read_json(path, f"{path} is no whole JSON.", "copy the tokenizer folder again")
    if not isinstance(about, dict):
        raise BadInput(f"{path} holds no settings.", remedy="copy the tokenizer folder again")
    return about


def _word(token: Any) -> str:
    """A token's text: old files give it with its settings."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _read_whole(tokenizers: Any, path: Path) -> Any:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises is a bare Exception
        raise BadInput(f"{path} is no tokenizer: {error}.", remedy="copy the tokenizer folder again",
                       detail=str(error)) from error


def _from_pair(tokenizers: Any, folder: Path) -> Any:
    """CLIP's tokenizer from its vocabulary and its merges."""
    files = folder / "vocab.json", folder / "merges.txt"
    for path in files:
        if not path.is_file():
            raise BadInput(f"{folder} has neither tokenizer.json nor {path.name}.",
                           remedy="copy the tokenizer folder again, with vocab.json and merges.txt or tokenizer.json")
    from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

    try:
        model = models.BPE.from_file(*map(str, files), unk_token=END, continuing_subword_prefix="",
                                     end_of_word_suffix="</w>", fuse_unk=False)
    except Exception as error:  # what the library raises is a bare Exception
        raise BadInput(f"{files[0]} and merges.txt do not belong together, or one is damaged: {error}.",
                       remedy="copy the tokenizer folder again", detail=str(error)) from error
    made = tokenizers.Tokenizer(model)
    special = [tokenizers.AddedToken(word, special=True, normalized=False) for word in (BEGIN, END)]
    missing = [word for word in (BEGIN, END) if made.token_to_id(word) is None]
    if missing:
        raise BadInput(f"{files[0]} lacks the token {missing[0]!r}.", remedy="copy the tokenizer folder again")
    made.add_special_tokens(special)
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                            normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.post_processor = processors.RobertaProcessing((END, made.token_to_id(END)), (BEGIN, made.token_to_id(BEGIN)),
                                                       trim_offsets=False, add_prefix_space=False)
    return made
