"""A graph in memory with its weights where they lie."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

import kit
from kit.graph.mapped import mapped


@pytest.fixture
def apart(bench):
    """A model with a weight in ``deep/weights.bin`` beside it."""
    import onnx

    proto = onnx.load(str(bench.text("{i = Identity(x) r = Relu(i) y = MatMul(r, w)}", inputs="float[N,64] x",
                                     outputs="float[N,64] y")))
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    folder = bench.folder / "apart"
    (folder / "deep").mkdir(parents=True)
    onnx.save(proto, str(folder / "net.onnx"), save_as_external_data=True, location="deep/weights.bin",
              size_threshold=0)
    return folder / "net.onnx"


def test_it_answers_like_the_file(apart):
    import onnxruntime as ort

    feeds = {"x": np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)}
    found = mapped(apart.read_bytes(), apart.parent, apart.name)(feeds)
    (wanted,) = ort.InferenceSession(str(apart)).run(None, feeds)
    np.testing.assert_allclose(found["y"], wanted, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_or_load_is_named(apart):
    run = mapped(apart.read_bytes(), apart.parent, apart.name)
    with pytest.raises(kit.BadInput, match=r"could not run net.onnx on \{'x': \[2, 3\]\}") as caught:
        run({"x": np.zeros((2, 3), np.float32)})
    assert caught.value.remedy
    with pytest.raises(kit.UnsupportedModel, match=r"cannot load net\.onnx"):
        mapped(apart.read_bytes(), apart.parent.parent, apart.name)


def test_while_rules_are_checked_no_copy_or_link_of_the_weights_is_made(bench, apart, monkeypatch):
    weights, scratch, links = apart.parent / "deep" / "weights.bin", bench.folder / "scratch", set()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def report(tick) -> None:
        links.add(weights.stat().st_nlink)
        assert list(scratch.iterdir())  # the folder in which rules are tried
        assert not list(scratch.rglob("*.bin"))

    fixed = kit.fix(apart, kit.FixOptions(rules=("drop-identity",)), runs=bench.folder / "runs", report=report)
    assert (fixed.counts(), links) == ({"drop-identity": 1}, {1})
    assert "answers within" in fixed.title()
    bench.same_answers(apart, fixed.model.path)
