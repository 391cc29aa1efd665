"""What a rule is, and how rules are applied: every node looked at is either changed or left alone with a reason.

A rule is four functions. ``matches`` says "this is my business", ``blocked`` says why it may not be changed ("" when it
may), ``rewrite`` changes it and says what it did. The audit asks the first two, the fix uses all three, so the two can
never disagree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_ROUNDS = 50  # of one rule; reaching it means that a rule undoes itself
TAKEN, NODES = "kit: names that are taken", "kit: names of nodes"  # kept with a model while one rule goes over it


@dataclass
class Setting:
    """What a rule may know besides the node.

    Attributes:
        model: being worked on; rules change it in place.
        target: the runtime it is meant for; ``ascend`` stands for any chip.
        shapes: input name -> wanted axes: a size, a name, or None to leave that axis.
        opset: version to bring the model to; 0 keeps it, where the target takes it.
        ir_version: highest the target takes; 0 keeps it.
        tensorflow_resize: what TensorFlow's resizes were, where the model's metadata does not say it: ``half_pixel``,
            ``legacy``, ``align_corners``, or "" for not known.
    """

    model: ir.Model
    target: str = "onnxruntime"
    shapes: dict[str, tuple[int | str | None, ...]] = field(default_factory=dict)
    opset: int = 0
    ir_version: int = 0
    tensorflow_resize: str = ""

    @property
    def ascend(self) -> bool:
        """Is it meant for an Ascend chip? What ATC takes is decided by its parser, the same for each."""
        return self.target.startswith("ascend")

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
        moves: why its edits move the answer, and may; "" for every rule but those whose purpose that is.
    """

    name: str
    because: str
    matches: Callable[[Any, Setting], bool]
    blocked: Callable[[Any, Setting], str]
    rewrite: Callable[[Any, Setting], str]
    looks_at: Literal["nodes", "inputs", "nodes and weights", "model"] = "nodes"
    moves: str = ""


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
    nodes: list[ir.Node] = []  # of the model as it stands: gathering them for every rule would cost as much as asking
    for _ in range(MOST_ROUNDS):
        left: list[Edit] = []
        before = len(done)
        for rule in rules:
            nodes = nodes or _nodes(setting.model)
            made, kept = apply_one(rule, setting, skip, {edit.id for edit in done}, nodes)
            done += made
            left += kept
            if made:
                nodes = []
        if len(done) == before:
            break
    return done, left


def apply_one(rule: Rule, setting: Setting, skip: Collection[str] = (), seen: Collection[str] = (),
              nodes: Sequence[ir.Node] = ()) -> tuple[list[Edit], list[Edit]]:
    """Apply one rule until it finds nothing more.

    Args:
        rule: which.
        setting: holds the model, which is changed in place.
        skip: names of rules, or ids of single edits, to leave out.
        seen: ids used up by edits made before.
        nodes: all nodes of the model as it stands, where they are at hand.
    """
    done: list[Edit] = []
    kept: list[Edit] = []
    for _ in range(MOST_ROUNDS):
        made, kept = _round(rule, setting, skip, {*seen, *(edit.id for edit in done)}, () if done else nodes)
        done += made
        if not made:
            break
    return done, kept


def consider(rule: Rule, setting: Setting) -> list[Edit]:
    """Where a rule would edit, or why it would not, when nothing is edited.

    Raises:
        RuleCrashed: the rule raised; names the place.
    """
    found = []
    for thing, site in _sites(rule, setting.model):
        try:
            if rule.matches(thing, setting):
                found.append(Edit(rule.name, site, reason=rule.blocked(thing, setting)))
        except Exception as error:  # as in a round
            raise RuleCrashed(Edit(rule.name, site), error) from error
    return found


def _round(rule: Rule, setting: Setting, skip: Collection[str], seen: set[str],
           nodes: Sequence[ir.Node] = ()) -> tuple[list[Edit], list[Edit]]:
    made, kept = [], []
    for name in (TAKEN, NODES):  # other rules may have changed them
        setting.model.meta.pop(name, None)
    for thing, site in list(_sites(rule, setting.model, nodes)):
        if made and _is_gone(thing, setting.model):
            continue  # an earlier edit of this round took it away
        edit = None
        try:
            if not rule.matches(thing, setting):
                continue
            edit = Edit(rule.name, _numbered(rule.name, site, seen))
            if rule.name in skip or edit.id in skip:
                kept.append(replace(edit, reason="skipped, as asked"))
            elif reason := rule.blocked(thing, setting):
                kept.append(replace(edit, reason=reason))
            else:
                made.append(replace(edit, what=rule.rewrite(thing, setting)))
                seen.add(edit.id)
        except Exception as error:  # a rule meets strangers' models: whatever it trips over must not cost the others
            edit = edit or Edit(rule.name, _numbered(rule.name, site, seen))
            if edit.id not in skip and rule.name not in skip:  # else it is known, and asking again changes nothing
                raise RuleCrashed(edit, error) from error
            kept.append(replace(edit, reason=f"the rule fails here: {error}"))
    return made, kept


def _numbered(rule: str, site: str, seen: Collection[str]) -> str:
    """The site, with a number when the rule has changed something of this name before."""
    found, count = site, 1
    while f"{rule}:{found}" in seen:
        count += 1
        found = f"{site}-{count}"
    return found


def _nodes(model: ir.Model) -> list[ir.Node]:
    import onnx_ir as ir

    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def _sites(rule: Rule, model: ir.Model, nodes: Sequence[ir.Node] = ()) -> Iterator[tuple[Any, str]]:
    if rule.looks_at == "model":
        yield model, "model"
    elif rule.looks_at == "inputs":
        yield from ((value, value.name) for value in model.graph.inputs)
    elif rule.looks_at == "nodes":
        yield from ((node, node.name) for node in nodes or _nodes(model))
    else:  # readers before what they read, so that a dead chain goes in one round
        yield from ((node, node.name) for node in reversed(nodes or _nodes(model)))
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
