"""What speaks pyACL and ais_bench, apart from a device: names, order, profiles, CANN on this machine.

The sequence of calls is tested against the FAKE acl in tests/ascend/test_fake_acl.py.
"""

import sys

import numpy as np
import pytest

from kit.runtimes import om_session
from kit.runtimes.ais_session import AisModel
from kit.runtimes.om_session import Failure


@pytest.mark.parametrize(("name", "text"), [
    ("x86_64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\ninnerversion=V1"),
    ("version.info", "Version=8.1.RC1\n"),
    ("version.cfg", "# version: 1.0\ntoolkit_installed_version=[7.6:8.1.RC1]\n"),
])
def test_the_release_of_cann_is_read_from_each_of_its_files(tmp_path, monkeypatch, name, text):
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert om_session.cann_version() == "8.1.RC1"


def test_a_python_without_acl_says_what_to_source(monkeypatch):
    monkeypatch.setitem(sys.modules, "acl", None)
    with pytest.raises(Failure, match=r"pyACL .* source .*set_env\.sh"):
        om_session.import_acl()


def test_feeds_go_by_name_and_where_names_differ_by_position():
    specs = [{"name": "b"}, {"name": "a"}]
    assert om_session.in_order({"a": 1, "b": 2}, specs) == [2, 1]
    assert om_session.in_order({"x": 1, "y": 2}, specs) == [1, 2]
    with pytest.raises(Failure, match=r"takes 2 inputs \(b, a\), not 1 \(a\)"):
        om_session.in_order({"a": 1}, specs)


@pytest.mark.parametrize(("kind", "asked"), [("batch", [4]), ("image", [4, 32]), ("dims", [4, 32, 7])])
def test_shapes_ask_for_a_profile(kind, asked):
    specs = [{"shape": [-1, 3, -1]}, {"shape": [2, -1]}]
    assert om_session.profile_of([np.zeros((4, 3, 32)), np.zeros((2, 7))], specs, kind) == asked


@pytest.mark.parametrize(("called", "names"), [
    (["Conv_3:0:logits"], ["logits"]), (["n:0:x:0", "m:1:y:0"], ["x:0", "y:0"]), (["plain"], ["plain"]),
    (["a:0:same", "b:0:same"], ["a:0:same", "b:0:same"])])
def test_outputs_are_named_as_in_the_onnx_file_unless_that_would_lose_one(called, names):
    assert om_session.tensor_names(called) == names


def test_without_ais_bench_the_wheels_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ais_bench.infer.interface", None)
    with pytest.raises(Failure, match="install the wheels aclruntime and ais_bench"):
        AisModel("net.om")
