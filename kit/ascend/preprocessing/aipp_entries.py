"""The entries of an AIPP block one by one: keys that exist, once each, with values of their type, none missing."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from kit.ascend.preprocessing.aipp_text import Entry
from kit.targets.ascend import facts

if TYPE_CHECKING:
    from kit.ascend.preprocessing.aipp_reading import Block

# What protobuf's parser takes for a bool.
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_EITHER_MODE = ("aipp_mode", "related_input_rank", "related_input_name", "input_edge_idx")
_LARGEST_DEFAULT = 1920 * 1080 * 3  # bytes


def check_entries(block: Block) -> None:
    """Fill the block's values from its entries, correcting on the way."""
    for pass_ in (_keys, _repeated, _types, _reserved, _required):
        pass_(block)


def _keys(block: Block) -> None:
    """Give every entry a key that exists, or take it out."""
    known = facts("aipp")["keys"]
    kept = []
    for entry in block.entries:
        if entry.key in known:
            kept.append(entry)
            continue
        gone = facts("aipp")["not_keys"].get(entry.key)
        close = difflib.get_close_matches(entry.key.lower(), known, n=3, cutoff=0.75)
        if gone:
            block.say(entry.key, None, gone, was=entry.value, line=entry.line)
        elif close:
            also = f"; near it: {', '.join(close)}" if len(close) > 1 else ""
            block.note(entry.line, entry.key, entry.value, f"{close[0]} : {entry.value}",
                       f"there is no key of this name{also}", sure=entry.key.lower() == close[0])
            kept.append(Entry(close[0], entry.value, entry.line, entry.quoted))
        else:
            block.say(entry.key, None, "there is no key of this name", was=entry.value, line=entry.line)
    block.entries = kept


def _repeated(block: Block) -> None:
    """A key stands once; three times the first channel's were meant for three channels."""
    counts = Counter(entry.key for entry in block.entries)
    present = set(counts)
    seen: Counter[str] = Counter()
    kept = []
    for entry in block.entries:
        if counts[entry.key] == 1 or facts("aipp")["keys"][entry.key].get("repeated"):
            kept.append(entry)
            continue
        at = seen[entry.key]
        seen[entry.key] += 1
        other = re.sub(r"_0$", f"_{at}", entry.key)
        if at == 0:
            kept.append(entry)
        elif other != entry.key and other not in present and other in facts("aipp")["keys"]:
            present.add(other)
            kept.append(Entry(other, entry.value, entry.line, entry.quoted))
            block.note(entry.line, entry.key, entry.value, f"{other} : {entry.value}",
                       "the first channel's key again: each channel has its own number")
        else:
            block.note(entry.line, entry.key, entry.value, "", "the key stands before already")
    block.entries = kept


def _types(block: Block) -> None:
    """Turn texts into values of the key's type."""
    for entry in block.entries:
        kind = facts("aipp")["keys"][entry.key]
        if kind["kind"] == "bool":
            if entry.value.lower() in _BOOLS:
                block.values[entry.key] = _BOOLS[entry.value.lower()]
            else:
                block.say(entry.key, False, "it is true or false", was=entry.value, sure=False, line=entry.line)
        elif kind["kind"] == "enum":
            _enum(block, entry, kind["values"])
        elif kind["kind"] == "string":
            block.values[entry.key] = f'"{entry.value}"'
        else:
            _number(block, entry, kind)
        if entry.quoted and kind["kind"] != "string" and entry.key in block.values:
            block.say(entry.key, block.values[entry.key], "quotes make it a text", was=f'"{entry.value}"',
                      line=entry.line)


def _number(block: Block, entry: Entry, kind: dict[str, Any]) -> None:
    top, _, under = entry.value.rstrip("f").partition("/")
    try:
        value = float(top) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        block.say(entry.key, None, "it is a number", was=entry.value, sure=False, line=entry.line)
        return
    fraction = re.fullmatch(r"mean_chn_[012]", entry.key)  # its fraction has a place: aipp_meaning puts it there
    if under:
        block.say(entry.key, value if fraction or kind["kind"] == "float" else round(value),
                  "nothing is worked out in this file: write the number", was=entry.value, line=entry.line)
    elif kind["kind"] == "float" or (fraction and value != int(value)):
        block.values[entry.key] = value
    elif "." in top or "e" in top.lower():
        block.say(entry.key, round(value), "it is an integer", was=entry.value, sure=value == int(value),
                  line=entry.line)
    else:
        block.values[entry.key] = int(value)
    if kind.get("repeated") and len([e for e in block.entries if e.key == entry.key]) > 1:
        block.values[entry.key] = int(value)


def _enum(block: Block, entry: Entry, values: list[str]) -> None:
    if entry.value in values:
        block.values[entry.key] = entry.value
        return
    data = facts("aipp")
    invented = data["invented"].get(entry.value.upper())
    if entry.value.lower() in {value.lower() for value in values}:
        right = next(value for value in values if value.lower() == entry.value.lower())
        block.say(entry.key, right, "it is written so", was=entry.value, line=entry.line)
    elif entry.key == "input_format" and invented:
        right, more = invented
        also = f" and {', '.join(f'{key} {value}' for key, value in more.items())}" if more else ""
        block.say(entry.key, right, f"there is no such format; its bytes are {right}{also}", was=entry.value,
                  line=entry.line)
        for key, value in more.items():
            if not any(other.key == key for other in block.entries):
                block.say(key, value == "true", f"with {entry.value}: the first and last of three channels change "
                          "places for a model of the other order; false if the model takes the same order",
                          sure=False)
    elif entry.key == "input_format" and entry.value in data["reserved_formats"]:
        block.say(entry.key, "RGB888_U8", "the parser knows it, current chips do not: convert the picture on the host; "
                  f"they take {', '.join(values)}", was=entry.value, sure=False, line=entry.line)
    else:
        close = difflib.get_close_matches(entry.value.upper(), [value.upper() for value in values], n=1, cutoff=0.6)
        right = next((value for value in values if [value.upper()] == close),
                     "RGB888_U8" if entry.key == "input_format" else "static")
        block.say(entry.key, right, f"it is one of {', '.join(values)}", was=entry.value, sure=False, line=entry.line)


def _reserved(block: Block) -> None:
    """Keys that nothing listens to; ``resize`` is the one that people trust."""
    for key in [key for key in block.values if facts("aipp")["keys"][key].get("reserved")]:
        if block.values[key] in (facts("aipp")["keys"][key]["default"], 0):
            continue
        why = (facts("aipp")["rules"]["resize"] + " Resize on the host, or with DVPP" if key.startswith("resize")
               else "it is reserved and does nothing")
        block.say(key, None, why)


def _required(block: Block) -> None:
    mode = block.values.get("aipp_mode")
    if mode is None:
        mode = "dynamic" if "max_src_image_size" in block.values and "input_format" not in block.values else "static"
        block.say("aipp_mode", mode, "it must be given")
    if mode == "static" and "input_format" not in block.values:
        block.say("input_format", "RGB888_U8", "it must be given for a static AIPP: three bytes a pixel are assumed",
                  sure=False)
    if mode == "dynamic" and not block.values.get("max_src_image_size"):
        block.say("max_src_image_size", _LARGEST_DEFAULT, "it must be given for a dynamic AIPP: the bytes of the "
                  "largest batch of pictures; those of 1920 x 1080 RGB are assumed", sure=False)
    keys = facts("aipp")["keys"]
    for key in list(block.values):
        if mode == "static" and keys[key].get("mode") == "dynamic":
            block.say(key, None, "it belongs to a dynamic AIPP, this one is static")
        elif mode == "dynamic" and keys[key].get("mode") != "dynamic" and key not in _EITHER_MODE:
            block.say(key, None, "a dynamic AIPP gets this before each run, not from the file")
    if block.values.get("related_input_name", '""') != '""':
        block.say("related_input_name", None, "names count for Caffe models only: for ONNX give related_input_rank, 0 "
                  "for the first input", sure=False)


def check_ranges(block: Block) -> None:
    """Every number lies where its key allows."""
    for key, value in list(block.values.items()):
        kind = facts("aipp")["keys"][key]
        if isinstance(value, bool | str) or "low" not in kind or (value == 0 and kind.get("zero")):
            continue
        high = kind["high"] if kind["high"] is not None else float("inf")
        if not kind["low"] <= value <= high:
            nearest = type(value)(min(max(value, kind["low"]), high))
            limits = f"{kind['low']} or more" if high == float("inf") else f"{kind['low']}..{kind['high']}"
            block.say(key, nearest, f"it lies in {limits}" + (", or is 0" if kind.get("zero") else ""), sure=False)
