"""A TensorFlow SavedModel behind ``open_runner``: the source answers without a detour through ONNX.

Always in a worker: TensorFlow next to torch or Paddle crashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, unknown
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes import peak_memory, timed


class SavedModel:
    """One signature of a SavedModel on the CPU.

    Args:
        graph: ``saved_model.pb``; its folder is loaded.
        threads: of one operator.
        signature: which one.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2,
                 signature: str = "serving_default") -> None:
        tf = need("tensorflow", to="run a SavedModel", extra="tensorflow")
        # Fixed at TensorFlow's first operation, so it works once a process; each runner has its own.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices([], "GPU")
        folder = Path(graph).parent
        try:
            self._model = tf.saved_model.load(str(folder))  # kept: the signature does not hold its variables
        except Exception as error:  # what TensorFlow raises is of many kinds
            raise ToolFailed(f"TensorFlow {tf.__version__} cannot load {folder.name}: "
                             f"{(str(error).strip().splitlines() or ['no message'])[0][:300]}",
                             remedy="check that the folder is whole (saved_model.pb and variables/), and save it again",
                             detail=str(error)) from error
        signatures = self._model.signatures
        if not signatures:
            raise BadInput(f"{folder.name} has no signature, so nothing says what it takes.",
                           remedy="save it with signatures, or with Keras model.export(folder)")
        if signature not in signatures:
            raise unknown("signature", signature, list(signatures), folder.name)
        self._run, self._tensor = signatures[signature], tf.constant
        inputs = self._run.structured_input_signature[1]
        self._inputs = tuple(_spec(name, spec) for name, spec in sorted(inputs.items()))
        self._outputs = tuple(_spec(name, spec) for name, spec in sorted(self._run.structured_outputs.items()))
        self._settings = {"runtime": f"TensorFlow {tf.__version__}", "signature": signature,
                          "threads": tf.config.threading.get_intra_op_parallelism_threads()}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._inputs, "outputs": self._outputs, "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Copying in and out counts in time() too, as feeding and fetching do in the other runtimes.
        answers = self._run(**{name: self._tensor(array) for name, array in feeds.items()})
        return {spec.name: np.array(answers[spec.name]) for spec in self._outputs}

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self.run(feeds), runs)

    def memory(self) -> int:
        return peak_memory()


def _spec(name: str, spec: Any) -> TensorSpec:
    sides = () if spec.shape.rank is None else tuple("?" if side is None else int(side) for side in spec.shape)
    return TensorSpec(name, spec.dtype.name, sides)
