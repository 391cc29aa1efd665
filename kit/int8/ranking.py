"""What to keep in float: round one layer or one tensor at a time, or all but it, and look at the model's output.

All trials are runs of one session (``kit.int8.simulated``). Where there is a metric of the task, the dearest are
confirmed by it, on INT8 models as they would be shipped.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.calibration import Calibration, check_samples, model_of, short_name
from kit.card import Card, Table
from kit.errors import BadInput
from kit.int8 import qdq
from kit.int8.noise import OutputError, decibels
from kit.int8.preparing import prepare
from kit.int8.quantizable import MOVERS, Network
from kit.int8.simulated import Place, Simulated
from kit.int8.suppression import network_before, probes_before
from kit.model import Model, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.quantization import QuantizeOptions, plan, recipe_for
from kit.record import Provenance, run_stage
from kit.runner import open_runner

VERSION = 3
Metric = Callable[[Any], float]


@dataclass(frozen=True)
class SensitivityOptions(Options):
    """How to rank layers or tensors; the settings of INT8 are those of ``QuantizeOptions``."""

    direction: Annotated[
        Literal["alone", "spared"],
        Help("alone: only this one is INT8; spared: all but this one are"),
    ] = "alone"
    by: Annotated[
        Literal["layer", "tensor"],
        Help("layer: a node with weights and what follows it; tensor: every activation and all weights of a node"),
    ] = "layer"
    confirm: Annotated[int, Range(0, 200), Help("so many of the dearest are confirmed by the metric")] = 0
    seconds: Annotated[int, Range(5, 3600), Help("stop after so many seconds; what was not reached is said")] = 120
    samples: Annotated[int, Range(1, 32), Help("samples run for each trial")] = 4
    method: Annotated[Literal["minmax", "percentile", "mse", "entropy"], Help("how ranges are chosen")] = "percentile"
    percentile: Annotated[float, Range(90, 100, 0.001), Help("percent of values kept (percentile)")] = 99.99
    per_channel: Annotated[bool, Help("one scale for each output channel of the weights")] = True
    activation_type: Annotated[Literal["auto", "uint8", "int8"], Help("how activations are stored")] = "auto"
    reduce_range: Annotated[Literal["auto", "yes", "no"], Help("weights of 7 bits")] = "auto"
    keep_float: Annotated[tuple[str, ...], Help("names of nodes that stay in float anyway")] = ()
    keep_float_types: Annotated[tuple[str, ...], Help("operator types that stay in float anyway")] = ()
    quantize_types: Annotated[tuple[str, ...], Help("operator types that become INT8; empty for the default")] = ()

    def settings(self) -> QuantizeOptions:
        """The same as options of ``quantize``."""
        return QuantizeOptions(
            method=self.method, percentile=self.percentile, per_channel=self.per_channel,
            activation_type=self.activation_type, reduce_range=self.reduce_range, keep_float=self.keep_float,
            keep_float_types=self.keep_float_types, quantize_types=self.quantize_types)


@dataclass(frozen=True)
class GroupSensitivity:
    """What one layer costs (a node with weights and the INT8 nodes that follow it), or one tensor.

    Attributes:
        name: of the layer's first node, or of the tensor.
        operator: type of the first node, or of the node that makes the tensor; "weights" for a constant.
        nodes: names of all the layer's nodes; of a tensor, those that must stay in float for it not to be rounded.
        sqnr: of the model's output in this trial, dB.
        noise: noise that it adds, as a share of the output's power: 0.01 is 20 dB.
        metric: of the task, larger is better; None where it was not confirmed.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    sqnr: float
    noise: float
    metric: float | None = None


@dataclass(frozen=True)
class Sensitivity(Card):
    """Layers or tensors by what they cost the model's output, dearest first.

    Attributes:
        groups: those that were tried, dearest first.
        untried: names of those that the time did not allow.
        sqnr: of the output with everything in INT8, dB.
        samples: how many were run for each trial.
        direction: see ``SensitivityOptions``.
        float_model: digest of the model.
        seconds: spent on the trials.
        by: see ``SensitivityOptions``.
        metric_float: the metric of the float model; None without a metric.
        metric_int8: with everything in INT8.
    """

    groups: tuple[GroupSensitivity, ...] = field(repr=False)
    untried: tuple[str, ...]
    sqnr: float
    samples: int
    direction: str
    float_model: str
    seconds: float
    by: str = "layer"
    metric_float: float | None = None
    metric_int8: float | None = None
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        if not self.groups:
            return f"No {self.by} was tried in the time given"
        worst = self.groups[0]
        total = sum(group.noise for group in self.groups)
        share = worst.noise / total if total else 0.0
        return f"{worst.operator} {worst.name!r} makes {share:.0%} of the noise of {len(self.groups)} {self.by}s"

    def facts(self) -> dict[str, object]:
        total, running, needed = sum(group.noise for group in self.groups), 0.0, 0
        for group in self.groups:
            if running >= 0.8 * total:
                break
            running, needed = running + group.noise, needed + 1
        metric = {} if self.metric_float is None else {
            "metric": f"{self.metric_float:.4g} in float, {self.metric_int8:.4g} with all in INT8"}
        return {
            "output with all in INT8": f"{self.sqnr:.1f} dB",
            "80% of the noise": f"comes from {needed} of {len(self.groups)} {self.by}s",
            **metric,
            "samples": self.samples,
            **({"not tried": f"{len(self.untried)} {self.by}s, for lack of time"} if self.untried else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        total = sum(group.noise for group in self.groups) or 1.0
        columns = (self.by, "operator", "nodes", "output, dB", "share of noise", "metric")
        width = 6 if any(group.metric is not None for group in self.groups) else 5
        rows = tuple((g.name, g.operator, len(g.nodes), f"{g.sqnr:.1f}", f"{g.noise / total:.1%}",
                      "-" if g.metric is None else f"{g.metric:.4g}")[:width] for g in self.groups)
        asked = f"only this {self.by} INT8" if self.direction == "alone" else f"all but this {self.by} INT8"
        return (Table(f"Output when {asked}, dearest first", columns[:width], rows),)


def sensitivity(
    model: Any,
    calibration: Calibration,
    samples: Sequence[Mapping[str, np.ndarray]] | None = None,
    options: SensitivityOptions = SensitivityOptions(),
    *,
    metric: Metric | None = None,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Sensitivity:
    """Rank layers or tensors by the output error when only that one is INT8 (or all but it).

    Args:
        model: the float model.
        calibration: of that model.
        samples: feeds to run; None for the probe samples kept by calibration.
        options: see there.
        metric: takes an open runner and gives a number, larger is better; a function of a module or a frozen
            dataclass that can be called, such as ``kit.evidence.scoring.TaskScore``. The dearest ``options.confirm``
            are confirmed by it on written INT8 models: of a layer, with only its nodes in INT8 (or all but them); of a
            tensor likewise, with the nodes that make and read it.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        StaleResult: the calibration is of another model.
        BadInput: no samples at all, unknown names, a metric without ``confirm`` or the other way round.
        UnsupportedModel: the model holds more than 2 GB of weights.
    """
    expect(SensitivityOptions, options)
    _check_metric(metric, options)
    model = model_of(model)
    calibration.check(model)
    if samples is None and calibration.probe is None:
        raise BadInput("There are no samples to rank by: the calibration kept none.",
                       remedy="pass samples, or calibrate with probes=8")
    if samples is not None:
        check_samples(samples)
        samples = samples[: options.samples]
    network = Network(prepare(read(model.path), model.path.name), model.path.name)
    settings = options.settings()
    why = plan(network, calibration, settings)
    recipe, reason = recipe_for(settings)

    def work(folder: Path, report: Report) -> Sensitivity:
        probes = list(calibration.probes())[: options.samples] if samples is None else _probes(model, samples)
        judged, probes = network_before(network, model), probes_before(network, model, probes)
        nodes = [name for name, reason_ in why.items() if not reason_]
        ranges = calibration.ranges(options.method, percentile=options.percentile)
        trials = _Trials(network, judged, model, ranges, nodes, recipe, options)
        return trials.confirmed(trials.ranked(probes, report), metric, folder, report)

    inputs = {"model": model, "calibration": calibration.statistics, "recipe": recipe, "reason": reason,
              "samples": samples if samples is not None else calibration.probe, "metric": metric}
    return run_stage("sensitivity", Sensitivity, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def suggest_float(ranking: Sensitivity, *, target: float | None = None, share: float = 0.8,
                  groups: int | None = None) -> tuple[str, ...]:
    """Names of the nodes to keep in float, for ``QuantizeOptions.keep_float``.

    The noise of layers is taken to add up, which holds roughly; quantize and verify tell how it came out. Of a tensor,
    the node that makes it and those that read it are named.

    Args:
        ranking: what ``sensitivity`` found, direction ``alone``.
        target: keep the dearest in float until the output should reach so many dB.
        share: without a target: until this share of the noise is gone.
        groups: instead of both: so many layers or tensors.

    Raises:
        BadInput: the ranking is of the other direction.
    """
    if ranking.direction != "alone":
        raise BadInput("Nodes can only be suggested from a ranking of groups alone.",
                       remedy="call sensitivity with direction='alone'")
    total = sum(group.noise for group in ranking.groups)
    left, chosen = total, []
    for at, group in enumerate(ranking.groups):
        if groups is not None:
            enough = at >= groups
        elif target is not None:
            enough = decibels(left) >= target
        else:
            enough = left <= (1 - share) * total
        if enough:
            break
        chosen += group.nodes
        left -= group.noise
    return tuple(dict.fromkeys(chosen))


def _check_metric(metric: Metric | None, options: SensitivityOptions) -> None:
    if metric is None and options.confirm:
        raise BadInput(f"confirm={options.confirm}, but there is no metric to confirm by.",
                       remedy="give metric=..., or confirm=0")
    if metric is not None and not options.confirm:
        raise BadInput("There is a metric, but confirm=0: it would confirm nothing.",
                       remedy="say how many of the dearest it shall confirm: SensitivityOptions(confirm=5)")
    if "<" in getattr(metric, "__qualname__", ""):
        raise BadInput("The metric is a function inside another one; a stored result could not tell it from another.",
                       remedy="define it at the top of a module, or as a frozen dataclass with __call__")


@dataclass(frozen=True)
class _Candidate:
    """A layer or tensor to be tried: what it is, and what is not rounded in its trial."""

    name: str
    operator: str
    nodes: tuple[str, ...]
    off: frozenset[str | Place]


@dataclass
class _Trials:
    """The trials of one ranking."""

    network: Network
    judged: Network  # the same with the outputs whose error is looked at
    model: Model
    ranges: Mapping[str, tuple[float, float]]
    nodes: Sequence[str]
    recipe: qdq.Recipe
    options: SensitivityOptions
    began: float = field(default_factory=lambda: time.monotonic())

    def late(self) -> bool:
        return time.monotonic() - self.began > self.options.seconds

    def ranked(self, probes: list[tuple[dict, dict]], report: Report) -> Sensitivity:
        """Every layer or tensor by the error at the output, within the time given."""
        error = OutputError(probes)
        report(Tick(0, 1, "trying all in INT8"))
        found, untried = [], []
        with Simulated(self.judged, self.model, self.ranges, self.nodes, self.recipe) as simulated:
            everything = decibels(error(simulated))
            candidates = list(self._layers(simulated) if self.options.by == "layer" else self._tensors(simulated))
            for at, one in enumerate(candidates):
                if self.late():
                    untried.append(one.name)
                    continue
                report(Tick(at + 1, len(candidates) + 1, f"trying {self.options.by}s"))
                sqnr = decibels(error(functools.partial(simulated, off=one.off)))
                noise = 10 ** (-sqnr / 10)
                if self.options.direction == "spared":
                    noise = max(0.0, 10 ** (-everything / 10) - noise)
                found.append(GroupSensitivity(one.name, one.operator, one.nodes, sqnr, noise))
        report(Tick(len(candidates) + 1, len(candidates) + 1, f"trying {self.options.by}s"))
        # By what is left, not by the noise, of which there may be none: then too the order says something.
        found.sort(key=lambda group: group.sqnr if self.options.direction == "alone" else -group.sqnr)
        return Sensitivity(tuple(found), tuple(untried), everything, len(probes), self.options.direction,
                           self.model.digest(), round(time.monotonic() - self.began, 3), self.options.by)

    def confirmed(self, ranking: Sensitivity, metric: Metric | None, folder: Path, report: Report) -> Sensitivity:
        """The ranking with the metric of the dearest, measured on INT8 models as they would be shipped."""
        if metric is None:
            return ranking
        groups = list(ranking.groups)
        count = min(self.options.confirm, len(groups))
        report(Tick(0, count + 2, "confirming"))
        with open_runner(self.model) as runner:
            in_float = float(metric(runner))
        in_int8 = self._metric_of(self.nodes, metric, folder)
        for at, group in enumerate(groups[:count]):
            if self.late():
                break
            report(Tick(at + 2, count + 2, "confirming"))
            groups[at] = replace(group, metric=self._metric_of(self._chosen(group.nodes), metric, folder))
        report(Tick(count + 2, count + 2, "confirming"))
        return replace(ranking, groups=tuple(groups), metric_float=in_float, metric_int8=in_int8,
                       seconds=round(time.monotonic() - self.began, 3))

    def _chosen(self, nodes: Collection[str]) -> list[str]:
        """The nodes that are INT8 in the trial of ``nodes``, in the order of the graph."""
        return [name for name in self.nodes if (name in nodes) == (self.options.direction == "alone")]

    def _layers(self, simulated: Simulated) -> Iterator[_Candidate]:
        for group in self.network.groups(self.nodes):
            first = self.network.by_name[group[0]]
            if self.network.weights(first):
                yield _Candidate(group[0], first.op_type, group, simulated.without(self._chosen(group)))

    def _tensors(self, simulated: Simulated) -> Iterator[_Candidate]:
        for name, readers in simulated.readers.items():
            maker = self.network.producers.get(name)
            around = dict.fromkeys([*self._makers(maker), *readers])
            kind = "weights" if name in self.network.constants else maker.op_type if maker is not None else "input"
            others = frozenset(other for other in simulated.readers if other != name)
            yield _Candidate(name, kind, tuple(node for node in around if node in set(self.nodes)),
                             others if self.options.direction == "alone" else frozenset([name]))

    def _makers(self, node: Any) -> Iterator[str]:
        """The node that makes a tensor, and those before it that would round the same values: a Conv before a ReLU."""
        while node is not None:
            yield node.name
            passes_on = node.op_type in ("Relu", "Clip", *MOVERS)
            node = self.network.producers.get(node.input[0]) if passes_on else None

    def _metric_of(self, nodes: Sequence[str], metric: Metric, folder: Path) -> float:
        path = folder / "trial.onnx"
        try:
            qdq.skeleton(self.network, self.ranges, nodes, self.recipe).save(path)
            with open_runner(path if nodes else self.model) as runner:
                return float(metric(runner))
        finally:
            for leftover in folder.glob("trial.onnx*"):
                leftover.unlink()


def _probes(model: Model, samples: Sequence) -> list[tuple[dict, dict]]:
    with open_runner(model) as runner:
        return [(dict(feeds), runner(feeds)) for feeds in samples]
