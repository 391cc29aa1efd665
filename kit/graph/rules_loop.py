"""Writes control flow out where it is decided ahead.

    Loop or Scan that runs a known number of times -> its body that many times
    If with a constant condition                   -> the branch taken

Few compilers take a Loop at all (ATC has no parser for one), and one that is gone is optimised like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.inlining import copy, count, prepare, stand_in
from kit.graph.rule import Rule, Setting
from kit.graph.trips import Trips, loop_trips, scan_trips
from kit.graph.values import Builder, constant, is_op, shape

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_NODES = 2000


def _trips(node: ir.Node, setting: Setting) -> Trips:
    return loop_trips(node, setting.version) if node.op_type == "Loop" else scan_trips(node, _axes(node, "input"))


def _unroll_blocked(node: ir.Node, setting: Setting) -> str:
    if node.op_type == "Scan" and setting.version < 9:
        return "Scan of opset 8 goes along a batch axis too: raise the opset first"
    if node.op_type == "Scan" and (reason := _unclear_axes(node)):
        return reason
    trips = _trips(node, setting)
    if trips.reason:
        return trips.reason
    size = count(node.attributes["body"].as_graph())
    if trips.count * size > MOST_NODES:
        return f"{trips.count} times {size} nodes are {trips.count * size:,}, and up to {MOST_NODES:,} are unrolled"
    carried = _carried(node)
    if trips.count == 0 and any(value.uses() or value.is_graph_output() for value in node.outputs[carried:]):
        return "it never runs, and what it would collect is read"
    return ""


def _unroll(node: ir.Node, setting: Setting) -> str:
    trips, body, is_loop = _trips(node, setting).count, node.attributes["body"].as_graph(), node.op_type == "Loop"
    builder = Builder(node, setting.model)
    size, carried = count(body), _carried(node)
    prepare(body, builder)
    state = list(node.inputs[2:] if is_loop else node.inputs[:carried])
    sequences = [] if is_loop else list(node.inputs[carried:])
    collected: list[list[ir.Value]] = [[] for _ in node.outputs[carried:]]
    seen: list[ir.Value] = []
    for turn in range(trips):
        given = [*(_turn(node, turn, builder) if is_loop else []), *state,
                 *_elements(node, sequences, turn, trips, builder)]
        results = copy(body, node, given, builder, f"{node.name}/{turn}")
        seen += [*given, *results]
        state = results[is_loop:][:carried]
        for pile, value in zip(collected, results[is_loop:][carried:], strict=True):
            pile.append(value)
    piles = [_stacked(node, at, pile, builder) for at, pile in enumerate(collected)]
    said = f"{node.op_type} of {trips} turns and {size} nodes is written out"
    stand_in(node, [*state, *piles], builder, seen)
    return said


def _carried(node: ir.Node) -> int:
    """How many values go from turn to turn."""
    sequences = node.attributes.get_int("num_scan_inputs", 0)
    return len(node.inputs) - (2 if node.op_type == "Loop" else sequences)


def _turn(node: ir.Node, turn: int, builder: Builder) -> list[ir.Value]:
    """What a Loop's body is told first: the number of the turn, and that it goes on."""
    told, inputs = [], node.attributes["body"].as_graph().inputs
    for number, inside in zip((np.int64(turn), np.bool_(True)), inputs, strict=False):
        wide = inside.shape is not None and len(inside.shape) == 1  # exporters write the scalar as [1] too
        told.append(builder.weight(number.reshape([1] if wide else []), f"{node.name}/{inside.name}"))
    return told


def _axes(node: ir.Node, side: str) -> list[int]:
    """The axis each sequence of a Scan goes along: ``side`` is "input" or "output"."""
    sequences = node.attributes.get_int("num_scan_inputs", 0)
    number = sequences if side == "input" else len(node.outputs) - _carried(node)
    axes = list(node.attributes.get_ints(f"scan_{side}_axes", None) or [0] * number)
    if side == "output":
        return axes
    ranks = [len(value.shape) if value.shape is not None else 0 for value in node.inputs[_carried(node):]]
    return [axis + rank if axis < 0 else axis for axis, rank in zip(axes, ranks, strict=True)]


def _backwards(node: ir.Node, side: str, at: int) -> bool:
    return bool((node.attributes.get_ints(f"scan_{side}_directions", None) or [0] * (at + 1))[at])


def _unclear_axes(node: ir.Node) -> str:
    return next((f"how many axes its sequence {value.name} has is not known"
                 for value in node.inputs[_carried(node):] if shape(value) is None), "")


def _elements(node: ir.Node, sequences: Sequence[ir.Value], turn: int, trips: int,
              builder: Builder) -> list[ir.Value]:
    """What a Scan's body gets of every sequence this time."""
    found = []
    for at, (value, axis) in enumerate(zip(sequences, _axes(node, "input") if sequences else [], strict=True)):
        place = trips - 1 - turn if _backwards(node, "input", at) else turn
        index = builder.weight(np.int64(place), f"{node.name}/turn")
        found.append(_placed(builder, builder.op("Gather", [value, index], {"axis": axis}, like=value)))
    return found


def _stacked(node: ir.Node, at: int, pile: list[ir.Value], builder: Builder) -> ir.Value:
    """The values collected turn by turn, along a new axis."""
    old, axis, backwards = node.outputs[_carried(node) + at], 0, False
    if not (old.uses() or old.is_graph_output()):
        return old
    if node.op_type == "Scan":
        axis, backwards = _axes(node, "output")[at], _backwards(node, "output", at)
    parts = [builder.over("Unsqueeze", value, [axis], like=old) for value in (reversed(pile) if backwards else pile)]
    return _placed(builder, parts[0] if len(parts) == 1 else builder.op("Concat", parts, {"axis": axis}, like=old))


def _placed(builder: Builder, result: ir.Value) -> ir.Value:
    """``result``, with the nodes made for it in the graph: right before the one that goes."""
    builder.root.graph.insert_before(builder.root, builder.nodes)
    builder.nodes.clear()
    return result


def _branch_blocked(node: ir.Node, setting: Setting) -> str:
    if constant(node.inputs[0]) is None:
        return (f"its condition {node.inputs[0].name} is computed from the input: fix the input shapes and fold "
                "constants; where it depends on the data, no rule can")
    return ""


def _take_branch(node: ir.Node, setting: Setting) -> str:
    taken = "then" if constant(node.inputs[0]).reshape(()) else "else"
    body, builder = node.attributes[f"{taken}_branch"].as_graph(), Builder(node, setting.model)
    prepare(body, builder)
    stand_in(node, copy(body, node, [], builder, node.name), builder)
    return f"its condition is constant: the {taken} branch stays"


RULES = (
    Rule("if-constant", "A condition that never changes needs no branches, and compilers fail on branches of "
         "different ranks.", lambda node, setting: is_op(node, "If"), _branch_blocked, _take_branch),
    Rule("unroll-loop", "ATC has no parser for Loop and Scan; a body written out as often as it runs is an ordinary "
         "graph.", lambda node, setting: is_op(node, "Loop", "Scan"), _unroll_blocked, _unroll),
)
