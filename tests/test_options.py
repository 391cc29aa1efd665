from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from helpers import DoubleOptions

import kit
from kit.ascend import AippOptions, BundleOptions
from kit.errors import BadInput
from kit.operators import AuditOptions
from kit.options import Help, Options, Range, expect, fields


@dataclass(frozen=True)
class Some(Options):
    opset: Annotated[int | None, Range(7, 21), Help("version")] = None
    names: tuple[str, ...] = ()
    mode: Literal["a", 8] = "a"
    on: bool = True


def test_fields_tell_a_panel_what_to_draw():
    opset, names, mode, on = fields(Some)
    assert (opset.kind, opset.range, opset.help, opset.optional) == (int, Range(7, 21), "version", True)
    assert (names.kind, names.default) == (tuple[str, ...], ())
    assert mode.kind == Literal["a", 8]
    assert on.kind is bool


@pytest.mark.parametrize(("values", "said"), [
    ({"opset": 6}, "from 7 to 21"), ({"opset": 11.5}, "a int"), ({"opset": "x"}, "a int"),
    ({"mode": "b"}, "'a', 8"), ({"on": 1}, "True or False"),
])
def test_a_bad_value_is_named_with_what_is_allowed(values, said):
    with pytest.raises(BadInput) as caught:
        Some(**values)
    assert repr(next(iter(values.values()))) in caught.value.what
    assert said in caught.value.remedy


def test_good_values_pass_and_compare():
    assert DoubleOptions(times=2) == DoubleOptions(times=2) != DoubleOptions()


@pytest.mark.parametrize(("kind", "call"), [(AuditOptions, "kit.AuditOptions"), (AippOptions, "kit.ascend.AippOptions"),
                                            (BundleOptions, "kit.ascend.BundleOptions")])
def test_options_of_another_stage_are_refused_by_a_name_that_is_there(kind, call):
    with pytest.raises(BadInput, match="of type dict") as caught:
        expect(kind, {})
    assert call in caught.value.remedy
    assert eval(call, {"kit": kit}) is kind
