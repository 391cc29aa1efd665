"""Foreign AIPP files: each wrong form is recognised, told with its reason, and corrected to a text without mistakes."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prototxt_judges import protobuf_takes

from kit.ascend.preprocessing.aipp_arithmetic import run
from kit.ascend.preprocessing.aipp_reading import read_aipp
from kit.errors import BadInput
from kit.targets.ascend import facts

GOOD = """# the usual ImageNet block
aipp_op {
    aipp_mode : static
    related_input_rank : 0
    input_format : RGB888_U8   # three bytes
    src_image_size_w : 224
    src_image_size_h : 224
    min_chn_0 : 123.675
    min_chn_1 : 116.28
    min_chn_2 : 103.53
    var_reci_chn_0 : 0.0171247538316637
    var_reci_chn_1 : 0.0175070028011204
    var_reci_chn_2 : 0.0174291938997821
}
"""

STD = (0.229, 0.224, 0.225)


def block(*lines, mode="static", kind="RGB888_U8"):
    return "aipp_op {\n aipp_mode: " + mode + "\n input_format: " + kind + "\n " + "\n ".join(lines) + "\n}\n"


def three(name, *values):
    return [f"{name}_{at}: {value}" for at, value in enumerate(values)]


def read(text, **more):
    found = read_aipp(text, **more)
    again = read_aipp(found.corrected, **more)
    assert again, f"the corrected text is not clean:\n{again}"
    protobuf_takes(found.corrected)
    if found:
        protobuf_takes(text)
    return found


def now(found, key, at=0):
    """What a key says in the corrected text."""
    assert found.blocks[at].get(key) is not None, found.corrected
    return found.blocks[at][key]


def why(found, key):
    return " / ".join(one.why for one in found.mistakes if one.key == key)


def test_a_sound_text_is_left_as_it_is():
    found = read(GOOD)
    assert found
    assert not found.mistakes
    assert found.blocks[0]["min_chn_1"] == 116.28
    assert "nothing wrong" in found.title()
    assert "RGB888_U8, 224 x 224" in str(found)


@pytest.mark.parametrize("text", [
    "aipp_op{aipp_mode:static input_format:YUV420SP_U8 csc_switch:true}",
    "aipp_op: {aipp_mode: static; input_format: YUV400_U8; mean_chn_0: 128, var_reci_chn_0: 0.00390625}",
    "aipp_op < aipp_mode: dynamic related_input_rank: 1 max_src_image_size: 752640 >",
    "aipp_op { aipp_mode: static input_format: RGB888_U8 crop: True padding: 0 input_edge_idx: 0 input_edge_idx: 1 "
    "src_image_size_w: 300 src_image_size_h: 300 crop_size_w: 224 crop_size_h: 224 }",
    GOOD.replace("rank : 0", "rank : 1") + GOOD,
])
def test_everything_that_protobuf_takes_is_sound(text):
    assert read(text), str(read_aipp(text))


def test_one_over_std_as_a_subtrahend():
    found = read(block(*three("mean_chn", 124, 116, 104), *three("min_chn", 4.367, 4.464, 4.444)))
    assert now(found, "var_reci_chn_0") == pytest.approx(4.367 / 255)
    assert "min_chn_0" not in found.blocks[0]
    assert "min_chn is taken off; 1/std is a factor" in why(found, "min_chn_0")
    assert all(one.sure for one in found.mistakes), "these are ImageNet's"
    assert not all(one.sure for one in read(block(*three("min_chn", 3, 4, 5))).mistakes)


def test_one_over_255_as_a_subtrahend():
    found = read(block(*three("min_chn", *["0.003921569"] * 3)))
    assert now(found, "var_reci_chn_2") == pytest.approx(1 / 255, rel=1e-4)


def test_a_factor_without_255():
    found = read(block(*three("min_chn", 123.675, 116.28, 103.53), *three("var_reci_chn", 4.367, 4.464, 4.444)))
    assert now(found, "var_reci_chn_1") == pytest.approx(1 / (255 * 0.224), rel=1e-3)
    assert "1 / (255 * std)" in why(found, "var_reci_chn_1")


def test_a_mean_with_a_fraction():
    found = read(block(*three("mean_chn", 123.675, 116.28, "103.53"), *three("var_reci_chn", 0.0171, 0.0175, 0.0174)))
    assert (now(found, "mean_chn_2"), now(found, "min_chn_2")) == (103, pytest.approx(0.53))
    assert "integer" in why(found, "mean_chn_0")


def test_a_whole_mean_written_as_a_fraction():
    found = read(block(*three("mean_chn", "128.0", 128, 128)))
    assert now(found, "mean_chn_0") == 128
    assert "it is an integer" in why(found, "mean_chn_0")


@pytest.mark.parametrize("key", ["mean_chn", "min_chn"])
def test_means_of_0_to_1(key):
    found = read(block(*three(key, 0.485, 0.456, 0.406), *three("var_reci_chn", 0.0171, 0.0175, 0.0174)))
    assert [now(found, f"mean_chn_{at}") for at in range(3)] == [123, 116, 103]
    assert now(found, "min_chn_0") == pytest.approx(0.675)
    assert "AIPP works on bytes" in why(found, f"{key}_0")


def test_a_mean_that_is_taken_off_twice():
    found = read(block(*three("mean_chn", 123, 116, 103), *three("min_chn", 123.675, 116.28, 103.53),
                       *three("var_reci_chn", 0.0171, 0.0175, 0.0174)))
    assert (now(found, "mean_chn_0"), now(found, "min_chn_0")) == (123, pytest.approx(0.675))
    assert "both are taken off" in why(found, "min_chn_0")


@pytest.mark.parametrize("scale", [1, 255])
def test_a_standard_deviation_where_its_inverse_belongs(scale):
    found = read(block(*three("mean_chn", 123, 116, 103), *three("var_reci_chn", *(scale * one for one in STD))))
    assert [now(found, f"var_reci_chn_{at}") for at in range(3)] == pytest.approx([1 / (255 * one) for one in STD])
    assert "std divides" in why(found, "var_reci_chn_0")
    assert all(one.sure for one in found.mistakes)
    other = read(block(*three("var_reci_chn", *[0.37 * scale] * 3)))
    assert now(other, "var_reci_chn_0") == pytest.approx(1 / (255 * 0.37))
    assert not other.mistakes[0].sure
    assert not read(block(*three("var_reci_chn", 1, 1, 1))).mistakes


def test_a_factor_for_one_channel_only():
    found = read(block("var_reci_chn_0: 0.0171"))
    assert now(found, "var_reci_chn_2") == 0.0171
    assert not next(one for one in found.mistakes if one.key == "var_reci_chn_2").sure


def test_the_first_channels_key_three_times():
    found = read(block("var_reci_chn_0: 0.003", "var_reci_chn_0: 0.004", "var_reci_chn_0: 0.005"))
    assert [now(found, f"var_reci_chn_{at}") for at in range(3)] == [0.003, 0.004, 0.005]
    assert "each channel has its own number" in why(found, "var_reci_chn_0")


@pytest.mark.parametrize(("kind", "right", "swap"), [
    ("BGR888_U8", "RGB888_U8", True), ("BGR", "RGB888_U8", True), ("NV12", "YUV420SP_U8", None),
    ("NV21", "YUV420SP_U8", True), ("YUV420SP", "YUV420SP_U8", None), ("RGB888", "RGB888_U8", None),
    ("rgb888_u8", "RGB888_U8", None), ("GRAY", "YUV400_U8", None), ("RGB888_U9", "RGB888_U8", None)])
def test_formats_that_do_not_exist(kind, right, swap):
    found = read(block(kind=kind))
    assert now(found, "input_format") == right
    assert found.blocks[0].get("rbuv_swap_switch") == swap
    assert found.mistakes


def test_a_format_that_current_chips_do_not_take():
    found = read(block(kind="YUV422SP_U8"))
    assert "current chips do not" in why(found, "input_format")
    assert not found.mistakes[0].sure


def test_resizing_and_rotation_are_taken_out():
    found = read(block("resize: true", "resize_output_w: 640", "resize_output_h: 640", "rotation_angle: 0"))
    assert "AIPP does not resize" in why(found, "resize")
    assert "no such field" in why(found, "rotation_angle")
    assert set(found.blocks[0]) == {"aipp_mode", "input_format"}
    assert read(block("resize: false", "resize_output_w: 0"))


def test_keys_that_do_not_exist_get_the_closest():
    found = read(block("src_image_width: 224", "SRC_IMAGE_SIZE_H: 224", "right_pading_size: 0", "swap_rb: true"))
    assert now(found, "src_image_size_h") == 224
    assert "right_padding_size" in found.blocks[0]
    assert "there is no key of this name" in why(found, "swap_rb")
    assert next(one for one in found.mistakes if one.key == "SRC_IMAGE_SIZE_H").sure
    assert not next(one for one in found.mistakes if one.key == "right_pading_size").sure


def test_json_is_turned_into_protobuf_text():
    text = json.dumps({"aipp_op": {"aipp_mode": "static", "input_format": "RGB888_U8", "crop": False,
                                   "mean_chn_0": 104, "related_input_rank": 0}}, indent=2)
    found = read(text)
    assert "it is JSON" in found.mistakes[0].why
    assert now(found, "mean_chn_0") == 104
    assert re.search(r"^\s+crop : false$", found.corrected, re.MULTILINE)
    half = read(text[:-1])
    assert any("begins like JSON" in one.why for one in half.mistakes)
    assert now(half, "mean_chn_0") == 104


@pytest.mark.parametrize(("text", "words"), [
    ("aipp_op:\n  aipp_mode: static\n  input_format: RGB888_U8\n", "a block stands in braces"),
    ("- aipp_op:\n  aipp_mode: static\n  input_format: RGB888_U8\n", "a dash is YAML"),
    ("aipp_mode: static\ninput_format: RGB888_U8\n", "outside a block"),
    ("aipp_op {\naipp_mode = static\ninput_format = RGB888_U8\n}", "joined by a colon"),
    ("aipp_op {\naipp_mode：static\ninput_format: RGB888_U8\n}", "full-width colon"),
    ("aipp_op {\naipp_mode: static\ninput_format: RGB888_U8\n", "not closed"),
    ("aipp_op {\naipp_mode: static\ninput_format: RGB888_U8\n// no\n}", "begins with #"),
    ("aipp_op {\naipp_mode: static\n说明：请根据实际图片\ninput_format: RGB888_U8\n}", "not protobuf text"),
    ("aipp_op {\naipp_mode: static\ninput_format: \"RGB888_U8\"\n}", "quotes"),
    ("aipp_op {\naipp_mode: static\ninput_format: RGB888_U8\ncrop:\npadding: false\n}", "key without a value"),
    ("Aipp {\naipp_mode: static\ninput_format: RGB888_U8\n}", "called aipp_op"),
])
def test_forms_that_the_parser_does_not_take(text, words):
    found = read(text)
    assert any(words in one.why for one in found.mistakes), str(found)
    assert found.blocks[0] | {"padding": False} == {"aipp_mode": "static", "input_format": "RGB888_U8",
                                                    "padding": False}


def test_a_number_that_is_to_be_worked_out():
    found = read(block(*three("var_reci_chn", *["1/255"] * 3)))
    assert now(found, "var_reci_chn_0") == pytest.approx(1 / 255)


@pytest.mark.parametrize(("line", "key", "value"), [
    ("right_padding_size: 40", "right_padding_size", 32), ("src_image_size_w: 5000", "src_image_size_w", 4096),
    ("mean_chn_0: 300", "mean_chn_0", 255), ("min_chn_0: -1", "min_chn_0", 0), ("crop: maybe", "crop", False),
    ("var_reci_chn_0: 1e6", "var_reci_chn_0", 65504)])
def test_values_out_of_range_are_told_and_left_to_decide(line, key, value):
    found = read(block(line))
    one = next(one for one in found.mistakes if one.key == key)
    assert one.now == str(value).lower()
    assert not one.sure


def test_what_must_be_there_is_added():
    found = read("aipp_op { mean_chn_0: 104 }")
    assert (now(found, "aipp_mode"), now(found, "input_format")) == ("static", "RGB888_U8")
    dynamic = read("aipp_op { aipp_mode: dynamic input_format: RGB888_U8 }")
    assert now(dynamic, "max_src_image_size") == 1920 * 1080 * 3
    assert "input_format" not in dynamic.blocks[0]


def test_names_of_inputs_count_for_caffe_only():
    found = read(block('related_input_name: "data"'))
    assert "Caffe" in why(found, "related_input_name")


def test_two_blocks_for_one_input():
    found = read(GOOD + GOOD)
    assert [one.get("related_input_rank", 0) for one in found.blocks] == [0, 1]
    assert "each input has one" in why(found, "related_input_rank")


def test_the_card_says_what_to_decide():
    said = str(read(block("src_image_size_w: 5000")))
    assert "1 correction to decide yourself" in said
    assert "4096 (decide)" in said
    assert "aipp_op {" in said


@pytest.mark.parametrize(("lines", "kind", "size", "key", "value"), [
    (["src_image_size_w: 224", "src_image_size_h: 224"], "RGB888_U8", (256, 256), "src_image_size_w", 256),
    (["crop: true", "crop_size_w: 200", "crop_size_h: 200"], "RGB888_U8", None, "src_image_size_w", 200),
    (["crop: true", "load_start_pos_w: 60", "crop_size_w: 200", "crop_size_h: 200", "src_image_size_w: 224",
      "src_image_size_h: 224"], "RGB888_U8", None, "src_image_size_w", 260),
    (["padding: true", "right_padding_size: 8"], "RGB888_U8", (48, 320), "src_image_size_w", 312),
    (["right_padding_size: 8", "src_image_size_w: 312", "src_image_size_h: 48"], "RGB888_U8", (48, 320), "padding",
     True),
    (["src_image_size_w: 225", "src_image_size_h: 224"], "YUV420SP_U8", None, "src_image_size_w", 224),
    (["crop: true", "load_start_pos_w: 3", "crop_size_w: 100", "crop_size_h: 100", "src_image_size_w: 224",
      "src_image_size_h: 224"], "YUV420SP_U8", None, "load_start_pos_w", 2),
    (["csc_switch: true"], "YUV400_U8", None, "csc_switch", False),
    (["csc_switch: true"], "RGB888_U8", None, "csc_switch", False),
    (["padding: true", "right_padding_size: 8", "src_image_size_w: 1200", "src_image_size_h: 48"], "RGB888_U8", None,
     "padding", False),
])
def test_sizes_that_do_not_fit_each_other(lines, kind, size, key, value):
    found = read(block(*lines, kind=kind), size=size)
    assert found.mistakes
    assert now(found, key) == value


def test_odd_starts_are_fine_on_newer_chips():
    text = block("crop: true", "load_start_pos_w: 3", "crop_size_w: 100", "crop_size_h: 100", "src_image_size_w: 224",
                 "src_image_size_h: 224", kind="YUV420SP_U8")
    assert not read(text)
    assert read(text, soc_version="Ascend910B3")
    with pytest.raises(BadInput, match="no Ascend chip"):
        read_aipp(text, soc_version="Ascend999")


@pytest.mark.parametrize("text", ["", "hello", "aipp_op { }", "{}"])
def test_a_text_without_any_aipp_is_refused(text):
    with pytest.raises(BadInput, match="holds no AIPP configuration"):
        read_aipp(text)


def test_a_foreign_text_can_be_simulated():
    found = read_aipp(GOOD)
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    got = run(found.settings(), picture)
    assert np.abs(got[0, 1] - (picture[:, :, 1] - 116.28) * 0.0175070).max() < 5e-3
    with pytest.raises(BadInput, match="number 3"):
        found.settings(3)
    with pytest.raises(BadInput, match="dynamic"):
        read_aipp("aipp_op { aipp_mode: dynamic max_src_image_size: 100 }").settings()


def test_colour_matrices_left_out_take_the_parsers_own():
    yuv = read_aipp(block("csc_switch: true", kind="YUV420SP_U8")).settings()
    assert yuv.matrix == (298, 516, 0, 298, -100, -208, 298, 0, 409), "to BGR, which the documents print"
    assert yuv.input_bias == (16, 128, 128)


keys = st.sampled_from([*facts("aipp")["keys"], "Rotation_Angle", "swap", "mean", "crop_width", "resize_output"])
messy_values = st.one_of(
    st.integers(-300, 6000).map(str), st.floats(-70000, 70000, width=32).map(lambda v: f"{v:.4g}"),
    st.sampled_from(["true", "false", "TRUE", "static", "dynamic", "NV12", "RGB888_U8", "YUV420SP_U8", "YUV400_U8",
                     "1/255", "0.485", "4.367", '"x"', "0", "128"]))
pairs = st.lists(st.tuples(keys, messy_values), min_size=1, max_size=14)


@settings(max_examples=250)
@given(st.lists(pairs, min_size=1, max_size=2), st.sampled_from([" : ", ":", " = "]), st.booleans(),
       st.sampled_from([None, (48, 320), (33, 7), (1, 2)]))
def test_whatever_comes_in_what_comes_out_is_clean(blocks, joint, braces, size):
    text = ""
    for one in blocks:
        lines = "\n".join(f"  {key}{joint}{value}" for key, value in one)
        text += f"aipp_op {{\n{lines}\n}}\n" if braces else f"aipp_op:\n{lines}\n"
    found = read_aipp(text, size=size)
    again = read_aipp(found.corrected, size=size)
    assert again, f"{text}\n{found}\n{again}"
    assert again.corrected == found.corrected
    protobuf_takes(found.corrected)


@settings(max_examples=200)
@given(st.text(alphabet="aip_op{}:,;#\"' \n0123456789.-truefalsmn[]<>/=", max_size=80))
def test_rubbish_is_refused_or_corrected_but_never_crashes(text):
    try:
        found = read_aipp("aipp_mode: static " + text)
    except BadInput:
        return
    assert read_aipp(found.corrected)
