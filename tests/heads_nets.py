"""Models that only hand on their raw heads, and heads to feed them with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kit.families.detection import Anchors, Heads

ANCHORS = Anchors((32, 64), (1.0, 1.5), (0.5, 1.0, 2.0))
CLASSES = ("scratch", "pit", "stain")
SIZE = (128, 160)


def heads(coding: str = "xyxy", activation: str = "none", classes_axis: int = 2, **more) -> Heads:
    """Heads of three classes, called ``the_boxes`` and ``the_scores``."""
    return Heads(CLASSES, SIZE, "the_scores", "the_boxes", activation, classes_axis, coding,
                 ANCHORS if coding == "anchors" else None, **more)


def shapes(of: Heads, batch: int | str = "N") -> tuple[tuple, tuple]:
    """Of boxes and scores."""
    count = len(of.anchor_boxes()) if of.coding == "anchors" else 50
    return (batch, count, 4), ((batch, count, 3) if of.classes_axis == 2 else (batch, 3, count))


def net(folder: Path, of: Heads, *, batch: int | str = "N", opset: int = 17, kind: int = 1) -> Path:
    """An ONNX model with the inputs ``b`` and ``s`` and the heads for outputs."""
    import onnx

    names = dict(zip(("b", "s"), zip((of.boxes, of.scores), shapes(of, batch), strict=True), strict=True))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [given], [name], f"copy_{given}") for given, (name, _) in names.items()],
        "heads", [onnx.helper.make_tensor_value_info(given, kind, shape) for given, (_, shape) in names.items()],
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name, shape in names.values()])
    path = folder / "net.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8),
              str(path))
    return path


def boxes_with_ties(random: np.random.Generator, *axes: int) -> np.ndarray:
    """Boxes on a lattice of 8 x 8, x first; many equal, many with an IoU of 1/2 or 1/3."""
    low = random.integers(0, 6, (*axes, 2)).astype(np.float32)
    return np.concatenate([low, low + random.integers(0, 3, (*axes, 2)).astype(np.float32)], axis=-1)


def run(path: Path, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    """What a plain session of the test's own answers."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))
