"""Stable Diffusion: a pipeline of four sub-models and a scheduler, pictures drawn through any runtime.

``Pipeline.read(folder)`` takes what ``StableDiffusionPipeline.save_pretrained`` wrote; ``draw`` makes pictures with
starting noise that is the same for every runtime; ``pipeline.replaced(unet=quantized)`` exchanges a part.
"""

from __future__ import annotations

from kit.families.diffusion_alarms import Alarm
from kit.families.diffusion_benchmark import benchmark_pipelines
from kit.families.diffusion_benchmarked import PipelineBenchmark, PipelineBenchmarkOptions, PipelineRow
from kit.families.diffusion_box_results import PipelineBoxResults, read_pipeline_results, rehearse_pipeline
from kit.families.diffusion_bundle import bundle_pipeline
from kit.families.diffusion_bundled import PipelineBundle, PipelineBundleOptions
from kit.families.diffusion_capture import Captured, CaptureOptions, capture
from kit.families.diffusion_drawing import StepSeen, draw, starting_noise
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_export import PipelineExported, PipelineExportOptions, export_pipeline
from kit.families.diffusion_judge import PictureJudge
from kit.families.diffusion_parts import PartsVerdict, verify_parts
from kit.families.diffusion_pictures import PictureComparison, PictureOptions, compare_pictures
from kit.families.diffusion_pipeline import PARTS, Pipeline, open_parts
from kit.families.diffusion_quantize import UnetQuantized, UnetQuantizeOptions, quantize_unet
from kit.families.diffusion_ranges import LayerRanges, RangesByTimestep, range_by_timestep
from kit.families.diffusion_schedulers import Sampler, Scheduler
from kit.families.diffusion_sd15 import BuildForecast, BuiltPipeline, sd15, sd15_forecast
from kit.families.diffusion_steps import StepErrors, step_errors

__all__ = [
    "PARTS", "Alarm", "BuildForecast", "BuiltPipeline", "CaptureOptions", "Captured", "DrawOptions", "Drawn",
    "LayerRanges", "PartsVerdict", "PictureComparison", "PictureJudge", "PictureOptions", "Pipeline",
    "PipelineBenchmark", "PipelineBenchmarkOptions", "PipelineBoxResults", "PipelineBundle",
    "PipelineBundleOptions", "PipelineExportOptions", "PipelineExported", "PipelineRow", "RangesByTimestep",
    "Sampler", "Scheduler", "StepErrors", "StepSeen", "UnetQuantizeOptions", "UnetQuantized", "benchmark_pipelines",
    "bundle_pipeline", "capture", "compare_pictures", "draw", "export_pipeline", "open_parts", "quantize_unet",
    "range_by_timestep", "read_pipeline_results", "rehearse_pipeline", "sd15", "sd15_forecast", "starting_noise",
    "step_errors", "verify_parts",
]  # fmt: skip
