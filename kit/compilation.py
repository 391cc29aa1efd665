"""Compile: turn a model into what a target loads, with everything needed to run it elsewhere.

For ONNX Runtime that is the graph as the runtime itself rewrites it, the session settings it should run with, a
manifest (hashes, inputs, the equal call, versions) and a script that needs nothing but onnxruntime and numpy. Before
anything is kept, the compiled model's answers are compared with those of the model it was made from.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from kit import targets
from kit.card import Card, Table, bytes_text
from kit.comparison import CAUSES, PARITY_COLUMNS, Parity, TensorParity, worst
from kit.errors import BadInput, UnsupportedModel
from kit.evidence.entries import versions
from kit.inspection.graph import graph_of, onnx_source
from kit.int8.processor import this_processor
from kit.model import Model, external_files, operator_counts, read
from kit.need import need
from kit.options import Help, Options, Range, expect
from kit.progress import Report, Tick, silent
from kit.record import Provenance, run_stage
from kit.samples import generated

VERSION = 1
EXTERNAL = 1_500_000_000  # bytes: protobuf stops at 2 GB, and the optimised graph may be larger than the source
NCHWC = "com.microsoft.nchwc"  # operators in a memory layout that fits one processor's vector width


@dataclass(frozen=True)
class CompileOptions(Options):
    """How to compile. Threads and spinning are for running, and go into the session settings."""

    target: Annotated[Literal["onnxruntime", "ascend310p3"], Help(
        "What to compile for. For ascend310p3 there is no compiler here yet; asked for, it says what can be done "
        "meanwhile.")] = "onnxruntime"
    level: Annotated[Literal["basic", "extended", "all"], Help(
        "How far ONNX Runtime rewrites the stored graph. basic: standard operators only. extended: its own fused "
        "operators too, any processor. all: also the memory layout of this processor; another one may refuse it."
    )] = "extended"
    threads: Annotated[int, Range(1, 64), Help("Threads of one run.")] = 2
    spinning: Annotated[bool, Help("Threads wait busily: faster alone, slower where programs share the cores.")] = True
    bind: Annotated[tuple[str, ...], Help("Sizes for open axes in the check of answers, such as x=1,3,48,320.")] = ()
    checks: Annotated[int, Range(1, 20), Help("Generated inputs on which the answers are compared.")] = 3

    def __post_init__(self) -> None:
        targets.known(self.target)  # an unknown name is answered with the closest ones
        super().__post_init__()


@dataclass(frozen=True)
class SessionSettings:
    """How the compiled model is meant to be run.

    Attributes:
        threads: of one run.
        providers: execution providers, in order.
        graph_level: what the runtime still does when it loads the model: ``none`` where the layout is stored already.
        spinning: threads wait busily between operators.
    """

    threads: int
    providers: tuple[str, ...]
    graph_level: str
    spinning: bool


@dataclass(frozen=True)
class Compiled(Card):
    """A compiled model. False when its answers differ from those of the model it was made from.

    Attributes:
        model: the optimised file.
        target: what it was compiled for.
        level: how far the graph was rewritten.
        settings: how to run it.
        manifest: hashes, inputs, the equal call, versions.
        script: runs the model with onnxruntime and numpy alone.
        parity: one row an output, compiled against source.
        verdict: of the worst row.
        reference: how the source was run for that comparison.
        measured_at: the input sizes of that comparison.
        portable: False when the file holds the memory layout of this processor.
        operators_before: how many nodes of each type the source has.
        operators_after: likewise the compiled model.
        size_before: bytes of the source, external data included.
        notes: sentences for the reader.
    """

    model: Model
    target: str
    level: str
    settings: SessionSettings
    manifest: Path
    script: Path
    parity: tuple[TensorParity, ...]
    verdict: str
    reference: str
    measured_at: dict[str, str]
    portable: bool
    operators_before: dict[str, int]
    operators_after: dict[str, int]
    size_before: int
    notes: tuple[str, ...]
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return self.verdict != "failed"

    @property
    def runner_settings(self) -> dict[str, Any]:
        """What ``open_runner`` takes from here, so that a benchmark runs the model as compiled; threads are its own."""
        return {"providers": list(self.settings.providers), "graph_level": self.settings.graph_level,
                "spinning": self.settings.spinning}

    def title(self) -> str:
        said = {"equal": "same answers", "warning": "nearly the same answers", "failed": "DIFFERENT answers"}
        return f"{self.model.path.name} for {self.target}, level {self.level}: {said[self.verdict]}"

    def facts(self) -> dict[str, object]:
        before, after = sum(self.operators_before.values()), sum(self.operators_after.values())
        return {
            "nodes": f"{before} -> {after}",
            "size": f"{bytes_text(self.size_before)} -> {bytes_text(self.model.size)}",
            "runs with": f"{self.settings.threads} threads, {', '.join(self.settings.providers)}, graph level "
                         f"{self.settings.graph_level}, spinning {'on' if self.settings.spinning else 'off'}",
            "compared with": self.reference + " at " + "; ".join(f"{k}={v}" for k, v in self.measured_at.items()),
            "moves to another processor": "yes" if self.portable else "no: it holds the memory layout of this one",
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> Sequence[Table]:
        names = sorted({*self.operators_before, *self.operators_after})
        changed = tuple((name, self.operators_before.get(name, 0), self.operators_after.get(name, 0)) for name in names
                        if self.operators_before.get(name, 0) != self.operators_after.get(name, 0))
        made = [Table("Answers, compiled against source", PARITY_COLUMNS, tuple(row.row() for row in self.parity))]
        if changed:
            made.append(Table("What the runtime rewrote", ("operator", "before", "after"), changed))
        if self.verdict == "failed":
            made.append(Table("Usual causes", ("cause", "what to check"), CAUSES))
        return made


def compile(model: Any, options: CompileOptions = CompileOptions(), *, runs: Path | str | None = None,
            report: Report = silent) -> Compiled:
    """Compile a model for a target.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: the target, the level of rewriting, the session settings.
        runs: where results are kept.
        report: hears the progress.

    Returns:
        Compiled: the model, its settings, a manifest and a script; ``bool(...)`` is False when its answers changed.

    Raises:
        BadInput: the file cannot be read, or the disk cannot be written.
        UnsupportedModel: the target cannot be compiled for here, or the runtime refuses the model.
    """
    expect(CompileOptions, options)
    if options.target != "onnxruntime":
        raise UnsupportedModel(
            f"compile() for {targets.get(options.target).title} is not part of this version: it arrives with the "
            "bundle that is finished on the box (atc command, calibration data, golden inputs).",
            remedy=f'until then: kit.audit(model, kit.AuditOptions(target="{options.target}")) and kit.fix(...) '
            "prepare the model here; run atc on the fixed file on a machine with CANN")
    source = onnx_source(model, "compile")
    opened = Model.open(model) if isinstance(model, Model) else getattr(model, "model", None)
    opened = opened if isinstance(opened, Model) else Model.open(source.graph)

    def work(folder: Path, report: Report) -> Compiled:
        return _compile(opened, source.name, folder, options, report)

    # At level "all" the file depends on the processor; at the others a stored one is as good as a new one.
    machine = this_processor().name if options.level == "all" else ""
    return run_stage("compile", Compiled, work, options=options, name=source.name, version=VERSION, runs=runs,
                     report=report, inputs={"model": opened, "machine": machine,
                                            "runtime": versions("onnxruntime", "onnxruntime-gpu")})


def _compile(source: Model, name: str, folder: Path, options: CompileOptions, report: Report) -> Compiled:
    from kit.compiled_files import write_files

    providers = ("CPUExecutionProvider",)
    path = folder / f"{name}.onnx"
    report(Tick(0, 3, f"rewriting the graph, level {options.level}"))
    _optimise(source, path, options.level, providers)
    before, after = (dict(sorted(operator_counts(p).items())) for p in (source.path, path))
    portable = not any(label.startswith(NCHWC) for label in after)
    settings = SessionSettings(options.threads, providers, "all" if portable else "none", options.spinning)
    made = source.derived(path, "compile", f"ONNX Runtime graph optimisation, level {options.level}")
    report(Tick(1, 3, "comparing its answers with the source's"))
    quantized = any("DequantizeLinear" in label for label in before)
    sizes = graph_of(source.path, options.bind).bound
    parity = _parity(source, made, sizes, settings, options, quantized)
    row = worst(parity)
    notes = _notes(options, portable, quantized)
    report(Tick(2, 3, "writing manifest and script"))
    compiled = Compiled(
        model=made, target=options.target, level=options.level, settings=settings, manifest=folder / "manifest.json",
        script=folder / "run.py", parity=parity, verdict=row.verdict if row else "equal",
        reference="the source rewritten to the same level" if quantized else "the source, not rewritten",
        measured_at={name: "x".join(map(str, shape)) for name, shape in sizes.items()}, portable=portable,
        operators_before=before, operators_after=after, size_before=source.size, notes=notes)
    write_files(compiled, source, sizes, options)
    report(Tick(3, 3, "compiled"))
    return replace(compiled, model=made)


def _optimise(source: Model, path: Path, level: str, providers: tuple[str, ...]) -> None:
    """Let the runtime write the graph it would run; weights beside the file where one file could not hold them."""
    from kit.runtimes.onnxruntime import LEVELS, _explain

    ort = need("onnxruntime", to="compile for ONNX Runtime", extra="base")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel(LEVELS[level])
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    if source.size > EXTERNAL or external_files(source.path):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{path.stem}.data")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        ort.InferenceSession(str(source.path), options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
        if shutil.disk_usage(path.parent).free < source.size:
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise _explain(error, str(source.path), ort.__version__) from error
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


def _parity(source: Model, made: Model, sizes: dict[str, tuple[int, ...]], settings: SessionSettings,
            options: CompileOptions, quantized: bool) -> tuple[TensorParity, ...]:
    """One after the other, so that a large model is in memory once."""
    from kit.runner import open_runner

    feeds = [generated(source.inputs, sizes, seed) for seed in range(options.checks)]
    # A quantized model computes in float when nothing is rewritten and in integers afterwards. That difference is the
    # runtime's, not this stage's: so such a source is run at the level it is compiled to.
    level = options.level if quantized else "none"
    answers = []
    for model, chosen in ((source, level), (made, settings.graph_level)):
        with open_runner(model, threads=settings.threads, graph_level=chosen, spinning=settings.spinning,
                         providers=list(settings.providers)) as run:
            try:
                answers.append([run(feed) for feed in feeds])
            except BadInput as error:
                shapes = "; ".join(f"{name}={','.join(map(str, shape))}" for name, shape in sizes.items())
                raise BadInput(f"{source.path.name} does not run at {shapes}, so its answers cannot be compared.",
                               remedy='give sizes that it takes, such as bind=("x=1,3,48,320",)',
                               detail=error.detail) from error
    compared = Parity()
    for left, right in zip(*answers, strict=True):
        compared.add(left, right)
    return compared.result()


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
