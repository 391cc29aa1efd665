"""A model of more than 2 GB from float to INT8 and to INT8 weights: how much memory each step takes.

    python benchmarks/large_model.py [--gigabytes 2.2] [--side 8192] [--folder FOLDER] [--keep]

The model is a stack of matrix products with random weights, its weights in a file beside the graph. Every step runs in
a process of its own. "Held" is memory of the process itself; "resident" adds pages of files that are mapped, which the
system takes back when it needs room. Calibration runs the float model, so it holds all of it once, in ONNX Runtime;
quantizing should hold little more than the bytes of one weight. Prints Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STEPS = ("calibrate", "INT8", "INT8, compared on a sample", "INT8 weights")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument("--side", type=int, default=8192, help="rows and columns of each matrix")
    parser.add_argument("--folder", type=Path, help="where the model is built; a temporary folder by default")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(*one_step(asked.step, asked.folder, asked.side), sep="\t")
        return
    with tempfile.TemporaryDirectory(prefix="kit-large-", dir=asked.folder) as scratch:
        folder = Path(scratch)
        count = build(folder / "large.onnx", asked.side, asked.gigabytes)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{count} matrices of {asked.side} x {asked.side} float32: {size / 1e9:.2f} GB, the largest tensor "
              f"{asked.side ** 2 * 4 / 1e6:.0f} MB\n")
        print("| Step | seconds | written, GB | held at most, GB | held : float file | resident at most, GB |")
        print("|---|--:|--:|--:|--:|--:|")
        for step in STEPS:
            done = subprocess.run([sys.executable, __file__, "--step", step, "--folder", str(folder), "--side",
                                   str(asked.side)], capture_output=True, text=True)
            if done.returncode:
                print(f"| {step} | failed: {done.stderr.strip().splitlines()[-1]} | | | | |", flush=True)
                continue
            seconds, written, held, resident = map(float, done.stdout.strip().splitlines()[-1].split("\t"))
            print(f"| {step} | {seconds:.0f} | {written / 1e9:.2f} | {held / 1e9:.2f} | {held / size:.2f} | "
                  f"{resident / 1e9:.2f} |", flush=True)


def build(path: Path, side: int, gigabytes: float) -> int:
    """Write the float model, one matrix at a time; says how many there are."""
    from onnx import TensorProto, helper

    from kit.weights_file import save_streamed

    count = int(np.ceil(gigabytes * 1e9 / (side * side * 4)))
    nodes, tensor = [], "x"
    graph = helper.make_graph([], "stack", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, side])])
    for at in range(count):
        last = at == count - 1
        if at % 2:
            nodes.append(helper.make_node("Gemm", [tensor, f"w{at}", f"b{at}"], [f"t{at}"], f"gemm{at}", transB=1))
            graph.initializer.add(name=f"b{at}", data_type=1, dims=[side], data_location=1)
        else:
            nodes.append(helper.make_node("MatMul", [tensor, f"w{at}"], [f"t{at}"], f"matmul{at}"))
        graph.initializer.add(name=f"w{at}", data_type=1, dims=[side, side], data_location=1)
        tensor = "y" if last else f"r{at}"
        nodes.append(helper.make_node("Relu", [f"t{at}"], [tensor], f"relu{at}"))
    graph.node.extend(nodes)

    def values(name: str) -> np.ndarray:
        random = np.random.default_rng(int(name[1:]))
        if name.startswith("b"):
            return np.zeros(side, np.float32)
        found = random.standard_normal((side, side), dtype=np.float32)
        found *= np.sqrt(2 / side)
        return found

    save_streamed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path, values)
    return count


def one_step(step: str, folder: Path, side: int) -> tuple[float, int, int, int]:
    """Seconds, bytes written, and bytes held and resident at most, of one step in this process."""
    import kit
    from kit.runtimes import peak_memory

    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((1, side), dtype=np.float32)} for _ in range(2)]
    def calibrated(probes: int) -> kit.Calibration:
        return kit.calibrate(folder / "large.onnx", samples, kit.CalibrateOptions(probes=probes), runs=folder)

    # A calibration made by the first step is read back in no time, and holds no memory.
    calibration = None if step in ("calibrate", "INT8 weights") else calibrated(int("compared" in step))
    began, written = time.monotonic(), 0
    with Watch() as watch:
        if step == "calibrate":
            calibrated(0)
            calibrated(1)
        else:
            options = kit.QuantizeOptions(method="minmax") if calibration else \
                kit.QuantizeOptions(precision="int8-weights")
            written = kit.quantize(folder / "large.onnx", calibration, options, runs=folder).size_after
    return time.monotonic() - began, written, watch.highest, peak_memory()


class Watch:
    """The most memory this process has held itself while the block ran, looked at every 5 ms (Linux)."""

    def __enter__(self) -> Watch:
        self.highest, self._running = 0, True
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._running = False
        self._thread.join()

    def _look(self) -> None:
        while self._running:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("RssAnon"):
                    self.highest = max(self.highest, int(line.split()[1]) * 1024)
            time.sleep(0.005)


if __name__ == "__main__":
    main()
