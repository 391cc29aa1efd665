"""A model as the kit hands it from stage to stage: an ONNX file, what goes in and out, and where it came from.

Reading one never loads its weights: external data stays on the disk, and a model with the weights inside the file
is let go of after its description is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.card import Card, Table, bytes_text
from kit.errors import BadInput
from kit.need import need
from kit.record import digest, explain_os_error


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: numpy dtype name and shape; a word or "?" stands for a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Step:
    """One step of a model's lineage: the stage, its fingerprint and a sentence about it."""

    stage: str
    key: str
    note: str


@dataclass(frozen=True)
class Model(Card):
    """An ONNX file and its description. Make one with ``Model.open(path)``.

    Attributes:
        path: the .onnx file.
        inputs: what must be fed (initializers are not listed).
        outputs: what comes back.
        opset: version of the default operator domain.
        domains: version of every domain.
        ir_version: of the file.
        producer: who wrote it.
        metadata: the file's own key-value pairs.
        nodes: number of nodes in the main graph.
        size: bytes on disk, external data included.
        lineage: the steps that led here, oldest first.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    domains: dict[str, int]
    ir_version: int
    producer: str
    metadata: dict[str, str] = field(repr=False)
    nodes: int
    size: int
    lineage: tuple[Step, ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, path: Path | str | Model, lineage: tuple[Step, ...] = ()) -> Model:
        """Describe the ONNX file at ``path``; a Model is returned as it is.

        Raises:
            BadInput: the file is missing, truncated, not ONNX, or its external data is missing.
        """
        if isinstance(path, Model):
            return path
        path = Path(path)
        proto = _light(path)
        opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
        graph = proto.graph
        stored = {tensor.name for tensor in graph.initializer}
        return cls(
            path=path,
            inputs=tuple(_spec(value) for value in graph.input if value.name not in stored),
            outputs=tuple(_spec(value) for value in graph.output),
            opset=opsets.get("ai.onnx", 0),
            domains=opsets,
            ir_version=proto.ir_version,
            producer=" ".join(filter(None, [proto.producer_name, proto.producer_version])),
            metadata={entry.key: entry.value for entry in proto.metadata_props},
            nodes=len(graph.node),
            size=path.stat().st_size + sum(p.stat().st_size for p in external_files(path, proto)),
            lineage=lineage,
        )

    def digest(self) -> str:
        """Of the graph and every weight, external ones included."""
        hasher = hashlib.blake2b(digest_size=16)
        for part in (self.path, *external_files(self.path)):
            hasher.update(digest(part).encode())
        return hasher.hexdigest()

    def derived(self, path: Path, stage: str, note: str, key: str = "") -> Model:
        """Describe ``path`` as made from this model by ``stage``."""
        return Model.open(path, lineage=(*self.lineage, Step(stage, key, note)))

    def title(self) -> str:
        return f"{self.path.name}: opset {self.opset}, {self.nodes} nodes, {bytes_text(self.size)}"

    def facts(self) -> dict[str, object]:
        return {
            "inputs": "; ".join(map(str, self.inputs)),
            "outputs": "; ".join(map(str, self.outputs)),
            "IR version": self.ir_version,
            "made by": self.producer or "unknown",
            **{f"domain {name}": version for name, version in self.domains.items() if name != "ai.onnx"},
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((step.stage, step.note) for step in self.lineage)
        return (Table("Lineage", ("stage", "what it did"), rows),) if rows else ()


def read(path: Path | str, *, weights: bool = True) -> Any:
    """The ``onnx.ModelProto`` of a file.

    Args:
        weights: load external data too.

    Raises:
        BadInput: the file is missing, truncated or not ONNX; names it.
    """
    onnx = need("onnx", to="read an ONNX file", extra="base")
    from google.protobuf.message import DecodeError

    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path} is empty.", remedy="export or copy it again")
        proto = onnx.load(str(path), load_external_data=False)
        check_whole(path, proto)
        if weights:
            from onnx.external_data_helper import load_external_data_for_model

            load_external_data_for_model(proto, str(path.parent))
        return proto
    except OSError as error:
        raise explain_os_error(error, path) from error
    except DecodeError as error:
        raise BadInput(f"{path} ({bytes_text(path.stat().st_size)}) is not a whole ONNX file: it is cut off, or of "
                       "another format.", remedy="export or copy it again and compare the sizes",
                       detail=str(error)) from error


def check_whole(path: Path, proto: Any) -> None:
    """Refuse a file without a graph, and one whose external weights are missing.

    Raises:
        BadInput: names the file.
    """
    if not proto.graph.node and not proto.graph.output:
        raise BadInput(f"{path} holds no graph: it is not an ONNX model, or it was cut off.",
                       remedy="export or copy it again")
    missing = [p for p in external_files(path, proto) if not p.is_file()]
    if missing:
        raise BadInput(f"{path} keeps weights in {missing[0].name}, which is not beside it.",
                       remedy=f"copy {', '.join(p.name for p in missing)} into {path.parent}")


def external_files(path: Path, proto: Any = None) -> list[Path]:
    """The files beside ``path`` that hold its external weights, in order of name."""
    if proto is None:
        proto = _light(path)
    names = {entry.value for tensor in _tensors(proto.graph) for entry in tensor.external_data
             if entry.key == "location"}
    return [path.parent / name for name in sorted(names - {path.name})]  # a light graph refers to its own file too


def operator_counts(path: Path) -> dict[str, int]:
    """How often each operator occurs in a file's main graph; those of other domains as ``domain::Operator``."""
    nodes = _light(path).graph.node
    return dict(Counter(f"{n.domain}::{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in nodes))


def _light(path: Path) -> Any:
    """The graph of a file without its large weights: parsing those takes twice their room."""
    from kit.weights_file import read_light  # stands on this module

    return read_light(path)


def _tensors(graph: Any):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _spec(value: Any) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except (KeyError, TypeError):
        dtype = "unknown"
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim)
    return TensorSpec(value.name, dtype, shape)
