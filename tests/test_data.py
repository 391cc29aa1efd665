"""The data that lies in the repository is what its READMEs say, and the models are as good as promised."""

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import kit
from kit.families import ocr, ocr_models, ocr_tasks

DATA = Path(__file__).parent.parent / "data"
LABELS = json.loads((DATA / "receipts" / "labels.json").read_text(encoding="utf-8"))


def sha256(*paths):
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def test_files_have_the_digests_that_their_readme_gives():
    table = (DATA / "models" / "README.md").read_text()
    rows = re.findall(r"\| `(receipts_\w+/[\w.]+)` \| [\d,]+ \| `(\w{64})` \|", table)
    assert len(rows) == 8
    for name, known in rows:
        assert sha256(DATA / "models" / name) == known, name
    readme = (DATA / "receipts" / "README.md").read_text()
    assert sha256(DATA / "receipts" / "labels.json") in readme
    assert sha256(*sorted((DATA / "receipts" / "images").glob("*.jpg"))) in readme


def test_the_digits_and_their_networks_have_the_digests_that_their_readmes_give():
    for folder, count in ((DATA / "digits", 1), (DATA / "models" / "digits", 8)):
        rows = re.findall(r"\| `([\w.]+)` \| ([\d,]+) \| `(\w{64})` \|", (folder / "README.md").read_text())
        assert len(rows) == count
        for name, size, known in rows:
            assert (folder / name).stat().st_size == int(size.replace(",", ""))
            assert sha256(folder / name) == known, name
    assert (DATA / "digits" / "digits.npz").stat().st_size < 200_000


def test_the_digits_are_those_of_scikit_learn():
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed: pip install -c constraints.txt '.[qat]'")
    from sklearn.datasets import load_digits

    found = load_digits()
    with np.load(DATA / "digits" / "digits.npz") as stored:
        assert np.array_equal(stored["images"], found.images)
        assert np.array_equal(stored["labels"], found.target)


def test_all_data_stays_small():
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) < 60_000_000


def test_splits_share_no_slip_and_every_line_lies_on_its_page():
    splits = LABELS["splits"]
    files = [file for split in splits.values() for file in split]
    assert len(files) == len(set(files)) == len(LABELS["slips"]) >= 160
    assert set(splits) == {"train", "calibration", "test"}
    for slip in LABELS["slips"]:
        assert (slip["width"], slip["height"]) == (960, 640)
        quads = np.float32([line["quad"] for line in slip["lines"]])
        assert quads.shape[1:] == (4, 2)
        assert quads.min() >= 0
        assert (quads.max(axis=(0, 1)) <= (960, 640)).all()
        assert all(line["text"] for line in slip["lines"])


def test_the_recipe_draws_the_same_slips_again(tmp_path):
    sys.path.insert(0, str(DATA / "recipes"))
    try:
        spec = importlib.util.spec_from_file_location("receipts", DATA / "recipes" / "receipts.py")
        receipts = importlib.util.module_from_spec(spec)
        sys.modules["receipts"] = receipts
        spec.loader.exec_module(receipts)
        try:
            receipts.main(["--out", str(tmp_path), "--count", "3", "--seed", str(LABELS["seed"])])
        except kit.MissingTool as error:
            pytest.skip(f"{error.what} {error.remedy}")
    finally:
        sys.path.remove(str(DATA / "recipes"))
    made = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    for again, known in zip(made["slips"], LABELS["slips"][:3], strict=True):
        assert [line["text"] for line in again["lines"]] == [line["text"] for line in known["lines"]]


def test_an_unknown_split_and_missing_pictures_are_named(tmp_path):
    with pytest.raises(kit.BadInput, match="no split named 'tests'"):
        ocr_tasks.pages(DATA / "receipts", "tests")
    with pytest.raises(kit.BadInput, match=r"labels\.json does not exist"):
        ocr_tasks.pages(tmp_path, "test")
    (tmp_path / "labels.json").write_text("[]")
    with pytest.raises(kit.BadInput, match="not a list of labelled pages"):
        ocr_tasks.lines(tmp_path, "test")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    with pytest.raises(kit.BadInput, match=r"48 pictures .* are missing"):
        ocr_tasks.pages(tmp_path, "test")


@pytest.mark.parametrize("name", ["detector", "recogniser"])
def test_the_paddle_models_reach_what_they_must_on_slips_they_never_saw(name):
    found = ocr_models.models("receipts", DATA)
    if name == "detector":
        path, samples, task, least = found.detector, ocr_tasks.pages(DATA / "receipts", "test", limit=16), \
            ocr_tasks.DetectorTask(), 0.90
    else:
        path, samples, least = found.recogniser, ocr_tasks.lines(DATA / "receipts", "test", limit=240), 0.93
        task = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(path)))
    with kit.open_runner(path) as run:
        tallies = [task.tally(task.answer(run(feed), item, feed), item)
                   for feed, item in zip(samples, samples.items, strict=True)]
    scores = task.scores(tuple(np.sum(tallies, axis=0)))
    assert scores[task.name] >= least, scores


def test_a_slip_is_read_end_to_end_by_pp_ocrv4():
    if not ocr_models.is_here("ppocrv4"):
        pytest.skip("rapidocr-onnxruntime, which carries the PP-OCRv4 models, is not installed")
    models = ocr_models.models("ppocrv4")
    page = ocr_tasks.pages(DATA / "receipts", "test", limit=1).items[0]
    characters = ocr.characters_of(models.recogniser)
    with kit.open_runner(models.detector) as detect, kit.open_runner(models.recogniser) as recognise:
        lines = ocr.read_page(page.load(), detect, recognise, characters)
    read = {line.text.replace(" ", "") for line in lines}
    assert len(characters) == 6625
    assert len(read & set(page.truth.texts)) >= 0.6 * len(page.truth.texts), read


def test_other_models_are_refused_with_the_names_there_are():
    with pytest.raises(kit.BadInput, match="'ppocrv5'"):
        ocr_models.models("ppocrv5", DATA)
    with pytest.raises(kit.BadInput, match="does not exist"):
        ocr_models.models("receipts", DATA / "none")
