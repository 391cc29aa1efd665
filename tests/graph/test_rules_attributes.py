"""What nodes leave to their inputs, written out."""

from __future__ import annotations

import pytest

ANY = {"outputs": "float[A,B,C,D] y"}


def weights(shape: str, count: int) -> str:
    return f"<float[{shape}] w = {{{', '.join(str((i * 7) % 11 - 5.0) for i in range(count))}}}> "


CASES = {
    "a transpose": ("{y = Transpose (x)}", {}, "perm=[3, 2, 1, 0]"),
    "a flatten from behind": ("{y = Flatten <axis: int = -1> (x)}", {"outputs": "float[A,B] y"}, "axis=3"),
    "a convolution": (weights("2,4,3,3", 72) + "{y = Conv (x, w)}", {}, "kernel_shape=[3, 3]"),
    "one over three axes": (weights("2,4,1,1,1", 8) + "{y = Conv <kernel_shape: ints = [1,1,1]> (x, w)}",
                            {"inputs": "float[N,4,2,3,3] x", "outputs": "float[N,A,B,C,D] y"}, "strides=[1, 1, 1]"),
    "SAME with an even rest": (weights("2,4,3,3", 72) + '{y = Conv <auto_pad: string = "SAME_UPPER", kernel_shape: '
                               "ints = [3, 3]> (x, w)}", {"inputs": "float[N,4,H,W] x"},
                               "pads=[1, 1, 1, 1], no auto_pad"),
    "SAME with a rest above": (weights("2,4,2,2", 32) + '{y = Conv <auto_pad: string = "SAME_UPPER"> (x, w)}', {},
                               "kernel_shape=[2, 2], pads=[0, 0, 1, 1], no auto_pad"),
    "SAME with a rest below": (weights("2,4,2,2", 32) + '{y = Conv <auto_pad: string = "SAME_LOWER"> (x, w)}', {},
                               "kernel_shape=[2, 2], pads=[1, 1, 0, 0], no auto_pad"),
    "SAME in steps": ('{y = MaxPool <auto_pad: string = "SAME_LOWER", kernel_shape: ints = [3, 2], strides: ints = '
                      "[4, 2], ceil_mode: int = 1> (x)}", {}, "pads=[1, 0, 0, 0], no auto_pad, no ceil_mode"),
    "SAME of an average": ('{y = AveragePool <auto_pad: string = "SAME_LOWER", kernel_shape: ints = [2, 2]> (x)}', {},
                           "pads=[1, 1, 0, 0], no auto_pad"),
    "a transposed convolution": (weights("4,2,2,2", 32) + "{y = ConvTranspose <strides: ints = [2, 2]> (x, w)}", {},
                                 "kernel_shape=[2, 2]"),
    "a transposed SAME": (weights("4,1,4,4", 64) + '{y = ConvTranspose <strides: ints = [2, 2], auto_pad: string = '
                          '"SAME_UPPER"> (x, w)}', {}, "kernel_shape=[4, 4], pads=[1, 1, 1, 1], no auto_pad"),
    "a grid": ("<float[1,1,2,2] g = {0.1, -0.5, 0.7, 0.9}> {y = GridSample <align_corners: int = 1> (x, g)}",
               {"inputs": "float[1,4,6,6] x"}, "mode=bilinear, padding_mode=zeros"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_written_out_and_answers_the_same(bench, case):
    body, how, said = CASES[case]
    fixed = bench.promises(bench.text(body, **{**ANY, **how}), "plain-attributes")
    assert fixed.changes[0].what == f"written out: {said}"


OPEN = {"inputs": "float[N,4,H,W] x", **ANY}
LEFT = {
    "of unknown rank": ('{z = com.acme.Thing(x) y = Transpose(z)}', "the rank of its input z is not known"),
    "a flatten of unknown rank": ("{z = com.acme.Thing(x) y = Flatten <axis: int = -2> (z)}",
                                  "the rank of its input z is not known"),
    "of unknown weight": ("{w = com.acme.Thing(x) y = Conv(x, w)}", "the shape of its weight w is not known"),
    "of unknown size": ('{y = MaxPool <auto_pad: string = "SAME_UPPER", kernel_shape: ints = [3, 3], strides: ints = '
                        "[2, 2]> (x)}", "the size of axis 2 of x is not known, and with it the pads of auto_pad SAME"),
    "of two minds": (weights("4,1,3,3", 36) + '{y = ConvTranspose <strides: ints = [2, 2], auto_pad: string = '
                     '"SAME_UPPER", kernel_shape: ints = [3, 3]> (x, w)}', "auto_pad SAME would take 1 along axis 2: "
                     "runtimes do not agree on which side"),
    "of a wanted shape": (weights("4,1,3,3", 36) + '{y = ConvTranspose <auto_pad: string = "SAME_UPPER", kernel_shape: '
                          "ints = [3, 3], output_shape: ints = [6, 6]> (x, w)}", "its output_shape decides the pads"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_not_known_is_left_alone(bench, case):
    body, reason = LEFT[case]
    path = bench.text(body, domains=', "com.acme": 1', **OPEN)
    assert bench.reason(path, "plain-attributes", check=False) == reason


def test_what_is_written_out_already_is_no_business_of_this_rule(bench):
    path = bench.text(weights("2,4,3,3", 72) + "{z = Transpose <perm: ints = [0, 1, 3, 2]> (x) "
                      "y = Conv <kernel_shape: ints = [3, 3], pads: ints = [1, 1, 1, 1]> (z, w)}", **ANY)
    fixed = bench.fix(path, rules=("plain-attributes",))
    assert (fixed.changes, fixed.left_alone) == ((), ())
