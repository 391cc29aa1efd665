"""Folds what follows a convolution into its weights.

    BatchNormalization(Conv(x, W, b))         -> Conv(x, W', b')       (also ConvTranspose and Gemm)
    Conv(x, W, b) * c + d                     -> Conv(x, c W, c b + d) (c, d: one number, or one per channel)

BatchNormalization is folded by onnxscript's rules; this file prepares the weights so that nothing shared is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.library import rewrite_with
from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, bypass, cannot_bypass, constant, is_constant, is_op, kind, retire

if TYPE_CHECKING:
    import onnx_ir as ir

_FOLDS = {
    "Conv": "_fuse_batchnorm.fuse_batchnorm_into_conv_rule",
    "ConvTranspose": "_fuse_batchnorm.fuse_batchnorm_into_conv_transpose_rule",
    "Gemm": "_fuse_batchnorm.fuse_batchnorm_into_gemm_rule",
}


def _batchnorm_blocked(node: ir.Node, setting: Setting) -> str:
    if node.attributes.get_int("training_mode", 0) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return "it is in training mode: export the model with model.eval()"
    if kind(node.inputs[0]) not in _FOLDS:
        return f"it follows {kind(node.inputs[0]) or 'an input'}, not Conv, ConvTranspose or Gemm"
    before = node.inputs[0].producer()
    return _weights_blocked(before, node) or next(
        (f"its parameter {value.name} is not constant" for value in node.inputs[1:] if not is_constant(value)), "")


def _weights_blocked(before: ir.Node, node: ir.Node) -> str:
    """Why what ``node`` does cannot move into the weights of ``before``, its only source."""
    value = before.outputs[0]
    if value.is_graph_output():
        return f"{value.name}, between the two, is an output of the model"
    others = [reader for reader in value.consumers() if reader is not node]
    if others:
        return f"{before.op_type} {before.name} is also read by {others[0].op_type} {others[0].name}"
    for weight in before.inputs[1:]:
        if weight is not None and not is_constant(weight):
            return f"{weight.name} of {before.op_type} {before.name} is not constant"
    return ""


def _fold_batchnorm(node: ir.Node, setting: Setting) -> str:
    before = node.inputs[0].producer()
    builder = Builder(node, setting.model)
    weight, channels = before.inputs[1], constant(node.inputs[3])
    if len(before.inputs) < 3 or before.inputs[2] is None:
        before.resize_inputs(3)
        # A bias of its own: the library would take a name that may belong to another weight.
        before.replace_input_with(2, builder.weight(np.zeros_like(channels), f"{weight.name}_bias"))
    for at in (1, 2):
        _own(before, at, builder)
    for at in range(1, 5):
        _own(node, at, builder, shared=True)
    name = before.name
    parameters = list(node.inputs[1:])
    rewrite_with(_FOLDS[before.op_type], node, setting.model, lambda new: name)
    retire(parameters)
    return f"BatchNormalization went into the weights of {before.op_type} {name}"


def _own(node: ir.Node, at: int, builder: Builder, *, shared: bool = False) -> None:
    """Make input ``at`` an initializer of the main graph that, unless ``shared``, no other node reads."""
    value = node.inputs[at]
    alone = shared or sum(1 for _ in value.uses()) == 1
    if not (value.is_initializer() and alone and value.graph is node.graph):
        node.replace_input_with(at, builder.weight(constant(value), value.name))
        retire([value])


def _affine(node: ir.Node) -> tuple[ir.Node, np.ndarray, bool] | None:
    """The Conv, ConvTranspose or Gemm before a Mul or Add of a constant, that constant, and whether it multiplies.

    Only where nothing else reads the layer: the Add of a HardSwish in parts is no business of this rule.
    """
    if not is_op(node, "Mul", "Add", "Sub", "Div"):
        return None
    for at in ((0, 1) if node.op_type in ("Mul", "Add") else (0,)):
        source, found = node.inputs[at], constant(node.inputs[1 - at])
        if kind(source) in _FOLDS and len(source.uses()) == 1 and found is not None:
            array = found.astype(np.float64)
            with np.errstate(divide="ignore"):
                array = -array if node.op_type == "Sub" else 1 / array if node.op_type == "Div" else array
            return node.inputs[at].producer(), array, node.op_type in ("Mul", "Div")
    return None


def _channels(before: ir.Node) -> int:
    sizes = list(before.inputs[1].shape)
    if before.op_type == "Conv":
        return sizes[0]
    if before.op_type == "Gemm":
        return sizes[0] if before.attributes.get_int("transB", 0) else sizes[1]
    return sizes[1] * before.attributes.get_int("group", 1)


def _affine_blocked(node: ir.Node, setting: Setting) -> str:
    before, array, _ = _affine(node)
    if reason := _weights_blocked(before, node):
        return reason
    rank = len(before.inputs[1].shape)
    aligned = [1] * (rank - array.ndim) + list(array.shape)
    wide = [size for at, size in enumerate(aligned) if at != 1]
    if len(aligned) > rank or any(size != 1 for size in wide) or aligned[1] not in (1, _channels(before)):
        return f"its constant of shape {list(array.shape)} is not one number for each of {_channels(before)} channels"
    return "its constant is not finite" if not np.isfinite(array).all() else ""


def _fold_affine(node: ir.Node, setting: Setting) -> str:
    before, array, multiplies = _affine(node)
    builder = Builder(node, setting.model)
    factor = np.broadcast_to(array.reshape(-1), (_channels(before),))
    weight = before.inputs[1]
    kept = constant(weight)
    bias = constant(before.inputs[2]) if len(before.inputs) > 2 and before.inputs[2] is not None else None
    scale = before.attributes.get_float("beta", 1.0) if before.op_type == "Gemm" else 1.0
    if multiplies:
        _set(before, 1, _scaled(before, kept, factor).astype(kept.dtype), builder, weight.name)
    if bias is not None or not multiplies:
        old = np.zeros(len(factor)) if bias is None else bias.astype(np.float64)
        new = old * factor if multiplies else old + factor / scale if scale else None
        if new is None:
            new = factor
            before.attributes.pop("beta")
        _set(before, 2, new.astype(kept.dtype), builder, f"{weight.name}_bias")
    bypass(node, before.outputs[0])
    part = "weights" if multiplies else "bias"
    return f"{node.op_type} with a constant went into the {part} of {before.op_type} {before.name}"


def _scaled(before: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    wide = weight.astype(np.float64)
    if before.op_type == "Conv":
        return wide * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if before.op_type == "Gemm":
        return wide * (factor[:, None] if before.attributes.get_int("transB", 0) else factor[None, :])
    groups = before.attributes.get_int("group", 1)
    split = wide.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return (split * factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _set(node: ir.Node, at: int, array: np.ndarray, builder: Builder, name: str) -> None:
    """Give input ``at`` new numbers, in place where nothing else reads them."""
    import onnx_ir as ir

    if len(node.inputs) <= at:
        node.resize_inputs(at + 1)
    old = node.inputs[at]
    if old is not None and old.is_initializer() and sum(1 for _ in old.uses()) == 1:
        old.const_value = ir.tensor(np.ascontiguousarray(array), name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    node.replace_input_with(at, builder.weight(array, old.name if old is not None else name))
    retire([old])


RULES = (
    Rule("fold-batchnorm", "At inference BatchNormalization is a constant scale and shift per channel; in the weights "
         "before it that costs nothing, and a quantizer sees the weights as they act.",
         lambda node, setting: is_op(node, "BatchNormalization"), _batchnorm_blocked, _fold_batchnorm),
    Rule("fold-affine", "A constant factor or summand after a convolution costs nothing in its weights or bias.",
         lambda node, setting: _affine(node) is not None,
         lambda node, setting: _affine_blocked(node, setting) or cannot_bypass(node, _affine(node)[0].outputs[0]),
         _fold_affine),
)
