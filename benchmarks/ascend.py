"""What an audit for Ascend finds in five real architectures, and what is left after the fix.

    python benchmarks/ascend.py [--model NAME ...] [--chip NAME ...] [--out runs/ascend] [--torch-python PATH]

PP-OCRv4 detector and recogniser as they come, MobileNetV3 from Paddle, EfficientNetB0 from Keras, and the UNet of SD
1.5 with random weights (860 M parameters, 3.4 GB). Each is audited, fixed, its answers compared, and audited
again; the peak memory is that of a fresh process for each model. A finding that a rule could repair and that is still
there after the fix is a fault of the kit; the table counts them. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kit
from kit.families import ocr_models
from kit.runtimes import peak_memory

CHIPS = ("ascend310p3", "ascend910b3")


def ppocrv4_det(out: Path) -> tuple[Path, tuple[str, ...]]:
    """PaddleOCR's mobile detector: open height and width."""
    path = ocr_models.models("ppocrv4").detector
    return path, (f"{_input(path)}=1,3,640,640",)


def ppocrv4_rec(out: Path) -> tuple[Path, tuple[str, ...]]:
    """PaddleOCR's mobile recogniser: open width."""
    path = ocr_models.models("ppocrv4").recogniser
    return path, (f"{_input(path)}=1,3,48,320",)


def mobilenet_v3(out: Path) -> tuple[Path, tuple[str, ...]]:
    """MobileNetV3-large of Paddle, exported."""
    import nets

    source, _ = nets.mobilenet_v3(out / "nets")
    return kit.export(source, runs=out / "runs").model.path, ()


def efficientnet_b0(out: Path) -> tuple[Path, tuple[str, ...]]:
    """EfficientNetB0 of Keras at 512, as tf2onnx writes it."""
    import nets

    nets.efficientnet_b0(out / "nets")
    return out / "nets" / "efficientnet_b0" / "efficientnet_b0.onnx", ()


def unet(out: Path) -> tuple[Path, tuple[str, ...]]:
    """The UNet of Stable Diffusion 1.5, as PyTorch's newer exporter writes it."""
    import nets

    return nets.unet(out / "nets"), ()


MODELS: dict[str, Callable[[Path], tuple[Path, tuple[str, ...]]]] = {
    made.__name__.replace("_", "-"): made for made in (ppocrv4_det, ppocrv4_rec, mobilenet_v3, efficientnet_b0, unet)}


def measure(name: str, chip: str, out: Path) -> dict[str, Any]:
    """Audit, fix, audit again; in this process, whose peak memory is reported."""
    path, shapes = MODELS[name](out)
    start, began = peak_memory(), time.monotonic()
    first = kit.audit(path, kit.AuditOptions(target=chip, bind=shapes), runs=out / "runs")
    audited, peak = time.monotonic() - began, peak_memory()
    began = time.monotonic()
    fixed = kit.fix(path, kit.FixOptions(target=chip, shapes=shapes), runs=out / "runs")
    seconds = time.monotonic() - began
    last = kit.audit(fixed.model, kit.AuditOptions(target=chip), runs=out / "runs")
    return {
        "model": name, "chip": chip, "nodes": len(first.nodes), "size": fixed.size_before,
        "before": _counts(first), "after": _counts(last), "edits": dict(fixed.counts()),
        "repairable": [f"{f.what} ({f.fix})" for f in last.findings if f.fix],
        "left": [f"{f.severity}: {f.operator or 'model'}, {f.what}" for f in last.findings if f.severity != "note"],
        "found": [f"{f.severity}: {f.operator or 'model'}, {f.what}" + (f" [{f.fix}]" if f.fix else "")
                  for f in first.findings if f.severity != "note"],
        "difference": max((row.relative for row in fixed.parity), default=None), "audit_seconds": audited,
        "audit_growth": peak - start, "fix_seconds": seconds, "peak": peak_memory()}


def _input(path: Path) -> str:
    return kit.Model.open(path).inputs[0].name


def _counts(audited: kit.Audit) -> dict[str, int]:
    return dict(Counter(finding.severity for finding in audited.findings))


def _row(found: dict[str, Any]) -> str:
    def said(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts.items()) or "none"

    difference = "not compared" if found["difference"] is None else f"{found['difference']:.1e}"
    return (f"| {found['model']} | {found['chip']} | {found['nodes']} | {said(found['before'])} | "
            f"{said(found['after'])} | {len(found['repairable'])} | {sum(found['edits'].values())} | {difference} | "
            f"{found['audit_growth'] / 1e6:.0f} | {found['peak'] / 1e9:.2f} |")


def main() -> None:
    """Each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--chip", nargs="*", default=list(CHIPS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ascend", help="keep models and results here")
    parser.add_argument("--torch-python", default="", help="interpreter with torch and diffusers, for the UNet")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.torch_python:
        kit.worker.use("torch", python=asked.torch_python)
    if asked.one:
        print(json.dumps(measure(asked.model[0], asked.chip[0], asked.out)))
        return
    results = []
    for name in asked.model:
        for chip in asked.chip:
            command = [sys.executable, __file__, "--one", "--model", name, "--chip", chip, "--out", str(asked.out)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    print("| model | chip | nodes | found | left | left that a rule could repair | edits | answers differ by | audit "
          "grows by, MB | peak, GB |\n|---|---|---|---|---|---|---|---|---|---|")
    for found in results:
        print(_row(found))
    for found in results:
        print(f"\n**{found['model']}, {found['chip']}**\n\nfound:")
        print("\n".join(f"- {line}" for line in found["found"]) or "- nothing")
        print("\nleft:")
        print("\n".join(f"- {line}" for line in found["left"]) or "- nothing")
        print("\nedits: " + (", ".join(f"{rule} {count}" for rule, count in found["edits"].items()) or "none"))


if __name__ == "__main__":
    main()
