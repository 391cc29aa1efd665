"""Make a model smaller and faster: INT8 with ranges that calibration has measured, and other lower precisions.

INT8 is written in the standard QDQ form of ONNX; the other precisions live in ``kit.precisions``. What each node
became, and why, is part of the result; a setting that could not be followed is an error or a reason, never silence.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.calibration import Calibration, model_of, short_name
from kit.errors import BadInput
from kit.int8 import qdq
from kit.int8.choosing import Chooser, overrules
from kit.int8.integer_kernels import why_not_faster
from kit.int8.processor import byte_types, this_processor
from kit.int8.qdq_read import QDQ
from kit.int8.quantizable import KNOWN_TYPES, LAYOUTS, WEIGHTED, Network
from kit.int8.result import BiasCorrection, NodeSetting, Quantized, Trial
from kit.model import Model, read
from kit.options import Help, Options, Range, expect, fields
from kit.progress import Report, Tick, silent
from kit.record import run_stage
from kit.weights_file import weights_bytes

__all__ = ["BiasCorrection", "NodeSetting", "QuantizeOptions", "Quantized", "Trial", "quantize", "why_not_faster"]

VERSION = 6
_PRECISIONS = {"int8-weights": "weight_only", "int4-weights": "weight_only", "fp16": "half", "dynamic": "dynamic"}
# Options that not every precision follows, each with those that do.
_FOLLOWED_BY = {
    **dict.fromkeys(("method", "percentile", "tensor_methods", "activation_type", "weight_type", "bias_correction",
                     "float_weights"), ("int8",)),
    "int8_weights": ("int8", "int8-weights"),
    **dict.fromkeys(("per_channel", "reduce_range"), ("int8", "dynamic")),
    "quantize_types": ("int8", "int8-weights", "int4-weights", "dynamic"),
    "block": ("int8-weights", "int4-weights"),
}


@dataclass(frozen=True)
class QuantizeOptions(Options):
    """What is stored and computed with fewer bits, and how."""

    precision: Annotated[
        Literal["int8", "int8-weights", "int4-weights", "fp16", "dynamic"],
        Help("int8: weights and activations, needs a calibration; int8-weights, int4-weights: weights only; fp16: "
             "half precision; dynamic: activations are measured while the model runs"),
    ] = "int8"
    method: Annotated[
        Literal["auto", "minmax", "percentile", "mse", "entropy", "tensor"],
        Help("how ranges are chosen; auto tries them and keeps the one whose output is nearest to float; tensor "
             "also chooses for every tensor by itself, which takes longer"),
    ] = "auto"
    percentile: Annotated[float, Range(90, 100, 0.001), Help("percent of values kept (percentile)")] = 99.99
    tensor_methods: Annotated[
        tuple[str, ...],
        Help("other methods for single tensors, such as 'conv1_out=minmax'; kit.ui.ranges helps to choose them"),
    ] = ()
    per_channel: Annotated[bool, Help("one scale for each output channel of the weights")] = True
    runtime: Annotated[
        Literal["onnxruntime", "openvino"],
        Help("which runtime it is for: which operators are worth INT8 differs"),
    ] = "onnxruntime"
    activation_type: Annotated[
        Literal["auto", "uint8", "int8"], Help("how activations are stored; auto follows the processor")
    ] = "auto"
    weight_type: Annotated[
        Literal["auto", "int8", "uint8"], Help("how weights are stored; auto follows the processor")
    ] = "auto"
    reduce_range: Annotated[
        Literal["auto", "yes", "no"], Help("weights of 7 bits, for processors whose multiply-add of bytes overflows")
    ] = "auto"
    bias_correction: Annotated[
        Literal["auto", "yes", "no"],
        Help("take the mean shift that rounded weights cause off the bias; auto keeps it only where the output on the "
             "probe samples is not worse"),
    ] = "auto"
    block: Annotated[int, Range(32, 128, 32), Help("inputs that share a scale (weights only)")] = 32
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
    int8_weights: Annotated[
        tuple[str, ...],
        Help("names of nodes that stay in float and store their weights as int8 even so; with weights only: those of "
             "convolutions, which have no other form"),
    ] = ()

    def spares(self, node: Any) -> str:
        """Why these options leave a node (``onnx.NodeProto``) as it is; "" when they do not."""
        if node.name in self.keep_float:
            return "asked for by name"
        if node.op_type in self.keep_float_types:
            return "asked for by type"
        return "not among quantize_types" if self.quantize_types and node.op_type not in self.quantize_types else ""


def quantize(
    model: Any,
    calibration: Calibration | None = None,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Quantized:
    """Write a version of a float model that stores and computes with fewer bits.

    Args:
        model: the float model, or a result that carries it.
        calibration: what its tensors hold; needed for ``precision="int8"`` only.
        options: see there.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        StaleResult: the calibration is of another model.
        BadInput: no calibration for INT8, an option that the precision does not follow, an unknown node name or
            operator type, nothing left to make INT8, or types of bytes that the runtime cannot multiply.
        ToolFailed: ONNX Runtime's quantizer refuses.
    """
    expect(QuantizeOptions, options)
    _check_followed(options)
    model = model_of(model)
    if calibration is not None:
        calibration.check(model)
    if options.precision != "int8":
        return _other_precision(model, calibration, options, runs, report)
    if calibration is None:
        raise BadInput("INT8 needs to know what the tensors of the model hold, and there is no calibration.",
                       remedy="run kit.calibrate(model, samples) first; or choose precision='int8-weights' or "
                       "'dynamic', which need none")
    network = Network.of(model.path)
    why = plan(network, calibration, options)  # before the stage, so that a wrong name is told at once
    recipe, reason = recipe_for(options)
    overrules(options.tensor_methods, calibration)

    def work(folder: Path, report: Report) -> Quantized:
        return _quantize(model, calibration, options, network, why, recipe, reason, folder, report)

    inputs = {"model": model, "calibration": calibration.statistics, "probe": calibration.probe or "",
              "recipe": recipe, "reason": reason}
    return run_stage("quantize", Quantized, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def _check_followed(options: QuantizeOptions) -> None:
    """Refuse what was set and would have no effect on this precision."""
    for field in fields(QuantizeOptions):
        takers = _FOLLOWED_BY.get(field.name, (options.precision,))
        value = getattr(options, field.name)
        if options.precision not in takers and value != field.default:
            raise BadInput(f"{field.name}={value!r} has no effect with precision={options.precision!r}.",
                           remedy=f"leave {field.name} out, or choose precision=" + " or ".join(map(repr, takers)))


def _other_precision(model: Model, calibration: Calibration | None, options: QuantizeOptions,
                     runs: Path | str | None, report: Report) -> Quantized:
    """The stage for precisions without QDQ nodes: ``kit.precisions`` writes, this describes."""
    # What stays in float of an INT8 model can still be stored in few bits.
    network = Network.of(model.path, quantized=options.precision.endswith("-weights"))
    network.check_names(options.keep_float)
    network.check_types(options.keep_float_types)
    writer = importlib.import_module(f"kit.precisions.{_PRECISIONS[options.precision]}")

    def work(folder: Path, report: Report) -> Quantized:
        written = writer.write(model, folder, options, calibration, report)
        made = model.derived(written.path, "quantize", options.precision)
        after = read(made.path, weights=False)
        nodes = tuple(
            NodeSetting(node.name, node.op_type, *written.nodes.get(node.name, ("float", "")),
                        _weight_bytes(network, node), _asked(node, options))
            for node in network.nodes if node.op_type not in QDQ)
        return Quantized(
            model=made, method="", activation_type="float16" if options.precision == "fp16" else "float32", reason="",
            per_channel=options.per_channel, reduce_range=False, nodes=nodes, trials=(), sqnr=None,
            size_before=model.size, size_after=made.size, weights_before=weights_bytes(network.proto),
            weights_after=weights_bytes(after), float_model=model.digest(), notes=tuple(written.notes),
            precision=options.precision, runtime=options.runtime, weight_type=options.precision)

    inputs = {"model": model, **({"calibration": calibration.statistics} if calibration else {})}
    return run_stage("quantize", Quantized, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def recipe_for(options: QuantizeOptions) -> tuple[qdq.Recipe, str]:
    """Types and scales for this processor and these options, and the reason in words."""
    types = byte_types(this_processor(), options.activation_type, options.reduce_range, options.weight_type,
                       options.runtime)
    stored = options.float_weights == "int8" or options.int8_weights
    return qdq.Recipe(types.activation, options.per_channel, types.reduce_range, stored, types.weight,
                      options.runtime), types.reason


def plan(network: Network, calibration: Calibration, options: QuantizeOptions) -> dict[str, str]:
    """For every node, why it stays in float; "" for those to be made INT8.

    Raises:
        BadInput: an unknown node name or operator type, or nothing left to make INT8.
    """
    network.check_names((*options.keep_float, *options.int8_weights))
    network.check_types(options.keep_float_types)
    network.check_types(options.quantize_types, KNOWN_TYPES)
    silent_tensors = {t.name for t in calibration.tensors if not t.elements}
    known = {t.name for t in calibration.tensors}
    why = {}
    for node in network.nodes:
        reason = network.obstacle(node) or options.spares(node)
        if not options.quantize_types:
            reason = reason or network.reluctance(node, options.runtime, bf16=this_processor().bf16)
        tensors = [network.same_range.get(name, name) for name in (*node.input, *node.output) if name in network.floats]
        if not reason and any(name in silent_tensors or name not in known for name in tensors):
            reason = "calibration saw no values there"
        why[node.name] = reason
    if not options.quantize_types and LAYOUTS[options.runtime].round_outputs:
        for name in network.stranded({name for name, reason in why.items() if not reason}):
            why[name] = "a neighbour is float: INT8 would add two conversions and gain nothing"
    if not any(not reason and network.by_name[name].op_type in WEIGHTED for name, reason in why.items()):
        raise BadInput(f"Nothing in {network.name} would become INT8: every node with weights is kept in float.",
                       remedy="keep fewer nodes in float, or name Conv, Gemm or MatMul in quantize_types",
                       detail="\n".join(f"{name}: {reason}" for name, reason in why.items()))
    return why


def _quantize(model: Model, calibration: Calibration, options: QuantizeOptions, network: Network, why: dict[str, str],
              recipe: qdq.Recipe, reason: str, folder: Path, report: Report) -> Quantized:
    nodes = [name for name, reason_ in why.items() if not reason_]
    chooser = Chooser(network, model, calibration, nodes, recipe, folder, report,
                      overrules(options.tensor_methods, calibration))
    chosen = chooser.choose(options.method, options.percentile, options.bias_correction)
    report(Tick(1, 1, "writing"))
    path = folder / f"{short_name(model)}.int8.onnx"
    chosen.made.save(path)
    shown = model.derived(path, "quantize", f"INT8, ranges by {chosen.method}, {len(nodes)} nodes")
    return Quantized(
        model=shown, method=chosen.method, activation_type=recipe.activation, reason=reason,
        per_channel=recipe.per_channel, reduce_range=recipe.reduce_range,
        nodes=_settings(network, chosen.made.proto, why, options), trials=chosen.trials, sqnr=chosen.sqnr,
        size_before=model.size, size_after=shown.size, weights_before=weights_bytes(network.proto),
        weights_after=weights_bytes(chosen.made.proto), float_model=calibration.model, notes=chosen.notes,
        runtime=options.runtime, weight_type=recipe.weight, biases=chosen.biases, range_methods=chosen.range_methods)


def _settings(network: Network, made: Any, why: dict[str, str], options: QuantizeOptions) -> tuple[NodeSetting, ...]:
    now = qdq.effective(made, options.runtime)
    found = []
    for node in network.nodes:
        setting = now.get(node.name, "INT8")  # a ReLU that is gone is done by the rounding before it
        reason = why[node.name]
        if setting == "INT8" and reason:  # the same arithmetic, up to a rounding that follows anyway
            reason = f"{reason}; but bytes come in and go out, so {LAYOUTS[options.runtime].title} runs it on them" \
                if reason.startswith("asked") else ""
        if setting != "INT8" and not reason:
            reason = "a neighbour is float"
        if setting == "INT8" and options.per_channel:
            reason = reason or network.one_scale(node)
        found.append(NodeSetting(node.name, node.op_type, setting, reason, _weight_bytes(network, node),
                                 _asked(node, options)))
    return tuple(found)


def _asked(node: Any, options: QuantizeOptions) -> str:
    """What the options ask of a node by its name or type; "" when they leave it to the kit."""
    if node.name in options.keep_float or node.op_type in options.keep_float_types:
        return "float"
    return "INT8" if options.precision == "int8" and node.op_type in options.quantize_types else ""


def _weight_bytes(network: Network, node: Any) -> int:
    weights = network.constants.get(network.weights(node))
    return 4 * int(np.prod(weights.dims)) if weights is not None else 0
