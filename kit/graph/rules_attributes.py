"""Writes out what ONNX lets a node leave to its inputs, and explicit pads in the place of ``auto_pad``.

    Transpose(x)                          -> Transpose(x, perm=[2, 1, 0])
    Conv(x, W), ConvTranspose(x, W)       -> the same with kernel_shape
    Conv, pools (auto_pad=SAME_LOWER)     -> the same with pads
    Flatten(axis=-1), GridSample(x, g)    -> axis from the front; mode, padding_mode and align_corners

Each of these is in the plugin sources of CANN's parser as required, or as read differently: ``limits`` in
``kit/targets/ascend/operators.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kit.graph.rule import Rule, Setting
from kit.graph.rules_forms import steering
from kit.graph.values import is_op, rank, shape

if TYPE_CHECKING:
    import onnx_ir as ir

New = dict[str, Any]
GRID_SAMPLE: New = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0}


def _transpose(node: ir.Node) -> New | str:
    if "perm" in node.attributes:
        return {}
    count = rank(node.inputs[0])
    if count is None:
        return f"the rank of its input {node.inputs[0].name} is not known"
    return {"perm": list(reversed(range(count)))}


def _flatten(node: ir.Node) -> New | str:
    axis = node.attributes.get_int("axis", 1)
    if axis >= 0:
        return {}
    count = rank(node.inputs[0])
    return f"the rank of its input {node.inputs[0].name} is not known" if count is None else {"axis": axis + count}


def _grid_sample(node: ir.Node) -> New | str:
    missing = {name: value for name, value in GRID_SAMPLE.items() if name not in node.attributes}
    return missing if missing.keys() & {"mode", "padding_mode"} else {}


def _convolution(node: ir.Node) -> New | str:
    kernel = shape(node.inputs[1])
    new: New = {}
    if "kernel_shape" not in node.attributes:
        if kernel is None or None in kernel:
            return f"the shape of its weight {node.inputs[1].name} is not known"
        new["kernel_shape"] = kernel[2:]
    if kernel is not None and len(kernel) == 5 and not {"strides", "pads", "dilations"} & set(node.attributes):
        new["strides"] = [1, 1, 1]  # without one of the three ATC takes five axes for four
    return _with_pads(node, new)


def _with_pads(node: ir.Node, new: New) -> New | str:
    """``new`` with explicit pads where the node asks for SAME, or why those are not known."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return new
    kernel = new.get("kernel_shape") or list(node.attributes["kernel_shape"].as_ints())
    ones = [1] * len(kernel)
    strides, dilations = (list(node.attributes[name].as_ints()) if name in node.attributes else ones
                          for name in ("strides", "dilations"))
    pads = []
    for at, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = (size - 1) * dilation + 1
        total = (_transposed_pad if node.op_type == "ConvTranspose" else _pad)(node, at, reach, stride)
        if isinstance(total, str):
            return total
        low, high = total // 2, total - total // 2
        pads.append((low, high) if mode == "SAME_UPPER" else (high, low))
    begins, ends = zip(*pads, strict=True)
    return {**new, "pads": [*begins, *ends], "auto_pad": None, **({"ceil_mode": None} if "ceil_mode" in node.attributes
                                                                  else {})}


def _pad(node: ir.Node, at: int, reach: int, stride: int) -> int | str:
    """How much SAME adds along a spatial axis in all, so that there is an output for every ``stride`` inputs."""
    if stride == 1:
        return reach - 1
    axis, size = steering(node, 0, at + 2)
    if size is None:
        return f"the size of axis {axis} of {node.inputs[0].name} is not known, and with it the pads of auto_pad SAME"
    return max((-(-size // stride) - 1) * stride + reach - size, 0)


def _transposed_pad(node: ir.Node, at: int, reach: int, stride: int) -> int | str:
    """How much SAME takes away, so that there are ``stride`` outputs for every input."""
    if "output_shape" in node.attributes:
        return "its output_shape decides the pads"
    more = node.attributes["output_padding"].as_ints()[at] if "output_padding" in node.attributes else 0
    total = reach + more - stride
    if total < 0 or total % 2:
        return f"auto_pad SAME would take {total} along axis {at + 2}: runtimes do not agree on which side"
    return total


FORMS: dict[str, Callable[[ir.Node], New | str]] = {
    "Transpose": _transpose, "Flatten": _flatten, "GridSample": _grid_sample, "Conv": _convolution,
    "ConvTranspose": _convolution, **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"),
                                                   lambda node: _with_pads(node, {})),
}


def _wanted(node: ir.Node) -> New | str:
    return FORMS[node.op_type](node) if is_op(node, *FORMS) else {}


def _blocked(node: ir.Node, setting: Setting) -> str:
    wanted = _wanted(node)
    return wanted if isinstance(wanted, str) else ""


def _write(node: ir.Node, setting: Setting) -> str:
    import onnx_ir as ir

    said = []
    for name, value in _wanted(node).items():
        if value is None:
            node.attributes.pop(name)
            said.append(f"no {name}")
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
            said.append(f"{name}={value}")
    return "written out: " + ", ".join(said)


RULES = (
    Rule("plain-attributes", "ATC does not work out what a node leaves to its inputs (the order of a Transpose, the "
         "size of a kernel), and reads auto_pad SAME in its own way.",
         lambda node, setting: bool(_wanted(node)), _blocked, _write),
)
