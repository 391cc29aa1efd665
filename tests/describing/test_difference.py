"""Which nodes belong together, and what is said of those that do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_graphs import INT64, line, node

from kit.describing import difference as module
from kit.describing.result import DescribedNode, Port
from kit.description import describe


def named(operator, at):
    return DescribedNode(f"n{at}", operator, (), (Port(f"v{at}", "", "float32", (1,)),), {}, ())


def longest(left, right):
    """The textbook table, for comparison."""
    best = np.zeros((len(left) + 1, len(right) + 1), int)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            best[i + 1, j + 1] = best[i, j] + 1 if a == b else max(best[i, j + 1], best[i + 1, j])
    return best[-1, -1]


@pytest.mark.parametrize("small", [2, 64])
@given(left=st.lists(st.sampled_from("abc"), max_size=12), right=st.lists(st.sampled_from("abc"), max_size=12))
def test_pairs_are_a_longest_common_subsequence(left, right, small):
    module._SMALL, kept = small, module._SMALL
    try:
        pairs = module._align([named(o, at) for at, o in enumerate(left)], [named(o, at) for at, o in enumerate(right)])
    finally:
        module._SMALL = kept
    assert all(left[i] == right[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert len(pairs) == longest(left, right)


def nets(tmp_path, first, second, **weights):
    return [describe(line(tmp_path / f"{name}.onnx", *nodes, weights=weights))
            for name, nodes in (("left", first), ("right", second))]


def test_a_node_that_only_one_has_is_named_with_its_result(tmp_path):
    left, right = nets(tmp_path, [node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["y"])], [node("Relu", ["x"], ["y"])])
    found = left.diff(right)
    assert not found
    (one,) = found.of("operator")
    assert (one.left, one.right, one.operator) == ("n1", "", "tanh")
    assert one.what == "only in left.onnx: 1x4x8x8"


def test_the_same_nodes_wired_another_way_are_told(tmp_path):
    left, right = nets(
        tmp_path,
        [node("Relu", ["x"], ["a"]), node("Sigmoid", ["a"], ["b"]), node("Sub", ["a", "b"], ["y"])],
        [node("Relu", ["x"], ["a"]), node("Sigmoid", ["x"], ["b"]), node("Sub", ["a", "b"], ["y"])])
    found = left.diff(right)
    assert not found
    assert {d.kind for d in found.differences} == {"connection"}
    assert "reads n0 against in0" in [d.what for d in found.differences]


def test_another_constant_is_an_attribute_that_differs(tmp_path):
    left, right = nets(tmp_path, [node("Mul", ["x", "two"], ["y"])], [node("Mul", ["x", "three"], ["y"])],
                       two=np.float32(2), three=np.float32(3))
    (one,) = left.diff(right).differences
    assert (one.kind, one.what) == ("attribute", "constant 2 against 3")


def test_another_type_is_told(tmp_path):
    def net(name, kind):
        return describe(line(tmp_path / f"{name}.onnx", node("Cast", ["x"], ["y"], to=kind), result=kind))

    found = net("left", INT64).diff(net("right", 10))
    assert {d.kind for d in found.differences} == {"attribute", "dtype"}


def test_a_reshape_or_transpose_more_is_no_other_computation(tmp_path):
    left, right = nets(
        tmp_path, [node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["y"])],
        [node("Relu", ["x"], ["a"]), node("Reshape", ["a", "flat"], ["b"]), node("Reshape", ["b", "back"], ["c"]),
         node("Tanh", ["c"], ["y"])], flat=np.int64([1, 256]), back=np.int64([1, 4, 8, 8]))
    found = left.diff(right)
    assert found
    assert [d.kind for d in found.differences] == ["layout", "layout"]


def test_nothing_differs_from_itself(tiny_onnx):
    made = describe(tiny_onnx)
    found = made.diff(made)
    assert found.differences == ()
    assert found.title() == "tiny.onnx and tiny.onnx: the same net"
    assert not found.tables()
