"""A sub-model of a diffusers pipeline as one PyTorch module with inputs and an output of fixed names.

What a folder takes is read from its ``config.json``, without PyTorch; the classes are diffusers' and transformers' own,
with weights as float32, whatever they are stored as.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit.errors import BadInput, KitError, ToolFailed, UnsupportedModel
from kit.model import TensorSpec
from kit.need import need
from kit.record import read_json
from kit.runtimes.safetensors_file import chosen, table, tensors

#: Class in config.json -> what the folder is.
CLASSES = {"UNet2DConditionModel": "unet", "AutoencoderKL": "vae", "CLIPTextModel": "text_encoder"}
Half = Literal["decoder", "encoder"]


@dataclass(frozen=True)
class Part:
    """What a sub-model is, from its configuration alone.

    Attributes:
        folder: with ``config.json``.
        kind: ``unet``, ``text_encoder``, ``vae_decoder`` or ``vae_encoder``.
        inputs: in the order of the module's arguments; ``N`` is the batch.
        output: its one output.
    """

    folder: Path
    kind: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec


def class_of(config: Any) -> str:
    """The class that a configuration names; "" where it names none."""
    if not isinstance(config, dict):
        return ""
    return str(config.get("_class_name") or next(iter(config.get("architectures") or ()), ""))


def read_part(folder: Path | str, half: Half = "decoder", *, any_size: bool = False) -> Part:
    """What the sub-model in a folder is.

    Args:
        folder: of the sub-model, such as ``.../unet``.
        half: of an autoencoder.
        any_size: height and width are words, not the sizes that the configuration names.

    Raises:
        BadInput: ``config.json`` is missing, cut off or lacks an entry; or it has no such half.
        UnsupportedModel: a class that is none of `CLASSES`.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = read_json(path, f"{path} is no whole JSON.", "copy the folder again")
    name = class_of(config)
    if name not in CLASSES:
        raise UnsupportedModel(f"{path} is of the class {name or '(none)'}.",
                               remedy=f"the kit takes {', '.join(CLASSES)}; export other modules from a factory, "
                               "'file.py:function'")
    kind = CLASSES[name]
    if half not in ("decoder", "encoder") or (half == "encoder" and kind != "vae"):
        raise BadInput(f"{folder} holds a {name}, which has no part {half!r}.",
                       remedy="part='decoder' or part='encoder' chooses the half of an AutoencoderKL; leave it out "
                       "otherwise")
    try:
        if kind == "unet":
            return _unet(folder, config, any_size)
        return _text(folder, config) if kind == "text_encoder" else _vae(folder, config, half, any_size)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} does not say {error}.", remedy="copy the folder again") from error


def _unet(folder: Path, config: dict[str, Any], any_size: bool) -> Part:
    height, width = ("h", "w") if any_size else _pair(config["sample_size"])
    beside = folder.parent / "text_encoder" / "config.json"
    text = read_json(beside, f"{beside} is no whole JSON.", "copy the folder again") if beside.is_file() else {}
    tokens = int(text.get("max_position_embeddings", 77))  # CLIP's, where the text encoder is not beside it
    channels, width_of_text = int(config["in_channels"]), config["cross_attention_dim"]
    if not isinstance(width_of_text, int):
        raise UnsupportedModel(f"{folder}/config.json: cross_attention_dim is {width_of_text!r}, one for each level.",
                               remedy="export it from a factory, 'file.py:function'")
    return Part(folder, "unet", (
        TensorSpec("sample", "float32", ("N", channels, height, width)), TensorSpec("timestep", "int64", (1,)),
        TensorSpec("encoder_hidden_states", "float32", ("N", tokens, width_of_text))),
        TensorSpec("noise", "float32", ("N", int(config["out_channels"]), height, width)))


def _text(folder: Path, config: dict[str, Any]) -> Part:
    tokens = int(config["max_position_embeddings"])
    return Part(folder, "text_encoder", (TensorSpec("input_ids", "int64", ("N", tokens)),),
                TensorSpec("hidden_states", "float32", ("N", tokens, int(config["hidden_size"]))))


def _vae(folder: Path, config: dict[str, Any], half: Half, any_size: bool) -> Part:
    large: tuple[int | str, ...] = ("H", "W") if any_size else _pair(config["sample_size"])
    smaller = 2 ** (len(config["block_out_channels"]) - 1)
    small = ("h", "w") if any_size else tuple(side // smaller for side in _pair(config["sample_size"]))
    latents = TensorSpec("latents", "float32", ("N", int(config["latent_channels"]), *small))
    picture = TensorSpec("picture", "float32", ("N", int(config["in_channels"]), *large))
    taken, given = (latents, picture) if half == "decoder" else (picture, latents)
    return Part(folder, f"vae_{half}", (taken,), given)


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def load_part(part: Part) -> Any:
    """The part as a ``torch.nn.Module`` in float32, for inference; its arguments are ``part.inputs`` in order.

    Raises:
        MissingTool: diffusers or transformers is not installed.
        ToolFailed: its weights cannot be loaded.
    """
    torch = need("torch", to="run a PyTorch model", extra="diffusion")
    library = "transformers" if part.kind == "text_encoder" else "diffusers"
    made = need(library, to=f"load a {part.kind}", extra="diffusion")
    name = next(name for name, kind in CLASSES.items() if part.kind.startswith(kind))
    try:
        inner = _diffusers(torch, getattr(made, name), part) if library == "diffusers" else None
        inner = inner or _pretrained(torch, getattr(made, name), library, part)
    except KitError:
        raise
    except Exception as error:  # each library raises classes of its own
        raise ToolFailed(f"{library} cannot load {part.folder}: {type(error).__name__}: {first_line(error)}",
                         remedy="check that config.json and the weights (*.safetensors) are whole and belong together",
                         detail=str(error)[-4000:]) from error
    return _wrapped(torch, part.kind, inner.float().eval().requires_grad_(False))


def _diffusers(torch: Any, made: Any, part: Part) -> Any:
    """The model with its weights read in place: from_pretrained makes random ones first, and maps the file beside them.

    None where names in the file are not the model's own: from_pretrained knows how to translate old ones.
    """
    with torch.device("meta"):
        model = made.from_config(made.load_config(str(part.folder), local_files_only=True))
    wanted, found = set(model.state_dict()), {}
    names = {name for path in chosen(part.folder) for name in table(path)}
    if names != wanted:
        return None
    found = dict(tensors(part.folder))
    model.load_state_dict(found, strict=True, assign=True)
    lacking = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    return None if lacking else model


def _pretrained(torch: Any, made: Any, library: str, part: Part) -> Any:
    # transformers 5 calls it dtype, diffusers torch_dtype.
    settings = {"dtype" if library == "transformers" else "torch_dtype": torch.float32}
    # A folder may hold half-precision weights only, as published ones do: they must be asked for by that name.
    if all(".fp16." in path.name for path in chosen(part.folder)):
        settings["variant"] = "fp16"
    return made.from_pretrained(str(part.folder), local_files_only=True, use_safetensors=True, **settings)


def _wrapped(torch: Any, kind: str, inner: Any) -> Any:
    """The model with plain tensors in and out, and names of modules as in its own file."""
    if kind in ("unet", "text_encoder"):
        # A class of its own, not a module around it: that would put a word before every name in the exported file.
        own = type(inner)

        class Unet(own):
            def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
                return own.forward(self, sample, timestep, encoder_hidden_states, return_dict=False)[0]

        class Text(own):
            def forward(self, input_ids: Any) -> Any:
                return own.forward(self, input_ids=input_ids)[0]

        inner.__class__ = Unet if kind == "unet" else Text
        return inner.eval()

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.post_quant_conv, self.decoder = inner.post_quant_conv, inner.decoder

        def forward(self, latents: Any) -> Any:
            return self.decoder(self.post_quant_conv(latents) if self.post_quant_conv is not None else latents)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.quant_conv = inner.encoder, inner.quant_conv

        def forward(self, picture: Any) -> Any:
            moments = self.encoder(picture)
            moments = self.quant_conv(moments) if self.quant_conv is not None else moments
            return moments.chunk(2, dim=1)[0]  # the mean; the logarithm of the variance is left out

    return (Decoder if kind == "vae_decoder" else Encoder)().eval()


def first_line(error: BaseException) -> str:
    """The first line of what PyTorch or a library on it said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
