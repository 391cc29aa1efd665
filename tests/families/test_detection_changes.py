"""Which detections are lost, new or moved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.families.detection_changes import LEAST, Found, change, ious, paired

SIDE = st.integers(0, 30)
BOX = st.tuples(SIDE, SIDE, st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])))
ROWS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.3, 0.5, 0.9]), BOX), max_size=6).map(
    lambda rows: [(kind, score, *box) for kind, score, box in rows])


def overlap(a, b):
    """IoU of boxes with whole corners, by counting pixels."""
    one, two = (np.zeros((64, 64), bool) for _ in range(2))
    for grid, (x1, y1, x2, y2) in ((one, a), (two, b)):
        grid[int(y1):int(y2), int(x1):int(x2)] = True
    return (one & two).sum() / (one | two).sum()


@given(st.lists(BOX, min_size=1, max_size=4), st.lists(BOX, min_size=1, max_size=4))
def test_overlap_is_that_of_counted_pixels(left, right):
    wanted = [[overlap(a, b) for b in right] for a in left]
    np.testing.assert_allclose(ious(np.array(left), np.array(right)), wanted)


def test_a_box_without_area_overlaps_nothing():
    point = np.array([[5.0, 5.0, 5.0, 5.0]])
    assert ious(point, point).tolist() == [[0.0]]


@given(ROWS, ROWS)
def test_every_detection_that_is_shown_has_exactly_one_fate(before, after):
    found = change(0, "a", before, after, 0.5)
    pairs = (*found.moved, *found.same)
    for rows, alone, side in ((before, found.lost, "before"), (after, found.new, "after")):
        wanted = sorted(Found(kind, score, tuple(box)) for kind, score, *box in rows if score >= 0.5)
        assert sorted([*alone, *(getattr(pair, side) for pair in pairs)]) == wanted
    for pair in pairs:
        assert pair.before.kind == pair.after.kind
        assert pair.iou == pytest.approx(overlap(pair.before.box, pair.after.box))
        assert pair.iou >= LEAST
    assert all(pair.iou < 0.9 for pair in found.moved)
    assert all(pair.iou >= 0.9 for pair in found.same)
    assert (found.amount > 0) == found.has()


@given(ROWS, ROWS)
def test_the_pairs_are_maximal_and_no_better_one_was_passed_over(before, after):
    left, right = ([Found(kind, score, tuple(box)) for kind, score, *box in rows] for rows in (before, after))
    pairs = paired(left, right)
    best = {("l", i): iou for i, _, iou in pairs} | {("r", j): iou for _, j, iou in pairs}
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            if a.kind == b.kind and (iou := overlap(a.box, b.box)) >= LEAST:
                assert max(best.get(("l", i), 0), best.get(("r", j), 0)) >= iou - 1e-12


@given(ROWS)
def test_nothing_changes_against_itself(rows):
    found = change(3, "a", rows, rows, 0.5)
    assert not found.has()
    assert found.amount == 0


@given(ROWS, ROWS)
def test_the_other_way_round_lost_is_new(before, after):
    there, back = change(0, "a", before, after, 0.5), change(0, "a", after, before, 0.5)
    assert len(there.lost) == len(back.new)
    assert there.amount == pytest.approx(back.amount)


def test_fates_by_hand():
    before = [(0, 0.9, 0, 0, 10, 10), (1, 0.8, 20, 20, 30, 30), (0, 0.7, 40, 40, 50, 50), (2, 0.6, 0, 30, 10, 40)]
    after = [(0, 0.9, 0, 0, 10, 10), (1, 0.8, 22, 20, 32, 30), (0, 0.4, 40, 40, 50, 50), (1, 0.6, 0, 30, 10, 40)]
    found = change(7, "plate.jpg", before, after, 0.5)
    assert [pair.before.box for pair in found.same] == [(0, 0, 10, 10)]
    assert [pair.iou for pair in found.moved] == [pytest.approx(80 / 120)]
    assert [each.kind for each in found.lost] == [0, 2], "a score below what is shown, and another class"
    assert [each.kind for each in found.new] == [1]
    assert found.amount == pytest.approx(0.7 + 0.6 + 0.6 + 1 / 3)
    assert found.has("lost", 2)
    assert not found.has("new", 2)
    assert found.has("moved")
    assert not found.has("moved", 0)
