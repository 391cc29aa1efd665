"""The Paddle detector is what its README and detection.json say, and as good as promised."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnx.utils
import onnxruntime
import ppyoloe_detector
import pytest

import kit
from kit import worker
from kit.exporting import pir

DATA = Path(__file__).parent.parent / "data"
MODEL = DATA / "models" / "defects_ppyoloe"
CLASSES = ("scratch", "pit", "inclusion", "stain")
SAID = json.loads((MODEL / "detection.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def facts():
    if importlib.util.find_spec("paddle") is None:
        pytest.skip("paddle is not installed: pip install -c constraints.txt '.[paddle]'")
    return worker.run(ppyoloe_detector.facts, framework="paddle")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    if importlib.util.find_spec("paddle2onnx") is None:
        pytest.skip("paddle2onnx is not installed: pip install -c constraints.txt '.[paddle]'")
    # one picture: Paddle2ONNX's form of multiclass_nms3 takes no more
    probe = kit.ExportOptions(probe=("image=1,3,256,256; scale_factor=1,2",))
    made = kit.export(MODEL, probe, runs=tmp_path_factory.mktemp("ppyoloe"))
    assert made.verdict == "equal", made
    return made.model.path


def test_files_have_the_digests_that_the_readme_gives():
    readme = (MODEL / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([\w.]+)` \| ([\d,]+) \| `(\w{64})` \|", readme)
    assert {name for name, _, _ in rows} == {path.name for path in MODEL.iterdir()} - {"README.md", "training.log"}
    for name, size, known in rows:
        assert (MODEL / name).stat().st_size == int(size.replace(",", ""))
        assert hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == known, name
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 3_000_000


def test_the_description_agrees_with_the_saved_program():
    program = pir.read(MODEL / "inference.json")
    text = (MODEL / "inference.json").read_text(encoding="utf-8")
    names = re.findall(r'"#":"1\.data".*?"#":"0\.a_str","D":"(\w+)".*?"#":"1\.a_intarray","D":(\[[-\d,]+\])', text)
    assert {name: json.loads(shape) for name, shape in names} == {
        SAID["inputs"]["image"]: [-1, 3, *SAID["size"]], SAID["inputs"]["scale_factor"]: [-1, 2]}
    assert pir.operators(program)["multiclass_nms3"] == 1
    assert "batch_norm_" not in pir.operators(program)  # folded, as the 1x1 branches are


def test_the_description_agrees_with_the_recipe_and_with_paddle_detections_file():
    assert SAID["format"] == "kit-detection"
    assert tuple(SAID["classes"]) == CLASSES
    text = (MODEL / "infer_cfg.yml").read_text(encoding="utf-8")
    assert re.findall(r"^- (\w+)$", text.partition("label_list:")[2], re.MULTILINE) == list(CLASSES)
    for name in ("mean", "std"):
        (values,) = re.findall(rf"^  {name}: (\[.*\])$", text, re.MULTILINE)
        assert json.loads(values) == SAID["preprocess"][name]
    assert [int(side) for side in re.findall(r"^  - (\d+)$", text, re.MULTILINE)] == SAID["size"]


def test_the_recipe_prepares_pictures_as_the_description_says(facts):
    import cv2

    prepare = kit.Preprocess(**{name: tuple(value) if isinstance(value, list) else value
                                for name, value in SAID["preprocess"].items()})
    picture = cv2.imread(str(DATA / "defects" / "images" / "steel_001.jpg"))
    np.testing.assert_allclose(prepare(picture), facts["committed"]["image"][:1], atol=1e-5)


def test_the_deployed_form_answers_as_the_one_that_learns(facts):
    assert facts["spread"] > 1e-3
    assert facts["farthest"] <= 1e-5 * max(1.0, facts["largest"])
    assert not facts["kinds"] & {"BatchNorm2D", "ConvBN", "RepConv"}
    learning, deployed = facts["parameters"]
    assert 300_000 < deployed < learning < 700_000


def test_every_box_is_learnt_by_points_inside_it_and_the_best_one_learns_the_highest_score(facts):
    found = facts["assigned"]
    for at, (kind, *corners) in enumerate(found["boxes"]):
        own = found["owners"] == at
        assert 1 <= own.sum() <= facts["near"]
        x, y = found["places"][own].T
        assert ((x > corners[0]) & (x < corners[2]) & (y > corners[1]) & (y < corners[3])).all()
        wanted = found["wanted"][own]
        assert (wanted[:, int(kind)] > 0).all()
        assert np.delete(wanted, int(kind), axis=1).max() == 0
    assert (found["wanted"][found["owners"] < 0] == 0).all()
    # The first box is guessed by a shift of five pixels: 85 x 85 in common of 90 x 90 each.
    iou = 85**2 / (2 * 90**2 - 85**2)
    assert found["wanted"][:, 2].max() == pytest.approx(iou, rel=1e-4)
    wanted, owners = found["empty"]
    assert wanted.max() == 0
    assert (owners == -1).all()


def test_boxes_that_do_not_meet_can_be_learnt_from(facts):
    # IoU 1, 1/2, 0, 0; the box around both is as large as the union but for the third pair: 12, of which 6 are empty
    np.testing.assert_allclose(facts["giou"]["loss"], [0, 0.5, 1.5, 1], atol=1e-5)
    assert facts["giou"]["finite"]  # the gradient of a product over sides of 0 is not


def test_the_points_are_the_middles_of_the_squares_of_three_grids(facts):
    middles, strides = facts["points"]
    assert np.unique(strides, return_counts=True)[1].tolist() == [1024, 256, 64]
    assert (middles * strides)[[0, 1, 1023, 1024, 1343]].tolist() == [[4, 4], [12, 4], [252, 252], [8, 8], [240, 240]]


def test_scale_factor_brings_the_boxes_back_to_the_original(facts):
    (plain, counts), (resized, same) = facts["committed"]["plain"], facts["committed"]["resized"]
    assert counts.dtype == np.int32
    assert counts.sum() == len(plain)
    assert counts.min() > 0
    assert np.array_equal(counts, same)
    height, width = ppyoloe_detector.ELSEWHERE
    np.testing.assert_allclose(resized[:, :2], plain[:, :2], atol=1e-6)
    np.testing.assert_allclose(resized[:, 2:], plain[:, 2:] / [width, height, width, height], atol=1e-2)
    assert (plain[:, 1] >= facts["nms"]["score_threshold"]).all()


def test_the_heads_that_the_description_names_are_in_the_converted_graph(converted, facts):
    model = onnx.load(converted)
    names = [SAID["outputs"]["boxes"], SAID["outputs"]["scores"]]
    (suppression,) = [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]
    assert list(suppression.input[:2]) == names
    model = onnx.utils.Extractor(model).extract_model(list(SAID["inputs"].values()), names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {SAID["inputs"]["image"]: facts["committed"]["image"],
            SAID["inputs"]["scale_factor"]: np.float32([[1, 1], ppyoloe_detector.ELSEWHERE])}
    boxes, scores = session.run(names, feed)
    known = worker.run(ppyoloe_detector.heads, *feed.values(), framework="paddle")
    count = len(facts["points"][0])
    assert boxes.shape == (2, count, 4)
    assert scores.shape == (2, len(CLASSES), count)
    assert SAID["scores"]["classes_axis"] == 1
    np.testing.assert_allclose(boxes, known[0], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(scores, known[1], rtol=1e-4, atol=1e-5)


def test_the_detector_reaches_what_it_must_on_pictures_it_never_saw(facts):
    pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    scores = worker.run(ppyoloe_detector.scores, "test", framework="paddle")
    assert scores["mAP@0.5"] >= 0.80, scores
    assert min(scores[name] for name in CLASSES) >= 0.6, scores
    readme = (MODEL / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\| \*\*mAP@0\.5\*\* \| \*\*([\d.]+)\*\* \|", readme)
    assert abs(scores["mAP@0.5"] - float(said)) < 0.003  # another processor rounds otherwise
