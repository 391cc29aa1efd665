"""GRU: what CANN reads right, and the steps for what it does not."""

from __future__ import annotations

import numpy as np
import pytest


def gru(bench, *, steps: int | str = 3, batch: int | str = 2, bias: bool = True, first: bool = False, both: bool = True,
        direction: str = "forward", opset: int = 17, lengths: bool = False, computed: bool = False, **attributes):
    """A GRU of 3 inputs and 4 states; ``both``: the model gives Y and Y_h, otherwise Y_h only."""
    import onnx

    count, random = (2 if direction == "bidirectional" else 1), np.random.default_rng(3)
    weights = {"w": (count, 12, 3), "r": (count, 12, 4), **({"b": (count, 24)} if bias else {})}
    inputs = [onnx.helper.make_tensor_value_info("x", 1, [steps, batch, 3])]
    if first:
        inputs.append(onnx.helper.make_tensor_value_info("h", 1, [count, batch, 4]))
    made = [onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()]
    nodes = []
    if lengths:
        made.append(onnx.numpy_helper.from_array(np.int32([2, 3]), "n"))
    if computed:
        nodes.append(onnx.helper.make_node("Abs", ["w"], ["wa"], name="Abs_wa"))
    names = ["x", "wa" if computed else "w", "r", "b" if bias else "", "n" if lengths else "", "h" if first else ""]
    while not names[-1]:
        names.pop()
    nodes.append(onnx.helper.make_node("GRU", names, ["y" if both else "", "last"], name="GRU_y", hidden_size=4,
                                       direction=direction, **attributes))
    outputs = [*([onnx.helper.make_tensor_value_info("y", 1, [steps, count, batch, 4])] if both else []),
               onnx.helper.make_tensor_value_info("last", 1, [count, batch, 4])]
    graph = onnx.helper.make_graph(nodes, "net", inputs, outputs, made)
    return bench.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("how", [{}, {"bias": False, "both": False}, {"first": True, "batch": "N"}, {"opset": 11},
                                 {"steps": 1}])
def test_a_gru_that_resets_before_the_product_is_written_in_steps(bench, direction, how):
    fixed = bench.promises(gru(bench, direction=direction, **how), "plain-gru")
    assert "GRU" not in fixed.operators_after
    assert fixed.operators_after["Tanh"] == how.get("steps", 3) * (2 if direction == "bidirectional" else 1)


def test_a_gru_as_pytorch_has_it_is_no_business_of_this_rule(bench):
    fixed = bench.fix(gru(bench, linear_before_reset=1, activations=["Sigmoid", "Tanh"]), rules=("plain-gru",))
    assert (fixed.changes, fixed.left_alone) == ((), ())


@pytest.mark.parametrize(("how", "reason"), [
    ({"linear_before_reset": 1, "clip": 2.0}, "ATC does not read its clip, and steps that do are not written here"),
    ({"activations": ["HardSigmoid", "Tanh"]}, "ATC does not read its activations"),
    ({"steps": "S"}, "the number of steps, axis 0 of x, is not known: fix the input shapes"),
    ({"steps": 200}, "200 steps would become 2400 operators; up to 128 are written out"),
    ({"batch": "N"}, "the batch, axis 1 of x, is not known, and with it the first state"),
    ({"lengths": True}, "its sequences differ in length (sequence_lens)"),
    ({"computed": True}, "its weights wa are not constant")])
def test_others_are_left_alone(bench, how, reason):
    assert bench.reason(gru(bench, **how), "plain-gru").startswith(reason)
