"""One small class per runtime: ``run``, ``time``, ``memory``, ``describe``. ``kit.runner`` holds them."""

from __future__ import annotations

import time
from collections.abc import Callable


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
    import psutil

    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
