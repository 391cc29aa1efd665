"""What every export ends with: trial inputs, the comparison with the source, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.comparison import TensorParity
from kit.errors import BadInput
from kit.exporting import onnx_file
from kit.exporting.layouts import Relayout
from kit.exporting.options import ExportOptions
from kit.exporting.parity import Compared, Trial, compare, overall
from kit.exporting.result import Exported
from kit.exporting.specs import SPARE_TRIALS, named, parse_probe, trial_shapes
from kit.exporting.transposes import layout_cost
from kit.model import Model, Step, TensorSpec
from kit.progress import Report
from kit.samples import Samples, generated
from kit.source import Source

VERSION = 2
_PROFILED = 1_000_000_000  # bytes: above, running the model in this process, twice opened, costs more than it tells


def finish(path: Path, source: str, kind: Any, proto: Any, reason: str, compared: Compared, *, notes: list[str],
           operators: dict[str, int], tools: dict[str, str], lineage: str, options: ExportOptions,
           relayout: Relayout = Relayout(), first: tuple[TensorParity, ...] = (),  # noqa: B008
           verdict: str = "", **more: Any) -> Exported:
    """The result of an export: what the file is, and what the comparison found; ``verdict`` goes before its own."""
    model = Model.open(path, lineage=(Step("export", "", lineage),))
    feed = relayout.feed(compared.trials[0].feed) if compared.trials and not compared.failures else None
    cost = layout_cost(model)
    if cost.count and feed is not None and model.size <= _PROFILED:
        cost = layout_cost(model, feed)
    return Exported(
        model=model, source=source, kind=kind, opset=model.opset, opset_reason=reason, size=model.size,
        dynamic_axes={spec.name: ", ".join(map(str, spec.shape)) for spec in model.inputs},
        parity=compared.rows, dygraph_parity=first,
        verdict=verdict or overall((*compared.rows, *first), compared.failures),
        reference_runtime=compared.reference_runtime or "none", candidate_runtime=compared.candidate_runtime or "none",
        compared=tuple(trial.what for trial in compared.trials), failures=tuple(compared.failures),
        unsupported=onnx_file.unknown_operators(proto), notes=tuple(dict.fromkeys(notes + compared.notes)),
        operators_source=operators, operators_onnx=onnx_file.operators(proto), tools=tools, layout=cost,
        layouts=(options.input_layout, options.output_layout), **{"inference_model": None, **more})


def compare_on(reference: Callable[[], Any], path: Path, inputs: tuple[TensorSpec, ...], options: ExportOptions,
               samples: Samples | None, report: Report, relayout: Relayout = Relayout(), **settings: Any) -> Compared:  # noqa: B008
    """Run the source and the ONNX file on samples and made-up inputs, in the source's order of axes.

    ``settings`` are those of the ONNX file's runner.
    """
    if not options.compare:
        return Compared()
    names = {spec.name for spec in inputs}
    trials = []
    for shapes in parse_probe(options.probe):
        if shapes.keys() != names:
            raise BadInput(f"A probe gives {', '.join(shapes)}; the model takes {', '.join(sorted(names))}.",
                           remedy="give every input a size, parted by ';'")
        trials.append(_made_up(inputs, shapes, options.seed))
    for item, feed in zip(samples.items[: options.samples] if samples else (), samples or (), strict=False):
        trials.append(Trial(f"{item.name} {_sizes(feed)}", feed))
    if not options.probe:
        made = [_made_up(inputs, shapes, options.seed, optional=True) for shapes in trial_shapes(inputs)]
        # With samples one more trial, of another size: samples that are all alike would not show a frozen shape.
        trials += made[-1:] if trials else [*made, *(
            _made_up(inputs, shapes, options.seed, optional=True, spare=True)
            for shapes in trial_shapes(inputs, SPARE_TRIALS) if shapes not in trial_shapes(inputs))]
    return compare(reference, path, trials, report, relayout, **settings)


def name_inputs(inputs: tuple[TensorSpec, ...], of_layer: tuple[TensorSpec, ...],
                axes: dict[str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    """Inputs of a fresh export. The converter's own words (DynamicDimension.0) say nothing and are dropped."""
    plain = tuple(replace(spec, shape=tuple(side if isinstance(side, int) else "?" for side in spec.shape))
                  for spec in inputs)
    kept = {spec.name for spec in plain}  # an input that the layer does not use is not in the graph
    return named(plain, {spec.name: spec.shape for spec in of_layer if spec.name in kept} | axes)


def short_name(source: Any, found: Source) -> str:
    """The source as a reader knows it: no absolute path."""
    path = Path(found.path)
    folder = found.kind in ("paddle", "savedmodel", "diffusers") and not path.is_file()
    return found.graph.parent.name if folder else path.name


def _made_up(inputs: tuple[TensorSpec, ...], shapes: dict[str, tuple[int, ...]], seed: int,
             optional: bool = False, spare: bool = False) -> Trial:
    feed = generated(inputs, shapes, seed)
    return Trial(f"made-up {_sizes(feed)}", feed, optional, spare)


def _sizes(feed: Any) -> str:
    return ", ".join("x".join(map(str, array.shape)) for array in feed.values())
