"""How much work a node is: multiply-accumulates, floating-point operations, bytes moved.

Convention: one multiply-accumulate is two FLOPs; element-wise operators count one FLOP per output element, and those
built from several steps the number in ``STEPS``; moving data counts none. Bytes are those of every input and output
once, weights included, as if nothing stayed in a cache. The figures are counts, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from kit.inspection.graph import Node, Tensor

# Operators that move or describe data: no arithmetic.
MOVING = frozenset({
    "Cast", "CastLike", "Compress", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "DepthToSpace",
    "Dropout", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "If", "Loop",
    "NonZero", "OneHot", "Pad", "Range", "Reshape", "ReverseSequence", "Scan", "Scatter", "ScatterElements",
    "ScatterND", "SequenceAt", "SequenceConstruct", "Shape", "Size", "Slice", "SpaceToDepth", "Split",
    "SplitToSequence", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
})
# FLOPs per output element of operators made of several steps (an exponential or a root counts as one).
STEPS = {
    "BatchNormalization": 2, "Celu": 4, "Elu": 3, "Gelu": 5, "GroupNormalization": 7, "HardSigmoid": 4, "HardSwish": 5,
    "InstanceNormalization": 7, "LayerNormalization": 7, "LogSoftmax": 5, "LpNormalization": 3, "Mish": 4,
    "RMSNormalization": 5, "Selu": 4, "Sigmoid": 3, "SimplifiedLayerNormalization": 5, "SkipLayerNormalization": 8,
    "Softmax": 4, "Softplus": 2, "Softsign": 3, "QuantizeLinear": 3, "DequantizeLinear": 2, "FastGelu": 8,
    "QuickGelu": 4, "BiasGelu": 6,
}
_CONV = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"})
_MATMUL = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "TransposeMatMul",
                     "DynamicQuantizeMatMul", "MatMulIntegerToFloat"})
_POOLS = frozenset({"AveragePool", "MaxPool", "LpPool"})
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Cost:
    """Of one node, run once.

    Attributes:
        macs: multiply-accumulates.
        flops: floating-point operations, the MACs counted twice included.
        bytes: read and written.
        parameters: numbers in its constant inputs.
        known: False when a shape is missing and the figures are too low.
    """

    macs: int
    flops: int
    bytes: int
    parameters: int
    known: bool


def cost(node: Node) -> Cost:
    """Count the work of one node. A node with a body (If, Loop) costs what its body's nodes cost, counted there."""
    tensors = [t for t in (*node.inputs, *node.outputs) if t is not None]
    known = all(t.elements is not None for t in tensors)
    macs = _macs(node)
    flops = 2 * macs if macs else _flops(node)
    moved = 0 if node.operator in ("Constant", "If", "Loop", "Scan") else sum(t.bytes for t in tensors)
    return Cost(macs, flops, moved, sum(t.elements or 0 for t in node.inputs if t is not None and t.constant), known)


def _macs(node: Node) -> int:
    if node.operator in _CONV:
        # QLinearConv has scale and zero point of x before the weight.
        weight = node.input(3 if node.operator == "QLinearConv" else 1)
        return _size(node.outputs) * _per_output(weight)
    if node.operator == "ConvTranspose":
        return _elements(node.input(0)) * _per_output(node.input(1))
    if node.operator == "Gemm":
        a = node.input(0)
        inner = a.shape[0 if node.attributes.get("transA") else 1] if a and a.shape and len(a.shape) == 2 else 0
        return _size(node.outputs) * (inner if isinstance(inner, int) else 0)
    if node.operator in _MATMUL:
        a = node.input(0)
        at = -2 if node.attributes.get("transA") and len(a.shape or ()) > 1 else -1
        inner = a.shape[at] if a and a.shape else 0
        return _size(node.outputs) * (inner if isinstance(inner, int) else 0)
    if node.operator == "MatMulNBits":
        return _size(node.outputs) * int(node.attributes.get("K", 0))
    if node.operator == "Einsum":
        return _einsum(node)
    if node.operator in _GATES:
        return _recurrent(node)
    return 0


def _flops(node: Node) -> int:
    if node.operator in MOVING:
        return 0
    if node.operator in _POOLS:
        return _size(node.outputs[:1]) * prod(node.attributes.get("kernel_shape", [1]))
    if node.operator.startswith(("Reduce", "Global", "Arg")) or node.operator in ("CumSum", "TopK"):
        return _elements(node.input(0))
    if node.operator == "Resize":
        mode = node.attributes.get("mode", b"nearest")
        return _size(node.outputs) * {b"linear": 7, b"cubic": 35}.get(mode, 0)  # two-dimensional interpolation
    if node.operator == "GridSample":
        return _size(node.outputs) * 11
    if node.operator in ("Sum", "Mean", "Max", "Min"):
        return _size(node.outputs) * max(1, len(node.inputs) - 1)
    return _size(node.outputs[:1]) * STEPS.get(node.operator, 1)


def _einsum(node: Node) -> int:
    """The product of every label's size: the loop nest that the equation spells."""
    equation = node.attributes.get("equation", b"").decode().replace(" ", "")
    left = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    if "..." in equation or len(left) < 2:
        return 0
    for labels, tensor in zip(left, node.inputs, strict=False):
        for label, axis in zip(labels, (tensor.shape or ()) if tensor else (), strict=False):
            sizes[label] = axis if isinstance(axis, int) else 0
    return prod(sizes.values()) if sizes else 0


def _recurrent(node: Node) -> int:
    x, w = node.input(0), node.input(1)  # [steps, batch, in], [directions, gates * hidden, in]
    if not x or not w or x.elements is None or w.elements is None or len(x.shape) != 3:
        return 0
    hidden = int(node.attributes.get("hidden_size", w.shape[1] // _GATES[node.operator]))
    steps_and_batch = x.shape[0] * x.shape[1]
    return steps_and_batch * w.shape[0] * _GATES[node.operator] * hidden * (x.shape[2] + hidden)


def _per_output(weight: Tensor | None) -> int:
    """Numbers in one slice of a convolution's weight along its first axis."""
    if weight is None or weight.elements is None or not weight.shape or not weight.shape[0]:
        return 0
    return weight.elements // int(weight.shape[0])


def _elements(tensor: Tensor | None) -> int:
    return (tensor.elements or 0) if tensor else 0


def _size(tensors: tuple[Tensor, ...]) -> int:
    return _elements(tensors[0]) if tensors else 0
