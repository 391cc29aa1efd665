"""What a rule is, and how rules are applied: every node looked at is either changed or left alone with a reason.

A rule is four functions. ``matches`` says "this is my business", ``blocked`` says why it may not be changed ("" when it
may), ``rewrite`` changes it and says what it did. The audit asks the first two, the fix uses all three, so the two can
never disagree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_ROUNDS = 50  # of one rule; reaching it means that a rule undoes itself


@dataclass
class Setting:
    """What a rule may know besides the node.

    Attributes:
        model: being worked on; rules change it in place.
        target: the runtime it is meant for.
        shapes: input name -> wanted axes: a size, a name, or None to leave that axis.
        opset: version to raise the model to; 0 keeps it.
        ir_version: highest the target takes; 0 keeps it.
    """

    model: ir.Model
    target: str = "onnxruntime"
    shapes: dict[str, tuple[int | str | None, ...]] = field(default_factory=dict)
    opset: int = 0
    ir_version: int = 0

    @property
    def version(self) -> int:
        """The opset the model has now."""
        return self.model.opset_imports.get("", 1)


@dataclass(frozen=True)
class Rule:
    """One kind of edit.

    Attributes:
        name: what a reader types to ask for it, such as ``merge-hardswish``.
        because: one sentence for the report: why anyone wants this edit.
        matches: is this thing what the rule is about?
        blocked: why it must stay as it is; "" when it may be changed.
        rewrite: changes it in place; returns what it did, in words.
        looks_at: what is handed to the three functions.
    """

    name: str
    because: str
    matches: Callable[[Any, Setting], bool]
    blocked: Callable[[Any, Setting], str]
    rewrite: Callable[[Any, Setting], str]
    looks_at: Literal["nodes", "inputs", "nodes and weights", "model"] = "nodes"


@dataclass(frozen=True)
class Edit:
    """One application of a rule, or the decision against it (then ``reason`` says why)."""

    rule: str
    site: str
    what: str = ""
    reason: str = ""

    @property
    def id(self) -> str:
        """What ``undo`` and ``skip`` take."""
        return f"{self.rule}:{self.site}"


class RuleCrashed(Exception):
    """A rule raised an exception; the model it was working on is in an unknown state."""

    def __init__(self, edit: Edit, error: Exception) -> None:
        super().__init__(f"{edit.id}: {error!r}")
        self.edit, self.error = edit, error


def apply(rules: Iterable[Rule], setting: Setting, skip: Collection[str] = ()) -> tuple[list[Edit], list[Edit]]:
    """Apply the rules in order wherever it is safe, again and again until none finds anything more.

    Args:
        rules: in order.
        setting: holds the model, which is changed in place.
        skip: names of rules, or ids of single edits, to leave out.

    Returns:
        The edits made, and the places looked at and left alone, each with the reason.

    Raises:
        RuleCrashed: a rule raised; names the rule and the place.
    """
    done: list[Edit] = []
    rules = tuple(rules)
    for _ in range(MOST_ROUNDS):
        left: list[Edit] = []
        before = len(done)
        for rule in rules:
            made, kept = apply_one(rule, setting, skip, {edit.id for edit in done})
            done += made
            left += kept
        if len(done) == before:
            break
    return done, left


def apply_one(rule: Rule, setting: Setting, skip: Collection[str] = (),
              seen: Collection[str] = ()) -> tuple[list[Edit], list[Edit]]:
    """Apply one rule until it finds nothing more; ``seen`` are ids used up by edits made before."""
    done: list[Edit] = []
    kept: list[Edit] = []
    for _ in range(MOST_ROUNDS):
        made, kept = _round(rule, setting, skip, {*seen, *(edit.id for edit in done)})
        done += made
        if not made:
            break
    return done, kept


def _round(rule: Rule, setting: Setting, skip: Collection[str], seen: set[str]) -> tuple[list[Edit], list[Edit]]:
    made, kept = [], []
    for thing, site in list(_sites(rule, setting.model)):
        if _is_gone(thing, setting.model):
            continue  # an earlier edit of this round took it away
        edit = Edit(rule.name, _numbered(rule.name, site, seen))
        try:
            if not rule.matches(thing, setting):
                continue
            if rule.name in skip or edit.id in skip:
                kept.append(replace(edit, reason="skipped, as asked"))
            elif reason := rule.blocked(thing, setting):
                kept.append(replace(edit, reason=reason))
            else:
                made.append(replace(edit, what=rule.rewrite(thing, setting)))
                seen.add(edit.id)
        except Exception as error:  # a rule meets strangers' models: whatever it trips over must not cost the others
            raise RuleCrashed(edit, error) from error
    return made, kept


def _numbered(rule: str, site: str, seen: Collection[str]) -> str:
    """The site, with a number when the rule has changed something of this name before."""
    found, count = site, 1
    while f"{rule}:{found}" in seen:
        count += 1
        found = f"{site}-{count}"
    return found


def _sites(rule: Rule, model: ir.Model) -> Iterator[tuple[Any, str]]:
    import onnx_ir as ir

    if rule.looks_at == "model":
        yield model, "model"
    elif rule.looks_at == "inputs":
        yield from ((value, value.name) for value in model.graph.inputs)
    elif rule.looks_at == "nodes":
        yield from ((node, node.name) for node in ir.traversal.RecursiveGraphIterator(model.graph))
    else:  # readers before what they read, so that a dead chain goes in one round
        nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
        yield from ((node, node.name) for node in reversed(nodes))
        yield from ((value, name) for name, value in list(model.graph.initializers.items()))


def _is_gone(thing: Any, model: ir.Model) -> bool:
    import onnx_ir as ir

    if isinstance(thing, ir.Node):
        return thing.graph is None
    return isinstance(thing, ir.Value) and not (
        thing.is_graph_input() or model.graph.initializers.get(thing.name) is thing)


def quiet_library() -> contextlib.AbstractContextManager:
    """Keep onnx-ir's and onnxscript's log lines out of a notebook: what matters is in the result."""
    import logging

    @contextlib.contextmanager
    def hushed():
        loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

    return hushed()
