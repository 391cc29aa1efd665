"""Read an AIPP configuration that came from elsewhere: what is wrong in it, why, and the text as it should be.

Articles and chat answers spread forms that ATC refuses (JSON, ``BGR888_U8``, a mean of 123.675 in an integer field)
and, worse, forms that it takes and that compute something else (1/std as a subtrahend, a factor without 1/255).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.ascend.chip_family import exact_name, family_of
from kit.ascend.preprocessing.aipp_arithmetic import Settings
from kit.ascend.preprocessing.aipp_entries import check_entries, check_ranges
from kit.ascend.preprocessing.aipp_geometry import check_geometry
from kit.ascend.preprocessing.aipp_meaning import check_values
from kit.ascend.preprocessing.aipp_text import Entry, parse, write
from kit.card import Card, Listing, Table
from kit.errors import BadInput
from kit.targets.ascend import facts


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong, and what the corrected text says instead.

    Attributes:
        line: in the text given, counted from 1; 0 for something that is missing.
        key: of the entry, or what stands there.
        was: what it says.
        now: what the corrected text says; "" where the entry is gone.
        why: the reason.
        sure: False where only the author can know: the corrected text holds the likeliest.
    """

    line: int
    key: str
    was: str
    now: str
    why: str
    sure: bool = True


@dataclass
class Block:
    """One ``aipp_op`` while it is being corrected."""

    entries: Sequence[Entry]
    mistakes: list[Mistake]
    values: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """The value, or what ATC takes where the key is left out."""
        return self.values[key] if key in self.values else facts("aipp")["keys"][key]["default"]

    def line(self, key: str) -> int:
        """Where a key stands; 0 when it does not."""
        return next((e.line for e in self.entries if e.key == key), 0)

    def note(self, line: int, key: str, was: str, now: str, why: str, *, sure: bool = True) -> None:
        """Note a mistake that changed more than one key."""
        self.mistakes.append(Mistake(line, key, was, now, why, sure))

    def say(self, key: str, now: Any, why: str, *, sure: bool = True, was: Any = None, line: int | None = None) -> None:
        """Note a mistake and set the key to ``now``; None takes it out."""
        known = self.values.get(key, "") if was is None else was
        if now is None:
            self.values.pop(key, None)
        else:
            self.values[key] = now
        self.note(self.line(key) if line is None else line, key, _shown(known), "" if now is None else _shown(now), why,
                  sure=sure)


@dataclass(frozen=True)
class AippReading(Card):
    """What a configuration says and what is wrong with it; true when nothing is.

    Attributes:
        text: as given.
        blocks: the corrected values, one mapping a block.
        mistakes: in the order of the text.
        corrected: a text without them.
        soc_version: the chip it was checked for.
    """

    text: str = field(repr=False)
    blocks: tuple[dict[str, Any], ...] = field(repr=False)
    mistakes: tuple[Mistake, ...]
    corrected: str = field(repr=False)
    soc_version: str

    def __bool__(self) -> bool:
        return not self.mistakes

    def settings(self, at: int = 0) -> Settings:
        """What a block computes, for ``kit.ascend.preprocessing.aipp_arithmetic.run``.

        Raises:
            BadInput: no such block, or it is a dynamic one, whose numbers come with every run.
        """
        if at >= len(self.blocks):
            raise BadInput(f"There is no AIPP block number {at}; the text has {len(self.blocks)}.",
                           remedy="count from 0")
        block = self.blocks[at]
        if block.get("aipp_mode") == "dynamic":
            raise BadInput("This AIPP is dynamic: its numbers are set before each run (acl.mdl.set_input_aipp), "
                           "they do not stand in the file.", remedy="make a static one: kit.ascend.aipp(...)")
        return _settings(block, self.soc_version)

    def title(self) -> str:
        if not self.mistakes:
            return f"{len(self.blocks)} AIPP block{'s' * (len(self.blocks) != 1)}, nothing wrong found"
        unsure = sum(not one.sure for one in self.mistakes)
        return (f"{len(self.mistakes)} mistake{'s' * (len(self.mistakes) != 1)} in this AIPP configuration"
                + (f"; {unsure} correction{'s' * (unsure != 1)} to decide yourself" if unsure else ""))

    def facts(self) -> dict[str, object]:
        return {"checked for": self.soc_version,
                **{f"input {block.get('related_input_rank', 0)}": _block_words(block) for block in self.blocks}}

    def tables(self) -> tuple[Table, ...]:
        if not self.mistakes:
            return ()
        rows = tuple((one.line or "-", one.key, one.was or "-", (one.now or "taken out") + " (decide)" * (not one.sure),
                      one.why) for one in self.mistakes)
        return (Table("What is wrong", ("line", "key", "says", "should say", "why"), rows),
                Listing("Corrected", self.corrected))


def read_aipp(text: str, *, soc_version: str = "Ascend310P3", size: tuple[int, int] | None = None) -> AippReading:
    """Find what is wrong in an AIPP configuration and correct it.

    Args:
        text: of the file given to ``--insert_op_conf``.
        soc_version: the chip, for limits that differ.
        size: height and width of the model's input, where they are known.

    Raises:
        BadInput: an unknown chip, or the text holds nothing that looks like AIPP at all.
    """
    if not isinstance(text, str):
        raise BadInput(f"read_aipp() takes the text of a configuration, not {type(text).__name__}.",
                       remedy="give the text: pathlib.Path(file).read_text()")
    soc_version, family = exact_name(soc_version), family_of(soc_version)
    parsed = parse(text)
    if not any(parsed.blocks):
        raise BadInput("The text holds no AIPP configuration: not one key with a value was found.",
                       remedy="give the text of a file with aipp_op { aipp_mode : static ... }",
                       detail="\n".join(f"line {fault.line}: {fault.why}" for fault in parsed.faults))
    mistakes = [Mistake(fault.line, fault.text, "", "", fault.why) for fault in parsed.faults]
    blocks = []
    for entries in parsed.blocks:
        block = Block(entries, mistakes)
        check_entries(block)
        check_values(block)
        check_ranges(block)
        check_geometry(block, family, size)
        blocks.append(block.values)
    _ranks(blocks, mistakes)
    mistakes.sort(key=lambda one: one.line)
    return AippReading(text, tuple(blocks), tuple(mistakes), write([_ordered(block) for block in blocks]), soc_version)


def _ranks(blocks: list[dict[str, Any]], mistakes: list[Mistake]) -> None:
    """Each input has one block."""
    taken: set[int] = set()
    for block in blocks:
        rank = block.get("related_input_rank", 0)
        if rank in taken:
            free = next(n for n in range(len(blocks) + max(taken) + 1) if n not in taken)
            mistakes.append(Mistake(0, "related_input_rank", str(rank), str(free), "two blocks for one input of the "
                                    "model: each input has one", sure=False))
            block["related_input_rank"] = rank = free
        taken.add(rank)


def _ordered(block: dict[str, Any]) -> dict[str, Any]:
    order = list(facts("aipp")["keys"])
    return dict(sorted(block.items(), key=lambda item: order.index(item[0])))


def _settings(block: dict[str, Any], soc_version: str) -> Settings:
    def value(key: str) -> Any:
        return block.get(key, facts("aipp")["keys"][key]["default"])

    def three(name: str) -> tuple[Any, ...]:
        return tuple(value(f"{name}_{at}") for at in range(3))

    kind = value("input_format")
    matrix: tuple[int, ...] = ()
    biases = three("input_bias"), three("output_bias")
    if value("csc_switch"):
        default = facts("aipp")["csc_defaults"]["yuv" if kind.startswith("YUV") else "rgb"]["matrix"]
        matrix = tuple(block.get(f"matrix_r{at // 3}c{at % 3}", default[at]) for at in range(9))
    crop = None
    if value("crop") and value("crop_size_h") and value("crop_size_w"):
        crop = (value("load_start_pos_h"), value("load_start_pos_w"), value("crop_size_h"), value("crop_size_w"))
    sides = tuple(value(f"{side}_padding_size") if value("padding") else 0
                  for side in ("left", "right", "top", "bottom"))
    registers = facts("aipp")["families"][family_of(soc_version)]["registers"]
    return Settings(kind, value("rbuv_swap_switch") and kind != "YUV400_U8", value("ax_swap_switch"), crop, matrix,
                    *biases, three("mean_chn"), three("min_chn"), three("var_reci_chn"), sides,
                    float(value("padding_value")), registers)


def _block_words(block: dict[str, Any]) -> str:
    if block.get("aipp_mode") == "dynamic":
        return f"dynamic, pictures up to {block.get('max_src_image_size', 0):,} bytes"
    size = [block.get(f"src_image_size_{axis}", 0) for axis in "wh"]
    kind = block.get("input_format", "")
    words = [kind + " left in YUV" * (kind == "YUV420SP_U8" and not block.get("csc_switch")),
             f"{size[0]} x {size[1]}" if all(size) else "the model's own size"]
    switches = ("rbuv_swap_switch", "csc_switch", "crop", "padding")
    return ", ".join(words + [name for name in switches if block.get(name)])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
