"""``bundle_pipeline``: a whole Stable Diffusion pipeline for an Ascend box, where one command builds it and draws.

Public through ``diffusion``. Each part becomes an ordinary bundle of ``kit.compile``, its golden inputs being what the
part is fed while the golden pictures are drawn. Beside them lie the prompts as token numbers, the starting noise, the
golden pictures and one script that walks the scheduler on the box: it needs numpy alone, no tokenizer and no torch.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.ascend.box.box_script import script_text
from kit.ascend.box.box_tools import write_json
from kit.ascend.bundling.bundle import script_parts, write_text
from kit.ascend.bundling.golden_samples import MANIFEST, chosen
from kit.compilation import compile as compile_part
from kit.compiled_files import sha256
from kit.compiling.result import Compiled
from kit.errors import BadInput, UnsupportedModel
from kit.families.diffusion_bundled import PIPELINE_COMMAND, PartBundled, PipelineBundle, PipelineBundleOptions
from kit.families.diffusion_drawing import scheduler_of, starting_noise
from kit.families.diffusion_on_box import DRIVEN, PIPELINE_FORMAT, PIPELINE_VERSION
from kit.families.diffusion_parts import feeds_of
from kit.families.diffusion_pipeline import Pipeline
from kit.families.diffusion_png import png
from kit.families.diffusion_trajectory import Trajectory, walk
from kit.graph.fixing import fix
from kit.graph.result import FixOptions
from kit.options import expect
from kit.progress import Report, part, silent
from kit.record import digest, run_stage, runs_folder
from kit.source import NAMES, recognise

PLAN, PIPELINE_SCRIPT = "pipeline.json", "draw_on_box.py"
#: What draw_on_box.py is put together from; each needs only those before it.
SCRIPT_PARTS = ("kit.runtimes.om_session", "kit.runtimes.ais_session", "kit.ascend.box.box_tools",
                "kit.ascend.box.box_steps", "kit.families.diffusion_png", "kit.families.diffusion_schedulers",
                "kit.families.diffusion_alarms", "kit.families.diffusion_om_parts", "kit.families.diffusion_on_box")
VERSION = 1

README = """# {name} for {soc}

A whole pipeline, bundled by the migration notebook kit. It was prepared on a machine without the device: nothing in it
has run on an Ascend chip. On the box it needs Python 3.8 or newer, numpy, and {cann} with the kernels of {soc}.

    {command}

builds the .om of every part with atc, runs their golden inputs, draws the pictures with the .om files and compares them
with the golden ones. `{command} --help` lists more: `--build-only` needs no device.

## What comes back

`results/results.json` and `results/pictures/`, and a folder of results for each part, also where a step fails. Take the
folder `results` to the kit:

    results = kit.families.diffusion.read_pipeline_results("results")

## What lies here

- `text_encoder/`, `unet/`, `vae_decoder/`: a bundle each, which `python3 run_on_box.py` in it finishes alone too
- `pipeline.json`: the scheduler, the prompts and what else the script needs to know, with the sha256 of every file
- `draw_on_box.py`: builds, draws and compares; Python 3.8, numpy and CANN are all it needs
- `prompts/`: token numbers of each prompt, and of no prompt (`nothing.npy`)
- `noise.npy`: the starting noise of each picture
- `goldens/`: the pictures (.png to look at, .npy to compare with) and latents of the float pipeline

## Pictures

{prompts}
"""


def bundle_pipeline(pipeline: Pipeline, prompts: Sequence[str],
                    options: PipelineBundleOptions = PipelineBundleOptions(), *,  # noqa: B008 - frozen
                    captured: Sequence[Mapping[str, np.ndarray]] | None = None, runs: Path | str | None = None,
                    report: Report = silent) -> PipelineBundle:
    """Put everything into one folder that one command on an Ascend box needs to draw with this pipeline.

    Args:
        pipeline: whose text encoder, UNet and decoder are ONNX; the golden pictures are drawn with it.
        prompts: of the golden pictures.
        options: see the class.
        captured: inputs of the UNet, such as ``capture`` gives, to take its golden inputs from; by default some of
            those seen while the golden pictures are drawn.
        runs: where results are kept: the bundle in ``<runs>/<pipeline>/bundle-...``.
        report: hears progress.

    Raises:
        BadInput: no prompts, a part that is not ONNX or has other sizes; names it.
        UnsupportedModel: the audit of a part finds errors that stay; names the part and says what repairs them.
    """
    expect(PipelineBundleOptions, options)
    _check_onnx(pipeline)
    texts = {PIPELINE_SCRIPT: script_text(SCRIPT_PARTS), **script_parts()}
    given = captured if captured is None or hasattr(captured, "digest") else list(captured)

    def work(folder: Path, tell: Report) -> PipelineBundle:
        return _made(pipeline, prompts, options, captured, folder, runs_folder(runs) / pipeline.name, tell)

    return run_stage("bundle", PipelineBundle, work, options=options, name=pipeline.name, version=VERSION, runs=runs,
                     report=report, inputs={"pipeline": pipeline, "prompts": prompts, "captured": given,
                                            "scripts": texts})


def _check_onnx(pipeline: Pipeline) -> None:
    for name in DRIVEN:
        source = recognise(pipeline.part(name)[0])
        if source.kind != "onnx":
            raise BadInput(
                f"The {name} of {pipeline.name!r} is {NAMES[source.kind]} ({source.path}); atc reads ONNX.",
                remedy='export_pipeline(folder, PipelineExportOptions(target="ascend310p3")).pipeline has '
                f"ONNX parts; or exchange this one: pipeline.replaced({name}=...)")


def _made(pipeline: Pipeline, prompts: Sequence[str], options: PipelineBundleOptions, captured: Any, folder: Path,
          place: Path, report: Report) -> PipelineBundle:
    seen = walk(pipeline, prompts, options.drawing(), part(report, "golden pictures"))
    # atc takes no path with a space or most other signs in it, and a pipeline's name is free.
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", pipeline.name).strip("-.") or "pipeline"
    bundle = folder / f"{plain}-{options.target}"
    bundle.mkdir()
    parts, said, soc = {}, defaultdict(list), ""
    for name in DRIVEN:
        fixed, made = _part(pipeline, name, _fed(pipeline, name, seen, captured, options.goldens), options,
                            folder / ".made", place, part(report, name))
        shutil.move(made.bundle.folder, bundle / name)
        shutil.rmtree(folder / ".made")
        own, soc = made.bundle, made.bundle.soc_version
        parts[name] = PartBundled(bundle / name, own.shapes, own.precision, own.goldens, own.size, fixed, own.audited,
                                  own.atc)
        for note in made.notes:
            said[note].append(name)
    notes = [note if len(names) == len(DRIVEN) else f"{', '.join(names)}: {note}" for note, names in said.items()]
    _write(bundle, pipeline, seen, options, soc)
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return PipelineBundle(bundle, pipeline.name, soc, options, parts, seen.drawn, size,
                          (*seen.drawn.notes, *notes))


def _part(pipeline: Pipeline, name: str, feeds: Fed, options: PipelineBundleOptions, scratch: Path, place: Path,
          report: Report) -> tuple[str, Compiled]:
    """What was repaired in a part, in words, and its own bundle as ``kit.compile`` makes it."""
    model, fixed = recognise(pipeline.part(name)[0]).graph, ""
    try:
        if options.fix:
            model = fix(model, FixOptions(target=options.target), samples=feeds, runs=place / name,
                        report=part(report, "fix"))
            fixed = model.title()
        made = compile_part(model, options.of_part(name), samples=feeds, runs=scratch, report=part(report, "bundle"))
    except (BadInput, UnsupportedModel) as error:
        raise type(error)(f"The {name} of {pipeline.name!r}: {error.what}", remedy=error.remedy,
                          detail=error.detail) from error
    if not made:
        raise UnsupportedModel(f"The {name} of {pipeline.name!r} answers otherwise once repaired: {made.title()}.",
                               remedy="fix=False bundles it as it is; kit.fix(...) shows which edit it was")
    return fixed, made


# ---- golden inputs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    name: str
    feed: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Fed(Sequence):
    """Feeds of a part with their names, as ``kit.compile`` takes samples."""

    items: tuple[_Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at):
        return [item.feed for item in self.items[at]] if isinstance(at, slice) else self.items[at].feed

    def digest(self) -> str:
        """Of names and feeds; order counts."""
        return digest([[item.name, item.feed] for item in self.items])


def _fed(pipeline: Pipeline, name: str, seen: Trajectory, captured: Any, count: int) -> Fed:
    """What a part is fed on the box: the UNet two at a time, without prompt and with it."""
    if name == "unet":
        fed = _pairs(captured) if captured is not None else [
            _Item(f"picture {step.prompt}, timestep {step.timestep}", step.feed)
            for steps in seen.steps for step in steps]
    else:
        what = "prompt" if name == "text_encoder" else "picture"
        fed = [_Item(f"{what} {at}", feed) for at, feed in enumerate(
            feeds_of(pipeline, name, seen, seen.drawn.prompts))]
    return Fed(tuple(fed[at] for at in chosen(fed, count, lambda _: True)))


def _pairs(captured: Sequence[Mapping[str, np.ndarray]]) -> list[_Item]:
    """Captured inputs two by two, each pair of one timestep; one that is alone goes with itself."""
    if not len(captured):
        raise BadInput("There are no captured inputs of the UNet.",
                       remedy="leave captured out: those seen while drawing are used then")
    groups = defaultdict(list)
    for feed in captured:
        groups[int(np.ravel(feed["timestep"])[0])] += [
            {key: array if key == "timestep" else array[at : at + 1] for key, array in feed.items()}
            for at in range(len(feed["sample"]))]
    found = []
    for timestep, feeds in sorted(groups.items(), reverse=True):
        for at in range(0, len(feeds), 2):
            left, right = feeds[at], feeds[min(at + 1, len(feeds) - 1)]
            found.append(_Item(f"captured, timestep {timestep}, {at // 2}", {
                key: array if key == "timestep" else np.concatenate([array, right[key]])
                for key, array in left.items()}))
    return found


# ---- what lies beside the parts -------------------------------------------------------------------------------------


def _write(bundle: Path, pipeline: Pipeline, seen: Trajectory, options: PipelineBundleOptions, soc: str) -> None:
    drawn, tokens = seen.drawn, pipeline.prompt_tokens()
    for name in ("prompts", "goldens"):
        (bundle / name).mkdir()
    np.save(bundle / "noise.npy", starting_noise(pipeline, len(drawn), options.seed))
    np.save(bundle / "prompts" / "nothing.npy", tokens([""]))
    alarms = {alarm.prompt: alarm.kind for alarm in drawn.alarms}
    rows = []
    for at, prompt in enumerate(drawn.prompts):
        row = {"text": prompt, "tokens": f"prompts/{at:03d}.npy", "picture": f"goldens/{at:03d}.npy",
               "latents": f"goldens/{at:03d}-latents.npy", "alarm": alarms.get(at, "")}
        for key, array in (("tokens", tokens([prompt])), ("picture", drawn.pictures[at]),
                           ("latents", drawn.latents[at])):
            np.save(bundle / row[key], array)
        (bundle / "goldens" / f"{at:03d}.png").write_bytes(png(drawn.pictures[at]))
        rows.append(row)
    write_text(bundle / PIPELINE_SCRIPT, script_text(SCRIPT_PARTS))
    write_text(bundle / "README.md", README.format(
        name=pipeline.name, soc=soc, cann=f"CANN {options.cann}" if options.cann else "CANN", command=PIPELINE_COMMAND,
        prompts="\n".join(f"- `goldens/{at:03d}.png`: {prompt}" for at, prompt in enumerate(drawn.prompts))))
    # The parts' manifests hold the sha256 of what lies in them.
    files = {path.relative_to(bundle).as_posix(): sha256(path) for path in sorted(bundle.rglob("*"))
             if path.is_file() and (path.name == MANIFEST or path.relative_to(bundle).parts[0] not in DRIVEN)}
    write_json(bundle / PLAN, {
        "format": PIPELINE_FORMAT, "version": PIPELINE_VERSION, "name": pipeline.name, "soc_version": soc,
        "cann": options.cann or "", "scheduler": dataclasses.asdict(scheduler_of(pipeline, options.drawing())),
        "steps": options.steps, "guidance": options.guidance, "latent_scale": pipeline.latent_scale,
        "least_psnr": options.least_psnr, "noise": "noise.npy", "nothing": "prompts/nothing.npy", "prompts": rows,
        "files": files})
