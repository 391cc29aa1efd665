"""Splits an operator into parts that every target has: the way back of the merges, where it is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, replace, shape

if TYPE_CHECKING:
    import onnx_ir as ir

Write = Callable[["ir.Node", Builder], "ir.Value"]


def split(name: str, op_types: tuple[str, ...], because: str, write: Write,
          objection: Callable[[ir.Node, Setting], str] = lambda node, setting: "") -> Rule:
    """The rule that writes each of ``op_types`` (a type, or ``domain:type``) as parts.

    Args:
        write: makes the parts in a Builder and returns the value that stands for the result.
        objection: why this node cannot be split.
    """

    def matches(node: ir.Node, setting: Setting) -> bool:
        return (f"{node.domain}:{node.op_type}" if node.domain else node.op_type) in op_types

    def blocked(node: ir.Node, setting: Setting) -> str:
        if node.inputs[0].dtype is None:
            return f"the type of its input {node.inputs[0].name} is not known"
        if node.domain == "com.microsoft" and setting.target == "onnxruntime":
            return "it is ONNX Runtime's own operator"
        return objection(node, setting)

    def rewrite(node: ir.Node, setting: Setting) -> str:
        builder = Builder(node, setting.model)
        result = write(node, builder)
        replace(node, builder.nodes, result)
        return f"{node.op_type} became {' + '.join(made.op_type for made in builder.nodes)}"

    return Rule(name, because, matches, blocked, rewrite)


def _hardswish(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    gate = to.op("HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5}, like=x)
    return to.op("Mul", [x, gate], like=x)


def _hardsigmoid(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    slope = to.number(node.attributes.get_float("alpha", 0.2), x, "alpha")
    offset = to.number(node.attributes.get_float("beta", 0.5), x, "beta")
    line = to.op("Add", [to.op("Mul", [x, slope], like=x), offset], like=x)
    return to.op("Clip", [line, to.number(0, x, "low"), to.number(1, x, "high")], like=x)


def _swish(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    # QuickGelu's own default is 1.702; ONNX's Swish has 1.
    alpha = node.attributes.get_float("alpha", 1.702 if node.op_type == "QuickGelu" else 1.0)
    inner = x if alpha == 1 else to.op("Mul", [x, to.number(alpha, x, "alpha")], like=x)
    return to.op("Mul", [x, to.op("Sigmoid", [inner], like=x)], like=x)


def _gelu(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    half, one = to.number(0.5, x, "half"), to.number(1, x, "one")
    if node.attributes.get_string("approximate", "none") == "tanh":
        cubic = to.op("Mul", [to.op("Mul", [x, x], like=x), x], like=x)
        cubic = to.op("Mul", [cubic, to.number(0.044715, x, "cubic")], like=x)
        bend = to.op("Mul", [to.op("Add", [x, cubic], like=x), to.number(math.sqrt(2 / math.pi), x, "slope")], like=x)
        bell = to.op("Tanh", [bend], like=x)
    else:
        bell = to.op("Erf", [to.op("Mul", [x, to.number(math.sqrt(0.5), x, "slope")], like=x)], like=x)
    gate = to.op("Mul", [to.op("Add", [bell, one], like=x), half], like=x)
    return to.op("Mul", [x, gate], like=x)


def _mish(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    return to.op("Mul", [x, to.op("Tanh", [to.op("Softplus", [x], like=x)], like=x)], like=x)


def _layernorm(node: ir.Node, to: Builder) -> ir.Value:
    x = node.inputs[0]
    first = node.attributes.get_int("axis", -1)
    rank = len(x.shape) if x.shape is not None else 0
    axes = list(range(first, 0)) if first < 0 else list(range(first - rank, 0))

    def mean(value: ir.Value) -> ir.Value:
        return to.over("ReduceMean", value, axes, {"keepdims": 1}, like=x)

    deviation = to.op("Sub", [x, mean(x)], like=x)
    variance = mean(to.op("Mul", [deviation, deviation], like=x))
    epsilon = to.number(node.attributes.get_float("epsilon", 1e-5), x, "epsilon")
    spread = to.op("Sqrt", [to.op("Add", [variance, epsilon], like=x)], like=x)
    result = to.op("Mul", [to.op("Div", [deviation, spread], like=x), node.inputs[1]], like=x)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = to.op("Add", [result, node.inputs[2]], like=x)
    return result


def _layernorm_objection(node: ir.Node, setting: Setting) -> str:
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its second or third output (mean, inverse deviation) is read"
    if node.attributes.get_int("axis", -1) >= 0 and shape(node.inputs[0]) is None:
        return f"the rank of its input {node.inputs[0].name} is not known"
    if node.inputs[0].dtype.name in ("FLOAT16", "BFLOAT16") and node.attributes.get_int("stash_type", 1) == 1:
        return "it sums 16-bit numbers in 32 bits, which the parts would not"
    return ""


def _groupnorm(node: ir.Node, to: Builder) -> ir.Value:
    x, scale, bias = node.inputs
    groups, rank = node.attributes.get_int("num_groups", 1), len(x.shape)
    per_channel = to.model.opset_imports[""] >= 21  # before, scale and bias were one number a group
    dtype = x.dtype.numpy()
    folded = to.op("Reshape", [x, to.weight(np.int64([0, groups, -1]), f"{node.name}/groups")], like=x)
    inner = [to.weight(np.ones(groups, dtype), f"{node.name}/ones"),
             to.weight(np.zeros(groups, dtype), f"{node.name}/zeros")] if per_channel else [scale, bias]
    normal = to.op("InstanceNormalization", [folded, *inner],
                   {"epsilon": node.attributes.get_float("epsilon", 1e-5)}, like=x)
    result = to.op("Reshape", [normal, to.op("Shape", [x])], like=x)
    if per_channel:
        wide = [to.weight(constant(value).reshape(-1, *[1] * (rank - 2)), f"{value.name}_wide")
                for value in (scale, bias)]
        result = to.op("Add", [to.op("Mul", [result, wide[0]], like=x), wide[1]], like=x)
    return result


def _groupnorm_objection(node: ir.Node, setting: Setting) -> str:
    if setting.version >= 21 and any(constant(value) is None for value in node.inputs[1:]):
        return "its scale and bias are not constant"
    return "" if shape(node.inputs[0]) is not None else f"the rank of its input {node.inputs[0].name} is not known"


RULES = (
    split("split-hardswish", ("HardSwish",), "For targets without HardSwish (below opset 14, or older compilers): "
          "x * HardSigmoid(x, 1/6, 1/2) is the same.", _hardswish),
    split("split-hardsigmoid", ("HardSigmoid",), "For targets without HardSigmoid: a slope, an offset and a Clip.",
          _hardsigmoid),
    split("split-swish", ("Swish", "com.microsoft:QuickGelu"), "For targets without Swish: x * Sigmoid(alpha x), which "
          "ONNX Runtime merges itself and CANN takes as it is.", _swish),
    split("split-gelu", ("Gelu", "com.microsoft:Gelu"), "For targets without Gelu (below opset 20; CANN up to opset 18 "
          "has none): its parts, which compilers recognise.", _gelu),
    split("split-mish", ("Mish",), "For targets without Mish (below opset 18, the only one at which CANN has it): "
          "x * Tanh(Softplus(x)).", _mish),
    split("split-layernorm", ("LayerNormalization",), "For targets without LayerNormalization (below opset 17), or "
          "that take it with fixed shapes only: its parts.", _layernorm, _layernorm_objection),
    split("split-groupnorm", ("GroupNormalization",), "For targets without GroupNormalization (CANN has none): "
          "InstanceNormalization of the groups, then scale and bias.", _groupnorm, _groupnorm_objection),
)
