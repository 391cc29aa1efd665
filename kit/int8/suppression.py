"""Where to look at the error of a graph that suppresses boxes: at what goes into its NonMaxSuppression.

What comes out is a list: its length follows from the values, and two boxes that change places differ in every number.
Ranked by that, all layers cost alike; by the boxes and scores that go in, the dear ones stand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kit.int8.exposed import Exposed
from kit.model import Model
from kit.weights_file import read_light

Probe = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
_INPUTS = ("boxes", "scores")


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
        for what, tensor in zip(_INPUTS, node.input, strict=False):
            name = f"{what} into suppression {at}"
            proto.graph.node.add(op_type="Identity", name=name, input=[tensor], output=[name])
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None, None])
            proto.graph.output.append(value)
    return proto


def behind(proto: Any) -> set[str]:
    """Names of the tensors that depend on what a NonMaxSuppression kept; their sizes follow from the values."""
    found: set[str] = set()
    for node in proto.graph.node:  # ONNX keeps nodes in topological order
        if node.op_type == "NonMaxSuppression" or found.intersection(node.input):
            found.update(node.output)
    return found


def probes_before(model: Model, probes: Sequence[Probe]) -> list[Probe]:
    """The same feeds, with the float model's boxes and scores as their answers."""
    with Exposed(looked_at_before(read_light(model.path)), model, []) as run:
        return [(feeds, run(feeds)) for feeds, _ in probes]
