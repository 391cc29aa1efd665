"""Functions that tests run in workers: a worker can only import what stands in a module."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from kit.card import Card
from kit.errors import BadInput
from kit.options import Help, Options, Range
from kit.progress import silent, track
from kit.record import Provenance, run_stage


def add(left, right):
    print("adding")
    return left + right


def crash():
    ctypes.string_at(0)


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    print("last words")
    os._exit(3)


def run_out_of_memory():
    raise MemoryError


def hog(size):
    kept = bytearray(size)
    time.sleep(30)
    return len(kept)


def divide(left, right):
    return left / right


def refuse():
    raise BadInput("The sky is green.", remedy="look again", detail="it was a filter")


def sleep(seconds):
    time.sleep(seconds)


def count(to, report=silent):
    for _ in track(range(to), report, note="counting"):
        time.sleep(0.02)
    return to


def spawn_child_and_sleep(path):
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(path).write_text(str(child.pid))
    time.sleep(60)


def fill_disk():
    raise OSError(28, "No space left on device", "weights.bin")


@dataclass(frozen=True)
class DoubleOptions(Options):
    """Of a stage that doubles an array."""

    times: Annotated[int, Range(1, 8), Help("how often to double")] = 1
    mode: Literal["fast", "careful"] = "fast"
    pause: Annotated[float, Range(0, 60)] = 0.0


@dataclass(frozen=True)
class Doubled(Card):
    """Where the doubled array lies, and its largest value."""

    path: Path
    largest: float
    provenance: Provenance | None = field(default=None, compare=False)

    def facts(self):
        return {"largest": self.largest}


def double(source, options=None, *, runs=None, report=silent):
    """A small real stage: reads an .npy file, writes its double."""
    options = options or DoubleOptions()

    def work(folder, report):
        (folder / "started.txt").write_text("half written")
        for _ in track(range(int(options.pause * 10)), report, note="doubling"):
            time.sleep(0.1)
        array = np.load(source) * 2.0**options.times
        np.save(folder / "double.npy", array)
        return Doubled(folder / "double.npy", float(array.max()))

    return run_stage("double", Doubled, work, options=options, inputs={"source": Path(source)}, name="toy",
                     runs=runs, report=report)
