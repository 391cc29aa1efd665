"""The steel surfaces and the Keras detector are what their READMEs say, and the detector is as good as promised."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import cv2
import defect_detector
import numpy as np
import pytest

import kit
from kit import worker

DATA = Path(__file__).parent.parent / "data"
DEFECTS = DATA / "defects"
MODEL = DATA / "models" / "defects_efficientdet"
SPLITS = {name: json.loads((DEFECTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("train", "val", "test")}
CLASSES = ("scratch", "pit", "inclusion", "stain")


def sha256(*paths):
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("defects_recipe", DATA / "recipes" / "defects.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def facts():
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed: pip install -c constraints.txt '.[tensorflow]'")
    return worker.run(defect_detector.facts, framework="tensorflow")


def test_files_have_the_digests_that_their_readmes_give():
    readme = (DEFECTS / "README.md").read_text(encoding="utf-8")
    for name in SPLITS:
        assert f"| `{name}.json` | `{sha256(DEFECTS / f'{name}.json')}` |" in readme
    assert sha256(*sorted((DEFECTS / "images").glob("*.jpg"))) in readme
    assert sum(path.stat().st_size for path in DEFECTS.rglob("*") if path.is_file()) <= 3_000_000


def test_the_table_of_the_readme_counts_what_is_there():
    readme = (DEFECTS / "README.md").read_text(encoding="utf-8")
    for name, content in SPLITS.items():
        kinds = np.bincount([a["category_id"] for a in content["annotations"]], minlength=5)[1:]
        assert f"| `{name}` | {len(content['images'])} | {' | '.join(map(str, kinds))} |" in readme
        assert kinds.min() >= 20
    assert sum(len(content["images"]) for content in SPLITS.values()) >= 300


def test_splits_share_no_picture_and_every_picture_of_the_folder_is_in_one():
    names = [image["file_name"] for content in SPLITS.values() for image in content["images"]]
    assert sorted(names) == sorted(path.name for path in (DEFECTS / "images").glob("*.jpg"))
    assert len({sha256(DEFECTS / "images" / name) for name in names}) == len(names)
    marks = [a["id"] for content in SPLITS.values() for a in content["annotations"]]
    assert len(marks) == len(set(marks))


@pytest.mark.parametrize("split", SPLITS)
def test_every_box_lies_in_its_picture_and_is_twelve_pixels_wide_and_high(split):
    content = SPLITS[split]
    assert [c["name"] for c in content["categories"]] == list(CLASSES)
    assert [c["id"] for c in content["categories"]] == [1, 2, 3, 4]
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for mark in content["annotations"]:
        x, y, width, height = mark["bbox"]
        assert min(x, y) >= 0
        across, down = sizes[mark["image_id"]]
        assert x + width <= across
        assert y + height <= down
        assert min(width, height) >= 12
        assert mark["area"] == width * height
    marked = {mark["image_id"] for mark in content["annotations"]}
    assert 0.7 < len(marked) / len(sizes) < 1  # some pictures are clean
    for image in content["images"]:
        picture = cv2.imread(str(DEFECTS / "images" / image["file_name"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (image["height"], image["width"]) == (256, 256)  # grey


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_reads_a_split(split):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    found = coco.COCO(str(DEFECTS / f"{split}.json"))
    assert len(found.getImgIds()) == len(SPLITS[split]["images"])
    assert len(found.getAnnIds()) == len(SPLITS[split]["annotations"])


def test_the_recipe_writes_the_same_boxes_and_nearly_the_same_pictures_again(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SPLITS", {"train": 6})
    recipe.write(tmp_path)
    made = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    known = [a for a in SPLITS["train"]["annotations"] if a["image_id"] <= 6]
    assert made["annotations"] == known
    for image in made["images"]:
        again, stored = (cv2.imread(str(folder / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE).astype(float)
                         for folder in (tmp_path, DEFECTS))
        # another OpenCV may round elsewhere; another random number would be another picture
        assert np.abs(again - stored).mean() < 2


def test_pictures_for_training_are_others_than_the_committed_ones(recipe):
    picture, boxes = recipe.fresh(0)
    again, same = recipe.fresh(0)
    assert np.array_equal(picture, again)
    assert boxes == same
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    assert not np.array_equal(picture, cv2.imread(str(DEFECTS / "images" / "steel_000.jpg")))
    assert not np.array_equal(picture, recipe.fresh(1)[0])


def test_every_box_holds_what_it_is_named_after(recipe):
    """Inside a box of an inclusion or a pit the steel is darker than around it; a scratch is brighter."""
    for kind, sign in (("pit", -1), ("inclusion", -1), ("scratch", 1)):
        shifts = []
        for number in range(60):
            picture, boxes = recipe.fresh(number)
            grey = picture[:, :, 0].astype(float)
            for own, x, y, width, height in boxes:
                if CLASSES[own] == kind:
                    x, y, width, height = map(int, (x, y, width, height))
                    inside = grey[y : y + height, x : x + width]
                    around = grey[max(0, y - 8) : y + height + 8, max(0, x - 8) : x + width + 8]
                    shifts.append(np.percentile(inside, 50 + 48 * sign) - np.median(around))
        assert len(shifts) > 20
        assert np.mean(np.sign(shifts) == sign) > 0.95, kind


def test_the_detectors_files_have_the_digests_that_the_readme_gives():
    readme = (MODEL / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([\w./-]+)` \| ([\d,]+) \| `(\w{64})` \|", readme)
    assert {name for name, _, _ in rows} == {path.relative_to(MODEL).as_posix() for path in MODEL.rglob("*")
                                             if path.is_file() and path.name not in ("README.md", "training.log")}
    for name, size, known in rows:
        assert (MODEL / name).stat().st_size == int(size.replace(",", ""))
        assert sha256(MODEL / name) == known, name


def test_the_description_of_the_detector_agrees_with_its_signature(facts):
    said = json.loads((MODEL / "detection.json").read_text(encoding="utf-8"))
    assert said["format"] == "kit-detection"
    assert tuple(said["classes"]) == CLASSES
    assert facts["inputs"] == {said["inputs"]["image"]: ("float32", [None, *said["size"], 3])}
    count = len(facts["anchors"])
    assert facts["outputs"] == {said["outputs"]["scores"]: ("float32", [None, count, len(CLASSES)]),
                                said["outputs"]["boxes"]: ("float32", [None, count, 4])}
    prepare = kit.Preprocess(**{name: tuple(value) if isinstance(value, list) else value
                                for name, value in said["preprocess"].items()})
    picture = cv2.imread(str(DEFECTS / "images" / "steel_001.jpg"))
    assert np.array_equal(prepare(picture), picture[None, :, :, ::-1].astype(np.float32))


def test_the_described_anchors_are_those_the_detector_was_trained_with(facts):
    said = json.loads((MODEL / "detection.json").read_text(encoding="utf-8"))
    coding = said["boxes"]["anchors"]
    made = [((row + 0.5) * stride, (column + 0.5) * stride, coding["size"] * stride * scale / ratio**0.5,
             coding["size"] * stride * scale * ratio**0.5)
            for stride in coding["strides"]
            for row in range(said["size"][0] // stride) for column in range(said["size"][1] // stride)
            for scale in coding["scales"] for ratio in coding["ratios"]]
    np.testing.assert_allclose(facts["anchors"], np.float32(made), rtol=1e-6)


def test_the_rebuilt_keras_model_answers_as_the_saved_model(facts):
    assert facts["farthest"] <= 1e-4 * facts["largest"]
    assert facts["interpolations"] == ["bilinear", "nearest"]
    assert facts["fusions"] == 16  # two cells of eight
    assert 200_000 < facts["parameters"] < 700_000


def test_targets_decode_to_the_boxes_that_they_were_made_from(facts):
    assert facts["assigned"]["kinds"] == [-2, -1, 0, 2]
    found = {(kind, *np.round(corners).astype(int).tolist()) for kind, _, *corners in facts["assigned"]["found"]}
    assert found == {(2, 40, 60, 60, 130), (0, 100, 30, 190, 110)}


def test_the_detector_reaches_what_it_must_on_pictures_it_never_saw(facts):
    pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    scores = worker.run(defect_detector.scores, "test", framework="tensorflow")
    assert scores["mAP@0.5"] >= 0.80, scores
    assert min(scores[name] for name in CLASSES) >= 0.6, scores
    readme = (MODEL / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\| \*\*mAP@0\.5\*\* \| \*\*([\d.]+)\*\* \|", readme)
    assert abs(scores["mAP@0.5"] - float(said)) < 0.003  # another processor rounds otherwise
