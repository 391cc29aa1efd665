"""Operators of one's own in an exported file, each with its standard form as a function, so that anything runs it.

``{"GroupNorm+SiLU": "groupnorm_silu"}`` makes every such place one node ``kit.custom::groupnorm_silu``; the file holds
what the operator stands for as a model-local function. A runtime with a kernel of that name uses it; every other one
runs the function's body, and `kit.fix` can write it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.errors import BadInput
from kit.exporting.operator_patterns import WORDS, Wiring, of_class, of_pattern
from kit.exporting.operator_places import Cut, cut_out, field_of, plain

DOMAIN = "kit.custom"
FORM = 'operators={"GroupNorm+SiLU": "groupnorm_silu"}: a module class, or a pattern of operators joined by "+", and ' \
    'the name of the operator, or "domain::name"'
_NAME = re.compile(r"(?:(?P<domain>[A-Za-z][\w.]*)::)?(?P<name>[A-Za-z_]\w*)")
_KEY = re.compile(r"\w+(\s*\+\s*\w+)*")


@dataclass(frozen=True)
class CustomOperator:
    """One custom operator in a file.

    Attributes:
        asked: class or pattern.
        operator: ``domain::name``.
        count: how many nodes.
        inputs: how many values each takes.
        attributes: settings in which the places differ.
        body: operators of its standard form.
    """

    asked: str
    operator: str
    count: int
    inputs: int
    attributes: tuple[str, ...]
    body: tuple[str, ...]


@dataclass(frozen=True)
class Outlined:
    """What was made, and sentences for the reader."""

    rows: tuple[CustomOperator, ...] = ()
    notes: tuple[str, ...] = ()


def pairs_of(operators: Mapping[str, str] | Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """A mapping, or pairs as they are stored, as checked pairs.

    Raises:
        BadInput: as for ``parse``.
    """
    pairs = tuple(operators.items() if isinstance(operators, Mapping) else operators)
    parse(pairs)
    return tuple((key, name) for key, name in pairs)


def parse(pairs: Iterable[Sequence[str]]) -> tuple[tuple[str, str, str], ...]:
    """Class or pattern, domain and name of each pair.

    Raises:
        BadInput: of another form, a domain that is ONNX's own, or a key given twice.
    """
    found: list[tuple[str, str, str]] = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BadInput(f"{pair!r} does not map anything to an operator.", remedy=f"write {FORM}")
        key, name = pair
        match = _NAME.fullmatch(name)
        if not _KEY.fullmatch(key) or not match:
            raise BadInput(f"{key!r}: {name!r} does not map a class or pattern to an operator.", remedy=f"write {FORM}")
        domain = match["domain"] or DOMAIN
        if domain.startswith(("ai.onnx", "com.microsoft")):
            raise BadInput(f"{name!r} names the domain {domain}, whose operators are defined elsewhere.",
                           remedy="give a domain of your own, or none")
        if key in [known for known, _, _ in found]:
            raise BadInput(f"{key!r} is mapped twice.", remedy="give each class or pattern once")
        found.append((key, domain, match["name"]))
    return tuple(found)


def outline(proto: Any, operators: Sequence[Sequence[str]], modules: Mapping[str, str]) -> tuple[Any, Outlined]:
    """Replace every place by one node, in place.

    Args:
        proto: the model; weights may be references.
        operators: pairs, see `parse`; earlier ones go first where places overlap.
        modules: place of a module -> its class.

    Returns:
        The model, and what was made.

    Raises:
        BadInput: a pair that is found nowhere: a typing error should not pass unseen.
    """
    rows: list[CustomOperator] = []
    notes: list[str] = []
    inferred = _inferred(proto) if operators else {}
    for key, domain, name in parse(operators):
        wiring = Wiring(proto.graph)
        known = "+" not in key and key in modules.values()
        places = of_class(wiring, modules, key) if known else of_pattern(wiring, key)
        if not places:
            kinds = sorted(set(modules.values()))
            raise BadInput(f"{key!r} is nowhere in the model: it is no module's class and no pattern in the graph.",
                           remedy=f"words for patterns are {', '.join([*WORDS, 'LayerNorm'])} and ONNX operators; "
                           f"classes of modules here: {', '.join(kinds[:12])}{', ...' if len(kinds) > 12 else ''}",
                           detail="\n".join(kinds))
        cuts = [cut for nodes in places if (cut := cut_out(proto.graph, wiring, nodes))]
        if len(cuts) < len(places):
            notes.append(f"{len(places) - len(cuts)} place(s) of {key} were left as they are: other nodes stand "
                         "between theirs, or read what is computed inside")
        rows += _replace(proto, key, domain, name, cuts)
    foreign = {row.operator for row in rows}
    for node in proto.graph.node:  # no tool can tell the types and shapes behind an operator that it does not know
        if f"{node.domain}::{node.op_type}" in foreign:
            proto.graph.value_info.extend(inferred[name] for name in node.output if name in inferred)
    return proto, Outlined(tuple(rows), tuple(notes))


def _inferred(proto: Any) -> dict[str, Any]:
    """Type and shape of every value, by name, as far as onnx can tell."""
    import onnx

    known = {value.name for value in (*proto.graph.value_info, *proto.graph.output)}
    return {value.name: value for value in onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.value_info
            if value.name not in known}


def _replace(proto: Any, key: str, domain: str, name: str, cuts: Sequence[Cut]) -> list[CustomOperator]:
    """A function for every form, a node for every place."""
    import onnx

    forms: dict[str, list[Cut]] = {}
    for cut in cuts:
        forms.setdefault(cut.form, []).append(cut)
    taken = {(function.domain, function.name) for function in proto.functions}
    names = {node.name for node in proto.graph.node}
    rows, gone, fresh = [], set(), []
    for alike in forms.values():
        own, at = name, 1
        while (domain, own) in taken:
            at += 1
            own = f"{name}_{at}"
        taken.add((domain, own))
        function, attributes = _function(proto, domain, own, alike)
        proto.functions.append(function)
        for cut in alike:
            gone |= {node.output[0] for node in cut.nodes}
            label, more = f"{cut.nodes[-1].name.rpartition('/')[0]}/{own}", 0
            while (called := f"{label}_{more}" if more else label) in names:  # a module may be called several times
                more += 1
            names.add(called)
            node = onnx.helper.make_node(own, cut.inputs, cut.outputs, domain=domain, name=called)
            node.attribute.extend(_own_attributes(cut, attributes))
            fresh.append(node)
        rows.append(CustomOperator(key, f"{domain}::{own}", len(alike), len(alike[0].inputs),
                                   tuple(attributes.values()), tuple(node.op_type for node in alike[0].nodes)))
    if fresh:
        _exchange(proto, gone, fresh)
        if domain not in [entry.domain for entry in proto.opset_import]:
            proto.opset_import.append(onnx.helper.make_opsetid(domain, 1))
        proto.ir_version = max(proto.ir_version, 8)  # functions came with it
    return rows


def _function(proto: Any, domain: str, name: str, alike: Sequence[Cut]) -> tuple[Any, dict[tuple[int, str], str]]:
    """The standard form of places that are alike; settings in which they differ become attributes."""
    import onnx

    first = alike[0]
    differing = [(at, label) for place, (at, label, value) in enumerate(first.settings)
                 if any(cut.settings[place][2] != value for cut in alike)]
    attributes: dict[tuple[int, str], str] = {}
    for at, label in differing:
        word = label if at >= 0 else _role(first, -1 - at)
        own, more = word, 1
        while own in attributes.values():
            more += 1
            own = f"{word}_{more}"
        attributes[at, label] = own
    words = {value: f"input_{at}" for at, value in enumerate(first.inputs)}
    body = []
    inside = {}
    for at, (slot, tensor) in enumerate(first.constants.items()):
        inside[slot] = f"constant_{at}"
        node = onnx.helper.make_node("Constant", [], [inside[slot]], **{field_of(tensor): plain(tensor)})
        if (-1 - at, "value") in attributes:
            _refer(node.attribute[0], attributes[-1 - at, "value"])
        body.append(node)
    for at, node in enumerate(first.nodes):
        words |= {value: f"value_{at}_{place}" for place, value in enumerate(node.output) if value}
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.op_type}_{at}"
        copy.input[:] = [inside.get((at, slot), words.get(value, "")) for slot, value in enumerate(node.input)]
        copy.output[:] = [words.get(value, "") for value in node.output]
        for attribute in copy.attribute:
            if (at, attribute.name) in attributes:
                _refer(attribute, attributes[at, attribute.name])
        body.append(copy)
    used = {node.domain for node in body}
    imports = [entry for entry in proto.opset_import if entry.domain in used | {""}]
    return onnx.helper.make_function(domain, name, [words[value] for value in first.inputs],
                                     [words[value] for value in first.outputs], body, imports,
                                     list(attributes.values())), attributes


def _refer(attribute: Any, name: str) -> None:
    """Let a node of a function take a setting from the function's own attribute ``name``."""
    own, kind = attribute.name, attribute.type
    attribute.Clear()
    attribute.name, attribute.type, attribute.ref_attr_name = own, kind, name


def _own_attributes(cut: Cut, attributes: Mapping[tuple[int, str], str]) -> list[Any]:
    import onnx

    found = []
    tensors = list(cut.constants.values())
    for (at, label), own in attributes.items():
        if at < 0:
            found.append(onnx.helper.make_attribute(own, plain(tensors[-1 - at])))
        else:
            attribute = onnx.AttributeProto()
            attribute.CopyFrom(next(entry for entry in cut.nodes[at].attribute if entry.name == label))
            attribute.name = own
            found.append(attribute)
    return found


def _exchange(proto: Any, gone: set[str], fresh: Sequence[Any]) -> None:
    """Take nodes out and put others in, in an order in which every value is made before it is read."""
    graph = proto.graph
    waiting = [*(node for node in graph.node if node.output[0] not in gone), *fresh]
    maker = {name: at for at, node in enumerate(waiting) for name in node.output if name}
    place = {name: at for at, node in enumerate(graph.node) for name in node.output}
    state: dict[int, bool] = {}
    order: list[Any] = []
    for start in sorted(range(len(waiting)), key=lambda at: place[waiting[at].output[0]]):
        todo = [(start, False)]
        while todo:
            at, ready = todo.pop()
            if ready:
                order.append(waiting[at])
            elif at not in state:
                state[at] = True
                todo.append((at, True))
                todo += [(maker[name], False) for name in _reads(waiting[at]) if name in maker]
    copies = [type(node).FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(copies)
    read = {name for node in graph.node for name in _reads(node)} | {value.name for value in graph.output}
    made = {name for node in graph.node for name in node.output}
    for kept, unused in ((graph.initializer, read), (graph.value_info, made | read)):
        for at in reversed(range(len(kept))):
            if kept[at].name not in unused:
                del kept[at]


def _reads(node: Any) -> list[str]:
    """What a node reads, in bodies inside it too."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            found += [name for inner in graph.node for name in _reads(inner)]
            found += [value.name for value in graph.output]
    return found


def _role(cut: Cut, at: int) -> str:
    """A word for a constant in which places differ: what its reader calls it."""
    node, slot = list(cut.constants)[at]
    kind = cut.nodes[node].op_type
    return {("Reshape", 1): "shape", ("Slice", 1): "starts", ("Slice", 2): "ends"}.get((kind, slot),
                                                                                     f"{kind.lower()}_constant")
