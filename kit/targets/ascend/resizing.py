"""Resize as ATC reads it: mode and coordinate mode, and nothing else. Told pixel by pixel where sizes are known.

Sources: the parser plugin and operator list named under ``Resize`` in ``operators.json``; row ``resize`` of
``breakers.json``.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from kit.inspection.findings import Support
from kit.inspection.graph import Graph, Node

if TYPE_CHECKING:
    from kit.targets.ascend import AscendTarget

RULE = "plain-resize"
READ = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
READ_5D = ("align_corners", "pytorch_half_pixel")


def resize(node: Node, graph: Graph, target: AscendTarget) -> Iterator[Support]:
    """Everything known against a Resize."""
    from kit.targets.ascend.checks import known, steered

    def unread(what: str, severity: str = "") -> Support:
        return known("resize", what, severity, fix=RULE, decides=RULE)

    at = {name: value.decode() if isinstance(value, bytes) else value for name, value in node.attributes.items()}
    mode, place = at.get("mode", "nearest"), at.get("coordinate_transformation_mode", "half_pixel")
    if len(node.inputs) < 3 and graph.opset >= 11:
        yield known("resize", "fewer than 3 inputs: the parser refuses it", state="not")
    size = node.input(3) or node.input(2)
    if size is not None and not size.constant:
        yield known("resize", "its scales or sizes are computed; ATC wants constants", "warning",
                    fix=steered(graph, size), advice="fix the input shape, then fold constants")
    for name in ("antialias", "axes"):
        if at.get(name):
            yield unread(f"{name} (opset 18) is not read")
    if at.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        yield unread(f"keep_aspect_ratio_policy {at['keep_aspect_ratio_policy']} is not read")
    first = node.input(0)
    rank = len(first.shape) if first is not None and first.shape is not None else 4
    if mode == "nearest":
        yield from _nearest(node, graph, place, at.get("nearest_mode", "round_prefer_floor"), rank, unread)
        return
    if place not in (READ_5D if rank == 5 else READ):
        yield unread(f"coordinate mode {place} is not read{' with 5 axes' if rank == 5 else ''}: another one is taken")
    if mode == "cubic":
        yield known("resize", "cubic is parsed, but only nearest and linear are officially supported", "warning")
        if abs(at.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
            yield unread(f"cubic_coeff_a {at['cubic_coeff_a']:g} is not read: it computes with -0.75")
        if at.get("exclude_outside"):
            yield unread("exclude_outside is not read")


def _nearest(node: Node, graph: Graph, place: str, rounding: str, rank: int, unread: Any) -> Iterator[Support]:
    from kit.targets.ascend.checks import known

    if rank not in (3, 4):
        yield known("resize", f"nearest needs 4 axes (NCHW), this has {rank}", state="not")
        return
    if rank == 3:
        yield unread("nearest needs 4 axes (NCHW), this has 3")
    if place not in READ:
        yield unread(f"coordinate mode {place} becomes asymmetric, and it does not read nearest_mode (here "
                     f"{rounding!r})")
        return
    other = _other_pixel(node, graph, place, rounding)
    if other:
        yield unread(f"it does not read nearest_mode (here {rounding!r}) and takes other pixels than ONNX: {other}")


def _other_pixel(node: Node, graph: Graph, place: str, rounding: str) -> str:
    """The first output pixel that comes from another input pixel in CANN than in ONNX; "" where none is seen."""
    from kit.graph.pixels import Axis, cann_pixels, exact, onnx_pixels

    first, made = node.input(0), node.outputs[0] if node.outputs else None
    if first is None or made is None or not first.shape or not made.shape or len(first.shape) != len(made.shape):
        return ""
    factors = graph.value(node.input(2)) if node.input(3) is None else None
    for at, (size, out) in enumerate(zip(first.shape, made.shape, strict=True)):
        if not isinstance(size, int) or not isinstance(out, int) or not size or not out or size == out:
            continue
        if at < len(first.shape) - 2:
            return f"it resizes axis {at}, and ATC looks at the last two only"
        by_factor = factors is not None and factors.size == len(first.shape)
        axis = Axis(size, out, exact(factors.flat[at]) if by_factor else Fraction(out, size))
        pairs = zip(onnx_pixels(axis, place, rounding), cann_pixels(axis, place), strict=True)
        wrong = next(((x, ours, theirs) for x, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        if wrong:
            return f"along axis {at}, {size} to {out}, output {wrong[0]} is input {wrong[1]} there and {wrong[2]} here"
    return ""
