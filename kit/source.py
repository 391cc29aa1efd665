"""What lies at a path: an ONNX file, a Paddle inference model; later issues' formats join the table here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import BadInput

KINDS = {
    "onnx": "an .onnx file",
    "paddle": "a Paddle inference folder (inference.json or *.pdmodel, with *.pdiparams), or its graph file",
}


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        kind: a key of ``KINDS``.
        path: what was asked for.
        graph: the file with the graph.
        weights: the file with the parameters; None where the graph holds them.
    """

    kind: str
    path: Path
    graph: Path
    weights: Path | None = None

    @property
    def name(self) -> str:
        """A short name: the folder's for ``inference.*`` and ``model.*``, the file's otherwise."""
        stem = self.graph.stem
        return self.graph.resolve().parent.name if stem in ("inference", "model") else stem

    @property
    def folder(self) -> Path:
        """Where side files such as ``inference.yml`` lie."""
        return self.graph.parent

    def digest(self) -> str:
        """Of the graph and the weights."""
        from kit.record import digest

        parts = [digest(self.graph), digest(self.weights) if self.weights else ""]
        if self.kind == "onnx":
            from kit.model import Model

            parts = [Model.open(self.graph).digest()]
        return digest([self.kind, *parts])


def recognise(thing: Any) -> Source:
    """Say what ``thing`` is: a path, a Model, or a result that carries a ``model``.

    Raises:
        BadInput: nothing there, nothing known, or a file of the pair is missing.
    """
    if isinstance(thing, Source):
        return thing
    for attribute in ("model", "path"):
        if hasattr(thing, attribute) and not isinstance(thing, str | Path):
            return recognise(getattr(thing, attribute))
    path = Path(thing)
    if path.suffix == ".onnx":
        return Source("onnx", path, path)
    if path.is_dir():
        return _in_folder(path)
    if path.suffix in (".json", ".pdmodel"):
        return _paddle(path, path)
    if path.suffix == ".pdiparams":
        return _in_folder(path.parent)
    state = "is of no known kind" if path.exists() else "does not exist"
    raise BadInput(f"{path} {state}.", remedy="give " + ", or ".join(KINDS.values()))


def _in_folder(folder: Path) -> Source:
    graphs = [p for pattern in ("inference.json", "inference.pdmodel", "*.pdmodel", "*.json", "*.onnx")
              for p in sorted(folder.glob(pattern)) if p.suffix != ".json" or _is_pir(p)]
    if not graphs:
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise BadInput(f"{folder} holds no model that the kit knows (found: {present}).",
                       remedy="give " + ", or ".join(KINDS.values()))
    graph = graphs[0]
    return Source("onnx", folder, graph) if graph.suffix == ".onnx" else _paddle(folder, graph)


def _paddle(path: Path, graph: Path) -> Source:
    weights = graph.with_suffix(".pdiparams")
    if not graph.is_file():
        raise BadInput(f"{graph} does not exist.", remedy="check the path")
    if not weights.is_file():
        raise BadInput(f"{graph} has no parameters beside it: {weights.name} is missing.",
                       remedy=f"copy {weights.name} into {graph.parent}, or save the model again")
    return Source("paddle", path, graph, weights)


def _is_pir(path: Path) -> bool:
    """A PIR program starts with its own keys; any other .json (labels, configurations) does not."""
    with path.open("rb") as stream:
        return b"base_code" in stream.read(200)
