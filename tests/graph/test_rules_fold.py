"""BatchNormalization and constants folded into the weights before them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def net(kind: str, *, bias: bool = True, group: int = 1, random=None, after=("BatchNormalization",), opset: int = 17,
        extra=(), outputs=("y",), transposed: int = 1):
    """``x`` -> Conv, ConvTranspose or Gemm -> the operators in ``after`` -> ``y``; 4 channels in, 4 out."""
    import onnx
    from onnx import helper, numpy_helper

    random = random or np.random.default_rng(3)
    shape = {"Conv": (4, 4 // group, 3, 3), "ConvTranspose": (4, 4 // group, 2, 2), "Gemm": (4, 4)}[kind]
    weights = {"w": random.standard_normal(shape), "b": random.standard_normal(4), "scale": random.uniform(0.5, 2, 4),
               "shift": random.standard_normal(4), "mean": random.standard_normal(4), "var": random.uniform(0.1, 3, 4),
               "c": random.uniform(0.5, 2, (1, 4, 1, 1) if kind != "Gemm" else (1, 4)), "two": np.array([2.0]),
               "map": random.standard_normal((1, 1, 6, 6))}
    attributes = {"Conv": {"group": group, "pads": [1, 1, 1, 1]}, "ConvTranspose": {"group": group},
                  "Gemm": {"transB": transposed, "alpha": 0.5, "beta": 0.25}}[kind]
    nodes = [helper.make_node(kind, ["x", "w", "b"][:2 + bias], ["v0"], name="layer", **attributes)]
    for at, op_type in enumerate(after):
        op_type, _, other = op_type.partition(" ")
        inputs = {"BatchNormalization": ["scale", "shift", "mean", "var"]}.get(op_type, [other] if other else [])
        last = "y" if at + 1 == len(after) else f"v{at + 1}"
        nodes.append(helper.make_node(op_type, [f"v{at}", *inputs], [last], name=f"after{at}"))
    nodes += extra
    rank = 2 if kind == "Gemm" else 4
    used = {name for node in nodes for name in node.input}
    sizes = ["N", 4, 6, 6][:rank]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", 1, sizes)],
        [helper.make_tensor_value_info(name, 1, [None] * rank) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used])
    return helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("bias", [True, False])
def test_batchnorm_is_folded(bench, kind, bias):
    fixed = bench.promises(bench.save(net(kind, bias=bias)), "fold-batchnorm")
    assert fixed.operators_after == {kind: 1}
    assert fixed.changes[0].what == f"BatchNormalization went into the weights of {kind} layer"


@pytest.mark.parametrize(("kind", "transposed"), [("Conv", 0), ("ConvTranspose", 0), ("Gemm", 0)])
def test_batchnorm_is_folded_into_grouped_and_transposed_weights(bench, kind, transposed):
    model = net(kind, group=1 if kind == "Gemm" else 2, transposed=transposed)
    assert bench.promises(bench.save(model), "fold-batchnorm").operators_after == {kind: 1}


def test_weights_that_two_layers_share_are_not_touched(bench):
    from onnx import helper

    extra = [helper.make_node("Conv", ["x", "w", "b"], ["z"], name="other", pads=[1, 1, 1, 1])]
    path = bench.save(net("Conv", extra=extra, outputs=("y", "z")))
    fixed = bench.promises(path, "fold-batchnorm")
    assert fixed.operators_after == {"Conv": 2}


def test_a_weight_that_has_the_name_of_the_new_bias_survives(bench):
    from onnx import helper, numpy_helper

    model = net("Conv", bias=False, extra=[helper.make_node("Mul", ["x", "w_bias"], ["z"], name="user")],
                outputs=("y", "z"))
    model.graph.initializer.append(numpy_helper.from_array(np.full(1, 3, np.float32), "w_bias"))
    bench.promises(bench.save(model), "fold-batchnorm")


def test_weights_in_constant_nodes_are_folded_too(bench):
    from onnx import helper

    model = net("Conv")
    for tensor in list(model.graph.initializer):
        node = helper.make_node("Constant", [], [tensor.name], name=f"constant_{tensor.name}", value=tensor)
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    assert bench.promises(bench.save(model), "fold-batchnorm").operators_after == {"Conv": 1}


def test_batchnorm_after_something_else_is_left_alone(bench):
    assert bench.reason(bench.save(net("Conv", after=("Relu", "BatchNormalization"))),
                        "fold-batchnorm") == "it follows Relu, not Conv, ConvTranspose or Gemm"


def test_batchnorm_is_left_alone_when_the_convolution_is_read_twice(bench):
    from onnx import helper

    model = net("Conv", extra=[helper.make_node("Relu", ["v0"], ["z"], name="reader")], outputs=("y", "z"))
    assert bench.reason(bench.save(model), "fold-batchnorm") == "Conv layer is also read by Relu reader"


def test_batchnorm_in_training_mode_is_left_alone(bench):
    from onnx import helper

    model = net("Conv")
    node = model.graph.node[1]
    node.attribute.append(helper.make_attribute("training_mode", 1))
    node.output.extend(["m", "v"])
    assert "training mode" in bench.reason(bench.save(model), "fold-batchnorm")


def test_batchnorm_with_computed_weights_is_left_alone(bench):
    from onnx import helper

    model = net("Conv")
    model.graph.node[0].input[1] = "computed"
    model.graph.node.insert(0, helper.make_node("Relu", ["w"], ["computed"], name="compute"))
    assert bench.reason(bench.save(model), "fold-batchnorm") == "computed of Conv layer is not constant"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["Conv", "ConvTranspose", "Gemm"]), bias=st.booleans(),
       group=st.sampled_from([1, 2, 4]))
def test_folding_random_batchnorms_moves_the_answer_by_rounding_only(bench, seed, kind, bias, group):
    model = net(kind, bias=bias, group=1 if kind == "Gemm" else group, random=np.random.default_rng(seed))
    fixed = bench.fix(bench.save(model, f"net{seed}.onnx"), rules=("fold-batchnorm",))
    assert fixed.operators_after == {kind: 1}
    assert max(row.relative for row in fixed.parity) <= 1e-5


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("after", ["Mul two", "Add two", "Mul c", "Add c", "Sub c", "Div c"])
def test_a_constant_after_a_layer_is_folded(bench, kind, bias, after):
    fixed = bench.promises(bench.save(net(kind, bias=bias, after=(after,))), "fold-affine")
    assert fixed.operators_after == {kind: 1}


def test_a_grouped_transposed_convolution_takes_one_factor_a_channel(bench):
    fixed = bench.promises(bench.save(net("ConvTranspose", group=2, after=("Mul c", "Add c"))), "fold-affine")
    assert [change.id for change in fixed.changes] == ["fold-affine:after0", "fold-affine:after1"]


def test_a_constant_that_differs_from_place_to_place_is_left_alone(bench):
    reason = bench.reason(bench.save(net("Conv", after=("Mul map",))), "fold-affine")
    assert reason == "its constant of shape [1, 1, 6, 6] is not one number for each of 4 channels"


def test_a_division_by_zero_is_left_alone(bench):
    import onnx

    model = net("Conv", after=("Div two",))
    model.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "two"))
    assert bench.reason(bench.save(model), "fold-affine") == "its constant is not finite"


def test_constants_and_batchnorms_in_turn_are_all_folded(bench):
    model = net("Conv", after=("Mul two", "BatchNormalization", "Add c"))
    fixed = bench.promises(bench.save(model), "fold-affine", rules=("fold-batchnorm", "fold-affine"))
    assert fixed.operators_after == {"Conv": 1}
