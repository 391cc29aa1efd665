"""Raw calibration files: the bytes are the samples', the manifest tells them, and nothing half written stays."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from kit.ascend.precision.calibration_files import read_calibration, write_calibration
from kit.errors import BadInput
from kit.model import TensorSpec
from kit.samples import Preprocess, Samples

ONE = (TensorSpec("x", "float32", ("n", 3, 4, 5)),)
TWO = (TensorSpec("a/b:0", "float32", (1, 3)), TensorSpec("a_b_0", "int64", (1, 2)))


def feeds(count, shape=(1, 3, 4, 5), seed=0):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def raw(made, file, dtype="<f4"):
    return np.frombuffer((made.folder / file.path).read_bytes(), dtype)


def test_a_file_a_sample_holds_its_bytes_and_nothing_else(tmp_path):
    samples = feeds(5)
    made = write_calibration(samples, ONE, tmp_path / "calibration", limit=3)
    assert (made.samples, made.batch, made.left_out, len(made.files)) == (3, 1, 0, 3)
    for sample, file in zip(samples, made.files, strict=False):
        assert np.array_equal(raw(made, file).reshape(1, 3, 4, 5), sample["x"])
        assert file.sha256 == hashlib.sha256((made.folder / file.path).read_bytes()).hexdigest()
        assert file.size == 3 * 4 * 5 * 4
    assert [file.path for file in made.files] == sorted(file.path for file in made.files)
    assert made.input_shape() == "x:1,3,4,5"
    assert made.data_types() == "float32"
    assert "3 samples as 3 raw files of 1 each" in str(made)


def test_a_batch_goes_into_one_file_and_the_rest_is_told(tmp_path):
    samples = feeds(7)
    made = write_calibration(samples, ONE, tmp_path / "c", batch=3)
    assert (made.samples, made.left_out, len(made.files)) == (6, 1, 2)
    assert made.input_shape() == "x:3,3,4,5"
    assert np.array_equal(raw(made, made.files[1]).reshape(3, 3, 4, 5), np.concatenate([s["x"] for s in samples[3:6]]))
    assert made.files[1].samples == ("sample 3", "sample 4", "sample 5")
    assert "1 samples that fill no batch" in str(made)


def test_a_model_of_a_fixed_batch_takes_files_of_that_batch(tmp_path):
    fixed = (TensorSpec("x", "float32", (2, 3, 4, 5)),)
    made = write_calibration(feeds(4), fixed, tmp_path / "c", batch=2)
    assert made.input_shape() == "x:2,3,4,5"
    with pytest.raises(BadInput) as caught:
        write_calibration(feeds(4), fixed, tmp_path / "d", batch=4)
    assert "takes 2 at a time, a file would hold 4" in caught.value.what
    assert "batch=2" in caught.value.remedy
    with pytest.raises(BadInput, match=r"takes shape \[2, 3, 4, 5\], not \[1, 3, 4, 5\]"):
        write_calibration(feeds(4), fixed, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_every_input_has_a_folder_of_its_own_whatever_it_is_called(tmp_path):
    samples = [{"a/b:0": np.ones((1, 3), np.float32), "a_b_0": np.array([[n, 2]])} for n in range(2)]
    made = write_calibration(samples, TWO, tmp_path / "c")
    assert made.input_shape() == "a/b:0:1,3;a_b_0:1,2"
    assert made.data_types() == "float32;int64"
    assert len({file.path.split("/")[0] for file in made.files}) == 2
    assert raw(made, made.of("a_b_0")[1], "<i8").tolist() == [1, 2]


def test_the_manifest_tells_all_and_can_be_read_back(tmp_path):
    for n in range(2):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((9, 9, 3), 40 * n, np.uint8))
    samples = Samples.from_folder(tmp_path, Preprocess(size=(4, 5)))
    made = write_calibration(samples, ONE, tmp_path / "c")
    about = json.loads(made.manifest.read_text())
    assert (about["format"], about["version"], about["samples"]) == ("kit-calibration", 1, 2)
    assert about["inputs"][0]["shape"] == [1, 3, 4, 5]
    assert about["inputs"][0]["files"][1]["samples"] == ["1.png"]
    assert about["preprocess"]["size"] == [4, 5]
    assert about["preprocess_digest"] == made.preprocess != ""
    assert read_calibration(made.folder) == made
    made.check()
    other = write_calibration(samples, ONE, tmp_path / "c2")
    assert other.samples_digest == made.samples_digest
    assert write_calibration(samples[:1], ONE, tmp_path / "c3").samples_digest != made.samples_digest


def test_changed_and_missing_files_are_noticed(tmp_path):
    made = write_calibration(feeds(2), ONE, tmp_path / "c")
    (made.folder / made.files[1].path).write_bytes(b"\0" * 240)
    with pytest.raises(BadInput, match=r"000001\.bin was changed"):
        made.check()
    (made.folder / made.files[0].path).unlink()
    with pytest.raises(BadInput, match=r"000000\.bin is missing"):
        read_calibration(made.folder).check()


def test_a_folder_of_calibration_files_is_replaced_and_no_other(tmp_path):
    write_calibration(feeds(4), ONE, tmp_path / "c")
    made = write_calibration(feeds(2), ONE, tmp_path / "c")
    assert len(list((tmp_path / "c" / "x").iterdir())) == len(made.files) == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="holds something else"):
        write_calibration(feeds(2), ONE, mine)
    assert (mine / "thesis.txt").is_file()
    (mine / "manifest.json").write_text("[]")
    with pytest.raises(BadInput, match="holds something else"):
        write_calibration(feeds(2), ONE, mine)


def test_when_a_sample_is_bad_nothing_is_left(tmp_path):
    bad = feeds(3)
    bad[2]["x"][0, 0, 0, 0] = np.nan
    before = write_calibration(feeds(1), ONE, tmp_path / "c")
    with pytest.raises(BadInput, match="sample 2 holds values that are not finite"):
        write_calibration(bad, ONE, tmp_path / "c")
    before.check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize(("samples", "inputs", "more", "words"), [
    ([], ONE, {}, "no samples"),
    (feeds(2), ONE, {"batch": 3}, "2 samples do not fill a batch of 3"),
    (feeds(2), ONE, {"limit": 0}, "must be 1 or more"),
    ([{"y": np.ones((1, 3, 4, 5), np.float32)}], ONE, {}, "no input named 'y'"),
    ([{"x": np.ones((1, 3, 4, 5))}], ONE, {}, "takes float32, not float64"),
    ([*feeds(1), *feeds(1, (1, 3, 4, 6))], (TensorSpec("x", "float32", ("n", 3, "h", "w")),), {},
     r"sample 1 has shape \[1, 3, 4, 6\] for input 'x', the samples before it \[1, 3, 4, 5\]"),
    ([*feeds(1), *feeds(1, (1, 3, 4, 6))], (TensorSpec("x", "float32", ("n", 3, "h", "w")),), {"batch": 2},
     "quantization runs at one shape"),
    ([{"s": np.float32(1)}] * 2, (TensorSpec("s", "float32", ()),), {"batch": 2}, "single number"),
])
def test_what_does_not_fit_is_refused(tmp_path, samples, inputs, more, words):
    with pytest.raises(BadInput, match=words):
        write_calibration(samples, inputs, tmp_path / "c", **more)
    assert not any(tmp_path.iterdir())


def test_a_folder_without_manifest_is_told(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_calibration(tmp_path / "nothing")
