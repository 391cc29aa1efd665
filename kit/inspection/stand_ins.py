"""Shapes behind ONNX Runtime's own operators: what onnx's shape inference does not know, told as small functions.

A function of the same name, of standard operators with the same shapes, goes into the copy of the model that shapes are
inferred from. It computes something else, and nobody runs it. Only operators that the kit's own rules write, and that
ONNX Runtime merges, are here. Source: the schemas of ONNX Runtime's contributed operators, version 1 of the domain.
"""

from __future__ import annotations

from typing import Any

DOMAIN = "com.microsoft"
_SAME = "{y = Identity (x)}"
# operator -> its function's inputs, outputs and body
_BODIES = {
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu"), ("x", "y", _SAME)),
    "BiasGelu": ("x, bias", "y", _SAME),
    "MultiHeadAttention": ("q, k, v, bias, padding, added", "y", "{turned = Transpose <perm=[0, 2, 1]> (k) "
                           "scores = MatMul (q, turned) y = MatMul (scores, v)}"),
    "SkipLayerNormalization": ("x, skip, scale, bias, more", "y, mean, deviation, sum", "{y = Identity (x) "
                               "mean = ReduceMean <keepdims=1> (x) deviation = Identity (mean) sum = Add (x, skip)}"),
}


def infer_shapes(proto: Any, *, strict: bool = False) -> Any:
    """A copy of ``proto`` with types and shapes by onnx's inference, which sees behind these operators too.

    Args:
        proto: the ``onnx.ModelProto``; unchanged.
        strict: raise at the first thing that is wrong, not only where nothing can be said.

    Raises:
        Exception: onnx raises several kinds, some of them bare RuntimeErrors.
    """
    import onnx

    own = len(proto.functions)
    proto.functions.extend(stand_ins(proto))
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=strict, data_prop=True)
    finally:
        del proto.functions[own:]


def stand_ins(proto: Any) -> list[Any]:
    """A function for each operator of the domain that ``proto`` uses and has none for, where it is known here."""
    import onnx

    own = {function.name for function in proto.functions if function.domain == DOMAIN}
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN and _fits(node)} - own
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    return [onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["": {version}]> {name} ({inputs}) => ({outputs}) {body}')
        for name, (inputs, outputs, body) in _BODIES.items() if name in used]


def _fits(node: Any) -> bool:
    """Has it the form the function is for? Attention has others, with all of q, k and v in one tensor."""
    return node.op_type != "MultiHeadAttention" or (3 <= len(node.input) <= 6 and all(node.input[:3])
                                                    and len(node.output) == 1)
