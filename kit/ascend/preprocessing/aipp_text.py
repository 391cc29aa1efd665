"""The text of an AIPP configuration: protobuf text, written in one form and read in many, broken ones included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"""
    (?P<space>[ \t\r\n]+) | (?P<comment>(?:\#|//)[^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?f?(?:/\d+(?:\.\d*)?)?(?![\w.]))
  | (?P<name>[A-Za-z_][\w]*)
  | (?P<mark>[{}:;,<>：\[\]-])
""", re.VERBOSE)
_ASIDE = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|(?:#|//).*")  # what may hold any character
_SENTENCE = re.compile(r"[^\s\w{}:;,<>：\[\].+/\"'-]|[^\x00-\x7f：]")
_ASSIGNED = re.compile(r"(\s*\w+)\s*=\s*([^=\s].*)")
_BRACES = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class Entry:
    """One ``key : value`` as it stands in the text.

    Attributes:
        key: as written.
        value: as written, without quotes.
        line: counted from 1.
        quoted: the value stood in quotes.
    """

    key: str
    value: str
    line: int
    quoted: bool = False


@dataclass(frozen=True)
class Fault:
    """Something that protobuf's parser would not take."""

    line: int
    text: str
    why: str


@dataclass(frozen=True)
class Parsed:
    """The blocks of a text, and what its form did wrong."""

    blocks: tuple[tuple[Entry, ...], ...]
    faults: tuple[Fault, ...]


def write(blocks: Sequence[Mapping[str, Any]], comments: Sequence[str] = ()) -> str:
    """The text of some blocks, each a mapping of key to value in the order they are to stand in."""
    lines = [f"# {comment}" for comment in comments]
    for block in blocks:
        lines += ["aipp_op {", *(f"    {key} : {_written(value)}" for key, value in block.items()), "}"]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def parse(text: str) -> Parsed:
    """Read a text as far as it can be read; nothing is thrown away without a fault that says so."""
    if text.lstrip().startswith(("{", "[")):
        return _from_json(text)
    return _Reader(text).run()


def _from_json(text: str) -> Parsed:
    try:
        found = json.loads(text)
    except ValueError as error:
        read = _Reader(text.replace("{", " { ", 1)).run()
        return Parsed(read.blocks, (Fault(1, text.strip()[:40], f"it begins like JSON, and is not even that ({error}): "
                                          "AIPP takes protobuf text, aipp_op { key : value }"), *read.faults))
    blocks = tuple(tuple(entries) for entries in _json_blocks(found))
    return Parsed(blocks, (Fault(1, text.strip().splitlines()[0][:40],
                                 "it is JSON: AIPP takes protobuf text, aipp_op { key : value }"),))


def _json_blocks(thing: Any) -> Iterator[list[Entry]]:
    """Every object that holds plain values is a block, wherever it hangs."""
    if isinstance(thing, list):
        for item in thing:
            yield from _json_blocks(item)
    elif isinstance(thing, dict):
        plain = [Entry(str(key), json.dumps(item) if isinstance(item, bool) else str(item), 1)
                 for key, item in thing.items() if isinstance(item, str | int | float)]
        if plain:
            yield plain
        for item in thing.values():
            yield from _json_blocks(item)


class _Reader:
    """Walks over the tokens once."""

    def __init__(self, text: str) -> None:
        self.faults: list[Fault] = []
        self.blocks: list[list[Entry]] = []
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, line
        line, seen = 1, 0
        plain = "\n".join(self._plain(text))
        for match in _TOKEN.finditer(plain):
            kind, found = str(match.lastgroup), match[0]
            if match.start() > seen:
                self.say(line, plain[seen : match.start()], "it is not protobuf text")
            seen = match.end()
            if kind == "comment":
                if found.startswith("//"):
                    self.say(line, found, "a comment begins with # in protobuf text")
            elif kind != "space":
                self.tokens.append((kind, found, line))
            line += found.count("\n")
        self.at = 0
        self.loose = False  # entries outside a block make one of their own

    def _plain(self, text: str) -> Iterator[str]:
        """The lines, without those that hold sentences: an explanation that lost its #."""
        for number, line in enumerate(text.splitlines(), 1):
            assigned = _ASSIGNED.match(line)
            if assigned:
                self.say(number, line[:60], "key and value are joined by a colon, not by =")
                line = f"{assigned[1]} : {assigned[2]}"
            if _SENTENCE.search(_ASIDE.sub("", line)):
                self.say(number, line[:60], "it is not protobuf text")
                yield ""
            else:
                yield line

    def say(self, line: int, text: str, why: str) -> None:
        self.faults.append(Fault(line, text.strip(), why))

    def peek(self, ahead: int = 0) -> tuple[str, str, int]:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ("end", "", self.tokens[-1][2] if self.tokens else 1)

    def run(self) -> Parsed:
        inside, close = False, ""
        while self.peek()[0] != "end":
            kind, found, line = self.peek()
            self.at += 1
            if kind == "mark":
                if found == close and inside:
                    inside = False
                elif found == "-":
                    self.say(line, found, "a dash is YAML, not protobuf text")
                elif found not in ",;":
                    self.say(line, found, f"{found!r} has nothing to do here")
            elif kind in ("name", "string"):
                key = found.strip("\"'")
                if kind == "string":
                    self.say(line, found, "keys stand without quotes")
                opened = self._opens(key)
                if opened is not None:
                    if inside and close:
                        self.say(line, found, f"the block before it is not closed with {close}")
                    inside, close, self.loose = True, opened, False
                    self.blocks.append([])
                else:
                    self._entry(key, line, inside)
            else:
                self.say(line, found, "a value without a key")
        if inside and close:
            self.say(self.peek()[2], "", f"the last block is not closed with {close}")
        return Parsed(tuple(tuple(block) for block in self.blocks), tuple(self.faults))

    def _opens(self, key: str) -> str | None:
        """Whether a block opens here: its closing brace, "" for one without braces, None for an ordinary key."""
        ahead = 1 if self.peek()[1] in (":", "：") else 0
        brace = self.peek(ahead)[1]
        if brace in _BRACES:
            if key != "aipp_op":
                self.say(self.peek()[2], key, "blocks are called aipp_op")
            self.at += ahead + 1
            return _BRACES[brace]
        if key == "aipp_op":
            self.say(self.peek()[2], key, "a block stands in braces: aipp_op { ... }")
            self.at += ahead
            return ""
        return None

    def _entry(self, key: str, line: int, inside: bool) -> None:
        if self.peek()[1] == "：":
            self.say(line, key, "a full-width colon; write :")
        if self.peek()[1] not in (":", "："):
            self.say(line, key, "a key without a value")
            return
        self.at += 1
        kind, value, _ = self.peek()
        if kind == "mark" and value == "[":  # [a] is a list of one; more than one is taken one by one
            self.at += 1
            kind, value, _ = self.peek()
        if kind not in ("number", "name", "string") or (kind == "name" and self.peek(1)[1] in (":", "：")):
            self.say(line, key, "a key without a value")
            return
        self.at += 1
        if not inside and not self.loose:
            self.loose = True
            self.say(line, key, "it stands outside a block: aipp_op { ... }")
            self.blocks.append([])
        self.blocks[-1].append(Entry(key, value.strip("\"'"), line, kind == "string"))
        while self.peek()[1] == "," and self.peek(1)[0] == "number":  # the rest of a list
            self.blocks[-1].append(Entry(key, self.peek(1)[1], line))
            self.at += 2
        if self.peek()[1] == "]":
            self.at += 1

