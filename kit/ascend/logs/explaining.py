"""Explains a log of ``atc``, ACL or ais_bench: what happened, to which node, and what to do, the root cause first.

Codes and messages come from ``atc_errors.json`` and ``acl_errors.json``. ATC reports the first cause and then a tail of
errors that follow from it; the tail is kept apart.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.ascend.atc.flag_table import choices, flags
from kit.ascend.logs.log_reading import LONGEST, read_log
from kit.card import Card, Listing, Table
from kit.errors import BadInput
from kit.record import explain_os_error
from kit.targets.ascend import breaker, breaker_source, facts

LAST = 8  # lines shown where nothing is known
_FOLDERS = ("*.log", "*.txt", "plog*")
_MOST_FILES = 200


@dataclass(frozen=True)
class Cause:
    """One finding in a log.

    Attributes:
        code: of ATC or ACL; "" for a message without one.
        cause: what it means.
        node: the node it is about, where the log names one.
        operator: likewise its type.
        next: what to do.
        line: where it stands first, from 1; 0 for the exit status.
        level: ``error``, ``trailer`` (follows from another), ``warning``, ``success``, ``unknown``.
        message: the log's own words.
        count: how often it is there.
        source: who reports it.
    """

    code: str
    cause: str
    node: str
    operator: str
    next: str
    line: int
    level: str
    message: str
    count: int
    source: str


@dataclass(frozen=True)
class Explained(Card):
    """What a log says. False when it tells of an error.

    Attributes:
        log: the file or folder, or "text".
        causes: root cause first; warnings and success last.
        lines: how many were read.
        last: the last lines.
    """

    log: str
    causes: tuple[Cause, ...]
    lines: int
    last: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.errors

    @property
    def errors(self) -> tuple[Cause, ...]:
        """Those that say that something failed."""
        return tuple(one for one in self.causes if one.level in ("error", "trailer", "unknown"))

    @property
    def root(self) -> Cause | None:
        """The first cause; None without an error."""
        return self.errors[0] if self.errors else None

    def title(self) -> str:
        root = self.root
        if root is not None:
            where = f" ({root.node})" if root.node and root.node not in root.cause else ""
            return f"{root.code + ': ' if root.code else ''}{root.cause}{where}"
        if not self.lines:
            return f"{self.log}: the log is empty"
        if any(one.level == "success" for one in self.causes):
            warnings = sum(one.level == "warning" for one in self.causes)
            return "ATC ended well" + (f", with {warnings} warning{'s' * (warnings > 1)}" if warnings else "")
        return f"No error that is known here in {self._amount()}"

    def _amount(self) -> str:
        return f"{self.lines:,} line{'s' * (self.lines != 1)}"

    def facts(self) -> dict[str, object]:
        root = self.root
        if root is None:
            return {"log": f"{self.log}, {self._amount()}"}
        return {"next": root.next, **({"node": root.node} if root.node else {}),
                **({"operator": root.operator} if root.operator else {}),
                "the log says": root.message, "line": root.line,
                **({"source": root.source} if root.source else {}),
                "log": f"{self.log}, {self._amount()}"}

    def tables(self) -> Sequence[Table]:
        made = []
        others = self.causes[1:] if self.root is not None else self.causes
        if others:
            made.append(Table("Besides", ("line", "code", "what it means", "node", "next", "times"), tuple(
                (one.line, one.code, one.cause, one.node, one.next, one.count) for one in others)))
        if self.last and (self.root is None or self.root.level == "unknown") and not any(
                one.level == "success" for one in self.causes):
            made.append(Listing("The last lines", "\n".join(self.last)))
        return made


def explain(log: str | Path, *, returncode: int = 0) -> Explained:
    """Explain a log of ``atc``, of ACL or of ais_bench.

    Args:
        log: the text itself, a file, or a folder with plog files; or a code alone, such as 507015. Files are read line
            by line, whatever their size; UTF-8, GB18030 and UTF-16 are recognised.
        returncode: exit status of the program, where it is known: a crash may leave no word in the log.

    Raises:
        BadInput: there is no such file, or it cannot be read.
    """
    if isinstance(log, str) and re.fullmatch(r"\s*\d{6}\s*", log):
        log = f"error code {log.strip()}"
    if not isinstance(log, str | Path):
        raise BadInput(f"explain() takes the text of a log or its path, not {type(log).__name__}.",
                       remedy="give the text, a file or a folder")
    path = _path(log)
    tail: deque[str] = deque(maxlen=LAST)
    seen = [0]

    def kept(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            seen[0] += 1
            if line.strip():
                tail.append(line.rstrip()[:300])
            yield line

    lines = _lines_of(path) if path is not None else iter(str(log).splitlines())
    found = tuple(_enriched(Cause(**row)) for row in read_log(kept(lines), tables(), returncode))
    return Explained(path.name if path is not None else "text", found, seen[0], tuple(map(_printable, tail)))


def _enriched(cause: Cause) -> Cause:
    """With the valid values of a flag, and with what people reported about an operator."""
    named = re.search(r"--\w+", cause.message) if cause.code.startswith("E10") else None
    valid = choices(named[0]) if named and named[0] in flags() else None
    if named and valid:
        cause = replace(cause, next=f"{named[0]} takes {', '.join(valid)}; {cause.next}")
    row = facts("atc_errors")["breakers"].get(cause.operator.rpartition("::")[2])
    if row and cause.level == "error":
        source = "; ".join(filter(None, [cause.source, breaker_source(row)]))
        cause = replace(cause, next=f"{cause.next}; known of {cause.operator}: {breaker(row)['fix']}", source=source)
    return cause


@functools.cache
def tables() -> dict[str, Any]:
    """Everything that ``read_log`` needs, for JSON: patterns, codes of ATC and ACL, exits, operators, next steps."""
    atc, acl = facts("atc_errors"), facts("acl_errors")

    def step(row: dict[str, Any], steps: dict[str, str]) -> dict[str, Any]:
        text = row.get("next", "")
        return {**row, "next": steps[text[1:]] if text.startswith("@") else text}

    families = {prefix: step(row, acl["steps"]) for prefix, row in acl["families"].items()}
    by_prefix = dict(zip(("E1", "EZ", "EE"), atc["source"], strict=False))
    by_prefix |= {"W1": by_prefix["E1"], "E7": by_prefix["EZ"], "E8": by_prefix["EZ"]}
    codes = {code: {**step(row, atc["steps"]), "source": by_prefix.get(code[:2], atc["source"][-1])}
             for code, row in atc["codes"].items()}
    for code, name in acl["codes"].items():
        plain = name.removeprefix("ACL_ERROR_").removeprefix("RT_").removeprefix("GE_").replace("_", " ").lower()
        about = step(acl["about"][code], acl["steps"]) if code in acl["about"] else {
            "meaning": f"{plain} ({families[code[:3]]['meaning']})", "next": families[code[:3]]["next"]}
        codes[code] = {"title": name, **about, "source": acl["source"][0]}
    patterns = [step(row, atc["steps"]) for row in atc["patterns"]]
    return {"patterns": [row for row in patterns if row["level"] == "error"],
            "signs": [row for row in patterns if row["level"] != "error"], "codes": codes,
            "exits": {status: step(row, atc["steps"]) for status, row in atc["exits"].items()},
            "nodes": atc["nodes"], "operators": atc["operators"], "opset": atc["opset"], "families": atc["families"],
            "acl_families": families, "trailers": atc["trailers"], "otherwise": atc["steps"]["inner"]}


def _path(log: str | Path) -> Path | None:
    """The file that is meant; None for a text.

    Raises:
        BadInput: it reads like a path, and nothing is there.
    """
    text = str(log)
    if isinstance(log, str) and ("\n" in text or len(text) > 1000 or not text.strip()):
        return None
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError):  # too long, or with characters that no path has
        if isinstance(log, Path):
            raise BadInput(f"{text[:200]!r} is no path.",
                           remedy="give a file, a folder, or the text of the log") from None
        return None
    # A line of a log has spaces; a path mostly has none.
    alike = not re.search(r"\s|E\w?\d{4}", text) and ("/" in text or path.suffix.lower() in (".log", ".txt", ".out"))
    if isinstance(log, Path) or alike:
        raise BadInput(f"There is no log at {text}.", remedy="check the path, or paste the text of the log")
    return None


def _lines_of(path: Path) -> Iterator[str]:
    """Lines of a file, or of the logs in a folder, oldest first. No line and no file is held whole."""
    files = [path]
    if path.is_dir():
        found = {file for pattern in _FOLDERS for file in path.rglob(pattern) if file.is_file()}
        files = sorted(found, key=lambda file: (file.stat().st_mtime, file.as_posix()))[-_MOST_FILES:]
        if not files:
            raise BadInput(f"The folder {path} has no log (*.log, *.txt, plog*).",
                           remedy="give the folder of a run, such as ~/ascend/log/debug/plog")
    for file in files:
        try:
            with file.open("rb") as stream:
                wide = stream.read(2) in (b"\xff\xfe", b"\xfe\xff")
            if wide:
                with file.open(encoding="utf-16", errors="replace") as text:
                    while line := text.readline(LONGEST):
                        yield line
                continue
            with file.open("rb") as stream:
                fresh = True
                while piece := stream.readline(LONGEST):
                    if fresh:
                        yield _decoded(piece)
                    fresh = piece.endswith(b"\n")  # the rest of a very long line is passed over
        except OSError as error:
            raise explain_os_error(error, file) from error


def _decoded(piece: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return piece.decode(encoding)
        except UnicodeDecodeError:
            continue
    return piece.decode("utf-8", errors="replace")


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in line)
