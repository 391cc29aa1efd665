"""One small class per runtime: ``run``, ``time``, ``memory``, ``describe``, some ``layers``; held by ``kit.runner``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """One step of a model as the runtime really runs it.

    Attributes:
        name: as the runtime calls it.
        kind: its type, such as Convolution.
        precision: what it computes in, in the runtime's words, such as ``u8`` or ``bf16``.
        ms: mean time of a run in milliseconds.
        made_of: names of the model's own nodes that it stands for, or of the kernel; "" when unknown.
    """

    name: str
    kind: str
    precision: str
    ms: float
    made_of: str = ""


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each of ``runs`` calls, by the monotonic clock."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def peak_memory() -> int:
    """Bytes: the highest resident memory this process has had."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux it survives exec, so that a worker would report what its parent has used.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
