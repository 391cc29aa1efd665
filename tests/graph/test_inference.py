"""Types and shapes are found as onnx-ir's own pass finds them, with weights left where they are."""

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import pytest
from onnx import helper
from onnx_graphs import BOOL, FLOAT, INT64, line, node, save

from kit.graph.files import open_graph
from kit.graph.inference import infer, infer_again


def known(model):
    return {value.name: (value.dtype, None if value.shape is None else tuple(map(str, value.shape)))
            for each in ir.traversal.RecursiveGraphIterator(model.graph) for value in each.outputs}


def computed_shape(path):
    return line(path, node("Shape", ["x"], ["s"]), node("Gather", ["s", "first"], ["n"]),
                node("Concat", ["n", "rest"], ["wanted"], axis=0), node("Reshape", ["x", "wanted"], ["r"]),
                node("MatMul", ["r", "w"], ["y"]), shape=("N", 4, 8, 8), weights={
                    "first": np.int64([0]), "rest": np.int64([256]), "w": np.ones((256, 300), np.float32)})


def foreign(path):
    path = line(path, node("Mystery", ["x"], ["a"], domain="my.own"), node("Relu", ["a"], ["y"]),
                domains={"my.own": 1})
    proto = onnx.load(str(path))
    proto.graph.value_info.append(helper.make_tensor_value_info("a", FLOAT, [1, 4, 8, 8]))
    onnx.save(proto, str(path))
    return path


def branches(path):
    def branch(name, operator):
        return helper.make_graph([helper.make_node(operator, ["x"], [name], name=name)], name, [],
                                 [helper.make_tensor_value_info(name, FLOAT, None)])

    return save(path, [node("If", ["go"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Abs"))],
                {"x": (FLOAT, [1, 4]), "go": (BOOL, [])}, {"y": (FLOAT, None)})


def integers(path):
    return save(path, [node("Add", ["x", "one"], ["a"]), node("Cast", ["a"], ["y"], to=FLOAT)],
                {"x": (INT64, ["N"])}, {"y": (FLOAT, None)}, {"one": np.int64([1])})


@pytest.mark.parametrize("make", [computed_shape, foreign, branches, integers])
def test_the_same_is_found_as_by_the_library(make, tmp_path):
    path = make(tmp_path / "m.onnx")
    theirs = ir.load(path)
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(theirs)
    ours = ir.load(path)
    infer(ours)
    assert known(ours) == known(open_graph(path)) == known(theirs)


def test_what_follows_from_new_axes_is_found_again(tmp_path):
    model = open_graph(computed_shape(tmp_path / "m.onnx"))
    model.graph.inputs[0].shape = ir.Shape([2, 4, 8, 8])
    infer_again(model)
    assert known(model)["y"][1] == ("2", "300")


def test_a_model_that_onnx_fails_on_stays_as_it_is(tmp_path):
    model = ir.load(line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"])))
    model.opset_imports[""] = 9999
    before = known(model)
    infer(model)
    assert known(model) == before
