"""Where a custom operator stands in a graph: the nodes of a module's class, or of a pattern such as ``GroupNorm+SiLU``.

A pattern is a chain of words joined by ``+``. A word is one of `WORDS`, whose standard-operator forms PyTorch's
exporters write, or the name of an ONNX operator; between two words nothing else reads the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """One place: names of outputs stand for nodes, since every node has one and no two have the same."""

    nodes: frozenset[str]
    given: str
    result: str


class Wiring:
    """Who makes and who reads each value of a graph."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.final = {value.name for value in graph.output}

    def only(self, value: str, kind: str) -> Any:
        """The one node that reads a value, if it is of that kind."""
        found = self.readers.get(value, [])
        return found[0] if len(found) == 1 and found[0].op_type == kind and value not in self.final else None


def of_class(wiring: Wiring, modules: Mapping[str, str], name: str) -> list[frozenset[str]]:
    """The nodes of every module of a class, by the places in their names; a module inside another is part of it."""
    places: list[str] = []
    for place in sorted((place for place, kind in modules.items() if kind == name), key=len):
        if not any(place.startswith(f"{outer}.") for outer in places):
            places.append(place)
    found: dict[str, set[str]] = {}
    for node in wiring.nodes:
        at = node.name.strip("/").rpartition("/")[0].replace("/", ".")
        for place in places:
            if at == place or at.startswith(f"{place}."):
                found.setdefault(place, set()).add(node.output[0])
    return [frozenset(nodes) for nodes in found.values()]


def of_pattern(wiring: Wiring, pattern: str) -> list[frozenset[str]]:
    """The nodes of every place of a pattern."""
    first, *rest = (word.strip() for word in pattern.split("+"))
    taken: set[str] = set()
    found = []
    for node in wiring.nodes:
        place = _match(wiring, node, first)
        nodes = set(place.nodes) if place else set()
        for word in rest:
            if place is None:
                break
            readers = wiring.readers.get(place.result, [])
            following = [match for reader in readers if (match := _match(wiring, reader, word))
                         and match.given == place.result]
            place = next((match for match in following if place.result not in wiring.final
                          and all(reader.output[0] in match.nodes for reader in readers)), None)
            nodes |= place.nodes if place else set()
        if place and not nodes & taken:
            taken |= nodes
            found.append(frozenset(nodes))
    return found


def _match(wiring: Wiring, node: Any, word: str) -> Found | None:
    if word in WORDS and (found := WORDS[word](wiring, node)):
        return found
    kind = _ONE.get(word, word)
    if node.op_type == kind and len(node.output) >= 1 and node.input:
        return Found(frozenset({node.output[0]}), node.input[0], node.output[0])
    return None


def _silu(wiring: Wiring, node: Any) -> Found | None:
    if node.op_type != "Sigmoid":
        return None
    product = wiring.only(node.output[0], "Mul")
    if product is None or node.input[0] not in product.input:
        return None
    return Found(frozenset({node.output[0], product.output[0]}), node.input[0], product.output[0])


def _gelu(wiring: Wiring, node: Any) -> Found | None:
    """By the error function: Erf of x / sqrt 2, plus 1, then times x and times 0.5 in either order."""
    if node.op_type not in ("Div", "Mul"):
        return None
    error = wiring.only(node.output[0], "Erf")
    plus = wiring.only(error.output[0], "Add") if error else None
    times = wiring.only(plus.output[0], "Mul") if plus else None
    if times is None:
        return None
    nodes, given = {node.output[0], error.output[0], plus.output[0], times.output[0]}, node.input[0]
    other = next(name for name in times.input if name != plus.output[0])
    half = wiring.maker.get(other)
    if half is None and other != given:  # times 0.5 first, then times x
        last = wiring.only(times.output[0], "Mul")
        if last is None or given not in last.input:
            return None
        return Found(frozenset({*nodes, last.output[0]}), given, last.output[0])
    if other != given:
        if half is None or half.op_type != "Mul" or given not in half.input or not wiring.only(other, "Mul"):
            return None
        return Found(frozenset({*nodes, other}), given, times.output[0])
    last = wiring.only(times.output[0], "Mul")
    return Found(frozenset({*nodes, last.output[0]}), given, last.output[0]) if last else None


def _group_norm(wiring: Wiring, node: Any) -> Found | None:
    """Reshape to groups, InstanceNormalization, Reshape back, then scale and shift."""
    if node.op_type != "Reshape":
        return None
    norm = wiring.only(node.output[0], "InstanceNormalization")
    back = wiring.only(norm.output[0], "Reshape") if norm else None
    if back is None:
        return None
    nodes = {node.output[0], norm.output[0], back.output[0]}
    shape = wiring.maker.get(back.input[1])
    if shape is not None:
        if shape.op_type != "Shape" or shape.input[0] != node.input[0]:
            return None
        if wiring.only(shape.output[0], "Reshape"):
            nodes.add(shape.output[0])
    result = back.output[0]
    for kind in ("Mul", "Add"):  # left out where the layer has no weights of its own
        following = wiring.only(result, kind)
        if following is None or any(name in wiring.maker for name in following.input if name != result):
            break
        result = following.output[0]
        nodes.add(result)
    return Found(frozenset(nodes), node.input[0], result)


#: Word -> how its form is found from its first node.
WORDS: dict[str, Callable[[Wiring, Any], Found | None]] = {
    "SiLU": _silu, "GELU": _gelu, "GroupNorm": _group_norm}
# Words for which ONNX may have one operator.
_ONE = {"LayerNorm": "LayerNormalization", "GELU": "Gelu", "GroupNorm": "GroupNormalization"}
