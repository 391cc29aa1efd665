"""Huawei Ascend through ATC, judged without CANN: exact look-up of ``domain::opset::operator``, types per chip, limits.

What is known lies in the JSON files beside this module, each with its source and the date it was checked. A node that
passes everything here can still fail inside ATC; only ATC decides.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph, Node
from kit.targets.ascend.naming import NAMES, RELEASES, chips, facts, is_ours, known, known_chips, older, release

if TYPE_CHECKING:
    from kit.collecting.result import Calibration

__all__ = ["NAMES", "RELEASES", "AscendTarget", "best_opset", "breaker", "breaker_source", "chips", "facts", "is_ours",
           "known", "known_chips", "lost_at", "older", "release"]

_HERE = Path(__file__).parent
_FACTS = ("operators", "chips", "breakers", "releases")
FINE_PRINT = ("Judged from carried facts, not by ATC. A registered operator can still fail inside ATC because of its "
              "type, rank or dynamic shape; only a run of ATC decides.")
TYPES = "kernel lists of CANN 8.1.RC1"
LOW, BEST, PRIVATE_BEST, HIGH = 11, 17, 16, 18


class AscendTarget:
    """One chip, as ATC's ``--soc_version`` names it, and the CANN release that is to build for it.

    Args:
        name: of the chip, in lower case.
        cann: the release; None or "" for any that is known.
    """

    ir_version = 0
    judges_memory = True  # it needs no file: the audit lets it judge again what the rules have edited

    def __init__(self, name: str, cann: str | None = None) -> None:
        self.name = self.rule_set = name
        self.chip = known_chips()[name]
        self.family: str = self.chip.get("opp_dir", "")
        self.cann = release(cann)
        about = facts("releases")["releases"].get(self.cann, {"opsets": (8, HIGH), "table": ""})
        self.opsets: tuple[int, int] = tuple(about["opsets"])
        self.table: str = about["table"]
        self.title = self.chip["soc_version"] + (f" with CANN {self.cann}" if self.cann else "")
        self.source = f"carried CANN facts ({facts('operators')['checked'].partition(',')[0]})"
        self.fine_print = " ".join(filter(None, [FINE_PRINT, self._unknown()]))

    @property
    def is_old(self) -> bool:
        """Is it a release that the operator lists of CANN 5.x speak for?"""
        return bool(self.cann) and self.cann[0] in "56"

    def digest(self) -> str:
        """Of the facts."""
        from kit.record import digest

        return digest([self.name, self.cann, *(_HERE / f"{name}.json" for name in _FACTS)])

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Look every node up; what is registered is then checked for its type and for known troubles."""
        from kit.targets.ascend.checks import check

        made = []
        for node in graph.nodes:
            said = [self.looked_up(node, graph.opset)]
            if said[0].state != "not" or said[0].shared:
                said += [*self.typed(node), *check(node, graph, self)]
            made.append(tuple(dict.fromkeys(said)))
        return made

    def looked_up(self, node: Node, opset: int) -> Support:
        """Is ``domain::opset::operator`` registered? This is all that ATC's parser asks."""
        table = facts("operators")
        version = opset if not node.domain else node.version
        place = f"{node.domain or 'ai.onnx'}::{version}::{node.operator}"
        entry = table["other_domains"].get(node.label) if node.domain else table["operators"].get(node.operator)
        if entry is None:
            return self._unregistered(node, place)
        current, released = _span(entry["opsets"]), _span(entry.get("released", ""))
        here = current if self.table == "current" or not released else released if self.table else current | released
        low, high = self.opsets
        fits = node.domain or low <= version <= high
        if version in here and fits:
            if released and not self.table and version not in released:
                return Support("partly", f"{place} is in current CANN source (9.2-dev), but not in the released table "
                               f"({entry['released']})", _source(entry), "lower-opset", "check your CANN release, or "
                               "export at an opset that both have")
            if not released and self.table not in ("", "current") and node.operator not in PARSER_OWN:
                return Support("partly", f"{place} is in current CANN source (9.2-dev), but not in the table of "
                               "released operators", _source(entry), "", f"try ATC {self.cann} on a model of this "
                               "operator alone", "note" if node.domain else "")
            return Support("supported", "", _source(entry))
        span = entry.get("released", entry["opsets"]) if here is released else entry["opsets"]
        span = span.replace(" ", ", ")
        outside = not node.domain and not low <= version <= high
        if outside and here & set(range(low, high + 1)):
            return replace(self._refused("opset-range", f"opset {version} is outside {low} to {high}, which "
                                         f"{self.title} takes ({node.operator}: {span})", f"export at opset "
                                         f"{min(high, BEST)}", "lower-opset"), shared=True)
        row, fix = REFUSED_BELOW.get(node.operator, ("opset-range", ""))
        advice = "export at an opset in that range" if here & set(range(low, high + 1)) else \
            f"no opset that {self.title} takes has it: replace it by standard operators"
        return self._refused(row, f"{place} is not registered: {node.operator} is there for opset {span} only", advice,
                             fix or ("lower-opset" if version > max(here, default=0) else "raise-opset"))

    def typed(self, node: Node) -> list[Support]:
        """Is there a kernel for the first input's type on this chip, on AI Core or at least on AI CPU?"""
        entry = facts("operators")["operators"].get(node.operator, {})
        first = next((t for t in node.inputs if t is not None), None)
        if not self.family or first is None or node.domain or first.dtype == "?" or first.constant \
                or not entry.get("types"):
            return []
        kernels = _kernels(entry["types"], node)
        core, cpu = _accepts(kernels, self.family), _accepts(kernels, "aicpu")
        # ATC's default precision turns float32 into float16 where a kernel has only that.
        asked = {"?", {"float64": "double"}.get(first.dtype, first.dtype)}
        asked |= {"float16"} if first.dtype == "float32" else set()
        if asked & core or not core | cpu:
            return []  # a kernel, or nothing known about its kernels
        if set(kernels) == {"aicpu"}:
            fixed = all(t is None or t.constant for t in node.inputs[1:])
            return [Support("partly", "listed on AI CPU only, for every chip; ATC may turn it into another operator "
                            "when its parameters are constants" + (", as here" if fixed else ""), TYPES,
                            "" if fixed else "fold-constants", severity="note", advice="look for it in the profile (op_"
                            "summary)" if fixed else "make its parameters constants: fix the input shapes and fold")]
        if asked & cpu:
            severity = "note" if first.dtype in ("int64", "bool") else "warning"
            return [Support("partly", f"{first.dtype} runs on AI CPU here: slow (AI Core: {_words(core)})", TYPES,
                            "int64-to-int32" if first.dtype == "int64" else "", "fold it away at fixed input shapes, "
                            "cast its input, or leave it on the host", severity)]
        lists = f"AI Core: {_words(core)}; AI CPU: {_words(cpu)}"
        return [Support("partly", f"no kernel listed for {first.dtype} ({lists})", TYPES, "",
                        "cast its input to a type in the list")]

    def findings(self, graph: Graph) -> list[Finding]:
        """Opset, axes, inputs, names, constants: what concerns the model as a whole."""
        from kit.targets.ascend.whole import whole

        return list(whole(graph, self))

    def measured(self, graph: Graph, calibration: Calibration) -> list[Finding]:
        """What the data says: tensors that leave the range of float16."""
        from kit.targets.ascend.float16 import beyond

        return list(beyond(graph, calibration))

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """17, or 16 where operators are used that are registered only so far; never outside every node's range."""
        wanted = Counter(node.operator for node in graph.nodes if not node.domain)
        low, high = max(LOW, self.opsets[0]), min(BEST, self.opsets[1])
        if not wanted.keys() & facts("operators")["operators"].keys():
            return high, f"no operator of this model is in the table; {high} is the usual choice for ATC"
        best = best_opset(wanted, low, high)
        why = f"ATC looks up the exact opset; {low} to {high} are safe for standard operators"
        if high == BEST and best <= PRIVATE_BEST:
            why += f", some in this model are there for {best} but not for {BEST}"
        if graph.opset != best and low <= graph.opset <= high and lost_at(graph.opset, wanted) <= lost_at(best, wanted):
            why += f"; the {graph.opset} of this file is fine too"
        return best, why

    def _unregistered(self, node: Node, place: str) -> Support:
        row = UNREGISTERED.get(node.operator, "custom-domain" if node.domain else "")
        fix = MISSING_FIXES.get(node.operator, "")
        if node.domain:
            return self._refused(row, f"{place} is not registered: ATC has no parser for operators of the domain "
                                 f"{node.domain}", "replace it by standard operators or a registered private one; or "
                                 "export with the standard form of the layer", fix)
        other = facts("operators")["missing"].get(node.operator)
        return self._refused(row, f"{place} is not registered: ATC has no parser for {node.operator}",
                             other or (breaker(row)["fix"] if row else "replace it by standard operators"), fix)

    def _refused(self, row: str, what: str, advice: str, fix: str = "") -> Support:
        source = breaker_source(row) if row else f"{self.source}, operator table"
        return Support("not", what, source, fix, advice)

    def _unknown(self) -> str:
        """What is not known of this chip and this release."""
        said = []
        if not self.family:
            said.append(f"No kernel lists of {self.chip['soc_version']} are known: only the parser's table speaks, and "
                        "no types were looked at.")
        if self.table == "stand-in":
            said.append(f"No operator table of CANN {self.cann} is known: that of later releases stands in for it, "
                        f"inside opset {self.opsets[0]} to {self.opsets[1]}.")
        if self.cann and not self.cann.startswith("8.1"):
            said.append("Types of kernels are those of CANN 8.1.RC1.")
        return " ".join(said)


def lost_at(opset: int, operators: Mapping[str, int]) -> int:
    """How many of these standard operators (name -> how often) ATC knows, but not at this opset."""
    table = facts("operators")["operators"]
    return sum(count for name, count in operators.items() if name in table
               and opset not in _span(table[name]["opsets"]) | _span(table[name].get("released", "")))


def best_opset(operators: Mapping[str, int], low: int = LOW, high: int = BEST) -> int:
    """The opset from ``low`` to ``high`` at which ATC knows most of these standard operators, the highest such."""
    return min(range(low, high + 1), key=lambda opset: (lost_at(opset, operators), high - opset))


NOT_DATA = ("static_only", "input_size", "shape", "axis", "axes", "dimension", "split_dim", "perm", "condition")
PARSER_OWN = ("Constant", "If")  # read by the parser itself: they are in no table of plugins

# Rules of kit.graph that give ATC another form of what it has no parser for.
MISSING_FIXES = {"Gelu": "split-gelu", "GroupNormalization": "split-groupnorm", "Swish": "split-swish",
                 "QuickGelu": "split-swish", "Loop": "unroll-loop", "Scan": "unroll-loop",
                 "QuantizeLinear": "strip-qdq", "DequantizeLinear": "strip-qdq"}
# Operator -> (row of breakers.json, rule) where the file's opset is one at which it is not registered.
REFUSED_BELOW = {"HardSwish": ("hardswish", "split-hardswish"), "GridSample": ("gridsample", ""),
                 "LayerNormalization": ("norm", "split-layernorm"), "Mish": ("gelu", "split-mish")}
# Operators of TensorFlow 1 that a converter has left as they were.
_TF1 = ("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "TensorArrayV3", "VarHandleOp",
        "ReadVariableOp", "VariableV2", "HashTableV2", "LookupTableFindV2", "StringNormalizer", "StringSplit",
        "StringToHashBucketFast", "DecodeJpeg")
# Operator that is in no table -> row of breakers.json that tells of it.
UNREGISTERED = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
                     "QLinearConv", "QLinearMatMul"), "qdq"),
    **dict.fromkeys(("Loop", "Scan"), "loop"), **dict.fromkeys(("Gelu", "Swish", "QuickGelu", "BiasGelu"), "gelu"),
    **dict.fromkeys(("GroupNormalization", "GroupNorm"), "norm"), **dict.fromkeys(_TF1, "tf1-control-flow"),
    **dict.fromkeys(("MultiClassNMS", "MultiClassNMS3", "MatrixNMS", "YoloBox", "EfficientNMS_TRT",
                     "BatchedNMSDynamic_TRT"), "paddle-nms"),
    "DeformConv": "deformconv", "grid_sampler": "gridsample", "ATen": "gridsample"}


def breaker(row: str) -> dict[str, Any]:
    """One row of ``breakers.json``: pattern, symptom, fix, source."""
    return facts("breakers")["breakers"][row]


def breaker_source(row: str) -> str:
    """Who reports that pattern, the first two."""
    return "; ".join(breaker(row)["source"][:2])


def _source(entry: dict[str, Any]) -> str:
    return entry.get("source", ["hicann/ge"])[0]


@functools.cache
def _span(text: str) -> frozenset[int]:
    """``"8-11 13"`` -> {8, 9, 10, 11, 13}."""
    found: set[int] = set()
    for piece in (text or "").split():
        low, _, high = piece.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


def _kernels(types: dict[str, Any], node: Node) -> dict[str, Any]:
    """The kernel that a node becomes: the one for its rank where there are several."""
    first = next((t for t in node.inputs if t is not None), None)
    rank = len(first.shape) if first is not None and first.shape is not None else 4
    wanted = "3D" if rank == 5 else "2D"
    for name, table in types.items():
        if f"{wanted}" in name:
            return table
    return next((table for name, table in types.items() if "3D" not in name), {})


def _accepts(kernels: dict[str, Any], family: str) -> frozenset[str]:
    """Types of the data input in the kernels of a chip family; "?" when they are decided at compile time."""
    for families, ports in kernels.items():
        if family in families.split():
            # Some kernels take sizes or an axis first; the data is then behind them.
            data = [text for port, text in ports.items() if port not in NOT_DATA]
            return frozenset(ports.get("x", data[0] if data else "").split())
    return frozenset()


def _words(types: frozenset[str]) -> str:
    return ", ".join(sorted(types)) or "none"
