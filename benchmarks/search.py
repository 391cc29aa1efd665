"""The search against trying everything, and its pick against the source framework, on seven models.

    python benchmarks/search.py [--model NAME ...] [--seconds 600] [--sqnr 8] [--out runs/bench]
                                [--json results.json] [--skip-everything]

For each model: a search, every candidate of the same space measured whole, how close the pick is to the fastest
accurate one of all, and the speed of the pick against the source framework (Paddle Inference, TensorFlow SavedModel;
PP-OCRv4 comes as ONNX, so against that file in ONNX Runtime). How close the pick is comes from both being timed in
turns once more, since figures of different hours do not compare. Both keep their results, so that a run that was broken
off goes on. Every model's results are added to the JSON as they come. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kit
from kit.evidence.scoring import TaskScore
from kit.families import detection, ocr, ocr_models, ocr_tasks

SLIPS = ROOT / "data" / "receipts"
THREADS = 2


@dataclass(frozen=True)
class Subject:
    """A model to search for.

    Attributes:
        source: what it came as.
        framework: that runs the source.
        model: the float ONNX model.
        samples: to calibrate by and to time with.
        metric: None for the output's error.
        timed: to time with, where the source takes an input more than the float model.
    """

    source: Any
    framework: str
    model: Any
    samples: Any
    metric: Any = None
    timed: Any = None


def receipts_detector(out: Path) -> Subject:
    """The small detector trained here."""
    return _detector(ocr_models.models("receipts", ROOT / "data").detector, "Paddle Inference", out)


def receipts_recogniser(out: Path) -> Subject:
    """The small recogniser trained here."""
    source = ocr_models.models("receipts", ROOT / "data").recogniser
    samples = ocr_tasks.lines(SLIPS, "calibration", limit=160)
    fixed = _fixed(source, samples, out)
    task = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(source)))
    return Subject(source, "Paddle Inference", fixed, samples,
                   TaskScore(task, ocr_tasks.lines(SLIPS, "test", limit=300)))


def ppocrv4_detector(out: Path) -> Subject:
    """PaddleOCR's mobile detector."""
    return _detector(ocr_models.models("ppocrv4").detector, "ONNX Runtime, as it came", out)


def defects_efficientdet(out: Path) -> Subject:
    """The small EfficientDet trained here, raw heads."""
    source = ROOT / "data" / "models" / "defects_efficientdet"
    heads = detection.Heads.read(source)
    learning = _steel(heads, "train", 48)
    return Subject(source, "TensorFlow SavedModel", _fixed(source, learning, out), learning, _mean_precision(heads))


def defects_ppyoloe(out: Path) -> Subject:
    """The small PP-YOLOE trained here, raw heads; Paddle Inference also suppresses."""
    source = ROOT / "data" / "models" / "defects_ppyoloe"
    told = kit.ExportOptions(probe=("image=1,3,256,256; scale_factor=1,2",))
    exported = kit.export(source, told, runs=out)
    heads = detection.Heads.read(source)
    cut = detection.cut_nms(exported.model, heads, runs=out)
    folded = detection.fold_scale_factor(cut.model, cut.heads, runs=out)
    learning = _steel(folded.heads, "train", 48)
    fixed = kit.fix(folded.model, kit.FixOptions(opset=17), samples=learning[:2], runs=out)
    return Subject(source, "Paddle Inference", fixed, learning, _mean_precision(folded.heads),
                   _steel(heads, "test", 1))


def _steel(heads: detection.Heads, split: str, limit: int | None = None) -> kit.Samples:
    return detection.images(ROOT / "data" / "defects", split, heads=heads, limit=limit)


def _mean_precision(heads: detection.Heads) -> TaskScore:
    return TaskScore(detection.DetectionTask(heads), _steel(heads, "test"))


def resnet50(out: Path) -> Subject:
    """ResNet50 at 224, random weights."""
    return _net("resnet50", "Paddle Inference", out)


def efficientnet_b0(out: Path) -> Subject:
    """EfficientNetB0 at 512, random weights."""
    return _net("efficientnet_b0", "TensorFlow SavedModel", out)


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    made.__name__.replace("_", "-"): made
    for made in (receipts_detector, receipts_recogniser, ppocrv4_detector, efficientnet_b0, resnet50,
                 defects_efficientdet, defects_ppyoloe)}


def _detector(source: Path, framework: str, out: Path) -> Subject:
    samples = ocr_tasks.pages(SLIPS, "calibration", limit=24)
    fixed = _fixed(source, samples, out)
    metric = TaskScore(ocr_tasks.DetectorTask(), ocr_tasks.pages(SLIPS, "test", limit=48))
    return Subject(source, framework, fixed, samples, metric)


def _fixed(source: Path, samples: Any, out: Path) -> Any:
    exported = kit.export(source, samples=samples[:2], runs=out)
    return kit.fix(exported.model, kit.FixOptions(opset=17), samples=samples[:2], runs=out)


def _net(name: str, framework: str, out: Path) -> Subject:
    import nets

    source, onnx = nets.NETS[name](out / "nets")
    return Subject(source, framework, onnx, nets.pictures(onnx, 32))


def measure(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Search one model, try everything, and compare the picks."""
    subject = SUBJECTS[name](asked.out)
    options = kit.SearchOptions(seconds=asked.seconds, threads=(1, THREADS), sqnr=asked.sqnr)
    began = time.monotonic()
    found = kit.search(subject.model, subject.samples, options, metric=subject.metric, runs=asked.out, report=say)
    result = {"model": name, "metric": found.metric or "output SQNR", "allowed": found.allowed, "space": found.space,
              "trials": len(found.trials), "seconds": round(found.seconds), "wall": round(time.monotonic() - began),
              "pick": found.pick.candidate.label, "loss": found.loss_text(found.pick),
              "ratio": found.pick.ratio, "failed": [t.why for t in found.trials if t.state == "failed"]}
    rows = kit.BenchmarkOptions(rounds=30, threads=THREADS, repeat=asked.repeat)
    feed = (subject.timed or subject.samples)[:1]
    timed = kit.benchmark({subject.framework: subject.source, "ONNX Runtime FP32": subject.model, "pick": found}, feed,
                          rows, runs=asked.out, report=say)
    pick = timed.timing("pick")
    result |= {"framework": subject.framework, "against_framework": [pick.speedup, pick.low, pick.high],
               "framework_ms": timed.timings[0].p50_ms, "fp32_ms": timed.timings[1].p50_ms, "pick_ms": pick.p50_ms,
               "framework_notes": list(timed.timings[0].notes), "alarms": list(timed.alarms)}
    if not asked.skip_everything:
        began = time.monotonic()
        every = replace(options, everything=True, seconds=36_000)
        all_of_them = kit.search(subject.model, subject.samples, every, metric=subject.metric, runs=asked.out,
                                 report=say)
        result |= {"everything_seconds": round(all_of_them.seconds), "everything_wall": round(time.monotonic() - began),
                   "best": all_of_them.pick.candidate.label, "best_loss": all_of_them.loss_text(all_of_them.pick),
                   "best_ratio": all_of_them.pick.ratio,
                   "pick_over_best": _against(found, all_of_them, feed, rows, asked.out)}
    return result


def _against(found: kit.Found, best: kit.Found, feed: Any, rows: kit.BenchmarkOptions, out: Path) -> list[float]:
    """Time of the pick over that of the best of all, with its interval; 1 where they are the same candidate."""
    if found.pick.candidate == best.pick.candidate:
        return [1.0, 1.0, 1.0]
    timing = kit.benchmark({"pick": found, "best of all": best}, feed, rows, runs=out, report=say).timings[1]
    return [timing.speedup, timing.low, timing.high]


def say(tick: kit.Tick) -> None:
    """Print what is tried, once."""
    if tick.note and tick.note != say.last and tick.note.startswith(("trying", "timing", "calibrating")):
        print(f"  {time.strftime('%H:%M:%S')} {tick.done} {tick.note}", file=sys.stderr, flush=True)
    say.last = tick.note


say.last = ""


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| model | pick | loss | trials | pick's time : best of all | against ONNX Runtime FP32 | "
             "against the source framework | search s | everything s |", "|---|---|---|--:|---|--:|---|--:|--:|"]
    for r in results:
        over = r.get("pick_over_best")
        close = f"{over[0]:.2f} [{over[1]:.2f}, {over[2]:.2f}]" if over else "-"
        ratio, low, high = r["against_framework"]
        lines.append(
            f"| {r['model']} | {r['pick']} | {r['loss']} | {r['trials']} of {r['space']} | {close} | "
            f"{r['fp32_ms'] / r['pick_ms']:.2f}x | {ratio:.2f}x [{low:.2f}, {high:.2f}] {r['framework']} | "
            f"{r['seconds']} | {r.get('everything_seconds', '-')} |")
    return "\n".join([*lines, *(f"- {r['model']}, alarm: {alarm}" for r in results for alarm in r["alarms"]),
                      *(f"- {r['model']}: {note}" for r in results for note in r["framework_notes"])])


def main() -> None:
    """Measure the models asked for and print the table of all in the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--seconds", type=int, default=600, help="of each search")
    # Random weights leave outputs that hang on small differences: in BF16 ResNet50 keeps 10 dB of them.
    parser.add_argument("--sqnr", type=float, default=8.0, help="dB that a model without a metric must keep")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="keep the results here")
    parser.add_argument("--json", type=Path, help="results, a list; OUT/search.json by default")
    parser.add_argument("--skip-everything", action="store_true", help="only the search and the source framework")
    parser.add_argument("--repeat", type=int, default=0, help="raise it to time the benchmarks again")
    asked = parser.parse_args()
    path = asked.json or asked.out / "search.json"
    for name in asked.model:
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = measure(name, asked)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        results = [r for r in known if r["model"] != name] + [result]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(json.dumps(result, indent=1, ensure_ascii=False), flush=True)
    print(table(json.loads(path.read_text(encoding="utf-8"))), flush=True)


if __name__ == "__main__":
    import search as here  # once more, under the name that a worker can import

    here.main()
