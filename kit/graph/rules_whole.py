"""Rules about a model as a whole: constants computed once, functions written out, versions that suit the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.graph.rule import Rule, Setting, quiet_library
from kit.graph.values import infer, is_op, name_nodes, retire, shape

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = 1 << 20  # elements of a folded constant: a larger one costs more in the file than it saves


def operators(model: ir.Model) -> Counter[str]:
    """How often each operator occurs, subgraphs included; other domains as ``domain.Operator``."""
    import onnx_ir as ir

    return Counter(f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
                   for node in ir.traversal.RecursiveGraphIterator(model.graph))


def _whole(name: str, because: str, run: Callable[[ir.Model, Setting], str],
           wanted: Callable[[ir.Model, Setting], bool]) -> Rule:
    """A rule about the model as a whole: one edit, done by a pass of onnx-ir or onnxscript that says what it did."""

    def rewrite(model: ir.Model, setting: Setting) -> str:
        with quiet_library():
            said = run(model, setting)
        name_nodes(model)
        return said

    return Rule(name, because, wanted, lambda model, setting: "", rewrite, "model")


def _difference(before: Counter, after: Counter) -> str:
    gone = before - after
    return ", ".join(f"{count} {kind}" for kind, count in sorted(gone.items(), key=lambda item: (-item[1], item[0])))


def _fold(model: ir.Model, setting: Setting) -> str:
    """Compute what is constant, onnxscript's way, until nothing more turns up; "" when nothing was."""
    import onnx_ir as ir
    from onnxscript.optimizer import FOLDED_FROM_KEY, fold_constants

    before = operators(model)
    with quiet_library():
        for _ in range(5):
            step = operators(model)
            fold_constants(model, onnx_shape_inference=True, output_size_limit=LARGEST)
            dead = [node for node in model.graph if not any(v.uses() or v.is_graph_output() for v in node.outputs)]
            for node in reversed(dead):
                if node.graph is not None:
                    inputs = list(node.inputs)
                    model.graph.remove(node, safe=True)
                    retire(inputs)
            infer(model)
            if operators(model) == step:
                break
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:  # the library's notes on where a constant came from
            value.metadata_props.pop(FOLDED_FROM_KEY, None)
    for value in model.graph.initializers.values():
        value.metadata_props.pop(FOLDED_FROM_KEY, None)
    after = operators(model)
    return f"computed ahead: {_difference(before, after) or 'shapes'}" if after != before else ""


def _lift(model: ir.Model, setting: Setting) -> str:
    import onnx_ir.passes.common as common

    before = operators(model)["Constant"]
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return f"{before - operators(model)['Constant']} Constant nodes became initializers"


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


def _raise(model: ir.Model, setting: Setting) -> str:
    from onnxscript.version_converter import ConvertVersionPass

    before = setting.version
    _last_axis(model)
    ConvertVersionPass(setting.opset, fallback=True)(model)
    if setting.version != setting.opset:
        raise RuntimeError(f"the converters of onnx and onnxscript could not raise it to opset {setting.opset}")
    infer(model)
    return f"opset {before} became {setting.opset}"


def _last_axis(model: ir.Model) -> None:
    """Write the last axis of a Softmax as -1.

    Up to opset 12 every other axis flattened, and onnx's converter keeps that up with four nodes where it cannot see
    that there is nothing to flatten.
    """
    import onnx_ir as ir

    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        sizes = shape(node.inputs[0]) if is_op(node, "Softmax", "LogSoftmax", "Hardmax") else None
        if sizes is not None and node.attributes.get_int("axis", 1) == len(sizes) - 1 and model.opset_imports[""] >= 11:
            node.attributes["axis"] = ir.AttrInt64("axis", -1)


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


INLINE = _whole(
    "inline-functions", "Few compilers take functions inside a model; their bodies say the same.", _inline,
    lambda model, setting: bool(model.functions))
RAISE = _whole(
    "raise-opset", "The merged operators came with later opsets: HardSwish 14, LayerNormalization 17, Gelu 20.", _raise,
    lambda model, setting: setting.opset > setting.version)
LIFT = _whole(
    "lift-constants", "Weights in Constant nodes are not found by quantizers and compilers that look among the "
    "initializers.", _lift, lambda model, setting: operators(model)["Constant"] > 0)
FOLD = _whole(
    "fold-constants", "What depends on no input is computed once, here, not at every run.", _fold,
    lambda model, setting: bool(_fold(model.clone(), setting)))
SHARE = _whole(
    "merge-initializers", "Weights with the same content need to be stored once.", _share,
    lambda model, setting: bool(_share(model.clone(), setting)))
LOWER_IR = Rule(
    "lower-ir-version", "An older runtime refuses a file of a newer IR version, even when it has every operator.",
    lambda model, setting: bool(setting.ir_version) and model.ir_version > setting.ir_version, _ir_blocked, _lower_ir,
    "model")

RULES = (INLINE, RAISE, LIFT, FOLD, SHARE, LOWER_IR)
