"""Asks rules what they would do to a model: nothing is kept, measured, or loaded from the disk that need not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kit.graph import files
from kit.graph.rule import Rule, RuleCrashed, Setting, apply, consider
from kit.graph.table import RULES, chosen

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHTY = ("fold-batchnorm", "fold-affine", "merge-initializers")  # they read weights, whatever their size
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Answers:
    """What rules say about a model.

    Attributes:
        rows: (rule, node, reason): reason is "" where the rule edits, otherwise why it leaves the node alone.
        names: of every node as the rules call it, in the order of the file; bodies come after the node they lie in.
        requests: as ``rows``, of rules that were asked besides the target's own and have edited nothing.
        skipped: rules that were not asked, because they read all weights.
        graph: the model after all edits.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    requests: tuple[Row, ...]
    skipped: tuple[str, ...]
    graph: ir.Model = field(repr=False, compare=False)


def ask(path: Path, target: str, *, besides: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        skip: Mapping[str, str] = MappingProxyType({}), weights: bool = True) -> Answers:
    """Apply the target's rules to a copy in memory, and look only with others.

    Args:
        path: of the .onnx file; its weights are mapped, and read only by rules that look at them.
        target: whose rules.
        besides: rules to ask too, without letting them edit -> what they are told (fields of ``Setting``).
        skip: ids of edits that were tried and taken back -> why.
        weights: also ask those rules that read every weight.

    Raises:
        BadInput: no such file or target.
    """
    import onnx_ir as ir

    own = chosen((), target)
    rules = [rule for rule in own if weights or rule.name not in WEIGHTY]
    failed: dict[str, Row] = {}
    while True:
        setting = Setting(files.open_graph(path, light=True), target)
        names = tuple(node.name or "" for node in ir.traversal.RecursiveGraphIterator(setting.model.graph))
        requests = tuple(row for name, told in besides.items()
                         for row in _requested(RULES[name], replace(setting, **told)))
        try:
            edits, left = apply(rules, setting, {*failed, *skip})
        except RuleCrashed as crash:
            failed[crash.edit.id] = (crash.edit.rule, crash.edit.site, f"the rule fails here: {crash.error}")
            continue
        rows = [(edit.rule, edit.site, skip.get(edit.id, edit.reason)) for edit in (*edits, *left)
                if edit.id not in failed]
        return Answers((*rows, *failed.values()), names, requests,
                       tuple(rule.name for rule in own if rule not in rules), setting.model)


def _requested(rule: Rule, setting: Setting) -> list[Row]:
    try:
        return [(edit.rule, edit.site, edit.reason) for edit in consider(rule, setting)]
    except RuleCrashed as crash:
        return [(crash.edit.rule, crash.edit.site, f"the rule fails here: {crash.error}")]
