"""Building a bundle on this machine, where ``atc`` is on the PATH: the bundle's own script does it, as on the box.

The script runs in a process of its own. Its lines become progress; a cancel ends it and whatever atc started. What
atc refuses becomes an error with the node and the next step that the log speaks of.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import worker
from kit.ascend.bundling.bundle import SCRIPT
from kit.errors import ToolFailed
from kit.progress import Report, Tick

STEPS = 2  # check and build


@dataclass(frozen=True)
class Build:
    """What came of a build: the file, how long atc took, which tools were FAKE, the end of the log."""

    om: Path
    seconds: float
    fake: str
    log_tail: str
    cann: str


def atc_here() -> Path | None:
    """The ``atc`` on the PATH; None where there is none."""
    found = shutil.which("atc")
    return Path(found) if found else None


def build(folder: Path, report: Report) -> Build:
    """Build the .om of a bundle.

    Args:
        folder: with ``bundle.json``.
        report: hears the script's lines; what it raises ends the build.

    Raises:
        ToolFailed: atc or the check before it failed; says what the log means.
    """
    with tempfile.TemporaryDirectory(prefix="kit-atc-") as place:
        out = Path(place)
        said = out / "said.txt"
        argv = [sys.executable, str(folder / SCRIPT), "--build-only", "--out", str(out / "results")]
        with said.open("wb") as stream:
            # A session of its own: an interrupt of the kernel is told in order, by us.
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                     start_new_session=True)
            try:
                while child.poll() is None:
                    done, note = _progress(said)
                    report(Tick(done, STEPS, note))
                    time.sleep(0.1)
            except BaseException:
                worker.kill(child)  # atc starts many compilers
                raise
        results = _results(out / "results" / "results.json")
        if child.returncode or not results.get("build", {}).get("om"):
            raise _failure(folder, child.returncode, results, said.read_text(encoding="utf-8", errors="replace"))
        made = results["build"]
        return Build(folder / made["om"], float(made["seconds"]), results["fake"], made.get("log_tail", ""),
                     results["device"].get("cann", ""))


def _progress(said: Path) -> tuple[int, str]:
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    done = sum(bool(re.match(r"\[\d+/\d+\]", line)) for line in lines)
    return min(done, STEPS), lines[-1].strip()[:120] if lines else "starting"


def _results(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _failure(folder: Path, code: int, results: Mapping[str, Any], said: str) -> ToolFailed:
    """The step that failed, in words; the log's tail as detail."""
    failed = next((step for step in results.get("steps", ()) if step["state"] == "failed"), None)
    fake = f"{results['fake']}: " if results.get("fake") else ""
    tail = results.get("build", {}).get("log_tail") or "\n".join(said.splitlines()[-40:])
    if failed is None:
        return ToolFailed(f"{SCRIPT} ended with {code} and left no account.", detail=tail,
                          remedy="the details show its last words; build=False writes the bundle alone")
    first = next(iter(failed["explained"]), {})
    what = " ".join(filter(None, [first.get("code", ""), first.get("cause", "")])) or failed["message"]
    node = f" (node {first['node']})" if first.get("node") else ""
    return ToolFailed(f"{fake}{folder.name} was not built here, step {failed['step']}: {what.rstrip('.')}{node}.",
                      remedy=f"{first.get('next') or 'read the details'}; build=False writes the bundle alone",
                      detail="\n\n".join(filter(None, [failed["message"], tail])))
