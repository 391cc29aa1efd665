"""The panel of ranges: the worst tensor first, its chart, and the methods that a person overrules."""

import html

import numpy as np
import pytest
from quantization_models import conv_net, feeds

import kit
import kit.ui
from kit.errors import BadInput
from kit.int8 import qdq_read
from kit.int8.range_cost import tensor_sqnr
from kit.int8.ranges import choose
from kit.model import read


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    path = conv_net(folder / "toy.onnx")
    samples = feeds(5)
    samples[3]["x"][0, 0, 0, 0] = 80.0
    return path, kit.calibrate(path, samples, runs=folder), folder


@pytest.fixture
def shown(measured):
    return kit.ui.ranges(measured[1])


def test_the_worst_tensor_comes_first_and_is_in_view(measured, shown):
    histograms = measured[1].histograms()
    costs = {name: tensor_sqnr(histograms[name], choose(histograms[name], "mse")) for name in shown.tensors}
    assert list(costs.values()) == sorted(costs.values())
    assert shown.tensor.value == shown.tensors[0]
    assert f"tensor {shown.tensors[0]}," in shown.chart.chart.alt
    assert "1 of 14, worst first" in shown._status.value
    assert shown.previous.disabled
    assert not shown.next.disabled


def test_next_and_the_list_change_the_chart(shown):
    shown.next.click()
    assert f"tensor {shown.tensors[1]}," in shown.chart.chart.alt
    shown.tensor.value = shown.tensors[-1]
    assert f"tensor {shown.tensors[-1]}," in shown.chart.chart.alt
    assert shown.next.disabled


def test_find_narrows_the_list_by_tensor_or_operator(shown):
    shown.find.value = "hardswish"
    assert [value for _, value in shown.tensor.options] == ["h0"]
    assert "tensor h0," in shown.chart.chart.alt
    shown.find.value = "no such thing"
    assert shown.tensor.options == ()
    assert shown.chart.chart is None
    assert "No tensor fits" in shown.chart._words.value
    shown.find.value = ""
    assert len(shown.tensor.options) == 14
    assert shown.chart.chart is not None


def test_nobody_overruled_anything(shown):
    assert shown.get() == {}
    assert "No method is overruled" in shown._call.value


def test_a_method_chosen_for_a_tensor_is_told_everywhere(shown):
    shown.tensor.value = "h0"
    shown.method.value = "entropy"
    assert shown.get() == {"h0": "entropy"}
    assert "tensor_methods=('h0=entropy',)" in html.unescape(shown._call.value)
    assert next(words for words, value in shown.tensor.options if value == "h0").endswith("now entropy")
    assert shown.tensor.value == "h0"
    shown.next.click()
    assert shown.method.value == ""
    shown.tensor.value = "h0"
    assert shown.method.value == "entropy"
    shown.method.value = ""
    assert shown.get() == {}


def test_the_methods_are_listed_with_what_each_would_cost(measured, shown):
    histogram = measured[1].histogram("x")
    shown.tensor.value = "x"
    said = dict((value, words) for words, value in shown.method.options)
    assert said[""].startswith("as chosen (mse)")
    for method in ("minmax", "percentile", "mse", "entropy"):
        assert said[method] == f"{method}: {tensor_sqnr(histogram, choose(histogram, method)):.1f} dB"


def test_overrules_from_code_and_names_that_are_not_there(shown):
    shown.choose("h0", "minmax")
    assert shown.get() == {"h0": "minmax"}
    shown.choose("h0", None)
    assert shown.get() == {}
    with pytest.raises(BadInput, match="'h9'") as caught:
        shown.choose("h9", "mse")
    assert "h0" in caught.value.remedy
    with pytest.raises(BadInput, match="'mean'"):
        shown.choose("h0", "mean")


def test_with_a_model_its_own_ranges_are_the_ones_as_chosen(measured):
    path, calibration, folder = measured
    quantized = kit.quantize(path, calibration, kit.QuantizeOptions(method="minmax"), runs=folder)
    shown = kit.ui.ranges(calibration, quantized)
    written = qdq_read.rounded(read(quantized.model.path))
    assert set(shown.tensors) <= set(written)
    shown.tensor.value = "x"
    rounded = written["x"]
    low = (np.iinfo(rounded.dtype).min - rounded.zero) * rounded.scale
    assert f"in the model {low:.4g} to " in shown.chart.chart.alt
    assert shown.method.options[0][0].startswith("as chosen (in the model)")


def test_what_it_gives_is_what_quantize_takes(measured, shown):
    path, calibration, folder = measured
    shown.choose("x", "minmax")
    chosen = tuple(f"{tensor}={method}" for tensor, method in shown.get().items())
    options = kit.QuantizeOptions(method="mse", tensor_methods=chosen, bias_correction="no")
    quantized = kit.quantize(path, calibration, options, runs=folder)
    written = qdq_read.rounded(read(quantized.model.path))
    for tensor, method in (("x", "minmax"), ("h0", "mse")):
        low, high = choose(calibration.histogram(tensor), method)
        assert 255 * written[tensor].scale == pytest.approx(high - low, rel=1e-5)
    assert quantized.range_methods == {"x": "minmax"}
    for wrong, said in (("nowhere=mse", "'nowhere'"), ("x=best", "'best'"), ("x", "cannot be 'x'")):
        with pytest.raises(BadInput, match=said):
            kit.quantize(path, calibration, kit.QuantizeOptions(tensor_methods=(wrong,)), runs=folder)


def test_the_other_pictures_and_a_tensor_without_channels(shown):
    shown.tensor.value = "x"
    shown.show.value = "samples"
    assert "Far above the others" in shown.chart.chart.alt
    assert "sample 3" in shown.chart.chart.alt
    shown.show.value = "channels"
    assert "for 3 channels of tensor x" in shown.chart.chart.alt
    shown.tensor.value = "s1"
    assert shown.chart.chart is None
    assert "no tensor with measured channels named 's1'" in shown.chart._words.value.replace("&#x27;", "'")


def test_a_reader_without_a_kernel_gets_the_worst_tensor_s_picture(shown):
    data, metadata = shown._repr_mimebundle_()
    assert data["text/plain"].startswith("Panel 'Ranges of the tensors': needs a running kernel. In code: panel.get()")
    assert metadata["image/png"]["alt"] == shown.chart.chart.alt
    assert "image/png" in data


def test_the_chart_is_set_as_data_and_captures_nothing(shown, capsys):
    shown.next.click()
    assert [output["output_type"] for output in shown.chart._output.outputs] == ["display_data"]
    assert set(shown.chart._output.outputs[0]["data"]) == {"application/vnd.plotly.v1+json", "text/plain"}
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_an_unknown_method_is_refused(measured):
    with pytest.raises(BadInput, match="'best'"):
        kit.ui.ranges(measured[1], method="best")
