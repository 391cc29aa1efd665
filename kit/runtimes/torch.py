"""A sub-model of a diffusers pipeline in PyTorch behind ``open_runner``: eager, or compiled by ``torch.compile``.

Always in a worker: torch next to TensorFlow or Paddle crashes. The CPU's kernels are oneDNN's and ATen's own; both take
the number of threads given here.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, WorkerDied
from kit.need import need
from kit.runtimes import peak_memory, timed
from kit.runtimes.safetensors_file import float32_bytes
from kit.runtimes.torch_parts import Half, first_line, load_part, read_part


class TorchPart:
    """One sub-model on the CPU, in float32 whatever its file stores.

    Args:
        graph: its ``config.json``.
        weights: what lies beside it; the folder says which files count.
        threads: of one operator.
        part: of an autoencoder: ``"decoder"`` or ``"encoder"``.
        compiled: through ``torch.compile``; the first run of each shape then takes a minute or more.
        any_size: take other heights and widths than the configuration names.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2, part: Half = "decoder",
                 compiled: bool = False, any_size: bool = False) -> None:
        self._part = read_part(Path(graph).parent, part, any_size=any_size)
        float32_bytes(Path(graph).parent)  # a file that is cut off says so at once, not after the libraries are loaded
        torch = self._torch = start(threads)
        module = load_part(self._part)
        # No dynamic shapes: one more compilation for a new batch is cheaper than slower code on every run.
        self._module = torch.compile(module, dynamic=False) if compiled else module
        self._settings = {"runtime": f"PyTorch {torch.__version__}", "mode": "torch.compile" if compiled else "eager",
                          "oneDNN": torch.backends.mkldnn.is_available(), "threads": torch.get_num_threads(),
                          **({"part": part} if self._part.kind.startswith("vae") else {})}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._part.inputs, "outputs": (self._part.output,), "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        torch = self._torch
        # Copied: PyTorch warns about arrays that it may not write to. Copying counts in time() too, as feeding does
        # in the other runtimes.
        given = [torch.from_numpy(np.array(feeds[spec.name])) for spec in self._part.inputs]
        try:
            with torch.no_grad():
                return {self._part.output.name: self._module(*given).numpy()}
        except Exception as error:  # torch raises RuntimeError, IndexError, and classes of its compiler
            raise self._explain(error, feeds) from error

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self.run(feeds), runs)

    def memory(self) -> int:
        return peak_memory()

    def _explain(self, error: Exception, feeds: dict[str, np.ndarray]) -> Exception:
        name, said = self._part.folder.name, first_line(error)
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return ToolFailed(f"torch.compile could not compile {name}: {said}", remedy="it needs a C++ compiler "
                              "(g++) that works; open the model with compiled=False otherwise",
                              detail=str(error)[-4000:])
        if isinstance(error, MemoryError) or "not enough memory" in str(error):
            return WorkerDied(f"The memory did not suffice to run {name}: {said}",
                              remedy="use a smaller batch or smaller pictures; close other programs")
        shapes = {name: list(array.shape) for name, array in feeds.items()}
        return BadInput(f"PyTorch could not run {name} on {shapes}: {said}", remedy="an index or a size that the model "
                        "cannot take is the usual cause: heights and widths must be divisible as often as it halves "
                        "them", detail=str(error)[-4000:])


def start(threads: int) -> Any:
    """PyTorch with its threads set, offline and quiet; once a process, before its first operation."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error",
                      HF_HUB_DISABLE_PROGRESS_BARS="1")
    warnings.filterwarnings("ignore", module=r"torchao|torch\.utils\._pytree")
    torch = need("torch", to="run a PyTorch model", extra="diffusion")
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:  # may be set once only
        torch.set_num_interop_threads(1)
    return torch
