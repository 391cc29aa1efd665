"""What a report shows: results sorted into chapters of pictures, tables and warnings; the template draws them.

Results are known by their attributes (a verdict has ``allowed_loss``, a benchmark ``timings``, an export
``operators_source``), so that a stage added later appears on the page without a change here.
"""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.ascend.box.recorded import FAKE
from kit.ascend.box.results import BoxResults
from kit.card import Table, bytes_text
from kit.model import operator_counts


@dataclass(frozen=True)
class Section:
    """One result on the page: title, named facts, tables, options, where it comes from."""

    anchor: str
    stage: str
    title: str
    is_good: bool | None
    facts: dict[str, str]
    tables: tuple[Table, ...]
    options: dict[str, str]
    origin: dict[str, str]


@dataclass(frozen=True)
class Picture:
    """A chart as a data address, with its text alternative."""

    data: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Device:
    """What one box recorded: the device with FAKE where nothing is real, warnings and tables."""

    name: str
    warnings: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Chapter:
    """The results of one model."""

    name: str
    anchor: str
    steps: tuple[dict[str, str], ...]
    lineage: tuple[Table, ...]
    operators: tuple[Table, ...]
    accuracy: tuple[Picture | Table, ...]
    latency: tuple[Picture | Table, ...]
    device: tuple[Device, ...]
    sections: tuple[Section, ...]


CAPTION = "Accuracy, size and speed of every stage"
_WORDS = {**dict.fromkeys(("lost", "not", "failed", "error", "slower"), "bad"),
          **dict.fromkeys(("warning", "partly"), "odd"),
          **dict.fromkeys(("equal", "kept", "supported", "faster"), "good")}


def looks(value: Any) -> str:
    """The style class of a table's cell: verdicts stand out (in words too), figures line up."""
    text = str(value)
    figure = re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|x|B|kB|MB|GB|ms|s|dB))?|\[-?[\d.]+, -?[\d.]+\]", text)
    return _WORDS.get(text, "number" if figure else "")


def chapter_of(anchor: str, name: str, own: list[Any], charts: bool) -> Chapter:
    """The chapter of one model's results; without ``charts`` it has tables only."""
    verdicts = [r for r in own if hasattr(r, "rows") and hasattr(r, "allowed_loss")]
    benchmarks = [r for r in own if hasattr(r, "timings")]
    return Chapter(
        name=name, anchor=anchor, steps=tuple(_steps(own)), lineage=tuple(_lineage(own)),
        operators=tuple(_operators(own)), accuracy=tuple(_with_charts(verdicts, _ACCURACY, charts)),
        latency=tuple(_with_charts(benchmarks, _LATENCY, charts)), device=tuple(_devices(own)),
        sections=tuple(_section(result, f"{anchor}-{n}") for n, result in enumerate(own, start=1)))


_ACCURACY = ("accuracy_waterfall", "tensor_error")
_LATENCY = ("latency", "speedup", "memory")


def _with_charts(results: list[Any], names: tuple[str, ...], draw: bool) -> Iterator[Picture | Table]:
    for result in results:
        if draw:
            from markupsafe import Markup

            from kit import charts

            for alt, chart in {c.alt: c for c in (getattr(charts, name)(result) for name in names)}.items():
                data = Markup("data:image/png;base64," + base64.b64encode(chart.png(2)).decode())  # nothing to escape
                yield Picture(data, alt, *chart.size())
        yield from result.tables()[:1]


def _stage(result: Any) -> str:
    if isinstance(result, BoxResults):
        return "on the box"
    return getattr(getattr(result, "provenance", None), "stage", type(result).__name__.lower())


def _devices(own: list[Any]) -> Iterator[Device]:
    for result in own:
        if isinstance(result, BoxResults):
            yield Device(result.label, tuple(warnings_of("", [result])), tuple(result.tables()))


def _section(result: Any, anchor: str) -> Section:
    origin = getattr(result, "provenance", None)
    return Section(
        anchor=anchor, stage=_stage(result), title=result.title(),
        is_good=bool(result) if "__bool__" in dir(type(result)) else None,
        facts={name: str(value) for name, value in result.facts().items()},
        tables=() if isinstance(result, BoxResults) else tuple(result.tables()),  # those have a part of the page
        options=_options(origin.options) if origin else {},
        origin={"fingerprint": origin.key, "made": origin.made, "took": f"{origin.seconds:.1f} s"} if origin else {})


def _options(text: str) -> dict[str, str]:
    """Names and values from an options object's repr."""
    try:
        call = ast.parse(text, mode="eval").body
        return {word.arg: _said(word.value) for word in call.keywords if word.arg}  # type: ignore[attr-defined]
    except (SyntaxError, AttributeError):
        return {"options": text}


def _said(node: ast.expr) -> str:
    """A setting as a person would say it."""
    if isinstance(node, ast.Constant):
        return {True: "yes", False: "no", None: "not set"}.get(node.value, str(node.value)) \
            if isinstance(node.value, bool | None) else str(node.value) or "empty"
    if isinstance(node, ast.Tuple | ast.List):
        return ", ".join(map(_said, node.elts)) or "none"
    if isinstance(node, ast.Call) and len(node.args) == 1 and ast.unparse(node.func).endswith("Path"):
        return _said(node.args[0])
    return ast.unparse(node)


def _steps(own: list[Any]) -> Iterator[dict[str, str]]:
    """The way of the model: a box for the source and for each file made from it."""
    for result in own:
        model, origin = getattr(result, "model", None), getattr(result, "provenance", None)
        if isinstance(getattr(result, "source", None), str) and hasattr(result, "operators_source"):
            yield {"stage": "source", "file": Path(result.source).name or result.source,
                   "about": str(getattr(result, "kind", ""))}
        if hasattr(model, "opset"):
            yield {"stage": origin.stage if origin else "model", "file": model.path.name,
                   "about": f"opset {model.opset}, {model.nodes} nodes, {bytes_text(model.size)}"}


def _lineage(own: list[Any]) -> Iterator[Table]:
    models = [r.model for r in own if hasattr(getattr(r, "model", None), "lineage") and r.model.lineage]
    if models:
        last = max(models, key=lambda model: len(model.lineage))
        keys = {r.provenance.stage: r.provenance.key for r in own if getattr(r, "provenance", None)}
        yield Table(f"How {last.path.name} came about", ("stage", "what it did", "fingerprint"),
                    tuple((step.stage, step.note, step.key or keys.get(step.stage, "-")) for step in last.lineage))


def _operators(own: list[Any]) -> Iterator[Table]:
    """Source operators; then every ONNX operator at each stage, and what the target says to it."""
    source = next((r.operators_source for r in own if getattr(r, "operators_source", None)), {})
    columns: dict[str, Mapping[str, int]] = {}
    for result in own:
        stage = _stage(result)
        if hasattr(result, "operators_before") and not columns:
            columns["before"] = result.operators_before
        counts = getattr(result, "operators_onnx", None) or getattr(result, "operators_after", None)
        if counts or hasattr(getattr(result, "model", None), "opset"):
            column = stage if stage not in columns else f"{stage} {sum(c.startswith(stage) for c in columns) + 1}"
            columns[column] = counts or (
                operator_counts(result.model.path) if result.model.path.is_file() else {})
    audit = next((r for r in reversed(own) if hasattr(r, "findings") and hasattr(r, "operators")), None)
    states = {row.operator: row.state for row in audit.operators if hasattr(row, "state")} if audit else {}
    if audit and not columns:
        columns["audit"] = {row.operator: row.count for row in audit.operators}
    if source:
        ordered = sorted(source.items(), key=lambda pair: (-pair[1], pair[0]))
        yield Table("Operators of the source", ("operator", "nodes"), tuple(ordered))
    if columns:
        names = sorted({name for counts in columns.values() for name in counts},
                       key=lambda name: (-max(counts.get(name, 0) for counts in columns.values()), name))
        last = (f"on {audit.target}",) if audit else ()
        yield Table("ONNX operators, stage by stage", ("operator", *columns, *last), tuple(
            (name, *(counts.get(name, 0) or "-" for counts in columns.values()),
             *((states.get(name, "-"),) if audit else ())) for name in names))


def warnings_of(name: str, own: list[Any]) -> Iterator[str]:
    """What a reader must know first: fakes, failed verdicts, alarms, and what ran otherwise than asked."""
    place = f"{name}, " if name else ""
    for result in own:
        stage = _stage(result)
        fake = result.fake if isinstance(result, BoxResults) else getattr(getattr(result, "bundle", None), "fake", "")
        if fake:
            yield f"{place}{stage}: {FAKE}, nothing of it comes from a real tool or device ({fake})"
        is_false = "__bool__" in dir(type(result)) and not result
        if is_false or getattr(result, "verdict", "") == "warning":
            yield f"{place}{stage}: {result.title()}"
        if getattr(result, "alarms", ()):
            yield f"{place}{stage}: {'; '.join(result.alarms)}"
        for row in (*getattr(result, "timings", ()), *getattr(result, "rows", ())):
            for note in getattr(row, "notes", ()):
                yield f"{place}{stage}, {row.name}: {note}"


def summary_of(chapters: list[tuple[str, list[Any]]]) -> Table | None:
    """One line a stage: accuracy, change, size, latency, speed; columns without entries are left out."""
    lines = []
    for name, own in chapters:
        benchmarks = [r for r in own if hasattr(r, "timings")]
        verdicts = [r for r in own if hasattr(r, "rows") and hasattr(r, "allowed_loss")]
        for verdict, benchmark in _paired(verdicts, benchmarks):
            what = name or _model_name(benchmark if verdict is None else verdict)
            lines += [(what, *line) for line in _summary_rows(verdict, benchmark)]
    if not lines:
        return None
    several = len({line[0] for line in lines}) > 1
    columns = ("model", "stage", "accuracy", "change", "size", "latency", "speed")
    kept = [n for n in range(len(columns)) if (n or several) and (n < 2 or any(line[n] != "-" for line in lines))]
    return Table(CAPTION, tuple(columns[n] for n in kept),
                 tuple(tuple(line[n] for n in kept) for line in lines))


def _paired(verdicts: list[Any], benchmarks: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each verdict with the benchmark of the same model: of the same run folder, or the next one that is left."""
    left = list(benchmarks)
    for verdict in verdicts:
        same = [b for b in left if _model_name(b) == _model_name(verdict)]
        alone = left[:1] if len(verdicts) == 1 else []
        match = next(iter(same or alone), None)
        if match:
            left.remove(match)
        yield verdict, match
    for benchmark in left:
        yield None, benchmark


def _summary_rows(verdict: Any, benchmark: Any) -> Iterator[tuple[str, ...]]:
    # "is None" throughout: a verdict that failed is false, and is shown all the same.
    rows = {} if verdict is None else {row.name: row for row in verdict.rows}
    timings = {} if benchmark is None else {t.name: t for t in benchmark.timings}
    elsewhere = {r.name: r for r in getattr(benchmark, "recorded", ())}
    for name in dict.fromkeys([*rows, *timings, *elsewhere]):
        row, timing = rows.get(name), timings.get(name)
        size = max(getattr(row, "size", 0), getattr(timing, "size", 0))
        accuracy = f"{row.scores[verdict.metric]:.3f} {verdict.metric}" if row and verdict.metric else \
            row.status if row else "-"
        latency, speed = (f"{timing.p50_ms:.2f} ms", timing.words()) if timing else ("-", "-")
        if name in elsewhere:  # measured on another machine, or by fakes: told apart, compared with nothing
            latency, speed = elsewhere[name].shown_ms, elsewhere[name].where
            size = max(size, elsewhere[name].size)
        yield (name, accuracy, str(row.change) if row and row.change else "-", bytes_text(size) if size else "-",
               latency, speed)


def _model_name(result: Any) -> str:
    origin = getattr(result, "provenance", None)
    return origin.folder.parent.name if origin else ""
