"""One description for a net, whoever exported it: what it says, how it is stored, what two of them differ in."""

import json
import shutil

import numpy as np
import onnx
import pytest
import twin_net
from onnx_graphs import BOOL, FLOAT, line, node, save

import kit
from kit.describing.result import Description
from kit.description import DescribeOptions, describe
from kit.errors import BadInput


@pytest.fixture(scope="module")
def paddle_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paddle")
    return kit.export(twin_net.paddle_saved(folder / "twin"), kit.ExportOptions(compare=False), runs=folder / "runs")


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    return twin_net.keras_onnx({stride: folder / f"twin{stride}.onnx" for stride in (1, 2)})


def operators(path, **options):
    return [n.operator for n in describe(path, DescribeOptions(**options)).nodes]


def test_the_same_net_from_paddle_and_from_keras_differs_in_its_layout_only(paddle_model, keras_files):
    left, right = describe(paddle_model), describe(keras_files[1])
    assert (left.framework, right.framework) == ("paddle", "tensorflow")
    assert [n.operator for n in left.nodes] == [n.operator for n in right.nodes]
    found = left.diff(right)
    assert found
    assert found.structural == ()
    assert {d.kind for d in found.differences} == {"layout"}
    assert "1x3x16x16 against 1x16x16x3 NHWC" in str(found)
    assert found.title().endswith("the same net, but for its layout")
    assert found.weights["same"] == 2, "the last layer's weights were set alike; the others have folded factors"


def test_and_the_two_answer_alike(paddle_model, keras_files):
    picture = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    with kit.open_runner(paddle_model) as one, kit.open_runner(keras_files[1]) as other:
        (left,), (right,) = one({"x": picture}).values(), other({"x": picture.transpose(0, 2, 3, 1)}).values()
    assert np.allclose(left, right, atol=1e-6)


def test_what_the_converters_do_differently_is_told_by_attribute_and_shape(paddle_model, keras_files):
    """padding="same" with stride 2 pads at the end only: the classic trap when weights are moved by hand."""
    found = describe(paddle_model).diff(describe(keras_files[2]))
    assert not found
    first = [d.what for d in found.structural if d.left == "n0"]
    assert "pads [1, 1, 1, 1] against [0, 0, 1, 1]" in first
    assert "strides [1, 1] against [2, 2]" in first
    assert found.of("shape")
    assert not found.of("operator")


def test_every_node_has_its_names_in_the_framework_in_onnx_and_on_the_target(paddle_model, keras_files):
    first = describe(paddle_model).nodes[0]
    assert (first.joined("onnx"), first.joined("source"), first.joined("target")) == (
        "Conv+Add+BatchNormalization", "conv2d+add+batch_norm_", "Conv2D+Add+BatchNorm")
    swish = describe(keras_files[1]).nodes[1]
    assert (swish.operator, swish.joined("source")) == ("hard_swish", "AddV2+Relu6+RealDiv+Mul")
    assert first.group == "convolution + activation #1"


def test_a_source_operator_that_the_file_does_not_tell_is_unknown(tiny_onnx):
    made = describe(tiny_onnx)
    assert made.framework == "unknown"
    assert {part.source for n in made.nodes for part in n.parts} == {"unknown"}


def test_pytorch_leaves_its_operator_in_the_metadata_of_a_node(tmp_path):
    path = line(tmp_path / "m.onnx", node("Gelu", ["x"], ["y"]), opset=20, ir_version=10)
    proto = onnx.load(path)
    proto.producer_name = "pytorch"
    proto.graph.node[0].metadata_props.add(key="namespace", value="net: Net/act: GELU/gelu: aten.gelu.default")
    onnx.save(proto, path)
    part = describe(path).nodes[0].parts[0]
    assert (part.source, part.target) == ("gelu", ""), "ATC has no parser for Gelu"


def test_it_is_the_same_in_whatever_order_the_file_lists_its_nodes(tmp_path):
    branches = [node("Relu", ["x"], ["a"]), node("Sigmoid", ["x"], ["b"]), node("Conv", ["b", "w"], ["c"])]
    weights = {"w": np.ones((4, 4, 1, 1), np.float32)}
    one = line(tmp_path / "one.onnx", *branches, node("Add", ["a", "c"], ["y"]), weights=weights)
    other = line(tmp_path / "other.onnx", *branches[1:], branches[0], node("Add", ["c", "a"], ["y"]), weights=weights)
    left, right = describe(one), describe(other)
    assert [(n.name, n.operator, n.inputs) for n in left.nodes] == [(n.name, n.operator, n.inputs) for n in right.nodes]
    assert left.diff(right).differences == ()


def test_attributes_are_filled_in_and_written_one_way(tmp_path):
    made = describe(line(
        tmp_path / "m.onnx", node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("ReduceMean", ["c"], ["r"], axes=[-1], keepdims=1), node("Clip", ["r", "low", "high"], ["k"]),
        node("Softmax", ["k"], ["y"], axis=-3), shape=(1, 4, 9, 8),
        weights={"w": np.ones((4, 4, 3, 3), np.float32), "low": np.float32(0), "high": np.float32(6)}))
    told = {n.operator: n.attributes for n in made.nodes}
    # 9 rows make 5: 2 * 4 + 3 - 9 = 2 more are needed; 8 columns make 4: 2 * 3 + 3 - 8 = 1 more, at the end.
    assert told["convolution"] == {"dilations": [1, 1], "groups": 1, "kernel": [3, 3], "pads": [1, 0, 1, 1],
                                   "strides": [2, 2]}
    assert told["reduce_mean"] == {"axes": [3], "keepdims": 1}
    assert told["clip"] == {"min": 0.0, "max": 6.0}
    assert told["softmax"] == {"axis": 1}


def test_what_stands_for_nothing_is_counted_and_not_described(tmp_path):
    path = line(tmp_path / "m.onnx", node("Identity", ["x"], ["a"]), node("Dropout", ["a"], ["b"]),
                node("Shape", ["b"], ["s"]), node("Reshape", ["b", "s"], ["c"]), node("Relu", ["c"], ["y"]))
    made = describe(path)
    assert [n.operator for n in made.nodes] == ["relu"]
    assert made.nodes[0].inputs == ("in0",)
    assert {"Identity", "Dropout"} <= set(made.dropped)


def test_bodies_of_branches_are_described_after_the_rest(tmp_path):
    from onnx import helper

    bodies = [helper.make_attribute(name, helper.make_graph(
        [helper.make_node(kind, ["a"], [f"{name}_y"], f"{name}_node")], name, [],
        [helper.make_tensor_value_info(f"{name}_y", FLOAT, [1, 4, 8, 8])]))
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Sigmoid"))]
    choice = helper.make_node("If", ["c"], ["y"], "choice")
    choice.attribute.extend(bodies)
    path = save(tmp_path / "m.onnx", [node("Tanh", ["x"], ["a"]), choice],
                {"x": (FLOAT, [1, 4, 8, 8]), "c": (BOOL, [1])}, {"y": (FLOAT, None)})
    made = describe(path)
    assert [n.operator for n in made.nodes] == ["if", "tanh", "relu", "sigmoid"]
    assert [n.scope for n in made.nodes[2:]] == [("choice",), ("choice",)]


def test_it_is_stored_as_json_that_reads_back_the_same(paddle_model, tmp_path):
    made = describe(paddle_model)
    path = made.save(tmp_path / "net.json")
    assert Description.load(path) == made
    told = json.loads(path.read_text(encoding="utf-8"))
    assert (told["format"], told["version"]) == ("kit-description", 1)
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "words"), [
    ("{}", "no description of version 1"), ("not json", "no JSON"),
    ('{"format": "kit-description", "version": 1, "file": 3}', "damaged")])
def test_another_file_is_refused(tmp_path, text, words):
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=words):
        Description.load(path)


def test_weights_are_told_by_digest_and_figures_or_by_shape_only(tmp_path):
    numbers = np.float32([[1, 2], [3, 6]])
    path = line(tmp_path / "m.onnx", node("MatMul", ["x", "w"], ["y"]), weights={"w": numbers}, shape=(1, 2))
    (read,) = describe(path).weights
    assert (read.least, read.largest, read.mean) == (1, 6, 3)
    assert read.deviation == pytest.approx(numbers.std(), rel=1e-6)
    (unread,) = describe(path, DescribeOptions(weights=False)).weights
    assert (unread.shape, unread.digest, unread.mean) == ((2, 2), "", None)


def test_weights_beside_the_file_are_read_where_they_lie(tmp_path):
    weights = {"w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    inside = line(tmp_path / "in.onnx", node("MatMul", ["x", "w"], ["y"]), weights=weights, shape=(1, 64))
    outside = tmp_path / "out.onnx"
    onnx.save(onnx.load(inside), outside, save_as_external_data=True, size_threshold=0)
    assert describe(inside).diff(describe(outside)).weights == {"same": 1}


def test_a_kernel_stored_the_other_way_round_holds_the_same_numbers(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    one = line(tmp_path / "a.onnx", node("MatMul", ["x", "w"], ["y"]), weights={"w": matrix}, shape=(1, 4))
    other = line(tmp_path / "b.onnx", node("Gemm", ["x", "w"], ["y"], transB=1), weights={"w": matrix.T.copy()},
                 shape=(1, 4))
    changed = line(tmp_path / "c.onnx", node("MatMul", ["x", "w"], ["y"]), weights={"w": matrix + 1}, shape=(1, 4))
    assert describe(one).diff(describe(other)).weights == {"alike": 1}
    found = describe(one).diff(describe(changed))
    assert found, "the net is the same: only its numbers are not"
    assert [d.kind for d in found.differences] == ["weights"]


def test_sizes_for_open_axes_can_be_given(tiny_onnx):
    made = describe(tiny_onnx, DescribeOptions(bind=("x=2,3,32,64",)))
    assert made.bound == {"x": "2x3x32x64"}
    assert made.nodes[0].outputs[0].shape == (2, 8, 32, 64)


def test_what_is_no_onnx_file_is_refused_with_the_way_there(tmp_path):
    folder = shutil.copytree(twin_net.__file__.replace("twin_net.py", "graph"), tmp_path / "nothing")
    with pytest.raises(BadInput, match="no model"):
        describe(folder)
    with pytest.raises(BadInput, match="no description"):
        describe(line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]))).diff("m.onnx")
