"""Which nodes stay in float32 and why, and the three files of atc that say so."""

import configparser
import json
import pkgutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quantization_models import conv_net, feeds

import kit.ascend
from kit.ascend.precision.mixed_precision import float_candidates, keep_dtype, mixlist, op_precision_mode
from kit.calibration import calibrate
from kit.errors import BadInput, StaleResult
from kit.layers import sensitivity
from kit.targets.ascend import facts

node = helper.make_node
FAMILIES = {"ascend310", "ascend310p", "ascend310b", "ascend910", "ascend910b", "ascend910_93"}


def outliers(path, *, scale=3000.0, named=True):
    """x in -1..1 -> Conv -> times ``scale`` -> Pow 2 -> Log; beside it a branch that vanishes, with a tiny epsilon."""
    weights = {"w": np.full((2, 3, 1, 1), 10.0, np.float32), "big": np.float32(scale), "two": np.float32(2),
               "small": np.float32(1e-6), "eps": np.float32(1e-12), "one": np.float32(1),
               "lowest": np.float32(-1e9), "none": np.float32(0)}
    nodes = [node("Conv", ["x", "w"], ["a"], "conv"), node("Mul", ["a", "big"], ["b"], "blow"),
             node("Abs", ["b"], ["c"], "abs"), node("Add", ["c", "one"], ["d"], "plus"),
             node("Log", ["d"], ["y"], "log"), node("Mul", ["a", "small"], ["e"], "shrink"),
             node("Mul", ["e", "e"], ["f"], "square"), node("Add", ["f", "eps"], ["g"], "epsilon"),
             node("Sqrt", ["g"], ["h"], "root"), node("Clip", ["h", "lowest"], ["z"], "clip")]
    if not named:
        for one in nodes:
            one.ClearField("name")
    values = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items() if k != "none"]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
                              [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz"], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def pictures(count=3):
    return [{"x": np.random.default_rng(n).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)} for n in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    path = outliers(folder / "outliers.onnx")
    return {"path": path, "calibration": calibrate(path, pictures(), runs=folder)}


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranked")
    path = conv_net(folder / "toy.onnx")
    return {"path": path, "ranking": sensitivity(path, calibrate(path, feeds(4), runs=folder), runs=folder)}


@pytest.fixture(scope="module")
def found(made):
    return float_candidates(made["path"], calibration=made["calibration"])


# ---------------------------------------------------------------------------------------------------- candidates


def test_who_makes_and_who_reads_a_tensor_beyond_float16(made, found):
    sources = {one.node: one.sources for one in found.nodes}
    assert {name for name, why in sources.items() if "overflow" in why} == {"blow", "abs", "plus", "log"}
    evidence = {one.node: one.evidence[0] for one in found.nodes}
    largest = max(float(np.abs(feed["x"].sum(1)).max()) for feed in pictures()) * 10 * 3000
    assert evidence["blow"].startswith("makes 'b', which reaches ")
    assert float(evidence["blow"].split("reaches ")[1].split(" ")[0]) == pytest.approx(largest, rel=1e-3)
    assert evidence["abs"].startswith("reads 'b'")


def test_who_makes_and_who_reads_a_tensor_below_its_normal_numbers(found):
    sources = {one.node: one.sources for one in found.nodes}
    assert {name for name, why in sources.items() if "underflow" in why} == {"shrink", "square", "epsilon", "root",
                                                                              "clip"}
    assert sources["epsilon"] == ("constant", "underflow")
    assert "1e-12 (it is zero in float16)" in next(one.evidence[0] for one in found.nodes if one.node == "epsilon")


def test_the_most_urgent_come_first_and_those_asked_for_before_all(made):
    found = float_candidates(made["path"], calibration=made["calibration"], keep_float=("root",))
    order = [one.sources[0] for one in found.nodes]
    ranks = [("asked", "overflow", "constant", "underflow").index(source) for source in order]
    assert ranks == sorted(ranks)
    assert found.names[0] == "root"
    assert found.nodes[0].evidence[0] == "asked for"
    assert "underflow" in found.nodes[0].sources


def test_a_limit_beyond_float16_is_no_reason_and_a_vanishing_epsilon_is_one(tmp_path):
    path = outliers(tmp_path / "plain.onnx")
    found = float_candidates(path)
    assert found.names == ("epsilon",), "a Clip at -1e9 says the same at minus infinity"
    assert "fp16-constants" not in str(found), "that rule is for large ones"


def test_a_constant_beyond_float16(tmp_path):
    path = outliers(tmp_path / "m.onnx", scale=1e6)
    by_name = {one.node: one for one in float_candidates(path).nodes}
    assert by_name["blow"].sources == ("constant",)
    assert "1e+06 (float16 ends at 65504)" in by_name["blow"].evidence[0]
    assert "fp16-constants" in str(float_candidates(path))


def test_headroom_leaves_room_for_other_data(tmp_path):
    path = outliers(tmp_path / "m.onnx", scale=1500.0)
    calibration = calibrate(path, pictures(), runs=tmp_path)
    reach = calibration_reach(path, calibration)
    assert 0.5 * 65504 < reach < 65504, "else the test says nothing"
    wide, close = (float_candidates(path, calibration=calibration, headroom=room) for room in (1.0, 0.5))
    assert not any("overflow" in one.sources for one in wide.nodes)
    assert any("overflow" in one.sources for one in close.nodes)
    with pytest.raises(BadInput, match="headroom=0"):
        float_candidates(path, headroom=0)


def calibration_reach(path, calibration):
    from kit.int8.quantizable import Network
    from kit.model import Model
    from kit.precisions.half import value_extremes

    return value_extremes(Network.of(path), Model.open(path), calibration)["b"]


def test_the_dearest_layers_of_a_ranking_with_their_share(ranked):
    found = float_candidates(ranked["path"], ranking=ranked["ranking"], groups=1)
    dearest = ranked["ranking"].groups[0]
    assert found.names == dearest.nodes
    assert all("of the INT8 noise" in one.evidence[0] for one in found.nodes)
    assert "not how much float16 loses" in str(found)
    more = float_candidates(ranked["path"], ranking=ranked["ranking"], share=0.95)
    assert set(found.names) < set(more.names)


def test_types_of_the_parser_and_kernels_of_the_chip(ranked):
    names = ("first", "squeeze")
    old, new = (float_candidates(ranked["path"], soc_version=chip, keep_float=names)
                for chip in ("ascend310p3", "Ascend910B3"))
    assert (old.chip, old.nodes[0].types, old.nodes[0].float32) == ("Ascend310P3", ("Conv2D",), False)
    assert new.nodes[0].float32 is None, "Conv2D decides when it is compiled"
    assert sum(old.types.values()) == len(onnx.load(ranked["path"]).graph.node)


@pytest.mark.parametrize(("operator", "axes", "types"), [
    ("Conv", 4, ("Conv2D",)), ("Conv", 5, ("Conv3D",)), ("ConvTranspose", 5, ("Conv3DTranspose",)),
    ("Softmax", 4, ("SoftmaxV2",)), ("Sub", 4, ("Sub",)), ("MaxPool", 4, ("MaxPool", "MaxPoolV3"))])
def test_the_type_that_does_the_work(tmp_path, operator, axes, types):
    shape = [1, 2] + [4] * (axes - 2)
    weights = {"w": np.ones([2, 2] + [1] * (axes - 2), np.float32)}
    inputs = ["x", "w"] if operator in ("Conv", "ConvTranspose") else ["x", "x"] if operator == "Sub" else ["x"]
    more = {"kernel_shape": [1, 1]} if operator == "MaxPool" else {}
    graph = helper.make_graph([node(operator, inputs, ["y"], "n", **more)], "g",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [onnx.numpy_helper.from_array(v, k) for k, v in weights.items() if k in inputs])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    assert float_candidates(tmp_path / "m.onnx", keep_float=("n",)).nodes[0].types == types


def test_a_cube_operator_that_reads_beyond_float16_cannot_be_helped_by_a_list(tmp_path):
    weights = {"big": np.float32(1e5), "w": np.ones((8, 8), np.float32)}
    graph = helper.make_graph(
        [node("Mul", ["x", "big"], ["a"], "blow"), node("MatMul", ["a", "w"], ["y"], "product")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    calibration = calibrate(tmp_path / "m.onnx", [{"x": np.ones((1, 8), np.float32)}] * 2, runs=tmp_path)
    old, new = (float_candidates(tmp_path / "m.onnx", calibration=calibration, soc_version=chip)
                for chip in ("Ascend310P3", "Ascend910B3"))
    assert "cube_fp16in_fp32out" in str(old)
    assert "cube_fp16in_fp32out" not in str(new)
    listed = mixlist(old)
    assert "product" in listed.left_out
    assert "AI CPU" in listed.left_out["product"]
    assert json.loads(listed.text) == {"black-list": {"to-add": ["Mul"]}}
    assert "BatchMatMulV2" in json.loads(mixlist(new).text)["black-list"]["to-add"]


def test_what_does_not_belong_together_is_refused(made, ranked):
    with pytest.raises(StaleResult):
        float_candidates(ranked["path"], calibration=made["calibration"])
    with pytest.raises(BadInput, match="squeeze"):
        float_candidates(ranked["path"], keep_float=("squeze",))
    with pytest.raises(BadInput, match="Ascend310P3"):
        float_candidates(ranked["path"], soc_version="Ascend310P4")


def test_what_is_not_known_is_said(made):
    assert "nothing is known of the values" in str(float_candidates(made["path"]))
    assert "nothing is known" not in str(float_candidates(made["path"], calibration=made["calibration"]))


# ---------------------------------------------------------------------------------------------------- files


def test_keep_dtype_names_nodes_one_a_line_with_evidence(made, found):
    written = keep_dtype(made["path"], found)
    assert written.text.splitlines() == list(found.names)
    assert set(written.entries) <= {one.name for one in onnx.load(made["path"]).graph.node}
    assert "float16 ends at 65504" in written.entries["blow"]
    assert written.flag == "--keep_dtype"
    assert "float16 ends at 65504" in str(written)


def test_keep_dtype_by_type_says_how_many_nodes_come_along(made, found):
    written = keep_dtype(made["path"], found, by="type")
    lines = written.text.splitlines()
    assert len(set(lines)) == len(lines)
    assert {"OpType::Log", "OpType::Mul", "OpType::Abs"} <= set(lines)
    muls = [one.node for one in found.nodes if one.operator == "Mul"]
    assert written.entries["OpType::Mul"].startswith(f"{len(muls)} of 3 nodes: ")
    assert "Every node of these types" in str(written)


@pytest.mark.parametrize("precision", ["origin", "must_keep_origin_dtype"])
def test_keep_dtype_without_effect_is_refused(made, found, precision):
    with pytest.raises(BadInput, match="no effect"):
        keep_dtype(made["path"], found, precision=precision)


def test_names_that_are_not_in_the_file_are_refused_with_the_way_out(tmp_path):
    path = outliers(tmp_path / "m.onnx", named=False)
    found = float_candidates(path)
    assert found.names, "the kit's own names"
    with pytest.raises(BadInput, match="no name at all") as caught:
        keep_dtype(path, found)
    assert "name_nodes" in caught.value.remedy
    assert keep_dtype(path, found, by="type").text == "OpType::Add\n"


def test_a_name_that_cannot_stand_in_an_ini_file(tmp_path):
    proto = onnx.load(outliers(tmp_path / "m.onnx"))
    next(one for one in proto.graph.node if one.name == "epsilon").name = "a=b"
    onnx.save(proto, tmp_path / "m.onnx")
    found = float_candidates(tmp_path / "m.onnx")
    assert keep_dtype(tmp_path / "m.onnx", found).text == "a=b\n"
    with pytest.raises(BadInput, match="a=b"):
        op_precision_mode(tmp_path / "m.onnx", found)


def test_the_mixlist_adds_to_the_black_list_what_is_not_black(made, found):
    # On Ascend910 Log is black by default and Mul is on no list; on Ascend310P3 neither is.
    old = float_candidates(made["path"], calibration=made["calibration"], soc_version="Ascend910B")
    for candidates, listed in ((found, True), (old, False)):
        written = mixlist(candidates)
        added = json.loads(written.text)["black-list"]["to-add"]
        assert ("Log" in added) == listed
        assert {"Mul", "Abs"} <= set(added)
        assert written.entries["Abs"].endswith("grey by default")
    assert "Never dropped anyway: Log" in str(mixlist(old))


def test_the_mixlist_needs_mixed_precision_and_something_to_write(made, found):
    with pytest.raises(BadInput, match="no effect") as caught:
        mixlist(found, precision="fp16")
    assert "mixed_float16" in caught.value.remedy
    assert mixlist(found, precision="allow_mix_precision").text == mixlist(found).text
    log = float_candidates(made["path"], keep_float=("log",), soc_version="Ascend910B")
    assert log.names == ("log", "epsilon")
    only_log = type(log)(log.nodes[:1], log.types, log.model_name, log.chip)
    with pytest.raises(BadInput, match="never drop"):
        mixlist(only_log)


@pytest.mark.parametrize("by", ["node", "type"])
def test_the_ini_file_can_be_read(made, found, by):
    written = op_precision_mode(made["path"], found, by=by)
    read = configparser.ConfigParser(delimiters=("=",))
    read.optionxform = str
    read.read_string(written.text)
    section = {"node": "ByNodeName", "type": "ByOpType"}[by]
    assert dict(read[section]) == dict.fromkeys(written.entries, "high_precision")
    assert read.sections() == [section]
    assert "all_ops_impl_mode.ini" in str(written)


def test_modes_that_are_not_there_or_not_precise(made, found):
    with pytest.raises(BadInput, match="no operator more precise"):
        op_precision_mode(made["path"], found, mode="keep_fp16")
    with pytest.raises(BadInput, match="A2 and A3"):
        op_precision_mode(made["path"], found, mode="enable_float_32_execution")
    new = float_candidates(made["path"], calibration=made["calibration"], soc_version="Ascend910B3")
    written = op_precision_mode(made["path"], new, mode="enable_float_32_execution")
    assert "blow=enable_float_32_execution" in written.text
    with pytest.raises(BadInput, match="by='nodes'"):
        op_precision_mode(made["path"], found, by="nodes")


def test_nothing_to_keep_is_no_file(ranked):
    nothing = float_candidates(ranked["path"])
    assert not nothing
    assert nothing.title().startswith("Nothing says")
    for write in (mixlist, lambda it: keep_dtype(ranked["path"], it), lambda it: op_precision_mode(ranked["path"], it)):
        with pytest.raises(BadInput, match="nothing to write"):
            write(nothing)


def test_no_module_of_the_room_hides_a_public_name():
    assert not {one.name for one in pkgutil.iter_modules(kit.ascend.__path__)} & set(kit.ascend.__all__)
    assert callable(kit.ascend.float_candidates)


@pytest.mark.parametrize("name", ["aipp", "amct", "mixed_precision"])
def test_carried_facts_say_where_they_are_from_and_when(name):
    data = facts(name)
    assert data["source"]
    assert data["checked"].startswith("20")


def test_colours_and_types_are_of_known_families_and_operators():
    data = facts("mixed_precision")
    for kind, colours in data["colours"].items():
        assert set(colours) <= {"white", "black"}, kind
        for families in colours.values():
            assert families == "all" or set(families.split()) <= FAMILIES
    known = facts("operators")["operators"]
    assert {key.split()[0] for key in data["types"]} <= set(known)
