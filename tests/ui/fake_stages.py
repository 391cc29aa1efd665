"""Stages for tests of the panel: small, importable (a worker process must be able to import them), quick."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from kit import record
from kit.card import Card, Table
from kit.errors import UnsupportedModel
from kit.options import Help, Options, Range
from kit.progress import Report, silent, track
from kit.record import Provenance


@dataclass(frozen=True)
class BakeOptions(Options):
    """How to bake."""

    method: Annotated[Literal["minmax", "entropy"], Help("How the range of each tensor is found.")] = "minmax"
    steps: Annotated[int, Range(1, 200), Help("How many steps to take; each lasts a moment.")] = 3
    share: Annotated[float, Range(0.0, 1.0, 0.05), Help("Part of the samples that is used.")] = 0.5
    per_channel: Annotated[bool, Help("One scale for each output channel instead of one for the whole tensor.")] = True
    keep_float: Annotated[tuple[str, ...], Help("Nodes that stay in floating point, by name.")] = ()
    extra: Annotated[Path | None, Help("A file with more settings.")] = None


@dataclass(frozen=True)
class Baked(Card):
    """What baking gives."""

    method: str
    steps: int
    process: int
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        return f"Baked in {self.steps} steps by {self.method}"

    def facts(self) -> dict[str, object]:
        return {"method": self.method, "steps": self.steps}

    def tables(self) -> tuple[Table, ...]:
        return (Table("Steps", ("step", "<what>"), tuple((n, f"step {n}") for n in range(self.steps)[:3])),)


def bake(model: str, options: BakeOptions = BakeOptions(), *, runs: Path | None = None,
         report: Report = silent) -> Baked:
    """Bake a model, slowly enough to be watched.

    A second paragraph that the panel does not show.
    """

    def work(folder: Path, report: Report) -> Baked:
        for step in track(range(options.steps), report, note="baking"):
            (folder / f"{step}.txt").write_text("x", encoding="utf-8")
            time.sleep(0.1)
        return Baked(options.method, options.steps, os.getpid())

    return record.run_stage("bake", Baked, work, options=options, inputs={"model": model}, name="cake", runs=runs,
                            report=report)


def rebake(models: dict[str, str], options: BakeOptions = BakeOptions(), *, runs: Path | None = None,
           report: Report = silent) -> Baked:
    """Bake several, with inputs that are no argument's own digest."""
    return record.run_stage("rebake", Baked, lambda folder, report: Baked(options.method, options.steps, os.getpid()),
                            options=options, inputs={"names": ",".join(models)}, name="cakes", runs=runs, report=report)


def at_once(model: str, options: BakeOptions = BakeOptions()) -> Baked:
    """Return without working."""
    return Baked(options.method, options.steps, os.getpid())


def refuse(model: str, options: BakeOptions = BakeOptions(), *, report: Report = silent) -> Baked:
    """Fail as a stage should: with a remedy."""
    raise UnsupportedModel(f"{model} has 2 inputs (<image>, mask); this stage takes 1.",
                           remedy="choose one with inputs=['image']", detail="node 17\nnode 18")


def break_down(model: str, options: BakeOptions = BakeOptions(), *, report: Report = silent) -> Baked:
    """Fail as no stage should."""
    raise ZeroDivisionError("division by zero in Conv_3")


def die(model: str, options: BakeOptions = BakeOptions(), *, report: Report = silent) -> Baked:
    """Be killed, as by the system when memory runs out."""
    print("last words of the worker", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return Baked("", 0, 0)


def bare(number: int) -> int:
    """A plain function without options, report or runs."""
    return number + 1
