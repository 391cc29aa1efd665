"""What float16 cannot hold: constants in the file, and tensors that calibration data leads beyond it."""

from dataclasses import replace

import numpy as np
import pytest
from onnx_graphs import FLOAT, line, node, save

import kit
from kit.errors import BadInput, StaleResult
from kit.operators import AuditOptions, audit

ASCEND = AuditOptions(target="ascend310p3")


@pytest.fixture
def wide(tmp_path):
    """A net whose first layer makes large numbers, the second small ones, the third ordinary ones."""
    rng = np.random.default_rng(0)
    weights = {name: (scale * rng.uniform(0.5, 1, (4, 4, 1, 1))).astype(np.float32)
               for name, scale in (("w1", 1e5), ("w2", 1e-11), ("w3", 1e5))}
    path = line(tmp_path / "wide.onnx", node("Conv", ["x", "w1"], ["large"], "first", kernel_shape=[1, 1]),
                node("Conv", ["large", "w2"], ["small"], "second", kernel_shape=[1, 1]),
                node("Conv", ["small", "w3"], ["y"], "third", kernel_shape=[1, 1]), weights=weights)
    feeds = [{"x": rng.uniform(0.5, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in range(2)]
    return path, kit.calibrate(path, feeds, runs=tmp_path / "runs")


def test_tensors_beyond_float16_are_named_with_the_node_that_makes_them(wide, tmp_path):
    path, measured = wide
    made = audit(path, ASCEND, calibration=measured, runs=tmp_path / "runs")
    found = {f.nodes: f for f in made.findings if "in the data" in f.what}
    largest = next(t.maximum for t in measured.tensors if t.name == "large")
    assert found[("first",)].what.startswith(f"large reaches {largest:.4g} in the data, more than float16 can hold")
    assert found[("second",)].what.startswith("small stays below")
    assert {f.severity for f in found.values()} == {"warning"}
    assert set(found) == {("first",), ("second",)}
    for finding in found.values():
        assert "calibration of wide.onnx over 2 samples" in finding.source
        assert "no rule repairs it" in finding.remedy
        assert "keep its node in float32" in finding.advice


def test_tensors_near_the_end_of_float16_and_infinities_are_told(wide, tmp_path):
    path, measured = wide
    tensors = [replace(t, minimum=-40000.0, maximum=1.0, infinite=0) if t.name == "large" else
               replace(t, minimum=0.0, maximum=1.0, infinite=3 if t.name == "x" else 0) for t in measured.tensors]
    made = audit(path, ASCEND, calibration=replace(measured, tensors=tuple(tensors)), runs=tmp_path / "other")
    said = {f.what: (f.severity, f.operator, f.nodes) for f in made.findings if "in the data" in f.what}
    assert said == {
        "large reaches 4e+04 in the data: other data may lead it beyond float16 (65504)":
            ("note", "Conv", ("first",)),
        "input x held 3 infinities in the data": ("note", "", ())}


def test_a_calibration_makes_another_audit_and_says_nothing_where_float32_is_kept(wide, tmp_path):
    path, measured = wide
    with_data = audit(path, ASCEND, calibration=measured, runs=tmp_path / "runs")
    without = audit(path, ASCEND, runs=tmp_path / "runs")
    assert with_data.provenance.key != without.provenance.key
    assert not any("in the data" in f.what for f in without.findings)
    here = audit(path, AuditOptions(), calibration=measured, runs=tmp_path / "runs")
    assert not any("in the data" in f.what for f in here.findings)


def test_a_calibration_of_another_model_and_what_is_none_are_refused(wide, tiny_onnx, tmp_path):
    _, measured = wide
    with pytest.raises(StaleResult, match=r"wide\.onnx"):
        audit(tiny_onnx, ASCEND, calibration=measured, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="calibration cannot be dict"):
        audit(tiny_onnx, ASCEND, calibration={}, runs=tmp_path / "runs")


@pytest.mark.parametrize(("operator", "constant", "named"), [
    ("Mul", 1e6, True), ("Add", -np.inf, True), ("Add", 65000, False), ("Mul", np.nan, False),
    ("Max", -np.finfo(np.float32).max, False), ("Less", 1e9, False)])
def test_constants_are_named_unless_an_infinity_would_say_the_same(tmp_path, operator, constant, named):
    path = save(tmp_path / "m.onnx", [node(operator, ["x", "c"], ["y"])], {"x": (FLOAT, [4])},
                {"y": (9 if operator == "Less" else FLOAT, None)}, {"c": np.float32([constant])})
    found = [f for f in audit(path, ASCEND, runs=tmp_path / "runs").findings if "more than float16" in f.what]
    assert bool(found) is named


def test_a_mask_in_the_data_is_named_with_the_rule_that_makes_it_finite(tmp_path):
    path = save(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["s"]), node("Add", ["s", "m"], ["a"]),
                                      node("Softmax", ["a"], ["y"])], {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, None)},
                {"w": np.eye(4, dtype=np.float32), "m": np.float32([0, 0, -1e9, -1e9])})
    measured = kit.calibrate(path, [{"x": np.ones((2, 4), np.float32)}], runs=tmp_path / "runs")
    made = audit(path, ASCEND, calibration=measured, runs=tmp_path / "runs")
    found, = (f for f in made.findings if f.what.startswith("a reaches 1e+09 in the data"))
    assert (found.nodes, found.fix) == (("a",), "fp16-constants")
    fixed = kit.fix(path, kit.FixOptions(target="ascend310p3"), runs=tmp_path / "runs")
    again = kit.calibrate(fixed, [{"x": np.ones((2, 4), np.float32)}], runs=tmp_path / "runs")
    after = audit(fixed, ASCEND, calibration=again, runs=tmp_path / "runs")
    assert not [f.what for f in after.findings if "more than float16" in f.what]
