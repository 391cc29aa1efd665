"""The few numbers that steer shapes, computed while a graph is walked.

ONNX's data propagation gives up in the middle of common chains (Shape, Slice with steps, Cast, Concat, Reshape), and
everything behind them is then without a shape. Here the small integers of such chains are worked out with onnx's
reference implementation, and a node's outputs are inferred again with those numbers given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

LIMIT = 64  # elements: no shape has more axes, and few chains carry more numbers
STEERING = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather",
    "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Size", "Slice", "Split", "Sqrt",
    "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
})
# Operators that onnx's inference skips, or does not know, and whose first output is shaped like their first input.
SAME = frozenset({"BiasGelu", "FastGelu", "Gelu", "GroupNorm", "GroupNormalization", "Mish", "QuickGelu",
                  "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "Swish"})
_NAMES = {"float": "float32", "double": "float64"}


class ShapeArithmetic:
    """Known numbers by tensor name, and inference with their help.

    Attributes:
        numbers: what is known so far; some of it holds only for the sizes that the inputs are bound to.
    """

    def __init__(self, opsets: Mapping[str, int]) -> None:
        import onnx

        self._onnx = onnx
        self._opsets = dict(opsets)
        self._imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self.numbers: dict[str, np.ndarray] = {}

    def know(self, name: str, tensor: Any) -> None:
        """Take a small constant."""
        self.numbers[name] = self._onnx.numpy_helper.to_array(tensor)

    def infer(self, node: Any, inputs: Sequence[Any]) -> dict[str, tuple[str, tuple[int | str, ...] | None]]:
        """Type and shape of a node's outputs, with the numbers known so far; empty where that does not work."""
        onnx = self._onnx
        if node.op_type in SAME and inputs and inputs[0] is not None and inputs[0].shape is not None:
            return {node.output[0]: (inputs[0].dtype, inputs[0].shape)}
        if node.domain:
            return {}
        types = {t.name: onnx.helper.make_tensor_type_proto(_code(onnx, t.dtype), _open(t.shape))
                 for t in inputs if t is not None and t.dtype != "?"}
        data = {name: onnx.numpy_helper.from_array(self.numbers[name]) for name in node.input
                if name in self.numbers}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get("", 1), "")
            found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=self._imports)
        except Exception:  # a foreign operator or a missing input: the answer is then simply "unknown"
            return {}
        return {name: type_of(kind) for name, kind in found.items() if kind.HasField("tensor_type")}

    def evaluate(self, node: Any, inputs: Sequence[Any]) -> None:
        """Compute a node whose inputs are all known numbers, when it is one that steers shapes."""
        if node.op_type == "Shape" and inputs and inputs[0] is not None and inputs[0].elements is not None:
            at = {a.name: a.i for a in node.attribute}
            shape = inputs[0].shape[at.get("start", 0):at.get("end")]
            self.numbers[node.output[0]] = np.asarray(shape, np.int64)
            return
        if node.op_type not in STEERING or any(name and name not in self.numbers for name in node.input):
            return
        if not node.input or (node.op_type in ("ConstantOfShape", "Expand", "Tile", "Range") and self._too_big(node)):
            return
        from onnx.reference import ReferenceEvaluator

        try:
            names = [name for name in node.input if name]
            made = ReferenceEvaluator(node, opsets=self._opsets).run(None, {n: self.numbers[n] for n in names})
        except Exception:  # the reference implementation lacks a case: the number stays unknown
            return
        for name, value in zip(node.output, made, strict=False):
            if isinstance(value, np.ndarray | np.generic) and np.size(value) <= LIMIT:
                self.numbers[name] = np.asarray(value)

    def _too_big(self, node: Any) -> bool:
        """These can make millions of numbers out of a few: look before computing."""
        numbers = [self.numbers[name] for name in node.input if name]
        if node.op_type == "Range":
            start, stop, step = (float(n) for n in numbers)
            return not step or abs((stop - start) / step) > LIMIT
        sizes = numbers[-1]
        return sizes.size > LIMIT or prod(int(n) for n in np.ravel(sizes)) * max(1, numbers[0].size) > LIMIT**2


def type_of(kind: Any) -> tuple[str, tuple[int | str, ...] | None]:
    """Name of the type and shape of an onnx ``TypeProto``; None for an unknown rank, "?" for an unknown axis."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return dtype_name(tensor.elem_type), None
    return dtype_name(tensor.elem_type), tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
                                               for d in tensor.shape.dim)


def dtype_name(code: int) -> str:
    """``1`` -> ``float32``: names as numpy has them, ``?`` when unknown."""
    import onnx

    if not code:
        return "?"
    name = onnx.TensorProto.DataType.Name(code).lower()
    return _NAMES.get(name, name)


def _code(onnx: Any, dtype: str) -> int:
    plain = {full: short for short, full in _NAMES.items()}.get(dtype, dtype)
    return onnx.TensorProto.DataType.Value(plain.upper())


def _open(shape: tuple[int | str, ...] | None) -> list[int | str | None] | None:
    return None if shape is None else [None if axis == "?" else axis for axis in shape]
