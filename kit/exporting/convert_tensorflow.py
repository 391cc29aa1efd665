"""The kernel's side of a TensorFlow export: start the worker, and put into words how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kit.errors import KitError, ToolFailed, UnsupportedModel, WorkerDied
from kit.exporting import keras
from kit.exporting import tensorflow as inside
from kit.exporting.resizing import resize_tasks
from kit.exporting.result import unsupported_table
from kit.exporting.specs import LayerSource
from kit.exporting.tensorflow import Asked, Converted
from kit.model import TensorSpec
from kit.progress import Report, Tick
from kit.worker import Process

#: What the interpreter that runs TensorFlow must have installed.
NEEDS = ("tensorflow-cpu|tensorflow", "tf2onnx", "numpy", "psutil")
# No device but the processor; TensorFlow's own chatter would hide what matters in a log's tail.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def save(source: LayerSource | Path, inputs: Sequence[TensorSpec], folder: Path, report: Report) -> str:
    """Save a Keras model as a SavedModel, in a worker; see `kit.exporting.keras.save_keras`."""
    with Process(framework="tensorflow", environment=_QUIET) as process:
        return process.call(keras.save_keras, source, tuple(inputs), folder,
                            report=_still(report, Tick(0, 5, "saving the Keras model as a SavedModel")))


def run(source: LayerSource | Path, inputs: Sequence[TensorSpec], feeds: list[dict[str, np.ndarray]],
        report: Report) -> list[dict[str, np.ndarray]]:
    """What the Keras model itself answers, in a worker; see `kit.exporting.keras.run_keras`."""
    with Process(framework="tensorflow", environment=_QUIET) as process:
        return process.call(keras.run_keras, source, tuple(inputs), feeds,
                            report=_still(report, Tick(4, 5, "comparing the Keras model with what was saved of it")))


def convert(asked: Asked, scratch: Path, name: str, *, log: Path, report: Report, resize: bool = False,
            ) -> tuple[Converted, Path, tuple[np.ndarray, ...]]:
    """Convert; returns what is known of the source, the file as tf2onnx wrote it, and what its resizes give.

    Args:
        asked: what, and how.
        scratch: folder for the file.
        name: for words.
        log: where the worker's output goes.
        report: hears progress.
        resize: run the source's resizes on the pictures of `kit.exporting.resizing` too, by TensorFlow.

    Raises:
        UnsupportedModel: operators, or uses of them, without a counterpart; all of them are named.
        ToolFailed: the converter stopped for another reason, or ended without a file; the log's tail is the detail.
        BadInput: no such signature or node, or a damaged file.
    """
    path = scratch / "converted.onnx"
    answers: tuple[np.ndarray, ...] = ()
    tell = _still(report, Tick(1, 5, "converting with tf2onnx"))
    with Process(framework="tensorflow", log=log, environment=_QUIET) as process:
        try:
            found = process.call(inside.convert, asked, path, report=tell)
            if resize and found.resizes:
                answers = tuple(process.call(inside.resized, *resize_tasks(found.resizes), report=tell))
        except (WorkerDied, ToolFailed) as error:
            raise explain(name, error, process.log_tail()) from error
        if found.unsupported:
            raise refusal(name, found)
        if not path.is_file() or not path.stat().st_size:
            raise ToolFailed(f"tf2onnx ended without a file for {name}.", remedy="the details have its last words; "
                             "another opset sometimes helps", detail=process.log_tail())
    return found, path, answers


def refusal(name: str, found: Converted) -> UnsupportedModel:
    """The error that names every operator without a counterpart."""
    names = ", ".join(dict.fromkeys(row.operator for row in found.unsupported))
    return UnsupportedModel(
        f"{name} uses {len({row.operator for row in found.unsupported})} operator(s) that tf2onnx cannot convert: "
        f"{names}.", remedy="; ".join(dict.fromkeys(f"{row.operator}: {row.advice}" for row in found.unsupported)),
        detail=unsupported_table(found.unsupported).text(limit=200))


def explain(name: str, error: KitError, log: str) -> KitError:
    """Words for a conversion that stopped, with the end of the log behind its own."""
    detail = "\n".join(filter(None, [error.detail, "last lines of the log:", log]))
    what = error.what if name in error.what else f"tf2onnx stopped while converting {name}: {error.what}"
    return ToolFailed(what, remedy=error.remedy, detail=detail[-8000:])


def _still(report: Report, tick: Tick) -> Report:
    """While the tool is silent, say what it is at; a cancel gets through."""
    return lambda _: report(tick)
