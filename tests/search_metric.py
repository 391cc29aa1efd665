"""A search of a tiny model as a script, and metrics that workers can import."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from quantization_models import feeds

import kit

SMALL = dict(rounds=5, threads=(1,), levels=("all",), keep=(1,), finalists=2)


def finite(runner) -> float:
    """The share of finite numbers: every candidate has all of it."""
    return float(np.mean([np.isfinite(runner(feed)["y"]).mean() for feed in feeds(3)]))


def never(runner) -> float:
    """A metric that takes nothing from OpenVINO."""
    return 0.0 if "openvino" in runner.settings["runtime"] else 1.0


def slow(runner) -> float:
    """A metric that takes longer than a second: a search that is allowed one has no time for a second trial."""
    time.sleep(1.1)
    return 1.0


def run(model: Path, runs: Path, **more) -> kit.Found:
    """The search that the tests kill and repeat."""
    return kit.search(model, feeds(), kit.SearchOptions(**{**SMALL, **more}), runs=runs)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
