"""``cut_nms``: a detector's graph without its post-processing, and what is needed to do that in numpy.

Public through ``detection``. Proven as it is cut: the rows that NonMaxSuppression gives in the uncut graph must be what
``select`` gives for the very tensors it read, to the last bit; the cut graph must give those tensors, or raw heads that
``decode`` turns into them; and where the uncut outputs can be read as detections, they must be those of ``nms``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kit.calibration import model_of, short_name
from kit.comparison import Parity
from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.families.detection_boxes import Detections, read_detections
from kit.families.detection_found import FoundNms, found_in, plain_heads
from kit.families.detection_heads import Heads, decode
from kit.families.detection_nms import nms, select
from kit.families.detection_result import METADATA, Edited, GraphEdit, read_metadata, require_equal
from kit.graph import files
from kit.graph.feeds import from_samples, that_run, total
from kit.graph.mapped import mapped
from kit.graph.values import names
from kit.model import Model, external_files
from kit.model import read as read_file
from kit.progress import Report, Tick, silent
from kit.record import check_files, run_stage

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 1
SAMPLES = 4


def cut_nms(model: Any, heads: Heads | Path | str | None = None, *, at: Literal["heads", "nms"] = "heads",
            samples: Iterable[Mapping[str, np.ndarray]] | None = None, runs: Path | str | None = None,
            report: Report = silent) -> Edited:
    """Take the post-processing out of a detector's graph.

    The result's ``model`` gives boxes and scores, its ``heads`` say what they are and its ``options`` how the graph
    suppressed them: ``detect(outputs, cut.heads, cut.options)`` finds what the uncut graph found.

    Args:
        model: an .onnx path, a Model, or a result that carries one.
        heads: what is known of the detector, or where its ``detection.json`` lies: classes, size, preprocessing. Where
            it names tensors of the graph, the cut is made there.
        at: ``heads`` cuts before the decoding too, where the graph (by ``add_nms``) or ``heads`` says how to decode;
            ``nms`` right before the NonMaxSuppression.
        samples: feeds to compare on; made-up inputs where there are none.
        runs: where results go.
        report: hears the progress.

    Raises:
        BadInput: there is no NonMaxSuppression.
        UnsupportedModel: there are several, a limit is computed at run time, or the boxes are grown by a pixel.
        ToolFailed: numpy does not find what the uncut graph finds.
    """
    if at not in ("heads", "nms"):
        raise BadInput(f"The cut cannot be made at {at!r}.", remedy="choose 'heads' or 'nms'")
    heads = heads if isinstance(heads, Heads) or heads is None else Heads.read(heads)
    if getattr(model, "provenance", None) is not None:
        check_files(model)
    source = model_of(model)
    given = None if samples is None else list(itertools.islice(samples, SAMPLES))

    def work(folder: Path, tell: Report) -> Edited:
        return _cut(source, heads, at, given, folder, tell)

    return run_stage("cut-nms", Edited, work, options=at, name=short_name(source), version=VERSION, runs=runs,
                     inputs={"model": source, "heads": heads, "samples": given}, report=report)


def _cut(source: Model, known: Heads | None, at: str, samples: list | None, folder: Path, report: Report) -> Edited:
    report(Tick(0, 2, "cutting"))
    graph = files.open_graph(source.path)
    found = _only(found_in(graph, source), source)
    heads, notes = _heads(found, graph, source, known, at)
    edits, now = _edit(graph, found, heads, source)
    path = folder / f"{short_name(source)}.cut.onnx"
    files.write(graph, path, outside=bool(external_files(source.path)))
    if objection := files.check(path):
        raise ToolFailed(f"onnx's checker refuses what is left of {source.path.name}.",
                         remedy="please report this model with the details", detail=objection)
    report(Tick(1, 2, "comparing"))
    feeds, skipped = from_samples(samples, source.inputs, SAMPLES, source.path.name) if samples else ([], 0)
    if skipped and not feeds:
        raise BadInput(f"None of the first {skipped} samples fits the inputs of {source.path.name}.",
                       remedy="give samples of the size of its input")
    fed = total(feeds, "samples") if feeds else ""
    feeds = feeds or that_run(source, source.inputs, 2)
    rows, detections = _prove(source, path, found, heads, now, feeds)
    if not detections:
        notes.append("Nothing was found in what was fed: give samples=... with something to find.")
    return Edited(source.derived(path, "cut-nms", f"cut before {found.node}"), source, edits, now, found.options, rows,
                  detections, fed or total(feeds, "made-up inputs"), (*found.notes, *notes))


def _only(found: tuple[FoundNms, ...], source: Model) -> FoundNms:
    """The one NonMaxSuppression, where numpy can do what it does."""
    if not found:
        raise BadInput(f"{source.path.name} has no NonMaxSuppression.", remedy="it gives raw heads already")
    if len(found) > 1:
        raise UnsupportedModel(f"{source.path.name} has {len(found)} of NonMaxSuppression, perhaps one for each class: "
                               f"{', '.join(one.node for one in found[:4])}.",
                               remedy="export the model without its post-processing")
    (one,) = found
    if one.options is None:
        raise UnsupportedModel(f"{one.node} in {source.path.name}: {' '.join(one.notes)}",
                               remedy="fold constants with kit.fix, or export it with constant limits")
    if one.grown:
        raise UnsupportedModel(f"{one.node} in {source.path.name} works on boxes grown by a pixel.",
                               remedy="export the model with normalized boxes, or without its post-processing")
    return one


def _heads(found: FoundNms, graph: ir.Model, source: Model, known: Heads | None,
           at: str) -> tuple[Heads, list[str]]:
    """Where to cut: heads with the names that tensors have in the source."""
    told = read_metadata(source.metadata, source.path)
    plain = plain_heads(found, graph, source)
    known = told.heads if told else known
    if known is None:
        return plain, ["Names of classes, size and preprocessing are not known: give heads=..."]
    if at == "heads" and {known.boxes, known.scores} <= names(graph):
        return known, []
    notes = [] if at == "nms" else [
        f"{known.boxes!r} and {known.scores!r} are no tensors of the graph: cut right before {found.node}."]
    coding = known.coding if found.maker == "onnx" and known.coding in ("xyxy", "yxyx") else plain.coding
    return replace(known, boxes=plain.boxes, scores=plain.scores, activation="none", classes_axis=1, coding=coding,
                   anchors=None), notes


def _edit(graph: ir.Model, found: FoundNms, heads: Heads, source: Model) -> tuple[tuple[GraphEdit, ...], Heads]:
    """Make the heads the outputs; gives the edits, and the heads by their names in the new graph."""
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    before = [node.name for node in graph.graph]
    by_name = {value.name: value for node in graph.graph for value in (*node.outputs, *node.inputs)
               if value is not None}
    edits = []
    ends = [value for value in graph.graph.outputs if value.name in found.outputs]
    for value in ends:
        graph.graph.outputs.remove(value)
        edits.append(GraphEdit("is no output any more", value.name))
    wanted = {"boxes": by_name[heads.boxes], "scores": by_name[heads.scores]}
    for name, value in wanted.items():
        if value.is_graph_input() or value.is_initializer():  # an output needs a node that makes it
            node = ir.node("Identity", [value], name=f"cut/{name}")
            graph.graph.append(node)
            wanted[name] = node.outputs[0]
            wanted[name].name, wanted[name].type, wanted[name].shape = f"cut/{name}_output", value.type, value.shape
        made = wanted[name]
        made.type = made.type or ir.TensorType(ir.DataType.FLOAT)
        if made.shape is None:  # an output has to have as many axes as it has
            made.shape = ir.Shape([None, None, 4 if name == "boxes" else None])
        if not made.is_graph_output():
            graph.graph.outputs.append(wanted[name])
            edits.append(GraphEdit("is an output now", wanted[name].name))
    common.RemoveUnusedNodesPass()(graph)  # there may be ends that nothing ever read
    told = read_metadata(source.metadata, source.path)
    graph.metadata_props.pop(METADATA, None)
    taken = names(graph)
    for value, name in zip(wanted.values(), told.names if told else (), strict=False):
        if heads == told.heads and name not in taken:  # those of add_nms get their names back
            edits.append(GraphEdit(f"is called {name} again", value.name))
            value.name = name
    left = {node.name for node in graph.graph}
    edits += [GraphEdit("removed", name) for name in before if name not in left]
    for value in list(graph.graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.graph.inputs.remove(value)
            edits.append(GraphEdit("is no input any more: nothing reads it", value.name))
    return tuple(edits), replace(heads, boxes=wanted["boxes"].name, scores=wanted["scores"].name)


def _prove(source: Model, path: Path, found: FoundNms, heads: Heads, now: Heads,
           feeds: list[dict[str, np.ndarray]]) -> tuple[tuple, int]:
    """Compare the cut graph and numpy with the uncut graph; gives the tensors, and how many boxes were kept."""
    assert found.options is not None
    proto = read_file(source.path, weights=False)
    there = [value.name for value in (*proto.graph.output, *proto.graph.input)]
    for name in dict.fromkeys((found.boxes, found.scores, found.rows)):
        if name not in there:
            proto.graph.output.add(name=name)
    whole = mapped(proto.SerializeToString(), source.path.parent, source.path.name)
    cut = mapped(path.read_bytes(), path.parent, path.name)
    inputs = {spec.name for spec in Model.open(path).inputs}
    parity, count, options = Parity(), 0, found.options
    for feed in feeds:
        answer, raw = {**feed, **whole(feed)}, cut({name: feed[name] for name in feed if name in inputs})
        boxes, scores, rows = answer[found.boxes], answer[found.scores], answer[found.rows]
        corners = boxes
        if found.coding == "cxcywh":
            half = boxes[..., 2:] * np.float32(0.5)
            corners = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=2)
        kinds = scores.max(axis=1, keepdims=True) if options.class_agnostic else scores
        mine = select(corners, kinds, options.score_threshold, options.iou, options.most)
        if not np.array_equal(mine, rows):
            raise ToolFailed(f"{found.node} in {source.path.name} keeps {len(rows)} boxes; numpy {len(mine)}, or "
                             "others.", remedy="please report this model with the details",
                             detail=f"graph: {rows[:10].tolist()}\nnumpy: {mine[:10].tolist()}")
        count += len(rows)
        read = {"boxes": corners[..., [1, 0, 3, 2]] if found.coding == "yxyx" else corners,
                "scores": scores.transpose(0, 2, 1)}
        parity.add(read, dict(zip(read, decode(raw, now), strict=True)))
        if found.maker in ("kit", "paddle") or (found.maker == "tensorflow combined" and not found.clipped):
            _same(found, answer, nms(*read.values(), options))
    rows = parity.result()
    require_equal(rows, source.path.name)
    return rows, count


def _same(found: FoundNms, answer: Mapping[str, np.ndarray], expected: list[Detections]) -> None:
    """The outputs of the uncut graph against numpy; the order does not count, since Paddle's is another."""
    outputs = {name: answer[name] for name in found.outputs}
    given = read_detections(outputs, len(expected))
    if [sorted(one.rows()) for one in given] != [sorted(one.rows()) for one in expected]:
        raise ToolFailed(f"What stands behind {found.node} does not give what numpy gives.",
                         remedy="please report this model with the details",
                         detail=f"graph: {[one.rows()[:10] for one in given]}\n"
                         f"numpy: {[one.rows()[:10] for one in expected]}")
