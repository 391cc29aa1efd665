"""A UNet in 8 bits: hybrid, weights alone, everything."""

import functools
import tempfile
from collections import Counter

import numpy as np
import pytest
import sd_random

from kit.errors import BadInput, StaleResult
from kit.families.diffusion import (
    CaptureOptions,
    DrawOptions,
    UnetQuantizeOptions,
    capture,
    draw,
    open_parts,
    quantize_unet,
    range_by_timestep,
)
from kit.families.diffusion_pipeline import ask
from kit.families.diffusion_quantize import block_of
from kit.graph import fix
from kit.int8.noise import decibels
from kit.model import read


@functools.cache
def prepared():
    runs = tempfile.mkdtemp(prefix="kit-test-")
    captured = capture(sd_random.pipeline(), sd_random.PROMPTS, CaptureOptions(
        inputs=12, steps=4, bins=2, threads=1), runs=runs)
    return runs, captured, range_by_timestep(sd_random.onnx_parts()["unet"], captured, runs=runs).calibration


def quantized(**options):
    runs, _, calibration = prepared()
    return quantize_unet(sd_random.onnx_parts()["unet"], calibration, UnetQuantizeOptions(**options), runs=runs)


def settings(found):
    return {node.node: node.setting for node in found.nodes if node.weights}


def sqnr(found) -> float:
    _, captured, _ = prepared()
    pipeline, noise, signal = sd_random.pipeline(), 0.0, 0.0
    with open_parts(pipeline, ("unet",)) as left, open_parts(pipeline.replaced(unet=found), ("unet",)) as right:
        for at in range(len(captured)):
            true, other = (ask(parts["unet"], "unet", captured[at]) for parts in (left, right))
            noise, signal = noise + float(np.square(true - other).sum()), signal + float(np.square(true).sum())
    return decibels(noise / signal)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_hybrid_has_bytes_where_it_says_and_draws(runtime):
    found = quantized(runtime=runtime, spare=0)
    kinds = settings(found)
    for node, setting in kinds.items():
        edge = any(name in node for name in ("conv_in", "conv_out", "time_embedding"))
        inside = any(name in node for name in ("resnets", "samplers")) and node.endswith("Conv")
        if edge:
            assert setting == "float", node
        if inside and not edge:
            assert setting == "INT8", node
        if "attn" in node and node.endswith("MatMul"):
            assert setting == "INT8 weights", node
    assert found.size_after < 0.6 * found.size_before
    assert sqnr(found) > 20
    drawn = draw(sd_random.pipeline().replaced(unet=found), sd_random.PROMPTS, DrawOptions(steps=3, threads=1))
    assert not drawn.alarms
    assert "hybrid" in found.title()


def test_fused_attention_is_advised_for_onnx_runtime_and_costs_no_layer_its_bytes():
    runs, captured, _ = prepared()
    apart = quantized(spare=0)
    assert any("kit.fix" in note for note in apart.notes)
    assert not any("kit.fix" in note for note in quantized(spare=0, runtime="openvino").notes)
    fused = fix(sd_random.onnx_parts()["unet"], runs=runs).model
    assert any(node.op_type == "MultiHeadAttention" for node in read(fused.path).graph.node)
    found = quantize_unet(fused, range_by_timestep(fused, captured, runs=runs).calibration,
                          UnetQuantizeOptions(spare=0), runs=runs)
    assert Counter(settings(found).values()) == Counter(settings(apart).values())
    assert not found.notes
    assert sqnr(found) > 20


def test_sparing_the_dearest_brings_the_output_nearer_to_float():
    without, spared = quantized(spare=0), quantized(spare=0.7)
    assert not without.spared
    assert spared.spared
    assert all(settings(spared)[name] != "INT8" for name in spared.spared)
    assert sqnr(spared) > sqnr(without)


def test_modes_are_ordered_by_how_near_they_stay():
    full, hybrid, weights = (quantized(mode=mode, runtime="openvino") for mode in ("full", "hybrid", "weights"))
    assert sqnr(full) < sqnr(hybrid) < sqnr(weights)
    assert "INT8" not in settings(weights).values()
    convolutions = {node.node for node in weights.nodes if node.operator == "Conv"}
    stored = {name for name in convolutions if settings(weights).get(name) == "INT8 weights"}
    assert len(stored) == len(convolutions) - 2  # all but the first and the last
    assert "INT8 weights" not in {settings(quantized(mode="weights"))[name] for name in convolutions}


def test_only_the_blocks_asked_for_compute_in_int8():
    found = quantized(blocks=("down_blocks.0/resnets.0",), spare=0)
    inside = {name for name, setting in settings(found).items() if setting == "INT8"}
    assert inside
    assert {block_of(name) for name in inside} == {"down_blocks.0/resnets.0"}
    assert any(row[0] == "down_blocks.0/resnets.0" for row in found.tables()[0].rows)
    with pytest.raises(BadInput, match=r"no block named 'down_blocks.0/resnet'") as caught:
        quantized(blocks=("down_blocks.0/resnet",))
    assert "down_blocks.0/resnets.0" in caught.value.remedy


def test_without_calibration_only_weights_can_be_stored(tmp_path):
    with pytest.raises(BadInput, match="no calibration"):
        quantize_unet(sd_random.onnx_parts()["unet"], runs=tmp_path)
    found = quantize_unet(sd_random.onnx_parts()["unet"], None, UnetQuantizeOptions(mode="weights"), runs=tmp_path)
    assert not any(node.op_type == "QuantizeLinear" for node in read(found.model.path).graph.node)


def test_a_calibration_of_another_model_is_refused(tmp_path):
    runs, _, calibration = prepared()
    with pytest.raises(StaleResult):
        quantize_unet(sd_random.onnx_parts()["vae_decoder"], calibration, UnetQuantizeOptions(mode="full"), runs=runs)
