"""A place of a graph cut out, to become one node: what goes in and out, and what makes two places the same operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.exporting.operator_patterns import Wiring

_SMALL = 64  # numbers of an integer constant that still goes into the body


@dataclass
class Cut:
    """A place cut out of the graph.

    Attributes:
        nodes: in order.
        inputs: what goes in: values first, then weights.
        outputs: what is read outside.
        constants: number of a node and of its input -> the constant there. One an input, even where two share theirs:
            that sizes are equal by chance does not make another operator.
        form: what must be alike in places of one operator: operators, wiring, types of settings.
        settings: number of a node (of a constant: -1, -2, ...), name and value of what may differ.
    """

    nodes: list[Any]
    inputs: list[str]
    outputs: list[str]
    constants: dict[tuple[int, int], Any]
    form: str = ""
    settings: tuple[tuple[int, str, Any], ...] = ()


def cut_out(graph: Any, wiring: Wiring, names: frozenset[str]) -> Cut | None:
    """Cut a place out of a graph; None where it cannot be one node, because of what stands between its nodes."""
    nodes = [node for node in wiring.nodes if node.output[0] in names]
    made = {name for node in nodes for name in node.output if name}
    if any(attribute.HasField("g") or attribute.graphs for node in nodes for attribute in node.attribute):
        return None  # a body inside may read anything
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken = list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in made))
    inside = {name: weights[name] for name in taken if name in weights and _belongs(weights[name], name, nodes)}
    given = [name for name in taken if name not in inside]
    constants = {(at, slot): inside[name] for at, node in enumerate(nodes) for slot, name in enumerate(node.input)
                 if name in inside}
    outputs = [name for node in nodes for name in node.output if name and (
        name in wiring.final or any(reader.output[0] not in names for reader in wiring.readers.get(name, ())))]
    if not outputs or _loops(wiring, made, [name for name in given if name not in weights]):
        return None
    cut = Cut(nodes, sorted(given, key=lambda name: name in weights), outputs, constants)
    _describe(cut)
    return cut


def _belongs(tensor: Any, name: str, nodes: Sequence[Any]) -> bool:
    """Whether a constant is part of what the operator does, not a weight that it is given."""
    count = 1
    for side in tensor.dims:
        count *= side
    if len(tensor.dims) > 1 or tensor.data_location == 1:
        return False
    if tensor.data_type in (6, 7, 9):  # int32, int64, bool: axes and shapes
        return count <= _SMALL
    if tensor.data_type != 1:
        return False
    if count == 1 and not name.endswith((".weight", ".bias")):
        return True
    # Scale and shift of an InstanceNormalization that stands for a normalisation over groups: ones and zeros.
    readers = [node for node in nodes if name in node.input]
    return count <= _SMALL and all(node.op_type == "InstanceNormalization" for node in readers) \
        and len(set(numbers(tensor))) == 1


def _loops(wiring: Wiring, made: set[str], given: Sequence[str]) -> bool:
    """Whether an input of the place depends on what the place computes: then it cannot be one node."""
    seen, todo = set(), list(given)
    while todo:
        name = todo.pop()
        if name in made:
            return True
        node = wiring.maker.get(name)
        if node is not None and name not in seen:
            seen.add(name)
            todo += [name for name in node.input if name]
    return False


def _describe(cut: Cut) -> None:
    """Find the place's form, and the values of its settings apart from it."""
    index = {name: f"i{at}" for at, name in enumerate(cut.inputs)}
    settings: list[tuple[int, str, Any]] = []
    said = [f"{tensor.data_type} {len(tensor.dims)}" for tensor in cut.constants.values()]
    for at, tensor in enumerate(cut.constants.values()):
        settings.append((-1 - at, "value", tuple(numbers(tensor))))
    for at, node in enumerate(cut.nodes):
        index |= {name: f"n{at}.{place}" for place, name in enumerate(node.output)}
        read = ["c" if (at, slot) in cut.constants else index.get(name, "") for slot, name in enumerate(node.input)]
        said.append(f"{node.domain}::{node.op_type}({','.join(read)})")
        for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
            said.append(f"{attribute.name}:{attribute.type}")
            settings.append((at, attribute.name, attribute.SerializeToString(deterministic=True)))
    said.append(",".join(index[name] for name in cut.outputs))
    cut.form, cut.settings = ";".join(said), tuple(settings)


def numbers(tensor: Any) -> list[Any]:
    """A constant's values, as Python numbers."""
    import onnx

    return onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()


def field_of(tensor: Any) -> str:
    """The attribute of a Constant that holds such a constant; unlike a tensor, it can be a function's attribute."""
    kind = "float" if tensor.data_type == 1 else "int"
    return f"value_{kind}s" if tensor.dims else f"value_{kind}"


def plain(tensor: Any) -> Any:
    """A constant as that attribute holds it."""
    found = numbers(tensor)
    return found if tensor.dims else found[0]
