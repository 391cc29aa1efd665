"""What is here and what fails together: read from metadata, tried in other processes."""

import re
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kit
from kit import preflight, worker
from kit.errors import BadInput, MissingTool
from kit.preflight import NEEDS, check_environment, known_bad

GOOD = {"paddlepaddle": "3.2.2", "paddle2onnx": "2.1.0", "onnx": "1.17.0", "numpy": "2.4.6", "onnxruntime": "1.31.1",
        "polygraphy": "0.53.6", "onnx_graphsurgeon": "0.6.1"}


def severities(changes, without=()):
    have = {name: version for name, version in (GOOD | changes).items() if name not in without}
    return [(problem.severity, problem.packages) for problem in known_bad(have)]


def test_the_pinned_versions_are_good():
    assert severities({}) == []


def test_here_is_no_known_bad_pair():
    assert [p for p in known_bad(preflight.versions()) if p.severity == "error"] == []


@pytest.mark.parametrize(("changes", "without", "expected"), [
    ({"paddlepaddle": "3.3.1"}, (), ("warning", ("paddlepaddle 3.3.1", "paddle2onnx 2.1.0"))),
    ({"paddlepaddle": "3.3.0"}, ("paddle2onnx",), ("warning", ("paddlepaddle 3.3.0",))),
    ({"paddlepaddle": "2.6.2"}, (), ("error", ("paddlepaddle 2.6.2", "paddle2onnx 2.1.0"))),
    ({"paddlepaddle-gpu": "2.6.2"}, ("paddlepaddle",), ("error", ("paddlepaddle 2.6.2", "paddle2onnx 2.1.0"))),
    ({"onnx": "1.18.0"}, (), ("note", ("paddle2onnx 2.1.0", "onnx 1.18.0"))),
    ({}, ("onnx_graphsurgeon",), ("note", ("paddle2onnx 2.1.0", "polygraphy 0.53.6"))),
    ({"onnx": "1.20.1", "onnx-graphsurgeon": "0.5.8"}, ("onnx_graphsurgeon",),
     ("warning", ("onnx 1.20.1", "onnx_graphsurgeon 0.5.8"))),
    ({"onnxruntime": "1.18.1"}, (), ("error", ("onnxruntime 1.18.1", "numpy 2.4.6"))),
    ({"onnxruntime-gpu": "1.31.1"}, (), ("warning", ("onnxruntime 1.31.1", "onnxruntime-gpu 1.31.1"))),
    ({"paddle2onnx": "2.0.1"}, (), ("warning", ("paddlepaddle 3.2.2", "paddle2onnx 2.0.1"))),
    ({"tf2onnx": "1.16.1"}, (), ("error", ("tf2onnx 1.16.1", "numpy 2.4.6"))),
    ({"tf2onnx": "1.16.1", "tensorflow-cpu": "2.16.1"}, (), ("warning", ("tf2onnx 1.16.1", "tensorflow 2.16.1"))),
    ({"tf2onnx": "1.17.0", "tensorflow": "2.21.0"}, (), ("note", ("tf2onnx 1.17.0", "tensorflow 2.21.0"))),
    ({"tf2onnx": "1.15.1", "protobuf": "4.25.8"}, (), ("note", ("tf2onnx 1.15.1", "protobuf 4.25.8"))),
    ({"keras": "3.15.1"}, (), ("note", ("keras 3.15.1",))),
])
def test_a_bad_pair_is_known(changes, without, expected):
    assert expected in severities(changes, without)


def test_errors_come_first():
    bad = {"paddlepaddle": "2.6.2", "onnx": "1.18.0", "onnxruntime": "1.18.1"}
    found = [severity for severity, _ in severities(bad)]
    assert found == sorted(found, key=["error", "warning", "note"].index)
    assert len(found) >= 3


def test_spelling_of_names_does_not_matter():
    assert known_bad({"PaddlePaddle": "3.3.1"}) == known_bad({"paddlepaddle": "3.3.1"}) != []


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.sampled_from(["0.1", "1.20.1", "3.3.1", "2.0rc1", "4.dev1"])))
def test_any_versions_are_judged_without_fail(have):
    for problem in known_bad(have):
        assert all(package.split()[1] in have.values() for package in problem.packages)


def test_every_row_says_who_says_so_and_what_to_do():
    for row in preflight.table():
        assert row["severity"] in ("error", "warning", "note")
        assert row["when"]
        for field in ("what", "do", "source"):
            assert len(row[field]) > 10, row
        assert date.fromisoformat(row["checked"])
        assert not re.search(r"/(root|home|work|tmp)/", str(row)), "no path of any machine"


def test_every_need_is_what_the_project_installs():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = {"base": project["dependencies"], **project["optional-dependencies"]}
    for need, packages in NEEDS.items():
        installed = {canonicalize_name(Requirement(text).name) for text in extras[need]}
        wanted = {canonicalize_name(names.split("|")[0]) for names, _ in packages}
        assert wanted <= installed, need


def test_an_unknown_need_is_answered_with_the_known():
    with pytest.raises(BadInput, match="no need named 'padle'") as caught:
        check_environment("padle")
    assert "paddle" in caught.value.remedy


def test_the_environment_is_a_card_that_is_true_when_ready():
    found = check_environment("paddle", "ocr")
    assert found, str(found)
    states = {package.name: package.state for package in found.packages}
    assert states["paddlepaddle"] == "ready"
    assert states["onnxruntime"] == "ready"
    assert states["RapidFuzz"] == "installed"
    assert "paddle" not in sys.modules, "never imported here"
    assert found.memory_total > found.memory_free > 0
    for word in ("Python", "memory", "disk", "processor", "3.2.2" if states else ""):
        assert word in str(found)
    assert kit.check_environment is check_environment


def test_a_missing_package_is_told_from_a_broken_one(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    (tmp_path / "crashing.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(NEEDS, "paddle", (("numpy", "broken_inside"), ("psutil", "crashing"), ("onnx", "json"),
                                          ("no-such-thing", "no_such_thing")))
    found = check_environment("paddle")
    assert not found
    packages = {p.name: p for p in found.packages if p.need == "paddle"}
    assert packages["no-such-thing"].state == "missing"
    assert packages["numpy"].state == "broken"
    assert "libGL.so.1" in packages["numpy"].note
    assert packages["psutil"].state == "broken"
    assert "ended the process" in packages["psutil"].note
    assert packages["onnx"].state == "installed", "not tried: the process had ended"
    assert 'pip install -c constraints.txt -e ".[paddle]"' in str(found)
    assert "no-such-thing is not installed" in found.title()


def test_what_diffusion_needs_is_looked_up_under_pytorchs_interpreter(monkeypatch):
    asked = []
    monkeypatch.setattr(preflight, "_probe", lambda python, modules: dict.fromkeys(modules, ""))
    monkeypatch.setattr(preflight.worker, "interpreter", lambda name=None: asked.append(name) or sys.executable)
    found = check_environment("diffusion")
    assert {package.name for package in found.packages if package.need == "diffusion"} >= {"torch", "diffusers"}
    assert "torch" in asked
    assert "diffusion" not in asked


@pytest.mark.parametrize(("installed", "severity", "words"), [
    ({"diffusers": "0.35.2", "transformers": "5.0.0"}, "error", "FLAX_WEIGHTS_NAME"),
    ({"diffusers": "0.42.1", "transformers": "5.24.0"}, "", ""),
    ({"torch": "2.9.0", "onnxscript": "0.3.1"}, "warning", "onnxscript 0.4"),
    ({"torch": "2.13.0+cpu", "onnxscript": "0.7.2"}, "note", "opset 18"),
])
def test_pairs_around_pytorch_are_known(installed, severity, words):
    found = known_bad(installed)
    assert (found[0].severity if found else "") == severity
    assert not words or words in found[0].what


def test_a_known_bad_pair_makes_it_false(monkeypatch):
    real = preflight.versions()
    monkeypatch.setattr(preflight, "versions", lambda python=None: real | {"onnxruntime": "1.18.0", "numpy": "2.1.0"})
    found = check_environment()
    assert not found
    assert "onnxruntime 1.18.0 and numpy 2.1.0 fail together" in found.title()
    assert "1.19" in str(found)


def test_a_stage_is_told_what_is_missing_in_its_own_interpreter(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S \"$@\"\n")  # -S: without any installed package
    python.chmod(0o755)
    worker.use("paddle", python=python)
    try:
        with pytest.raises(MissingTool, match="paddlepaddle and paddle2onnx are not installed in") as caught:
            preflight.require("paddle", "paddlepaddle|paddlepaddle-gpu", "paddle2onnx")
        assert f"{python} -m pip install paddlepaddle paddle2onnx" in caught.value.remedy
        found = check_environment("paddle")
        assert [p.state for p in found.packages if p.need == "paddle"] == ["missing", "missing"]
        assert worker.run(worker.interpreter, "paddle") == str(python), "a stage in a worker sees it too"
    finally:
        worker.use("paddle", python=None)


def test_an_old_python_is_named(monkeypatch):
    monkeypatch.setattr(preflight, "versions", lambda python=None: GOOD | {"python": "3.9.18"})
    with pytest.raises(MissingTool, match=r"is Python 3\.9\.18"):
        preflight.require("paddle", "paddlepaddle")


def test_a_program_that_is_no_python_is_named():
    with pytest.raises(MissingTool, match="/bin/ls does not answer"):
        preflight.versions("/bin/ls")


def test_an_error_row_stops_with_its_remedy(monkeypatch):
    monkeypatch.setattr(preflight, "versions", lambda python=None: GOOD | {"python": "3.11.1", "paddlepaddle": "2.6.2"})
    with pytest.raises(MissingTool, match="known to fail together") as caught:
        preflight.require("paddle", "paddlepaddle", "paddle2onnx")
    assert "kit.worker.use" in caught.value.remedy
    assert "checked 20" in caught.value.detail


def test_processor_features_are_read_from_the_system(monkeypatch):
    assert set(preflight.cpu_features()) <= set(preflight.FEATURES)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor: 0\nflags\t: fpu avx2 avx512_vnni\n")
    assert preflight.cpu_features() == ("avx2", "avx512_vnni")
