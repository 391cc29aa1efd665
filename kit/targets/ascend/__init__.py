"""Huawei Ascend through ATC, judged without CANN: exact look-up of ``domain::opset::operator``, types per chip, limits.

What is known lies in ``operators.json``, ``chips.json`` and ``breakers.json``, each with its source and the date it was
checked. A node that passes everything here can still fail inside ATC; only ATC decides.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.card import bytes_text
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph, Node

_HERE = Path(__file__).parent
_FIRST = ("ascend310p3",)  # offered before the others
FINE_PRINT = ("Judged from carried facts, not by ATC. A registered operator can still fail inside ATC because of its "
              "type, rank or dynamic shape; only a run of ATC decides.")
TYPES = "kernel lists of CANN 8.1.RC1"
LOW, BEST, PRIVATE_BEST, HIGH = 11, 17, 16, 18


@functools.cache
def facts(name: str) -> dict[str, Any]:
    """A data file: ``operators``, ``chips`` or ``breakers``."""
    return json.loads((_HERE / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def chips() -> dict[str, dict[str, Any]]:
    """soc_version in lower case -> its entry, for every chip with operator facts."""
    return {soc.lower(): {"soc_version": soc, **entry} for soc, entry in facts("chips")["chips"].items()
            if "opp_dir" in entry}


def _names() -> tuple[str, ...]:
    found = chips()
    return (*_FIRST, *sorted(set(found) - set(_FIRST)))


NAMES: tuple[str, ...] = _names()


class AscendTarget:
    """One chip, as ATC's ``--soc_version`` names it."""

    opsets = (8, HIGH)
    ir_version = 0
    fine_print = FINE_PRINT
    rule_set = _FIRST[0]  # what ATC takes is decided by its parser, the same for every chip

    def __init__(self, name: str) -> None:
        self.name = name
        self.chip = chips()[name]
        self.family: str = self.chip["opp_dir"]
        self.title = self.chip["soc_version"]
        self.source = f"carried CANN facts ({facts('operators')['checked'].partition(',')[0]})"

    def digest(self) -> str:
        """Of the facts."""
        from kit.record import digest

        return digest([self.name, *(_HERE / f"{name}.json" for name in ("operators", "chips", "breakers"))])

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Look every node up; what is registered is then checked for its type and for known troubles."""
        from kit.targets.ascend.checks import check

        made = []
        for node in graph.nodes:
            said = [self.looked_up(node, graph.opset)]
            if said[0].state != "not" or said[0].shared:
                said += [*self.typed(node), *check(node, graph, self.family)]
            made.append(tuple(dict.fromkeys(said)))
        return made

    def looked_up(self, node: Node, opset: int) -> Support:
        """Is ``domain::opset::operator`` registered? This is all that ATC's parser asks."""
        table = facts("operators")
        version = opset if not node.domain else node.version
        place = f"{node.domain or 'ai.onnx'}::{version}::{node.operator}"
        if node.domain:
            entry = table["other_domains"].get(f"{node.domain}::{node.operator}")
            if entry is None:
                return self._refused("custom-domain", f"{place} is not registered: ATC has no parser for operators of "
                                     f"the domain {node.domain}", "replace it by standard operators or a registered "
                                     "private one; or export with the standard form of the layer")
        else:
            entry = table["operators"].get(node.operator)
        if entry is None:
            other = table["missing"].get(node.operator)
            fix = MISSING_FIXES.get(node.operator, "")
            return self._refused("", f"{place} is not registered: ATC has no parser for {node.operator}",
                                 other or "replace it by standard operators", fix)
        released, current = _span(entry.get("released", "")), _span(entry["opsets"])
        if version not in current | released:
            span = entry["opsets"].replace(" ", ", ")
            if not node.domain and version > HIGH and max(current) <= HIGH:
                return replace(self._refused("opset-range", f"opset {version} is newer than any that ATC registers "
                                             f"({node.operator}: {span})", f"export at opset {BEST}"), shared=True)
            return self._refused("hardswish" if node.operator == "HardSwish" else "opset-range",
                                 f"{place} is not registered: {node.operator} is there for opset {span} only",
                                 "export at an opset in that range" if current else "",
                                 "split-hardswish" if node.operator == "HardSwish" else "")
        if released and version not in released:
            return Support("partly", f"{place} is in current CANN source (9.2-dev), but not in the released table "
                           f"({entry['released']})", _source(entry), advice="check your CANN release, or export at an "
                           "opset that both have")
        return Support("supported", "", _source(entry))

    def typed(self, node: Node) -> list[Support]:
        """Is there a kernel for the first input's type on this chip, on AI Core or at least on AI CPU?"""
        entry = facts("operators")["operators"].get(node.operator, {})
        first = next((t for t in node.inputs if t is not None), None)
        if first is None or node.domain or first.dtype == "?" or first.constant or not entry.get("types"):
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
                            "fold-constants" if first.dtype == "int64" else "", "fold it away at fixed input shapes, "
                            "cast its input, or leave it on the host", severity)]
        lists = f"AI Core: {_words(core)}; AI CPU: {_words(cpu)}"
        return [Support("partly", f"no kernel listed for {first.dtype} ({lists})", TYPES, "",
                        "cast its input to a type in the list")]

    def findings(self, graph: Graph) -> list[Finding]:
        """Opset, axes, inputs and names."""
        from kit.targets.ascend.checks import model_findings

        made = list(model_findings(graph, self))
        size = graph.path.stat().st_size
        if size > 2_000_000_000:
            made.append(Finding("error", "", (), f"the file is {bytes_text(size)}: protobuf stops at 2 GB",
                                breaker_source("two-gigabytes"), advice=breaker("two-gigabytes")["fix"]))
        return made

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """17, or 16 where operators are used that are registered only so far; never outside every node's range."""
        table = facts("operators")["operators"]
        wanted = Counter(node.operator for node in graph.nodes if not node.domain and node.operator in table)
        if not wanted:
            return BEST, "no operator of this model is in the table; 17 is the usual choice for ATC"

        def lost(opset: int) -> int:
            return sum(count for name, count in wanted.items()
                       if opset not in _span(table[name]["opsets"]) | _span(table[name].get("released", "")))

        best = min(range(LOW, BEST + 1), key=lambda opset: (lost(opset), BEST - opset))
        why = f"ATC looks up the exact opset; {LOW} to {BEST} are safe for standard operators"
        if best <= PRIVATE_BEST:
            why += f", some in this model are there for {best} but not for {BEST}"
        if graph.opset != best and LOW <= graph.opset <= BEST and lost(graph.opset) <= lost(best):
            why += f"; the {graph.opset} of this file is fine too"
        return best, why

    def _refused(self, row: str, what: str, advice: str, fix: str = "") -> Support:
        source = breaker_source(row) if row else f"{self.source}, operator table"
        return Support("not", what, source, fix, advice)


NOT_DATA = ("static_only", "input_size", "shape", "axis", "axes", "dimension", "split_dim", "perm", "condition")

# Rules of kit.graph that give ATC another form of what it has no parser for.
MISSING_FIXES = {"Gelu": "split-gelu", "GroupNormalization": "split-groupnorm"}


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
