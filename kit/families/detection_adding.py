"""``add_nms``: one ONNX file that holds the model, the decoding of its boxes, and their suppression.

Public through ``detection``. The proof is in two parts, since only one of them can be exact: what the graph decodes is
compared with numpy's decoding as tensors are (exp and sigmoid are rounded differently), and what it keeps of its own
decoded boxes must be what numpy keeps of the very same ones, to the last bit and in the same order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kit.calibration import model_of, short_name
from kit.errors import BadInput, ToolFailed, UnsupportedModel, unknown
from kit.families.detection_graph import OLDEST, Tail
from kit.families.detection_heads import Heads, check_shapes
from kit.families.detection_nms import AddNmsOptions, NmsOptions
from kit.families.detection_proof import Proof
from kit.families.detection_result import METADATA, Edited, GraphEdit, require_equal, write_metadata
from kit.graph import files
from kit.graph.feeds import from_samples, that_run, total
from kit.graph.inference import infer
from kit.model import Model, external_files, operator_counts
from kit.options import expect
from kit.progress import Report, Tick, silent
from kit.record import check_files, run_stage

VERSION = 1
SAMPLES = 4  # compared, of those given


def add_nms(model: Any, heads: Heads | Path | str, options: NmsOptions = AddNmsOptions(), *,  # noqa: B008
            samples: Iterable[Mapping[str, np.ndarray]] | None = None, runs: Path | str | None = None,
            report: Report = silent) -> Edited:
    """Put decoding and NonMaxSuppression behind a detector's raw heads, in its graph.

    The new outputs take the place of the two heads; others stay. ``form="rows"``: ``boxes`` float32 [M, 4] as (x1, y1,
    x2, y2) in pixels of the input, ``scores`` float32 [M], ``classes`` int64 [M] and ``batch`` int64 [M], the picture
    each belongs to, in the order of `nms`. ``form="padded"``: ``boxes`` [N, total, 4], ``scores`` and ``classes``
    [N, total], the rest -1. Read both with `read_detections`.

    An Ascend chip takes the rows without ``total``, after ``kit.fix(target="ascend310p3")``, and fills them up with -1;
    apply a total on the host. The constants of the anchors fit one size of input: fix it before.

    Args:
        model: an .onnx path, a Model, or a result that carries one, with the raw heads among its outputs.
        heads: what they mean, or where the ``detection.json`` lies that says so.
        options: thresholds, limits and form; class-agnostic as `NmsOptions` tells.
        samples: feeds to compare on; made-up inputs where there are none.
        runs: where results go.
        report: hears the progress.

    Raises:
        BadInput: no such outputs, shapes that do not fit, or a graph that suppresses already.
        UnsupportedModel: the opset is older than 12.
        ToolFailed: the new graph does not give what numpy gives.
    """
    expect(NmsOptions, options)
    options = options if isinstance(options, AddNmsOptions) else AddNmsOptions(**vars(options))
    heads = heads if isinstance(heads, Heads) else Heads.read(heads)
    if getattr(model, "provenance", None) is not None:
        check_files(model)
    source = model_of(model)
    _check(source, heads)
    given = None if samples is None else list(itertools.islice(samples, SAMPLES))

    def work(folder: Path, tell: Report) -> Edited:
        return _add(source, heads, options, given, folder, tell)

    return run_stage("add-nms", Edited, work, options=options, name=short_name(source), version=VERSION, runs=runs,
                     inputs={"model": source, "heads": heads, "samples": given}, report=report)


def _check(source: Model, heads: Heads) -> None:
    if operator_counts(source.path).get("NonMaxSuppression"):
        raise BadInput(f"{source.path.name} has a NonMaxSuppression already.",
                       remedy="kit.families.detection.cut_nms(model) takes it out")
    outputs = {spec.name: spec for spec in source.outputs}
    for name in (heads.boxes, heads.scores):
        if name not in outputs:
            raise unknown("output", name, outputs, source.path.name)
    check_shapes(outputs[heads.boxes].shape, outputs[heads.scores].shape, heads)
    if source.opset < OLDEST:
        raise UnsupportedModel(f"{source.path.name} has opset {source.opset}; post-processing needs {OLDEST}.",
                               remedy="bring it up first: kit.fix(model, kit.FixOptions(opset=17))")


def _add(source: Model, heads: Heads, options: AddNmsOptions, samples: list | None, folder: Path,
         report: Report) -> Edited:
    report(Tick(0, 3, "adding nodes"))
    path = folder / f"{short_name(source)}.nms.onnx"
    edits, raw, decoded = _write(source, heads, options, path)
    report(Tick(1, 3, "comparing on made-up heads"))
    proof = Proof(path, raw, decoded, heads, options)
    shapes = {spec.name: spec for spec in source.outputs}
    found = proof.tail([shapes[heads.boxes], shapes[heads.scores]])
    report(Tick(2, 3, "comparing the whole graph"))
    if samples:
        feeds, skipped = from_samples(samples, source.inputs, SAMPLES, source.path.name)
        if not feeds:
            raise BadInput(f"None of the first {skipped} samples fits the inputs of {source.path.name}.",
                           remedy="give samples of the size of its input")
    else:
        feeds = that_run(source, source.inputs, 2)
    whole = proof.whole(source, feeds)
    notes = [] if whole else [
        "Nothing was found in what the whole graph was fed: give samples=... with something to find."]
    notes += proof.doubts()
    rows = proof.parity.result()
    require_equal(rows, source.path.name)
    fed = total(feeds, "samples" if samples else "made-up inputs")
    return Edited(
        source.derived(path, "add-nms", f"decoding and suppression in the graph, {options.form}"), source, edits,
        heads, options, rows, found + whole, f"made-up heads ({found} detections); {fed} ({whole})", tuple(notes))


def _write(source: Model, heads: Heads, options: AddNmsOptions,
           path: Path) -> tuple[tuple[GraphEdit, ...], list[str], list[str]]:
    """Write the new graph; gives the edits, and what the raw and the decoded boxes and scores are called in it."""
    graph = files.open_graph(source.path)
    by_name = {value.name: value for value in graph.graph.outputs}
    boxes, scores = by_name[heads.boxes], by_name[heads.scores]
    tail = Tail(graph)
    made_boxes, made_scores = tail.decoded(boxes, scores, heads)
    outputs = tail.suppressed(made_boxes, made_scores, options, y_first=heads.coding in ("anchors", "yxyx"))
    tail.append()
    for value in {boxes, scores}:
        graph.graph.outputs.remove(value)
        if value.name in outputs:
            value.name = tail.free(f"heads/{value.name}")
    taken = {value.name for node in graph.graph for value in (*node.outputs, *node.inputs) if value is not None}
    _declare(outputs, options)
    for name, value in outputs.items():
        value.name = name if name not in taken else tail.free(f"detections/{name}")
        graph.graph.outputs.append(value)
    graph.metadata_props[METADATA] = write_metadata(heads, options, [boxes.name, scores.name])
    infer(graph)
    files.write(graph, path, outside=bool(external_files(source.path)))
    if objection := files.check(path):
        raise ToolFailed(f"onnx's checker refuses {source.path.name} with its post-processing.",
                         remedy="please report this model with the details", detail=objection)
    edits = [GraphEdit(f"added {node.op_type}", node.name) for node in tail.nodes]
    edits += [GraphEdit("is no output any more", name) for name in dict.fromkeys((heads.boxes, heads.scores))]
    edits += [GraphEdit("is an output now", value.name) for value in outputs.values()]
    return tuple(edits), [boxes.name, scores.name], [made_boxes.name, made_scores.name]


def _declare(outputs: Mapping[str, Any], options: AddNmsOptions) -> None:
    """Types and shapes of the new outputs."""
    import onnx_ir as ir

    first = ["pictures", "rows"] if options.form == "padded" else ["rows"]
    for name, value in outputs.items():
        value.type = ir.TensorType(ir.DataType.FLOAT if name in ("boxes", "scores") else ir.DataType.INT64)
        value.shape = ir.Shape([*first, 4] if name == "boxes" else first)
