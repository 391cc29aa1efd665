"""Compile for OpenVINO: its own model format (.xml and .bin), which loads faster than ONNX and needs no ONNX reader.

What OpenVINO does for the processor, the precision of float layers included, it does when the model is loaded; the
result tells what that is on this machine, layer by layer.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from kit.comparison import worst
from kit.compiled_files import write_files
from kit.compiling.result import Compiled, CompileOptions, SessionSettings, compared, parity
from kit.inspection.graph import graph_of
from kit.model import Model, operator_counts
from kit.need import need
from kit.progress import Report, Tick
from kit.runner import open_runner
from kit.runtimes import Layer
from kit.samples import generated

COUNTED = 10  # runs behind the times of the layers


def make(source: Model, name: str, folder: Path, options: CompileOptions, report: Report) -> Compiled:
    """Write the model and everything beside it into ``folder``."""
    from kit.runtimes.openvino import DEVICE, float_precision

    taken = float_precision(options.precision)  # refused before anything is written
    path = folder / f"{name}.xml"
    report(Tick(0, 4, "converting"))
    _convert(source, path, half_weights=False)
    settings = SessionSettings(options.threads, (DEVICE,), runtime="openvino", precision=options.precision)
    before = dict(sorted(operator_counts(source.path).items()))
    quantized = any("DequantizeLinear" in label for label in before)
    sizes = graph_of(source.path, options.bind).bound
    report(Tick(1, 4, "comparing its answers with the source's"))
    # In FP32, so that the file is judged and not the rounding that was chosen. A quantized source is run by OpenVINO
    # too: ONNX Runtime fuses other operators into its integer kernels, so that it rounds at other places.
    exact = {"runtime": "openvino", "threads": options.threads, "precision": "f32"}
    first = (source.path, exact) if quantized else (source.path, {"runtime": "onnxruntime", "graph_level": "none",
                                                                  "threads": options.threads})
    reference, whole = compared([first, (path, exact)], source, sizes, options.checks)
    rows = parity(reference, whole)
    row = worst(rows)
    at_precision = ()
    if options.half_weights:
        _convert(source, path, half_weights=True)
    if options.half_weights or taken != "f32":  # rounding that was asked for is told, not judged
        rounded, = compared([(path, {**exact, "precision": taken})], source, sizes, options.checks)
        at_precision = parity(whole, rounded)
    report(Tick(2, 4, "counting what runs in which precision"))
    layers = _layers(path, generated(source.inputs, sizes, 0), settings)
    report(Tick(3, 4, "writing manifest and script"))
    compiled = Compiled(
        model=source, target=options.target, level="", settings=settings, manifest=folder / "manifest.json",
        script=folder / "run.py", parity=rows, verdict=row.verdict if row else "equal",
        reference="the source, run by OpenVINO too" if quantized else "the source in ONNX Runtime, not rewritten",
        measured_at={name: "x".join(map(str, shape)) for name, shape in sizes.items()}, portable=True,
        operators_before=before, operators_after=dict(sorted(Counter(layer.kind for layer in layers).items())),
        size_before=source.size, notes=_notes(options, taken, quantized), artifact=path,
        size=sum(file.stat().st_size for file in (path, path.with_suffix(".bin"))),
        at_precision=at_precision, layers=layers)
    write_files(compiled, source, sizes, options)
    report(Tick(4, 4, "compiled"))
    return compiled


def _convert(source: Model, path: Path, half_weights: bool) -> None:
    from kit.runtimes.openvino import read

    ov = need("openvino", to="compile for OpenVINO", extra="openvino")
    model = read(source.path)
    for ports, specs in ((model.inputs, source.inputs), (model.outputs, source.outputs)):
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name})  # one name each: the one that callers know
    for key, value in source.metadata.items():  # a recogniser's alphabet lives there
        model.set_rt_info(value, ["onnx", key])
    try:
        ov.save_model(model, str(path), compress_to_fp16=half_weights)
    except RuntimeError as error:  # it does not say why a file could not be written
        if shutil.disk_usage(path.parent).free < source.size:
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def _layers(path: Path, feed: dict[str, Any], settings: SessionSettings) -> tuple[Layer, ...]:
    with open_runner(path, threads=settings.threads, precision=settings.precision) as run:
        return run.layers(feed, COUNTED)


def _notes(options: CompileOptions, taken: str, quantized: bool) -> tuple[str, ...]:
    notes = []
    if options.precision == "auto":
        notes.append(f"Float layers run in {taken} on this processor; another one may take another precision.")
    if options.half_weights:
        notes.append("The weights are stored in 16 bits: the answers were compared before that.")
    if quantized:
        notes.append("The model is quantized: it was compared with the source in OpenVINO, because ONNX Runtime rounds "
                     "at other places.")
    return tuple(notes)
