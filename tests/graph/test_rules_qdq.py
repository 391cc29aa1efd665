"""Rounding taken out of a QDQ model, its ranges kept, its answer moved on purpose and labelled so."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import kit
from kit.graph import FixOptions
from kit.graph.rules_qdq import KEY
from kit.graph.table import DEFAULTS


def kept(fixed) -> dict:
    """What the metadata of the repaired model says about its ranges."""
    (text,) = [entry.value for entry in onnx.load(str(fixed.model.path)).metadata_props if entry.key == KEY]
    return json.loads(text)


def qdq(bench, nodes, weights, *, opset: int = 17, shape=(1, 4, 6, 6), output: str = "y"):
    """x -> the nodes -> y; a node is (type, inputs, output, attributes)."""
    made = [helper.make_node(kind, inputs, [out], name=out, **attributes) for kind, inputs, out, attributes in nodes]
    graph = helper.make_graph(
        made, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()])
    return bench.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


PAIR = [("QuantizeLinear", ["x", "s", "z"], "q", {}), ("DequantizeLinear", ["q", "s", "z"], "d", {})]
SCALES = {"s": np.float32(0.05), "z": np.uint8(128)}


def test_a_pair_goes_and_its_range_stays_in_the_metadata(bench):
    path = qdq(bench, [*PAIR, ("Relu", ["d"], "y", {})], SCALES)
    fixed = bench.fix(path, rules=("strip-qdq",))
    assert fixed.operators_after == {"Relu": 1}
    assert kept(fixed) == {"x": {"scale": [float(np.float32(0.05))], "zero_point": [128], "dtype": "uint8"}}
    onnx.checker.check_model(str(fixed.model.path), full_check=True)
    again = bench.fix(fixed.model.path, rules=("strip-qdq",))
    assert again.changes == ()
    assert kept(again) == kept(fixed)


def test_the_answer_moves_and_the_result_says_that_it_may(bench):
    """The default tolerance is 1e-4 and the answer moves by up to half a step: accepted, measured, and labelled."""
    path = qdq(bench, [*PAIR, ("Relu", ["d"], "y", {})], SCALES)
    fixed = bench.fix(path, rules=("strip-qdq",))
    (moved,) = {change.difference for change in fixed.changes}
    assert 1e-4 < moved <= 0.025
    assert fixed.rejected == ()
    assert (f"strip-qdq moved the answer by {moved:.1e}, as it is meant to: nothing is rounded to bytes any more, or "
            "cut off where they end. Rules after it are compared with the model it left.") in fixed.notes
    assert fixed.parity[0].relative == pytest.approx(moved)


def test_rules_after_it_are_held_to_the_tolerance(bench, monkeypatch):
    from kit.graph import RULES
    from kit.graph.rule import Rule
    from kit.graph.values import is_op

    def rewrite(node, setting) -> str:
        node.op_type = "Abs"
        return "Relu became Abs"

    monkeypatch.setitem(RULES, "wrong", Rule("wrong", "A test.", lambda node, setting: is_op(node, "Relu"),
                                             lambda node, setting: "", rewrite))
    fixed = bench.fix(qdq(bench, [*PAIR, ("Relu", ["d"], "y", {})], SCALES), rules=("strip-qdq", "wrong"))
    assert [refused.rule for refused in fixed.rejected] == ["wrong"]
    assert fixed.operators_after == {"Relu": 1}


def test_no_target_strips_unasked():
    assert all("strip-qdq" not in rules for rules in DEFAULTS.values())


@pytest.mark.parametrize(("axis", "opset", "block"), [(0, 17, 0), (1, 17, 0), (0, 21, 2)])
def test_a_weight_becomes_float_as_the_rounding_left_it(bench, axis, opset, block):
    random = np.random.default_rng(0)
    stored = random.integers(-128, 128, (4, 3), np.int8)
    sizes = (2, 3) if block else (stored.shape[axis],)
    weights = {"w_quantized": stored, "s": random.random(sizes, np.float32) + 0.01,
               "z": random.integers(-3, 3, sizes, np.int8)}
    more = {"block_size": block} if block else {}
    nodes = [("DequantizeLinear", ["w_quantized", "s", "z"], "w", {"axis": axis, **more}),
             ("MatMul", ["x", "w"], "y", {})]
    path = qdq(bench, nodes, weights, opset=opset, shape=(2, 4))
    fixed = bench.fix(path, rules=("strip-qdq",))
    assert max(row.max_abs for row in fixed.parity) < 1e-5  # only the same numbers, computed ahead
    assert fixed.operators_after == {"MatMul": 1}
    about = kept(fixed)["w"]
    assert (about["dtype"], about["axis"], about["zero_point"]) == ("int8", axis, weights["z"].reshape(-1).tolist())
    assert np.float32(about["scale"]).tolist() == weights["s"].reshape(-1).tolist()
    assert about.get("shape") == (list(sizes) if block else None)


def test_a_quantized_model_becomes_the_float_model_with_rounded_weights(bench):
    """What the kit's own quantizer wrote: every pair goes, and the result is the float net with the rounded weights."""
    from quantization_models import conv_net, feeds

    from kit.int8.qdq_read import rounded, weights

    runs = bench.folder / "runs"
    source = kit.Model.open(conv_net(bench.folder / "net.onnx"))
    samples = feeds(3)
    calibration = kit.calibrate(source, samples, runs=runs)
    made = kit.quantize(source, calibration, kit.QuantizeOptions(method="minmax", bias_correction="no"), runs=runs)
    fixed = kit.fix(made.model, FixOptions(rules=("strip-qdq", "drop-unused")), samples=samples, runs=runs)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(fixed.operators_after)
    assert {row.reason for row in fixed.left_alone} == set()
    proto = onnx.load(str(made.model.path))
    about = kept(fixed)
    assert {name: one.scale for name, one in rounded(proto).items()} == {
        name: about[name]["scale"][0] for name in rounded(proto)}
    expected = onnx.load(str(source.path))
    stored = weights(proto)
    for tensor in expected.graph.initializer:
        if tensor.name in stored:
            tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name], tensor.name))
    assert len(stored) >= 5
    onnx.save(expected, str(bench.folder / "expected.onnx"))
    for feed in samples:
        with kit.open_runner(fixed.model) as one, kit.open_runner(bench.folder / "expected.onnx") as other:
            for left, right in zip(one(feed).values(), other(feed).values(), strict=True):
                np.testing.assert_allclose(left, right, atol=2e-3)  # biases are rounded too, to 32 bits


@pytest.mark.parametrize("opset", [10, 17])
def test_a_relu_that_the_rounding_did_is_put_back(bench, opset):
    """A quantizer leaves ReLU6 out in front of a range of 0 to 6: bytes cut off there."""
    weights = {"s": np.float32(6 / 255), "z": np.uint8(0)}
    nodes = [("Neg", ["x"], "n", {}), ("QuantizeLinear", ["n", "s", "z"], "q", {}),
             ("DequantizeLinear", ["q", "s", "z"], "d", {}), ("Exp", ["d"], "y", {})]
    path = qdq(bench, nodes, weights, opset=opset)
    feeds = [{"x": np.linspace(-9, 9, 144, dtype=np.float32).reshape(1, 4, 6, 6)}]
    fixed = bench.fix(path, rules=("strip-qdq",), samples=feeds)
    assert fixed.operators_after == {"Neg": 1, "Clip": 1, "Exp": 1}
    assert fixed.changes[0].what == "n is not rounded to uint8 any more, cut off at 0 and 6 as rounding did"
    assert fixed.changes[0].difference < 0.05  # half a step of 6 / 255, through Exp, relative to e^6
    with kit.open_runner(fixed.model) as run:
        np.testing.assert_allclose(np.log(run(feeds[0])["y"]), np.clip(-feeds[0]["x"], 0, 6), atol=1e-5)


def test_numbers_that_are_not_negative_need_no_relu(bench):
    weights = {"s": np.float32(6 / 255), "z": np.uint8(0)}
    nodes = [("Sigmoid", ["x"], "n", {}), ("QuantizeLinear", ["n", "s", "z"], "q", {}),
             ("DequantizeLinear", ["q", "s", "z"], "d", {}), ("Exp", ["d"], "y", {})]
    assert bench.fix(qdq(bench, nodes, weights), rules=("strip-qdq",)).operators_after == {"Sigmoid": 1, "Exp": 1}


@pytest.mark.parametrize(("nodes", "weights", "said"), [
    ([PAIR[0], ("MaxPool", ["q"], "m", {"kernel_shape": [2, 2]}), ("DequantizeLinear", ["m", "s", "z"], "y", {})],
     SCALES, ["MaxPool m computes with its integers", "MaxPool gives it integers, not QuantizeLinear"]),
    ([PAIR[0], ("MatMulInteger", ["q", "w"], "i", {}), ("Cast", ["i"], "y", {"to": 1})],
     {**SCALES, "w": np.ones((6, 2), np.uint8)},
     ["MatMulInteger i computes with its integers",
      "MatMulInteger computes with integers itself: quantize in QDQ form, or go back to the float model"]),
    ([("ReduceMax", ["x"], "r", {"keepdims": 0}), ("Abs", ["r"], "t", {}), ("QuantizeLinear", ["x", "t", "z"], "q", {}),
      ("DequantizeLinear", ["q", "t", "z"], "y", {})], {"z": np.uint8(128)},
     ["t is computed at run time: there is no range to keep"]),
    ([*PAIR[:1], ("DequantizeLinear", ["q", "s", "z"], "y", {})], SCALES,
     ["it makes the output 'y' straight from an input or weight"])])
def test_what_is_no_pair_is_left_alone_and_it_says_why(bench, nodes, weights, said):
    fixed = bench.fix(qdq(bench, nodes, weights), rules=("strip-qdq",))
    assert fixed.changes == ()
    assert [row.reason for row in fixed.left_alone] == said
