"""profile: where inside an ONNX model the time goes, by type of operator, as ONNX Runtime itself measures it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit import worker
from kit.card import Card, Table
from kit.errors import BadInput
from kit.evidence.entries import entries
from kit.need import need


@dataclass(frozen=True)
class OperatorTime:
    """Time of all nodes of one operator type: mean milliseconds a run, and the share (0 to 1) of all node time."""

    operator: str
    nodes: int
    ms: float
    share: float


@dataclass(frozen=True)
class Profile(Card):
    """Time by operator type, the longest first; ``ms`` is the mean of a whole run inside the session."""

    rows: tuple[OperatorTime, ...]
    ms: float
    runs: int

    def title(self) -> str:
        top = self.rows[0]
        inside = sum(row.ms for row in self.rows)
        return f"{top.operator} takes {top.share:.0%} of the {inside:.2f} ms spent in operators"

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((row.operator, row.nodes, f"{row.ms:.3f}", f"{row.share:.0%}") for row in self.rows)
        return (Table(f"Time by operator, mean of {self.runs} runs", ("operator", "nodes", "ms a run", "share"), rows),)


def profile(model: Any, feeds: Mapping[str, np.ndarray], *, runs: int = 20, threads: int = 2) -> Profile:
    """Time by operator type, after ONNX Runtime has rewritten the graph. Profiling itself costs some time.

    Raises:
        BadInput: not an ONNX model.
    """
    entry = entries({"model": model}, "model")[0]
    if entry.source is None or entry.source.kind != "onnx":
        raise BadInput("Only an ONNX model can be profiled.", remedy="export it first")
    return worker.run(_profile, str(entry.source.graph), dict(feeds), runs, threads)


def _profile(graph: str, feeds: dict[str, np.ndarray], runs: int, threads: int) -> Profile:
    from kit.runtimes.onnxruntime import LEVELS, trace

    need("onnxruntime", to="profile an ONNX model", extra="base")
    events = trace(graph, threads, LEVELS["all"], True, ["CPUExecutionProvider"], feeds=feeds, runs=runs)
    return summarise(events, runs)


def summarise(events: list[dict[str, Any]], runs: int) -> Profile:
    """A Profile from ONNX Runtime's trace events of ``runs`` runs after one more, which is left out as warm-up."""
    whole = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])[-runs:]
    begin = whole[0]["ts"] if whole else 0
    spent, nodes = defaultdict(float), defaultdict(set)
    for event in events:
        kind = event.get("args", {}).get("op_name")
        if kind and event["name"].endswith("_kernel_time") and event["ts"] >= begin:
            spent[kind] += event["dur"] / 1000
            nodes[kind].add(event["name"])
    total = sum(spent.values()) or 1.0
    rows = tuple(OperatorTime(kind, len(nodes[kind]), ms / runs, ms / total)
                 for kind, ms in sorted(spent.items(), key=lambda pair: -pair[1]))
    return Profile(rows, sum(e["dur"] for e in whole) / 1000 / runs, runs)
