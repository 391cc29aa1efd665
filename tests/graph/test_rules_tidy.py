"""What computes nothing, is constant, or is there for nobody."""

from __future__ import annotations

import numpy as np
import pytest

MATRIX = {"inputs": "float[N,5,6] x", "outputs": "float[N,5,6] y"}
ONES = "<float one={1.0}, float[1] zero={0.0}, float two={2.0}>"
GONE = {
    "drop-identity": ("{i = Identity(x) j = Relu(i) y = Identity(j)}", {}, {"Relu": 1}),
    "drop-neutral": (ONES + "{a = Mul(one, x) b = Add(a, zero) c = Sub(b, zero) d = Div(c, one) y = Relu(d)}", {},
                     {"Relu": 1}),
    "drop-dropout": ("{d = Dropout(x) y = Relu(d)}", {}, {"Relu": 1}),
    "drop-casts": ("{c = Cast <to: int = 1> (x) y = Relu(c)}", {}, {"Relu": 1}),
    "drop-reshapes": ("<int64[2] flat={0,-1}, int64[3] back={-1,5,6}> {f = Reshape(x, flat) b = Reshape(f, back) "
                      "y = Relu(b)}", MATRIX, {"Reshape": 1, "Relu": 1}),
    "drop-transposes": ("{t = Transpose <perm: ints = [0, 2, 1]> (x) u = Transpose <perm: ints = [0, 2, 1]> (t) "
                        "y = Relu(u)}", MATRIX, {"Relu": 1}),
    "drop-flatten": ("{f = Flatten <axis: int = 2> (x) s = Softmax <axis: int = -1> (f) h = Shape(x) "
                     "y = Reshape(s, h)}", MATRIX, {"Softmax": 1}),
    "drop-unused": (ONES + "{a = Abs(x) b = Add(a, two) y = Relu(x)}", {}, {"Relu": 1}),
}  # fmt: skip


@pytest.mark.parametrize("rule", GONE)
def test_it_goes_and_the_answer_stays(bench, rule):
    body, how, left = GONE[rule]
    fixed = bench.promises(bench.text(body, **how), rule)
    assert fixed.operators_after == left
    assert fixed.model.outputs[0].name == "y"


def test_three_transposes_become_one(bench):
    path = bench.text("{t = Transpose <perm: ints = [1, 2, 0]> (x) u = Transpose <perm: ints = [1, 2, 0]> (t) "
                      "v = Transpose <perm: ints = [0, 2, 1]> (u) y = Relu(v)}", inputs="float[N,5,6] x",
                      outputs="float[6,5,N] y")
    assert bench.promises(path, "drop-transposes").operators_after == {"Relu": 1, "Transpose": 1}


def test_unused_weights_go_one_by_one_by_name(bench):
    fixed = bench.promises(bench.text(ONES + "{y = Mul(x, two)}"), "drop-unused")
    assert [change.id for change in fixed.changes] == ["drop-unused:one", "drop-unused:zero"]


KEPT = {
    "an Identity from input to output": (
        "drop-identity", "{y = Identity(x)}", {}, "it makes the output 'y' straight from an input or weight"),
    "two outputs of one value": (
        "drop-identity", "{y = Relu(x) z = Identity(y)}", {"outputs": "float[N,4,6,6] y, float[N,4,6,6] z"},
        "'y' and 'z' are both outputs of the model"),
    "a constant that adds an axis": (
        "drop-neutral", "<float[1,1,1,1] one={1.0}> {y = Mul(x, one)}",
        {"inputs": "float[N,6] x", "outputs": "float[1,1,N,6] y"}, "it may add axes: its constant has 4, and x 2"),
    "a Cast that rounds": (
        "drop-casts", "{i = Cast <to: int = 7> (x) y = Cast <to: int = 1> (i)}", {},
        "INT64 in between does not hold every FLOAT: the first Cast changes values"),
    "a Reshape to a computed shape": (
        "drop-reshapes", "<int64[2] flat={0,-1}> {s = Shape(x) f = Reshape(x, flat) y = Reshape(f, s)}", MATRIX,
        "Shape is not a constant"),
    "a Softmax over two axes": (
        "drop-flatten", "{f = Flatten <axis: int = 1> (x) s = Softmax <axis: int = -1> (f) h = Shape(x) "
        "y = Reshape(s, h)}", MATRIX, "joins several axes"),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
def test_it_is_left_alone_and_says_why(bench, case):
    rule, body, how, reason = KEPT[case]
    said = bench.reason(bench.text(body, **how), rule)
    assert reason in said


def test_a_transpose_alone_is_no_business_of_the_rule(bench):
    path = bench.text("{y = Transpose <perm: ints = [0, 2, 1]> (x)}", inputs="float[N,5,6] x", outputs="float[N,6,5] y")
    assert bench.fix(path, rules=("drop-transposes",)).left_alone == ()


def test_dropout_in_training_mode_is_left_alone(bench):
    path = bench.text("<bool on={1}, float half={0.5}> {y = Dropout(x, half, on)}")
    assert "training mode" in bench.reason(path, "drop-dropout", check=False)


def test_a_cast_over_a_wider_type_reads_the_source(bench):
    path = bench.text("{d = Cast <to: int = 11> (x) h = Cast <to: int = 10> (d) y = Cast <to: int = 1> (h)}")
    assert bench.promises(path, "drop-casts").operators_after == {"Cast": 2}


def test_casts_there_and_back_over_a_wider_type_go(bench):
    path = bench.text("{d = Cast <to: int = 11> (x) f = Cast <to: int = 1> (d) y = Relu(f)}")
    assert bench.promises(path, "drop-casts").operators_after == {"Relu": 1}


def test_a_node_inside_a_branch_is_tidied_too(bench):
    body = "{s = ReduceSum <keepdims: int = 0> (x) z = Cast <to: int = 9> (s) y = If (z) <then_branch = a () => " \
           "(float[N,4,6,6] p) {i = Identity(x) p = Relu(i)}, else_branch = b () => (float[N,4,6,6] q) {q = Abs(x)}>}"
    path = bench.text(body)
    assert "Identity" not in bench.promises(path, "drop-identity").operators_after


# --- rules about the model as a whole


def test_constants_are_computed_once(bench):
    body = "<float a={2.0}, float b={3.0}> {s = Add(a, b) r = Sqrt(s) y = Mul(x, r)}"
    fixed = bench.promises(bench.text(body), "fold-constants")
    assert fixed.operators_after == {"Mul": 1}
    assert fixed.changes[0].what == "computed ahead: 1 Add, 1 Sqrt"


def test_what_depends_on_an_input_or_on_chance_is_not_constant(bench):
    body = "<float a={2.0}> {r = RandomNormal <shape: ints = [1]> () s = Mul(r, a) t = Add(x, s) y = Mul(t, a)}"
    fixed = bench.fix(bench.text(body), rules=("fold-constants",), check=False)
    assert fixed.changes == ()


def test_constant_nodes_become_initializers(bench):
    body = "{two = Constant <value = float {2.0}> () m = Mul(x, two) t = Constant <value = float {3.0}> () " \
        "y = Add(m, t)}"
    fixed = bench.promises(bench.text(body), "lift-constants")
    assert fixed.operators_after == {"Mul": 1, "Add": 1}
    assert fixed.changes[0].what == "2 Constant nodes became initializers"


@pytest.mark.parametrize("body", [
    "{y = Constant <value = float {2.0}> ()}",
    "<bool go = {1}> {r = If (go) <then_branch = a () => (float p) {p = Constant <value = float {2.0}> ()}, "
    "else_branch = b () => (float q) {q = Constant <value = float {3.0}> ()}> y = Mul(x, r)}"])
def test_a_constant_node_that_is_an_output_itself_stays(bench, body):
    fixed = bench.fix(bench.text(body, outputs="float y" if "Mul" not in body else "float[N,4,6,6] y"),
                      rules=("lift-constants",), check=False)
    assert fixed.changes == ()


def test_equal_weights_are_stored_once(bench):
    import onnx

    body = "<float[6] a={1.0,2.0,3.0,4.0,5.0,6.0}, float[6] b={1.0,2.0,3.0,4.0,5.0,6.0}> {m = Mul(x, a) y = Add(m, b)}"
    fixed = bench.promises(bench.text(body), "merge-initializers")
    assert fixed.changes[0].what == "1 weights that repeat another one are gone"
    assert len(onnx.load(str(fixed.model.path)).graph.initializer) == 1


def test_functions_become_their_bodies(bench):
    import onnx

    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "own": 1]> net (float[N,4,6,6] x) => (float[N,4,6,6] y) '
        '{y = own.twice(x)}'
        '<domain: "own", opset_import: ["": 17]> twice (a) => (b) {t = Relu(a) b = Add(t, t)}')
    fixed = bench.promises(bench.save(proto), "inline-functions")
    assert fixed.operators_after == {"Relu": 1, "Add": 1}


def test_the_opset_is_raised_when_asked(bench):
    path = bench.text("{s = Softmax <axis: int = 3> (x) y = Relu(s)}", opset=11, ir_version=6)
    assert bench.fix(path, rules=("raise-opset",)).changes == ()
    fixed = bench.promises(path, "raise-opset", opset=17)
    assert (fixed.model.opset, fixed.operators_after) == (17, {"Softmax": 1, "Relu": 1})


def test_a_newer_ir_version_is_stamped_down_when_the_opset_allows(bench):
    path = bench.text("{y = Relu(x)}", ir_version=10)
    fixed = bench.promises(path, "lower-ir-version", ir_version=8)
    assert fixed.model.ir_version == 8


def test_an_opset_that_needs_the_newer_ir_version_is_left_alone(bench):
    path = bench.text("{y = Gelu(x)}", opset=21, ir_version=10)
    assert bench.reason(path, "lower-ir-version", ir_version=8) == (
        "opset 21 needs IR version 10, more than the 8 asked for: export with a lower opset")


def test_a_weight_kept_as_an_output_survives(bench):
    import onnx

    proto = onnx.load(str(bench.text("<float[1] w={2.0}> {y = Relu(x)}", outputs="float[N,4,6,6] y, float[1] w")))
    fixed = bench.fix(bench.save(proto))
    assert fixed.changes == ()
    assert np.array_equal(onnx.numpy_helper.to_array(proto.graph.initializer[0]), [2.0])
