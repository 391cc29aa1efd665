"""What a model can be moved to, and what is known about each: facts as data, checks as small functions.

``get(name)`` gives a target; its ``judge`` says of every node whether the target takes it, and who says so. A runtime
installed here is asked itself; a compiler that is not here is judged from carried facts with their source.
"""

from __future__ import annotations

from typing import Protocol

from kit.errors import unknown
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph
from kit.targets import ascend

NAMES: tuple[str, ...] = ("onnxruntime", "openvino", *ascend.NAMES)


class Target(Protocol):
    """One destination of a migration.

    Attributes:
        name: what options call it.
        title: what people call it, with its version where it is installed.
        source: who speaks when this target judges.
        opsets: lowest and highest version of the standard operators that it takes.
        ir_version: highest it takes; 0 when it does not care.
        fine_print: what a good audit does not promise; empty when there is nothing to add.
        rule_set: the target whose default rules of ``kit.graph`` suit this one.
    """

    name: str
    title: str
    source: str
    opsets: tuple[int, int]
    ir_version: int
    fine_print: str
    rule_set: str

    def digest(self) -> str:
        """Changes when the target may judge differently."""

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Everything to say about each node, in the order of ``graph.nodes``; the first entry names the source."""

    def findings(self, graph: Graph) -> list[Finding]:
        """What it says about the model as a whole."""

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """The opset to export for this target, and why."""


def get(name: str) -> Target:
    """The target of that name; upper and lower case are the same.

    Raises:
        BadInput: there is no such target; names the closest.
    """
    plain = known(name)
    if plain == "onnxruntime":
        from kit.targets.onnxruntime import OnnxRuntimeTarget

        return OnnxRuntimeTarget()
    if plain == "openvino":
        from kit.targets.openvino import OpenVinoTarget

        return OpenVinoTarget()
    return ascend.AscendTarget(plain)


def known(name: str) -> str:
    """The name as the table has it. Nothing is imported or asked.

    Raises:
        BadInput: there is no such target; names the closest.
    """
    plain = name.strip().lower()
    if plain not in NAMES:
        raise unknown("target", name, NAMES)
    return plain
