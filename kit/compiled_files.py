"""The files beside a compiled model: session settings, manifest, and a script that runs it without the kit.

``manifest.json``, version 1, has: ``format``, ``version``, ``target``, ``level``, ``portable``, ``source`` and
``artefact`` (file name, sha256, bytes, and ``external`` files likewise), ``inputs`` and ``outputs`` (name, dtype,
shape, and for inputs an ``example`` shape), ``settings``, ``parity``, ``command`` (the equal Python call) and
``environment``. ``session.json`` has the settings again, for the script.
It names no folder of this machine and no person.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.evidence.entries import versions
from kit.int8.processor import this_processor
from kit.model import Model, external_files
from kit.preflight import cpu_features

if TYPE_CHECKING:
    from kit.compiling.result import Compiled, CompileOptions
    from kit.compiling.saved import SavedModelOptions

# How each runtime opens the model and gives its answers; the rest of the script is the same.
_OPEN = {
    "onnxruntime": '''options = ort.SessionOptions()
options.intra_op_num_threads = settings["threads"]
options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel(settings["graph_optimization_level"])
for name, value in settings["entries"].items():
    options.add_session_config_entry(name, value)
session = ort.InferenceSession(str(here / settings["model"]), options, providers=settings["providers"])
''',
    "openvino": '''core = ov.Core()
model = core.compile_model(str(here / settings["model"]), settings["device"], settings["properties"])
''',
    "tensorflow": '''model = tf.saved_model.load(str(here / settings["model"]))
run = model.signatures[settings["signature"]]
''',
}
_ANSWER = {
    "onnxruntime": '''names = [output.name for output in session.get_outputs()]
answers = dict(zip(names, session.run(names, feeds)))
''',
    "openvino": '''answers = {output.get_any_name(): answer for output, answer in model(feeds).items()}
''',
    "tensorflow": '''answers = {name: value.numpy()
           for name, value in run(**{name: tf.constant(feed) for name, feed in feeds.items()}).items()}
''',
}
_IMPORT = {"onnxruntime": "import onnxruntime as ort", "openvino": "import openvino as ov",
           "tensorflow": "import tensorflow as tf"}
# What goes before that for a SavedModel that calls an artefact: its function is registered by the loader beside it.
_REGISTER = '''sys.path.insert(0, str(here / settings["model"] / "assets.extra"))
import kit_call  # noqa: E402

kit_call.register(here / settings["model"] / "assets.extra")
'''
SCRIPT = '''"""Run {file} with {runtime} and numpy alone: python run.py [feeds.npz [answers.npz]]"""
import json
import sys
from pathlib import Path

import numpy as np
{imports}

here = Path(__file__).resolve().parent
settings = json.loads((here / "session.json").read_text(encoding="utf-8"))
manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))

{open}
if len(sys.argv) > 1:
    feeds = dict(np.load(sys.argv[1]))
else:
    feeds = {{spec["name"]: np.zeros(spec["example"], spec["dtype"]) for spec in manifest["inputs"]}}
{answer}for name, answer in answers.items():
    print(name, answer.dtype, list(answer.shape))
if len(sys.argv) > 2:
    np.savez(sys.argv[2], **answers)
'''


def write_files(compiled: Compiled, source: Model, sizes: dict[str, tuple[int, ...]],
                options: CompileOptions | SavedModelOptions) -> None:
    """Write session.json, run.py and, last because it speaks of the others, manifest.json."""
    folder, runtime = compiled.manifest.parent, compiled.settings.runtime
    session = _session(compiled)
    _write(folder / "session.json", json.dumps(session, indent=1) + "\n")
    first = _REGISTER if compiled.saved and compiled.saved.how == "call" else ""
    _write(compiled.script, SCRIPT.format(file=session["model"], runtime=runtime, imports=_IMPORT[runtime],
                                          open=first + _OPEN[runtime], answer=_ANSWER[runtime]))
    _write(compiled.manifest, json.dumps(_manifest(compiled, source, sizes, options, session), indent=1,
                                         ensure_ascii=False) + "\n")


def _session(compiled: Compiled) -> dict[str, Any]:
    settings = compiled.settings
    if compiled.saved:
        return {"model": compiled.file.relative_to(compiled.manifest.parent).as_posix(), "threads": settings.threads,
                "signature": compiled.saved.signature, "layout": {**compiled.saved.inputs, **compiled.saved.outputs}}
    if settings.runtime == "openvino":
        asked = {"INFERENCE_PRECISION_HINT": settings.precision} if settings.precision != "auto" else {}
        return {"model": compiled.file.name, "threads": settings.threads, "device": settings.providers[0],
                "precision": settings.precision,
                "properties": {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                               "INFERENCE_NUM_THREADS": settings.threads, **asked}}
    from kit.runtimes.onnxruntime import LEVELS, entries

    return {"model": compiled.file.name, "threads": settings.threads, "providers": list(settings.providers),
            "graph_level": settings.graph_level, "graph_optimization_level": LEVELS[settings.graph_level],
            "spinning": settings.spinning, "entries": entries(settings.spinning)}


def _manifest(compiled: Compiled, source: Model, sizes: dict[str, tuple[int, ...]],
              options: CompileOptions | SavedModelOptions, session: dict[str, Any]) -> dict[str, Any]:
    import dataclasses

    changed = [f"{f.name}={_shown(getattr(options, f.name))}" for f in dataclasses.fields(options)
               if getattr(options, f.name) != f.default]
    return {
        "format": "migration-notebook-kit compiled model",
        "version": 1,
        "target": compiled.target,
        "level": compiled.level,
        "portable": compiled.portable,
        "source": _file(source.path, external_files(source.path)),
        "artefact": _file(compiled.file / "saved_model.pb" if compiled.saved else compiled.file, _beside(compiled)),
        "inputs": [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "example": list(sizes[s.name])}
                   for s in source.inputs],
        "outputs": [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in source.outputs],
        "settings": session,
        "parity": {"verdict": compiled.verdict, "reference": compiled.reference,
                   "outputs": [{"name": row.name, "max_abs": row.max_abs, "relative": row.relative, "l2": row.l2,
                                "cosine": row.cosine} for row in compiled.parity]},
        "command": f"kit.compile({source.path.name!r}, kit.{type(options).__name__}({', '.join(changed)}))",
        "environment": environment(),
    }


def _shown(value: Any) -> str:
    return repr(value.name if isinstance(value, Path) else value)  # a manifest names no folder


def environment() -> dict[str, Any]:
    """Packages, Python, system and processor; nothing that tells who or where."""
    import kit

    return {
        "packages": {"migration-notebook-kit": kit.__version__, **versions()},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": this_processor().name,
        "instruction_sets": list(cpu_features()),
    }


def _beside(compiled: Compiled) -> list[Path]:
    if compiled.saved:
        return sorted(file for file in compiled.file.rglob("*") if file.is_file() and file.name != "saved_model.pb")
    return [compiled.artifact.with_suffix(".bin")] if compiled.artifact else external_files(compiled.file)


def _file(path: Path, beside: list[Path]) -> dict[str, Any]:
    return {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size,
            "external": [{"file": p.name, "sha256": sha256(p), "bytes": p.stat().st_size} for p in beside]}


def sha256(path: Path) -> str:
    """As ``sha256sum`` prints it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
