"""A forecast by the figures of a chip: what each layer waits for, who says so, and that nothing is measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_graphs import line, node

from kit.errors import BadInput, UnsupportedModel
from kit.inspection.graph import graph_of
from kit.rooflines import RooflineOptions, padded, roofline
from kit.targets.ascend import chips, facts
from kit.targets.ascend.speed import speed

ONES = np.ones


def conv(path, into=64, out=64, size=56, group=1, kernel=3):
    return line(path, node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4, group=group), shape=(1, into, size, size),
                weights={"w": ONES((out, into // group, kernel, kernel), np.float32)})


def only(made):
    (layer,) = made.layers
    return layer


def test_the_figures_of_a_convolution_can_be_checked_by_hand(tmp_path):
    made = roofline(conv(tmp_path / "m.onnx"), "ascend310p3", RooflineOptions(bandwidth=100))
    layer = only(made)
    macs = 56 * 56 * 64 * 64 * 9
    assert layer.macs == layer.padded_macs == macs
    assert layer.cube_us == pytest.approx(macs / (8 * 4096 * 1060e6) * 1e6)
    moved = 2 * (2 * 64 * 56 * 56 + 64 * 64 * 9)  # both tensors and the weights in float16
    assert layer.bytes == moved
    assert layer.memory_us == pytest.approx(moved / 100e9 * 1e6)
    assert layer.us == max(layer.cube_us, layer.memory_us)
    assert layer.limit == "memory"
    assert made.ms == pytest.approx(layer.us / 1000)


def test_it_is_labelled_a_forecast_wherever_it_is_seen(tiny_onnx):
    made = roofline(tiny_onnx, "ascend310p3")
    assert made.kind == "forecast"
    assert made.title().startswith("FORECAST, not measured")
    assert "not measured" in made.tables()[0].caption
    assert "nothing was run" in made.facts()["fine print"]
    assert "FORECAST" in made.html()


def test_more_arithmetic_for_each_byte_waits_for_the_matrix_units(tmp_path):
    layer = only(roofline(conv(tmp_path / "m.onnx", 512, 512, 28), "ascend310p3", RooflineOptions(bandwidth=10_000)))
    assert layer.limit == "cube"
    small = only(roofline(conv(tmp_path / "n.onnx", 512, 512, 28), "ascend310p3", RooflineOptions(bandwidth=1)))
    assert small.limit == "memory"


def test_a_chain_of_functions_waits_for_the_vector_units(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("Mish", ["a"], ["b"]), node("Relu", ["b"], ["y"]),
                opset=18, shape=(1, 64, 56, 56))
    made = roofline(path, "ascend310p3", RooflineOptions(bandwidth=100_000, fuse=False))
    middle = next(layer for layer in made.layers if layer.operator == "Mish")
    assert middle.operations == 4 * 64 * 56 * 56
    assert middle.vector_us == pytest.approx(middle.operations / (128 * (8 * 1060e6 + 7 * 1000e6)) * 1e6)


def test_int8_has_twice_the_products_and_half_the_bytes(tmp_path):
    path = conv(tmp_path / "m.onnx")
    half, byte = (only(roofline(path, "ascend310p3", RooflineOptions(precision=p))) for p in ("fp16", "int8"))
    assert byte.cube_us == pytest.approx(half.cube_us / 2)
    assert byte.bytes * 2 == half.bytes


def test_an_activation_behind_a_convolution_costs_no_trip_through_the_memory(tmp_path):
    path = line(tmp_path / "m.onnx", node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"]), shape=(1, 16, 32, 32),
                weights={"w": ONES((16, 16, 1, 1), np.float32)})
    together = roofline(path, "ascend310p3")
    apart = roofline(path, "ascend310p3", RooflineOptions(fuse=False))
    assert [layer.operator for layer in together.layers] == ["Conv+Relu"]
    assert [layer.operator for layer in apart.layers] == ["Conv", "Relu"]
    tensor = 2 * 16 * 32 * 32
    assert together.layers[0].bytes + together.layers[0].cached == 2 * tensor + 2 * 16 * 16
    assert sum(layer.bytes + layer.cached for layer in apart.layers) == 4 * tensor + 2 * 16 * 16


def test_what_fits_into_l2_goes_through_it_but_not_inputs_outputs_and_weights(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["b"]), node("Relu", ["b"], ["y"]),
                shape=(1, 64, 64, 64))
    tensor = 2 * 64 * 64 * 64
    first, middle, last = roofline(path, "ascend310p3", RooflineOptions(fuse=False)).layers
    assert [(layer.bytes, layer.cached) for layer in (first, middle, last)] == [
        (tensor, tensor), (0, 2 * tensor), (tensor, tensor)]
    assert middle.limit == "L2"
    large = line(tmp_path / "n.onnx", node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["b"]),
                 node("Relu", ["b"], ["y"]), shape=(1, 64, 512, 512))
    assert all(layer.cached == 0 for layer in roofline(large, "ascend310p3", RooflineOptions(fuse=False)).layers)


def test_few_channels_are_counted_in_whole_blocks(tmp_path):
    three = conv(tmp_path / "m.onnx", 3, 8, 16)
    layer = only(roofline(three, "ascend310p3"))
    assert layer.padded_macs == 16 * 16 * (9 * 16) * 16  # 3 channels count 16, and so do 8
    assert only(roofline(three, "ascend310p3", RooflineOptions(padding=False))).padded_macs == layer.macs
    deep = only(roofline(conv(tmp_path / "n.onnx", 64, 64, 16, group=64), "ascend310p3"))
    assert deep.padded_macs == 16 * deep.macs, "a depthwise kernel uses one product of sixteen"


@pytest.mark.parametrize(("operator", "shape", "weight", "more", "wanted"), [
    ("MatMul", (1, 20), (20, 30), {}, 16 * 32 * 32), ("MatMul", (2, 5, 16), (16, 16), {}, 16 * 16 * 16),
    ("MatMul", (3, 16, 16), (3, 16, 16), {}, 3 * 16 * 16 * 16),
    ("Gemm", (4, 20), (30, 20), {"transB": 1}, 16 * 32 * 32),
    ("ConvTranspose", (1, 24, 8, 8), (24, 1, 2, 2), {"strides": [2, 2]}, 64 * 32 * 16)])
def test_matrix_products_are_counted_in_blocks(tmp_path, operator, shape, weight, more, wanted):
    path = line(tmp_path / "m.onnx", node(operator, ["x", "w"], ["y"], **more), shape=shape,
                weights={"w": ONES(weight, np.float32)})
    graph = graph_of(path)
    from kit.inspection.costs import cost

    assert padded(graph.nodes[0], cost(graph.nodes[0]).macs, (16, 16, 16)) == wanted


@given(into=st.integers(1, 40), out=st.integers(1, 40), size=st.integers(1, 9), kernel=st.sampled_from([1, 3]))
def test_blocks_never_count_less_than_the_products(tmp_path_factory, into, out, size, kernel):
    path = conv(tmp_path_factory.mktemp("m") / "m.onnx", into, out, size, kernel=kernel)
    layer = only(roofline(path, "ascend310p3"))
    assert layer.padded_macs >= layer.macs
    assert layer.us >= layer.cube_us > 0


def test_a_bandwidth_that_no_document_gives_is_not_made_up(tmp_path):
    path = conv(tmp_path / "m.onnx")
    made = roofline(path, "ascend310")
    assert made.speed.memory is None
    assert only(made).memory_us is None
    assert only(made).limit == "cube"
    assert "not known, so not in the forecast" in made.facts()["memory"]
    assert "give bandwidth" in made.facts()["memory"]
    given_one = roofline(path, "ascend310", RooflineOptions(bandwidth=51.2))
    assert given_one.facts()["memory"] == "51 GB/s: as given"
    assert only(given_one).memory_us > 0


def test_every_figure_has_its_source():
    rates = facts("rates")
    assert rates["checked"].startswith("2026")
    assert all(entry["source"] for part in ("families", "memory") for entry in rates[part].values())
    for name in chips():
        peaks = speed(name)
        assert all(peaks.sources.values())
        assert peaks.cube > 0
        assert 2 * peaks.cube / 1e12 == pytest.approx(chips()[name]["derived_fp16_cube_tflops"], abs=0.06)
    # 128 numbers x 48 cores x 1800 MHz: half of the 22.1 TFLOPS that a multiply-add counts.
    assert speed("ascend910b2").vector / 1e12 == pytest.approx(22.1 / 2, rel=1e-2)
    assert "Atlas 200I DK A2" in speed("Ascend310B4").sources["memory"]
    assert "press, not the vendor" in speed("ascend310p3").sources["memory"]
    assert "compiler's own figure" in speed("ascend910b3").sources["memory"]


def test_names_and_numbers_that_cannot_be_are_refused(tmp_path, tiny_onnx):
    with pytest.raises(BadInput, match="310p3x"):
        roofline(tiny_onnx, "ascend310p3x")
    with pytest.raises(UnsupportedModel, match="Nothing is known about the speed"):
        roofline(tiny_onnx, "ascend031")
    with pytest.raises(BadInput, match="bandwidth"):
        RooflineOptions(bandwidth=0)
    with pytest.raises(BadInput, match="precision"):
        RooflineOptions(precision="fp8")


def test_what_is_not_in_the_forecast_is_counted(tmp_path):
    path = line(tmp_path / "m.onnx", node("Frobnicate", ["x"], ["a"], domain="my.own"), node("Relu", ["a"], ["y"]),
                domains={"my.own": 1})
    made = roofline(path, "ascend310p3")
    assert made.layers == ()
    assert "2 nodes of unknown shape" in made.facts()["not in it"]


def test_a_transpose_that_only_changes_the_layout_still_costs_its_bytes(tmp_path):
    path = line(tmp_path / "m.onnx", node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
                node("Conv", ["t", "w"], ["y"]), shape=(1, 32, 32, 16), weights={"w": ONES((16, 16, 1, 1), np.float32)})
    first = roofline(path, "ascend310p3").layers[0]
    assert (first.operator, first.macs, first.operations) == ("Transpose", 0, 0)
    assert first.bytes + first.cached == 2 * 2 * 16 * 32 * 32
