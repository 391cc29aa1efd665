"""The proof that post-processing in a graph does what numpy does: see ``add_nms``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kit.comparison import Parity
from kit.errors import ToolFailed
from kit.families.detection_boxes import read_detections
from kit.families.detection_graph import DECODE, NMS
from kit.families.detection_heads import Heads, decode
from kit.families.detection_nms import AddNmsOptions, nms
from kit.graph.mapped import mapped
from kit.model import Model, TensorSpec, read

LIKELY = 200  # made-up boxes with a score, for each class


class Proof:
    """Compares the new graph with numpy.

    ``parity`` gathers the tensors, ``tail`` and ``whole`` count equal detections, ``doubts`` says what is odd.
    """

    def __init__(self, path: Path, raw: list[str], decoded: list[str], heads: Heads, options: AddNmsOptions) -> None:
        self.path, self.raw, self.decoded, self.heads, self.options = path, raw, decoded, heads, options
        self.parity = Parity()
        self.lowest, self.highest = np.inf, -np.inf
        self._proto = read(path, weights=False)
        self._outputs = [value.name for value in self._proto.graph.output]

    def tail(self, specs: list[TensorSpec]) -> int:
        """Feed the nodes behind the heads with made-up heads that have ties."""
        import onnx

        tail = onnx.ModelProto()
        tail.CopyFrom(self._proto)
        graph = tail.graph
        kept = [node for node in graph.node if node.name.startswith((DECODE, NMS))]
        del graph.node[:], graph.input[:], graph.value_info[:]
        graph.node.extend(kept)
        read_here = {name for node in kept for name in node.input}
        weights = [tensor for tensor in graph.initializer if tensor.name in read_here]
        outputs = [value for value in graph.output if any(value.name in node.output for node in kept)]
        del graph.initializer[:], graph.output[:]
        graph.initializer.extend(weights)
        graph.output.extend(outputs)
        for name, spec in dict(zip(self.raw, specs, strict=True)).items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [
                axis if isinstance(axis, int) else None for axis in spec.shape]))
        run = self._exposed(tail)
        found = 0
        for seed in range(3):
            feeds = made_up_heads(self.heads, *(spec.shape for spec in specs), seed)
            feeds = {name: feeds[known].astype(spec.dtype) for name, known, spec in zip(
                self.raw, (self.heads.boxes, self.heads.scores), specs, strict=True)}
            found += self._compare(feeds, run(feeds))
        return found

    def whole(self, source: Model, feeds: list[dict[str, np.ndarray]]) -> int:
        """Run source and new graph on inputs."""
        before = mapped(source.path.read_bytes(), source.path.parent, source.path.name)
        run, found = self._exposed(self._proto), 0
        for feed in feeds:
            answer = before(feed)
            scores = answer[self.heads.scores]
            self.lowest = min(self.lowest, float(scores.min(initial=np.inf)))
            self.highest = max(self.highest, float(scores.max(initial=-np.inf)))
            found += self._compare(dict(zip(
                self.raw, (answer[self.heads.boxes], answer[self.heads.scores]), strict=True)), run(feed))
        return found

    def doubts(self) -> list[str]:
        """Whether the raw scores, as the whole graph gave them, are what the heads say."""
        logits = self.lowest < 0 or self.highest > 1
        if self.heads.activation == "none" and logits:
            return [f"Scores go from {self.lowest:.3g} to {self.highest:.3g} and are no probabilities: logits want "
                    "activation='sigmoid'."]
        if self.heads.activation == "sigmoid" and not logits and self.lowest < self.highest:
            return [f"Scores go from {self.lowest:.3g} to {self.highest:.3g}: if they are probabilities already, they "
                    "want activation='none'."]
        return []

    def _exposed(self, proto: Any) -> Any:
        """The graph with its decoded boxes and scores as outputs too."""
        there = [value.name for value in (*proto.graph.output, *proto.graph.input)]
        for name in dict.fromkeys(self.decoded):
            if name not in there:
                proto.graph.output.add(name=name)
        return mapped(proto.SerializeToString(), self.path.parent, self.path.name)

    def _compare(self, raw: Mapping[str, np.ndarray], answer: dict[str, np.ndarray]) -> int:
        boxes, scores = (raw[name] if name not in answer else answer[name] for name in self.decoded)
        corners = boxes[..., [1, 0, 3, 2]] if self.heads.coding in ("anchors", "yxyx") else boxes
        by_place = scores.transpose(0, 2, 1)
        ours = decode({self.heads.boxes: raw[self.raw[0]], self.heads.scores: raw[self.raw[1]]}, self.heads)
        self.parity.add({"decoded boxes": ours[0], "decoded scores": ours[1]},
                        {"decoded boxes": corners, "decoded scores": by_place})
        expected = nms(corners, by_place, self.options)
        found = read_detections({name: answer[name] for name in self._outputs if name in answer}, len(boxes))
        if found != expected:
            at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
            raise ToolFailed(
                f"Picture {at} has {len(found[at])} detections in the graph, and numpy has {len(expected[at])} or "
                "others.",
                remedy="please report this model with the details",
                detail=f"graph: {found[at].rows()[:10]}\nnumpy: {expected[at].rows()[:10]}")
        return sum(map(len, found))


def made_up_heads(heads: Heads, boxes: tuple, scores: tuple, seed: int) -> dict[str, np.ndarray]:
    """Raw heads with many equal scores and boxes, for comparisons.

    Args:
        heads: what they are to be.
        boxes: shape of the boxes, words for free axes.
        scores: shape of the scores.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    batch = boxes[0] if isinstance(boxes[0], int) else 2
    places = len(heads.anchor_boxes()) if heads.coding == "anchors" else boxes[1] if isinstance(boxes[1], int) else 60
    axis = scores[heads.classes_axis]
    classes = axis if isinstance(axis, int) else len(heads.classes) or 3
    if heads.coding == "anchors":
        values = random.choice([0, 0, 0.25, -0.25, 0.5], (batch, places, 4))
    else:
        corner = random.integers(0, 12, (batch, places, 2)) * 8.0
        values = np.concatenate([corner, random.integers(1, 5, (batch, places, 2)) * 8.0], axis=2)
        if heads.coding != "cxcywh":
            values[..., 2:] += corner
    grid = np.arange(0, 17) / 16
    chance = random.choice(grid, (batch, places, classes))
    chance[random.random(chance.shape) > LIKELY / places] = 0
    if heads.activation == "sigmoid":
        chance = chance * 8 - 4
    if heads.classes_axis == 1:
        chance = chance.transpose(0, 2, 1)
    return {heads.boxes: values.astype(np.float32), heads.scores: np.ascontiguousarray(chance, np.float32)}
