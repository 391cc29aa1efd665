"""Reads arithmetic out of a graph, whatever the order of its factors: what the activation rules recognise with.

Exporters write the same activation in many orders: ``x * clip(x + 3, 0, 6) / 6``, ``x * (clip(3 + x, 0, 6) * 0.1667)``.
So a product is read as a constant times a bag of factors, and a ramp as ``clip(slope * x + offset, 0, top)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.graph.values import constant, is_op, kind, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

DEEPEST = 3  # nested Mul and Div of one activation: x * (0.5 * (1 + erf)) needs three


@dataclass(frozen=True)
class Product:
    """``constant * factor * factor ...`` and the nodes that compute it."""

    constant: float
    factors: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


def products(value: ir.Value, depth: int = DEEPEST) -> Iterator[Product]:
    """Every way to read ``value`` as a product, the plainest first."""
    number = scalar(value)
    if number is not None:
        yield Product(number, (), ())
        return
    yield Product(1.0, (value,), ())
    node = value.producer()
    if node is None or depth == 0 or not is_op(node, "Mul", "Div"):
        return
    if node.op_type == "Mul":
        for left in products(node.inputs[0], depth - 1):
            for right in products(node.inputs[1], depth - 1):
                yield Product(left.constant * right.constant, left.factors + right.factors,
                              (node, *left.nodes, *right.nodes))
    elif (number := scalar(node.inputs[1])):
        for left in products(node.inputs[0], depth - 1):
            yield Product(left.constant / number, left.factors, (node, *left.nodes))


def expanded(node: ir.Node) -> Iterator[Product]:
    """The ways to read the output of ``node`` as a product that ``node`` itself takes part in."""
    for product in products(node.outputs[0]):
        if product.nodes:
            yield product


@dataclass(frozen=True)
class Ramp:
    """``min(max(slope * source + offset, 0), top)`` and the nodes that compute it."""

    source: ir.Value
    slope: float
    offset: float
    top: float
    nodes: tuple[ir.Node, ...]


def ramp(value: ir.Value, of: ir.Value | None = None) -> Ramp | None:
    """Read ``value`` as a ramp: Clip, Min and Max, or a HardSigmoid; ``of`` is where reading stops, if it comes by."""
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "HardSigmoid"):
        return Ramp(node.inputs[0], node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5),
                    1.0, (node,))
    found = _clipped(node)
    if found is None:
        return None
    inner, low, high, nodes = found
    if low != 0.0 or not 0 < high < float("inf"):
        return None
    source, slope, offset, more = line(inner, of)
    return Ramp(source, slope, offset, high, (*nodes, *more))


def line(value: ir.Value, of: ir.Value | None = None) -> tuple[ir.Value, float, float, tuple[ir.Node, ...]]:
    """Read ``value`` as ``slope * source + offset``; at worst, and where it is ``of``, as itself."""
    if value is of:
        return value, 1.0, 0.0, ()
    node, offset, nodes = value.producer(), 0.0, ()
    if node is not None and is_op(node, "Add"):
        for at in (0, 1):
            if (number := scalar(node.inputs[at])) is not None:
                value, offset, nodes = node.inputs[1 - at], number, (node,)
                break
    elif node is not None and is_op(node, "Sub") and (number := scalar(node.inputs[1])) is not None:
        value, offset, nodes = node.inputs[0], -number, (node,)
    for product in products(value, 1):
        if value is not of and product.nodes and len(product.factors) == 1:
            return product.factors[0], product.constant, offset, (*nodes, *product.nodes)
    return value, 1.0, offset, nodes


def squared(value: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """``base`` when ``value`` is ``base * base`` or ``pow(base, 2)``."""
    return power(value, 2)


def power(value: ir.Value, exponent: int) -> tuple[ir.Value, ir.Node] | None:
    """``base`` when ``value`` is ``base`` to this power, as one node."""
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "Pow") and scalar(node.inputs[1]) == exponent:
        return node.inputs[0], node
    if exponent == 2 and is_op(node, "Mul") and node.inputs[0] is node.inputs[1]:
        return node.inputs[0], node
    return None


def _clipped(node: ir.Node) -> tuple[ir.Value, float, float, tuple[ir.Node, ...]] | None:
    if is_op(node, "Clip"):
        if len(node.inputs) == 1:  # limits as attributes, before opset 11
            low, high = node.attributes.get_float("min", float("-inf")), node.attributes.get_float("max", float("inf"))
        else:
            limits = [*node.inputs[1:], None, None][:2]
            low, high = (default if limit is None else scalar(limit)
                         for limit, default in zip(limits, (float("-inf"), float("inf")), strict=True))
        return None if low is None or high is None else (node.inputs[0], low, high, (node,))
    if not is_op(node, "Min", "Max") or len(node.inputs) != 2:
        return None
    outer = _limit(node)
    if outer is None:
        return None
    value, bound = outer
    inner = value.producer()
    other = "Max" if node.op_type == "Min" else "Min"
    if kind(value) == "Relu" and other == "Max":
        return inner.inputs[0], 0.0, bound, (node, inner)
    if kind(value) != other or len(inner.inputs) != 2 or (found := _limit(inner)) is None:
        return None
    low, high = (found[1], bound) if other == "Max" else (bound, found[1])
    return found[0], low, high, (node, inner)


def _limit(node: ir.Node) -> tuple[ir.Value, float] | None:
    for at in (0, 1):
        if (number := scalar(node.inputs[at])) is not None and constant(node.inputs[1 - at]) is None:
            return node.inputs[1 - at], number
    return None
