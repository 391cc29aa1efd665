"""TensorFlow's resizes and what became of them: which modes the ONNX nodes have, and how far the pixels are apart.

Every resize of the source is run by TensorFlow's own kernel on one small picture, and the ONNX node that it became by
ONNX Runtime, once with the attributes the converter wrote and once with those the kit gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.exporting.tensorflow import Resized
from kit.resizes import Modes, TfResize

#: Sizes that stand for those of a node whose own are not known: no whole factor, so that rounding shows.
UNKNOWN = (12, 20), (27, 31)


@dataclass(frozen=True)
class ResizeRow:
    """One resize of the source and the ONNX node it became.

    Attributes:
        name: of the source's node.
        tf: what it is there.
        node: the ONNX Resize; "" where the converter found another form for it.
        size: height and width before.
        out: height and width after.
        known: those sizes are the model's own; otherwise made up, for its are open.
        written: modes as the converter wrote them.
        modes: modes as they are in the exported file.
        difference: largest difference of a pixel from TensorFlow's as written, where the picture goes from 0 to 1.
        left: the same for the exported file.
    """

    name: str
    tf: TfResize
    node: str
    size: tuple[int, int]
    out: tuple[int, int]
    known: bool
    written: Modes | None
    modes: Modes | None
    difference: float
    left: float


RESIZE_COLUMNS = ("resize of the source", "operator", "size", "ONNX as written", "pixels off", "in the file",
                  "pixels off now")


def resize_cells(row: ResizeRow) -> tuple[str, ...]:
    """For a table with the columns of ``RESIZE_COLUMNS``."""
    size = f"{row.size[0]}x{row.size[1]} to {row.out[0]}x{row.out[1]}" + ("" if row.known else " (made up)")
    if row.modes is None:
        return row.name, str(row.tf), size, "in another form", "see the comparison", "", ""
    return (row.name, str(row.tf), size, str(row.written), f"{row.difference:.2g}",
            "the same" if row.written == row.modes else str(row.modes), f"{row.left:.2g}")


def name_resizes(proto: Any, found: Sequence[Resized]) -> tuple[Resized, ...]:
    """Give each Resize the name of the resize that it was, in place; returns the rows with the new names."""
    nodes = {node.name: node for node in proto.graph.node}
    rows = []
    for row in found:
        node = nodes.get(row.node)
        label = row.name if row.name not in nodes else f"{row.name}/Resize"
        if node is not None and label not in nodes:
            del nodes[node.name]
            node.name = label
            nodes[label] = node
        rows.append(Resized(row.name, row.tf, node.name if node is not None else "", row.size, row.out))
    return tuple(rows)


def read_modes(node: Any) -> Modes:
    """What a Resize of ONNX says."""
    import onnx

    at = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    text = {name: value.decode() if isinstance(value, bytes) else value for name, value in at.items()}
    mode = text.get("mode", "nearest")
    return Modes(mode, text.get("coordinate_transformation_mode", "half_pixel"),
                 text.get("nearest_mode", "round_prefer_floor") if mode == "nearest" else "",
                 round(float(text.get("cubic_coeff_a", -0.75)), 6) if mode == "cubic" else 0.0,
                 bool(text.get("exclude_outside", 0)) if mode == "cubic" else False)


def match_resizes(proto: Any, rows: Sequence[Resized]) -> dict[str, Modes]:
    """Give every Resize the modes that TensorFlow computes with, in place; returns the old ones of those changed."""
    import onnx

    nodes, changed = {node.name: node for node in proto.graph.node}, {}
    for row in rows:
        node = nodes.get(row.node)
        if node is None or read_modes(node) == row.tf.modes():
            continue
        changed[row.node] = read_modes(node)
        wanted = attributes(row.tf.modes())
        kept = [attribute for attribute in node.attribute if attribute.name not in _STEERING]
        kept = [type(attribute).FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend([*kept, *(onnx.helper.make_attribute(name, value) for name, value in wanted.items())])
    return changed


_STEERING = ("mode", "coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a", "exclude_outside")


def attributes(modes: Modes) -> dict[str, Any]:
    """The attributes of a Resize node with these modes."""
    found: dict[str, Any] = {"mode": modes.mode, "coordinate_transformation_mode": modes.place}
    if modes.mode == "nearest":
        found["nearest_mode"] = modes.rounding
    if modes.mode == "cubic":
        found |= {"cubic_coeff_a": modes.cubic, "exclude_outside": int(modes.exclude_outside)}
    return found


def resize_tasks(rows: Sequence[Resized]) -> tuple[list[tuple[TfResize, tuple[int, int]]], list[np.ndarray]]:
    """What TensorFlow is asked for each resize: operator and new size, and the picture."""
    sizes = [_sizes(row) for row in rows]
    return ([(row.tf, out) for row, (_, out) in zip(rows, sizes, strict=True)], [ramp(*size) for size, _ in sizes])


def compare_resizes(proto: Any, rows: Sequence[Resized], changed: dict[str, Modes], answers: Sequence[np.ndarray],
                    ) -> tuple[ResizeRow, ...]:
    """Run what each resize became by ONNX Runtime, before and after the kit's change, beside TensorFlow's answer.

    Args:
        proto: the exported model.
        rows: every resize of the source.
        changed: see `match_resizes`.
        answers: TensorFlow's to `resize_tasks`.
    """
    nodes = {node.name: node for node in proto.graph.node}
    found = []
    for row, answer in zip(rows, answers, strict=True):
        size, out = _sizes(row)
        now = read_modes(nodes[row.node]) if row.node else None
        before = changed.get(row.node, now)
        gaps = [pixel_difference(modes, ramp(*size), answer) if modes else 0.0 for modes in (before, now)]
        found.append(ResizeRow(row.name, row.tf, row.node, size, out, (size, out) == (row.size, row.out), before, now,
                               *gaps))
    return tuple(found)


def _sizes(row: Resized) -> tuple[tuple[int, int], tuple[int, int]]:
    return (row.size, row.out) if min(*row.size, *row.out) > 0 else UNKNOWN


def ramp(height: int, width: int) -> np.ndarray:
    """A picture on which every wrong pixel shows: a ramp with noise on it, float32 [1, height, width, 1], 0 to 1."""
    plain = np.add.outer(np.arange(height) / max(height, 2), np.arange(width) / max(width, 2)) / 2
    noise = np.random.default_rng(0).uniform(0, 1, (height, width))
    return np.clip(0.7 * plain + 0.3 * noise, 0, 1).astype(np.float32)[None, :, :, None]


def pixel_difference(modes: Modes, picture: np.ndarray, answer: np.ndarray) -> float:
    """Largest difference of a pixel between ONNX Runtime's Resize with these modes and ``answer``.

    Args:
        modes: of the ONNX node.
        picture: float32 [1, H, W, 1].
        answer: float32 [1, h, w, 1], what it should be.
    """
    return float(np.abs(resize_with(modes, picture, answer.shape[1:3]) - answer).max())


def resize_with(modes: Modes, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """ONNX Runtime's Resize of float32 [1, H, W, 1] to [1, h, w, 1] with these modes."""
    import onnx
    import onnxruntime as ort

    make = onnx.helper
    node = make.make_node("Resize", ["x", "none", "none", "sizes"], ["y"], **attributes(modes))
    weights = [onnx.numpy_helper.from_array(np.int64([1, 1, *size]), "sizes"),
               onnx.numpy_helper.from_array(np.float32([]), "none")]
    graph = make.make_graph([node], "resize", [make.make_tensor_value_info("x", 1, [1, 1, *picture.shape[1:3]])],
                            [make.make_tensor_value_info("y", 1, [1, 1, *size])], weights)
    # Opset 11, which knows every mode that any converter writes.
    proto = make.make_model(graph, opset_imports=[make.make_opsetid("", 11)], ir_version=7)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": picture.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
