"""A bundle goes through the FAKE box before anyone carries it; what is wrong on a box is said in words."""

import hashlib

import numpy as np
import pytest
import tiny
from box_bundles import bundle, pictures
from onnx_graphs import FLOAT, node, save

import kit
from kit import ascend
from kit.ascend.box.rehearsing import FAULTS
from kit.errors import BadInput
from kit.progress import Cancelled

FEEDS = pictures(2, 1, 3, 8, 8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    place = tmp_path_factory.mktemp("plain")
    return bundle(place / "bundle", tiny.conv_net(place / "m.onnx"), FEEDS, shape="x:1,3,8,8")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_bundle_is_a_yes_that_says_fake_and_is_not_touched(plain):
    before, ticks = digests(plain), []
    results = ascend.rehearse(plain / "bundle.json", report=ticks.append)
    assert results, str(results)
    assert "FAKE" in results.title()
    assert results.fake == "FAKE acl, FAKE atc, FAKE npu-smi"
    assert digests(plain) == before, "the rehearsal works in a copy"
    assert results.path == plain.with_name("bundle-rehearsal") / "results.json"
    assert results.answer("slip_0001.png", "y").shape == (1, 1, 8, 8)
    assert (ticks[0].done, ticks[-1].done, ticks[-1].total) == (0, 6, 6)
    assert ascend.rehearse(plain), "a second one takes the place of the first"


def test_a_fault_does_not_take_the_place_of_the_good_rehearsal(plain):
    good = ascend.rehearse(plain)
    bad = ascend.rehearse(plain, fault="wrong-soc")
    assert bad.path.parent == plain.with_name("bundle-rehearsal-wrong-soc")
    assert good.answer("slip_0001.png", "y").shape == (1, 1, 8, 8)


def test_aipp_takes_bytes_and_the_answers_are_those_of_the_float_preprocessing(tmp_path):
    random = np.random.default_rng(3)
    shown = [random.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8) for _ in range(2)]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    feeds = [{"x": ((one / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)} for one in shown]
    folder = bundle(tmp_path / "bundle", tiny.conv_net(tmp_path / "m.onnx"), feeds, shape="x:1,3,8,8", pictures=shown)
    results = ascend.rehearse(folder)
    assert results, str(results)
    assert max(row.relative for row in results.comparison) < 0.01


def test_picture_sizes_are_profiles_each_measured(tmp_path):
    feeds = [*pictures(1, 1, 3, 8, 8), *pictures(1, 1, 3, 8, 16)]
    folder = bundle(tmp_path / "bundle", tiny.conv_net(tmp_path / "m.onnx"), feeds, shape="x:1,3,-1,-1", kind="image",
                    values=[[8, 8], [8, 16]], flags=("--dynamic_image_size=8,8;8,16",))
    results = ascend.rehearse(folder)
    assert results, str(results)
    assert [row.profile for row in results.benchmark] == [(8, 8), (8, 16)]
    assert results.answer(1, "y").shape == (1, 1, 8, 16)


def test_open_axes_of_two_inputs_are_profiles_and_the_names_go_by_the_bundle(tmp_path):
    model = save(tmp_path / "m.onnx", [node("MatMul", ["a", "b"], ["y"])],
                 {"a": (FLOAT, [1, "n", 3]), "b": (FLOAT, [1, 3, "m"])}, {"y": (FLOAT, None)})
    feed = {"a": np.ones((1, 2, 3), np.float32), "b": np.ones((1, 3, 5), np.float32)}
    folder = bundle(tmp_path / "bundle", model, [feed], shape="a:1,-1,3;b:1,3,-1", kind="dims", values=[[2, 5], [4, 7]],
                    flags=("--dynamic_dims=2,5;4,7", "--input_format=ND"))
    results = ascend.rehearse(folder)
    assert results, str(results)
    assert [row.profile for row in results.benchmark] == [(2, 5), (4, 7)]


def test_a_size_that_the_om_was_not_built_for_is_refused_by_the_documented_code(tmp_path):
    folder = bundle(tmp_path / "bundle", tiny.conv_net(tmp_path / "m.onnx"), pictures(1, 1, 3, 8, 12),
                    shape="x:1,3,-1,-1", kind="image", values=[[8, 8], [8, 16]],
                    flags=("--dynamic_image_size=8,8;8,16",))
    results = ascend.rehearse(folder)
    step = results.failed[0]
    assert (step.step, step.message) == ("infer", "acl.mdl.set_dynamic_hw_size failed: error code 145013.")
    assert step.explained[0]["cause"] == "the batch size is none of the profiles"


def test_ais_bench_and_msprof_are_rehearsed_too(tmp_path):
    folder = bundle(tmp_path / "bundle", tiny.conv_net(tmp_path / "m.onnx"), FEEDS, shape="x:-1,3,8,8", kind="batch",
                    values=[[2], [4]], batches=(2, 4), flags=("--dynamic_batch_size=2,4",))
    results = ascend.rehearse(folder, backend="ais_bench", profile=True)
    assert results, str(results)
    assert results.device["backend"] == "ais_bench"
    assert results.fake == "FAKE ais_bench, FAKE atc, FAKE msprof, FAKE npu-smi"
    assert results.profile["top"][0]["name"].startswith("FAKE")
    assert "us a run" not in "".join(table.caption for table in results.tables())


@pytest.mark.parametrize(("fault", "step", "words"), [
    ("wrong-soc", "check", "This device is Ascend310P1 (FAKE), the bundle is for Ascend310P3"),
    ("no-atc", "check", "atc is not on the PATH: run first: source "),
    ("no-driver", "check", "the driver is not installed"),
    ("no-acl", "check", "pyACL (the Python module acl) is not to be found"),
    ("damaged", "check", "model/net.onnx is damaged"),
    ("no-memory", "infer", "acl.rt.malloc failed: error code 207001"),
    ("core-error", "infer", "acl.mdl.execute failed: error code 507015"),
    ("nan", "compare", "are NaN or inf where the float model has none"),
])
def test_what_is_wrong_on_the_box_is_said(plain, fault, step, words):
    results = ascend.rehearse(plain, fault=fault)
    assert not results
    assert results.failed[0].step == step
    assert words in results.failed[0].message
    assert "FAKE" in results.title()
    if fault in ("no-memory", "core-error"):
        assert results.failed[0].explained[0]["next"]


def test_an_older_cann_is_told_and_a_name_with_the_system_in_it_is_found(plain):
    assert "this is the older 7.0.0 (FAKE)" in ascend.rehearse(plain, fault="old-cann").steps[0].message
    results = ascend.rehearse(plain, fault="host-code")
    assert results
    assert results.build["om"].startswith("om/net_linux_")


def test_every_fault_is_described_and_an_unknown_one_answered_with_the_closest(plain):
    assert all(FAULTS.values())
    with pytest.raises(BadInput, match="no fault named 'wrong-sock'") as caught:
        ascend.rehearse(plain, fault="wrong-sock")
    assert "wrong-soc" in caught.value.remedy


@pytest.mark.parametrize(("thing", "words"), [("none", "not a whole bundle"), (3, "A int is no bundle")])
def test_what_is_no_bundle_is_refused(tmp_path, thing, words):
    with pytest.raises(BadInput, match=words):
        ascend.rehearse(tmp_path / thing if isinstance(thing, str) else thing)


def test_nothing_but_an_earlier_rehearsal_is_replaced(plain, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="does not hold a rehearsal; nothing was written"):
        ascend.rehearse(plain, fault="no-atc", into=tmp_path / "kept")
    assert (tmp_path / "kept" / "thesis.txt").is_file()


def test_a_cancel_ends_the_script_and_writes_nothing(plain, tmp_path):
    def stop(tick):
        if tick.done >= 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        ascend.rehearse(plain, into=tmp_path / "out", report=stop)
    assert not (tmp_path / "out").exists()


def test_a_backend_that_is_not_there_is_refused_with_the_closest(plain):
    with pytest.raises(BadInput, match="'acll'") as caught:
        ascend.rehearse(plain, backend="acll")
    assert "did you mean acl" in caught.value.remedy


def test_a_model_is_no_bundle_and_the_call_that_makes_one_is_right(tmp_path):
    model = kit.Model.open(tiny.conv_net(tmp_path / "m.onnx"))
    with pytest.raises(BadInput, match="A Model is no bundle") as caught:
        ascend.rehearse(model)
    assert 'kit.compile(model, kit.BundleOptions(target="ascend310p3"))' in caught.value.remedy
