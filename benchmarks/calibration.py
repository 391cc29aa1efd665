"""Time and peak memory of calibration against the bare FP32 pass and ONNX Runtime's calibrators.

    python benchmarks/calibration.py MODEL.onnx SAMPLES.npy [--images 100] [--rounds 3] [--cap 12]
    python benchmarks/calibration.py MODEL.onnx SAMPLES.npy --flat 50 1000

SAMPLES.npy holds float32 [n, 3, h, w], prepared as the model takes it; one is read at a time. Every way runs in a
fresh process, the ways take turns, and the medians count; importing packages is counted for none. Memory is the highest
resident set of the process; one that takes more than ``--cap`` GB of address space is ended. "Forecast" is what
``kit.forecast`` says of that peak, in a process of its own. ``--flat`` shows our peak for several numbers of images.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import json
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


class Stored(Sequence):
    """Feeds out of a .npy file, read when asked for; repeated with one value changed when there are fewer."""

    def __init__(self, path: str, name: str, count: int) -> None:
        self.path, self.name, self.count = path, name, count
        about = np.load(path, mmap_mode="r")
        self.shape, self.offset = about.shape, about.offset

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at):
        """A feed, or the first ones for a slice."""
        if isinstance(at, slice):
            return Stored(self.path, self.name, len(range(*at.indices(self.count))))
        if at >= self.count:
            raise IndexError(at)
        size = int(np.prod(self.shape[1:]))
        place = self.offset + 4 * size * (at % self.shape[0])
        values = np.fromfile(self.path, np.float32, size, offset=place).reshape(1, *self.shape[1:])
        values.flat[0] += at // self.shape[0]
        return {self.name: values}


def one(way: str, model: str, samples: str, images: int) -> dict[str, float]:
    """Run one way in this process; seconds and bytes."""
    import onnxruntime as ort

    import kit

    needed = ["numba", "onnx", "kit.calibration"] if "ours" in way else []
    for module in needed + (["onnxruntime.quantization"] if way.startswith("ORT") else []):
        importlib.import_module(module)
    from kit.runtimes import peak_memory

    feeds = Stored(samples, kit.Model.open(model).inputs[0].name, images)
    with tempfile.TemporaryDirectory() as scratch:
        if "ours" in way:
            options = kit.CalibrateOptions(samples=images, histograms="min-max" not in way)
        if way.startswith("forecast"):
            return {"memory": kit.forecast(model, feeds, options).memory}
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
    return {"seconds": seconds, "memory": peak_memory()}


def fresh(way: str, asked: argparse.Namespace, images: int) -> dict[str, float] | None:
    """Run one way in a process of its own; None, and its last word on stderr, when it fails."""
    done = subprocess.run([sys.executable, __file__, asked.model, asked.samples, "--images", str(images),
                           "--cap", str(asked.cap), "--one", way], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{way}, {images} images: ended with {done.returncode}: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def forecast(way: str, asked: argparse.Namespace, images: int) -> str:
    """What our forecast says of the peak, in MB; nothing for the ways of others."""
    said = fresh(f"forecast {way}", asked, images) if way.startswith("ours") else None
    return f"{said['memory'] / 1e6:.0f}" if said else ""


def compare(asked: argparse.Namespace) -> None:
    """The ways in turn, against the first of them."""
    found: dict[str, list[dict]] = {way: [] for way in asked.ways}
    for _ in range(asked.rounds):
        for way in asked.ways:
            one = fresh(way, asked, asked.images)
            if one:
                found[way].append(one)
    base = found[asked.ways[0]]
    print(f"\n**{Path(asked.model).name}, {asked.images} images, {asked.rounds} rounds**\n")
    print("| way | s | against the first | peak MB | against the first | forecast MB |\n|---|--:|--:|--:|--:|--:|")
    for way, runs in found.items():
        if not runs or not base:
            print(f"| {way} | ended at {asked.cap:g} GB or failed | | | | |")
            continue
        seconds, memory = (statistics.median(run[key] for run in runs) for key in ("seconds", "memory"))
        first = [statistics.median(run[key] for run in base) for key in ("seconds", "memory")]
        print(f"| {way} | {seconds:.2f} | {seconds / first[0]:.2f} | {memory / 1e6:.0f} | {memory / first[1]:.2f} | "
              f"{forecast(way, asked, asked.images)} |")


def flat(asked: argparse.Namespace) -> None:
    """Our peak for several numbers of images."""
    print(f"\n**{Path(asked.model).name}, ours**\n\n| images | s | peak MB | forecast MB |\n|--:|--:|--:|--:|")
    for images in asked.flat:
        one = fresh("ours", asked, images)
        if one:
            said = forecast("ours", asked, images)
            print(f"| {images} | {one['seconds']:.2f} | {one['memory'] / 1e6:.0f} | {said} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("samples")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", type=float, default=12.0, help="GB of address space")
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--flat", nargs="+", type=int, metavar="IMAGES", help="our peak for so many images")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(asked.cap * 1e9),) * 2)
        print(json.dumps(one(asked.one, asked.model, asked.samples, asked.images)))
    elif asked.flat:
        flat(asked)
    else:
        compare(asked)


if __name__ == "__main__":
    main()
