"""Repairs the flags of a pasted ``atc`` command: what is not real goes, what is misspelt is put right, the rest stays.

Three tables decide: what articles name and the toolchain does not have (``history.json``), the flags with their values,
and the rules between them (``atc_flags.json``). What only a person can decide is left as it is and refused by name.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, field

from kit.ascend.atc.flag_rules import problems
from kit.ascend.atc.flag_table import (
    Chip,
    Problem,
    chip,
    choices,
    close_chips,
    closest,
    entry,
    flags,
    soc_versions,
    spelt,
)
from kit.ascend.atc.rule_repairs import CALIBRATION, RULE_REPAIRS
from kit.targets.ascend import facts, older

FLAGS_SOURCE = "atc_flags.json: hicann/ge"


@dataclass(frozen=True)
class Change:
    """One thing that was put right, or, with nothing in its place and a remedy, one that could not be.

    Attributes:
        was: as it stood there; "" for what was added.
        became: what stands there now; "" for what was dropped.
        reason: why.
        source: who says so.
    """

    was: str
    became: str
    reason: str
    source: str = FLAGS_SOURCE


@dataclass
class Flag:
    """One flag of the command; ``raw`` is how it was written and stays as long as nothing about it changes."""

    name: str
    value: str
    raw: str
    varies: bool = False

    @classmethod
    def new(cls, name: str, value: str) -> Flag:
        """One that is written by the kit."""
        return cls(name, value, f"{name}={shlex.quote(value)}")


def entries() -> list[dict]:
    """The entries of ``history.json``."""
    return facts("history")["entries"]


@dataclass
class Repair:
    """The flags of one command on their way to what ``atc`` takes.

    Attributes:
        flags: in order.
        words: words that are no flags.
        changes: what was put right.
        refused: what only a person can decide.
        first: shell lines that must run before.
        steps: sentences about what must be there before.
        remarks: what is fine and worth knowing.
    """

    flags: list[Flag]
    words: list[str]
    changes: list[Change] = field(default_factory=list)
    refused: list[Change] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    _int8: str = ""

    def run(self) -> None:
        """Everything, in an order in which one repair cannot undo another."""
        for word in self.words:
            said = next((row for row in entries() if row["kind"] == "word" and row["name"] == f"atc {word}"), None)
            self._changed(word, "", said["really"] if said else "atc takes flags only", _source(said))
        for flag in list(self.flags):
            self._real(flag)
        self._once()
        self._framework()
        self._soc_version()
        self._output()
        self._quantize()
        self._by_rules()

    def get(self, name: str) -> Flag | None:
        """The flag of that name."""
        return next((flag for flag in self.flags if flag.name == name), None)

    def _changed(self, was: str, became: str, reason: str, source: str = FLAGS_SOURCE) -> None:
        self.changes.append(Change(was, became, reason, source))

    def refuse(self, was: str, reason: str, source: str = FLAGS_SOURCE) -> None:
        """Leave something as it is and say why a person must decide."""
        made = Change(was, "", reason, source)
        if made not in self.refused:
            self.refused.append(made)

    def drop(self, flag: Flag, reason: str, source: str = FLAGS_SOURCE) -> None:
        """Leave a flag out."""
        self.flags.remove(flag)
        self._changed(flag.raw, "", reason, source)

    def set(self, flag: Flag, value: str, reason: str, source: str = FLAGS_SOURCE, name: str = "") -> None:
        """Give a flag another value, or another name."""
        new = Flag.new(name or flag.name, value)
        self.flags[self.flags.index(flag)] = new
        self._changed(flag.raw, new.raw, reason, source)

    def add(self, name: str, value: str, reason: str) -> None:
        """Give a flag that was not there."""
        new = Flag.new(name, value)
        self.flags.append(new)
        self._changed("", new.raw, reason)

    def _real(self, flag: Flag) -> None:
        """A flag that atc has, or one that it never had or has no more."""
        row = next((row for row in entries() if row["name"] == flag.name), None)
        if row is None and flag.name in ("--precision_mode", "--precision_mode_v2"):
            row = next((row for row in entries() if row["kind"] == "value" and re.fullmatch(row["match"], flag.value)),
                       None)
        if row is not None:
            reason = f"{row['really']}; {row['instead']}"
            if row["action"] == "int8":
                self._int8 = self._int8 or flag.raw
            if row["action"] == "aoe":
                model = self.get("--model")
                self.steps.append(f"Tuning, on a host with an NPU: aoe --framework=5 --model="
                                  f"{model.value if model else 'MODEL'} --job_type=1, then --job_type=2; give its "
                                  "results to atc with --mdl_bank_path and --op_bank_path.")
            self.drop(flag, reason, _source(row))
            return
        if flag.name in flags():
            self._known(flag)
            return
        near = closest(flag.name, 0.8)
        if near and self.get(near[0]) is None:
            self.set(flag, flag.value, f"atc has no {flag.name}; {near[0]} is meant", name=near[0])
        else:
            alike = closest(flag.name)
            self.drop(flag, f"atc has no {flag.name} and stops at an unknown flag"
                       + (f"; the closest are {', '.join(alike)}" if alike else ""))

    def _known(self, flag: Flag) -> None:
        row = entry(flag.name)
        if row.get("deprecated"):
            self.remarks.append(f"{flag.name} is deprecated: {row['deprecated']} takes its place.")
        if row.get("hidden") and not row.get("deprecated"):
            self.remarks.append(f"{flag.name} is not documented.")

    def _once(self) -> None:
        for flag in list(self.flags):
            same = [other for other in self.flags if other.name == flag.name]
            if len(same) > 1 and flag is not same[-1]:
                self.drop(flag, f"{flag.name} is there {len(same)} times, and the last one counts")

    def _framework(self) -> None:
        """By what the model file is; a format that atc does not read becomes ONNX first."""
        tables, model, flag = facts("history"), self.get("--model"), self.get("--framework")
        if self.get("--singleop") or (self.get("--mode") and self.get("--mode").value not in ("0", "3")):
            return
        if model is None:
            if not self.get("--help") and not self.get("--om"):
                self.refuse("", "--model is missing: which file is to be built?")
            return
        suffix = posixpath.splitext(model.value)[1].lower()
        by_file = "" if model.varies else tables["suffixes"].get(suffix, "")
        asked = "" if flag is None else tables["frameworks"].get(flag.value.lower(), flag.value)
        wanted = by_file or asked
        if flag is not None and flag.varies and not by_file:
            return
        if wanted in tables["first"]:
            self._export(wanted, model, flag)
            return
        if wanted not in (choices("--framework") or {}):
            self.refuse(flag.raw if flag else "", f"--framework says what {model.value} is: "
                         + ", ".join(f"{key} {name}" for key, name in (choices("--framework") or {}).items()))
        elif flag is None:
            self.add("--framework", wanted, f"--framework must be given; {model.value} is {_of(wanted)}")
        elif flag.value != wanted and not flag.varies:
            self.set(flag, wanted, f"{model.value if by_file else asked} is {_of(wanted)}, which atc calls {wanted}")

    def _export(self, kind: str, model: Flag, flag: Flag | None) -> None:
        tables = facts("history")
        row = next((row for row in entries() if row["name"] == f"--framework={kind}"), None)
        folder, file = posixpath.split(model.value)
        stem, suffix = posixpath.splitext(file)
        if suffix.lower() not in tables["suffixes"]:  # a folder, or a name without suffix
            folder, file, stem, name = model.value, "inference.pdmodel", "inference", stem + suffix
        else:
            name = posixpath.basename(folder) if stem in ("inference", "model") and folder else stem
        onnx = re.sub(r"[^\w.-]", "_", name.strip(".") or stem or "model") + ".onnx"
        line = tables["first"][kind].format(folder=shlex.quote(folder or "."), file=shlex.quote(file), onnx=onnx,
                                            stem=shlex.quote(stem), path=shlex.quote(model.value))
        self.first.append(line)
        reason = tables["first_reason"][kind]
        self._changed("", line, reason, _source(row))
        self.set(model, onnx, reason, _source(row))
        if flag is None:
            self.add("--framework", "5", "5 is ONNX")
        elif flag.value != "5":
            self.set(flag, "5", row["really"] if row else "5 is ONNX", _source(row))

    def _soc_version(self) -> None:
        flag = self.get("--soc_version")
        if flag is None:
            if self.get("--model") and not (self.get("--mode") and self.get("--mode").value == "1"):
                self.refuse("", "--soc_version is missing: the Name that npu-smi info shows, with Ascend before it, "
                             "such as Ascend310P3", "ge-docs:--soc_version.md")
            return
        exact = soc_versions().get(flag.value.strip().lower())
        if flag.varies or exact == flag.value:
            if older(flag.value):
                self.remarks.append(older(flag.value))
            return
        near = [exact] if exact else close_chips(flag.value)
        if re.match(r"(ascend)?950", flag.value, re.I):
            self.remarks.append(f"{flag.value} is newer than the list of chips here (CANN 8.1): it was not checked.")
        elif near:
            others = f"; one of {', '.join(near)}: npu-smi info shows which" if len(near) > 1 else ""
            self.set(flag, near[0], ("atc wants this spelling" if exact else f"atc knows no {flag.value}") + others,
                      "chips.json: platform_config of CANN 8.1.RC1")
        else:
            self.refuse(flag.raw, f"atc knows no {flag.value}: npu-smi info shows the name",
                         "chips.json: platform_config of CANN 8.1.RC1")

    def _output(self) -> None:
        flag, model = self.get("--output"), self.get("--model")
        mode = self.get("--mode")
        if flag is not None and flag.value.endswith(".om") and not flag.varies:
            self.set(flag, flag.value.removesuffix(".om"), "atc puts .om behind it itself", "ge-docs:--output.md")
        elif flag is None and model is not None and not (mode and mode.value != "0"):
            name = posixpath.splitext(posixpath.basename(model.value))[0]
            self.add("--output", name or "model", "--output must be given")

    def _quantize(self) -> None:
        """INT8 was asked for by something that is not real: what there is instead."""
        if not self._int8 or self.get("--compression_optimize_conf"):
            return
        self.add("--compression_optimize_conf", CALIBRATION, "INT8 is asked for; this flag quantizes in ATC")
        self.steps += [
            f"Write {CALIBRATION} with kit.ascend.compression_conf(...) and its .bin files with "
            "kit.ascend.write_calibration(...).",
            "Calibration in ATC needs an NPU where atc runs, and the AMCT (acl) package. Without one: AMCT on a CPU "
            "makes *_deploy_model.onnx; build that and leave the flag out."]

    def _by_rules(self) -> None:
        soc = self.get("--soc_version")
        known = soc is not None and soc.value.lower() in soc_versions()
        target = chip(soc.value) if known else Chip("", "")
        told: set[tuple[str, str]] = set()
        for _ in range(4 * len(self.flags) + 8):  # each round repairs one thing
            found = next((one for one in problems({flag.name: flag.value for flag in self.flags}, target)
                          if not self._unsure(one, known) and (one.rule, one.what) not in told), None)
            if found is None:
                return
            told.add((found.rule, found.what))
            repair = RULE_REPAIRS.get(found.rule)
            if repair is None or not repair(self, found):
                about = " ".join(flag.raw for name in found.flags if (flag := self.get(name)))
                self.refuse(about, f"{found.what}: {found.remedy}")

    def _unsure(self, found: Problem, known: bool) -> bool:
        """About a flag whose value only the shell knows, or a chip that is not in the list."""
        about = [self.get(name) for name in found.flags]
        chip_alone = found.flags == ("--soc_version",) and not known
        return chip_alone or any(flag is not None and flag.varies for flag in about)


def _of(framework: str) -> str:
    return (choices("--framework") or {}).get(framework, framework)


def _source(row: dict | None) -> str:
    return "; ".join(row["source"][:2]) if row else FLAGS_SOURCE


def flag_of(word: str, value: str | None, raw: str, varies: bool) -> Flag:
    """A flag from its word; ``value`` where it stands in the next one."""
    name, equals, inside = word.partition("=")
    return Flag(spelt(name), inside if equals else value or "", raw, varies)
