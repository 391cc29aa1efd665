"""What bundling a pipeline is asked for, and what comes of it.

Public through ``diffusion``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from kit.ascend.bundling.bundle import BundleOptions
from kit.card import Card, Listing, Table, bytes_text
from kit.errors import unknown
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_on_box import DRIVEN
from kit.options import Help, Options, Range, fields
from kit.record import Provenance
from kit.targets import ascend

PIPELINE_COMMAND = "python3 draw_on_box.py"
_PRECISION = next(field for field in fields(BundleOptions) if field.name == "precision")


@dataclass(frozen=True)
class PipelineBundleOptions(Options):
    """What to prepare of a pipeline for an Ascend chip, and how its golden pictures are drawn."""

    target: Annotated[Literal[ascend.NAMES], Help("The chip, as npu-smi names it.")] = "ascend310p3"  # type: ignore[valid-type]
    cann: Annotated[Literal[ascend.RELEASES] | None, Help("CANN release on the box; not set: any.")] = None  # type: ignore[valid-type]
    precision: Annotated[_PRECISION.kind, Help(_PRECISION.help)] = "fp16"
    float_parts: Annotated[tuple[str, ...], Help(
        "Parts that compute as precisely as their model says instead, such as vae_decoder where float16 overflows.")
    ] = ()
    fix: Annotated[bool, Help("Repair first what kit.fix can repair for the chip.")] = True
    steps: Annotated[int, Range(1, 500, 1), Help("Of the scheduler, for the golden pictures and on the box.")] = 20
    guidance: Annotated[float, Range(0, 30, 0.5), Help("How far the prompt is followed.")] = 7.5
    seed: Annotated[int, Range(0, 2**31 - 1), Help("Of the starting noise; picture n starts from (seed, n).")] = 0
    scheduler: Annotated[Literal["as saved", "ddim", "pndm"], Help("The way from noise to latents.")] = "as saved"
    least_psnr: Annotated[float, Range(0, 100, 1), Help(
        "Least PSNR in dB of a picture on the box against the golden one; 0 asks for none.")] = 25.0
    goldens: Annotated[int, Range(1, 1000, 1), Help("Golden inputs of each part.")] = 4
    cosine: Annotated[float, Range(0, 1, 0.001), Help("Least cosine of a part's answer on the box.")] = 0.99
    relative: Annotated[float, Range(0, 10, 0.001), Help(
        "Largest error of a part's answer on the box, over its largest value.")] = 0.02
    warm_up: Annotated[int, Range(1, 10_000, 1), Help("Untimed runs of each part on the box.")] = 3
    timed: Annotated[int, Range(1, 100_000, 10), Help("Timed runs of each part on the box.")] = 30
    threads: Annotated[int, Range(1, 64), Help("Threads of ONNX Runtime for the golden answers.")] = 2
    force: Annotated[bool, Help("Write the bundle although the audit finds errors.")] = False

    def __post_init__(self) -> None:
        # As in BundleOptions: Ascend310P3 and ascend310p3, 8.1 and 8.1.RC1 are the same.
        object.__setattr__(self, "target", ascend.known(str(self.target)))
        object.__setattr__(self, "cann", ascend.release(self.cann))
        super().__post_init__()
        for name in self.float_parts:
            if name not in DRIVEN:
                raise unknown("part", name, DRIVEN, "what draws on the box")

    def drawing(self) -> DrawOptions:
        """How the golden pictures are drawn."""
        return DrawOptions(steps=self.steps, guidance=self.guidance, seed=self.seed, scheduler=self.scheduler,
                           threads=self.threads)

    def of_part(self, name: str) -> BundleOptions:
        """How a part is bundled. It is built on the box, by the same script as the others."""
        return BundleOptions(
            target=self.target, cann=self.cann, precision="origin" if name in self.float_parts else self.precision,
            goldens=self.goldens, cosine=self.cosine, relative=self.relative, warm_up=self.warm_up, timed=self.timed,
            threads=self.threads, force=self.force, build=False)


@dataclass(frozen=True)
class PartBundled:
    """A part in the bundle.

    Attributes:
        folder: its own bundle, with ``bundle.json``.
        shapes: that its .om is built for, in words.
        precision: as asked of atc, in words.
        goldens: how many golden inputs.
        size: bytes of all its files.
        fixed: what kit.fix did, in words; "" where it was not asked.
        audited: what the audit says.
        atc: the command, a flag a line.
    """

    folder: Path
    shapes: str
    precision: str
    goldens: int
    size: int
    fixed: str
    audited: str
    atc: str = field(repr=False)


@dataclass(frozen=True)
class PipelineBundle(Card):
    """One folder from which one command builds every part on the box and draws pictures there.

    Attributes:
        folder: with ``pipeline.json``.
        name: of the pipeline.
        soc_version: the chip, as atc takes it.
        options: see the class.
        parts: part -> what is known of its own bundle.
        drawn: the golden pictures, by ONNX Runtime with the float parts.
        size: bytes of all files.
        notes: sentences for the reader.
    """

    folder: Path
    name: str
    soc_version: str
    options: PipelineBundleOptions
    parts: dict[str, PartBundled]
    drawn: Drawn
    size: int
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        return (f"{self.name}: bundle of {len(self.parts)} parts and {len(self.drawn)} golden pictures for "
                f"{self.soc_version}, {bytes_text(self.size)}, not built here")

    def facts(self) -> dict[str, object]:
        options = self.options
        return {
            **{f"ALARM {n}": f"golden {alarm}" for n, alarm in enumerate(self.drawn.alarms, start=1)},
            "on the box": PIPELINE_COMMAND,
            "for": f"{self.soc_version}, CANN {options.cann or 'of any release'}",
            "golden pictures": f"{options.steps} steps, scheduler {options.scheduler}, guidance {options.guidance:g}, "
            f"seed {options.seed}; a picture of the box must reach {options.least_psnr:g} dB",
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((name, own.shapes, own.precision, own.goldens, bytes_text(own.size), own.fixed or "not asked for",
                      own.audited) for name, own in self.parts.items())
        return (Table("Parts, each a bundle of its own", (
                    "part", "sizes", "precision", "golden inputs", "size", "fix", "audit"), rows),
                Table("Golden pictures", ("picture", "prompt"), tuple(enumerate(self.drawn.prompts))),
                *(Listing(f"The atc command of {name}", own.atc.strip()) for name, own in self.parts.items()))

    def html(self) -> str:
        """The card, and the golden pictures under it."""
        return super().html() + self.drawn.html()
