"""Takes the rounding out of a QDQ model: a float model again, its scales and zero points kept beside it.

    DequantizeLinear(QuantizeLinear(x))  -> x
    DequantizeLinear(int8 weight)        -> float weight, as the rounding left it

ATC has no parser for either; AMCT and ``--compression_optimize_conf`` start from a float model and write nodes of their
own. What was measured is not lost: the metadata holds it as JSON under ``kit.qdq``, tensor -> scale, zero_point, dtype,
and axis or block_size. A quantizer may have dropped a ReLU in front of a range that begins at 0, as rounding
cuts off there: where nothing says that the numbers are not negative, a Clip to the range stands in for it.

The answers move, by what rounding had done to them; so the rule is applied only when it is asked for by name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.graph.reach import not_negative
from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, bypass, cannot_bypass, constant, given, is_op, kind, retire
from kit.int8.qdq_read import float_name

if TYPE_CHECKING:
    import onnx_ir as ir

KEY = "kit.qdq"  # in the model's metadata
MOVES = "nothing is rounded to bytes any more, or cut off where they end."

_INTEGER_ONLY = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear")


def _matches(node: ir.Node, setting: Setting) -> bool:
    if is_op(node, "QuantizeLinear"):  # with a DequantizeLinear for each reader it goes when they do
        return node.outputs[0].is_graph_output() or any(
            not is_op(reader, "DequantizeLinear") for reader in node.outputs[0].consumers())
    return is_op(node, "DequantizeLinear", *_INTEGER_ONLY) or (
        node.domain == "com.microsoft" and node.op_type.startswith(("QLinear", "DynamicQuantize", "MatMulInteger")))


def _blocked(node: ir.Node, setting: Setting) -> str:
    if is_op(node, "QuantizeLinear"):
        readers = node.outputs[0].consumers()
        return (f"{readers[0].op_type} {readers[0].name} computes with its integers" if readers
                else "its integers are an output of the model")
    if not is_op(node, "DequantizeLinear"):
        return f"{node.op_type} computes with integers itself: quantize in QDQ form, or go back to the float model"
    for part in (node, _quantizer(node)):
        for value in part.inputs[1:] if part is not None else ():
            if value is not None and constant(value) is None:
                return f"{value.name} is computed at run time: there is no range to keep"
    if constant(node.inputs[0]) is not None:
        constant_out = node.outputs[0].is_graph_output()
        return f"it makes the output {node.outputs[0].name} from a constant" if constant_out else ""
    if _quantizer(node) is None:
        return f"{kind(node.inputs[0]) or 'an input'} gives it integers, not QuantizeLinear"
    return cannot_bypass(node, _quantizer(node).inputs[0]) if _needs_clip(node) is None else ""


def _quantizer(node: ir.Node) -> ir.Node | None:
    return node.inputs[0].producer() if kind(node.inputs[0]) == "QuantizeLinear" else None


def _needs_clip(node: ir.Node) -> tuple[float, float] | None:
    """The range of a pair that begins at 0 where its input may be negative."""
    source, scale = _quantizer(node).inputs[0], constant(node.inputs[1])
    zero = given(node, 2)
    array = np.uint8(0) if zero is None else constant(zero)
    if array.dtype.kind not in "iu" or source.producer() is None or not_negative(source):
        return None  # an input of the model had no ReLU in front of it
    limits = np.iinfo(array.dtype)
    return (0.0, float(scale.max() * (limits.max - limits.min))) if (array == limits.min).all() else None


def _strip(node: ir.Node, setting: Setting) -> str:
    builder, about = Builder(node, setting.model), _parameters(node)
    if (stored := constant(node.inputs[0])) is not None:
        label = float_name(node.inputs[0].name)
        weight = builder.weight(_real(stored, about, constant(node.inputs[1])), label)
        inputs, old = list(node.inputs), node.outputs[0]
        old.replace_all_uses_with(weight)
        node.graph.remove(node, safe=True)
        retire(inputs)
        if old.name == label:  # as ONNX Runtime's quantizer calls it
            weight.name = label
        _keep(setting.model, weight.name, about)
        return f"weight {weight.name} is float again"
    source, said = _quantizer(node).inputs[0], ""
    # The model's output keeps its name behind the rounding.
    name = node.outputs[0].name if node.outputs[0].is_graph_output() else source.name
    if (limits := _needs_clip(node)) is not None:
        source, said = _clipped(source, limits, node, builder), f", cut off at 0 and {limits[1]:.4g} as rounding did"
    bypass(node, source)
    _keep(setting.model, name, about)
    return f"{name} is not rounded to {about['dtype']} any more{said}"


def _clipped(source: ir.Value, limits: tuple[float, float], node: ir.Node, builder: Builder) -> ir.Value:
    """A Clip in front of ``node``."""
    dtype = node.outputs[0].dtype.numpy()
    if builder.model.opset_imports.get("", 1) < 11:
        result = builder.op("Clip", [source], {"min": limits[0], "max": limits[1]}, like=node.outputs[0])
    else:
        ends = [builder.weight(np.asarray(end, dtype), f"{node.name}/{side}")
                for end, side in zip(limits, ("low", "high"), strict=True)]
        result = builder.op("Clip", [source, *ends], like=node.outputs[0])
    result.shape = source.shape
    node.graph.insert_before(node, builder.nodes)
    return result


def _parameters(node: ir.Node) -> dict[str, Any]:
    """What the metadata keeps of a DequantizeLinear."""
    scale, zero = constant(node.inputs[1]), given(node, 2)
    about = {"scale": scale.reshape(-1).astype(float).tolist(), "dtype": node.inputs[0].dtype.name.lower(),
             "zero_point": [0] * scale.size if zero is None else constant(zero).reshape(-1).astype(int).tolist()}
    if scale.ndim:
        about["axis"] = node.attributes.get_int("axis", 1)
    if node.attributes.get_int("block_size", 0):
        about |= {"block_size": node.attributes.get_int("block_size", 0), "shape": list(scale.shape)}
    return about


def _real(stored: np.ndarray, about: dict[str, Any], scale: np.ndarray) -> np.ndarray:
    zero = np.asarray(about["zero_point"], np.float32).reshape(scale.shape)
    step = scale.astype(np.float32)
    if "block_size" in about:
        axis, size = about["axis"], stored.shape[about["axis"]]
        step, zero = (np.take(np.repeat(part, about["block_size"], axis), range(size), axis) for part in (step, zero))
    elif scale.size > 1:
        wide = [-1 if at == about["axis"] % stored.ndim else 1 for at in range(stored.ndim)]
        step, zero = step.reshape(wide), zero.reshape(wide)
    else:
        step, zero = step.reshape(()), zero.reshape(())
    return ((stored.astype(np.float32) - zero) * step).astype(scale.dtype)


def _keep(model: ir.Model, name: str, about: dict[str, Any]) -> None:
    """Write a tensor's scale and zero point into the metadata; a second, other pair of it gets an apostrophe."""
    kept = json.loads(model.metadata_props.get(KEY, "{}"))
    while name in kept and kept[name] != about:
        name += "'"
    kept[name] = about
    model.metadata_props[KEY] = json.dumps(kept)


RULES = (
    Rule("strip-qdq", "ATC has no parser for QuantizeLinear and DequantizeLinear: AMCT starts from the float model.",
         _matches, _blocked, _strip, moves=MOVES),
)
