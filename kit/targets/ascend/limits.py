"""What ATC's parser plugins and operator documents say of single operators: forms they refuse, attributes they skip.

Sources: ``limits`` and ``ignored`` of ``operators.json``. A limit of the 5.x documents is a warning where such a
release was asked for and a note otherwise: later ones may take more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kit.inspection.findings import Severity, Support
from kit.inspection.graph import Graph, Node

if TYPE_CHECKING:
    from kit.targets.ascend import AscendTarget

Checks = Iterator[Support]
# Read by nobody at inference, so that ATC may skip them: training momentum, dropout, random seeds, the bodies of If;
# attributes that the opset of today no longer has; and those that ``checks`` tells of more exactly.
HARMLESS = frozenset({
    ("BatchNormalization", "momentum"), ("BatchNormalization", "spatial"), ("Dropout", "ratio"), ("Dropout", "seed"),
    ("If", "then_branch"), ("If", "else_branch"), ("Shape", "start"), ("Shape", "end"), ("Bernoulli", "seed"),
    ("GRU", "linear_before_reset"), ("Upsample", "scales"),
    *(("Resize", name) for name in ("nearest_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value"))})
PLAIN_GATES = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"]}


def ignored(node: Node) -> Checks:
    """Attributes that change the answer and that the parser never reads."""
    from kit.targets.ascend import facts

    entry = facts("operators")["operators"].get(node.operator, {})
    for name, about in entry.get("ignored", {}).items():
        if name not in node.attributes or (node.operator, name) in HARMLESS:
            continue
        value = node.attributes[name]
        gates = PLAIN_GATES.get(node.operator, [])
        if name == "activations" and value in (gates, gates * 2):
            continue
        value = value.decode() if isinstance(value, bytes) else value
        if value != about["default"]:
            yield Support("partly", f"ATC does not read {name} (here {_plain(value)!r}): the answer may differ",
                          entry["source"][0], advice="compare numerically on the chip; write the form that ATC assumes")


def limit(node: Node, what: str, severity: Severity | str = "", *, state: str = "partly", fix: str = "",
          advice: str = "write the node in the form named here") -> Support:
    """A verdict whose evidence is the plugin of the node's operator."""
    from kit.targets.ascend import facts

    source = facts("operators")["operators"][node.operator]["source"][0]
    return Support(state, what, source, fix, advice, severity)  # type: ignore[arg-type]


def old_limit(node: Node, what: str, target: AscendTarget, fix: str = "") -> Support:
    """A verdict whose evidence is the operator list of CANN 5.x."""
    return Support("partly", f"{what} (operator list of CANN 5.x)", f"CANN 5.x operator list: {node.operator}", fix,
                   "later releases may take it: try ATC" if not target.is_old else "write the node in another form",
                   "warning" if target.is_old else "note")


def _plain(value: Any) -> Any:
    return [item.decode() if isinstance(item, bytes) else item for item in value] if isinstance(value, list) else value


def _rank(node: Node, at: int = 0) -> int | None:
    tensor = node.input(at)
    return len(tensor.shape) if tensor is not None and tensor.shape is not None else None


def _computed(node: Node, at: int, name: str, what: str, graph: Graph) -> Checks:
    tensor = node.input(at)
    if tensor is not None and not tensor.constant:
        yield limit(node, f"its {name} are computed at run time: {what}", "note",
                    fix="fold-constants" if tensor.name in graph.numbers else "",
                    advice="fix the input shapes, so that they fold to constants")


def _arg(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("select_last_index"):
        yield limit(node, "select_last_index must be 0", state="not")


def _average_pool(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("count_include_pad"):
        yield old_limit(node, "count_include_pad is not supported", target)
    if any(d != 1 for d in node.attributes.get("dilations", ())):
        yield limit(node, "dilations came with opset 19 and are not read", "warning")


def _clip(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if graph.opset >= 11 and node.input(1) is None and node.input(2) is None:
        yield limit(node, "neither min nor max is given: the parser wants one of them", state="not",
                    fix="drop-neutral")


def _constant(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if "sparse_value" in node.attributes:
        yield limit(node, "sparse_value is not supported", state="not", advice="store it densely")


def _conv(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    rank = _rank(node)
    if not {"kernel_shape", "pads", "strides", "dilations"} & set(node.attributes):
        yield limit(node, "it carries none of kernel_shape, pads, strides, dilations: the parser refuses it",
                    state="not", fix="plain-attributes")
    elif rank == 5 and not {"strides", "pads", "dilations"} & set(node.attributes):
        yield limit(node, "without strides, pads and dilations the parser takes five axes for four", state="not",
                    fix="plain-attributes")
    if rank is not None and rank not in (3, 4, 5):
        yield limit(node, f"{rank} axes: the parser takes 3 to 5", state="not")
    if rank == 5 and node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        yield limit(node, f"auto_pad {node.attributes['auto_pad'].decode()} with five axes is refused", state="not",
                    fix="plain-attributes")
    for name, most in (("strides", 63), ("dilations", 255), ("pads", 255)):
        if any(size > most for size in node.attributes.get(name, ())):
            yield old_limit(node, f"{name} {list(node.attributes[name])} is above {most}", target)


def _conv_transpose(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if "kernel_shape" not in node.attributes:
        yield limit(node, "kernel_shape is required", state="not", fix="plain-attributes")
    if any(d != 1 for d in node.attributes.get("dilations", ())):
        yield old_limit(node, f"dilations {list(node.attributes['dilations'])}: only 1 is supported", target)
    if node.attributes.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        yield old_limit(node, "auto_pad SAME is not supported", target, "plain-attributes")
    if "output_shape" in node.attributes and "auto_pad" not in node.attributes:
        yield limit(node, "output_shape without auto_pad is taken for SAME_LOWER", "warning",
                    advice="write pads and output_padding instead, or auto_pad with it")


def _depth_to_space(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("blocksize", 2) < 2:
        yield limit(node, f"blocksize {node.attributes['blocksize']}: the parser wants 2 or more", state="not")


def _eye_like(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("k"):
        yield old_limit(node, f"k={node.attributes['k']}: only 0 is supported", target)


def _flatten(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("axis", 1) < 0:
        yield old_limit(node, f"axis {node.attributes['axis']} counts from behind", target, "plain-attributes")


def _hardmax(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if _rank(node) not in (None, 2):
        yield old_limit(node, f"{_rank(node)} axes: 2 are supported", target)


def _layer_normalization(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if graph.dynamic:
        yield limit(node, "it is lowered with BroadcastTo, for which shapes should be fixed; axes of the inputs are "
                    "open", "note", fix="fix-shapes", advice="or export in parts (opset 16), which ATC fuses")


def _lrn(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("size", 1) % 2 == 0:
        yield limit(node, f"size {node.attributes['size']} must be odd", state="not")


def _max_pool(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if len(node.outputs) > 1:
        yield limit(node, "its second output (indices) is not supported", state="not", fix="plain-maxpool")
    if node.attributes.get("storage_order"):
        yield limit(node, "storage_order must be 0", state="not", fix="plain-maxpool")
    kernel, strides = node.attributes.get("kernel_shape", [1]), node.attributes.get("strides", [1])
    area = kernel[0] * kernel[-1] if len(kernel) == 2 else max(kernel)
    if max(strides) > 63 or max(kernel) >= 255 or area > 256:
        yield old_limit(node, f"kernel {list(kernel)} with strides {list(strides)} runs on AI CPU: slow", target,
                        "global-pool")
    if len(kernel) == 2 and any(d != 1 for d in node.attributes.get("dilations", ())):
        yield old_limit(node, f"dilations {list(node.attributes['dilations'])} are not supported", target)


def _mod(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    first = node.input(0)
    if node.attributes.get("fmod"):
        yield limit(node, "fmod is skipped with a warning: it always takes the sign of the divisor", "warning",
                    advice="compare numerically where operands are negative")
    elif first is not None and first.dtype.startswith("float"):
        yield old_limit(node, "fmod = 0 is not allowed for float inputs", target)


def _one_hot(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("axis", -1) < -1:
        yield old_limit(node, f"axis {node.attributes['axis']} is below -1", target)


def _prelu(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    slope = node.input(1)
    if slope is not None and slope.shape is not None and len(slope.shape) > 1 and slope.elements not in (1, None):
        yield limit(node, f"slope {list(slope.shape)} must have one axis of length 1 or C", "warning")


def _reduce(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    no_axes = node.input(1) is None and not node.attributes.get("axes")
    if node.attributes.get("noop_with_empty_axes") and no_axes:
        yield limit(node, "noop_with_empty_axes is skipped: it reduces all axes", "warning",
                    advice="an Identity says the same")
    yield from _computed(node, 1, "axes", "the shape of its result becomes dynamic", graph)


def _reshape(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    yield from _computed(node, 1, "new axes", "the shape of its result becomes dynamic", graph)


def _slice(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    steps, axes, rank = graph.value(node.input(4)), graph.value(node.input(3)), _rank(node)
    if rank is not None and steps is not None:
        on = [int(axis) % rank for axis in axes.flat] if axes is not None and axes.size else range(steps.size)
        last = [int(step) for axis, step in zip(on, steps.flat, strict=False) if axis == rank - 1]
        if any(step != 1 for step in last):
            yield old_limit(node, f"step {last[0]} along the last axis: 1 is supported", target, "plain-slice")
    for at, name in ((1, "starts"), (2, "ends")):
        yield from _computed(node, at, name, "the shape of its result becomes dynamic", graph)


def _split(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    parts, first = node.attributes.get("num_outputs"), node.input(0)
    axis = node.attributes.get("axis", 0)
    size = first.shape[axis] if first is not None and first.shape and -len(first.shape) <= axis < len(first.shape) \
        else None
    if parts and isinstance(size, int) and size % parts:
        yield limit(node, f"num_outputs={parts} does not divide {size} evenly", state="not", fix="plain-split")
    sizes = graph.value(node.input(1))
    if sizes is not None and sizes.size and sizes.min() < 1:
        yield old_limit(node, "one of its parts is empty", target)


def _squeeze(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    yield from _computed(node, 1, "axes", "the graph is no longer static", graph)


def _transpose(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if "perm" not in node.attributes:
        yield limit(node, "perm must be written out", state="not", fix="plain-attributes")


def _trilu(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    yield from _computed(node, 1, "diagonals", "the parser wants a constant", graph)


def _upsample(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("mode", b"nearest") not in (b"nearest", b"linear"):
        yield limit(node, f"mode {node.attributes['mode'].decode()}: nearest and linear are read", state="not")


def _random(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("dtype", 1) not in (1, 10, 11):
        yield limit(node, "its type must be float16, float32 or double", state="not")


def _cum_sum(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    axis = node.input(1)
    if axis is not None and not axis.constant:
        yield old_limit(node, "its axis must be a constant", target)


LIMITS: dict[str, tuple[Callable[[Node, Graph, Any], Checks], ...]] = {
    "ArgMax": (_arg,), "ArgMin": (_arg,), "AveragePool": (_average_pool,), "Clip": (_clip,), "Constant": (_constant,),
    "Conv": (_conv,), "ConvTranspose": (_conv_transpose,), "CumSum": (_cum_sum,), "DepthToSpace": (_depth_to_space,),
    "EyeLike": (_eye_like,), "Flatten": (_flatten,), "Hardmax": (_hardmax,), "LRN": (_lrn,),
    "LayerNormalization": (_layer_normalization,), "MaxPool": (_max_pool,), "Mod": (_mod,), "OneHot": (_one_hot,),
    "PRelu": (_prelu,), "RandomNormalLike": (_random,), "RandomUniformLike": (_random,), "Reshape": (_reshape,),
    "Slice": (_slice,), "Split": (_split,), "Squeeze": (_squeeze,), "Transpose": (_transpose,), "Trilu": (_trilu,),
    "Unsqueeze": (_squeeze,), "Upsample": (_upsample,),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
                    (_reduce,)),
}
