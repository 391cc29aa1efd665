"""Which nodes to keep in float: quantize one group at a time and look at the model's output."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.calibration import Calibration, check_samples, model_of, short_name
from kit.card import Card, Table
from kit.errors import BadInput
from kit.int8 import qdq
from kit.int8.noise import decibels, output_sqnr
from kit.int8.quantizable import Network, prepare
from kit.model import Model, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.quantization import QuantizeOptions, plan, recipe_for
from kit.record import Provenance, run_stage
from kit.runner import open_runner

VERSION = 1


@dataclass(frozen=True)
class SensitivityOptions(Options):
    """How to rank the nodes; the settings of INT8 are those of ``QuantizeOptions``."""

    direction: Annotated[
        Literal["alone", "spared"],
        Help("alone: only this group is INT8; spared: all but this group are"),
    ] = "alone"
    seconds: Annotated[int, Range(5, 3600), Help("stop after so many seconds; groups not reached are said")] = 120
    samples: Annotated[int, Range(1, 32), Help("samples run for each group")] = 4
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
    """What one group of nodes costs: a node with weights and the INT8 nodes that follow it.

    Attributes:
        name: of its first node.
        operator: type of the first node.
        nodes: names of all its nodes.
        sqnr: of the model's output in this trial, dB.
        noise: noise that the group adds, as a share of the output's power: 0.01 is 20 dB.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    sqnr: float
    noise: float


@dataclass(frozen=True)
class Sensitivity(Card):
    """Groups of nodes by what they cost the model's output, dearest first.

    Attributes:
        groups: those that were tried, dearest first.
        untried: names of the groups that the time did not allow.
        sqnr: of the output with every group in INT8, dB.
        samples: how many were run for each trial.
        direction: see ``SensitivityOptions``.
        float_model: digest of the model.
        seconds: spent on the trials.
    """

    groups: tuple[GroupSensitivity, ...] = field(repr=False)
    untried: tuple[str, ...]
    sqnr: float
    samples: int
    direction: str
    float_model: str
    seconds: float
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        if not self.groups:
            return "No group was tried in the time given"
        worst = self.groups[0]
        total = sum(group.noise for group in self.groups)
        share = worst.noise / total if total else 0.0
        return f"{worst.operator} {worst.name!r} makes {share:.0%} of the noise of {len(self.groups)} groups"

    def facts(self) -> dict[str, object]:
        total, running, needed = sum(group.noise for group in self.groups), 0.0, 0
        for group in self.groups:
            if running >= 0.8 * total:
                break
            running, needed = running + group.noise, needed + 1
        return {
            "output with all in INT8": f"{self.sqnr:.1f} dB",
            "80% of the noise": f"comes from {needed} of {len(self.groups)} groups",
            "samples": self.samples,
            **({"not tried": f"{len(self.untried)} groups, for lack of time"} if self.untried else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        total = sum(group.noise for group in self.groups) or 1.0
        rows = tuple((g.name, g.operator, len(g.nodes), f"{g.sqnr:.1f}", f"{g.noise / total:.1%}") for g in self.groups)
        asked = "only this group INT8" if self.direction == "alone" else "all but this group INT8"
        return (Table(f"Output when {asked}, dearest first",
                      ("group", "operator", "nodes", "output, dB", "share of noise"), rows),)


def sensitivity(
    model: Any,
    calibration: Calibration,
    samples: Sequence[Mapping[str, np.ndarray]] | None = None,
    options: SensitivityOptions = SensitivityOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Sensitivity:
    """Rank groups of nodes by the output error when only that group is INT8 (or all but it).

    Args:
        model: the float model.
        calibration: of that model.
        samples: feeds to run; None for the probe samples kept by calibration.
        options: see there.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        StaleResult: the calibration is of another model.
        BadInput: no samples at all, unknown names.
    """
    expect(SensitivityOptions, options)
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
        nodes = [name for name, reason_ in why.items() if not reason_]
        return _rank(network, calibration, nodes, recipe, probes, options, folder, report)

    inputs = {"model": model, "calibration": calibration.statistics, "recipe": recipe, "reason": reason,
              "samples": samples if samples is not None else calibration.probe}
    return run_stage("sensitivity", Sensitivity, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def suggest_float(ranking: Sensitivity, *, target: float | None = None, share: float = 0.8,
                  groups: int | None = None) -> tuple[str, ...]:
    """Names of the nodes to keep in float, for ``QuantizeOptions.keep_float``.

    The noise of groups is taken to add up, which holds roughly; quantize and verify tell how it came out.

    Args:
        ranking: what ``sensitivity`` found, direction ``alone``.
        target: keep the dearest groups in float until the output should reach so many dB.
        share: without a target: until this share of the noise is gone.
        groups: instead of both: so many groups.

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
    return tuple(chosen)


def _rank(network: Network, calibration: Calibration, nodes: list[str], recipe: qdq.Recipe,
          probes: list[tuple[dict, dict]], options: SensitivityOptions, folder: Path, report: Report) -> Sensitivity:
    began = time.monotonic()
    ranges = calibration.ranges(options.method, percentile=options.percentile)
    groups = [group for group in network.groups(nodes) if network.weights(network.by_name[group[0]])]
    report(Tick(0, len(groups) + 1, "trying all in INT8"))
    everything = output_sqnr(qdq.write(network, ranges, nodes, recipe), probes, folder)
    found, untried = [], []
    for at, group in enumerate(groups):
        if time.monotonic() - began > options.seconds:
            untried.append(group[0])
            continue
        report(Tick(at + 1, len(groups) + 1, "trying groups"))
        chosen = group if options.direction == "alone" else [name for name in nodes if name not in set(group)]
        sqnr = output_sqnr(qdq.write(network, ranges, chosen, recipe), probes, folder) if chosen else 200.0
        noise = 10 ** (-sqnr / 10)
        if options.direction == "spared":
            noise = max(0.0, 10 ** (-everything / 10) - noise)
        found.append(GroupSensitivity(group[0], network.by_name[group[0]].op_type, tuple(group), sqnr, noise))
    report(Tick(len(groups) + 1, len(groups) + 1, "trying groups"))
    found.sort(key=lambda group: -group.noise)
    return Sensitivity(tuple(found), tuple(untried), everything, len(probes), options.direction, calibration.model,
                       round(time.monotonic() - began, 3))


def _probes(model: Model, samples: Sequence) -> list[tuple[dict, dict]]:
    with open_runner(model) as runner:
        return [(dict(feeds), runner(feeds)) for feeds in samples]
