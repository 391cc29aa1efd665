"""Sizes read from the arithmetic that computes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.graph.files import open_graph
from kit.graph.sizes import elements, number, sizes

HEAD = "<int64[1] none={-1}, int64[1] four={4}, int64 last={2}, int64 heads={4}, int64[1] zero={0}, int64 first={0}, " \
       "float one={1.0}, int64[1] one1={1}, int64[1] two={2}, int64[1] far={9223372036854775807}> "


def values(bench, body: str, inputs: str = "float[N,6,48] x", outputs: str = "float[A,B,C,D] y") -> dict:
    graph = open_graph(bench.text(HEAD + body, inputs=inputs, outputs=outputs)).graph
    return {value.name: value for node in graph for value in node.outputs}


def test_the_target_of_a_reshape_as_the_classic_exporter_computes_it(bench):
    found = values(bench, "{s = Shape(x) c = Gather(s, last) w = Div(c, heads) wu = Unsqueeze(w, zero) "
                          "n = Gather(s, first) nu = Unsqueeze(n, zero) t = Concat<axis=0>(nu, none, four, wu) "
                          "y = Reshape(x, t)}")
    assert elements(found["t"]) == ["N", -1, 4, 12]
    assert sizes(found["y"]) == ["N", 6, 4, 12]  # N on both sides cancels out


def test_a_scale_that_is_computed_from_the_last_size(bench):
    found = values(bench, "{s = Shape(x) l = Slice(s, two, far) f = Cast<to=1>(l) r = Sqrt(f) d = Div(one, r) "
                          "y = Mul(x, d)}", outputs="float[N,6,48] y")
    assert number(found["d"]) == pytest.approx(48 ** -0.5)
    assert elements(found["l"]) == [48]


def test_a_quotient_of_floats_is_not_cut_off(bench):
    found = values(bench, "{s = Shape(x) f = Cast<to=1>(s) l = Slice(f, two, far) m = Slice(f, one1, two) "
                          "d = Div(m, l) i = Cast<to=7>(d) g = Cast<to=1>(i) y = Mul(x, g)}",
                   outputs="float[N,6,48] y")
    assert elements(found["d"]) == [6 / 48]
    assert elements(found["i"]) == [0]


def test_what_is_not_known_stays_unknown(bench):
    found = values(bench, "{s = Shape(x) n = Gather(s, first) m = Mul(n, heads) k = Cast<to=7>(x) y = Reshape(x, k)}",
                   inputs="float[N] x", outputs="float[A,B] y")
    assert elements(found["m"]) == [None]  # four times N is neither a number nor N
    assert number(found["m"]) is None
    assert elements(found["k"]) is None


def test_a_transpose_moves_names_along(bench):
    found = values(bench, "{t = Transpose<perm=[1,0,2]>(x) s = Shape<start=1>(t) y = Identity(t)}",
                   outputs="float[B,N,C] y")
    assert sizes(found["t"]) == [6, "N", 48]
    assert elements(found["s"]) == ["N", 48]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_reshape_is_read_as_numpy_does_it(shape, data):
    import numpy as np
    import onnx_ir as ir

    whole = int(np.prod(shape))
    first = data.draw(st.sampled_from([size for size in range(1, whole + 1) if whole % size == 0]))
    target = np.int64(data.draw(st.sampled_from([[first, -1], [-1, first], [0, -1], [whole]])))
    source = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    wanted = ir.Value(name="t", const_value=ir.tensor(target))
    made = ir.node("Reshape", [source, wanted]).outputs[0]
    copied = [shape[at] if size == 0 else int(size) for at, size in enumerate(target)]
    assert sizes(made) == list(np.empty(shape).reshape(copied).shape)
