"""Is decoding and suppression the same in the graph, in numpy and in the frameworks? 200 random cases full of ties.

    python benchmarks/nms_equality.py [--each 25]

Each case is a detector's raw heads: equal scores, equal boxes, pairs whose IoU is exactly the threshold, boxes without
area, nothing above the threshold, nothing at all, and plain random ones. Five judges decode and suppress them: ONNX
Runtime on the graph that ``add_nms`` writes, numpy, TensorFlow's ``non_max_suppression`` for each class and its
``combined_non_max_suppression``, and Paddle's ``multiclass_nms3``. TensorFlow and Paddle decode by their own
operators, in processes of their own.

Where a judge keeps other boxes than numpy, a rule of its own must account for it: numpy with that rule, on the judge's
own decoded boxes, must then keep the very same, to the last bit. The rules are in ``RULES``. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kit import worker
from kit.families.detection import AddNmsOptions, Anchors, Detections, Heads, add_nms, decode, nms, read_detections

KINDS = ("equal scores", "equal boxes", "at the threshold", "nothing", "random")
ANCHORS = Anchors((32, 64), (1.0,), (1.0, 4.0), 2.0)  # sides that float32 holds exactly
CLASSES = ("scratch", "pit", "stain")
RULES = {
    "numpy": "ONNX Runtime's: score falling, then index rising; gone where IoU > threshold",
    "graph": "none of its own",
    "tensorflow": "none of its own, but its sigmoid may round equal logits apart, by where in the array they stand, so "
                  "that there is no tie any more",
    "tensorflow combined": "equal scores in the order in which a binary heap gives them "
                           "(non_max_suppression_op.cc, DoNMSPerClass: its comparison looks at scores alone)",
    "paddle": "of two boxes without area, one on the other, the second goes: 0/0 is not <= the threshold "
              "(multiclass_nms3_kernel.cc, JaccardOverlap and NMSFast)",
}


@dataclass(frozen=True)
class Case:
    """Raw heads of one picture, and what to do with them."""

    kind: str
    heads: Heads
    options: AddNmsOptions
    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What a judge kept, and the boxes [1, A, 4] and scores [1, A, C] that it decoded for that."""

    found: Detections
    boxes: np.ndarray
    scores: np.ndarray


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=25, help="cases of each of the 8 sets of options")
    asked = parser.parse_args()
    import nms_equality  # a worker cannot import what is defined in __main__

    print(nms_equality.table(*nms_equality.judged(asked.each)))


def judged(each: int) -> tuple[list[Case], dict[str, list[Answer]]]:
    """All cases, and every judge's answers to them."""
    cases = made_up(each)
    return cases, {"numpy": [in_numpy(case) for case in cases], "graph": in_graph(cases),
                   **worker.run(in_tensorflow, cases, framework="tensorflow"),
                   "paddle": worker.run(in_paddle, cases, framework="paddle")}


def table(cases: list[Case], answers: dict[str, list[Answer]]) -> str:
    """The counts as Markdown."""
    kept = sum(len(answer.found) for answer in answers["numpy"])
    lines = [f"{len(cases)} cases, {kept} boxes kept by numpy.", "",
             "| Judge | same boxes as numpy | by its own rule, to the last bit | Rule |", "|---|--:|--:|---|"]
    for judge, own in answers.items():
        same = sum(same_as_numpy(judge, *one) for one in zip(cases, answers["numpy"], own, strict=True))
        exact = sum(by_rule(judge, case, answer) == answer.found for case, answer in zip(cases, own, strict=True))
        lines.append(f"| {judge} | {same} | {exact} | {RULES[judge]} |")
    return "\n".join(lines)


# ---- cases -----------------------------------------------------------------------------------------------------------


def sets() -> list[tuple[Heads, AddNmsOptions]]:
    """Eight heads with options; limits on single classes, on all, none; class-agnostic."""
    anchors = Heads(CLASSES, (128, 160), "scores", "boxes", "sigmoid", 2, "anchors", ANCHORS)
    corners = Heads(CLASSES, (128, 160), "scores", "boxes")
    return [
        (anchors, AddNmsOptions(score_threshold=0.3, iou=0.6)),
        (anchors, AddNmsOptions(score_threshold=0.5, iou=1 / 3, most=3)),
        (anchors, AddNmsOptions(score_threshold=0.3, iou=0.6, class_agnostic=True)),
        (corners, AddNmsOptions(score_threshold=0.25, iou=0.5)),
        (corners, AddNmsOptions(score_threshold=0.0, iou=0.0, most=5)),
        (replace(corners, activation="sigmoid", classes_axis=1), AddNmsOptions(score_threshold=0.02, iou=0.6, total=7)),
        (replace(corners, coding="cxcywh"), AddNmsOptions(score_threshold=0.25, iou=0.5)),
        (replace(corners, coding="yxyx"), AddNmsOptions(score_threshold=0.5, iou=1 / 3, class_agnostic=True, total=4)),
    ]


def made_up(each: int) -> list[Case]:
    """``each`` cases of each set of options; the kinds take turns."""
    return [_case(KINDS[number % len(KINDS)], *one, np.random.default_rng((at, number)), number)
            for at, one in enumerate(sets()) for number in range(each)]


def _case(kind: str, heads: Heads, options: AddNmsOptions, random: np.random.Generator, number: int) -> Case:
    places = len(heads.anchor_boxes()) if heads.coding == "anchors" else int(random.choice([1, 7, 30, 60]))
    if kind == "nothing" and heads.coding != "anchors" and number % 2:
        places = 0
    shape = (1, places, len(CLASSES))
    chance = random.choice(np.arange(1, 17) / 16, shape) if kind != "random" else random.random(shape)
    if kind == "equal scores":
        chance = random.choice([0.0, 0.5, 0.75], shape)
    if kind == "nothing":
        chance = np.minimum(chance, options.score_threshold)  # not above it
    if heads.activation == "sigmoid":
        # logits whose probabilities lie far from the threshold on both sides, but for the 0 that is exactly 1/2
        chance = np.where(kind == "nothing", -8.0, chance * 8 - 4)
    values = _deltas(kind, random, places) if heads.coding == "anchors" else _corners(
        kind, random, places, heads.coding, options.iou)
    scores = chance if heads.classes_axis == 2 else chance.transpose(0, 2, 1)
    return Case(kind, heads, options, values.astype(np.float32), np.ascontiguousarray(scores, np.float32))


def _deltas(kind: str, random: np.random.Generator, places: int) -> np.ndarray:
    """Moves and stretches; moves by a quarter and a half of a side give an IoU of exactly 0.6 and 1/3."""
    values = np.zeros((1, places, 4))
    if kind == "random":
        return random.normal(0, 0.4, values.shape)
    if kind == "at the threshold":
        values[..., random.integers(0, 2)] = random.choice([0, 0.25, 0.5], (1, places))
    else:
        values[..., :2] = random.choice([0, 0.25, -0.5, 1], (1, places, 2))
    return values


def _corners(kind: str, random: np.random.Generator, places: int, coding: str, iou: float) -> np.ndarray:
    sides = random.choice([0.0, 16.0, 32.0, 48.0], (1, places, 2), p=[0.1, 0.3, 0.3, 0.3])
    low = random.integers(0, 12, (1, places, 2)) * 8.0
    if kind == "equal boxes":
        low, sides = low[:, random.integers(0, 3, places) % max(places, 1)], sides * 0 + random.choice([0.0, 32.0])
    if kind == "at the threshold":  # boxes in a row, each moved by the part of its side that gives this IoU
        low, sides = np.zeros_like(low), np.full_like(sides, 48.0)
        low[..., 0] = random.permutation(places) * 48.0 * (1 - iou) / (1 + iou)
    if kind == "random":
        low, sides = random.uniform(0, 100, low.shape), random.uniform(5, 60, low.shape)
    low, high = low.astype(np.float32), (low + sides).astype(np.float32)
    if coding == "cxcywh":
        return np.concatenate([(low + high) / 2, high - low], axis=2)
    return np.concatenate([low[..., ::-1], high[..., ::-1]] if coding == "yxyx" else [low, high], axis=2)


# ---- judges ----------------------------------------------------------------------------------------------------------


def in_numpy(case: Case) -> Answer:
    """The kit's own."""
    boxes, scores = decode({"boxes": case.boxes, "scores": case.scores}, case.heads)
    return Answer(nms(boxes, scores, case.options)[0], boxes, scores)


def in_graph(cases: list[Case]) -> list[Answer]:
    """ONNX Runtime on what ``add_nms`` wrote, one graph for each set of options."""
    import onnx
    import onnxruntime as ort

    sessions: dict[Any, Any] = {}
    answers = []
    with tempfile.TemporaryDirectory(prefix="kit-nms-") as folder:
        for case in cases:
            key = (case.heads, case.options)
            if key not in sessions:
                path = Path(folder) / f"heads{len(sessions)}.onnx"
                _bare(case.heads, path)
                added = add_nms(path, case.heads, case.options, runs=folder)
                proto = onnx.load(str(added.model.path))
                decoded = _read_by_nms(proto)
                for name in decoded:
                    if name not in [value.name for value in (*proto.graph.output, *proto.graph.input)]:
                        proto.graph.output.add(name=name)
                sessions[key] = ort.InferenceSession(proto.SerializeToString(),
                                                     providers=["CPUExecutionProvider"]), decoded
            session, (boxes, scores) = sessions[key]
            feeds = {"raw_boxes": case.boxes, "raw_scores": case.scores}
            outputs = [output.name for output in session.get_outputs()]
            found = {**feeds, **dict(zip(outputs, session.run(outputs, feeds), strict=True))}
            corners = found[boxes]
            if case.heads.coding in ("anchors", "yxyx"):
                corners = corners[..., [1, 0, 3, 2]]
            rows = {name: found[name] for name in ("boxes", "scores", "classes", "batch")}
            answers.append(Answer(read_detections(rows)[0], corners, found[scores].transpose(0, 2, 1)))
    return answers


def _bare(heads: Heads, path: Path) -> None:
    """A model that only hands on its raw heads."""
    import onnx

    places = len(heads.anchor_boxes()) if heads.coding == "anchors" else "A"
    scores = (1, places, len(CLASSES)) if heads.classes_axis == 2 else (1, len(CLASSES), places)
    shapes = {"boxes": (1, places, 4), "scores": scores}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [f"raw_{name}"], [name], name) for name in shapes], "heads",
        [onnx.helper.make_tensor_value_info(f"raw_{name}", 1, shape) for name, shape in shapes.items()],
        [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), str(path))


def _read_by_nms(proto: Any) -> list[str]:
    """The decoded boxes and scores of a graph; scores before the maximum over classes."""
    made = {name: node for node in proto.graph.node for name in node.output}
    (node,) = [node for node in proto.graph.node if node.op_type == "NonMaxSuppression"]
    boxes, scores = node.input[:2]
    return [boxes, made[scores].input[0] if scores in made and made[scores].op_type == "ReduceMax" else scores]


def in_tensorflow(cases: list[Case]) -> dict[str, list[Answer]]:
    """TensorFlow's two; runs in a worker."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    apart, together = [], []
    for case in cases:
        boxes, scores = _decoded(case, tf.constant, tf.sigmoid, tf.exp, lambda parts: tf.concat(parts, -1))
        boxes, scores = boxes.numpy(), scores.numpy()
        kinds, best = _kinds(scores, case.options)
        yxyx = boxes[0][:, [1, 0, 3, 2]]
        options, rows = case.options, []
        for kind in range(kinds.shape[2]):
            kept = tf.image.non_max_suppression(yxyx, kinds[0, :, kind], options.most, options.iou,
                                                options.score_threshold).numpy()
            rows += [(kind, index) for index in kept]
        apart.append(Answer(_best(_found(boxes, kinds, best, rows), options.total), boxes, scores))
        # without a limit over all classes, for which it sorts without an order of equal scores
        b, s, c, n = (part.numpy()[0] for part in tf.image.combined_non_max_suppression(
            yxyx[None, :, None], kinds, options.most, options.most * kinds.shape[2], options.iou,
            options.score_threshold, clip_boxes=False))
        found = Detections(b[:n][:, [1, 0, 3, 2]], s[:n], c[:n].astype(np.int64))
        together.append(Answer(found, boxes, scores))
    return {"tensorflow": apart, "tensorflow combined": together}


def in_paddle(cases: list[Case]) -> list[Answer]:
    """Paddle's; runs in a worker."""
    import paddle
    from paddle import _C_ops

    paddle.disable_static()
    answers = []
    for case in cases:
        boxes, scores = _decoded(case, paddle.to_tensor, paddle.nn.functional.sigmoid, paddle.exp,
                                 lambda parts: paddle.concat(parts, -1))
        kinds, best = _kinds(scores.numpy(), case.options)
        if not kinds.shape[1]:  # Paddle takes no empty tensor
            answers.append(Answer(Detections.none(), boxes.numpy(), scores.numpy()))
            continue
        out, index, _ = _C_ops.multiclass_nms3(
            boxes, paddle.to_tensor(np.ascontiguousarray(kinds.transpose(0, 2, 1))), None, case.options.score_threshold,
            -1, -1, case.options.iou, True, 1.0, -1)
        rows = [(int(kind), int(place) % kinds.shape[1]) for kind, place in zip(
            out.numpy()[:, 0], index.numpy().reshape(-1), strict=True)]
        answers.append(Answer(_limited(_found(boxes.numpy(), kinds, best, rows), [kind for kind, _ in rows],
                                       case.options), boxes.numpy(), scores.numpy()))
    return answers


def _decoded(case: Case, tensor: Callable, sigmoid: Callable, exp: Callable, concat: Callable) -> tuple[Any, Any]:
    """Boxes [1, A, 4] as x1, y1, x2, y2 and scores [1, A, C], by a framework's own arithmetic."""
    heads = case.heads
    boxes, scores = tensor(case.boxes), tensor(np.ascontiguousarray(
        case.scores.transpose(0, 2, 1) if heads.classes_axis == 1 else case.scores))
    if heads.activation == "sigmoid":
        scores = sigmoid(scores)
    one, two, three, four = (boxes[..., at:at + 1] for at in range(4))
    if heads.coding == "anchors":
        y, x, height, width = (tensor(np.ascontiguousarray(column[None, :, None]))
                               for column in heads.anchor_boxes().T)
        y, x = one * height + y, two * width + x
        up, left = exp(three) * height * 0.5, exp(four) * width * 0.5
        return concat([x - left, y - up, x + left, y + up]), scores
    if heads.coding == "cxcywh":
        return concat([one - three / 2, two - four / 2, one + three / 2, two + four / 2]), scores
    return concat([two, one, four, three]) if heads.coding == "yxyx" else boxes, scores


def _kinds(scores: np.ndarray, options: AddNmsOptions) -> tuple[np.ndarray, np.ndarray | None]:
    """The scores that are suppressed by, and the class of each place where those of all classes count as one."""
    if not options.class_agnostic:
        return scores, None
    return scores.max(axis=2, keepdims=True), scores[0].argmax(axis=1)


def _found(boxes: np.ndarray, kinds: np.ndarray, best: np.ndarray | None, rows: list[tuple[int, int]]) -> Detections:
    pairs = np.array(rows, np.int64).reshape(-1, 2)
    classes = pairs[:, 0] if best is None else best[pairs[:, 1]]
    return Detections(boxes[0, pairs[:, 1]], kinds[0, pairs[:, 1], pairs[:, 0]], classes)


def _best(found: Detections, total: int) -> Detections:
    """The best so many, of equal scores those that came first."""
    return found.taken(np.argsort(-found.scores, kind="stable")[:total]) if total else found


def _limited(found: Detections, kinds: list[int], options: AddNmsOptions) -> Detections:
    """Paddle limits candidates, not boxes that are kept: the first ``most`` of each class are what the others keep."""
    kinds = np.array(kinds, np.int64)
    places = [at for kind in dict.fromkeys(kinds.tolist()) for at in np.flatnonzero(kinds == kind)[: options.most]]
    return _best(found.taken(np.array(sorted(places), np.int64)), options.total)


# ---- rules of their own ----------------------------------------------------------------------------------------------


def by_rule(judge: str, case: Case, answer: Answer) -> Detections:
    """What numpy keeps of a judge's decoded boxes by that judge's rule, in that judge's order."""
    options = case.options
    if judge in ("numpy", "graph", "tensorflow"):
        return nms(answer.boxes, answer.scores, options)[0]
    kinds, best = _kinds(answer.scores, options)
    if judge == "paddle":
        rows = [(kind, at) for kind in range(kinds.shape[2]) for at in _walk(
            answer.boxes[0], _by_score(kinds[0, :, kind], options.score_threshold), options, nothing_on_nothing=True)]
        return _best(_found(answer.boxes, kinds, best, rows), options.total)
    best = None  # it gives no index by which a class could be looked up
    rows = [(kind, at) for kind in range(kinds.shape[2]) for at in _walk(
        answer.boxes[0], _by_heap(kinds[0, :, kind], options.score_threshold), options)]
    found = _found(answer.boxes, kinds, best, rows)
    ours, theirs = (np.lexsort((*one.boxes.T, one.classes, -one.scores)) for one in (found, answer.found))
    undo = np.empty_like(theirs)
    undo[theirs] = np.arange(len(theirs))
    return found.taken(ours[undo]) if len(ours) == len(undo) else found  # its last sort has no order of equal scores


def _by_score(scores: np.ndarray, threshold: float) -> list[int]:
    """Candidates by falling score, then rising index."""
    above = np.flatnonzero(scores > np.float32(threshold))
    return above[np.argsort(-scores[above], kind="stable")].tolist()


def _by_heap(scores: np.ndarray, threshold: float) -> list[int]:
    """Candidates as std::priority_queue of libstdc++ gives them when only scores are compared."""
    heap: list[int] = []

    def sift_up(hole: int, value: int) -> None:
        while hole and scores[heap[(hole - 1) // 2]] < scores[value]:
            heap[hole] = heap[(hole - 1) // 2]
            hole = (hole - 1) // 2
        heap[hole] = value

    for index in np.flatnonzero(scores > np.float32(threshold)).tolist():
        heap.append(index)
        sift_up(len(heap) - 1, index)
    order = []
    while heap:
        order.append(heap[0])
        value = heap.pop()
        hole, size = 0, len(heap)
        while 2 * hole + 1 < size:  # the larger child moves up, the right one of equals, down to a leaf
            child = 2 * hole + 2
            if child >= size or scores[heap[child]] < scores[heap[child - 1]]:
                child -= 1
            heap[hole] = heap[child]
            hole = child
        if heap:
            sift_up(hole, value)
    return order


def _walk(boxes: np.ndarray, order: list[int], options: AddNmsOptions, *,
          nothing_on_nothing: bool = False) -> list[int]:
    """Keep candidates in order unless one kept before overlaps them too much: box by box, in float32."""
    kept: list[int] = []
    for at in order:
        if len(kept) == options.most:
            break
        if not any(_over(boxes[at], boxes[other], np.float32(options.iou), nothing_on_nothing) for other in kept):
            kept.append(at)
    return kept


def _over(one: np.ndarray, two: np.ndarray, threshold: np.float32, nothing_on_nothing: bool) -> bool:
    sides = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    if (sides < 0).any():
        return False
    areas = [np.prod(box[2:] - box[:2]) for box in (one, two)]
    common = sides[0] * sides[1]
    union = areas[0] + areas[1] - common
    if union <= 0:
        return nothing_on_nothing
    return bool(common > 0 and common / union > threshold)


def same_as_numpy(judge: str, case: Case, ours: Answer, theirs: Answer) -> bool:
    """Are the same boxes kept? Of the combined operator, before any limit on all classes."""
    expected = ours.found
    if judge == "tensorflow combined":
        expected = nms(ours.boxes, ours.scores, replace(case.options, total=0))[0]
        if case.options.class_agnostic:
            expected = replace(expected, classes=np.zeros_like(expected.classes))
    return alike(expected, theirs.found)


def alike(one: Detections, other: Detections) -> bool:
    """The same boxes of the same classes, up to the rounding of exp and sigmoid; order does not count."""
    if len(one) != len(other):
        return False
    rows = [np.array(sorted(found.rows(), key=lambda row: (row[0], *np.round(row[1:], 3)))).reshape(-1, 6)
            for found in (one, other)]
    return bool((rows[0][:, 0] == rows[1][:, 0]).all()) and np.allclose(*rows, rtol=2e-6, atol=2e-5)


if __name__ == "__main__":
    main()
