"""What drawing is asked for, and what comes of it: pictures with their options, latents and alarms."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html import escape
from typing import Annotated, Literal

import numpy as np

from kit.card import Card, Table
from kit.families.diffusion_alarms import Alarm
from kit.families.diffusion_png import png
from kit.options import Help, Options, Range
from kit.record import Provenance, digest


@dataclass(frozen=True)
class DrawOptions(Options):
    """How pictures are drawn."""

    steps: Annotated[int, Range(1, 500, 1), Help("Of the scheduler; PNDM asks the UNet once more than that")] = 20
    guidance: Annotated[float, Range(0, 30, 0.5), Help(
        "How far the prompt is followed: 1 takes it as it is, more exaggerates it")] = 7.5
    seed: Annotated[int, Range(0, 2**31 - 1), Help("Of the starting noise; picture n starts from (seed, n)")] = 0
    scheduler: Annotated[Literal["as saved", "ddim", "pndm"], Help("The way from noise to latents")] = "as saved"
    threads: Annotated[int, Range(1, 256, 1), Help("Of each part's runtime")] = 2


@dataclass(frozen=True, eq=False)
class Drawn(Card):
    """Pictures, and what there is to say about them.

    Attributes:
        pipeline: name of what drew them.
        prompts: one a picture.
        options: how they were drawn.
        pictures: float32 [n, H, W, 3] in 0..1; NaN stays NaN.
        latents: that they were decoded from, float32 [n, 4, h, w], as the UNet has them.
        timesteps: that the UNet was asked at.
        ms: part -> milliseconds of one call, the median; a first look and no benchmark.
        alarms: pictures that cannot be right.
        notes: sentences for the reader.
    """

    pipeline: str
    prompts: tuple[str, ...]
    options: DrawOptions
    pictures: np.ndarray = field(repr=False)
    latents: np.ndarray = field(repr=False)
    timesteps: tuple[int, ...]
    ms: dict[str, float]
    alarms: tuple[Alarm, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, repr=False)

    def digest(self) -> str:
        """Of the prompts, the options and the pictures; not of how long they took."""
        return digest([self.pipeline, self.prompts, self.options, self.pictures, self.latents])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawn) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __len__(self) -> int:
        return len(self.prompts)

    def title(self) -> str:
        count = f"{len(self)} picture{'s' if len(self) != 1 else ''}"
        bad = f"; {len(self.alarms)} cannot be right" if self.alarms else ""
        return f"{self.pipeline}: {count} of {self.pictures.shape[2]} x {self.pictures.shape[1]} drawn{bad}"

    def facts(self) -> dict[str, object]:
        options = self.options
        return {
            "drawn with": f"{options.steps} steps ({len(self.timesteps)} calls of the UNet), scheduler "
            f"{options.scheduler}, guidance {options.guidance:g}, seed {options.seed}",
            "one call takes": ", ".join(f"{part} {ms:.1f} ms" for part, ms in self.ms.items()),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        alarms = (Table("Alarms", ("what cannot be right",), tuple((str(a),) for a in self.alarms)),)
        return (*(alarms if self.alarms else ()),
                Table("Prompts", ("picture", "prompt"), tuple(enumerate(self.prompts))))

    def html(self) -> str:
        """The card, and the first pictures under it."""
        shown = "".join(
            f'<figure style="display:inline-block;margin:4px;max-width:192px;vertical-align:top"><img width="192" '
            f'style="image-rendering:pixelated" alt="{escape(prompt, quote=True)}" src="{data_uri(picture)}">'
            f"<figcaption>{escape(prompt)}</figcaption></figure>"
            for prompt, picture in zip(self.prompts[:12], self.pictures, strict=False))
        return super().html() + f"<div>{shown}</div>"


def data_uri(picture: np.ndarray) -> str:
    """A picture, [H, W, 3] in 0..1, as a PNG inside a ``data:`` address; what is not finite becomes black."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()
