"""``quantize_unet``: a UNet with fewer bits where that costs pictures nothing.

Public through ``diffusion``. Hybrid: the weights of all blocks are stored in 8 bits, and the convolutions of chosen
blocks compute in INT8 as well. What every picture passes through once stays in float, as its error is never averaged:
the first and the last convolution, and the embedding of the timestep. Attention keeps float activations: their ranges
are long-tailed and its products are cheap beside the convolutions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from kit.calibration import Calibration, model_of
from kit.card import Card, Table, bytes_text
from kit.errors import BadInput, UnsupportedModel, unknown
from kit.int8.quantizable import WEIGHTED, Network
from kit.int8.ranking import SensitivityOptions, sensitivity, suggest_float
from kit.int8.result import NodeSetting, Quantized
from kit.model import Model
from kit.options import Help, Options, Range, expect
from kit.progress import Report, part, silent
from kit.quantization import QuantizeOptions, quantize
from kit.record import Provenance

#: Parts of node names: what stays in float altogether.
EDGES = ("conv_in", "conv_out", "time_embedding")
_BLOCKS = ("resnets", "downsamplers", "upsamplers")  # their convolutions hold most of the arithmetic
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class UnetQuantizeOptions(Options):
    """How a UNet is quantized."""

    mode: Annotated[Literal["hybrid", "weights", "full"], Help(
        "hybrid: weights of all, activations of chosen blocks; weights: nothing is computed in INT8; full: everything "
        "that can be, to compare with")] = "hybrid"
    runtime: Annotated[Literal["onnxruntime", "openvino"], Help("which runtime it is for")] = "onnxruntime"
    blocks: Annotated[tuple[str, ...], Help(
        "hybrid: blocks whose convolutions compute in INT8, such as down_blocks.0/resnets.1; empty: all ResNet blocks "
        "and samplers")] = ()
    spare: Annotated[float, Range(0, 0.95, 0.05), Help(
        "hybrid: of the noise that these convolutions make, so much is taken away by leaving the dearest in float; "
        "measured on the calibration's probes")] = 0.5
    method: Annotated[Literal["minmax", "percentile", "mse", "entropy"], Help("how ranges are chosen")] = "mse"
    store_convolutions: Annotated[Literal["auto", "int8", "float"], Help(
        "weights of convolutions that compute in float; auto: int8 for OpenVINO, float for ONNX Runtime, which unpacks "
        "them on every run")] = "auto"

    @property
    def stores_convolutions(self) -> bool:
        """Whether convolutions that compute in float store int8 weights."""
        return self.store_convolutions == "int8" or (self.store_convolutions == "auto" and self.runtime == "openvino")


@dataclass(frozen=True)
class UnetQuantized(Card):
    """A UNet of lower precision.

    Attributes:
        model: the model, for ``pipeline.replaced(unet=...)``.
        options: see the class.
        nodes: what became of every node.
        spared: convolutions left in float because they cost the output most.
        size_before: bytes of the float file.
        size_after: bytes of the written file.
        float_model: digest of the float model.
        notes: sentences for the reader.
        seconds: that the stages behind it took when they ran.
    """

    model: Model
    options: UnetQuantizeOptions
    nodes: tuple[NodeSetting, ...] = field(repr=False)
    spared: tuple[str, ...]
    size_before: int
    size_after: int
    float_model: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    provenance: Provenance | None = field(default=None, compare=False)

    @property
    def runner_settings(self) -> dict[str, Any]:
        """It is laid out for one runtime."""
        return {"runtime": self.options.runtime}

    def title(self) -> str:
        weighted = Counter(node.setting for node in self.nodes if node.weights)
        said = ", ".join(f"{count} {setting}" for setting, count in weighted.most_common())
        return (f"UNet, {self.options.mode}: layers with weights: {said}; {bytes_text(self.size_before)} became "
                f"{bytes_text(self.size_after)} ({self.size_after / self.size_before:.2f})")

    def facts(self) -> dict[str, object]:
        return {
            "laid out for": {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[self.options.runtime],
            **({"spared": f"{len(self.spared)} convolutions that cost the output most: {', '.join(self.spared[:3])}"
                          + (" ..." if len(self.spared) > 3 else "")} if self.spared else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows: dict[str, Counter[str]] = {}
        for node in self.nodes:
            if node.weights:
                rows.setdefault(block_of(node.node), Counter())[node.setting] += 1
        kinds = sorted({kind for row in rows.values() for kind in row})
        return (Table("Layers with weights, by block", ("block", *kinds),
                      tuple((block, *(row[kind] or "" for kind in kinds)) for block, row in rows.items())),)


def quantize_unet(model: Any, calibration: Calibration | None = None,
                  options: UnetQuantizeOptions = UnetQuantizeOptions(), *,
                  runs: Path | str | None = None, report: Report = silent) -> UnetQuantized:
    """Write a UNet of lower precision.

    Args:
        model: the float UNet as ONNX, or a result that carries it.
        calibration: over its way, as ``range_by_timestep`` or ``kit.calibrate`` made it; not needed for ``weights``.
        options: see the class.
        runs: where results are kept.
        report: hears progress.

    Raises:
        BadInput: no calibration where one is needed, a block that the UNet has not, or nothing left to be INT8.
        StaleResult: the calibration is of another model.
    """
    expect(UnetQuantizeOptions, options)
    model = model_of(model)
    if options.mode != "weights" and calibration is None:
        raise BadInput(f"A UNet with mode={options.mode!r} needs to know what its tensors hold, and there is no "
                       "calibration.", remedy="run range_by_timestep(model, captured), or choose mode='weights'")
    network = Network.of(model.path)
    edges = [node.name for node in network.nodes if node.op_type in WEIGHTED and any(e in node.name for e in EDGES)]
    notes = [f"No layer is called {edge}; nothing was kept in float for it." for edge in EDGES
             if not any(edge in name for name in edges)]
    spared: tuple[str, ...] = ()
    operators = {node.op_type for node in network.nodes}
    if options.runtime == "onnxruntime" and "Softmax" in operators and "MultiHeadAttention" not in operators:
        notes.append("Its attention is many operators. Run kit.fix on the float UNet first and calibrate what comes of "
                     "it: in one operator attention takes less time and memory, and quantizing does not change that.")
    if options.mode == "full":
        made = [quantize(model, calibration, QuantizeOptions(method=options.method, runtime=options.runtime), runs=runs,
                         report=report)]
    elif options.mode == "weights":
        named = [name for name in _convolutions(network) if name not in edges] if options.stores_convolutions else []
        made = [quantize(model, None, QuantizeOptions(
            precision="int8-weights", runtime=options.runtime, keep_float=tuple(edges), int8_weights=tuple(named)),
            runs=runs, report=report)]
    else:
        assert calibration
        chosen = _chosen(network, options, edges)
        spared, note = _spared(model, calibration, network, options, chosen, runs, report)
        notes += [note] if note else []
        made = _hybrid(model, calibration, network, options, edges, [n for n in chosen if n not in spared], runs,
                       report)
    last, nodes = made[-1], {node.node: node for node in made[0].nodes}
    nodes |= {node.node: node for node in last.nodes if node.node in nodes and node.setting != "float"}
    weights = {node.node: node.weights for node in made[0].nodes}
    return UnetQuantized(
        last.model, options, tuple(NodeSetting(n.node, n.operator, n.setting, n.why, weights[n.node], n.asked)
                                   for n in nodes.values()), spared, model.size, last.size_after, model.digest(),
        tuple(notes), sum(each.provenance.seconds for each in made if each.provenance))


def _hybrid(model: Model, calibration: Calibration, network: Network, options: UnetQuantizeOptions, edges: list[str],
            chosen: list[str], runs: Path | str | None, report: Report) -> list[Quantized]:
    """INT8 for the chosen convolutions, then few bits for the weights of what is left."""
    left = [name for name in _convolutions(network) if name not in chosen]
    named = [name for name in left if name not in edges] if options.stores_convolutions else []
    first = quantize(model, calibration, QuantizeOptions(
        method=options.method, runtime=options.runtime, quantize_types=("Conv",), keep_float=tuple(left),
        int8_weights=tuple(named)), runs=runs, report=part(report, "activations"))
    second = quantize(first.model, None, QuantizeOptions(
        precision="int8-weights", runtime=options.runtime,
        keep_float=tuple(name for name in edges if network.by_name[name].op_type not in _CONVOLUTIONS)),
        runs=runs, report=part(report, "weights"))
    return [first, second]


def _convolutions(network: Network) -> list[str]:
    return [node.name for node in network.nodes if node.op_type in _CONVOLUTIONS and not network.obstacle(node)]


def _chosen(network: Network, options: UnetQuantizeOptions, edges: list[str]) -> list[str]:
    """The convolutions that compute in INT8 unless they cost too much."""
    convolutions = [name for name in _convolutions(network) if name not in edges]
    blocks = {block_of(name) for name in convolutions}
    for asked in options.blocks:
        if asked not in blocks:
            raise unknown("block", asked, sorted(blocks), network.name)
    chosen = [name for name in convolutions if (block_of(name) in options.blocks if options.blocks else
                                                any(f"/{kind}." in name for kind in _BLOCKS))]
    if not chosen:
        raise BadInput(f"{network.name} has no convolution in a block called {', '.join(_BLOCKS)}.",
                       remedy="name blocks, choose mode='weights', or export the UNet with kit.export, which names "
                       "nodes after the modules", detail="\n".join(convolutions))
    return chosen


def _spared(model: Model, calibration: Calibration, network: Network, options: UnetQuantizeOptions, chosen: list[str],
            runs: Path | str | None, report: Report) -> tuple[tuple[str, ...], str]:
    """Those of the chosen convolutions that make most of the noise, and a sentence where that was not measured."""
    if not options.spare:
        return (), ""
    if calibration.probe is None:
        return (), "No convolution was spared: the calibration kept no probes to measure their cost on."
    try:
        ranking = sensitivity(model, calibration, options=SensitivityOptions(
            samples=32, method=options.method, quantize_types=("Conv",),
            keep_float=tuple(name for name in _convolutions(network) if name not in chosen)), runs=runs,
            report=part(report, "what each costs"))
    except UnsupportedModel as error:
        return (), f"No convolution was spared: {error.what}"
    dear = set(suggest_float(ranking, share=options.spare))
    found = tuple(name for name in chosen if name in dear)
    return (found if len(found) < len(chosen) else found[:-1]), ""


def block_of(node: str) -> str:
    """``/down_blocks.0/resnets.1/conv1/Conv`` -> ``down_blocks.0/resnets.1``; outside of blocks, the module."""
    pieces = node.strip("/").split("/")
    for at, piece in enumerate(pieces):
        if "_block" in piece:  # an exporter may put the name of a wrapper before it
            return "/".join(pieces[at : at + 2])
        if piece in EDGES:
            return piece
    return pieces[0]
