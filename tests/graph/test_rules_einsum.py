"""Einsum as Transpose, Reshape, MatMul and the like: equations in general, and those of attention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.graph.rules_einsum import Equation, letter_sizes, parse, target

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2}


def einsum(bench, equation: str, *shapes: str, out: str = "A"):
    names = [f"x{at}" for at in range(len(shapes))]
    inputs = ", ".join(f"float[{shape}] {name}" for shape, name in zip(shapes, names, strict=True))
    return bench.text(f'{{y = Einsum <equation: string = "{equation}"> ({", ".join(names)})}}', inputs=inputs,
                      outputs=f"float[{out}] y")


@pytest.mark.parametrize(("equation", "shapes", "out", "operators"), [
    ("bhid,bhjd->bhij", ("N,4,6,5", "N,4,7,5"), "N,4,6,7", {"Transpose": 1, "MatMul": 1}),
    ("bhij,bhjd->bhid", ("N,4,6,7", "N,4,7,5"), "N,4,6,5", {"MatMul": 1}),
    ("i,j->ij", ("5", "6"), "5,6", {"Unsqueeze": 2, "Mul": 1}),
    ("ij->ji", ("5,6",), "6,5", {"Transpose": 1}),
    ("ij->i", ("5,6",), "5", {"ReduceSum": 1}),
    ("bij,bij->b", ("2,3,4", "2,3,4"), "2", {"Reshape": 3, "MatMul": 1}),
    ("abc,cbd->ad", ("2,3,4", "4,3,5"), "2,5", {"Transpose": 1, "Reshape": 2, "MatMul": 1}),
    ("...ij,...jk->...ik", ("2,3,4,5", "2,3,5,6"), "2,3,4,6", {"MatMul": 1}),
    ("nchw,nchw->nchw", ("2,3,4,5", "2,3,4,5"), "2,3,4,5", {"Mul": 1}),
    ("bij,jk,kl", ("N,3,4", "4,5", "5,6"), "N,3,6", {"MatMul": 2, "Reshape": 4}),
    ("nkctv,kvw->nctw", ("2,3,4,5,6", "3,6,7"), "2,4,5,7", {"Transpose": 1, "Reshape": 3, "MatMul": 1}),
])
def test_an_equation_becomes_products_that_answer_the_same(bench, equation, shapes, out, operators):
    fixed = bench.promises(einsum(bench, equation, *shapes, out=out), "einsum-to-matmul")
    assert fixed.operators_after == operators


def test_an_equation_that_changes_nothing_is_bypassed(bench):
    path = bench.text('{z = Relu(x) y = Einsum <equation: string = "nchw->nchw"> (z)}')
    assert bench.promises(path, "einsum-to-matmul").operators_after == {"Relu": 1}


@pytest.mark.parametrize(("equation", "shapes", "reason"), [
    ("ii->i", ("5,5",), "'ii->i' takes a diagonal: a letter occurs twice in 'ii'"),
    ("abcd,cde->abe", ("I,J,K,L", "K,L,5"), "the sizes of its axes a, b, c, d are not known: fix the input shapes"),
    ("bij,bjk->bik", ("1,3,4", "2,4,5"), "axis b has size 1 in one operand and 2 in another: one is spread out"),
])
def test_what_cannot_be_written_so_is_left_alone(bench, equation, shapes, reason):
    assert bench.reason(einsum(bench, equation, *shapes, out="O,P"), "einsum-to-matmul", check=False) == reason


def test_one_unknown_size_in_a_group_is_enough(bench):
    path = einsum(bench, "abc,cbd->ad", "M,3,K", "K,3,5", out="M,5")
    assert bench.promises(path, "einsum-to-matmul").operators_after == {"Transpose": 1, "Reshape": 2, "MatMul": 1}


def test_a_type_that_matmul_does_not_take_is_left_alone(bench):
    path = bench.text('{y = Einsum <equation: string = "ij,jk->ik"> (a, b)}', inputs="int8[2,3] a, int8[3,4] b",
                      outputs="int8[2,4] y")
    assert bench.reason(path, "einsum-to-matmul", check=False) == "MatMul does not take int8"


@pytest.mark.parametrize(("text", "ranks", "said"), [
    ("ij,jk", (2, 2), Equation(("ij", "jk"), "ik")), (" i j -> j i ", (2,), Equation(("ij",), "ji")),
    ("...i,i...->...", (3, 3), Equation(("ABi", "iAB"), "AB")), ("...j", (3,), Equation(("ABj",), "ABj")),
    ("ij", (2, 2), "the equation 'ij' is for 1 operands, and it has 2"),
    ("i->j", (1,), "'i->j' gives j, which no operand has"),
    ("...i->...", (None,), "the rank of an operand is not known, and with it what ... stands for in '...i->...'")])
def test_equations_are_read(text, ranks, said):
    assert parse(text, ranks) == said


def test_a_reshape_is_told_one_unknown_size_at_most():
    assert target(["b", "i", "j"], ["b", "ij"], {"b": None, "i": None, "j": 4}) == [0, -1]
    with pytest.raises(KeyError) as caught:
        target(["i", "j"], ["ij", "k", ""], {"i": None, "j": 4, "k": None})
    assert caught.value.args == ("i", "k")
    assert letter_sizes(Equation(("ab", "bc"), "ac"), [[2, None], [3, None]]) == {"a": 2, "b": 3, "c": None}


@st.composite
def equations(draw):
    some = st.lists(st.sampled_from("abcde"), max_size=4, unique=True)
    operands = draw(st.lists(some, min_size=1, max_size=3))
    seen = sorted({letter for operand in operands for letter in operand})
    result = draw(st.permutations(draw(st.lists(st.sampled_from(seen), unique=True)))) if seen else []
    return ",".join("".join(operand) for operand in operands) + "->" + "".join(result)


@given(equation=equations())
@settings(max_examples=60, deadline=None)
def test_every_equation_of_different_letters_can_be_written_and_answers_like_numpy(equation):
    import onnx
    import onnx_ir as ir
    import onnxruntime as ort

    from kit.graph import RULES
    from kit.graph.inference import infer
    from kit.graph.rule import Setting, apply
    from kit.graph.values import name_nodes

    operands, result = equation.split("->")[0].split(","), equation.split("->")[1]
    assume(equation != f"{result}->{result}")  # nothing to do between an input and an output
    shapes = [[SIZES[letter] for letter in operand] for operand in operands]
    names = [f"x{at}" for at in range(len(operands))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Einsum", names, ["y"], equation=equation)], "net",
        [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in zip(names, shapes, strict=True)],
        [onnx.helper.make_tensor_value_info("y", 1, [SIZES[letter] for letter in result])])
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    name_nodes(model)
    infer(model)
    edits, left = apply([RULES["einsum-to-matmul"]], Setting(model))
    assert (len(edits), left) == (1, [])
    random = np.random.default_rng(len(equation))
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name, shape in zip(names, shapes, strict=True)}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, np.einsum(equation, *feeds.values()), rtol=1e-4, atol=1e-4)
