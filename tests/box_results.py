"""What a box writes, made up for tests: golden feeds, answers to them, times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kit.ascend.box.results import BoxResults, load_results
from kit.ascend.box.run_on_box import STEPS
from kit.ascend.bundling.golden_samples import feed_digest


def box_results(folder: Path, feeds: list, answers: list, *, fake: str = "", soc: str = "Ascend310P3",
                batches: tuple = (1,), int8: str = "none", precision: str = "fp16") -> BoxResults:
    """Results of a box that was given ``feeds`` and gave ``answers``; every batch took 4 ms."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "outputs.npz", **{f"{n}/{name}": array for n, own in enumerate(answers)
                                        for name, array in own.items()})
    times = [4.0, 4.1, 3.9, 4.0]
    about = {
        "format": "kit-box-results", "version": 1, "fake": fake,
        "device": {"soc": soc, "npu_smi": "", "driver": "24.1.rc2", "cann": "8.1.RC1", "host": "Linux aarch64 3.10",
                   "backend": "acl"},
        "bundle": {"name": "tiny", "soc_version": soc, "sha256": "0" * 64, "precision": precision, "int8": int8,
                   "goldens": [{"name": f"slip {n}", "feed": feed_digest(feed)} for n, feed in enumerate(feeds)]},
        "started": "2026-01-02T03:04:05+0000",
        "steps": [{"step": step, "state": "done" if step != "profile" else "skipped", "seconds": 0.1, "message": "",
                   "explained": []} for step in STEPS],
        "build": {"command": "atc", "om": "om/tiny.om", "om_sha256": "1" * 64, "om_bytes": 12_000, "seconds": 3.0,
                  "log_tail": ""},
        "comparison": [{"golden": f"slip {n}", "output": name, "cosine": 0.9999, "relative": 1e-3, "max_abs": 1e-3,
                        "ok": True, "note": ""} for n, own in enumerate(answers) for name in own],
        "benchmark": [{"batch": batch, "warm_up": 10, "runs": 4, "times_ms": times, "p50_ms": 4.0, "p90_ms": 4.07,
                       "p95_ms": 4.085, "p99_ms": 4.097, "fps": 250.0 * batch} for batch in batches],
        "profile": {}, "outputs": "outputs.npz"}
    (folder / "results.json").write_text(json.dumps(about), encoding="utf-8")
    return load_results(folder)
