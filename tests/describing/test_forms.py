"""What several nodes are one thing: every way of writing it is found, and nothing that only looks like it."""

import numpy as np
import onnx
import pytest
from onnx_graphs import line, node

from kit.describing.vocabulary import words
from kit.description import describe
from kit.targets.ascend import facts

SCALARS = {"half": 0.5, "one": 1.0, "three": 3.0, "six": 6.0, "zero": 0.0, "sixth": 1 / 6, "root": 2**0.5,
           "two": 2.0, "small": 0.044715, "factor": (2 / np.pi) ** 0.5, "epsilon": 1e-5}


def operators(tmp_path, *nodes, shape=(1, 4, 8, 8), **more):
    names = {name for n in nodes for name in n.input}
    weights = {name: np.float32(value) for name, value in SCALARS.items() if name in names}
    made = describe(line(tmp_path / "m.onnx", *nodes, weights={**weights, **more}, shape=shape))
    return [n.operator for n in made.nodes], made


@pytest.mark.parametrize(("nodes", "name"), [
    ([("Add", "x three", "a"), ("Clip", "a zero six", "b"), ("Div", "b six", "y")], "hard_sigmoid"),
    ([("Add", "three x", "a"), ("Clip", "a zero six", "b"), ("Mul", "sixth b", "y")], "hard_sigmoid"),
    ([("Add", "x three", "a"), ("Clip", "a zero six", "b"), ("Div", "b six", "c"), ("Mul", "c x", "y")], "hard_swish"),
    ([("Add", "x three", "a"), ("Clip", "a zero six", "b"), ("Mul", "x b", "c"), ("Div", "c six", "y")], "hard_swish"),
    ([("Sigmoid", "x", "a"), ("Mul", "a x", "y")], "swish"),
    ([("Mul", "x one", "a"), ("Sigmoid", "a", "b"), ("Mul", "x b", "y")], "swish"),
    ([("Softplus", "x", "a"), ("Tanh", "a", "b"), ("Mul", "x b", "y")], "mish"),
    ([("Div", "x root", "a"), ("Erf", "a", "b"), ("Add", "b one", "c"), ("Mul", "x c", "d"), ("Mul", "d half", "y")],
     "gelu"),
    ([("Mul", "x half", "h"), ("Div", "x root", "a"), ("Erf", "a", "b"), ("Add", "b one", "c"), ("Mul", "h c", "y")],
     "gelu"),
    ([("Pow", "x three", "a"), ("Mul", "a small", "b"), ("Add", "x b", "c"), ("Mul", "c factor", "d"),
      ("Tanh", "d", "e"), ("Add", "e one", "f"), ("Mul", "x half", "g"), ("Mul", "g f", "y")], "gelu"),
])
def test_activations_in_parts_are_one(tmp_path, nodes, name):
    found, made = operators(tmp_path, *[node(kind, ins.split(), [out]) for kind, ins, out in nodes])
    assert found == [name]
    assert len(made.nodes[0].parts) == len(nodes)


def test_other_numbers_make_another_formula(tmp_path):
    found, _ = operators(tmp_path, node("Add", ["x", "two"], ["a"]), node("Clip", ["a", "zero", "six"], ["b"]),
                         node("Div", ["b", "six"], ["y"]))
    assert found == ["add", "clip", "divide"]


def test_a_result_that_is_read_elsewhere_keeps_the_parts(tmp_path):
    found, _ = operators(tmp_path, node("Sigmoid", ["x"], ["a"]), node("Mul", ["a", "x"], ["b"]),
                         node("Sub", ["b", "a"], ["y"]))
    assert sorted(found) == ["multiply", "sigmoid", "subtract"]


def norm_nodes(square):
    return [node("ReduceMean", ["x"], ["m"], axes=[-1]), node("Sub", ["x", "m"], ["d"]), square,
            node("ReduceMean", ["q"], ["v"], axes=[-1]), node("Add", ["v", "epsilon"], ["e"]),
            node("Sqrt", ["e"], ["s"]), node("Div", ["d", "s"], ["n"]), node("Mul", ["n", "g"], ["o"]),
            node("Add", ["o", "b"], ["y"])]


@pytest.mark.parametrize("square", [node("Pow", ["d", "two"], ["q"]), node("Mul", ["d", "d"], ["q"])])
def test_layer_normalization_in_nine_parts_is_one_with_its_epsilon(tmp_path, square):
    ramp = np.arange(8, dtype=np.float32)
    found, made = operators(tmp_path, *norm_nodes(square), shape=(2, 5, 8), g=ramp, b=ramp + 1)
    assert found == ["layer_normalization"]
    assert made.nodes[0].attributes == {"axes": [2], "epsilon": pytest.approx(1e-5)}
    assert len(made.weights) == 2


def test_bias_batch_normalization_and_factors_belong_to_the_convolution(tmp_path):
    ramp = np.arange(1, 5, dtype=np.float32)
    found, made = operators(
        tmp_path, node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "bias"], ["d"]),
        node("BatchNormalization", ["d", "s", "s", "s", "s"], ["e"]), node("Mul", ["e", "bias"], ["f"]),
        node("Relu", ["f"], ["y"]), w=np.ones((4, 4, 3, 3), np.float32), s=ramp, bias=ramp.reshape(4, 1, 1))
    assert found == ["convolution", "relu"]
    assert made.nodes[0].attributes["kernel"] == [3, 3]
    assert made.nodes[0].group == made.nodes[1].group == "convolution + activation #1"


def test_a_constant_that_differs_along_the_rows_is_no_bias(tmp_path):
    found, _ = operators(tmp_path, node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "rows"], ["y"]),
                         w=np.ones((4, 4, 1, 1), np.float32), rows=np.arange(8, dtype=np.float32).reshape(8, 1))
    assert found == ["convolution", "add"]


def test_channels_last_are_described_with_the_channels_first(tmp_path):
    """Transpose, convolution, Transpose, a mean over [1, 2] and a bias along the last axis: as TensorFlow has it."""
    found, made = operators(
        tmp_path, node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["c"]),
        node("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]), node("Add", ["u", "bias"], ["v"]),
        node("Concat", ["v", "v"], ["k"], axis=3), node("ReduceMean", ["k"], ["y"], axes=[1, 2], keepdims=1),
        shape=(1, 6, 6, 3), w=np.ones((4, 3, 1, 1), np.float32), bias=np.arange(4, dtype=np.float32))
    assert found == ["convolution", "concatenate", "global_average_pool"]
    assert len(made.layout_changes) == 2
    assert made.nodes[1].attributes == {"axis": 1}
    assert made.nodes[1].outputs[0].sizes == (1, 8, 6, 6)
    assert made.inputs[0].layout == "last"


def test_a_transpose_that_means_something_stays(tmp_path):
    found, _ = operators(tmp_path, node("Transpose", ["x"], ["a"], perm=[0, 2, 1, 3]), node("Softmax", ["a"], ["y"]))
    assert found == ["transpose", "softmax"]


def test_flattening_channels_last_is_marked_because_the_numbers_come_in_another_order(tmp_path):
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["c"]),
             node("Transpose", ["c"], ["u"], perm=[0, 2, 3, 1]), node("Flatten", ["u"], ["y"])]
    found, made = operators(tmp_path, *nodes, shape=(1, 6, 6, 3), w=np.ones((4, 3, 1, 1), np.float32))
    assert found == ["convolution", "reshape"]
    assert made.nodes[1].attributes == {"reads": "channels last"}
    first, plain = operators(tmp_path, node("Conv", ["x", "w"], ["c"]), node("Flatten", ["c"], ["y"]),
                             shape=(1, 3, 6, 6), w=np.ones((4, 3, 1, 1), np.float32))
    assert first == found
    differences = plain.diff(made)
    assert differences
    assert any(d.operator == "reshape" and d.kind == "layout" for d in differences.differences)


def test_attention_is_marked_as_one_place(tmp_path):
    _, made = operators(
        tmp_path, node("MatMul", ["x", "wq"], ["q"]), node("MatMul", ["x", "wk"], ["k"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), node("MatMul", ["q", "kt"], ["s"]),
        node("Mul", ["s", "half"], ["m"]), node("Softmax", ["m"], ["p"]), node("MatMul", ["p", "x"], ["y"]),
        shape=(1, 5, 8), wq=np.ones((8, 8), np.float32), wk=np.ones((8, 8), np.float32))
    assert [n.operator for n in made.nodes if n.group == "attention #1"] == ["matmul", "multiply", "softmax", "matmul"]


def test_every_onnx_operator_is_listed_once_and_exists():
    listed = [name for entry in words()["operators"].values() for name in entry["onnx"]]
    assert len(listed) == len(set(listed))
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    # Two that the installed onnx is too old for.
    assert {name for name in listed if "::" not in name} - known <= {"RMSNormalization", "Swish"}


def test_forms_and_groups_use_words_of_the_vocabulary():
    import ast

    told = {*words()["operators"], *words("fusions")["classes"]}
    for entry in (*words("fusions")["forms"], *words("fusions")["groups"]):
        assert entry["because"]
        for text in entry["patterns"]:
            called = {found.func.id for found in ast.walk(ast.parse(text, mode="eval")) if isinstance(found, ast.Call)}
            assert called <= told, text


def test_most_of_the_vocabulary_has_an_operator_of_cann():
    table = facts("operators")["operators"]
    without = [name for name, entry in words()["operators"].items()
               if entry["onnx"] and not any(onnx_name in table for onnx_name in entry["onnx"])]
    # What ATC has no parser for, by the facts that are carried.
    assert set(without) == {"deformable_convolution", "group_normalization", "rms_normalization", "gelu", "swish",
                            "quantize", "dequantize", "loop", "scan"}
