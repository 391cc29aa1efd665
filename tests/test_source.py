"""What lies at a path."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import paddle_tiny
import pytest

from kit.errors import BadInput
from kit.model import Model
from kit.source import recognise


def copy(kind, folder):
    return Path(shutil.copytree(paddle_tiny.saved(kind), folder / kind))


def test_an_onnx_file_is_known_by_its_ending(tiny_onnx):
    found = recognise(tiny_onnx)
    assert (found.kind, found.graph, found.weights, found.name) == ("onnx", tiny_onnx, None, "tiny")
    assert recognise(found) is found


def test_results_and_models_lead_to_their_file(tiny_onnx):
    model = Model.open(tiny_onnx)
    for thing in (model, SimpleNamespace(model=model), SimpleNamespace(model=SimpleNamespace(path=tiny_onnx))):
        assert recognise(thing).graph == tiny_onnx


@pytest.mark.parametrize(("kind", "graph"), [("net", "inference.json"), ("old", "inference.pdmodel")])
def test_a_paddle_model_is_known_by_folder_graph_or_parameters(kind, graph):
    folder = paddle_tiny.saved(kind)
    for path in (folder, folder / graph, folder / "inference.pdiparams"):
        found = recognise(path)
        assert (found.kind, found.graph.name, found.weights.name) == ("paddle", graph, "inference.pdiparams")
        assert found.name == kind, "inference.* is named after its folder"
        assert found.folder == folder


def test_a_folder_with_one_onnx_file_is_that_file(tiny_onnx):
    assert recognise(tiny_onnx.parent).graph == tiny_onnx


def test_json_that_is_no_program_is_not_taken_for_one(tmp_path):
    (tmp_path / "labels.json").write_text('{"cat": 1}')
    with pytest.raises(BadInput, match=r"holds no model.*labels\.json"):
        recognise(tmp_path)


def test_a_missing_parameter_file_is_named(tmp_path):
    folder = copy("old", tmp_path)
    (folder / "inference.pdiparams").unlink()
    with pytest.raises(BadInput, match=r"inference\.pdiparams is missing"):
        recognise(folder)


@pytest.mark.parametrize(("name", "words"), [
    ("gone", "does not exist"), ("gone.pdmodel", "does not exist"), ("notes.txt", "is of no known kind"),
])
def test_what_is_not_there_or_not_known_is_named(tmp_path, name, words):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match=words) as caught:
        recognise(tmp_path / name)
    assert name in caught.value.what
    assert caught.value.remedy


def test_an_openvino_model_is_its_xml_with_the_bin_beside_it(tmp_path):
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(BadInput, match=r"net\.bin is missing"):
        recognise(tmp_path / "net.xml")
    (tmp_path / "net.bin").write_bytes(b"1234")
    for path in (tmp_path, tmp_path / "net.xml"):
        found = recognise(path)
        assert (found.kind, found.graph.name, found.weights.name, found.size) == ("openvino", "net.xml", "net.bin", 10)
    first = found.digest()
    (tmp_path / "net.bin").write_bytes(b"1235")
    assert recognise(tmp_path).digest() != first


def test_what_was_compiled_goes_before_the_model_it_was_made_from(tiny_onnx, tmp_path):
    (tmp_path / "net.xml").write_text("<net/>")
    (tmp_path / "net.bin").write_bytes(b"")
    model = Model.open(tiny_onnx)
    assert recognise(SimpleNamespace(model=model, artifact=tmp_path / "net.xml")).kind == "openvino"
    assert recognise(SimpleNamespace(model=model, artifact=None)).kind == "onnx"


def test_an_empty_folder_is_told_from_a_wrong_one(tmp_path):
    with pytest.raises(BadInput, match="found: nothing") as caught:
        recognise(tmp_path)
    assert ".onnx" in caught.value.remedy


def test_the_digest_covers_graph_and_weights(tmp_path):
    folder = copy("net", tmp_path)
    first = recognise(folder).digest()
    assert recognise(folder / "inference.json").digest() == first
    for name in ("inference.json", "inference.pdiparams"):
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data + b" ")
        assert recognise(folder).digest() != first
        path.write_bytes(data)
    assert recognise(folder).digest() == first
