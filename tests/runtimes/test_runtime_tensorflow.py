"""TensorFlow SavedModels behind open_runner, always in a process of their own."""

import shutil
import sys

import numpy as np
import pytest
import tensorflow_tiny

from kit.errors import BadInput, ToolFailed
from kit.runner import open_runner
from kit.source import recognise

FEED = {"x": np.float32([[1, 0, 2], [0, 1, 0]])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tensorflow_tiny.saved(tmp_path_factory.mktemp("tf") / "net")


@pytest.fixture(scope="module")
def run(folder):
    with open_runner(folder, threads=1) as opened:
        yield opened


def test_a_saved_model_is_known_by_its_folder_or_its_file(folder):
    for path in (folder, folder / "saved_model.pb"):
        found = recognise(path)
        assert (found.kind, found.graph.name, found.weights.name, found.name) == (
            "savedmodel", "saved_model.pb", "variables", "net")
    assert found.size == sum(p.stat().st_size for p in [found.graph, *found.weights.iterdir()])


def test_its_digest_covers_the_variables(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert recognise(copy).digest() == recognise(folder).digest()
    data = next((copy / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes() + b"\0")
    assert recognise(copy).digest() != recognise(folder).digest()


def test_it_runs_by_signature_with_names_shapes_and_threads(run):
    assert [str(spec) for spec in run.inputs] == ["x float32[?, 3]"]
    assert [str(spec) for spec in run.outputs] == ["sum float32[?]", "y float32[?, 2]"]
    assert run.settings["runtime"].startswith("TensorFlow 2")
    assert (run.settings["threads"], run.settings["signature"]) == (1, "serving_default")
    answers = run(FEED)
    assert answers["y"].tolist() == [[12, 15], [4, 5]]
    assert answers["sum"].tolist() == [27, 9]


def test_times_and_memory_are_measured_beside_it_and_tensorflow_stays_out_of_here(run):
    assert len(run.time(FEED, 3)) == 3
    assert run.memory() > 50_000_000
    assert "tensorflow" not in sys.modules


def test_another_signature_is_chosen_and_a_misspelt_one_answered(folder):
    with open_runner(folder, signature="half") as run:
        assert run(FEED)["y"].tolist() == [[0.5, 0, 1], [0, 0.5, 0]]
    with pytest.raises(BadInput, match="no signature named 'hlaf'") as caught:
        open_runner(folder, signature="hlaf")
    assert "half" in caught.value.remedy


def test_a_broken_folder_says_so(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nothing of the sort")
    with pytest.raises(ToolFailed, match="cannot load"):
        open_runner(tmp_path)


def test_layers_are_not_told(run):
    with pytest.raises(BadInput, match="does not tell about its layers"):
        run.layers(FEED)
