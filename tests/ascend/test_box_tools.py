"""What run_on_box.py works with: the machine, numbers, files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kit.ascend.box import box_tools
from kit.ascend.box.box_tools import compared
from kit.comparison import Parity
from kit.runtimes.om_session import Failure

NPU_SMI = """
| npu-smi 24.1.rc3                 Version: 24.1.rc3                                             |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| 0     310P3               | OK            | NA          40                0     / 0            |
| 0                         | 0000:01:00.0  | 0           1530 / 21527                           |
| 1     310                 | Warning       | NA          40                0     / 0            |
| 0       0                 | 1234          | python3                  | 120                     |
"""


def test_npu_smi_tells_driver_and_chips_but_not_the_processes(monkeypatch):
    monkeypatch.setattr(box_tools, "asked", lambda *argv: NPU_SMI if argv == ("npu-smi", "info") else "")
    found = box_tools.npu_smi()
    assert found["driver"] == "24.1.rc3"
    assert found["chips"] == {0: "310P3", 1: "310"}


@pytest.mark.parametrize(("one", "other", "answer"), [
    ("8.0.0", "8.1.RC1", True), ("8.1.RC1", "8.1.RC1", False), ("8.3.RC1", "8.1", False), ("10.0", "9.1", False),
    ("", "8.1", False), ("8.1", "", False), ("8.1.RC1 (FAKE)", "8.2", True)])
def test_releases_are_compared_by_their_first_two_numbers(one, other, answer):
    assert box_tools.older(one, other) is answer


# ---- numbers ------------------------------------------------------------------------------------------------------

SMALL = st.floats(-1e6, 1e6, width=32)
SHAPES = array_shapes(max_dims=3, max_side=5)


@given(st.data())
def test_finite_answers_are_compared_as_the_kit_compares_them(data):
    shape = data.draw(SHAPES)
    left, right = (data.draw(arrays(np.float32, shape, elements=SMALL)) for _ in range(2))
    parity = Parity()
    parity.add({"y": left}, {"y": right})
    row, found = parity.result()[0], compared(left, right)
    assert found["max_abs"] == row.max_abs
    assert found["relative"] == row.relative
    # Here both sides are scaled by their largest number first: the same but for rounding, and for squares that vanish.
    if np.square(left, dtype=np.float64).sum() > 1e-200 and np.square(right, dtype=np.float64).sum() > 1e-200:
        assert found["cosine"] == pytest.approx(row.cosine, abs=1e-9)
    assert found["note"] == ""


def test_nan_and_inf_where_the_float_model_has_none_are_counted_and_give_no_figure():
    found = compared(np.float32([1, 2, 3, 4]), np.float32([1, np.nan, np.inf, 4]))
    assert (found["cosine"], found["relative"], found["max_abs"]) == (None, None, None)
    assert found["note"] == "2 of 4 numbers are NaN or inf where the float model has none"


def test_infinite_on_both_sides_is_equal_and_finite_for_nan_is_not():
    assert compared(np.float32([1, -np.inf]), np.float32([1, -np.inf]))["max_abs"] == 0
    assert "finite where" in compared(np.float32([1, np.nan]), np.float32([1, 2]))["note"]


def test_shapes_that_differ_are_said():
    assert compared(np.zeros((1, 2)), np.zeros(3))["note"] == "shape [3], the float model gives [1, 2]"


def test_integers_zeros_and_numbers_whose_squares_leave_float64_have_a_cosine():
    assert compared(np.int64([3, 4]), np.int32([3, 4]))["cosine"] == 1
    assert compared(np.zeros(3), np.zeros(3))["cosine"] == 1
    assert compared(np.zeros(3), np.ones(3))["cosine"] == 0
    assert compared(np.float64([1e300, 1e300]), np.float64([1e300, 1e300]))["cosine"] == pytest.approx(1)
    assert compared(np.float64([1e-300, 0]), np.float64([1e-300, 0]))["cosine"] == pytest.approx(1)


def test_times_become_percentiles_and_pictures_a_second():
    row = box_tools.summary([float(n) for n in range(1, 102)], 4)
    assert (row["p50_ms"], row["p90_ms"], row["p95_ms"], row["p99_ms"]) == (51, 91, 96, 100)
    assert row["fps"] == pytest.approx(4 * 1000 / 51, abs=1e-3)


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_batch_is_cut_or_filled_with_its_last_picture(have, want):
    array = np.arange(have * 2).reshape(have, 2)
    made = box_tools.filled(array, want)
    assert made.shape == (want, 2)
    assert (made[:min(have, want)] == array[:want]).all()
    assert (made[have:] == array[-1]).all()


# ---- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "results.json"
    box_tools.write_json(target, {"a": 1})

    def breaks(path):
        path.write_text('{"a"')
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        box_tools.write_whole(target, breaks)
    with pytest.raises(ValueError, match="JSON"):
        box_tools.write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in target.parent.iterdir()] == ["results.json"], "nothing is left beside it"


def test_the_slowest_operators_come_first_and_rows_of_something_else_are_left_out(tmp_path):
    table = tmp_path / "op_summary_0.csv"
    table.write_text("Op Name,OP Type,Task Duration(us)\na,Conv2D,5\nb,Cast,30\na,Conv2D,15\nc,Mul,N/A\n")
    assert box_tools.slowest([table], runs=2) == [{"name": "b", "type": "Cast", "us": 15.0},
                                                   {"name": "a", "type": "Conv2D", "us": 10.0}]


def test_a_program_that_is_not_there_is_a_failure_with_its_name(tmp_path):
    with pytest.raises(Failure, match="no-such-program cannot be started"):
        box_tools.called(["no-such-program"], tmp_path / "log")


@pytest.mark.parametrize(("text", "words"), [
    (None, "no bundle.json beside"), ("{", "is damaged"), ("[]", "this script reads"),
    ('{"format": "kit-ascend-bundle", "version": 2}', r"\('kit-ascend-bundle', 2\); this script reads")])
def test_what_is_no_bundle_is_refused(tmp_path, text, words):
    if text is not None:
        (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(Failure, match=words):
        box_tools.read_bundle(tmp_path)
