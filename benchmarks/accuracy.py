"""Accuracy of INT8: ours against NNCF's defaults and ONNX Runtime's own calibration, on the same samples.

    python benchmarks/accuracy.py --nncf-python PYTHON [--only NAME ...] [--limit 100] [--folder FOLDER]

Names: digits, receipts-det, receipts-rec, ppocrv4-rec, resnet50, mobilenet_v3.

Every method sees the same calibration samples and is judged on the same test samples, which none has seen: by the
task's metric where there are labels, and by the signal-to-noise ratio of the output against float. NNCF runs in the
interpreter given; its models are answered by OpenVINO in FP32, so that nothing but INT8 differs. Ours is laid
out for ONNX Runtime and, in a second row, for OpenVINO. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import nets

import kit
from kit.families import digits, ocr, ocr_models, ocr_tasks
from kit.int8.noise import Noise
from kit.int8.qdq import quiet

NNCF = """
import sys
import numpy as np, nncf, openvino as ov
model, samples, target = sys.argv[1:]
stored = np.load(samples)
feeds = [stored[name] for name in sorted(stored.files)]
data = nncf.Dataset(feeds, lambda array: {name: array})
source = ov.Core().read_model(model)
name = source.inputs[0].any_name
ov.save_model(nncf.quantize(source, data, subset_size=len(feeds)), target, compress_to_fp16=False)
"""


@dataclass(frozen=True)
class Case:
    """A float model with samples to calibrate by and samples to judge by; ``task`` is None without labels."""

    name: str
    model: kit.Model
    calibration: Sequence
    test: Sequence
    task: Any = None


def cases(folder: Path, limit: int) -> Iterator[tuple[str, Callable[[], Case]]]:
    """The networks, each built when its turn comes."""
    yield "digits", lambda: Case(
        "digits CNN", kit.Model.open(ROOT / "data" / "models" / "digits" / "digits.onnx"),
        digits.digits_samples("calibration", ROOT / "data", limit=limit),
        digits.digits_samples("test", ROOT / "data"), digits.DigitsTask())
    for which in ("receipts", "ppocrv4"):
        if ocr_models.is_here(which):
            found = ocr_models.models(which, ROOT / "data")
            if which == "receipts":
                yield "receipts-det", lambda path=found.detector: detector(path, folder, limit)
            yield f"{which}-rec", lambda path=found.recogniser, name=which: recogniser(name, path, folder, limit)
    for name in ("resnet50", "mobilenet_v3"):
        yield name, lambda name=name: random_net(name, folder, limit)


def detector(path: Path, folder: Path, limit: int) -> Case:
    """The receipts detector, judged by hmean."""
    slips = ROOT / "data" / "receipts"
    calibration = ocr_tasks.pages(slips, "calibration", limit=min(limit, 40))
    return Case("receipts detector", fixed(path, calibration, folder), calibration,
                ocr_tasks.pages(slips, "test", limit=min(limit, 60)), ocr_tasks.DetectorTask())


def recogniser(name: str, path: Path, folder: Path, limit: int) -> Case:
    """A recogniser, judged by lines read without a mistake."""
    slips = ROOT / "data" / "receipts"
    calibration = ocr_tasks.lines(slips, "calibration", limit=2 * limit)
    task = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(path)))
    return Case(f"{name} recogniser", fixed(path, calibration, folder), calibration,
                ocr_tasks.lines(slips, "test", limit=4 * limit), task)


def random_net(name: str, folder: Path, limit: int) -> Case:
    """A network of ``nets`` with random weights: there is no task, so the output itself is judged."""
    _, path = getattr(nets, name)(folder)
    return Case(f"{name}, random weights", kit.Model.open(path), nets.pictures(path, min(limit, 64)),
                nets.pictures(path, min(limit, 64), seed=9000))


def fixed(path: Path, samples: Sequence, folder: Path) -> kit.Model:
    """The model as ONNX, exported and repaired."""
    exported = kit.export(path, samples=samples[:2], runs=folder)
    return kit.fix(exported.model, kit.FixOptions(opset=17), samples=samples[:2], runs=folder).model


def candidates(case: Case, folder: Path, nncf_python: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name of a method, and a function that opens its answer: feeds in, outputs out."""
    calibration = kit.calibrate(case.model, case.calibration, runs=folder)

    def ours(**options: Any) -> Any:
        return kit.quantize(case.model, calibration, kit.QuantizeOptions(**options), runs=folder)

    yield "float", lambda: kit.open_runner(case.model)
    yield "ours", lambda: kit.open_runner(ours())
    yield "ours, tensor by tensor", lambda: kit.open_runner(ours(method="tensor"))
    yield "ours for OpenVINO", lambda: in_openvino(ours(runtime="openvino").model.path)
    for method in ("MinMax", "Percentile"):
        yield f"ONNX Runtime {method}", lambda method=method: kit.open_runner(by_onnxruntime(case, folder, method))
    if nncf_python:
        yield "NNCF, its defaults", lambda: in_openvino(by_nncf(case, folder, nncf_python))


def in_openvino(path: Path) -> Any:
    """OpenVINO in FP32: what differs from float is INT8 alone."""
    return kit.open_runner(path, runtime="openvino", precision="f32")


def by_onnxruntime(case: Case, folder: Path, method: str) -> Path:
    """ONNX Runtime's ``quantize_static`` with one scale a channel, and otherwise as it comes."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static

    from kit.evidence.other_calibrators import Feeds

    target = folder / f"{slug(case)}-ort-{method}.onnx"
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):  # it prints
            quantize_static(str(case.model.path), str(target), Feeds(case.calibration), quant_format=QuantFormat.QDQ,
                            per_channel=True, calibrate_method=CalibrationMethod[method])
    except ValueError as error:  # its histogram methods do not take samples of different sizes
        raise kit.ToolFailed(f"it stops: {str(error)[:60]} ...", remedy="give samples of one size") from error
    return target


def by_nncf(case: Case, folder: Path, python: str) -> Path:
    """NNCF's ``quantize`` with its defaults, in its own interpreter; writes OpenVINO's form."""
    samples, target = folder / f"{slug(case)}-samples.npz", folder / f"{slug(case)}-nncf.xml"
    (name,) = (spec.name for spec in case.model.inputs)
    np.savez(samples, **{f"{at:05d}": dict(case.calibration[at])[name] for at in range(len(case.calibration))})
    done = subprocess.run([python, "-c", NNCF, str(case.model.path), str(samples), str(target)], capture_output=True,
                          text=True)
    if done.returncode:
        raise SystemExit(f"NNCF failed on {case.name}: {done.stderr.strip().splitlines()[-1]}")
    return target


def judge(runner: Any, case: Case, reference: list[dict] | None) -> tuple[float | None, float | None, list[dict]]:
    """The task's metric, dB against the reference, and the outputs (of float only, to be the reference)."""
    noise, totals, outputs = Noise(), None, []
    for at in range(len(case.test)):
        feed = dict(case.test[at])
        answer = runner(feed)
        if reference is None:
            outputs.append(answer)
        else:  # OpenVINO may call an output otherwise
            noise.add(reference[at], dict(zip(reference[at], answer.values(), strict=True)))
        if case.task:
            sample = case.test.items[at]
            found = case.task.tally(case.task.answer(answer, sample, feed), sample)
            totals = found if totals is None else tuple(map(sum, zip(totals, found, strict=True)))
    metric = case.task.scores(totals)[case.task.name] if case.task else None
    return metric, None if reference is None else noise.decibels(), outputs


def slug(case: Case) -> str:
    """A name for files."""
    return "".join(letter if letter.isalnum() else "-" for letter in case.name.lower())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nncf-python", default="", help="interpreter with nncf and openvino; left out when empty")
    parser.add_argument("--only", nargs="*", default=[], help="names of networks")
    parser.add_argument("--limit", type=int, default=100, help="samples; calibration and test take a share of it")
    parser.add_argument("--folder", type=Path, help="keep models and results here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kit-accuracy-") as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("| Network | Method | metric | output against float, dB |")
        print("|---|---|--:|--:|")
        for name, build in cases(folder, asked.limit):
            if asked.only and name not in asked.only:
                continue
            case, reference = build(), None
            for method, opened in candidates(case, folder, asked.nncf_python):
                try:
                    with opened() as runner:
                        metric, decibels, outputs = judge(runner, case, reference)
                except kit.KitError as error:
                    print(f"| {case.name} | {method} | {error} | |", flush=True)
                    continue
                reference = reference or outputs
                print(f"| {case.name} | {method} | {'-' if metric is None else f'{metric:.4f}'} | "
                      f"{'-' if decibels is None else f'{decibels:.1f}'} |", flush=True)


if __name__ == "__main__":
    main()
