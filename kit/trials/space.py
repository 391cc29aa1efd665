"""What a search can try: every candidate is a runtime, a precision, the way INT8 was made, and how it is run.

A candidate is plain data: the same options give the same list in the same order, and a log line names its candidate
by its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.searching import SearchOptions

#: Precisions in the order of how fast they are expected to be, fastest first: it decides only what is tried first.
ORDER = {
    "openvino": ("int8+bf16", "bf16", "fp16", "int8", "int8-weights", "int4-weights", "fp32"),
    "onnxruntime": ("int8", "int8-weights", "int4-weights", "fp32"),
}
#: Precisions whose ranges come from calibration.
INTEGER = ("int8", "int8+bf16")
#: Precisions for matrix products alone: stored in few bits, computed in float; nothing is calibrated.
WEIGHT_ONLY = ("int8-weights", "int4-weights")


@dataclass(frozen=True)
class Candidate:
    """One way to run a model.

    Attributes:
        runtime: ``onnxruntime`` or ``openvino``.
        precision: ``fp32``, ``bf16``, ``fp16``, ``int8`` (the rest in FP32), ``int8+bf16`` (the rest in BF16),
            ``int8-weights`` or ``int4-weights`` (stored in so many bits, computed in float).
        method: how the ranges are chosen, see ``QuantizeOptions.method``; "" where nothing is calibrated.
        keep: so many groups of nodes, those that cost most accuracy in INT8, stay in float.
        level: how far ONNX Runtime rewrites the graph; "" for other runtimes.
        threads: of one run.
        spinning: ONNX Runtime's threads wait busily between operators.
    """

    runtime: str
    precision: str
    method: str = ""
    keep: int = 0
    level: str = ""
    threads: int = 2
    spinning: bool = True

    @property
    def kind(self) -> tuple[str, str]:
        """Runtime and precision: what the latency depends on first of all."""
        return self.runtime, self.precision

    @property
    def made_of(self) -> tuple[str, str, str, int]:
        """What the file and the answers depend on; threads and graph level only change how it is run."""
        return self.runtime, self.precision, self.method, self.keep

    @property
    def label(self) -> str:
        """``OpenVINO INT8+BF16, ranges by mse, 3 groups in float, 2 threads``."""
        names = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
        parts = [f"{names[self.runtime]} {self.precision.upper().replace('-WEIGHTS', ' weights')}"]
        parts += [f"ranges by {self.method}"] if self.method else []
        parts += [f"{self.keep} groups in float"] if self.keep else []
        parts += [f"graph level {self.level}"] if self.level not in ("", "all") else []
        parts.append(f"{self.threads} thread{'s' if self.threads != 1 else ''}")
        return ", ".join(parts if self.spinning else [*parts, "no spinning"])

    @property
    def runner_settings(self) -> dict[str, Any]:
        """What ``open_runner`` needs to run it so."""
        if self.runtime == "onnxruntime":
            return {"runtime": "onnxruntime", "threads": self.threads, "graph_level": self.level,
                    "spinning": self.spinning}
        precisions = {"bf16": "bf16", "int8+bf16": "bf16", "fp16": "f16"}
        return {"runtime": "openvino", "threads": self.threads, "precision": precisions.get(self.precision, "f32")}


def baseline(options: SearchOptions) -> Candidate:
    """What every latency is compared with: ONNX Runtime in FP32 with most threads."""
    return Candidate("onnxruntime", "fp32", level="all", threads=max(options.threads))


def space(options: SearchOptions, offered: Mapping[str, Iterable[str]], multiplies: bool) -> tuple[Candidate, ...]:
    """Every candidate, the most promising kinds first.

    Args:
        options: of the search.
        offered: runtime -> the precisions that the machine can compute in, see ``offers``.
        multiplies: the model has matrix products with large weights; without them nothing is gained by storing
            weights in few bits, and that is left out.
    """
    found = []
    for runtime, precision in _kinds(options, offered, multiplies):
        methods = options.methods if precision in INTEGER else ("",)
        keeps = sorted({0, *options.keep}) if precision in INTEGER else (0,)
        found += [
            replace(setting, precision=precision, method=method, keep=keep)
            for method in methods for keep in keeps for setting in _settings(runtime, options)
        ]
    return tuple(found)


def _kinds(options: SearchOptions, offered: Mapping[str, Iterable[str]],
           multiplies: bool) -> list[tuple[str, str]]:
    kinds = [(runtime, precision) for runtime in options.runtimes for precision in ORDER[runtime]
             if precision in options.precisions and precision in set(offered.get(runtime, ()))
             and (multiplies or precision not in WEIGHT_ONLY)]
    return sorted(kinds, key=lambda kind: ORDER[kind[0]].index(kind[1]) + 1.5 * (kind[0] != "openvino"))


def _settings(runtime: str, options: SearchOptions) -> list[Candidate]:
    """Ways to run the same file, the usual one first. One thing differs at a time: few settings work on each other."""
    most = max(options.threads)
    usual = Candidate(runtime, "", level="all" if runtime == "onnxruntime" else "", threads=most)
    found = [usual, *(replace(usual, threads=threads) for threads in sorted(options.threads) if threads != most)]
    if runtime == "onnxruntime":
        found += [replace(usual, level=level) for level in options.levels if level != "all"]
        found += [replace(usual, spinning=False)] if options.spinning == "both" else []
    return found


def offers() -> dict[str, tuple[str, ...]]:
    """The precisions of each runtime on the machine that this is called on; a runtime that is missing has none."""
    import importlib.util

    found = {"onnxruntime": ("fp32", "int8", *WEIGHT_ONLY)}
    if importlib.util.find_spec("openvino"):
        import openvino

        able = set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        half = [name for name, flag in (("bf16", "BF16"), ("fp16", "FP16")) if flag in able]
        mixed = ["int8+bf16"] if "BF16" in able else []
        found["openvino"] = ("fp32", "int8", *WEIGHT_ONLY, *half, *mixed)
    return found


def multiplies(model: Path) -> bool:
    """Whether matrix products hold a large part (a fifth) of a model's weights."""
    import math

    from kit.model import read

    graph = read(model, weights=False).graph
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    by_product = sum(sizes.get(name, 0) for node in graph.node if node.op_type in ("MatMul", "Gemm")
                     for name in node.input[1:2])
    return by_product > 0.2 * sum(sizes.values())
