"""Mean average precision under weights, against pycocotools itself."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.evidence.judging import alone
from kit.families.detection_metrics import MAIN, STRICT, ImageTruth, MeanPrecision, class_score

CLASSES = ("scratch", "pit", "stain")


def world(seed, pictures=8, *, ties=False, crowd=False):
    """Random truths, and detections that are often near them; equal scores where there are ties."""
    random = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(pictures):
        count = int(random.integers(0, 5))
        corner = random.uniform(0, 80, (count, 2))
        boxes = np.concatenate([corner, corner + random.uniform(5, 40, (count, 2))], axis=1)
        kinds = random.integers(0, 3, count)
        many = (random.random(count) < 0.3) & crowd
        truths.append(ImageTruth(120, 120, tuple(map(tuple, boxes.tolist())), tuple(kinds.tolist()),
                                 tuple(many.tolist())))
        rows = []
        for box, kind in zip(boxes, kinds, strict=True):
            for _ in range(int(random.integers(0, 3))):
                near = box + random.normal(0, 4, 4)
                score = random.integers(1, 5) / 5 if ties else random.random()
                rows.append((int(kind if random.random() < 0.9 else random.integers(0, 3)), float(score), *near))
        for _ in range(int(random.integers(0, 4))):
            x, y = random.uniform(0, 80, 2)
            rows.append((int(random.integers(0, 3)), float(random.integers(1, 5) / 5 if ties else random.random()),
                         x, y, x + 20, y + 20))
        found.append([(kind, score, *map(float, box)) for kind, score, *box in rows])
    return found, truths


def expanded(found, truths, weights):
    """pycocotools' own scores of a set in which each picture stands as often as it was drawn."""
    at = np.repeat(np.arange(len(truths)), weights)
    return list(MeanPrecision([found[n] for n in at], [truths[n] for n in at], CLASSES).scores().values())


def near(left, right):
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)  # the same sums in another order; NaN where NaN


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
@settings(max_examples=40)
def test_weights_of_one_give_what_pycocotools_gives(seed, ties, crowd):
    found, truths = world(seed, ties=ties, crowd=crowd)
    records = MeanPrecision(found, truths, CLASSES)
    near(records.resampled(np.ones((1, len(truths)), np.int64))[0], list(records.scores().values()))


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40)
def test_pictures_drawn_several_times_count_as_in_a_set_that_has_them_several_times(seed, crowd):
    found, truths = world(seed, crowd=crowd)
    drawn = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), size=3)
    for row, weights in zip(MeanPrecision(found, truths, CLASSES).resampled(drawn), drawn, strict=True):
        near(row, expanded(found, truths, weights))


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_pictures_left_out_are_as_if_they_were_not_there_ties_included(seed):
    found, truths = world(seed, ties=True)
    kept = np.random.default_rng(seed).integers(0, 2, 8)
    kept[0] = 1
    near(MeanPrecision(found, truths, CLASSES).resampled(kept[None])[0], expanded(found, truths, kept))


def test_scores_are_those_that_summarize_prints():
    found, truths = world(7, pictures=30)
    records = MeanPrecision(found, truths, CLASSES)
    scores = records.scores()
    judge = records._coco
    judge.params.maxDets = [1, 10, 100]
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10], [0, 1024], [1024, 9216], [9216, 1e10]], [
        "all", "small", "medium", "large"]
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert (scores[STRICT], scores[MAIN]) == (judge.stats[0], judge.stats[1])
    assert 0 < scores[STRICT] < scores[MAIN] < 1


def test_perfect_detections_score_one_and_none_score_nothing():
    _, truths = world(1, pictures=20)
    perfect = [[(kind, 0.9, *box) for box, kind in zip(truth.boxes, truth.classes, strict=True)] for truth in truths]
    near(list(MeanPrecision(perfect, truths, CLASSES).scores().values()), 1.0)
    nothing = MeanPrecision([[] for _ in truths], truths, CLASSES)
    assert set(nothing.scores().values()) == {0.0}
    assert set(nothing.resampled(np.ones((2, 20), np.int64)).ravel()) == {0.0}


def test_a_class_that_is_nowhere_has_no_precision_and_does_not_count():
    truths = [ImageTruth(50, 50, ((0, 0, 10, 10),), (0,)), ImageTruth(50, 50)]
    records = MeanPrecision([[(0, 0.9, 0, 0, 10, 10), (1, 0.9, 0, 0, 9, 9)], []], truths, CLASSES)
    scores = records.scores()
    near(scores[MAIN], 1.0)
    assert np.isnan(scores[class_score("pit")])
    per_picture = alone(records, 2)
    near(per_picture[0], 1.0)
    assert np.isnan(per_picture[1])


def test_wrong_input_is_told():
    truth = ImageTruth(9, 9, ((0, 0, 5, 5),), (0,))
    with pytest.raises(BadInput, match="2 pictures stand against the truth of 1"):
        MeanPrecision([[], []], [truth], CLASSES)
    with pytest.raises(BadInput, match=r"A found box has class 3; there are 3 classes.*scratch, pit, stain"):
        MeanPrecision([[(3, 0.5, 0, 0, 5, 5)]], [truth], CLASSES)
    with pytest.raises(BadInput, match="no classes"):
        MeanPrecision([[]], [truth], ())
