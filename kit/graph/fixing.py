"""The stage ``fix``: edits a graph by named rules, measures each, and keeps only what leaves the answer as it was.

The answers before and after every rule are compared with ONNX Runtime's own rewriting switched off. A rule that moves
them beyond the tolerance is halved until the guilty edit is found; that one is refused, by name, and the others stay.
Each edit can be undone alone: ``fixed.undo("merge-hardswish:Mul_12")``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, unknown
from kit.graph import feeds as feeding
from kit.graph import files
from kit.graph.asking import ask
from kit.graph.result import Change, Fixed, FixOptions, LeftAlone, Rejected
from kit.graph.rule import Setting
from kit.graph.rules_shape import parse
from kit.graph.rules_whole import operators
from kit.graph.table import RULES, chosen
from kit.graph.trial import Trial
from kit.inspection.graph import onnx_source
from kit.model import Model, TensorSpec, external_files
from kit.options import expect
from kit.progress import Report, silent
from kit.record import check_files, run_stage

VERSION = 3


def fix(model: Any, options: FixOptions = FixOptions(), *,  # noqa: B008
        samples: Iterable[Mapping[str, np.ndarray]] | None = None, runs: Path | str | None = None,
        report: Report = silent) -> Fixed:
    """Edit a model's graph by rules; every edit is explained, measured, and can be undone.

    Args:
        model: an .onnx path, a Model, or a result that carries one.
        options: target, rules, shapes, tolerance.
        samples: what the model is for, as ``Samples`` or feeds; made-up inputs where there are none that fit.
        runs: where results go.
        report: gets a tick at each rule.

    Raises:
        BadInput: an unknown rule, input or file; a shape that does not fit.
        UnsupportedModel: ONNX Runtime cannot run the source, so nothing could be checked.
        StaleResult: ``model`` is a result whose files were changed.
    """
    expect(FixOptions, options)
    if getattr(model, "provenance", None) is not None:
        check_files(model)
    source = getattr(model, "model", model)
    source = source if isinstance(source, Model) else Model.open(onnx_source(source, "fix").graph)
    chosen(options.rules, options.target)
    for name in options.skip:
        if name.partition(":")[0] not in RULES:
            raise unknown("rule", name.partition(":")[0], RULES)
    shapes = parse(options.shapes, {spec.name: len(spec.shape) for spec in source.inputs}, source.path.name)

    def work(folder: Path, tell: Report) -> Fixed:
        return _fix(source, options, shapes, samples, folder, tell)

    return run_stage("fix", Fixed, work, options=options, inputs={"model": source, "samples": _digestible(samples)},
                     name=_name(source), version=VERSION, runs=runs, report=report)


def applicable(model: Any, target: str = "onnxruntime") -> list[tuple[str, str, str]]:
    """What the target's rules would do, without keeping or measuring anything: for the audit.

    Returns:
        (rule, node, reason): reason is "" where the rule would edit, otherwise why it would leave the node alone.

    Raises:
        BadInput: no such file or target.
    """
    source = model if isinstance(model, Model) else Model.open(onnx_source(model, "audit").graph)
    return list(ask(source.path, target).rows)


def _fix(source: Model, options: FixOptions, shapes: dict[str, tuple], samples: Any, folder: Path,
         report: Report) -> Fixed:
    graph = files.open_graph(source.path)
    before = dict(sorted(operators(graph).items()))
    notes: list[str] = []
    feeds, origin = _feeds(source, options, shapes, samples, notes) if options.check else ([], "")
    setting = Setting(graph, options.target, shapes, options.opset, options.ir_version, options.tensorflow_resize)
    trial = Trial(setting, source.path, feeds, options.tolerance, set(options.skip))
    trial.run(chosen(options.rules, options.target), report)
    path = folder / f"{_name(source)}.onnx"
    if trial.edits:
        files.write(setting.model, path, outside=bool(external_files(source.path)))
    else:
        files.copy(source.path, path)
    notes += [*trial.accepted, *_checked(source, path)]
    edits = [(edit, difference) for edit, difference in trial.edits]
    parity = trial.parity()
    note = f"{len(edits)} edits: " + (", ".join(dict.fromkeys(edit.rule for edit, _ in edits)) or "none")
    return Fixed(
        model=source.derived(path, "fix", note), source=source, options=options,
        changes=tuple(Change(edit.id, edit.rule, edit.site, edit.what, RULES[edit.rule].because, float(difference))
                      for edit, difference in edits),
        left_alone=tuple(LeftAlone(edit.rule, edit.site, edit.reason) for edit in trial.left),
        rejected=tuple(Rejected(r.edit.id, r.edit.rule, r.edit.site, float(r.difference), r.reason)
                       for r in trial.refused),
        operators_before=before, operators_after=dict(sorted(operators(setting.model).items())), parity=parity,
        checked_on=feeding.total(feeds, origin), size_before=source.size, notes=tuple(notes))


def _feeds(source: Model, options: FixOptions, shapes: dict[str, tuple], samples: Any,
           notes: list[str]) -> tuple[list[feeding.Feeds], str]:
    """What to feed for the comparison, and what that is in words."""
    specs = tuple(_wanted(spec, shapes.get(spec.name, ())) for spec in source.inputs)
    if samples is not None:
        found, skipped = feeding.from_samples(samples, specs, options.samples, source.path.name)
        if found:
            return found, "samples"
        notes.append(f"None of {skipped} samples fits the shapes asked for: compared on made-up inputs.")
    else:
        notes.append("Give samples=... to compare on real inputs: made-up ones may leave parts of a model idle.")
    return feeding.that_run(source, specs, options.samples), "made-up inputs"


def _wanted(spec: TensorSpec, axes: tuple) -> TensorSpec:
    """The input as it will be: the sizes asked for, where the graph leaves them open."""
    have = [want if isinstance(want, int) and not (isinstance(axis, int) and axis >= 0) else axis
            for axis, want in zip(spec.shape, axes or spec.shape, strict=True)]
    return replace(spec, shape=tuple(have))


def _checked(source: Model, path: Path) -> list[str]:
    """Run onnx's checker on what was written; a defect that the source has not is ours."""
    objection = files.check(path)
    if not objection:
        return []
    if files.check(source.path):
        return [f"onnx's checker objects to the source already: {objection.splitlines()[0]}"]
    raise ToolFailed(f"The rules made a model of {source.path.name} that onnx's checker refuses.",
                     remedy="leave rules out with skip=(...) and please report this with the details", detail=objection)


def _digestible(samples: Any) -> Any:
    if samples is None or hasattr(samples, "digest"):
        return samples
    if not isinstance(samples, list | tuple):
        raise BadInput(f"samples cannot be {type(samples).__name__}.", remedy="give Samples, or a list of feeds")
    return list(samples)


def _name(model: Model) -> str:
    """The model's short name: the file's; the folder's for model.onnx and inference.onnx."""
    stem = model.path.name.split(".")[0]
    if stem not in ("model", "inference"):
        return stem
    parent = model.path.resolve().parent
    return parent.parent.name if re.fullmatch(r"[a-z]+-[0-9a-f]{12}", parent.name) else parent.name
