"""OpenVINO as installed here: asked itself, by letting it read the whole model and say what its CPU device takes.

OpenVINO reports every operator that it cannot convert at once, so one reading answers for all nodes; single nodes are
not tried alone, because many convert only with the shapes and constants of their place. Nothing is compiled or run.
"""

from __future__ import annotations

import re
from typing import Any

from kit.card import bytes_text
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph, Node
from kit.model import external_files
from kit.need import need

WHOLE = 1_500_000_000  # bytes: asking the device copies weights that it would fold
_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_REPLACE = "replace it by standard operators, or keep this part in ONNX Runtime"


class OpenVinoTarget:
    """The installed openvino, on its CPU device."""

    name = rule_set = "openvino"
    fine_print = ""
    ir_version = 0  # it does not look at it

    def __init__(self) -> None:
        from kit.runtimes import openvino

        onnx = need("onnx", to="read an ONNX file", extra="base")
        self._openvino = openvino
        self._precision, self._capabilities = openvino.float_precision(), openvino.capabilities()
        self.title = f"OpenVINO {openvino.version()}"
        self.source = f"openvino {openvino.version()} on this machine"
        # OpenVINO does not refuse an opset by its number; what no installed onnx describes nobody can judge.
        self.opsets = (1, onnx.defs.onnx_opset_version())
        self._asked: tuple[Any, tuple[dict[str, str], set[str], str, str]] | None = None

    def digest(self) -> str:
        """The version and what the processor offers decide."""
        return f"{self.source} {self._precision} {self._capabilities}"

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Read the model; what OpenVINO names is not supported, everything else is."""
        refused, refused_nodes, text, _ = self._ask(graph)
        return [(self._support(node, refused, refused_nodes, text),) for node in graph.nodes]

    def findings(self, graph: Graph) -> list[Finding]:
        """What concerns the model as a whole: reading it, open axes, private operators, precision."""
        refused, _, text, trouble = self._ask(graph)
        found = []
        if text and not refused:
            found.append(Finding("error", "", (), f"OpenVINO cannot read the model: {_brief(text)}", self.source,
                                 advice="run onnx.checker on the file; export it again"))
        if trouble:
            found.append(Finding("note", "", (), trouble, self.source))
        if graph.dynamic:
            names = ", ".join(dict.fromkeys(f"{name}[{axis}]" for name, axis, _ in graph.dynamic))
            found.append(Finding(
                "note", "", (), f"open axes ({names}): OpenVINO prepares kernels for each new shape when it first "
                "meets it, so that run is slow, and plans less ahead", self.source, "fix-shapes",
                "fix the sizes if they never change: kit.fix with shapes=..."))
        private = dict.fromkeys(n.label for n in graph.nodes
                                if n.domain not in _STANDARD and n.label not in refused) if not text else {}
        if private:
            found.append(Finding("note", "", (), f"{', '.join(private)}: operators outside the ONNX standard, which "
                                 "OpenVINO understands too", self.source, advice="nothing to do for this target"))
        if self._precision != "f32":
            found.append(Finding(
                "note", "", (), f"on this processor ({', '.join(self._capabilities)}) OpenVINO computes float layers "
                f"in {self._precision} by itself: faster, and answers differ in the third digit", self.source,
                advice='measure it with kit.verify; precision="f32" in kit.open_runner or kit.compile turns it off'))
        return found

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """As for ONNX Runtime: a higher one gains nothing here."""
        return 17, ("OpenVINO looks at operators, not at the number; 17 has HardSwish (14) and LayerNormalization (17) "
                    "in one piece, and the other targets of the kit take it too")

    def _support(self, node: Node, refused: dict[str, str], refused_nodes: set[str], text: str) -> Support:
        reason = refused.get(node.label)
        if reason is None:
            return Support("supported", "", self.source)
        if "dynamic" in reason and any("no rule" in other for other in refused.values()):
            return Support("partly", "it stands behind an operator that OpenVINO does not know, so its own conversion "
                           "could not be tried", self.source, "", "repair the other one first", "note")
        # Of several nodes of a type the report may name one: the others may be fine.
        named = {other for other in refused_nodes if f"({node.operator}): {other}>" in text}
        if named and node.name not in named:
            return Support("partly", f"another {node.operator} of this model could not be converted ({reason}); this "
                           "one was not judged on its own", self.source, "", "audit again when that one is repaired",
                           "note")
        return Support("not", reason, self.source, "", _REPLACE)

    def _ask(self, graph: Graph) -> tuple[dict[str, str], set[str], str, str]:
        """Operators refused and why, nodes that are named, OpenVINO's whole message, and what else is to be said."""
        if self._asked is None or self._asked[0] is not graph:
            self._asked = (graph, self._read(graph))
        return self._asked[1]

    def _read(self, graph: Graph) -> tuple[dict[str, str], set[str], str, str]:
        core = self._openvino.core()
        try:
            model = core.read_model(str(graph.path))
        except RuntimeError as error:
            text = str(error)
            return self._openvino.refusals(text), set(re.findall(r"<Node\([^)]*\): (.*?)>", text)), text, ""
        size = graph.path.stat().st_size + sum(p.stat().st_size for p in external_files(graph.path, graph.proto))
        if size > WHOLE:
            return {}, set(), "", f"the device was not asked about the model ({bytes_text(size)}): it was only read"
        taken = core.query_model(model, self._openvino.DEVICE)
        left = {op.get_friendly_name() for op in model.get_ordered_ops()} - set(taken)
        refused = {node.label: "OpenVINO converts it, but its CPU device does not take it" for node in graph.nodes
                   if node.name in left or any(t.name in left for t in node.outputs)}
        return refused, left, "", ""


def _brief(text: str) -> str:
    """The last line of OpenVINO's message: the others name its own files."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "no message"
