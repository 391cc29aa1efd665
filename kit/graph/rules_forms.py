"""Writes Shape, Split, Pad, Slice and Gather in the one form of several equal ones that every parser reads alike.

    Shape(x, start, end)                  -> Gather(Shape(x), axes): CANN's parser ignores start and end, a wrong answer
    Split(x, num_outputs=n)               -> Split(x, sizes): CANN takes n only where it divides the axis
    Pad(x, pads, value, axes)             -> Pad(x, pads for all axes, value): CANN does not map the axes
    Slice(x, ends=INT64_MAX)              -> Slice(x, ends=size of the axis): CANN counts in 32 bits
    Slice(x, last axis, step 2 or -1)     -> Gather(x, positions): CANN's last axis goes in steps of 1 (5.x document)
    Concat(a, Slice(x) that is empty)     -> Concat(a): empty slices fail in shape inference (msit surgeon)
    Gather(x, -1)                         -> Gather(x, size - 1): CANN's index is out of bounds (5.x document)

Sources: ``limits`` of these operators in ``kit/targets/ascend/operators.json``, and ``breakers.json`` beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, given, is_op, numbers, rank, replace, retire, set_input, shape

if TYPE_CHECKING:
    import onnx_ir as ir

MOST, LEAST = 2**31 - 1, -(2**31)  # what a 32-bit end can say; no axis is longer


def steering(node: ir.Node, at: int, axis: int) -> tuple[int, int | None]:
    """An axis of input ``at``, counted from the front where the rank is known, and its size where that is."""
    value = node.inputs[at]
    count = rank(value)
    if count is None:
        return axis, None
    place = axis + count if axis < 0 else axis
    return place, shape(value)[place]


# -- Shape


def _kept(node: ir.Node) -> range | None:
    """The axes whose sizes a Shape gives; None when the rank of its input is not known."""
    count = rank(node.inputs[0])
    if count is None:
        return None
    end = node.attributes.get_int("end") if "end" in node.attributes else None
    return range(*slice(node.attributes.get_int("start", 0), end).indices(count))


def _shape_blocked(node: ir.Node, setting: Setting) -> str:
    kept = _kept(node)
    if kept is not None and not kept:
        return "it takes the size of no axis at all, and ATC has no empty tensors: fold constants"
    return ""


def _slice_shape(node: ir.Node, setting: Setting) -> str:
    kept = _kept(node)
    start, end = node.attributes.get_int("start", 0), node.attributes.pop("end", None)
    node.attributes.pop("start", None)
    if (kept is not None and len(kept) == rank(node.inputs[0])) or (end is None and start == 0):
        return "start and end that leave nothing out are gone"
    builder = Builder(node, setting.model)
    whole = builder.op("Shape", [node.inputs[0]], like=node.outputs[0])
    if kept is not None:
        axes = builder.weight(np.int64(kept), f"{node.name}/axes")
        result = builder.op("Gather", [whole, axes], {"axis": 0}, like=node.outputs[0])
    else:
        limits = (start, MOST if end is None else end.as_int())
        result = builder.op("Slice", [whole, *(builder.weight(np.int64([limit]), f"{node.name}/{name}")
                                               for limit, name in zip(limits, ("start", "end"), strict=True))],
                            like=node.outputs[0])
    replace(node, builder.nodes, result)
    return f"Shape with start and end became {' + '.join(made.op_type for made in builder.nodes)}"


# -- Split


def _sizes(node: ir.Node) -> list[int] | str:
    """The sizes that ``num_outputs`` stands for, or why they are not known."""
    axis, size = steering(node, 0, node.attributes.get_int("axis", 0))
    if size is None:
        return f"the size of axis {axis} of {node.inputs[0].name} is not known, and with it the sizes of its parts"
    count = len(node.outputs)
    part = -(-size // count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    if sizes[-1] < 1:
        return f"axis {axis} of size {size} in {count} parts of {part} leaves nothing for the last one"
    return sizes


def write_split(node: ir.Node, setting: Setting) -> str:
    """Give a Split the sizes of its parts, where they are known."""
    sizes = _sizes(node)
    node.attributes.pop("num_outputs")
    set_input(node, 1, Builder(node, setting.model).weight(np.int64(sizes), f"{node.name}/sizes"))
    return f"num_outputs became the sizes {_short(sizes)}"


def split_blocked(node: ir.Node, setting: Setting) -> str:
    """Why a Split into a number of parts cannot be given their sizes; "" when it can."""
    sizes = _sizes(node)
    return sizes if isinstance(sizes, str) else ""


# -- Pad


def pad_blocked(node: ir.Node, setting: Setting) -> str:
    """Why a Pad with an axes input, or one that wraps around, has no form without."""
    if node.attributes.get_string("mode", "constant") == "wrap":
        return "mode wrap came with opset 19, and no other mode gives the same numbers"
    if rank(node.inputs[0]) is None:
        return f"the rank of its input {node.inputs[0].name} is not known, and with it the number of its pads"
    for at, what in ((1, "pads"), (3, "axes")):
        if numbers(given(node, at)) is None:
            return f"its {what} ({node.inputs[at].name}) are computed at run time"
    return ""


def write_pad(node: ir.Node, setting: Setting) -> str:
    """Give a Pad the pads of all axes in place of those of some."""
    count, some = rank(node.inputs[0]), numbers(node.inputs[1])
    pads = np.zeros((2, count), np.int64)
    pads[:, numbers(node.inputs[3])] = np.int64(some).reshape(2, -1)
    set_input(node, 3, None)
    set_input(node, 1, Builder(node, setting.model).weight(pads.reshape(-1), f"{node.name}/pads"))
    return f"pads for some axes became pads for all {count}: {_short(pads.reshape(-1).tolist())}"


def _is_pad(node: ir.Node, setting: Setting) -> bool:
    return is_op(node, "Pad") and (given(node, 3) is not None
                                   or node.attributes.get_string("mode", "constant") == "wrap")


# -- Slice


def _cuts(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) of every axis a Slice cuts; None unless all of them are constants."""
    read = [numbers(given(node, at)) if given(node, at) is not None else [] for at in range(1, 5)]
    if any(part is None for part in read) or not read[0]:
        return None
    starts, ends, axes, steps = read
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    return [(steering(node, 0, axis)[0], *rest) for axis, *rest in zip(axes, starts, ends, steps, strict=True)]


def _strided(node: ir.Node) -> tuple[int, int, int, int] | None:
    """The cut along the last axis when it does not go in steps of 1."""
    count = rank(node.inputs[0])
    return next((cut for cut in _cuts(node) or () if cut[3] != 1 and cut[0] in (-1, count and count - 1)), None)


def _is_empty(node: ir.Node) -> bool:
    """Does it give a tensor of no elements that Concats alone read, each of them beside something else?"""
    sizes, value = shape(node.outputs[0]), node.outputs[0]
    if sizes is None or 0 not in sizes or value.is_graph_output() or not value.uses():
        return False
    return all(is_op(reader, "Concat") and shape(value)[reader.attributes.get_int("axis")] == 0
               and any(other is not value for other in reader.inputs) for reader in value.consumers())


def _is_slice(node: ir.Node, setting: Setting) -> bool:
    if not is_op(node, "Slice") or setting.version < 10 or not _cuts(node):
        return False
    far = any(not LEAST <= limit <= MOST for _, start, end, _ in _cuts(node) for limit in (start, end))
    return far or _strided(node) is not None or _is_empty(node)


def _slice_blocked(node: ir.Node, setting: Setting) -> str:
    cut = None if _is_empty(node) else _strided(node)
    if cut and steering(node, 0, cut[0])[1] is None:
        return (f"it goes along the last axis in steps of {cut[3]}, and the size of that axis is not known: "
                "fix the input shapes")
    return ""


def _plain_slice(node: ir.Node, setting: Setting) -> str:
    if _is_empty(node):
        value = node.outputs[0]
        for reader in value.consumers():
            kept = [other for other in reader.inputs if other is not value]
            reader.resize_inputs(len(kept))
            for at, other in enumerate(kept):
                reader.replace_input_with(at, other)
        retire([value])
        return "it gives nothing, and no Concat reads it any more"
    cuts, strided = _cuts(node), _strided(node)
    builder, source = Builder(node, setting.model), node.inputs[0]
    rest = [_near(node, cut) for cut in cuts if cut != strided]
    if not strided:
        for at, name in ((1, "starts"), (2, "ends")):
            values = [cut[at] for cut in rest]
            if values != numbers(node.inputs[at]):
                dtype = node.inputs[at].dtype.numpy()
                set_input(node, at, builder.weight(np.asarray(values, dtype), f"{node.name}/{name}"))
        return "starts and ends beyond 32 bits became " + ", ".join(f"{cut[1]}:{cut[2]}" for cut in rest)
    if rest:
        starts, ends, axes, steps = (
            builder.weight(np.int64([cut[at] for cut in rest]), f"{node.name}/{name}")
            for at, name in ((1, "starts"), (2, "ends"), (0, "axes"), (3, "steps")))
        source = builder.op("Slice", [source, starts, ends, axes, steps], like=source)
    axis, start, end, step = strided
    size = steering(node, 0, axis)[1]
    positions = np.arange(size)[slice(start, end, step)]
    result = builder.op("Gather", [source, builder.weight(positions, f"{node.name}/positions")], {"axis": axis},
                        like=source)
    replace(node, builder.nodes, result)
    return f"steps of {step} along the last axis became a Gather of {len(positions)} positions"


def _near(node: ir.Node, cut: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The same cut with limits of 32 bits; what lies beyond both ends of an axis is its end."""
    axis, start, end, step = cut
    most = steering(node, 0, axis)[1] or MOST
    return axis, *(most if limit > MOST else LEAST if limit < LEAST else limit for limit in (start, end)), step


# -- Gather


def _from_behind(node: ir.Node) -> bool:
    indices = numbers(given(node, 1)) if is_op(node, "Gather") else None
    return bool(indices) and min(indices) < 0


def _gather_blocked(node: ir.Node, setting: Setting) -> str:
    axis, size = steering(node, 0, node.attributes.get_int("axis", 0))
    if size is None:
        return f"the size of axis {axis} of {node.inputs[0].name} is not known, so that its last place has no number"
    return ""


def _plain_gather(node: ir.Node, setting: Setting) -> str:
    import onnx_ir as ir

    size = steering(node, 0, node.attributes.get_int("axis", 0))[1]
    old = ir.convenience.get_const_tensor(node.inputs[1]).numpy()
    new = np.where(old < 0, old + size, old).astype(old.dtype)
    set_input(node, 1, Builder(node, setting.model).weight(new, f"{node.name}/indices"))
    return f"index {_short(old.reshape(-1).tolist())} became {_short(new.reshape(-1).tolist())}"


def _short(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (" ..." if len(values) > 8 else "")


RULES = (
    Rule("slice-shape", "ATC's parser ignores start and end of a Shape and gives the whole shape: a wrong answer.",
         lambda node, setting: is_op(node, "Shape") and bool({"start", "end"} & set(node.attributes)),
         _shape_blocked, _slice_shape),
    Rule("plain-split", "ATC takes num_outputs only where it divides the axis; opset 17 and lower do not have it.",
         lambda node, setting: is_op(node, "Split") and "num_outputs" in node.attributes, split_blocked, write_split),
    Rule("plain-pad", "ATC does not map the axes input of a Pad, which came with opset 18, nor mode wrap.", _is_pad,
         pad_blocked, write_pad),
    Rule("plain-slice", "Ends beyond 32 bits, steps other than 1 along the last axis and empty results are known to "
         "trip ATC.", _is_slice, _slice_blocked, _plain_slice),
    Rule("plain-gather", "Counting an index from behind is out of bounds for older CANN releases.",
         lambda node, setting: _from_behind(node), _gather_blocked, _plain_gather),
)
