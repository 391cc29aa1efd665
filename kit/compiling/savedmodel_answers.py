"""The answers of a SavedModel beside those of what it was made from, in the axes of the ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.compiling.onnx2tf_model import CHANNELS, TO_FIRST, TO_LAST, Port
from kit.compiling.saved import Saved, SavedModelOptions
from kit.errors import BadInput
from kit.model import Model
from kit.runner import open_runner
from kit.samples import generated


def moved(saved: Saved, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an input as the signature takes it."""
    if saved.inputs[name] == "NHWC" and len(shape) == 4 and shape[3] not in CHANNELS:
        return tuple(shape[axis] for axis in TO_LAST[4])
    return tuple(shape)


def lay(how: str, values: np.ndarray) -> np.ndarray:
    """An array of the ONNX model as the signature takes it."""
    if how == "NHWC" and not Port("", "", values.shape).channels_last:
        return np.ascontiguousarray(values.transpose(TO_LAST[4]))
    return values


def ask(place: Path, saved: Saved, source: Model, feeds: Sequence[Mapping[str, np.ndarray]],
         options: SavedModelOptions) -> list[dict[str, np.ndarray]]:
    """The answers of the SavedModel in TensorFlow, turned back to the axes of the ONNX model."""
    with open_runner(place, runtime="tensorflow", signature=saved.signature, threads=options.threads) as run:
        found = [run({label: lay(saved.inputs[label], values) for label, values in feed.items()}) for feed in feeds]
    return [{spec.name: _back(saved.outputs[spec.name], answer[spec.name]) for spec in source.outputs}
            for answer in found]


def _back(how: str, values: np.ndarray) -> np.ndarray:
    return values.transpose(TO_FIRST[4]) if how == "NHWC" else values


def answers(artefact: Any, feeds: Sequence[Mapping[str, np.ndarray]], **settings: Any) -> list[dict[str, np.ndarray]]:
    """Of any artefact that takes the feeds; ``settings`` are its runner's."""
    with open_runner(artefact, **settings) as run:
        return [run(feed) for feed in feeds]


def feeds_of(source: Model, sizes: Mapping[str, tuple[int, ...]], samples: Any, count: int) -> list[dict[str, Any]]:
    """Samples that have the sizes, and made-up inputs where there are none.

    Raises:
        BadInput: there are samples, and none fits.
    """
    if samples is None:
        return [generated(source.inputs, sizes, seed) for seed in range(count)]
    found = [dict(samples[at]) for at in range(len(samples))
             if all(np.shape(samples[at].get(label)) == shape for label, shape in sizes.items())][:count]
    if not found:
        words = "; ".join(f"{label}={','.join(map(str, shape))}" for label, shape in sizes.items())
        raise BadInput(f"No sample has the sizes that the SavedModel is made for ({words}).",
                       remedy="give these sizes with bind=(...), or samples that have them")
    return found


def as_served(source: Model, saved: Saved, sizes: Mapping[str, Sequence[int]]) -> Model:
    """The description of the ONNX model with the axes of the signature, for manifest and script."""
    inputs = tuple(replace(spec, shape=moved(saved, spec.name, spec.shape)) for spec in source.inputs)
    outputs = tuple(replace(spec, shape=tuple(spec.shape[axis] for axis in TO_LAST[4]))
                    if saved.outputs[spec.name] == "NHWC" else spec for spec in source.outputs)
    return replace(source, inputs=inputs, outputs=outputs)
