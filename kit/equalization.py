"""Make a float model easier for INT8 without changing its answers: move scales between its constants.

Two methods. ``cross-layer`` evens out the channels of neighbouring convolutions, for depthwise nets. ``smoothquant``
moves outlier channels of activations into the weights that read them, for attention. Both leave a float model whose
answers are compared with those of the one given; it is calibrated anew and quantized like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from kit.calibration import Calibration, check_samples, model_of, short_name
from kit.card import Card, Table
from kit.comparison import PARITY_COLUMNS, Parity, TensorParity, worst
from kit.equalizing import cross_layer, smoothquant
from kit.equalizing.rescaling import NotScaled, Rescaled, ScaledPair
from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.graph.feeds import that_run, total
from kit.int8.exposed import exposed
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.record import Provenance, run_stage
from kit.runner import open_runner
from kit.weights_file import Weights, read_light, save_streamed

VERSION = 1


@dataclass(frozen=True)
class EqualizeOptions(Options):
    """Which scales to move, and how to prove that the answers stay."""

    method: Annotated[
        Literal["cross-layer", "smoothquant"],
        Help("cross-layer: between convolutions, for depthwise nets; smoothquant: from activations into the weights "
             "that read them, for attention (needs a calibration)"),
    ] = "cross-layer"
    alpha: Annotated[
        float, Range(0, 1, 0.05), Help("smoothquant: how much of the difficulty moves into the weights")
    ] = 0.5
    insert: Annotated[
        bool, Help("smoothquant: add a Mul where nothing before a product can take its scales; it costs time")
    ] = False
    samples: Annotated[int, Range(1, 32), Help("so many samples, or made-up inputs, are compared")] = 4


@dataclass(frozen=True)
class Equalized(Card):
    """A float model with the same answers and evener channels. Calibrate ``model`` before it is quantized.

    Attributes:
        model: the new float model.
        method: as asked for.
        pairs: between which nodes scales were moved, and how uneven the channels were before and after.
        refused: every candidate that was left alone, with the reason.
        parity: new model against the old one, output by output.
        checked_on: what was fed, in words.
        float_model: digest of the model given.
    """

    model: Model
    method: str
    pairs: tuple[ScaledPair, ...]
    refused: tuple[NotScaled, ...]
    parity: tuple[TensorParity, ...]
    checked_on: str
    float_model: str
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        found = worst(self.parity)
        return (f"{self.model.path.name}: {len(self.pairs)} places evened out by {self.method}, "
                f"{len(self.refused)} left alone; answers within {found.relative:.1e}")

    def facts(self) -> dict[str, object]:
        most = max(self.pairs, key=lambda pair: pair.before)
        return {
            "most uneven before": f"{most.first!r}: its largest channel was {most.before:.0f} times its smallest, "
                                  f"now {most.after:.1f}",
            "compared on": self.checked_on,
            "next": "calibrate this model; a calibration of the old one does not fit it",
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((p.first, " ".join(p.through), ", ".join(p.second), p.channels, f"{p.before:.1f}",
                      f"{p.after:.1f}") for p in self.pairs)
        columns = ("divided", "through", "multiplied", "channels", "largest/smallest before", "after")
        left = tuple((refused.node, refused.reason) for refused in self.refused)
        return (Table("Scales moved", columns, rows), Table("Left alone", ("node", "why"), left),
                Table("Answers against the model given", PARITY_COLUMNS, tuple(row.row() for row in self.parity)))


def equalize(
    model: Any,
    calibration: Calibration | None = None,
    options: EqualizeOptions = EqualizeOptions(),
    *,
    samples: Sequence[Mapping[str, np.ndarray]] | None = None,
    runs: Path | str | None = None,
    report: Report = silent,
) -> Equalized:
    """Write a float model with the same answers whose channels are more alike.

    Args:
        model: a float model, its path, or a result that carries one; BatchNormalization should be folded
            (``kit.fix``).
        calibration: of that model. ``smoothquant`` needs it; otherwise its probe samples are what is compared on.
        options: see there.
        samples: feeds to compare on; else those of the calibration, else made-up ones.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        BadInput: SmoothQuant without a calibration.
        StaleResult: the calibration is of another model.
        UnsupportedModel: nothing could be scaled; every candidate and its reason is in the detail.
        ToolFailed: the answers moved.
    """
    expect(EqualizeOptions, options)
    model = model_of(model)
    if calibration is not None:
        calibration.check(model)
    elif options.method == "smoothquant":
        raise BadInput("SmoothQuant needs to know how large each channel of the activations gets.",
                       remedy="run kit.calibrate(model, samples) first and pass the calibration")
    if samples is not None:
        check_samples(samples)
        samples = samples[: options.samples]

    def work(folder: Path, report: Report) -> Equalized:
        return _equalize(model, calibration, options, samples, folder, report)

    inputs = {"model": model, "calibration": calibration.statistics if calibration else "", "samples": samples}
    return run_stage("equalize", Equalized, work, options=options, inputs=inputs, name=short_name(model),
                     version=VERSION, runs=runs, report=report)


def _equalize(model: Model, calibration: Calibration | None, options: EqualizeOptions, samples: Sequence | None,
              folder: Path, report: Report) -> Equalized:
    proto = prepare(read_light(model.path), model.path.name)
    network = Network(proto, model.path.name)
    stored = Weights(model.path, proto)
    rescaled = Rescaled(network, stored)
    report(Tick(0, 3, "finding scales"))
    inserted: dict[str, np.ndarray] = {}
    if options.method == "cross-layer":
        pairs, refused = cross_layer.equalize(rescaled)
    else:
        def maxima(tensor: str) -> np.ndarray:
            return _largest(network, model, calibration, tensor)

        pairs, refused, inserted = smoothquant.smooth(rescaled, maxima, options.alpha, insert=options.insert)
    if not pairs:
        raise UnsupportedModel(
            f"Nothing in {model.path.name} can be evened out by {options.method}.",
            remedy="go on with the model as it is; the details say why each node was left alone",
            detail="\n".join(f"{one.node}: {one.reason}" for one in refused) or "it has no nodes with weights")
    report(Tick(1, 3, "writing"))
    path = folder / f"{short_name(model)}.{options.method}.onnx"
    _write(proto, rescaled, inserted, path)
    report(Tick(2, 3, "comparing answers"))
    parity, checked_on = _compare(model, path, calibration, options, samples)
    made = model.derived(path, "equalize", f"{len(pairs)} places evened out by {options.method}")
    return Equalized(made, options.method, pairs, refused, parity, checked_on, model.digest())


def _largest(network: Network, model: Model, calibration: Calibration, tensor: str) -> np.ndarray:
    """The largest magnitude of every channel (last axis) of a tensor.

    Behind a Reshape calibration measures only the tensor before it; the probe samples then stand for all.
    """
    with contextlib.suppress(BadInput):
        if tensor not in network.same_range:
            seen = calibration.channels(tensor)
            return np.maximum(np.abs(seen.minimum), np.abs(seen.maximum))
    found: np.ndarray | float = 0.0
    with exposed(network, model, [tensor]) as run:
        for feeds, _ in calibration.probes():
            values = feeds[tensor] if tensor in feeds else run(feeds)[tensor]
            found = np.maximum(found, np.abs(values).max(axis=tuple(range(values.ndim - 1))))
    if isinstance(found, float):
        raise BadInput(f"The channels of {tensor!r} were not measured, and the calibration kept no samples to measure "
                       "them by.", remedy="calibrate with probes=8")
    return found


def _write(proto: Any, rescaled: Rescaled, inserted: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the graph with its new constants, which are asked for one at a time."""
    import onnx

    graph = proto.graph
    new = {name: values.astype(np.float32) for name, values in rescaled.changed.items()}
    for tensor, factors in inserted.items():
        new[f"{tensor}_smooth_factors"] = factors.astype(np.float32)
        for reader in (node for node in graph.node if node.op_type in ("MatMul", "Gemm")):
            if reader.input[0] == tensor:
                reader.input[0] = f"{tensor}_smooth"
        at = next((at + 1 for at, node in enumerate(graph.node) if tensor in node.output), 0)
        graph.node.insert(at, onnx.helper.make_node("Mul", [tensor, f"{tensor}_smooth_factors"], [f"{tensor}_smooth"],
                                                    f"{tensor}_smooth"))
        graph.initializer.add(name=f"{tensor}_smooth_factors")
    for tensor in graph.initializer:
        if tensor.name in new:
            name = tensor.name
            tensor.Clear()
            tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.dims.extend(new[name].shape)
    del graph.value_info[:]
    save_streamed(proto, path, lambda name: new[name] if name in new else rescaled.stored.array(name))


def _compare(model: Model, path: Path, calibration: Calibration | None, options: EqualizeOptions,
             samples: Sequence | None) -> tuple[tuple[TensorParity, ...], str]:
    """Both models' answers, without ONNX Runtime's own rewriting."""
    if samples is not None:
        feeds, origin = [dict(sample) for sample in samples], "samples"
    elif calibration is not None and calibration.probe is not None:
        feeds, origin = [feeds for feeds, _ in calibration.probes()][: options.samples], "samples of the calibration"
    else:
        feeds, origin = that_run(model, model.inputs, options.samples), "made-up inputs"
    parity = Parity()
    with open_runner(model, graph_level="none") as before, open_runner(path, graph_level="none") as after:
        for feed in feeds:
            parity.add(before(feed), after(feed))
    rows = parity.result()
    if any(row.verdict == "failed" for row in rows):
        row = worst(rows)
        raise ToolFailed(f"Evening out {model.path.name} moved the output {row.name!r} by {row.relative:.1e}.",
                         remedy="please report this model; go on with it as it is", detail="\t".join(row.row()))
    return rows, total(feeds, origin)
