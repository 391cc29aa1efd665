"""Integers in 32 bits: where they fit, where nobody knows, and where Casts are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def dtypes(path: Path) -> dict[str, list[int]]:
    """Operator -> element types of its outputs (6: int32, 7: int64, 9: bool), as ONNX infers them."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    found: dict[str, list[int]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, []).append(known[node.output[0]])
    return found


def answers(path: Path, feeds: dict) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def same(before: Path, after: Path, **feeds: np.ndarray) -> None:
    for left, right in zip(answers(before, feeds), answers(after, feeds), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_a_chain_of_index_arithmetic_is_int32_with_casts_at_its_ends_only(bench):
    path = bench.text("<int64 two = {2}, int64 one = {1}> { i = ArgMax <axis: int = 1, keepdims: int = 0> (x) "
                      "a = Mul(i, two) b = Add(a, one) u = Neg(b) m = Mod(u, two) y = Sub(m, b) }",
                      inputs="float[2,6] x", outputs="int64[2] y")
    fixed = bench.promises(path, "int64-to-int32")
    assert dtypes(fixed.model.path) == {"ArgMax": [7], "Cast": [6, 7], "Mul": [6], "Add": [6], "Neg": [6], "Mod": [6],
                                        "Sub": [6]}
    assert [change.id for change in fixed.changes][:2] == ["int64-to-int32:Mul_a", "int64-to-int32:Add_b"]
    assert fixed.changes[1].what == "in int32: its result lies between 1 and 11"


def test_what_moves_numbers_goes_along_between_two_operations_and_a_reshape_gets_int64(bench):
    """The size of an image, halved, in a shape that is doubled again."""
    body = ("<int64 at = {2}, int64 two = {2}, int64[1] zero = {0}, int64[1] one = {1}, int64[3] twice = {1, 2, -1}> "
            "{ s = Shape(x) h = Gather(s, at) d = Div(h, two) u = Unsqueeze(d, zero) "
            "t = Concat <axis: int = 0> (one, u, one) %s y = Reshape(x, m) }")
    how = {"inputs": "float[1,4,H,6] x", "outputs": "float[A,B,C] y"}
    fixed = bench.promises(bench.text(body % "m = Mul(t, twice)", **how), "int64-to-int32")
    assert dtypes(fixed.model.path) == {"Shape": [7], "Gather": [7], "Cast": [6, 7], "Div": [6], "Unsqueeze": [6],
                                        "Concat": [6], "Mul": [6], "Reshape": [1]}
    assert "between 0 and 8,388,608" in fixed.changes[0].what  # an open axis counts for 2^24


def test_what_only_moves_numbers_is_left_as_it_is(bench):
    path = bench.text("<int64 two = {2}, int64[1] zero = {0}, int64[1] rest = {-1}> { i = ArgMax <axis: int = 0, "
                      "keepdims: int = 0> (x) d = Div(i, two) y = Unsqueeze(d, zero) }", inputs="float[4,2] x",
                      outputs="int64[1,2] y")
    fixed = bench.promises(path, "int64-to-int32")
    assert [change.node for change in fixed.changes] == ["Div_d"]
    assert dtypes(fixed.model.path) == {"ArgMax": [7], "Cast": [6, 7], "Div": [6], "Unsqueeze": [7]}


def test_comparisons_take_int32_and_give_bool(bench):
    path = bench.text("<int64 two = {2}> { i = ArgMax <axis: int = 1, keepdims: int = 0> (x) c = Greater(i, two) "
                      "d = Equal(i, two) e = Or(c, d) y = Cast <to: int = 1> (e) }", inputs="float[2,6] x",
                      outputs="float[2] y")
    fixed = bench.promises(path, "int64-to-int32")
    assert fixed.operators_after == {"ArgMax": 1, "Cast": 2, "Greater": 1, "Equal": 1, "Or": 1}


def test_a_gather_takes_int32_indices_directly(bench):
    path = bench.text("<int64 one = {1}> { i = ArgMax <axis: int = 1, keepdims: int = 0> (x) j = Sub(i, one) "
                      "y = Gather(x, j) }", inputs="float[7,6] x", outputs="float[7,6] y")
    fixed = bench.promises(path, "int64-to-int32")
    assert dtypes(fixed.model.path) == {"ArgMax": [7], "Cast": [6], "Sub": [6], "Gather": [1]}


@pytest.mark.parametrize(("body", "feed"), [
    ("{ a = Mul(x, minus) y = Div(a, three) }", "Div"), ("{ a = Sub(x, three) y = Mod(a, three) }", "Mod"),
    ("{ a = Sub(x, three) y = Mod <fmod: int = 1> (a, three) }", "fmod"),
    ("{ a = Sub(x, three) b = Abs(a) y = Min(b, three, minus) }", "Min"),
    ("{ a = Neg(x) y = CumSum <exclusive: int = 1> (a, zero) }", "CumSum"),
    ("{ c = Less(x, three) a = Mul(x, three) y = Where(c, a, minus) }", "Where")])
def test_int32_rounds_and_counts_as_int64_does(bench, body, feed):
    """The input is an index of a Gather too, and so known to lie in [-8, 7]."""
    table = "<float[8] table = {0,1,2,3,4,5,6,7}, int64 three = {3}, int64 minus = {-5}, int64 zero = {0}> "
    path = bench.text(table + body.replace("}", " z = Gather(table, x) }"), inputs="int64[16] x",
                      outputs="int64[16] y, float[16] z")
    fixed = bench.fix(path, rules=("int64-to-int32",))
    assert fixed.changes
    assert not fixed.rejected
    same(path, fixed.model.path, x=np.arange(-8, 8))


def test_an_input_keeps_its_type_and_gets_one_cast(bench):
    path = bench.text("<float[8,2] table = {0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7}, int64 pad = {0}, int64 two = {2}> "
                      "{ e = Gather(table, ids) p = Equal(ids, pad) q = Mul(ids, two) f = Cast <to: int = 1> (q) "
                      "g = Cast <to: int = 1> (p) h = Add(f, g) u = Unsqueeze(h, two) y = Mul(e, u) }",
                      inputs="int64[1,5] ids", outputs="float[1,5,2] y")
    fixed = bench.fix(path, rules=("int64-to-int32",))
    assert fixed.model.inputs[0].dtype == "int64"
    assert dtypes(fixed.model.path)["Cast"].count(6) == 1
    same(path, fixed.model.path, ids=np.array([[0, 7, -8, 3, 0]]))
    assert bench.fix(fixed.model.path, rules=("int64-to-int32",)).changes == ()


@pytest.mark.parametrize(("body", "inputs", "said"), [
    ("<int64 one = {1}> { y = Add(n, one) }", "int64[3] n",
     "how far the input n reaches is not known, so it stays int64"),
    ("<int64 one = {3000000000}> { i = ArgMax <axis: int = 0, keepdims: int = 0> (x) y = Add(i, one) }", "float[4,3] x",
     "one may lie anywhere from 3,000,000,000 to 3,000,000,000, which int32 does not hold"),
    ("<int64[2] at = {2, 3}> { s = Shape(x) g = Gather(s, at) y = Mul(g, g) }", "float[1,3,H,W] x",
     "y may lie anywhere from 0 to 281,474,976,710,656, which int32 does not hold"),
    ("<int64 one = {1}> { i = Cast <to: int = 7> (x) y = Add(i, one) }", "float[3] x",
     "Cast Cast_i makes i from FLOAT, which may be anything, so it stays int64"),
    ("<int64 one = {1}, int64[1] dims = {0}> { i = Cast <to: int = 7> (b) s = ReduceProd <keepdims: int = 0> (i) "
     "y = Add(s, one) }", "bool[3] b",
     "how far s reaches is not known: ReduceProd ReduceProd_s computes it, so it stays int64")])
def test_numbers_that_may_not_fit_are_left_alone_and_it_says_why(bench, body, inputs, said):
    path = bench.text(body, inputs=inputs, outputs="int64[K] y" if "Shape" not in body else "int64[2] y")
    assert bench.reason(path, "int64-to-int32") == said


def test_an_edit_is_undone_alone_and_its_neighbours_get_their_casts(bench):
    path = bench.text("<int64 two = {2}, int64 one = {1}> { i = ArgMax <axis: int = 1, keepdims: int = 0> (x) "
                      "a = Mul(i, two) b = Add(a, one) y = Sub(b, two) }", inputs="float[2,6] x", outputs="int64[2] y")
    fixed = bench.fix(path, rules=("int64-to-int32",)).undo("int64-to-int32:Add_b")
    assert dtypes(fixed.model.path) == {"ArgMax": [7], "Cast": [6, 7, 6, 7], "Mul": [6], "Add": [7], "Sub": [6]}
    bench.same_answers(path, fixed.model.path)


def test_an_output_keeps_int64_and_its_name(bench):
    path = bench.text("<int64[1] k = {2}, int64 one = {1}> { v, i = TopK (x, k) j = Add(i, one) }",
                      inputs="float[2,6] x", outputs="float[2,2] v, int64[2,2] i, int64[2,2] j")
    fixed = bench.promises(path, "topk-int32", rules=("topk-int32", "int64-to-int32"))
    assert [output.name for output in fixed.model.outputs] == ["v", "i", "j"]
    assert dtypes(fixed.model.path) == {"TopK": [1], "Cast": [6, 7, 7], "Add": [6]}


def test_indices_of_a_topk_go_through_int32(bench):
    path = bench.text("<int64[1] k = {2}, int64[2,1] row = {0, 1}, int64[1] two = {2}> { v, i = TopK (x, k) "
                      "u = Unsqueeze(i, two) r = Expand(row, s) q = Unsqueeze(r, two) "
                      "g = Concat <axis: int = 2> (q, u) y = GatherND(x, g) }".replace(
                          "int64[1] two", "int64[2] s = {2, 2}, int64[1] two"),
                      inputs="float[2,6] x", outputs="float[2,2] y")
    fixed = bench.promises(path, "topk-int32")
    assert fixed.changes[0].what == "its indices go through int32, and its 1 readers get int64 on the chip too"
    assert dtypes(fixed.model.path)["Cast"] == [6, 7]


def test_a_topk_with_ties_keeps_its_order(bench):
    path = bench.text("<int64[1] k = {6}, int64 one = {1}> { v, i = TopK (x, k) y = Add(i, one) }",
                      inputs="float[2,6] x", outputs="int64[2,6] y")
    fixed = bench.promises(path, "topk-int32", rules=("topk-int32", "int64-to-int32"))
    same(path, fixed.model.path, x=np.float32([[1, 1, 0, 1, 0, 0], [5, 5, 5, 5, 5, 5]]))


def test_a_topk_whose_indices_only_a_gather_reads_is_left_alone(bench):
    path = bench.text("<int64[1] k = {2}> { v, i = TopK (x, k) y = GatherElements <axis: int = 1> (x, i) }",
                      inputs="float[2,6] x", outputs="float[2,2] y")
    assert bench.reason(path, "topk-int32") == (
        "what reads its indices (GatherElements GatherElements_y) takes int32 as well as int64")


def test_the_rules_for_ascend_leave_no_int64_arithmetic_on_fixed_shapes(bench):
    path = bench.text("<int64[1] k = {2}, int64 one = {1}, int64 two = {2}> { s = Shape(x) h = Gather(s, two) "
                      "v, i = TopK (x, k) r = Div(i, h) c = Mod(i, h) y = Add(r, c) z = Mul(h, one) }",
                      inputs="float[1,3,H,8] x", outputs="int64[1,3,H,2] y, int64 z")
    fixed = bench.fix(path, target="ascend310p3", shapes=("x=1,3,4,8",))
    kinds = dtypes(fixed.model.path)
    assert {kind: kinds[kind] for kind in ("Div", "Mod", "Add")} == {"Div": [6], "Mod": [6], "Add": [6]}
    assert "Mul" not in kinds
    assert bench.fix(fixed.model.path, target="ascend310p3").changes == ()


@pytest.mark.parametrize(("body", "said"), [
    ("s = ReduceSum <keepdims: int = 0> (n, last) y = Mul(s, two)", "between -64 and 56"),
    ("s = CumSum(n, one) t = Neg(s) y = ReduceMax <keepdims: int = 0> (t)", "between -28 and 32"),
    ("s = Max(n, two) y = ReduceSum <keepdims: int = 0> (s) z2 = Neg(y)", "between 2 and 7"),
    ("s = Pad(n, pads) t = Abs(s) y = ReduceMax <keepdims: int = 0> (t)", "between 0 and 8"),
    ("s = ScatterElements(n, at, new) t = Neg(s) y = ReduceMax <keepdims: int = 0> (t)", "between -100 and 8"),
    ("s = Clip(n, one, two) t = Neg(s) y = ReduceMax <keepdims: int = 0> (t)", "between -2 and -1"),
    ("s = Div(n, two) t = Neg(s) y = ReduceMax <keepdims: int = 0> (t)", "between -3 and 4"),
    ("s = Mod(n, three) t = Neg(s) y = ReduceMax <keepdims: int = 0> (t)", "between -2 and 0")])
def test_how_far_a_result_reaches_is_read_from_the_graph(bench, body, said):
    """The input is an index along 8 places, so it lies in [-8, 7]."""
    path = bench.text("<float[8] table = {0,0,0,0,0,0,0,0}, int64 two = {2}, int64 three = {3}, int64 one = {1}, "
                      "int64[1] last = {-1}, int64[4] pads = {0, 0, 0, 2}, int64[1,1] at = {0}, "
                      f"int64[1,1] new = {{100}}> {{ t0 = Gather(table, n) {body} }}", inputs="int64[3,4] n",
                      outputs="float[3,4] t0, int64[K] y")
    fixed = bench.fix(path, rules=("int64-to-int32",), check=False)
    assert any(said in change.what for change in fixed.changes), fixed.changes


OPERATIONS = ["Add({0}, {1})", "Sub({0}, {1})", "Mul({0}, {1})", "Div({0}, {1})", "Mod({0}, {1})", "Neg({0})",
              "Abs({0})", "Min({0}, {1})", "Max({0}, {1})", "Identity({0})"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=7), seed=st.integers(0, 999))
def test_random_arithmetic_answers_the_same_in_int32(bench, operations, seed):
    """On every value that an index can have, also where a product grows beyond int32 and has to stay."""
    from kit.graph import RULES, files
    from kit.graph.rule import Setting, apply

    random = np.random.default_rng(seed)
    names, lines = ["n"], []
    constants = {f"c{at}": int(value) for at, value in enumerate(random.choice([-70000, -3, -1, 1, 2, 7, 50000], 4))}
    for at, operation in enumerate(operations):
        right = random.choice(list(constants)) if "Div" in operation or "Mod" in operation or random.random() < 0.5 \
            else random.choice(names)
        lines.append(f"a{at} = " + operation.format(random.choice(names), right))
        names.append(f"a{at}")
    weights = ", ".join(f"int64 {name} = {{{value}}}" for name, value in constants.items())
    path = bench.text(f"<float[9] table = {{0,0,0,0,0,0,0,0,0}}, {weights}> {{ t = Gather(table, n) {' '.join(lines)} "
                      f"y = Identity({names[-1]}) }}", inputs="int64[18] n", outputs="float[18] t, int64[18] y")
    setting = Setting(files.open_graph(path))
    apply([RULES["int64-to-int32"]], setting)
    files.write(setting.model, bench.folder / "after.onnx")
    same(path, bench.folder / "after.onnx", n=np.arange(-9, 9))
    assert apply([RULES["int64-to-int32"]], Setting(files.open_graph(bench.folder / "after.onnx")))[0] == []
