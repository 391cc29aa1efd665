"""NonMaxSuppression as ATC reads it: five inputs, and a fixed number of rows of which the last may be -1.

    NonMaxSuppression(boxes, scores, most, iou)  -> the same with a score threshold below every score
    Gather(boxes, rows)                          -> Where(rows < 0, -1, Gather(boxes, Where(rows < 0, 0, rows)))

ONNX's output has as many rows as boxes were kept. On Ascend it always has ``most * batch * classes`` rows, and those
without a box hold -1, which a Gather takes for the last element (or for one out of bounds). What is gathered with them
becomes -1 here, so that the host can tell such rows; in ONNX Runtime there are none, and nothing changes.

Sources: ultralytics issues 25432 and 25436 (inputs), hiascend atlasoxol_09_0104 and 0106 (rows, limit of 700).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.reach import not_negative
from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, constant, given, is_op, kind, rank, replace, scalar, set_input, shape

if TYPE_CHECKING:
    import onnx_ir as ir

MOST = 700  # boxes a class; more may exhaust the chip
ON_HOST = "cut the model before the NonMaxSuppression and run that on the host"
LOWEST = float(np.finfo(np.float32).min)

def _most(node: ir.Node) -> tuple[int | None, str]:
    """How many boxes a class it keeps at most, in effect; or why that is not known."""
    value = given(node, 2)
    if value is None:
        return 0, ""
    asked = constant(value)
    if asked is None:
        return None, f"max_output_boxes_per_class {value.name} is computed at run time, and ATC takes a constant"
    count = int(asked.reshape(-1)[0])
    boxes = shape(node.inputs[0])
    if boxes is not None and boxes[1] is not None:
        count = min(count, boxes[1])  # there are no more
    return count, ""


def _inputs_blocked(node: ir.Node, setting: Setting) -> str:
    count, reason = _most(node)
    if reason:
        return f"{reason}: fold constants, or {ON_HOST}"
    if count <= 0:
        return ("max_output_boxes_per_class is missing or 0, which means 0: it keeps nothing at all. Export it with a "
                "number")
    if count > MOST:
        return (f"it may keep {count:,} boxes a class, and over {MOST} may exhaust the chip: export it with {MOST} or "
                f"fewer, or {ON_HOST}")
    for at, name in ((3, "iou_threshold"), (4, "score_threshold")):
        if given(node, at) is not None and scalar(node.inputs[at]) is None:
            return f"{name} {node.inputs[at].name} is computed at run time, and ATC takes a constant: {ON_HOST}"
    return ""


def _five_inputs(node: ir.Node, setting: Setting) -> str:
    builder, said = Builder(node, setting.model), []
    count, _ = _most(node)
    if scalar(node.inputs[2]) > MOST:
        set_input(node, 2, builder.weight(np.int64([count]), f"{node.name}/most"))
        said.append(f"it keeps up to {count} boxes a class, which is all of them")
    if given(node, 3) is None:
        set_input(node, 3, builder.weight(np.float32([0]), f"{node.name}/iou_threshold"))
        said.append("iou_threshold is 0, as without one")
    if given(node, 4) is None:
        floor = -1.0 if not_negative(node.inputs[1]) else LOWEST
        set_input(node, 4, builder.weight(np.float32([floor]), f"{node.name}/score_threshold"))
        said.append(f"score_threshold is {floor:.6g}, which every {'' if floor == -1 else 'finite '}score is above")
    return "; ".join(said)


def _wants_inputs(node: ir.Node, setting: Setting) -> bool:
    if not is_op(node, "NonMaxSuppression"):
        return False
    asked = scalar(given(node, 2))
    return any(given(node, at) is None for at in range(5)) or asked is None or not 0 < asked <= MOST


# -- rows of -1

_MOVES = ("Cast", "Concat", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Split", "Squeeze",
          "Transpose", "Unsqueeze")
_ROW_BY_ROW = ("Abs", "Add", "Clip", "Div", "Exp", "Floor", "Max", "Min", "Mul", "Neg", "Round", "Sigmoid", "Sub",
               "Where")
# What is no row of -1 any more: sizes (fixed on the chip), positions, and yes or no.
_ENDS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonZero", "Not", "Or", "Shape", "Size")


def _from_nms(value: ir.Value | None, depth: int = 16) -> ir.Node | None:
    """The NonMaxSuppression whose rows ``value`` is made of, moved or computed with."""
    node = value.producer() if value is not None else None
    if node is None or depth == 0 or is_op(node, *_ENDS, "ArgMax", "ArgMin") or _is_position(value):
        return None
    if is_op(node, "NonMaxSuppression"):
        return node
    if (index := _marked(node)) is not None:  # rows of -1 again
        return _from_nms(index, depth - 1)
    parts = node.inputs[:1] if is_op(node, *_MOVES) and not is_op(node, "Concat") else node.inputs
    return next((found for part in parts if (found := _from_nms(part, depth - 1)) is not None), None)


def _is_position(value: ir.Value) -> bool:
    return kind(value) == "TopK" and value is value.producer().outputs[1]


def _guarded(index: ir.Value) -> ir.Value | None:
    """What ``index`` is beside rows of -1, which it has as 0: Where(Less(rows, 0), 0, rows)."""
    while kind(index) == "Cast":
        index = index.producer().inputs[0]
    if kind(index) != "Where" or kind(index.producer().inputs[0]) != "Less":
        return None
    lost, zero, rows = index.producer().inputs
    return rows if scalar(zero) == 0 and scalar(lost.producer().inputs[1]) == 0 else None


def _marked(node: ir.Node) -> ir.Value | None:
    """The rows of a Where that holds -1 for those of -1, and what a guarded Gather gives for the others."""
    if is_op(node, "Where") and scalar(node.inputs[1]) == -1 and kind(node.inputs[2]) in ("Gather", "GatherND"):
        return _guarded(node.inputs[2].producer().inputs[1])
    return None


def _trouble(nms: ir.Node) -> str:
    """The reader of its rows that makes rows of -1 disappear among the others; "" when each stays a row of its own.

    A row is pure while it is -1 throughout: after moving, and after a guarded Gather. Computed with, it is something
    else, and no index any more.
    """
    waiting, seen = [(nms.outputs[0], True)], set()
    while waiting:
        value, pure = waiting.pop()
        if (value, pure) in seen:
            continue
        seen.add((value, pure))
        for reader, at in value.uses():
            if is_op(reader, "Gather", "GatherND") and at == 1:
                if not pure:
                    return f"{reader.op_type} {reader.name} takes for an index what was computed from them"
                waiting.append((reader.outputs[0], True))
            elif is_op(reader, "Concat") or (is_op(reader, *_MOVES, "TopK") and at == 0):
                waiting += [(output, pure) for output in reader.outputs if not _is_position(output)]
            elif is_op(reader, *_ROW_BY_ROW):
                pure = pure and (_guarded(reader.outputs[0]) is not None or _marked(reader) is not None)
                waiting.append((reader.outputs[0], pure))
            elif not is_op(reader, *_ENDS) and not _is_guard(reader):
                return f"{reader.op_type} {reader.name} takes them together with the others"
    return ""


def _is_guard(node: ir.Node) -> bool:
    """Is it the ReduceMin over the columns of an index that a guard asks whether it is below 0?"""
    return is_op(node, "ReduceMin") and all(is_op(reader, "Less") for reader in node.outputs[0].consumers())


def _reads_rows(node: ir.Node, setting: Setting) -> bool:
    return (is_op(node, "Gather", "GatherND") and _guarded(node.inputs[1]) is None
            and _from_nms(node.inputs[1]) is not None)


def _rows_blocked(node: ir.Node, setting: Setting) -> str:
    data, index = node.inputs
    nms = _from_nms(index)
    if trouble := _trouble(nms):
        return f"no rule can keep the rows of -1 of {nms.name} apart: {trouble}. {ON_HOST[0].upper()}{ON_HOST[1:]}"
    if node.attributes.get_int("batch_dims", 0):
        return "it has batch_dims, which come before its rows: plain-gathernd writes it without"
    if index.dtype is None or rank(data) is None or rank(index) is None:
        return f"the rank of {data.name} or of its indices {index.name} is not known: fix the input shapes"
    if data.dtype is None or data.dtype.name not in ("FLOAT", "DOUBLE", "INT32", "INT64"):
        return f"{data.name} is {data.dtype.name if data.dtype else 'of unknown type'}, in which no -1 can mark a row"
    if is_op(node, "GatherND") and shape(index)[-1] is None:
        return f"how many columns its indices {index.name} have is not known: fix the input shapes"
    return ""


def _guard(node: ir.Node, setting: Setting) -> str:
    builder, (data, index), name = Builder(node, setting.model), node.inputs, node.name
    zero = builder.weight(np.asarray(0, index.dtype.numpy()), f"{name}/zero")
    blank = builder.weight(np.asarray(-1, data.dtype.numpy()), f"{name}/blank")
    lost = _less(index, zero, builder)
    safe = builder.op("Where", [lost, zero, index], like=index)
    axes, behind = rank(index), rank(data) - node.attributes.get_int("axis", 0) % rank(data) - 1
    if is_op(node, "GatherND"):
        lowest = builder.over("ReduceMin", index, [axes - 1], {"keepdims": 0}, like=index)
        lost, axes, behind = _less(lowest, zero, builder), axes - 1, rank(data) - shape(index)[-1]
    if behind:
        lost = builder.over("Unsqueeze", lost, range(axes, axes + behind), like=lost)
    result = builder.op(node.op_type, [data, safe], dict(node.attributes), like=node.outputs[0])
    made = builder.nodes[-1]
    replace(node, builder.nodes, builder.op("Where", [lost, blank, result], like=node.outputs[0]))
    made.name = name
    return f"what it gathers for a row of -1 is -1, not the last element of {data.name}"


def _less(value: ir.Value, other: ir.Value, builder: Builder) -> ir.Value:
    import onnx_ir as ir

    result = builder.op("Less", [value, other])
    result.type = ir.TensorType(ir.DataType.BOOL)
    return result


RULES = (
    Rule("nms-five-inputs", "ATC 9.0.1 crashes, without an error code, on a NonMaxSuppression with fewer than five "
         "inputs; more than 700 boxes a class may exhaust the chip.", _wants_inputs, _inputs_blocked, _five_inputs),
    Rule("nms-rows", "On Ascend the output of NonMaxSuppression has a fixed number of rows, padded with -1, which a "
         "Gather takes for the last element.", _reads_rows, _rows_blocked, _guard),
)
