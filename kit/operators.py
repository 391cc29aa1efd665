"""Audit: every operator of a model, what it costs, whether a target takes it, who says so, and what to do about it.

One run tells everything: unsupported operators, types, dynamic axes, versions, damaged or wasteful parts. Nothing is
executed and external weights stay on the disk. ``audit`` is the stage; ``kit.targets`` says what each target knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from kit import targets
from kit.card import bytes_text
from kit.inspection.costs import Cost, cost
from kit.inspection.findings import STATES, Finding, State, Support, merged, worst
from kit.inspection.graph import Graph, Node, Tensor, graph_of, onnx_source
from kit.inspection.result import Audit, NodeRow, OperatorRow, RuleRow
from kit.model import Model
from kit.options import Help, Options, expect
from kit.progress import Report, Tick, silent
from kit.record import run_stage

__all__ = ["Audit", "AuditOptions", "Finding", "NodeRow", "OperatorRow", "RuleRow", "ask_rules", "audit"]

VERSION = 1
LARGE = 300_000_000  # bytes: the fix rules hold the weights in memory


@dataclass(frozen=True)
class AuditOptions(Options):
    """What the model is to be judged for."""

    target: Annotated[Literal[targets.NAMES], Help("Where the model is going.")] = "onnxruntime"  # type: ignore[valid-type]
    bind: Annotated[tuple[str, ...], Help(
        "Sizes for open axes, such as x=1,3,48,320. Costs and shapes are for these.")] = ()
    rules: Annotated[bool, Help(
        "Also ask the rules of kit.fix what they would do here: takes a second or two.")] = True

    def __post_init__(self) -> None:
        targets.known(self.target)  # an unknown name is answered with the closest ones
        super().__post_init__()


def audit(model: Any, options: AuditOptions = AuditOptions(), *, runs: Path | str | None = None,
          report: Report = silent) -> Audit:
    """Judge a model for a target without running it.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: the target, and sizes for open axes.
        runs: where results are kept.
        report: hears the progress.

    Returns:
        Audit: every operator, every defect; ``bool(...)`` is False when something cannot work as it is.

    Raises:
        BadInput: the file cannot be read, or the options name something that is not there.
    """
    expect(AuditOptions, options)
    source = onnx_source(model, "audit")
    opened = Model.open(source.graph)
    target = targets.get(options.target)

    def work(folder: Path, report: Report) -> Audit:
        report(Tick(0, 4, "reading the graph and inferring shapes"))
        graph = graph_of(opened.path, options.bind)
        report(Tick(1, 4, f"asking about {len(graph.nodes)} nodes: {target.source}"))
        said = target.judge(graph)
        report(Tick(2, 4, "looking for defects"))
        found = _findings(graph, said, target)
        report(Tick(3, 4, "asking the fix rules" if options.rules else "adding up"))
        edits, more = ask_rules(opened, target.rule_set) if options.rules else ([], [])
        made = _audit(graph, said, merged([*found, *more]), target, options, edits)
        report(Tick(4, 4, "audited"))
        return made

    return run_stage("audit", Audit, work, options=options, inputs={"model": opened, "target": target.digest()},
                     name=source.name, version=VERSION, runs=runs, report=report)


def _findings(graph: Graph, said: list[tuple[Support, ...]], target: targets.Target) -> tuple[Finding, ...]:
    from kit.inspection.defects import defects

    found = [*target.findings(graph), *defects(graph, target)]
    for node, supports in zip(graph.nodes, said, strict=True):
        for support in supports:
            if support.reason and support.state != "supported" and not support.shared:
                severity = support.severity or ("error" if support.state == "not" else "warning")
                found.append(Finding(severity, node.label, (node.name,), support.reason, support.source, support.fix,
                                     support.advice))
    return merged(found)


def ask_rules(model: Model, rule_set: str) -> tuple[list[tuple[str, str, str]], list[Finding]]:
    """What the rules of ``kit.graph`` would do: (rule, node, reason to leave it alone or "").

    The second value says why they could not be asked, when they could not.
    """
    if model.size > LARGE:
        return [], [Finding("note", "", (), f"the fix rules were not asked: they need the weights in memory "
                            f"({bytes_text(model.size)})", "the audit", advice="kit.fix asks them")]
    try:
        from kit.graph import applicable

        return applicable(model, rule_set), []
    except Exception as error:  # a rule meets strangers' models; what it trips over must not cost the audit
        text = f"{type(error).__name__}: {error}"[:300]
        return [], [Finding("note", "", (), f"the fix rules could not be asked: {text}", "kit.graph",
                            advice="kit.fix says more; the findings above are not touched by this")]


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
