"""The panel of layers: what each costs, ticks for INT8, and what the ticks add up to."""

import html

import pytest
from quantization_models import conv_net, feeds

import kit
import kit.ui
from kit.errors import BadInput
from kit.int8.ranking import GroupSensitivity, Sensitivity
from kit.ui.layer_view import dearest, estimated


def ranking(*noises, direction="alone", sqnr=20.0, untried=()):
    groups = tuple(GroupSensitivity(f"conv{at}", "Conv", (f"conv{at}", f"relu{at}"), 30.0, noise)
                   for at, noise in enumerate(noises))
    return Sensitivity(groups, untried, sqnr, 4, direction, "digest", 1.0)


def test_all_layers_start_in_int8():
    shown = kit.ui.layers(ranking(0.5, 0.3, 0.2))
    assert shown.get() == ()
    assert all(tick.value for tick in shown.ticks.values())
    assert "All in INT8: output measured at 20.0 dB" in shown._sum.value
    assert "kit.QuantizeOptions())" in shown._call.value


def test_a_tick_taken_off_keeps_all_nodes_of_the_layer_in_float():
    shown = kit.ui.layers(ranking(0.5, 0.3, 0.2))
    shown.ticks["conv1"].value = False
    assert shown.get() == ("conv1", "relu1")
    assert "keep_float=('conv1', 'relu1')" in html.unescape(shown._call.value)
    assert "30.0% of the noise, in float" in shown._rows["conv1"][2].value


def test_the_estimate_takes_the_layer_s_share_off_what_was_measured():
    shown = kit.ui.layers(ranking(0.5, 0.3, 0.2))
    shown.ticks["conv0"].value = False
    # Half of the noise is 3 dB.
    assert "1 of 3 layers in float: estimated output 23.0 dB (all in INT8: 20.0 dB, measured)" in shown._sum.value
    assert estimated(ranking(0.5, 0.3, 0.2), ("conv0", "conv1", "conv2")) == 200.0
    shown.keep_float(["conv0", "conv1", "conv2"])
    assert "they add no noise" in shown._sum.value


def test_the_buttons_tick_and_untick():
    shown = kit.ui.layers(ranking(0.5, 0.3, 0.1, 0.1))
    shown.spare.click()
    assert shown.get() == ("conv0", "relu0", "conv1", "relu1")
    assert [tick.value for tick in shown.ticks.values()] == [False, False, True, True]
    shown.all.click()
    assert shown.get() == ()


@pytest.mark.parametrize(("share", "groups"), [(0.0, 0), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)])
def test_as_few_as_make_up_the_share(share, groups):
    assert len(dearest(ranking(0.5, 0.3, 0.1, 0.1), share)) == groups


def test_many_layers_are_folded_and_keep_their_ticks():
    shown = kit.ui.layers(ranking(*(1 / 2**at for at in range(40))))
    assert len(shown._list.children) == 15
    assert shown.more.description.startswith("Show 25 more")
    shown.keep_float(["conv30"])
    shown.more.click()
    assert len(shown._list.children) == 40
    assert not shown.ticks["conv30"].value
    shown.more.click()
    assert len(shown._list.children) == 15
    assert shown.get() == ("conv30", "relu30")


def test_find_shows_the_layers_that_fit_by_name_operator_or_member():
    shown = kit.ui.layers(ranking(*(1 / 2**at for at in range(40))))
    shown.find.value = "RELU33"
    assert [row.children[0].description for row in shown._list.children] == ["conv33 (Conv + 1)"]
    shown.find.value = "nothing"
    assert shown._list.children == ()
    shown.find.value = ""
    assert len(shown._list.children) == 15


def test_layers_without_noise_divide_by_nothing():
    shown = kit.ui.layers(ranking(0.0, 0.0))
    shown.spare.click()
    assert len(shown.get()) in (0, 2, 4)


def test_groups_that_were_not_tried_are_said():
    assert "Not tried, and taken as INT8: 1 layers" in kit.ui.layers(ranking(0.5, untried=("late",)))._sum.value


def test_tensors_share_nodes_and_metrics_are_shown():
    groups = (GroupSensitivity("t0", "Conv", ("first", "swish"), 30.0, 0.6, 0.81),
              GroupSensitivity("h0", "HardSwish", ("swish", "depthwise"), 30.0, 0.4))
    shown = kit.ui.layers(Sensitivity(groups, (), 20.0, 4, "alone", "", 1.0, "tensor", 0.9, 0.7))
    shown.keep_float(["t0", "h0"])
    assert shown.get() == ("first", "swish", "depthwise")
    assert "All of these tensors in float" in shown._sum.value
    assert "Metric: 0.9 in float, 0.7 with all in INT8" in shown._sum.value
    assert "metric 0.81" in shown._rows["t0"][2].value
    assert repr(shown).startswith("Panel 'Tensors in INT8'")


def test_an_unknown_layer_is_refused():
    with pytest.raises(BadInput, match="'conv9'"):
        kit.ui.layers(ranking(0.5)).keep_float(["conv9"])


@pytest.mark.parametrize("direction", ["alone", "spared"])
def test_what_it_gives_is_what_quantize_takes(tmp_path, direction):
    path = conv_net(tmp_path / "toy.onnx")
    calibration = kit.calibrate(path, feeds(3), runs=tmp_path)
    found = kit.sensitivity(path, calibration, options=kit.SensitivityOptions(direction=direction), runs=tmp_path)
    shown = kit.ui.layers(found)
    shown.ticks[found.groups[0].name].value = False
    assert shown.get() == found.groups[0].nodes
    quantized = kit.quantize(path, calibration, kit.QuantizeOptions(method="percentile", keep_float=shown.get()),
                             runs=tmp_path)
    assert set(shown.get()) <= set(quantized.kept_float)
    data, _ = shown._repr_mimebundle_()
    assert data["text/plain"].startswith("Panel 'Layers in INT8': needs a running kernel. In code: panel.get()")
