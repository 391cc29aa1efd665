"""Pipelines timed in turns: what the rows say, and what becomes of one that fails."""

import dataclasses

import numpy as np
import pytest
import sd_random

from kit import record
from kit.errors import BadInput, KitError
from kit.families import diffusion_resident
from kit.families.diffusion import (
    Pipeline,
    PipelineBenchmark,
    PipelineBenchmarkOptions,
    benchmark_pipelines,
)

QUICK = PipelineBenchmarkOptions(rounds=5, runs=1, pictures=2, steps=2, threads=1, pause_ms=0, resamples=100)


def pipelines():
    base = sd_random.pipeline()
    return {"ONNX Runtime": base, "OpenVINO": base.replaced(unet=(sd_random.onnx_parts()["unet"],
                                                                   {"runtime": "openvino"}))}


def test_rows_hold_what_was_measured(tmp_path):
    found = benchmark_pipelines(pipelines(), QUICK, prompts=sd_random.PROMPTS, conversion={"OpenVINO": 1.5},
                                runs=tmp_path)
    base, other = found.rows
    assert (base.name, other.name) == ("ONNX Runtime", "OpenVINO")
    for row in found.rows:
        assert row.step.p50_ms > 0
        assert row.picture.p50_ms > row.step.p50_ms
        assert row.memory_of_all > row.memory > 10e6
        assert not row.failed
    assert base.step.speedup == 1
    assert other.conversion == 1.5
    assert base.conversion is None
    assert other.psnr > 60
    assert base.psnr is None
    assert found.row("OpenVINO") is other
    assert "OpenVINO" in found.title()
    (tmp_path / "kept").mkdir()
    record.save(found, tmp_path / "kept")
    assert record.load(PipelineBenchmark, tmp_path / "kept") == found


def test_a_pipeline_that_cannot_be_opened_is_a_row_with_its_reason(tmp_path):
    parts = pipelines()
    parts["broken"] = parts["OpenVINO"].replaced(unet=sd_random.onnx_parts()["vae_decoder"])
    found = benchmark_pipelines(parts, dataclasses.replace(QUICK, pictures=0), prompts=sd_random.PROMPTS,
                                runs=tmp_path)
    assert "takes latents" in found.row("broken").failed
    assert found.row("broken").step is None
    assert found.row("OpenVINO").step
    assert any("failed" in map(str, row) for row in found.tables()[0].rows)
    with pytest.raises(KitError, match="takes latents"):
        benchmark_pipelines({"broken": parts["broken"]}, QUICK, prompts=sd_random.PROMPTS, runs=tmp_path)


def test_where_memory_is_short_the_baseline_is_in_every_group(tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion_resident, "opening_memory", lambda *_: 10**12)
    three = pipelines()
    three["again"] = three["OpenVINO"]
    found = benchmark_pipelines(three, dataclasses.replace(QUICK, pictures=0, compare=False), prompts=sd_random.PROMPTS,
                                runs=tmp_path)
    assert [row.group for row in found.rows] == [1, 1, 2]
    assert len(found.base_steps) == 2
    assert "2 groups" in found.facts()["groups"]
    assert found.drawn == 0
    assert all(row.psnr is None for row in found.rows)


def test_a_group_that_breaks_while_it_is_timed_does_not_take_the_others_with_it(tmp_path, monkeypatch):
    true, calls = diffusion_resident.Resident.time, []

    def breaks(self, feed, runs):
        calls.append(self.name)
        if self.name == "OpenVINO" or always:
            raise KitError("The worker was killed.", remedy="close other programs")
        return true(self, feed, runs)

    monkeypatch.setattr(diffusion_resident, "opening_memory", lambda *_: 10**12)
    monkeypatch.setattr(diffusion_resident.Resident, "time", breaks)
    three, always = pipelines(), False
    three["again"] = three["OpenVINO"]
    found = benchmark_pipelines(three, dataclasses.replace(QUICK, pictures=0, compare=False), prompts=sd_random.PROMPTS,
                                runs=tmp_path)
    assert "could not be timed: The worker was killed" in found.row("OpenVINO").failed
    assert found.row("again").step
    always = True
    with pytest.raises(KitError, match="worker was killed"):
        benchmark_pipelines(three, dataclasses.replace(QUICK, pictures=0, compare=False, repeat=1),
                            prompts=sd_random.PROMPTS, runs=tmp_path)


def test_a_picture_drawn_for_the_clock_is_the_picture_that_draw_draws():
    from kit.families.diffusion import DrawOptions, draw

    pipeline, options = sd_random.pipeline(), DrawOptions(steps=2, threads=1)
    with diffusion_resident.Resident("a", pipeline, options, whole=True) as resident:
        shown = np.clip(resident.picture(sd_random.PROMPTS[0]) / 2 + 0.5, 0, 1).transpose(1, 2, 0)
    np.testing.assert_allclose(shown, draw(pipeline, sd_random.PROMPTS[:1], options).pictures[0], atol=1e-5)


def test_names_that_are_no_pipeline_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no pipeline named 'OpenVINOO'"):
        benchmark_pipelines(pipelines(), QUICK, prompts=sd_random.PROMPTS, conversion={"OpenVINOO": 1}, runs=tmp_path)
    with pytest.raises(BadInput, match="no pipelines"):
        benchmark_pipelines({}, QUICK, prompts=sd_random.PROMPTS, runs=tmp_path)
    assert Pipeline.read(sd_random.folder()).name
