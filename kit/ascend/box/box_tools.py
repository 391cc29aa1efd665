"""What ``run_on_box.py`` works with: files, programs, the machine, numbers. Standard library and numpy, Python 3.8.

This travels to the box inside ``run_on_box.py`` (see ``kit.ascend.box.box_script``).
"""

# ruff: noqa: B905
from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np

from kit.runtimes.om_session import Failure

VERSION = 1
FAKE = "FAKE"  # the kit's tools for rehearsals, and what comes of them, are marked with it
TAIL = 40  # lines of a log that travel with the results


class Skip(Exception):
    """A step that has nothing to do here; says why."""


# ---- files and programs -------------------------------------------------------------------------------------------


def sha256(path):
    """As sha256sum prints it."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            hasher.update(block)
    return hasher.hexdigest()


def write_whole(path, write):
    """Give ``write`` a path beside ``path`` and move the file into place when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        if beside.exists():
            beside.unlink()


def write_json(path, value):
    """Never half written; NaN and inf, which JSON lacks, are refused."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def called(argv, log, cwd=None):
    """Run a program with its output in ``log``; returns (exit code, its output)."""
    with log.open("ab+") as stream:
        start = stream.seek(0, os.SEEK_END)
        try:
            # A session of its own: atc starts many compilers, which are ended with it.
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                                     cwd=str(cwd) if cwd else None, start_new_session=True)
        except OSError as error:
            raise Failure(f"{argv[0]} cannot be started: {error.strerror or error}") from error
        try:
            child.wait()
        except BaseException:  # Ctrl-C: nothing may go on after us
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        stream.seek(start)
        return child.returncode, stream.read().decode("utf-8", "replace")


def asked(*argv):
    """The output of a small program, "" where it is missing or fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def tail(text):
    """The last lines."""
    return "\n".join(text.splitlines()[-TAIL:])


def says_fake(program):
    """Is the program of that name a FAKE of the kit, for rehearsals?"""
    found = shutil.which(program)
    if not found:
        return False
    with Path(found).open("rb") as stream:
        return FAKE.encode() in stream.read(4096)


# ---- the machine --------------------------------------------------------------------------------------------------


def older(one, other):
    """Is CANN ``one`` an earlier release than ``other``? The first two numbers count; unknown is not earlier."""
    left, right = ([int(number) for number in re.findall(r"\d+", text)[:2]] for text in (one, other))
    return bool(left and right) and left < right


def npu_smi():
    """What ``npu-smi info`` says: the driver's version and the chips by number, empty where it is missing."""
    text = asked("npu-smi", "info")
    version = re.search(r"Version:\s*(\S[^|\n]*)", text)
    # | 0     310P3               | OK            | ...   The table of processes below has a number after the name.
    chips = {int(number): name for number, name in re.findall(r"(?m)^\|\s*(\d+)\s+(\S+)\s*\|\s*[A-Za-z]+\s*\|", text)}
    return {"text": text, "driver": version.group(1).strip() if version else "", "chips": chips}


# ---- numbers ------------------------------------------------------------------------------------------------------


def compared(reference, answer):
    """How far an answer is from its reference.

    Returns:
        ``cosine``; ``max_abs``; ``relative``, which is max_abs over the largest magnitude of the reference where that
        is above 1; each None where the answer is not finite and the reference is. ``note`` says so.
    """
    if reference.shape != answer.shape:
        return {"cosine": None, "relative": None, "max_abs": None,
                "note": f"shape {list(answer.shape)}, the float model gives {list(reference.shape)}"}
    left, right = (np.asarray(array).astype(np.float64).ravel() for array in (reference, answer))
    lost = int((~np.isfinite(right) & np.isfinite(left)).sum())
    if lost:
        return {"cosine": None, "relative": None, "max_abs": None,
                "note": f"{lost} of {right.size} numbers are NaN or inf where the float model has none"}
    with np.errstate(invalid="ignore"):
        gap = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, np.abs(left - right))
    if not np.isfinite(gap).all():
        return {"cosine": None, "relative": None, "max_abs": None,
                "note": "finite where the float model has NaN or inf"}
    a, b = (np.nan_to_num(array, posinf=0, neginf=0) for array in (left, right))
    # Squares of large or tiny numbers would leave the range of float64: each side is scaled by its largest number.
    tops = [float(np.abs(array).max()) if array.size else 0.0 for array in (a, b)]
    a, b = (array / top if top else array for array, top in zip((a, b), tops))
    norms = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    cosine = float(np.dot(a, b)) / norms if norms else float(tops[0] == tops[1])
    top = float(gap.max()) if gap.size else 0.0
    return {"cosine": min(cosine, 1.0), "relative": top / max(1.0, tops[0]), "max_abs": top, "note": ""}


def summary(times, batch):
    """The times in milliseconds, their percentiles, and pictures a second by the median."""
    points = {f"p{p}_ms": round(float(np.percentile(times, p)), 6) for p in (50, 90, 95, 99)}
    return {"times_ms": [round(ms, 6) for ms in times], **points,
            "fps": round(batch * 1000.0 / max(points["p50_ms"], 1e-6), 3)}


def filled(array, length):
    """``array`` made ``length`` long on its first axis: cut, or its last entry repeated."""
    missing = max(0, length - array.shape[0])
    return np.concatenate([array, np.repeat(array[-1:], missing, 0)])[:length]


# ---- bundles and results ------------------------------------------------------------------------------------------


def fixed(side):
    """Is this side of a shape a number, rather than open?"""
    return isinstance(side, int) and side >= 0


def oms(prefix):
    """What ATC wrote: <output>.om, or <output>_<os>_<arch>.om where it holds host code."""
    return [path for path in (prefix.with_name(prefix.name + ".om"),
                              *sorted(prefix.parent.glob(prefix.name + "_*_*.om"))) if path.is_file()]


def built_before(mark, folder):
    """What an earlier run noted beside the .om, if the file is still the same; else None."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(mark.read_text(encoding="utf-8"))
        if sha256(folder / known["build"]["om"]) == known["build"]["om_sha256"]:
            return known
    return None


def slowest(tables, runs, count=10):
    """The operators that took most, from op_summary files: name, type, microseconds a run."""
    spent, kinds = {}, {}
    for path in tables:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            for row in csv.DictReader(stream):
                with contextlib.suppress(KeyError, TypeError, ValueError):  # a row of something else
                    name, us = row["Op Name"], float(row["Task Duration(us)"])
                    spent[name] = spent.get(name, 0.0) + us / runs
                    kinds[name] = row.get("OP Type", "")
    worst = sorted(spent, key=spent.get, reverse=True)[:count]
    return [{"name": name, "type": kinds[name], "us": round(spent[name], 3)} for name in worst]


def say(text):
    """A line for the reader, at once."""
    print(text, flush=True)


def shown(argv):
    """A command as one would type it."""
    return " ".join(shlex.quote(word) for word in argv)


def read_bundle(folder):
    """bundle.json, if it is one that this script understands."""
    try:
        bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except OSError:
        raise Failure("There is no bundle.json beside run_on_box.py: copy the whole folder.") from None
    except ValueError as error:
        raise Failure(f"bundle.json is damaged ({error}): copy it again.") from None
    kind = (bundle.get("format"), bundle.get("version")) if isinstance(bundle, dict) else None
    if kind != ("kit-ascend-bundle", VERSION):
        raise Failure(f"bundle.json is {kind}; this script reads kit-ascend-bundle version {VERSION}.")
    return bundle
