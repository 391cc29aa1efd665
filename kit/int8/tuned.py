"""A range method for every tensor by itself, chosen by the error at the model's output.

There is no best method for all tensors of a model: one needs its outliers, the next is better off without. The start is
the one method that serves the whole model best. Then the tensors are walked, those that cost the output most first, and
a tensor takes another method's range where that helps.

A change must help twice: with nothing but this tensor rounded, and with everything rounded. The first is a clear
measurement; the second alone would also take what was luck on the probe samples.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.int8.noise import OutputError, decibels
from kit.int8.qdq import Recipe
from kit.int8.quantizable import Network
from kit.int8.ranges import CANDIDATES, Range
from kit.int8.simulated import Simulated
from kit.model import Model
from kit.progress import Report, Tick, silent

_FIRST_LOOK = 2  # probes that the order of the tensors is decided by


@dataclass(frozen=True)
class Tuned:
    """Ranges chosen tensor by tensor.

    Attributes:
        ranges: ``(low, high)`` of every measured tensor.
        methods: which method each comes from, such as ``percentile 99.99``.
        sqnr_before: of the output with the best single method, dB, over the probes, in float arithmetic.
        sqnr: of the output with these ranges, likewise; never less.
        tried: how many ranges were tried on single tensors.
    """

    ranges: dict[str, Range] = field(repr=False)
    methods: dict[str, str] = field(repr=False)
    sqnr_before: float
    sqnr: float
    tried: int


def label(method: str, percentile: float) -> str:
    """A method's name for the reader."""
    return f"{method} {percentile:g}" if method == "percentile" else method


def tuned_ranges(network: Network, model: Model, calibration: Any, nodes: Collection[str], recipe: Recipe,
                 probes: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], *, seconds: float = 60,
                 report: Report = silent) -> Tuned:
    """Choose every tensor's range by the error at the model's output.

    The same input gives the same answer, unless the time cuts it short.

    Args:
        network: prepared, with its weights.
        model: the file it was read from.
        calibration: ``kit.calibration.Calibration`` of that model.
        nodes: names of the nodes that become INT8.
        recipe: how INT8 is written.
        probes: feeds and float outputs to judge by.
        seconds: no tensor is begun after so many; the single methods are compared in any case.
        report: hears the progress.

    Raises:
        BadInput: there are no probes.
        UnsupportedModel: the model holds more than 2 GB of weights.
    """
    if not probes:
        raise BadInput("There are no samples to choose ranges by: the calibration kept none.",
                       remedy="calibrate with probes=8, or choose another range method")
    deadline = time.monotonic() + seconds
    choices = {label(*which): calibration.ranges(which[0], percentile=which[1]) for which in CANDIDATES}
    with Simulated(network, model, choices["minmax"], nodes, recipe) as simulated:
        error = OutputError(probes)
        whole = {}
        for at, (name, ranges) in enumerate(choices.items()):
            report(Tick(at, len(choices), f"ranges by {name}"))
            whole[name] = error(functools.partial(simulated, ranges=ranges), min(whole.values(), default=math.inf))
        best = min(whole, key=whole.get)  # type: ignore[arg-type]
        search = _Search(simulated, error, choices, dict.fromkeys(choices[best], best), whole[best])
        order = search.order(OutputError(probes[:_FIRST_LOOK]), deadline)
        for at, tensor in enumerate(order):
            report(Tick(at, len(order), "ranges tensor by tensor"))
            if time.monotonic() > deadline:
                break
            search.improve(tensor)
        report(Tick(len(order), len(order), "ranges tensor by tensor"))
    return Tuned(search.ranges, search.methods, decibels(whole[best]), decibels(search.share), search.tried)


class _Search:
    """The choice so far, and how it gets better."""

    def __init__(self, simulated: Simulated, error: OutputError, choices: Mapping[str, Mapping[str, Range]],
                 methods: dict[str, str], share: float) -> None:
        self._simulated, self._error, self._choices = simulated, error, choices
        self.methods, self.share, self.tried = methods, share, 0
        self.ranges = {tensor: choices[method][tensor] for tensor, method in methods.items()}

    def order(self, error: OutputError, deadline: float) -> list[str]:
        """The tensors by what rounding each alone costs the output, dearest first; those not reached in time last."""
        costs = {}
        for tensor in dict.fromkeys(self._simulated.sources.values()):
            late = time.monotonic() > deadline
            costs[tensor] = 0.0 if late else self._alone(tensor, self.ranges[tensor], error=error)
        return sorted(costs, key=lambda tensor: -costs[tensor])

    def improve(self, tensor: str) -> None:
        """Try the other methods' ranges for one tensor, and keep the best that helps."""
        now = self.ranges[tensor]
        others: dict[Range, str] = {}
        for method, ranges in self._choices.items():
            if ranges[tensor] != now:
                others.setdefault(ranges[tensor], method)
        if not others:
            return
        limit, better = self._alone(tensor, now), {}
        for span in others:
            self.tried += 1
            cost = self._alone(tensor, span, limit)
            if cost < limit:
                better[span] = cost
        for span in sorted(better, key=lambda span: better[span]):
            share = self._error(functools.partial(self._simulated, ranges={**self.ranges, tensor: span}), self.share)
            if share < self.share:
                self.share, self.ranges[tensor], self.methods[tensor] = share, span, others[span]
                return

    def _alone(self, tensor: str, span: Range, limit: float = math.inf, error: OutputError | None = None) -> float:
        """The output's error with nothing but this tensor rounded."""
        sources = self._simulated.sources
        off = frozenset(name for name in self._simulated.readers if sources.get(name) != tensor)
        return (error or self._error)(functools.partial(self._simulated, ranges={tensor: span}, off=off), limit)
