"""NonMaxSuppression with five inputs, and rows of -1 that mark themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BOXES, SCORES = "float[1,6,4] boxes", "float[1,2,6] scores"
OUT = "int64[R,3] y"
MANY = "9223372036854775807"  # what torchvision exports for "as many as there are"


def boxes(random: np.random.Generator, batch: int, count: int) -> np.ndarray:
    """Corners of boxes on a coarse grid, so that many overlap and some are the same."""
    low = random.integers(0, 4, (batch, count, 2))
    return np.concatenate([low, low + random.integers(1, 4, low.shape)], -1).astype(np.float32)


def run(path: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def same(before: Path, after: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    found = run(before, **feeds)
    for left, right in zip(found, run(after, **feeds), strict=True):
        np.testing.assert_array_equal(left, right)
    return found


def constants(path: Path, name: str = "NonMaxSuppression_y") -> list[float]:
    """The third to fifth input of the NonMaxSuppression."""
    graph = onnx.load(str(path)).graph
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (node,) = [node for node in graph.node if node.op_type == "NonMaxSuppression"]
    assert len(node.input) == 5
    return [known[value].item() for value in node.input[2:]]


def twice(bench, path: Path, rule: str):
    """Fixed by ``rule``, valid, and a second time nothing is left to do."""
    fixed = bench.fix(path, rules=(rule,))
    assert rule in fixed.counts(), (fixed.left_alone, fixed.rejected)
    onnx.checker.check_model(str(fixed.model.path), full_check=True)
    assert bench.fix(fixed.model.path, rules=(rule,)).changes == ()
    return fixed


def test_missing_thresholds_are_written_out(bench):
    path = bench.text("<int64[1] most = {3}> { y = NonMaxSuppression(boxes, scores, most) }",
                      inputs=f"{BOXES}, {SCORES}", outputs=OUT)
    fixed = twice(bench, path, "nms-five-inputs")
    assert constants(fixed.model.path) == [3, 0.0, float(np.finfo(np.float32).min)]
    assert fixed.changes[0].what == ("iou_threshold is 0, as without one; score_threshold is -3.40282e+38, which every "
                                     "finite score is above")
    random = np.random.default_rng(0)
    found = same(path, fixed.model.path, boxes=boxes(random, 1, 6),
                 scores=random.choice([-1e30, -5, 0, 0, 7], (1, 2, 6)).astype(np.float32))
    assert len(found[0]) > 2


def test_scores_that_cannot_be_negative_get_a_threshold_that_float16_holds(bench):
    path = bench.text("<int64[1] most = {3}, float iou = {0.5}> { p = Sigmoid(logits) s = Transpose "
                      "<perm: ints = [0, 2, 1]> (p) y = NonMaxSuppression(boxes, s, most, iou) }",
                      inputs=f"{BOXES}, float[1,6,2] logits", outputs=OUT)
    fixed = twice(bench, path, "nms-five-inputs")
    assert constants(fixed.model.path) == [3, 0.5, -1.0]
    random = np.random.default_rng(1)
    logits = random.choice([-200, 0, 3], (1, 6, 2)).astype(np.float32)  # Sigmoid(-200) is 0
    same(path, fixed.model.path, boxes=boxes(random, 1, 6), logits=logits)


def test_as_many_as_there_are_becomes_their_number(bench):
    path = bench.text(f"<int64 most = {{{MANY}}}, float iou = {{0.5}}, float least = {{0.1}}> "
                      "{ y = NonMaxSuppression(boxes, scores, most, iou, least) }", inputs=f"{BOXES}, {SCORES}",
                      outputs=OUT)
    fixed = twice(bench, path, "nms-five-inputs")
    assert constants(fixed.model.path)[0] == 6
    assert fixed.changes[0].what == "it keeps up to 6 boxes a class, which is all of them"
    same(path, fixed.model.path, boxes=boxes(np.random.default_rng(2), 1, 6),
         scores=np.random.default_rng(2).random((1, 2, 6), np.float32))


ON_HOST = "cut the model before the NonMaxSuppression and run that on the host"


@pytest.mark.parametrize(("body", "inputs", "said"), [
    ("{ y = NonMaxSuppression(boxes, scores) }", f"{BOXES}, {SCORES}",
     "max_output_boxes_per_class is missing or 0, which means 0: it keeps nothing at all. Export it with a number"),
    (f"<int64 most = {{{MANY}}}> {{ y = NonMaxSuppression(boxes, scores, most) }}",
     "float[1,8400,4] boxes, float[1,2,8400] scores",
     "it may keep 8,400 boxes a class, and over 700 may exhaust the chip: export it with 700 or fewer, or "
     + ON_HOST),
    ("<float iou = {0.5}> { most = Size(scores) y = NonMaxSuppression(boxes, scores, most, iou) }",
     "float[1,N,4] boxes, float[1,2,N] scores",
     "max_output_boxes_per_class most is computed at run time, and ATC takes a constant: fold constants, or "
     + ON_HOST),
    ("<int64 most = {5}> { iou = ReduceMax <keepdims: int = 0> (scores) "
     "y = NonMaxSuppression(boxes, scores, most, iou) }", f"{BOXES}, float[1,2,6] scores",
     "iou_threshold iou is computed at run time, and ATC takes a constant: " + ON_HOST)])
def test_what_atc_cannot_take_is_left_alone_and_it_says_why(bench, body, inputs, said):
    path = bench.text(body, inputs=inputs, outputs=OUT)
    count = 8400 if "8400" in inputs else 6
    feeds = [{"boxes": np.zeros((1, count, 4), np.float32), "scores": np.full((1, 2, count), 0.5, np.float32)}]
    assert bench.reason(path, "nms-five-inputs", samples=feeds) == said


def test_five_inputs_are_no_business_of_the_rule(bench):
    path = bench.text("<int64 most = {5}, float iou = {0.5}, float least = {0.1}> "
                      "{ y = NonMaxSuppression(boxes, scores, most, iou, least) }", inputs=f"{BOXES}, {SCORES}",
                      outputs=OUT)
    fixed = bench.fix(path, rules=("nms-five-inputs",))
    assert (fixed.changes, fixed.left_alone) == ((), ())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 999), batch=st.integers(1, 2), classes=st.integers(1, 3), count=st.integers(1, 12),
       most=st.sampled_from([1, 3, 700, int(MANY)]), iou=st.sampled_from([None, 0.0, 0.5, 1.0]),
       least=st.sampled_from([None, 0.0, 0.4]), center=st.integers(0, 1))
def test_random_boxes_with_ties_are_kept_alike(bench, seed, batch, classes, count, most, iou, least, center):
    given_values = {"most": most, "iou": iou, "least": least}
    given_values = {name: value for name, value in given_values.items() if value is not None}
    weights = [f"{'int64' if name == 'most' else 'float'}[1] {name} = {{{value}}}"
               for name, value in given_values.items()]
    path = bench.text(f"<{', '.join(weights)}> {{ y = NonMaxSuppression <center_point_box: int = {center}> (boxes, "
                      f"scores, {', '.join(given_values)}) }}",
                      inputs=f"float[{batch},{count},4] boxes, float[{batch},{classes},{count}] scores", outputs=OUT)
    if iou is None and least is not None:  # an empty place between two given ones
        proto = onnx.load(str(path))
        proto.graph.node[0].input.insert(3, "")
        bench.save(proto)
    fixed = bench.fix(path, rules=("nms-five-inputs",))
    assert not fixed.rejected
    asked = constants(fixed.model.path) if fixed.changes else None
    assert asked is None or asked[0] == (most if most <= 700 else count)
    random = np.random.default_rng(seed)
    same(path, fixed.model.path, boxes=boxes(random, batch, count),
         scores=random.choice([-3e38, -1, 0, 0, 0.4, 0.5, 0.5, 1], (batch, classes, count)).astype(np.float32))


# -- rows of -1

CUT = ("<int64 most = {4}, float iou = {0.5}, float least = {0.2}, int64 two = {2}, int64 col = {1}> "
       "{ rows = NonMaxSuppression(boxes, scores, most, iou, least) ")


def as_on_the_chip(path: Path, rows: list[list[int]], **feeds: np.ndarray) -> np.ndarray:
    """The answer where NonMaxSuppression gives ``rows``, as Ascend's would with -1 at the end."""
    proto = onnx.load(str(path))
    (node,) = [node for node in proto.graph.node if node.op_type == "NonMaxSuppression"]
    proto.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT64, [len(rows), 3]))
    proto.graph.node.remove(node)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    onnx.save(proto, str(path.with_name("chip.onnx")))
    return run(path.with_name("chip.onnx"), **{node.output[0]: np.array(rows)}, **feeds)[0]


WEIGHTS = ("<int64[1] cols = {2}, int64[1] ends = {3}, int64[1] ones = {1}, int64[1] none = {0}, "
           "int64[6] labels = {3,1,4,1,5,9}, int64[2,3] names = {1,2,3,4,5,6}, ")


@pytest.mark.parametrize(("body", "outputs"), [
    ("b = Gather <axis: int = 1> (rows, two) y = Gather <axis: int = 1> (boxes, b) }", "float[1,R,4] y"),
    ("y = GatherND(scores, rows) }", "float[R] y"),
    ("s = Slice(rows, cols, ends, ones) i = Squeeze(s, ones) flat = Squeeze(boxes, none) y = Gather(flat, i) }",
     "float[R,4] y"),
    ("c = Gather <axis: int = 1> (rows, two) n = Cast <to: int = 6> (c) y = Gather(labels, n) }", "int64[R] y"),
    ("c = Gather <axis: int = 1> (rows, col) u = Unsqueeze(c, ones) y = GatherND(names, u) }", "int64[R,3] y")])
def test_what_is_gathered_for_a_row_of_minus_one_is_minus_one(bench, body, outputs):
    inputs = f"{BOXES}, {SCORES}"
    path = bench.text(CUT.replace("<", WEIGHTS, 1) + body, inputs=inputs, outputs=outputs)
    fixed = twice(bench, path, "nms-rows")
    random = np.random.default_rng(3)
    feeds = {"boxes": boxes(random, 1, 6), "scores": random.random((1, 2, 6), np.float32)}
    (whole,) = same(path, fixed.model.path, **feeds)
    kept = run(bench.text(CUT + "y = Identity(rows) }", inputs=inputs, outputs=OUT, name="rows.onnx"), **feeds)[0]
    assert 2 <= len(kept) <= 8
    answer = as_on_the_chip(fixed.model.path, [*kept.tolist(), *[[-1, -1, -1]] * (10 - len(kept))], **feeds)
    axis = 1 if outputs.startswith("float[1,R") else 0
    real, blank = np.split(answer, [len(kept)], axis)
    np.testing.assert_array_equal(real, whole)
    assert (blank == -1).all()
    assert blank.shape[axis] == 10 - len(kept)


def test_a_label_looked_up_for_a_guarded_row_is_guarded_too(bench):
    path = bench.text(CUT.replace("<", "<int64[6] labels = {0,1,1,0,1,0}, float[2] prices = {7.5,9.5}, ", 1) +
                      "b = Gather <axis: int = 1> (rows, two) k = Gather(labels, b) y = Gather(prices, k) }",
                      inputs=f"{BOXES}, {SCORES}", outputs="float[R] y")
    fixed = twice(bench, path, "nms-rows")
    assert len(fixed.changes) == 2
    answer = as_on_the_chip(fixed.model.path, [[0, 0, 5], [-1, -1, -1]], boxes=np.zeros((1, 6, 4), np.float32),
                            scores=np.zeros((1, 2, 6), np.float32))
    assert answer.tolist() == [7.5, -1]


def test_guards_survive_the_other_rules_for_ascend(bench):
    path = bench.text(CUT + "box = Gather <axis: int = 1> (rows, two) y = Gather <axis: int = 1> (boxes, box) }",
                      inputs=f"{BOXES}, {SCORES}", outputs="float[1,R,4] y")
    fixed = bench.fix(path, target="ascend310p3")
    assert fixed.counts()["nms-rows"] == 1
    assert not fixed.rejected
    random = np.random.default_rng(5)
    same(path, fixed.model.path, boxes=boxes(random, 1, 6), scores=random.random((1, 2, 6), np.float32))
    assert bench.fix(fixed.model.path, target="ascend310p3").changes == ()


def test_rows_that_are_computed_with_are_left_alone(bench):
    path = bench.text(CUT.replace("<", "<int64[1] none = {0}, ", 1) + "b = Gather <axis: int = 1> (rows, two) "
                      "c = Mul(b, two) d = Div(c, two) flat = Squeeze(boxes, none) y = Gather(flat, d) }",
                      inputs=f"{BOXES}, {SCORES}", outputs="float[R,4] y")
    assert bench.reason(path, "nms-rows") == (
        "no rule can keep the rows of -1 of NonMaxSuppression_rows apart: Gather Gather_y takes for an index what was "
        "computed from them. Cut the model before the NonMaxSuppression and run that on the host")


def test_where_one_reader_adds_rows_up_no_other_is_guarded_either(bench):
    path = bench.text(CUT + "p = GatherND(scores, rows) y = ReduceSum <keepdims: int = 0> (p) }",
                      inputs=f"{BOXES}, {SCORES}", outputs="float y")
    assert bench.reason(path, "nms-rows") == (
        "no rule can keep the rows of -1 of NonMaxSuppression_rows apart: ReduceSum ReduceSum_y takes them together "
        "with the others. Cut the model before the NonMaxSuppression and run that on the host")


def test_numbers_that_cannot_hold_minus_one_are_left_alone(bench):
    path = bench.text(CUT.replace("<", "<uint8[6] labels = {3,1,4,1,5,9}, ", 1) +
                      "b = Gather <axis: int = 1> (rows, two) y = Gather(labels, b) }", inputs=f"{BOXES}, {SCORES}",
                      outputs="uint8[R] y")
    assert bench.reason(path, "nms-rows") == "labels is UINT8, in which no -1 can mark a row"


def test_places_found_anew_are_no_rows_of_a_non_max_suppression(bench):
    """TopK over what was gathered counts from 0 again."""
    path = bench.text(CUT.replace("<", "<int64[1] k = {1}, ", 1) +
                      "p = GatherND(scores, rows) q = Mul(p, p) v, i = TopK(q, k) y = Gather(rows, i) }",
                      inputs=f"{BOXES}, {SCORES}", outputs="int64[1,3] y")
    feeds = [{"boxes": boxes(np.random.default_rng(4), 1, 6), "scores": np.full((1, 2, 6), 0.5, np.float32)}]
    fixed = bench.fix(path, rules=("nms-rows",), samples=feeds)
    assert [change.node for change in fixed.changes] == ["GatherND_p"]
    assert fixed.left_alone == ()
