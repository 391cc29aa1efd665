"""``range_by_timestep``: what the layers of a UNet are fed at each part of the way from noise to latents.

Public through ``diffusion``. Each span of timesteps is calibrated by itself; the calibrations merge to that of all, so
the ranges and the calibration come from the same runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.calibration import CalibrateOptions, Calibration, calibrate, merge_calibrations, model_of, network_of
from kit.card import Card, Table
from kit.errors import BadInput
from kit.families.diffusion_capture import Captured
from kit.int8.quantizable import WEIGHTED
from kit.options import expect
from kit.progress import Report, part, silent
from kit.record import Provenance


@dataclass(frozen=True)
class LayerRanges:
    """What one layer is fed.

    Attributes:
        layer: name of the node.
        kind: operator type.
        low: smallest value in each span of timesteps.
        high: largest value in each span of timesteps.
    """

    layer: str
    kind: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def growth(self) -> float:
        """Largest magnitude of the widest span over that of the narrowest; 1 where all are alike."""
        reach = np.maximum(np.abs(self.low), np.abs(self.high))
        return float(reach.max() / reach.min()) if reach.min() > 0 else float("inf") if reach.max() > 0 else 1.0


@dataclass(frozen=True, eq=False)
class RangesByTimestep(Card):
    """Ranges of the inputs of every layer with weights, along the way.

    Attributes:
        model: name of the UNet's file.
        timesteps: one for each span, its middle one; the first of the walk (the highest) first.
        layers: in the order of the graph.
        calibration: of all inputs together, for ``quantize_unet``.
    """

    model: str
    timesteps: tuple[int, ...]
    layers: tuple[LayerRanges, ...] = field(repr=False)
    calibration: Calibration = field(repr=False)
    provenance: Provenance | None = field(default=None, repr=False)

    def most_changed(self, count: int = 10) -> tuple[LayerRanges, ...]:
        """The layers whose range changes most, those first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.growth))[:count]

    def title(self) -> str:
        moved = sum(layer.growth > 2 for layer in self.layers)
        return (f"{moved} of {len(self.layers)} layers of {self.model} have a range that changes more than twofold "
                "between timesteps")

    def facts(self) -> dict[str, object]:
        first = self.most_changed(1)[0]
        return {"timesteps": f"{len(self.timesteps)} spans from {self.timesteps[0]} to {self.timesteps[-1]}",
                "changes most": f"{first.layer}: {first.growth:.1f}-fold",
                "inputs": self.calibration.samples}

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((layer.layer, layer.kind, f"{layer.low[0]:.3g} to {layer.high[0]:.3g}",
                      f"{layer.low[-1]:.3g} to {layer.high[-1]:.3g}", f"{layer.growth:.2f}")
                     for layer in self.most_changed(len(self.layers)))
        return (Table("Ranges of what layers are fed, those that change most first",
                      ("layer", "operator", f"around timestep {self.timesteps[0]}",
                       f"around timestep {self.timesteps[-1]}", "widest over narrowest"), rows),)


def range_by_timestep(model: Any, captured: Captured, options: CalibrateOptions = CalibrateOptions(), *,  # noqa: B008
                      runs: Path | str | None = None, report: Report = silent) -> RangesByTimestep:
    """Calibrate a UNet span by span of timesteps.

    Args:
        model: the float UNet as ONNX, or a result that carries it.
        captured: its inputs, what ``capture`` gives.
        options: of ``kit.calibrate``; ``samples`` counts all spans together.
        runs: where the calibrations are kept.
        report: hears progress.

    Raises:
        BadInput: nothing was captured, or it does not fit the model.
        UnsupportedModel: the model cannot be calibrated.
    """
    expect(CalibrateOptions, options)
    if not isinstance(captured, Captured):
        raise BadInput(f"Ranges by timestep need to know the timesteps; this is a {type(captured).__name__}.",
                       remedy="give what kit.families.diffusion.capture returned")
    model = model_of(model)
    groups = captured[: options.samples].by_bin()
    found = {group: calibrate(model, inputs, options, runs=runs, report=part(report, f"timesteps {_span(inputs)}"))
             for group, inputs in groups.items()}
    whole = merge_calibrations(found.values(), runs=runs, report=report) if len(found) > 1 else \
        next(iter(found.values()))
    ranges = [calibration.ranges("minmax") for calibration in found.values()]
    network, _ = network_of(model)
    layers = []
    for node in network.nodes:
        fed = network.same_range.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type in WEIGHTED and all(fed in each for each in ranges):
            layers.append(LayerRanges(node.name, node.op_type, *(tuple(each[fed][side] for each in ranges)
                                                                 for side in (0, 1))))
    timesteps = tuple(int(np.median(sorted({call.timestep for call in inputs.calls}))) for inputs in groups.values())
    return RangesByTimestep(model.path.name, timesteps, tuple(layers), whole)


def _span(inputs: Captured) -> str:
    steps = [call.timestep for call in inputs.calls]
    return f"{max(steps)} to {min(steps)}"
