"""What runs in the TensorFlow worker for Keras models: build or load, save as a SavedModel, answer for comparison."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed
from kit.exporting.factories import made, tail
from kit.exporting.specs import LayerSource
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes.keras import KerasModel, inputs_of, load


def save_keras(source: LayerSource | Path, inputs: Sequence[TensorSpec], folder: Path) -> str:
    """Save a Keras model, from its file or its factory, as a SavedModel.

    Returns:
        A digest of architecture and weights: the SavedModel's own bytes differ from one time to the next.

    Raises:
        BadInput: no such factory, it gives no Keras model, or the model does not know its inputs.
        ToolFailed: Keras cannot save it.
    """
    model = _keras_model(source, inputs)
    where = source.name if isinstance(source, Path) else str(source)
    specs = tuple(inputs) or inputs_of(model, where)
    keras = need("keras", to="save a Keras model", extra="tensorflow")
    signature = [keras.InputSpec(shape=tuple(None if isinstance(side, str) else side for side in spec.shape),
                                 dtype=spec.dtype, name=spec.name) for spec in inputs] or None
    try:
        model.export(str(folder), format="tf_saved_model", verbose=False,
                     **({"input_signature": signature} if signature else {}))
    except Exception as error:  # whatever the model's own code raises while it is traced
        open_sizes = any(isinstance(side, str) for spec in specs for side in spec.shape[1:])
        raise ToolFailed(f"Keras {keras.__version__} could not save {where}: {_reason(error)}", remedy=(
            'give fixed sizes, such as ExportOptions(inputs=("x:float32[N,256,256,3]",)): some layers (UpSampling2D of '
            "Keras 3.15) cannot be traced with open ones" if open_sizes else "the details show the layer; check the "
            f"inputs' number, order and shapes ({', '.join(map(str, specs))})"), detail=tail(error)) from error
    if not (folder / "saved_model.pb").is_file():
        raise ToolFailed(f"Keras {keras.__version__} ended without a SavedModel of {where}.",
                         remedy="the log's last lines say why; try model.export(folder) in a cell of its own")
    hasher = hashlib.blake2b(model.to_json().encode() if hasattr(model, "to_json") and _has_config(model) else b"",
                             digest_size=16)
    for weight in model.get_weights():
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return hasher.hexdigest()


def run_keras(source: LayerSource | Path, inputs: Sequence[TensorSpec], feeds: Sequence[dict[str, np.ndarray]]
              ) -> list[dict[str, np.ndarray]]:
    """What the Keras model itself answers, before anything was saved."""
    where = source.name if isinstance(source, Path) else str(source)
    model = KerasModel.of(_keras_model(source, inputs), where, inputs)
    return [model.run(feed) for feed in feeds]


def _keras_model(source: LayerSource | Path, inputs: Sequence[TensorSpec]) -> Any:
    """The model of a file, or what a factory gives; built, where ``inputs`` say what it takes."""
    if isinstance(source, Path):
        return load(source)
    keras = need("keras", to="build a Keras model", extra="tensorflow")
    keras.utils.set_random_seed(0)  # a factory with random weights must give the same when it is called again
    model = made(source)
    if not isinstance(model, keras.Model):
        raise BadInput(f"{source} gave a {type(model).__name__}, not a Keras 3 model.", remedy="return the keras.Model "
                       "itself from the factory; for a layer of Paddle give framework='paddle'")
    if not model.built and inputs:  # its weights are made when it is called first
        zeros = [np.zeros([1 if isinstance(side, str) else side for side in spec.shape], spec.dtype) for spec in inputs]
        try:
            model(zeros[0] if len(zeros) == 1 else zeros, training=False)
        except Exception as error:
            raise BadInput(f"{source} cannot take {', '.join(map(str, inputs))}: {_reason(error)}", remedy="check the "
                           "inputs' number, order and shapes; an open axis was tried with size 1",
                           detail=tail(error)) from error
    return model


def _has_config(model: Any) -> bool:
    """Has it an architecture that can be written down? A model of one's own class often has none."""
    try:
        model.get_config()
        model.to_json()
        return True
    except Exception:
        return False


def _reason(error: BaseException) -> str:
    """The line of a Keras message that says what went wrong: it comes after the name of the layer."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line]
    named = next((line for line in lines if line.startswith("Exception encountered")), "")
    rest = [line for line in lines if line != named]
    return " ".join(filter(None, [named, rest[0] if rest else ""]))[:300] or type(error).__name__
