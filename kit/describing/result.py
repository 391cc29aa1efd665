"""A described model: nodes under one vocabulary, in canonical order, as JSON and as a card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.card import Card, Table, bytes_text
from kit.describing.layouts import channels_first
from kit.describing.vocabulary import UNKNOWN
from kit.describing.weights import Weight
from kit.errors import BadInput
from kit.record import explain_os_error, read_json

if TYPE_CHECKING:
    from kit.describing.difference import DescriptionDiff

FORMAT, VERSION = "kit-description", 1
_FRAMEWORKS = {"paddle": "Paddle", "tensorflow": "TensorFlow", "torch": "PyTorch"}


@dataclass(frozen=True)
class Port:
    """A value.

    Attributes:
        name: in this description.
        source: in the file.
        shape: as stored; None for an unknown rank, "?" for an unknown axis.
        layout: where the channels are: ``first``, ``last``, or "" where that is not known or means nothing.
    """

    name: str
    source: str
    dtype: str
    shape: tuple[int | str, ...] | None
    layout: str = ""

    @property
    def sizes(self) -> tuple[int | str, ...] | None:
        """The shape with the channels first."""
        return channels_first(self.shape, self.layout)

    def __str__(self) -> str:
        shape = "?" if self.shape is None else "x".join(map(str, self.shape)) or "scalar"
        return shape + (" NHWC" if self.layout == "last" else "")


@dataclass(frozen=True)
class Part:
    """One ONNX node.

    Attributes:
        name: in the file.
        onnx: its type, with the domain where that is not the standard one.
        source: the operator of the framework it was exported from; ``unknown`` where the file does not tell.
        target: the operator of CANN that ATC makes of it; "" where it has no parser for it.
    """

    name: str
    onnx: str
    source: str
    target: str


@dataclass(frozen=True)
class DescribedNode:
    """One operator.

    Attributes:
        operator: by the vocabulary.
        inputs: names of values, inputs and weights; small constants as numbers; "" for one left out.
        attributes: defaults filled in, axes counted with the channels first.
        parts: the ONNX nodes that it stands for.
        group: mark of what is usually computed together, such as ``convolution + activation #3``; or "".
        scope: names of the nodes whose bodies it lies in.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[Port, ...]
    attributes: dict[str, Any]
    parts: tuple[Part, ...]
    group: str = ""
    scope: tuple[str, ...] = ()

    def joined(self, which: str) -> str:
        """``onnx``, ``source`` or ``target`` of all parts: ``Conv+BatchNormalization``."""
        return "+".join(dict.fromkeys(filter(None, (getattr(part, which) for part in self.parts))))


@dataclass(frozen=True)
class Description(Card):
    """A model in neutral words. Two of them can be compared: ``description.diff(other)``.

    Attributes:
        file: name of the file.
        framework: ``paddle``, ``tensorflow``, ``torch`` or ``unknown``.
        producer: who wrote the file, in its own words.
        opset: of the standard operators.
        bound: the input sizes that shapes are for.
        inputs: of the model; their ``source`` is the name in the file.
        outputs: likewise.
        nodes: in canonical order; those in bodies of If, Loop and Scan after the others.
        weights: every stored constant that a node uses.
        layout_changes: Transpose nodes that only turn channels first into channels last or back.
        dropped: types of nodes that stand for nothing (copies, arithmetic on constants) -> how many.
        weights_read: False where only types and shapes of the constants are known.
    """

    file: str
    framework: str
    producer: str
    opset: int
    bound: dict[str, str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[DescribedNode, ...] = field(repr=False)
    weights: tuple[Weight, ...] = field(repr=False)
    layout_changes: tuple[str, ...]
    dropped: dict[str, int]
    weights_read: bool

    def diff(self, other: Description) -> DescriptionDiff:
        """What this has and ``other`` has not, node by node.

        Raises:
            BadInput: ``other`` is no Description.
        """
        from kit.describing.difference import difference

        return difference(self, other)

    def save(self, path: Path | str) -> Path:
        """Write it as JSON; it holds no path of this machine.

        Raises:
            BadInput: the file cannot be written.
        """
        path = Path(path)
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise explain_os_error(error, path) from error
        return path

    @classmethod
    def load(cls, path: Path | str) -> Description:
        """Read what ``save`` wrote.

        Raises:
            BadInput: there is no such file, or it is none of these, or of another version.
        """
        import cattrs

        path = Path(path)
        told = read_json(path, f"{path} is no JSON file.", "give a file that description.save(...) wrote")
        if not isinstance(told, dict) or (told.pop("format", ""), told.pop("version", 0)) != (FORMAT, VERSION):
            raise BadInput(f"{path} is no description of version {VERSION}.",
                           remedy="describe the model again with kit.describe(...)")
        converter = cattrs.Converter(forbid_extra_keys=True)
        converter.register_structure_hook_func(lambda hint: hint == int | str, lambda value, _: value)
        try:
            return converter.structure(told, cls)
        except Exception as error:  # cattrs raises groups of many kinds; all mean the same here
            raise BadInput(f"{path} is a damaged description.", remedy="describe the model again with "
                           "kit.describe(...)", detail=repr(error)) from error

    def title(self) -> str:
        came = f" from {_FRAMEWORKS[self.framework]}" if self.framework in _FRAMEWORKS else ""
        parts = sum(len(node.parts) for node in self.nodes)
        return f"{self.file}{came}: {parts} ONNX nodes are {len(self.nodes)} operators"

    def facts(self) -> dict[str, object]:
        sources = [part.source for node in self.nodes for part in node.parts]
        unknown = sources.count(UNKNOWN)
        groups = Counter(node.group.partition(" #")[0] for node in self.nodes if node.group)
        places = len({node.group for node in self.nodes if node.group})
        size = sum(weight_bytes(w) for w in self.weights)
        said = {
            "at": "; ".join(f"{name}={shape}" for name, shape in self.bound.items()),
            "operators": ", ".join(f"{name} {count}" for name, count in
                                   Counter(node.operator for node in self.nodes).most_common(8)),
            "layout": f"{len(self.layout_changes)} Transpose nodes only change the layout" if self.layout_changes
            else "channels in the same place all the way",
            "source operators": f"{len(sources) - unknown} of {len(sources)} can be told from the file",
            "usually computed together": f"{places} places: {', '.join(groups)}" if groups else "none found",
            "weights": f"{len(self.weights)}, {bytes_text(size)}" + ("" if self.weights_read else "; not read"),
        }
        if self.dropped:
            said["stand for nothing"] = ", ".join(f"{name} {count}" for name, count in self.dropped.items())
        return said

    def tables(self) -> Sequence[Table]:
        return (Table("Operators in canonical order", (
            "name", "operator", "ONNX", "source", "target (CANN)", "together", "result", "attributes"), tuple(
                (n.name, n.operator, n.joined("onnx"), n.joined("source"), n.joined("target"), n.group,
                 ", ".join(map(str, n.outputs)), attributes_text(n.attributes)) for n in self.nodes)),)


def attributes_text(attributes: dict[str, Any]) -> str:
    """``kernel=3,3 pads=1,1,1,1``."""
    return " ".join(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
                    for name, value in attributes.items())


def weight_bytes(weight: Weight) -> int:
    """How many bytes its numbers take."""
    from kit.inspection.graph import Tensor

    return Tensor(weight.source, weight.dtype, weight.shape, True).bytes
