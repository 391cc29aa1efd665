"""Custom operators put into graphs that are built by hand; no framework."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kit.errors import BadInput
from kit.exporting import ExportOptions
from kit.exporting.custom_operators import outline, parse


def model(nodes, weights=(), shape=(1, 8, 4, 4), outputs=("y",), opset=17):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answers(proto, feed):
    onnx.checker.check_model(proto)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": feed})


def silu(given, label):
    return [helper.make_node("Sigmoid", [given], [f"{label}_s"], name=f"/{label}/Sigmoid"),
            helper.make_node("Mul", [given, f"{label}_s"], [f"{label}"], name=f"/{label}/Mul")]


def gelu(given, label, order):
    mul, one, half, root = f"{label}_m", "one", "half", "root"
    nodes = [helper.make_node("Div", [given, root], [f"{label}_d"]), helper.make_node("Erf", [f"{label}_d"],
                                                                                    [f"{label}_e"]),
             helper.make_node("Add", [f"{label}_e", one], [f"{label}_a"])]
    if order == "x, half":
        nodes += [helper.make_node("Mul", [given, f"{label}_a"], [mul]), helper.make_node("Mul", [mul, half], [label])]
    elif order == "half, x":
        nodes += [helper.make_node("Mul", [f"{label}_a", half], [mul]), helper.make_node("Mul", [given, mul], [label])]
    else:
        nodes[:0] = [helper.make_node("Mul", [given, half], [mul])]
        nodes += [helper.make_node("Mul", [mul, f"{label}_a"], [label])]
    return nodes, {"one": np.float32(1), "half": np.float32(0.5), "root": np.float32(2**0.5)}


def group_norm(given, label, groups, epsilon, channels=8):
    nodes = [
        helper.make_node("Reshape", [given, f"{label}_g"], [f"{label}_r"]),
        helper.make_node("InstanceNormalization", [f"{label}_r", f"{label}_1", f"{label}_0"], [f"{label}_n"],
                         epsilon=epsilon),
        helper.make_node("Shape", [given], [f"{label}_h"]),
        helper.make_node("Reshape", [f"{label}_n", f"{label}_h"], [f"{label}_b"]),
        helper.make_node("Mul", [f"{label}_b", f"{label}_w"], [f"{label}_v"]),
        helper.make_node("Add", [f"{label}_v", f"{label}_c"], [label])]
    random = np.random.default_rng(len(label))
    return nodes, {f"{label}_g": np.array([0, groups, -1]), f"{label}_1": np.ones(groups, np.float32),
                   f"{label}_0": np.zeros(groups, np.float32),
                   f"{label}_w": random.standard_normal((channels, 1, 1)).astype(np.float32),
                   f"{label}_c": random.standard_normal((channels, 1, 1)).astype(np.float32)}


def feed(shape=(1, 8, 4, 4)):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def changed(proto, operators, modules=None):
    before = answers(proto, feed())
    made, said = outline(proto, list(operators.items()), modules or {})
    for expected, found in zip(before, answers(made, feed()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return made, said


@pytest.mark.parametrize("order", ["x, half", "half, x", "half first"])
def test_gelu_is_found_in_every_order_of_its_products(order):
    nodes, weights = gelu("x", "y", order)
    made, said = changed(model(nodes, weights), {"GELU": "gelu"})
    assert [node.op_type for node in made.graph.node] == ["gelu"]
    assert said.rows[0].inputs == 1
    assert not made.graph.initializer, "its numbers are in the function"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1e-6, 1e-5, 1e-2])), min_size=1, max_size=4))
def test_normalisations_are_one_operator_whatever_their_groups_and_epsilon(kinds):
    nodes, weights, given_ = [], {}, "x"
    for at, (groups, epsilon) in enumerate(kinds):
        label = "y" if at == len(kinds) - 1 else f"t{at}"
        more, numbers = group_norm(given_, f"n{label}", groups, epsilon)
        nodes += more + silu(f"n{label}", label)
        weights |= numbers
        given_ = label
    made, said = changed(model(nodes, weights), {"GroupNorm+SiLU": "own.domain::groupnorm_silu"})
    assert [(row.operator, row.count, row.inputs) for row in said.rows] == [
        ("own.domain::groupnorm_silu", len(kinds), 3)]
    assert {node.op_type for node in made.graph.node} == {"groupnorm_silu"}
    assert ("epsilon" in said.rows[0].attributes) == (len({epsilon for _, epsilon in kinds}) > 1)
    assert ("shape" in said.rows[0].attributes) == (len({groups for groups, _ in kinds}) > 1)


def test_a_value_read_elsewhere_keeps_a_chain_apart():
    nodes, weights = group_norm("x", "n", 4, 1e-5)
    proto = model([*nodes, *silu("n", "s"), helper.make_node("Add", ["s", "n"], ["y"])], weights)
    with pytest.raises(BadInput, match="nowhere in the model"):
        outline(proto, [("GroupNorm+SiLU", "gns")], {})
    made, said = changed(proto, {"GroupNorm": "gn", "SiLU": "silu"})
    assert [node.op_type for node in made.graph.node] == ["gn", "silu", "Add"]
    assert not said.notes


def test_a_module_is_known_by_the_place_in_its_nodes_names():
    nodes = [*silu("x", "a.0/act"), *silu("a.0/act", "b"), helper.make_node("Relu", ["b"], ["y"], name="/Relu")]
    modules = {"a": "ModuleList", "a.0": "Block", "a.0.act": "Act", "b": "Act"}
    made, said = changed(model(nodes), {"Act": "act"}, modules)
    assert [node.op_type for node in made.graph.node] == ["act", "act", "Relu"]
    assert len({node.name for node in made.graph.node}) == 3
    assert said.rows[0].count == 2


def test_a_place_with_other_nodes_between_is_left_and_told():
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="/m/Relu"), helper.make_node("Exp", ["a"], ["b"], name="/Exp"),
             helper.make_node("Add", ["a", "b"], ["y"], name="/m/Add")]
    made, said = outline(model(nodes), [("Odd", "odd")], {"m": "Odd"})
    assert [node.op_type for node in made.graph.node] == ["Relu", "Exp", "Add"]
    assert "left as they are" in said.notes[0]


def test_modules_that_compute_otherwise_get_names_of_their_own():
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="/p/Relu"),
             helper.make_node("Exp", ["a"], ["y"], name="/q/Exp")]
    _, said = changed(model(nodes), {"Act": "act"}, {"p": "Act", "q": "Act"})
    assert [row.operator for row in said.rows] == ["kit.custom::act", "kit.custom::act_2"]


@pytest.mark.parametrize("pairs", [{"GroupNorm": "two words"}, {"+": "a"}, {"A": "com.microsoft::Gelu"}, {"A": "::b"}])
def test_what_maps_nothing_is_refused_with_the_form(pairs):
    with pytest.raises(BadInput) as caught:
        parse(pairs.items())
    assert caught.value.remedy


def test_a_pattern_given_twice_is_refused():
    with pytest.raises(BadInput, match="mapped twice"):
        parse([("A", "b"), ("A", "c")])


def test_options_keep_a_mapping_as_pairs():
    options = ExportOptions(operators={"GroupNorm+SiLU": "gns"})
    assert options.operators == (("GroupNorm+SiLU", "gns"),)
    assert options == ExportOptions(operators=(("GroupNorm+SiLU", "gns"),))
    assert hash(options)
    with pytest.raises(BadInput, match="does not map"):
        ExportOptions(operators={"GroupNorm+SiLU": "group norm silu"})
    with pytest.raises(BadInput, match="does not map"):
        ExportOptions(operators="GroupNorm+SiLU")


def test_an_unknown_pattern_names_words_and_classes():
    with pytest.raises(BadInput, match="'Grouponorm' is nowhere") as caught:
        outline(model(silu("x", "y")), [("Grouponorm", "g")], {"a": "Block"})
    assert "Block" in caught.value.remedy
    assert "GroupNorm" in caught.value.remedy
