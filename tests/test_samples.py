from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.collecting.measuring import identify
from kit.errors import BadInput
from kit.samples import Preprocess, Sample, Samples


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "pictures"
    home.mkdir()
    random = np.random.default_rng(1)
    for at in range(3):
        cv2.imwrite(str(home / f"p{at}.png"), random.integers(0, 256, (40, 60, 3), np.uint8))
    return home


def test_a_folder_becomes_feeds(folder):
    samples = Samples.from_folder(folder, Preprocess(size=(32, 48)), input="image")
    feeds = list(samples)
    assert [list(feed) for feed in feeds] == [["image"]] * 3
    assert feeds[0]["image"].shape == (1, 3, 32, 48)
    assert feeds[0]["image"].dtype == np.float32


def test_a_broken_picture_is_named_or_left_out_on_request(folder):
    (folder / "p1.png").write_bytes(b"nonsense")
    with pytest.raises(BadInput, match=r"1 of 3 pictures.*p1\.png") as caught:
        Samples.from_folder(folder, Preprocess())
    assert "broken='skip'" in caught.value.remedy
    left = Samples.from_folder(folder, Preprocess(), broken="skip")
    assert (len(left), left.skipped) == (2, ("p1.png",))


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(BadInput, match="holds no pictures"):
        Samples.from_folder(tmp_path, Preprocess())
    with pytest.raises(BadInput, match="is not a folder"):
        Samples.from_folder(tmp_path / "none", Preprocess())


def test_normalising_is_value_times_scale_minus_mean_over_std():
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[..., 0] = 255  # blue, as OpenCV orders it
    tensor = Preprocess(resize="none", mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))(picture)
    assert tensor[0, :, 0, 0].tolist() == [1.0, -0.5, 0.0]
    swapped = Preprocess(resize="none", channels="RGB", mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))(picture)
    assert swapped[0, :, 0, 0].tolist() == [-1.0, -0.5, 1.0]


@given(st.integers(8, 300), st.integers(8, 300))
def test_limit_keeps_sides_multiples_and_the_long_side_below(height, width):
    got = Preprocess(resize="limit", size=(128, 128), multiple=32).target_size(height, width)
    assert all(side % 32 == 0 and 32 <= side <= 128 for side in got)


@given(st.integers(1, 200), st.integers(1, 900))
def test_height_keeps_the_ratio_and_pads_to_the_width(height, width):
    pre = Preprocess(resize="height", size=(48, 320))
    rows, columns = pre.target_size(height, width)
    assert rows == 48
    assert columns - 1 < 48 * width / height <= columns or columns == 1


def test_padding_is_zero_after_normalising():
    pre = Preprocess(resize="height", size=(8, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    tensor = pre(np.full((8, 8, 3), 255, np.uint8))
    assert tensor.shape == (1, 3, 8, 64)
    assert (tensor[..., :8] == 1).all()
    assert (tensor[..., 8:] == 0).all()


@given(st.sampled_from(["NCHW", "NHWC"]), st.sampled_from(["BGR", "RGB"]))
def test_the_preview_is_what_went_in(layout, channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    pre = Preprocess(resize="none", layout=layout, channels=channels)
    assert (pre.picture(pre(picture)) == picture[:, :, ::-1]).all()


def test_grey_or_float_pictures_are_refused():
    with pytest.raises(BadInput, match=r"uint8 \[height, width, 3\]"):
        Preprocess()(np.zeros((4, 4), np.uint8))


def test_the_digest_follows_pictures_order_and_preprocessing(folder):
    base = Samples.from_folder(folder, Preprocess())
    smaller = Samples.from_folder(folder, Preprocess(size=(32, 32)))
    others = [smaller, base[1:], Samples(base.items[::-1], base.preprocess)]
    assert len({s.digest() for s in [base, *others]}) == 4
    before = base.digest()
    cv2.imwrite(str(folder / "p0.png"), np.zeros((40, 60, 3), np.uint8))
    assert base.digest() != before


def test_a_quad_cuts_a_piece_out(folder):
    piece = Sample(folder / "p0.png", ((10, 5), (40, 5), (40, 25), (10, 25))).load()
    assert piece.shape == (20, 30, 3)


def test_a_second_input_is_told_how_much_the_picture_was_resized(folder):
    plain = Samples.from_folder(folder, Preprocess(size=(20, 90)), input="image")
    told = replace(plain, scale_factor="scale_factor")
    feed = told[1]
    assert list(feed) == ["image", "scale_factor"]
    assert feed["scale_factor"].dtype == np.float32
    assert feed["scale_factor"].tolist() == [[0.5, 1.5]]  # pictures of 40 x 60
    np.testing.assert_array_equal(feed["image"], plain[1]["image"])
    assert told[:2].scale_factor == "scale_factor"
    assert "'image' and 'scale_factor'" in told.title()
    assert len({plain.digest(), told.digest(), replace(told, scale_factor="factor").digest()}) == 3
    assert identify(told).digest != identify(plain).digest
