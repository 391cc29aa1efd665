"""Compile for ONNX Runtime: the graph as the runtime itself rewrites it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from kit.comparison import worst
from kit.compiled_files import write_files
from kit.compiling.result import Compiled, CompileOptions, SessionSettings, compared, parity
from kit.inspection.graph import graph_of
from kit.model import Model, external_files, operator_counts, read
from kit.need import need
from kit.progress import Report, Tick
from kit.weights_file import EXTERNAL_ABOVE

NCHWC = "com.microsoft.nchwc"  # operators in a memory layout that fits one processor's vector width


def make(source: Model, name: str, folder: Path, options: CompileOptions, report: Report, *,
         load_level: str = "") -> Compiled:
    """Write the model and everything beside it into ``folder``.

    Args:
        load_level: what the runtime does when it loads the file; by default all that the file leaves to do.
    """
    providers = ("CPUExecutionProvider",)
    path = folder / f"{name}.onnx"
    report(Tick(0, 3, f"rewriting the graph, level {options.level}"))
    _optimise(source, path, options.level, providers)
    before, after = (dict(sorted(operator_counts(p).items())) for p in (source.path, path))
    portable = not any(label.startswith(NCHWC) for label in after)
    settings = SessionSettings(options.threads, providers, load_level or ("all" if portable else "none"),
                               options.spinning)
    made = source.derived(path, "compile", f"ONNX Runtime graph optimisation, level {options.level}")
    report(Tick(1, 3, "comparing its answers with the source's"))
    quantized = any("DequantizeLinear" in label for label in before)
    sizes = graph_of(source.path, options.bind).bound
    # A quantized model computes in float when nothing is rewritten and in integers afterwards. That difference is the
    # runtime's, not this stage's: so such a source is run at the level it is compiled to.
    level = options.level if quantized else "none"
    common = {"threads": settings.threads, "spinning": settings.spinning, "providers": list(providers)}
    answers = compared([(source, {**common, "graph_level": level}),
                        (made, {**common, "graph_level": settings.graph_level})], source, sizes, options.checks)
    rows = parity(*answers)
    row = worst(rows)
    report(Tick(2, 3, "writing manifest and script"))
    compiled = Compiled(
        model=made, target=options.target, level=options.level, settings=settings, manifest=folder / "manifest.json",
        script=folder / "run.py", parity=rows, verdict=row.verdict if row else "equal",
        reference="the source rewritten to the same level" if quantized else "the source, not rewritten",
        measured_at={name: "x".join(map(str, shape)) for name, shape in sizes.items()}, portable=portable,
        operators_before=before, operators_after=after, size_before=source.size,
        notes=_notes(options, portable, quantized), size=made.size)
    write_files(compiled, source, sizes, options)
    report(Tick(3, 3, "compiled"))
    return compiled


def _optimise(source: Model, path: Path, level: str, providers: tuple[str, ...]) -> None:
    """Let the runtime write the graph it would run; weights beside the file where one file could not hold them."""
    from kit.runtimes.onnxruntime import AS_WRITTEN, LEVELS, explain

    ort = need("onnxruntime", to="compile for ONNX Runtime", extra="base")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel(LEVELS[level])
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    for name, value in AS_WRITTEN.items():
        options.add_session_config_entry(name, value)
    if source.size > EXTERNAL_ABOVE or external_files(source.path):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{path.stem}.data")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        ort.InferenceSession(str(source.path), options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
        if shutil.disk_usage(path.parent).free < source.size:
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise explain(error, str(source.path), ort.__version__) from error
    if not path.is_file() or path.stat().st_size == 0:  # the runtime does not look at what became of its file
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    _keep_metadata(source, path)


def _keep_metadata(source: Model, path: Path) -> None:
    """Put back key-value pairs that the runtime left out: a recogniser's alphabet lives there."""
    import onnx

    proto = read(path, weights=False)
    kept = {entry.key for entry in proto.metadata_props}
    lost = {key: value for key, value in source.metadata.items() if key not in kept}
    if lost:
        for key, value in lost.items():
            proto.metadata_props.add(key=key, value=value)
        onnx.save(proto, str(path))


def _notes(options: CompileOptions, portable: bool, quantized: bool) -> tuple[str, ...]:
    notes = []
    if not portable:
        notes.append("Level all stored the blocked memory layout of this processor; one with another vector width may "
                     "refuse the file or run it slowly. Compile there again, or use level extended: the layout is then "
                     "chosen each time the model is loaded.")
    elif options.level != "all":
        notes.append("The layout for the processor is chosen when the model is loaded, on whatever machine that is.")
    if quantized:
        notes.append("The model is quantized: it was compared with the source at the same level, because unrewritten "
                     "it computes in float.")
    return tuple(notes)
