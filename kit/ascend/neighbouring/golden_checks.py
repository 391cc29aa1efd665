"""What the scripts of this folder share: golden inputs, how far an answer is from the float one, times, results.json.

Needs Python 3.8 and numpy.
"""

import json
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def settings():
    """What neighbour.json says."""
    return json.loads((HERE / "neighbour.json").read_text(encoding="utf-8"))


def check(told, device, version, run, runs):
    """Run the golden inputs, compare, measure, write results.json, labelled with the device.

    Args:
        told: what ``settings`` returned.
        device: what it ran on.
        version: of the runtime.
        run: from a feed (name -> array) to a list of outputs, in the model's order.
        runs: how many to time; 0 for none.

    Returns:
        0 when every golden answer was met, 1 otherwise.
    """
    rows, feed = [], None
    for golden in told["goldens"]:
        feed, wanted = read_golden(HERE / golden["file"])
        rows += [compared(golden["name"], name, wanted[name], found, told["tolerances"])
                 for name, found in zip(wanted, run(feed))]  # noqa: B905 - Python 3.8 has no strict
    for row in rows:
        print("{golden} {output}: cosine {cosine:.6f}, relative {relative:.2e}, {said}".format(
            said="ok" if row["ok"] else "DIFFERS", **row))
    if not rows:
        print("there are no golden inputs in this folder: nothing was compared")
    times = timed(lambda: run(feed), runs) if runs and feed else []
    if times:
        print(f"median of {len(times)} runs: {sorted(times)[len(times) // 2]:.3f} ms")
    made = {"format": "kit-neighbour-results", "version": 1, "route": told["route"], "name": told["name"],
            "device": device, "runtime": version, "comparison": rows, "times_ms": times}
    (HERE / "results.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["ok"] for row in rows) else 1


def read_golden(path):
    """The feed and the float answers of one golden file."""
    with np.load(str(path)) as kept:
        parts = {side: {name[len(side):]: kept[name] for name in kept.files if name.startswith(side)}
                 for side in ("in:", "out:")}
    return parts["in:"], parts["out:"]


def compared(golden, name, wanted, found, tolerances):
    """One row: how far an answer is from the float one; relative is the largest gap over the largest value."""
    same_shape = wanted.shape == found.shape
    a, b = (np.asarray(side, np.float64).ravel() for side in (wanted, found))
    finite = same_shape and bool(np.isfinite(b).all())
    gap = float(np.abs(a - b).max()) if finite and a.size else 0.0 if finite else float("inf")
    norms = float(np.linalg.norm(a) * np.linalg.norm(b)) if finite else 0.0
    cosine = float(a @ b) / norms if norms else float(finite and not a.any() and not b.any())
    relative = gap / max(float(np.abs(a).max()) if a.size else 0.0, 1e-12)
    good = finite and cosine >= tolerances["cosine"] and relative <= tolerances["relative"]
    return {"golden": golden, "output": name, "cosine": cosine, "relative": relative, "ok": bool(good)}


def timed(run, runs, warm_up=10):
    """Milliseconds of each run, copies to and from the host included."""
    times = []
    for at in range(warm_up + runs):
        start = time.perf_counter()
        run()
        if at >= warm_up:
            times.append((time.perf_counter() - start) * 1000)
    return times
