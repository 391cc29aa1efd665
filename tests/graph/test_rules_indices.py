"""GatherND without batch_dims, ScatterND without a reduction."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("data", "indices", "batch", "outputs"), [
    ("float[2,5,3] x", "int64[2,4,1] i", 1, "float[2,4,3] y"), ("float[2,3,5] x", "int64[2,3,1] i", 2, "float[2,3] y"),
    ("float[2,5,3] x", "int64[2,2] i", 1, "float[2] y")])
def test_batch_dims_become_constant_columns(bench, data, indices, batch, outputs):
    path = bench.text(f"{{ y = GatherND <batch_dims: int = {batch}> (x, i) }}", inputs=f"{data}, {indices}",
                      outputs=outputs)
    shapes = {text.split()[1]: [int(size) for size in text.split("[")[1].split("]")[0].split(",")]
              for text in (data, indices)}
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal(shapes["x"]).astype(np.float32),
              "i": random.integers(0, 3, shapes["i"])} for _ in range(3)]
    fixed = bench.fix(path, rules=("plain-gathernd",), samples=feeds)
    assert fixed.changes[0].what == f"batch_dims={batch} became {batch} constant columns of its indices"
    assert fixed.operators_after == {"Concat": 1, "GatherND": 1}
    assert max(row.max_abs for row in fixed.parity) == 0
    assert bench.fix(fixed.model.path, rules=("plain-gathernd",), samples=feeds).changes == ()


def test_batch_dims_over_indices_of_open_size_are_left_alone(bench):
    path = bench.text("{ y = GatherND <batch_dims: int = 1> (x, i) }", inputs="float[N,5,3] x, int64[N,4,1] i",
                      outputs="float[N,4,3] y")
    assert bench.reason(path, "plain-gathernd") == "the sizes of its indices i are not known: fix the input shapes"


SCATTER = {"inputs": "float[4,3] x, float[2,3] u", "outputs": "float[4,3] y", "opset": 18}


@pytest.mark.parametrize("reduction", ["mul", "add", "max", "min"])
def test_a_reduction_over_places_of_its_own_is_done_before(bench, reduction):
    path = bench.text(f'<int64[2,1] i = {{3, -4}}> {{ y = ScatterND <reduction: string = "{reduction}"> (x, i, u) }}',
                      **SCATTER)
    fixed = bench.promises(path, "plain-scatternd")
    assert fixed.operators_after == {"GatherND": 1, reduction.title(): 1, "ScatterND": 1}


@pytest.mark.parametrize(("body", "inputs", "said"), [
    ("<int64[2,1] i = {1, 1}> {", "float[4,3] x, float[2,3] u", "a place comes twice in its indices"),
    ("<int64[2,1] i = {3, -1}> {", "float[4,3] x, float[2,3] u", "a place comes twice in its indices"),
    ("<int64[2,1] i = {0, -1}> {", "float[N,3] x, float[2,3] u",
     "the sizes of x are not known, so that a place counted from behind may come twice"),
    ("{", "float[4,3] x, float[2,3] u, int64[2,1] i",
     "its indices i are computed at run time, and a place may come twice")])
def test_a_reduction_over_places_that_may_come_twice_is_left_alone(bench, body, inputs, said):
    path = bench.text(body + ' y = ScatterND <reduction: string = "mul"> (x, i, u) }', inputs=inputs,
                      outputs="float[N,3] y", opset=18)
    assert bench.reason(path, "plain-scatternd") == said
