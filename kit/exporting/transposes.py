"""What the order of axes costs: how many Transposes a model holds, how many are run, what they move and how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table, bytes_text
from kit.exporting.layouts import ALIKE
from kit.model import Model, read

LEAST_RUNS, ENOUGH = 3, 2.0  # runs, and seconds of them, that a measurement takes at most unless asked


@dataclass(frozen=True)
class Turn:
    """A Transpose as ONNX Runtime ran it, after its own optimising.

    Attributes:
        node: its name; the runtime makes some of its own.
        shape: what it turned.
        moved: bytes read and written in one run.
        ms: mean time of one run.
    """

    node: str
    shape: tuple[int, ...]
    moved: int
    ms: float


@dataclass(frozen=True)
class LayoutCost(Card):
    """Transposes of a model, in its file and in a run.

    Attributes:
        name: of the file.
        at_inputs: Transposes in the file that read an input of the model.
        at_outputs: those that give an output.
        inside: all others.
        run: the Transposes that ONNX Runtime ran, slowest first; it removes and merges some of the file's.
        total_ms: mean time that all nodes took in a run, as profiled.
        runs: how many runs the means are of; 0 when nothing was measured.
        threads: of ONNX Runtime.
    """

    name: str
    at_inputs: int
    at_outputs: int
    inside: int
    run: tuple[Turn, ...] = ()
    total_ms: float = 0.0
    runs: int = 0
    threads: int = 0

    @property
    def count(self) -> int:
        """Transposes in the file."""
        return self.at_inputs + self.at_outputs + self.inside

    @property
    def ms(self) -> float:
        """Mean time of a run spent in Transposes."""
        return sum(turn.ms for turn in self.run)

    @property
    def share(self) -> float:
        """Of a run's time, 0 to 1; 0 when nothing was measured."""
        return self.ms / self.total_ms if self.total_ms else 0.0

    @property
    def moved(self) -> int:
        """Bytes that Transposes read and write in one run."""
        return sum(turn.moved for turn in self.run)

    def words(self) -> str:
        """One line: how many there are and what they cost."""
        held = f"{self.count} in the file ({self.at_inputs} at inputs, {self.at_outputs} at outputs)"
        if not self.runs:
            return held
        return (f"{held}; {len(self.run)} run by ONNX Runtime, moving {bytes_text(self.moved)}: "
                f"{self.share:.1%} of the time")

    def title(self) -> str:
        return f"Transposes of {self.name}: {self.words()}"

    def facts(self) -> dict[str, object]:
        return {"in the file": f"{self.at_inputs} at inputs, {self.at_outputs} at outputs, {self.inside} inside",
                **({"measured": f"{self.runs} profiled runs of ONNX Runtime on {self.threads} threads",
                    "time in Transposes": f"{self.ms:.3f} of {self.total_ms:.3f} ms, {self.share:.1%}",
                    "bytes moved a run": bytes_text(self.moved)} if self.runs else {})}

    def tables(self) -> tuple[Table, ...]:
        if not self.run:
            return ()
        return (Table("Transposes as they were run", ("node", "shape", "bytes moved", "ms", "of the time"), tuple(
            (turn.node, "x".join(map(str, turn.shape)), bytes_text(turn.moved), f"{turn.ms:.4f}",
             f"{turn.ms / self.total_ms:.1%}" if self.total_ms else "-") for turn in self.run)),)


def layout_cost(model: Any, feed: Mapping[str, np.ndarray] | None = None, *, threads: int = 2,
                runs: int | None = None) -> LayoutCost:
    """Count a model's Transposes and, with a feed, measure what they cost in ONNX Runtime.

    Args:
        model: an .onnx path, a Model, or a result that carries one.
        feed: what to run it on; without it nothing is measured.
        threads: of ONNX Runtime.
        runs: how many to profile; by default as many as two seconds allow, three at least.

    Raises:
        BadInput: no such file, or the feed does not fit.
    """
    from kit.inspection.graph import onnx_source

    path = onnx_source(model, "layout_cost").graph
    proto = read(path, weights=False)
    counts = count(proto)
    if feed is None:
        return LayoutCost(path.name, *counts)
    turned, total, done = measure(path, feed, threads, runs)
    return LayoutCost(path.name, *counts, run=turned, total_ms=total, runs=done, threads=threads)


def count(proto: Any) -> tuple[int, int, int]:
    """Transposes at inputs, at outputs and inside, subgraphs included.

    One that is parted from the border by arithmetic on single numbers only, such as a division by 255, is at it too.
    """
    from kit.exporting.onnx_file import graphs

    weights = {tensor.name for tensor in proto.graph.initializer} | {
        node.output[0] for node in proto.graph.node if node.op_type == "Constant"}
    reach = {value.name for value in proto.graph.input} - weights  # border tensors, and what is alike to them
    for node in proto.graph.node:  # in order: what a node reads was seen before
        given = [name for name in node.input if name and name not in weights]
        if not given:
            weights.update(node.output)
        if node.op_type in ALIKE and given and all(name in reach for name in given):
            reach.update(node.output)
    ahead = {value.name for value in proto.graph.output}
    for node in reversed(proto.graph.node):
        if node.op_type in ALIKE and any(name in ahead for name in node.output):
            ahead.update(name for name in node.input if name not in weights)
    found = [0, 0, 0]
    for graph in graphs(proto.graph):
        for node in graph.node:
            if node.op_type == "Transpose":
                found[0 if node.input[0] in reach else 1 if node.output[0] in ahead else 2] += 1
    return tuple(found)  # type: ignore[return-value]


def measure(path: Path, feed: Mapping[str, np.ndarray], threads: int, runs: int | None
            ) -> tuple[tuple[Turn, ...], float, int]:
    """Profile a model: its Transposes, the time of all nodes in a run (ms), and the number of runs."""
    from kit.runner import check_feeds
    from kit.runtimes.onnxruntime import LEVELS, OnnxRuntime, trace

    inputs = check_feeds(feed, Model.open(path).inputs, path.name)
    if runs is None:
        once = max(OnnxRuntime(str(path), threads=threads).time(inputs, 2)) / 1000
        runs = int(min(50, max(LEAST_RUNS, ENOUGH / max(once, 1e-6))))
    events = trace(str(path), threads, LEVELS["all"], True, ["CPUExecutionProvider"], feeds=inputs, runs=runs)
    begin = sorted(event["ts"] for event in events if event.get("name") == "model_run")[-runs]  # one to warm up
    spent: dict[str, float] = defaultdict(float)
    about: dict[str, tuple[tuple[int, ...], int]] = {}
    total = 0.0
    for event in events:
        name, found = event.get("name", ""), event.get("args", {})
        if not name.endswith("_kernel_time") or "op_name" not in found or event["ts"] < begin:
            continue
        total += event["dur"] / 1000 / runs
        if found["op_name"] == "Transpose":
            name = name.removesuffix("_kernel_time")
            spent[name] += event["dur"] / 1000 / runs
            shape = next((tuple(sides) for entry in found.get("input_type_shape", []) for sides in entry.values()), ())
            about[name] = shape, 2 * int(found.get("output_size", 0) or 0)
    turned = tuple(Turn(name, *about[name], ms) for name, ms in sorted(spent.items(), key=lambda item: -item[1]))
    return turned, total, runs
