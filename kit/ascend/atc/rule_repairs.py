"""What can be done about a broken rule between flags, rule by rule: a small function each, or nothing.

Each returns whether it put the command right. Where it cannot know what was meant, it leaves the flags alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.ascend.atc.flag_rules import DYNAMIC, profiles_of, shapes_of
from kit.ascend.atc.flag_table import Problem, choices, entry

if TYPE_CHECKING:
    from kit.ascend.atc.atc_repair import Repair

CALIBRATION = "calibration.cfg"  # the file that a command for INT8 is given where it named none
_ALIKE = {"float16": "FP16", "half": "FP16", "float32": "FP32", "float": "FP32", "true": "1", "false": "0", "on": "1",
          "off": "0", "yes": "1", "no": "0"}


def _value(repair: Repair, found: Problem) -> bool:
    """The value that was meant: another case, another flag's name for it, or one spelt like it."""
    flag = repair.get(found.flags[0])
    if flag is None:
        return False
    other = {"--precision_mode": "--precision_mode_v2", "--precision_mode_v2": "--precision_mode"}.get(flag.name, "")
    if other and flag.value in (choices(other) or {}) and repair.get(other) is None:
        repair.set(flag, flag.value, f"{flag.value} is a value of {other}", name=other)
        return True
    valid = list(choices(flag.name) or {})
    if flag.name == "--input_format" and flag.value.upper() == "NHWC" and not repair.get("--insert_op_conf"):
        repair.set(flag, "ND", "for ONNX atc takes NCHW, NCDHW and ND; ND says no layout")
        return True
    low = {name.lower(): name for name in valid}
    meant = low.get(flag.value.lower()) or low.get(_ALIKE.get(flag.value.lower(), "").lower())
    if meant is None and valid:
        meant = next(iter(difflib.get_close_matches(flag.value, valid, 1, 0.8)), None)
    if meant is None or meant == flag.value:
        return False
    repair.set(flag, meant, f"{flag.name} takes {', '.join(valid)}")
    return True


def _leave_out(repair: Repair, found: Problem) -> bool:
    flag = repair.get(found.flags[0])
    if flag is None or flag.name == "--soc_version":
        return False
    repair.drop(flag, f"{found.what}: {found.remedy}")
    if flag.value == CALIBRATION:
        repair.steps.clear()
        repair.steps.append("INT8 for this chip: AMCT makes *_deploy_model.onnx; build that.")
    return True


def _give(name: str, value: str) -> Callable[[Repair, Problem], bool]:
    def repair(repair: Repair, found: Problem) -> bool:
        flag = repair.get(name)
        if flag is None:
            repair.add(name, value, found.what)
        else:
            repair.set(flag, value, found.what)
        return True

    return repair


def _one_profile(repair: Repair, found: Problem) -> bool:
    """A single profile is a fixed shape."""
    flag, shape = repair.get(found.flags[0]), repair.get("--input_shape")
    if flag is None or shape is None:
        return False
    sizes = list(profiles_of(flag.name, flag.value)[0])
    shapes = {}
    for name, axes in shapes_of(shape.value).items():
        # Batch and picture size are the same for every input; open axes are listed input by input.
        left = sizes if flag.name == DYNAMIC[2] else list(sizes)
        shapes[name] = [str(left.pop(0)) if axis == "-1" and left else axis for axis in axes]
    repair.drop(flag, f"{found.what}: one profile is a fixed shape")
    repair.set(shape, ";".join(f"{name}:{','.join(axes)}" for name, axes in shapes.items()), "the one size is here")
    return True


def _no_twins(repair: Repair, found: Problem) -> bool:
    flag = repair.get(found.flags[0])
    if flag is None:
        return False
    pieces = flag.value.split("," if flag.name == DYNAMIC[0] else ";")
    between = "," if flag.name == DYNAMIC[0] else ";"
    repair.set(flag, between.join(dict.fromkeys(pieces)), found.what)
    return True


def _open_batch(repair: Repair, found: Problem) -> bool:
    """Batch sizes for one input whose shape is fixed: its first axis is meant."""
    shape = repair.get("--input_shape")
    shapes = shapes_of(shape.value) if shape and shape.value else {}
    if found.flags[0] != DYNAMIC[0] or len(shapes) != 1 or "~" in shape.value:
        return False
    (name, axes), = shapes.items()
    if not axes:
        return False
    repair.set(shape, f"{name}:{','.join(['-1', *axes[1:]])}", found.what)
    return True


def _one_precision(repair: Repair, found: Problem) -> bool:
    """Both flags with the same meaning: the newer one stays."""
    older, newer = repair.get("--precision_mode"), repair.get("--precision_mode_v2")
    if older is None or newer is None or entry(older.name)["same_as"].get(older.value) != newer.value:
        return False
    repair.drop(older, f"{found.what}, and mean the same here")
    return True


def _name_nodes(repair: Repair, found: Problem) -> bool:
    typed = repair.get("--output_type")
    if typed is None or repair.get("--out_nodes"):
        return False
    repair.add("--out_nodes", ";".join(p.rpartition(":")[0] for p in typed.value.split(";") if p), found.what)
    return True


RULE_REPAIRS: dict[str, Callable[[Repair, Problem], bool]] = {
    "value": _value, "chip": _leave_out, "keep-v1": _leave_out, "keep-v2": _leave_out, "scope-tf": _leave_out,
    "map-caffe": _leave_out, "weight-caffe": _leave_out, "input-layout": _leave_out, "output-layout": _leave_out,
    "dims-nd": _give("--input_format", "ND"), "image-format": _give("--input_format", "NCHW"),
    "aipp-format": _give("--input_format", "NCHW"), "cache-dir": _give("--op_compiler_cache_mode", "enable"),
    "bank-buffer": _give("--buffer_optimize", "l2_optimize"), "two-profiles": _one_profile, "no-twin": _no_twins,
    "open-axes": _open_batch, "one-precision": _one_precision, "typed-outputs": _name_nodes,
}
