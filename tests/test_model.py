import numpy as np
import onnx
import pytest

from kit.errors import BadInput
from kit.model import Model


def test_a_model_describes_itself(tiny_onnx):
    model = Model.open(tiny_onnx)
    assert str(model.inputs[0]) == "x float32[N, 3, H, W]"
    assert str(model.outputs[0]) == "y float32[N, 1, H, W]"
    assert (model.opset, model.nodes, model.ir_version) == (17, 5, 8)
    assert model.size == tiny_onnx.stat().st_size


def test_a_changed_weight_changes_the_digest(tiny_onnx, tmp_path):
    proto = onnx.load(tiny_onnx)
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight.flat[0] += 1
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, proto.graph.initializer[0].name))
    onnx.save(proto, tmp_path / "other.onnx")
    assert Model.open(tiny_onnx).digest() != Model.open(tmp_path / "other.onnx").digest()


def test_external_weights_count_in_digest_and_size(tiny_onnx, tmp_path):
    path = tmp_path / "out" / "big.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(tiny_onnx), path, save_as_external_data=True, location="big.data", size_threshold=0)
    model = Model.open(path)
    data = path.with_name("big.data")
    assert model.size == path.stat().st_size + data.stat().st_size
    before = model.digest()
    data.write_bytes(data.read_bytes()[:-4] + np.float32(7).tobytes())
    assert model.digest() != before
    data.unlink()
    with pytest.raises(BadInput, match=r"big\.data, which is not beside it"):
        Model.open(path)


@pytest.mark.parametrize(("content", "said"), [
    (None, "does not exist"), (b"", "is empty"), (b"not onnx at all", "whole ONNX")])
def test_no_model_is_named(tmp_path, content, said):
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        Model.open(path)
    assert "bad.onnx" in caught.value.what


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_refused(tiny_onnx, tmp_path, keep):
    whole = tiny_onnx.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[:int(len(whole) * keep)])
    with pytest.raises(BadInput, match=r"cut\.onnx"):
        Model.open(cut)


def test_the_lineage_grows_with_each_step(tiny_onnx):
    made = Model.open(tiny_onnx).derived(tiny_onnx, "fix", "folded 2 nodes")
    assert [step.note for step in made.derived(tiny_onnx, "quantize", "INT8").lineage] == ["folded 2 nodes", "INT8"]
    assert "folded 2 nodes" in str(made)
