"""What an audit can say: how a target takes one node, and what is wrong with a model. Targets and checks make these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["supported", "partly", "not"]
Severity = Literal["error", "warning", "note"]

STATES: tuple[State, ...] = ("supported", "partly", "not")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Support:
    """How a target takes one node.

    Attributes:
        state: ``supported``; ``partly``: it runs with a catch; ``not``: it cannot run as it is.
        reason: a sentence about the catch; empty when there is nothing to say.
        source: who says so.
        fix: the rule of ``kit.graph`` that may repair it; empty when none does. The audit asks the rule.
        advice: what a person can do.
        severity: of the finding this becomes; empty: an error for ``not``, a warning for ``partly``.
        shared: a finding about the whole model says it already.
        decides: the rule that knows better whether there is anything to say: where it was asked and finds nothing to
            look at in this node, nothing is said.
        asked: as in ``Finding``.
        left: as in ``Finding``.
    """

    state: State
    reason: str = ""
    source: str = ""
    fix: str = ""
    advice: str = ""
    severity: Severity | Literal[""] = ""
    shared: bool = False
    decides: str = ""
    asked: str = ""
    left: str = ""


@dataclass(frozen=True)
class Finding:
    """Something about the model that a migration should know.

    Attributes:
        severity: ``error``: the target cannot take the model so; ``warning``: it may fail, be slow or answer
            differently; ``note``: worth knowing.
        operator: its type, with the domain when it is not the standard one; empty for a finding about the model.
        nodes: names of the nodes concerned; empty for the model.
        what: what is wrong, in a sentence.
        source: who says so.
        fix: the rule by which ``kit.fix`` for this target repairs it, as it stands; empty when none does.
        advice: what a person can do.
        asked: a rule that repairs it when it is asked for, with the option to give, such as ``fix-shapes with
            shapes=("x=1,3,640,640",)``; empty when none does.
        left: why a rule that is about such things leaves this alone; empty when none is.
    """

    severity: Severity
    operator: str
    nodes: tuple[str, ...]
    what: str
    source: str
    fix: str = ""
    advice: str = ""
    asked: str = ""
    left: str = ""

    @property
    def remedy(self) -> str:
        """The rule that repairs it, or that none can, and what a person can do."""
        rule = (f"fix rule {self.fix}" if self.fix else f"on request: fix rule {self.asked}" if self.asked
                else "no rule repairs it" + (f" ({self.left})" if self.left else ""))
        return "; ".join(filter(None, [rule, self.advice]))

    def row(self) -> tuple[object, ...]:
        """For a table with the columns of ``FINDING_COLUMNS``."""
        first = ", ".join(self.nodes[:2]) + (f" and {len(self.nodes) - 2} more" if len(self.nodes) > 2 else "")
        return (self.severity, self.operator or "model", first, self.what, self.remedy, self.source)


FINDING_COLUMNS = ("severity", "operator", "nodes", "what", "what to do", "who says so")


def counted(number: int, word: str) -> str:
    """``3 nodes``, ``1 node``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def worst(states: Iterable[State]) -> State:
    """The least favourable of several states."""
    return max(states, key=STATES.index, default="supported")


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that say the same of several nodes become one; errors come first, in the model's order."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.severity, f.operator, f.what, f.source, f.fix, f.advice, f.asked), []).append(f)
    made = [replace(same[0], nodes=tuple(dict.fromkeys(name for f in same for name in f.nodes)),
                    left=_few([f.left for f in same])) for same in groups.values()]
    return tuple(sorted(made, key=lambda f: SEVERITIES.index(f.severity)))


def _few(reasons: Iterable[str]) -> str:
    """The first two of several reasons, which are much alike, and how many more there are."""
    found = list(dict.fromkeys(filter(None, reasons)))
    return "; ".join(found[:2]) + (f"; and {len(found) - 2} more like these" if len(found) > 2 else "")
