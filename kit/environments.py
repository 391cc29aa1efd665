"""Environments of their own, for tools whose requirements exclude the kit's: made on first use, shown, removable.

An environment is a virtual environment in ``~/.cache/migration-notebook-kit`` (or where KIT_HOME says), with exactly
the packages that ``data/environments.json`` pins. It is used through ``kit.worker``, never imported. A half made one
does not exist: it is made under a hidden name and moved into place at the end.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import worker
from kit.card import Card, Table, bytes_text
from kit.errors import MissingTool, ToolFailed, unknown
from kit.progress import Report, Tick, silent
from kit.record import appearing, digest

STALE = 86_400  # seconds after which a hidden folder that a killed process left is nobody's any more
_MARK = "made.json"
_TAIL = 25  # lines of pip's output that travel with an error


@dataclass(frozen=True)
class ToolEnvironment(Card):
    """One environment, made or not.

    Attributes:
        name: key of the table.
        purpose: what it is for, completing "to ...".
        folder: where it is, or would be.
        pins: every package with its version.
        size: bytes on the disk; 0 where it is not made.
        seconds: that making it took.
        download: bytes to fetch, about.
        disk: bytes that it will take, about.
    """

    name: str
    purpose: str
    folder: Path
    pins: tuple[str, ...]
    size: int
    seconds: float
    download: int
    disk: int

    @property
    def made(self) -> bool:
        """Whether it is there, whole."""
        return self.size > 0

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def __bool__(self) -> bool:
        return self.made

    def title(self) -> str:
        if self.made:
            return f"{self.name} has an environment of its own, {bytes_text(self.size)}"
        return f"{self.name} has no environment yet: {bytes_text(self.download)} to download"

    def facts(self) -> dict[str, object]:
        return {"to": self.purpose, "folder": _short(self.folder), "packages": len(self.pins),
                **({"made in": f"{self.seconds:.0f} s"} if self.made else {"room on the disk": bytes_text(self.disk)}),
                "remove it" if self.made else "make it":
                f"kit.environments.{'remove' if self.made else 'make'}({self.name!r})"}

    def tables(self) -> tuple[Table, ...]:
        return (Table("Packages", ("package", "version"), tuple(tuple(pin.split("==")) for pin in self.pins)),)


def find(name: str) -> ToolEnvironment:
    """What is known about an environment; true where it is made.

    Raises:
        BadInput: there is no such environment.
    """
    about = _about(name)
    folder = home() / f"{name}-{digest([about['pins'], sys.version_info[:2]])[:12]}"
    made = _marked(folder)
    return ToolEnvironment(name, about["for"], folder, tuple(about["pins"]), made.get("size", 0),
                           made.get("seconds", 0.0), about["download"], about["disk"])


def make(name: str, *, install: bool = True, report: Report = silent) -> ToolEnvironment:
    """The environment of that name; made now where it is not there.

    Args:
        name: key of ``data/environments.json``.
        install: False refuses to download, and says what would be.
        report: hears the progress; what it raises stops pip, and nothing stays.

    Raises:
        BadInput: there is no such environment, or the disk cannot be written.
        MissingTool: it is not there and may not be made, or pip could not fetch the packages.
    """
    found = find(name)
    if found:
        return found
    if not install:
        raise MissingTool(
            f"To {found.purpose}, {name} needs an environment of its own, which is not made yet.",
            remedy=f"kit.environments.make({name!r}) makes it: it downloads {bytes_text(found.download)} "
            f"({len(found.pins)} packages) and takes {bytes_text(found.disk)} in {_short(found.folder)}; "
            f"kit.environments.remove({name!r}) takes it away again")
    room = shutil.disk_usage(_existing(found.folder)).free
    if room < found.disk:
        raise MissingTool(f"The environment of {name} takes {bytes_text(found.disk)}, and {bytes_text(room)} are free "
                          f"in {_short(found.folder.parent)}.",
                          remedy="free some space, or let the environment variable KIT_HOME name a folder elsewhere")
    _sweep(found)
    began = time.monotonic()
    with appearing(found.folder) as scratch:
        _install(found, scratch, _about(name)["module"], report)
        size = _size(scratch)
        (scratch / _MARK).write_text(json.dumps({"name": name, "size": size, "pins": found.pins,
                                                 "seconds": round(time.monotonic() - began, 1)}), encoding="utf-8")
    return find(name)


def remove(name: str) -> int:
    """Take an environment away, older versions and what killed processes left included.

    Returns:
        Bytes that became free.

    Raises:
        BadInput: there is no such environment.
    """
    found = find(name)
    freed = 0
    for folder in [*home().glob(f"{name}-*"), *home().glob(f".{name}-*")]:
        freed += _size(folder)
        shutil.rmtree(folder, ignore_errors=True)
    if worker.interpreter(name) == str(found.python):
        worker.use(name, python=None)
    return freed


def ready(name: str, *, install: bool = True, report: Report = silent) -> str:
    """Have ``kit.worker`` run ``name`` under its environment, and return the interpreter.

    One that was chosen with ``kit.worker.use`` is left as it is.

    Raises:
        MissingTool: as ``make``.
    """
    _about(name)
    chosen = worker.interpreter(name)
    if chosen == sys.executable or not Path(chosen).exists():
        chosen = str(make(name, install=install, report=report).python)
        worker.use(name, python=chosen)
    return chosen


def home() -> Path:
    """Where environments lie: KIT_HOME, or ``~/.cache/migration-notebook-kit``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("KIT_HOME") or cache / "migration-notebook-kit")


@functools.cache
def _table() -> Mapping[str, Any]:
    path = Path(__file__).parent / "data" / "environments.json"
    return json.loads(path.read_text(encoding="utf-8"))["environments"]


def _about(name: str) -> Mapping[str, Any]:
    if name not in _table():
        raise unknown("environment", name, _table())
    return _table()[name]


def _marked(folder: Path) -> dict[str, Any]:
    """What was noted when it was made; empty where it is not whole."""
    try:
        return json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _install(wanted: ToolEnvironment, scratch: Path, module: str, report: Report) -> None:
    total = len(wanted.pins) + 2
    begin = Tick(0, total, f"{wanted.name}: making an environment of its own")
    # A clean environment: neither the caller's packages nor a half made one may be seen.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean |= {"TMPDIR": str(scratch / "tmp"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    (scratch / "tmp").mkdir()
    python = scratch / wanted.python.relative_to(wanted.folder)
    _run([sys.executable, "-m", "venv", str(scratch)], clean, wanted, report, begin)
    seen = 0

    def heard(line: str) -> Tick | None:
        nonlocal seen
        if line.startswith("Collecting "):
            seen += 1
            return Tick(seen, total, f"{wanted.name}: downloading {line.split()[1].replace('==', ' ')}")
        if line.startswith("Installing collected"):
            return Tick(total - 1, total, f"{wanted.name}: installing {bytes_text(wanted.disk)}")
        return None

    # Without dependencies: the pins are all there is, and what the tool declares could not be had together.
    _run([str(python), "-m", "pip", "install", "--no-deps", "--progress-bar", "off", *wanted.pins], clean, wanted,
         report, begin, heard)
    _run([str(python), "-c", f"import {module}"], clean, wanted, report,
         Tick(total - 1, total, f"{wanted.name}: trying it"))
    shutil.rmtree(scratch / "tmp", ignore_errors=True)
    report(Tick(total, total, f"{wanted.name}: ready"))


def _run(command: list[str], environment: Mapping[str, str], wanted: ToolEnvironment, report: Report, last: Tick,
         heard: Callable[[str], Tick | None] = lambda line: None) -> None:
    """Run a step; its lines become ticks, and what the report raises ends it and all it started."""
    log = Path(environment["TMPDIR"]) / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                 env=dict(environment), start_new_session=True)
    at = 0
    try:
        while child.poll() is None:
            time.sleep(0.1)
            with log.open(encoding="utf-8", errors="replace") as stream:
                stream.seek(at)
                text = stream.read()
            whole = text[: text.rfind("\n") + 1]
            at += len(whole.encode("utf-8", errors="replace"))
            for line in whole.splitlines():
                last = heard(line) or last
            report(last)
    except BaseException:
        worker.kill(child)
        raise
    if child.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
        _explain(wanted, command, tail)


def _explain(wanted: ToolEnvironment, command: list[str], tail: str) -> None:
    if "venv" in command:
        raise MissingTool(f"The environment of {wanted.name} could not be made: python -m venv failed.",
                          remedy="on Debian and Ubuntu, apt install python3-venv; then call again", detail=tail)
    if "pip" in command:
        raise MissingTool(
            f"The packages of {wanted.name} could not be installed ({bytes_text(wanted.download)} from the package "
            "index). Nothing was kept.",
            remedy="check the network, proxy and index (pip config list), then call again; without a network, make "
            "an environment with these packages elsewhere and name it with kit.worker.use("
            f"{wanted.name!r}, python=...)", detail=tail)
    raise ToolFailed(f"{wanted.name} was installed and cannot be imported. Nothing was kept.",
                     remedy="the details show why: a system library or a processor feature is often missing",
                     detail=tail)


def _sweep(wanted: ToolEnvironment) -> None:
    for folder in wanted.folder.parent.glob(f".{wanted.name}-*"):
        if time.time() - folder.stat().st_mtime > STALE:
            shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _short(path: Path) -> str:
    """With ``~`` for the home folder: a card is shown to others."""
    try:
        return f"~/{path.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
