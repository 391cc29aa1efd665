"""ONNX Runtime behind ``open_runner``."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import BadInput, UnsupportedModel, unknown
from kit.model import Model
from kit.need import need
from kit.options import expect
from kit.runtimes import Layer, peak_memory, timed
from kit.runtimes.cann_provider import PROVIDER as CANN
from kit.runtimes.cann_provider import CannProvider, require

_SHORT = {"float": "f32", "float16": "f16", "double": "f64", "uint8": "u8", "int8": "i8", "int32": "i32",
          "int64": "i64"}
#: Session entries under which a quantized model runs as it is written: ONNX Runtime (1.31) would make a float layer
#: between two roundings INT8 as well, with one scale for all its weights, and round float biases.
AS_WRITTEN = {"optimization.disable_specified_optimizers": "WeightBiasQuantization"}
LEVELS = {"none": 0, "basic": 1, "extended": 2, "all": 99}


def providers() -> list[str]:
    """The execution providers that this installation offers and that need no account or build step, best first."""
    ort = need("onnxruntime", to="run an ONNX model", extra="base")
    skip = ("AzureExecutionProvider", "TensorrtExecutionProvider")  # a cloud; minutes of engine building
    return [name for name in ort.get_available_providers() if name not in skip]


class OnnxRuntime:
    """A session.

    Args:
        graph: the .onnx file.
        threads: of one operator.
        providers: execution providers, in order; all that are offered by default.
        graph_level: how far ONNX Runtime rewrites the graph.
        spinning: threads wait busily between operators; off where other processes take turns.
        cann: options of the CANN provider, which then comes first; for an Ascend chip with onnxruntime-cann.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2,
                 providers: list[str] | None = None, graph_level: Literal["none", "basic", "extended", "all"] = "all",
                 spinning: bool = True, cann: CannProvider | None = None) -> None:
        ort = need("onnxruntime", to="run an ONNX model", extra="base")
        self._model = Model.open(graph)
        offered = globals()["providers"]()
        if cann is not None:
            expect(CannProvider, cann)
        if cann is not None or CANN in (providers or ()):
            require(offered, ort.__version__)
        for name in providers or ():
            if name not in offered:
                raise unknown("execution provider", name, offered, f"onnxruntime {ort.__version__}")
        if graph_level not in LEVELS:
            raise unknown("graph level", graph_level, LEVELS)
        self._asked = (graph, threads, LEVELS[graph_level], spinning, _with_options(providers or offered, cann))
        try:
            self._session = _session(*self._asked)
        except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
            raise explain(error, graph, ort.__version__) from error
        self._settings = {"runtime": f"onnxruntime {ort.__version__}",
                          "providers": ", ".join(self._session.get_providers()),
                          "threads": threads, "graph level": graph_level,
                          **({"CANN": "; ".join(map("=".join, cann.entries().items()))} if cann else {})}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._model.inputs, "outputs": self._model.outputs, "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [spec.name for spec in self._model.outputs]
        try:
            return dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise BadInput(f"onnxruntime could not run {self._model.path.name} on {shapes}.",
                           remedy="the details name the node; a shape the model cannot take is the usual cause",
                           detail=str(error)) from error

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self._session.run(None, feeds), runs)

    def layers(self, feeds: dict[str, np.ndarray], runs: int = 20) -> tuple[Layer, ...]:
        """What was run, slowest first; precision is the type of a node's first input. A second session is profiled."""
        events = trace(*self._asked, feeds=feeds, runs=runs)
        begin = sorted(event["ts"] for event in events if event.get("name") == "model_run")[-runs]  # one to warm up
        spent, about = defaultdict(float), {}
        for event in events:
            name, found = event.get("name", ""), event.get("args", {})
            if name.endswith("_kernel_time") and "op_name" in found and event["ts"] >= begin:
                name = name.removesuffix("_kernel_time")
                spent[name] += event["dur"] / 1000 / runs
                types = [kind for entry in found.get("input_type_shape", []) for kind in entry]
                about[name] = found["op_name"], _SHORT.get(types[0], types[0]) if types else ""
        return tuple(Layer(name, *about[name], ms) for name, ms in sorted(spent.items(), key=lambda item: -item[1]))

    def memory(self) -> int:
        return peak_memory()


def _with_options(names: list[str], cann: CannProvider | None) -> list[Any]:
    """Providers as a session takes them: CANN's with its options and in front, where it is asked for."""
    if cann is None:
        return names
    others = [name for name in names if name != CANN]
    return [(CANN, cann.entries()), *(others or ["CPUExecutionProvider"])]


def entries(spinning: bool) -> dict[str, str]:
    """The session's configuration entries."""
    return {"session.intra_op.allow_spinning": "1" if spinning else "0", **AS_WRITTEN}


def _session(graph: str, threads: int, level: int, spinning: bool, providers: list[Any], profile: str = "") -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come back as exceptions; printed as well, they are noise
    options.graph_optimization_level = ort.GraphOptimizationLevel(level)
    for name, value in entries(spinning).items():
        options.add_session_config_entry(name, value)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(graph, options, providers=providers)


def trace(graph: str, threads: int, level: int, spinning: bool, providers: list[Any], *,
          feeds: dict[str, np.ndarray], runs: int) -> list[dict[str, Any]]:
    """The runtime's own trace events of ``runs`` runs after one more to warm up."""
    with tempfile.TemporaryDirectory(prefix="kit-profile-") as folder:
        session = _session(graph, threads, level, spinning, providers, profile=str(Path(folder) / "profile"))
        for _ in range(runs + 1):
            session.run(None, feeds)
        return json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))


def explain(error: Exception, graph: str, version: str) -> UnsupportedModel:
    """What onnxruntime raised when it loaded ``graph``, in words that help."""
    text = str(error)
    if "IR version" in text or "Opset" in text or "opset" in text:
        remedy = "export with a lower opset, or install a newer onnxruntime"
    elif "NOT_IMPLEMENTED" in text or "No Op registered" in text:
        remedy = "run kit.audit on the model: it lists every operator that onnxruntime lacks, and what to do"
    else:
        remedy = "run onnx.checker on the file; the details name the place"
    return UnsupportedModel(f"onnxruntime {version} cannot load {graph}.", remedy=remedy, detail=text)
