"""Says of every finding which rule of ``kit.graph`` repairs it, by letting the rules work on a copy in memory.

Where the target can judge a graph in memory, it judges the copy again: what it does not say any more is repaired, and
what it still says no rule can repair. So audit and fix cannot disagree. Where the target reads files, a finding is
repaired when its rule has edited the node, or the node is gone. Rules that need to be told something first, such as
sizes, are asked what they would do if they were.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from kit.card import bytes_text
from kit.inspection.defects import defects
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import LARGE, Graph, graph_from
from kit.model import Model
from kit.targets import Target

Said = list[tuple[Support, ...]]
# Rules about the whole model: which of them has taken a node away, and which has changed what is said about one.
_GONE = ("fold-constants", "drop-unused", "inline-functions")
_CHANGED = ("lower-opset", "raise-opset", *_GONE)


@dataclass
class Repairs:
    """What the rules did to a copy of the model.

    Attributes:
        rows: (rule, node, reason): reason is "" where the rule edits, otherwise why it leaves the node alone; the node
            is called as in the audit.
        notes: what the rules could not be asked.
        asked: False when no rule was asked at all.
        skipped: rules that were not asked, because they read every weight.
        called: name of a node as the rules know it -> as the audit does.
        requests: as ``rows``, of rules that edit only when they are told something.
        here: node -> rule -> reason, of ``rows``; "" where it has edited.
        gone: nodes that are no more.
        after: (node, reason) and (operator, what) of all that the target still says; None where it was not asked.
    """

    graph: Graph
    target: Target
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    asked: bool = False
    skipped: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    here: dict[str, dict[str, str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    after: tuple[set[tuple[str, str]], set[tuple[str, str]]] | None = None

    def supports(self, said: Said) -> Said:
        """The same verdicts, each with the rule that repairs it, or why none does."""
        return [tuple(self._resolved(support, (node.name,), (node.name, support.reason), 0) if support.reason else
                      support for support in supports if self._stands(support, node.name))
                for node, supports in zip(self.graph.nodes, said, strict=True)]

    def findings(self, found: Iterable[Finding], *, judged_again: bool = True) -> list[Finding]:
        """The same for findings.

        Args:
            found: what was found.
            judged_again: the target would find them again in an edited graph; not so for what data has shown.
        """
        return [self._resolved(f, f.nodes, (f.operator, f.what), 1 if judged_again else None) for f in found]

    def _stands(self, support: Support, node: str) -> bool:
        """Has the rule that knows better looked at this node, if it was asked?"""
        return not (support.decides and self.asked) or support.decides in self.here.get(node, {})

    def _resolved(self, thing: Any, nodes: Sequence[str], key: tuple[str, str], kind: int | None) -> Any:
        rule = thing.fix
        if not self.asked:
            return replace(thing, fix="", asked=_request(rule, self.graph, self.target)) if rule in _TOLD else thing
        if self._is_repaired(rule, nodes, key, kind):
            return replace(thing, fix=self._by(rule, nodes))
        return self._unrepaired(thing, rule, nodes, kind) if rule else thing

    def _unrepaired(self, thing: Any, rule: str, nodes: Sequence[str], kind: int | None) -> Any:
        """With the rule that repairs it on request, or the reason why the rule that is about it leaves it."""
        if rule in self.skipped:
            return replace(thing, fix="", left=f"{rule}: not asked here, as it reads every weight; kit.fix asks it")
        sites = [*nodes, *(reader.name for name in nodes for reader in self.graph.readers.get(name, ())), "model"]
        reason = next((why for site in sites if (why := self.here.get(site, {}).get(rule))), "")
        asked = [(node, why) for name, node, why in self.requests if name == rule]
        requests = [why for node, why in asked if node in nodes] or [why for _, why in asked]
        if rule == "fold-constants" and kind == 0 and not reason and self.graph.dynamic:
            rule, requests = "fix-shapes", [""]  # what is computed from open sizes folds once they are fixed
        if "" in requests:
            return replace(thing, fix="", asked=_request(rule, self.graph, self.target))
        reason = reason or next(iter(requests), "")
        return replace(thing, fix="", left=f"{rule}: {reason}" if reason else "")

    def _is_repaired(self, rule: str, nodes: Sequence[str], key: tuple[str, str], kind: int | None) -> bool:
        if not rule and kind != 0:
            return False  # no rule is about it; that its words have changed says nothing
        edits = [name for node in nodes for name, why in self.here.get(node, {}).items() if not why]
        gone = bool(nodes) and set(nodes) <= self.gone
        if self.after is not None and kind is not None:
            return key not in self.after[kind] and (rule in self._edits or bool(edits) or gone)
        return rule in edits or gone or (self.here.get("model", {}).get(rule) == "" and kind != 0 and (
            rule != "fold-constants" or not nodes or bool(self.gone & set(nodes))))

    def _by(self, rule: str, nodes: Sequence[str]) -> str:
        """The rule that did it: the one that was expected, else one that edited the node, else one about the whole."""
        here = [name for node in nodes for name, why in self.here.get(node, {}).items() if not why]
        if rule in here or self.here.get("model", {}).get(rule) == "":
            return rule
        if here:
            return here[0]
        if nodes and set(nodes) <= self._functions and "inline-functions" in self._edits:
            return "inline-functions"
        if rule in self._edits and not (nodes and set(nodes) <= self.gone):
            return rule
        order = _GONE if nodes and set(nodes) <= self.gone else _CHANGED
        return next((name for name in order if name in self._edits), rule)

    @functools.cached_property
    def _functions(self) -> set[str]:
        """Nodes whose operator the model brings along as a function."""
        local = {(function.domain, function.name) for function in self.graph.proto.functions}
        return {node.name for node in self.graph.nodes if (node.domain, node.operator) in local}

    @functools.cached_property
    def _edits(self) -> set[str]:
        """The rules that have edited anything."""
        return {name for name, _, why in self.rows if not why}


def repairs(model: Model, graph: Graph, target: Target, said: Said, found: Iterable[Finding], bind: tuple[str, ...],
            rejected: Mapping[str, str] = MappingProxyType({})) -> Repairs:
    """Let the target's rules work on a copy of the model, in memory.

    Args:
        model: the file.
        graph: the same, walked.
        target: whose rules are asked, and who judges again.
        said: what it said of every node.
        found: what it found besides.
        bind: sizes for open axes, as the graph was walked with.
        rejected: ids of edits that ``kit.fix`` has tried and taken back -> why.
    """
    made = Repairs(graph, target)
    wanted = {thing.fix for thing in (*found, *(s for supports in said for s in supports)) if thing.fix}
    try:
        answers = _ask(made, model, wanted, {name: f"kit.fix took it back: {why}" for name, why in rejected.items()})
    except Exception as error:  # a rule meets strangers' models; what it trips over must not cost the audit
        made.notes.append(Finding("note", "", (), "the fix rules could not be asked: "
                                  f"{type(error).__name__}: {error}"[:300], "kit.graph",
                                  advice="kit.fix says more; the findings above are not touched by this"))
        return made
    made.asked = True
    edited = any(not reason for _, _, reason in made.rows)
    speaks = any(s.reason for supports in said for s in supports) or any(f.fix and f.fix not in _TOLD for f in found)
    if edited and speaks and getattr(target, "judges_memory", False):
        made.after = _judged_again(made, answers.graph, bind)
    return made


def _ask(made: Repairs, model: Model, wanted: set[str], rejected: Mapping[str, str]) -> Any:
    """Ask the rules, and enter what they say under the names that the audit has for nodes."""
    import onnx_ir as ir

    from kit.graph.asking import ask
    from kit.graph.table import RULES, default_rules

    graph, target = made.graph, made.target
    besides = {name: _told(name, graph, target) for name in sorted(wanted & RULES.keys())
               if name in _TOLD or name not in default_rules(target.rule_set)}
    answers = ask(model.path, target.rule_set, besides=besides, skip=rejected, weights=model.size <= LARGE)
    names = [node.name for node in graph.nodes]
    called = dict(zip(answers.names, names, strict=False)) if len(answers.names) == len(names) else {}

    def ours(site: str) -> str:
        plain = site.rpartition("-")[0]  # a second edit of the same node has a number
        return called.get(site) or called.get(plain, site)

    made.rows = [(rule, ours(site), reason) for rule, site, reason in answers.rows]
    made.requests = [(rule, ours(site), reason) for rule, site, reason in answers.requests]
    for rule, site, reason in made.rows:
        known = made.here.setdefault(site, {})
        known[rule] = "" if known.get(rule) == "" else reason
    left = {node.name for node in ir.traversal.RecursiveGraphIterator(answers.graph.graph)}
    made.gone = {called.get(name, name) for name in answers.names if name not in left}
    made.called, made.skipped = called, answers.skipped
    if answers.skipped:
        made.notes.append(Finding("note", "", (), f"{', '.join(answers.skipped)} were not asked: they read every "
                                  f"weight, and those are {bytes_text(model.size)}", "the audit",
                                  advice="kit.fix asks them"))
    return answers


def _judged_again(made: Repairs, edited: Any, bind: tuple[str, ...]) -> tuple[set, set] | None:
    """(node, reason) and (operator, what) of all that the target still says of the edited model."""
    import onnx_ir as ir

    target, called = made.target, made.called
    try:
        after = graph_from(made.graph.path, ir.to_proto(edited), bind)
        said = target.judge(after)
        found = [*target.findings(after), *defects(after, target)]
    except Exception:  # an edited graph that cannot be walked: then the rules' own words have to do
        return None
    stands = {(called.get(node.name, node.name), s.reason) for node, supports in zip(after.nodes, said, strict=True)
              for s in supports if not s.decides or made.here.get(called.get(node.name, node.name), {}).get(s.decides)}
    return stands, {(f.operator, f.what) for f in found}


# Rules that do nothing until they are told something -> what, as a keyword of FixOptions.
_TOLD = {"fix-shapes": "shapes", "raise-opset": "opset", "lower-opset": "opset", "lower-ir-version": "ir_version"}


def _told(rule: str, graph: Graph, target: Target) -> Mapping[str, Any]:
    """What to tell a rule, as fields of ``kit.graph.rule.Setting``."""
    if rule == "fix-shapes":
        return {"shapes": {name: graph.bound[name] for name, _, _ in graph.dynamic}}
    if rule == "lower-ir-version":
        return {"ir_version": _ir_version(target)}
    return {"opset": target.recommended_opset(graph)[0]} if rule in _TOLD else {}


def _request(rule: str, graph: Graph, target: Target) -> str:
    """The rule with the option that has ``kit.fix`` apply it."""
    option = _TOLD.get(rule)
    if option == "shapes":
        told = tuple(f"{name}={','.join(map(str, graph.bound[name]))}" for name in dict.fromkeys(
            name for name, _, _ in graph.dynamic))
    elif option:
        told = next(iter(_told(rule, graph, target).values()))
    else:
        option, told = "rules", (rule,)
    return f"{rule} with {option}={told!r}".replace("'", '"')


def _ir_version(target: Target) -> int:
    import onnx

    return min(target.ir_version or onnx.IR_VERSION, onnx.IR_VERSION)
