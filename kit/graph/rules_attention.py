"""Puts an attention that was exported in parts into the one operator that ONNX Runtime has for it.

    q, k, v -> heads (Reshape, Transpose) -> MatMul(q * s, k' * s) -> Softmax -> MatMul -> heads together again
    -> com.microsoft.MultiHeadAttention(q, k, v), with a kernel for the CPU

as PyTorch's classic exporter writes it (the scale computed from a Shape, k transposed at once), as the dynamo exporter
does (k transposed through a Reshape to three axes), and in between: the scale on q, on k, on both or on the scores, as
Mul or Div. ONNX Runtime merges none of these by itself on the CPU (1.31, all levels): 32 attentions of the Stable
Diffusion UNet stay 32 Softmax. Its kernel goes over the scores a block at a time and never holds all of them: the
first stage of that UNet (64x64, one picture) runs in 0.30 GB instead of 1.28.

OpenVINO finds the attention in its parts by itself (2026.4: MatMul, Softmax and MatMul are one Subgraph in either
form). For ATC it stays in parts, too: no table of ONNX operators that CANN reads has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.graph.rule import Rule, Setting
from kit.graph.rules_fuse import DOMAIN, own
from kit.graph.sizes import Size, elements, number, sizes
from kit.graph.values import Builder, is_op, kind, outside_reader, replace

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Heads:
    """A tensor [batch, length, heads * width] that was split into heads; ``split`` is the target of its Reshape."""

    source: ir.Value
    split: list[Size]

    @property
    def count(self) -> Size:
        return self.split[2]

    @property
    def width(self) -> Size:
        return self.split[3]

    def keeps(self) -> bool:
        """Do batch and length stay what they are, as far as that can be read?"""
        have = sizes(self.source)
        return any(size == 0 or (size is not None and size == have[at]) for at, size in enumerate(self.split[:2]))


@dataclass(frozen=True)
class _Attention:
    query: _Heads
    key: _Heads
    value: _Heads
    scale: float
    together: list[Size]
    inner: tuple[ir.Node, ...]
    masked: bool


def _attention(node: ir.Node) -> _Attention | None:
    """``node`` is the Reshape that puts the heads together again."""
    if not is_op(node, "Reshape") or not _turns(node.inputs[0], (0, 2, 1, 3)):
        return None
    turn = node.inputs[0].producer()
    outer = turn.inputs[0].producer()
    if outer is None or not is_op(outer, "MatMul") or kind(outer.inputs[0]) != "Softmax":
        return None
    softmax = outer.inputs[0].producer()
    if softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    scores, masked = softmax.inputs[0], kind(softmax.inputs[0]) == "Add"
    scores, scale, scaling = _scaled(scores.producer().inputs[0] if masked else scores)
    product, together = scores.producer(), elements(node.inputs[1])
    if product is None or not is_op(product, "MatMul") or together is None or len(together) != 3:
        return None
    query, of_query, _ = _scaled(product.inputs[0])
    key, of_key = _keys(product.inputs[1])
    parts = (_heads(query), key, _heads(outer.inputs[1]))
    if None in parts:
        return None
    return _Attention(*parts, scale * of_query * of_key, together, (turn, outer, softmax, *scaling, product), masked)


def _turns(value: ir.Value | None, order: tuple[int, ...]) -> bool:
    return kind(value) == "Transpose" and tuple(value.producer().attributes.get_ints("perm", ())) == order


def _scaled(value: ir.Value) -> tuple[ir.Value, float, tuple[ir.Node, ...]]:
    """``value`` without the numbers it was multiplied with or divided by, their product, and the nodes that did."""
    scale, nodes = 1.0, ()
    while (node := value.producer()) is not None and is_op(node, "Mul", "Div"):
        for at in (1, 0) if node.op_type == "Mul" else (1,):
            factor = number(node.inputs[at])
            if factor:
                scale *= factor if node.op_type == "Mul" else 1 / factor
                value, nodes = node.inputs[1 - at], (*nodes, node)
                break
        else:
            break
    return value, scale, nodes


def _heads(value: ir.Value | None) -> _Heads | None:
    """Read Transpose(Reshape(x), 0 2 1 3) with x of three axes, the last of which is heads times width."""
    if not _turns(value, (0, 2, 1, 3)):
        return None
    return _split(value.producer().inputs[0])


def _split(value: ir.Value) -> _Heads | None:
    if kind(value) != "Reshape":
        return None
    source = value.producer().inputs[0]
    wanted, have = elements(value.producer().inputs[1]), sizes(source)
    if wanted is None or have is None or len(wanted) != 4 or len(have) != 3:
        return None
    wanted = [*wanted[:2], *sizes(value)[2:]]  # a -1 among heads and width is a number by then
    whole = all(isinstance(size, int) and size > 0 for size in (*wanted[2:], have[2]))
    return _Heads(source, wanted) if whole and wanted[2] * wanted[3] == have[2] else None


def _keys(value: ir.Value) -> tuple[_Heads | None, float]:
    """The keys whose last two axes ``value`` has the other way round, and the scale they were given."""
    value, scale, _ = _scaled(value)
    if _turns(value, (0, 2, 3, 1)):  # both turns in one
        return _split(value.producer().inputs[0]), scale
    keys = _untransposed(value)
    if keys is None:
        return None, 1.0
    keys, more, _ = _scaled(keys)
    return _heads(keys), scale * more


def _untransposed(value: ir.Value) -> ir.Value | None:
    """The tensor of four axes whose last two ``value`` has the other way round."""
    if _turns(value, (0, 1, 3, 2)):
        return value.producer().inputs[0]
    if kind(value) == "Reshape" and _turns(value.producer().inputs[0], (0, 2, 1)):  # by way of three axes
        flat = value.producer().inputs[0].producer().inputs[0]
        keys = flat.producer().inputs[0] if kind(flat) == "Reshape" else None
        before, inside, after = sizes(keys), sizes(flat), sizes(value)
        if None in (before, inside, after) or (len(before), len(inside), len(after)) != (4, 3, 4):
            return None
        same = inside[1:] == before[2:] and after[1:] == [before[1], before[3], before[2]]
        return keys if same and None not in before[1:] else None
    return None


def _blocked(node: ir.Node, setting: Setting) -> str:
    found = _attention(node)
    if reason := own(setting, "MultiHeadAttention", found.query.source):
        return reason
    if found.masked:
        return "a mask is added to the scores, and the merged operator takes masks of its own kinds only"
    if setting.version < 13 and "axis" not in found.inner[2].attributes:
        return "its Softmax goes over several axes together, as it did below opset 13"
    if not found.query.count == found.key.count == found.value.count or found.query.width != found.key.width:
        return "queries, keys and values are not split into the same heads"
    batches = {sizes(part.source)[0] for part in (found.query, found.key, found.value)}
    if len(batches) > 1 and any(isinstance(batch, int) for batch in batches):  # MatMul would repeat a batch of one
        return "queries, keys and values come in batches of different sizes"
    if found.together[2] != found.value.count * found.value.width:
        return f"the Reshape after it does not put the {found.value.count} heads together again"
    # Queries may name their batch after another tensor's (diffusers: the text's); the merged operator itself refuses
    # batches that differ.
    if not (found.key.keeps() and found.value.keeps()):
        return "batch and length of keys or values are not known to stay apart: fix the input shapes"
    if not _same(found.together, found.query):
        return "batch and length after it are not known to be those before it: fix the input shapes"
    return outside_reader(found.inner, node)


def _same(together: Sequence[Size], query: _Heads) -> bool:
    have = sizes(query.source)
    return any(size == 0 or (size not in (None, -1) and size in (query.split[at], have[at]))
               for at, size in enumerate(together[:2]))


def _merge(node: ir.Node, setting: Setting) -> str:
    found = _attention(node)
    setting.model.opset_imports.setdefault(DOMAIN, 1)
    builder = Builder(node, setting.model)
    attributes = {"num_heads": found.query.count}
    if not math.isclose(found.scale, found.query.width ** -0.5, rel_tol=1e-6):
        attributes["scale"] = found.scale
    result = builder.op("MultiHeadAttention", [found.query.source, found.key.source, found.value.source], attributes,
                        domain=DOMAIN, like=node.outputs[0])
    replace(node, builder.nodes, result)
    return (f"an attention in parts became {DOMAIN}.MultiHeadAttention ({found.query.count} heads of "
            f"{found.query.width}, scale={found.scale:.6g})")


RULES = (
    Rule("fuse-attention", "ONNX Runtime's MultiHeadAttention goes over the scores block by block, and reads the heads "
         "where they lie: no transposed copies, no tensor of length times length, no shape arithmetic.",
         lambda node, setting: _attention(node) is not None, _blocked, _merge),
)
