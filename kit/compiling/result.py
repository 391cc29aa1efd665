"""What compile() takes and gives, and what every target's compiler shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from kit import targets
from kit.ascend.bundling.bundle import Bundled
from kit.card import Card, Table, bytes_text
from kit.comparison import CAUSES, PARITY_COLUMNS, Parity, TensorParity
from kit.compiling.saved import SAVED, Saved
from kit.errors import BadInput, unknown
from kit.model import Model
from kit.options import Help, Options, Range
from kit.record import Provenance
from kit.runner import open_runner
from kit.runtimes import Layer
from kit.samples import generated

SEARCHED = "cpu"  # not a target of its own: whichever runtime here is fastest
SLOWEST = 10  # layers shown


@dataclass(frozen=True)
class CompileOptions(Options):
    """How to compile. Threads and spinning are for running, and go into the session settings."""

    target: Annotated[Literal["onnxruntime", "openvino", "savedmodel", "cpu", *targets.ascend.NAMES], Help(  # type: ignore[valid-type]
        "What to compile for. cpu: search for the fastest artefact here that is accurate enough. savedmodel: a version "
        "directory for TensorFlow Serving; SavedModelOptions says more. An Ascend chip: a bundle that one command "
        "finishes on the box; BundleOptions says more.")] = "onnxruntime"
    level: Annotated[Literal["basic", "extended", "all"], Help(
        "How far ONNX Runtime rewrites the stored graph. basic: standard operators only. extended: its own fused "
        "operators too, any processor. all: also the memory layout of this processor; another one may refuse it."
    )] = "extended"
    precision: Annotated[Literal["auto", "f32", "bf16", "f16"], Help(
        "What OpenVINO computes float layers in; auto lets it choose on the machine where it runs.")] = "auto"
    half_weights: Annotated[bool, Help("For OpenVINO: store the weights in 16 bits, half the file.")] = False
    threads: Annotated[int, Range(1, 64), Help("Threads of one run.")] = 2
    spinning: Annotated[bool, Help("Threads wait busily: faster alone, slower where programs share the cores.")] = True
    bind: Annotated[tuple[str, ...], Help("Sizes for open axes in the check of answers, such as x=1,3,48,320.")] = ()
    checks: Annotated[int, Range(1, 20), Help("Generated inputs on which the answers are compared.")] = 3
    loss: Annotated[float, Range(0, 1, 0.001), Help("For cpu: how much of the metric may be lost.")] = 0.01
    seconds: Annotated[int, Range(1, 604_800, 10), Help("For cpu: how long to search.")] = 600

    def __post_init__(self) -> None:
        name = self.target.strip().lower()
        own = (SEARCHED, SAVED)  # targets of compile alone: there is nothing to audit for them
        if name not in (*own, *targets.NAMES) and not targets.ascend.is_ours(name):  # answered with the closest
            raise unknown("target", self.target, (*own, *targets.NAMES))
        object.__setattr__(self, "target", name if name in own else targets.known(name))
        super().__post_init__()


@dataclass(frozen=True)
class SessionSettings:
    """How the compiled model is meant to be run.

    Attributes:
        threads: of one run.
        providers: execution providers of ONNX Runtime, in order, or the device of OpenVINO.
        graph_level: what ONNX Runtime still does when it loads the model: ``none`` where the layout is stored already.
        spinning: ONNX Runtime's threads wait busily between operators.
        runtime: what loads it.
        precision: what OpenVINO is asked to compute float layers in.
    """

    threads: int
    providers: tuple[str, ...]
    graph_level: str = ""
    spinning: bool = False
    runtime: str = "onnxruntime"
    precision: str = ""


@dataclass(frozen=True)
class Compiled(Card):
    """A compiled model. False when its answers differ from those of the model it was made from.

    Attributes:
        model: the optimised file; for a target that does not load ONNX the model it was made from.
        target: what it was compiled for.
        level: how far ONNX Runtime's graph was rewritten; "" for OpenVINO.
        settings: how to run it.
        manifest: hashes, inputs, the equal call, versions.
        script: runs the model with its runtime and numpy alone.
        parity: one row an output, compiled against source.
        verdict: of the worst row.
        reference: how the source was run for that comparison.
        measured_at: the input sizes of that comparison.
        portable: False when the file holds the memory layout of this processor.
        operators_before: how many nodes of each type the source has.
        operators_after: likewise the compiled model.
        size_before: bytes of the source, external data included.
        notes: sentences for the reader.
        artifact: what is loaded, where that is not ``model``: OpenVINO's .xml.
        size: bytes of what is loaded, with its weights.
        at_precision: one row an output, as it will run against the same in FP32; told, not judged.
        layers: what the runtime made of the model, with times on this machine; empty when it was not asked.
        trials: of the search that chose this artefact: candidate, speed, loss, verdict.
        bundle: for an Ascend chip: what was prepared, and whether it was built here; None otherwise.
        saved: for a SavedModel: its signature, layout, batch and what it needs; None otherwise.
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
    artifact: Path | None = None
    size: int = 0
    at_precision: tuple[TensorParity, ...] = ()
    layers: tuple[Layer, ...] = field(default=(), compare=False, repr=False)
    trials: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    provenance: Provenance | None = field(default=None, compare=False)
    bundle: Bundled | None = None
    saved: Saved | None = None

    def __bool__(self) -> bool:
        return self.verdict != "failed"

    @property
    def runner_settings(self) -> dict[str, Any]:
        """What ``open_runner`` takes from here, so that a benchmark runs the model as compiled."""
        # The threads of a pick were searched for as well.
        threads = {"threads": self.settings.threads} if self.target == SEARCHED else {}
        if self.bundle:
            return {}
        if self.saved:
            return {"threads": self.settings.threads, "runtime": "tensorflow", "signature": self.saved.signature}
        if self.settings.runtime == "openvino":
            return {**threads, "runtime": "openvino", "precision": self.settings.precision}
        return {**threads, "providers": list(self.settings.providers), "graph_level": self.settings.graph_level,
                "spinning": self.settings.spinning}

    @property
    def file(self) -> Path:
        """What is loaded."""
        return self.artifact or self.model.path

    def title(self) -> str:
        said = {"equal": "same answers", "warning": "nearly the same answers", "failed": "DIFFERENT answers"}
        if self.bundle:
            return self.bundle.title() + (f"; {said['failed']}" if self.verdict == "failed" else "")
        if self.saved:
            return f"{self.saved.title()}: {said[self.verdict]}"
        how = f"level {self.level}" if self.level else f"precision {self.settings.precision}"
        return f"{self.file.name} for {self.target}, {how}: {said[self.verdict]}"

    def facts(self) -> dict[str, object]:
        before, after = sum(self.operators_before.values()), sum(self.operators_after.values())
        if self.bundle:
            return {**self.bundle.facts(), "model": self.reference,
                    **({"note": " ".join(self.notes)} if self.notes else {})}
        compared = self.reference + " at " + "; ".join(f"{k}={v}" for k, v in self.measured_at.items())
        if self.saved:
            return {"size": f"{bytes_text(self.size_before)} -> {bytes_text(self.size)}", **self.saved.facts(),
                    "compared with": compared, **({"note": " ".join(self.notes)} if self.notes else {})}
        return {
            "nodes": f"{before} -> {after}",
            "size": f"{bytes_text(self.size_before)} -> {bytes_text(self.size or self.model.size)}",
            "runs with": self._how(),
            "compared with": compared,
            "moves to another processor": "yes" if self.portable else "no: it holds the memory layout of this one",
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> Sequence[Table]:
        names = sorted({*self.operators_before, *self.operators_after})
        changed = tuple((name, self.operators_before.get(name, 0), self.operators_after.get(name, 0)) for name in names
                        if self.operators_before.get(name, 0) != self.operators_after.get(name, 0))
        what = "in the bundle" if self.bundle else "compiled"
        made = [Table(f"Answers, {what} against source", PARITY_COLUMNS, tuple(row.row() for row in self.parity))]
        if self.bundle:
            made = [*self.bundle.tables(), *(made if self.parity else [])]
        if self.saved:
            return [*made, *self.saved.tables(self.verdict)]
        if self.at_precision:
            made.append(Table("Answers as it will run, against the same in FP32", PARITY_COLUMNS[:-1],
                              tuple(row.row()[:-1] for row in self.at_precision)))
        made += layer_tables(self.layers)
        if self.trials:
            made.append(Table("Search: trials, fastest first", ("candidate", "speed", "loss", "verdict"), self.trials))
        if changed:
            what = "the rules" if self.bundle else "the runtime"
            made.append(Table(f"What {what} rewrote", ("operator", "before", "after"), changed))
        if self.verdict == "failed":
            made.append(Table("Usual causes", ("cause", "what to check"), CAUSES))
        return made

    def _how(self) -> str:
        run = self.settings
        start = f"{run.runtime}, {run.threads} threads, {', '.join(run.providers)}"
        if run.runtime == "openvino":
            return f"{start}, precision {run.precision}"
        return f"{start}, graph level {run.graph_level}, spinning {'on' if run.spinning else 'off'}"


def layer_tables(layers: Sequence[Layer]) -> list[Table]:
    """What runs in which precision, and the slowest layers; nothing for no layers."""
    if not layers:
        return []
    total = sum(layer.ms for layer in layers) or 1.0
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.precision, []).append(layer)
    spent = sorted(((name, len(same), sum(layer.ms for layer in same)) for name, same in groups.items()),
                   key=lambda row: -row[2])
    slow = sorted(layers, key=lambda layer: -layer.ms)[:SLOWEST]
    return [Table("What runs in which precision", ("precision", "layers", "ms a run", "share"),
                  tuple((name, count, f"{ms:.3f}", f"{ms / total:.0%}") for name, count, ms in spent)),
            Table("Slowest layers", ("layer", "type", "precision", "ms a run", "share"), tuple(
                (layer.name, layer.kind, layer.precision, f"{layer.ms:.3f}", f"{layer.ms / total:.0%}")
                for layer in slow))]


def compared(runs: Sequence[tuple[Any, dict[str, Any]]], source: Model, sizes: dict[str, tuple[int, ...]],
             checks: int) -> list[list[dict[str, Any]]]:
    """The answers of several (artefact, settings of its runner) to the same made-up inputs.

    They run one after the other, so that a large model is in memory once.

    Raises:
        BadInput: the model does not run at these sizes.
    """
    feeds = [generated(source.inputs, sizes, seed) for seed in range(checks)]
    answers = []
    for artifact, settings in runs:
        with open_runner(artifact, **settings) as run:
            try:
                answers.append([run(feed) for feed in feeds])
            except BadInput as error:
                shapes = "; ".join(f"{name}={','.join(map(str, shape))}" for name, shape in sizes.items())
                raise BadInput(f"{source.path.name} does not run at {shapes}, so its answers cannot be compared.",
                               remedy='give sizes that it takes, such as bind=("x=1,3,48,320",)',
                               detail=error.detail) from error
    return answers


def parity(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> tuple[TensorParity, ...]:
    """One row an output."""
    found = Parity()
    for one, other in zip(left, right, strict=True):
        found.add(one, other)
    return found.result()
