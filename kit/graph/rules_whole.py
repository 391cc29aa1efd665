"""Rules about a model as a whole: constants computed once, functions written out, versions that suit the target."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.graph.inference import infer
from kit.graph.rule import Rule, Setting, quiet_library
from kit.graph.values import name_nodes, retire

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = 1 << 20  # elements of a folded constant: a larger one costs more in the file than it saves


def operators(model: ir.Model) -> Counter[str]:
    """How often each operator occurs, subgraphs included; other domains as ``domain.Operator``."""
    import onnx_ir as ir

    return Counter(f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
                   for node in ir.traversal.RecursiveGraphIterator(model.graph))


def whole(name: str, because: str, run: Callable[[ir.Model, Setting], str],
          wanted: Callable[[ir.Model, Setting], bool],
          blocked: Callable[[ir.Model, Setting], str] = lambda model, setting: "") -> Rule:
    """A rule about the model as a whole: one edit, done by a pass of onnx-ir or onnxscript that says what it did."""

    def rewrite(model: ir.Model, setting: Setting) -> str:
        with quiet_library():
            said = run(model, setting)
        name_nodes(model)
        return said

    return Rule(name, because, wanted, blocked, rewrite, "model")


def _difference(before: Counter, after: Counter) -> str:
    gone = before - after
    return ", ".join(f"{count} {kind}" for kind, count in sorted(gone.items(), key=lambda item: (-item[1], item[0])))


def _fold(model: ir.Model, setting: Setting) -> str:
    """Compute what is constant, onnxscript's way, until nothing more turns up; "" when nothing was."""
    import onnx_ir as ir
    from onnxscript.optimizer import FOLDED_FROM_KEY

    before = after = operators(model)
    for _ in range(5):
        step, after = after, _fold_once(model)
        if after == step:
            break
        infer(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:  # the library's notes on where a constant came from
            value.metadata_props.pop(FOLDED_FROM_KEY, None)
    for value in model.graph.initializers.values():
        value.metadata_props.pop(FOLDED_FROM_KEY, None)
    return f"computed ahead: {_difference(before, after) or 'shapes'}" if after != before else ""


def _folds(model: ir.Model) -> bool:
    """Is there anything to compute ahead? Asked of a copy, first without inference, as that is often enough."""
    before, copy = operators(model), model.clone()
    return _fold_once(copy, infers=False) != before or (not _all_known(model) and _fold_once(copy) != before)


def _fold_once(model: ir.Model, *, infers: bool | None = None) -> Counter[str]:
    """Compute what is constant now, and take away what nothing reads any more; gives the operators that are left.

    Args:
        model: changed in place.
        infers: let the library infer shapes on the way, node by node, which takes ten times as long as the rest; where
            all are known it adds none, and None says so.
    """
    from onnxscript.optimizer import fold_constants

    infers = not _all_known(model) if infers is None else infers
    with quiet_library():
        fold_constants(model, onnx_shape_inference=infers, output_size_limit=LARGEST)
    dead = [node for node in model.graph if not any(v.uses() or v.is_graph_output() for v in node.outputs)]
    for node in reversed(dead):
        if node.graph is not None:
            inputs = list(node.inputs)
            model.graph.remove(node, safe=True)
            retire(inputs)
    return operators(model)


def _all_known(model: ir.Model) -> bool:
    """Has every value a type and axes, each with a size or a name?"""
    import onnx_ir as ir

    return all(value.dtype is not None and value.shape is not None
               and all(isinstance(axis, int) or axis.value for axis in value.shape)
               for node in ir.traversal.RecursiveGraphIterator(model.graph) for value in node.outputs if value.name)


def _lifts(model: ir.Model) -> bool:
    """Is there a Constant node that the pass takes? One that is an output itself, of a branch too, stays a node."""
    import onnx_ir as ir

    return any(node.op_type == "Constant" and not node.domain and [*node.attributes] != ["sparse_value"]
               and not node.outputs[0].is_graph_output() for node in ir.traversal.RecursiveGraphIterator(model.graph))


def _lift(model: ir.Model, setting: Setting) -> str:
    import onnx_ir.passes.common as common

    before = operators(model)["Constant"]
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return f"{before - operators(model)['Constant']} Constant nodes became initializers"


def _repeats(model: ir.Model) -> bool:
    """Has any small weight the content of another one? Quicker than to let the pass try it on a copy."""
    seen = set()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes > LARGEST or tensor.dtype.name == "STRING":
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), hashlib.blake2b(tensor.tobytes(), digest_size=16).digest())
        if key in seen:
            return True
        seen.add(key)
    return False


def _share(model: ir.Model, setting: Setting) -> str:
    import onnx_ir.passes.common as common

    before = len(model.graph.initializers)
    with quiet_library():
        common.DeduplicateHashedInitializersPass(size_limit=LARGEST)(model)
    gone = before - len(model.graph.initializers)
    return f"{gone} weights that repeat another one are gone" if gone else ""


def _inline(model: ir.Model, setting: Setting) -> str:
    import onnx_ir.passes.common as common

    count = len(model.functions)
    common.InlinePass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return f"{count} functions became their bodies"


def _needed_ir(model: ir.Model) -> int:
    import onnx

    pairs = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return onnx.helper.find_min_ir_version_for(pairs, ignore_unknown=True)


def _ir_blocked(model: ir.Model, setting: Setting) -> str:
    if _needed_ir(model) > setting.ir_version:
        return (f"opset {setting.version} needs IR version {_needed_ir(model)}, more than the {setting.ir_version} "
                "asked for: export with a lower opset")
    if model.functions and setting.ir_version < 8:
        return "it has functions of its own, which came with IR version 8"
    return ""


def _lower_ir(model: ir.Model, setting: Setting) -> str:
    was, model.ir_version = model.ir_version, setting.ir_version
    return f"IR version {was} became {setting.ir_version}"


INLINE = whole(
    "inline-functions", "Few compilers take functions inside a model; their bodies say the same.", _inline,
    lambda model, setting: bool(model.functions))
LIFT = whole(
    "lift-constants", "Weights in Constant nodes are not found by quantizers and compilers that look among the "
    "initializers.", _lift, lambda model, setting: _lifts(model))
FOLD = whole(
    "fold-constants", "What depends on no input is computed once, here, not at every run.", _fold,
    lambda model, setting: _folds(model))
SHARE = whole(
    "merge-initializers", "Weights with the same content need to be stored once.", _share,
    lambda model, setting: _repeats(model) and bool(_share(model.clone(), setting)))
LOWER_IR = Rule(
    "lower-ir-version", "An older runtime refuses a file of a newer IR version, even when it has every operator.",
    lambda model, setting: bool(setting.ir_version) and model.ir_version > setting.ir_version, _ir_blocked, _lower_ir,
    "model")

RULES = (INLINE, LIFT, FOLD, SHARE, LOWER_IR)
