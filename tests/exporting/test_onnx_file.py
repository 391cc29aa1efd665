"""The last touches: names, metadata, checks; and that they change no answer."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.exporting import onnx_file
from kit.model import Model, TensorSpec
from kit.runner import open_runner

X = (TensorSpec("x", "float32", ("N", 3, "H", "W")),)


def raw(nodes=None, opset=17):
    """What a converter gives: weights as Constant nodes, nameless nodes, axes of its own naming."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32), "w")
    nodes = nodes or [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Conv", ["x", "w"], ["c"], "Same"),
        helper.make_node("Relu", ["c"], ["r"], "Same"),
        helper.make_node("Relu", ["r"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["DynamicDimension.0", 3, "D.1", "D.2"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["D.3", 2, "D.4", "D.5"])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_tidying_names_everything_and_changes_no_answer(tmp_path):
    nameless, proto = raw(), raw()
    for node in nameless.graph.node:
        node.ClearField("name")  # a name given twice, which ONNX Runtime would refuse
    onnx.save(nameless, str(tmp_path / "before.onnx"))
    onnx_file.tidy(proto, X, name="net", producer=("tool", "1.2"))
    onnx_file.add_metadata(proto, {"b": "2", "a": "1"})
    onnx_file.write(proto, tmp_path / "after.onnx", check=True)
    model = Model.open(tmp_path / "after.onnx")
    # Shape inference carries the batch, not what a Conv makes of height and width.
    assert [str(s) for s in (*model.inputs, *model.outputs)] == ["x float32[N, 3, H, W]", "y float32[N, 2, y_2, y_3]"]
    assert model.producer == "tool 1.2"
    assert list(model.metadata) == ["a", "b"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["w"]
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == 3
    assert all(names)
    feed = {"x": np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)}
    with open_runner(tmp_path / "before.onnx") as before, open_runner(tmp_path / "after.onnx") as after:
        assert (before(feed)["y"] == after(feed)["y"]).all()


def test_an_axis_can_be_fixed(tmp_path):
    proto = raw()
    onnx_file.tidy(proto, (TensorSpec("x", "float32", (1, 3, 32, "W")),), name="net", producer=("tool", "1"))
    onnx_file.write(proto, tmp_path / "fixed.onnx", check=True)
    model = Model.open(tmp_path / "fixed.onnx")
    assert model.inputs[0].shape == (1, 3, 32, "W")
    assert model.outputs[0].shape == (1, 2, 32, "y_3")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        proto = raw()
        onnx_file.tidy(proto, X, name="net", producer=("tool", "1"))
        onnx_file.write(proto, tmp_path / f"{name}.onnx", check=False)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_an_output_axis_is_named_after_the_one_input_axis_it_follows():
    proto = raw([helper.make_node("NonZero", ["x"], ["y"])])
    value = proto.graph.output[0].type.tensor_type.shape
    for at, dim in enumerate(value.dim):
        dim.Clear()
        dim.dim_param = f"y_{at}"
    sizes = [(1, 3, 64, 96), (2, 3, 96, 128)]
    runs = [({"x": np.zeros(size)}, [np.zeros((size[0], 2, size[3] // 2, size[3]))]) for size in sizes]
    assert onnx_file.name_outputs(proto, X, runs)
    assert [dim.dim_param for dim in value.dim] == ["N", "y_1", "y_2", "W"]
    assert not onnx_file.name_outputs(proto, X, runs[:1]), "one run shows nothing"


def test_the_checker_names_what_is_wrong(tmp_path):
    proto = raw([helper.make_node("Relu", ["nowhere"], ["y"])])
    with pytest.raises(UnsupportedModel, match="checker") as caught:
        onnx_file.write(proto, tmp_path / "bad.onnx", check=True)
    assert "nowhere" in caught.value.detail


def test_operators_that_nobody_defines_are_all_listed():
    proto = raw([helper.make_node("Strange", ["x"], ["a"], "one", domain="my.ops"),
                 helper.make_node("Strange", ["a"], ["b"], "two", domain="my.ops"),
                 helper.make_node("NoSuchOp", ["b"], ["c"], "three"),
                 helper.make_node("Gelu", ["c"], ["d"], "four"),  # ONNX has it from opset 20 on
                 helper.make_node("FusedConv", ["d"], ["y"], "five", domain="com.microsoft")])
    rows = {row.operator: row for row in onnx_file.unknown_operators(proto)}
    assert set(rows) == {"my.ops::Strange", "NoSuchOp", "Gelu"}
    assert (rows["my.ops::Strange"].count, rows["my.ops::Strange"].where) == (2, "one, two")


def test_operators_are_counted_in_branches():
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "then", [],
                              [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)])
    proto = raw([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)])
    assert onnx_file.operators(proto) == {"Relu": 2, "If": 1}


def test_another_opset_keeps_the_answer_and_an_impossible_one_says_so(tiny_onnx, tmp_path):
    proto = onnx.load(str(tiny_onnx))
    assert onnx_file.version(onnx_file.to_opset(proto, 19, tiny_onnx)) == 19
    gelu = raw([helper.make_node("Gelu", ["x"], ["y"])], opset=20)
    with pytest.raises(ToolFailed, match="opset 20 to 11"):
        onnx_file.to_opset(gelu, 11, tmp_path / "gelu.onnx")


def test_characters_of_a_recogniser_go_into_the_metadata(tmp_path):
    path = tmp_path / "inference.yml"
    path.write_text("Global: {model_name: rec}\nPostProcess:\n  name: CTCLabelDecode\n"
                    "  character_dict: ['中', 'a', '1']\n", encoding="utf-8")
    entries, notes = onnx_file.configuration(path)
    assert entries["character"] == "中\na\n1"
    assert entries["inference.yml"] == path.read_text(encoding="utf-8")
    assert "3 characters" in notes[0]
    assert onnx_file.configuration(None) == ({}, [])


def test_a_large_configuration_is_left_out_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "inference.yml"
    path.write_text("a: " + "x" * 70_000)
    entries, notes = onnx_file.configuration(path)
    assert entries == {}
    assert "larger" in notes[0]
    path.write_text("a: [1,")
    with pytest.raises(BadInput, match="not YAML"):
        onnx_file.configuration(path)
    with pytest.raises(BadInput, match="does not exist"):
        onnx_file.configuration(tmp_path / "gone.yml")
