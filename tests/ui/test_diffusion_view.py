"""The browser of diffusion pictures: filters, steps, the line that wipes, and what it says without a kernel."""

import base64
import html
import io
import re

import numpy as np
import pytest
import sd_pictures as toys
from PIL import Image

import kit.ui
from kit.charts.style import pixels_of
from kit.errors import BadInput
from kit.ui.diffusion_view import ALARMED, DRAWN, FARTHEST, OTHERWISE, WRONG


@pytest.fixture
def view(tmp_path):
    return kit.ui.pictures(toys.comparison(tmp_path))


def pixels(part):
    return pixels_of(re.search(r'src="([^"]+)"', part.value)[1]) / 255


def test_it_begins_with_the_picture_farthest_from_the_reference(view):
    assert view.get() == (3, 1, 2, 4, 0)
    assert "1 of 5, farthest first" in view._status.value
    for part, name in ((view._over, "PyTorch"), (view._lower, "INT8")):
        np.testing.assert_allclose(pixels(part), view.comparison.drawn[name].pictures[3], atol=0.5 / 255 + 1e-6)
        assert f'alt="bright road, drawn by {name}"' in part.value
    assert "PSNR 10.5 dB" in view._told.value
    assert "INT8: judged wrong, it reads [0]" in view._told.value
    assert "PyTorch: judged right, it reads [1]" in view._told.value
    assert "difference, times 2" in view._difference.value


@pytest.mark.parametrize(("show", "numbers"), [
    (FARTHEST, (3, 1, 2, 4, 0)), (DRAWN, (0, 1, 2, 3, 4)), (WRONG, (3,)), (OTHERWISE, (3,)), (ALARMED, ())])
def test_filters_leave_the_pictures_that_fit(view, show, numbers):
    view.filter(show)
    assert view.get() == numbers


def test_nothing_fits_is_said_and_the_pair_goes(view):
    view.filter(ALARMED)
    assert "No picture fits" in view._status.value
    assert view._pair.layout.display == "none"
    assert view.previous.disabled
    assert view.next.disabled
    assert view.wipe.disabled
    assert "bright road" in view.picture().alt, "the one that differs most stands for the panel"
    view.filter(DRAWN)
    assert view._pair.layout.display == ""
    assert "1 of 5, as drawn" in view._status.value
    assert "Picture 0: dark left" in view._told.value


def test_steps_go_to_the_ends_and_the_call_follows(view):
    assert view.previous.disabled
    for _ in range(6):
        view.next.click()
    assert view.next.disabled
    assert view.picture_list.value == 0
    assert "no difference" in view._difference.value
    assert "kit.charts.picture_pair(comparison, 'INT8', 0)" in html.unescape(view._call.value)
    assert kit.charts.picture_pair(view.comparison, "INT8", 0).alt == view.picture().alt
    view.previous.click()
    assert "Picture 4: dark &amp; small" in view._told.value


def test_the_line_cuts_the_upper_picture(view):
    assert view._upper.layout.width == "50%"
    view.wipe.value = 12
    assert view._upper.layout.width == "12%"
    view.next.click()
    assert view._upper.layout.width == "12%", "another picture leaves the line where it is"
    assert view._stack.layout.width == "360px"
    assert all("width:360px;height:360px" in part.value for part in (view._lower, view._over))


def test_the_picture_in_view_stays_when_pipeline_and_filter_still_have_it(tmp_path):
    view = kit.ui.pictures(toys.comparison(tmp_path, toys.int8(), toys.broken()))
    assert view.pipeline in view.box.children
    assert view.get()[0] == 2
    view.filter(ALARMED)
    assert view.get() == (2,)
    view.pipeline.value = "INT8"
    assert view.get() == ()
    view.pipeline.value = "FP16"
    view.filter(FARTHEST)
    view.go(4)
    view.pipeline.value = "INT8"
    assert view.picture_list.value == 4
    assert "drawn by INT8" in view._lower.value


def test_alarms_are_shown_as_words(tmp_path):
    view = kit.ui.pictures(toys.comparison(tmp_path, toys.broken()))
    assert "Alarm, FP16:</b> picture 2 (&#x27;dark right&#x27;) is NaN; it began in unet, step 4" in view._told.value
    assert "its &lt;answer&gt; is NaN" in view._told.value
    assert "orange: no number" in view._difference.value
    assert (pixels(view._lower) == 0).all()


def test_without_a_judge_there_is_no_filter_by_it():
    view = kit.ui.pictures(toys.comparison())
    assert view.show.options == (FARTHEST, DRAWN, ALARMED)
    assert "judged" not in view._told.value
    with pytest.raises(BadInput, match="'judged wrong'"):
        view.filter(WRONG)


def test_a_picture_can_be_brought_into_view_from_code(view):
    view.filter(WRONG)
    view.go(2)
    assert (view.show.value, view.picture_list.value) == (FARTHEST, 2)
    with pytest.raises(BadInput, match="no picture -1"):
        view.go(-1)


def test_prompts_are_no_html(view):
    view.go(1)
    assert "bright &lt;b&gt;sky&lt;/b&gt;" in view._told.value
    assert 'alt="bright &lt;b&gt;sky' in view._over.value


def test_pictures_that_are_not_square_keep_their_shape():
    wide = [toys.drawn(name, (0.2, 0.8)) for name in ("a", "b")]
    for each in wide:
        object.__setattr__(each, "pictures", np.tile(each.pictures, (1, 1, 3, 1)))
    view = kit.ui.pictures(toys.compare_pictures(wide[0], {"b": wide[1]}))
    assert (view._stack.layout.width, view._stack.layout.height) == ("360px", "120px")


def test_without_a_kernel_there_is_a_picture_with_alt_text(view):
    data, metadata = view._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == view.picture().size()
    assert "Picture 3, 'bright road'" in metadata["image/png"]["alt"]
    assert data["text/plain"].startswith("Panel 'Pictures side by side': needs a running kernel")


def test_one_pipeline_alone_is_refused():
    with pytest.raises(BadInput, match="one pipeline only"):
        kit.ui.pictures(toys.compare_pictures(toys.reference(), {}))
