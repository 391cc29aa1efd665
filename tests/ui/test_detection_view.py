"""The browser of pictures that changed: filters, steps, and what it says without a kernel."""

import base64
import html
import io

import detections as toys
import pytest
from PIL import Image

import kit.ui
from kit import VerifyOptions
from kit.errors import BadInput
from kit.families.detection_comparison import compare

JUDGED = VerifyOptions(judge_by_task=("int8",))


@pytest.fixture
def folder(tmp_path):
    return toys.plates(tmp_path / "plates")


@pytest.fixture
def view(folder):
    return kit.ui.detections(compare({"TensorFlow": toys.right, "int8": toys.worse}, toys.samples(folder), toys.task(),
                                     JUDGED))


def listed(view):
    return [words.partition(":")[0] for words, _ in view.picture_list.options]


def test_it_begins_with_the_picture_that_changed_most(view):
    assert listed(view) == ["plate_05.png", "plate_00.png", "plate_08.png"]
    assert "plate_05.png" in view.chart.chart.alt
    assert "1 of 3, most changed first" in view._status.value
    assert "<li>lost: pit 0.80 at (70, 75) to (94, 99)</li>" in view._told.value


@pytest.mark.parametrize(("fate", "names"), [
    ("lost", ["plate_05.png"]), ("new", ["plate_00.png"]), ("moved", ["plate_08.png"])])
def test_filters_leave_the_pictures_that_have_it(view, fate, names):
    view.show.value = fate
    assert listed(view) == names
    assert names[0] in view.chart.chart.alt
    assert [change.name for change in view.get()] == names


def test_a_class_and_a_fate_must_both_fit(view):
    view.filter("moved", "pit")
    assert listed(view) == []
    assert view.chart.chart is None
    assert "No picture fits" in view._status.value
    assert view.previous.disabled
    assert view.next.disabled
    view.filter("any change", "scratch")
    assert listed(view) == ["plate_08.png"]
    view.filter("all pictures")
    assert len(listed(view)) == 12
    assert view.of_class.disabled


def test_steps_go_to_the_ends_and_the_call_follows(view):
    assert view.previous.disabled
    view.next.click()
    view.next.click()
    assert view.next.disabled
    assert "plate_08.png" in view.chart.chart.alt
    view.truth.value = True
    assert "kit.charts.changed_picture(comparison, 2, truth=True)" in html.unescape(view._call.value)
    assert kit.charts.changed_picture(view.comparison, 2, truth=True).alt == view.chart.chart.alt
    view.previous.click()
    assert "plate_00.png" in view.chart.chart.alt


def test_the_picture_in_view_stays_when_the_filter_still_has_it(view):
    view.next.click()
    view.show.value = "new"
    view.show.value = "any change"
    assert "plate_00.png" in view.chart.chart.alt


def test_of_three_stages_any_two_can_be_chosen(folder):
    stages = {"TensorFlow": toys.right, "int8": toys.worse, "blind": toys.blind}
    view = kit.ui.detections(compare(stages, toys.samples(folder), toys.task(), JUDGED))
    assert len(listed(view)) == 12
    view.after.value = "int8"
    assert listed(view) == ["plate_05.png", "plate_00.png", "plate_08.png"]
    assert "stage='int8', against='TensorFlow'" in html.unescape(view._call.value)
    view.before.value = "blind"
    assert "boxes of blind solid and of int8 dashed" in view.chart.chart.alt


def test_without_a_kernel_there_is_a_picture_with_alt_text(view):
    data, metadata = view._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == view.chart.chart.size()
    assert "plate_05.png" in metadata["image/png"]["alt"]
    assert data["text/plain"].startswith("Panel 'Pictures that changed': needs a running kernel")


def test_a_picture_that_has_gone_is_told_in_its_place(view, folder):
    (folder / "images" / "plate_00.png").unlink()
    view.next.click()
    assert "plate_00.png is missing" in view.chart._words.value
    view.next.click()
    assert view.chart.chart is not None


def test_wrong_choices_are_told(view, folder):
    with pytest.raises(BadInput, match="'gone'"):
        view.filter("gone")
    with pytest.raises(BadInput, match="'dent'"):
        view.filter("lost", "dent")
    with pytest.raises(BadInput, match="one stage only"):
        kit.ui.detections(compare({"a": toys.right}, toys.samples(folder), toys.task()))


def test_nothing_changed_is_said(folder):
    view = kit.ui.detections(compare({"a": toys.right, "b": toys.right}, toys.samples(folder), toys.task()))
    assert listed(view) == []
    assert view.get() == ()
    assert "0 lost" in view.picture().alt
