"""The bundle's pieces: sizes and profiles, golden inputs, what a box recorded, the folder itself."""

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from box_results import box_results
from hypothesis import given
from hypothesis import strategies as some
from onnx_graphs import FLOAT, INT64, node, save
from tiny import conv_net

import kit
from kit.ascend.box.recorded import Recorded, label, timings, where
from kit.ascend.bundling.bundle import Bundled, BundleOptions, parts_of, write_manifest, write_text
from kit.ascend.bundling.golden_samples import (
    Golden,
    Goldens,
    at_size,
    chosen,
    feed_digest,
    goldens,
    read_manifest,
    stored_preprocess,
    write_golden,
)
from kit.ascend.bundling.input_shapes import InputShapes, input_shapes
from kit.card import Card
from kit.errors import BadInput
from kit.model import Model
from kit.samples import Preprocess

FEEDS = [{"x": np.random.default_rng(n).normal(size=(1, 3, 4, 4)).astype(np.float32)} for n in range(3)]


@pytest.fixture
def model(tmp_path):
    return Model.open(conv_net(tmp_path / "tiny.onnx"))


def feed(*shape):
    return {"x": np.zeros(shape, np.float32)}


# ---- sizes and profiles -------------------------------------------------------------------------------------------


def test_open_axes_take_the_sizes_of_the_first_sample(model):
    found = input_shapes(model, feed(1, 3, 32, 48))
    assert (found.kind, found.inputs, found.chosen) == ("static", {"x": (1, 3, 32, 48)}, "of the first sample")


def test_given_shapes_go_before_the_sample_and_usual_ones_are_said_to_be_so(model):
    assert input_shapes(model, feed(1, 3, 32, 48), shapes=("x=2x3x8x8",)).inputs == {"x": (2, 3, 8, 8)}
    assert "usual" in input_shapes(model, None).words() + input_shapes(model, None).chosen


def test_batches_and_sizes_become_profiles(model):
    batch = input_shapes(model, feed(1, 3, 8, 8), batches=(1, 4, 8))
    assert (batch.kind, batch.inputs, batch.values) == ("batch", {"x": (-1, 3, 8, 8)}, ((1,), (4,), (8,)))
    assert batch.batches == (1, 4, 8)
    image = input_shapes(model, feed(1, 3, 8, 8), sizes=("8x8", "16x24"))
    assert (image.inputs, image.concrete()[1]) == ({"x": (1, 3, -1, -1)}, {"x": (1, 3, 16, 24)})
    dims = input_shapes(model, None, profiles=("1x8x8", "2x16x16"))
    assert (dims.kind, dims.concrete()) == ("dims", [{"x": (1, 3, 8, 8)}, {"x": (2, 3, 16, 16)}])


def test_one_batch_or_size_is_fixed(model):
    found = input_shapes(model, feed(1, 3, 8, 8), batches=(4,), sizes=("16x24",))
    assert (found.kind, found.inputs) == ("static", {"x": (4, 3, 16, 24)})


def test_a_batch_is_opened_only_where_the_model_has_it_open(tmp_path):
    path = save(tmp_path / "two.onnx", [node("Add", ["a", "b"], ["y"])],
                {"a": (FLOAT, ("N", 4)), "b": (FLOAT, (1, 4))}, {"y": (FLOAT, None)})
    found = input_shapes(Model.open(path), None, batches=(1, 2))
    assert found.inputs == {"a": (-1, 4), "b": (1, 4)}
    assert found.concrete()[1] == {"a": (2, 4), "b": (1, 4)}


@pytest.mark.parametrize(("wrong", "words"), [
    ({"batches": (1, 4), "sizes": ("8x8", "16x16")}, "profiles of different kinds"),
    ({"sizes": ("8",)}, "2 whole numbers"),
    ({"profiles": ("1x8x8", "1x8")}, "3 whole numbers"),
    ({"profiles": ("1x8x0", "1x8x8")}, "above 0"),
    ({"shapes": ("y=1,2",)}, "no input or axis named 'y'"),
    ({"shapes": ("x=1,4,8,8",)}, "the model has"),
])
def test_sizes_that_contradict_are_refused_with_what_is_valid(model, wrong, words):
    with pytest.raises(BadInput, match=words) as caught:
        input_shapes(model, feed(1, 3, 8, 8), **wrong)
    assert caught.value.remedy


def test_a_fixed_batch_cannot_be_varied_but_can_be_named(tmp_path):
    path = save(tmp_path / "fixed.onnx", [node("Relu", ["x"], ["y"])], {"x": (FLOAT, (2, 4))}, {"y": (FLOAT, None)})
    fixed = Model.open(path)
    assert input_shapes(fixed, None, batches=(2,)).inputs == {"x": (2, 4)}
    with pytest.raises(BadInput, match=r"no input of fixed\.onnx has its first axis open"):
        input_shapes(fixed, None, batches=(1, 4))
    with pytest.raises(BadInput, match="height and width open"):
        input_shapes(fixed, None, sizes=("8x8", "16x16"))


def test_a_scalar_input_has_a_shape_too(tmp_path):
    path = save(tmp_path / "s.onnx", [node("Mul", ["x", "n"], ["y"])], {"x": (FLOAT, (1, 4)), "n": (FLOAT, ())},
                {"y": (FLOAT, None)})
    found = input_shapes(Model.open(path), {"x": np.zeros((1, 4), np.float32), "n": np.float32(2)})
    assert found.inputs == {"x": (1, 4), "n": ()}
    assert found.fits({"x": np.zeros((1, 4)), "n": np.float32(3)})


def test_a_feed_fits_a_profile_or_a_smaller_batch_of_it(model):
    batch = input_shapes(model, feed(1, 3, 8, 8), batches=(2, 4))
    assert batch.fits(feed(1, 3, 8, 8))
    assert batch.fits(feed(4, 3, 8, 8))
    assert not batch.fits(feed(5, 3, 8, 8))
    assert not batch.fits(feed(1, 3, 8, 16))
    assert not batch.fits({"z": np.zeros((1, 3, 8, 8))})
    image = input_shapes(model, feed(1, 3, 8, 8), sizes=("8x8", "16x24"))
    assert image.fits(feed(1, 3, 16, 24))
    assert not image.fits(feed(1, 3, 16, 8))


@given(some.lists(some.integers(1, 64), min_size=2, max_size=6, unique=True), some.integers(1, 3))
def test_every_profile_fills_every_hole(values, inputs):
    shapes = InputShapes({f"i{n}": (-1, 3) for n in range(inputs)}, "batch", tuple((v,) for v in values), "given")
    for value, concrete in zip(values, shapes.concrete(), strict=True):
        assert set(concrete.values()) == {(value, 3)}
    assert shapes.batches == tuple(sorted(values))


# ---- golden inputs ------------------------------------------------------------------------------------------------


def test_the_digest_of_a_feed_tells_names_types_shapes_and_values_apart():
    base = {"x": np.arange(4, dtype=np.float32)}
    others = [{"y": base["x"]}, {"x": base["x"].reshape(2, 2)}, {"x": base["x"].view(np.int32)},
              {"x": base["x"] + 1}, {**base, "z": base["x"]}]
    assert len({feed_digest(f) for f in [base, *others]}) == 6
    assert feed_digest({"b": base["x"], "a": base["x"]}) == feed_digest({"a": base["x"], "b": base["x"]})
    assert feed_digest({"x": np.arange(8, dtype=np.float32)[::2]}) == feed_digest(
        {"x": np.array([0, 2, 4, 6], np.float32)}), "how an array lies in memory does not count"


def test_golden_files_give_back_feeds_and_answers(tmp_path):
    write_golden(tmp_path / "0.npz", FEEDS[0], FEEDS[0], {"a/b:0": np.ones(3)}, None)
    found = Goldens((Golden(tmp_path / "0.npz", "slip", feed_digest(FEEDS[0])),))
    np.testing.assert_array_equal(found[0]["x"], FEEDS[0]["x"])
    np.testing.assert_array_equal(found.answers(0)["a/b:0"], np.ones(3))
    assert list(found[:1][0]) == ["x"]
    assert "slip" in str(found)


@pytest.mark.parametrize("padded", [False, True])
def test_bytes_come_back_as_the_floats_they_stood_for(tmp_path, padded):
    preprocess = Preprocess(size=(4, 6), channels="RGB")
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    floats = {"x": preprocess(picture)}
    if padded:  # zeros after normalising are no bytes
        floats["x"][..., 4:] = 0
    write_golden(tmp_path / "0.npz", {"x": picture[None]}, floats, {}, at_size(preprocess))
    with np.load(tmp_path / "0.npz") as kept:
        assert kept["in:x"].dtype == np.uint8
        assert ("feed:x" in kept.files) is padded
    found = Goldens((Golden(tmp_path / "0.npz", "slip", ""),), at_size(preprocess), "x")
    np.testing.assert_array_equal(found[0]["x"], floats["x"])


def test_samples_are_taken_evenly_and_misfits_are_replaced():
    feeds = [{"x": np.zeros(8 if n == 9 else 4)} for n in range(10)]
    assert chosen(feeds, 4, lambda _: True) == [0, 3, 6, 9]
    assert chosen(feeds, 4, lambda f: f["x"].size == 4) == [0, 1, 3, 6]
    assert chosen(feeds, 20, lambda f: f["x"].size == 4) == list(range(9))
    assert chosen(feeds, 4, lambda _: False) == []


def bundle_of(tmp_path):
    folder = tmp_path / "tiny-ascend310p3"
    write_text(folder / "config" / "atc.sh", "atc\n")
    (folder / "goldens").mkdir()
    write_golden(folder / "goldens" / "000.npz", FEEDS[0], FEEDS[0], {"y": np.ones(2)}, None)
    write_manifest(folder, {"name": "tiny", "preprocess": None, "goldens": [
        {"file": "goldens/000.npz", "name": "slip 0", "feed": feed_digest(FEEDS[0])}]})
    return folder


def test_goldens_are_read_from_a_folder_and_refused_where_there_is_no_bundle(tmp_path):
    folder = bundle_of(tmp_path)
    for given_ in (folder, folder / "bundle.json"):
        np.testing.assert_array_equal(goldens(given_)[0]["x"], FEEDS[0]["x"])
    with pytest.raises(BadInput, match="does not exist"):
        goldens(tmp_path)
    with pytest.raises(BadInput, match="is no bundle"):
        goldens(Card())
    (folder / "bundle.json").write_text('{"format": "something else"}')
    with pytest.raises(BadInput, match="no bundle of version 1"):
        goldens(folder)
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        goldens(folder)


def test_a_preprocess_survives_its_way_through_json(tmp_path):
    folder = bundle_of(tmp_path)
    preprocess = Preprocess(resize="height", size=(48, 320), mean=(0.5, 0.5, 0.5), channels="RGB")
    about = {**read_manifest(folder), "preprocess": stored_preprocess(preprocess, "x")}
    (folder / "bundle.json").write_text(json.dumps(about))
    assert goldens(folder).preprocess == replace(preprocess, resize="none")


# ---- the folder ---------------------------------------------------------------------------------------------------


def test_the_manifest_has_the_sha256_of_every_file(tmp_path):
    from kit.compiled_files import sha256

    folder = bundle_of(tmp_path)
    assert read_manifest(folder)["files"] == {name: sha256(folder / name) for name in (
        "config/atc.sh", "goldens/000.npz")}
    assert dict((name, count) for name, count, _ in parts_of(folder)) == {"bundle.json": 1, "config": 1, "goldens": 1}


def test_a_tar_holds_what_was_written_and_tells_nothing_else(tmp_path):
    folder = bundle_of(tmp_path)
    write_text(folder / "results" / "results.json", "{}")  # made since
    made = Bundled(folder, "tiny", "Ascend310P3", "", "atc", "x", 1, 3, 100, (), "", "", "fp16", "fine")
    with tarfile.open(made.tar()) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == [f"{folder.name}/{name}" for name in (
        "bundle.json", "config/atc.sh", "goldens/000.npz")]
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}


def test_options_take_a_chip_in_any_case_and_name_the_closest():
    assert BundleOptions(target="Ascend310P3") == BundleOptions(target="ascend310p3")
    with pytest.raises(BadInput, match="named 'ascend310p4'") as caught:
        BundleOptions(target="ascend310p4")
    assert "ascend310p3" in caught.value.remedy
    with pytest.raises(BadInput, match="precision"):
        BundleOptions(precision="int8")
    assert BundleOptions(cann="8.1").cann == "8.1.RC1"
    with pytest.raises(BadInput, match="CANN release 'eight'"):
        BundleOptions(cann="eight")


# ---- what a box recorded ------------------------------------------------------------------------------------------


def answers(of):
    return [{"y": f["x"] * 2} for f in of]


def test_recorded_answers_are_found_by_what_is_fed(tmp_path):
    recorded = Recorded(box_results(tmp_path / "box", FEEDS, answers(FEEDS)))
    np.testing.assert_array_equal(recorded(FEEDS[2])["y"], FEEDS[2]["x"] * 2)
    with pytest.raises(BadInput, match="Ascend310P3 was not given this input; it was given 3 golden ones") as caught:
        recorded({"x": FEEDS[0]["x"] + 1})
    assert "kit.ascend.goldens(bundle)" in caught.value.remedy
    assert "slip 0, slip 1" in caught.value.remedy


def test_a_box_that_did_not_come_so_far_says_so(tmp_path):
    results = box_results(tmp_path / "box", FEEDS, answers(FEEDS))
    results.outputs.unlink()
    with pytest.raises(BadInput, match="holds no answers"):
        Recorded(results)(FEEDS[0])


def test_names_say_the_device_and_fake(tmp_path):
    real = box_results(tmp_path / "a", FEEDS, answers(FEEDS))
    fake = box_results(tmp_path / "b", FEEDS, answers(FEEDS), fake="FAKE atc")
    assert label("npu", real) == "npu on Ascend310P3"
    assert label("ascend310p3 fp16", real) == "ascend310p3 fp16"
    assert label("Ascend310P3", fake) == "Ascend310P3 (FAKE)"
    assert label("Ascend310P3 (FAKE)", fake) == "Ascend310P3 (FAKE)"
    assert where(real) == "measured on Ascend310P3, not interleaved here"
    assert where(fake).startswith("FAKE, nothing was measured")
    assert Recorded(real).notes == ()
    assert "FAKE" in Recorded(fake).notes[0]
    assert Recorded(fake).size == 0


@pytest.mark.parametrize(("settings", "precision"), [
    ({}, "half"), ({"precision": "origin"}, "float"), ({"precision": "cube_fp16in_fp32out"}, "half"),
    ({"int8": "amct", "precision": "origin"}, "quantized")])
def test_the_precision_of_a_recording_decides_how_it_is_judged(tmp_path, settings, precision):
    assert Recorded(box_results(tmp_path / "a", FEEDS, answers(FEEDS), **settings)).precision == precision


def test_times_keep_their_batch_and_a_fake_has_none(tmp_path):
    one, four = timings("npu", box_results(tmp_path / "a", FEEDS, answers(FEEDS), batches=(1, 4)))
    assert (one.name, four.name) == ("npu", "npu, batch 4")
    assert four.row() == ("4.00", "4.08", "1000.0")
    assert four.shown_ms == "4.00 ms on Ascend310P3"
    fake, = timings("npu", box_results(tmp_path / "b", FEEDS, answers(FEEDS), fake="FAKE acl"))
    assert (fake.row(), fake.shown_ms, fake.p50_ms) == (("-", "-", "-"), "-", 0.0)


def test_a_recording_is_known_by_what_is_in_it(tmp_path):
    made = [Recorded(box_results(tmp_path / name, FEEDS, answers(given_))) for name, given_ in (
        ("a", FEEDS), ("b", FEEDS), ("c", FEEDS[::-1]))]
    assert made[0].digest() == made[1].digest() != made[2].digest()


def test_integer_inputs_stay_integers(tmp_path):
    path = save(tmp_path / "g.onnx", [node("Gather", ["table", "ids"], ["y"])], {"ids": (INT64, ["N", "L"])},
                {"y": (FLOAT, None)}, {"table": np.ones((4, 2), np.float32)})
    found = input_shapes(Model.open(path), {"ids": np.zeros((1, 7), np.int64)})
    assert found.inputs == {"ids": (1, 7)}
    assert kit.Model.open(path).inputs[0].dtype == "int64"


@pytest.mark.parametrize("batches", [(-1,), (0,)])
def test_a_single_batch_is_above_0(model, batches):
    with pytest.raises(BadInput, match="above 0"):
        input_shapes(model, None, batches=batches)


@pytest.mark.parametrize("samples", ["text", [np.zeros((1, 3, 4, 4), np.float32)]])
def test_samples_that_are_no_feeds_are_refused(model, tmp_path, samples):
    with pytest.raises(BadInput, match="samples cannot hold"):
        kit.compile(model, BundleOptions(), samples=samples, runs=tmp_path / "runs")
