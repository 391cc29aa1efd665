"""What ``fix`` is asked for and what it answers: the options, and the account of every edit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from kit import targets
from kit.card import Card, Table, bytes_text
from kit.comparison import PARITY_COLUMNS, TensorParity, worst
from kit.errors import StaleResult, unknown
from kit.inspection.findings import counted
from kit.model import Model
from kit.options import Help, Options, Range
from kit.progress import Report, silent
from kit.record import Provenance, digest


@dataclass(frozen=True)
class FixOptions(Options):
    """What to edit, and for which runtime."""

    target: Annotated[Literal[targets.NAMES], Help(  # type: ignore[valid-type]
        "Where the model will run: decides which operators are merged, split or written in another form."
    )] = "onnxruntime"
    rules: Annotated[tuple[str, ...], Help("Rules to apply; empty for the target's own set.")] = ()
    skip: Annotated[tuple[str, ...], Help(
        "Rules, or single edits such as merge-hardswish:Mul_12, to leave out.")] = ()
    opset: Annotated[int, Range(0, 24, 1), Help(
        "Bring the model to this opset, up or down; 0 keeps its own, for Ascend within 11 to 17. HardSwish needs 14, "
        "LayerNormalization 17.")] = 0
    shapes: Annotated[tuple[str, ...], Help(
        "Sizes or names of input axes: x=1,3,640,640 or x=batch,3,height,width; ? leaves an axis.")] = ()
    ir_version: Annotated[int, Range(0, 13, 1), Help(
        "Highest IR version the runtime takes; 0 keeps the file's. A newer one is stamped down if it can be.")] = 0
    tensorflow_resize: Annotated[Literal["", "half_pixel", "legacy", "align_corners"], Help(
        "For the rule resize-like-tensorflow: how TensorFlow resized (half_pixel: TensorFlow 2). Empty: as the "
        "metadata of a model from kit.export says.")] = ""
    check: Annotated[bool, Help(
        "Compare the answers after every rule; off only for a model that ONNX Runtime cannot run.")] = True
    tolerance: Annotated[float, Range(0.0, 1.0), Help(
        "Largest difference one rule may make, relative to the largest output. Re-ordered float32 sums stay near 1e-6; "
        "give 1e-2 for float16 models.")] = 1e-4
    samples: Annotated[int, Range(1, 32, 1), Help(
        "How many samples, or made-up inputs, the answers are compared on.")] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", targets.known(self.target))  # upper and lower case are the same
        super().__post_init__()


@dataclass(frozen=True)
class Change:
    """One edit that was kept.

    Attributes:
        id: what ``undo`` takes: rule and place.
        rule: its name.
        node: where.
        what: what was done, in words.
        because: why anyone wants it.
        difference: how far this rule's edits together moved the answers, relative; 0 when nothing was measured.
    """

    id: str
    rule: str
    node: str
    what: str
    because: str
    difference: float


@dataclass(frozen=True)
class LeftAlone:
    """A place that a rule looked at and did not touch, and why."""

    rule: str
    node: str
    reason: str


@dataclass(frozen=True)
class Rejected:
    """An edit that was tried and taken back: it moved the answer by ``difference`` (inf: the model no longer ran)."""

    id: str
    rule: str
    node: str
    difference: float
    reason: str


@dataclass(frozen=True)
class Fixed(Card):
    """A repaired model, and an account of every edit.

    Attributes:
        model: the repaired file.
        source: what it was made from.
        options: as asked for.
        changes: every edit kept, in order.
        left_alone: every place looked at and not touched, with the reason.
        rejected: every edit taken back, with the measured difference.
        operators_before: operator -> how often it occurs in the source.
        operators_after: the same for the repaired model.
        parity: repaired model against source, output by output, over everything fed.
        checked_on: what was fed, in words; "" when nothing was measured.
        size_before: bytes of the source.
        notes: sentences for the reader.
    """

    model: Model
    source: Model
    options: FixOptions
    changes: tuple[Change, ...]
    left_alone: tuple[LeftAlone, ...]
    rejected: tuple[Rejected, ...]
    operators_before: dict[str, int]
    operators_after: dict[str, int]
    parity: tuple[TensorParity, ...]
    checked_on: str
    size_before: int
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    def undo(self, *changes: str, samples: Any = None, runs: Path | str | None = None,
             report: Report = silent) -> Fixed:
        """Fix the source again without these edits.

        Args:
            changes: ids of edits (``merge-hardswish:Mul_12``), or names of rules for all of theirs.
            samples: as given to ``fix``.
            runs: where results go; beside this one by default.

        Raises:
            BadInput: no such edit or rule.
            StaleResult: the source is not the file any more that this was made from.
        """
        known = {change.id for change in self.changes} | {change.rule for change in self.changes}
        for name in changes:
            if name not in known:
                raise unknown("edit", name, known, self.model.path.name)
        if self.provenance and digest(Model.open(self.source.path)) != self.provenance.inputs["model"]:
            raise StaleResult(f"{self.source.path} was changed after it was fixed ({self.provenance.made}).",
                              remedy="fix it again: the edits may be others now")
        if runs is None and self.provenance:
            runs = self.provenance.folder.parent.parent
        from kit.graph.fixing import fix

        skip = tuple(dict.fromkeys([*self.options.skip, *changes]))
        return fix(self.source, replace(self.options, skip=skip), samples=samples, runs=runs, report=report)

    def counts(self) -> dict[str, int]:
        """Rule -> how many edits of it were kept, in order."""
        found: dict[str, int] = {}
        for change in self.changes:
            found[change.rule] = found.get(change.rule, 0) + 1
        return found

    def title(self) -> str:
        if not self.changes:
            return f"{self.source.path.name}: nothing to fix for {self.options.target}"
        before, after = sum(self.operators_before.values()), sum(self.operators_after.values())
        found = worst(self.parity)
        answer = f"answers within {found.relative:.1e}" if found else "answers not compared"
        edits, rules = counted(len(self.changes), "edit"), counted(len(self.counts()), "rule")
        return f"{self.source.path.name}: {edits} by {rules}, {counted(before, 'node')} became {after}, {answer}"

    def facts(self) -> dict[str, object]:
        return {
            "target": self.options.target,
            "opset": f"{self.source.opset} -> {self.model.opset}" if self.source.opset != self.model.opset
            else self.model.opset,
            "size": f"{bytes_text(self.size_before)} -> {bytes_text(self.model.size)}",
            **({"compared on": self.checked_on} if self.checked_on else {}),
            **({"taken back": f"{len(self.rejected)} edits that moved the answer"} if self.rejected else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        found = [Table("Edits by rule", ("rule", "edits", "moved the answer by", "because"), self._by_rule()),
                 Table("Operators", ("operator", "before", "after", "difference"), self._operators())]
        if self.changes:
            found.append(Table("Edits, each can be undone: fixed.undo(...)", ("edit", "what"),
                               tuple((change.id, change.what) for change in self.changes)))
        if self.rejected:
            found.append(Table("Taken back", ("edit", "difference", "why"), tuple(
                (r.id, f"{r.difference:.2e}", r.reason) for r in self.rejected)))
        if self.left_alone:
            found.append(Table("Left alone", ("rule", "nodes", "first", "why"), _grouped(self.left_alone)))
        if self.parity:
            found.append(Table("Answers, fixed against source", PARITY_COLUMNS,
                               tuple(row.row() for row in self.parity)))
        return tuple(table for table in found if table.rows)

    def _by_rule(self) -> tuple[tuple[object, ...], ...]:
        rows = []
        for rule, count in self.counts().items():
            own = [change for change in self.changes if change.rule == rule]
            moved = f"{max(change.difference for change in own):.1e}" if self.checked_on else "not measured"
            rows.append((rule, count, moved, own[0].because))
        return tuple(rows)

    def _operators(self) -> tuple[tuple[object, ...], ...]:
        """Those whose number changed first, largest change first; then the others."""
        names = {*self.operators_before, *self.operators_after}
        rows = [(name, self.operators_before.get(name, 0), self.operators_after.get(name, 0)) for name in names]
        rows.sort(key=lambda row: (-abs(row[2] - row[1]), -row[1], row[0]))
        return tuple((*row, f"{row[2] - row[1]:+d}" if row[2] != row[1] else "") for row in rows)


def _grouped(left: tuple[LeftAlone, ...]) -> tuple[tuple[object, ...], ...]:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in left:
        groups.setdefault((row.rule, row.reason), []).append(row.node)
    return tuple((rule, len(nodes), nodes[0], reason) for (rule, reason), nodes in groups.items())
