"""The kernel's side of a Paddle export: start the worker, and put into words how it ended.

Paddle2ONNX calls abort() at the first thing that it lacks and prints nothing but that; so the operators are compared
with the converter's own list beforehand, and its log is read afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kit.errors import KitError, ToolFailed, UnsupportedModel, WorkerDied
from kit.exporting import paddle as inside
from kit.exporting.paddle import Prepared
from kit.exporting.result import unsupported_table
from kit.exporting.specs import LayerSource
from kit.model import TensorSpec, read
from kit.progress import Report, Tick
from kit.source import Source
from kit.worker import Process

#: What the interpreter that runs Paddle must have installed.
NEEDS = ("paddlepaddle|paddlepaddle-gpu", "paddle2onnx", "numpy", "psutil")
# Belt and braces: the converter is called without polygraphy, and if anything did call pip, it would find nothing.
_NO_INSTALLER = {"POLYGRAPHY_AUTOINSTALL_DEPS": "0", "POLYGRAPHY_INSTALL_CMD": "false", "PIP_NO_INDEX": "1",
                 "PIP_NO_INPUT": "1"}
_MARK = re.compile(r"\[ERROR\]|\[OP:")
_OPERATOR = re.compile(r"\[OP: (?:pd_op\.)?(?P<name>[^\]]+)\] ?(?P<why>.*)")


def save(layer: LayerSource, inputs: Sequence[TensorSpec], folder: Path, report: Report) -> list[str]:
    """Save a layer as an inference model, in a worker; see `kit.exporting.paddle.save_layer`."""
    with Process(framework="paddle") as process:
        return process.call(inside.save_layer, layer, tuple(inputs), folder,
                            report=_still(report, Tick(0, 5, "building the layer and saving it")))


def run_layer(layer: LayerSource, feeds: list[dict[str, np.ndarray]], report: Report) -> list[list[np.ndarray]]:
    """What the layer itself answers, in a worker; see `kit.exporting.paddle.run_layer`."""
    with Process(framework="paddle") as process:
        return process.call(inside.run_layer, layer, feeds,
                            report=_still(report, Tick(4, 5, "comparing the layer with what was saved of it")))


def convert(source: Source, scratch: Path, opset: int, *, log: Path, report: Report) -> tuple[Prepared, Path]:
    """Convert a saved model; returns what the converter was given, and the file as it wrote it.

    Raises:
        UnsupportedModel: operators, or uses of them, without a counterpart; all of them are named.
        ToolFailed: the converter stopped for another reason; the log's tail is the detail.
    """
    still = _still(report, Tick(1, 5, "converting with Paddle2ONNX"))
    path = scratch / "converted.onnx"
    with Process(framework="paddle", log=log, environment=_NO_INSTALLER) as process:
        prepared = process.call(inside.prepare, source.graph, source.weights, scratch, report=still)
        try:
            process.call(inside.convert, prepared, path, opset, report=still)
        except (WorkerDied, ToolFailed) as error:
            raise explain(source, prepared, error, process.log_tail(400)) from error
    return prepared, path


def explain(source: Source, prepared: Prepared, error: KitError, log: str) -> KitError:
    """Words for a conversion that stopped: unsupported operators first, then what the log says."""
    said = list(dict.fromkeys(line.strip() for line in log.splitlines() if _MARK.search(line)))
    detail = "\n".join(said) + "\n" + error.detail if said else error.detail or log[-4000:]
    if prepared.unsupported:
        names = ", ".join(row.operator for row in prepared.unsupported)
        return UnsupportedModel(
            f"{source.name} uses {len(prepared.unsupported)} operator(s) that Paddle2ONNX cannot convert: {names}.",
            remedy="; ".join(f"{row.operator}: {row.advice}" for row in prepared.unsupported),
            detail=unsupported_table(prepared.unsupported).text(limit=200))
    reasons = [found for found in map(_OPERATOR.search, said) if found]
    if reasons:
        uses = list(dict.fromkeys(f"{found['name']}: {found['why'].strip()}" for found in reasons))
        return UnsupportedModel(
            f"{source.name} uses {len(uses)} operator(s) in a way that Paddle2ONNX cannot convert: "
            f"{' '.join(uses)}", remedy="change these settings in the layer, or write it with other operators",
            detail=detail)
    if isinstance(error, ToolFailed):
        return ToolFailed(error.what, remedy=error.remedy, detail=detail)
    return ToolFailed(f"Paddle2ONNX stopped while converting {source.name}: {error.what}"
                      + (f" {said[0]}" if said else ""), remedy="the details have its last words; another opset "
                      "sometimes helps. kit.check_environment('paddle') lists version pairs that are known to fail",
                      detail=detail)


def words(prepared: Prepared, opset: int, path: Path) -> list[str]:
    """What a reader should know of the conversion."""
    from kit.exporting.onnx_file import version

    said = []
    if prepared.translated:
        said.append("the old .pdmodel was translated to a PIR program first, by Paddle's own translator")
    if prepared.narrowed:
        what = ", ".join(f"{name} ({count})" for name, count in prepared.narrowed.items())
        said.append(f"Paddle 3.3 saved these numbers with 64 bits, which Paddle2ONNX cannot read: {what}. A copy with "
                    "32 bits, as Paddle 3.2 saves them, was converted; the model's own file is untouched")
    got = version(read(path, weights=False))
    if got != opset:
        said.append(f"an operator of the model needs opset {got}; {opset} was raised to it")
    return said


def _still(report: Report, tick: Tick) -> Report:
    """While the tool is silent, say what it is at; a cancel gets through."""
    return lambda _: report(tick)
