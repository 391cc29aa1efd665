"""The way from PyTorch: a sub-model of a diffusers pipeline, or a module from a factory; torch itself is a worker's."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from kit import preflight
from kit.errors import BadInput
from kit.exporting import convert_torch, custom_operators, onnx_file, torch_memory
from kit.exporting.finishing import VERSION, compare_on, finish
from kit.exporting.layouts import Relayout, sink_inputs, turn, turns
from kit.exporting.options import ExportOptions
from kit.exporting.result import Exported
from kit.exporting.specs import LayerSource, named, parse_axes
from kit.exporting.torch import OPSETS, Asked
from kit.model import Model, TensorSpec
from kit.progress import Report, Tick, part
from kit.record import run_stage
from kit.runner import open_runner
from kit.runtimes.safetensors_file import float32_bytes
from kit.runtimes.torch_parts import Part, read_part
from kit.samples import Samples
from kit.source import Source
from kit.weights_file import EXTERNAL_ABOVE, Weights, read_light, save_streamed

_TOOLS = ("torch", "onnxscript", "diffusers", "transformers")
#: Sizes to trace with: of the batch, and of other free axes, which networks halve up to five times.
_BATCH, _SIDES = 2, (64, 96)


def from_diffusers(found: Source, options: ExportOptions, samples: Samples | None, runs: Any, report: Report, *,
                   source: str) -> Exported:
    """Export one sub-model of a diffusers pipeline."""
    versions, _ = preflight.require("torch", *convert_torch.NEEDS_DIFFUSERS, extra="diffusion")
    axes = parse_axes(options.axes)
    free = any(isinstance(side, str) for shape in axes.values() if len(shape) == 4 for side in shape[2:])
    model = read_part(found.folder, options.part, any_size=free)
    inputs = named(model.inputs, axes)
    halved = model.kind.startswith("vae")
    return _export(model, inputs, (model.output.name,), options, samples, runs, report, versions=versions,
                   source=f"{source} ({options.part})" if halved else source,
                   name=model.kind if halved else found.name, stamp=found,
                   forecast=torch_memory.forecast(float32_bytes(found.folder), options.exporter),
                   reference=partial(open_runner, found, part=options.part, any_size=free))


def from_module(layer: LayerSource, specs: tuple[TensorSpec, ...], options: ExportOptions, samples: Samples | None,
                runs: Any, report: Report) -> Exported:
    """Export a ``torch.nn.Module`` that a factory makes."""
    versions, _ = preflight.require("torch", *convert_torch.NEEDS)
    stamp, weights = convert_torch.stamp(layer, report)
    return _export(layer, named(specs, parse_axes(options.axes)), options.outputs, options, samples, runs, report,
                   versions=versions, source=layer.short, name=layer.factory, stamp=stamp,
                   forecast=torch_memory.forecast(weights, options.exporter), reference=None)


def choose_opset(options: ExportOptions) -> tuple[int, int, str]:
    """The opset that the exporter writes, the one that the file gets, and why.

    Raises:
        BadInput: it is beyond what the exporter can write.
    """
    wanted, reason = options.choose_opset()
    low, high = OPSETS[options.exporter]
    if options.opset is None and options.exporter == "dynamo":
        if options.target.startswith("ascend"):
            return low, 17, (f"the highest that ATC reads; PyTorch's dynamo exporter writes {low} and later, so the "
                             "model was brought down and then compared; exporter='classic' writes 16 itself")
        return low, low, f"the lowest that PyTorch's dynamo exporter writes; {options.target} takes it"
    if wanted > high:
        raise BadInput(f"PyTorch's {options.exporter} exporter writes opsets up to {high}, not {wanted}.",
                       remedy="take a lower opset" + ", or exporter='dynamo'" * (options.exporter == "classic"))
    return max(wanted, low), wanted, reason


def _export(model: Part | LayerSource, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...],
            options: ExportOptions, samples: Samples | None, runs: Any, report: Report, *, versions: dict[str, str],
            source: str, name: str, stamp: Any, forecast: int, reference: Any) -> Exported:
    tools = {tool: versions[tool] for tool in (_TOOLS if isinstance(model, Part) else _TOOLS[:2])}
    written, opset, reason = choose_opset(options)
    asked = Asked(model, inputs, tuple(outputs), options.exporter, written, _sizes(inputs))
    metadata, about = onnx_file.configuration(options.config)

    def work(folder: Path, report: Report) -> Exported:
        tight = torch_memory.words(forecast)
        raw = folder / "raw" / f"{name}.onnx"  # beside the result: the weights may need gigabytes
        raw.parent.mkdir()
        found = convert_torch.convert(asked, raw, name, forecast=forecast, log=folder / "log.txt", report=report)
        report(Tick(2, 5, "checking the ONNX file"))
        proto, notes = read_light(raw), [*found.notes, *about, *filter(None, [tight])]
        relayout = Relayout(turns(inputs, options.input_layout, "torch", "input"),
                            turns(Model.open(raw).outputs, options.output_layout, "torch", "output"))
        onnx_file.tidy(proto, inputs, name=name, producer=("pytorch", tools["torch"]))
        onnx_file.drop_copies(proto)
        if isinstance(model, Part):
            _name_output(proto, model.output)
        values = Weights(raw, proto)
        if opset != written:
            proto, what = convert_torch.lowered(proto, opset, raw, name)
            notes.append(f"PyTorch's {options.exporter} exporter writes opset {written} and later; the kit's rule "
                         f"lower-opset rewrote the file ({what}), and the comparison is of what came out")
        turn(proto, relayout.inputs, relayout.outputs)
        if relayout.inputs:
            sink_inputs(proto)
        proto, said = custom_operators.outline(proto, options.operators, found.modules)
        onnx_file.add_metadata(proto, {**metadata, "source": " ".join(f"{k} {v}" for k, v in tools.items())})
        path = folder / f"{name}.onnx"
        keep = partial(save_streamed, proto, path, values.array, external_above=EXTERNAL_ABOVE)
        keep()
        if options.check:
            onnx_file.check_file(path)
        large = path.with_name(path.name + ".data").is_file()
        names = [value.name for value in proto.graph.output]
        compared = compare_on(reference or partial(convert_torch.FactoryRunner, model, inputs, names), path, inputs,
                              options, samples, part(report, "comparing"), relayout,
                              **{"isolated": True} if large else {})
        answers = [relayout.as_model(outputs) for outputs in compared.references]
        if onnx_file.name_outputs(proto, relayout.specs(inputs), [
                (relayout.feed(trial.feed), [answer[name] for name in names])
                for trial, answer in zip(compared.trials, answers, strict=True)]):
            keep()
        shutil.rmtree(raw.parent)
        return finish(path, source, "diffusers" if isinstance(model, Part) else "torch", proto, reason, compared,
                      operators=found.operators, notes=notes + list(said.notes), tools=tools, options=options,
                      relayout=relayout, lineage=f"from {source} by PyTorch {tools['torch']} ({options.exporter})",
                      memory_forecast=forecast, memory_peak=found.memory, seconds=round(found.seconds, 3),
                      custom=said.rows)

    return run_stage("export", Exported, work, options=options, name=name, version=VERSION, runs=runs, report=report,
                     inputs={"source": stamp, "part": options.part if isinstance(model, Part) else model.short,
                             "config": options.config or "", "tools": tools,
                             "samples": samples[: options.samples] if samples else ""})


def _name_output(proto: Any, spec: TensorSpec) -> None:
    for dim, side in zip(proto.graph.output[0].type.tensor_type.shape.dim, spec.shape, strict=True):
        if isinstance(side, str):
            dim.dim_param = side
        else:
            dim.dim_value = side


def _sizes(inputs: tuple[TensorSpec, ...]) -> dict[str, int]:
    """What to trace each dynamic axis with: a size of 1 would be taken for a constant, equal ones for the same."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        free = [side for side in spec.shape[1:] if isinstance(side, str)]
        for at, side in enumerate(spec.shape):
            if isinstance(side, str) and side not in sizes:
                sizes[side] = _BATCH if at == 0 else _SIDES[free.index(side) % 2]
    return sizes
