"""Brings a model to the version of the standard operators (opset) that the target takes, up or down.

Up is done by onnxscript's and onnx's own converters. Down, node by node: where onnx's schemas of both versions differ
in what the node does not use (a list of types, an attribute at its default), it is only stamped anew; where the form
changed (axes became an input), the older form is written; where neither is possible, the first such node is named and
nothing is changed. That the answers stay equal is measured like for every other rule.

Source of what changed when: ``onnx.defs`` of the installed onnx, and the change log of ONNX for what no schema says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.graph.inference import infer
from kit.graph.rule import Setting
from kit.graph.rules_forms import pad_blocked, split_blocked, write_pad, write_split
from kit.graph.rules_resize import fill, resize_blocked, write_resize
from kit.graph.rules_whole import whole
from kit.graph.values import given, is_op, numbers, rank, set_input

if TYPE_CHECKING:
    import onnx_ir as ir

STANDARD = ("", "ai.onnx")


def wanted(setting: Setting) -> int:
    """The opset to bring the model to; 0 when the one it has will do.

    What was asked for; else, for Ascend, the opset from 11 to 17 at which ATC knows most of the model's operators, if
    the model is beyond these or has operators (private ones) that ATC does not know at its opset.
    """
    if setting.opset or not setting.ascend:
        return setting.opset
    from kit.targets import ascend

    used = Counter(node.op_type for node in _nodes(setting.model))
    best = ascend.best_opset(used)
    if setting.version < ascend.LOW:
        return ascend.LOW
    too_new = setting.version > best and ascend.lost_at(setting.version, used) > ascend.lost_at(best, used)
    return best if setting.version > ascend.BEST or too_new else 0


def _nodes(model: ir.Model) -> list[ir.Node]:
    import onnx_ir as ir

    return [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.domain in STANDARD]


# -- Up


def _raise(model: ir.Model, setting: Setting) -> str:
    from onnxscript.version_converter import ConvertVersionPass

    before, target = setting.version, wanted(setting)
    _last_axis(model)
    ConvertVersionPass(target, fallback=True)(model)
    if setting.version != target:
        raise RuntimeError(f"the converters of onnx and onnxscript could not raise it to opset {target}")
    infer(model)
    return f"opset {before} became {target}"


def _last_axis(model: ir.Model) -> None:
    """Write the last axis of a Softmax as -1.

    Up to opset 12 every other axis flattened, and onnx's converter keeps that up with four nodes where it cannot see
    that there is nothing to flatten.
    """
    import onnx_ir as ir

    for node in _nodes(model):
        count = rank(node.inputs[0]) if is_op(node, *SOFTMAX) else None
        if count is not None and node.attributes.get_int("axis", 1) == count - 1 and model.opset_imports[""] >= 11:
            node.attributes["axis"] = ir.AttrInt64("axis", -1)


# -- Down


@dataclass(frozen=True)
class Change:
    """How an operator changed at an opset, seen from above.

    Attributes:
        since: the opset with the newer form.
        concerns: does this node use what is new?
        blocked: why it has no older form; "" when it has.
        write: writes that.
    """

    since: int
    concerns: Callable[[ir.Node], bool]
    blocked: Callable[[ir.Node, Setting], str]
    write: Callable[[ir.Node, Setting], Any] = lambda node, setting: None


def _axes_blocked(node: ir.Node, setting: Setting) -> str:
    if node.attributes.get_int("noop_with_empty_axes", 0) and not numbers(given(node, 1)):
        return "without axes it reduces nothing (noop_with_empty_axes), which older reductions cannot say"
    if given(node, 1) is not None and numbers(node.inputs[1]) is None:
        return f"its axes ({node.inputs[1].name}) are computed at run time"
    return ""


def _as_attribute(name: str) -> Callable[[ir.Node, Setting], None]:
    """Moves the second input, a constant, to the attribute that it was; an empty one is left out."""

    def write(node: ir.Node, setting: Setting) -> None:
        import onnx_ir as ir

        node.attributes.pop("noop_with_empty_axes", None)
        if values := numbers(given(node, 1)):
            node.attributes[name] = ir.AttrInt64s(name, values)
        if given(node, 1) is not None:
            set_input(node, 1, None)

    return write


def _no_number(node: ir.Node, setting: Setting) -> str:
    return "" if numbers(node.inputs[1]) is not None else f"its input {node.inputs[1].name} is computed at run time"


def _softmax_blocked(node: ir.Node, setting: Setting) -> str:
    axis, count = node.attributes.get_int("axis", -1), rank(node.inputs[0])
    if count is None:
        return f"the rank of {node.inputs[0].name} is not known"
    return "" if axis in (-1, count - 1) else f"below opset 13 it would go over all axes from {axis} on together"


def _softmax(node: ir.Node, setting: Setting) -> None:
    import onnx_ir as ir

    node.attributes["axis"] = ir.AttrInt64("axis", rank(node.inputs[0]) - 1)


def _grid_blocked(node: ir.Node, setting: Setting) -> str:
    return "" if rank(node.inputs[0]) == 4 else "GridSample of other than four axes came with opset 20"


def _grid(node: ir.Node, setting: Setting) -> None:
    import onnx_ir as ir

    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode := node.attributes.get_string("mode", "linear"), mode)
    node.attributes["mode"] = ir.AttrString("mode", mode)


def _roi_align_blocked(node: ir.Node, setting: Setting) -> str:
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    return "" if mode == "output_half_pixel" else f"coordinate mode {mode} came with opset 16"


def _says(name: str, *values: str) -> Callable[[ir.Node], bool]:
    return lambda node: node.attributes.get_string(name, "") in values


def _always(node: ir.Node) -> bool:
    return True


def _resizes_newly(node: ir.Node) -> bool:
    said = node.attributes
    return ("axes" in said or bool(said.get_int("antialias", 0))
            or said.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
            or said.get_string("coordinate_transformation_mode", "") == "half_pixel_symmetric")


def _no(reason: str) -> Callable[[ir.Node, Setting], str]:
    return lambda node, setting: reason


SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
              "ReduceProd", "ReduceSumSquare")
_SCATTER = Change(18, _says("reduction", "max", "min"), _no("its reduction came with opset 18"))
_PER_AXIS = Change(13, lambda node: rank(given(node, 1)) != 0, _no("scales for each channel came with opset 13"))

# Newest first, for every operator of which more changed than a list of types or an attribute with a neutral default.
CHANGES: dict[str, tuple[Change, ...]] = {
    **dict.fromkeys(REDUCTIONS, (Change(18, _always, _axes_blocked, _as_attribute("axes")),)),
    "ReduceSum": (Change(13, _always, _axes_blocked, _as_attribute("axes")),),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), (
        Change(13, lambda node: given(node, 1) is not None, _no_number, _as_attribute("axes")),)),
    "Split": (Change(18, lambda node: "num_outputs" in node.attributes, split_blocked, write_split),
              Change(13, lambda node: given(node, 1) is not None, _no_number, _as_attribute("split"))),
    "Pad": (Change(19, _says("mode", "wrap"), pad_blocked),
            Change(18, lambda node: given(node, 3) is not None, pad_blocked, write_pad)),
    "Resize": (Change(18, _resizes_newly, resize_blocked, write_resize),
               Change(13, lambda node: None in (given(node, 1), given(node, 2)), _no(""), fill)),
    "GridSample": (Change(20, _always, _grid_blocked, _grid),),
    **dict.fromkeys(SOFTMAX, (Change(13, _always, _softmax_blocked, _softmax),)),
    "RoiAlign": (Change(16, _always, _roi_align_blocked),),
    **dict.fromkeys(("ScatterElements", "ScatterND"), (_SCATTER,)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), (_PER_AXIS,)),
    "DFT": (Change(20, _always, _no("its axis became an input with opset 20, with another default")),),
}


def _changes(node: ir.Node, version: int, target: int) -> list[Change]:
    return [change for change in CHANGES.get(node.op_type, ())
            if target < change.since <= version and change.concerns(node)]


def _blocked(model: ir.Model, setting: Setting) -> str:
    target = wanted(setting)
    if model.functions:
        return "it has functions of its own, whose operators would stay as they are: inline them first"
    for node in _nodes(model):
        if reason := _no_older_form(node, setting, target):
            return f"{node.op_type} {node.name} has no equal form at opset {target}: {reason}"
    return ""


def _no_older_form(node: ir.Node, setting: Setting, target: int) -> str:
    """Why a node cannot be written at opset ``target``."""
    new, old = _schema(node.op_type, setting.version), _schema(node.op_type, target)
    if new is None:  # ONNX has no such operator: one of ATC's own, or one that is newer than the installed onnx
        from kit.targets import ascend

        known = node.op_type in ascend.facts("operators")["operators"]
        return "" if known else "the installed onnx does not know the operator"
    if old is None:
        return f"the operator came with opset {_first(node.op_type)}"
    changes = _changes(node, setting.version, target)
    for change in changes:
        if reason := change.blocked(node, setting):
            return reason
    return "" if changes else _unfit(node, new, old)


def _unfit(node: ir.Node, new: Any, old: Any) -> str:
    """What a node uses that the older schema does not have."""
    for name, attribute in node.attributes.items():
        if name not in old.attributes and not _neutral(attribute, new.attributes.get(name)):
            return f"attribute {name}={attribute.value} is not there"
    inputs, outputs = ([value if value is not None and value.name else None for value in side]
                       for side in (node.inputs, node.outputs))
    for side, most, formals, what in ((inputs, old.max_input, old.inputs, "input"),
                                      (outputs, old.max_output, old.outputs, "output")):
        used = [at for at, value in enumerate(side) if value is not None]
        if used and used[-1] >= most:
            return f"it has {used[-1] + 1} {what}s, {most} at most are there"
        for at in used:
            formal = formals[min(at, len(formals) - 1)]
            if not _takes(old, formal.type_str, side[at]):
                return f"type {side[at].dtype.name.lower()} is not there for {what} {formal.name}"
    return ""


def _neutral(attribute: Any, formal: Any) -> bool:
    """Does an attribute say only what an operator without it does?"""
    import onnx

    if attribute.name == "dilations":
        return set(attribute.value) <= {1}
    if formal is None or formal.default_value.type == onnx.AttributeProto.UNDEFINED:
        return False
    default = onnx.helper.get_attribute_value(formal.default_value)
    return attribute.value == (default.decode() if isinstance(default, bytes) else default)


def _takes(schema: Any, type_str: str, value: ir.Value) -> bool:
    if value.dtype is None:
        return True
    allowed = next((list(constraint.allowed_type_strs) for constraint in schema.type_constraints
                    if constraint.type_param_str == type_str), [type_str])
    plain = value.dtype.name.lower()
    wanted_type = f"tensor({plain})"
    return wanted_type in allowed or not any(text.startswith("tensor(") for text in allowed)


def _schema(op_type: str, version: int) -> Any:
    """The schema of an operator as it is at an opset; None where there is none."""
    import onnx

    try:
        return onnx.defs.get_schema(op_type, min(version, onnx.defs.onnx_opset_version()))
    except onnx.defs.SchemaError:
        return None


def _first(op_type: str) -> int:
    import onnx

    return min(schema.since_version for schema in onnx.defs.get_all_schemas_with_history()
               if schema.name == op_type and schema.domain == "")


def _lower(model: ir.Model, setting: Setting) -> str:
    before, target, rewritten = setting.version, wanted(setting), Counter()
    for node in _nodes(model):
        old = _schema(node.op_type, target)
        for change in _changes(node, before, target):
            change.write(node, setting)
            rewritten[node.op_type] += 1
        for name in list(node.attributes) if old is not None else []:
            if name not in old.attributes:
                node.attributes.pop(name)
        node.version = None
    for domain in STANDARD:
        if domain in model.opset_imports:
            model.opset_imports[domain] = target
    infer(model)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(rewritten.items(), key=lambda item: (-item[1], item)))
    return f"opset {before} became {target}" + (f"; written in the older form: {kinds}" if kinds else "")


RULES = (
    whole("raise-opset", "The merged operators came with later opsets: HardSwish 14, LayerNormalization 17, Gelu 20; "
          "ATC's documents begin at 11.", _raise, lambda model, setting: wanted(setting) > setting.version),
    whole("lower-opset", "ATC looks up the exact opset and has nothing above 18; 11 to 17 are safe, 16 with its "
          "private operators. Other runtimes take a lower one when asked.", _lower,
          lambda model, setting: 0 < wanted(setting) < setting.version, _blocked),
)
