"""200 random cases full of ties: graph, numpy, TensorFlow and Paddle keep the same boxes, or a rule says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))  # here and in workers

import nms_equality as judges

DEGENERATE = ("equal scores", "equal boxes")  # the kinds with boxes without area


@pytest.fixture(scope="module")
def judged():
    cases, answers = judges.judged(25)
    print(judges.table(cases, answers))
    return cases, answers


def unlike(judged, judge):
    """The cases in which a judge does not keep what numpy keeps."""
    cases, answers = judged
    return [(case, ours, theirs) for case, ours, theirs in zip(cases, answers["numpy"], answers[judge], strict=True)
            if not judges.same_as_numpy(judge, case, ours, theirs)]


def test_the_cases_have_what_they_are_for(judged):
    cases, answers = judged
    assert len(cases) == 200
    kept = [len(answer.found) for answer in answers["numpy"]]
    assert sum(kept) > 4000
    assert all(count == 0 for case, count in zip(cases, kept, strict=True) if case.kind == "nothing")
    assert sum(count == 0 for count in kept) < 50
    ties = sum(len(np.unique(answer.scores)) < answer.scores.size for answer in answers["numpy"])
    assert ties >= 100
    exact = [case for case, answer in zip(cases, answers["numpy"], strict=True) if touches(case, answer)]
    assert len(exact) >= 20, "an IoU that is exactly the threshold decides in these"


def touches(case, answer):
    """Would it keep others if an IoU at the threshold suppressed?"""
    from dataclasses import replace

    below = float(np.nextafter(np.float32(case.options.iou), np.float32(0)))
    stricter = judges.nms(answer.boxes, answer.scores, replace(case.options, iou=below))[0]
    return below >= 0 and stricter != answer.found


def test_the_graph_is_numpy_in_every_case(judged):
    assert unlike(judged, "graph") == []


@pytest.mark.parametrize("judge", judges.RULES)
def test_every_judge_follows_its_rule_to_the_last_bit(judged, judge):
    cases, answers = judged
    wrong = [(case.kind, case.options) for case, answer in zip(cases, answers[judge], strict=True)
             if judges.by_rule(judge, case, answer) != answer.found]
    assert wrong == []


def test_tensorflow_differs_only_where_its_sigmoid_took_a_tie_apart(judged):
    different = unlike(judged, "tensorflow")
    for case, ours, theirs in different:
        assert case.heads.activation == "sigmoid"
        assert len(np.unique(theirs.scores)) > len(np.unique(ours.scores))


def test_the_combined_operator_differs_only_where_scores_are_equal(judged):
    different = unlike(judged, "tensorflow combined")
    assert different
    for case, _, theirs in different:
        kinds = theirs.scores.max(axis=2, keepdims=True) if case.options.class_agnostic else theirs.scores
        assert any(len(np.unique(kinds[0, :, at])) < kinds.shape[1] for at in range(kinds.shape[2]))


def test_paddle_differs_only_where_boxes_have_no_area(judged):
    different = unlike(judged, "paddle")
    assert different
    for case, ours, _ in different:
        assert case.kind in (*DEGENERATE, "at the threshold", "nothing")
        sides = ours.boxes[0, :, 2:] - ours.boxes[0, :, :2]
        assert (sides.min(axis=1) == 0).sum() > 1
