"""TFLite, Keras files and frozen graphs behind open_runner, each in a process of its own."""

import numpy as np
import pytest
import tensorflow_tiny

from kit.errors import BadInput
from kit.runner import open_runner
from kit.source import recognise

FEED = {"image": np.random.default_rng(0).standard_normal((1, 16, 24, 3)).astype(np.float32)}


@pytest.fixture(scope="module")
def folder():
    return tensorflow_tiny.models()


@pytest.mark.parametrize(("name", "kind"), [
    ("pictures.tflite", "tflite"), ("pictures.keras", "keras"), ("pictures.h5", "keras"), ("resizes.pb", "graphdef")])
def test_each_is_known_by_its_ending(folder, name, kind):
    found = recognise(folder / name)
    assert (found.kind, found.graph, found.weights) == (kind, folder / name, None)
    assert found.size == (folder / name).stat().st_size


def test_all_kinds_of_one_model_answer_alike(folder):
    answers = []
    for name in ("exported", "pictures.keras", "pictures.tflite"):
        with open_runner(folder / name, threads=1) as run:
            assert [str(spec) for spec in run.inputs] == ["image float32[?, 16, 24, 3]"], name
            assert run.settings["threads"] == 1
            answers.append(run(FEED))
            assert len(run.time(FEED, 2)) == 2
            assert run.memory() > 50_000_000
    for answer in answers[1:]:
        assert answer.keys() == answers[0].keys() == {"scores", "small"}
        for name, value in answer.items():
            np.testing.assert_allclose(value, answers[0][name], atol=1e-5)


def test_tflite_takes_another_batch_and_says_what_it_does_not_take(folder):
    with open_runner(folder / "pictures.tflite") as run:
        assert run({"image": np.repeat(FEED["image"], 3, axis=0)})["small"].shape == (3, 6)
        assert run(FEED)["small"].shape == (1, 6)
        with pytest.raises(BadInput, match="takes shape"):
            run({"image": FEED["image"][:, :8]})


def test_a_frozen_graph_runs_between_the_nodes_asked_for(folder):
    with open_runner(folder / "resizes.pb", outputs=("out_near_half", "cubic_half"), inputs=("picture",)) as run:
        answers = run({"picture": np.ones((1, 15, 20, 3), np.float32)})
        assert {name: value.shape for name, value in answers.items()} == {
            "out_near_half": (1, 27, 37, 3), "cubic_half": (1, 27, 37, 3)}
        np.testing.assert_allclose(answers["cubic_half"], 1, atol=1e-6)
    with pytest.raises(BadInput, match="no node named 'out_near_hlaf'"):
        open_runner(folder / "resizes.pb", outputs=("out_near_hlaf",))
    with pytest.raises(BadInput, match=r"loose\.pb is not frozen"):
        open_runner(folder / "loose.pb")


def test_weights_alone_are_no_model(folder):
    with pytest.raises(BadInput, match=r"weights\.h5") as caught:
        open_runner(folder / "weights.h5")
    assert "file.py" in caught.value.remedy
