"""Names of chips and CANN releases: what is taken, and what is answered with the valid ones."""

import pytest
from onnx_graphs import FLOAT, line, node, save

from kit import targets
from kit.errors import BadInput
from kit.inspection.graph import graph_of
from kit.operators import AuditOptions, audit
from kit.targets import ascend


def said(path, cann=None, name="y", chip="ascend310p3"):
    target = targets.get(chip, cann)
    graph = graph_of(path)
    return next(s[0] for n, s in zip(graph.nodes, target.judge(graph), strict=True) if n.name == name)


@pytest.mark.parametrize("name", [entry["soc_version"] for entry in ascend.known_chips().values()])
def test_every_soc_version_is_taken_in_any_case(name):
    for spelt in (name, name.lower(), name.upper()):
        assert targets.get(spelt).title == name
    assert AuditOptions(target=name) == AuditOptions(target=name.lower())


def test_a_chip_without_kernel_lists_is_judged_by_the_parsers_table_and_says_so(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("Frobnicate", ["a"], ["y"]))
    made = audit(path, AuditOptions(target="Ascend610Lite"), runs=tmp_path)
    assert {row.operator: row.state for row in made.operators} == {"Relu": "supported", "Frobnicate": "not"}
    assert "No kernel lists of Ascend610Lite are known" in made.fine_print
    assert any("their types were not" in f.what for f in made.of("note"))


@pytest.mark.parametrize(("name", "what", "valid"), [
    ("Ascend310P", "a family of chips", "Ascend310P1, Ascend310P3, Ascend310P5, Ascend310P7"),
    ("Ascend310B", "a family of chips", "Ascend310B1, Ascend310B2, Ascend310B3, Ascend310B4"),
    ("Ascend910_93", "a family of chips", "Ascend910_9391"),
    ("910b", "a family of chips", "Ascend910B3"),
    ("310P3", "the name that npu-smi shows", "write Ascend310P3"),
    ("910B3", "the name that npu-smi shows", "write Ascend910B3"),
    ("910_9391", "the name that npu-smi shows", "write Ascend910_9391"),
    ("ascend310p4", "no soc_version named", "ascend310p3"),
    ("tensorrt", "no target named", "onnxruntime"),
])
def test_other_names_are_refused_with_the_valid_ones(name, what, valid):
    for ask in (lambda: targets.get(name), lambda: AuditOptions(target=name)):
        with pytest.raises(BadInput, match=what) as caught:
            ask()
        assert valid in caught.value.remedy + caught.value.detail


def test_910b_without_a_digit_is_a_chip_of_the_first_generation(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]))
    made = audit(path, AuditOptions(target="Ascend910B"), runs=tmp_path)
    assert any("first generation" in f.what for f in made.of("note"))
    assert not any("first generation" in f.what
                   for f in audit(path, AuditOptions(target="Ascend910B1"), runs=tmp_path).findings)


@pytest.mark.parametrize(("name", "exact"), [
    ("8.1.RC1", "8.1.RC1"), ("8.1", "8.1.RC1"), ("CANN 8.1.rc1", "8.1.RC1"), ("7.0", "7.0.0"), ("9.0", "9.0.0"),
    ("9.1.0", "9.1.0"), ("", None), (None, None)])
def test_a_release_is_taken_as_people_write_it(name, exact):
    assert ascend.release(name) == exact
    assert AuditOptions(target="ascend310p3", cann=name).cann == exact


def test_an_unknown_release_is_refused_with_those_that_are_known():
    for ask in (lambda: targets.get("ascend310p3", "4.2"), lambda: AuditOptions(target="ascend310p3", cann="4.2")):
        with pytest.raises(BadInput, match=r"4\.2") as caught:
            ask()
        assert all(release in caught.value.remedy for release in ascend.RELEASES)

def test_a_release_is_for_ascend_chips_only(tiny_onnx, tmp_path):
    with pytest.raises(BadInput, match="the target is onnxruntime"):
        audit(tiny_onnx, AuditOptions(cann="8.1"), runs=tmp_path)
    with pytest.raises(BadInput, match="the target is openvino"):
        targets.get("openvino", "8.1")


def test_facts_of_releases_say_where_they_come_from():
    facts = ascend.facts("releases")
    assert facts["checked"].startswith("2026")
    assert all(entry["source"] for entry in facts["releases"].values())
    assert {entry["table"] for entry in facts["releases"].values()} == {"released", "current", "stand-in"}


def test_the_opsets_of_a_release_decide(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), opset=17)
    old = audit(path, AuditOptions(target="ascend310p3", cann="5.0.4"), runs=tmp_path)
    assert [f.what for f in old.of("error")] == ["opset 17 is outside 9 to 13, which Ascend310P3 with CANN 5.0.4 takes"]
    assert (old.recommended_opset, old.target_opsets) == (13, (9, 13))
    assert "stands in for it" in old.fine_print
    for cann, opset, state in (("7.0", 17, "supported"), ("9.1", 8, "supported"), ("9.2", 8, "not"),
                               ("9.2", 11, "supported")):
        other = line(tmp_path / f"{opset}.onnx", node("Relu", ["x"], ["y"]), opset=opset)
        assert said(other, cann).state == state, (cann, opset)


@pytest.mark.parametrize(("operator", "opset", "released", "current"), [
    ("ScatterND", 9, "not", "supported"),  # 8 10-18 in the released table, 8-18 in the sources
    ("ReduceL1", 18, "supported", "not"),  # 8-18 and 8-17
    ("Trilu", 14, "supported", "supported"),
])
def test_the_table_of_a_release_decides(tmp_path, operator, opset, released, current):
    path = save(tmp_path / "m.onnx", [node(operator, ["x", "x", "x"][:1 if operator != "ScatterND" else 3], ["y"])],
                {"x": (FLOAT, [2, 2])}, {"y": (FLOAT, None)}, opset=opset)
    assert said(path, "8.1.RC1").state == released
    assert said(path, "9.2").state == (current if opset >= 11 else "not")


def test_an_operator_that_is_in_no_released_table_is_only_a_warning(tmp_path):
    path = line(tmp_path / "m.onnx", node("Col2Im", ["x", "s", "s"], ["y"]), opset=18)
    assert (said(path, "8.1").state, said(path, "9.2").state, said(path).state) == ("partly", "supported", "supported")
    assert "not in the table of released operators" in said(path, "8.1").reason


def test_a_release_shows_in_the_title_and_makes_another_audit(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]))
    made = {cann: audit(path, AuditOptions(target="ascend310p3", cann=cann), runs=tmp_path)
            for cann in (None, "8.1.RC1", "9.2.0")}
    assert len({one.provenance.key for one in made.values()}) == 3
    assert "Ascend310P3 with CANN 9.2.0" in made["9.2.0"].title()
    assert "opset" in made["9.2.0"].facts()
    assert "11 to 18" in made["9.2.0"].facts()["opset"]
    assert "CANN" not in made[None].title()


@pytest.mark.parametrize("ask", [
    lambda: AuditOptions(target="ascend310p3", cann=8.1), lambda: targets.get("ascend310p3", 8.1),
    lambda: ascend.known(None), lambda: ascend.known(310)])
def test_a_number_for_a_name_is_refused(ask):
    with pytest.raises(BadInput, match="text"):
        ask()
