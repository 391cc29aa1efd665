"""MaxPool without indices, and pools over a whole input."""

from __future__ import annotations

import pytest


def test_indices_of_a_pool_that_nothing_reads_are_dropped(bench):
    path = bench.text("{ y, i = MaxPool <kernel_shape: ints = [2, 2], storage_order: int = 1> (x) }",
                      outputs="float[N,4,5,5] y")
    assert bench.promises(path, "plain-maxpool").changes[0].what == "the indices that nothing reads are gone"


def test_the_order_of_indices_that_are_not_there_is_dropped(bench):
    path = bench.text("{ y = MaxPool <kernel_shape: ints = [2, 2], storage_order: int = 1> (x) }",
                      outputs="float[N,4,5,5] y")
    bench.promises(path, "plain-maxpool")


def test_indices_of_a_pool_that_are_read_are_left_alone(bench):
    path = bench.text("{ y, i = MaxPool <kernel_shape: ints = [2, 2]> (x) }",
                      outputs="float[N,4,5,5] y, int64[N,4,5,5] i")
    assert bench.reason(path, "plain-maxpool") == (
        "its indices i are read, and no rule can give them: cut the model there")


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_a_large_pool_over_the_whole_input_is_global(bench, kind):
    path = bench.text(f"{{ y = {kind} <kernel_shape: ints = [16, 17], strides: ints = [3, 3]> (x) }}",
                      inputs="float[N,4,16,17] x", outputs="float[N,4,1,1] y")
    fixed = bench.promises(path, "global-pool")
    assert fixed.operators_after == {f"Global{kind}": 1}


@pytest.mark.parametrize(("how", "inputs", "said"), [
    ("kernel_shape: ints = [16, 17]", "float[N,4,H,17] x", "the size of x is not known: fix the input shapes"),
    ("kernel_shape: ints = [16, 17]", "float[N,4,20,17] x",
     "its kernel [16, 17] is not the whole of [20, 17], and no rule splits it"),
    ("kernel_shape: ints = [16, 17], pads: ints = [1, 0, 0, 0]", "float[N,4,16,17] x",
     "its kernel [16, 17] is not the whole of [16, 17], and no rule splits it")])
def test_a_large_pool_over_a_part_is_left_alone(bench, how, inputs, said):
    path = bench.text(f"{{ y = AveragePool <{how}> (x) }}", inputs=inputs, outputs="float[N,4,A,B] y")
    assert bench.reason(path, "global-pool") == said


def test_a_small_pool_is_no_business_of_the_rule(bench):
    path = bench.text("{ y = AveragePool <kernel_shape: ints = [6, 6]> (x) }", outputs="float[N,4,1,1] y")
    fixed = bench.fix(path, rules=("global-pool",))
    assert (fixed.changes, fixed.left_alone) == ((), ())
