"""The tiny Stable Diffusion and its judge are what their README says."""

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

DATA = Path(__file__).parent.parent / "data"
MODEL = DATA / "models" / "sd-tiny"
ABOUT = json.loads((MODEL / "judge.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shapes():
    spec = importlib.util.spec_from_file_location("shapes_recipe", DATA / "recipes" / "shapes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def read(pictures):
    """What the judge reads in uint8 pictures: [n, 5]."""
    session = onnxruntime.InferenceSession(str(MODEL / "judge.onnx"))
    tensor = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255
    logits = session.run(None, {"picture": tensor})[0]
    return np.stack([part.argmax(1) for part in np.split(logits, np.cumsum(ABOUT["parts"])[:-1], 1)], 1)


def test_files_have_the_digests_that_their_readme_gives():
    rows = re.findall(r"\| `([\w./-]+)` \| ([\d,]+) \| `(\w{64})` \|", (MODEL / "README.md").read_text())
    assert {name for name, _, _ in rows} == {
        str(path.relative_to(MODEL)) for path in MODEL.rglob("*") if path.is_file() and path.name != "README.md"}
    for name, size, known in rows:
        assert (MODEL / name).stat().st_size == int(size.replace(",", "")), name
        assert hashlib.sha256((MODEL / name).read_bytes()).hexdigest() == known, name
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 25_000_000


def test_prompts_and_labels_of_the_test_list_are_those_of_the_recipe(shapes):
    known = {scene.caption: list(scene.label) for scene in shapes.scenes()}
    assert len(known) == 12 * 11 * 4
    assert len(ABOUT["prompts"]) == 100
    for row in ABOUT["prompts"]:
        assert known[row["prompt"]] == row["label"]
    assert (ABOUT["colours"], tuple(ABOUT["shapes"])) == (list(shapes.COLOURS), shapes.SHAPES)


def test_the_judge_reads_drawn_pictures_right(shapes):
    rng = np.random.default_rng(77)
    scenes = [shapes.scenes()[i] for i in rng.choice(528, 200, replace=False)]
    found = read([shapes.draw(scene, rng) for scene in scenes])
    assert (found == [scene.label for scene in scenes]).all(1).mean() >= 0.99


def test_the_judge_refuses_what_shows_no_scene(shapes):
    rng = np.random.default_rng(78)
    found = read([shapes.spoiled(rng) for _ in range(200)])
    complete = (found[:, [1, 3]] < 4).all(1) & (found[:, [2, 4]] < 3).all(1)
    assert complete.mean() <= 0.05
    black = read([np.zeros((64, 64, 3), np.uint8)])[0]
    assert 4 in black[[1, 3]] or 3 in black[[2, 4]]


def test_a_scene_and_its_reverse_show_the_same(shapes):
    red, blue = ("red", "circle"), ("blue", "square")
    assert shapes.Scene(red, "above", blue).label == shapes.Scene(blue, "below", red).label
    assert shapes.Scene(red, "left of", blue).label == shapes.Scene(blue, "right of", red).label
    assert shapes.Scene(red, "above", blue).caption == "a red circle above a blue square"
