"""OpenVINO on the CPU behind ``open_runner``: an .onnx file or OpenVINO's own .xml.

OpenVINO chooses the precision of float layers itself: on a processor with BF16 it takes BF16 unless told otherwise. So
``settings`` shows what it took, and ``layers()`` what each layer became.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import BadInput, UnsupportedModel, unknown
from kit.model import Model, TensorSpec
from kit.need import need
from kit.runtimes import Layer, peak_memory, timed

DEVICE = "CPU"
# precision -> (what OpenVINO calls it, the capability that a device must name)
PRECISIONS = {"auto": ("", ""), "f32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "f16": ("f16", "FP16")}
_NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


@functools.cache
def core() -> Any:
    """The one ``openvino.Core`` of this process."""
    return need("openvino", to="run a model with OpenVINO", extra="openvino").Core()


def version() -> str:
    """``2026.4.1``: without the build's number."""
    return need("openvino", to="run a model with OpenVINO", extra="openvino").__version__.partition("-")[0]


def capabilities() -> tuple[str, ...]:
    """Number formats that this processor computes in, as OpenVINO names them: FP32, BF16, FP16, INT8."""
    named = core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in ("FP32", "BF16", "FP16", "INT8") if name in named)


def float_precision(asked: str = "auto") -> str:
    """What float layers are computed in here when ``asked`` is asked for: ``f32``, ``bf16`` or ``f16``.

    Raises:
        BadInput: no such precision, or one that this processor lacks. OpenVINO itself would take another silently.
    """
    if asked not in PRECISIONS:
        raise unknown("precision", asked, PRECISIONS, "the OpenVINO runner")
    if asked == "auto":
        return _word(core().get_property(DEVICE, "INFERENCE_PRECISION_HINT"))
    offered = capabilities()
    if PRECISIONS[asked][1] not in offered:
        known = [name for name, (_, needs) in PRECISIONS.items() if not needs or needs in offered]
        raise BadInput(f"This processor does not compute in {asked}: OpenVINO {version()} names "
                       f"{', '.join(offered)} for it.", remedy=f"use precision={' or '.join(map(repr, known))}")
    return asked


class OpenVino:
    """A compiled model and one inference request.

    Args:
        graph: an .onnx file, or an .xml with its .bin beside it.
        threads: of one run.
        precision: of the float layers; auto leaves it to OpenVINO. Layers that are quantized stay so.
        hint: what OpenVINO tunes for.
    """

    # Measured with 2026.4 and 2 threads on 2 cores: after a run OpenVINO's threads (TBB) use 1 ms of the processor and
    # sleep; ONNX Runtime's use 30 ms, for they spin. So OpenVINO leaves others alone and needs no environment variable
    # for that, but is slowed by an ONNX Runtime session that ran just before it: the pause between the turns of a
    # benchmark, in which each candidate has a process of its own, is for that.

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2,
                 precision: Literal["auto", "f32", "bf16", "f16"] = "auto",
                 hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY") -> None:
        core()  # a missing package is said first
        if hint not in ("LATENCY", "THROUGHPUT"):
            raise unknown("hint", hint, ("LATENCY", "THROUGHPUT"), "the OpenVINO runner")
        taken = float_precision(precision)
        self._graph = graph
        # One stream: one run at a time gets all the threads.
        self._properties = {"PERFORMANCE_HINT": hint, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
                            "INFERENCE_PRECISION_HINT": taken}
        model = read(graph)
        self._inputs, self._outputs = _specs(graph, model)
        self._compiled = self._compile(model, self._properties)
        self._request = self._compiled.create_infer_request()
        asked = self._compiled.get_property
        self._settings = {"runtime": f"openvino {version()}", "device": DEVICE,
                          "threads": asked("INFERENCE_NUM_THREADS"),
                          "precision": _word(asked("INFERENCE_PRECISION_HINT")), "hint": hint,
                          "streams": int(asked("NUM_STREAMS"))}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._inputs, "outputs": self._outputs, "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            answers = self._infer(self._request, feeds)
        except RuntimeError as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise BadInput(f"openvino could not run {Path(self._graph).name} on {shapes}.",
                           remedy="the details name the node; a shape the model cannot take is the usual cause",
                           detail=str(error)) from error
        return {spec.name: answers[at] for at, spec in enumerate(self._outputs)}

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self._infer(self._request, feeds), runs)

    def layers(self, feeds: dict[str, np.ndarray], runs: int = 20) -> tuple[Layer, ...]:
        """What was run, slowest first. A second copy of the model does it: counting costs some time."""
        compiled = self._compile(read(self._graph), {**self._properties, "PERF_COUNT": True})
        request = compiled.create_infer_request()
        self._infer(request, feeds)
        first = _layers(compiled)  # the counters give the mean of all runs: the first is taken out again
        for _ in range(runs):
            self._infer(request, feeds)
        found = [Layer(name, kind, precision, max(0.0, us * (runs + 1) - first[name][2]) / runs / 1000, made_of)
                 for name, (kind, precision, us, made_of) in _layers(compiled).items() if name in first]
        return tuple(sorted(found, key=lambda layer: -layer.ms))

    def memory(self) -> int:
        return peak_memory()

    def _infer(self, request: Any, feeds: Mapping[str, np.ndarray]) -> Any:
        # Inputs are used where they lie, as ONNX Runtime does; outputs are copies, the caller's to keep.
        ports = {at: feeds[spec.name] for at, spec in enumerate(self._inputs)}
        return request.infer(ports, share_inputs=True, share_outputs=False)

    def _compile(self, model: Any, properties: dict[str, Any]) -> Any:
        try:
            return core().compile_model(model, DEVICE, properties)
        except RuntimeError as error:
            raise _explain(error, self._graph) from error


def read(graph: str | Path) -> Any:
    """The ``openvino.Model`` of a file.

    Raises:
        UnsupportedModel: OpenVINO cannot convert it; names the operators.
    """
    try:
        return core().read_model(str(graph))
    except RuntimeError as error:
        raise _explain(error, str(graph)) from error


def refusals(error: Exception | str) -> dict[str, str]:
    """Operators that OpenVINO could not convert, such as ``Det`` or ``my.domain::Op``, and why, from its message."""
    text, found = str(error), {}
    for line in text.splitlines():
        head, _, names = line.partition(": ")
        if head.endswith("No conversion rule found for operations"):
            found.update({_label(name): "OpenVINO has no rule to convert it" for name in names.split(", ")})
        elif head.endswith("Conversion is failed for"):
            found.update({_label(name): _message(text, name) for name in names.split(", ")})
    return found


def _label(name: str) -> str:
    """``Det-17`` -> ``Det``, ``com.microsoft.Gelu`` -> ``com.microsoft::Gelu``."""
    domain, _, operator = name.strip().partition("-")[0].rpartition(".")
    return f"{domain}::{operator}" if domain else operator


def _message(text: str, name: str) -> str:
    """The last line that the report says about an operator: the lines before it name OpenVINO's own files."""
    block = text.partition(f"-- {name.strip()} with a message:\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in block.partition("\nSummary:")[0].splitlines() if line.strip()]
    return (lines[-1] if lines else "its conversion failed")[:300]


def _explain(error: Exception, graph: str) -> UnsupportedModel:
    names = refusals(error)
    what = f": {', '.join(sorted(names))} cannot be converted" if names else ""
    return UnsupportedModel(
        f"openvino {version()} cannot load {Path(graph).name}{what}.",
        remedy='run kit.audit(model, kit.AuditOptions(target="openvino")): it lists what OpenVINO lacks, and what to do'
        if names else "the details name the place; run onnx.checker on an .onnx file, compile an .xml again",
        detail=str(error))


def _layers(compiled: Any) -> dict[str, tuple[str, str, float, str]]:
    """Of what was executed: name -> (kind, precision, mean microseconds, original nodes)."""
    found, constant = {}, set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        name = node.get_friendly_name()
        about = {key: str(value.astype(str)) if hasattr(value, "astype") else str(value)
                 for key, value in node.get_rt_info().items()}
        before = [value.get_source_output().get_node().get_friendly_name() for value in node.inputs()]
        # Weights are converted in the first run only, though the counters show them as if in every one.
        if about["layerType"] == "Const" or (before and constant.issuperset(before)):
            constant.add(name)
        elif about.get("execTimeMcs", "not_executed") != "not_executed":
            found[name] = (about["layerType"], about["runtimePrecision"], float(about["execTimeMcs"]),
                           about.get("originalLayersNames", ""))
    return found


def _specs(graph: str, model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Names as in the ONNX file, whose order OpenVINO keeps; of an .xml the names that it stores."""
    if graph.endswith(".onnx"):
        opened = Model.open(graph)
        return opened.inputs, opened.outputs
    return tuple(map(_spec, model.inputs)), tuple(map(_spec, model.outputs))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(side.get_length() if side.is_static else "?" for side in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), port.get_element_type().to_dtype().name, shape)


def _word(kind: Any) -> str:
    """``<Type: 'bfloat16'>`` -> ``bf16``."""
    name = kind.get_type_name() if hasattr(kind, "get_type_name") else str(kind)
    return _NAMES.get(name, name)
