"""Gives a Resize the coordinate and rounding modes with which TensorFlow computed it.

Old converters, and some of today's, write other ones: the picture moves by half a pixel, and boxes move with it. What
TensorFlow did is not in an ONNX graph. So it is read from the metadata that ``kit.export`` writes, or asked for
with ``FixOptions(tensorflow_resize=...)``; where neither says it, a node is left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.graph.rule import Rule, Setting
from kit.graph.values import is_op
from kit.resizes import METADATA, Modes, TfResize, recall

if TYPE_CHECKING:
    import onnx_ir as ir

#: What FixOptions.tensorflow_resize may say -> align_corners, half_pixel_centers.
FLAGS = {"half_pixel": (False, True), "legacy": (False, False), "align_corners": (True, False)}
_OPERATORS = {"linear": "ResizeBilinear", "nearest": "ResizeNearestNeighbor", "cubic": "ResizeBicubic"}
MOVES = ("the modes that were there took other pixels than TensorFlow, with which the model was trained; what counts "
         "is the difference from TensorFlow, not from the file.")


def wanted(node: ir.Node, setting: Setting) -> TfResize | None:
    """What TensorFlow computed here, where anything says so."""
    remembered = recall(setting.model.metadata_props.get(METADATA, "")).get(node.name or "")
    if remembered:
        return remembered
    asked = FLAGS.get(setting.tensorflow_resize)
    operator = _OPERATORS.get(node.attributes.get_string("mode", "nearest"))
    return TfResize(operator, *asked) if asked and operator else None


def modes_of(node: ir.Node) -> Modes:
    """What a Resize says now."""
    at, mode = node.attributes, node.attributes.get_string("mode", "nearest")
    return Modes(mode, at.get_string("coordinate_transformation_mode", "half_pixel"),
                 at.get_string("nearest_mode", "round_prefer_floor") if mode == "nearest" else "",
                 round(at.get_float("cubic_coeff_a", -0.75), 6) if mode == "cubic" else 0.0,
                 bool(at.get_int("exclude_outside", 0)) if mode == "cubic" else False)


def _matches(node: ir.Node, setting: Setting) -> bool:
    if not is_op(node, "Resize"):
        return False
    tf = wanted(node, setting)
    return tf is None or modes_of(node) != tf.modes()


def _blocked(node: ir.Node, setting: Setting) -> str:
    if setting.version < 11:
        return f"at opset {setting.version} a Resize has no coordinate mode: bring the model to opset 11 first"
    tf = wanted(node, setting)
    if tf is None:
        return ("nothing says what TensorFlow computed here: export with kit.export, whose metadata says it, or give "
                "FixOptions(tensorflow_resize='half_pixel' (TensorFlow 2), 'legacy' or 'align_corners')")
    at = node.attributes
    if tf.modes().mode != modes_of(node).mode:
        return f"it is {modes_of(node).mode}, and {tf} is {tf.modes().mode}: another interpolation is another model"
    if at.get_int("antialias", 0):
        return "it blurs before it makes smaller (antialias), which is another operator in TensorFlow"
    if at.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "it cuts out a region (CropAndResize), whose modes are fixed"
    return ""


def _rewrite(node: ir.Node, setting: Setting) -> str:
    import onnx_ir as ir

    before, tf = modes_of(node), wanted(node, setting)
    modes = tf.modes()
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", modes.place)
    if modes.mode == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", modes.rounding)
    if modes.mode == "cubic":
        node.attributes["cubic_coeff_a"] = ir.AttrFloat32("cubic_coeff_a", modes.cubic)
        node.attributes["exclude_outside"] = ir.AttrInt64("exclude_outside", int(modes.exclude_outside))
    return f"{before} became {modes}, as {tf} computes"


RULES = (
    Rule("resize-like-tensorflow", "A Resize with other coordinate or rounding modes than TensorFlow's takes other "
         "pixels: pictures and boxes move.", _matches, _blocked, _rewrite, moves=MOVES),
)
