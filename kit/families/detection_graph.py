"""Decoding and suppression as nodes of an ONNX graph: the same arithmetic as ``decode`` and ``nms``, in that order.

Nodes that make boxes and scores out of raw heads are called ``decode/...``, those behind them ``nms/...``: a later
stage keeps them in float by these names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.families.detection_heads import Heads
from kit.families.detection_nms import AddNmsOptions
from kit.graph.values import Builder, shape

if TYPE_CHECKING:
    import onnx_ir as ir

OLDEST = 12  # opset: GatherND with batch_dims
DECODE, NMS = "decode/", "nms/"
LOST = -2.0  # stands for the score of what is not kept; those of kept boxes are above -1


class Tail:
    """Makes the nodes, one part at a time; ``append`` puts them at the end of the graph."""

    def __init__(self, model: ir.Model) -> None:
        import onnx_ir as ir

        self.model = model
        self._place = {name: ir.node("Identity", [], name=name.rstrip("/")) for name in (DECODE, NMS)}
        self._builder = Builder(self._place[DECODE], model)

    @property
    def nodes(self) -> list[ir.Node]:
        """Those made so far, in order."""
        return self._builder.nodes

    def decoded(self, boxes: ir.Value, scores: ir.Value, heads: Heads) -> tuple[ir.Value, ir.Value]:
        """Boxes [N, A, 4] as two corners, y first where the heads have it so, and scores [N, C, A]."""
        import onnx_ir as ir

        self._builder.root = self._place[DECODE]
        build = self._builder
        sizes = shape(scores) or [None] * 3
        boxes, scores = (value if value.dtype == ir.DataType.FLOAT else build.op("Cast", [value], {"to": 1})
                         for value in (boxes, scores))
        if heads.activation == "sigmoid":
            scores = build.op("Sigmoid", [scores], like=scores)
        if heads.classes_axis == 2:
            scores = build.op("Transpose", [scores], {"perm": [0, 2, 1]}, like=scores)
            sizes = [sizes[0], sizes[2], sizes[1]]
        if scores.producer() in build.nodes:  # the heads know what shape inference may not
            places = len(heads.anchor_boxes()) if heads.coding == "anchors" else sizes[2]
            scores.shape = ir.Shape([sizes[0], sizes[1] or len(heads.classes) or None, places])
        if heads.coding == "anchors":
            anchors = heads.anchor_boxes()
            centre = build.weight(anchors[:, :2], f"{DECODE}centres")
            sides = build.weight(anchors[:, 2:], f"{DECODE}sides")
            halves = build.weight(anchors[:, 2:] * np.float32(0.5), f"{DECODE}halves")
            moved = build.op("Mul", [self._columns(boxes, 0, 2), sides], like=boxes)
            middle = build.op("Add", [moved, centre], like=boxes)
            stretched = build.op("Exp", [self._columns(boxes, 2, 4)], like=boxes)
            boxes = self._corners(middle, build.op("Mul", [stretched, halves], like=boxes))
        elif heads.coding == "cxcywh":
            half = build.weight(np.float32(0.5), f"{DECODE}half")
            boxes = self._corners(self._columns(boxes, 0, 2),
                                  build.op("Mul", [self._columns(boxes, 2, 4), half], like=boxes))
        return boxes, scores

    def suppressed(self, boxes: ir.Value, scores: ir.Value, options: AddNmsOptions,
                   *, y_first: bool) -> dict[str, ir.Value]:
        """The outputs of the form asked for, by name."""
        import onnx_ir as ir

        self._builder.root = self._place[NMS]
        build, best = self._builder, None
        if options.class_agnostic:
            best = build.op("ArgMax", [scores], {"axis": 1, "keepdims": 0})
            sizes = shape(scores)
            scores = build.over("ReduceMax", scores, [1], {"keepdims": 1}, like=scores)
            scores.shape = ir.Shape([sizes[0], 1, sizes[2]]) if sizes else None
        limits = [build.weight(np.array([value], kind), f"{NMS}{name}") for name, value, kind in (
            ("most", options.most, np.int64), ("iou_threshold", options.iou, np.float32),
            ("score_threshold", options.score_threshold, np.float32))]
        rows = build.op("NonMaxSuppression", [boxes, scores, *limits], name=f"{NMS}NonMaxSuppression")
        found = build.op("GatherND", [scores, rows], like=scores)
        if not options.total:
            batch, kinds = self._column(rows, 0), self._column(rows, 1)
            places = build.op("Gather", [rows, self._numbers([0, 2])], {"axis": 1})
            kinds = build.op("GatherND", [best, places]) if best is not None else kinds
            picked = build.op("GatherND", [boxes, places], like=boxes)
            return {"boxes": self._x_first(picked, y_first, 1), "scores": found, "classes": kinds, "batch": batch}
        return self._best(boxes, scores, rows, found, best, options, y_first=y_first)

    def free(self, name: str) -> str:
        """``name``, with a number where something is called so already."""
        return self._builder.free(name)

    def append(self) -> None:
        """Put the nodes made so far at the end of the graph."""
        self.model.graph.extend(self.nodes)

    def _best(self, boxes: ir.Value, scores: ir.Value, rows: ir.Value, found: ir.Value, best: ir.Value | None,
              options: AddNmsOptions, *, y_first: bool) -> dict[str, ir.Value]:
        """The best ``total`` of each picture: scores of what was kept, among -2 for all else, sorted by TopK.

        TopK takes the lower index first of equal values, which here is the lower class, then the lower place.
        """
        import onnx

        build = self._builder
        lost = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [LOST])
        grid = build.op("ConstantOfShape", [build.op("Shape", [scores])], {"value": _tensor(lost)}, like=scores)
        grid = build.op("ScatterND", [grid, rows, found], like=scores)
        flat = build.op("Reshape", [grid, self._numbers([0, -1])], like=scores)
        values, at = self._top(flat, scores, options.total)
        count = self._count(scores)
        place = build.op("Mod", [at, count])
        if options.form == "padded":
            where = build.over("Unsqueeze", place, [2])
            kinds = (build.op("GatherND", [best, where], {"batch_dims": 1}) if best is not None
                     else build.op("Div", [at, count]))
            picked = build.op("GatherND", [boxes, where], {"batch_dims": 1}, like=boxes)
            empty = build.op("Equal", [values, build.weight(np.float32(LOST), f"{NMS}lost")])
            no_box = build.weight(np.float32(-1), f"{NMS}no_box")
            kinds = build.op("Where", [empty, build.weight(np.int64(-1), f"{NMS}no_class"), kinds])
            picked = build.op("Where", [build.over("Unsqueeze", empty, [2]), no_box, picked], like=boxes)
            values = build.op("Where", [empty, no_box, values], like=scores)
            return {"boxes": self._x_first(picked, y_first, 2), "scores": values, "classes": kinds}
        kept = build.op("Greater", [values, build.weight(np.float32(LOST), f"{NMS}lost")])
        kept = build.op("Transpose", [build.op("NonZero", [kept])], {"perm": [1, 0]})
        batch = self._column(kept, 0)
        pair = build.op("Concat", [build.over("Unsqueeze", batch, [1]),
                                   build.over("Unsqueeze", build.op("GatherND", [place, kept]), [1])], {"axis": 1})
        kinds = (build.op("GatherND", [best, pair]) if best is not None
                 else build.op("Div", [build.op("GatherND", [at, kept]), count]))
        picked = build.op("GatherND", [boxes, pair], like=boxes)
        return {"boxes": self._x_first(picked, y_first, 1), "scores": build.op("GatherND", [values, kept], like=scores),
                "classes": kinds, "batch": batch}

    def _top(self, flat: ir.Value, scores: ir.Value, total: int) -> tuple[ir.Value, ir.Value]:
        import onnx_ir as ir

        build, sizes = self._builder, shape(scores)
        if sizes and None not in sizes[1:]:
            count = self._numbers([min(total, sizes[1] * sizes[2])])
        else:
            there = build.op("Gather", [build.op("Shape", [flat]), self._numbers([1])])
            count = build.op("Min", [there, self._numbers([total])])
        label = build.free(f"{NMS}TopK")
        values, at = (ir.Value(name=build.free(f"{label}_{name}")) for name in ("values", "at"))
        build.nodes.append(ir.node("TopK", [flat, count], {"axis": 1}, outputs=[values, at], name=label))
        return values, at

    def _count(self, scores: ir.Value) -> ir.Value:
        """How many boxes a class has, 1 at least: it is divided by."""
        sizes = shape(scores)
        if sizes and sizes[2] is not None:
            return self._numbers([max(sizes[2], 1)])
        there = self._builder.op("Gather", [self._builder.op("Shape", [scores]), self._numbers([2])])
        return self._builder.op("Max", [there, self._numbers([1])])

    def _numbers(self, values: list[int]) -> ir.Value:
        return self._builder.weight(np.int64(values), f"{self._builder.root.name}/numbers")

    def _columns(self, value: ir.Value, start: int, end: int) -> ir.Value:
        steers = [self._numbers([number]) for number in (start, end, 2)]
        return self._builder.op("Slice", [value, *steers], like=value)

    def _column(self, rows: ir.Value, at: int) -> ir.Value:
        return self._builder.op("Gather", [rows, self._builder.weight(np.int64(at), f"{NMS}column")], {"axis": 1})

    def _corners(self, middle: ir.Value, half: ir.Value) -> ir.Value:
        low = self._builder.op("Sub", [middle, half], like=middle)
        high = self._builder.op("Add", [middle, half], like=middle)
        return self._builder.op("Concat", [low, high], {"axis": 2}, like=middle)

    def _x_first(self, boxes: ir.Value, y_first: bool, axis: int) -> ir.Value:
        if not y_first:
            return boxes
        return self._builder.op("Gather", [boxes, self._numbers([1, 0, 3, 2])], {"axis": axis}, like=boxes)


def _tensor(proto: object) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.serde.deserialize_tensor(proto)
