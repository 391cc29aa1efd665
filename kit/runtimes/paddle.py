"""Paddle Inference behind ``open_runner``: a Paddle model answers without a detour through ONNX.

Always in a worker: Paddle next to torch or tensorflow crashes, and oneDNN inside Paddle has crashed on its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ToolFailed
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes import peak_memory, timed


class PaddleInference:
    """A predictor on the CPU.

    Args:
        graph: ``*.json`` (PIR) or ``*.pdmodel``.
        weights: ``*.pdiparams``.
        threads: of the math library.
        onednn: use oneDNN kernels, usually several times as fast.
    """

    def __init__(self, graph: str, weights: str, *, threads: int = 2, onednn: bool = True) -> None:
        paddle = need("paddle", to="run a Paddle model", extra="paddle")
        inference = need("paddle.inference", to="run a Paddle model", extra="paddle")
        config = inference.Config(graph, weights)
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        if onednn:
            config.enable_mkldnn()
        elif hasattr(config, "disable_mkldnn"):
            config.disable_mkldnn()
        try:
            self._predictor = inference.create_predictor(config)
            self._inputs, self._outputs = specs(graph, self._predictor.get_output_names())
        except Exception as error:  # what Paddle raises has no class of its own
            raise ToolFailed(
                f"Paddle Inference {paddle.__version__} cannot load {Path(graph).name}: {sentence(error)}",
                remedy="check that graph and parameters are whole and belong together; a model that Paddle 3.3 saved "
                "needs Paddle 3.3, or kit.export, which repairs a copy", detail=str(error)) from error
        self._settings = {"runtime": f"Paddle Inference {paddle.__version__}",
                          "oneDNN": "on" if onednn else "off", "threads": threads}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._inputs, "outputs": self._outputs, "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._feed(feeds)
        self._predictor.run()
        return {name: self._predictor.get_output_handle(name).copy_to_cpu()
                for name in self._predictor.get_output_names()}

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

        def once() -> None:
            # Feeding and fetching count, as they do in ONNX Runtime's run().
            self._feed(feeds)
            self._predictor.run()
            for output in outputs:
                output.copy_to_cpu()

        return timed(once, runs)

    def memory(self) -> int:
        return peak_memory()

    def _feed(self, feeds: dict[str, np.ndarray]) -> None:
        for name, array in feeds.items():
            self._predictor.get_input_handle(name).copy_from_cpu(array)


def sentence(error: BaseException) -> str:
    """The line of a Paddle message that matters: it comes after Paddle's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    chosen = next((line for line in lines if "Error:" in line or line.startswith("(")), lines[0] if lines else "")
    return (chosen or type(error).__name__)[:300]


def specs(graph: str, output_names: list[str]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a saved program: the predictor itself cannot tell before it is fed."""
    import paddle

    paddle.enable_static()
    scope = paddle.static.Scope()  # the weights loaded along are let go with it
    # The old format is read by the old reader only.
    is_old = graph.endswith(".pdmodel") and hasattr(paddle, "pir_utils")
    old = paddle.pir_utils.OldIrGuard() if is_old else nullcontext()
    with paddle.static.scope_guard(scope), old:
        executor = paddle.static.Executor(paddle.CPUPlace())
        program, names, targets = paddle.static.load_inference_model(graph.rpartition(".")[0], executor)
    block = program.global_block()
    if hasattr(block, "vars") and all(name in block.vars for name in names):  # the old .pdmodel
        inputs = [block.var(name) for name in names]
    else:
        data = {op.attrs()["name"]: op.results()[0] for op in block.ops if op.name() == "pd_op.data"}
        inputs = [data[name] for name in names]
    return (tuple(_spec(n, v) for n, v in zip(names, inputs, strict=True)),
            tuple(_spec(n, v) for n, v in zip(output_names, targets, strict=True)))


def _spec(name: str, value: Any) -> TensorSpec:
    dtype = str(value.dtype).rpartition(".")[2].lower()
    return TensorSpec(name, {"fp32": "float32", "fp64": "float64"}.get(dtype, dtype),
                      tuple("?" if side < 0 else side for side in value.shape))
