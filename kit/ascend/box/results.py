"""What came back from the box: ``load_results("results")`` reads the folder that ``run_on_box.py`` wrote.

Nothing of it was measured here, so it carries the device's name wherever it is shown. Results of a rehearsal are FAKE:
they tell whether the bundle is whole, and give no time.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.ascend.box.box_tools import VERSION
from kit.ascend.box.run_on_box import STEPS
from kit.card import Card, Listing, Table, bytes_text
from kit.errors import BadInput, unknown
from kit.record import read_json

FORMAT = "kit-box-results"
FILE = "results.json"
NEEDED = STEPS[:-1]  # the slowest operators are looked for only when asked
NO_TIMES = "none: nothing ran on a device"
NO_INT8 = "none: the fakes do not quantize, so the answers say nothing about INT8"


@dataclass(frozen=True)
class BoxStep:
    """One step on the box.

    Attributes:
        step: check, build, infer, compare, benchmark or profile.
        state: done, failed or skipped.
        seconds: that it took.
        message: what came of it, or what went wrong.
        explained: what the log means: rows of code, cause, node and next step.
    """

    step: str
    state: str
    seconds: float
    message: str
    explained: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class BoxAnswer:
    """How far one output of one golden input is from the float model's.

    Attributes:
        golden: name of the input.
        output: name.
        cosine: of the angle between the two; None where one is not finite.
        relative: largest difference over the largest magnitude of the reference, where that is above 1.
        max_abs: largest difference.
        ok: within the bundle's tolerances.
        note: why there are no figures.
    """

    golden: str
    output: str
    cosine: float | None
    relative: float | None
    max_abs: float | None
    ok: bool
    note: str = ""

    def row(self) -> tuple[object, ...]:
        """For a table."""
        figures = ("-" if value is None else form.format(value) for value, form in (
            (self.cosine, "{:.6f}"), (self.relative, "{:.2e}"), (self.max_abs, "{:.2e}")))
        return (self.golden, self.output, *figures, "yes" if self.ok else "NO", self.note)


@dataclass(frozen=True)
class BoxTiming:
    """Times of one batch or profile on the device, inputs in place; empty where the device was a FAKE.

    Attributes:
        batch: pictures a run.
        profile: sizes of its open axes; () where there are none or only the batch is open.
        warm_up: runs before.
        runs: measured.
        times_ms: milliseconds of each.
        p50_ms: median; p90_ms, p95_ms and p99_ms likewise.
        fps: pictures a second.
        copies_ms: milliseconds of each run with the ways there and back.
    """

    batch: int
    profile: tuple[int, ...]
    warm_up: int
    runs: int
    times_ms: tuple[float, ...] = field(repr=False)
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    fps: float
    copies_ms: tuple[float, ...] = field(default=(), repr=False)

    def row(self) -> tuple[object, ...]:
        """For a table."""
        copies = f"{float(np.median(self.copies_ms)):.3f}" if self.copies_ms else "-"
        return (self.batch, "x".join(map(str, self.profile)) or "-", self.runs, f"{self.p50_ms:.3f}",
                f"{self.p90_ms:.3f}", f"{self.p95_ms:.3f}", f"{self.p99_ms:.3f}", f"{self.fps:.1f}", copies)


@dataclass(frozen=True)
class BoxResults(Card):
    """A run on the box; true when every step is done and every answer is within tolerance.

    Attributes:
        path: results.json.
        fake: which tools were FAKE; "" on a real box.
        device: soc, driver, cann, host, backend.
        bundle: name, soc_version, sha256, tolerances, precision, int8, goldens.
        started: when, by the box's clock.
        steps: in order.
        build: command, om, om_sha256, om_bytes, seconds, log_tail, reused.
        comparison: one row an output of a golden input.
        benchmark: one row a batch or profile.
        profile: of msprof: folder, and top with name, type and us of the slowest operators.
        outputs: the answers, ``"<golden number>/<output>"``; the file is there once the step infer is done.
    """

    path: Path
    fake: str
    device: dict[str, Any]
    bundle: dict[str, Any]
    started: str
    steps: tuple[BoxStep, ...]
    build: dict[str, Any] = field(repr=False)
    comparison: tuple[BoxAnswer, ...]
    benchmark: tuple[BoxTiming, ...]
    profile: dict[str, Any]
    outputs: Path

    def __bool__(self) -> bool:
        done = {step.step for step in self.steps if step.state == "done"}
        failed = any(step.state == "failed" for step in self.steps)
        return not failed and done.issuperset(NEEDED) and all(row.ok for row in self.comparison)

    @property
    def label(self) -> str:
        """Where it ran: ``Ascend310P3``, or ``FAKE Ascend310P3``."""
        soc = str(self.device["soc"] or self.bundle["soc_version"]).partition(" ")[0]
        return f"FAKE {soc}" if self.fake else soc

    @property
    def failed(self) -> tuple[BoxStep, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.state == "failed")

    def answer(self, golden: int | str, output: str) -> np.ndarray:
        """What the box gave for a golden input, by its number or name.

        Raises:
            BadInput: it was not run there, or has no such output.
        """
        names = [entry["name"] for entry in self.bundle["goldens"]]
        if isinstance(golden, str) and golden not in names:
            raise unknown("golden input", golden, names, self.path.name)
        number = names.index(golden) if isinstance(golden, str) else golden
        found = self.answers(number)
        if output not in found:
            raise unknown("answer", f"{number}/{output}", [f"{number}/{name}" for name in found], self.outputs.name)
        return found[output]

    def answers(self, number: int) -> dict[str, np.ndarray]:
        """Every output that the box gave for a golden input.

        Raises:
            BadInput: there are no answers, or their file is damaged.
        """
        if not self.outputs.is_file():
            raise BadInput(f"{self.path} holds no answers: {self._why()}.",
                           remedy="run run_on_box.py again, and copy the whole folder of results")
        prefix = f"{number}/"
        try:
            with np.load(self.outputs, allow_pickle=False) as kept:
                return {name.removeprefix(prefix): kept[name] for name in kept.files if name.startswith(prefix)}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"{self.outputs} is damaged: it is no whole file of arrays.",
                           remedy="copy the folder of results from the box again", detail=repr(error)) from error

    def times_ms(self, batch: int = 1) -> tuple[float, ...]:
        """Milliseconds of every run at a batch size, on the device.

        Raises:
            BadInput: that batch was not measured, or the device was a FAKE.
        """
        if self.fake:
            raise BadInput(f"These are results of a rehearsal ({self.fake}): they hold no times of a device.",
                           remedy="run the bundle on the box and load what it wrote")
        for row in self.benchmark:
            if row.batch == batch:
                return row.times_ms
        measured = ", ".join(sorted({str(row.batch) for row in self.benchmark})) or "none"
        raise BadInput(f"Batch {batch} was not measured on {self.label} (measured: {measured}).",
                       remedy="make the bundle with that batch, or ask for a measured one")

    def title(self) -> str:
        name, wanted = self.bundle["name"], self.bundle["soc_version"]
        start = f"FAKE rehearsal of {name} for {wanted}" if self.fake else f"{name} on {self.label}"
        if self.failed:
            return f"{start}: {self.failed[0].step} FAILED: {self.failed[0].message}"
        if not self:
            left = [step.step for step in self.steps if step.state == "skipped" and step.step in NEEDED]
            return f"{start}: no failure, but not done: {', '.join(left)}"
        if self.fake:
            return f"{start}: the bundle is whole; nothing ran on a device"
        first = f", {self.benchmark[0].p50_ms:.2f} ms at batch {self.benchmark[0].batch}" if self.benchmark else ""
        return f"{start}: all {len(self.comparison)} answers within tolerance{first}"

    def facts(self) -> dict[str, object]:
        limits = self.bundle.get("tolerances", {})
        device = self.device
        return {
            **({"FAKE": f"{self.fake}: no chip, no ATC, no time of a device"} if self.fake else {}),
            "device": f"{device['soc'] or 'unknown'}, driver {device['driver'] or 'unknown'}",
            "CANN": device["cann"] or "unknown", "host": device["host"],
            "run with": {"acl": "pyACL", "ais_bench": "ais_bench"}.get(device["backend"], "nothing"),
            **({"built": f"{self.build['om']}, {bytes_text(self.build['om_bytes'])}"
                + (", from an earlier run" if self.build.get("reused") else f" in {self.build['seconds']} s")}
               if self.build.get("om") else {}),
            **({"allowed": f"cosine {limits['cosine']}, relative {limits['relative']}"} if limits else {}),
            **({"INT8": NO_INT8} if self.fake and self.bundle.get("int8", "none") not in ("", "none") else {}),
            **({"times": NO_TIMES} if self.fake else {}),
            "started": self.started,
        }

    def tables(self) -> Sequence[Table]:
        mark = "FAKE: " if self.fake else ""
        made = [Table(f"{mark}Steps on the box", ("step", "state", "seconds", "message"), tuple(
            (step.step, step.state, f"{step.seconds:.1f}", step.message) for step in self.steps))]
        said = tuple((row["code"] or "-", row["cause"], row["node"] or "-", row["next"] or "-")
                     for step in self.steps for row in step.explained)
        if said:
            made.append(Table(f"{mark}What the log means", ("code", "cause", "node", "next step"), said))
        if self.comparison:
            made.append(Table(f"{mark}Answers against the float model",
                              ("golden input", "output", "cosine", "relative", "max abs", "within", "note"),
                              tuple(row.row() for row in self.comparison)))
        if self.benchmark and not self.fake:
            made.append(Table(f"Milliseconds a run on {self.label}", (
                "batch", "profile", "runs", "p50", "p90", "p95", "p99", "a second", "p50 with copies"),
                tuple(row.row() for row in self.benchmark)))
        if self.profile.get("top") and not self.fake:
            made.append(Table(f"Slowest operators on {self.label} (msprof)", ("operator", "type", "us a run"),
                              tuple((row["name"], row["type"], f"{row['us']:.1f}") for row in self.profile["top"])))
        if self.build.get("log_tail") and any(step.step == "build" for step in self.failed):
            made.append(Listing(f"{mark}End of the log of atc", self.build["log_tail"]))
        return made

    def _why(self) -> str:
        infer = next((step for step in self.steps if step.step == "infer"), None)
        if infer is not None and infer.state == "done":
            return f"{self.outputs.name} is not there, which the step infer wrote"
        return f"the step infer was {infer.state} ({infer.message})" if infer else "there was no step infer"


def load_results(path: Path | str) -> BoxResults:
    """Read what the box wrote.

    Args:
        path: the folder of results, the folder of the bundle with results/ in it, or results.json.

    Raises:
        BadInput: nothing there, a damaged file, a file of something else, or one of a version that is not known.
    """
    if not isinstance(path, str | Path):
        raise BadInput(f"load_results() takes a folder, not {type(path).__name__}.",
                       remedy="give the folder results/ that run_on_box.py wrote")
    file = _file(Path(path))
    data = read_json(file, f"{file} is damaged: it is no whole JSON.", "copy the folder of results from the box again")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadInput(f"{file} is not what run_on_box.py writes.", remedy=f"give the {FILE} that it wrote on the box")
    if data.get("version") != VERSION:
        raise BadInput(f"{file} is of version {data.get('version')!r}; this kit reads version {VERSION}.",
                       remedy="read it with the kit that made the bundle, or make the bundle again")
    device = data.get("device")
    if data.get("fake") == "" and isinstance(device, dict) and any("FAKE" in str(said) for said in device.values()):
        data = {**data, "fake": "FAKE by what the device calls itself"}  # whoever emptied the field
    return _structured(file, data)


def _file(path: Path) -> Path:
    for place in (path, path / FILE, path / "results" / FILE):
        if place.is_file():
            return place
    raise BadInput(f"There are no results of a box at {path}.",
                   remedy=f"give the folder results/ that run_on_box.py wrote, or its {FILE}")


def _structured(file: Path, data: dict[str, Any]) -> BoxResults:
    import cattrs

    outputs = str(data.get("outputs") or "outputs.npz")
    fields = {**data, "path": str(file), "outputs": str(file.with_name(Path(outputs).name)),
              "benchmark": [_timing(row, bool(data.get("fake"))) for row in _rows(file, data, "benchmark")]}
    converter = cattrs.Converter()
    converter.register_structure_hook(str, _text)
    try:
        results = converter.structure(fields, BoxResults)
        for needed, group in ((("soc", "driver", "cann", "host", "backend"), results.device),
                              (("name", "soc_version", "sha256", "goldens"), results.bundle)):
            for name in needed:
                group[name]
        for entry in results.bundle["goldens"]:
            _text(entry["name"], str), _text(entry["feed"], str)
        names = [step.step for step in results.steps]
        states = {step.state for step in results.steps} - {"done", "failed", "skipped"}
        if names != list(STEPS) or states:
            raise ValueError(f"steps {names} {states}")
    except Exception as error:  # cattrs raises groups of many kinds; all mean the same here
        raise BadInput(f"{file} is damaged: its parts are not those that run_on_box.py writes.",
                       remedy="copy the folder of results from the box again", detail=repr(error)) from error
    return results


def _text(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _rows(file: Path, data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = data.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{file} is damaged: {name!r} is not a list of rows.",
                       remedy="copy the folder of results from the box again")
    return rows


def _timing(row: dict[str, Any], fake: bool) -> dict[str, Any]:
    """A row of the file as BoxTiming has it; a FAKE keeps no time, so that none is ever shown."""
    kept = {**row, "profile": row.get("profile") or [], "copies_ms": (row.get("with_copies") or {}).get("times_ms", [])}
    if fake:
        kept.update(times_ms=[], copies_ms=[], **dict.fromkeys(("p50_ms", "p90_ms", "p95_ms", "p99_ms", "fps"), 0.0))
    return kept
