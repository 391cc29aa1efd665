"""Which nodes atc should leave in float32, each with its evidence: values beyond float16, and layers dear in INT8.

A tensor beyond float16 concerns the node that makes it and those that read it. What a kernel computes inside itself,
such as the squares in a normalization, is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.ascend.chip_family import exact_name, family_of
from kit.calibration import Calibration, model_of
from kit.card import Card, Table
from kit.errors import BadInput
from kit.int8.quantizable import Network
from kit.layers import Sensitivity, suggest_float
from kit.precisions.half import LARGEST, SMALLEST, value_extremes, weight_extremes
from kit.targets.ascend import facts
from kit.targets.ascend.float16 import LIMITS
from kit.weights_file import Weights

TINIEST = 2.0**-24  # the smallest number of float16 above zero; half of it is rounded to zero


@dataclass(frozen=True)
class FloatNode:
    """A node that should stay in float32.

    Attributes:
        node: its name in the file.
        operator: its type in ONNX.
        types: Ascend IR types that it becomes, as far as the parser's source tells.
        sources: why: ``asked``, ``overflow``, ``underflow``, ``constant``, ``sensitivity``.
        evidence: a sentence for each.
        float32: the chip has a float32 kernel for it; None where the lists do not say.
    """

    node: str
    operator: str
    types: tuple[str, ...]
    sources: tuple[str, ...]
    evidence: tuple[str, ...]
    float32: bool | None


@dataclass(frozen=True)
class FloatCandidates(Card):
    """Nodes that should stay in float32, most urgent first.

    Attributes:
        nodes: see ``FloatNode``.
        types: Ascend IR type -> how many nodes of the model become it.
        model_name: the file they are of.
        chip: its exact name.
        notes: sentences for the reader.
    """

    nodes: tuple[FloatNode, ...] = field(repr=False)
    types: dict[str, int] = field(repr=False)
    model_name: str
    chip: str
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes."""
        return tuple(one.node for one in self.nodes)

    def title(self) -> str:
        total = sum(self.types.values())
        if not self.nodes:
            return f"Nothing says that one of {total} nodes of {self.model_name} should stay in float32"
        return f"{len(self.nodes)} of {total} nodes of {self.model_name} should stay in float32"

    def facts(self) -> dict[str, object]:
        sources = [source for one in self.nodes for source in one.sources]
        found = {f"for {source}": sources.count(source) for source in dict.fromkeys(sources)}
        return {**found, "chip": self.chip, **({"note": " ".join(self.notes)} if self.notes else {})}

    def tables(self) -> tuple[Table, ...]:
        kernel = {True: "float32", False: "none in float32", None: "not listed"}
        rows = tuple((one.node, one.operator, ", ".join(one.types), "; ".join(one.evidence), kernel[one.float32])
                     for one in self.nodes)
        return () if not rows else (Table("Nodes", ("node", "operator", "Ascend IR type", "evidence", "kernel"), rows),)


def float_candidates(model: Any, *, soc_version: str = "Ascend310P3", ranking: Sensitivity | None = None,
                     calibration: Calibration | None = None, keep_float: Sequence[str] = (), share: float = 0.8,
                     target: float | None = None, groups: int | None = None,
                     headroom: float = 1.0) -> FloatCandidates:
    """Nodes that should stay in float32, from what was measured.

    Args:
        model: the float model that atc reads: a path, a Model or a result that carries one.
        soc_version: the chip.
        ranking: of ``kit.sensitivity``: its dearest layers. It measures INT8, which says where precision matters, not
            that float16 lacks it.
        calibration: of ``kit.calibrate`` of this model: tensors beyond float16. All others than those that INT8
            measures are looked at on its probe samples.
        keep_float: names of more nodes.
        share: of the INT8 noise that the dearest layers have to make up.
        target: instead, until the output should reach so many dB.
        groups: instead, so many layers.
        headroom: share of float16's range that the data may use; 0.5 leaves room for other data.

    Raises:
        BadInput: an unknown chip or node, or ``headroom`` is not above 0 and up to 1.
        StaleResult: the calibration is of another model.
        UnsupportedModel: the model is quantized, or its opset is older than 13.
    """
    if not 0 < headroom <= 1:
        raise BadInput(f"headroom={headroom} is no share of float16's range.", remedy="give one above 0 and up to 1")
    model, chip, family = model_of(model), exact_name(soc_version), family_of(soc_version)
    network = Network.of(model.path)
    found: dict[str, dict[str, str]] = {name: {"asked": "asked for"} for name in keep_float}
    for name, source, sentence in _constants(network, weight_extremes(network, Weights(model.path, network.proto))):
        found.setdefault(name, {}).setdefault(source, sentence)
    if calibration is not None:
        calibration.check(model)
        extremes = value_extremes(network, model, calibration)
        for name, source, sentence in _tensors(network, extremes, headroom * LARGEST):
            found.setdefault(name, {}).setdefault(source, sentence)
    if ranking is not None:
        names = suggest_float(ranking, share=share, target=target, groups=groups)
        for name, sentence in ranking_evidence(ranking, names).items():
            found.setdefault(name, {})["sensitivity"] = sentence
    network.check_names(found)
    types = {node.name: ascend_types(node, network) for node in network.nodes}
    nodes = [FloatNode(name, (node := network.by_name[name]).op_type, types[name], tuple(why), tuple(why.values()),
                       _has_float32(node.op_type, types[name], family)) for name, why in found.items()]
    urgent = ("asked", "overflow", "constant", "underflow", "sensitivity")
    nodes.sort(key=lambda one: min(urgent.index(source) for source in one.sources))
    counts: dict[str, int] = {}
    for name in types:
        counts[_first(types[name])] = counts.get(_first(types[name]), 0) + 1
    return FloatCandidates(tuple(nodes), counts, model.path.name, chip,
                           tuple(_notes(nodes, chip, calibration, ranking)))


def ranking_evidence(ranking: Sensitivity, names: Collection[str]) -> dict[str, str]:
    """What a ranking measured of each of these nodes, dearest first."""
    total = sum(group.noise for group in ranking.groups) or 1.0
    found: dict[str, str] = {}
    for group in ranking.groups:
        for name in group.nodes:
            if name in names:
                found.setdefault(name, f"{group.noise / total:.1%} of the INT8 noise, output {group.sqnr:.1f} dB alone")
    return found


def ascend_types(node: Any, network: Network) -> tuple[str, ...]:
    """The Ascend IR types that a node becomes, () where the parser is not known to take it."""
    own, entry = facts("mixed_precision")["types"], facts("operators")["operators"].get(node.op_type)
    if node.domain not in ("", "ai.onnx") or entry is None:
        return ()
    key = f"{node.op_type} 5" if node.input and _axes(network, node.input[0]) == 5 else node.op_type
    return tuple(own.get(key) or own.get(node.op_type) or entry.get("types") or entry.get("cann") or ())


def _first(types: Sequence[str]) -> str:
    return types[0] if types else ""


def _axes(network: Network, name: str) -> int:
    graph = network.proto.graph
    return next((len(value.type.tensor_type.shape.dim) for values in (graph.input, graph.value_info)
                 for value in values if value.name == name), 0)


def _has_float32(operator: str, types: Sequence[str], family: str) -> bool | None:
    cube = facts("mixed_precision")["cube"]
    if operator in cube["operators"] and family in cube["families_without_float32"]:
        return False
    listed = facts("operators")["operators"].get(operator, {}).get("types", {})
    for kind in types:
        for families, slots in listed.get(kind, {}).items():
            if family in families.split():
                takes = slots.get("x") or slots.get("x1") or next(iter(slots.values()))
                return None if "?" in takes else "float32" in takes.split()
    return None


def _tensors(network: Network, extremes: dict[str, float], largest: float) -> Iterator[tuple[str, str, str]]:
    """(node, source, sentence) for tensors beyond float16 or wholly below its normal numbers."""
    for name, size in extremes.items():
        if size > largest:
            source, said = "overflow", f"reaches {size:.4g} (float16 ends at {LARGEST:.0f})"
        elif 0 < size < SMALLEST:
            source, said = "underflow", f"reaches only {size:.3g} (float16 loses digits below {SMALLEST:.2g})"
        else:
            continue
        if name in network.producers:
            yield network.producers[name].name, source, f"makes {name!r}, which {said}"
        for reader in network.consumers.get(name, ()):
            yield reader.name, source, f"reads {name!r}, which {said}"


def _constants(network: Network, extremes: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """(node, source, sentence) for constants that become infinite or zero in float16."""
    for name, size in extremes.items():
        said = f"float16 ends at {LARGEST:.0f}" if size > LARGEST else \
            "it is zero in float16" if 0 < size <= TINIEST / 2 else ""
        for reader in network.consumers.get(name, ()) if said else ():
            if size < 1 or reader.op_type not in LIMITS:  # a limit that becomes infinite says the same
                yield reader.name, "constant", f"its constant {name!r} holds {size:.4g} ({said})"


def _notes(nodes: Sequence[FloatNode], chip: str, calibration: Calibration | None,
           ranking: Sensitivity | None) -> Iterator[str]:
    beyond = [one for one in nodes if one.float32 is False and "overflow" in one.sources]
    if beyond:
        operators = ", ".join(sorted({one.operator for one in beyond}))
        yield (f"{operators} have no float32 kernel on {chip}: float32 inputs beyond float16 become infinite there "
               "whatever the lists say. Results can stay in float32 with precision='cube_fp16in_fp32out'; inputs have "
               "to be scaled down in the model.")
    elif any(one.float32 is False for one in nodes):
        yield f"Nodes without a float32 kernel on {chip} read float16 whatever the lists say."
    if calibration is None:
        yield "Without a calibration nothing is known of the values of tensors."
    elif calibration.probe is None:
        yield "The calibration kept no probe samples: only tensors that INT8 measures were looked at."
    if ranking is not None:
        yield "Layers are ranked by INT8 noise: where precision matters, not how much float16 loses."
    if any("constant" in one.sources and "ends at" in one.evidence[one.sources.index("constant")] for one in nodes):
        yield "For constants beyond float16, kit.fix with the rule fp16-constants may be the better way."
