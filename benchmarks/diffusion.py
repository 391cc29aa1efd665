"""Stable Diffusion moved from PyTorch: what the pictures lose, and what a step takes.

    python benchmarks/diffusion.py                the small pipeline: pictures, calibration, speed
    python benchmarks/diffusion.py --size sd15    SD 1.5's configuration with random weights: speed and memory of a step
    python benchmarks/diffusion.py --only pictures

``pictures``: each version of the UNet draws every test prompt from the same noise; PSNR against PyTorch, and whether a
judge reads what the prompt asks for. ``calibration``: the same for ways to choose calibration inputs, some seeds each.
``speed``: ``benchmark_pipelines``. SD 1.5 needs 20 GiB of memory, 16 GB of disk and the better part of an hour. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kit
from kit.families import diffusion
from kit.families.diffusion import UnetQuantizeOptions as How

SMALL = ROOT / "data" / "models" / "sd-tiny"
GUIDANCE = 4.0


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--only", choices=("pictures", "calibration", "speed"))
    parser.add_argument("--prompts", type=int, default=100, help="test prompts of the small pipeline")
    parser.add_argument("--seeds", type=int, default=5, help="of each way to choose calibration inputs")
    parser.add_argument("--inputs", type=int, nargs="+", default=[8, 20, 64], help="of the calibration, to choose")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "sd15", help="SD 1.5, or where to build it")
    parser.add_argument("--paths", nargs="*", help="sd15: which to time against PyTorch eager; all by default")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "benchmark-diffusion")
    asked = parser.parse_args()
    if asked.size == "sd15":
        full_size(asked)
        return
    small = Small(asked)
    for name in ("pictures", "calibration", "speed"):
        if asked.only in (None, name):
            print(f"\n## {name}\n", flush=True)
            getattr(small, name)()


class Small:
    """The pipeline in ``data/``."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.runs = asked, asked.runs
        self.torch = diffusion.Pipeline.read(SMALL).replaced("PyTorch")
        self.judge = diffusion.PictureJudge.read(SMALL)
        began = time.monotonic()
        self.exported = diffusion.export_pipeline(SMALL, diffusion.PipelineExportOptions(compare=False), runs=self.runs)
        self.export_seconds = time.monotonic() - began
        self.onnx = self.exported.pipeline.replaced("ONNX Runtime FP32")
        self.unet = kit.fix(self.exported.exported["unet"].model, runs=self.runs).model
        self.fused = self.onnx.replaced(unet=self.unet)
        self.openvino = on_openvino(self.onnx, "OpenVINO FP32")
        self.learning = unseen(self.judge)

    def calibrated(self, inputs: int = 64, choice: str = "stratified", seed: int = 0) -> kit.Calibration:
        """Of inputs chosen in one of the ways."""
        captured = diffusion.capture(self.onnx, self.learning[:8], diffusion.CaptureOptions(
            inputs=inputs, choice=choice, seed=seed, guidance=GUIDANCE), runs=self.runs)
        return kit.calibrate(self.unet, captured, runs=self.runs)

    def made(self, how: How, calibration: kit.Calibration | None) -> diffusion.Pipeline:
        """The pipeline with that UNet, all of it on one runtime."""
        base = self.openvino if how.runtime == "openvino" else self.onnx
        return base.replaced(unet=diffusion.quantize_unet(self.unet, calibration, how, runs=self.runs))

    def pictures(self) -> None:
        """Versions of the UNet by what they draw."""
        calibration, prompts = self.calibrated(), self.judge.prompts[: self.asked.prompts]
        draw = diffusion.DrawOptions(guidance=GUIDANCE)
        versions = {"ONNX Runtime FP32": self.onnx, "OpenVINO FP32": self.openvino}
        for runtime in ("onnxruntime", "openvino"):
            naive = How("full", runtime, method="minmax")
            versions |= {f"{runtime} naive (full, minmax)": self.made(naive, calibration),
                         f"{runtime} full, mse": self.made(How("full", runtime), calibration),
                         f"{runtime} hybrid": self.made(How("hybrid", runtime), calibration),
                         f"{runtime} hybrid, nothing spared": self.made(How("hybrid", runtime, spare=0), calibration),
                         f"{runtime} weights": self.made(How("weights", runtime), None)}
        compared = diffusion.compare_pictures(
            diffusion.draw(self.torch, prompts, draw),
            {name: diffusion.draw(pipeline, prompts, draw) for name, pipeline in versions.items()}, self.judge)
        table(("version", "PSNR dB", "interval", "worst", "SSIM", "judged right", "interval", "lost against PyTorch"), [
            (row.name, *row.psnr_of_all.cells(1), f"{row.ssim_of_all.median:.4f}", f"{row.accuracy:.3f}",
             "[{:.3f}, {:.3f}]".format(*row.interval), f"{row.change.loss:+.3f}" if row.change else "")
            for row in compared.rows])
        errors = diffusion.step_errors(self.onnx, versions["openvino hybrid"], None, draw, prompts=prompts[:8],
                                       runs=self.runs)
        print(f"\n{errors.title()}. {errors.facts()}")

    def calibration(self) -> None:
        """Ways to choose inputs, by the pictures that come of them."""
        prompts, draw, rows = self.judge.prompts[:24], diffusion.DrawOptions(guidance=GUIDANCE), []
        reference = diffusion.draw(self.torch, prompts, draw)
        choices = "stratified", "random", "first"
        for mode, inputs, choice in itertools.product(("hybrid", "full"), self.asked.inputs, choices):
            medians, worst = [], []
            for seed in range(1 if choice == "first" else self.asked.seeds):
                pipeline = self.made(How(mode, "openvino"), self.calibrated(inputs, choice, seed))
                drawn = diffusion.draw(pipeline, prompts, draw)
                row = diffusion.compare_pictures(reference, {"this": drawn}).row("this")
                medians.append(row.psnr_of_all.median)
                worst.append(row.psnr_of_all.worst)
            rows.append((mode, inputs, choice, len(medians), f"{np.mean(medians):.1f}", f"{min(medians):.1f}",
                         f"{max(medians):.1f}", f"{min(worst):.1f}"))
        table(("UNet", "inputs", "chosen", "seeds", "median PSNR, mean of the seeds", "lowest", "highest",
               "worst picture of all"), rows)

    def speed(self) -> None:
        """Steps and pictures in turns."""
        calibration = self.calibrated()
        torch = self.torch
        paths = {"PyTorch eager": torch, "torch.compile": compiled(torch), "ONNX Runtime FP32": self.onnx,
                 "ONNX Runtime FP32, fused": self.fused,
                 "ONNX Runtime INT8 hybrid": self.made(How("hybrid"), calibration), "OpenVINO FP32": self.openvino,
                 "OpenVINO INT8 hybrid": self.made(How("hybrid", "openvino"), calibration),
                 "OpenVINO INT8 weights": self.made(How("weights", "openvino"), None)}
        show(diffusion.benchmark_pipelines(
            paths, diffusion.PipelineBenchmarkOptions(rounds=self.asked.rounds, guidance=GUIDANCE),
            prompts=self.judge.prompts[:8], judge=self.judge, runs=self.runs))


def full_size(asked: argparse.Namespace) -> None:
    """The step of SD 1.5: 64 x 64 latents, a batch of two."""
    if not (asked.folder / "model_index.json").is_file():
        print(diffusion.sd15(asked.folder).title(), flush=True)
    torch = diffusion.Pipeline.read(asked.folder).replaced("PyTorch eager")
    exported = diffusion.export_pipeline(asked.folder, diffusion.PipelineExportOptions(compare=False), runs=asked.runs)
    print(exported.title(), flush=True)
    onnx = exported.pipeline.replaced("ONNX Runtime FP32")
    fixed = kit.fix(exported.exported["unet"].model, samples=None, runs=asked.runs)
    print(fixed.title(), flush=True)
    unet = fixed.model
    captured = diffusion.capture(onnx, ["a lighthouse at dusk"], diffusion.CaptureOptions(
        inputs=8, steps=4, bins=4), runs=asked.runs)
    calibration = kit.calibrate(unet, captured, kit.CalibrateOptions(probes=0), runs=asked.runs)
    print(calibration.title(), flush=True)
    openvino, seconds = on_openvino(onnx, "OpenVINO FP32"), exported.exported["unet"].seconds
    paths = {"PyTorch eager": torch, "torch.compile": compiled(torch), "ONNX Runtime FP32": onnx,
             "ONNX Runtime FP32, fused": onnx.replaced(unet=unet), "OpenVINO FP32": openvino}
    conversion = dict.fromkeys(("ONNX Runtime FP32", "OpenVINO FP32"), seconds)
    for name, mode, base in (("ONNX Runtime INT8 hybrid", "hybrid", onnx), ("OpenVINO INT8 hybrid", "hybrid", openvino),
                             ("OpenVINO INT8 weights", "weights", openvino)):
        runtime = "openvino" if base is openvino else "onnxruntime"
        made = diffusion.quantize_unet(unet, calibration, How(mode, runtime, method="minmax", spare=0), runs=asked.runs)
        print(made.title(), flush=True)
        paths[name], conversion[name] = base.replaced(unet=made), seconds + made.seconds
    paths = {name: path for name, path in paths.items() if name in (asked.paths or paths) or path is torch}
    conversion = {name: took for name, took in conversion.items() if name in paths}
    timing = diffusion.PipelineBenchmarkOptions(rounds=asked.rounds, runs=1, pictures=0, compare=False)
    show(diffusion.benchmark_pipelines(paths, timing, prompts=captured.prompts, conversion=conversion, runs=asked.runs))


def on_openvino(pipeline: diffusion.Pipeline, name: str) -> diffusion.Pipeline:
    """The same files, run by OpenVINO."""
    return pipeline.replaced(name, **{part: (pipeline.part(part)[0], {"runtime": "openvino"})
                                      for part in ("text_encoder", "unet", "vae_decoder")})


def compiled(pipeline: diffusion.Pipeline) -> diffusion.Pipeline:
    """The same in PyTorch, its UNet through ``torch.compile``."""
    return pipeline.replaced("torch.compile", unet=(pipeline.part("unet")[0], {"compiled": True}))


def unseen(judge: diffusion.PictureJudge) -> list[str]:
    """Prompts that are not among those judged, in an order by lot."""
    things = [f"a {colour} {shape}" for colour, shape in itertools.product(judge.colours, judge.shapes)]
    scenes = [f"{one} {where} {other}" for one, where, other in itertools.product(
        things, ("above", "below", "left of", "right of"), things) if one != other]
    return random.Random(0).sample([scene for scene in scenes if scene not in judge.prompts], 64)


def show(found: diffusion.PipelineBenchmark) -> None:
    """A benchmark as Markdown."""
    print(found.title(), "\n")
    for name, value in found.facts().items():
        print(f"- {name}: {value}")
    for shown in found.tables()[:2]:
        table(shown.columns, shown.rows)


def table(columns: tuple[str, ...], rows: list[tuple] | tuple) -> None:
    """A Markdown table."""
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
