"""``open_runner(artifact)``: dict in, dict out, one context manager for every runtime.

The runtime itself is a small class in ``kit/runtimes``; it lives in this process or, with ``isolated=True`` and for
every training framework, in a worker of its own. So verification and benchmark need no knowledge of runtimes, and a
test passes a function.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.card import Card
from kit.errors import BadInput, KitError, ToolFailed, WorkerDied, unknown
from kit.model import TensorSpec
from kit.runtimes import Layer
from kit.source import Source, recognise
from kit.worker import Process

# runtime -> (kinds of artefact, class in kit.runtimes, framework whose interpreter it needs; None may live in this
# process). The first that takes a kind is the one it gets when none is asked for.
RUNTIMES: dict[str, tuple[tuple[str, ...], str, str | None]] = {
    "onnxruntime": (("onnx",), "onnxruntime.OnnxRuntime", None),
    "openvino": (("onnx", "openvino"), "openvino.OpenVino", None),
    "paddle": (("paddle",), "paddle.PaddleInference", "paddle"),
    "tensorflow": (("savedmodel",), "tensorflow.SavedModel", "tensorflow"),
    "keras": (("keras",), "keras.KerasModel", "tensorflow"),
    "graphdef": (("graphdef",), "tensorflow.FrozenGraph", "tensorflow"),
    "tflite": (("tflite",), "tflite.TFLite", "tensorflow"),
    "torch": (("diffusers",), "torch.TorchPart", "torch"),
    "acl": (("om",), "acl.Acl", "acl"),  # pyACL is initialised once a process
}


def open_runner(artifact: Any, *, runtime: str | None = None, threads: int | None = None, isolated: bool = False,
                **settings: Any) -> Runner:
    """Open a model for running; use it in a ``with`` block.

    Args:
        artifact: an .onnx file, a Paddle inference folder, an OpenVINO .xml, a SavedModel folder, a .keras, .h5, frozen
            .pb or .tflite file, a sub-model's folder of a diffusers pipeline, an .om, a Model, or a result that
            carries one.
        runtime: ``"onnxruntime"`` or ``"openvino"`` for an .onnx file; by default what the artefact says, or what its
            kind is run with.
        threads: of one run; by default what the artefact says, or 2.
        isolated: in a process of its own even where that is not needed: its memory can then be measured.
        settings: of the runtime, see its class: ``providers`` and ``graph_level`` for ONNX Runtime, ``precision`` for
            OpenVINO, ``onednn`` for Paddle Inference, ``signature`` for a SavedModel or TFLite, ``part``, ``compiled``
            and ``any_size`` for PyTorch, ``device`` for pyACL.

    Raises:
        BadInput: no such artefact or runtime, one that does not take it, or an unknown setting.
        KitError: the runtime cannot load it; says why.
    """
    source = recognise(artifact)
    # A compiled model says how it wants to be run; what the caller asks for goes before it.
    own = dict(getattr(artifact, "runner_settings", {}))
    usual = own.pop("runtime", None) or runtime_for(source)
    chosen = runtime_for(source, runtime or usual)
    own = own if chosen == usual else {}  # meant for another runtime
    threads = threads or own.get("threads", 2)
    return Runner(source, runtime=chosen, isolated=isolated, settings={**own, **settings, "threads": threads})


def runtime_for(source: Source, asked: str | None = None) -> str:
    """The runtime that an artefact is opened with: ``asked``, or the usual one of its kind.

    Raises:
        BadInput: there is no such runtime, or it does not take this kind.
    """
    takers = [name for name, (kinds, _, _) in RUNTIMES.items() if source.kind in kinds]
    if asked is not None and asked not in RUNTIMES:
        raise unknown("runtime", asked, RUNTIMES)
    if asked is not None and asked not in takers:
        raise BadInput(f"{asked} does not run {source.path.name}, which is of the kind {source.kind!r}.",
                       remedy=f"open it with runtime={' or '.join(map(repr, takers))}")
    return asked or takers[0]


def make_runtime(home: str, *args: Any, **kwargs: Any) -> Any:
    """Make a runtime object from its place in ``kit.runtimes``; called here or in a worker.

    Raises:
        BadInput: a setting that the runtime does not have.
    """
    module, name = home.split(".")
    made = getattr(importlib.import_module(f"kit.runtimes.{module}"), name)
    known = [n for n, p in inspect.signature(made).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for setting in kwargs:
        if setting not in known:
            raise unknown("setting", setting, known, f"the runner of {name}")
    return made(*args, **kwargs)


class Runner(Card):
    """An open model. Call it with feeds; ``settings`` says how it runs, ``notes`` what went differently.

    Attributes:
        inputs: what it takes.
        outputs: what it gives.
        settings: runtime, version, provider and threads, as they are, not as they were asked for.
        notes: sentences for the reader, such as a retry without oneDNN.
    """

    def __init__(self, source: Source, *, runtime: str, isolated: bool, settings: dict[str, Any]) -> None:
        self.source = source
        self.notes: list[str] = []
        _, self._home, self._framework = RUNTIMES[runtime]
        self._isolated = isolated or self._framework is not None
        self._settings = settings
        self._process: Process | None = None
        self._closes = False  # a device must be given back in order; other runtimes just end with their process
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

    def layers(self, feeds: Mapping[str, np.ndarray], runs: int = 20) -> tuple[Layer, ...]:
        """What the runtime made of the model: kind, precision and mean time of each step, slowest first.

        Raises:
            BadInput: this runtime does not tell, or a feed does not fit.
        """
        module, name = self._home.split(".")
        if not hasattr(getattr(importlib.import_module(f"kit.runtimes.{module}"), name), "layers"):
            raise BadInput(f"{self.settings['runtime']} does not tell about its layers.",
                           remedy="export the model and open it with onnxruntime or openvino")
        return self._ask("layers", self._checked(feeds), runs)

    def close(self) -> None:
        """Let the model go."""
        if self._process:
            if self._closes:
                with contextlib.suppress(KitError):
                    self._process.call("close")
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
        self._closes = about.get("closes", False)

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
        return check_feeds(feeds, self.inputs, self.source.path.name)


def check_feeds(feeds: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec], where: str) -> dict[str, np.ndarray]:
    """The feeds in one piece of memory each, if they fit ``inputs``; ``where`` names the model.

    Raises:
        BadInput: a name, type or shape that does not fit.
    """
    specs = {spec.name: spec for spec in inputs}
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
