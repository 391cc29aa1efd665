"""``export_pipeline``: every sub-model of a diffusers folder as ONNX, each compared with its PyTorch original.

Public through ``diffusion``. Parts are exported one after the other, each by ``kit.export`` in a process of its own:
the peak is that of the largest, and a part that was exported before is not exported again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from kit.card import Card, Table, bytes_text
from kit.errors import unknown
from kit.exporting import Exported, ExportOptions, export
from kit.exporting.custom_operators import pairs_of
from kit.families.diffusion_pipeline import PARTS, Pipeline
from kit.options import Help, Options, Range, expect
from kit.progress import Report, part, silent
from kit.record import Provenance, runs_folder


@dataclass(frozen=True)
class PipelineExportOptions(Options):
    """How the parts of a pipeline are exported."""

    target: Annotated[Literal["onnxruntime", "openvino", "ascend310p3"],
                      Help("Where they will run; decides the opset")] = "onnxruntime"
    opset: Annotated[int | None, Range(7, 21, 1),
                     Help("Version of the ONNX operators; empty: what suits the target")] = None
    exporter: Annotated[Literal["dynamo", "classic"], Help("Which of PyTorch's two exporters")] = "dynamo"
    parts: Annotated[tuple[str, ...], Help("Which of " + ", ".join(PARTS))] = PARTS
    operators: Annotated[tuple[tuple[str, str], ...], Help(
        "Module class or ONNX pattern -> name of an operator of your own, or domain::name")] = ()
    any_size: Annotated[bool, Help("Height and width stay free too, not only the batch")] = False
    compare: Annotated[bool, Help("Run PyTorch and ONNX on the same inputs")] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.parts:
            if name not in PARTS:
                raise unknown("part", name, PARTS, "a Stable Diffusion pipeline")
        object.__setattr__(self, "operators", pairs_of(self.operators))


@dataclass(frozen=True)
class PipelineExported(Card):
    """A pipeline's parts as ONNX. True unless a part answers otherwise than its original.

    Attributes:
        name: of the pipeline.
        source: the diffusers folder.
        options: how it was exported.
        exported: part -> what its export said, with the memory it was forecast to take and took.
    """

    name: str
    source: Path
    options: PipelineExportOptions
    exported: dict[str, Exported]
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return all(self.exported.values())

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that draws with the ONNX files; parts that were not exported stay in PyTorch."""
        return Pipeline.read(self.source).replaced(
            self.name, **{part: exported.model for part, exported in self.exported.items()})

    def title(self) -> str:
        size = bytes_text(sum(exported.size for exported in self.exported.values()))
        failed = [part for part, exported in self.exported.items() if not exported]
        state = f"; {', '.join(failed)} do not answer like PyTorch" if failed else ""
        return f"{self.name}: {len(self.exported)} parts exported to ONNX, {size}{state}"

    def facts(self) -> dict[str, object]:
        any_of = next(iter(self.exported.values()), None)
        return {
            "exporter": f"PyTorch's {self.options.exporter} exporter",
            **({"opset": f"{any_of.opset}: {any_of.opset_reason}"} if any_of else {}),
            **({"operators of your own": ", ".join(f"{a} -> {b}" for a, b in self.options.operators)}
               if self.options.operators else {}),
            "height and width": "free" if self.options.any_size else "as the pipeline's configuration says",
        }

    def tables(self) -> tuple[Table, ...]:
        def gap(exported: Exported) -> str:
            return f"{max(row.relative for row in exported.parity):.1e}" if exported.parity else "not compared"

        def said(size: int | None) -> str:
            return bytes_text(size) if size else "-"

        rows = tuple((part, exported.verdict, gap(exported), exported.model.nodes, bytes_text(exported.size),
                      said(exported.memory_forecast), said(exported.memory_peak),
                      f"{exported.provenance.seconds:.1f} s" if exported.provenance else "-")
                     for part, exported in self.exported.items())
        return (Table("Parts", ("part", "verdict", "largest relative difference", "nodes", "file", "memory forecast",
                                "memory peak", "took"), rows),)


def export_pipeline(source: Any, options: PipelineExportOptions = PipelineExportOptions(), *,
                    runs: Path | str | None = None, report: Report = silent) -> PipelineExported:
    """Export the parts of a diffusers folder, largest last.

    Args:
        source: the folder, or what `sd15` gave.
        options: see the class.
        runs: where results go: ``<runs>/<pipeline>/<part>/export-...``.
        report: hears progress.

    Raises:
        BadInput: the folder is not whole, or its parts do not fit each other; before anything is exported.
        UnsupportedModel: classes or a scheduler that the kit does not draw with, or what the exporter cannot do.
        ToolFailed: the exporter stopped.
        WorkerDied: the memory did not suffice.
    """
    expect(PipelineExportOptions, options)
    pipeline = Pipeline.read(source)
    place = runs_folder(runs) / pipeline.name
    found = {}
    for name in sorted(options.parts, key=lambda name: (name == "unet", PARTS.index(name))):
        artifact, settings = pipeline.part(name)
        asked = ExportOptions(
            target=options.target, opset=options.opset, exporter=options.exporter, operators=options.operators,
            compare=options.compare, axes=_axes(pipeline, name) if options.any_size else (), **settings)
        found[name] = export(artifact, asked, runs=place, report=part(report, name))
    return PipelineExported(pipeline.name, pipeline.source, options,
                            {name: found[name] for name in PARTS if name in found})


def _axes(pipeline: Pipeline, part: str) -> tuple[str, ...]:
    """Names of the free axes of a part's inputs."""
    channels = pipeline.latent_shape[0]
    return {
        "text_encoder": (),
        "unet": (f"sample=N,{channels},h,w", f"encoder_hidden_states=N,{pipeline.tokens},{pipeline.width}"),
        "vae_decoder": (f"latents=N,{channels},h,w",),
        "vae_encoder": ("picture=N,3,H,W",),
    }[part]
