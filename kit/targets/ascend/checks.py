"""What ATC is known to trip over, node by node and for a model: small functions in one table by operator.

Each check yields a verdict only where its pattern is really there. Sources: the parser plugins and documents named in
``operators.json``, and the failures people reported in ``breakers.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kit.inspection.findings import Finding, Severity, Support, counted
from kit.inspection.graph import Graph, Node

if TYPE_CHECKING:
    from kit.targets.ascend import AscendTarget

FP16_MAX = 65504.0
ARITHMETIC = frozenset({"Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceProd", "ReduceSum",
                        "Sub"})
# Read by nobody at inference, so that ATC may skip them: training momentum, dropout, the two bodies of If, and
# attributes that the opset of today no longer has.
HARMLESS = frozenset({("BatchNormalization", "momentum"), ("BatchNormalization", "spatial"), ("Dropout", "ratio"),
                      ("Dropout", "seed"), ("If", "then_branch"), ("If", "else_branch"), ("Shape", "start"),
                      ("Shape", "end")})


def check(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    """Everything known against this node on this chip family."""
    if node.domain:
        return
    yield from _ignored(node)
    for function in (*CHECKS.get(node.operator, ()), _int64_arithmetic):
        yield from function(node, graph, family)


def model_findings(graph: Graph, target: AscendTarget) -> Iterator[Finding]:
    """What is wrong with the model as a whole."""
    from kit.targets.ascend import breaker, breaker_source

    for name in dict.fromkeys(name for name, _, _ in graph.dynamic):
        yield _open_axes(name, {at: word for input_, at, word in graph.dynamic if input_ == name}, target.family)
    for value in graph.proto.graph.input:
        if value.type.tensor_type.elem_type == 7:  # int64
            yield Finding("warning", "", (), f"input {value.name} is int64: its first operators land on AI CPU",
                          breaker_source("int64"), advice=breaker("int64")["fix"])
    names = Counter(node.name for node in graph.nodes)
    twice = tuple(name for name, count in names.items() if count > 1)
    if twice:
        yield Finding("error", "", twice, f"{counted(len(twice), 'node name')} used more than once (ATC: E13009)",
                      breaker_source("duplicate-names"), advice=breaker("duplicate-names")["fix"])
    yield from _too_large_for_fp16(graph, target)


def _open_axes(name: str, axes: dict[int, str], family: str) -> Finding:
    from kit.targets.ascend import breaker, breaker_source

    words = ", ".join(f"{at} ({word})" for at, word in axes.items())
    what = f"input {name}: dynamic {'axes' if len(axes) > 1 else 'axis'} {words}"
    if set(axes) == {0}:
        return Finding("note", "", (), what, breaker_source("dynamic-size"), "fix-shapes",
                       "a fixed batch, or up to 100 batch sizes with --dynamic_batch_size")
    return Finding("error" if family == "ascend310" else "warning", "", (), what, breaker_source("dynamic-size"),
                   "fix-shapes", breaker("dynamic-size")["fix"])


def _too_large_for_fp16(graph: Graph, target: AscendTarget) -> Iterator[Finding]:
    import numpy as np
    from onnx import numpy_helper

    from kit.targets.ascend import breaker, breaker_source

    beyond = []
    for name, tensor in graph.weights:
        if tensor.data_type == 1 and not tensor.external_data:
            values = numpy_helper.to_array(tensor)
            finite = values[np.isfinite(values)] if values.size else values
            if finite.size and max(finite.max(), -finite.min()) > FP16_MAX:
                beyond.append((name, float(finite.flat[np.abs(finite).argmax()])))
    readers = {t.name: {n.operator for n in graph.nodes if t in n.inputs} for n in graph.nodes for t in n.inputs
               if t is not None and t.name in dict(beyond)}
    for name, worst in beyond:
        folded = readers.get(name) == {"BatchNormalization"}
        yield Finding("warning", "", (name,), f"the constant {name} holds {worst:.3g}, more than float16 can (65504); "
                      "ATC computes in float16 by default", breaker_source("fp16-range"),
                      "fold-batchnorm" if folded else "",
                      "folded into the convolution it is gone" if folded else breaker("fp16-range")["fix"])


def _ignored(node: Node) -> Iterator[Support]:
    from kit.targets.ascend import facts

    entry = facts("operators")["operators"].get(node.operator, {})
    for name, about in entry.get("ignored", {}).items():
        if name not in node.attributes or (node.operator, name) in HARMLESS:
            continue
        value = node.attributes[name]
        value = value.decode() if isinstance(value, bytes) else value
        if node.operator == "Resize" and not _matters_to_resize(name, node):
            continue
        if value != about["default"]:
            yield Support("partly", f"ATC does not read {name} (here {value!r}): the answer may differ",
                          entry["source"][0], advice="compare numerically on the chip; write the form that ATC assumes")


def _matters_to_resize(name: str, node: Node) -> bool:
    mode = node.attributes.get("mode", b"nearest")
    return mode == {"nearest_mode": b"nearest", "cubic_coeff_a": b"cubic", "exclude_outside": b"cubic"}.get(name, mode)


def _int64_arithmetic(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if node.operator in ARITHMETIC and any(t is not None and t.dtype == "int64" for t in node.inputs):
        yield _known("int64", "int64 arithmetic: usually shape or index work, slow on AI CPU", "note",
                     fix="fold-constants", advice="with fixed input shapes it folds away; otherwise cast to int32")


def _nms(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    given = sum(t is not None for t in node.inputs)
    if given < 5:
        yield _known("nms-inputs", f"only {given} inputs: ATC 9.0.1 crashes on fewer than 5 (no error code)",
                     state="not")
    most = graph.value(node.input(2))
    if most is not None and most.size and int(most.flat[0]) > 700:
        yield _known("nms-inputs", f"max_output_boxes_per_class {int(most.flat[0])} is above 700")
    yield _known("nms-output", "its output has a fixed number of rows, padded with -1, not the ONNX one", "warning")


def _topk(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    yield _known("topk-int64", "indices are int32 in an .om and int64 in ONNX: Add or Concat behind it may fail "
                 "(E89999)", "warning")


def _resize(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if len(node.inputs) < 3 and graph.opset >= 11:
        yield _known("resize", "fewer than 3 inputs: the parser refuses it", state="not")
    size = node.input(3) or node.input(2)
    if size is not None and not size.constant:
        yield _known("resize", "its scales or sizes are computed; ATC wants constants", "warning", fix="fold-constants",
                     advice="fix the input shape, then fold constants")
    mode = node.attributes.get("mode", b"nearest")
    place = node.attributes.get("coordinate_transformation_mode", b"half_pixel")
    if mode == b"nearest":
        if place not in (b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"):
            yield _known("resize", f"coordinate mode {place.decode()} becomes asymmetric", "warning")
        first = node.input(0)
        if first is not None and first.shape is not None and len(first.shape) != 4:
            yield _known("resize", f"nearest needs 4 axes (NCHW), this has {len(first.shape)}", state="not")
    elif mode == b"cubic":
        yield _known("resize", "cubic is parsed, but only nearest and linear are officially supported", "warning")


def _grid_sample(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    first = node.input(0)
    if first is not None and first.shape is not None and len(first.shape) == 5:
        yield _known("gridsample", "5 axes: the standard operator becomes the 2-D one", state="not")
    yield _known("gridsample", "may run on AI CPU, depending on the chip", "note")


def _scatter_nd(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if node.attributes.get("reduction", b"none") == b"mul":
        yield _known("scatter", "reduction=mul is rejected", state="not")


def _gather(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    at = graph.value(node.input(1))
    if at is not None and at.size and at.min() < 0:
        yield _known("gathernd", f"negative index {int(at.min())} is out of bounds for older releases", "note",
                     advice="write the index from the front; or op_precision_mode support_out_of_bound_index")


def _gather_nd(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if node.attributes.get("batch_dims", 0):
        yield _known("gathernd", f"batch_dims={node.attributes['batch_dims']}: the parser takes 0 only", state="not")


def _shape(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if {"start", "end"} & set(node.attributes):
        yield _known("shape-slice", "start and end are ignored: it gives the whole shape, a wrong answer", state="not",
                     advice="export at opset 14 or lower, or fold constants at a fixed input shape",
                     fix="fold-constants")


def _pad(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if node.input(3) is not None:
        yield _known("pad", "its axes input (opset 18) is not mapped", "warning")
    if node.attributes.get("mode", b"constant") == b"reflect":
        yield _known("pad", "mode reflect is slow", "note")


def _dynamic_output(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    yield _known("dynamic-output", "its output's size depends on the data: everything behind it becomes dynamic")


def _if(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    yield _known("if", "branches of different rank or dynamic outputs fail", "warning", fix="fold-constants",
                 advice="a condition that is constant at a fixed shape can be folded away")


def _scan_loop(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    yield _known("loop", "there is no parser for loops", state="not")


def _runtime_shape(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    steering = node.input(1 if node.operator in ("Expand", "Tile") else 0)
    if steering is not None and not steering.constant:
        yield _known("runtime-shape", "its output shape is computed at run time: dynamic operators on AI CPU",
                     "warning", fix="fold-constants")


def _gru(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if node.attributes.get("direction") == b"bidirectional":
        yield _known("rnn", "bidirectional: heavy on the chip", "note")


def _average_pool(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if max(node.attributes.get("kernel_shape", [1])) > 255:
        yield _known("large-kernel", f"kernel {node.attributes['kernel_shape']} is above 255")
    if node.attributes.get("count_include_pad"):
        yield _limit(node, "count_include_pad is not supported by older releases (5.x); check yours", "note")


def _max_pool(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if len(node.outputs) > 1:
        yield _limit(node, "its second output (indices) is not supported", state="not")
    if node.attributes.get("storage_order"):
        yield _limit(node, "storage_order must be 0", state="not")


def _conv(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if not {"kernel_shape", "pads", "strides", "dilations"} & set(node.attributes):
        yield _limit(node, "it carries none of kernel_shape, pads, strides, dilations: the parser refuses it",
                     state="not")
    yield from _conv_sizes(node)


def _conv_transpose(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if "kernel_shape" not in node.attributes:
        yield _limit(node, "kernel_shape is required", state="not")
    if any(d != 1 for d in node.attributes.get("dilations", ())):
        yield _limit(node, f"dilations {node.attributes['dilations']}: only 1 is supported (5.x document)", "warning")
    if node.attributes.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        yield _limit(node, "auto_pad SAME is not supported (5.x document)", "warning")


def _conv_sizes(node: Node) -> Iterator[Support]:
    # Limits of the 5.x operator list; later releases may take more, so these are warnings.
    for name, most in (("kernel_shape", 255), ("strides", 63), ("dilations", 255), ("pads", 255)):
        if any(size > most for size in node.attributes.get(name, ())):
            yield _known("large-kernel", f"{name} {list(node.attributes[name])} is above {most}")


def _transpose(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    if "perm" not in node.attributes:
        yield _limit(node, "perm must be written out", state="not")


def _prelu(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    slope = node.input(1)
    if slope is not None and slope.shape is not None and len(slope.shape) > 1 and slope.elements not in (1, None):
        yield _limit(node, f"slope {list(slope.shape)} must have one axis of length 1 or C", "warning")


def _einsum(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    yield _known("einsum", "which equations compile, and how fast, varies", "note")


def _split(node: Node, graph: Graph, family: str) -> Iterator[Support]:
    parts, first = node.attributes.get("num_outputs"), node.input(0)
    axis = node.attributes.get("axis", 0)
    size = first.shape[axis] if first is not None and first.shape else None
    if parts and isinstance(size, int) and size % parts:
        yield _limit(node, f"num_outputs={parts} does not divide {size} evenly", state="not")


def _known(row: str, what: str, severity: Severity | str = "", *, state: str = "partly", fix: str = "",
           advice: str = "") -> Support:
    from kit.targets.ascend import breaker, breaker_source

    return Support(state, what, breaker_source(row), fix, advice or breaker(row)["fix"], severity)  # type: ignore[arg-type]


def _limit(node: Node, what: str, severity: Severity | str = "", *, state: str = "partly") -> Support:
    from kit.targets.ascend import facts

    source = facts("operators")["operators"][node.operator]["source"][0]
    return Support(state, what, source, "", "write the node in the form named here", severity)  # type: ignore[arg-type]


CHECKS: dict[str, tuple[Callable[[Node, Graph, str], Iterator[Any]], ...]] = {
    "AveragePool": (_average_pool,), "Compress": (_dynamic_output,), "Conv": (_conv,),
    "ConstantOfShape": (_runtime_shape,), "ConvTranspose": (_conv_transpose,), "Einsum": (_einsum,),
    "Expand": (_runtime_shape,), "GRU": (_gru,), "Gather": (_gather,), "GatherND": (_gather_nd,),
    "GridSample": (_grid_sample,), "If": (_if,), "LSTM": (_gru,), "Loop": (_scan_loop,), "MaxPool": (_max_pool,),
    "NonMaxSuppression": (_nms,), "NonZero": (_dynamic_output,), "PRelu": (_prelu,), "Pad": (_pad,),
    "Range": (_runtime_shape,), "Resize": (_resize,), "Scan": (_scan_loop,), "ScatterND": (_scatter_nd,),
    "Shape": (_shape,), "Split": (_split,), "Tile": (_runtime_shape,), "TopK": (_topk,), "Transpose": (_transpose,),
    "Unique": (_dynamic_output,),
}
