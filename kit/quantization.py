"""Make a model INT8: weights to int8, activations to bytes whose ranges calibration has measured.

The result is the standard QDQ form of ONNX. What each node became, and why, is part of the result; a setting that
could not be followed is an error or a reason, never silence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.calibration import Calibration, model_of, short_name
from kit.card import Card, Table, bytes_text
from kit.errors import BadInput
from kit.int8 import qdq
from kit.int8.integer_kernels import why_not_faster
from kit.int8.noise import output_sqnr
from kit.int8.processor import byte_types, this_processor
from kit.int8.quantizable import KNOWN_TYPES, WEIGHTED, Network, prepare
from kit.model import Model, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.record import Provenance, run_stage

__all__ = ["NodeSetting", "QuantizeOptions", "Quantized", "Trial", "quantize", "why_not_faster"]

VERSION = 1
#: What ``method="auto"`` tries: method and percentile.
CANDIDATES = (("minmax", 100.0), ("percentile", 99.9), ("percentile", 99.99), ("percentile", 99.999), ("mse", 100.0),
              ("entropy", 100.0))


@dataclass(frozen=True)
class QuantizeOptions(Options):
    """What becomes INT8, and how."""

    method: Annotated[
        Literal["auto", "minmax", "percentile", "mse", "entropy"],
        Help("how ranges are chosen; auto tries them and keeps the one whose output is nearest to float"),
    ] = "auto"
    percentile: Annotated[float, Range(90, 100, 0.001), Help("percent of values kept (percentile)")] = 99.99
    per_channel: Annotated[bool, Help("one scale for each output channel of the weights")] = True
    activation_type: Annotated[
        Literal["auto", "uint8", "int8"], Help("how activations are stored; auto follows the processor")
    ] = "auto"
    reduce_range: Annotated[
        Literal["auto", "yes", "no"], Help("weights of 7 bits, for processors whose multiply-add of bytes overflows")
    ] = "auto"
    keep_float: Annotated[tuple[str, ...], Help("names of nodes that stay in float")] = ()
    keep_float_types: Annotated[tuple[str, ...], Help("operator types that stay in float")] = ()
    quantize_types: Annotated[
        tuple[str, ...], Help("operator types that become INT8; empty for those that gain by it")
    ] = ()
    float_weights: Annotated[
        Literal["float", "int8"],
        Help("how nodes that stay in float store their weights; int8 takes a quarter of the room, is rounded, and is "
             "unpacked on every run, which takes time"),
    ] = "float"


@dataclass(frozen=True)
class NodeSetting:
    """What became of one node.

    Attributes:
        node: its name.
        operator: its type.
        setting: ``INT8``, ``INT8 weights`` (computed in float) or ``float``, as the written file has it.
        why: the reason, where it stays in float or is not as asked for.
        weights: bytes of its weights in the float model.
    """

    node: str
    operator: str
    setting: str
    why: str
    weights: int


@dataclass(frozen=True)
class Trial:
    """One range method tried: signal-to-noise ratio of the outputs against float, in dB, over the probe samples."""

    method: str
    sqnr: float


@dataclass(frozen=True)
class Quantized(Card):
    """An INT8 model and how it came about.

    Attributes:
        model: the QDQ model.
        method: how its ranges were chosen.
        activation_type: ``uint8`` or ``int8``.
        reason: why activations are stored so.
        per_channel: weights have a scale for each output channel.
        reduce_range: weights use 7 bits.
        nodes: what became of every node.
        trials: the range methods tried, best first; empty when one was asked for.
        sqnr: output signal-to-noise ratio against float on the probe samples, dB; None without probes.
        size_before: bytes of the float file.
        size_after: bytes of the INT8 file.
        weights_before: bytes of its constants.
        weights_after: bytes of the INT8 model's constants.
        float_model: digest of the float model.
        notes: sentences for the reader.
    """

    model: Model
    method: str
    activation_type: str
    reason: str
    per_channel: bool
    reduce_range: bool
    nodes: tuple[NodeSetting, ...] = field(repr=False)
    trials: tuple[Trial, ...]
    sqnr: float | None
    size_before: int
    size_after: int
    weights_before: int
    weights_after: int
    float_model: str
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    @property
    def ratio(self) -> float:
        """Size of the INT8 file over that of the float file."""
        return self.size_after / self.size_before

    @property
    def kept_float(self) -> tuple[str, ...]:
        """Names of the nodes that compute in float."""
        return tuple(node.node for node in self.nodes if node.setting != "INT8")

    def title(self) -> str:
        counts = Counter(node.setting for node in self.nodes)
        return (f"{counts['INT8']} of {len(self.nodes)} nodes are INT8; "
                f"{bytes_text(self.size_before)} became {bytes_text(self.size_after)} ({self.ratio:.2f})")

    def facts(self) -> dict[str, object]:
        weights = "one scale a channel" if self.per_channel else "one scale a tensor"
        return {
            "weights": f"int8, {weights}" + (", 7 bits" if self.reduce_range else ""),
            "activations": f"{self.activation_type}: {self.reason}",
            "ranges": self.method + (", best of those tried" if self.trials else ""),
            **({"output against float": f"{self.sqnr:.1f} dB"} if self.sqnr is not None else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        by_kind = Counter((n.operator, n.setting, n.why) for n in self.nodes)
        rows = tuple((count, *kind) for kind, count in sorted(by_kind.items(), key=lambda item: (item[0][1], -item[1])))
        found = [Table("What became of the nodes", ("nodes", "operator", "now", "why"), rows)]
        if self.trials:
            found.append(Table("Range methods tried", ("method", "output against float, dB"),
                               tuple((t.method, f"{t.sqnr:.2f}") for t in self.trials)))
        return tuple(found)


def quantize(
    model: Any,
    calibration: Calibration,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Quantized:
    """Write an INT8 version of a float model.

    Args:
        model: the float model that was calibrated, or a result that carries it.
        calibration: what its tensors hold.
        options: see there.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        StaleResult: the calibration is of another model.
        BadInput: an unknown node name or operator type, or nothing left to make INT8.
        ToolFailed: ONNX Runtime's quantizer refuses.
    """
    expect(QuantizeOptions, options)
    model = model_of(model)
    calibration.check(model)
    network = Network(prepare(read(model.path), model.path.name), model.path.name)
    why = plan(network, calibration, options)  # before the stage, so that a wrong name is told at once
    recipe, reason = recipe_for(options)

    def work(folder: Path, report: Report) -> Quantized:
        return _quantize(model, calibration, options, network, why, recipe, reason, folder, report)

    inputs = {"model": model, "calibration": calibration.statistics, "probe": calibration.probe or "",
              "recipe": recipe, "reason": reason}
    return run_stage("quantize", Quantized, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def recipe_for(options: QuantizeOptions) -> tuple[qdq.Recipe, str]:
    """Types and scales for this processor and these options, and the reason in words."""
    types = byte_types(this_processor(), options.activation_type, options.reduce_range)
    return qdq.Recipe(types.activation, options.per_channel, types.reduce_range,
                      options.float_weights == "int8"), types.reason


def plan(network: Network, calibration: Calibration, options: QuantizeOptions) -> dict[str, str]:
    """For every node, why it stays in float; "" for those to be made INT8.

    Raises:
        BadInput: an unknown node name or operator type, or nothing left to make INT8.
    """
    network.check_names(options.keep_float)
    network.check_types(options.keep_float_types)
    network.check_types(options.quantize_types, KNOWN_TYPES)
    silent_tensors = {t.name for t in calibration.tensors if not t.elements}
    known = {t.name for t in calibration.tensors}
    why = {}
    for node in network.nodes:
        reason = network.obstacle(node)
        if node.name in options.keep_float:
            reason = reason or "asked for by name"
        if node.op_type in options.keep_float_types:
            reason = reason or "asked for by type"
        if options.quantize_types:
            reason = reason or ("" if node.op_type in options.quantize_types else "not among quantize_types")
        else:
            reason = reason or network.reluctance(node)
        tensors = [network.same_range.get(name, name) for name in (*node.input, *node.output) if name in network.floats]
        if not reason and any(name in silent_tensors or name not in known for name in tensors):
            reason = "calibration saw no values there"
        why[node.name] = reason
    if not options.quantize_types:
        for name in network.stranded({name for name, reason in why.items() if not reason}):
            why[name] = "a neighbour is float: INT8 would add two conversions and gain nothing"
    if not any(not reason and network.by_name[name].op_type in WEIGHTED for name, reason in why.items()):
        raise BadInput(f"Nothing in {network.name} would become INT8: every node with weights is kept in float.",
                       remedy="keep fewer nodes in float, or name Conv, Gemm or MatMul in quantize_types",
                       detail="\n".join(f"{name}: {reason}" for name, reason in why.items()))
    return why


def _quantize(model: Model, calibration: Calibration, options: QuantizeOptions, network: Network, why: dict[str, str],
              recipe: qdq.Recipe, reason: str, folder: Path, report: Report) -> Quantized:
    import onnx

    nodes = [name for name, reason_ in why.items() if not reason_]
    probes = list(calibration.probes())
    chosen: tuple[tuple[str, float], ...] = ((options.method, options.percentile),)
    if options.method == "auto":
        chosen = CANDIDATES if probes else (("mse", 100.0),)
    best, trials = None, []
    for at, (method, percentile) in enumerate(chosen):
        label = f"{method} {percentile:g}" if method == "percentile" else method
        report(Tick(at, len(chosen), f"ranges by {label}"))
        made = qdq.write(network, calibration.ranges(method, percentile=percentile), nodes, recipe)
        sqnr = output_sqnr(made, probes, folder) if probes else None
        trials.append(Trial(label, sqnr if sqnr is not None else 0.0))
        if best is None or (sqnr is not None and sqnr > best[2]):
            best = (made, label, sqnr)
    report(Tick(len(chosen), len(chosen), "writing"))
    made, method, sqnr = best
    path = folder / f"{short_name(model)}.int8.onnx"
    big = made.ByteSize() > 1_900_000_000
    onnx.save_model(made, str(path), save_as_external_data=big, location=path.name + ".data" if big else None)
    shown = model.derived(path, "quantize", f"INT8, ranges by {method}, {len(nodes)} nodes")
    notes = []
    if options.method == "auto" and not probes:
        notes.append("Without probe samples the methods could not be compared; mse was taken.")
    return Quantized(
        model=shown, method=method, activation_type=recipe.activation, reason=reason, per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range, nodes=_settings(network, made, why),
        trials=tuple(sorted(trials, key=lambda t: -t.sqnr)) if len(trials) > 1 else (), sqnr=sqnr,
        size_before=model.size, size_after=shown.size, weights_before=_constant_bytes(network.proto),
        weights_after=_constant_bytes(made), float_model=calibration.model, notes=tuple(notes))


def _settings(network: Network, made: Any, why: dict[str, str]) -> tuple[NodeSetting, ...]:
    now = qdq.effective(made)
    found = []
    for node in network.nodes:
        setting = now.get(node.name, "INT8")  # a ReLU that is gone is done by the rounding before it
        reason = why[node.name]
        if setting == "INT8" and reason:  # the same arithmetic, up to a rounding that follows anyway
            reason = f"{reason}; but bytes come in and go out, so ONNX Runtime runs it on them" \
                if reason.startswith("asked") else ""
        if setting != "INT8" and not reason:
            reason = "a neighbour is float"
        weights = network.constants.get(network.weights(node))
        found.append(NodeSetting(node.name, node.op_type, setting, reason, 4 * int(np.prod(weights.dims))
                                 if weights is not None else 0))
    return tuple(found)


def _constant_bytes(proto: Any) -> int:
    import onnx

    return sum(int(np.prod(t.dims)) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize
               for t in proto.graph.initializer)
