"""Lower precisions besides static INT8: weights alone, half precision, ranges found while the model runs.

Each module has one function, ``write(model, folder, options, calibration, report) -> Written``, which ``kit.quantize``
calls. They work on the graph without its weights and write these one at a time, so a model of any size will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Written"]


@dataclass(frozen=True)
class Written:
    """A model in a lower precision.

    Attributes:
        path: the file written.
        nodes: name of each node of the float model -> (what it became, why).
        notes: sentences for the reader.
    """

    path: Path
    nodes: dict[str, tuple[str, str]]
    notes: tuple[str, ...] = ()
