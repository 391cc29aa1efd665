"""Finds causes in a log of ``atc``, of ACL or of ais_bench. Standard library only, Python 3.8 or newer.

It reads line by line and keeps a bounded number of findings, so that a log of any size will do. What codes and
messages mean comes in as tables; this file travels to the box with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 4000  # characters of a line that are looked at
MOST = 40  # findings that are kept; what comes after is counted with the last of its code
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_CODE = re.compile(r"(?<![\w/.-])(?:E\d{5}|E[A-Z]\d{4}|W\d{5})(?![\w/-])")
_QUICK = re.compile(r"E[A-Z\d]\d{3}|W1\d{3}")
_RET = re.compile(r"(?i)(?:\bret(?:code|_?value|urn value)?|\berr(?:or)?[ _]?(?:code|no)?|\bresult|\bfailed"
                  r"|错误码|返回码|返回值|报错)[\s\"']*(?:is|=|:|：|,|为|是|with)?[\s\"']*(?:ret\s*[=:]\s*)?[\[(]?(?P<number>[1-5]\d{5})\b")
_NAME = re.compile(r"\bACL_ERROR_[A-Z_0-9]+")
_NOISE = re.compile(r"\[(?:FUNC|FILE|LINE):[^\]]*\]|\[PID: ?\d+\]|\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d[.\d]*|\(E\w\d+\):")
_ERROR_LINE = re.compile(r"(?i)\[(?:ERROR|CRITICAL)\]|^\s*(?:error|fatal|错误)\b|(?:Error|Exception): |失败|\bfailed\b")
_ERROR_WORDS = ("error", "critical", "fatal", "exception", "fail", "错误", "失败")
_SIX = re.compile(r"[1-5]\d{5}")
_RET_WORDS = ("ret", "err", "result", "fail", "错误码", "返回", "报错")
_OPSET = ("opset {} is {} than any that ATC registers ({}): kit.fix with the rule {}-opset, or export at opset 17")
_NAMELESS = {"node": "a node", "operator": "an operator", "value": "something", "path": "something"}
_GENERIC = re.compile(r"(?i)^\W*(?:inner|internal) error\W|unknown error occurred|^\W*$")


def read_log(lines: str | Iterable[str], tables: Mapping[str, Any], returncode: int = 0) -> list[dict[str, Any]]:
    """What a log says went wrong, root cause first.

    Args:
        lines: the text, or any iterable of lines.
        tables: ``patterns`` of errors, ``signs`` of what is no cause, ``codes``, ``exits``, ``nodes``, ``operators``,
            ``opset``, ``trailers``; patterns and codes are enough.
        returncode: of the program; 0 where it is not known. Minus a signal's number and 128 plus it are the same.

    Returns:
        list of dict: ``code``, ``cause``, ``node``, ``operator``, ``next``, ``line`` (from 1; 0 for the return code),
        ``level`` (error, trailer, warning, success, unknown), ``message``, ``count``, ``source``; "" where unknown.
        ``unknown`` is the first line that looks like an error, given only where nothing is known.
    """
    reader = _Reader(tables)
    number = 0
    for number, line in enumerate(lines.splitlines() if isinstance(lines, str) else lines, 1):
        reader.take(number, _ESCAPES.sub("", line[:LONGEST]).rstrip())
    return reader.done(returncode, number)


class _Reader:
    def __init__(self, tables):
        self.tables = tables
        self.patterns = [(re.compile(row["match"]), row) for name in ("patterns", "signs")
                         for row in tables.get(name, ())]
        # Words that a line must have before a pattern is worth trying; "" is in every line.
        self.words = [(word.lower(), number) for number, (_, row) in enumerate(self.patterns)
                      for word in row.get("has") or [""]]
        self.nodes = [re.compile(text) for text in tables.get("nodes", ())]
        self.names = {row.get("title"): code for code, row in tables.get("codes", {}).items() if len(code) == 6}
        self.rows = {}
        self.open = None  # the finding whose lines these are
        self.unknown = None

    def take(self, number, line):
        if not line.strip():
            self.open = None
            return
        codes = _CODE.findall(line) if _QUICK.search(line) else []
        codes = [code for code in codes if self._is_code(code, line)]
        low = line.lower()
        taken = False
        for place in sorted({number for word, number in self.words if word in low}):
            pattern, row = self.patterns[place]
            found = pattern.search(line)
            if found:
                code = row.get("code") or (codes[0] if codes else "")
                self._add(number, line, code, row, found.groupdict())
                taken = True
        known = set() if not taken else set(codes[:1])
        for code in codes:
            if code not in known:
                self._add(number, line, code, self.tables["codes"].get(code), {})
        for code in self._numbers(line, low):
            self._add(number, line, code, self.tables["codes"].get(code), {})
            taken = True
        if not codes and not taken:
            self._continued(line)
            if self.unknown is None and any(word in low for word in _ERROR_WORDS) and _ERROR_LINE.search(line):
                self.unknown = (number, line)

    def _is_code(self, code, line):
        """A code of the table, or one that stands where codes stand."""
        return code in self.tables.get("codes", {}) or code in self.tables.get("trailers", ()) or bool(
            re.search(r"(?:^|\s|\]|=)" + code + r"\s*(?:[:：\[]|$|\s{2})", line) and self._family(code))

    def _family(self, code):
        return self.tables.get("families", {}).get(code[:2], "")

    def _numbers(self, line, low):
        speaks = _SIX.search(line) and any(word in low for word in _RET_WORDS)
        found = [match.group("number") for match in _RET.finditer(line)] if speaks else []
        found += [self.names[name] for name in _NAME.findall(line) if name in self.names] if "ACL_" in line else []
        families = self.tables.get("acl_families", {})
        return [code for code in dict.fromkeys(found) if code in self.tables["codes"] or code[:3] in families]

    def _add(self, number, line, code, row, groups):
        message = self._message(line, code)
        said = self._where(line)
        node = groups.get("node") or said.get("node") or ""
        operator = groups.get("operator") or said.get("operator") or ""
        level = (row or {}).get("level") or self._level(code)
        cause, remedy = self._words(code, row, dict(groups, node=node, operator=operator))
        key = (code, (row or {}).get("id", ""), node)
        old = self.rows.get(key) or (self.rows.get((code, "", "")) if row is not None and not row.get("id") else None)
        if old is None and len(self.rows) >= MOST:
            old = next((one for one in reversed(list(self.rows.values())) if one["code"] == code), None)
            if old is None:
                return
        if old is not None:
            old["count"] += 1
            if _GENERIC.search(old["message"]) and not _GENERIC.search(message):
                old["message"] = message
            self.open = old
            self._name(old, node, operator)
            return
        if level in ("error", "trailer") and operator:
            remedy = self._for_operator(operator, remedy)
        source = (row or {}).get("source", "")
        self.open = self.rows[key] = {
            "code": code, "cause": cause, "node": node, "operator": operator, "next": remedy, "line": number,
            "level": level, "message": message, "count": 1,
            "source": "; ".join(source) if isinstance(source, (list, tuple)) else source}

    def _level(self, code):
        if code in self.tables.get("trailers", ()):
            return "trailer"
        return "warning" if code.startswith("W") else "error"

    def _words(self, code, row, groups):
        """Cause and next step; a code that the tables do not have gets what its family says."""
        if row is None:
            family = self.tables.get("acl_families", {}).get(code[:3]) or {}
            about = family.get("meaning") or self._family(code) or "an unknown part"
            return "an error that the table does not have, from: " + about, family.get(
                "next") or self.tables.get("otherwise", "")
        filled = {name: (value or "").strip("[]'\" ") for name, value in groups.items()}
        cause = row.get("cause") or row.get("meaning") or row.get("title", "")
        for name in ("node", "operator", "value", "path"):
            cause = cause.replace("{" + name + "}", filled.get(name) or _NAMELESS[name])
        return cause, row.get("next", "")

    def _for_operator(self, operator, remedy):
        """The rule of the kit for this operator, or for its opset."""
        parts = operator.split("::")
        limits = self.tables.get("opset", {})
        if len(parts) == 3 and parts[1].isdigit() and limits and parts[0] == "ai.onnx":
            if int(parts[1]) > limits["high"]:
                return _OPSET.format(parts[1], "newer", limits["high"], "lower")
            if int(parts[1]) < limits["low"]:
                return _OPSET.format(parts[1], "older", limits["low"], "raise")
        rule = self.tables.get("operators", {}).get(parts[-1])
        return f"kit.fix with the rule {rule}; {remedy}" if rule and rule not in remedy else remedy

    def _where(self, line):
        for pattern in self.nodes:
            found = pattern.search(line)
            if found:
                return {name: (value or "").strip("[]'\",. ") for name, value in found.groupdict().items()}
        return {}

    def _name(self, row, node, operator):
        if node and not row["node"]:
            row["node"] = node
        if operator and not row["operator"]:
            row["operator"] = operator
            if row["level"] in ("error", "trailer"):
                row["next"] = self._for_operator(operator, row["next"])

    def _continued(self, line):
        """A line that belongs to the finding before it: the text of an inner error, or where it happened."""
        if self.open is None or self.open["level"] not in ("error", "trailer"):
            return
        if _GENERIC.search(self.open["message"]) and not re.match(r"\s*(?:TraceBack|Solution|Possible)", line):
            text = self._message(line, self.open["code"])
            if not _GENERIC.search(text):
                self.open["message"] = text
        said = self._where(line)
        self._name(self.open, said.get("node", ""), said.get("operator", ""))

    def _message(self, line, code):
        text = _NOISE.sub(" ", line)
        if code[:1] in ("E", "W") and code in text:
            text = text.partition(code)[2]
        return re.sub(r"\s+", " ", text).strip(" :：,")[:400]

    def done(self, returncode, count):
        rows = list(self.rows.values())
        ended = 128 - returncode if returncode < 0 else returncode
        exit_row = self.tables.get("exits", {}).get(str(ended))
        crashed = any(row["level"] == "error" for row in rows)
        if exit_row and not crashed:
            rows.append(_plain("", exit_row["cause"], exit_row["next"], 0, "error", f"exit status {returncode}"))
        # A specific finding speaks for the bare inner error of the same code.
        exact = {row["code"] for row in rows if row["level"] == "error" and row["code"]}
        rows = [row for row in rows if not (row["level"] == "trailer" and row["code"] in exact)]
        failed = any(row["level"] in ("error", "trailer") for row in rows)
        if not failed and (self.unknown or returncode):
            number, line = self.unknown or (0, f"exit status {returncode}")
            if not any(row["level"] == "success" for row in rows) or returncode:
                rows.append(_plain("", "an error that nothing here knows", self.tables.get("otherwise", ""), number,
                                   "unknown", line.strip()[:400]))
        order = {"error": 0, "unknown": 0, "trailer": 1, "warning": 2, "success": 3}
        return sorted(rows, key=lambda row: (order[row["level"]], row["line"]))


def _plain(code, cause, remedy, line, level, message):
    return {"code": code, "cause": cause, "node": "", "operator": "", "next": remedy, "line": line, "level": level,
            "message": message, "count": 1, "source": ""}
