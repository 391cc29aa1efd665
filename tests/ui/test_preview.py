"""The preview shows what lies on disk beside what the model sees."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kit.samples import Preprocess, Samples
from kit.ui import preview


@pytest.fixture
def samples(tmp_path):
    for name, value in (("a", 40), ("b", 200)):
        Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    return Samples.from_folder(tmp_path, Preprocess(size=(16, 32)))


def test_it_names_both_sizes_and_what_was_done(samples):
    assert preview(samples).chart.alt == (
        "Sample 0 of 2, a.png: on disk 60 x 40 pixels; the model sees 32 x 16 pixels (stretch, BGR).")


def test_the_slider_changes_the_pictures(samples):
    shown = preview(samples)
    before = shown._view.value
    shown.slider.value = 1
    assert "b.png" in shown._view.value
    assert shown._view.value != before
    assert 'alt="b.png, what the model sees"' in shown._view.value


def test_a_reader_without_a_kernel_gets_a_picture_with_alt_text(samples):
    data, metadata = preview(samples, at=1)._repr_mimebundle_()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("L"))
    assert (np.abs(picture.astype(int) - 200) < 6).mean() > 0.1
    assert metadata["image/png"]["alt"] == data["text/plain"]


def test_a_picture_that_cannot_be_read_is_told_in_place(samples, tmp_path):
    shown = preview(samples)
    (tmp_path / "b.png").write_bytes(b"broken")
    shown.slider.value = 1
    assert 'role="alert"' in shown._view.value
    assert "b.png cannot be read" in shown._view.value
