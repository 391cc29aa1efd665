"""An .om behind open_runner, on the FAKE acl: answers, settings that say FAKE, words for what goes wrong."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
from box_bundles import box, bundle, pictures

from kit.ascend.box.rehearsing import MODULES
from kit.errors import BadInput, MissingTool, ToolFailed
from kit.runner import open_runner
from kit.runtimes.acl import Acl
from kit.source import recognise

FEED = pictures(1, 4, 3, 8, 8)[0]


@pytest.fixture(scope="module")
def om(tmp_path_factory):
    place = tmp_path_factory.mktemp("acl")
    model = tiny.conv_net(place / "m.onnx")
    argv = ["atc", f"--model={model}", "--framework=5", f"--output={place / 'net'}", "--soc_version=Ascend310P3",
            "--input_shape=x:-1,3,8,8", "--dynamic_batch_size=1,4"]
    subprocess.run(argv, cwd=place, env=box(place / "box"), check=True, capture_output=True)
    return place / "net.om"


@pytest.fixture
def fake(monkeypatch):
    """Workers find the FAKE acl."""
    monkeypatch.setenv("PYTHONPATH", str(MODULES))
    monkeypatch.setenv("KIT_FAKE_SOC", "Ascend310P3")


def test_an_om_answers_as_its_onnx_model_does_but_for_the_rounding(fake, om):
    with open_runner(om) as run, open_runner(om.with_name("m.onnx")) as other:
        np.testing.assert_allclose(run(FEED)["y"], other(FEED)["y"], atol=2e-3)  # float16 in, weights and out
        small = {"x": FEED["x"][:1]}
        assert run(small)["y"].shape == (1, 1, 8, 8)
        assert len(run.time(FEED, 3)) == 3
        assert run.memory() > 1_000_000
        assert run.inputs[0].shape == ("?", 3, 8, 8)
        assert [spec.name for spec in run.outputs] == ["y"]


def test_settings_say_that_the_chip_is_a_fake(fake, om):
    with open_runner(om) as run:
        assert run.settings["runtime"] == "FAKE pyACL"
        assert run.settings["device"] == "Ascend310P3 (FAKE), number 0"
        assert run.settings["profiles"] == "batch: 1, 4"
        assert "FAKE" in run.title()


def test_closing_gives_the_device_back_in_order(fake, om, tmp_path, monkeypatch, capfd):
    # In a process of its own, as the worker does; the FAKE tells on standard error what was not given back.
    code = (f"from kit.runtimes.acl import Acl; import acl; model = Acl({str(om)!r}); model.close(); "
            "print(acl.finalize())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "100037", "it was finalised already"
    assert "not given back" not in done.stderr
    with open_runner(om) as run:
        called = []
        call = run._process.call
        monkeypatch.setattr(run._process, "call", lambda method, *args: called.append(method) or call(method, *args))
    assert called == ["close"]


@pytest.mark.parametrize(("feed", "words", "remedy"), [
    ({"x": FEED["x"][:2]}, r"set_dynamic_batch_size failed: error code 145013", "one of the profiles"),
    ({"x": FEED["x"].astype(np.float64)}, "takes float32, not float64", "astype"),
    ({"z": FEED["x"]}, "no input named 'z'", "x")])
def test_a_feed_that_does_not_fit_says_why(fake, om, feed, words, remedy):
    with open_runner(om) as run, pytest.raises(BadInput, match=words) as caught:
        run(feed)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(("soc", "settings", "words", "remedy"), [
    ("Ascend910B3", {}, "error code 507008", "build the .om for this chip"),
    ("Ascend310P3", {"device": 3}, "on device 3: acl.rt.set_device failed: error code 107001", "npu-smi info")])
def test_a_device_that_cannot_take_it_says_why(fake, om, monkeypatch, soc, settings, words, remedy):
    monkeypatch.setenv("KIT_FAKE_SOC", soc)
    with pytest.raises(ToolFailed, match=words) as caught:
        open_runner(om, **settings)
    assert remedy in caught.value.remedy


def test_without_cann_the_missing_module_and_the_way_out_are_named(om):
    with pytest.raises(MissingTool, match=r"To run net\.om, the kit needs pyACL") as caught:
        Acl(str(om))
    assert "set_env.sh" in caught.value.remedy
    assert "ONNX model" in caught.value.remedy


def test_an_om_is_a_kind_of_its_own_that_no_other_runtime_takes(om, tmp_path):
    assert recognise(om).kind == "om"
    assert recognise(om).name == "net"
    assert recognise(om).size == om.stat().st_size
    with pytest.raises(BadInput, match=r"onnxruntime does not run net\.om"):
        open_runner(om, runtime="onnxruntime")
    with pytest.raises(BadInput, match="does not exist"):
        recognise(tmp_path / "none.om")


def test_a_bundle_is_no_model_to_run_here(tmp_path):
    folder = bundle(tmp_path / "bundle", tiny.conv_net(tmp_path / "m.onnx"), pictures(1, 1, 3, 8, 8), shape="x:1,3,8,8")
    for thing in (folder, folder / "bundle.json"):
        with pytest.raises(BadInput, match="is a bundle for Ascend310P3, not built here") as caught:
            recognise(thing)
        assert "run_on_box.py" in caught.value.remedy
