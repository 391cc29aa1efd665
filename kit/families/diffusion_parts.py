"""Every part of a pipeline verified alone, before anyone looks at pictures: which is the first that answers otherwise?

Public through ``diffusion``. Each part is fed what it is really fed while the reference draws, made by the reference's
parts, so that an error of one part is never blamed on the next. The judging is ``kit.verify``'s: float parts by 1e-5
and 1e-3 of the largest value, quantized and half precision ones by their signal-to-noise ratio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table
from kit.comparison import worst
from kit.evidence.verdict import Verdict, decibels
from kit.families.diffusion_drawn import DrawOptions
from kit.families.diffusion_pipeline import PARTS, Pipeline
from kit.families.diffusion_trajectory import Trajectory, prompts_of, walk
from kit.options import expect
from kit.progress import Report, part, silent
from kit.record import Provenance, runs_folder
from kit.source import recognise
from kit.verification import VerifyOptions, verify

_INPUTS = 24  # of the UNet, at most, where none were captured and no number was asked for


@dataclass(frozen=True)
class PartsVerdict(Card):
    """What ``verify_parts`` returns; true where every part keeps its answers.

    Attributes:
        reference: name of the pipeline that the other is held against.
        candidate: its name.
        verdicts: part -> what ``kit.verify`` says, in the order in which a picture is made.
        skipped: part -> why it was not compared.
    """

    reference: str
    candidate: str
    verdicts: dict[str, Verdict]
    skipped: dict[str, str] = field(default_factory=dict)
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return not self.where

    @property
    def where(self) -> str:
        """The first part that fails; "" where none does."""
        return next((name for name, verdict in self.verdicts.items() if not verdict), "")

    def title(self) -> str:
        failed = [name for name, verdict in self.verdicts.items() if not verdict]
        if not failed:
            compared = ", ".join(self.verdicts) or "no part"
            return f"{self.candidate}: each part alone answers like {self.reference} ({compared} compared)"
        more = f"; {', '.join(failed[1:])} too" if failed[1:] else ""
        why = self.verdicts[failed[0]].rows[-1].why
        return f"{self.candidate}: {failed[0]} is the first part that fails: {why}{more}"

    def facts(self) -> dict[str, object]:
        return {**{f"ALARM {name}": " ".join(verdict.alarms) for name, verdict in self.verdicts.items()
                   if verdict.alarms},
                **{name: f"not compared: {why}" for name, why in self.skipped.items()}}

    def tables(self) -> tuple[Table, ...]:
        rows = []
        for name, verdict in self.verdicts.items():
            row = verdict.rows[-1]
            gap = worst(row.parity)
            rows.append((name, row.precision, row.runtime, verdict.samples, decibels(row.snr_db),
                         f"{gap.relative:.1e}" if gap else "-", row.status, row.why))
        return (Table(f"Each part alone, against {self.reference}", (
            "part", "precision", "runtime", "inputs", "SNR", "largest relative difference", "verdict", "reason"),
            tuple(rows)),)


def verify_parts(reference: Pipeline, candidate: Pipeline,
                 captured: Sequence[Mapping[str, np.ndarray]] | None = None,
                 options: VerifyOptions = VerifyOptions(), *,  # noqa: B008 - frozen
                 prompts: Sequence[str] | None = None, drawing: DrawOptions = DrawOptions(),  # noqa: B008 - frozen
                 runs: Path | str | None = None, report: Report = silent) -> PartsVerdict:
    """Verify each part of a pipeline alone.

    Args:
        reference: what the other is held against.
        candidate: with the same sizes.
        captured: inputs of the UNet, such as ``capture`` gives; by default some of those seen while drawing.
        options: of ``kit.verify``.
        prompts: whose pictures are drawn with the reference; those of ``captured`` by default.
        drawing: how.
        runs: where the verdicts are kept: ``<runs>/<candidate>/parts``.
        report: hears progress.

    Raises:
        BadInput: no prompts, or a part with other inputs than the reference's; names it.
    """
    expect(VerifyOptions, options)
    prompts = prompts_of(captured, prompts)
    skipped = {name: why for name in PARTS if (why := _needless(reference, candidate, name))}
    wanted = [name for name in PARTS if name not in skipped]
    if not wanted:
        return PartsVerdict(reference.name, candidate.name, {}, skipped)
    seen = walk(reference, prompts, dataclasses.replace(drawing, threads=options.threads),
                part(report, f"drawing with {reference.name}"))
    names = reference.name, candidate.name if candidate.name != reference.name else f"{candidate.name}, the other"
    place, verdicts = runs_folder(runs) / candidate.name / "parts", {}
    for name in wanted:
        feeds = captured if name == "unet" and captured is not None else feeds_of(reference, name, seen, prompts)
        stages = dict(zip(names, (reference.part(name), candidate.part(name)), strict=True))
        asked = options if name != "unet" or captured is not None or options.samples else \
            dataclasses.replace(options, samples=_INPUTS)
        verdicts[name] = verify(stages, feeds, asked, runs=place, report=part(report, name))
    return PartsVerdict(reference.name, names[1], verdicts, skipped)


def feeds_of(pipeline: Pipeline, name: str, seen: Trajectory, prompts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """What a part is fed while pictures are drawn, with a batch of one each.

    The encoder, which drawing does not use, gets the pictures drawn.

    Args:
        pipeline: that drew.
        name: of the part.
        seen: while drawing.
        prompts: that were drawn.
    """
    if name == "text_encoder":
        tokens = pipeline.prompt_tokens()
        return [{"input_ids": tokens([prompt])} for prompt in dict.fromkeys(("", *prompts))]
    if name == "unet":
        return seen.feeds()
    if name == "vae_decoder":
        return [{"latents": latents[None] / np.float32(pipeline.latent_scale)} for latents in seen.drawn.latents]
    return [{"picture": np.ascontiguousarray(picture.transpose(2, 0, 1)[None] * 2 - 1, np.float32)}
            for picture in seen.drawn.pictures]


def _needless(reference: Pipeline, candidate: Pipeline, name: str) -> str:
    """Why a part need not or cannot be compared; "" where it can."""
    for pipeline in (reference, candidate):
        if name not in pipeline.parts:
            return f"{pipeline.name} has none"
    (left, asked), (right, other) = reference.part(name), candidate.part(name)
    return "both have the same" if _told(left, asked) == _told(right, other) else ""


def _told(artifact: Any, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    return recognise(artifact).graph.resolve(), {**getattr(artifact, "runner_settings", {}), **settings}
