"""Translates what articles say into what the released toolchain takes: paste a command or a few lines of Python.

``atc`` commands are repaired flag by flag, tools and classes that nobody has are replaced by what there is, and every
change has its reason and source. What is fine stays, to the letter; what only a person can decide is named.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kit.ascend.atc.atc_repair import Change, Flag, Repair, entries, flag_of
from kit.ascend.atc.pasted import Command, Word, commands, pieces, straight
from kit.card import Card, Listing, Table
from kit.errors import BadInput

_ATC = re.compile(r"(?:^|[\s;&|/(!])atc(?:\.bin)?(?=\s)")
_BEFORE = re.compile(r"[A-Za-z_]\w*=.*|sudo|time|nohup|env|exec|command")  # may stand before the program
_MOST = 1_000_000  # characters; a command is shorter


@dataclass(frozen=True)
class Translated(Card):
    """A pasted text with its real equivalent. False when something is left that only a person can decide.

    Attributes:
        source: what was pasted.
        text: what to run instead; the same where nothing had to change.
        changes: what was put right, with reasons.
        refused: what stands as it was, with what to decide.
        steps: what must be there before it runs.
        remarks: what is fine and worth knowing.
        commands: how many commands of atc were read.
    """

    source: str
    text: str
    changes: tuple[Change, ...]
    refused: tuple[Change, ...] = ()
    steps: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    commands: int = 0

    def __bool__(self) -> bool:
        return not self.refused

    def title(self) -> str:
        if not self.changes and not self.refused and not self.commands:
            return "Nothing checked: no flags of atc here, and no name that only articles know"
        if not self.changes and not self.refused:
            return "Nothing to change: the released toolchain takes it as it is"
        count = f"{len(self.changes)} change{'s' * (len(self.changes) != 1)}"
        return f"{count}, {len(self.refused)} left for you to decide" if self.refused else count

    def facts(self) -> dict[str, object]:
        return {**({"before it runs": " ".join(self.steps)} if self.steps else {}),
                **({"worth knowing": " ".join(self.remarks)} if self.remarks else {})}

    def tables(self) -> Sequence[Table]:
        made = [Listing("Now", self.text)]
        if self.changes:
            made.append(Table("Changes", ("was", "became", "because", "source"), tuple(
                (one.was or "(missing)", one.became or "(left out)", one.reason, one.source) for one in self.changes)))
        if self.refused:
            made.append(Table("For you to decide", ("stands there", "what is wrong"), tuple(
                (one.was or "(missing)", one.reason) for one in self.refused)))
        return made


def translate(text: str) -> Translated:
    """The real equivalent of a pasted command line or of Python lines, with the reason for each change.

    Args:
        text: any lines: several commands, comments, backslashes, variables, prompts. Nothing of it is run.

    Raises:
        BadInput: it is no text, or far too long for a command.
    """
    if not isinstance(text, str) or len(text) > _MOST:
        given = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        raise BadInput(f"translate() takes a command as text, not {given}.",
                       remedy="paste the command, or the few lines of Python")
    work = _Translation(text)
    result = "".join(work.pieces())
    return Translated(text, result, tuple(work.changes), tuple(work.refused), tuple(work.steps),
                      tuple(dict.fromkeys(work.remarks)), work.commands)


class _Translation:
    def __init__(self, text: str) -> None:
        # Of the same length: what needs no change is copied from the original, typography included.
        self.original, self.text = text, straight(text)
        self.changes: list[Change] = []
        self.refused: list[Change] = []
        self.steps: list[str] = []
        self.remarks: list[str] = []
        self.gone: dict[str, set[str]] = {}  # Python class -> variables that hold what it made
        self.shown: set[str] = set()
        self.commands = 0

    def pieces(self) -> Iterator[str]:
        for start, end in pieces(self.text, _ATC):
            piece = self.text[start:end]
            if piece.lstrip().startswith("#") or not piece.strip():
                yield self.original[start:end]
            elif (made := self._python(piece)) is not None:
                yield made
            else:
                yield self._shell(start, end)

    def _shell(self, start: int, end: int) -> str:
        made, at, above = [], start, []
        for command in commands(self.text, start, end):
            new, first = self._command(command)
            if new is not None:
                made += [self.original[at:command.start], new]
                at = command.end
            above += [f"{line}\n" for line in first]
        # What must run first goes above the whole line: before the command may stand "cd folder &&", and the ! by which
        # a notebook cell runs a shell.
        if self.text[start:end].lstrip().startswith("!"):
            above = [line if line.startswith("#") else f"!{line}" for line in above]
        return "".join([*above, *made, self.original[at:end]])

    def _command(self, command: Command) -> tuple[str | None, list[str]]:
        """The command anew and lines that belong before it; None where it stays."""
        at = next((n for n, word in enumerate(command.words) if not _BEFORE.fullmatch(word.value)), None)
        if at is None:
            return None, []
        program = command.words[at]
        if posixpath.basename(program.value) in ("atc", "atc.bin"):
            return self._atc(command, at)
        for row in entries():
            if row["kind"] == "tool" and any(re.fullmatch(row["match"], posixpath.basename(word.value))
                                             for word in command.words[at:at + 3]):
                return self._tool(command, row), []
            if row["kind"] == "place" and any(re.search(row["match"], word.value) for word in command.words):
                self._told(row, self.text[command.start:command.end], "")
                was = re.sub(r"\s*\\?\n\s*", " ", self.text[command.start:command.end])  # a comment is one line
                return f"# {row['instead']}: {was}", []
        return None, []

    def _atc(self, command: Command, at: int) -> tuple[str | None, list[str]]:
        found, words = _flags(command.words[at + 1:])
        if not found:
            return None, []  # a sentence about atc, or atc alone
        self.commands += 1
        if not command.whole:
            self.refused.append(Change(self.text[command.start:command.end], "", "a quote is not closed", "sh"))
            return None, []
        work = Repair(found, words)
        work.run()
        self.refused += work.refused
        self.steps += [step for step in work.steps if step not in self.steps]
        self.remarks += work.remarks
        mistakes = [Change(mistake, "written anew", "the shell would take it otherwise", "sh")
                    for mistake in command.mistakes]
        if any(self.original[word.start:word.end] != word.raw for word in command.words):
            mistakes.append(Change("typographic quotes or dashes", "plain ones", "a shell knows plain ones only", "sh"))
        if not work.changes and not mistakes:
            return None, []
        self.changes += [*mistakes, *work.changes]
        before = [word.raw for word in command.words[:at + 1]]
        flags = [flag.raw for flag in work.flags]
        several = "\n" in self.text[command.start:command.end] or len(flags) > 3
        between = " \\\n  " if several else " "
        comments = [f"# {comment}" for comment in command.comments]
        return between.join([" ".join(before), *flags]), [*comments, *work.first]

    def _tool(self, command: Command, row: dict) -> str:
        """The lines that do what a tool was to do."""
        # Names go into quoted lines: one with quotes of its own is not taken over.
        plain = [word.value for word in command.words if not re.search(r"[\s\"'`\\()]", word.value)]
        values = {}
        for word, following in zip(plain, [*plain[1:], ""], strict=True):
            name, equals, value = word.partition("=")
            if re.fullmatch(r"-{1,2}\w[\w-]*", name) and (equals or following):
                values[name.strip("-").lower()] = value if equals else following
        files = [word for word in plain if re.fullmatch(r"[^=]+\.(onnx|om)", word)]
        onnx = [file for file in files if file.endswith(".onnx")]
        source = values.get("input") or values.get("i") or values.get("model") or next(iter(onnx), "model.onnx")
        fixed = [*onnx[1:], f"{source.removesuffix('.onnx')}_fixed.onnx"]
        target = values.get("output") or values.get("o") or fixed[0]
        om = next((value for value in [*values.values(), *files] if value.endswith(".om")), "model.om")
        new = "\n".join(line.replace("{in}", source).replace("{out}", target).replace("{om}", om)
                        for line in row["shell"])
        self._told(row, self.text[command.start:command.end], new)
        return new

    def _told(self, row: dict, was: str, became: str) -> None:
        self.changes.append(Change(was.strip(), became, f"{row['name']}: {row['really']}. Instead: {row['instead']}",
                                   "; ".join(row["source"][:2])))

    def _python(self, piece: str) -> str | None:
        """A line that imports or uses a class that is not there; None where it is no such line."""
        for row in entries():
            if row["kind"] not in ("python", "place"):
                continue
            imports = re.match(r"\s*(?:from|import)\s", piece) is not None
            code = imports or (row["kind"] == "python" and re.match(r".*(?:\w\s*\(|=)", piece) is not None)
            held = self.gone.get(row["name"], ())
            if (code and re.search(row["match"], piece)) or any(re.search(rf"\b{name}\b", piece) for name in held):
                return self._replaced(row, piece)
        return None

    def _replaced(self, row: dict, piece: str) -> str:
        name, was = row["name"], piece.strip()
        if made := re.match(r"\s*(\w+)\s*=(?!=)", piece):  # what it made is gone with it
            self.gone.setdefault(name, set()).add(made[1])
        indent = re.match(r"\s*", piece)[0]  # type: ignore[index]
        lines = [f"{indent}# {line.strip()}" for line in piece.splitlines()]
        if name in self.shown:
            self.changes.append(Change(was, "", f"it needs {name}, which is not there", "; ".join(row["source"][:2])))
        else:
            self.shown.add(name)
            new = [f"{indent}{self._filled(line)}" for line in row.get("python", [])]
            lines += new
            self._told(row, was, "; ".join(line.partition("  #")[0].strip() for line in new))
        return "\n".join(lines) + ("\n" if piece.endswith("\n") else "")

    def _filled(self, line: str) -> str:
        for suffix in ("om", "onnx"):
            found = re.search(rf"[\"']([^\"'\n]+\.{suffix})[\"']", self.text)
            line = line.replace(f"{{{suffix}}}", found[1] if found else f"model.{suffix}")
        return line


def _flags(words: Sequence[Word]) -> tuple[list[Flag], list[str]]:
    """The flags of a command, and words that are none."""
    found, others = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.match(r"-{1,2}[A-Za-z]", word.value):
            others.append(word.raw)
            continue
        alone = "=" in word.value or not rest or re.match(r"-{1,2}[A-Za-z]", rest[0].value)
        following = None if alone else rest[0]
        if word.value in ("--help", "-h", "-help"):
            found.append(Flag("--help", "true", word.raw))
            continue
        if following is not None:
            rest.pop(0)
        raw = " ".join(_quoted(part) for part in (word, following) if part is not None)
        found.append(flag_of(word.value, following.value if following else None, raw,
                             word.varies or bool(following and following.varies)))
    return found, others


def _quoted(word: Word) -> str:
    """As it was written; with quotes where a bare ; or | would end the command."""
    if not re.search(r"[;|]", word.raw) or re.search(r"[\"']", word.raw):
        return word.raw
    name, equals, value = word.value.partition("=")
    return f"{name}={shlex.quote(value)}" if equals else shlex.quote(word.value)
