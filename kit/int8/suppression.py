"""Where to look at the error of a graph that suppresses boxes: at what goes into its NonMaxSuppression.

What comes out is a list: its length follows from the values, and two boxes that change places differ in every number.
Ranked by that, all layers cost alike; by the boxes and scores that go in, the dear ones stand out. Boxes are looked at
as overlap sees them: a corner's error counts against the size of its own box, and a box as much as its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.int8.exposed import Exposed
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model, read
from kit.weights_file import read_light

Probe = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
_CORNERS, _CENTRES, _SCORES = "boxes", "centred boxes", "scores"
_BEFORE = " into suppression "


def suppresses(proto: Any) -> bool:
    """Whether a graph (``onnx.ModelProto``) holds a NonMaxSuppression."""
    return any(node.op_type == "NonMaxSuppression" for node in proto.graph.node)


def looked_at_before(proto: Any) -> Any:
    """Put the boxes and scores of every NonMaxSuppression in the place of a graph's outputs, in place.

    The new outputs have the same names in the float graph and in one that was written in INT8 from it.
    """
    import onnx

    found = [node for node in proto.graph.node if node.op_type == "NonMaxSuppression"]
    if not found:
        return proto
    del proto.graph.output[:]
    for at, node in enumerate(found):
        centred = any(a.name == "center_point_box" and a.i for a in node.attribute)
        for what, tensor in zip((_CENTRES if centred else _CORNERS, _SCORES), node.input, strict=False):
            name = f"{what}{_BEFORE}{at}"
            proto.graph.node.add(op_type="Identity", name=name, input=[tensor], output=[name])
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None, None])
            proto.graph.output.append(value)
    return proto


def as_overlap_sees(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
                    ) -> Mapping[str, np.ndarray]:
    """Outputs with boxes as distances from the reference's centres, in sizes of its boxes, times the root of the score.

    Args:
        outputs: float or INT8 answers; boxes [N, A, 4], scores [N, C, A]. Those of another graph come back as they are.
        reference: the float answers to the same feed.
    """
    seen = dict(outputs)
    for name in outputs:
        what, before, at = name.partition(_BEFORE)
        if not before or what == _SCORES:
            continue
        boxes, own = (_corners(side[name].astype(np.float64), what) for side in (reference, outputs))
        weight = np.sqrt(np.clip(reference[f"{_SCORES}{_BEFORE}{at}"].astype(np.float64).max(axis=1), 0, None))
        low, high = boxes[..., :2], boxes[..., 2:]
        size = np.maximum(np.sqrt(np.abs(np.prod(high - low, axis=-1))), 1e-6)
        centre = np.concatenate([low + high, low + high], axis=-1) / 2
        seen[name] = ((own - centre) * (weight / size)[..., None]).astype(np.float32)
    return seen


def _corners(boxes: np.ndarray, what: str) -> np.ndarray:
    if what == _CORNERS:
        return boxes
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1)


def behind(proto: Any) -> set[str]:
    """Names of the tensors that depend on what a NonMaxSuppression kept; their sizes follow from the values."""
    found: set[str] = set()
    for node in proto.graph.node:  # ONNX keeps nodes in topological order
        if node.op_type == "NonMaxSuppression" or found.intersection(node.input):
            found.update(node.output)
    return found


def network_before(network: Network, model: Model) -> Network:
    """The network with the outputs to look at: itself where nothing is suppressed."""
    if not suppresses(network.proto):
        return network
    return Network(prepare(looked_at_before(read(model.path)), network.name), network.name)


def probes_before(network: Network, model: Model, probes: Sequence[Probe]) -> Sequence[Probe]:
    """The same feeds, with the float model's boxes and scores as their answers where it suppresses."""
    if not suppresses(network.proto):
        return probes
    with Exposed(looked_at_before(read_light(model.path)), model, []) as run:
        return [(feeds, run(feeds)) for feeds, _ in probes]
