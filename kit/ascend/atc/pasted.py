"""Reads a pasted shell command without running anything: words with their quotes, joined lines, where each piece lies.

Articles break commands in ways a shell would not take: a comment behind a backslash, a line without one, typographic
quotes and dashes, a bare ``;`` in a value. All of it is read as it was meant, and noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TYPOGRAPHY = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "＝": "=", "；": ";", "：": ":",
                             "，": ",", "－": "-", "\u00a0": " ", "\u3000": " ", "\u200b": " "})
_DASH = re.compile(r"(?<!\S)[—–―]{1,2}(?=\w)")
# A backslash at the end of the line; spaces or a comment behind it are a mistake of articles, and so is a caret.
_CONTINUES = re.compile(r"(?P<mark>\\|(?<=\s)\^)(?P<space>[ \t]*)(?P<comment>#.*)?$")
_PROMPT = re.compile(r"\s*(?:!{1,2}\s*(?=[\w./])|(?:\([\w.-]+\)\s*)?(?:[\w.-]+@[\w.-]+:\S*\s*)?[$%>]:?\s+)")
_BLANK = re.compile(r"[ \t\r]+")
_JOINED = re.compile(r"(\\|\^)?([ \t]*)(#[^\n]*)?\r?\n")
_COMMENT = re.compile(r"#[^\n]*")
_OPERATOR = re.compile(r"\d*(?:>>|>|<)&?\d*|&&|\|\||[;&|()]")
_LINE_END = re.compile(r"\\[ \t]*(#[^\n]*)?\r?\n")
_GOES_ON = re.compile(r";[\w.:/-]+[:,\d]|;\d|\|\d")  # a ; or | that is no operator


@dataclass(frozen=True)
class Word:
    """One word of a command.

    Attributes:
        raw: as it stands there, quotes included.
        value: as the program would get it; variables stay as they are.
        start: where it begins in the text.
        end: where it ends.
        varies: it holds a shell variable or command.
    """

    raw: str
    value: str
    start: int
    end: int
    varies: bool = False


@dataclass
class Command:
    """One command with everything up to its end.

    Attributes:
        words: in order.
        start: where it begins in the text.
        end: where its last word ends.
        comments: comments between its words, without the mark.
        mistakes: what a shell would take otherwise, in words.
        whole: every quote in it is closed.
    """

    words: list[Word] = field(default_factory=list)
    start: int = 0
    end: int = 0
    comments: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    whole: bool = True


def pieces(text: str, wants: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Stretches of lines that belong together: lines that continue, and flags that follow a wanted command bare.

    Args:
        text: what was pasted.
        wants: found in a line whose following lines of flags belong to it.
    """
    lines = text.splitlines(keepends=True)
    at = start = 0
    number = 0
    while number < len(lines):
        start, number, at = at, number + 1, at + len(lines[number])
        wanted = not lines[number - 1].lstrip().startswith("#") and wants.search(lines[number - 1])
        last = lines[number - 1]
        while number < len(lines):
            following = lines[number].strip()
            goes_on = _CONTINUES.search(last.rstrip("\r\n")) and not last.lstrip().startswith("#")
            bare_flag = wanted and re.match(r"[-—–]{1,2}[A-Za-z]", following)
            comment = wanted and goes_on and following.startswith("#")
            quoted = wanted and not goes_on and _quote_open(text[start:at])
            if not (goes_on and following) and not bare_flag and not quoted:
                break
            # A comment between two continued lines does not end the command that was meant.
            last = last if comment else lines[number]
            at += len(lines[number])
            number += 1
        yield start, at


def _quote_open(text: str) -> bool:
    """Whether a quote that begins in the text does not end in it."""
    quote = ""
    for found in re.finditer(r"""\\.|["']|(?<!\S)#.*""", text):
        if found[0] in "\"'":
            quote = "" if found[0] == quote else quote or found[0]
    return bool(quote)


def straight(text: str) -> str:
    """The text with plain quotes, dashes and spaces; as long as before, so that places stay the same."""
    plain = text.translate(_TYPOGRAPHY)
    return _DASH.sub(lambda found: "--" if len(found[0]) == 2 else "-", plain)


def commands(text: str, start: int, end: int) -> list[Command]:
    """The commands between two places, parted by ``;``, ``&&``, ``|`` and redirections."""
    reader = _Reader(text, start, end)
    return reader.read()


class _Reader:
    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.at, self.end = text, start, end
        self.current = Command(start=start)
        self.made: list[Command] = []
        self.behind: list[str] = []  # comments after the last word: they lie in the command if another word follows

    def read(self) -> list[Command]:
        prompt = self._match(_PROMPT)
        self.at = prompt.end() if prompt else self.at
        while self.at < self.end:
            if not (self._blank() or self._joined() or self._comment() or self._operator()):
                self._word()
        self._finish()
        return self.made

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return pattern.match(self.text, self.at, self.end)

    def _blank(self) -> bool:
        found = self._match(_BLANK)
        self.at = found.end() if found else self.at
        return found is not None

    def _joined(self) -> bool:
        """The end of a line inside a command."""
        found = self._match(_JOINED)
        if found is None or (found[1] is None and found[3] is not None and not self.current.words):
            return False
        self.at = found.end()
        more = self.at < self.end and self.current.words
        if found[3]:
            self._note(found[3])
        if not more:
            return True
        if found[1] is None and not found[3]:
            self._mistake("lines that no backslash joins")
        elif found[1] == "^":
            self._mistake("^ joins lines in Windows only")
        elif found[3] or found[2]:
            self._mistake("a comment or space behind the backslash, or between its lines, ends the command")
        return True

    def _comment(self) -> bool:
        found = self._match(_COMMENT)
        if found is None:
            return False
        self._note(found[0])
        self.at = found.end()
        return True

    def _operator(self) -> bool:
        found = self._match(_OPERATOR)
        if found is None:
            return False
        self._finish()
        self.at = found.end()
        if found[0][-1] in "<>":  # what follows is a file, not a command
            self._blank()
            self._word()
            self.current, self.behind = Command(start=self.at), []
        return True

    def _word(self) -> None:
        start, value, varies = self.at, [], False
        quote = ""
        while self.at < self.end:
            char = self.text[self.at]
            if quote:
                if char == quote:
                    quote = ""
                elif char == "\\" and quote == '"' and self.text[self.at + 1:self.at + 2] in ('"', "\\", "$", "`"):
                    value.append(self.text[self.at + 1:self.at + 2])
                    self.at += 1
                else:
                    varies |= quote == '"' and char in "$`"
                    value.append(char)
            elif char in "'\"":
                quote = char
            elif char == "\\":
                if self._match(_LINE_END):
                    break
                value.append(self.text[self.at + 1:self.at + 2])
                self.at += 1
            elif char in " \t\r\n" or (char in "&<>()" and not varies) or (char in ";|" and not self._inside(start)):
                break
            else:
                varies |= char in "$`"
                value.append(char)
            self.at += 1
        if self.at == start:  # a lone character that starts nothing
            self.at += 1
            return
        self.at = min(self.at, self.end)
        if not self.current.words:
            self.current.start = start
        self.current.whole &= not quote
        self.current.comments += self.behind
        self.behind = []
        self.current.words.append(Word(self.text[start:self.at], "".join(value), start, self.at, varies))

    def _inside(self, start: int) -> bool:
        """A bare ``;`` or ``|`` that belongs to the value of a flag."""
        before = self.current.words[-1].value if self.current.words else ""
        of_flag = re.match(r"-{1,2}\w[\w-]*=", self.text[start:self.at]) or (before[:1] == "-" and "=" not in before)
        if not of_flag or not self._match(_GOES_ON):
            return False
        self._mistake(f"a bare {self.text[self.at]} ends the command: the value needs quotes")
        return True

    def _note(self, comment: str) -> None:
        if self.current.words:
            self.behind.append(comment.lstrip("# ").strip())

    def _mistake(self, what: str) -> None:
        if what not in self.current.mistakes:
            self.current.mistakes.append(what)

    def _finish(self) -> None:
        if self.current.words:
            self.current.end = self.current.words[-1].end
            self.made.append(self.current)
        self.current, self.behind = Command(start=self.at), []
