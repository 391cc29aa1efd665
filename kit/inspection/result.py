"""What an audit says: rows by operator and by node, findings, what the fix rules would do; as words, tables and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kit.card import Card, Table, bytes_text
from kit.errors import unknown
from kit.inspection.findings import FINDING_COLUMNS, STATES, Finding, State, counted
from kit.record import Provenance


@dataclass(frozen=True)
class OperatorRow:
    """One type of operator.

    Attributes:
        operator: type, with the domain when it is not the standard one.
        count: how many nodes.
        shapes: an example, ``1x3x640x640, 16x3x3x3 -> 1x16x320x320``: the node with the most work.
        dtypes: of first inputs, with how many nodes each.
        macs: multiply-accumulates of all of them, at the sizes the audit was made for.
        flops: floating-point operations, likewise.
        bytes: read and written.
        parameters: numbers in their constant inputs.
        state: the worst of its nodes.
        reasons: why it is not simply supported.
        source: who says so.
        fix: rules of ``kit.graph`` that apply, with commas.
        good: how many nodes are supported as they are.
    """

    operator: str
    count: int
    shapes: str
    dtypes: str
    macs: int
    flops: int
    bytes: int
    parameters: int
    state: State
    reasons: tuple[str, ...]
    source: str
    fix: str
    good: int


@dataclass(frozen=True)
class NodeRow:
    """One node; the meaning of the fields is that of ``OperatorRow``."""

    name: str
    operator: str
    shapes: str
    macs: int
    flops: int
    bytes: int
    parameters: int
    state: State


@dataclass(frozen=True)
class RuleRow:
    """What one rule of ``kit.graph`` would do.

    Attributes:
        rule: its name.
        edits: how many places it would change.
        left: how many places it looked at and would leave alone.
        reason: why, for most of those.
        because: why anyone wants this edit.
    """

    rule: str
    edits: int
    left: int
    reason: str
    because: str


@dataclass(frozen=True)
class Audit(Card):
    """What a target makes of a model. False when something in it cannot work as it is.

    Attributes:
        file: name of the model's file.
        target: name of the target.
        target_title: the target with its version.
        opset: of the standard operators.
        ir_version: of the file.
        target_opsets: lowest and highest opset the target takes.
        recommended_opset: best opset to export for this target.
        recommended_why: the reason.
        bound: the input sizes that shapes and costs are for.
        defaulted: True when the audit chose a size for an open axis.
        operators: one row a type, the most work first.
        nodes: one row a node, in the file's order.
        findings: everything worth knowing, errors first.
        total_macs: multiply-accumulates of one run.
        total_flops: floating-point operations of one run.
        total_bytes: read and written, as if nothing stayed in a cache.
        total_parameters: numbers in all initializers and constants.
        weight_bytes: their size.
        fine_print: what this audit does not promise.
        rules: what the target's rules would do; empty when they were not asked.
    """

    file: str
    target: str
    target_title: str
    opset: int
    ir_version: int
    target_opsets: tuple[int, int]
    recommended_opset: int
    recommended_why: str
    bound: dict[str, str]
    defaulted: bool
    operators: tuple[OperatorRow, ...]
    nodes: tuple[NodeRow, ...] = field(repr=False)
    findings: tuple[Finding, ...]
    total_macs: int
    total_flops: int
    total_bytes: int
    total_parameters: int
    weight_bytes: int
    fine_print: str
    rules: tuple[RuleRow, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return not self.of("error")

    @property
    def ok(self) -> bool:
        """True when nothing stands in the way."""
        return bool(self)

    def of(self, severity: Literal["error", "warning", "note"]) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def fixes(self) -> dict[str, int]:
        """Rules of ``kit.graph`` that answer findings by themselves -> how many findings each answers."""
        found: dict[str, int] = {}
        for finding in self.findings:
            if finding.fix:
                found[finding.fix] = found.get(finding.fix, 0) + 1
        return found

    def requests(self) -> dict[str, int]:
        """Rules that answer findings once they are asked for, with the option to give -> how many each answers."""
        found: dict[str, int] = {}
        for finding in self.findings:
            if finding.asked:
                found[finding.asked] = found.get(finding.asked, 0) + 1
        return found

    def title(self) -> str:
        counts = {word: len(self.of(word)) for word in ("error", "warning")}  # type: ignore[arg-type]
        said = ", ".join(counted(n, word) for word, n in counts.items() if n) or "nothing in the way"
        return f"{self.file} for {self.target_title}: {said}"

    def facts(self) -> dict[str, object]:
        states = {state: sum(row.state == state for row in self.operators) for state in STATES}
        size = "; ".join(f"{name}={shape}" for name, shape in self.bound.items())
        example = next((f"{name}={shape.replace('x', ',')}" for name, shape in self.bound.items()), "")
        low, high = self.target_opsets
        fixes, requests = (", ".join(f"{name} ({count})" for name, count in found.items())
                           for found in (self.fixes(), self.requests()))
        return {
            "operators": f"{counted(len(self.operators), 'type')}, {counted(len(self.nodes), 'node')}: " + ", ".join(
                f"{count} {_STATE_WORDS[state]}" for state, count in states.items() if count),
            "opset": f"{self.opset} (target takes {low} to {high}); IR version {self.ir_version}",
            "recommended": f"opset {self.recommended_opset}: {self.recommended_why}",
            "work": f"{_si(self.total_macs)} MACs, {_si(self.total_flops)} FLOPs, {bytes_text(self.total_bytes)} moved "
                    f"a run, at {size}" + (f' (a usual size, chosen here; bind=("{example}",) sets another)'
                                           if self.defaulted else ""),
            "weights": f"{_si(self.total_parameters)} numbers, {bytes_text(self.weight_bytes)}",
            **({"rules that answer findings": fixes} if fixes else {}),
            **({"rules on request": requests} if requests else {}),
            **({"fine print": self.fine_print} if self.fine_print else {}),
        }

    def tables(self) -> Sequence[Table]:
        made = []
        if self.findings:
            made.append(Table("Findings", FINDING_COLUMNS, tuple(f.row() for f in self.findings)))
        rows = tuple((r.operator, r.count, _share(r.flops, self.total_flops), _STATE_WORDS[r.state]
                      + ("" if r.good in (0, r.count) else f" ({r.count - r.good} of {r.count})"),
                      "; ".join(r.reasons[:2]) + (f" and {len(r.reasons) - 2} more" if len(r.reasons) > 2 else ""),
                      r.fix, r.shapes) for r in self.operators)
        made.append(Table("Operators, the most work first",
                          ("operator", "nodes", "FLOPs", "support", "why", "fix rule", "example"), rows))
        if self.rules:
            made.append(Table("What kit.fix would do", ("rule", "edits", "left alone", "mostly because", "what for"),
                              tuple((r.rule, r.edits, r.left, r.reason, r.because) for r in self.rules)))
        top = sorted(self.nodes, key=lambda n: n.flops, reverse=True)[:10]
        made.append(Table("Nodes with the most work", ("node", "operator", "FLOPs", "bytes", "shapes"), tuple(
            (n.name, n.operator, f"{_si(n.flops)} ({_share(n.flops, self.total_flops)})", bytes_text(n.bytes), n.shapes)
            for n in top if n.flops)))
        return made

    def csv(self, table: Literal["findings", "operators", "nodes"] = "operators") -> str:
        """One of the tables in full, as comma-separated text with a header line.

        Raises:
            BadInput: there is no such table.
        """
        known = {"findings": (Finding, self.findings), "operators": (OperatorRow, self.operators),
                 "nodes": (NodeRow, self.nodes)}
        if table not in known:
            raise unknown("table", table, known)
        kind, rows = known[table]
        names = list(kind.__dataclass_fields__)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(getattr(row, name)) for name in names])
        return stream.getvalue()


def _share(part: float, whole: float) -> str:
    if not whole or not part:
        return "0"
    return f"{100 * part / whole:.1f}%" if part / whole >= 0.001 else "<0.1%"


def _si(number: float) -> str:
    for unit in ("", " k", " M", " G", " T"):
        if number < 1000 or unit == " T":
            return f"{number:.0f}{unit}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError("unreachable")


def _cell(value: object) -> object:
    return "; ".join(map(str, value)) if isinstance(value, tuple) else value


_STATE_WORDS = {"supported": "supported", "partly": "partly", "not": "not supported"}
