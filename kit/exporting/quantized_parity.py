"""A quantized TFLite beside its ONNX model: how much of a difference is rounding that TFLite's own kernels differ by.

Integer kernels round in different places, and a deep network carries a step on. So TFLite is compared with itself, once
with XNNPACK and once with its own kernels; a difference within theirs says nothing against the ONNX model. That is run
as it is written: with all optimisations on, ONNX Runtime would compute in integers too, and on processors without VNNI
it then clips sums of two products to 16 bits (onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit.comparison import Parity, TensorParity
from kit.exporting.layouts import Relayout
from kit.exporting.parity import Compared, overall
from kit.runner import open_runner

#: How the ONNX model is run for the comparison: rounding where the file says so, and nowhere else.
AS_WRITTEN = {"graph_level": "basic"}


def spread(other: Callable[[], Any], compared: Compared) -> dict[str, float]:
    """How far a second runner of the source is from the first, relative, for each output.

    Args:
        other: opens it.
        compared: what the first one answered.
    """
    parity = Parity()
    with other() as run:
        for trial, answer in zip(compared.trials, compared.references, strict=True):
            parity.add(answer, run(trial.feed))
    return {row.name: row.relative for row in parity.result()}


def judge(rows: Sequence[TensorParity], own: dict[str, float], failures: Sequence[str]) -> str:
    """The verdict where differences up to the source's own (`spread`) count as a warning, not as failed."""
    within = all(row.verdict != "failed" or row.relative <= own.get(row.name, 0.0) for row in rows)
    verdict = overall(rows, failures)
    return "warning" if verdict == "failed" and within and not failures else verdict


def optimised(path: Path, compared: Compared, relayout: Relayout) -> float:
    """The largest relative difference from the source when ONNX Runtime does all its optimisations."""
    parity = Parity()
    with open_runner(path) as run:
        for trial, answer in zip(compared.trials, compared.references, strict=True):
            parity.add(answer, relayout.answer(run(relayout.feed(trial.feed))))
    return max((row.relative for row in parity.result()), default=0.0)


def words(rows: Sequence[TensorParity], own: dict[str, float], fast: float) -> str:
    """A sentence for the reader."""
    return (f"the model is quantized: on the same inputs TFLite's kernels differ among themselves by up to "
            f"{max(own.values(), default=0.0):.1e} (relative), the ONNX model as written by "
            f"{max((row.relative for row in rows), default=0.0):.1e}, and with all of ONNX Runtime's optimisations, in "
            f"integers on this processor, by {fast:.1e}. dequantize=True gives a float model")
