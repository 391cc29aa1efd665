"""Shape, Split, Pad, Slice and Gather in the form that every parser reads alike."""

from __future__ import annotations

import pytest

PIECE = {"inputs": "float[N,4,6,6] x", "outputs": "int64[K] y"}
ANY = {"outputs": "float[A,B,C,D] y"}


@pytest.mark.parametrize(("limits", "axes"), [
    ("start: int = 1", [1, 2, 3]), ("start: int = 1, end: int = 3", [1, 2]), ("end: int = -1", [0, 1, 2]),
    ("start: int = -2", [2, 3]), ("start: int = -9, end: int = 9", None)])
def test_a_part_of_a_shape_is_taken_out_of_the_whole(bench, limits, axes):
    fixed = bench.promises(bench.text("{y = Shape <" + limits + "> (x)}", **PIECE), "slice-shape")
    assert fixed.operators_after == ({"Shape": 1, "Gather": 1} if axes else {"Shape": 1})


def test_a_part_of_a_shape_of_unknown_rank_is_sliced(bench):
    path = bench.text("{z = com.acme.Thing(x) y = Shape <start: int = 1> (z)}", domains=', "com.acme": 1', **PIECE)
    assert bench.fix(path, rules=("slice-shape",), check=False).operators_after == {
        "Shape": 1, "Slice": 1, "com.acme.Thing": 1}


def test_a_shape_of_no_axis_is_left_alone(bench):
    path = bench.text("{y = Shape <start: int = 2, end: int = 2> (x)}", **PIECE)
    assert bench.reason(path, "slice-shape").startswith("it takes the size of no axis at all")


SPLIT = {"opset": 18, "inputs": "float[N,7] x", "outputs": "float[N,A] a, float[N,B] b, float[N,C] c"}


def test_a_number_of_parts_becomes_their_sizes(bench):
    fixed = bench.promises(bench.text("{a, b, c = Split <axis: int = -1, num_outputs: int = 3> (x)}", **SPLIT),
                           "plain-split")
    assert fixed.changes[0].what == "num_outputs became the sizes 3, 3, 1"


def test_parts_of_an_unknown_size_are_left_alone(bench):
    path = bench.text("{a, b, c = Split <axis: int = 0, num_outputs: int = 3> (x)}", **SPLIT)
    assert bench.reason(path, "plain-split", check=False) == (
        "the size of axis 0 of x is not known, and with it the sizes of its parts")


def test_pads_of_some_axes_become_pads_of_all(bench):
    path = bench.text("<int64[4] p = {1, 2, 3, -1}, int64[2] at = {-1, 1}, float v = {0.5}> {y = Pad(x, p, v, at)}",
                      opset=18, **ANY)
    fixed = bench.promises(path, "plain-pad")
    assert fixed.changes[0].what == "pads for some axes became pads for all 4: 0, 2, 0, 1, 0, -1, 0, 3"


def test_a_pad_without_a_value_keeps_it_out(bench):
    path = bench.text('<int64[2] p = {1, 2}, int64[1] at = {2}> {y = Pad <mode: string = "reflect"> (x, p, , at)}',
                      opset=18, **ANY)
    bench.promises(path, "plain-pad")


@pytest.mark.parametrize(("body", "opset", "reason"), [
    ("<int64[1] at = {2}> {p = Cast <to: int = 7> (q) y = Pad(x, p, , at)}", 18, "its pads (p) are computed"),
    ('<int64[8] p = {0,0,1,1,0,0,1,1}> {y = Pad <mode: string = "wrap"> (x, p)}', 19, "mode wrap came with opset 19")])
def test_other_pads_are_left_alone(bench, body, opset, reason):
    path = bench.text(body, opset=opset, ir_version=9, inputs="float[N,4,6,6] x, float[2] q", outputs=ANY["outputs"])
    assert reason in bench.reason(path, "plain-pad", check=False)


FAR = "9223372036854775807"


def test_ends_beyond_32_bits_become_the_size_of_the_axis_or_the_largest_number(bench):
    path = bench.text("<int64[2] s = {1, 0}, int64[2] e = {" + FAR + "," + FAR + "}, int64[2] at = {2, 0}> "
                      "{y = Slice(x, s, e, at)}", **ANY)
    fixed = bench.promises(path, "plain-slice")
    assert fixed.changes[0].what == "starts and ends beyond 32 bits became 1:6, 0:2147483647"


def test_going_backwards_keeps_its_far_end(bench):
    path = bench.text("<int64[1] s = {-1}, int64[1] e = {-" + FAR + "}, int64[1] at = {2}, int64[1] by = {-1}> "
                      "{y = Slice(x, s, e, at, by)}", **ANY)
    assert bench.promises(path, "plain-slice").changes[0].what.endswith("became -1:-2147483648")


@pytest.mark.parametrize(("start", "end", "by", "count"), [
    (0, FAR, 2, 3), (1, 6, 2, 3), (-1, f"-{FAR}", -1, 6), (5, 0, -2, 3)])
def test_steps_along_the_last_axis_become_positions(bench, start, end, by, count):
    path = bench.text(f"<int64[2] s = {{1, {start}}}, int64[2] e = {{3, {end}}}, int64[2] at = {{1, 3}}, "
                      f"int64[2] by = {{1, {by}}}> {{y = Slice(x, s, e, at, by)}}", **ANY)
    fixed = bench.promises(path, "plain-slice")
    assert fixed.operators_after == {"Slice": 1, "Gather": 1}
    assert fixed.changes[0].what == f"steps of {by} along the last axis became a Gather of {count} positions"


def test_steps_along_an_axis_of_unknown_size_are_left_alone(bench):
    path = bench.text("<int64[1] s = {0}, int64[1] e = {9}, int64[1] at = {-1}, int64[1] by = {2}> "
                      "{y = Slice(x, s, e, at, by)}", inputs="float[N,W] x", outputs="float[N,V] y")
    assert bench.reason(path, "plain-slice") == ("it goes along the last axis in steps of 2, and the size of that axis "
                                                 "is not known: fix the input shapes")


def test_an_empty_slice_leaves_its_concat(bench):
    path = bench.text("<int64[1] s = {0}, int64[1] e = {0}, int64[1] at = {1}> "
                      "{z = Slice(x, s, e, at) y = Concat <axis: int = 1> (z, x, z)}", **ANY)
    assert bench.promises(path, "plain-slice").operators_after == {"Concat": 1}


def test_slices_and_gathers_in_good_form_are_no_business_of_these_rules(bench):
    path = bench.text("<int64[2] s = {1, 0}, int64[2] e = {3, -1}, int64[2] at = {2, 3}, int64[2] by = {2, 1}, "
                      "int64[1] i = {0}> {z = Slice(x, s, e, at, by) y = Gather <axis: int = 1> (z, i)}", **ANY)
    fixed = bench.fix(path, rules=("plain-slice", "plain-gather"))
    assert (fixed.changes, fixed.left_alone) == ((), ())


def test_an_index_from_behind_is_counted_from_the_front(bench):
    path = bench.text("<int64[2] i = {-1, 1}> {y = Gather <axis: int = 1> (x, i)}", **ANY)
    assert bench.promises(path, "plain-gather").changes[0].what == "index -1, 1 became 3, 1"


def test_an_index_from_behind_an_unknown_size_is_left_alone(bench):
    path = bench.text("<int64[1] i = {-1}> {y = Gather <axis: int = 0> (x, i)}", **ANY)
    assert bench.reason(path, "plain-gather").startswith("the size of axis 0 of x is not known")
