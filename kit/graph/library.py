"""onnxscript's rewrite rules as rules of the kit: a node at a time, with the library's own reason when it declines."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kit.graph.rule import NODES, Rule, Setting
from kit.graph.values import Builder, bypass, cannot_bypass, is_op, retire

if TYPE_CHECKING:
    import onnx_ir as ir


@functools.cache
def library_rule(home: str) -> Any:
    """A rule of onnxscript by its place, such as ``_basic_rules.cast_cast_rule``."""
    module, name = home.split(".")
    return getattr(importlib.import_module(f"onnxscript.rewriter.rules.common.{module}"), name)


class _Listener:
    """What a MatchingTracer is to onnxscript: hears why a rule that fits a node declined."""

    reason = ""
    fits = False

    def log(self, rule: Any, graph: Any, node: Any, match: Any, status: Any) -> None:
        if status.name == "CONDITION_FAILED":
            self.fits, self.reason = True, match.reason


def ask(home: str, node: ir.Node, model: ir.Model) -> tuple[bool, str]:
    """Does the pattern fit this node, and if so, why does the library decline ("" if it does not)?"""
    listener = _Listener()
    match = library_rule(home).match(model, node.graph, node, tracer=listener)
    return (True, "") if match else (listener.fits, listener.reason)


def rewrite_with(home: str, node: ir.Node, model: ir.Model, names: Callable[[ir.Node], str]) -> list[ir.Node]:
    """Let the library rewrite what ends at ``node``; its new nodes are named by ``names``.

    Weights that the library makes replace those of the same name: see to unique names first.
    """
    import onnx_ir as ir

    graph = node.graph
    delta = library_rule(home).try_rewrite(model, graph, node)
    if delta is None:
        raise RuntimeError(f"onnxscript's {home} matched {node.name} and then declined")
    builder = Builder(node, model)
    inputs = [value for old in delta.match.nodes for value in old.inputs]
    labels = [names(new) for new in delta.new_nodes]
    for value in delta.new_initializers:
        graph.initializers[value.name] = value
    ir.convenience.replace_nodes_and_values(graph, node, delta.match.nodes, delta.new_nodes, delta.match.outputs,
                                            delta.new_outputs)
    taken = _nodes(model)
    taken.difference_update(old.name for old in delta.match.nodes if old.graph is None)
    for new, label in zip(delta.new_nodes, labels, strict=True):
        new.name = label if label not in taken else builder.free(label)
        taken.add(new.name)
        for value in new.outputs:
            value.name = value.name or builder.free(f"{new.name}_output")
    retire(value for value in inputs if value is not None and value.producer() is not None)
    return list(delta.new_nodes)


def _nodes(model: ir.Model) -> set[str | None]:
    """Names of all nodes, as they were when this rule came to the model, and of those it has made since."""
    import onnx_ir as ir

    if NODES not in model.meta:
        model.meta[NODES] = {other.name for other in ir.traversal.RecursiveGraphIterator(model.graph)}
    return model.meta[NODES]


def tidy(name: str, because: str, op_type: str, homes: tuple[str, ...], said: str,
         fits: Callable[[ir.Node], bool] = lambda node: True) -> Rule:
    """The rule that lets the library's rules ``homes`` simplify a node of ``op_type``.

    Args:
        said: what was done, for the report.
        fits: narrows down which nodes are worth a word when they are left alone.
    """

    def first(node: ir.Node, setting: Setting) -> tuple[str, str]:
        reason = ""
        for home in homes:
            found, why = ask(home, node, setting.model)
            if found and not why:
                return home, ""
            reason = reason or why
        return "", reason

    def matches(node: ir.Node, setting: Setting) -> bool:
        if not is_op(node, op_type):
            return False
        home, reason = first(node, setting)
        return bool(home or (reason and fits(node)))

    def blocked(node: ir.Node, setting: Setting) -> str:
        home, reason = first(node, setting)
        return reason if not home else cannot_bypass(node, node.inputs[0])

    def rewrite(node: ir.Node, setting: Setting) -> str:
        home, _ = first(node, setting)
        before = node.name
        for new in rewrite_with(home, node, setting.model, lambda new: f"{before}/{new.op_type}"):
            if is_op(new, "Identity"):
                bypass(new, new.inputs[0])
        return said

    return Rule(name, because, matches, blocked, rewrite)
