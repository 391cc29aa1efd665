"""Attributes in one plain form: defaults filled in, pads explicit, axes counted from the front, small constants read.

What an exporter may give as an attribute or as a constant input (axes, sizes, limits) ends up as an attribute, so that
both ways of writing it look the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kit.inspection.graph import Graph, Node

Plain = dict[str, Any]
_IGNORED = frozenset({"momentum", "training_mode", "spatial", "storage_order", "allowzero", "is_test", "seed",
                      "consumed_inputs"})
AXIS = frozenset({"Softmax", "LogSoftmax", "Hardmax", "Concat", "ArgMax", "ArgMin", "Gather", "GatherElements", "TopK",
                  "Split", "ScatterElements", "OneHot", "QuantizeLinear", "DequantizeLinear"})


def plain(node: Node, graph: Graph) -> tuple[Plain, list[str]]:
    """The attributes of a node, and the names of the inputs that they do not already tell ("" for one left out)."""
    made = _READ.get(node.operator, _general)(node, graph) if not node.domain else _general(node, graph)
    told, used = made
    kept = [t.name if t is not None else "" for at, t in enumerate(node.inputs) if at not in used]
    while kept and not kept[-1]:
        kept.pop()
    return {name: rounded(value) for name, value in sorted(told.items())}, kept


Read = tuple[Plain, set[int]]


def _general(node: Node, graph: Graph) -> Read:
    told = {**_defaults(node), **{name: _value(value) for name, value in node.attributes.items()}}
    told = {name: value for name, value in told.items() if value is not None and name not in _IGNORED}
    if node.operator in AXIS and "axis" in told:
        told["axis"] = _front(told["axis"], _rank(node))
    return told, set()


def _defaults(node: Node) -> Plain:
    import onnx

    try:
        schema = onnx.defs.get_schema(node.operator, node.version, node.domain)
    except onnx.defs.SchemaError:
        return {}
    return {name: _value(onnx.helper.get_attribute_value(about.default_value))
            for name, about in schema.attributes.items() if about.default_value.name}


def _value(value: Any) -> Any:
    """None for what is no plain value, such as a body."""
    import onnx

    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return f"constant {list(value.dims)}"
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    return value if isinstance(value, int | float | str) else None


def rounded(value: Any) -> Any:
    """Six digits: 1/6 stored with 32 bits and computed with 64 are the same."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [rounded(one) for one in value] if isinstance(value, list) else value


def _rank(node: Node, at: int = 0) -> int:
    tensor = node.input(at)
    return len(tensor.shape) if tensor is not None and tensor.shape is not None else 0


def _front(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 and rank else axis


def _numbers(node: Node, graph: Graph, at: int) -> list[Any] | None:
    """A small constant input as a list; None where it is not one."""
    found = graph.value(node.input(at))
    return None if found is None else np.ravel(found).tolist()


def _sizes(node: Node, which: str = "inputs") -> tuple[Any, ...]:
    tensor = node.input(0) if which == "inputs" else node.outputs[0]
    return tensor.shape or () if tensor is not None else ()


def _windows(node: Node, graph: Graph) -> Read:
    """Convolutions and pools."""
    given = {name: _value(value) for name, value in node.attributes.items()}
    sizes = _sizes(node)
    weight = node.input(1)
    pool = node.operator.endswith("Pool")
    kernel = given.get("kernel_shape") or list(weight.shape[2:] if not pool and weight and weight.shape else ())
    count = len(kernel)
    strides, dilations = given.get("strides") or [1] * count, given.get("dilations") or [1] * count
    told = {"kernel": kernel, "strides": strides, "dilations": dilations}
    told["pads"] = _pads(given, node, sizes[2:], kernel, strides, dilations)
    if not pool:
        told["groups"] = given.get("group", 1)
    if node.operator == "ConvTranspose":
        told["output_padding"] = given.get("output_padding") or [0] * count
    if pool:
        told["ceil_mode"] = given.get("ceil_mode", 0)
    if node.operator == "AveragePool" and any(told["pads"]):
        told["count_include_pad"] = given.get("count_include_pad", 0)
    if node.operator == "LpPool":
        told["p"] = given.get("p", 2)
    return told, set()


def _pads(given: Plain, node: Node, sizes: tuple[Any, ...], kernel: list[int], strides: list[int],
          dilations: list[int]) -> list[int] | str:
    """Begin of every axis, then end; the words of ``auto_pad`` where the sizes are not known."""
    count, auto = len(kernel), given.get("auto_pad", "NOTSET")
    transposed = node.operator == "ConvTranspose"
    if auto == "VALID" or (auto == "NOTSET" and not given.get("output_shape")):
        return (given.get("pads") or [0] * 2 * count) if auto == "NOTSET" else [0] * 2 * count
    outside = _sizes(node, "outputs")[2:]
    if len(sizes) != count or any(isinstance(size, str) for size in (*sizes, *outside)):
        return auto
    begin, end = [], []
    for at, size in enumerate(sizes):
        reach = (kernel[at] - 1) * dilations[at] + 1
        if transposed:
            extra = (given.get("output_padding") or [0] * count)[at]
            total = max(0, strides[at] * (size - 1) + extra + reach - int(outside[at]))
        else:
            total = max(0, (-(-size // strides[at]) - 1) * strides[at] + reach - size)
        small = total // 2
        begin.append(total - small if auto == "SAME_LOWER" else small)
        end.append(small if auto == "SAME_LOWER" else total - small)
    return [*begin, *end]


def _reduce(node: Node, graph: Graph) -> Read:
    rank = _rank(node)
    axes, used = node.attributes.get("axes"), set()
    if axes is None and node.input(1) is not None:
        axes = _numbers(node, graph, 1)
        used = {1} if axes is not None else set()
    if axes is None and node.input(1) is None:
        axes = list(range(rank))
    told = {"keepdims": node.attributes.get("keepdims", 1)}
    if axes is not None:
        told["axes"] = sorted(_front(axis, rank) for axis in axes)
    return told, used


def _clip(node: Node, graph: Graph) -> Read:
    told, used = {}, set()
    for at, name in ((1, "min"), (2, "max")):
        numbers = _numbers(node, graph, at) if node.input(at) is not None else None
        if numbers is not None:
            told[name] = float(numbers[0])
            used.add(at)
        elif name in node.attributes:
            told[name] = float(node.attributes[name])
    return told, used


def _softmax(node: Node, graph: Graph) -> Read:
    axis = node.attributes.get("axis", -1 if node.version >= 13 else 1)
    rank = _rank(node)
    told: Plain = {"axis": _front(axis, rank)}
    if node.version < 13 and told["axis"] != rank - 1:
        told["over"] = "every axis from there on"  # what opset 12 and older mean
    return told, set()


def _transpose(node: Node, graph: Graph) -> Read:
    return {"perm": list(node.attributes.get("perm") or reversed(range(_rank(node))))}, set()


def _reshape(node: Node, graph: Graph) -> Read:
    # The result's shape says it all. The wanted one counts only where it is computed.
    return {}, {1} if _numbers(node, graph, 1) is not None or node.outputs[0].elements is not None else set()


def _resize(node: Node, graph: Graph) -> Read:
    given = {name: _value(value) for name, value in node.attributes.items()}
    mode = given.get("mode", "nearest")
    # Upsample and Resize 10 know one rule only.
    where = given.get("coordinate_transformation_mode", "half_pixel" if node.version >= 11 else "asymmetric")
    told = {"mode": mode, "coordinates": where}
    if mode == "nearest":
        told["nearest"] = given.get("nearest_mode", "round_prefer_floor" if node.version >= 11 else "floor")
    before, after = _sizes(node), _sizes(node, "outputs")
    if len(before) == len(after) and not any(isinstance(size, str) or not size for size in (*before, *after)):
        told["scales"] = [new / old for old, new in zip(before, after, strict=True)]
        return told, {1, 2, 3}
    return told, set()


def _pad(node: Node, graph: Graph) -> Read:
    rank = _rank(node)
    pads = node.attributes.get("pads") or (_numbers(node, graph, 1) if node.input(1) is not None else None)
    axes = _numbers(node, graph, 3) if node.input(3) is not None else list(range(rank))
    told: Plain = {"mode": _value(node.attributes.get("mode", b"constant"))}
    if pads is None or axes is None:
        return told, set()
    before, after = [0] * rank, [0] * rank
    for at, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[at]), int(pads[at + len(axes)])
    told.update(before=before, after=after)
    if told["mode"] == "constant":
        value = _numbers(node, graph, 2) if node.input(2) is not None else None
        told["value"] = float(value[0]) if value else float(node.attributes.get("value", 0.0))
    return told, {1, 2, 3}


def _slice(node: Node, graph: Graph) -> Read:
    rank, sizes = _rank(node), _sizes(node)
    if "starts" in node.attributes:
        parts = [node.attributes.get(name) for name in ("starts", "ends", "axes")] + [None]
    else:
        parts = [_numbers(node, graph, at) for at in (1, 2, 3, 4)]
        if any(part is None and node.input(at) is not None for at, part in enumerate(parts, 1)):
            return {}, set()
    starts, _, axes, steps = parts  # where it ends is told by the result's shape
    axes = [_front(axis, rank) for axis in axes or range(len(starts))]
    told = {"starts": [0] * rank, "steps": [1] * rank}
    for at, axis in enumerate(axes):
        size = sizes[axis] if axis < len(sizes) and isinstance(sizes[axis], int) else None
        start = starts[at] + size if starts[at] < 0 and size is not None else starts[at]
        told["starts"][axis] = min(start, size) if size is not None else start
        told["steps"][axis] = (steps or [1] * len(axes))[at]
    return told, {1, 2, 3, 4}


def _split(node: Node, graph: Graph) -> Read:
    told, _ = _general(node, graph)
    # The results' shapes tell the pieces.
    return {"axis": told.get("axis", 0)}, {1} if _numbers(node, graph, 1) is not None else set()


def _cast(node: Node, graph: Graph) -> Read:
    return {"to": node.outputs[0].dtype}, set()


def _sized(node: Node, graph: Graph) -> Read:
    """Expand and Tile: the result's shape tells."""
    return {}, {1} if _numbers(node, graph, 1) is not None else set()


def _layer_norm(node: Node, graph: Graph) -> Read:
    rank = _rank(node)
    axis = _front(node.attributes.get("axis", -1), rank)
    return {"axes": list(range(axis, rank)), "epsilon": node.attributes.get("epsilon", 1e-5)}, set()


def _top_k(node: Node, graph: Graph) -> Read:
    told, _ = _general(node, graph)
    return told, {1} if _numbers(node, graph, 1) is not None else set()


_READ: dict[str, Callable[[Node, Graph], Read]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"), _windows),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                     "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Expand", "Tile"), _sized),
    "Cast": _cast, "Clip": _clip, "LayerNormalization": _layer_norm, "Pad": _pad, "Slice": _slice, "Split": _split,
    "TopK": _top_k, "Transpose": _transpose,
}
