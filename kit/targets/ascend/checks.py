"""What ATC is known to trip over, node by node: the failures that people reported, in one table by operator.

Each check yields a verdict only where its pattern is really there. Sources: the rows of ``breakers.json``; what the
parser's own sources and documents say of single operators is in ``limits``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kit.inspection.findings import Severity, Support
from kit.inspection.graph import Graph, Node, Tensor
from kit.targets.ascend.limits import LIMITS, ignored
from kit.targets.ascend.resizing import resize

if TYPE_CHECKING:
    from kit.targets.ascend import AscendTarget

Checks = Iterator[Support]
ARITHMETIC = frozenset({"Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "ReduceProd", "ReduceSum",
                        "Sub"})
MOVES = frozenset({"Cast", "Concat", "Flatten", "Gather", "GatherND", "Identity", "Reshape", "Slice", "Split",
                   "Squeeze", "Transpose", "Unsqueeze"})
FAR = 2**31 - 1
MOST_BOXES = 700


def check(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    """Everything known against this node on this chip."""
    if node.domain:
        return
    yield from ignored(node)
    for function in (*LIMITS.get(node.operator, ()), *CHECKS.get(node.operator, ()), _int64_arithmetic):
        yield from function(node, graph, target)


def known(row: str, what: str, severity: Severity | str = "", *, state: str = "partly", fix: str = "",
          advice: str = "", decides: str = "") -> Support:
    """A verdict whose evidence is a row of ``breakers.json``; its remedy is the advice unless another is given."""
    from kit.targets.ascend import breaker, breaker_source

    return Support(state, what, breaker_source(row), fix, advice or breaker(row)["fix"], severity,  # type: ignore[arg-type]
                   decides=decides)


def steered(graph: Graph, tensor: Tensor | None) -> str:
    """The rule by which a computed tensor may become a constant: it must depend on sizes alone."""
    return "fold-constants" if tensor is not None and tensor.name in graph.numbers else ""


def _int64_arithmetic(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.operator in ARITHMETIC and any(t is not None and t.dtype == "int64" for t in node.inputs) \
            and not all(t is None or t.constant for t in node.inputs):
        yield known("int64", "int64 arithmetic: usually shape or index work, slow on AI CPU", "note",
                    fix="int64-to-int32", advice="with fixed input shapes it folds away; otherwise cast to int32")


# ---- boxes, rows and indices ---------------------------------------------------------------------------------------


def _nms(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    given = sum(t is not None for t in node.inputs)
    if given < 5:
        yield known("nms-inputs", f"only {given} inputs: ATC 9.0.1 crashes on fewer than 5 (no error code)",
                    state="not", fix="nms-five-inputs")
    most, boxes = graph.value(node.input(2)), node.input(0)
    there = boxes.shape[1] if boxes is not None and boxes.shape and len(boxes.shape) == 3 else None
    if most is not None and most.size and int(most.flat[0]) > MOST_BOXES:
        yield known("nms-inputs", f"max_output_boxes_per_class {int(most.flat[0])} is above {MOST_BOXES}",
                    fix="nms-five-inputs" if isinstance(there, int) and there <= MOST_BOXES else "")
    computed = [name for at, name in ((2, "max_output_boxes_per_class"), (3, "iou_threshold"), (4, "score_threshold"))
                if (tensor := node.input(at)) is not None and not tensor.constant]
    if computed:
        yield known("nms-inputs", f"{', '.join(computed)} computed at run time: ATC takes constants", state="not",
                    fix="fold-constants")
    if target.family in ("ascend310", "ascend910") and boxes is not None and boxes.dtype == "float32":
        yield known("nms-inputs", f"{target.chip['soc_version']} takes boxes and scores in float16 only", "note",
                    advice="the default precision of ATC makes them so; do not keep this node in float32")
    yield known("nms-output", "its output has a fixed number of rows, padded with -1, not the ONNX one", "note")
    after = _behind(node, graph)
    if len(after) > 1:
        yield known("paddle-nms", f"post-processing in the graph: {', '.join(after)} behind it depend on the data",
                    "warning")


def _behind(node: Node, graph: Graph) -> list[str]:
    """Operators of post-processing that lie behind a NonMaxSuppression, in the order in which they are met."""
    found, waiting, seen = [], [node], set()
    while waiting and len(seen) < 500:
        for tensor in waiting.pop(0).outputs:
            for reader in graph.readers.get(tensor.name, ()):
                if id(reader) in seen:
                    continue
                seen.add(id(reader))
                waiting.append(reader)
                if reader.operator in ("NonZero", "TopK", "GatherND", "Gather", "Compress", "Unique"):
                    found.append(reader.operator)
    return list(dict.fromkeys(found))


def _gather(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    at = graph.value(node.input(1))
    if at is not None and at.size and at.min() < 0:
        yield known("gathernd", f"negative index {int(at.min())} is out of bounds for older releases", "note",
                    fix="plain-gather", advice="write the index from the front; or op_precision_mode "
                    "support_out_of_bound_index")
    yield from _rows(node, graph)


def _gather_nd(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.attributes.get("batch_dims", 0):
        yield known("gathernd", f"batch_dims={node.attributes['batch_dims']}: the parser takes 0 only", state="not",
                    fix="plain-gathernd")
    yield from _rows(node, graph)


def _rows(node: Node, graph: Graph) -> Checks:
    if _is_from(node.input(1), "NonMaxSuppression", graph):
        yield known("nms-output", "it gathers by rows of a NonMaxSuppression, of which the last are -1 on Ascend: it "
                    "takes the last element for those", fix="nms-rows", decides="nms-rows")


def _is_from(tensor: Tensor | None, operator: str, graph: Graph, depth: int = 16) -> bool:
    """Does what only moves values lead from such an operator to this tensor?"""
    node = graph.producers.get(tensor.name) if tensor is not None else None
    if node is None or depth == 0:
        return False
    if node.operator == operator:
        return True
    sources = node.inputs if node.operator == "Concat" else node.inputs[:1]
    return node.operator in MOVES and any(_is_from(source, operator, graph, depth - 1) for source in sources)


def _topk(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if len(node.outputs) < 2:
        return
    readers = graph.readers.get(node.outputs[1].name, [])
    if (not readers and node.outputs[1].name not in graph.results) or (
            readers and all(r.operator == "Cast" and r.attributes.get("to") == 6 for r in readers)):
        return
    yield known("topk-int64", "indices are int32 in an .om and int64 in ONNX: Add or Concat behind it may fail "
                "(E89999)", "warning", fix="topk-int32", decides="topk-int32")


def _scatter(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.operator == "ScatterND" and node.attributes.get("reduction", b"none") == b"mul":
        yield known("scatter", "reduction=mul is rejected", state="not", fix="plain-scatternd", advice="multiply what "
                    "is gathered, then scatter it; or Concat and Where for fixed indices")
    elif target.table in ("stand-in", "released") and node.attributes.get("reduction", b"none") != b"none":
        yield known("scatter", f"reduction={node.attributes['reduction'].decode()} is ignored by releases before 9.2",
                    "warning", fix="plain-scatternd", advice="compare numerically on the chip")
    at = node.input(1)
    if at is not None and not at.constant:
        yield known("scatter", "its indices are computed: it may run on AI CPU", "note")


# ---- shapes ---------------------------------------------------------------------------------------------------------


def _shape(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if {"start", "end"} & set(node.attributes):
        yield known("shape-slice", "start and end are ignored: it gives the whole shape, a wrong answer", state="not",
                    fix="slice-shape", advice="or export at opset 14 or lower, or fold constants at a fixed input "
                    "shape")


def _slice(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    ends = [value for at in (1, 2) if (value := graph.value(node.input(at))) is not None and value.size]
    if any(abs(int(number)) > FAR for value in ends for number in value.flat):
        yield known("shape-slice", "its ends lie beyond 32 bits (INT64_MAX), in which ATC counts", "note",
                    fix="plain-slice", advice="most releases clip them")
    made = node.outputs[0].shape if node.outputs else None
    if made and 0 in made and not (node.inputs[0] and node.inputs[0].shape and 0 in node.inputs[0].shape):
        yield known("shape-slice", f"an empty slice ({'x'.join(map(str, made))}): shape inference fails on those",
                    fix="plain-slice")
    if _follows(node, "Slice", graph):
        yield known("shape-slice", "a Slice right behind a Slice: one can do both", "note",
                    advice="merge the two (surgeon: MergeConsecutiveSlice); it only costs time")


def _concat(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    axis = node.attributes.get("axis")
    if any(t is not None and (made := graph.producers.get(t.name)) is not None and made.operator == "Concat"
           and made.attributes.get("axis") == axis and len(graph.readers.get(t.name, ())) == 1
           and t.name not in graph.results for t in node.inputs) and node.inputs[0].dtype.startswith("float"):
        yield known("shape-slice", "a Concat right behind a Concat along the same axis: one can do both", "note",
                    advice="merge the two (surgeon: MergeConsecutiveConcat); it only costs time")


def _follows(node: Node, operator: str, graph: Graph) -> bool:
    first = node.input(0)
    made = graph.producers.get(first.name) if first is not None else None
    return (made is not None and made.operator == operator and len(graph.readers.get(first.name, ())) == 1
            and first.name not in graph.results and not made.outputs[0].constant and first.name not in graph.numbers)


def _pad(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    mode = node.attributes.get("mode", b"constant").decode()
    if node.input(3) is not None:
        yield known("pad", "its axes input (opset 18) is not mapped", fix="plain-pad")
    if mode == "wrap":
        yield known("pad", "mode wrap (opset 19) is not there", state="not")
    elif mode != "constant":
        yield known("pad", f"mode {mode} is slow", "note", advice="Slice and Concat of the border instead (surgeon: "
                    "ModifyReflectionPad), when it matters")
    value = graph.value(node.input(2))
    if target.is_old and value is not None and value.size and value.flat[0] != 0:
        yield known("pad", f"constant_value {value.flat[0]:g}: CANN {target.cann} takes 0 only", "warning")


def _dynamic_output(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    yield known("dynamic-output", "its output's size depends on the data: everything behind it becomes dynamic",
                "error" if target.family == "ascend310" else "")


def _if(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    branches = [node.attributes.get(name) for name in ("then_branch", "else_branch")]
    ranks = [[len(v.type.tensor_type.shape.dim) if v.type.tensor_type.HasField("shape") else None for v in b.output]
             for b in branches if b is not None]
    differ = len(ranks) == 2 and any(a != b for a, b in zip(*ranks, strict=False) if None not in (a, b))
    what = "its branches give different ranks, which fails" if differ else \
        "branches of different rank or dynamic outputs fail"
    yield known("if", what, "error" if differ else "warning", fix="if-constant",
                advice="a condition that is constant at a fixed shape can be folded away")


def _runtime_shape(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    steering = [node.input(1)] if node.operator in ("Expand", "Tile") else \
        list(node.inputs) if node.operator == "Range" else [node.input(0)]
    computed = [t for t in steering if t is not None and not t.constant]
    if computed:
        yield known("runtime-shape", "its output shape is computed at run time: dynamic operators on AI CPU",
                    "warning", fix=steered(graph, computed[0]))


# ---- layers ---------------------------------------------------------------------------------------------------------


def _grid_sample(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    first = node.input(0)
    if first is not None and first.shape is not None and len(first.shape) == 5:
        yield known("gridsample", "5 axes: the standard operator becomes the 2-D one", state="not",
                    advice="the private type GridSample3D takes five axes")
    if missing := [name for name in ("mode", "padding_mode") if name not in node.attributes]:
        yield known("gridsample", f"{' and '.join(missing)} not written: the parser takes an empty text for a missing "
                    "one", fix="plain-attributes", advice="write mode, padding_mode and align_corners")
    yield known("gridsample", "may run on AI CPU, depending on the chip", "note")


def _norm(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.operator == "ReduceMean":
        first = node.input(0)
        square = graph.producers.get(first.name) if first is not None else None
        if square is None or not _squares(square, graph):
            return
    yield known("norm", "its variance may leave the range of float16, ATC's default", "note", advice="where answers "
                "drift keep it in float32 (keep_dtype, or modify_mixlist with mixed_float16); kit.audit(..., "
                "calibration=...) says whether the data gets there")


def _squares(node: Node, graph: Graph) -> bool:
    names = [t.name for t in node.inputs if t is not None]
    if node.operator == "Mul":
        return len(names) == 2 and names[0] == names[1]
    power = graph.value(node.input(1)) if node.operator == "Pow" else None
    return power is not None and power.size == 1 and float(power.flat[0]) == 2


def _einsum(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    yield known("einsum", "which equations compile, and how fast, varies", "note", fix="einsum-to-matmul")


def _recurrent(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if node.operator == "GRU" and not node.attributes.get("linear_before_reset", 0):
        # DynamicGRUV2 has reset_after = true by default, and the parser sets it for no GRU.
        yield known("rnn", "linear_before_reset = 0 (the default of ONNX) is not read: CANN resets after the product, "
                    "as PyTorch does, and its answers are others", fix="plain-gru", advice="compare numerically, or "
                    "export a GRU with linear_before_reset = 1")
    if node.attributes.get("direction") == b"bidirectional":
        yield known("rnn", "bidirectional: heavy on the chip", "note")


def _large_kernel(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    first, kernel = node.input(0), node.attributes.get("kernel_shape", [])
    if not kernel and (weight := node.input(1)) is not None and weight.shape is not None:
        kernel = [size for size in weight.shape[2:] if isinstance(size, int)]
    if max(kernel, default=1) > 255:
        yield known("large-kernel", f"kernel {list(kernel)} is above 255",
                    fix="global-pool" if node.operator == "AveragePool" else "")
    if node.operator == "Conv" and first is not None and first.shape is not None and len(first.shape) == 3:
        yield known("large-kernel", "a convolution along one axis: ATC adds an axis in front and takes it away behind",
                    "note", advice="Unsqueeze once, convolve in two dimensions, and Squeeze at the end (surgeon: "
                    "Conv1d2Conv2d)")


def _conv_transpose(node: Node, graph: Graph, target: AscendTarget) -> Checks:
    if sum(other.operator == "ConvTranspose" for other in graph.nodes) > 1:
        yield known("fp16-range", "several transposed convolutions in a row have lost accuracy in float16 (910B3)",
                    "note", advice="compare layer by layer on the chip; keep them in float32 where they drift "
                    "(keep_dtype, op_precision_mode)")


CHECKS: dict[str, tuple[Callable[[Node, Graph, Any], Checks], ...]] = {
    "AveragePool": (_large_kernel,), "Compress": (_dynamic_output,), "Concat": (_concat,), "Conv": (_large_kernel,),
    "ConstantOfShape": (_runtime_shape,), "ConvTranspose": (_conv_transpose,), "Einsum": (_einsum,),
    "Expand": (_runtime_shape,), "GRU": (_recurrent,), "Gather": (_gather,), "GatherND": (_gather_nd,),
    "GridSample": (_grid_sample,), "If": (_if,), "InstanceNormalization": (_norm,), "LSTM": (_recurrent,),
    "LayerNormalization": (_norm,), "NonMaxSuppression": (_nms,), "NonZero": (_dynamic_output,), "Pad": (_pad,),
    "Range": (_runtime_shape,), "ReduceMean": (_norm,), "Resize": (resize,), "ScatterElements": (_scatter,),
    "ScatterND": (_scatter,), "Shape": (_shape,), "Slice": (_slice,), "Tile": (_runtime_shape,), "TopK": (_topk,),
    "Unique": (_dynamic_output,),
}
