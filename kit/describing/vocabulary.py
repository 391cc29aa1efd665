"""One name for every operator: from ONNX, from the framework the model came from, and to Ascend.

``vocabulary.json`` and ``fusions.json`` are meant to be read. Where the source framework's operator cannot be told from
what its exporter left in the file, it is ``unknown``: nothing is guessed.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kit.inspection.graph import Node

_HERE = Path(__file__).parent
UNKNOWN = "unknown"
FRAMEWORKS = {"paddle2onnx": "paddle", "tf2onnx": "tensorflow", "pytorch": "torch"}
_PADDLE = re.compile(r"p2o\.pd_op\.(\w+?)\.\d+\.\d+$")
_ARITHMETIC = ("add", "subtract", "multiply", "divide")  # constant folding turns one into another
_ATEN = re.compile(r"aten\.(\w+)\.\w+")


@functools.cache
def words(name: str = "vocabulary") -> dict[str, Any]:
    """A data file: ``vocabulary`` or ``fusions``."""
    return json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def _neutral() -> dict[str, str]:
    return {onnx: name for name, entry in words()["operators"].items() for onnx in entry["onnx"]}


@functools.cache
def _tensorflow() -> dict[str, str]:
    """Last part of a node's name, in small letters -> TensorFlow operator."""
    known = {}
    for entry in words()["operators"].values():
        for operator, forms in entry.get("tensorflow", {}).items():
            known.update(dict.fromkeys((operator.lower(), *forms), operator))
    return known


def neutral(label: str) -> str:
    """``Conv`` -> ``convolution``; of another domain as ``domain::Operator`` unless the vocabulary has it."""
    if label in _neutral() or "::" in label:
        return _neutral().get(label, label)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", label).lower()


def framework(producer: str, names: Iterable[str]) -> str:
    """``paddle``, ``tensorflow``, ``torch`` or ``unknown``: by who wrote the file, else by the names in it."""
    for writer, found in FRAMEWORKS.items():
        if producer.startswith(writer):
            return found
    return "paddle" if any(name.startswith("p2o.") for name in names) else UNKNOWN


def source_operator(node: Node, names: Iterable[str], came_from: str) -> str:
    """The source framework's operator that a node belongs to.

    Args:
        names: every name of the node's results, those that dropped copies gave them included.
        came_from: what ``framework`` says.
    """
    if came_from == "paddle":
        found = next((match[1] for name in names if (match := _PADDLE.match(name))), None)
        return found or UNKNOWN
    if came_from == "tensorflow":
        if re.search(r"__\d+$", node.name):
            return "added by tf2onnx"
        last = re.sub(r"_\d+$", "", node.name.rpartition("/")[2]).lower()
        found = _tensorflow().get(last, UNKNOWN)
        known = words()["operators"].get(neutral(node.label), {}).get("tensorflow", {})
        # A convolution into which tf2onnx folded a multiplication has the multiplication's name.
        return found if found in known or neutral(node.label) in _ARITHMETIC else UNKNOWN
    if came_from == "torch":
        told = [entry.value for entry in getattr(node.proto, "metadata_props", ())
                if entry.key in ("namespace", "pkg.torch.onnx.class_hierarchy")]
        found = [name for text in told for name in _ATEN.findall(text)]
        return found[-1] if found else UNKNOWN
    return UNKNOWN


def target_operator(node: Node) -> str:
    """What CANN calls it; several joined by ``+`` where it becomes several; "" where ATC has no parser for it."""
    from kit.targets.ascend import facts

    table = facts("operators")
    entry = table["other_domains" if node.domain else "operators"].get(node.label, {})
    names = entry.get("cann", [])
    shape = next((t.shape for t in node.inputs if t is not None and t.shape), ())
    told = "3D" if len(shape) == 5 else "2D"
    # The list has the operators of every lowering: the one called alike is the usual one.
    alike = [name for name in names if node.operator.startswith(name) or name.startswith(node.operator)]
    by_rank = [name for name in names if re.search(r"[23]D", name) and told in name]
    return "+".join(by_rank[:1] if node.operator.startswith("Conv") and by_rank else alike[:1] or names)
