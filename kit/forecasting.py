"""What a calibration will take: memory and time, said before it runs.

Memory follows from the sizes of the tensors for the first sample; time from running that sample a few times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.calibration import CalibrateOptions, check_samples, model_of, network_of, plan
from kit.card import Card, bytes_text
from kit.collecting.collector import Collector
from kit.collecting.parts import Parts
from kit.options import expect

_TRIALS = 3


@dataclass(frozen=True)
class Forecast(Card):
    """What calibrating would take.

    Attributes:
        model_name: the model's file.
        samples: how many would be run.
        memory: bytes of this process at its peak.
        adds: bytes of that which the calibration adds to what the process takes now.
        seconds: for the samples; reading weights and samples for fingerprints is not counted.
        passes: in how many parts the model would be run.
        threads: how many samples at a time.
        tensors: how many tensors would be measured.
        activations: bytes that all of them take for one sample.
        together: bytes of them that are in memory at a time, a thread.
        state: bytes of the counts.
        weights: bytes of the model's constants.
    """

    model_name: str
    samples: int
    memory: int
    adds: int
    seconds: float
    passes: int
    threads: int
    tensors: int
    activations: int
    together: int
    state: int
    weights: int

    def title(self) -> str:
        return (f"Calibrating {self.model_name} over {self.samples} samples: about {bytes_text(self.memory)} of memory "
                f"and {self.seconds:.0f} s")

    def facts(self) -> dict[str, object]:
        return {
            "the calibration adds": bytes_text(self.adds),
            "tensors measured": f"{self.tensors}, {bytes_text(self.activations)} for one sample",
            "run in parts": f"{self.passes}, with {bytes_text(self.together)} of tensors at a time",
            "samples at a time": self.threads,
            "counts": bytes_text(self.state),
            "weights": bytes_text(self.weights),
        }


def forecast(
    model: Any,
    samples: Sequence[Mapping[str, np.ndarray]],
    options: CalibrateOptions = CalibrateOptions(),  # noqa: B008 - frozen
) -> Forecast:
    """Say what ``calibrate`` with the same arguments would take. Runs the first sample a few times.

    Raises:
        BadInput: samples that do not fit the model, or none.
        UnsupportedModel: nothing to calibrate, or it would not fit into the memory limit however it is run.
    """
    expect(CalibrateOptions, options)
    model = model_of(model)
    check_samples(samples)
    count = min(len(samples), options.samples)
    feeds = dict(samples[0])
    network, axes = network_of(model)
    chosen = plan(model, network, axes, feeds, options)
    began = time.monotonic()
    collector = Collector(axes, histograms=options.histograms)
    with Parts(network, model, tuple(axes), chosen.sizes, chosen.parts) as parts:
        lane, opened, spent = parts.lane(), time.monotonic() - began, []
        for _ in range(1 + _TRIALS):
            began = time.monotonic()
            for arrays in lane.run(samples[0]):
                collector.add(arrays, ("",))
            spent.append(time.monotonic() - began)
    seconds = opened + spent[0] + min(spent[1:]) * count / chosen.workers
    return Forecast(model.path.name, count, chosen.memory, chosen.grows, seconds, chosen.parts, chosen.workers,
                    len(axes), sum(chosen.sizes.values()), chosen.activations, chosen.state, chosen.weights)


