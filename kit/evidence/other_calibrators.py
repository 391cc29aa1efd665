"""ONNX Runtime's own calibrators, run for comparison: what ranges they give for the same model and samples."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import ToolFailed
from kit.int8.qdq import quiet
from kit.model import Model
from kit.need import need

Method = Literal["minmax", "entropy", "percentile"]


class Feeds:
    """Samples in the form that ONNX Runtime's calibrators read them: one by one, until None."""

    def __init__(self, samples: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed; None at the end."""
        found = next(self._left, None)
        return None if found is None else dict(found)


def onnxruntime_ranges(
    model: Any, samples: Sequence[Mapping[str, np.ndarray]], method: Method = "minmax", *, batches: int = 1,
    **extra: Any,
) -> dict[str, tuple[float, float]]:
    """``(low, high)`` of every tensor as ONNX Runtime's calibrator chooses them.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        samples: feeds; the histogram methods keep every activation of every sample in memory.
        method: of ONNX Runtime.
        batches: collect in so many portions, as its stride option does.
        extra: options of the calibrator, such as ``max_intermediate_outputs=3``, ``num_bins=2048``,
            ``percentile=99.99``.

    Raises:
        ToolFailed: the calibrator stops; its words are in the detail.
    """
    tool = need("onnxruntime.quantization.calibrate", to="compare calibrators", extra="base")
    kind = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}[method]
    found = getattr(model, "model", model)
    path = found.path if isinstance(found, Model) else Path(found)
    size = -(-len(samples) // batches)
    try:
        with tempfile.TemporaryDirectory(prefix="kit-calibrators-") as folder, quiet(), \
                contextlib.redirect_stdout(io.StringIO()):  # it prints
            calibrator = tool.create_calibrator(
                str(path), augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=tool.CalibrationMethod[kind], extra_options=extra)
            for at in range(0, len(samples), size):
                calibrator.collect_data(Feeds(samples[at : at + size]))
            data = calibrator.compute_data()
    except Exception as error:  # ValueError, numpy's errors ... from anywhere inside
        raise ToolFailed(f"ONNX Runtime's {kind} calibrator stopped on {path.name}: {error}",
                         remedy="compare with kit.calibrate, which says what it found where", detail=repr(error)
                         ) from error
    return {name: tuple(float(np.min(part)) if at == 0 else float(np.max(part))  # type: ignore[misc]
                        for at, part in enumerate(tensor.range_value)) for name, tensor in data.items()}
