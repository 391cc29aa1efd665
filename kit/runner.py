"""``open_runner(artifact)``: dict in, dict out, one context manager for every runtime.

The runtime itself is a small class in ``kit/runtimes``; it lives in this process or, with ``isolated=True`` and for
every training framework, in a worker of its own. So verification and benchmark need no knowledge of runtimes, and a
test passes a function.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kit.card import Card
from kit.errors import BadInput, KitError, ToolFailed, WorkerDied, unknown
from kit.model import TensorSpec
from kit.source import recognise
from kit.worker import Process

# kind of artefact -> (class in kit.runtimes, framework whose interpreter it needs; None may live in this process)
_RUNTIMES = {
    "onnx": ("onnxruntime.OnnxRuntime", None),
    "paddle": ("paddle.PaddleInference", "paddle"),
}


def open_runner(artifact: Any, *, threads: int = 2, isolated: bool = False, **settings: Any) -> Runner:
    """Open a model for running; use it in a ``with`` block.

    Args:
        artifact: an .onnx file, a Paddle inference folder, a Model, or a result that carries one.
        threads: of one run.
        isolated: in a process of its own even where that is not needed: its memory can then be measured.
        settings: of the runtime, see its class: ``providers`` and ``graph_level`` for ONNX Runtime, ``onednn`` for
            Paddle Inference.

    Raises:
        BadInput: no such artefact, or an unknown setting.
        KitError: the runtime cannot load it; says why.
    """
    # A compiled model says how it wants to be run; what the caller asks for goes before it.
    settings = {**getattr(artifact, "runner_settings", {}), **settings}
    return Runner(recognise(artifact), threads=threads, isolated=isolated, settings=settings)


def make_runtime(home: str, *args: Any, **kwargs: Any) -> Any:
    """Make a runtime object from its place in ``kit.runtimes``; called here or in a worker."""
    module, name = home.split(".")
    return getattr(importlib.import_module(f"kit.runtimes.{module}"), name)(*args, **kwargs)


class Runner(Card):
    """An open model. Call it with feeds; ``settings`` says how it runs, ``notes`` what went differently.

    Attributes:
        inputs: what it takes.
        outputs: what it gives.
        settings: runtime, version, provider and threads, as they are, not as they were asked for.
        notes: sentences for the reader, such as a retry without oneDNN.
    """

    def __init__(self, source: Any, *, threads: int, isolated: bool, settings: dict[str, Any]) -> None:
        self.source = source
        self.notes: list[str] = []
        self._home, self._framework = _RUNTIMES[source.kind]
        self._isolated = isolated or self._framework is not None
        self._settings = {"threads": threads, **settings}
        self._process: Process | None = None
        self._open()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. The arrays returned are the caller's to keep.

        Raises:
            BadInput: a name, type or shape that does not fit.
        """
        return self._ask("run", self._checked(feeds))

    def time(self, feeds: Mapping[str, np.ndarray], runs: int) -> list[float]:
        """Milliseconds of each of ``runs`` runs, measured beside the runtime, input already in place."""
        return self._ask("time", self._checked(feeds), runs)

    def memory(self) -> int:
        """Bytes: the highest resident memory of the runtime's process so far (of this one when not isolated)."""
        return self._ask("memory")

    def close(self) -> None:
        """Let the model go."""
        if self._process:
            self._process.close()
        self._process = self._runtime = None

    def title(self) -> str:
        return f"{self.source.path.name} on {self.settings['runtime']}"

    def facts(self) -> dict[str, object]:
        return {
            **{name: value for name, value in self.settings.items() if name != "runtime"},
            "inputs": "; ".join(map(str, self.inputs)),
            "outputs": "; ".join(map(str, self.outputs)),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def _open(self) -> None:
        files = [str(self.source.graph), str(self.source.weights) if self.source.weights else None]
        try:
            if self._isolated:
                self._process = Process(framework=self._framework, environment=_QUIET_THREADS)
                self._runtime = None
                self._process.make(make_runtime, self._home, *files, **self._settings)
            else:
                self._runtime = make_runtime(self._home, *files, **self._settings)
            about = self._ask_once("describe")
        except (WorkerDied, ToolFailed) as error:
            self.close()
            if not self._fall_back(error):
                raise
            return
        except BaseException:
            self.close()
            raise
        self.inputs: tuple[TensorSpec, ...] = about["inputs"]
        self.outputs: tuple[TensorSpec, ...] = about["outputs"]
        self.settings: dict[str, object] = about["settings"]

    def _ask(self, method: str, *args: Any) -> Any:
        try:
            return self._ask_once(method, *args)
        except (WorkerDied, ToolFailed) as error:
            if not self._fall_back(error):
                raise
            return self._ask_once(method, *args)

    def _ask_once(self, method: str, *args: Any) -> Any:
        if self._process:
            return self._process.call(method, *args)
        if self._runtime is None:
            raise BadInput(f"The runner of {self.source.path.name} is closed.", remedy="open it again")
        return getattr(self._runtime, method)(*args)

    def _fall_back(self, error: KitError) -> bool:
        """Open again without oneDNN, once: some Paddle versions crash in it (Paddle 3.3 on DB detectors)."""
        if self.source.kind != "paddle" or self._settings.get("onednn") is False:
            return False
        self.close()
        self._settings["onednn"] = False
        self.notes.append(f"Paddle Inference failed with oneDNN ({error.what}) and runs without it.")
        self._open()
        return True

    def _checked(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        where = self.source.path.name
        specs = {spec.name: spec for spec in self.inputs}
        for name in feeds:
            if name not in specs:
                raise unknown("input", name, specs, where)
        missing = [name for name in specs if name not in feeds]
        if missing:
            raise BadInput(f"{where} needs input {missing[0]!r} too.", remedy=f"feed {', '.join(specs)}")
        return {name: _fitting(np.asarray(array), specs[name], where) for name, array in feeds.items()}


# A worker that has answered must leave the cores to the next one: benchmarks take turns.
_QUIET_THREADS = {"KMP_BLOCKTIME": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _fitting(array: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    if spec.dtype not in ("unknown", array.dtype.name):
        raise BadInput(f"Input {spec.name!r} of {where} takes {spec.dtype}, not {array.dtype.name}.",
                       remedy=f"convert it with .astype({spec.dtype!r})")
    fits = len(array.shape) == len(spec.shape) and all(
        not isinstance(want, int) or want in (-1, have) for have, want in zip(array.shape, spec.shape, strict=True))
    if spec.shape and not fits:
        raise BadInput(f"Input {spec.name!r} of {where} takes shape {list(spec.shape)}, not {list(array.shape)}.",
                       remedy="prepare the input with the Preprocess that belongs to the model")
    return np.ascontiguousarray(array)
