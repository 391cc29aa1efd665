"""Tries rules on a model: every edit is measured, and one that moves the answer is found by halving and left out."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.comparison import Parity, TensorParity
from kit.errors import KitError
from kit.graph import files
from kit.graph.feeds import Feeds, kept, outputs
from kit.graph.mapped import mapped
from kit.graph.rule import MOST_ROUNDS, Edit, Rule, RuleCrashed, Setting, apply_one
from kit.model import external_files
from kit.progress import Report, Tick

if TYPE_CHECKING:
    import onnx_ir as ir

Answers = list[dict]
QUIET = 1e-5  # answers below this are rounding
MOVED = sys.float_info.max  # what a rule may move the answer by when that is its purpose: only a failure is more


@dataclass(frozen=True)
class Refused:
    """An edit that was undone at once: how far it moved the answer, or what failed."""

    edit: Edit
    difference: float
    reason: str


@dataclass
class Trial:
    """A model under repair.

    Attributes:
        setting: holds the model as it stands: every edit kept so far, none that was refused.
        source: the file it came from.
        feeds: what it is fed; nothing is measured when there is nothing.
        tolerance: largest relative difference one rule may make.
        skip: edits and rules that are left out; grows by what is refused.
        edits: those kept, each with the difference its rule made.
        left: places left alone, with the reason.
        refused: edits that moved the answer or failed.
        accepted: sentences on rules that moved the answer because that is what they are for.
    """

    setting: Setting
    source: Path
    feeds: list[Feeds]
    tolerance: float
    skip: set[str]
    edits: list[tuple[Edit, float]] = field(default_factory=list)
    left: list[Edit] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    reference: Answers = field(default_factory=list)
    _answers: Answers = field(default_factory=list)

    def run(self, rules: Sequence[Rule], report: Report) -> None:
        """Apply the rules, again and again until none finds anything more."""
        with tempfile.TemporaryDirectory(prefix="kit-fix-") as folder:
            self._folder, self._apart = Path(folder), bool(external_files(self.source))
            self.reference = self._answers = outputs(self.source, self.feeds) if self.feeds else []
            for number in range(MOST_ROUNDS):
                self.left, before = [], len(self.edits)
                for at, rule in enumerate(rules):
                    report(Tick(at, len(rules), f"{rule.name}" + (f", round {number + 1}" if number else "")))
                    self._apply(rule)
                if len(self.edits) == before:
                    break
            report(Tick(len(rules), len(rules), "measured"))

    def parity(self) -> tuple[TensorParity, ...]:
        """How far the model's answers are from the source's now."""
        return _compare(self.reference, self._answers)

    def _apply(self, rule: Rule) -> None:
        """Apply one rule; when it moves the answer, find the edits that do, and apply it without them."""
        start = self.setting.model
        self._limit = MOVED if rule.moves else self.tolerance
        edits, left, difference, answers, reason = self._attempt(start, rule, self.skip)
        if edits and difference > self._limit:
            for culprit in self._culprits(start, rule, edits, reason):
                self.refused.append(culprit)
                self.skip.add(culprit.edit.id)
            edits, left, difference, answers, reason = self._attempt(start, rule, self.skip)
            if edits and difference > self._limit:
                for culprit in self._together(start, rule, edits):
                    self.refused.append(culprit)
                    self.skip.add(culprit.edit.id)
                edits, left, difference, answers, reason = self._attempt(start, rule, self.skip)
        if edits and difference > self._limit:  # what is left finds new places to harm: leave the rule out
            self.skip.add(rule.name)
            self.setting.model = start
            return
        refused = {culprit.edit.id for culprit in self.refused}
        self.left += [edit for edit in left if edit.id not in refused]
        if edits:
            self.edits += [(edit, difference) for edit in edits]
            self._answers = answers
            if rule.moves and difference:
                self.accepted.append(f"{rule.name} moved the answer by {difference:.1e}, as it is meant to: "
                                     f"{rule.moves} Rules after it are compared with the model it left.")
        else:
            self.setting.model = start

    def _attempt(self, start: ir.Model, rule: Rule, skip: Collection[str]
                 ) -> tuple[list[Edit], list[Edit], float, Answers, str]:
        """Apply a rule to a copy of ``start``: edits, places left alone, difference, answers, and what failed."""
        skip = set(skip)
        while True:
            self.setting.model = start.clone()
            try:
                edits, left = apply_one(rule, self.setting, skip, {edit.id for edit, _ in self.edits})
            except RuleCrashed as crash:
                refused = replace(crash.edit, what="")
                self.refused.append(Refused(refused, math.inf, f"the rule failed: {crash.error!r}"))
                self.skip.add(crash.edit.id)
                skip.add(crash.edit.id)
                continue
            if not edits or not self.feeds:
                return edits, left, 0.0, self._answers, ""
            return (edits, left, *self._measure())

    def _measure(self) -> tuple[float, Answers, str]:
        """Run the model as it stands: the largest relative difference to the answers before, inf when it fails."""
        path = self._folder / "model.onnx"
        try:
            graph = files.graph_bytes(self.setting.model) if self._apart else b""
            if graph:
                answers = kept(mapped(graph, self.source.parent, self.source.name), self.feeds)
            else:
                files.write(self.setting.model, path)
                answers = outputs(path, self.feeds)
            moved = difference(self._answers, answers)
        except (KitError, ValueError, TypeError, RuntimeError) as error:  # onnx-ir cannot write it, or it does not run
            said = f"{error} {getattr(error, 'detail', '')}".strip()
            return math.inf, [], "the model no longer runs: " + said.splitlines()[0][:300]
        finally:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
        return moved, answers, ""

    def _together(self, start: ir.Model, rule: Rule, edits: list[Edit]) -> list[Refused]:
        """The edits that are harmless alone and not beside those before them: each is tried with all kept so far."""
        refused: list[Refused] = []
        for at, edit in enumerate(edits):
            later = {other.id for other in edits[at + 1:]} | {other.edit.id for other in refused}
            _, _, difference, _, _ = self._attempt(start, rule, self.skip | later)
            if difference > self._limit:
                refused.append(Refused(edit, difference, "harmless alone, but beside this rule's edits before it it "
                                       f"moves the answer by {difference:.2e}"))
        return refused

    def _culprits(self, start: ir.Model, rule: Rule, edits: list[Edit], reason: str) -> list[Refused]:
        """The edits that move the answer on their own, found by halving: all others of the rule are left out."""

        def search(some: list[Edit]) -> list[Refused]:
            others = {edit.id for edit in edits if edit not in some}
            _, _, difference, _, why = self._attempt(start, rule, self.skip | others)
            if difference <= self._limit:
                return []
            if len(some) == 1:
                words = why or f"it moves the answer by {difference:.2e}, more than the {self.tolerance:g} allowed"
                return [Refused(some[0], difference, words)]
            middle = len(some) // 2
            return search(some[:middle]) + search(some[middle:])

        return search(edits)


def difference(reference: Answers, other: Answers) -> float:
    """How far ``other`` moved, relative to the largest answer (1 at least), and per mille of the Euclidean norm.

    The norm catches what happens to answers that are all small, such as a detector's on an input with nothing to find;
    below 1e-5 they are the rounding of a Sigmoid near 0 and say nothing.
    """
    rows = _compare(reference, other)
    loud = {row.name for row in rows for answer in reference
            if answer[row.name].size and np.abs(answer[row.name].astype(np.float64)).max() > QUIET}
    return max((max(row.relative, row.l2 / 1000 if row.name in loud else 0.0) for row in rows), default=0.0)


def _compare(reference: Answers, other: Answers) -> tuple[TensorParity, ...]:
    parity = Parity()
    for left, right in zip(reference, other, strict=True):
        parity.add(left, right)
    return parity.result()
