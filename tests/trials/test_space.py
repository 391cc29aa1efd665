"""What can be tried."""

from quantization_models import attention_net, conv_net
from search_toys import OFFERED, OPTIONS, candidates

import kit
from kit.trials.space import baseline, multiplies, offers, space


def test_candidates_differ_and_include_the_baseline():
    found = candidates()
    assert len(set(found)) == len(found)
    assert baseline(OPTIONS) in found
    assert 40 <= len(found) <= 80


def test_what_the_machine_lacks_is_left_out():
    found = space(OPTIONS, {"onnxruntime": ("fp32", "int8")}, multiplies=False)
    assert {candidate.runtime for candidate in found} == {"onnxruntime"}
    found = space(OPTIONS, {**OFFERED, "openvino": ("fp32", "int8")}, multiplies=False)
    assert not any("bf16" in candidate.precision for candidate in found)


def test_weight_only_is_tried_where_matrix_products_hold_the_weights():
    found = {c.kind for c in space(OPTIONS, OFFERED, multiplies=True)} - {c.kind for c in candidates()}
    assert found == {(runtime, precision) for runtime in ("onnxruntime", "openvino")
                     for precision in ("int8-weights", "int4-weights")}
    labels = [c.label for c in space(OPTIONS, OFFERED, multiplies=True) if c.precision == "int4-weights"]
    assert "ONNX Runtime INT4 weights, 2 threads" in labels


def test_a_convolution_net_has_no_large_matrix_products(tiny_onnx, tmp_path):
    assert not multiplies(tiny_onnx)
    assert not multiplies(conv_net(tmp_path / "conv.onnx"))
    assert multiplies(attention_net(tmp_path / "block.onnx"))


def test_one_run_setting_differs_at_a_time():
    int8 = [c for c in candidates() if c.kind == ("onnxruntime", "int8") and (c.method, c.keep) == ("mse", 0)]
    assert [(c.threads, c.level) for c in int8] == [(2, "all"), (1, "all"), (2, "extended")]
    both = space(kit.SearchOptions(spinning="both"), OFFERED, multiplies=False)
    assert sum(not c.spinning for c in both) == sum(c.runtime == "onnxruntime" and c.level == "all" and c.threads == 2
                                                    and c.spinning for c in both)


def test_a_label_says_what_a_reader_must_know():
    candidate = next(c for c in candidates() if c.kind == ("openvino", "int8+bf16") and c.keep == 3)
    assert candidate.label == "OpenVINO INT8+BF16, ranges by mse, 3 groups in float, 2 threads"


def test_this_machine_offers_float_and_int8_in_onnx_runtime():
    assert {"fp32", "int8"} <= set(offers()["onnxruntime"])


def test_settings_are_those_of_the_runtimes():
    for candidate in candidates():
        settings = candidate.runner_settings
        assert settings["threads"] == candidate.threads
        assert settings["runtime"] == candidate.runtime
        if candidate.precision in ("bf16", "int8+bf16"):
            assert settings["precision"] == "bf16"
