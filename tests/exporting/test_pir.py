"""Programs as JSON: what is in them, and the repair."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.exporting import pir


def operation(name, attributes=(), shape=(-1, 16), regions=()):
    made = {"#": name, "A": list(attributes), "I": [], "OA": [],
            "O": [{"%": 1, "TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, list(shape), "NCHW", [], 0]}}]}
    return made | ({"regions": [{"#": "region_0", "blocks": [{"#": "b", "ops": list(regions)}]}]} if regions else {})


def program(*operations):
    return {"base_code": {"magic": "pir", "version": 3},
            "program": {"regions": [{"#": "region_0", "blocks": [{"#": "b", "args": [], "ops": list(operations)}]}]}}


def attribute(name, kind, value):
    return {"N": name, "AT": {"#": kind, "D": value}}


def layer(name):
    return attribute("struct_name", "0.a_str", f"/{name}/")


def test_operators_are_counted_in_branches_too_and_the_frame_is_left_out():
    made = program(operation("p"), operation("1.data"), operation("1.relu"), operation("1.add"),
                   operation("1.if", regions=[operation("1.add"), operation("2.yield")]), operation("1.fetch"))
    assert pir.operators(made) == {"add": 2, "relu": 1}


def test_every_unsupported_operator_is_listed_with_count_place_and_advice():
    made = program(operation("1.logit", [layer("Head")]), operation("1.logit", [layer("Neck")]), operation("1.add"),
                   operation("1.hardswish"), operation("1.while", regions=[operation("1.strange", shape=(2, -1))]))
    rows = pir.unsupported(made, ["elementwise_add", "hard_swish"])
    assert [(row.operator, row.count, row.where) for row in rows] == [
        ("logit", 2, "Head, Neck"), ("strange", 1, "makes [2, ?]")]
    assert "paddle.log" in rows[0].advice
    assert "rewrite" in rows[1].advice


def test_a_supported_operator_is_known_by_either_name():
    made = program(operation("1.batch_norm_"), operation("1.matmul"), operation("1.conv2d"))
    assert pir.unsupported(made, ["batch_norm", "matmul_v2", "conv2d"]) == ()


def test_64_bit_attributes_become_32_bit_and_constants_stay():
    made = program(
        operation("1.nearest_interp", [attribute("scale", "0.a_array", [{"#": "0.a_f64", "D": 2.0}] * 1),
                                       attribute("align_corners", "0.a_bool", False)]),
        operation("1.group_norm", [attribute("epsilon", "0.a_f64", 1e-5)]),
        operation("1.full", [attribute("value", "0.a_f64", 0.1)]),
        operation("1.assign_value_", [attribute("values", "0.a_array", [{"#": "0.a_f64", "D": 0.1}])]))
    assert pir.narrow(made) == {"group_norm.epsilon": 1, "nearest_interp.scale": 1}
    text = json.dumps(made)
    assert text.count("0.a_f64") == 2
    assert text.count("0.a_f32") == 2
    assert pir.narrow(made) == {}, "there is nothing left to do"


@given(st.lists(st.sampled_from(["0.a_f64", "0.a_f32", "0.a_i32", "0.a_bool"]), max_size=6))
def test_repair_touches_types_only(kinds):
    made = program(*(operation("1.leaky_relu", [attribute("slope", kind, 1)]) for kind in kinds))
    expected = json.dumps(made).replace("0.a_f64", "0.a_f32")
    assert sum(pir.narrow(made).values()) == kinds.count("0.a_f64")
    assert json.dumps(made) == expected


@pytest.mark.parametrize(("content", "words"), [
    ('{"base_code": {}, "program": {"reg', "cut off"), ("", "cut off"), ("[1, 2]", "not a Paddle program"),
    ("null", "not a Paddle program"),
])
def test_a_file_that_is_no_program_is_refused(tmp_path, content, words):
    path = tmp_path / "inference.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=words):
        pir.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.json does not exist"):
        pir.read(tmp_path / "gone.json")
