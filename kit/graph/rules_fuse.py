"""Puts what an exporter wrote in parts into one operator, where that operator is the runtime's own or came late.

    x * (0.5 * (1 + erf(x / sqrt(2))))                   -> com.microsoft.Gelu
    Add(a, b) -> LayerNormalization                      -> com.microsoft.SkipLayerNormalization, with the sum beside it
    Reshape -> InstanceNormalization -> Reshape * s + b  -> GroupNormalization (opset 21)

Only the first helps and is among ONNX Runtime's rules: the GEGLU of the Stable Diffusion UNet is 1.4 to 1.7 times as
fast (1.31, 2 threads, [2, 4096, 2560]), because ONNX Runtime knows the parts in other orders of the factors only. The
others gain nothing here and are there by name: GroupNormalization is run as a function of many operators, at best as
fast as what the exporters write, and the sum beside a norm is a small part of either. Measure with
``benchmarks/fusions.py``. There is no rule for convolution and SiLU: in a diffusion UNet SiLU stands behind a group
norm or a Gemm, never behind a convolution, and ONNX Runtime merges x * Sigmoid(x) into its QuickGelu by itself,
OpenVINO into its Swish. com.microsoft.GroupNorm, which has SiLU inside, has no kernel for the CPU (1.31).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.rules_activation import gelu
from kit.graph.sizes import elements, sizes
from kit.graph.values import Builder, constant, is_constant, is_op, kind, outside_reader, replace, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "com.microsoft"


def own(setting: Setting, op_type: str, value: ir.Value) -> str:
    """Why an operator of ONNX Runtime's own is not for this model."""
    if setting.target != "onnxruntime":
        return f"{DOMAIN}.{op_type} is ONNX Runtime's own, and this is for {setting.target}"
    if value.dtype is None or value.dtype.name != "FLOAT":
        return f"ONNX Runtime's kernel for the CPU is for float32, and {value.name} is not known to be"
    return ""


# -- GELU


def _exact_gelu(node: ir.Node, setting: Setting) -> bool:
    found = gelu(node)
    return found is not None and not found.attributes


def _gelu_blocked(node: ir.Node, setting: Setting) -> str:
    found = gelu(node)
    if setting.version >= 20:
        return f"opset {setting.version} has a Gelu of its own: merge-gelu"
    if reason := own(setting, "Gelu", found.source):
        return reason
    if not any(is_op(part, "Mul", "Div") and any(kind(value) == "Add" for value in part.inputs)
               and any(scalar(value) is not None for value in part.inputs) for part in found.nodes):
        return "ONNX Runtime merges factors in this order by itself when it loads the model"
    return outside_reader(found.nodes, node)


def _fuse_gelu(node: ir.Node, setting: Setting) -> str:
    found = gelu(node)
    setting.model.opset_imports.setdefault(DOMAIN, 1)
    builder = Builder(node, setting.model)
    result = builder.op("Gelu", [found.source], domain=DOMAIN, like=node.outputs[0])
    replace(node, builder.nodes, result)
    return f"{len(set(found.nodes))} nodes became {DOMAIN}.Gelu"


# -- LayerNormalization of a sum


def _is_skip(node: ir.Node, setting: Setting) -> bool:
    return is_op(node, "LayerNormalization") and kind(node.inputs[0]) == "Add" and not any(
        is_constant(value) for value in node.inputs[0].producer().inputs)


def _skip_blocked(node: ir.Node, setting: Setting) -> str:
    total = node.inputs[0]
    if reason := own(setting, "SkipLayerNormalization", total):
        return reason
    parts = [sizes(value) for value in total.producer().inputs]
    if None in parts or any(len(part) != 3 for part in parts) or parts[0][1:] != parts[1][1:] or None in parts[0][1:]:
        return "the two that are added are not known to be of one shape, with three axes"
    if node.attributes.get_int("axis", -1) not in (-1, 2):
        return "it goes over more than the last axis"
    if len(node.outputs) > 1 or total.is_graph_output():
        return "its mean is read too, or the sum is an output of the model"
    return ""


def _fuse_skip(node: ir.Node, setting: Setting) -> str:
    import onnx_ir as ir

    setting.model.opset_imports.setdefault(DOMAIN, 1)
    total, builder = node.inputs[0], Builder(node, setting.model)
    result = builder.op("SkipLayerNormalization", [*total.producer().inputs, *node.inputs[1:]],
                        {"epsilon": node.attributes.get_float("epsilon", 1e-5)}, domain=DOMAIN, like=node.outputs[0])
    made = builder.nodes[0]
    if len(total.uses()) > 1:
        made.resize_outputs(4)
        for value, name in zip(made.outputs[1:], ("mean", "deviation", "sum"), strict=True):
            value.name = builder.free(f"{made.name}_{name}")
        made.outputs[3].type, made.outputs[3].shape = total.type, total.shape
    replace(node, builder.nodes, result)
    if total.producer() is not None and total.producer().graph is not None and total.uses():
        ir.convenience.replace_all_uses_with(total, made.outputs[3])
        total.producer().graph.remove(total.producer(), safe=True)
    return f"Add and LayerNormalization became {DOMAIN}.SkipLayerNormalization"


# -- GroupNormalization


@dataclass(frozen=True)
class _GroupNorm:
    source: ir.Value
    groups: int
    epsilon: float
    scale: np.ndarray
    bias: np.ndarray
    nodes: tuple[ir.Node, ...]
    objection: str = ""


def _groupnorm(node: ir.Node) -> _GroupNorm | None:
    """``node`` adds the bias after a norm over groups of channels."""
    if not is_op(node, "Add"):
        return None
    bias, product = _with_constant(node)
    if product is None or kind(product) != "Mul":
        return None
    scale, back = _with_constant(product.producer())
    if back is None or kind(back) != "Reshape" or kind(back.producer().inputs[0]) != "InstanceNormalization":
        return None
    norm = back.producer().inputs[0].producer()
    if kind(norm.inputs[0]) != "Reshape":
        return None
    apart = norm.inputs[0].producer()
    source, groups = apart.inputs[0], elements(apart.inputs[1])
    have, after = sizes(source), sizes(back)
    if groups is None or len(groups) != 3 or not isinstance(groups[1], int) or groups[1] < 1 or have is None:
        return None
    ones, zeros = constant(norm.inputs[1]), constant(norm.inputs[2])
    channels = have[1] if len(have) > 2 else None
    objection = ""
    if ones is None or zeros is None or (ones != 1).any() or (zeros != 0).any():
        objection = "the InstanceNormalization inside has a scale or bias for each group"
    elif not isinstance(channels, int) or channels % groups[1]:
        objection = f"the channels of {source.name} are not known to be a multiple of {groups[1]} groups"
    elif after != have or groups[0] not in (0, have[0]):
        objection = f"the Reshapes around it are not known to give {source.name} its shape back"
    elif not all(array.size in (1, channels) and array.shape[::-1][:len(have) - 2] == (1,) * (len(have) - 2)
                 for array in (scale, bias)):
        objection = "scale and bias are not one number for each channel"
    return _GroupNorm(source, groups[1], norm.attributes.get_float("epsilon", 1e-5), scale, bias,
                      (product.producer(), back.producer(), norm, apart), objection)


def _with_constant(node: ir.Node) -> tuple[np.ndarray | None, ir.Value | None]:
    """The constant that a node combines something with, and that something."""
    for at in (1, 0):
        if is_constant(node.inputs[at]) and not is_constant(node.inputs[1 - at]):
            return constant(node.inputs[at]), node.inputs[1 - at]
    return None, None


def _groupnorm_blocked(node: ir.Node, setting: Setting) -> str:
    found = _groupnorm(node)
    if found.objection:
        return found.objection
    if setting.version < 21:
        return ("GroupNormalization with a scale for each channel came with opset 21, and this model is of opset "
                f"{setting.version}: fix it with opset=21 or export it so")
    return outside_reader(found.nodes, node)


def _merge_groupnorm(node: ir.Node, setting: Setting) -> str:
    found = _groupnorm(node)
    builder, channels = Builder(node, setting.model), sizes(found.source)[1]
    inputs = [builder.weight(np.broadcast_to(array.reshape(-1), (channels,)), f"{node.name}/{name}")
              for array, name in ((found.scale, "scale"), (found.bias, "bias"))]
    result = builder.op("GroupNormalization", [found.source, *inputs],
                        {"num_groups": found.groups, "epsilon": found.epsilon}, like=node.outputs[0])
    replace(node, builder.nodes, result)
    return f"{len(found.nodes) + 1} nodes became GroupNormalization ({found.groups} groups)"


RULES = (
    Rule("fuse-gelu", "One Gelu instead of five operators, for models below opset 20. ONNX Runtime merges its parts by "
         "itself only where the half is multiplied last.", _exact_gelu, _gelu_blocked, _fuse_gelu),
    Rule("fuse-skip-layernorm", "The sum of a residual connection and the norm of it in one pass.", _is_skip,
         _skip_blocked, _fuse_skip),
    Rule("merge-groupnorm", "One GroupNormalization instead of five operators, for runtimes with a kernel for it.",
         lambda node, setting: _groupnorm(node) is not None, _groupnorm_blocked, _merge_groupnorm),
)
