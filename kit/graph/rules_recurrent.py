"""Writes a GRU that CANN would misread as the steps it stands for.

CANN's parser reads hidden_size and direction only (``kit/targets/ascend/operators.json``), and makes a DynamicGRUV2 of
the node, whose ``reset_after`` is true by default and set by nobody (operator prototype and GRU fusion pass of CANN):

    n = tanh(W x + b + r * (R h + c))        what CANN computes, and ONNX with linear_before_reset = 1, as PyTorch does
    n = tanh(W x + b + R (r * h) + c)        ONNX with linear_before_reset = 0, its default

No GRU of the first kind gives the numbers of the second. Where the number of steps is fixed, MatMul, Sigmoid and Tanh
do, step by step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, given, is_constant, is_op, is_read, replace, shape

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_STEPS = 128  # each is a dozen operators; ATC's time to compile grows with them
UNREAD = ("clip", "activations", "activation_alpha", "activation_beta", "layout")
PLAIN = {"forward": ["Sigmoid", "Tanh"], "reverse": ["Sigmoid", "Tanh"], "bidirectional": ["Sigmoid", "Tanh"] * 2}


def _direction(node: ir.Node) -> str:
    return node.attributes.get_string("direction", "forward")


def _unread(node: ir.Node) -> str:
    """An attribute that changes the answer and that CANN does not read; "" when there is none."""
    for name in UNREAD:
        if name not in node.attributes or (name == "layout" and not node.attributes.get_int(name)):
            continue
        if name == "activations" and list(node.attributes.get_strings(name)) == PLAIN[_direction(node)]:
            continue
        return name
    return ""


def _blocked(node: ir.Node, setting: Setting) -> str:
    if name := _unread(node):
        return f"ATC does not read its {name}, and steps that do are not written here: export the layer without"
    if given(node, 4) is not None:
        return "its sequences differ in length (sequence_lens)"
    sizes = shape(node.inputs[0])
    if sizes is None or sizes[0] is None:
        return f"the number of steps, axis 0 of {node.inputs[0].name}, is not known: fix the input shapes"
    if sizes[0] > MOST_STEPS:
        return f"{sizes[0]} steps would become {12 * sizes[0]} operators; up to {MOST_STEPS} are written out"
    if given(node, 5) is None and sizes[1] is None:
        return f"the batch, axis 1 of {node.inputs[0].name}, is not known, and with it the first state"
    for at in (1, 2, 3):
        if given(node, at) is not None and not is_constant(node.inputs[at]):
            return f"its weights {node.inputs[at].name} are not constant"
    return ""


def _write(node: ir.Node, setting: Setting) -> str:
    to, x = Builder(node, setting.model), node.inputs[0]
    steps, batch = shape(x)[:2]
    weight, state = constant(node.inputs[1]), constant(node.inputs[2])
    count, width = weight.shape[0], state.shape[2]
    bias = constant(given(node, 3))
    bias = np.zeros((count, 6 * width), weight.dtype) if bias is None else bias
    first = given(node, 5)
    if first is None:
        firsts = [to.weight(np.zeros((batch, width), weight.dtype), f"{node.name}/start")] * count
    else:
        firsts = [to.over("Squeeze", part, [0], like=x)
                  for part in (to.parts(first, [1] * count, 0) if count > 1 else [first])]
    rows, lasts = [], []
    for at in range(count):
        backwards = _direction(node) == "reverse" or at == 1
        states = _steps(to, x, weight[at], state[at], bias[at], firsts[at], steps, backwards)
        lasts.append(states[-1])
        rows.append(states[::-1] if backwards else states)
    results: list[ir.Value | None] = [None, None]
    if is_read(node, 0):
        results[0] = to.op("Concat", [to.over("Unsqueeze", _together(to, [row[at] for row in rows]), [0], like=x)
                                      for at in range(steps)], {"axis": 0}, like=x)
    if is_read(node, 1):
        results[1] = _together(to, lasts)
    replace(node, to.nodes, *results)
    return f"GRU became {steps} steps of MatMul, Sigmoid and Tanh" + (" in both directions" if count == 2 else "")


def _together(to: Builder, states: list[ir.Value]) -> ir.Value:
    """The states of all directions with an axis for them in front: [directions, batch, hidden]."""
    wide = [to.over("Unsqueeze", state, [0], like=state) for state in states]
    return wide[0] if len(wide) == 1 else to.op("Concat", wide, {"axis": 0}, like=wide[0])


def _steps(to: Builder, x: ir.Value, weight: np.ndarray, state: np.ndarray, bias: np.ndarray, h: ir.Value, steps: int,
           backwards: bool) -> list[ir.Value]:
    """The states h after every step of one direction, [batch, hidden], in the order they are computed.

    Args:
        weight: [3 hidden, inputs], of the gates z, r and n.
        state: [3 hidden, hidden].
        bias: [6 hidden]: of the weights, then of the state.
        h: the state before the first step.
    """
    name, width = to.root.name, state.shape[1]
    both = bias[:3 * width] + bias[3 * width:]  # linear_before_reset = 0: the two only ever stand in one sum
    inputs = to.op("Add", [to.op("MatMul", [x, to.weight(weight.T, f"{name}/W")], like=x),
                           to.weight(both, f"{name}/B")], like=x)
    gates = to.weight(state[:2 * width].T, f"{name}/R")
    candidate = to.weight(state[2 * width:].T, f"{name}/Rn")
    one = to.weight(np.ones(1, weight.dtype), f"{name}/one")
    parts = to.parts(inputs, [1] * steps, 0) if steps > 1 else [inputs]
    states = []
    for part in reversed(parts) if backwards else parts:
        part_zr, part_n = to.parts(to.over("Squeeze", part, [0], like=x), [2 * width, width], 1)
        zr = to.op("Sigmoid", [to.op("Add", [part_zr, to.op("MatMul", [h, gates], like=x)], like=x)], like=x)
        z, r = to.parts(zr, [width, width], 1)
        reset = to.op("MatMul", [to.op("Mul", [r, h], like=x), candidate], like=x)
        n = to.op("Tanh", [to.op("Add", [part_n, reset], like=x)], like=x)
        kept = to.op("Mul", [to.op("Sub", [one, z], like=x), n], like=x)
        h = to.op("Add", [kept, to.op("Mul", [z, h], like=x)], like=x)
        states.append(h)
    return states


RULES = (
    Rule("plain-gru", "ATC reads neither linear_before_reset nor clip, activations and layout of a GRU: it always "
         "resets after the product, as PyTorch does.",
         lambda node, setting: is_op(node, "GRU") and bool(
             not node.attributes.get_int("linear_before_reset", 0) or _unread(node)), _blocked, _write),
)
