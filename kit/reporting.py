"""report: one page that says what was done to a model, what it cost and what it gained.

The page is a single file: no script, no font and no picture comes from elsewhere, so that it can be mailed, printed
and opened years later. It tells nothing about the machine that is not a fact about the figures: paths are cut to
their last part, and there is neither a user's nor a host's name in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Annotated, Any

from kit.ascend.box.recorded import FAKE
from kit.card import Card, Table, bytes_text
from kit.errors import BadInput
from kit.evidence.entries import versions
from kit.evidence.privacy import machine, private
from kit.evidence.report_content import CAPTION, chapter_of, looks, summary_of, warnings_of
from kit.need import need
from kit.options import Help, Options, Range, expect
from kit.progress import Report as Progress
from kit.progress import Tick, silent, track
from kit.record import Provenance, check_files, digest, run_stage

TEMPLATE = Path(__file__).with_name("reporting_template.html")
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript",
            "onnx-ir", "openvino", "nncf", "torch", "tensorflow-cpu", "tensorflow", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class ReportOptions(Options):
    """What the page shows."""

    title: Annotated[str, Help("heading of the page; made from the results when empty")] = ""
    charts: Annotated[bool, Help("draw the charts; without them the page is small and quick")] = True
    rows: Annotated[int, Range(5, 10_000, 5), Help("longest table shown in full; longer ones are cut and say so")] = 40


@dataclass(frozen=True)
class Report(Card):
    """The page.

    Attributes:
        path: the HTML file.
        heading: its title.
        columns: of the short table: stage, accuracy, size, latency, speed; empty when there is nothing to put in.
        lines: its rows.
        warnings: what the page warns of first.
        size: bytes.
    """

    path: Path
    heading: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]
    size: int
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        return f"{self.heading}: {os.path.relpath(self.path)}"

    def html(self) -> str:
        """The card, with a link that opens the page."""
        where = escape(os.path.relpath(self.path).replace(os.sep, "/"))
        return f'{super().html()}<p><a href="{where}" target="_blank">Open the report</a></p>'

    def facts(self) -> dict[str, object]:
        return {"size": bytes_text(self.size),
                "warnings": len(self.warnings) or "none",
                **{f"warning {n}": text for n, text in enumerate(self.warnings, start=1)}}

    def tables(self) -> tuple[Table, ...]:
        return (Table(CAPTION, self.columns, self.lines),) if self.columns else ()

    @property
    def summary(self) -> str:
        """The short table as text."""
        return "\n".join(table.text(100) for table in self.tables())


def report(results: Sequence[Any] | Mapping[str, Any], options: ReportOptions = ReportOptions(), *,
           runs: Path | str | None = None, report: Progress = silent) -> Report:
    """Write the page.

    Args:
        results: the stages' results in order; or name -> results, for several models on one page.
        options: see ReportOptions.

    Raises:
        BadInput: there is nothing to report, or something that is no result.
        StaleResult: a result's files were changed after it was made.
    """
    expect(ReportOptions, options)
    chapters = _chapters(results)

    def work(scratch: Path, progress: Progress) -> Report:
        return _write(chapters, options, scratch / "report.html", progress)

    inputs = {"results": [(name, [_identity(r) for r in own]) for name, own in chapters], "template": TEMPLATE,
              "versions": versions(*PACKAGES)}
    return run_stage("report", Report, work, options=options, inputs=inputs, name=_run_name(chapters), runs=runs,
                     report=report)


def summary(results: Sequence[Any] | Mapping[str, Any]) -> str:
    """The short table (stage, accuracy, size, latency, speed) as text; "" when there is nothing to put in."""
    table = summary_of(_chapters(results))
    return table.text(100) if table else ""


def _chapters(results: Any) -> list[tuple[str, list[Any]]]:
    if isinstance(results, Mapping):
        named = [(str(name), [own] if isinstance(own, Card) else list(own)) for name, own in results.items()]
    else:
        named = [("", [results] if isinstance(results, Card) else list(results))]
    named = [(name, own) for name, own in named if own]
    if not named:
        raise BadInput("There are no results to report.", remedy="give the results of at least one stage")
    for _, own in named:
        for result in own:
            if not isinstance(result, Card):
                raise BadInput(f"A {type(result).__name__} is no stage's result.",
                               remedy="give what kit.export, kit.verify and the other stages return")
            if getattr(result, "provenance", None):
                check_files(result)
    return named


def _identity(result: Any) -> list[str]:
    origin = getattr(result, "provenance", None)
    if origin:
        return [type(result).__name__, origin.stage, origin.key, origin.made, str(origin.seconds)]
    try:
        return [type(result).__name__, digest(result)]
    except TypeError:
        return [type(result).__name__, str(result)]


def _run_name(chapters: list[tuple[str, list[Any]]]) -> str:
    for _, own in chapters:
        for result in own:
            if getattr(result, "provenance", None):
                return result.provenance.folder.parent.name
    return "report"


def _write(chapters: list[tuple[str, list[Any]]], options: ReportOptions, path: Path, progress: Progress) -> Report:
    jinja2 = need("jinja2", to="write a report", extra="base")
    made = tuple(chapter_of(f"part-{n}", name, own, options.charts)
                 for n, (name, own) in enumerate(track(chapters, progress, note="drawing charts"), start=1))
    warnings = tuple(sorted(dict.fromkeys(warning for name, own in chapters for warning in warnings_of(name, own)),
                            key=lambda warning: FAKE not in warning))  # what is not real goes first
    short = summary_of(chapters)
    heading = options.title or "Migration report" + (f": {_run_name(chapters)}" if len(chapters) == 1 else "")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined, finalize=_finalize)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    progress(Tick(0, None, "writing the page"))
    from kit import __version__

    page = template.render(
        heading=heading, made=time.strftime("%Y-%m-%d %H:%M"), kit=__version__, warnings=warnings, short=short,
        chapters=made, machine=machine(), versions=versions(*PACKAGES), limit=options.rows,
        is_table=lambda thing: isinstance(thing, Table), looks=looks)
    path.write_text(page, encoding="utf-8")
    return Report(path, heading, short.columns if short else (), short.rows if short else (),  # type: ignore[arg-type]
                  tuple(map(private, warnings)), path.stat().st_size)


def _finalize(value: Any) -> Any:
    """Everything that is put on the page goes through here: nothing private may slip by."""
    from markupsafe import Markup

    return value if isinstance(value, Markup | int | float) else private("" if value is None else str(value))
