"""Time and peak memory of calibration against the bare FP32 pass and ONNX Runtime's calibrators.

    python benchmarks/calibration.py MODEL.onnx SAMPLES.npy [--images 100] [--rounds 3] [--cap 12]

SAMPLES.npy holds float32 [n, 3, h, w], prepared as the model takes it; it is mapped, not read. Every way runs in a
fresh process, the ways take turns, and the medians count. Memory is the highest resident set of the process; one that
takes more than ``--cap`` GB of address space is ended. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WAYS = ("bare pass", "ours", "ours, min-max", "ORT MinMax", "ORT Percentile")


class Mapped(Sequence):
    """Feeds out of a mapped array, repeated with one value changed when more are asked for than there are."""

    def __init__(self, array: np.ndarray, name: str, count: int) -> None:
        self.array, self.name, self.count = array, name, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at):
        """A feed, or the first ones for a slice."""
        if isinstance(at, slice):
            return Mapped(self.array, self.name, len(range(*at.indices(self.count))))
        if at >= self.count:
            raise IndexError(at)
        values = np.array(self.array[at % len(self.array)][None])
        values.flat[0] += at // len(self.array)
        return {self.name: values}


def one(way: str, model: str, samples: str, images: int) -> dict[str, float]:
    """Run one way in this process; seconds and bytes."""
    import onnxruntime as ort

    import kit

    feeds = Mapped(np.load(samples, mmap_mode="r"), kit.Model.open(model).inputs[0].name, images)
    with tempfile.TemporaryDirectory() as scratch:
        if way.startswith("ours"):
            options = kit.CalibrateOptions(samples=images, histograms="min-max" not in way)
        began = time.perf_counter()
        if way == "bare pass":
            options = ort.SessionOptions()
            options.intra_op_num_threads = 2
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            for at in range(images):
                session.run(None, feeds[at])
        elif way.startswith("ours"):
            kit.calibrate(model, feeds, options, runs=scratch)
        else:
            from onnxruntime.quantization import CalibrationMethod, create_calibrator

            method = CalibrationMethod.MinMax if way == "ORT MinMax" else CalibrationMethod.Percentile
            calibrator = create_calibrator(model, augmented_model_path=f"{scratch}/grown.onnx",
                                           calibrate_method=method)
            calibrator.set_execution_providers(["CPUExecutionProvider"])
            rest = (feeds[at] for at in range(images))
            calibrator.collect_data(type("Reader", (), {"get_next": lambda self: next(rest, None)})())
            calibrator.compute_data()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", type=float, default=12.0, help="GB of address space")
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        resource.setrlimit(resource.RLIMIT_AS, (int(asked.cap * 1e9),) * 2)
        print(json.dumps(one(asked.one, asked.model, asked.samples, asked.images)))
        return
    found: dict[str, list[dict]] = {way: [] for way in asked.ways}
    for _ in range(asked.rounds):
        for way in asked.ways:
            done = subprocess.run([sys.executable, __file__, asked.model, asked.samples, "--images", str(asked.images),
                                   "--cap", str(asked.cap), "--one", way], capture_output=True, text=True)
            if done.returncode == 0:
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
    base = found[asked.ways[0]]
    print(f"\n**{Path(asked.model).name}, {asked.images} images, {asked.rounds} rounds**\n")
    print("| way | s | against the first | peak MB | against the first |\n|---|--:|--:|--:|--:|")
    for way, runs in found.items():
        if not runs or not base:
            print(f"| {way} | ended at {asked.cap:g} GB or failed | | | |")
            continue
        seconds, memory = (statistics.median(run[key] for run in runs) for key in ("seconds", "memory"))
        first = [statistics.median(run[key] for run in base) for key in ("seconds", "memory")]
        print(f"| {way} | {seconds:.2f} | {seconds / first[0]:.2f} | {memory / 1e6:.0f} | {memory / first[1]:.2f} |")


if __name__ == "__main__":
    main()
