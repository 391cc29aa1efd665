"""What came back from the box for a whole pipeline, and the rehearsal of its bundle with FAKE tools.

Public through ``diffusion``. Nothing of it was measured here, so it carries the device's name wherever it is shown;
what FAKE tools made says FAKE and gives no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.ascend.box.rehearsal import check_backend, rehearse_folder
from kit.ascend.box.results import BoxResults, BoxStep, load_results
from kit.ascend.bundling.golden_samples import MANIFEST, read_manifest
from kit.card import Card, Table
from kit.errors import BadInput
from kit.families.diffusion_bundle import PIPELINE_SCRIPT, PLAN
from kit.families.diffusion_bundled import PipelineBundle
from kit.families.diffusion_on_box import DRIVEN, PIPELINE_STEPS, PIPELINE_VERSION, RESULTS_FORMAT, read_plan
from kit.progress import Report, silent
from kit.record import read_json
from kit.runtimes.om_session import Failure

_AGAIN = "copy the folder of results from the box again"


@dataclass(frozen=True)
class BoxPicture:
    """A picture drawn on the box.

    Attributes:
        prompt: its text.
        file: PNG.
        psnr: against the golden picture, dB, 0 to 100.
        latents_cosine: of the latents that it was decoded from; None where they are not finite.
        alarm: why it cannot be right; "" where nothing was seen.
        ok: like the golden one, as far as the bundle asks.
    """

    prompt: str
    file: Path
    psnr: float
    latents_cosine: float | None
    alarm: str
    ok: bool


@dataclass(frozen=True)
class PartTimes:
    """Milliseconds of a part's calls while pictures were drawn, with the copies to the device and back."""

    calls: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class PipelineBoxResults(Card):
    """A pipeline on the box; true when every step is done, every part within tolerance and every picture golden.

    Attributes:
        path: results.json.
        fake: which tools were FAKE; "" on a real box.
        device: soc, driver, cann, host, backend.
        pipeline: name, soc_version, least_psnr, prompts, sha256 of the bundle's plan.
        started: when, by the box's clock.
        steps: in order.
        parts: part -> its own results, as ``kit.ascend.load_results`` reads them; those that came back.
        ms: part -> milliseconds of its calls while drawing; empty for a FAKE.
        pictures: that were drawn.
    """

    path: Path
    fake: str
    device: dict[str, Any]
    pipeline: dict[str, Any]
    started: str
    steps: tuple[BoxStep, ...]
    parts: dict[str, BoxResults] = field(repr=False)
    ms: dict[str, PartTimes]
    pictures: tuple[BoxPicture, ...]

    def __bool__(self) -> bool:
        return (all(step.state == "done" for step in self.steps) and set(self.parts) == set(DRIVEN)
                and all(self.parts.values()) and len(self.pictures) == len(self.pipeline["prompts"])
                and all(picture.ok for picture in self.pictures))

    @property
    def failed(self) -> tuple[BoxStep, ...]:
        """The steps that failed."""
        return tuple(step for step in self.steps if step.state == "failed")

    @property
    def label(self) -> str:
        """Where it ran: ``Ascend310P3``, or ``FAKE Ascend310P3``."""
        soc = str(self.device.get("soc") or self.pipeline["soc_version"]).partition(" ")[0]
        return f"FAKE {soc}" if self.fake else soc

    def array(self, name: str) -> np.ndarray:
        """``"pictures"``, float32 [n, H, W, 3] in 0..1, or ``"latents"``, [n, 4, h, w], as the box made them.

        Raises:
            BadInput: they are not there or damaged.
        """
        path = self.path.with_name(f"{name}.npy")
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"{path} is not there or no whole array.", remedy=_AGAIN, detail=repr(error)) from error

    def title(self) -> str:
        name, wanted = self.pipeline["name"], self.pipeline["soc_version"]
        start = f"FAKE rehearsal of {name} for {wanted}" if self.fake else f"{name} on {self.label}"
        if self.failed:
            return f"{start}: {self.failed[0].step} FAILED: {self.failed[0].message}"
        if not self:
            left = [step.step for step in self.steps if step.state == "skipped"]
            return f"{start}: no failure, but not done: {', '.join(left) or 'what came back is not whole'}"
        worst = min(picture.psnr for picture in self.pictures)
        return f"{start}: {len(self.pictures)} pictures like the golden ones, PSNR {worst:.1f} dB or more" + (
            "; nothing ran on a device" if self.fake else "")

    def facts(self) -> dict[str, object]:
        device = self.device
        return {
            **({"FAKE": f"{self.fake}: no chip, no ATC, no time of a device"} if self.fake else {}),
            **{f"ALARM {n}": picture.alarm for n, picture in enumerate(
                (picture for picture in self.pictures if picture.alarm), start=1)},
            "device": f"{device.get('soc') or 'unknown'}, driver {device.get('driver') or 'unknown'}",
            "CANN": device.get("cann") or "unknown", "host": device.get("host") or "unknown",
            "asked for": f"PSNR of {self.pipeline['least_psnr']:g} dB against the golden pictures",
            "started": self.started,
        }

    def tables(self) -> Sequence[Table]:
        mark = "FAKE: " if self.fake else ""
        made = [Table(f"{mark}Steps on the box", ("step", "state", "seconds", "message"), tuple(
            (step.step, step.state, f"{step.seconds:.1f}", step.message) for step in self.steps))]
        said = tuple((step.step, row["code"] or "-", row["cause"], row["node"] or "-", row["next"] or "-")
                     for step in self.steps for row in step.explained)
        if said:
            made.append(Table(f"{mark}What the logs mean", ("step", "code", "cause", "node", "next step"), said))
        if self.pictures:
            made.append(Table(f"{mark}Pictures against the golden ones", (
                "picture", "prompt", "PSNR dB", "cosine of latents", "alarm", "like it"), tuple(
                (picture.file.name, picture.prompt, f"{picture.psnr:.1f}",
                 "-" if picture.latents_cosine is None else f"{picture.latents_cosine:.6f}", picture.alarm or "-",
                 "yes" if picture.ok else "NO") for picture in self.pictures)))
        if self.ms:
            made.append(Table(f"Milliseconds a call on {self.label}, while drawing, with copies", (
                "part", "calls", "p50", "p95"), tuple(
                (name, own.calls, f"{own.p50_ms:.2f}", f"{own.p95_ms:.2f}") for name, own in self.ms.items())))
        made.append(Table(f"{mark}Parts", ("part", "what came of it"), tuple(
            (name, own.title()) for name, own in self.parts.items())))
        return made


def read_pipeline_results(path: Path | str) -> PipelineBoxResults:
    """Read what ``draw_on_box.py`` wrote.

    Args:
        path: the folder of results, the folder of the bundle with results/ in it, or results.json.

    Raises:
        BadInput: nothing there, a damaged file, a file of something else, or one of a version that is not known.
    """
    path = Path(path)
    file = next((place for place in (path, path / "results.json", path / "results" / "results.json")
                 if place.is_file()), None)
    if file is None:
        raise BadInput(f"There are no results of a box at {path}.",
                       remedy="give the folder results/ that draw_on_box.py wrote, or its results.json")
    data = read_json(file, f"{file} is damaged: it is no whole JSON.", _AGAIN)
    kind = (data.get("format"), data.get("version")) if isinstance(data, dict) else None
    if kind != (RESULTS_FORMAT, PIPELINE_VERSION):
        raise BadInput(f"{file} is not what draw_on_box.py of this version writes, but {kind}.",
                       remedy="give its results.json; kit.ascend.load_results reads those of a single model")
    try:
        return _structured(file, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{file} is damaged: its parts are not those that draw_on_box.py writes.", remedy=_AGAIN,
                       detail=repr(error)) from error


def _structured(file: Path, data: dict[str, Any]) -> PipelineBoxResults:
    parts = {name: load_results(file.parent / name) for name in DRIVEN
             if (file.parent / name / "results.json").is_file()}
    # Whoever emptied the field: the parts and the device say it too.
    fake = data["fake"] or next((own.fake for own in parts.values() if own.fake), "")
    if not fake and any("FAKE" in str(said) for said in data["device"].values()):
        fake = "FAKE by what the device calls itself"
    steps = tuple(BoxStep(**{**row, "explained": tuple(row["explained"])}) for row in data["steps"])
    if tuple(step.step for step in steps) != PIPELINE_STEPS:
        raise ValueError(f"steps {[step.step for step in steps]}")
    for name in ("name", "soc_version", "least_psnr", "prompts"):
        data["pipeline"][name]
    return PipelineBoxResults(
        file, fake, data["device"], data["pipeline"], data["started"], steps, parts,
        {} if fake else {name: PartTimes(row["calls"], row["p50_ms"], row["p95_ms"])
                         for name, row in data["ms"].items()},
        tuple(BoxPicture(**{**row, "file": file.parent / row["file"]}) for row in data["pictures"]))


def rehearse_pipeline(bundle: PipelineBundle | Path | str, *, fault: str = "", into: Path | str | None = None,
                      backend: str = "auto", report: Report = silent) -> PipelineBoxResults:
    """Run a bundle's ``draw_on_box.py`` here, in a copy, with FAKE tools: see ``kit.ascend.rehearse``.

    The FAKE .om files compute with ONNX Runtime, rounded to what the chip would round, so real pictures come of it. It
    tells whether the bundle is whole and the script right; nothing about a real ATC, a real chip or time.

    Args:
        bundle: what ``bundle_pipeline`` returned, its folder or its pipeline.json.
        fault: something that is wrong on the box, see ``kit.ascend.box.rehearsing.FAULTS``.
        into: folder of the results; by default beside the bundle, with ``-rehearsal`` and the fault behind its name.
        backend: ``acl`` or ``ais_bench``; ``auto`` takes what is there.
        report: hears the steps; what it raises ends the rehearsal.

    Returns:
        Results marked FAKE, without times; true when the bundle went through.

    Raises:
        BadInput: that is no bundle, or there is no such fault or backend.
        ToolFailed: the script ended without results.
    """
    check_backend(backend)
    given = getattr(bundle, "folder", bundle)
    if not isinstance(given, str | Path):
        raise BadInput(f"A {type(bundle).__name__} is no bundle of a pipeline.",
                       remedy="give what bundle_pipeline returned, or its folder")
    folder = Path(given)
    folder = folder.parent if folder.name == PLAN else folder
    try:
        plan = read_plan(folder)
    except Failure as error:
        raise BadInput(f"{folder} is not a whole bundle of a pipeline: {error.what}",
                       remedy="make it with kit.families.diffusion.bundle_pipeline") from error
    about = {name: read_manifest(folder / name) for name in DRIVEN if (folder / name / MANIFEST).is_file()}
    names = [PLAN, *plan["files"], *(f"{name}/{file}" for name, own in about.items() for file in own["files"])]
    return rehearse_folder(
        folder, names, into, script=PIPELINE_SCRIPT, steps=PIPELINE_STEPS, soc=plan["soc_version"], cann=plan["cann"],
        fault=fault, cut="noise.npy", backend=backend, results=read_pipeline_results, report=report)
