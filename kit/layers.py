"""Where INT8 loses: the error of every tensor, and how much each node alone costs the model's output.

The two answer different questions. ``layer_errors`` shows how far each tensor of the INT8 model is from float, with
all that was lost before it. ``sensitivity`` quantizes one group of nodes at a time and looks at the output: what it
ranks first is what to keep in float, and ``suggest_float`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from kit.calibration import check_samples, model_of, short_name
from kit.card import Card, Table
from kit.errors import StaleResult
from kit.int8 import qdq
from kit.int8.exposed import Exposed, exposed
from kit.int8.noise import decibels
from kit.int8.preparing import plain, prepare
from kit.int8.quantizable import Network
from kit.int8.ranking import GroupSensitivity, Sensitivity, SensitivityOptions, sensitivity, suggest_float
from kit.int8.suppression import behind
from kit.model import Model, read
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.record import Provenance, run_stage

__all__ = ["GroupSensitivity", "LayerError", "LayerErrorOptions", "LayerErrors", "Sensitivity", "SensitivityOptions",
           "layer_errors", "sensitivity", "suggest_float"]

VERSION = 1


@dataclass(frozen=True)
class LayerErrorOptions(Options):
    """How much to compare."""

    samples: Annotated[int, Range(1, 100), Help("at most so many samples, the first ones")] = 4
    passes: Annotated[int, Range(1, 16), Help("compare the tensors in so many parts: less memory, more time")] = 1
    threads: Annotated[int, Range(1, 64), Help("processor cores to use")] = 2


@dataclass(frozen=True)
class LayerError:
    """How far one tensor of the INT8 model is from float. All figures are signal-to-noise ratios in dB.

    Attributes:
        tensor: its name in the float model.
        node: the node that makes it.
        operator: its type.
        sqnr: as it is in the INT8 model, with everything lost before it.
        own: what rounding this tensor alone would do; None where it is not rounded.
        weights: what rounding did to the node's weights; None where it has none in INT8.
    """

    tensor: str
    node: str
    operator: str
    sqnr: float
    own: float | None
    weights: float | None


@dataclass(frozen=True)
class LayerErrors(Card):
    """The error of every tensor, in topological order.

    Attributes:
        rows: one a tensor.
        samples: how many were compared.
        float_model: digest of the float model.
        int8_model: digest of the INT8 model.
    """

    rows: tuple[LayerError, ...] = field(repr=False)
    samples: int
    float_model: str
    int8_model: str
    provenance: Provenance | None = field(default=None, compare=False)

    def worst(self, count: int = 10) -> tuple[LayerError, ...]:
        """The rows with the largest error, worst first."""
        return tuple(sorted(self.rows, key=lambda row: row.sqnr))[:count]

    def drops(self, count: int = 10) -> tuple[tuple[LayerError, float], ...]:
        """Where the error grows most, in dB from the row before to this one, largest first."""
        steps = [(row, before.sqnr - row.sqnr) for before, row in zip(self.rows, self.rows[1:], strict=False)]
        return tuple(sorted(steps, key=lambda step: -step[1]))[:count]

    def title(self) -> str:
        if not self.rows:
            return "No tensor is in both models"
        row = self.worst(1)[0]
        return f"{len(self.rows)} tensors compared; the worst is {row.sqnr:.1f} dB after {row.operator} {row.node!r}"

    def facts(self) -> dict[str, object]:
        clipped = min((r for r in self.rows if r.own is not None), key=lambda r: r.own, default=None)
        weak = min((r for r in self.rows if r.weights is not None), key=lambda r: r.weights, default=None)
        return {
            "samples": self.samples,
            **({"hardest to round": f"{clipped.tensor!r}, {clipped.own:.1f} dB by itself"} if clipped else {}),
            **({"weights that lose most": f"{weak.node!r}, {weak.weights:.1f} dB"} if weak else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((r.tensor, r.operator, r.node, f"{r.sqnr:.1f}", _or_dash(r.own), _or_dash(r.weights))
                     for r in self.worst(len(self.rows)))
        columns = ("tensor", "made by", "node", "as it is, dB", "rounded alone, dB", "its weights, dB")
        return (Table("Signal-to-noise ratio against float, worst first", columns, rows),)


def layer_errors(
    model: Any,
    quantized: Any,
    samples: Sequence[Mapping[str, np.ndarray]],
    options: LayerErrorOptions = LayerErrorOptions(),
    *,
    runs: Path | str | None = None,
    report: Report = silent,
) -> LayerErrors:
    """Compare every tensor of an INT8 model with the float model it was made from, in constant memory.

    Args:
        model: the float model.
        quantized: the INT8 model, or the ``Quantized`` result.
        samples: feeds, taken one at a time.
        options: see there.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        StaleResult: the INT8 model was made from another model.
        BadInput: samples that do not fit.
    """
    expect(LayerErrorOptions, options)
    model, int8 = model_of(model), model_of(quantized)
    origin = getattr(quantized, "float_model", None)
    if origin and origin != model.digest():
        raise StaleResult(f"{int8.path.name} was not made from {model.path.name} as it is now.",
                          remedy="give the float model that was quantized, or quantize again")
    check_samples(samples)
    samples = samples[: options.samples]

    def work(folder: Path, report: Report) -> LayerErrors:
        return _compare(model, int8, samples, options, report)

    return run_stage("layers", LayerErrors, work, options=options, name=short_name(model), version=VERSION, runs=runs,
                     inputs={"model": model, "int8": int8, "samples": samples}, report=report)


def _compare(model: Model, int8: Model, samples: Sequence, options: LayerErrorOptions, report: Report) -> LayerErrors:
    import onnx

    network = Network(prepare(read(model.path, weights=False), model.path.name), model.path.name)
    proto = plain(read(int8.path, weights=False))
    rounded = qdq.rounded(proto)
    made = {output for node in proto.graph.node for output in node.output}
    inputs = {value.name for value in network.proto.graph.input}
    left_out = inputs | behind(network.proto)
    tensors = [name for name in network.measured() if (name in rounded or name in made) and name not in left_out]
    sums = {name: np.zeros(3) for name in tensors}  # signal, noise as it is, noise of rounding alone
    parts = [tensors[at :: options.passes] for at in range(min(options.passes, len(tensors)))]
    total = len(parts) * len(samples)
    own_outputs = {value.name for value in proto.graph.output}
    for number, part in enumerate(parts):
        # The bytes are handed out, not the floats behind them: that leaves ONNX Runtime its integer kernels.
        kinds = {(rounded[n].bytes if n in rounded else n): (_onnx_type(rounded[n].dtype) if n in rounded else 1)
                 for n in part}
        more = [onnx.helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items() if n not in own_outputs]
        with exposed(network, model, part, threads=options.threads) as left, \
                Exposed(proto, int8, more, threads=options.threads) as right:
            for at in range(len(samples)):
                report(Tick(number * len(samples) + at, total, "comparing layers"))
                feeds = dict(samples[at])
                reference, other = left(feeds), right(feeds)
                for name in part:
                    about = rounded.get(name)
                    values = reference.pop(name)
                    found = about.back(other.pop(about.bytes)) if about else other[name]
                    sums[name] += _powers(values, found, about)
    report(Tick(total, total, "comparing layers"))
    lost = _weight_errors(read(model.path), plain(read(int8.path)), network)
    rows = tuple(_row(network, name, sums[name], name in rounded, lost) for name in tensors)
    return LayerErrors(rows, len(samples), model.digest(), int8.digest())


def _powers(values: np.ndarray, found: np.ndarray, about: qdq.Rounded | None) -> np.ndarray:
    gap = (values - found).ravel()
    alone = (values - about.round(values)).ravel() if about else gap[:0]
    flat = values.ravel()
    return np.array([np.dot(flat, flat), np.dot(gap, gap), np.dot(alone, alone)], np.float64)


def _row(network: Network, name: str, sums: np.ndarray, is_rounded: bool, lost: Mapping[str, float]) -> LayerError:
    signal, noise, alone = (float(value) for value in sums)
    node = network.producers[name]
    return LayerError(name, node.name, node.op_type, _share(noise, signal),
                      _share(alone, signal) if is_rounded else None, lost.get(network.weights(node)))


def _share(noise: float, signal: float) -> float:
    return decibels(noise / signal if signal else float(noise > 0))


def _weight_errors(proto: Any, int8: Any, network: Network) -> dict[str, float]:
    import onnx

    found = {}
    before = {tensor.name: tensor for tensor in proto.graph.initializer}
    before.update({node.output[0]: attribute.t for node in proto.graph.node if node.op_type == "Constant"
                   for attribute in node.attribute if attribute.name == "value"})
    for name, after in qdq.weights(int8).items():
        if name in before and name in network.constants:
            values = onnx.numpy_helper.to_array(before[name]).astype(np.float64)
            power = float(np.square(values).sum())
            found[name] = decibels(float(np.square(values - after).sum()) / power if power else 0.0)
    return found


def _onnx_type(dtype: str) -> int:
    return {"uint8": 2, "int8": 3}[dtype]


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
