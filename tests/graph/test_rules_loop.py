"""Loops, scans and branches written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINE = {"inputs": "float[2,3] x", "outputs": "float[2,3] y"}


def loop(step: str, *, trips: str = "{4}", go_on: str = "keep = Identity(c)", carried: str = "float[2,3]",
         before: str = "", collect: str = "", weights: str = "") -> str:
    """A Loop that carries ``v`` from x to y; ``step`` makes ``w`` of it, ``collect`` makes ``s``."""
    scan = ", float[2,3] s" if collect else ""
    return (f"<int64 m = {trips}, bool yes = {{1}}{weights}> {{ {before} y{', z' if collect else ''} = Loop <body = b "
            f"(int64 i, bool c, {carried} v) => (bool keep, {carried} w{scan}) {{ {go_on} {step} {collect} }}> "
            "(m, yes, x) }")


def test_a_loop_with_a_constant_trip_count_is_written_out(bench):
    path = bench.text(loop("h = Mul(v, v) t = Tanh(h) w = Add(t, x)"), **LINE)
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Mul": 4, "Tanh": 4, "Add": 4}
    assert fixed.changes[0].what == "Loop of 4 turns and 4 nodes is written out"


def test_the_number_of_the_turn_and_values_from_outside_are_right(bench):
    body = "n = Cast <to: int = 1> (i) a = Mul(v, outside) w = Add(a, n)"
    path = bench.text(loop(body, before="outside = Sigmoid(x)"), **LINE)
    assert bench.promises(path, "unroll-loop").operators_after == {"Sigmoid": 1, "Cast": 4, "Mul": 4, "Add": 4}


def test_what_is_collected_turn_by_turn_is_stacked(bench):
    path = bench.text(loop("w = Tanh(v)", collect="s = Neg(v)", trips="{3}"), inputs=LINE["inputs"],
                      outputs="float[2,3] y, float[3,2,3] z")
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Tanh": 3, "Neg": 3, "Unsqueeze": 3, "Concat": 1}


def test_collecting_works_before_opset_13_too(bench):
    path = bench.text(loop("w = Tanh(v)", collect="s = Neg(v)", trips="{1}"), inputs=LINE["inputs"], opset=12,
                      outputs="float[2,3] y, float[1,2,3] z")
    assert bench.promises(path, "unroll-loop").operators_after == {"Tanh": 1, "Neg": 1, "Unsqueeze": 1}


def test_a_while_that_counts_up_to_a_constant_is_written_out(bench):
    """As exporters write ``while i < 3``: no trip count, a counter that is carried, a condition that reads it."""
    import onnx

    proto = onnx.load(str(bench.text("""<int64 zero = {0}, bool yes = {1}, int64 one = {1}, int64 three = {3}> {
        k, y = Loop <body = b (int64 i, bool c, int64 n, float[2,3] v) => (bool keep, int64 m, float[2,3] w) {
            m = Add(n, one) keep = Less(m, three) f = Cast <to: int = 1> (n) w = Add(v, f) }> (yes, yes, zero, x) }""",
                                     inputs=LINE["inputs"], outputs="int64 k, float[2,3] y")))
    proto.graph.node[0].input[0] = ""
    path = bench.save(proto)
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Add": 6, "Cast": 3}
    whole = bench.fix(path, rules=("unroll-loop", "fold-constants", "drop-unused"))
    assert whole.operators_after == {"Add": 3}


def test_a_loop_that_is_not_even_started_hands_its_values_on(bench):
    path = bench.text("<int64 m = {5}, bool no = {0}> { r = Loop <body = b (int64 i, bool c, float[2,3] v) => "
                      "(bool c2, float[2,3] w) { c2 = Identity(c) w = Tanh(v) }> (m, no, x) y = Relu(r) }", **LINE)
    assert bench.promises(path, "unroll-loop").operators_after == {"Relu": 1}


def test_what_goes_straight_from_an_input_to_an_output_gets_an_identity(bench):
    path = bench.text(loop("w = Tanh(v)", trips="{0}"), **LINE)
    assert bench.promises(path, "unroll-loop").operators_after == {"Identity": 1}


def test_values_that_swap_places_every_turn_are_kept_apart(bench):
    path = bench.text("""<int64 m = {3}, bool yes = {1}> { y, z = Loop <body = b (int64 i, bool c, float[2,3] p,
        float[2,3] q) => (bool c2, float[2,3] r, float[2,3] s) { c2 = Identity(c) r = Tanh(q) s = Identity(p) }>
        (m, yes, x, x) }""", inputs=LINE["inputs"], outputs="float[2,3] y, float[2,3] z")
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Tanh": 3, "Identity": 3}


def test_loops_within_loops_and_branches_are_written_out_from_the_outside_in(bench):
    inner = ("w = Loop <body = d (int64 j, bool e, float[2,3] p) => (bool e2, float[2,3] q) { e2 = Identity(e) "
             "a = Add(p, v) big = Greater(n, one) q = If (big) <then_branch = t () => (float[2,3] u) { u = Tanh(a) }, "
             "else_branch = f () => (float[2,3] u2) { u2 = Sigmoid(a) }> }> (m, yes, v)")
    path = bench.text(loop("n = Identity(i) " + inner, trips="{2}", weights=", int64 one = {0}"), **LINE)
    fixed = bench.promises(path, "unroll-loop")
    assert (fixed.operators_after["Add"], fixed.operators_after["If"]) == (4, 4)
    assert len(fixed.changes) == 3
    assert {row.rule for row in fixed.left_alone} <= {"if-constant"}
    whole = bench.fix(path, rules=("unroll-loop", "fold-constants", "if-constant", "drop-identity", "drop-unused"))
    assert whole.operators_after == {"Add": 4, "Tanh": 2, "Sigmoid": 2}
    bench.same_answers(path, whole.model.path)


def test_an_inner_loop_is_written_out_where_the_outer_one_cannot_be(bench):
    inner = ("w = Loop <body = d (int64 j, bool e, float[2,3] p) => (bool e2, float[2,3] q) { e2 = Identity(e) "
             "q = Tanh(p) }> (two, yes, v)")
    go_on = "total = ReduceSum <keepdims: int = 0> (v) keep = Less(total, big)"
    path = bench.text(loop(inner, go_on=go_on, weights=", int64 two = {2}, float big = {50.0}"), **LINE)
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Loop": 1, "ReduceSum": 1, "Less": 1, "Tanh": 2}
    assert [row.reason[:34] for row in fixed.left_alone] == ["whether it goes on depends on x, w"]


def test_weights_inside_a_body_are_shared_by_all_turns(bench):
    import onnx

    proto = onnx.load(str(bench.text(loop("w = Mul(v, k)", trips="{3}", weights=", float[2,3] k = {1,2,3,4,5,6}"),
                                     **LINE)))
    (found,) = [tensor for tensor in proto.graph.initializer if tensor.name == "k"]
    proto.graph.node[0].attribute[0].g.initializer.append(found)
    proto.graph.initializer.remove(found)
    fixed = bench.promises(bench.save(proto), "unroll-loop")
    after = onnx.load(str(fixed.model.path))
    assert [tensor.name for tensor in after.graph.initializer] == ["k"]


@pytest.mark.parametrize(("body", "said"), [
    (loop("w = Tanh(v)", go_on="t = ReduceSum <keepdims: int = 0> (v) keep = Less(t, top)",
          weights=", float top = {9.0}"),
     "whether it goes on depends on x, which is computed from the data: no rule can unroll it; iterate on the host"),
    (loop("w = Tanh(v)", before="m2 = Size(x)").replace("(m, yes", "(m2, yes"),
     "its trip count m2 is computed at run time: fix the input shapes and fold constants, or iterate on the host"),
    (loop("w = Tanh(v)", before="s = ReduceSum <keepdims: int = 0> (x) on = Greater(s, s)").replace("m, yes", "m, on"),
     "whether it starts depends on on, which is computed at run time"),
    (loop("w = Tanh(v)", trips="{65}"),
     "it runs 65 times, and up to 64 are unrolled: split the model there and iterate on the host"),
    (loop("a = Tanh(v) " + "".join(f"a{n} = Tanh(a{n - 1 if n else ''}) " for n in range(40)) + "w = Tanh(a39)",
          trips="{60}"), "60 times 43 nodes are 2,580, and up to 2,000 are unrolled"),
    (loop("w = Tanh(v)", go_on="r = RandomUniform <shape: ints = [1]> () keep = Less(r, half)",
          weights=", float[1] half = {0.5}"), "whether it goes on is drawn by RandomUniform RandomUniform_0"),
])
def test_a_loop_that_is_not_known_ahead_is_left_alone_and_says_why(bench, body, said):
    assert bench.reason(bench.text(body, **LINE), "unroll-loop") == said


def test_a_loop_that_collects_nothing_is_left_alone_when_that_is_read(bench):
    path = bench.text(loop("w = Tanh(v)", collect="s = Neg(v)", trips="{0}"), inputs=LINE["inputs"],
                      outputs="float[2,3] y, float[0,2,3] z")
    assert bench.reason(path, "unroll-loop") == "it never runs, and what it would collect is read"


SCAN = ("{ y, z = Scan <num_scan_inputs: int = 1, body = b (float[2] h, float[2] e) => (float[2] g, float[2] o) "
        "{ a = Add(h, e) g = Tanh(a) o = Neg(a) }%s> (s, x) }")


@pytest.mark.parametrize(("how", "inputs", "outputs"), [
    ("", "float[2] s, float[3,2] x", "float[2] y, float[3,2] z"),
    (", scan_input_axes: ints = [1], scan_output_axes: ints = [-1]", "float[2] s, float[2,3] x",
     "float[2] y, float[2,3] z"),
    (", scan_input_directions: ints = [1], scan_output_directions: ints = [1]", "float[2] s, float[3,2] x",
     "float[2] y, float[3,2] z")])
def test_a_scan_over_a_sequence_of_known_length_is_written_out(bench, how, inputs, outputs):
    path = bench.text(SCAN % how, inputs=inputs, outputs=outputs)
    fixed = bench.promises(path, "unroll-loop")
    assert fixed.operators_after == {"Gather": 3, "Add": 3, "Tanh": 3, "Neg": 3, "Unsqueeze": 3, "Concat": 1}


def test_a_scan_over_an_open_axis_is_left_alone(bench):
    path = bench.text(SCAN % "", inputs="float[2] s, float[T,2] x", outputs="float[2] y, float[T,2] z")
    assert bench.reason(path, "unroll-loop") == "the length of its sequence x is not known: fix the input shapes"


BRANCHES = ("{ y = If (%s) <then_branch = t () => (float[2,3] u) { h = Tanh(x) u = Neg(h) }, "
            "else_branch = f () => (float[2,3] w) { h2 = Relu(x) w = Add(h2, x) }> }")


@pytest.mark.parametrize(("value", "kept"), [("{1}", {"Tanh": 1, "Neg": 1}), ("{0}", {"Relu": 1, "Add": 1})])
def test_of_a_constant_condition_one_branch_stays(bench, value, kept):
    fixed = bench.promises(bench.text(f"<bool c = {value}> " + BRANCHES % "c", **LINE), "if-constant")
    assert fixed.operators_after == kept
    assert fixed.model.outputs[0].name == "y"


def test_a_branch_that_is_only_a_weight_becomes_the_answer(bench):
    path = bench.text("<bool c = {1}> { k = If (c) <then_branch = t () => (float[2,3] u) "
                      "<float[2,3] u = {1,2,3,4,5,6}> { }, "
                      "else_branch = f () => (float[2,3] w) { w = Neg(x) }> y = Add(k, x) }", **LINE)
    assert bench.promises(path, "if-constant").operators_after == {"Identity": 1, "Add": 1}


def test_a_computed_condition_is_left_alone(bench):
    path = bench.text(("{ s = ReduceSum <keepdims: int = 0> (x) c = Less(s, s) " + BRANCHES[1:]) % "c", **LINE)
    assert bench.reason(path, "if-constant") == (
        "its condition c is computed from the input: fix the input shapes and fold constants; where it depends on the "
        "data, no rule can")


STEPS = ["Tanh({0})", "Mul({0}, {1})", "Add({0}, x)", "Sub({1}, {0})", "Sigmoid({0})", "Add({0}, n)", "Max({0}, {1})"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trips=st.integers(1, 6), steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), stop=st.integers(0, 7),
       carries=st.integers(1, 3), seed=st.integers(0, 99))
def test_random_loops_answer_the_same_written_out(bench, trips, steps, stop, carries, seed):
    """Random bodies that carry up to three values, which may change places, and stop by trip count or by condition."""
    random = np.random.default_rng(seed)
    made = [f"v{at}" for at in range(carries)]
    lines = ["n = Cast <to: int = 1> (i)", "keep = Less(i, stop)"]
    for at, step in enumerate(steps):
        left, right = random.choice(made), random.choice(made)
        lines.append(f"a{at} = " + step.format(left, right))
        made.append(f"a{at}")
    ends = [str(random.choice(made[-4:])) for _ in range(carries)]
    lines += [f"w{at} = Identity({end})" for at, end in enumerate(ends)] + [f"s = Neg({made[-1]})"]
    values = [", ".join(f"float[2,3] {name}{at}" for at in range(carries)) for name in ("v", "w", "y")]
    body = (f"<int64 m = {{{trips}}}, bool yes = {{1}}, int64 stop = {{{stop}}}> {{ "
            f"{', '.join(f'y{at}' for at in range(carries))}, z = Loop <body = b (int64 i, bool c, {values[0]}) => "
            f"(bool keep, {values[1]}, float[2,3] s) {{ {' '.join(lines)} }}> (m, yes{', x' * carries}) }}")
    path = bench.text(body, inputs=LINE["inputs"], outputs=f"{values[2]}, float[K,2,3] z")
    fixed = bench.fix(path, rules=("unroll-loop",))
    assert "Loop" not in fixed.operators_after
    turns = min(trips, stop + 1)
    assert fixed.changes[0].what.startswith(f"Loop of {turns} turns")
    bench.same_answers(path, fixed.model.path, tolerance=0)
