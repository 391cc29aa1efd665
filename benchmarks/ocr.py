"""Latency of the OCR models, source framework against ONNX Runtime FP32 and INT8.

    python benchmarks/ocr.py [--rounds 40] [--threads 2] [--model receipts|ppocrv4] [--out runs/bench]

Every candidate runs in a process of its own; they take turns (A B A B ...), and what counts is the ratio of medians to
the first candidate with its bootstrap interval. On a shared machine absolute milliseconds mean little. The detector
runs at 640x640, the recogniser at 48x320, batch 1. Prints Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kit
from kit.families import ocr_models, ocr_tasks

SLIPS = ROOT / "data" / "receipts"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=ocr_models.NAMES, default="receipts")
    parser.add_argument("--out", type=Path, help="keep the results here; a temporary folder by default")
    asked = parser.parse_args()
    source = ocr_models.models(asked.model, ROOT / "data")
    with tempfile.TemporaryDirectory() as scratch:
        runs = asked.out or Path(scratch)
        for name, path, height, width in (("Detector", source.detector, 640, 640),
                                          ("Recogniser", source.recogniser, 48, 320)):
            measured = measure(name, path, (height, width), asked.rounds, asked.threads, runs)
            print(table(f"{name}, {height}x{width}, {asked.threads} threads", measured), flush=True)
    print(f"\n`import kit`: {import_time():.0f} ms, the best of 5")


def measure(name: str, path: Path, size: tuple[int, int], rounds: int, threads: int, runs: Path) -> kit.Benchmark:
    """Take one model from its source to INT8 and time the stages against each other."""
    cut = ocr_tasks.pages if name == "Detector" else ocr_tasks.lines
    limit = 24 if name == "Detector" else 160
    calibration = cut(SLIPS, "calibration", limit=limit)
    exported = kit.export(path, samples=calibration[:2], runs=runs)
    fixed = kit.fix(exported.model, kit.FixOptions(opset=17), samples=calibration[:2], runs=runs)
    measured = kit.calibrate(fixed.model, calibration, kit.CalibrateOptions(samples=limit), runs=runs)
    int8 = kit.compile(kit.quantize(fixed.model, measured, runs=runs).model, runs=runs)
    preprocess = kit.Preprocess(**{**vars(calibration.preprocess), "resize": "stretch", "size": size})
    feed = cut(SLIPS, "test", preprocess=preprocess, limit=1)
    first = "Paddle Inference" if path.is_dir() else "ONNX as it came"
    candidates = {first: path, "ONNX Runtime FP32": fixed, "ONNX Runtime INT8": int8}
    return kit.benchmark(candidates, feed, kit.BenchmarkOptions(rounds=rounds, threads=threads), runs=runs)


def table(title: str, measured: kit.Benchmark) -> str:
    """The figures as Markdown, alarms below."""
    lines = [f"\n**{title}**\n", "| candidate | p50 ms | p95 ms | against the first | peak memory MB | file MB |",
             "|---|--:|--:|---|--:|--:|"]
    lines += [f"| {t.name}{' (' + '; '.join(t.notes) + ')' if t.notes else ''} | {t.p50_ms:.2f} | {t.p95_ms:.2f} | "
              f"{t.words()} | {t.memory / 1e6:.0f} | {t.size / 1e6:.2f} |" for t in measured.timings]
    return "\n".join([*lines, *(f"- alarm: {alarm}" for alarm in measured.alarms)])


def import_time() -> float:
    """Milliseconds that ``import kit`` takes in a fresh interpreter, the best of five."""
    code = "import time; a = time.perf_counter(); import kit; print((time.perf_counter() - a) * 1e3)"
    return min(float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                                    check=True).stdout) for _ in range(5))


if __name__ == "__main__":
    main()
