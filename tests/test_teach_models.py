"""Models for lessons: they run, and each has the fault that it is named after."""

import numpy as np
import onnx
import pytest

import kit
from kit.errors import BadInput
from kit.quantization import KNOWN_TYPES
from kit.samples import generated
from kit.teach_models import _BROKEN, broken_model, merged_heads


@pytest.mark.parametrize("fault", _BROKEN)
def test_a_broken_model_runs_here_and_is_refused_for_ascend(fault, tmp_path):
    model = broken_model(tmp_path / "made" / f"{fault}.onnx", fault)
    with kit.open_runner(model) as run:
        feeds = generated(model.inputs, {spec.name: spec.shape for spec in model.inputs}, 0)
        assert all(np.isfinite(value).all() for value in run(feeds).values())
    audited = kit.audit(model, kit.AuditOptions(target="ascend310p3"), runs=tmp_path / "runs")
    assert audited.of("error") or audited.of("warning")


def test_an_unknown_fault_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(BadInput, match="no fault named 'box'") as caught:
        broken_model(tmp_path / "x.onnx", "box")
    assert "boxes" in caught.value.remedy
    assert not (tmp_path / "x.onnx").exists()


def test_merged_heads_answer_alike_in_float_and_lose_the_scores_in_int8(tmp_path):
    random = np.random.default_rng(0)
    graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[1, 3, 8, 8] x) => (float[1, 64, 4] boxes, float[1, 2, 64] scores)
        <int64[3] four = {1, 4, 64}, int64[3] two = {1, 2, 64}, float pixels = {200}> {
            b = Conv <pads = [1, 1, 1, 1]> (x, wb)
            flat = Reshape (b, four)
            small = Transpose <perm = [0, 2, 1]> (flat)
            boxes = Mul (small, pixels)
            s = Conv <pads = [1, 1, 1, 1]> (x, ws)
            logits = Reshape (s, two)
            scores = Sigmoid (logits)
        }""")
    graph.graph.initializer.extend([onnx.numpy_helper.from_array(random.normal(0, 0.3, (n, 3, 3, 3)).astype("f"), name)
                                    for name, n in (("wb", 4), ("ws", 2))])
    onnx.save(graph, str(tmp_path / "heads.onnx"))
    model = kit.Model.open(tmp_path / "heads.onnx")
    merged = merged_heads(model, tmp_path / "made" / "merged.onnx", "boxes", "scores")
    samples = [{"x": random.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
    everything = kit.QuantizeOptions(method="minmax", bias_correction="no", quantize_types=KNOWN_TYPES)
    lost = {}
    for each in (model, merged):
        quantized = kit.quantize(each, kit.calibrate(each, samples, runs=tmp_path), everything, runs=tmp_path)
        with kit.open_runner(model) as plain, kit.open_runner(each) as run, kit.open_runner(quantized.model) as int8:
            right, answer, rounded = (r(samples[0]) for r in (plain, run, int8))
        assert all(np.array_equal(right[name], answer[name]) for name in right)
        lost[each.path.name] = np.abs(rounded["scores"] - right["scores"]).max()
    assert lost["merged.onnx"] > 5 * lost["heads.onnx"]
    with pytest.raises(BadInput, match="no output named 'score'"):
        merged_heads(model, tmp_path / "x.onnx", "boxes", "score")
