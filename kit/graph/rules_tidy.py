"""What computes nothing goes: Identity, arithmetic with 1 or 0, pairs that cancel, and what leads to no output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.graph.library import tidy
from kit.graph.rule import Rule, Setting
from kit.graph.values import (
    Builder,
    bypass,
    cannot_bypass,
    constant,
    is_constant,
    is_op,
    outside_reader,
    replace,
    retire,
    scalar,
    shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def _drop_identity(node: ir.Node, setting: Setting) -> str:
    source = node.inputs[0]
    bypass(node, source)
    return f"its readers read {source.name} directly"


def _neutral(node: ir.Node) -> ir.Value | None:
    """What a Mul or Div by 1, or an Add or Sub of 0, passes on."""
    if not is_op(node, "Mul", "Div", "Add", "Sub"):
        return None
    nothing = 1.0 if node.op_type in ("Mul", "Div") else 0.0
    for at in ((1, 0) if node.op_type in ("Mul", "Add") else (1,)):
        if scalar(node.inputs[at]) == nothing and not is_constant(node.inputs[1 - at]):
            return node.inputs[1 - at]
    return None


def _neutral_blocked(node: ir.Node, setting: Setting) -> str:
    source = _neutral(node)
    other = node.inputs[1] if node.inputs[0] is source else node.inputs[0]
    ranks = [len(value.shape) if value.shape is not None else None for value in (source, other)]
    if ranks[1] != 0 and (ranks[0] is None or ranks[1] is None or ranks[0] < ranks[1]):
        return f"it may add axes: its constant has {ranks[1]}, and {source.name} {ranks[0] or 'an unknown number'}"
    return cannot_bypass(node, source)


def _drop_neutral(node: ir.Node, setting: Setting) -> str:
    source, op_type = _neutral(node), node.op_type
    bypass(node, source)
    return f"{op_type} that changes nothing: its readers read {source.name}"


def _softmax(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The Flatten and the Softmax before a Reshape that gives the Flatten's input its shape back."""
    softmax = node.inputs[0].producer() if is_op(node, "Reshape") else None
    if softmax is None or not is_op(softmax, "Softmax", "LogSoftmax", "Hardmax"):
        return None
    flatten = softmax.inputs[0].producer()
    if flatten is None or not is_op(flatten, "Flatten") or softmax.attributes.get_int("axis", -1) not in (-1, 1):
        return None
    source, size = flatten.inputs[0], node.inputs[1].producer()
    if size is not None and is_op(size, "Shape") and size.inputs[0] is source and not size.attributes:
        return flatten, softmax
    wanted = constant(node.inputs[1])
    return (flatten, softmax) if wanted is not None and shape(source) == wanted.tolist() else None


def _softmax_blocked(node: ir.Node, setting: Setting) -> str:
    flatten, softmax = _softmax(node)
    source = flatten.inputs[0]
    if source.shape is None:
        return f"how many axes {source.name} has is not known"
    if flatten.attributes.get_int("axis", 1) not in (-1, len(source.shape) - 1):
        return f"{flatten.op_type} {flatten.name} joins several axes, over which {softmax.op_type} goes together"
    return outside_reader((flatten, softmax), node)


def _drop_flatten(node: ir.Node, setting: Setting) -> str:
    flatten, softmax = _softmax(node)
    builder = Builder(node, setting.model)
    result = builder.op(softmax.op_type, [flatten.inputs[0]], {"axis": -1}, like=node.outputs[0], name=softmax.name)
    replace(node, builder.nodes, result)
    return f"{softmax.op_type} works on the last axis directly"


def _is_unused(thing: object, setting: Setting) -> bool:
    import onnx_ir as ir

    if isinstance(thing, ir.Node):
        return not any(value.uses() or value.is_graph_output() for value in thing.outputs)
    return not (thing.uses() or thing.is_graph_output() or thing.is_graph_input())


def _drop_unused(thing: object, setting: Setting) -> str:
    import onnx_ir as ir

    if isinstance(thing, ir.Node):
        inputs = list(thing.inputs)
        thing.graph.remove(thing, safe=True)
        retire(inputs)
        return f"{thing.op_type} that nothing reads is gone"
    thing.graph.initializers.pop(thing.name)
    return f"weight of {thing.const_value.nbytes if thing.const_value is not None else 0} bytes is gone"


IDENTITY = Rule(
    "drop-identity", "Identity copies a tensor and computes nothing.",
    lambda node, setting: is_op(node, "Identity") and len(node.inputs) == 1,
    lambda node, setting: cannot_bypass(node, node.inputs[0]), _drop_identity)
UNUSED = Rule(
    "drop-unused", "What leads to no output is dead weight.", _is_unused, lambda thing, setting: "", _drop_unused,
    "nodes and weights")


# type -> types that hold every value of it exactly
_WIDER = {
    "BOOL": {"UINT8", "INT8", "INT16", "INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"},
    "UINT8": {"INT16", "INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"},
    "INT8": {"INT16", "INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE"},
    "INT16": {"INT32", "INT64", "FLOAT", "DOUBLE"},
    "INT32": {"INT64", "DOUBLE"},
    "FLOAT16": {"FLOAT", "DOUBLE"},
    "BFLOAT16": {"FLOAT", "DOUBLE"},
    "FLOAT": {"DOUBLE"},
}


def _cast_type(node: ir.Node) -> str:
    import onnx_ir as ir

    return ir.DataType(node.attributes.get_int("to")).name


def _cast_source(node: ir.Node) -> ir.Value | None:
    """What a Cast casts when it changes nothing, or when another Cast stands before it."""
    if not is_op(node, "Cast"):
        return None
    source = node.inputs[0]
    if source.dtype is not None and source.dtype.name == _cast_type(node):
        return source
    before = source.producer()
    return before.inputs[0] if before is not None and is_op(before, "Cast") else None


def _cast_blocked(node: ir.Node, setting: Setting) -> str:
    source = _cast_source(node)
    if source is not node.inputs[0]:
        between = _cast_type(node.inputs[0].producer())
        if source.dtype is None:
            return f"the type of {source.name}, before the first Cast, is not known"
        if between not in _WIDER.get(source.dtype.name, ()):
            return f"{between} in between does not hold every {source.dtype.name}: the first Cast changes values"
    same = source.dtype.name == _cast_type(node)
    return cannot_bypass(node, source) if same else ""


def _drop_cast(node: ir.Node, setting: Setting) -> str:
    source, before = _cast_source(node), node.inputs[0]
    if source.dtype.name == _cast_type(node):
        bypass(node, source)
        return f"its readers read {source.name}, which is {source.dtype.name} already"
    node.replace_input_with(0, source)
    retire([before])
    return f"it casts {source.name} directly"


def _dropout_blocked(node: ir.Node, setting: Setting) -> str:
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its mask is read"
    training = node.inputs[2] if len(node.inputs) > 2 else None  # since opset 12; before, there was no training
    if training is not None and (scalar(training) is None or scalar(training)):
        return "it is, or may be, in training mode: export the model with model.eval()"
    return cannot_bypass(node, node.inputs[0])


def _drop_dropout(node: ir.Node, setting: Setting) -> str:
    source = node.inputs[0]
    bypass(node, source)
    return f"its readers read {source.name}"


DROPS = (
    Rule("drop-flatten", "A Softmax over the last axis needs no Flatten before and no Reshape after it; raising the "
         "opset over 13 leaves them.", lambda node, setting: _softmax(node) is not None, _softmax_blocked,
         _drop_flatten),
    Rule("drop-neutral", "Multiplying by 1 or adding 0 reads and writes a tensor for nothing.",
         lambda node, setting: _neutral(node) is not None, _neutral_blocked, _drop_neutral),
    Rule("drop-casts", "A Cast to the type a tensor has, or over a type in between that loses nothing, only copies.",
         lambda node, setting: _cast_source(node) is not None, _cast_blocked, _drop_cast),
    Rule("drop-dropout", "At inference Dropout passes its input on.", lambda node, setting: is_op(node, "Dropout"),
         _dropout_blocked, _drop_dropout),
    tidy("drop-reshapes", "Of two Reshapes in a row only the last one counts.", "Reshape",
         ("_basic_rules.reshape_reshape_rule",), "it reads what the Reshape before it read"),
    tidy("drop-transposes", "Two Transposes in a row are one, or none; one that keeps the order is none.", "Transpose",
         ("_basic_rules.no_op_transpose_rule", "_basic_rules.transpose_transpose_rule"),
         "combined with the Transpose before it, or gone", lambda node: False),
)

RULES = (IDENTITY, *DROPS, UNUSED)
