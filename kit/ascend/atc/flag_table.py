"""The flags of ``atc`` as data: which there are, what each takes, on which chip and since which CANN release.

Everything is read from ``atc_flags.json``; rules between flags are in ``kit.ascend.atc.flag_rules``. A flag that is not
in the table must never reach ``atc``: an unknown flag stops it.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from typing import Any

from kit.errors import BadInput, unknown
from kit.targets.ascend import facts, known_chips

ONNX = "5"  # --framework
RECENT = "7.0"
FORMATS_OF = {"0": "caffe", "1": "mindspore", "3": "tensorflow", "5": "onnx"}


@dataclass(frozen=True)
class Problem:
    """Why ``atc`` would refuse a command, or do something else than was meant.

    Attributes:
        rule: its id in ``atc_flags.json``; ``value``, ``flag``, ``chip`` and ``release`` for the flag alone.
        what: the problem with the offending value.
        remedy: what is valid.
        flags: which flags it is about.
        error: the code that ATC reports; "" where the documents forbid it without a code.
    """

    rule: str
    what: str
    remedy: str
    flags: tuple[str, ...]
    error: str = ""

    def exception(self) -> BadInput:
        """The problem as the error to raise."""
        return BadInput(f"{self.what}{f' (ATC: {self.error})' if self.error else ''}.", remedy=self.remedy)


@dataclass(frozen=True)
class Chip:
    """A chip as ``--soc_version`` names it.

    Attributes:
        soc_version: exactly spelt, such as ``Ascend310P3``.
        product: the group that the documents speak of, such as ``310P``; "" where they say nothing about the chip.
    """

    soc_version: str
    product: str

    @property
    def title(self) -> str:
        """With its product."""
        name = flags_file()["products"].get(self.product, {}).get("title", "")
        return f"{self.soc_version} ({name})" if name else self.soc_version


def flags_file() -> dict[str, Any]:
    """The whole of ``atc_flags.json``."""
    return facts("atc_flags")


def flags() -> dict[str, dict[str, Any]]:
    """Flag -> what is known about it."""
    return flags_file()["flags"]


def spelt(name: str) -> str:
    """``-input-shape`` and ``--input_shape`` are the same flag to ATC: the second form."""
    return "--" + name.strip().lstrip("-").replace("-", "_")


def entry(name: str) -> dict[str, Any]:
    """What is known about a flag.

    Raises:
        BadInput: ATC has no such flag; names the closest.
    """
    if spelt(name) not in flags():
        raise unknown("flag of atc", name, [flag for flag, row in flags().items() if not row.get("hidden")])
    return flags()[spelt(name)]


def closest(name: str, cutoff: float = 0.5) -> list[str]:
    """Flags spelt like ``name``, best first."""
    return difflib.get_close_matches(spelt(name), [f for f, row in flags().items() if not row.get("hidden")], 3, cutoff)


def soc_versions() -> dict[str, str]:
    """Name in lower case -> name as ATC wants it."""
    return {name: entry["soc_version"] for name, entry in known_chips().items()}


def close_chips(name: str) -> list[str]:
    """Chips that ``name`` may have meant: those it is the short name of, else those spelt like it."""
    known = soc_versions()
    plain = re.sub(r"\s", "", name.lower()).removeprefix("ascend")
    family = [exact for low, exact in known.items() if plain and low.removeprefix("ascend").startswith(plain)]
    alike = difflib.get_close_matches(f"ascend{plain}", known, 3, 0.6)
    # 310P3 before 310P1: it is on most inference cards.
    return sorted(family, key=lambda one: one != "Ascend310P3") or [known[low] for low in alike]


def chip(name: str) -> Chip:
    """The chip of that name; upper and lower case are the same.

    Raises:
        BadInput: there is no such chip; names the closest.
    """
    exact = soc_versions().get(name.strip().lower())
    if exact is None:
        near = close_chips(name)
        hint = f"choose {' or '.join(near)}: npu-smi info shows the name" if near else \
            "give the Name that npu-smi info shows, with Ascend before it, such as Ascend310P3"
        raise BadInput(f"{name!r} is no soc_version that ATC knows (ATC: E10001).", remedy=hint,
                       detail="\n".join(sorted(soc_versions().values())))
    short = known_chips()[exact.lower()].get("short_soc", "")
    products = flags_file()["products"]
    return Chip(exact, next((product for product, row in products.items() if short in row["short_soc"]), ""))


@functools.cache
def release(text: str) -> tuple[int, ...]:
    """``8.1.RC1`` -> (8, 1, 0); () for "".

    Raises:
        BadInput: it is no CANN release.
    """
    if not text.strip():
        return ()
    found = re.match(r"(?:CANN[ -]?)?(\d+)\.(\d+)(?:\.(\d+))?(?:\.?(?:RC|alpha|beta|T|SPC)\S*)*$", text.strip(), re.I)
    if found is None:
        raise BadInput(f"{text!r} is no CANN release.", remedy='write it like "8.1.RC1" or "9.0.0", or leave it out')
    return tuple(int(part or 0) for part in found.groups())


def choices(name: str, chip: Chip | None = None, framework: str = ONNX) -> dict[str, str] | None:
    """Valid values of a flag on a chip -> what each means, "" where that is plain; None where anything goes."""
    row = entry(name)
    listed = row.get("choices")
    if listed is None:
        return None
    if spelt(name) == "--input_format":
        listed = listed[FORMATS_OF.get(framework, "onnx")]
    limits = row.get("only", {})
    named = listed if isinstance(listed, dict) else dict.fromkeys(listed, "")
    return {value: meaning for value, meaning in named.items()
            if value not in limits or chip is None or not chip.product or chip.product in limits[value]}


def default(name: str, framework: str = ONNX) -> str:
    """What ATC takes where the flag is not given; "" where there is none."""
    value = entry(name).get("default", "")
    return value.get(FORMATS_OF.get(framework, "onnx"), "") if isinstance(value, dict) else value


def meaning(name: str, value: str) -> str:
    """What a flag with this value does, in a sentence without a full stop."""
    said = (choices(name) or {}).get(value, "")
    return f"{entry(name)['does']}; {value}: {said}" if said else entry(name)["does"]


def flag_problem(name: str, value: str, chip: Chip, cann: str = "", framework: str = ONNX) -> Problem | None:
    """What is wrong with one flag by itself: not on this chip, not in this release, or not with this value."""
    row, flag = entry(name), spelt(name)
    if chip.product and "products" in row and chip.product not in row["products"] and chip.product != "310":
        others = ", ".join(row["products"]) or "none that can be bought"
        return Problem("chip", f"{flag} is not for {chip.title}", f"leave it out; it is for {others}", (flag,))
    oldest = row.get("perhaps_since", row.get("since", ""))
    if release(cann) and oldest and release(cann) < release(oldest):
        seen = row.get("since", oldest)
        return Problem("release", f"{flag} was first seen in CANN {seen}, and this is for CANN {cann}: an unknown flag "
                       "stops atc", "leave it out, or build with a newer CANN", (flag,))
    return _value_problem(flag, value, row, chip, framework)


def release_note(name: str, cann: str) -> str:
    """A sentence where it is not sure that the release has this flag; "" where it is."""
    row = entry(name)
    since = row.get("since", "")
    # Without a release, one of 2024 or later is taken.
    if not since or release(cann or RECENT) >= release(since):
        return ""
    return f"{spelt(name)} was first seen in CANN {since}" + (
        f", perhaps it is in {row['perhaps_since']} already" if "perhaps_since" in row else "") + \
        (f"; this is for {cann}" if cann else "")


def _value_problem(flag: str, value: str, row: dict[str, Any], chip: Chip, framework: str) -> Problem | None:
    valid = choices(flag, chip, framework)
    if not value and row.get("kind") != "folder" and flag != "--help":
        return Problem("value", f"{flag} is empty", f"give a value, or leave {flag} out", (flag,), "E10004")
    if flag == "--soc_version":
        return _unless(value.lower() in soc_versions() and value == soc_versions()[value.lower()], flag, value,
                       f"choose {' or '.join(close_chips(value)) or 'a name of npu-smi info with Ascend before it'}")
    if flag == "--output_type" and ":" in value:
        bad = [piece for piece in value.split(";") if piece and not (
            re.fullmatch(r".+:\d+:\w+", piece) and piece.rpartition(":")[2] in (valid or {}))]
        return _unless(not bad, flag, value, f"write node:index:TYPE with {', '.join(valid or {})}, ; between several")
    if valid is not None:
        remedy = f"choose one of {', '.join(valid)}"
        elsewhere = row.get("only", {}).get(value, ())
        what = f"{flag}={value} is for {', '.join(elsewhere)}, not for {chip.title}" if elsewhere else ""
        return _unless(value in valid, flag, value, remedy, what)
    if "pattern" in row:
        return _unless(re.fullmatch(row["pattern"], value) is not None, flag, value, f"give {row['form']}")
    if row.get("kind"):
        allowed = flags_file()["path_characters"]
        return _unless(re.fullmatch(allowed["pattern"], value) is not None, flag, value,
                       f"name it with {allowed['says']} only")
    return None


def _unless(fine: bool, flag: str, value: str, remedy: str, what: str = "") -> Problem | None:
    return None if fine else Problem("value", what or f"{flag} cannot be {value!r}", remedy, (flag,), "E10001")
