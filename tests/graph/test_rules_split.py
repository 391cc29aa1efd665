"""Operators written as parts again."""

from __future__ import annotations

import pytest

LINE = {"inputs": "float[N,5,6] x", "outputs": "float[N,5,6] y"}
NORM = "<float[6] s={1.0,2.0,0.5,1.5,1.0,-1.0}, float[6] b={0.1,0.2,0.3,0.4,0.5,0.6}> "
SPLITS = {
    "split-hardswish": ("{y = HardSwish(x)}", {"HardSigmoid": 1, "Mul": 1}, {}),
    "split-hardsigmoid": ("{y = HardSigmoid <alpha: float = 0.3> (x)}", {"Mul": 1, "Add": 1, "Clip": 1}, {}),
    "split-gelu": ("{y = Gelu(x)}", {"Mul": 3, "Add": 1, "Erf": 1}, {"opset": 20, "ir_version": 9}),
    "split-mish": ("{y = Mish(x)}", {"Mul": 1, "Tanh": 1, "Softplus": 1}, {"opset": 18}),
    "split-layernorm": (NORM + "{y = LayerNormalization <epsilon: float = 0.001> (x, s, b)}",
                        {"ReduceMean": 2, "Sub": 1, "Mul": 2, "Add": 2, "Sqrt": 1, "Div": 1}, LINE),
}


@pytest.mark.parametrize("rule", SPLITS)
def test_it_is_split_into_parts_that_answer_the_same(bench, rule):
    body, parts, how = SPLITS[rule]
    assert bench.promises(bench.text(body, **how), rule).operators_after == parts


def test_gelu_by_tanh_is_split(bench):
    path = bench.text('{y = Gelu <approximate: string = "tanh"> (x)}', opset=20, ir_version=9)
    assert bench.promises(path, "split-gelu").operators_after == {"Mul": 6, "Add": 2, "Tanh": 1}


def test_layernorm_is_split_with_axes_as_an_input_from_opset_18(bench):
    path = bench.text(NORM + "{y = LayerNormalization <axis: int = 2> (x, s)}", opset=18, **LINE)
    assert bench.promises(path, "split-layernorm").operators_after["ReduceMean"] == 2


def test_a_layernorm_whose_mean_is_read_is_left_alone(bench):
    path = bench.text(NORM + "{y, m = LayerNormalization (x, s, b)}", inputs=LINE["inputs"],
                      outputs="float[N,5,6] y, float[N,5,1] m")
    assert bench.reason(path, "split-layernorm") == "its second or third output (mean, inverse deviation) is read"


@pytest.mark.parametrize("opset", [18, 21])
def test_groupnorm_is_split(bench, opset):
    numbers = "<float[2] s={1.5,0.5}, float[2] b={0.1,0.2}>" if opset == 18 else \
        "<float[4] s={1.5,0.5,2.0,1.0}, float[4] b={0.1,0.2,0.3,0.4}>"
    path = bench.text(numbers + "{y = GroupNormalization <num_groups: int = 2> (x, s, b)}", opset=opset, ir_version=9)
    fixed = bench.promises(path, "split-groupnorm")
    assert "GroupNormalization" not in fixed.operators_after
    assert fixed.operators_after["InstanceNormalization"] == 1


def test_groupnorm_with_a_computed_scale_is_left_alone(bench):
    path = bench.text("<float[4] b={0.1,0.2,0.3,0.4}> {r = Abs(b) "
                      "y = GroupNormalization <num_groups: int = 2> (x, r, b)}", opset=21, ir_version=9)
    assert bench.reason(path, "split-groupnorm") == "its scale and bias are not constant"


def test_quickgelu_is_split_for_targets_without_it_and_left_to_onnxruntime(bench):
    path = bench.text("{y = com.microsoft.QuickGelu <alpha: float = 1.7> (x)}", domains=', "com.microsoft": 1')
    assert bench.reason(path, "split-swish") == "it is ONNX Runtime's own operator"
    fixed = bench.promises(path, "split-swish", target="ascend310p3")
    assert fixed.operators_after == {"Mul": 2, "Sigmoid": 1}


@pytest.mark.parametrize("body", ["{y = Swish(x)}", "{y = Swish <alpha: float = 1.5> (x)}"])
def test_swish_is_split(bench, body):
    # Below the stage: the onnx of this project checks files up to opset 22.
    from kit.graph import RULES, files
    from kit.graph.rule import Setting, apply

    path = bench.text(body, opset=24, ir_version=10)
    model = files.open_graph(path)
    model.graph.node(0).inputs[0].type = model.graph.inputs[0].type
    edits, left = apply([RULES["split-swish"]], Setting(model))
    assert (len(edits), left) == (1, [])
    assert {node.op_type for node in model.graph} <= {"Mul", "Sigmoid"}
    files.write(model, bench.folder / "after.onnx")
    bench.same_answers(path, bench.folder / "after.onnx")


def test_a_tensor_of_unknown_type_is_left_alone(bench):
    path = bench.text("{z = com.acme.Thing(x) y = HardSwish(z)}", domains=', "com.acme": 1')
    assert bench.reason(path, "split-hardswish", check=False) == "the type of its input z is not known"


def test_splitting_and_merging_come_back_to_the_same_operators(bench):
    path = bench.text("{y = HardSwish(x)}")
    apart = bench.fix(path, rules=("split-hardswish",))
    together = bench.fix(apart.model.path, rules=("merge-hardswish",))
    assert together.operators_after == {"HardSwish": 1}
