"""Three ways to convert: with an open batch, item by item inside the graph, with a fixed batch.

The first whose answers are those of the ONNX model is kept, otherwise the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit import worker
from kit.comparison import TensorParity, worst
from kit.compiling import savedmodel_convert, savedmodel_layers
from kit.compiling.onnx2tf_model import Port
from kit.compiling.result import parity
from kit.compiling.saved import Saved, SavedModelOptions
from kit.compiling.savedmodel_answers import answers, ask
from kit.compiling.savedmodel_convert import Plan, Written
from kit.errors import BadInput, KitError, ToolFailed, UnsupportedModel, WorkerDied
from kit.graph.fixing import fix
from kit.graph.result import FixOptions
from kit.model import Model
from kit.progress import Report, part

TOOL = "onnx2tf"
#: Rules that leave the operators as they are, and take away what onnx2tf stumbles over.
RULES = ("inline-functions", "fix-shapes", "lift-constants", "drop-identity", "if-constant", "fold-constants",
         "drop-neutral", "drop-dropout", "drop-casts", "drop-reshapes", "drop-transposes", "fold-batchnorm",
         "fold-affine", "drop-unused")


@dataclass(frozen=True)
class Tried:
    """One attempt that gave a SavedModel: what was planned and written, and how far its answers are."""

    plan: Plan
    written: Written
    rows: tuple[TensorParity, ...]

    @property
    def gap(self) -> float:
        """The largest relative difference."""
        return max((row.relative for row in self.rows), default=0.0)

    @property
    def verdict(self) -> str:
        """Of the worst row."""
        row = worst(self.rows)
        return row.verdict if row else "equal"


def attempts(source: Model, place: Path, work: Path, options: SavedModelOptions,
              feeds: Sequence[Mapping[str, np.ndarray]], wanted: Sequence[Mapping[str, np.ndarray]],
              report: Report) -> tuple[Tried, list[str]]:
    """The first attempt whose answers are right, or the best of those that gave any; and why the others did not.

    Raises:
        ToolFailed: none gave a SavedModel.
    """
    ways = ["open", "each", "fixed"] if not options.batch and _can_batch(source, feeds, wanted) else ["fixed"]
    best: Tried | None = None
    refused: list[str] = []
    failure: KitError | None = None
    plan: Plan | None = None
    for way in ways:
        told = part(report, f"batch {way}")
        try:
            plan = plan_for(source, work / way, options, feeds, wanted, way, told)
            written = in_tool(savedmodel_convert.convert, plan, report=told)
            found = Tried(plan, written, compare(plan, written, source, options, feeds, wanted))
        except (ToolFailed, UnsupportedModel, WorkerDied) as error:
            failure = failure or error
            refused.append(error.what)
            continue
        best = min(filter(None, (best, found)), key=lambda one: one.gap)
        if best.verdict != "failed":
            break
        refused.append(f"its answers differ by {found.gap:.1e}")
    if best is None:
        assert failure is not None
        raise _with_layer(failure, plan, report)
    place.parent.mkdir(parents=True, exist_ok=True)
    best.plan.folder.rename(place)
    return best, refused


def _with_layer(failure: KitError, plan: Plan | None, report: Report) -> KitError:
    """The failure, with the first layer that differs where the parts could be converted and the whole not."""
    try:
        if plan is None or not (plan.work / "simplified.onnx").is_file():
            return failure
        gap, _ = savedmodel_layers.first(in_tool(savedmodel_layers.trace, plan, report=report))
    except KitError:
        return failure
    if gap is None:
        return failure
    return ToolFailed(f"{failure.what} The first layer that differs is {gap.operator} {gap.node!r} (tensor "
                      f"{gap.tensor!r}).", remedy=failure.remedy, detail=failure.detail)


def plan_for(source: Model, work: Path, options: SavedModelOptions, feeds: Sequence[Mapping[str, np.ndarray]],
          wanted: Sequence[Mapping[str, np.ndarray]], way: str, report: Report) -> Plan:
    """Fix the sizes and write down what is to be converted."""
    work.mkdir(parents=True)
    feed, answer = dict(feeds[0]), wanted[0]
    if way == "each":
        feed = {label: values[:1] for label, values in feed.items()}
    shapes = {label: (None if way == "open" else values.shape[0], *values.shape[1:]) if values.ndim else ()
              for label, values in feed.items()}
    asked = tuple(f"{label}={','.join('N' if side is None else str(side) for side in shape)}"
                  for label, shape in shapes.items() if shape)
    prepared = fix(source, FixOptions(rules=RULES, shapes=asked), samples=[feed], runs=work / "fixed", report=report)
    np.savez(work / "feed.npz", **feed)
    if way == "each":
        answer = answers(source, [feed], graph_level="none", threads=options.threads)[0]
    np.savez(work / "answer.npz", **answer)
    return Plan(
        graph=prepared.model.path, folder=work / "saved", work=work, layout=options.layout, signature=options.signature,
        inputs=tuple(Port(spec.name, spec.dtype, shapes[spec.name]) for spec in source.inputs),
        outputs=tuple(Port(spec.name, str(answer[spec.name].dtype), ()) for spec in source.outputs),
        feed=work / "feed.npz", answer=work / "answer.npz", batch=way)


def compare(plan: Plan, written: Written, source: Model, options: SavedModelOptions,
             feeds: Sequence[Mapping[str, np.ndarray]],
             wanted: Sequence[Mapping[str, np.ndarray]]) -> tuple[TensorParity, ...]:
    """Against the ONNX model: on the feeds, and on two of them as one batch where the batch is open."""
    feeds, wanted = list(feeds), list(wanted)
    if plan.batch != "fixed":
        twice = {label: np.concatenate([feeds[0][label], feeds[-1][label]]) for label in feeds[0]}
        feeds.append(twice)
        wanted += answers(source, [twice], graph_level="none", threads=options.threads)
    served = Saved("convert", "", 1, plan.signature, written.inputs, written.outputs, "", 0, {}, 0, "")
    found = ask(plan.folder, served, source, feeds, options)
    try:
        return parity(wanted, found)
    except BadInput as error:
        raise ToolFailed(f"The SavedModel answers in another shape than the ONNX model. {error.what}",
                         remedy="where NonMaxSuppression is in the graph, cut it off and give the raw heads: how many "
                         "boxes are kept differs; otherwise fix the sizes with bind=(...)") from error


def _can_batch(source: Model, feeds: Sequence[Mapping[str, np.ndarray]],
               wanted: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Whether every input and output starts with an axis that the model leaves open, and the model takes two."""
    ports = (*source.inputs, *source.outputs)
    if not all(spec.shape and not isinstance(spec.shape[0], int) for spec in ports):
        return False
    count = {values.shape[0] for values in (*feeds[0].values(), *wanted[0].values()) if values.ndim}
    if len(count) != 1:
        return False
    try:
        twice = {label: np.concatenate([values, values]) for label, values in feeds[0].items()}
        answer, = answers(source, [twice], graph_level="none")
    except KitError:
        return False
    return {values.shape[0] for values in answer.values()} == {2 * count.pop()}


def in_tool(function: Any, plan: Plan, report: Report) -> Any:
    """Call a function of the plan in the environment of onnx2tf."""
    return worker.run(function, plan, framework=TOOL, report=report, pass_report=True)
