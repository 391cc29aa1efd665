"""Guesses and exercises answer in plain words."""

import numpy as np
import pytest

import kit
from kit import teach
from kit.charts.chart import Chart


@pytest.mark.parametrize(("guess", "value", "words"), [
    (4, 3.9, "You guessed 4×; it is 3.9×: very close."),
    (3.9, 3.9, "You guessed 3.9×; it is 3.9×: exactly right."),
    (3.3, 3.9, "You guessed 3.3×; it is 3.9×: close."),
    (2.8, 3.9, "You guessed 2.8×; it is 3.9×: your guess was a little low."),
    (39, 3.9, "You guessed 39×; it is 3.9×: your guess was 10.0 times too high."),
    (1, 4, "You guessed 1×; it is 4×: your guess was 4.0 times too low."),
    (-1, 4, "You guessed -1×; it is 4×: your guess was too low."),
    (2, 0, "You guessed 2×; it is 0×: your guess was too high."),
])
def test_a_guess_is_judged_in_words(guess, value, words):
    assert str(teach.compare(guess, value, "×")) == words


@pytest.mark.parametrize("guess", [None, ...])
def test_no_guess_is_no_mistake(guess):
    compared = teach.compare(guess, 12.345678, "MB")
    assert compared.title().startswith("It is 12.35 MB.")
    assert compared.close is None


def test_words_and_switches_are_compared_as_they_are():
    assert teach.compare("Resize", "Resize").title() == "You guessed Resize; it is Resize: right."
    assert teach.compare(True, False).title() == "You guessed yes; it is no: not what you expected."


def test_a_comparison_shows_as_text_and_html():
    bundle = teach.compare(4, 3.9, "×")._repr_mimebundle_()
    assert "very close" in bundle["text/plain"]
    assert "very close" in bundle["text/html"]


def test_a_comparison_says_whether_the_guess_was_close():
    assert teach.compare(3.5, 3.9).close is True
    assert teach.compare(2.0, 3.9).close is False


def smallest(answer):
    assert isinstance(answer, str), "Give the node's name as a text."
    return answer == "Conv_3" or f"{answer} is larger than another one."


def test_a_right_answer_is_praised_and_true():
    feedback = teach.Exercise("Name the smallest node.", smallest, praise="Yes: 12 bytes.").check("Conv_3")
    assert feedback
    assert str(feedback) == "Yes: 12 bytes."


def test_a_wrong_answer_gets_the_reason_and_one_hint_after_the_other():
    exercise = teach.Exercise("Name the smallest node.", smallest, hints=("Sort by size.", "It is a Conv."))
    first, second, third = (exercise.check("Add_1") for _ in range(3))
    assert not first
    assert first.said == "Add_1 is larger than another one."
    assert [f.hint for f in (first, second, third)] == ["Sort by size.", "It is a Conv.", "It is a Conv."]
    assert "Sort by size." in first.html()


def test_an_assertion_and_any_other_failure_are_told_in_words():
    exercise = teach.Exercise("Name it.", smallest)
    assert exercise.check(3).said.startswith("Give the node's name as a text.")
    broken = teach.Exercise("Divide.", lambda answer: 1 / answer)
    assert "ZeroDivisionError" in broken.check(0).said


def test_an_unsolved_exercise_does_not_stop_a_notebook():
    feedback = teach.Exercise("Name the smallest node.", smallest).check(...)
    assert not feedback
    assert "No answer yet" in feedback.said


def test_show_gives_the_task_or_draws_the_answer():
    go = pytest.importorskip("plotly.graph_objects")
    exercise = teach.Exercise("Draw <a> line.", smallest, hints=("a",),
                              picture=lambda answer: Chart(go.Figure(go.Scatter(y=answer)), f"line of {answer}"))
    assert "Draw &lt;a&gt; line." in exercise.show().html()
    assert exercise.show([1, 2]).alt == "line of [1, 2]"


def test_the_passing_model_passes_its_input_on_and_cuts_off_what_is_negative(tmp_path):
    model = teach.passing_model(tmp_path / "new" / "toy.onnx", shape=(1, 1, 2, 2))
    values = np.float32([[[[1, -2], [3, 0]]]])
    with kit.open_runner(model) as runner:
        np.testing.assert_array_equal(runner({"x": values})["z"], np.maximum(values, 0))
