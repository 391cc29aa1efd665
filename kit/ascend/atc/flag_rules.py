"""Rules between flags of ``atc``: what excludes what, what needs what, and how profiles must look.

The rules are rows of ``atc_flags.json``; here is how a row is read. Commands composed by the kit and commands pasted by
a person go through the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kit.ascend.atc.flag_table import ONNX, Chip, Problem, default, flag_problem, flags, flags_file

DYNAMIC = ("--dynamic_batch_size", "--dynamic_image_size", "--dynamic_dims")
Flags = Mapping[str, str]


def rule(name: str) -> dict[str, Any]:
    """The row of a rule."""
    return next(row for row in flags_file()["rules"] if row["id"] == name)


def breach(name: str, what: str, remedy: str, *about: str) -> Problem:
    """A problem under a rule of the table."""
    return Problem(name, what, remedy, about, rule(name)["error"])


def problems(given: Flags, chip: Chip, *, cann: str = "", partial: bool = False,
             calibrates: bool = True) -> Iterator[Problem]:
    """Everything that is wrong with a set of flags, the flags one by one first.

    Args:
        given: flag -> value, flags as the table spells them.
        chip: what the command is for.
        cann: its release; "" where it is not known.
        partial: ``--input_shape`` is not known yet.
        calibrates: whether the compression file asks for calibration; where it cannot be read, it is taken to.
    """
    framework = given.get("--framework", ONNX)
    for name, value in given.items():
        if (found := flag_problem(name, value, chip, cann, framework)) is not None:
            yield found
    for row in flags_file()["rules"]:
        if not row.get("file_says") or calibrates:
            yield from _between(row, given, framework)
    yield from _profiles(given, chip, partial)
    yield from _typed_outputs(given)


def shapes_of(text: str) -> dict[str, tuple[str, ...]]:
    """``x:1,3,-1,8~16;n:`` -> name -> axes as text; () for a scalar. The last colon counts: x:0 is a name."""
    found = {}
    for piece in text.strip().strip(";").split(";"):
        name, _, axes = piece.rpartition(":")
        found[name.strip()] = tuple(axis.strip() for axis in axes.split(",")) if axes.strip() else ()
    return found


def profiles_of(flag: str, value: str) -> list[tuple[int, ...]]:
    """The profiles in a dynamic flag's value, one tuple each."""
    pieces = value.split(",") if flag == DYNAMIC[0] else value.strip(";").split(";")
    return [tuple(int(number) for number in piece.split(",")) for piece in pieces]


def _between(row: dict[str, Any], given: Flags, framework: str) -> Iterator[Problem]:
    if "exclusive" in row:
        both = [name for name in row["exclusive"] if name in given]
        if len(both) > 1:
            yield breach(row["id"], f"{' and '.join(both)} exclude each other", "keep one of them", *both)
        return
    flag = row.get("flag", "")
    if flag not in given or given[flag] not in row.get("values", [given[flag]]):
        return
    said = f"{flag}={given[flag]}" if "values" in row else flag
    if "without" in row:
        other = row["without"]
        if given.get(other) in row["values_of"]:
            yield breach(row["id"], f"{said} and {other}={given[other]} exclude each other: {row['says']}",
                         f"leave out {flag}, or choose another {other}", flag, other)
    elif "needs_any" in row:
        if not any(given.get(name) in values for name, values in row["needs_any"].items()):
            wanted = " or ".join(f"{name}={' | '.join(values)}" for name, values in row["needs_any"].items())
            yield breach(row["id"], f"{said} is given, but no mixed precision: {row['says']}", f"give {wanted}", flag,
                         *row["needs_any"])
    elif "needs" in row:
        other = row["needs"]
        value = given.get(other, "" if row.get("given") else default(other, framework))
        if value not in row.get("with", [value]) or not value:
            wanted = f"{other}={' | '.join(row['with'])}" if "with" in row else other
            yield breach(row["id"], f"{said} is given" + (f" with {other}={value}" if value else f" without {other}")
                         + f": {row['says']}", f"give {wanted}, or leave out {flag}", flag, other)


def _profiles(given: Flags, chip: Chip, partial: bool) -> Iterator[Problem]:
    dynamic = [flag for flag in DYNAMIC if flag in given]
    shape_text = given.get("--input_shape", "")
    if shape_text and not re.fullmatch(flags()["--input_shape"]["pattern"], shape_text):
        return  # told as a wrong value
    shapes = shapes_of(shape_text) if shape_text else {}
    yield from _sizes(shapes)
    if not dynamic:
        if "--input_shape_range" not in given:
            yield from _open(shapes, chip)
        return
    if len(dynamic) > 1 or not re.fullmatch(flags()[dynamic[0]]["pattern"], given[dynamic[0]]):
        return
    flag = dynamic[0]
    yield from profile_list(flag, profiles_of(flag, given[flag]), chip)
    if not partial:
        yield from _holes(flag, given, shapes)


def profile_list(flag: str, values: list[tuple[int, ...]], chip: Chip | None) -> Iterator[Problem]:
    """What is wrong with the profiles themselves."""
    limits = flags_file()["profiles"]
    most = limits["most_on"].get(chip.product if chip else "", limits["most"])
    if len(values) < limits["least"]:
        yield breach("two-profiles", f"{flag} has {len(values)} profile; {limits['least']} are the least",
                     "give another, or build for fixed shapes", flag)
    if len(values) > most:
        yield breach("most-profiles", f"{flag} has {len(values)} profiles; {most} are the most"
                     + (f" on {chip.title}" if chip else ""), f"give 2 to {most}; 3 or 4 build fastest", flag)
    lengths = sorted({len(value) for value in values})
    if len(lengths) > 1:
        yield breach("equal-length", f"{flag} has profiles of {' and '.join(map(str, lengths))} sizes",
                     "give every profile the same number of sizes", flag)
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        yield breach("no-twin", f"{flag} has {','.join(map(str, twice[0]))} twice", "give each profile once", flag)
    low = [value for value in values if min(value) < 1]
    if low:
        yield breach("positive", f"{flag} has {','.join(map(str, low[0]))}: a size must be above 0",
                     "give whole numbers above 0", flag)


def _sizes(shapes: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    for name, axes in shapes.items():
        for axis in axes:
            low, _, high = axis.partition("~")
            fine = re.fullmatch(r"-1|[1-9]\d*|[1-9]\d*~[1-9]\d*", axis) and (not high or int(low) <= int(high))
            if not fine:
                yield breach("positive", f"--input_shape gives {name} the size {axis!r}",
                             "give numbers above 0, -1 for an axis of profiles, or a range such as 1~8",
                             "--input_shape")


def _open(shapes: Mapping[str, tuple[str, ...]], chip: Chip) -> Iterator[Problem]:
    axes = [(name, axis) for name, found in shapes.items() for axis in found if axis == "-1" or "~" in axis]
    for name in ("range-310b", "range-310"):
        if axes and chip.product in rule(name)["not_on"]:
            yield breach(name, f"--input_shape leaves {axes[0][0]} open ({axes[0][1]}), and {chip.title} takes no open "
                         "shapes", "give fixed sizes, or 2 to 100 profiles (batch, image or dims)", "--input_shape")


def _holes(flag: str, given: Flags, shapes: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    holes = {name: [at for at, axis in enumerate(axes) if axis == "-1"] for name, axes in shapes.items()}
    ranges = [name for name, axes in shapes.items() if any("~" in axis for axis in axes)]
    shown = given.get("--input_shape", "nothing")
    if ranges or not any(holes.values()):
        why = f"a range for {ranges[0]}" if ranges else f"no -1 axis in --input_shape ({shown})"
        yield breach("open-axes", f"{flag} has profiles, but there is {why}",
                     "write -1 at the axes that the profiles fill", flag, "--input_shape")
        return
    values = profiles_of(flag, given[flag])
    if flag == DYNAMIC[0]:
        wrong = [name for name, found in holes.items() if found not in ([], [0])]
        if wrong:
            yield breach("batch-first", f"--dynamic_batch_size fills first axes only, and {wrong[0]} has -1 at "
                         f"{', '.join(map(str, holes[wrong[0]]))}", "leave -1 at axis 0 only, or use --dynamic_dims",
                         flag, "--input_shape")
    elif flag == DYNAMIC[1]:
        wanted = [1, 2] if given.get("--input_format", default("--input_format", given.get("--framework", ONNX))) \
            == "NHWC" else [2, 3]
        wrong = [name for name, found in holes.items() if found and (found != wanted or len(shapes[name]) != 4)]
        if wrong:
            yield breach("image-axes", f"--dynamic_image_size fills height and width (axes {wanted[0]} and {wanted[1]} "
                         f"of 4), and {wrong[0]} has {','.join(shapes[wrong[0]])}",
                         "leave -1 there only, or use --dynamic_dims", flag, "--input_shape")
    else:
        count = sum(map(len, holes.values()))
        if any(len(value) != count for value in values):
            yield breach("dims-count", f"--input_shape ({shown}) has {count} axes of -1, and a profile has "
                         f"{len(values[0])} sizes", f"give {count} sizes in each profile", flag, "--input_shape")


def _typed_outputs(given: Flags) -> Iterator[Problem]:
    value = given.get("--output_type", "")
    if ":" not in value:
        return
    typed = [piece.rpartition(":")[0] for piece in value.split(";") if piece]
    named = [piece for piece in given.get("--out_nodes", "").split(";") if piece]
    if sorted(typed) != sorted(named):
        yield breach("typed-outputs", f"--output_type is for {', '.join(typed)}, and --out_nodes has "
                     f"{', '.join(named) or 'nothing'}", f"give --out_nodes=\"{';'.join(typed)}\"", "--output_type",
                     "--out_nodes")
