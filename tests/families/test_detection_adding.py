"""Facts about post-processing in the graph: it does what numpy does, in one file, and a chip can take it."""

from __future__ import annotations

from dataclasses import replace

import heads_nets
import numpy as np
import onnx
import pytest

import kit
from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.families.detection import AddNmsOptions, Edited, NmsOptions, add_nms, detect, read_detections
from kit.families.detection_proof import Proof, made_up_heads
from kit.record import load

ROWS, AGNOSTIC = AddNmsOptions(score_threshold=0.3), AddNmsOptions(score_threshold=0.3, class_agnostic=True, most=7)
BEST = AddNmsOptions(score_threshold=0.3, total=9)


def feeds(heads, seed=11):
    """Raw heads of two pictures, as the bare net takes them."""
    made = made_up_heads(heads, *heads_nets.shapes(heads, 2), seed)
    return {"b": made[heads.boxes], "s": made[heads.scores]}


@pytest.mark.parametrize("options", [ROWS, AGNOSTIC, BEST, replace(BEST, form="padded"),
                                     replace(AGNOSTIC, total=3), replace(AGNOSTIC, total=9, form="padded"),
                                     NmsOptions(score_threshold=0.3, iou=0.0)],
                         ids=["rows", "agnostic", "best", "padded", "agnostic best", "agnostic padded", "plain"])
@pytest.mark.parametrize(("coding", "activation", "axis"), [
    ("anchors", "sigmoid", 2), ("xyxy", "none", 1), ("yxyx", "sigmoid", 1), ("cxcywh", "none", 2)])
def test_the_graph_finds_what_numpy_finds(tmp_path, coding, activation, axis, options):
    heads = heads_nets.heads(coding, activation, axis)
    added = add_nms(heads_nets.net(tmp_path, heads), heads, options, runs=tmp_path / "runs")
    onnx.checker.check_model(str(added.model.path), full_check=True)
    assert added.detections > 20
    assert all(row.verdict == "equal" for row in added.parity)
    given = feeds(heads)
    found = read_detections(heads_nets.run(added.model.path, **given))
    expected = detect({heads.boxes: given["b"], heads.scores: given["s"]}, heads, options)
    assert [len(one) for one in found] == [len(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert len(one)
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-6, atol=1e-4)


def test_the_result_tells_every_edit_and_the_outputs(tmp_path):
    heads = heads_nets.heads("anchors", "sigmoid")
    added = add_nms(heads_nets.net(tmp_path, heads), heads, ROWS, runs=tmp_path / "runs")
    proto = onnx.load(str(added.model.path))
    new = {node.name for node in proto.graph.node if not node.name.startswith("copy_")}
    assert {edit.where for edit in added.edits if edit.what.startswith("added")} == new
    assert all(name.startswith(("decode/", "nms/")) for name in new)
    assert [str(spec) for spec in added.model.outputs] == [
        "boxes float32[rows, 4]", "scores float32[rows]", "classes int64[rows]", "batch int64[rows]"]
    assert [step.stage for step in added.model.lineage] == ["add-nms"]
    assert "at most 100 of each class" in str(added)
    assert "the_boxes" in str(added)
    assert load(Edited, added.provenance.folder) == added


def test_a_folder_with_the_description_is_enough_and_samples_are_fed(tmp_path):
    heads = heads_nets.heads()
    heads.write(tmp_path)
    given = feeds(heads)
    added = add_nms(heads_nets.net(tmp_path, heads), tmp_path, ROWS, samples=[given], runs=tmp_path / "runs")
    assert "1 samples: b [2, 50, 4]" in added.checked_on
    assert added.notes == ()


def test_made_up_inputs_in_which_nothing_is_found_are_told(tmp_path):
    heads = heads_nets.heads(activation="sigmoid")
    added = add_nms(heads_nets.net(tmp_path, heads), heads, NmsOptions(score_threshold=1.0), runs=tmp_path / "runs")
    assert added.detections == 0
    assert "Nothing was found" in added.notes[0]


def test_scores_that_are_not_what_the_heads_say_are_told(tmp_path):
    heads, given = heads_nets.heads(), feeds(heads_nets.heads())
    given["s"] = given["s"] * 9 - 4
    added = add_nms(heads_nets.net(tmp_path, heads), heads, ROWS, samples=[given], runs=tmp_path / "runs")
    assert "Scores go from -4 to 5 and are no probabilities" in " ".join(added.notes)
    heads = replace(heads, activation="sigmoid")
    given = feeds(heads_nets.heads())
    added = add_nms(heads_nets.net(tmp_path, heads), heads, ROWS, samples=[given], runs=tmp_path / "runs")
    assert "if they are probabilities already" in " ".join(added.notes)


def test_heads_called_like_the_new_outputs_and_other_outputs_stay_apart(tmp_path):
    heads = replace(heads_nets.heads(), boxes="boxes", scores="classes")
    path = heads_nets.net(tmp_path, heads)
    proto = onnx.load(str(path))
    proto.graph.node.append(onnx.helper.make_node("Neg", ["s"], ["batch"], "batch"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("batch", 1, ["N", 50, 3]))
    onnx.save(proto, str(path))
    added = add_nms(path, heads, ROWS, runs=tmp_path / "runs")
    assert [spec.name for spec in added.model.outputs] == ["batch", "boxes", "scores", "classes", "detections/batch"]


def test_heads_in_float16_are_decoded_in_float32(tmp_path):
    heads = heads_nets.heads("anchors", "sigmoid")
    added = add_nms(heads_nets.net(tmp_path, heads, kind=onnx.TensorProto.FLOAT16), heads, ROWS,
                    runs=tmp_path / "runs")
    assert added.detections > 20
    assert added.model.outputs[0].dtype == "float32"


def test_no_boxes_at_all_are_no_error(tmp_path):
    heads = heads_nets.heads()
    for options in (ROWS, BEST, replace(AGNOSTIC, total=3)):
        path = heads_nets.net(tmp_path, heads)
        proto = onnx.load(str(path))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[1].dim_param = "A"
        onnx.save(proto, str(path))
        added = add_nms(path, heads, options, runs=tmp_path / "runs")
        answer = heads_nets.run(added.model.path, b=np.zeros((1, 0, 4), np.float32), s=np.zeros((1, 0, 3), np.float32))
        assert read_detections(answer)[0].rows() == []


def test_a_graph_that_does_something_else_is_refused(tmp_path):
    heads = heads_nets.heads("anchors", "sigmoid")
    source = heads_nets.net(tmp_path, heads)
    added = add_nms(source, heads, ROWS, runs=tmp_path / "runs")
    proto = onnx.load(str(added.model.path))
    for tensor in proto.graph.initializer:
        if tensor.name == "nms/iou_threshold":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32([0.1]), tensor.name))
    onnx.save(proto, str(tmp_path / "other.onnx"))
    made = {node.name: node for node in proto.graph.node}
    decoded = list(made["nms/NonMaxSuppression"].input[:2])
    proof = Proof(tmp_path / "other.onnx", [heads.boxes, heads.scores], decoded, heads, ROWS)
    with pytest.raises(ToolFailed, match="detections in the graph"):
        proof.tail([added.source.outputs[0], added.source.outputs[1]])


def test_what_cannot_be_done_is_refused_and_leaves_nothing(tmp_path):
    heads = heads_nets.heads()
    net = heads_nets.net(tmp_path, heads)
    with pytest.raises(BadInput, match="no output named 'raw_boxes'"):
        add_nms(net, replace(heads, boxes="raw_boxes"), runs=tmp_path / "runs")
    with pytest.raises(BadInput, match=r"'the_scores' has the shape \['N', 50, 3\]"):
        add_nms(net, replace(heads, classes=("a",)), runs=tmp_path / "runs")
    with pytest.raises(UnsupportedModel, match="opset 11"):
        add_nms(heads_nets.net(tmp_path, heads, opset=11), heads, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="FixOptions"):
        add_nms(net, heads, kit.FixOptions(), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    added = add_nms(heads_nets.net(tmp_path, heads), heads, ROWS, runs=tmp_path / "runs")
    with pytest.raises(BadInput, match="has a NonMaxSuppression already"):
        add_nms(added, heads, runs=tmp_path / "runs")


# -- Ascend


@pytest.mark.parametrize("options", [ROWS, AGNOSTIC], ids=["each class", "agnostic"])
@pytest.mark.parametrize("coding", ["anchors", "xyxy"])
def test_an_ascend_chip_takes_it_and_its_rows_of_minus_one_are_left_out(tmp_path, coding, options):
    heads = heads_nets.heads(coding, "sigmoid")
    added = add_nms(heads_nets.net(tmp_path, heads, batch=1), heads, options, runs=tmp_path / "runs")
    fixed = kit.fix(added, kit.FixOptions(target="ascend310p3"), runs=tmp_path / "runs")
    assert fixed.rejected == ()
    assert "nms-five-inputs" not in fixed.counts(), "it has five inputs already"
    assert fixed.counts()["nms-rows"] >= 2
    audit = kit.audit(fixed, kit.AuditOptions(target="ascend310p3"), runs=tmp_path / "runs")
    assert [finding for finding in audit.findings if finding.severity == "error"] == []
    assert not [finding for finding in audit.findings if finding.fix.startswith("nms")]
    given = {name: array[:1] for name, array in feeds(heads).items()}
    whole = read_detections(heads_nets.run(added.model.path, **given))
    answer = as_on_the_chip(fixed.model.path, 30, given)
    assert (answer["classes"] == -1).sum() > 0
    assert len(answer["classes"]) == len(whole[0]) + 30
    assert read_detections(answer) == whole


def as_on_the_chip(path, more, given):
    """The answer where NonMaxSuppression ends in ``more`` rows of -1, as Ascend's does."""
    proto = onnx.load(str(path))
    (node,) = [node for node in proto.graph.node if node.op_type == "NonMaxSuppression"]
    blank = onnx.numpy_helper.from_array(np.full((more, 3), -1), "blank")
    proto.graph.initializer.append(blank)
    rows = node.output[0]
    node.output[0] = "kept"
    at = list(proto.graph.node).index(node)
    proto.graph.node.insert(at + 1, onnx.helper.make_node("Concat", ["kept", "blank"], [rows], "chip", axis=0))
    del proto.graph.value_info[:]
    onnx.save(proto, str(path.with_name("chip.onnx")))
    return heads_nets.run(path.with_name("chip.onnx"), **given)
