"""Writes a Resize with the attributes that CANN's parser reads, where the answers are provably the same.

The parser reads mode and coordinate mode, and for ``nearest`` the sizes of the third and fourth axis; it takes no note
of nearest_mode, axes, antialias, keep_aspect_ratio_policy, cubic_coeff_a, exclude_outside and extrapolation_value
(``kit/targets/ascend/operators.json``). So this rule asks, in exact numbers, which pixels the node takes, and looks for
a form of which ONNX and CANN both take the same ones. Whatever has none is left alone with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from kit.graph.pixels import SHIFTING, STEADY, Axis, by_scale, by_size, cann_pixels, exact, onnx_pixels
from kit.graph.rule import Rule, Setting
from kit.graph.tracing import is_axis
from kit.graph.values import Builder, constant, given, is_op, replace, set_input, shape

if TYPE_CHECKING:
    import onnx_ir as ir

READ = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
READ_5D = ("align_corners", "pytorch_half_pixel")
DEFAULT_ROUNDING = "round_prefer_floor"
# Forms of which ONNX and CANN take the same pixels, unless a tie decides: those that no reader can mistake come first.
NEAREST = (("half_pixel", DEFAULT_ROUNDING), ("half_pixel", "round_prefer_ceil"), ("asymmetric", "floor"),
           ("align_corners", DEFAULT_ROUNDING), ("align_corners", "round_prefer_ceil"))
# What CANN's kernel computes, in ONNX's words, where the scale is what the sizes say.
CANN_OWN = (("half_pixel", "round_prefer_ceil"), ("asymmetric", "floor"), ("align_corners", "round_prefer_ceil"))
UNREAD = ("nearest_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value", "antialias", "axes",
          "keep_aspect_ratio_policy")


@dataclass
class Read:
    """A Resize as it stands.

    Attributes:
        ins: sizes before, for all axes; None where one is not known.
        outs: sizes after.
        scales: factors of all axes, where it goes by factors that are constant.
        sizes: new sizes of all axes, where it goes by sizes; None where one is computed and not known.
        computed: its factors or sizes are no constants.
        same: axes that keep their size for certain.
    """

    mode: str
    place: str
    rounding: str
    ins: list[int | None]
    outs: list[int | None]
    scales: list[Fraction] | None
    sizes: list[int | None] | None
    computed: bool
    same: set[int] = field(default_factory=set)

    @property
    def moved(self) -> list[int]:
        """The axes that may change their size."""
        return [at for at in range(len(self.ins)) if at not in self.same]

    def axis(self, at: int) -> list[Axis] | None:
        """What is known of an axis: itself; a few that stand for it; None when nothing can be said."""
        size, out = self.ins[at], self.sizes[at] if self.sizes else None
        if size is not None and self.scales:
            return [by_scale(size, self.scales[at])]
        if size is not None and out is not None:
            return [by_size(size, out)]
        if self.scales and self.scales[at].denominator == 1 and self.place in SHIFTING:
            return [by_scale(few, self.scales[at]) for few in STEADY]
        return None


@dataclass
class Plan:
    """What a Resize becomes; ``steer`` is its new third or fourth input where it needs one, ``lift`` adds an axis."""

    place: str
    rounding: str
    steer: np.ndarray | None = None
    lift: bool = False


def read(node: ir.Node) -> Read | str:
    """What a Resize says, or why that is not known."""
    ins, outs = shape(node.inputs[0]), shape(node.outputs[0])
    if ins is None:
        return f"the rank of its input {node.inputs[0].name} is not known"
    text = node.attributes.get_string
    axes = [at + len(ins) if at < 0 else at for at in node.attributes.get_ints("axes") or range(len(ins))]
    by_factor = given(node, 2) is not None and not (given(node, 3) is not None)
    steer = given(node, 2 if by_factor else 3)
    values = constant(steer)
    found = Read(text("mode", "nearest"), text("coordinate_transformation_mode", "half_pixel"),
                 text("nearest_mode", DEFAULT_ROUNDING), ins, outs or [None] * len(ins), None, None, values is None)
    known = dict(zip(axes, values.tolist(), strict=True)) if values is not None else {}
    if by_factor and values is not None:
        found.scales = [exact(known.get(at, 1.0)) for at in range(len(ins))]
        found.same = {at for at, scale in enumerate(found.scales) if scale == 1}
    elif not by_factor:
        found.sizes = [known.get(at, found.outs[at] if at in axes else size) for at, size in enumerate(ins)]
        for at, size in enumerate(ins):
            kept = values is None and len(axes) == len(ins) and is_axis(steer, axes.index(at), node.inputs[0], at)
            if at not in axes or kept or (size is not None and size == found.sizes[at]):
                found.same.add(at)
    return found


def is_plain(node: ir.Node, found: Read) -> bool:
    """Does CANN read this node as ONNX means it, as far as can be told?"""
    at = node.attributes
    if (found.computed or "axes" in at or at.get_int("antialias", 0)
            or at.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"):
        return False
    if found.mode == "nearest":
        if len(found.ins) != 4 or found.place not in READ or {0, 1} & set(found.moved):
            return False
        return _pixels_agree(found, found.place, found.rounding)
    if found.mode == "cubic" and _cubic(node):
        return False
    return found.place in (READ_5D if len(found.ins) == 5 else READ)


def _pixels_agree(found: Read, place: str, rounding: str) -> bool:
    """Does a form take the pixels that the node takes, in ONNX's reading and in CANN's, along every axis?"""
    if (place, rounding) == (found.place, found.rounding) and (place, rounding) in CANN_OWN and (
            found.sizes or place == "align_corners"):
        return True  # whatever the sizes
    for at in found.moved:
        axes = found.axis(at)
        if axes is None or (len(axes) > 1 and place not in SHIFTING):
            return False
        for axis in axes:
            wanted = onnx_pixels(axis, found.place, found.rounding)
            if wanted != onnx_pixels(axis, place, rounding) or wanted != cann_pixels(axis, place):
                return False
    return True


def _cubic(node: ir.Node) -> str:
    if abs(node.attributes.get_float("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        return (f"cubic_coeff_a {node.attributes.get_float('cubic_coeff_a'):g} is not read, and no other attribute "
                "says it")
    if node.attributes.get_int("exclude_outside", 0):
        return "exclude_outside is not read, and no other attribute says it"
    return ""


def plan(node: ir.Node) -> Plan | str:
    """The form to write, or why there is none."""
    found = read(node)
    if isinstance(found, str):
        return found
    at = node.attributes
    if at.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return f"keep_aspect_ratio_policy {at.get_string('keep_aspect_ratio_policy')} is not read: export fixed sizes"
    if at.get_int("antialias", 0) and found.mode != "nearest" and not _only_grows(found):
        return "antialias blurs what is made smaller, which ATC does not"
    if found.mode == "cubic" and (reason := _cubic(node)):
        return reason
    steer = _steering(node, found)
    if isinstance(steer, str):
        return steer
    if found.mode == "nearest":
        return _nearest(found, steer)
    place = _place(node, found)
    return Plan(place, "", steer) if place in READ else place


def _only_grows(found: Read) -> bool:
    if found.scales:
        return all(scale >= 1 for scale in found.scales)
    return all(found.ins[at] is not None and found.sizes[at] is not None and found.sizes[at] >= found.ins[at]
               for at in found.moved)


def _steering(node: ir.Node, found: Read) -> np.ndarray | str | None:
    """New factors (float32) or sizes (int64) for all axes; None when those of the node will do."""
    if not found.computed and "axes" not in node.attributes:
        return None
    if found.scales:
        return np.float32([float(scale) for scale in found.scales])
    if found.sizes is None:
        return "its scales are computed at run time: fix the input shapes, then fold constants"
    if None not in found.sizes:
        return np.int64(found.sizes)
    factors = np.ones(len(found.ins), np.float32)
    for at in found.moved:
        size, out = found.ins[at], found.sizes[at]
        if size is None or out is None:
            return f"the size of axis {at} is computed at run time: fix the input shapes, then fold constants"
        factors[at] = out / size
        if np.floor(factors[at] * np.float32(size)) != out or (found.mode == "nearest" and out % size):
            return f"no factor makes exactly {out} of {size}, and the sizes of the other axes are not known"
    return factors


def _nearest(found: Read, steer: np.ndarray | None) -> Plan | str:
    if {0, 1} & set(found.moved):
        return f"it resizes axis {found.moved[0]}: for nearest ATC looks at the third and fourth axis only (NCHW)"
    if len(found.ins) not in (3, 4):
        return f"nearest needs 4 axes (NCHW), this has {len(found.ins)}"
    if found.place == "tf_crop_and_resize":
        return "tf_crop_and_resize cuts out a region, which ATC does not"
    for at in found.moved:
        if found.axis(at) is None and found.place != "align_corners":
            return (f"the size of axis {at} is not known, so that ATC may take other pixels for {found.place} and "
                    f"{found.rounding}: fix the input shapes")
    for place, rounding in ((found.place, found.rounding), *NEAREST):
        if place in READ and _pixels_agree(found, place, rounding):
            return Plan(place, rounding, steer, lift=len(found.ins) == 3)
    return f"no form that ATC reads takes the same pixels as {found.place} with {found.rounding}"


def _place(node: ir.Node, found: Read) -> str:
    """The coordinate mode of a linear or cubic Resize that ATC reads and that says the same, or why there is none."""
    allowed, place = READ_5D if len(found.ins) == 5 else READ, found.place
    axes = [axis for at in found.moved for axis in found.axis(at) or [None]]
    if place == "half_pixel_symmetric" and (found.sizes or all(axis and axis.even for axis in axes)):
        place = "half_pixel"  # the two differ by what rounding the sizes moves the middle
    if place in allowed:
        return place
    if place == "half_pixel" and all(axis and axis.out > 1 for axis in axes):
        return "pytorch_half_pixel"
    if place == "tf_crop_and_resize":
        region = constant(given(node, 1))
        whole = region is not None and np.array_equal(region, np.repeat(np.float32([0, 1]), len(found.ins)))
        if whole and all(axis and axis.out > 1 for axis in axes):
            return "align_corners"
    words = "with 5 axes ATC reads align_corners and pytorch_half_pixel only" if len(found.ins) == 5 else \
        "and no mode that it reads is known to give the same"
    return f"ATC does not read {found.place}, {words}"


def _matches(node: ir.Node, setting: Setting) -> bool:
    if not is_op(node, "Resize") or setting.version < 11:
        return False
    found = read(node)
    return isinstance(found, str) or not is_plain(node, found)


def resize_blocked(node: ir.Node, setting: Setting) -> str:
    """Why a Resize cannot be written with the attributes of opset 11 that CANN reads; "" when it can."""
    found = plan(node)
    return found if isinstance(found, str) else ""


def write_resize(node: ir.Node, setting: Setting) -> str:
    """Write a Resize with the attributes of opset 11 that CANN reads."""
    import onnx_ir as ir

    wanted, before = plan(node), node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    was = node.attributes.get_string("nearest_mode", DEFAULT_ROUNDING)
    for name in UNREAD:
        node.attributes.pop(name, None)
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", wanted.place)
    said = [f"{before} became {wanted.place}"] if before != wanted.place else []
    if wanted.rounding not in ("", DEFAULT_ROUNDING):
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", wanted.rounding)
    if wanted.rounding and was != wanted.rounding:
        said.append(f"{was} became {wanted.rounding}, of which the pixels are the same")
    builder = Builder(node, setting.model)
    if given(node, 1) is not None:
        set_input(node, 1, None)  # the region, which no mode that CANN reads looks at
    if setting.version < 13:
        fill(node, setting)
    if wanted.steer is not None:
        _steer(node, builder, wanted.steer)
        said.append(f"{'sizes' if wanted.steer.dtype == np.int64 else 'scales'} are the constants "
                    f"{', '.join(f'{number:g}' for number in wanted.steer)}")
    if wanted.lift:
        _lift(node, builder)
        said.append("it works on four axes, the third of size 1")
    return "; ".join(said) or "attributes that ATC does not read are gone"


def _steer(node: ir.Node, builder: Builder, values: np.ndarray) -> None:
    """Give it new factors or sizes in the place of those it has."""
    by_size_now = values.dtype == np.int64
    name = f"{node.name}/{'sizes' if by_size_now else 'scales'}"
    if by_size_now:
        set_input(node, 3, builder.weight(values, name))
    else:
        if given(node, 3) is not None:
            set_input(node, 3, None)
        set_input(node, 2, builder.weight(values, name))


def fill(node: ir.Node, setting: Setting) -> None:
    """Give it empty constants in the place of inputs that are left out: up to opset 12 the first three are required."""
    for at in (1, 2):
        if given(node, at) is None:
            set_input(node, at, Builder(node, setting.model).weight(np.zeros(0, np.float32), f"{node.name}/empty"))


def _lift(node: ir.Node, builder: Builder) -> None:
    """Put an axis of size 1 before the last one, and take it away behind."""
    import onnx_ir as ir

    source, steer = node.inputs[0], constant(node.inputs[-1])
    wide = builder.weight(np.insert(steer, 2, 1).astype(steer.dtype), f"{node.name}/steer")
    lifted = builder.over("Unsqueeze", source, [2], like=source)
    lifted.shape = ir.Shape([*source.shape[:2], 1, *source.shape[2:]])
    inputs = [lifted, *node.inputs[1:-1], wide]
    resized = builder.op("Resize", inputs, {name: attribute.value for name, attribute in node.attributes.items()},
                         like=source)
    result = builder.over("Squeeze", resized, [2], like=source)
    replace(node, builder.nodes, result)


RULES = (
    Rule("plain-resize", "ATC does not read every attribute of a Resize, and may silently take other pixels; this form "
         "it reads as ONNX means it.", _matches, resize_blocked, write_resize),
)
