"""The environment of onnx2tf for tests: made once a test process, in a folder of its own, by the kit itself."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

from kit import environments
from kit.progress import Tick


@functools.cache
def made() -> tuple[environments.ToolEnvironment, tuple[Tick, ...]]:
    """The environment, and what was reported while it was made (nothing where KIT_HOME holds it already)."""
    if "KIT_HOME" not in os.environ:
        home = Path(tempfile.mkdtemp(prefix="kit-test-home-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        os.environ["KIT_HOME"] = str(home)
    ticks: list[Tick] = []
    return environments.make("onnx2tf", report=ticks.append), tuple(ticks)


def inside() -> tuple[str, str]:
    """Runs in the worker: the version of onnx2tf there, and where that Python is."""
    from importlib.metadata import version

    return version("onnx2tf"), sys.prefix
