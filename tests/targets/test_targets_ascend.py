"""What the carried facts say about Ascend: exact look-up, types per chip, known troubles, and no promises."""

import json
import re

import numpy as np
import pytest
from onnx import TensorProto
from onnx_graphs import DOUBLE, FLOAT, INT64, line, node, save

from kit import targets
from kit.inspection.graph import graph_of
from kit.operators import AuditOptions, audit
from kit.targets import ascend


def said_of(path, name="y", target="ascend310p3"):
    graph = graph_of(path)
    verdicts = targets.get(target).judge(graph)
    return next(list(said) for n, said in zip(graph.nodes, verdicts, strict=True) if n.name == name)


def reasons(path, name="y", target="ascend310p3"):
    return [(s.state, s.reason) for s in said_of(path, name, target) if s.reason]


def has(path, state, words, name="y", target="ascend310p3"):
    return any(s == state and words in r for s, r in reasons(path, name, target))


def test_facts_say_where_they_come_from_and_when_they_were_checked():
    for name in ("operators", "chips", "breakers"):
        data = ascend.facts(name)
        assert data["checked"].startswith("2026")
        text = json.dumps(data)
        assert not re.search(r"[\" ](/|[A-Z]:\\\\)\w+/", text), "no path of a machine"
    assert all(row["source"] for row in ascend.facts("breakers")["breakers"].values())
    assert all(entry["source"] for entry in ascend.facts("operators")["operators"].values())


def test_every_chip_with_operator_facts_is_a_target():
    assert {"ascend310p3", "ascend910b3", "ascend310b4", "ascend910_9391"} <= set(targets.NAMES)
    assert targets.NAMES[:3] == ("onnxruntime", "openvino", "ascend310p3")
    for name in ascend.NAMES:
        assert targets.get(name).title.lower() == name


def test_the_parser_looks_up_the_exact_opset(tmp_path):
    relu = node("Relu", ["x"], ["y"])
    assert reasons(line(tmp_path / "a.onnx", relu, opset=18)) == []
    assert has(line(tmp_path / "b.onnx", relu, opset=19), "not", "opset 19 is outside 8 to 18, which Ascend310P3 takes")
    assert has(line(tmp_path / "c.onnx", node("LayerNormalization", ["x", "w"], ["y"]), opset=19,
                    weights={"w": np.ones(8, np.float32)}), "not", "17-18")


def test_one_finding_speaks_for_a_whole_model_that_is_too_new(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("NonZero", ["a"], ["y"]), result=INT64, opset=21)
    made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
    errors = [f.what for f in made.of("error")]
    assert errors == ["opset 21 is outside 8 to 18, which Ascend310P3 takes"]
    assert {row.state for row in made.operators} == {"not"}
    assert any("depends on the data" in f.what for f in made.of("warning")), "other troubles are not hidden by it"
    assert made.recommended_opset == 17


@pytest.mark.parametrize(("operator", "words"), [
    ("Gelu", "no parser for Gelu"), ("Nonsense", "no parser for Nonsense")])
def test_what_is_not_in_the_table_is_not_supported(tmp_path, operator, words):
    path = line(tmp_path / "m.onnx", node(operator, ["x"], ["y"]))
    assert has(path, "not", words)
    assert said_of(path)[0].advice


def test_private_domains_are_looked_up_and_others_refused(tmp_path):
    ours = line(tmp_path / "a.onnx", node("NPUMish", ["x"], ["y"], domain="npu"), domains={"npu": 1})
    theirs = line(tmp_path / "b.onnx", node("Mish", ["x"], ["y"], domain="mmdeploy"), domains={"mmdeploy": 1})
    assert said_of(ours)[0].state == "supported"
    assert has(theirs, "not", "operators of the domain mmdeploy")


def test_a_registration_that_only_current_source_has_is_a_warning(tmp_path):
    path = line(tmp_path / "m.onnx", node("ScatterND", ["x", "i", "u"], ["y"]), opset=9, weights={
        "i": np.int64([[0, 0, 0, 0]]), "u": np.float32([1])})
    assert has(path, "partly", "in current CANN source")


def test_types_differ_by_chip(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Abs", ["x"], ["y"])], {"x": (INT64, [4])}, {"y": (INT64, None)})
    assert has(path, "partly", "int64 runs on AI CPU here: slow (AI Core: float16, float32, int32)")
    assert not has(path, "partly", "runs on AI CPU", target="ascend910b3")
    # float32 where a kernel takes only float16 is what ATC's default precision does: no finding.
    mean = line(tmp_path / "n.onnx", node("ReduceMean", ["x"], ["y"], axes=[1]))
    assert reasons(mean, target="ascend310") == []


def test_data_and_not_the_size_decides_the_kernel_of_a_transposed_convolution(tmp_path):
    path = line(tmp_path / "m.onnx", node("ConvTranspose", ["x", "w"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
                weights={"w": np.ones((4, 4, 2, 2), np.float32)})
    assert reasons(path) == []


@pytest.mark.parametrize(("nodes", "weights", "state", "words", "opset"), [
    ([node("Conv", ["x", "w"], ["y"])], {"w": np.ones((4, 4, 1, 1), np.float32)}, "not", "none of kernel_shape", 17),
    ([node("Transpose", ["x"], ["y"])], {}, "not", "perm must be written out", 17),
    ([node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="floor")],
     {"s": np.float32([1, 1, 2, 2])}, "partly", "does not read nearest_mode (here 'floor')", 17),
    ([node("AveragePool", ["x"], ["y"], kernel_shape=[300, 1], pads=[150, 0, 150, 0])], {}, "partly", "above 255", 17),
    ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": np.int64([0, 0, 1, 1, 0, 0, 1, 1])}, "partly",
     "reflect is slow", 17),
    ([node("Gather", ["x", "i"], ["y"])], {"i": np.int64([-1])}, "partly", "negative index -1", 17),
    ([node("ScatterND", ["x", "i", "u"], ["y"], reduction="mul")],
     {"i": np.int64([[0, 0, 0, 0]]), "u": np.float32([1])}, "not", "reduction=mul is rejected", 16),
    ([node("Einsum", ["x", "x"], ["y"], equation="nchw,nchw->nchw")], {}, "partly", "varies", 17),
    ([node("ArgMax", ["x"], ["y"], select_last_index=1)], {}, "not", "select_last_index must be 0", 17),
    ([node("Clip", ["x"], ["y"])], {}, "not", "neither min nor max", 17),
    ([node("ConvTranspose", ["x", "w"], ["y"])], {"w": np.ones((4, 4, 2, 2), np.float32)}, "not",
     "kernel_shape is required", 17),
    ([node("ConvTranspose", ["x", "w"], ["y"], kernel_shape=[2, 2], output_shape=[16, 16])],
     {"w": np.ones((4, 4, 2, 2), np.float32)}, "partly", "is taken for SAME_LOWER", 17),
    ([node("EyeLike", ["x"], ["y"], k=1)], {}, "partly", "k=1: only 0 is supported (operator list of CANN 5.x)", 17),
    ([node("Flatten", ["x"], ["y"], axis=-2)], {}, "partly", "axis -2 counts from behind", 17),
    ([node("LRN", ["x"], ["y"], size=4)], {}, "not", "size 4 must be odd", 17),
    ([node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], {}, "not", "second output", 17),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], {}, "partly", "dilations [2, 2]", 17),
    ([node("Mod", ["x", "w"], ["y"], fmod=1)], {"w": np.float32(3)}, "partly", "fmod is skipped", 17),
    ([node("PRelu", ["x", "w"], ["y"])], {"w": np.ones((4, 1, 1), np.float32)}, "partly", "must have one axis", 17),
    ([node("ReduceMax", ["x"], ["y"], noop_with_empty_axes=1)], {}, "partly", "noop_with_empty_axes is skipped", 18),
    ([node("Upsample", ["x", "w"], ["y"], mode="cubic")], {"w": np.float32([1, 1, 2, 2])}, "not", "mode cubic", 9),
    ([node("Slice", ["x", "a", "b", "c", "d"], ["y"])], {"a": np.int64([0]), "b": np.int64([8]), "c": np.int64([3]),
                                                         "d": np.int64([2])}, "partly", "step 2 along the last", 17),
    ([node("Slice", ["x", "a", "b", "c"], ["y"])], {"a": np.int64([8]), "b": np.int64([9]), "c": np.int64([3])},
     "partly", "an empty slice (1x4x8x0)", 17),
    ([node("Slice", ["x", "a", "b"], ["z"]), node("Slice", ["z", "a", "b"], ["y"])],
     {"a": np.int64([0]), "b": np.int64([1])}, "partly", "a Slice right behind a Slice", 17),
    ([node("Concat", ["x", "x"], ["z"], axis=1), node("Concat", ["z", "x"], ["y"], axis=1)], {}, "partly",
     "a Concat right behind a Concat", 17),
    ([node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1], strides=[64, 64])],
     {"w": np.ones((4, 4, 1, 1), np.float32)}, "partly", "strides [64, 64] is above 63", 17),
    ([node("Squeeze", ["x"], ["s"]), node("Conv", ["s", "w"], ["y"], kernel_shape=[1])],
     {"w": np.ones((8, 4, 1), np.float32)}, "partly", "along one axis", 17),
    ([node("LayerNormalization", ["x", "w"], ["y"])], {"w": np.ones(8, np.float32)}, "partly", "its variance", 17),
    ([node("Mul", ["x", "x"], ["s"]), node("ReduceMean", ["s"], ["y"], axes=[1])], {}, "partly", "its variance", 17),
    ([node("LSTM", ["x", "w", "w"], ["y"], clip=1.0, hidden_size=1)], {"w": np.ones((1, 4, 1), np.float32)}, "partly",
     "does not read clip (here 1.0)", 17),
    ([node("RoiAlign", ["x", "r", "b"], ["y"], mode="max")],
     {"r": np.ones((1, 4), np.float32), "b": np.int64([0])}, "partly", "does not read mode (here 'max')", 16),
    ([node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1)], {"s": np.float32([1, 1, 0.5, 0.5])},
     "partly", "antialias (opset 18) is not read", 18),
    ([node("Resize", ["x", "", "s"], ["y"], mode="cubic", cubic_coeff_a=-0.5)], {"s": np.float32([1, 1, 2, 2])},
     "partly", "cubic_coeff_a -0.5 is not read", 17),
    ([node("Resize", ["x", "", "s"], ["y"], mode="linear",
           coordinate_transformation_mode="tf_crop_and_resize")], {"s": np.float32([1, 1, 2, 2])},
     "partly", "coordinate mode tf_crop_and_resize is not read", 17),
])
def test_known_troubles_are_named(tmp_path, nodes, weights, state, words, opset):
    assert has(line(tmp_path / "m.onnx", *nodes, weights=weights, opset=opset), state, words)


def test_nothing_is_said_against_the_same_operators_in_their_good_form(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["a"], kernel_shape=[1, 1]), node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
             node("Gather", ["b", "i"], ["c"]), node("AveragePool", ["c"], ["d"], kernel_shape=[2, 2]),
             node("Resize", ["d", "", "s"], ["y"], mode="linear")]
    path = line(tmp_path / "m.onnx", *nodes, weights={
        "w": np.ones((4, 4, 1, 1), np.float32), "i": np.int64([0]), "s": np.float32([1, 1, 2, 2])})
    for name in "abcdy":
        assert reasons(path, name) == []


@pytest.mark.parametrize("place", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("scale", [2.0, 0.5, 1.5])
def test_a_nearest_resize_is_named_exactly_where_cann_takes_other_pixels(tmp_path, place, rounding, scale):
    path = line(tmp_path / "m.onnx", node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode=rounding,
                                          coordinate_transformation_mode=place),
                weights={"s": np.float32([1, 1, scale, scale])})
    size, out = 8, int(8 * scale)
    at = np.arange(out)
    onnx_at = {"asymmetric": at / scale, "align_corners": at * (size - 1) / (out - 1)}.get(
        place, (at + 0.5) / scale - 0.5)
    ours = {"floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda x: np.ceil(x - 0.5),
            "round_prefer_ceil": lambda x: np.floor(x + 0.5)}[rounding](np.round(onnx_at, 9)).clip(0, size - 1)
    # As TensorFlow computes it: the floor of a coordinate, with centres where half_pixel asks for them.
    theirs = {"asymmetric": np.floor(at / scale), "align_corners": np.floor(np.round(onnx_at, 9) + 0.5)}.get(
        place, np.floor((at + 0.5) / scale)).clip(0, size - 1)
    assert has(path, "partly", "takes other pixels than ONNX") is not np.array_equal(ours, theirs)


def test_a_gru_is_read_as_pytorch_means_it(tmp_path):
    weights = {"w": np.ones((1, 9, 4), np.float32), "r": np.ones((1, 9, 3), np.float32)}
    for value, wrong in ((0, True), (1, False)):
        path = save(tmp_path / f"{value}.onnx", [node("GRU", ["x", "w", "r"], ["", "y"], "gru", hidden_size=3,
                                                      linear_before_reset=value)],
                    {"x": (FLOAT, [2, 1, 4])}, {"y": (FLOAT, None)}, weights)
        assert has(path, "partly", "linear_before_reset = 0", name="gru") is wrong


def test_limits_of_old_documents_are_warnings_for_old_releases_only(tmp_path):
    path = line(tmp_path / "m.onnx", node("Flatten", ["x"], ["y"], axis=-2), opset=13)
    for cann, severity in (("5.0.4", "warning"), ("8.1.RC1", "note"), (None, "note")):
        made = audit(path, AuditOptions(target="ascend310p3", cann=cann), runs=tmp_path)
        found, = (f for f in made.findings if "counts from behind" in f.what)
        assert (found.severity, found.fix) == (severity, "plain-attributes")


def test_private_operators_want_opset_16_and_the_rule_brings_them_there(tmp_path):
    path = line(tmp_path / "m.onnx", node("AdaptiveAvgPool2d", ["x"], ["y"], output_size=[1, 1]), opset=17)
    assert has(path, "not", "AdaptiveAvgPool2d is there for opset 8-16 only")
    made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
    found, = (f for f in made.of("error") if f.operator == "AdaptiveAvgPool2d" and "is not registered" in f.what)
    assert (made.recommended_opset, found.fix) == (16, "lower-opset")


def boxes(tmp_path, *names):
    given = {"boxes": (FLOAT, [1, 10, 4]), "scores": (FLOAT, [1, 1, 10])}
    nms = node("NonMaxSuppression", ["boxes", "scores", *names], ["y"])
    return save(tmp_path / f"nms{len(names)}.onnx", [nms], given, {"y": (INT64, None)},
                {"most": np.int64([800]), "iou": np.float32([0.5]), "score": np.float32([0.1])})


def test_non_maximum_suppression_needs_five_inputs_and_few_boxes(tmp_path):
    assert has(boxes(tmp_path, "most", "iou"), "not", "only 4 inputs")
    five = boxes(tmp_path, "most", "iou", "score")
    assert not has(five, "not", "inputs")
    assert has(five, "partly", "800 is above 700")
    assert has(five, "partly", "padded with -1")


def test_shape_with_start_and_end_is_a_wrong_answer(tmp_path):
    whole = line(tmp_path / "a.onnx", node("Shape", ["x"], ["y"]), result=INT64)
    piece = line(tmp_path / "b.onnx", node("Shape", ["x"], ["y"], start=1, end=3), result=INT64)
    assert reasons(whole) == []
    assert has(piece, "not", "start and end are ignored")


def test_open_axes_are_a_warning_and_an_error_on_the_first_chip(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), shape=("N", 4, "H", "W"))
    for target, severity in (("ascend310p3", "warning"), ("ascend310", "error")):
        made = audit(path, AuditOptions(target=target), runs=tmp_path)
        found = next(f for f in made.findings if "dynamic axes 0 (N), 2 (H), 3 (W)" in f.what)
        assert (found.severity, found.fix) == (severity, "")
        assert found.asked == 'fix-shapes with shapes=("x=1,4,640,640",)'
    batch = line(tmp_path / "b.onnx", node("Relu", ["x"], ["y"]), shape=("N", 4, 8, 8))
    assert audit(batch, AuditOptions(target="ascend310p3"), runs=tmp_path).of("note")


def test_a_variance_that_float16_cannot_hold_is_found_and_folding_repairs_it(tmp_path):
    ones = np.ones(4, np.float32)
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["a"], kernel_shape=[1, 1]),
                node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"]), weights={
                    "w": np.ones((4, 4, 1, 1), np.float32), "s": ones, "b": ones, "m": ones, "v": 9.79e7 * ones})
    made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
    found = next(f for f in made.findings if "more than float16" in f.what)
    assert (found.nodes, found.fix) == (("v",), "fold-batchnorm")
    assert "9.79e+07" in found.what


def test_names_used_twice_and_inputs_of_int64_are_found(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Cast", ["x"], ["a"], "same", to=FLOAT), node("Relu", ["a"], ["y"], "same")],
                {"x": (INT64, [4])}, {"y": (FLOAT, [4])})
    said = {f.what: f.severity for f in audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path).findings}
    assert said["1 node name used more than once (ATC: E13009)"] == "error"
    assert said["input x is int64: its first operators land on AI CPU"] == "warning"


def test_the_opset_is_recommended_by_what_the_model_uses(tmp_path):
    plain = graph_of(line(tmp_path / "a.onnx", node("Relu", ["x"], ["y"])))
    private = graph_of(line(tmp_path / "b.onnx", node("DeformableConv2D", ["x", "x"], ["y"])))
    assert targets.get("ascend310p3").recommended_opset(plain)[0] == 17
    assert targets.get("ascend310p3").recommended_opset(private)[0] == 16


def test_no_promise_is_made(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]))
    made = audit(path, AuditOptions(target="ascend310p3"), runs=tmp_path)
    assert made
    assert "can still fail inside ATC" in str(made)
    assert "will compile" not in str(made)


def test_doubles_have_no_kernel_on_ai_core(tmp_path):
    path = line(tmp_path / "m.onnx", node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), node("Erf", ["d"], ["y"]),
                result=DOUBLE)
    assert any("float64" in reason for _, reason in reasons(path))
