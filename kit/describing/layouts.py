"""Where the channels are: first (NCHW) as ONNX's convolutions want them, or last (NHWC) as TensorFlow keeps them.

Convolutions, pools and BatchNormalization fix it for their values; from there it spreads over operators that keep the
order of axes and turns round at a Transpose. Values of every kind are then described with the channels first, and a
Transpose between the two is no operator but a remark.
"""

from __future__ import annotations

from collections import deque
from math import prod
from typing import Any

from kit.describing.net import Net, Piece
from kit.inspection.graph import Tensor

FIRST, LAST = "first", "last"
_SEEDS = frozenset({
    "convolution", "transposed_convolution", "deformable_convolution", "max_pool", "average_pool",
    "global_average_pool", "global_max_pool", "batch_normalization", "instance_normalization", "group_normalization",
    "depth_to_space", "space_to_depth", "local_response_normalization", "grid_sample"})
# The order of axes is kept, and every computed input has the result's.
_KEEPING = frozenset({
    "relu", "clip", "leaky_relu", "prelu", "elu", "selu", "sigmoid", "hard_sigmoid", "hard_swish", "swish", "gelu",
    "mish", "tanh", "softplus", "softsign", "softmax", "log_softmax", "erf", "add", "subtract", "multiply", "divide",
    "power", "square_root", "reciprocal", "exponential", "logarithm", "absolute", "negate", "floor", "ceiling", "round",
    "modulo", "sine", "cosine", "maximum", "minimum", "add_all", "equal", "greater", "greater_equal", "less",
    "less_equal", "logical_and", "logical_or", "logical_xor", "logical_not", "select", "concatenate", "split", "slice",
    "pad", "expand", "tile", "resize", "cast", "quantize", "dequantize", "layer_normalization", "rms_normalization",
    "cumulative_sum", "reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_product", "reduce_l2", "arg_max",
    "arg_min", "top_k"})
_PER_AXIS = ("scales", "before", "after", "starts", "steps")


def order(rank: int) -> list[int]:
    """Places of N, C, and the others in a shape that has the channels last."""
    return [0, rank - 1, *range(1, rank - 1)]


def channels_first(shape: tuple[Any, ...] | None, layout: str) -> tuple[Any, ...] | None:
    """A shape as it would be with the channels first."""
    return tuple(shape[at] for at in order(len(shape))) if shape is not None and layout == LAST else shape


def settle(net: Net) -> list[str]:
    """Find every value's layout, write it and the axes into the pieces, take out what only changes it.

    Returns:
        Names of the Transpose nodes that were taken out.
    """
    found = net.layouts = _spread(net)
    gone = [piece for piece in net.pieces if _turns(piece, net, found)]
    for piece in net.pieces:
        piece.layout = next((found[name] for name in piece.outputs if name in found), "")
        if piece.operator not in _SEEDS and piece not in gone:
            _turn(piece, net)
    for piece in gone:
        net.rename(piece.outputs[0], piece.inputs[0])
        net.names.setdefault(piece.inputs[0], []).append(piece.outputs[0])
    net.pieces = [piece for piece in net.pieces if piece not in gone]
    return [node.name for piece in gone for node in piece.nodes]


def _rank(net: Net, name: str) -> int:
    tensor = net.tensors.get(name)
    return len(tensor.shape) if tensor is not None and tensor.shape is not None else 0


def _sizes(net: Net, name: str) -> tuple[int, ...]:
    """Unknown ones count as 2."""
    return tuple(size if isinstance(size, int) else 2 for size in net.tensors[name].shape or ())


def _spread(net: Net) -> dict[str, str]:
    touching: dict[str, list[Piece]] = {}
    for piece in net.pieces:
        for name in dict.fromkeys((*_data(piece, net), *piece.outputs)):
            touching.setdefault(name, []).append(piece)
    found: dict[str, str] = {}
    waiting: deque[str] = deque()

    def settle_one(name: str, layout: str) -> None:
        if name and name not in found and _rank(net, name) in (3, 4, 5) and not net.is_constant(name):
            found[name] = layout
            waiting.append(name)

    for piece in net.pieces:
        if piece.operator in _SEEDS:
            for name in (*piece.inputs[:1], *piece.outputs):
                settle_one(name, FIRST)
    while waiting:
        name = waiting.popleft()
        for piece in touching.get(name, ()):
            if piece.operator in _KEEPING:
                rank = _rank(net, name)
                for other in (*_data(piece, net), *piece.outputs):
                    if _rank(net, other) == rank:
                        settle_one(other, found[name])
            elif piece.operator == "transpose":
                ahead = name == piece.inputs[0]
                turned = _turned(piece, found[name], ahead)
                if turned:
                    settle_one(piece.outputs[0] if ahead else piece.inputs[0], turned)
    return found


def _data(piece: Piece, net: Net) -> list[str]:
    """The inputs that are computed."""
    return [name for name in piece.inputs if name and not net.is_constant(name)]


def _turned(piece: Piece, layout: str, ahead: bool) -> str:
    """The layout on the other side of a Transpose; "" where it does not lead from one to the other."""
    perm = piece.attributes["perm"]
    other = FIRST if layout == LAST else LAST
    wanted = [0, *range(2, len(perm)), 1] if (other if ahead else layout) == LAST else order(len(perm))
    return other if perm == wanted else ""


def _turns(piece: Piece, net: Net, found: dict[str, str]) -> bool:
    if piece.operator != "transpose":
        return False
    before, after = found.get(piece.inputs[0], ""), found.get(piece.outputs[0], "")
    return bool(before and after) and before != after and _turned(piece, before, True) == after


def _turn(piece: Piece, net: Net) -> None:
    """Axes and sizes by axis, as with the channels first; a reshape of channels last is marked."""
    told = piece.attributes
    if piece.operator == "reshape":  # the same numbers come out in another order
        for name, word in ((piece.inputs[0], "reads"), (piece.outputs[0], "writes")):
            if net.layouts.get(name) == LAST and prod(_sizes(net, name)[1:-1]) != 1:
                told[word] = "channels last"
        return
    name = next((n for n in (*_data(piece, net), *piece.outputs) if net.layouts.get(n)), "")
    if net.layouts.get(name) != LAST:
        return
    rank = _rank(net, name)
    places = order(rank)
    if isinstance(told.get("axis"), int) and told["axis"] < rank:
        told["axis"] = places.index(told["axis"])
    if isinstance(told.get("axes"), list):
        told["axes"] = sorted(places.index(axis) for axis in told["axes"])
    for key in _PER_AXIS:
        if isinstance(told.get(key), list) and len(told[key]) == rank:
            told[key] = [told[key][at] for at in places]


def per_channel(tensor: Tensor | None, result: Tensor | None, layout: str, *, last: bool = False) -> bool:
    """Does a constant differ along the channels of a result only (with ``last``: along its last axis)?"""
    if tensor is None or result is None or tensor.elements is None or not result.shape:
        return False
    rank = len(result.shape)
    at = rank - 1 if last or layout == LAST else 1
    sizes = (1,) * (rank - len(tensor.shape or ())) + (tensor.shape or ())
    return len(sizes) == rank and all(size == 1 or place == at for place, size in enumerate(sizes))
