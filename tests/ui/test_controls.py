"""Each kind of field gets its control, and a control speaks Python values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import ipywidgets
import pytest

from kit.errors import BadInput
from kit.options import Help, Options, Range, fields
from kit.ui.controls import Control, describe, label


@dataclass(frozen=True)
class AllKinds(Options):
    """One field of every kind that options have."""

    method: Literal["minmax", "entropy"] = "minmax"
    bits: Literal[8, 4] = 8
    target: Literal["cpu", "npu"] | None = None
    fast: bool = False
    checked: bool | None = None
    steps: Annotated[int, Range(1, 200), Help("How many.")] = 3
    tolerance: float = 1e-5
    share: Annotated[float, Range(0, 1, 0.05)] = 0.5
    opset: int | None = None
    title: str = "a, b"
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    kinds: tuple[Literal["Conv", "MatMul"], ...] = ("Conv",)
    pairs: tuple[tuple[str, str], ...] = ()
    log: Path | None = None
    axes: dict[str, int] | None = None
    shape: tuple[int, int] = (3, 4)
    size: int | str = 640


FIELDS = {field.name: field for field in fields(AllKinds)}


def control(name, choices=()):
    return Control(FIELDS[name], getattr(AllKinds(), name), choices)


@pytest.mark.parametrize("name", FIELDS)
def test_every_control_starts_at_the_default_and_has_a_visible_label(name):
    made = control(name)
    assert made.value == getattr(AllKinds(), name)
    assert made.widget.description == label(name)


@pytest.mark.parametrize(("name", "kind"), [
    ("method", ipywidgets.Dropdown), ("bits", ipywidgets.Dropdown), ("target", ipywidgets.Dropdown),
    ("fast", ipywidgets.Checkbox), ("checked", ipywidgets.Dropdown), ("steps", ipywidgets.IntText),
    ("tolerance", ipywidgets.FloatText), ("opset", ipywidgets.Text), ("names", ipywidgets.Text),
    ("kinds", ipywidgets.SelectMultiple), ("log", ipywidgets.Text),
])
def test_the_type_of_a_field_chooses_its_control(name, kind):
    assert isinstance(control(name).widget, kind)


@pytest.mark.parametrize(("name", "typed", "value"), [
    ("names", "Conv_3,  Add_1 ,", ("Conv_3", "Add_1")), ("names", "", ()), ("sizes", "4, 5", (4, 5)),
    ("names", "x=1,3,48,320, y=n, 4", ("x=1,3,48,320", "y=n,4")), ("names", "a, x=1,2", ("a", "x=1,2")),
    ("names", "a=1,3; b=1,2, a=2,3; b=2,2", ("a=1,3; b=1,2", "a=2,3; b=2,2")),
    ("opset", " 17 ", 17), ("opset", "", None), ("log", "out/log.txt", Path("out/log.txt")), ("log", "", None),
    ("title", "a, b", "a, b"), ("axes", "{'x': 1}", {"x": 1}), ("shape", "(1, 2)", (1, 2)), ("size", "auto", "auto"),
    ("size", "320", 320), ("pairs", "", ()), ("pairs", "A+B -> own::ab, C: d", (("A+B", "own::ab"), ("C", "d"))),
    ("pairs", '{"A": "own::b"}', (("A", "own::b"),)),
])
def test_what_is_typed_becomes_a_value(name, typed, value):
    made = control(name)
    made.widget.value = typed
    assert made.value == value


@pytest.mark.parametrize(("name", "typed", "words"), [
    ("opset", "seventeen", "a whole number, or nothing"), ("sizes", "1, two", "whole numbers, with commas"),
    ("axes", "[1]", "a Python value"), ("shape", "(1,", "a Python value"),
    ("pairs", "GroupNorm", "this -> that"),
])
def test_what_cannot_be_a_value_is_told_beside_the_control(name, typed, words):
    made = control(name)
    made.watch(lambda value: None, lambda: None)
    made.widget.value = typed
    with pytest.raises(BadInput, match="cannot be"):
        _ = made.value
    assert words in made.error.remedy
    assert 'role="alert"' in made._note.value


@pytest.mark.parametrize(("name", "value"), [
    ("method", "entropy"), ("names", ("Conv_3", "Add_1")), ("log", Path("x")), ("axes", {"x": 0}), ("opset", 13),
    ("opset", None), ("kinds", ("Conv", "MatMul")), ("size", "auto"), ("checked", True),
    ("pairs", (("A", "own::b"), ("C", "d"))),
])
def test_a_value_given_in_python_comes_back(name, value):
    made = control(name)
    made.value = value
    assert made.value == value


def test_given_choices_make_a_list_to_choose_from():
    made = control("names", choices=("Conv_1", "Conv_2"))
    made.value = ("Conv_2",)
    assert isinstance(made.widget, ipywidgets.SelectMultiple)
    assert made.value == ("Conv_2",)


def test_a_path_that_is_not_there_is_told_without_being_an_error(tmp_path):
    made = control("log")
    made.watch(lambda value: None, lambda: None)
    made.widget.value = "no/such.txt"
    assert "Nothing is at no/such.txt" in made._note.value
    made.widget.value = str(tmp_path)
    assert made._note.value == ""
    assert made.error is None


@pytest.mark.parametrize(("name", "shown"), [("keep_float", "Keep float"), ("least_snr_db", "Least SNR dB"),
                                             ("ir_version", "IR version"), ("opset", "Opset")])
def test_a_label_is_the_option_s_name_in_words(name, shown):
    assert label(name) == shown


def test_a_step_does_not_leave_binary_dust():
    made = control("share")
    made.widget.value = 0.15000000000000002
    assert made.value == 0.15


def test_help_and_range_are_visible_text():
    row = control("steps").view.children[0]
    assert "How many. 1 to 200." in row.children[1].value
    assert describe(FIELDS["steps"]) == "a whole number from 1 to 200"
