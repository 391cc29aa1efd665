"""Facts about reading text: what comes before the networks, what comes after, and how it is measured."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.families import ocr, ocr_metrics

cv2 = pytest.importorskip("cv2")
pytest.importorskip("pyclipper")
pytest.importorskip("shapely")
pytest.importorskip("rapidfuzz")

CHARACTERS = ["", *"abcde壹贰", " "]


def rectangle(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


def one_hot(path: list[int], classes: int = len(CHARACTERS), sure: float = 0.9) -> np.ndarray:
    probabilities = np.full((len(path), classes), (1 - sure) / (classes - 1), np.float32)
    probabilities[np.arange(len(path)), path] = sure
    return probabilities


# ------------------------------------------------------------------------------------------------ decoding


def test_repeats_collapse_and_a_blank_keeps_doubles_apart():
    text, score = ocr.decode_ctc(one_hot([0, 1, 1, 0, 1, 2, 2, 0]), CHARACTERS)
    assert text == "aab"
    assert score == pytest.approx(0.9, abs=1e-6)


def test_nothing_but_blanks_is_an_empty_text_without_confidence():
    assert ocr.decode_ctc(one_hot([0, 0, 0]), CHARACTERS) == ("", 0.0)


def test_a_list_of_another_model_is_refused_and_both_counts_are_named():
    with pytest.raises(BadInput, match=r"9 classes.*8"):
        ocr.decode_ctc(one_hot([1, 2]), CHARACTERS[:-1])


@given(st.text(alphabet="abcde壹贰 ", max_size=20), st.integers(1, 3), st.integers(0, 2))
def test_any_text_survives_its_own_alignment(text, repeats, blanks):
    path: list[int] = []
    for character in text:
        index = CHARACTERS.index(character)
        if path and path[-1] == index:
            path.append(0)
        path += [index] * repeats + [0] * blanks
    assert ocr.decode_ctc(one_hot([*path, 0]), CHARACTERS)[0] == text


@given(st.lists(st.integers(0, len(CHARACTERS) - 1), min_size=1, max_size=40))
def test_decoding_equals_the_definition_step_by_step(path):
    expected, before = "", 0
    for index in path:
        if index not in (0, before):
            expected += CHARACTERS[index]
        before = index
    assert ocr.decode_ctc(one_hot(path), CHARACTERS)[0] == expected


# ------------------------------------------------------------------------------------------------ boxes


def test_a_shrunken_bar_grows_back_by_area_times_unclip_over_perimeter():
    probabilities = np.zeros((96, 192), np.float32)
    probabilities[40:50, 30:110] = 0.95  # corners of its rectangle: (30, 40) to (109, 49), 79 x 9 px
    (box,) = ocr.boxes_from_map(probabilities, unclip=1.5)
    grown = 79 * 9 * 1.5 / (2 * (79 + 9))
    expected = np.array([[30 - grown, 40 - grown], [109 + grown, 40 - grown], [109 + grown, 49 + grown]])
    # whole pixels: the offset library and the box itself are rounded
    np.testing.assert_allclose(box.quad[:3], expected, atol=1.1)
    assert box.score == pytest.approx(0.95, abs=1e-3)


def test_boxes_come_in_pixels_of_the_picture_and_stay_inside_it():
    probabilities = np.zeros((64, 64), np.float32)
    probabilities[20:30, 0:64] = 1
    (box,) = ocr.boxes_from_map(probabilities, scale=(2.0, 3.0))
    assert box.quad[:, 0].min() == 0
    assert box.quad[:, 0].max() == 127
    assert 3 * 10 < box.quad[2, 1] - box.quad[0, 1] < 3 * 30


def test_faint_regions_and_specks_are_left_out():
    probabilities = np.zeros((64, 128), np.float32)
    probabilities[10:20, 10:60] = 0.45  # above the pixel threshold, below the box threshold
    probabilities[40:42, 40:42] = 1.0
    assert ocr.boxes_from_map(probabilities) == []


def test_a_tilted_bar_keeps_its_tilt():
    probabilities = np.zeros((200, 300), np.float32)
    corners = cv2.boxPoints(((150, 100), (180, 20), 10)).astype(np.int32)
    cv2.fillPoly(probabilities, [corners], 1.0)
    (box,) = ocr.boxes_from_map(probabilities)
    edge = box.quad[1] - box.quad[0]
    assert np.degrees(np.arctan2(edge[1], edge[0])) == pytest.approx(10, abs=1.5)


def test_a_map_with_a_batch_axis_is_refused_and_the_remedy_says_what_to_take():
    with pytest.raises(BadInput) as caught:
        ocr.boxes_from_map(np.zeros((1, 1, 8, 8)))
    assert "output[0, 0]" in caught.value.remedy


def test_reading_order_is_rows_then_columns_although_a_row_hangs():
    quads = [
        rectangle(300, 10, 50, 20),
        rectangle(20, 14, 50, 20),
        rectangle(20, 60, 50, 20),
        rectangle(160, 12, 50, 20),
    ]
    ordered = ocr.sort_boxes([ocr.Box(quad, 1.0) for quad in quads])
    assert [box.quad[0].tolist() for box in ordered] == [[20, 14], [160, 12], [300, 10], [20, 60]]


# ------------------------------------------------------------------------------------------------ crops and inputs


def test_a_crop_of_an_upright_box_is_the_picture_there():
    image = np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)
    line = ocr.crop(image, rectangle(10, 20, 50, 20))
    assert line.shape == (20, 50, 3)
    np.testing.assert_array_equal(line, image[20:40, 10:60])


def test_a_tall_box_is_turned_counter_clockwise():
    image = np.zeros((100, 60, 3), np.uint8)
    image[10:20, 20:40] = 255  # white at the top
    line = ocr.crop(image, rectangle(20, 10, 20, 80))
    assert line.shape == (20, 80, 3)
    assert line[:, :9].min() == 255  # the top is now on the left
    assert line[:, 12:].max() == 0


def test_the_detector_input_has_multiples_of_32_and_the_scale_leads_back():
    x, (scale_x, scale_y) = ocr.detector_input(np.zeros((700, 1300, 3), np.uint8), limit=960)
    assert x.shape == (1, 3, 512, 960)
    assert (960 * scale_x, 512 * scale_y) == pytest.approx((1300, 700))
    np.testing.assert_allclose(x[0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_the_recogniser_input_keeps_the_ratio_and_pads_with_zero_on_the_right():
    white = np.full((24, 40, 3), 255, np.uint8)
    wide = np.full((10, 100, 3), 0, np.uint8)
    batch = ocr.recogniser_input([white, wide])
    assert batch.shape == (2, 3, 48, 480)
    assert (batch[0, :, :, :80] == 1).all()
    assert (batch[0, :, :, 80:] == 0).all()
    assert (batch[1] == -1).all()
    assert ocr.recogniser_input([white]).shape == (1, 3, 48, 320)


def test_a_grey_picture_is_refused_and_the_remedy_names_the_conversion():
    with pytest.raises(BadInput) as caught:
        ocr.detector_input(np.zeros((20, 20), np.uint8))
    assert "COLOR_GRAY2BGR" in caught.value.remedy


def test_a_page_is_read_with_any_two_callables_in_reading_order():
    image = np.full((96, 192, 3), 255, np.uint8)

    def detect(feed):
        probabilities = np.zeros((1, 1, *feed["x"].shape[2:]), np.float32)
        probabilities[0, 0, 60:70, 20:80] = 1
        probabilities[0, 0, 20:30, 20:160] = 1
        return {"map": probabilities}

    def recognise(feed):
        # the wide box comes first in reading order although the narrow one is first in its batch
        widths = (feed["x"] != 0).any(axis=(1, 2)).sum(axis=1)
        return {"y": np.stack([one_hot([1, 0, 1] if width > 240 else [2, 0, 3]) for width in widths])}

    lines = ocr.read_page(image, detect, recognise, CHARACTERS)
    assert [line.text for line in lines] == ["aa", "bc"]
    assert lines[0].quad[0, 1] < lines[1].quad[0, 1]


def test_an_empty_page_gives_no_lines_and_never_calls_the_recogniser():
    def detect(feed):
        return {"map": np.zeros((1, 1, *feed["x"].shape[2:]), np.float32)}

    def recognise(feed):
        raise AssertionError("nothing to read")

    assert ocr.read_page(np.zeros((64, 64, 3), np.uint8), detect, recognise, CHARACTERS) == []


# ------------------------------------------------------------------------------------------------ characters


def test_characters_come_from_inference_yml_with_blank_and_space(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "inference.yml").write_text(
        'PostProcess:\n  name: CTCLabelDecode\n  character_dict:\n  - "0"\n  - 1\n  - "*"\n', encoding="utf-8"
    )
    assert ocr.characters_of(tmp_path) == ["", "0", "1", "*", " "]


def onnx_with(characters: list[str], classes: int, path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "reader",
        [tensor("x", onnx.TensorProto.FLOAT, ["n", "t", classes])],
        [tensor("y", onnx.TensorProto.FLOAT, ["n", "t", classes])],
    )
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"character": "\n".join(characters)})
    onnx.save(model, path)
    return path


def test_characters_come_from_onnx_metadata_and_an_ideographic_space_is_kept(tmp_path):
    path = onnx_with(["a", "\u3000", "b"], 5, tmp_path / "reader.onnx")
    assert ocr.characters_of(path) == ["", "a", "\u3000", "b", " "]


def test_a_model_trained_without_a_space_gets_none(tmp_path):
    assert ocr.characters_of(onnx_with(["a", "b"], 3, tmp_path / "reader.onnx")) == ["", "a", "b"]


def test_a_list_that_does_not_fit_the_model_is_refused_with_both_counts(tmp_path):
    with pytest.raises(BadInput, match=r"9 classes.*4"):
        ocr.characters_of(onnx_with(["a", "b"], 9, tmp_path / "reader.onnx"))


def test_a_model_without_a_list_says_where_one_may_stand(tmp_path):
    with pytest.raises(BadInput) as caught:
        ocr.characters_of(tmp_path)
    assert "inference.yml" in caught.value.remedy


# ------------------------------------------------------------------------------------------------ measures

grids = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12, unique=True)


def boxes_on(grid) -> list[np.ndarray]:
    return [rectangle(x * 60, y * 30, 50, 20) for x, y in grid]


@given(st.lists(grids, min_size=1, max_size=4))
def test_finding_exactly_the_truth_is_perfect(pages):
    truth = [boxes_on(page) for page in pages]
    score = ocr_metrics.detection_score(truth, truth)
    assert (score.precision, score.recall, score.hmean) == (1.0, 1.0, 1.0)


@given(st.lists(grids, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_pages_and_of_boxes_changes_nothing(pages, chance: random.Random):
    truth = [boxes_on(page) for page in pages]
    found = [[box + 5 for box in page[: len(page) // 2 + 1]] for page in truth]
    before = ocr_metrics.detection_score(found, truth)
    order = list(range(len(pages)))
    chance.shuffle(order)
    shuffled = [chance.sample(found[index], len(found[index])) for index in order]
    assert ocr_metrics.detection_score(shuffled, [truth[index] for index in order]) == before


@given(grids)
def test_a_box_found_twice_counts_once(grid):
    truth = boxes_on(grid)
    score = ocr_metrics.detection_score([[*truth, *truth]], [truth])
    assert (score.precision, score.recall) == (0.5, 1.0)


def test_half_a_box_is_not_enough():
    score = ocr_metrics.detection_score([[rectangle(0, 0, 49, 20)]], [[rectangle(0, 0, 100, 20)]])
    assert (score.matched, score.found, score.truth, score.hmean) == (0, 1, 1, 0.0)


def test_an_empty_page_left_empty_is_right():
    assert ocr_metrics.detection_score([[]], [[]]).hmean == 1.0


def test_pages_must_stand_against_pages():
    with pytest.raises(BadInput, match="1 pages of found boxes stand against 2"):
        ocr_metrics.detection_score([[]], [[], []])


def test_character_errors_count_edits_per_true_character():
    assert ocr_metrics.character_error_rate(["abc", "壹拾元"], ["abd", "壹拾元整"]) == pytest.approx(2 / 7)
    assert ocr_metrics.exact_match(["a", "b"], ["a", "c"]) == 0.5


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_reading_the_truth_has_no_errors(lines):
    assert ocr_metrics.character_error_rate(lines, lines) == 0
    assert ocr_metrics.exact_match(lines, lines) == 1


def test_page_text_keeps_rows_and_puts_fields_from_left_to_right():
    lines = [
        SimpleNamespace(quad=rectangle(300, 12, 80, 20), text="¥1.00"),
        SimpleNamespace(quad=rectangle(10, 10, 80, 20), text="金额"),
        SimpleNamespace(quad=rectangle(10, 50, 80, 20), text="日期"),
    ]
    assert ocr_metrics.page_text(lines) == "金额  ¥1.00\n日期"
