"""Every pattern of breakers.json: found in a tiny model, with its evidence and remedy, or told why no file has it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import BOOL, FLOAT, INT64, line, node, save

import kit
from kit.operators import AuditOptions, audit
from kit.targets import ascend

TARGET = "ascend310p3"


def branch(name, shape, operator="Relu"):
    return helper.make_graph([helper.make_node(operator, ["x"], [name], name=f"{name}_{operator}")], name, [],
                             [helper.make_tensor_value_info(name, FLOAT, shape)])


def loop_body():
    nodes = [helper.make_node("Identity", ["go"], ["on"], name="on"),
             helper.make_node("Relu", ["s"], ["t"], name="inner")]
    return helper.make_graph(nodes, "body", [
        helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go", BOOL, []),
        helper.make_tensor_value_info("s", FLOAT, [4])],
        [helper.make_tensor_value_info("on", BOOL, []), helper.make_tensor_value_info("t", FLOAT, [4])])


def boxes(path, *names, behind=(), outputs=None):
    nms = node("NonMaxSuppression", ["boxes", "scores", *names], ["rows"])
    return save(path, [nms, *behind], {"boxes": (FLOAT, [1, 10, 4]), "scores": (FLOAT, [1, 1, 10])},
                outputs or {"rows": (INT64, None)},
                {"most": np.int64([8]), "iou": np.float32([0.5]), "score": np.float32([0.1]), "two": np.int64([2]),
                 "three": np.int64([3])})


def opset_range(p):
    return line(p, node("Relu", ["x"], ["y"]), opset=21, ir_version=10)


def custom_domain(p):
    return line(p, node("Gelu", ["x"], ["a"], domain="com.microsoft"), node("Mish", ["a"], ["y"], domain="mmdeploy"),
                domains={"mmdeploy": 1, "com.microsoft": 1})


def nms_inputs(p):
    return boxes(p, "most", "iou")


def nms_output(p):
    behind = [node("Gather", ["rows", "two"], ["places"], axis=1), node("Gather", ["boxes", "places"], ["y"], axis=1)]
    return boxes(p, "most", "iou", "score", behind=behind, outputs={"y": (FLOAT, None)})


def paddle_nms(p):
    behind = [node("Gather", ["rows", "two"], ["places"], axis=1), node("Cast", ["places"], ["f"], to=FLOAT),
              node("TopK", ["f", "three"], ["y", "at"], axis=0)]
    return boxes(p, "most", "iou", "score", behind=behind, outputs={"y": (FLOAT, None)})


def topk(p):
    return line(p, node("TopK", ["x", "k"], ["v", "at"]), node("Add", ["at", "one"], ["y"]), result=INT64,
                weights={"k": np.int64([2]), "one": np.int64([1])})


def integers(p):
    return save(p, [node("Add", ["x", "x"], ["y"])], {"x": (INT64, [4])}, {"y": (INT64, None)})


def open_axes(p):
    return line(p, node("Relu", ["x"], ["y"]), shape=("N", 3, "H", "W"))


def cache(p):
    return save(p, [node("Add", ["past_key", "past_key"], ["y"])], {"past_key": (FLOAT, ["N", 4, "S", 8])},
                {"y": (FLOAT, None)})


def loop(p):
    return save(p, [node("Loop", ["n", "", "x"], ["y"], body=loop_body())], {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])},
                {"n": 3})


def choice(p):
    return save(p, [node("If", ["go"], ["y"], then_branch=branch("a", [1, 4]), else_branch=branch("b", [1, 1, 4]))],
                {"x": (FLOAT, [1, 4]), "go": (BOOL, [])}, {"y": (FLOAT, None)})


def nonzero(p):
    return line(p, node("NonZero", ["x"], ["y"]), result=INT64)


def resize(p):
    return line(p, node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="ceil"), weights={
        "s": np.float32([1, 1, 2, 2])})


def hardswish(p):
    return line(p, node("HardSwish", ["x"], ["y"]), opset=13)


def gridsample(p):
    return save(p, [node("GridSample", ["x", "g"], ["y"])], {"x": (FLOAT, [1, 2, 4, 4]), "g": (FLOAT, [1, 4, 4, 2])},
                {"y": (FLOAT, None)})


def deformconv(p):
    return line(p, node("DeformConv", ["x", "w", "o"], ["y"]), opset=18, weights={
        "w": np.ones((4, 4, 1, 1), np.float32), "o": np.zeros((1, 2, 8, 8), np.float32)})


def scatter(p):
    return line(p, node("ScatterND", ["x", "i", "u"], ["y"], reduction="mul"), opset=16, weights={
        "i": np.int64([[0, 0, 0, 0]]), "u": np.float32([1])})


def gathernd(p):
    return line(p, node("GatherND", ["x", "i"], ["y"], batch_dims=1), weights={"i": np.int64([[1]])})


def shape_slice(p):
    return line(p, node("Shape", ["x"], ["s"], start=1, end=3), node("Cast", ["s"], ["y"], to=FLOAT))


def pad(p):
    return line(p, node("Pad", ["x", "p", "", "a"], ["y"]), opset=18, weights={
        "p": np.int64([1, 1]), "a": np.int64([3])})


def runtime_shape(p):
    return save(p, [node("Expand", ["x", "s"], ["y"])], {"x": (FLOAT, [1, 4]), "s": (INT64, [2])},
                {"y": (FLOAT, None)})


def norm(p):
    return line(p, node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2), opset=18, weights={
        "s": np.ones(2, np.float32)})


def gelu(p):
    return line(p, node("Gelu", ["x"], ["y"]), opset=20, ir_version=9)


def einsum(p):
    return line(p, node("Einsum", ["x", "x"], ["y"], equation="nchw,ncwk->nchk"))


def gru(p):
    rng = np.random.default_rng(0)
    return save(p, [node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=3)], {"x": (FLOAT, [2, 1, 4])},
                {"y": (FLOAT, None)}, {"w": rng.normal(size=(1, 9, 4)).astype(np.float32),
                                       "r": rng.normal(size=(1, 9, 3)).astype(np.float32)})


def qdq(p):
    return line(p, node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
                node("Relu", ["d"], ["y"]), weights={"s": np.float32(0.1), "z": np.uint8(0)})


def large_kernel(p):
    return line(p, node("AveragePool", ["x"], ["y"], kernel_shape=[300, 1], pads=[150, 0, 150, 0]))


def fp16(p):
    return save(p, [node("Add", ["x", "m"], ["a"]), node("Softmax", ["a"], ["y"])], {"x": (FLOAT, [1, 4])},
                {"y": (FLOAT, None)}, {"m": np.float32([[0, 0, -1e9, -1e9]])})


def names(p):
    return line(p, node("Relu", ["x"], ["a"], "same"), node("Relu", ["a"], ["y"], "same"))


def two_gigabytes(p):
    path = line(p, node("MatMul", ["x", "w"], ["y"]), shape=(1, 4096))
    proto = onnx.load(str(path))
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4096, 150_000], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.data"), ("offset", 0), ("length", 4096 * 150_000 * 4)):
        tensor.external_data.add(key=key, value=str(value))
    proto.graph.initializer.append(tensor)
    onnx.save(proto, str(path))
    with path.with_name("w.data").open("wb") as stream:
        stream.truncate(4096 * 150_000 * 4)  # a hole: it takes no room, and reading it would show
    return path


def tf1(p):
    return save(p, [node("Merge", ["x", "x"], ["y"])], {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])})


# Row -> the model that has the pattern, words of a finding, and what repairs it: a rule that kit.fix applies by itself,
# one that it applies on request ("ask ..."), or "" where no rule can.
SEEN = {
    "opset-range": (opset_range, "opset 21 is outside 8 to 18", "lower-opset"),
    "custom-domain": (custom_domain, "no parser for operators of the domain mmdeploy", ""),
    "nms-inputs": (nms_inputs, "only 4 inputs", "nms-five-inputs"),
    "nms-output": (nms_output, "it gathers by rows of a NonMaxSuppression", "nms-rows"),
    "paddle-nms": (paddle_nms, "post-processing in the graph: Gather, TopK", ""),
    "topk-int64": (topk, "indices are int32 in an .om", "topk-int32"),
    "int64": (integers, "input x is int64", ""),
    "dynamic-size": (open_axes, "dynamic axes 0 (N), 2 (H), 3 (W)", "ask fix-shapes"),
    "dynamic-dims-cache": (cache, "for a cache of attention", "ask fix-shapes"),
    "loop": (loop, "no parser for Loop", "unroll-loop"),
    "if": (choice, "its branches give different ranks", ""),
    "dynamic-output": (nonzero, "depends on the data", ""),
    "resize": (resize, "it does not read nearest_mode (here 'ceil')", ""),
    "hardswish": (hardswish, "HardSwish is there for opset 14-18 only", "ask split-hardswish"),
    "gridsample": (gridsample, "mode and padding_mode not written", "plain-attributes"),
    "deformconv": (deformconv, "no parser for DeformConv", ""),
    "scatter": (scatter, "reduction=mul is rejected", "plain-scatternd"),
    "gathernd": (gathernd, "batch_dims=1", "plain-gathernd"),
    "shape-slice": (shape_slice, "start and end are ignored", "fold-constants"),
    "pad": (pad, "its axes input (opset 18) is not mapped", "plain-pad"),
    "runtime-shape": (runtime_shape, "computed at run time", ""),
    "norm": (norm, "no parser for GroupNormalization", "split-groupnorm"),
    "gelu": (gelu, "no parser for Gelu", "split-gelu"),
    "einsum": (einsum, "which equations compile", "einsum-to-matmul"),
    "rnn": (gru, "linear_before_reset = 0", "plain-gru"),
    "qdq": (qdq, "no parser for QuantizeLinear", "ask strip-qdq"),
    "large-kernel": (large_kernel, "kernel [300, 1] is above 255", ""),
    "fp16-range": (fp16, "holds -1e+09, more than float16 can", "fp16-constants"),
    "duplicate-names": (names, "1 node name used more than once", ""),
    "two-gigabytes": (two_gigabytes, "the weights are 2.5 GB", ""),
    "tf1-control-flow": (tf1, "no parser for Merge", ""),
}
NOT_IN_A_FILE = {
    "kernels-missing": "what is installed on the machine that runs ATC",
    "python-version": "what is installed on the machine that runs ATC",
    "python-modules": "what is installed on the machine that runs ATC",
    "paddle-pir": "a Paddle model, before there is an ONNX file: kit.export reads it",
    "pool-tensor-attribute": "Paddle2ONNX stops, so that there is no ONNX file",
}


def test_every_row_is_looked_for_or_cannot_be_in_a_file():
    assert SEEN.keys() | NOT_IN_A_FILE.keys() == ascend.facts("breakers")["breakers"].keys()
    assert not SEEN.keys() & NOT_IN_A_FILE.keys()


@pytest.mark.parametrize("row", SEEN)
def test_the_pattern_is_found_with_its_evidence_and_its_remedy(row, tmp_path):
    make, words, remedy = SEEN[row]
    made = audit(make(tmp_path / "m.onnx"), AuditOptions(target=TARGET), runs=tmp_path / "runs")
    found = [f for f in made.findings if words in f.what]
    assert found, [f.what for f in made.findings]
    for finding in found:
        assert ascend.breaker(row)["source"][0] in finding.source or row == "opset-range"
        assert finding.advice
        if remedy.startswith("ask "):
            assert (finding.fix, finding.asked.partition(" ")[0]) == ("", remedy.removeprefix("ask "))
        else:
            assert (finding.fix, finding.asked) == (remedy, "")
        assert remedy or "no rule repairs it" in finding.remedy


@pytest.mark.parametrize("row", [row for row, (_, _, remedy) in SEEN.items() if remedy and "ask" not in remedy])
def test_what_a_rule_is_named_for_is_gone_after_it(row, tmp_path):
    make, words, remedy = SEEN[row]
    fixed = kit.fix(make(tmp_path / "m.onnx"), kit.FixOptions(target=TARGET, check=row != "opset-range"),
                    runs=tmp_path / "runs")
    assert remedy in fixed.counts()
    after = audit(fixed, AuditOptions(target=TARGET), runs=tmp_path / "runs")
    assert not [f.what for f in after.findings if words in f.what]
    assert not [(f.fix, f.what) for f in after.findings if f.fix]
