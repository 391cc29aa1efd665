"""AIPP's arithmetic: against values worked out by hand, against the float formula, and against what rounding allows."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.ascend.preprocessing.aipp_arithmetic import Settings, colours, nv12, run, split_mean, table
from kit.errors import BadInput

BGR_601 = (298, 516, 0, 298, -100, -208, 298, 0, 409)
JPEG_RGB = (256, 0, 359, 256, -88, -183, 256, 454, 0)
means = st.floats(0, 255).map(lambda v: round(v, 4))
factors = st.floats(2**-10, 4).map(lambda v: round(v, 6))


def one_channel(mean, minimum, factor, registers="float16"):
    return Settings("YUV400_U8", mean=(mean, 0, 0), minimum=(minimum, 0, 0), factor=(factor, 1, 1), registers=registers)


def test_a_pixel_worked_out_by_hand():
    # float16: 0.675 -> 691/1024; 255 - 123 = 132; 132 - 0.6748 = 131.3252 -> 131.375 (spacing 1/8);
    # 0.01712475 -> 0.017120361328125; product 2.24918... -> 2.25 (spacing 1/512)
    assert table(one_channel(123, 0.675, 0.0171247538))[0, 255] == np.float16(2.25)
    assert np.float16(0.675) == 691 / 1024
    assert float(np.float16(0.0171247538)) == 0.017120361328125
    assert float(np.float16(132 - 691 / 1024)) == 131.375


@given(st.integers(0, 255), st.floats(0, 1), factors)
def test_each_step_is_the_correctly_rounded_float16(mean, minimum, factor):
    got = table(one_channel(mean, minimum, factor))[0]
    low, by = Fraction(float(np.float16(np.float32(minimum)))), Fraction(float(np.float16(np.float32(factor))))
    for byte in range(0, 256, 17):
        first = nearest(byte - mean - low)
        assert Fraction(float(got[byte])) == nearest(first * by)


def nearest(value):
    """The float16 nearest to a fraction, ties to the even one: by comparing, not by arithmetic in floats."""
    guess = np.float16(float(value))
    around = {float(one) for one in (guess, np.nextafter(guess, np.float16(np.inf)),
                                     np.nextafter(guess, np.float16(-np.inf)))}
    return min((Fraction(one) for one in around),
               key=lambda one: (abs(one - value), int(np.float16(float(one)).view(np.uint16)) % 2))


@given(means, factors, st.sampled_from(["float16", "float32"]), st.sampled_from(["steps", "once"]))
def test_close_to_the_float_formula_and_in_the_order_of_the_bytes(mean, factor, registers, rounding):
    whole, rest = split_mean(mean)
    got = table(one_channel(whole, rest, factor, registers), rounding)[0].astype(np.float64)
    exact = (np.arange(256) - mean) * factor
    # three roundings of 2^-11 each, and what float16 takes off the fraction of the mean
    assert np.all(np.abs(got - exact) <= 3.01 * 2**-11 * np.abs(exact) + 1.01 * factor * 2**-12 + 2**-24)
    assert np.all(np.diff(got) >= 0)


@given(means, factors)
def test_registers_of_32_bits_leave_only_the_last_rounding(mean, factor):
    whole, rest = split_mean(mean)
    exact = (np.arange(256) - mean) * factor
    got = table(one_channel(whole, rest, factor, "float32"))[0].astype(np.float64)
    half = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64) / 2
    assert np.all(np.abs(got - exact) <= half * 1.001 + factor * 1e-4)


@given(st.floats(0, 510))
def test_a_split_mean_is_kept_to_a_4096th(mean):
    whole, rest = split_mean(mean)
    assert isinstance(whole, int)
    assert 0 <= whole <= 255
    assert rest >= 0
    assert whole + rest == pytest.approx(mean)
    if mean < 256:
        assert rest < 1
        assert abs(whole + float(np.float16(rest)) - mean) <= 2**-12


@given(st.floats(0, 255.99))
def test_splitting_a_mean_never_loses_more_than_keeping_it_whole(mean):
    whole, rest = split_mean(mean)
    split = abs(whole + float(np.float16(rest)) - mean)
    assert split <= max(abs(float(np.float16(mean)) - mean), 2**-12)


@pytest.mark.parametrize("mean", [-0.1, 511])
def test_a_mean_without_a_place_is_refused(mean):
    with pytest.raises(BadInput, match="mean_chn and min_chn lie in 0"):
        split_mean(mean)


def test_swap_crop_and_padding_come_in_this_order():
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    made = run(Settings(swap=True, crop=(1, 2, 2, 3), mean=(10, 0, 0), factor=(1, 1, 0.5), padding=(1, 2, 0, 1),
                        padding_value=-7), picture)
    assert made.shape == (1, 3, 3, 6)
    assert made.dtype == np.float16
    inside = made[0, :, :2, 1:4]
    assert np.array_equal(inside[0], picture[1:3, 2:5, 2].astype(int) - 10), "the first channel is the last byte"
    assert np.array_equal(inside[2], picture[1:3, 2:5, 0] / 2)
    assert (made[0, :, 2] == -7).all(), "what is padded is not normalised"
    assert (made[0, :, :, 0] == -7).all()
    assert (made[0, :, :, 4:] == -7).all()


def test_grey_in_yuv_is_grey_in_rgb():
    settings = Settings("YUV420SP_U8", matrix=JPEG_RGB, input_bias=(0, 128, 128))
    picture = np.full((6, 4), 128, np.uint8)
    picture[:4] = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    assert np.array_equal(colours(settings, picture), np.repeat(picture[:4, :, None], 3, axis=2))


def test_colours_are_integers_rounded_down_and_cut_off():
    yuv = np.array([[255, 255], [255, 255], [200, 90]], np.uint8)  # U 200, V 90
    got = colours(Settings("YUV420SP_U8", matrix=BGR_601, input_bias=(16, 128, 128)), yuv)[0, 0]
    y, u, v = 255 - 16, 200 - 128, 90 - 128
    green = (298 * y - 100 * u - 208 * v) // 256
    assert got.tolist() == [255, min(green, 255), (298 * y + 409 * v) // 256]
    white = np.full((1, 1, 3), 255, np.uint8)
    made = colours(Settings(matrix=(66, 129, 25, -38, -74, 112, 112, -94, -18), output_bias=(16, 128, 128)), white)
    assert made[0, 0].tolist() == [(220 * 255 >> 8) + 16, (0 * 255 >> 8) + 128, 128]


def test_a_flat_colour_survives_nv12():
    picture = np.empty((4, 6, 3), np.uint8)
    picture[:] = (40, 90, 200)  # BGR
    for swapped in (False, True):
        fed = nv12(picture, swapped=swapped)
        assert fed.shape == (6, 6)
        settings = Settings("YUV420SP_U8", swap=swapped, matrix=JPEG_RGB, input_bias=(0, 128, 128))
        assert np.abs(colours(settings, fed).astype(int) - (200, 90, 40)).max() <= 3
    with pytest.raises(BadInput, match="both sides must be even"):
        nv12(np.zeros((3, 4, 3), np.uint8))


def test_four_bytes_a_pixel_lose_the_one_that_is_no_colour():
    behind = np.array([[[1, 2, 3, 9]]], np.uint8)
    front = np.array([[[9, 1, 2, 3]]], np.uint8)
    assert colours(Settings("XRGB8888_U8"), behind)[0, 0].tolist() == [1, 2, 3]
    assert colours(Settings("XRGB8888_U8", ax_swap=True), front)[0, 0].tolist() == [1, 2, 3]
    assert colours(Settings("XRGB8888_U8", ax_swap=True, swap=True), front)[0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize(("kind", "picture", "words"), [
    ("RGB888_U8", np.zeros((4, 4, 4), np.uint8), r"uint8 \[h, w, 3\]"),
    ("RGB888_U8", np.zeros((4, 4, 3), np.float32), "float32"),
    ("RGB888_U8", "picture.png", "str"),
    ("YUV400_U8", np.zeros((4, 4, 1), np.uint8), r"uint8 \[h, w\]"),
    ("YUV420SP_U8", np.zeros((4, 4), np.uint8), r"h \* 3 / 2"),
    ("YUV422SP_U8", np.zeros((4, 4), np.uint8), "cannot be simulated"),
])
def test_a_picture_of_another_form_is_refused(kind, picture, words):
    with pytest.raises(BadInput, match=words):
        run(Settings(kind), picture)


def test_a_crop_beyond_the_picture_is_refused():
    with pytest.raises(BadInput, match=r"cuts 4 x 4 pixels at \(2, 0\); the picture has 5 x 4"):
        run(Settings(crop=(0, 2, 4, 4)), np.zeros((4, 5, 3), np.uint8))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_table_is_all_there_is_to_a_picture(seed):
    random = np.random.default_rng(seed)
    made = Settings(mean=(104, 117, 123), minimum=(0.25, 0.5, 0.75), factor=(0.0171, 0.0175, 0.0174))
    picture = random.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    looked_up = table(made)
    got = run(made, picture)
    for channel in range(3):
        assert np.array_equal(got[0, channel], looked_up[channel][picture[:, :, channel]])
