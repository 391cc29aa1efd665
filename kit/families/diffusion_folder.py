"""What a diffusers pipeline's folder says about itself, and whether it is whole: configurations, weights, scheduler.

Read with the standard library alone: neither diffusers nor torch is loaded to know what a folder holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.card import bytes_text
from kit.errors import BadInput, UnsupportedModel
from kit.families.diffusion_schedulers import Scheduler
from kit.record import read_json

#: Sub-folder of a pipeline -> the classes that the kit draws with.
CLASSES = {
    "text_encoder": ("CLIPTextModel",), "unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"), "scheduler": ("PNDMScheduler", "DDIMScheduler"),
}
_KINDS = {"PNDMScheduler": "pndm", "DDIMScheduler": "ddim"}
_AGAIN = "copy the pipeline's folder again; a large file fetched with git may be a pointer of Git LFS"
# Settings under which a scheduler walks otherwise than the kit does: name -> the only value taken.
_TAKEN = {"timestep_spacing": "leading", "trained_betas": None, "thresholding": False,
          "rescale_betas_zero_snr": False}


@dataclass(frozen=True)
class Folder:
    """A pipeline's folder, looked through.

    Attributes:
        path: of the folder.
        index: ``model_index.json``.
        configs: sub-folder with weights -> its ``config.json``.
    """

    path: Path
    index: dict[str, Any]
    configs: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path | str) -> Folder:
        """Look through a folder that ``StableDiffusionPipeline.save_pretrained`` wrote.

        Raises:
            BadInput: it is no such folder, a part is missing or its weights are cut off; names the file.
            UnsupportedModel: a part is of a class that the kit does not draw with.
        """
        path = Path(path)
        if not (path / "model_index.json").is_file():
            raise BadInput(f"{path} is no diffusers pipeline: it has no model_index.json.",
                           remedy="give the folder that pipeline.save_pretrained(folder) wrote")
        index = settings(path / "model_index.json")
        if index.get("_class_name") != "StableDiffusionPipeline":
            raise UnsupportedModel(f"{path} holds a {index.get('_class_name')}; the kit draws with "
                                   "StableDiffusionPipeline.", remedy="give a text-to-image pipeline of the Stable "
                                   "Diffusion 1 or 2 kind; export the sub-models of others one by one with kit.export")
        for part, known in CLASSES.items():
            named = index.get(part) or [None, None]
            if named[1] not in known:
                raise UnsupportedModel(f"{path}/{part} is of the class {named[1]}; the kit takes {' or '.join(known)}.",
                                       remedy="save the pipeline with one of these classes")
            if not (path / part).is_dir():
                raise BadInput(f"{path} lacks its part {part!r}.", remedy=_AGAIN)
        configs = {part: settings(path / part / "config.json") for part in ("text_encoder", "unet", "vae")}
        for part in configs:
            weights(path / part)
        return cls(path, index, configs)

    def scheduler(self) -> tuple[Scheduler, tuple[str, ...]]:
        """The scheduler as StableDiffusionPipeline would use it, with sentences on what that changes.

        Raises:
            BadInput: the file is missing or damaged.
            UnsupportedModel: another class, or a setting under which it would walk otherwise.
        """
        path = self.path / "scheduler" / "scheduler_config.json"
        found = settings(path)
        kind = found.get("_class_name")
        if kind not in _KINDS:
            raise UnsupportedModel(f"{path} names the class {kind}; the kit walks with {' and '.join(_KINDS)}.",
                                   remedy="save the pipeline with one of them: "
                                   "DDIMScheduler.from_config(pipeline.scheduler.config)")
        if kind == "PNDMScheduler" and not found.get("skip_prk_steps", False):
            raise UnsupportedModel(f"{path}: PNDMScheduler without skip_prk_steps begins with Runge-Kutta steps, which "
                                   "Stable Diffusion does not use.", remedy='set "skip_prk_steps": true')
        for name, value in _TAKEN.items():
            if found.get(name, value) != value:
                raise UnsupportedModel(f"{path}: {name} is {found[name]!r}; the kit walks with {value!r}.",
                                       remedy="save the pipeline with that setting")
        choices = {"beta_schedule": ("linear", "scaled_linear"), "prediction_type": ("epsilon", "v_prediction")}
        asked = {"beta_schedule": "linear", "prediction_type": "epsilon", **found}
        for name, known in choices.items():
            if asked[name] not in known:
                raise UnsupportedModel(f"{path}: {name} is {asked[name]!r}; the kit takes {' or '.join(known)}.",
                                       remedy="give a pipeline with one of these")
        notes = []
        if found.get("steps_offset", 0) != 1:
            notes.append(f"The scheduler's steps_offset of {found.get('steps_offset', 0)} is taken as 1, as "
                         "StableDiffusionPipeline takes it.")
        if found.get("clip_sample", kind == "DDIMScheduler"):
            notes.append("The scheduler's clip_sample is left out, as StableDiffusionPipeline leaves it out.")
        made = Scheduler(
            kind=_KINDS[kind], train_steps=int(found.get("num_train_timesteps", 1000)),
            beta_start=float(found.get("beta_start", 0.0001)), beta_end=float(found.get("beta_end", 0.02)),
            beta_schedule=asked["beta_schedule"], steps_offset=1, prediction_type=asked["prediction_type"],
            set_alpha_to_one=bool(found.get("set_alpha_to_one", kind == "DDIMScheduler")))
        return made, tuple(notes)


def settings(path: Path) -> dict[str, Any]:
    """A JSON file that holds settings.

    Raises:
        BadInput: it is missing, damaged or something else.
    """
    if not path.is_file():
        raise BadInput(f"{path} is missing.", remedy=_AGAIN)
    found = read_json(path, f"{path} is no whole JSON.", _AGAIN)
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no settings.", remedy=_AGAIN)
    return found


def weights(folder: Path) -> int:
    """Bytes of the weights of a part, after a look whether its files are whole.

    Raises:
        BadInput: there are none, or a file is cut off; names it.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = ", ".join(sorted(p.name for p in folder.iterdir())[:6])
        raise BadInput(f"{folder} holds no weights (*.safetensors); it holds {others or 'nothing'}.",
                       remedy="save the pipeline with pipeline.save_pretrained(folder), or copy it again")
    for path in files:
        size, wanted = path.stat().st_size, _whole_size(path)
        if wanted != size:
            state = f"has {bytes_text(size)} of {bytes_text(wanted)}" if wanted > size else "does not fit its own table"
            raise BadInput(f"{path} is not whole: it {state}.", remedy=_AGAIN)
    return sum(path.stat().st_size for path in files)


def _whole_size(path: Path) -> int:
    """How long a .safetensors file is by its own table; -1 where that cannot be read.

    The format: 8 bytes with the length of a JSON table, little-endian; the table; the tensors, by ``data_offsets``.
    """
    with path.open("rb") as stream:
        begin = stream.read(8)
        length = int.from_bytes(begin, "little")
        if len(begin) < 8 or length > path.stat().st_size:
            return -1
        try:
            table = json.loads(stream.read(length))
            ends = [about["data_offsets"][1] for name, about in table.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return -1
    return 8 + length + max(ends, default=0)
