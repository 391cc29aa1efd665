"""ONNX Runtime on an Ascend chip, through its CANN provider: a forecast by the provider's own list of operators.

What the list has is compiled by CANN in pieces; everything else runs on the CPU of the host, and tensors are copied to
and fro at every seam. So nothing is refused, but a few operators outside the list can cost more than all that are in
it. With or without the onnxruntime-cann package here, this is read from the provider's source: nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from kit.inspection.findings import Finding, Support, counted
from kit.inspection.graph import Graph, Node
from kit.targets import ascend

NAME = "onnxruntime-cann"
Device = Literal["npu", "cpu", ""]
# Rules of kit.graph that write what the provider does not take in operators that it takes.
FIXES = {
    "LayerNormalization": "split-layernorm", "GroupNormalization": "split-groupnorm", "Gelu": "split-gelu",
    "com.microsoft::Gelu": "split-gelu", "com.microsoft::QuickGelu": "split-swish", "Mish": "split-mish",
    "Einsum": "einsum-to-matmul", "GRU": "plain-gru", "If": "if-constant", "Loop": "unroll-loop"}


@dataclass(frozen=True)
class Seams:
    """How a model would be divided.

    Attributes:
        on_cpu: nodes left to the CPU.
        pieces: stretches of nodes that CANN compiles, in the order of the file.
        to_device: tensors copied to the device in a run, the model's inputs included.
        to_host: tensors copied back, the model's outputs included.
    """

    on_cpu: int
    pieces: int
    to_device: int
    to_host: int


class OnnxRuntimeCannTarget:
    """The provider, as its source describes it."""

    name = rule_set = NAME
    judges_memory = True
    ir_version = 0

    def __init__(self) -> None:
        facts = ascend.facts("cann_ep")
        self.graph_mode = facts["graph_mode"]
        self._listed = frozenset(self.graph_mode["operators"])
        self.opsets = (self.graph_mode["lowest_opset"], ascend.HIGH)
        self.installed = _installed(facts["package"])
        self.title = (f"ONNX Runtime's CANN provider ({facts['package']} "
                      f"{self.installed or 'is not installed here'})")
        self.source = facts["source"][0]
        pairs = ", ".join(f"{ours} with CANN {theirs}" for ours, theirs in list(facts["pairs"].items())[1:4])
        self.fine_print = ("A forecast by the provider's list of operators; nothing was run. CANN's own parser reads "
                           "each piece, so what it trips over it trips over here too: audit for the chip as well. By "
                           f"its documents: {pairs}. It runs in sequential mode only.")

    def digest(self) -> str:
        """Of the facts, and of what is installed."""
        from kit.record import digest

        return digest([self.name, self.installed, ascend.facts("cann_ep")])

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Look every node up in the provider's list for graph mode."""
        return [(self._looked_up(node),) for node in graph.nodes]

    def findings(self, graph: Graph) -> list[Finding]:
        """How the model would be divided, and the precision that it would get."""
        seams = self.seams(graph)
        said = (f"{counted(seams.on_cpu, 'node')} of {len(graph.nodes)} on the CPU; "
                f"{counted(seams.pieces, 'piece')} for CANN; {counted(seams.to_device, 'tensor')} copied to the device "
                f"and {counted(seams.to_host, 'tensor')} back in every run")
        found = [Finding("warning" if seams.on_cpu else "note", "", (), said, self.source,
                         advice="measure it on the box against the same model built by ATC" if seams.on_cpu else
                         "one piece, as ATC would build it")]
        if not seams.pieces:
            found[0] = Finding("error", "", (), "no node is in the provider's list: everything would run on the CPU",
                               self.source, advice="choose target onnxruntime, or repair the nodes below")
        found.append(Finding("note", "", (), "float32 layers are computed in float16 unless precision_mode says "
                             "otherwise (force_fp16 is the default)", ascend.facts("cann_ep")["source"][1],
                             advice='kit.open_runner(model, cann=kit.CannProvider(precision='
                             '"must_keep_origin_dtype"))'))
        if graph.opset > 15:
            found.append(Finding("note", "", (), f"opset {graph.opset}: older releases of the provider stop at 15",
                                 self.source, advice=f"use {ascend.facts('cann_ep')['versions_seen'][0]}, or export at "
                                 "opset 15"))
        return found

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """15 is taken by every release; LayerNormalization, which 17 adds, is not in the list anyway."""
        return 15, ("older releases of the provider stop at 15, and what 16 and 17 add (GridSample, "
                    "LayerNormalization) is not in its list")

    def device(self, node: Node) -> Device:
        """Where a node would run; "" for one that is folded away before anything runs."""
        if node.outputs and all(tensor.constant for tensor in node.outputs):
            return ""
        return "npu" if self._is_listed(node) and not node.scope else "cpu"

    def seams(self, graph: Graph) -> Seams:
        """Count pieces and copies: each tensor that is made on one side and read on the other is copied once."""
        made: dict[str, Device] = {name: "cpu" for name in graph.bound}
        to_device, to_host, pieces, on_cpu = set(), set(), 0, 0
        before: Device = "cpu"
        for node in graph.nodes:
            where = self.device(node)
            if not where:
                continue
            pieces += where == "npu" and before == "cpu"
            on_cpu += where == "cpu"
            before = where
            for tensor in node.inputs:
                side = made.get(tensor.name) if tensor is not None and not tensor.constant else None
                if side and side != where:
                    (to_device if where == "npu" else to_host).add(tensor.name)
            made.update({tensor.name: where for tensor in node.outputs})
        to_host.update(name for name in graph.results if made.get(name) == "npu")
        return Seams(on_cpu, pieces, len(to_device), len(to_host))

    def _is_listed(self, node: Node) -> bool:
        return not node.domain and node.operator in self._listed and node.version >= self.opsets[0]

    def _looked_up(self, node: Node) -> Support:
        if not self.device(node):
            return Support("supported", "", self.source)  # constants: ONNX Runtime folds them when it loads the model
        if node.scope:
            return Support("partly", f"inside {node.scope[-1]}, which runs on the CPU", self.source, severity="note")
        if self._is_listed(node):
            return Support("supported", "", self.source)
        reason = f"{node.label} is not in the provider's list: it runs on the CPU, its tensors are copied to and fro"
        if node.operator in self._listed and not node.domain:
            reason = f"{node.label} of opset {node.version}: the provider takes {self.opsets[0]} and later"
        return Support("partly", reason, self.source, FIXES.get(node.label, ""), "" if node.label in FIXES else
                       "write it in operators of the list, or move it to the edge of the model: fewer copies")


def _installed(package: str) -> str:
    """The version of a package; "" where it is not installed. Nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
