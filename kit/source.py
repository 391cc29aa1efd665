"""What lies at a path: an ONNX file, or a model of Paddle, TensorFlow, TFLite, Keras, diffusers, OpenVINO or Ascend."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import BadInput

KINDS = {
    "onnx": "an .onnx file",
    "paddle": "a Paddle inference folder (inference.json or *.pdmodel, with *.pdiparams), or its graph file",
    "openvino": "an OpenVINO model (.xml with its .bin)",
    "savedmodel": "a TensorFlow SavedModel folder (saved_model.pb)",
    "keras": "a Keras model (.keras or .h5)",
    "graphdef": "a frozen TensorFlow graph (.pb)",
    "tflite": "a TFLite model (.tflite)",
    "om": "an .om that ATC built for an Ascend chip",
    "diffusers": "one sub-model's folder of a diffusers pipeline (config.json with *.safetensors)",
}

NAMES = {"paddle": "a Paddle model", "openvino": "an OpenVINO model", "savedmodel": "a TensorFlow SavedModel",
         "keras": "a Keras model", "graphdef": "a frozen TensorFlow graph", "tflite": "a TFLite model",
         "om": "an .om for an Ascend chip", "diffusers": "a part of a diffusers pipeline"}

#: Files that are a whole model by themselves: ending -> kind.
ENDINGS = {".keras": "keras", ".h5": "keras", ".hdf5": "keras", ".pb": "graphdef", ".tflite": "tflite", ".om": "om"}
# How such a file begins, where that is fixed: at which byte, and what stands there.
_MAGIC = {".keras": (0, b"PK"), ".h5": (0, b"\x89HDF"), ".hdf5": (0, b"\x89HDF"), ".tflite": (4, b"TFL3")}

BUNDLE = "bundle.json"
#: Classes of PyTorch models that the kit knows how to feed, as a sub-model's config.json names them.
DIFFUSERS = ("UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel")

_EXPORT = "export it first with kit.export({path!r})"
#: Kinds that kit.export takes, besides ONNX files and factories.
EXPORTABLE = ("paddle", "savedmodel", "keras", "graphdef", "tflite", "diffusers")
#: What to do where only an ONNX model will do.
TO_ONNX = {
    **dict.fromkeys(EXPORTABLE, _EXPORT),
    "openvino": "OpenVINO's format does not lead back: give the ONNX model that it was compiled from",
    "om": "an .om does not lead back: give the ONNX model that atc built it from",
}


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        kind: a key of ``KINDS``.
        path: what was asked for.
        graph: the file with the graph.
        weights: the file or folder with the parameters; None where the graph holds them.
    """

    kind: str
    path: Path
    graph: Path
    weights: Path | None = None

    @property
    def name(self) -> str:
        """A short name: the folder's where every model's file is called alike, else the file's."""
        stem = self.graph.stem
        plain = ("inference", "model", "saved_model", *(["config"] if self.kind == "diffusers" else []))
        return self.graph.resolve().parent.name if stem in plain else stem

    @property
    def folder(self) -> Path:
        """Where side files such as ``inference.yml`` lie."""
        return self.graph.parent

    @property
    def size(self) -> int:
        """Bytes on disk, of everything that belongs to it."""
        if self.kind == "onnx":
            from kit.model import Model

            return Model.open(self.graph).size
        files = [self.graph, *([self.weights] if self.weights else [])]
        return sum(file.stat().st_size for file in {
            file for part in files for file in (part.rglob("*") if part.is_dir() else [part]) if file.is_file()})

    def digest(self) -> str:
        """Of the graph and the weights."""
        from kit.record import digest

        parts = [digest(self.graph), digest(self.weights) if self.weights else ""]
        if self.kind == "onnx":
            from kit.model import Model

            parts = [Model.open(self.graph).digest()]
        return digest([self.kind, *parts])


def recognise(thing: Any) -> Source:
    """Say what ``thing`` is: a path, a Model, or a result that carries an ``artifact`` or a ``model``.

    Raises:
        BadInput: nothing there, nothing known, or a file of the pair is missing.
    """
    if isinstance(thing, Source):
        return thing
    for attribute in ("artifact", "model", "path"):  # what was compiled goes before what it was made from
        if not isinstance(thing, str | Path) and getattr(thing, attribute, None) is not None:
            return recognise(getattr(thing, attribute))
    path = Path(thing)
    if path.suffix == ".onnx":
        return Source("onnx", path, path)
    if path.is_dir():
        return _in_folder(path)
    if path.name == BUNDLE:
        _not_a_bundle(path.parent)
    if path.name == "config.json" and path.is_file() and (found := _diffusers(path.parent)):
        return found
    if path.suffix in (".json", ".pdmodel"):
        return _paddle(path, path)
    if path.suffix == ".xml":
        return _openvino(path, path)
    if path.name == "saved_model.pb":
        return _in_folder(path.parent)
    if path.suffix in ENDINGS and path.is_file():
        return _single(path, path)
    if path.suffix == ".pdiparams":
        return _in_folder(path.parent)
    state = "is of no known kind" if path.exists() else "does not exist"
    raise BadInput(f"{path} {state}.", remedy="give " + ", or ".join(KINDS.values()))


def _in_folder(folder: Path) -> Source:
    _not_a_bundle(folder)
    if (folder / "config.json").is_file() or (folder / "model_index.json").is_file():
        found = _diffusers(folder)
        if found:
            return found
    saved = folder / "saved_model.pb"
    if saved.is_file():
        variables = folder / "variables"
        return Source("savedmodel", folder, saved, variables if variables.is_dir() else None)
    graphs = [p for pattern in ("inference.json", "inference.pdmodel", "*.pdmodel", "*.json", "*.onnx", "*.xml",
                                  "*.tflite", "*.keras")
              for p in sorted(folder.glob(pattern)) if p.suffix != ".json" or _is_pir(p)]
    if not graphs:
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise BadInput(f"{folder} holds no model that the kit knows (found: {present}).",
                       remedy="give " + ", or ".join(KINDS.values()))
    graph = graphs[0]
    if graph.suffix == ".onnx":
        return Source("onnx", folder, graph)
    if graph.suffix in ENDINGS:
        return _single(folder, graph)
    return _openvino(folder, graph) if graph.suffix == ".xml" else _paddle(folder, graph)


def _diffusers(folder: Path) -> Source | None:
    """A sub-model of a diffusers pipeline; None where the folder holds something else."""
    config = folder / "config.json"
    if not config.is_file():
        parts = sorted(p.parent.name for p in folder.glob("*/config.json"))
        raise BadInput(f"{folder} is a whole diffusers pipeline, not one model.",
                       remedy=f"give the folder of one of its parts ({', '.join(parts) or 'there are none'}); "
                       "kit.families.diffusion takes the whole")
    about = None
    with contextlib.suppress(OSError, ValueError):
        about = json.loads(config.read_text(encoding="utf-8"))
    if not isinstance(about, dict) or not ("_diffusers_version" in about or "transformers_version" in about):
        return None
    name = about.get("_class_name") or next(iter(about.get("architectures") or ()), "model of no named class")
    if name not in DIFFUSERS:
        raise BadInput(f"{folder} holds a {name}, which the kit does not know how to feed.",
                       remedy=f"give one of {', '.join(DIFFUSERS)}; or write a factory and export 'file.py:factory' "
                       "with its inputs")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(f"{folder} has no weights beside config.json (*.safetensors).",
                       remedy="copy them there, or save the model again with save_pretrained(folder)")
    return Source("diffusers", folder, config, weights[0] if len(weights) == 1 else folder)


def _single(path: Path, graph: Path) -> Source:
    at, magic = _MAGIC.get(graph.suffix, (0, b""))
    with graph.open("rb") as stream:
        stream.seek(at)
        begin = stream.read(len(magic))
    if begin != magic:
        raise BadInput(f"{graph} is not {KINDS[ENDINGS[graph.suffix]]}: it begins with {begin!r}.",
                       remedy="copy or save it again; a large file fetched with git may be a pointer of Git LFS")
    return Source(ENDINGS[graph.suffix], path, graph)


def _paddle(path: Path, graph: Path) -> Source:
    return Source("paddle", path, graph, _beside(graph, ".pdiparams"))


def _openvino(path: Path, graph: Path) -> Source:
    return Source("openvino", path, graph, _beside(graph, ".bin"))


def _beside(graph: Path, ending: str) -> Path:
    weights = graph.with_suffix(ending)
    if not graph.is_file():
        raise BadInput(f"{graph} does not exist.", remedy="check the path")
    if not weights.is_file():
        raise BadInput(f"{graph} has no parameters beside it: {weights.name} is missing.",
                       remedy=f"copy {weights.name} into {graph.parent}, or save the model again")
    return weights


def _not_a_bundle(folder: Path) -> None:
    """A bundle holds a model, yet what it is for runs elsewhere: taking its ONNX file silently would mislead."""
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / BUNDLE).read_text(encoding="utf-8"))
        if isinstance(about, dict) and about.get("format") == "kit-ascend-bundle":
            raise BadInput(f"{folder} is a bundle for {about.get('soc_version')}, not built here.",
                           remedy="finish it on the box with python3 run_on_box.py and give kit.ascend.load_results("
                           "...); or give compiled.model to run the model in ONNX Runtime")


def _is_pir(path: Path) -> bool:
    """A PIR program starts with its own keys; any other .json (labels, configurations) does not."""
    with path.open("rb") as stream:
        return b"base_code" in stream.read(200)
