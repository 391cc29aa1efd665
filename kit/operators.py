"""Audit: every operator of a model, what it costs, whether a target takes it, who says so, and what to do about it.

One run tells everything: unsupported operators, types, dynamic axes, versions, damaged or wasteful parts. Nothing is
executed and external weights stay on the disk. ``audit`` is the stage; ``kit.targets`` says what each target knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from kit import targets
from kit.errors import BadInput
from kit.inspection.costs import Cost, cost
from kit.inspection.defects import checked, defects
from kit.inspection.findings import STATES, Finding, State, Support, merged, worst
from kit.inspection.graph import Graph, Node, Tensor, graph_of, onnx_source
from kit.inspection.repairs import Repairs, repairs
from kit.inspection.result import Audit, NodeRow, OperatorRow, RuleRow
from kit.model import Model
from kit.options import Help, Options, expect
from kit.progress import Report, Tick, silent
from kit.record import run_stage

if TYPE_CHECKING:
    from kit.collecting.result import Calibration

__all__ = ["Audit", "AuditOptions", "Finding", "NodeRow", "OperatorRow", "RuleRow", "audit"]

VERSION = 3


@dataclass(frozen=True)
class AuditOptions(Options):
    """What the model is to be judged for."""

    target: Annotated[Literal[targets.NAMES], Help(  # type: ignore[valid-type]
        "Where the model is going; a chip as ATC's --soc_version has it.")] = "onnxruntime"
    cann: Annotated[Literal[targets.ascend.RELEASES] | None, Help(  # type: ignore[valid-type]
        "CANN release that will build it, for an Ascend chip; not set: any that is known.")] = None
    bind: Annotated[tuple[str, ...], Help(
        "Sizes for open axes, such as x=1,3,48,320. Costs and shapes are for these.")] = ()
    rules: Annotated[bool, Help(
        "Also ask the rules of kit.fix what they would do here; without them a fix rule is a guess.")] = True

    def __post_init__(self) -> None:
        # An unknown name is answered with the closest ones; Ascend310P3 and ascend310p3, 8.1 and 8.1.RC1 are the same.
        object.__setattr__(self, "target", targets.known(self.target))
        object.__setattr__(self, "cann", targets.ascend.release(self.cann))
        super().__post_init__()


def audit(model: Any, options: AuditOptions = AuditOptions(), *, calibration: Calibration | None = None,
          runs: Path | str | None = None, report: Report = silent) -> Audit:
    """Judge a model for a target without running it.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: the target, and sizes for open axes.
        calibration: of this model: what its tensors hold, for a target that computes in float16 (an Ascend chip).
        runs: where results are kept.
        report: hears the progress.

    Returns:
        Audit: every operator, every defect; ``bool(...)`` is False when something cannot work as it is.

    Raises:
        BadInput: the file cannot be read, the options name something that is not there, or a CANN release is given
            for a target that is no Ascend chip.
        StaleResult: the calibration is of another model.
    """
    expect(AuditOptions, options)
    source = onnx_source(model, "audit")
    opened = Model.open(source.graph)
    target = targets.get(options.target, options.cann)
    if calibration is not None:
        _check_calibration(calibration, opened)
    rejected = {edit.id: edit.reason for edit in getattr(model, "rejected", ())}  # where it comes from kit.fix
    measures = calibration is not None and hasattr(target, "measured")  # only some targets compute in float16

    def work(folder: Path, report: Report) -> Audit:
        report(Tick(0, 4, "reading the graph and inferring shapes"))
        graph = graph_of(opened.path, options.bind)
        report(Tick(1, 4, f"asking about {len(graph.nodes)} nodes: {target.source}"))
        said = target.judge(graph)
        report(Tick(2, 4, "looking for defects"))
        found = [*target.findings(graph), *defects(graph, target)]
        of_file = [*checked(graph), *(target.measured(graph, calibration) if measures else ())]
        report(Tick(3, 4, "asking the fix rules" if options.rules else "adding up"))
        by = repairs(opened, graph, target, said, [*found, *of_file], options.bind, rejected) if options.rules \
            else Repairs(graph, target)
        said = by.supports(said)
        every = [*by.findings(found), *by.findings(of_file, judged_again=False), *by.notes, *_of_nodes(graph, said)]
        made = _audit(graph, said, merged(every), target, options, by.rows)
        report(Tick(4, 4, "audited"))
        return made

    inputs = {"model": opened, "target": target.digest(),
              **({"calibration": calibration.statistics} if calibration is not None else {}),
              **({"rejected": rejected} if rejected else {})}
    return run_stage("audit", Audit, work, options=options, inputs=inputs, name=source.name, version=VERSION, runs=runs,
                     report=report)


def _check_calibration(calibration: Any, model: Model) -> None:
    """Refuse what is no calibration, and one of another model."""
    from kit.collecting.result import Calibration

    if not isinstance(calibration, Calibration):
        raise BadInput(f"calibration cannot be {type(calibration).__name__}.",
                       remedy="give the result of kit.calibrate(model, samples)")
    calibration.check(model)


def _of_nodes(graph: Graph, said: list[tuple[Support, ...]]) -> Iterator[Finding]:
    for node, supports in zip(graph.nodes, said, strict=True):
        for support in supports:
            if support.reason and support.state != "supported" and not support.shared:
                severity = support.severity or ("error" if support.state == "not" else "warning")
                yield Finding(severity, node.label, (node.name,), support.reason, support.source, support.fix,
                              support.advice, support.asked, support.left)


def _rule_rows(edits: list[tuple[str, str, str]]) -> tuple[RuleRow, ...]:
    from kit.graph import RULES

    rows = []
    for name in dict.fromkeys(rule for rule, _, _ in edits):
        reasons = [reason for rule, _, reason in edits if rule == name and reason]
        rows.append(RuleRow(name, sum(rule == name and not reason for rule, _, reason in edits), len(reasons),
                            _usual(reasons), RULES[name].because))
    return tuple(rows)


def _usual(reasons: list[str]) -> str:
    """The two commonest kinds of reason, each with its number and an example."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"\S*[\d.]\S*", "#", reason), []).append(reason)  # the same but for names and numbers
    common = sorted(kinds.values(), key=len, reverse=True)[:2]
    return "; ".join(f"{len(same)}: {same[0]}" for same in common)


def _audit(graph: Graph, said: list[tuple[Support, ...]], found: tuple[Finding, ...], target: targets.Target,
           options: AuditOptions, edits: list[tuple[str, str, str]]) -> Audit:
    costs = [cost(node) for node in graph.nodes]
    best, why = target.recommended_opset(graph)
    sizes = [_weight(name, tensor) for name, tensor in graph.weights]
    named = {part.partition("=")[0].strip() for part in options.bind}
    return Audit(
        file=graph.path.name, target=target.name, target_title=target.title, opset=graph.opset,
        ir_version=graph.ir_version, target_opsets=target.opsets, recommended_opset=best, recommended_why=why,
        bound={name: "x".join(map(str, shape)) for name, shape in graph.bound.items()},
        defaulted=any(name not in named and axis not in named for name, _, axis in graph.dynamic),
        operators=_operators(graph, costs, said, edits), rules=_rule_rows(edits),
        nodes=tuple(NodeRow(n.name, n.label, _shapes(n), c.macs, c.flops, c.bytes, c.parameters, _state(s))
                    for n, c, s in zip(graph.nodes, costs, said, strict=True)),
        findings=found,
        total_macs=sum(c.macs for c in costs), total_flops=sum(c.flops for c in costs),
        total_bytes=sum(c.bytes for c in costs), total_parameters=sum(count for count, _ in sizes),
        weight_bytes=sum(size for _, size in sizes), fine_print=target.fine_print)


def _operators(graph: Graph, costs: list[Cost], said: list[tuple[Support, ...]],
               edits: list[tuple[str, str, str]]) -> tuple[OperatorRow, ...]:
    groups: dict[str, list[int]] = {}
    rules: dict[str, list[str]] = {}
    for rule, site, reason in edits:
        rules.setdefault(site, []).extend([rule] if not reason else [])
    for at, node in enumerate(graph.nodes):
        groups.setdefault(node.label, []).append(at)
    rows = []
    for label, places in groups.items():
        heaviest = max(places, key=lambda at: (costs[at].flops, costs[at].bytes))
        states = [_state(said[at]) for at in places]
        state = worst(states)
        speaking = [s for at in places for s in said[at] if s.state != "supported" and s.reason]
        first = next((s for s in speaking if s.state == state), said[places[0]][0] if said[places[0]] else None)
        types: dict[str, int] = {}
        for at in places:
            kind = next((t.dtype for t in graph.nodes[at].inputs if t is not None), "")
            types[kind] = types.get(kind, 0) + bool(kind)
        rows.append(OperatorRow(
            label, len(places), _shapes(graph.nodes[heaviest]),
            ", ".join(f"{name} {count}" for name, count in types.items() if name),
            sum(costs[at].macs for at in places), sum(costs[at].flops for at in places),
            sum(costs[at].bytes for at in places), sum(costs[at].parameters for at in places),
            state, tuple(dict.fromkeys(s.reason for s in sorted(speaking, key=lambda s: -STATES.index(s.state)))),
            first.source if first else "", ", ".join(dict.fromkeys([
                *(s.fix for s in speaking if s.fix),
                *(rule for at in places for rule in rules.get(graph.nodes[at].name, ()))])),
            states.count("supported")))
    return tuple(sorted(rows, key=lambda row: (row.flops, row.bytes, row.count), reverse=True))


def _state(supports: tuple[Support, ...]) -> State:
    return worst(s.state for s in supports)


def _shapes(node: Node) -> str:
    inputs, outputs = (", ".join(str(t) for t in side if t is not None) for side in (node.inputs, node.outputs))
    return f"{inputs} -> {outputs}".strip()


def _weight(name: str, tensor: Any) -> tuple[int, int]:
    from kit.inspection.shape_arithmetic import dtype_name

    made = Tensor(name, dtype_name(tensor.data_type), tuple(tensor.dims), True)
    return prod(tensor.dims), made.bytes
