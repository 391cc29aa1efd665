"""What is here, what is missing, and which versions are known to fail together: what can fail, fails first.

Versions are read without importing anything. Whether a framework can really be imported is tried in a process of its
own, under the interpreter that ``kit.worker.use`` chose for it: an import that crashes is a line in a table.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit import worker
from kit.card import Card, Table, bytes_text
from kit.errors import MissingTool, unknown
from kit.int8.processor import cpu_facts, flags_in

# need -> (distribution, module to import); "a|b" means that either distribution will do.
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "base": (("numpy", "numpy"), ("onnx", "onnx"), ("onnx-ir", "onnx_ir"), ("onnxscript", "onnxscript"),
             ("onnxruntime|onnxruntime-gpu", "onnxruntime"), ("cattrs", "cattrs"), ("psutil", "psutil"),
             ("PyYAML", "yaml"), ("plotly", "plotly"), ("matplotlib", "matplotlib"), ("Jinja2", "jinja2")),
    "paddle": (("paddlepaddle|paddlepaddle-gpu", "paddle"), ("paddle2onnx", "paddle2onnx")),
    "ocr": (("opencv-python-headless|opencv-python|opencv-contrib-python", "cv2"), ("shapely", "shapely"),
            ("pyclipper", "pyclipper"), ("RapidFuzz", "rapidfuzz")),
    "detection": (("opencv-python-headless|opencv-python|opencv-contrib-python", "cv2"),
                  ("pycocotools", "pycocotools")),
    "ui": (("ipywidgets", "ipywidgets"), ("anywidget", "anywidget"), ("ipykernel", "ipykernel")),
    "tensorflow": (("tensorflow-cpu|tensorflow", "tensorflow"), ("tf2onnx", "tf2onnx")),
    "torch": (("torch", "torch"),),
    "diffusion": (("torch", "torch"), ("diffusers", "diffusers"), ("transformers", "transformers"),
                  ("tokenizers", "tokenizers"), ("scikit-image", "skimage")),
    "openvino": (("openvino", "openvino"),),
}
#: Needs that live under another one's interpreter.
_UNDER = {"diffusion": "torch"}
#: Needs whose packages run in a worker of their own.
FRAMEWORKS = ("paddle", "tensorflow", "torch")
MIN_PYTHON = (3, 11)
#: Processor features that decide how fast INT8 and FP32 run, and what they are good for.
FEATURES = {"avx2": "256-bit arithmetic", "avx512f": "512-bit arithmetic", "avx512_vnni": "INT8 dot products",
            "avx_vnni": "INT8 dot products, 256-bit", "amx_int8": "INT8 tiles", "asimddp": "INT8 dot products (ARM)"}
# Compiled packages among the light ones: those whose import can fail although they are installed.
_NATIVE = ("numpy", "onnx", "onnxruntime", "cv2", "shapely", "pyclipper", "openvino", "pycocotools", "torch",
           "tokenizers", "skimage")
# Imports one module after another and says how each went at once, so that a crash tells which one it was.
_PROBE = """import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(name, flush=True)
    except BaseException as error:
        print(name, type(error).__name__, " ".join(str(error).split())[:300], flush=True)
"""


@dataclass(frozen=True)
class Problem:
    """A combination of versions that is known to fail, or to need care.

    Attributes:
        packages: the packages as installed, such as ``paddle2onnx 2.1.0``.
        severity: an error stops the stage; a warning is something the kit works around, or that may bite elsewhere.
        what: what happens, with the message one would see.
        do: what to do about it.
        source: who says so.
        checked: when, ``YYYY-MM-DD``.
    """

    packages: tuple[str, ...]
    severity: Literal["error", "warning", "note"]
    what: str
    do: str
    source: str
    checked: str


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        name: of the distribution.
        version: "" when it is missing.
        need: what asked for it.
        state: ``ready`` (its import was tried), ``installed`` (pure Python, not tried), ``missing``, or ``broken``
            (installed, but its import fails).
        note: why it is broken, or under which other interpreter it lives.
    """

    name: str
    version: str
    need: str
    state: Literal["ready", "installed", "missing", "broken"]
    note: str = ""


@dataclass(frozen=True)
class Environment(Card):
    """What ``check_environment`` found. True when every package asked for is ready and no pair is known to fail."""

    python: str
    machine: str
    packages: tuple[Package, ...]
    problems: tuple[Problem, ...]
    memory_free: int
    memory_total: int
    disk_free: int
    cpu_features: tuple[str, ...]

    def __bool__(self) -> bool:
        return (all(package.state in ("ready", "installed") for package in self.packages)
                and all(problem.severity != "error" for problem in self.problems))

    def title(self) -> str:
        bad = [package for package in self.packages if package.state in ("missing", "broken")]
        stop = [problem for problem in self.problems if problem.severity == "error"]
        if self:
            care = sum(problem.severity == "warning" for problem in self.problems)
            return "Everything that was asked for is here" + (f"; {care} thing(s) to know, see below" if care else "")
        said = [f"{p.name} is {'not installed' if p.state == 'missing' else 'broken'}" for p in bad]
        return "Not ready: " + "; ".join(said + [" and ".join(p.packages) + " fail together" for p in stop])

    def facts(self) -> dict[str, object]:
        extras = sorted({package.need for package in self.packages if package.state == "missing"})
        return {
            "Python": self.python,
            "machine": self.machine,
            "memory": f"{bytes_text(self.memory_free)} free of {bytes_text(self.memory_total)}",
            "disk": f"{bytes_text(self.disk_free)} free in the current folder",
            "processor": "; ".join(f"{name} ({FEATURES[name]})" for name in self.cpu_features) or "no features known",
            **({"to install": f'pip install -c constraints.txt -e ".{_bracketed(extras)}"'} if extras else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((p.need, p.name, p.version or "-", p.state, p.note) for p in self.packages)
        tables = [Table("Packages", ("for", "package", "version", "state", "note"), rows)]
        if self.problems:
            tables.append(Table("Versions to know about", ("", "packages", "what happens", "what to do", "source"),
                                tuple((p.severity, ", ".join(p.packages), p.what, p.do, f"{p.source} ({p.checked})")
                                      for p in self.problems)))
        return tuple(tables)


def check_environment(*needs: str) -> Environment:
    """Look whether what the stages need is installed, importable and not known to clash.

    Args:
        needs: keys of ``NEEDS``: ``"paddle"``, ``"ocr"``, ``"ui"``...; ``"base"`` is always looked at.

    Raises:
        BadInput: no such need.
    """
    import psutil

    for name in needs:
        if name not in NEEDS:
            raise unknown("need", name, NEEDS)
    wanted = tuple(dict.fromkeys(("base", *needs)))
    with ThreadPoolExecutor() as pool:  # the probes are processes; the threads only wait for them
        packages = [package for found in pool.map(_look, wanted) for package in found]
    problems = {problem for python in {worker.interpreter(_UNDER.get(n or "", n)) for n in (None, *wanted)}
                for problem in known_bad(versions(python))}
    memory = psutil.virtual_memory()
    return Environment(
        python=f"{platform.python_version()} ({'64' if sys.maxsize > 2**32 else '32'}-bit)",
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        packages=tuple(packages), problems=tuple(sorted(problems, key=_by_weight)),
        memory_free=memory.available, memory_total=memory.total, disk_free=shutil.disk_usage(Path.cwd()).free,
        cpu_features=cpu_features())


def known_bad(installed: Mapping[str, str]) -> list[Problem]:
    """The rows of the known-bad table that apply to these versions.

    Args:
        installed: distribution -> version, such as `versions()` gives; spelling of names does not matter.

    Returns:
        Errors first, then warnings, then notes.
    """
    from packaging.specifiers import SpecifierSet

    have = {_canonical(name): version for name, version in installed.items()}
    for plain, other in (("paddlepaddle", "paddlepaddle-gpu"), ("tensorflow", "tensorflow-cpu")):
        if other in have:
            have.setdefault(plain, have[other])
    found = []
    for row in table():
        found_here = {name: have.get(_canonical(name)) for name in row["when"]}
        if all(found_here.values()) and all(
            SpecifierSet(row["when"][name], prereleases=True).contains(version) for name, version in found_here.items()
        ) and not any(_canonical(name) in have for name in row.get("missing", ())):
            found.append(Problem(tuple(f"{name} {version}" for name, version in found_here.items()), row["severity"],
                                 row["what"], row["do"], row["source"], row["checked"]))
    return sorted(found, key=_by_weight)


@functools.cache
def table() -> tuple[dict, ...]:
    """The known-bad table as it is stored."""
    path = Path(__file__).parent / "data" / "known_bad.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["rows"])


def versions(python: str | None = None) -> dict[str, str]:
    """Every installed distribution and its version, read from metadata; nothing is imported. And ``python`` itself.

    Args:
        python: another interpreter to ask.

    Raises:
        MissingTool: that interpreter does not answer.
    """
    if python in (None, sys.executable):
        here = {_canonical(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()
                if d.metadata["Name"]}
        return here | {"python": platform.python_version()}
    code = ("import importlib.metadata as m, json, platform; have = {d.metadata['Name']: d.version for d in "
            "m.distributions() if d.metadata['Name']}; have['python'] = platform.python_version(); "
            "print(json.dumps(have))")
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return {_canonical(name): version for name, version in json.loads(done.stdout).items()}
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MissingTool(f"{python} does not answer as a Python interpreter.",
                          remedy="check the path given to kit.worker.use", detail=str(error)) from error


def require(framework: str, *distributions: str, extra: str | None = None) -> tuple[dict[str, str], list[Problem]]:
    """For a stage, before it starts anything: the versions under the framework's interpreter, and what to know.

    Args:
        framework: whose interpreter is asked.
        distributions: what must be installed there; "a|b" means that either will do.
        extra: of this project, which installs them; by default called like the framework.

    Raises:
        MissingTool: a distribution is not installed there, or a pair is known to fail.
    """
    python = worker.interpreter(framework)
    have = versions(python)
    foreign = python != sys.executable
    missing = [name for name in distributions if not any(_canonical(n) in have for n in name.split("|"))]
    if missing:
        names = " and ".join(name.partition("|")[0] for name in missing)
        raise MissingTool(
            f"{names} {'is' if len(missing) == 1 else 'are'} not installed in {python if foreign else 'this Python'}.",
            remedy=f"{python} -m pip install {names.replace(' and ', ' ')}" if foreign else
            f'pip install -c constraints.txt -e ".[{extra or framework}]" in the project folder, then restart the '
            "kernel")
    if tuple(map(int, have["python"].split(".")[:2])) < MIN_PYTHON:
        least = ".".join(map(str, MIN_PYTHON))
        raise MissingTool(f"{python} is Python {have['python']}; the kit's worker needs {least} or later.",
                          remedy=f"make that environment anew with Python {least}")
    problems = known_bad(have)
    stop = next((problem for problem in problems if problem.severity == "error"), None)
    if stop:
        raise MissingTool(f"{' and '.join(stop.packages)} are known to fail together. {stop.what}", remedy=stop.do,
                          detail=f"source: {stop.source}, checked {stop.checked}")
    return have, problems


def cpu_features() -> tuple[str, ...]:
    """Those of ``FEATURES`` that this processor says it has (Linux only; empty elsewhere)."""
    flags = flags_in(cpu_facts())
    return tuple(name for name in FEATURES if name in flags)


def _look(need: str) -> list[Package]:
    python = worker.interpreter(_UNDER.get(need, need))
    have = versions(python)
    found = []
    for distributions, module in NEEDS[need]:
        names = distributions.split("|")
        name = next((n for n in names if _canonical(n) in have), names[0])
        found.append((name, have.get(_canonical(name), ""), module))
    broken = _probe(python, [m for _, version, m in found if version and (need in FRAMEWORKS or m in _NATIVE)])
    place = "" if python == sys.executable else f"in {python}"
    return [Package(name, version, need, "missing" if not version else "installed" if module not in broken else
                    "broken" if broken[module] else "ready", broken.get(module) or place)
            for name, version, module in found]


def _probe(python: str, modules: list[str]) -> dict[str, str]:
    """Import modules in a process of their own; "" for each that works, otherwise why not."""
    if not modules:
        return {}
    try:
        done = subprocess.run([python, "-c", _PROBE, *modules], capture_output=True, text=True, timeout=120)
        code, lines = done.returncode, done.stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        code, lines = str(error), []
    said = {module: why for module, _, why in (line.partition(" ") for line in lines) if module in modules}
    hint = "; on Windows, install the Microsoft Visual C++ redistributable"
    answer = {module: f"import fails: {why}{hint * ('DLL load failed' in why)}" if why else ""
              for module, why in said.items()}
    for module in modules:  # a crash takes the ones after it along: they were not tried
        if module not in answer:
            answer[module] = f"the import of {module} ended the process ({code})"
            break
    return answer


def _bracketed(extras: list[str]) -> str:
    named = [extra for extra in extras if extra != "base"]  # what has no extra comes with the kit itself
    return f"[{','.join(named)}]" if named else ""


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _by_weight(problem: Problem) -> tuple[int, tuple[str, ...]]:
    return ("error", "warning", "note").index(problem.severity), problem.packages
