"""target="cpu": the search's pick, compiled as it was measured."""

from types import SimpleNamespace

import pytest
import quantization_models

from kit import searching
from kit.card import Table
from kit.compilation import CompileOptions, compile
from kit.errors import BadInput
from kit.evidence.entries import entries
from kit.model import Model
from kit.runner import open_runner


def found(model, settings):
    """What a search hands on."""
    return SimpleNamespace(
        model=Model.open(model), runner_settings=settings, why="the fastest of those that are accurate enough",
        pick=SimpleNamespace(candidate=SimpleNamespace(runtime=settings["runtime"])), title=lambda: "The pick",
        tables=lambda: (Table("Trials", ("trial", "candidate", "speed", "loss", "verdict"),
                              ((1, "the pick", "2.00x", "40 dB", "picked"), (0, "FP32", "1.00x", "-", "too slow"))),))


@pytest.fixture
def model(tmp_path):
    return quantization_models.conv_net(tmp_path / "net.onnx")


def test_without_samples_it_says_what_to_give(model):
    with pytest.raises(BadInput, match="nothing to measure it by") as caught:
        compile(model, CompileOptions(target="cpu"))
    assert "samples=" in caught.value.remedy


def test_a_real_search_leads_to_a_compiled_model(model, tmp_path):
    made = compile(model, CompileOptions(target="cpu", seconds=3), samples=quantization_models.feeds(4),
                   runs=tmp_path / "runs")
    assert made
    assert (made.target, made.file.stem) == ("cpu", "net")
    assert any(row[-1] == "picked" for row in made.trials)
    assert "Search: trials" in str(made)
    with open_runner(made) as run:
        assert run.settings["runtime"].startswith(made.settings.runtime)
        assert run(quantization_models.feeds(1)[0])["y"].shape == (1, 2, 32, 32)


@pytest.mark.parametrize("settings", [
    {"runtime": "openvino", "threads": 1, "precision": "f32"},
    {"runtime": "onnxruntime", "threads": 1, "graph_level": "basic", "spinning": False},
])
def test_the_pick_is_compiled_and_opened_as_it_was_measured(model, tmp_path, monkeypatch, settings):
    asked = {}

    def search(model, samples, options, **more):
        asked.update(options=options, samples=samples, **more)
        return found(model, settings)

    monkeypatch.setattr(searching, "search", search)
    made = compile(model, CompileOptions(target="cpu", loss=0.02, seconds=30, threads=4), samples="samples",
                   metric="metric", runs=tmp_path / "runs")
    assert (asked["options"].loss, asked["options"].seconds, asked["options"].threads) == (0.02, 30, (1, 4))
    assert (asked["samples"], asked["metric"]) == ("samples", "metric")
    assert made.runner_settings.items() >= {k: v for k, v in settings.items() if k != "runtime"}.items()
    assert made.trials == (("the pick", "2.00x", "40 dB", "picked"), ("FP32", "1.00x", "-", "too slow"))
    assert made.notes[0] == "Search: The pick (the fastest of those that are accurate enough)."
    with open_runner(made) as run, entries({"pick": made}, "candidate")[0].open(threads=2) as candidate:
        assert run.settings["threads"] == candidate.settings["threads"] == 1, "they were searched for as well"
        assert run.settings["runtime"].startswith(settings["runtime"])
