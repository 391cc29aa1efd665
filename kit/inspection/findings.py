"""What an audit can say: how a target takes one node, and what is wrong with a model. Targets and checks make these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
        fix: the rule of ``kit.graph`` that repairs it; empty when none does.
        advice: what a person can do.
        severity: of the finding this becomes; empty: an error for ``not``, a warning for ``partly``.
        shared: a finding about the whole model says it already.
    """

    state: State
    reason: str = ""
    source: str = ""
    fix: str = ""
    advice: str = ""
    severity: Severity | Literal[""] = ""
    shared: bool = False


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
        fix: the rule of ``kit.graph`` that repairs it; empty when none does.
        advice: what a person can do.
    """

    severity: Severity
    operator: str
    nodes: tuple[str, ...]
    what: str
    source: str
    fix: str = ""
    advice: str = ""

    def row(self) -> tuple[object, ...]:
        """For a table with the columns of ``FINDING_COLUMNS``."""
        first = ", ".join(self.nodes[:2]) + (f" and {len(self.nodes) - 2} more" if len(self.nodes) > 2 else "")
        remedy = "; ".join(filter(None, [f"fix rule {self.fix}" if self.fix else "", self.advice]))
        return (self.severity, self.operator or "model", first, self.what, remedy, self.source)


FINDING_COLUMNS = ("severity", "operator", "nodes", "what", "what to do", "who says so")


def counted(number: int, word: str) -> str:
    """``3 nodes``, ``1 node``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def worst(states: Iterable[State]) -> State:
    """The least favourable of several states."""
    return max(states, key=STATES.index, default="supported")


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings that say the same of several nodes become one; errors come first, in the model's order."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for f in findings:
        groups.setdefault((f.severity, f.operator, f.what, f.source, f.fix, f.advice), []).extend(f.nodes)
    made = [Finding(severity, operator, tuple(dict.fromkeys(nodes)), what, source, fix, advice)  # type: ignore[arg-type]
            for (severity, operator, what, source, fix, advice), nodes in groups.items()]
    return tuple(sorted(made, key=lambda f: SEVERITIES.index(f.severity)))
