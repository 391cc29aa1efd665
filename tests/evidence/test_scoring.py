"""A task as a number, on samples made up here."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from kit.errors import BadInput
from kit.evidence.scoring import TaskScore
from kit.record import digest
from kit.samples import Preprocess, Sample, Samples

PLAIN = Preprocess(resize="none", scale=1.0, mean=(0, 0, 0), std=(1, 1, 1), layout="NHWC")


@dataclass(frozen=True)
class Brightness:
    """Judges whether the mean of a picture is what the truth says; the error counts too."""

    name: str = "hits"
    better: str = "higher"

    def answer(self, outputs, sample, feed):
        return float(outputs["y"])

    def count(self, answer):
        return 1

    def tally(self, answer, sample):
        return float(answer == sample.truth), abs(answer - sample.truth), 1

    def scores(self, totals):
        hits, error, count = totals
        return {"hits": hits / count, "error": error / count}


@pytest.fixture
def samples(tmp_path):
    import cv2

    items = []
    for at in range(10):
        path = tmp_path / f"{at}.png"
        cv2.imwrite(str(path), np.full((4, 4, 3), 10 * at, np.uint8))
        items.append(Sample(path, truth=10.0 * at if at < 8 else 0.0))
    return Samples(tuple(items), PLAIN)


def mean(feeds):
    return {"y": feeds["x"].mean()}


def test_a_score_is_the_tasks_over_all_samples_together(samples):
    score = TaskScore(Brightness(), samples)
    assert (score.name, len(score)) == ("hits", 10)
    assert score(mean) == 0.8


def test_a_score_where_less_is_better_is_turned_round(samples):
    assert TaskScore(Brightness(), samples, "error", "lower")(mean) == pytest.approx(-17.0)
    assert TaskScore(Brightness(better="lower"), samples)(mean) == -0.8


def test_a_subset_is_spread_over_the_samples(samples):
    few = TaskScore(Brightness(), samples).subset(4)
    assert [item.path.name for item in few.samples.items] == ["0.png", "3.png", "6.png", "9.png"]
    assert few(mean) == 0.75
    assert len(few.subset(100)) == 4


def test_it_travels_to_another_process(samples):
    score = TaskScore(Brightness(), samples, "error", "lower")
    assert pickle.loads(pickle.dumps(score)) == score


def test_its_digest_tells_truths_apart(samples):
    from dataclasses import replace

    other = replace(samples, items=(replace(samples.items[0], truth=5.0), *samples.items[1:]))
    assert digest(TaskScore(Brightness(), samples)) == digest(TaskScore(Brightness(), samples, "hits"))
    assert digest(TaskScore(Brightness(), samples)) != digest(TaskScore(Brightness(), other))
    assert digest(TaskScore(Brightness(), samples)) != digest(TaskScore(Brightness(), samples, "error"))


def test_an_unknown_score_is_answered_with_the_closest(samples):
    with pytest.raises(BadInput, match="hit") as caught:
        TaskScore(Brightness(), samples, "hit")(mean)
    assert "hits" in caught.value.remedy


def test_samples_without_truths_are_refused():
    with pytest.raises(BadInput, match="Samples"):
        TaskScore(Brightness(), [{"x": np.zeros(1)}])
