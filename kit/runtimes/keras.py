"""A Keras 3 model behind ``open_runner``, as Keras itself computes it: no SavedModel in between.

Always in a worker, for the reason of ``kit.runtimes.tensorflow``. The backend is TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes.tensorflow import Function, sentence, start


class KerasModel(Function):
    """A ``.keras`` or ``.h5`` file on the CPU.

    Args:
        graph: the file.
        threads: of one operator.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2) -> None:
        self._tf = start(threads)
        self._take(load(Path(graph)), Path(graph).name)

    @classmethod
    def of(cls, model: Any, where: str, inputs: Sequence[TensorSpec] = ()) -> KerasModel:
        """Around a model that is in memory already; ``inputs`` for one that does not know them itself."""
        made = cls.__new__(cls)
        made._tf = need("tensorflow", to="run a Keras model", extra="tensorflow")
        made._take(model, where, inputs)
        return made

    def _take(self, model: Any, where: str, inputs: Sequence[TensorSpec] = ()) -> None:
        keras = _keras()
        self._inputs = tuple(inputs) or inputs_of(model, where)
        given = getattr(model, "_inputs_struct", None)  # the form in which it takes them: one, a list, a dictionary

        def call(feeds: dict[str, Any]) -> dict[str, Any]:
            tensors = [feeds[spec.name] for spec in self._inputs]
            packed = keras.tree.pack_sequence_as(given, tensors) if given is not None else \
                tensors[0] if len(tensors) == 1 else tensors
            return name_outputs(model(packed, training=False), keras)

        traced = self._tf.function(call).get_concrete_function({
            spec.name: self._tf.TensorSpec([None if isinstance(side, str) else side for side in spec.shape],
                                           spec.dtype, spec.name) for spec in self._inputs})
        self._run = lambda **feeds: traced(feeds)
        self._outputs = tuple(
            TensorSpec(name, value.dtype.name, tuple("?" if side is None else int(side) for side in value.shape))
            for name, value in traced.structured_outputs.items())
        self._settings = {"runtime": f"Keras {keras.__version__} on TensorFlow {self._tf.__version__}",
                          "threads": self._tf.config.threading.get_intra_op_parallelism_threads()}


def load(path: Path) -> Any:
    """The model of a ``.keras`` or ``.h5`` file.

    Raises:
        BadInput: it holds weights only, is damaged, or needs code of its own.
    """
    keras = _keras()
    try:
        return keras.models.load_model(str(path), compile=False)
    except Exception as error:  # layers of all kinds raise whatever they like while they are built
        text = str(error)
        if "No model config found" in text:
            raise BadInput(f"{path.name} holds weights only, not the model.", remedy="write a function that builds the "
                           "model and loads them, and export it as 'folder/file.py:function' with "
                           "framework='tensorflow'", detail=text) from error
        raise BadInput(f"Keras {keras.__version__} cannot load {path.name}: {sentence(error)}", remedy="a model with "
                       "layers, losses or Lambdas of its own needs their code: write a function that loads it with "
                       "custom_objects and export it as 'folder/file.py:function' with framework='tensorflow'; "
                       "otherwise the file is damaged: save it again", detail=text[-4000:]) from error


def inputs_of(model: Any, where: str) -> tuple[TensorSpec, ...]:
    """What a model takes, in its own order; "?" stands for an open axis.

    Raises:
        BadInput: a model that was never built does not know.
    """
    tensors = getattr(model, "inputs", None) or []
    if not tensors:
        raise BadInput(f"{where} does not say what it takes: it is neither functional nor built.",
                       remedy='give ExportOptions(inputs=("x:float32[N,224,224,3]",)), or call the model once before '
                       "it is returned or saved")
    specs = tuple(TensorSpec(value.name, str(value.dtype), tuple("?" if side is None else int(side)
                                                                 for side in value.shape)) for value in tensors)
    if len({spec.name for spec in specs}) != len(specs):
        raise UnsupportedModel(f"Several inputs of {where} have the same name.", remedy="name each keras.Input")
    return specs


def name_outputs(outputs: Any, keras: Any) -> dict[str, np.ndarray]:
    """Outputs under the names that ``model.export`` gives them: a dictionary's keys, else ``output_0`` and so on."""
    if isinstance(outputs, dict):
        return dict(outputs)
    return {f"output_{at}": value for at, value in enumerate(keras.tree.flatten(outputs))}


def _keras() -> Any:
    keras = need("keras", to="run a Keras model", extra="tensorflow")
    if not hasattr(keras, "tree") or not hasattr(keras, "backend"):
        raise ToolFailed(f"This is Keras {keras.__version__}; the kit reads models of Keras 3.",
                         remedy="pip install 'keras>=3', or save a SavedModel where Keras 2 is and give its folder")
    if keras.backend.backend() != "tensorflow":
        raise BadInput(f"Keras runs on {keras.backend.backend()} here, and a model is exported through TensorFlow.",
                       remedy="set KERAS_BACKEND=tensorflow before the kernel starts; the file itself does not change")
    return keras
