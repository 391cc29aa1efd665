"""AIPP from a Preprocess: the text, what is refused and with which way out, and the difference on pictures."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from prototxt_judges import protobuf_takes

from kit.ascend.preprocessing.aipp_arithmetic import run
from kit.ascend.preprocessing.aipp_config import AippOptions, aipp, read_aipp
from kit.charts.ascend import aipp_difference
from kit.errors import BadInput, UnsupportedModel
from kit.families.ocr import DETECTOR, RECOGNISER
from kit.samples import Preprocess, Sample, Samples

IMAGENET = Preprocess(size=(32, 48), channels="RGB")
PLAIN = Preprocess(size=(32, 48), mean=(0, 0, 0), std=(1, 1, 1))


def values(made):
    found = re.findall(r"^\s+(\w+) : (\S+)$", made.text, re.MULTILINE)
    assert len(dict(found)) == len(found), "each key once"
    return dict(found)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(3)
    for at in range(3):
        small = random.integers(0, 256, (6, 9, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{at}.png"), cv2.resize(small, (60, 40), interpolation=cv2.INTER_CUBIC))
    return tmp_path


def net(path, *inputs):
    """A model that only has inputs: name, shape, type."""
    values_ = [helper.make_tensor_value_info(name, kind, shape) for name, shape, kind in inputs]
    nodes = [helper.make_node("Identity", [inputs[0][0]], ["out"])]
    out = helper.make_tensor_value_info("out", inputs[0][2], inputs[0][1])
    model = helper.make_model(helper.make_graph(nodes, "inputs", values_, [out]),
                              opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


F, U = TensorProto.FLOAT, TensorProto.UINT8


def test_imagenet_statistics_become_means_of_bytes_and_a_factor():
    made = aipp(IMAGENET, (32, 48), input="x")
    got = values(made)
    assert [got[f"mean_chn_{at}"] for at in range(3)] == ["123", "116", "103"]
    assert [float(got[f"min_chn_{at}"]) for at in range(3)] == pytest.approx([0.675, 0.28, 0.53])
    assert [float(got[f"var_reci_chn_{at}"]) for at in range(3)] == pytest.approx([0.0171248, 0.0175070, 0.0174292],
                                                                                  abs=1e-7)
    assert got["rbuv_swap_switch"] == "true", "BGR as OpenCV reads it, for a model of RGB"
    assert got["csc_switch"] == "false"
    assert (got["src_image_size_w"], got["src_image_size_h"]) == ("48", "32")
    assert made.text.count("aipp_op {") == 1
    assert all(ord(letter) < 128 for letter in made.text)


@pytest.mark.parametrize("wanted", ["BGR", "RGB"])
@pytest.mark.parametrize("fed", ["BGR", "RGB"])
def test_channels_reach_the_model_in_its_order(wanted, fed):
    preprocess = Preprocess(size=(2, 2), channels=wanted, scale=1.0, mean=(1, 2, 3), std=(1, 1, 1))
    made = aipp(preprocess, (2, 2), input="x", options=AippOptions(picture=fed))
    picture = np.array([[[10, 20, 30], [40, 50, 60]], [[1, 2, 3], [4, 5, 6]]], np.uint8)
    got = made.simulate(made.prepare(picture))
    assert np.array_equal(got, preprocess(picture)), "whole numbers: nothing is rounded"
    assert made.settings.swap == (wanted != fed)


def test_the_mean_can_stay_in_min_chn_and_is_then_less_exact(folder):
    samples = Samples.from_folder(folder, IMAGENET)
    split, whole = (aipp(IMAGENET, (32, 48), input="x", options=AippOptions(split=on)) for on in (True, False))
    assert values(whole)["mean_chn_0"] == "0"
    assert float(values(whole)["min_chn_0"]) == pytest.approx(123.675)
    here, there = split.compare(samples), whole.compare(samples)
    assert there.largest > 1.5 * here.largest
    assert here.in_minimum == pytest.approx(there.largest)
    assert "split here" in str(here)


def test_the_difference_is_that_of_the_values(folder):
    samples = Samples.from_folder(folder, IMAGENET)
    made = aipp(IMAGENET, (32, 48), input="x")
    found = made.compare(samples)
    wanted = np.concatenate([feed["x"] for feed in samples]).astype(np.float64)
    got = np.concatenate([made.simulate(made.prepare(item.load())) for item in samples.items])
    gap = np.abs(wanted - got)
    assert found.largest == gap.max()
    assert found.mean == pytest.approx(gap.mean())
    assert found.values == gap.size == sum(found.histogram)
    assert found.rounded == np.abs(wanted - wanted.astype(np.float16)).max()
    where = found.where
    at = [item.name for item in samples.items].index(where.sample), where.channel, where.row, where.column
    assert gap[at] == gap.max()
    assert (where.wanted, where.got) == (wanted[at], float(got[at]))
    assert found.steps == pytest.approx(found.largest / made.settings.factor[where.channel])
    assert found.steps < 0.15, "far less than one step of a byte"
    assert "no chip was asked" in str(found)
    assert made.compare(samples, limit=1).samples == 1


def test_chips_with_wide_registers_are_as_near_as_float16_can_be(folder):
    samples = Samples.from_folder(folder, IMAGENET)
    narrow, wide = (aipp(IMAGENET, (32, 48), input="x", options=AippOptions(soc_version=chip)).compare(samples)
                    for chip in ("Ascend310P3", "ascend310b4"))
    assert (narrow.registers, wide.registers) == ("float16", "float32")
    assert wide.largest == pytest.approx(wide.rounded, rel=1e-3)
    assert narrow.largest > wide.largest


def test_samples_prepared_in_another_way_are_refused(folder):
    made = aipp(IMAGENET, (32, 48), input="x")
    with pytest.raises(BadInput, match="prepared in another way"):
        made.compare(Samples.from_folder(folder, PLAIN))
    with pytest.raises(BadInput, match="give Samples"):
        made.compare([{"x": np.zeros((1, 3, 32, 48), np.float32)}])


def test_a_line_is_padded_by_the_host_and_what_that_costs_is_shown(folder):
    samples = Samples((Sample(folder / "0.png"),), RECOGNISER)
    made = aipp(RECOGNISER, (48, 320), input="x", options=AippOptions(host_padding=True))
    fed = made.prepare(samples.items[0].load())
    assert fed.shape == (48, 320, 3)
    assert (fed[:, 72:] == 128).all(), "127.5 has no byte; 128 is as near as 127"
    found = made.compare(samples)
    assert found.largest == pytest.approx(0.5 / 127.5, rel=0.01)
    assert found.in_picture < found.largest / 5
    assert "the rest is the host's padding" in str(found)
    wide = np.zeros((48, 400, 3), np.uint8)
    with pytest.raises(BadInput, match=r"becomes 400 x 48 pixels by resize='height'; the AIPP takes 320 x 48"):
        made.prepare(wide)


def test_a_fixed_number_of_columns_is_padded_by_the_chip():
    made = aipp(RECOGNISER, (48, 320), input="x", options=AippOptions(right=20))
    got = values(made)
    assert (got["padding"], got["right_padding_size"], got["src_image_size_w"]) == ("true", "20", "300")
    picture = np.random.default_rng(0).integers(0, 256, (48, 300, 3)).astype(np.uint8)
    tensor = made.simulate(made.prepare(picture))
    assert tensor.shape == (1, 3, 48, 320)
    assert np.abs(tensor - RECOGNISER(picture)).max() < 2e-3
    assert (tensor[..., 300:] == 0).all()
    with pytest.raises(BadInput) as caught:
        made.prepare(picture[:, :200])
    assert "host_padding=True" in caught.value.remedy
    both = aipp(RECOGNISER, (48, 320), input="x", options=AippOptions(right=20, host_padding=True))
    assert both.prepare(picture[:, :200]).shape == (48, 300, 3)


def test_profiles_of_pictures_leave_the_sizes_open():
    made = aipp(DETECTOR, (0, 0), input="x", options=AippOptions(profiles="image"))
    assert "src_image_size" not in made.text
    picture = np.random.default_rng(1).integers(0, 256, (70, 130, 3)).astype(np.uint8)
    assert made.simulate(made.prepare(picture)).shape == DETECTOR(picture).shape


@pytest.mark.parametrize("fed", ["NV12", "NV21"])
@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_pictures_of_a_decoder_pass_the_colour_matrix(fed, channels):
    preprocess = Preprocess(size=(16, 16), channels=channels)
    made = aipp(preprocess, (16, 16), input="x", options=AippOptions(picture=fed))
    got = values(made)
    assert (got["input_format"], got["csc_switch"]) == ("YUV420SP_U8", "true")
    assert got["rbuv_swap_switch"] == ("true" if fed == "NV21" else "false")
    picture = np.empty((16, 16, 3), np.uint8)
    picture[:] = (30, 120, 210)
    assert np.abs(made.simulate(made.prepare(picture)) - preprocess(picture)).max() < 4 * 0.0176
    assert any("decoder" in note for note in made.notes)


@pytest.mark.parametrize(("preprocess", "size", "options", "what", "remedy"), [
    (IMAGENET, (224, 224), {}, "resizes to 48 x 32, the model takes 224 x 224", "same size"),
    (DETECTOR, (630, 640), {}, "multiples of 32", "choose such a size"),
    (RECOGNISER, (48, 320), {}, "pads every picture", "host_padding=True"),
    (RECOGNISER, (32, 320), {"host_padding": True}, "48 pixels high, the model takes 32", "same height"),
    (IMAGENET, (32, 48), {"right": 4}, "resize='stretch' pads nothing", "leave them out"),
    (IMAGENET, (32, 48), {"profiles": "dims"}, "--dynamic_dims", "image profiles"),
    (IMAGENET, (32, 48), {"fp16_inputs": ("x",)}, "E10034", "take it out"),
    (Preprocess(size=(32, 48), layout="NHWC"), (32, 48), {}, "--input_format=NCHW", "export the model with NCHW"),
    (Preprocess(size=(32, 48), mean=(-0.1, 0, 0)), (32, 48), {}, "mean of -25.5", "into the model"),
    (Preprocess(size=(32, 48), mean=(1.5, 0, 0)), (32, 48), {"split": False}, "0..255, not 382.5", "split=True"),
    (Preprocess(size=(32, 48), std=(0, 1, 1)), (32, 48), {}, "std of 0", "check the Preprocess"),
    (Preprocess(size=(32, 48), scale=1.0, std=(1e-5,) * 3), (32, 48), {}, "beyond float16", "inside the model"),
    (Preprocess(resize="none"), (32, 5000), {}, "src_image_size_w is 5000", "choose another size"),
    (Preprocess(resize="none"), (33, 48), {"picture": "NV12"}, "even sides", "choose another size"),
    (RECOGNISER, (48, 1600), {"right": 8}, "at most 1080 on this chip, here it is 1600", "less padding"),
    (RECOGNISER, (48, 320), {"profiles": "image", "right": 4}, "neither cut nor pad", "right=0"),
    (IMAGENET, (32, 48), {"soc_version": "Ascend310Q3"}, "no Ascend chip with known kernels", "Ascend310P3"),
    (IMAGENET, (32, 48), {"soc_version": "Ascend910_95"}, "no Ascend chip with known kernels", "Ascend910"),
])
def test_what_cannot_be_expressed_is_refused_with_a_way_out(preprocess, size, options, what, remedy):
    with pytest.raises(BadInput) as caught:
        aipp(preprocess, size, input="x", options=AippOptions(**options))
    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_wide_padding_is_a_note_where_releases_differ():
    made = aipp(RECOGNISER, (48, 1600), input="x", options=AippOptions(right=8, soc_version="Ascend910B3"))
    assert any("8.1.RC1 refuses" in note for note in made.notes)
    assert not aipp(RECOGNISER, (48, 1600), input="x", options=AippOptions(right=8, soc_version="Ascend910_9391")).notes


def test_the_model_is_asked_for_the_input(tmp_path):
    path = net(tmp_path / "two.onnx", ("mask", [1, 1, 32, 48], F), ("image", ["n", 3, 32, 48], F))
    made = aipp(IMAGENET, (32, 48), input="image", model=path)
    assert made.rank == 1
    assert values(made)["related_input_rank"] == "1"


@pytest.mark.parametrize(("name", "rank", "size", "error", "what", "remedy"), [
    ("imag", None, (32, 48), BadInput, "no input named 'imag'", "did you mean image"),
    ("image", 0, (32, 48), BadInput, "is number 1, not 0", "rank=1"),
    ("mask", None, (32, 48), UnsupportedModel, "takes 1 channels; this preprocessing makes 3", "YUV400_U8"),
    ("codes", None, (32, 48), UnsupportedModel, "AIPP prepares pictures", "'mask' or 'image' or 'last'"),
    ("bytes", None, (32, 48), UnsupportedModel, "AIPP prepares pictures", "'image'"),
    ("last", None, (32, 48), UnsupportedModel, "takes 32 channels", "NCHW"),
    ("image", None, (64, 48), BadInput, "has a height of 32; the AIPP was asked for 64", "size=(32, 48)"),
])
def test_what_does_not_fit_the_model_is_refused(tmp_path, name, rank, size, error, what, remedy):
    path = net(tmp_path / "m.onnx", ("mask", [1, 1, 32, 48], F), ("image", [1, 3, 32, 48], F), ("codes", [1, 7], F),
               ("bytes", [1, 3, 32, 48], U), ("last", [1, 32, 48, 3], F))
    with pytest.raises(error) as caught:
        aipp(Preprocess(size=size, channels="RGB"), size, input=name, rank=rank, model=path)
    assert what in caught.value.what
    assert remedy in caught.value.remedy


plausible = st.builds(
    Preprocess, resize=st.just("stretch"), size=st.tuples(st.integers(1, 64), st.integers(2, 64)),
    channels=st.sampled_from(["BGR", "RGB"]), scale=st.sampled_from([1 / 255, 1 / 256, 1 / 128, 0.01]),
    mean=st.tuples(*[st.floats(0, 1)] * 3), std=st.tuples(*[st.floats(0.05, 1)] * 3))


@settings(max_examples=60)
@given(plausible, st.sampled_from(["BGR", "RGB"]), st.booleans(),
       st.sampled_from(["Ascend310P3", "Ascend310B4", "Ascend910B3", "Ascend910A"]), st.integers(0, 2**32 - 1))
def test_the_reader_finds_nothing_wrong_and_computes_the_same(preprocess, picture, split, chip, seed):
    made = aipp(preprocess, preprocess.size, input="x", options=AippOptions(
        picture=picture, split=split or max(preprocess.mean) / preprocess.scale > 255, soc_version=chip))
    reading = read_aipp(made.text, soc_version=chip, size=preprocess.size)
    assert reading, str(reading)
    protobuf_takes(made.text)
    pixels = np.random.default_rng(seed).integers(0, 256, (*preprocess.size, 3)).astype(np.uint8)
    assert np.array_equal(run(reading.settings(), pixels), made.simulate(pixels))
    assert np.abs(made.simulate(made.prepare(pixels)) - preprocess(pixels)).max() < 0.15 * max(made.settings.factor) + \
        2e-3 * np.abs(preprocess(pixels)).max()


def test_the_card_holds_the_text_and_the_chart_has_words(folder):
    made = aipp(IMAGENET, (32, 48), input="x")
    assert "aipp_op {" in str(made)
    assert "<table>" in made.html()
    found = made.compare(Samples.from_folder(folder, IMAGENET))
    chart = aipp_difference(found)
    assert sum(chart.figure.data[0].y) == pytest.approx(1)
    assert "of one step of a byte" in chart.alt
    assert chart.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("ask", [
    lambda: aipp("x", (32, 48), input="x"), lambda: aipp(PLAIN, None, input="x"),
    lambda: aipp(PLAIN, "32x48", input="x"), lambda: aipp(PLAIN, (32,), input="x"),
    lambda: read_aipp(None), lambda: read_aipp(b"aipp_op {}")])
def test_things_of_another_kind_are_refused(ask):
    with pytest.raises(BadInput, match=r"not from str|size cannot be|takes the text"):
        ask()
