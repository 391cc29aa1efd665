"""The way of an ONNX file that was brought along: names, opset, order of axes, checks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kit import preflight
from kit.exporting import onnx_file
from kit.exporting.finishing import VERSION, compare_on, finish
from kit.exporting.layouts import Relayout, turn, turns
from kit.exporting.options import ExportOptions
from kit.exporting.result import Exported
from kit.exporting.specs import named, parse_axes
from kit.model import Model, read
from kit.progress import Report, Tick, part
from kit.record import run_stage
from kit.runner import open_runner
from kit.samples import Samples
from kit.source import Source


def from_onnx(found: Source, options: ExportOptions, samples: Samples | None, where: Any, report: Report, *,
               source: str) -> Exported:
    """Check an ONNX file that was brought along, and compare it with itself, unoptimised."""
    given = Model.open(found.graph)  # a cut-off file should say so before anything is written

    def work(folder: Path, report: Report) -> Exported:
        report(Tick(1, 5, "reading the ONNX file"))
        opset = given.opset if options.opset is None else options.opset
        proto = read(found.graph, weights=opset != given.opset)
        before = onnx_file.operators(proto)
        said, kept = [], found.graph
        if opset != given.opset:
            proto, kept = onnx_file.to_opset(proto, opset, found.graph), None
            said.append(f"brought from opset {given.opset} to {opset} by ONNX's version converter")
        inputs = named(given.inputs, parse_axes(options.axes))
        if inputs != given.inputs:
            onnx_file.name_axes(proto, inputs)
            if not options.axes:
                said.append(f"dynamic axes without a readable name were named: {'; '.join(map(str, inputs))}")
        relayout = Relayout(turns(inputs, options.input_layout, "onnx", "input"),
                            turns(given.outputs, options.output_layout, "onnx", "output"))
        turn(proto, relayout.inputs, relayout.outputs)
        metadata, about = onnx_file.configuration(options.config)
        onnx_file.add_metadata(proto, metadata)
        path = folder / found.graph.name
        report(Tick(2, 5, "checking the ONNX file"))
        onnx_file.write(proto, path, check=options.check, beside=kept)
        # There is nothing to compare an ONNX file with but itself: so with every optimisation of the runtime off.
        reference = partial(open_runner, found, graph_level="none")
        compared = compare_on(reference, path, inputs, options, samples, part(report, "comparing"), relayout)
        reason = "asked for" if options.opset else "the file's own"
        return finish(path, source, "onnx", proto, reason, compared, operators=before, notes=said + about,
                      tools={"onnx": preflight.versions()["onnx"]}, lineage=f"brought along as {found.graph.name}",
                      options=options, relayout=relayout)

    return run_stage("export", Exported, work, options=options, name=found.name, version=VERSION, runs=where,
                     report=report, inputs={"source": found, "samples": samples[: options.samples] if samples else ""})
