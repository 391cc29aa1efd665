"""What a model can be moved to, and what is known about each: facts as data, checks as small functions.

``get(name)`` gives a target; its ``judge`` says of every node whether the target takes it, and who says so. A runtime
installed here is asked itself; a compiler that is not here is judged from carried facts with their source.
"""

from __future__ import annotations

from typing import Protocol

from kit.errors import BadInput, unknown
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph
from kit.targets import ascend

NAMES: tuple[str, ...] = ("onnxruntime", "openvino", *ascend.NAMES, "onnxruntime-cann")


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


def get(name: str, cann: str | None = None) -> Target:
    """The target of that name; upper and lower case are the same.

    Args:
        name: of a runtime, or an Ascend chip as ATC's ``--soc_version`` has it.
        cann: the CANN release on the box, for an Ascend chip; None or "": any.

    Raises:
        BadInput: there is no such target or release; names the valid ones.
    """
    plain = known(name)
    if cann and plain not in ascend.NAMES:
        raise BadInput(f"cann={cann!r} says something about an Ascend chip, and the target is {plain}.",
                       remedy="leave cann out, or choose a chip such as ascend310p3")
    if plain == "onnxruntime":
        from kit.targets.onnxruntime import OnnxRuntimeTarget

        return OnnxRuntimeTarget()
    if plain == "openvino":
        from kit.targets.openvino import OpenVinoTarget

        return OpenVinoTarget()
    if plain == "onnxruntime-cann":
        from kit.targets.onnxruntime_cann import OnnxRuntimeCannTarget

        return OnnxRuntimeCannTarget()
    return ascend.AscendTarget(plain, cann)


def known(name: str) -> str:
    """The name as the table has it. Nothing is imported or asked.

    Raises:
        BadInput: there is no such target; names the closest, or the chips that ATC takes.
    """
    plain = name.strip().lower()
    if plain in NAMES:
        return plain
    if ascend.is_ours(name):
        return ascend.known(name)
    raise unknown("target", name, NAMES)
