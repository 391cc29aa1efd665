"""Stable Diffusion: a pipeline of four sub-models and a scheduler, pictures drawn through any runtime.

``Pipeline.read(folder)`` takes what ``StableDiffusionPipeline.save_pretrained`` wrote; ``draw`` makes pictures with
starting noise that is the same for every runtime; ``pipeline.replaced(unet=quantized)`` exchanges a part.
"""

from __future__ import annotations

from kit.families.diffusion_alarms import Alarm
from kit.families.diffusion_drawing import StepSeen, draw, starting_noise
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_export import PipelineExported, PipelineExportOptions, export_pipeline
from kit.families.diffusion_pipeline import PARTS, Pipeline, open_parts
from kit.families.diffusion_schedulers import Sampler, Scheduler
from kit.families.diffusion_sd15 import BuildForecast, BuiltPipeline, sd15, sd15_forecast

__all__ = [
    "PARTS", "Alarm", "BuildForecast", "BuiltPipeline", "DrawOptions", "Drawn", "Pipeline", "PipelineExportOptions",
    "PipelineExported", "Sampler", "Scheduler", "StepSeen", "draw", "export_pipeline", "open_parts", "sd15",
    "sd15_forecast", "starting_noise",
]  # fmt: skip
