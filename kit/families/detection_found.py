"""``find_nms``: which nodes of an ONNX graph are a detector's post-processing, and whose.

Public through ``detection``. Every exporter leaves its own tail behind NonMaxSuppression:

- Paddle2ONNX, of ``multiclass_nms3``: columns 1 and 2 of the rows, a TopK for ``keep_top_k``, and one Concat to
  (class, score, box) (paddle2onnx/mapper/detection/multiclass_nms.cc). It takes ``nms_top_k``, a limit of Paddle's on
  candidates, for the number of boxes that are kept, and leaves column 0, the picture, unread: batches of one only.
- tf2onnx, of ``combined_non_max_suppression``: the rows are scattered over pictures, then a TopK
  (tf2onnx/onnx_opset/tensor.py, CombinedNonMaxSuppression).
- tf2onnx, of ``non_max_suppression``: column 2 alone, as a list; boxes and scores get axes of one before
  (NonMaxSuppression in the same file).
- ``add_nms`` writes heads and options into the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit.calibration import model_of
from kit.card import Card
from kit.families.detection_heads import Heads
from kit.families.detection_nms import MOST, AddNmsOptions
from kit.families.detection_result import Told, read_metadata, suppression
from kit.graph import files
from kit.graph.values import constant, given, integer, is_op, kind, scalar
from kit.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

Maker = Literal["kit", "paddle", "tensorflow combined", "tensorflow", "onnx"]
MAKERS: dict[str, str] = {
    "kit": "added by this kit", "paddle": "Paddle's multiclass_nms3, by Paddle2ONNX",
    "tensorflow combined": "tf.image.combined_non_max_suppression, by tf2onnx",
    "tensorflow": "tf.image.non_max_suppression, by tf2onnx", "onnx": "of an unknown exporter",
}
_MOVES = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class FoundNms(Card):
    """Post-processing found in a graph.

    Attributes:
        maker: whose it is, a key of ``MAKERS``.
        node: the NonMaxSuppression.
        boxes: the tensor [N, A, 4] that it reads.
        scores: the tensor [N, C, A] that it reads; where class-agnostic, that before the maximum over classes.
        rows: the tensor [M, 3] that it gives.
        coding: what a box is, see `Heads`.
        options: its limits; None where one is computed at run time.
        outputs: of the model, those that depend on it.
        notes: sentences for the reader.
        grown: it reads boxes that are one pixel larger than those that are given, as Paddle has it for whole pixels.
        clipped: boxes are clipped to [0, 1] behind it, which numpy does not do.
    """

    maker: Maker
    node: str
    boxes: str
    scores: str
    rows: str
    coding: Literal["xyxy", "yxyx", "cxcywh"]
    options: AddNmsOptions | None
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    grown: bool = False
    clipped: bool = False

    def title(self) -> str:
        return f"{self.node}: post-processing {MAKERS[self.maker]}"

    def facts(self) -> dict[str, object]:
        return {
            "suppression": suppression(self.options) if self.options else "limits computed at run time",
            "boxes": f"{self.boxes} ({self.coding})", "scores": self.scores,
            "outputs behind it": ", ".join(self.outputs), **({"note": " ".join(self.notes)} if self.notes else {}),
        }


def find_nms(model: Any) -> tuple[FoundNms, ...]:
    """The post-processing in a detector's graph, one entry for each NonMaxSuppression; empty where there is none.

    Args:
        model: an .onnx path, a Model, or a result that carries one.

    Raises:
        BadInput: no such file, or damaged metadata.
    """
    source = model_of(model)
    return found_in(files.open_graph(source.path, light=True), source)


def found_in(graph: ir.Model, source: Model) -> tuple[FoundNms, ...]:
    """Likewise, in an open graph."""
    told = read_metadata(source.metadata, source.path)
    nodes = [node for node in graph.graph if is_op(node, "NonMaxSuppression")]
    return tuple(_found(node, graph, told if len(nodes) == 1 else None) for node in nodes)


def plain_heads(found: FoundNms, graph: ir.Model, source: Model) -> Heads:
    """Heads at the inputs of a NonMaxSuppression, as far as the graph tells: classes get numbers for names."""
    sizes = next((value.shape for node in graph.graph for value in node.inputs
                  if value is not None and value.name == found.scores), None)
    classes = sizes[1] if sizes is not None and len(sizes) == 3 and isinstance(sizes[1], int) else 0
    picture = next((spec for spec in source.inputs if len(spec.shape) == 4), None)
    size = (0, 0)
    if picture is not None:
        sides = picture.shape[1:3] if picture.shape[3] in (1, 3) else picture.shape[2:]
        size = tuple(side if isinstance(side, int) else 0 for side in sides)
    return Heads(tuple(map(str, range(classes))), size, found.scores, found.boxes, "none", 1, found.coding,
                 image=picture.name if picture else source.inputs[0].name)


def behind(node: ir.Node) -> list[ir.Node]:
    """All nodes that depend on one."""
    waiting, seen = [node], {}
    while waiting:
        for value in waiting.pop().outputs:
            for reader in value.consumers():
                if reader not in seen:
                    seen[reader] = None
                    waiting.append(reader)
    return list(seen)


def _found(node: ir.Node, graph: ir.Model, told: Told | None) -> FoundNms:
    after = behind(node)
    maker: Maker = "kit" if told else _maker(node, after)
    y_first = told.heads.coding in ("anchors", "yxyx") if told else maker.startswith("tensorflow")
    coding = "cxcywh" if integer(node, "center_point_box", 0) else "yxyx" if y_first else "xyxy"
    total = _total(after) if maker in ("paddle", "tensorflow combined") else 0
    options, notes = (told.options, []) if told else _limits(node, total)
    boxes, scores = _origin(node.inputs[0]), node.inputs[1]
    if told and told.options.class_agnostic and kind(scores) == "ReduceMax":
        scores = scores.producer().inputs[0]
    grown = maker == "paddle" and _before_one(boxes) is not boxes
    if grown:
        notes.append("It reads boxes whose right and lower sides are one pixel further (Paddle's normalized=False).")
    if maker == "paddle":
        notes.append("It takes batches of one only; Paddle's nms_top_k, a limit on candidates, became one on boxes "
                     "kept.")
    clipped = maker == "tensorflow combined" and any(
        is_op(other, "Min", "Clip") and 1 in (scalar(given(other, 1)), scalar(given(other, 2))) for other in after)
    if clipped:
        notes.append("Behind it boxes are clipped to [0, 1] (clip_boxes): they are parts of the picture, not pixels.")
    if maker == "onnx" and coding == "xyxy":
        notes.append("Whether x or y comes first in a box does not matter to NonMaxSuppression and was not looked "
                     "into.")
    made = {value for other in (node, *after) for value in other.outputs}
    outputs = tuple(value.name for value in graph.graph.outputs if value in made)
    return FoundNms(maker, node.name, node.inputs[0].name, scores.name, node.outputs[0].name, coding, options,
                    outputs, tuple(notes), grown, clipped)


def _maker(node: ir.Node, after: list[ir.Node]) -> Maker:
    boxes = _origin(node.inputs[0])
    for other in after:
        # (class, score, box): three parts, the last gathered from the boxes
        if (is_op(other, "Concat") and len(other.inputs) == 3 and kind(other.inputs[2]) == "Gather"
                and _origin(other.inputs[2].producer().inputs[0]) in (boxes, _before_one(boxes))):
            return "paddle"
    kinds = {other.op_type for other in after}
    if {"ScatterND", "TopK", "GatherElements", "CumSum"} <= kinds:
        return "tensorflow combined"
    readers = node.outputs[0].consumers()
    added = kind(node.inputs[0]) in ("Unsqueeze", "Reshape") and kind(node.inputs[1]) in ("Unsqueeze", "Reshape")
    if added and readers and all(is_op(reader, "Slice", "Gather") for reader in readers) and "Concat" not in kinds:
        return "tensorflow"
    return "onnx"


def _origin(value: ir.Value) -> ir.Value:
    """What a value is a copy of."""
    while kind(value) == "Identity":
        value = value.producer().inputs[0]
    return value


def _before_one(value: ir.Value) -> ir.Value:
    """The corners that Paddle2ONNX adds 1 to, where ``normalized`` is off: Concat(Split(boxes) + 1)."""
    if kind(value) != "Concat":
        return value
    first = value.producer().inputs[0]
    return _origin(first.producer().inputs[0]) if kind(first) == "Split" else value


def _number(value: ir.Value | None) -> float | None:
    """The number of a constant with one element, looked for behind what only moves it."""
    while value is not None and scalar(value) is None and kind(value) in _MOVES:
        value = value.producer().inputs[0]
    return scalar(value)


def _limits(node: ir.Node, total: int) -> tuple[AddNmsOptions | None, list[str]]:
    notes = []
    most, iou, threshold = (_number(given(node, at)) for at in (2, 3, 4))
    for value, at in ((most, 2), (iou, 3), (threshold, 4)):
        if value is None and given(node, at) is not None:
            return None, [f"{node.inputs[at].name} is computed at run time."]
    if not most or most < 0:
        return None, ["It keeps nothing at all: max_output_boxes_per_class is missing or 0."]
    if threshold is None or threshold < -1:
        notes.append("It has no score threshold.")
    return AddNmsOptions(score_threshold=max(threshold if threshold is not None else -1.0, -1.0), iou=iou or 0.0,
                         most=int(min(most, MOST)), total=total), notes


def _total(after: list[ir.Node]) -> int:
    """The limit over all classes: the smallest constant in the k of a TopK; 0 without one."""
    found = [int(number) for node in after if is_op(node, "TopK") for number in _constants(node.inputs[1])]
    return min((number for number in found if 0 < number <= MOST), default=0)


def _constants(value: ir.Value | None, depth: int = 8) -> Iterator[int]:
    if value is None or depth == 0:
        return
    if (numbers := constant(value)) is not None:
        yield from numbers.reshape(-1).tolist()
    elif kind(value) in (*_MOVES, "Min", "ReduceMin", "Concat"):
        for part in value.producer().inputs[: 1 if kind(value) in (*_MOVES, "ReduceMin") else None]:
            yield from _constants(part, depth - 1)


