"""The kernel's side of a PyTorch export: start the worker, and put into words how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import bytes_text
from kit.errors import ToolFailed, UnsupportedModel, WorkerDied
from kit.exporting import onnx_file
from kit.exporting import torch as inside
from kit.exporting.result import unsupported_table
from kit.exporting.specs import LayerSource
from kit.exporting.torch import Asked, Converted
from kit.graph.inference import infer
from kit.graph.rule import Setting, apply_one
from kit.graph.table import RULES
from kit.model import TensorSpec
from kit.progress import Report, Tick
from kit.worker import Process

#: What the interpreter that runs PyTorch must have installed: for any module, and for parts of a pipeline.
NEEDS = ("torch", "onnx", "onnxscript", "numpy", "psutil")
NEEDS_DIFFUSERS = (*NEEDS, "diffusers", "transformers")


def convert(asked: Asked, path: Path, name: str, *, forecast: int, log: Path, report: Report) -> Converted:
    """Export in a worker; see `kit.exporting.torch.convert`.

    Raises:
        UnsupportedModel: operators without a counterpart; all of them are named.
        ToolFailed: the exporter stopped for another reason, or ended without a file.
        WorkerDied: it crashed, or the memory did not suffice; says what was forecast.
    """
    tick = Tick(1, 5, f"exporting with PyTorch's {asked.exporter} exporter, which needs about {bytes_text(forecast)} "
                "of memory")
    with Process(framework="torch", log=log) as process:
        try:
            found = process.call(inside.convert, asked, path, report=lambda _: report(tick))
        except WorkerDied as error:
            raise WorkerDied(f"{error.what} It was forecast to take {bytes_text(forecast)} of memory.",
                             remedy=error.remedy, detail=error.detail) from error
        if found.unsupported:
            raise refusal(name, asked.exporter, found)
        if not path.is_file():
            raise ToolFailed(f"PyTorch's {asked.exporter} exporter ended without a file for {name}.",
                             remedy="the details have its last words", detail=process.log_tail())
    return found


def stamp(layer: LayerSource, report: Report) -> tuple[str, int]:
    """What tells whether a factory's module is still the same, and its size; see `kit.exporting.torch.stamp`."""
    tick = Tick(0, 5, "building the module")
    with Process(framework="torch") as process:
        return process.call(inside.stamp, layer, report=lambda _: report(tick))


def refusal(name: str, exporter: str, found: Converted) -> UnsupportedModel:
    """The error that names every operator without a counterpart."""
    names = ", ".join(row.operator for row in found.unsupported)
    return UnsupportedModel(f"{name} uses {len(found.unsupported)} operator(s) that PyTorch's {exporter} exporter "
                            f"cannot convert: {names}.", remedy=found.unsupported[0].advice,
                            detail=unsupported_table(found.unsupported).text(limit=200))


class FactoryRunner:
    """The module of a factory in a worker, called like a `kit.runner.Runner`."""

    def __init__(self, layer: LayerSource, inputs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
        self.notes: list[str] = []
        self._process = Process(framework="torch")
        try:
            self._process.make(inside.Factory, layer, tuple(inputs), tuple(outputs))
            self.settings: dict[str, Any] = self._process.call("describe")
        except BaseException:
            self._process.close()
            raise

    def __enter__(self) -> FactoryRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.close()

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._process.call("run", dict(feeds))


def lowered(proto: Any, opset: int, path: Path, name: str) -> tuple[Any, str]:
    """The model in an older opset, by the kit's own rule: onnx's converter lacks the way back for Split and others.

    Args:
        proto: with references to weights in ``path``.
        opset: to be reached.
        path: of the file as the exporter wrote it.
        name: for words.

    Returns:
        The model, and what was rewritten.

    Raises:
        UnsupportedModel: an operator, as it is used here, has no older form; names it and the other exporter.
    """
    import onnx_ir as ir

    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, str(path.parent))
    infer(model)
    made, left = apply_one(RULES["lower-opset"], Setting(model, opset=opset))
    if not made:
        reason = left[0].reason if left else "the rule lower-opset does not take it"
        raise UnsupportedModel(f"{name} cannot be brought to opset {opset}: {reason}.", remedy="export with "
                               "ExportOptions(exporter='classic'), which writes that opset itself")
    model.ir_version = max(8, onnx_file.needed_ir_version(model.opset_imports))
    return ir.to_proto(model), made[0].what
