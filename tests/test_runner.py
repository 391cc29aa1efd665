"""One way to run them all: ONNX Runtime here, Paddle Inference in a process of its own."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle_tiny
import pytest

import kit
from kit import runner as runner_module
from kit.errors import BadInput, ToolFailed, UnsupportedModel, WorkerDied
from kit.runner import open_runner

FEED = {"x": np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)}


@pytest.fixture(scope="module")
def paddle_run():
    with open_runner(paddle_tiny.saved("net")) as run:
        yield run


@pytest.fixture
def onnx_run(tiny_onnx):
    with open_runner(tiny_onnx) as run:
        yield run


@pytest.fixture(params=["onnx", "paddle"])
def any_run(request, tiny_onnx):
    if request.param == "paddle":
        yield request.getfixturevalue("paddle_run")
    else:
        with open_runner(tiny_onnx) as run:
            yield run


def test_it_says_what_it_takes_and_gives_and_how_it_runs(any_run):
    assert [spec.name for spec in any_run.inputs] == ["x"]
    assert any_run.inputs[0].dtype == "float32"
    assert any_run.inputs[0].shape[1] == 3
    assert len(any_run.outputs) == 1
    assert any_run.settings["threads"] == 2
    assert any_run.settings["runtime"].split()[0] in ("onnxruntime", "Paddle")
    assert any_run.outputs[0].name in str(any_run)


def test_dict_in_dict_out_at_any_size(any_run):
    for shape in ((1, 3, 32, 32), (2, 3, 64, 32)):
        answer = any_run({"x": np.ones(shape, np.float32)})
        assert list(answer) == [any_run.outputs[0].name]
        (array,) = answer.values()
        assert array.shape[0] == shape[0]
        assert np.isfinite(array).all()


def test_the_answer_is_the_callers_to_keep(any_run):
    name = any_run.outputs[0].name
    first = any_run(FEED)[name]
    kept = first.copy()
    any_run({"x": FEED["x"] * 5})
    assert (first == kept).all()
    assert (any_run(FEED)[name] == kept).all(), "and the same input gives the same answer"


def test_a_wrong_input_name_is_answered_with_the_right_one(any_run):
    with pytest.raises(BadInput, match="no input named 'X'") as caught:
        any_run({"X": FEED["x"]})
    assert "x" in caught.value.remedy


def test_a_missing_input_is_named(any_run):
    with pytest.raises(BadInput, match="needs input 'x'"):
        any_run({})


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 32, 32)])
def test_a_wrong_shape_is_shown_beside_the_right_one(any_run, shape):
    with pytest.raises(BadInput, match="takes shape") as caught:
        any_run({"x": np.ones(shape, np.float32)})
    assert str(list(shape)) in caught.value.what


def test_a_wrong_type_is_shown_beside_the_right_one(any_run):
    with pytest.raises(BadInput, match="takes float32, not float64"):
        any_run({"x": FEED["x"].astype(np.float64)})


def test_after_a_wrong_input_it_still_runs(any_run):
    with pytest.raises(BadInput):
        any_run({"x": np.ones((1, 4, 8, 8), np.float32)})
    assert any_run(FEED)


def test_times_and_memory_are_measured_beside_the_runtime(any_run):
    times = any_run.time(FEED, 3)
    assert len(times) == 3
    assert all(time > 0 for time in times)
    assert any_run.memory() > 1_000_000


def test_a_closed_runner_says_so(tiny_onnx):
    run = open_runner(tiny_onnx)
    run.close()
    with pytest.raises(BadInput, match="is closed"):
        run(FEED)


def test_onnx_can_run_in_a_process_of_its_own(tiny_onnx, onnx_run):
    with open_runner(tiny_onnx, isolated=True) as run:
        assert run.settings == onnx_run.settings
        assert (run(FEED)["y"] == onnx_run(FEED)["y"]).all()
        with pytest.raises(BadInput, match="no input named"):
            run({"z": FEED["x"]})


def test_unknown_settings_are_answered_with_the_known(tiny_onnx):
    with pytest.raises(BadInput, match="no execution provider named 'CUPExecutionProvider'"):
        open_runner(tiny_onnx, providers=["CUPExecutionProvider"])
    with pytest.raises(BadInput, match="no graph level named 'most'"):
        open_runner(tiny_onnx, graph_level="most")


def test_a_truncated_onnx_file_is_named(tiny_onnx, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(tiny_onnx.read_bytes()[:300])
    with pytest.raises(BadInput, match=r"cut\.onnx"):
        open_runner(cut)


def test_an_onnx_model_that_the_runtime_lacks_an_operator_for_says_what_to_do(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Strange", ["x"], ["y"], domain="my.ops")], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)],
                                ir_version=8), str(tmp_path / "strange.onnx"))
    with pytest.raises(UnsupportedModel, match="cannot load") as caught:
        open_runner(tmp_path / "strange.onnx")
    assert "Strange" in caught.value.detail


def test_paddle_runs_with_onednn_and_its_twin_without_agrees(paddle_run):
    assert paddle_run.settings["oneDNN"] == "on"
    assert paddle_run.notes == []
    with open_runner(paddle_tiny.saved("net"), onednn=False) as plain:
        assert plain.settings["oneDNN"] == "off"
        for one, two in zip(paddle_run(FEED).values(), plain(FEED).values(), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_old_paddle_format_runs():
    with open_runner(paddle_tiny.saved("old")) as run:
        assert str(run.inputs[0]) == "x float32[?, 3, ?, ?]"
        (array,) = run(FEED).values()
        assert array.shape == (2, 2, 64, 128)


def test_a_missing_parameter_file_is_named(tmp_path):
    folder = Path(shutil.copytree(paddle_tiny.saved("net"), tmp_path / "net"))
    (folder / "inference.pdiparams").unlink()
    with pytest.raises(BadInput, match=r"inference\.pdiparams is missing"):
        open_runner(folder)


def test_a_truncated_parameter_file_is_a_kit_error(tmp_path):
    folder = Path(shutil.copytree(paddle_tiny.saved("net"), tmp_path / "net"))
    data = (folder / "inference.pdiparams").read_bytes()
    (folder / "inference.pdiparams").write_bytes(data[:100])
    with pytest.raises(ToolFailed, match=r"cannot load inference\.json") as caught:
        open_runner(folder)
    assert "whole" in caught.value.remedy


def test_a_model_that_this_paddle_is_too_old_for_is_a_kit_error():
    with pytest.raises(ToolFailed, match="Type of attribute: scale is not right") as caught:
        open_runner(paddle_tiny.saved("double"))
    assert "Paddle 3.3" in caught.value.remedy


class Crashing:
    """A runtime whose oneDNN path crashes, as Paddle 3.3's does on detectors; made and run in the worker."""

    def __init__(self, graph, weights, *, threads=2, onednn=True):
        self.onednn = onednn

    def describe(self):
        spec = kit.TensorSpec("x", "float32", ("?",))
        return {"inputs": (spec,), "outputs": (spec,),
                "settings": {"runtime": "crashing 1", "oneDNN": "on" if self.onednn else "off"}}

    def run(self, feeds):
        if self.onednn:
            import os

            os.abort()
        return feeds


class Raising(Crashing):
    def run(self, feeds):
        if self.onednn:
            raise NotImplementedError("(Unimplemented) ConvertPirAttribute2RuntimeAttribute not support")
        return feeds


class Hopeless(Crashing):
    def run(self, feeds):
        raise RuntimeError("no way")


def make(name, *args, **kwargs):
    return globals()[name](*args, **kwargs)


@pytest.mark.parametrize(("name", "said"), [("Crashing", "SIGABRT"), ("Raising", "ConvertPirAttribute2Runtime")])
def test_a_failure_in_onednn_is_retried_without_it_and_said(name, said, monkeypatch):
    monkeypatch.setattr(runner_module, "make_runtime", make)
    monkeypatch.setitem(runner_module.RUNTIMES, "paddle", (("paddle",), name, "paddle"))
    with open_runner(paddle_tiny.saved("net")) as run:
        assert run.settings["oneDNN"] == "on"
        feed = {"x": np.ones(3, np.float32)}
        assert (run(feed)["x"] == 1).all()
        assert run.settings["oneDNN"] == "off"
        assert said in run.notes[0]
        assert "without it" in str(run)
        assert (run(feed)["x"] == 1).all()
        assert len(run.notes) == 1, "it is retried once, not each time"


def test_an_artefact_says_how_it_is_run_and_the_caller_goes_before_it(tiny_onnx):
    made = SimpleNamespace(path=tiny_onnx, runner_settings={"runtime": "onnxruntime", "threads": 1,
                                                            "graph_level": "basic"})
    with open_runner(made) as run:
        assert (run.settings["threads"], run.settings["graph level"]) == (1, "basic")
    with open_runner(made, threads=2, graph_level="all") as run:
        assert (run.settings["threads"], run.settings["graph level"]) == (2, "all")
    with open_runner(made, runtime="openvino") as run:
        assert run.settings["runtime"].startswith("openvino")
        assert run.settings["threads"] == 2, "what was meant for another runtime does not count"


def test_a_setting_that_a_runtime_does_not_have_is_refused(tiny_onnx):
    with pytest.raises(BadInput, match="no setting named 'graphlevel'") as caught:
        open_runner(tiny_onnx, graphlevel="all")
    assert "graph_level" in caught.value.remedy


def test_a_failure_that_stays_is_raised(monkeypatch):
    monkeypatch.setattr(runner_module, "make_runtime", make)
    monkeypatch.setitem(runner_module.RUNTIMES, "paddle", (("paddle",), "Hopeless", "paddle"))
    with open_runner(paddle_tiny.saved("net")) as run, pytest.raises(ToolFailed, match="no way"):
        run({"x": np.ones(3, np.float32)})


def test_a_killed_worker_is_a_kit_error_and_the_kernel_lives(tiny_onnx):
    import psutil

    with open_runner(tiny_onnx, isolated=True) as run:
        psutil.Process(run._process.pid).kill()
        with pytest.raises(WorkerDied, match="killed"):
            run(FEED)
