"""A folder's parts as ONNX, and the pipeline they make: against diffusers' own pictures."""

import numpy as np
import pytest
import sd_random

from kit import record
from kit.errors import BadInput
from kit.families.diffusion import (
    PARTS,
    DrawOptions,
    PipelineExported,
    PipelineExportOptions,
    draw,
    export_pipeline,
    open_parts,
    starting_noise,
)
from kit.families.diffusion_pipeline import ask


@pytest.mark.parametrize("exporter", ["dynamo", "classic"])
def test_exported_parts_draw_what_diffusers_draws(tmp_path, exporter):
    options = PipelineExportOptions(exporter=exporter, compare=exporter == "dynamo")
    exported = export_pipeline(sd_random.folder(half=True), options, runs=tmp_path / "runs")
    assert exported
    assert tuple(exported.exported) == PARTS
    for part in exported.exported.values():
        assert part.memory_forecast > 0
        assert part.memory_peak > 0
    pipeline = exported.pipeline
    noise = starting_noise(pipeline, 2, seed=1)
    drawn = draw(pipeline, sd_random.PROMPTS, DrawOptions(steps=5, guidance=5), latents=noise)
    pictures, _ = sd_random.worker().call(sd_random.diffusers_pictures, sd_random.folder(half=True), "pndm", noise, 5,
                                          5.0)
    assert np.abs(drawn.pictures - pictures).max() < 1e-4


def test_any_size_leaves_height_and_width_free(tmp_path):
    options = PipelineExportOptions(parts=("vae_decoder",), any_size=True, compare=False)
    exported = export_pipeline(sd_random.folder(), options, runs=tmp_path / "runs")
    with open_parts(exported.pipeline, ("vae_decoder",)) as parts:
        latents = np.zeros((1, 4, 4, 12), np.float32)
        assert ask(parts["vae_decoder"], "vae_decoder", {"latents": latents}).shape == (1, 3, 16, 48)
    record.save(exported, tmp_path)
    assert record.load(PipelineExported, tmp_path).options == options


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="no part named 'vae'"):
        PipelineExportOptions(parts=("vae",))
