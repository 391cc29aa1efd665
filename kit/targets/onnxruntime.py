"""ONNX Runtime as installed here: asked itself, with a model of one node for every distinct kind of node.

The answer is the runtime's own, so it is right for this version and build. What a probe cannot tell (a node alone may
load where the whole does not) the whole model tells: it is loaded once, unless it is large.
"""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path
from typing import Any

from kit.card import bytes_text
from kit.inspection.findings import Finding, Support
from kit.inspection.graph import Graph, Node, Tensor
from kit.model import external_files
from kit.need import need

WHOLE = 500_000_000  # bytes: larger models are not loaded just to ask
_STANDARD = {"", "ai.onnx", "ai.onnx.ml"}
_FIXES = {"HardSwish": "", "BatchNormalization": "fold-batchnorm", "Identity": "drop-identity"}


class OnnxRuntimeTarget:
    """The installed onnxruntime, on its CPU provider."""

    name = rule_set = "onnxruntime"
    fine_print = ""

    def __init__(self) -> None:
        ort = need("onnxruntime", to="ask which operators it runs", extra="base")
        self.title = f"ONNX Runtime {ort.__version__}"
        self.source = f"onnxruntime {ort.__version__} on this machine"
        limits = _limits()
        self.opsets, self.ir_version = (7, limits[0]), limits[1]

    def digest(self) -> str:
        """The version and build decide."""
        return f"{self.source} {self.opsets} {self.ir_version}"

    def judge(self, graph: Graph) -> list[tuple[Support, ...]]:
        """Ask the runtime for every distinct node."""
        local = {(f.domain, f.name) for f in graph.proto.functions}
        return [(self._ask(node, graph, (node.domain, node.operator) in local),) for node in graph.nodes]

    def findings(self, graph: Graph) -> list[Finding]:
        """Load the whole model, without optimising it."""
        size = graph.path.stat().st_size + sum(p.stat().st_size for p in external_files(graph.path, graph.proto))
        if size > WHOLE:
            return [Finding("note", "", (), f"the whole model ({bytes_text(size)}) was not loaded to ask: only its "
                            "nodes were tried, one by one", self.source)]
        try:
            _session(graph.path)
        except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
            text = _brief(str(error))
            return [Finding("error", "", (), f"the runtime cannot load the model: {text}", self.source,
                            advice="the findings about single operators show what to replace; when there are none, "
                            "the nodes do not fit each other: export again, and run onnx.checker")]
        return []

    def recommended_opset(self, graph: Graph) -> tuple[int, str]:
        """17 is the lowest with LayerNormalization in one piece and is taken by every runtime in use."""
        best = min(17, self.opsets[1])
        return best, (f"the runtime takes {self.opsets[0]} to {self.opsets[1]}; {best} has HardSwish (14) and "
                      "LayerNormalization (17) in one piece, and the other targets of the kit take it too")

    def _ask(self, node: Node, graph: Graph, local: bool) -> Support:
        if local:
            return Support("supported", "a function that the model brings along", self.source)
        if node.operator == "Constant" and not node.domain:
            return Support("supported", "", self.source)
        if node.domain not in graph.opsets:
            return Support("not", f"the model does not import the domain {node.domain or 'ai.onnx'!r}", self.source,
                           advice="export again; the file is damaged")
        imports = tuple(sorted((d, v) for d, v in graph.opsets.items() if d in ("", node.domain)))
        state, reason, advice, severity = _probe(_signature(node), imports, min(graph.ir_version, self.ir_version))
        return Support(state, reason, self.source, _FIXES.get(node.operator, "") if state != "supported" else "",
                       advice, severity)


def _signature(node: Node) -> tuple[Any, ...]:
    """All that decides whether a kernel is found and accepts the node; tensors inside attributes do not."""
    plain = tuple(sorted(
        (name, tuple(value) if isinstance(value, list) else value) for name, value in node.attributes.items()
        if isinstance(value, int | float | bytes | list) and not _has_protos(value)))
    return (node.operator, node.domain, tuple(_dtype(t) for t in node.inputs), tuple(_dtype(t) for t in node.outputs),
            plain)


def _has_protos(value: Any) -> bool:
    return isinstance(value, list) and any(not isinstance(item, int | float | bytes) for item in value)


def _dtype(tensor: Tensor | None) -> str | None:
    return None if tensor is None else tensor.dtype


@functools.cache
def _probe(signature: tuple[Any, ...], imports: tuple[tuple[str, int], ...], ir_version: int) -> tuple[str, ...]:
    """State, reason, advice and severity for one kind of node."""
    import onnx
    from onnx import helper

    operator, domain, inputs, outputs, attributes = signature
    codes = {name: onnx.TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper()))
             for name in {*inputs, *outputs} - {None, "?"}}
    guessed = "?" in inputs
    inputs = tuple("float32" if name == "?" else name for name in inputs)
    codes["float32"] = onnx.TensorProto.FLOAT
    node = helper.make_node(operator, [f"i{k}" if t else "" for k, t in enumerate(inputs)],
                            [f"o{k}" for k in range(len(outputs))], name="asked", domain=domain)
    node.attribute.extend(helper.make_attribute(name, _plain(value)) for name, value in attributes if value != ())
    node.attribute.extend(_body(helper, operator, inputs, outputs, codes))
    graph = helper.make_graph(
        [node], "probe", [helper.make_tensor_value_info(f"i{k}", codes[t], None) for k, t in enumerate(inputs) if t],
        [helper.make_tensor_value_info(f"o{k}", codes[t], None) if t in codes else helper.make_empty_tensor_value_info(
            f"o{k}") for k, t in enumerate(outputs)])
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid(*i) for i in imports])
    try:
        became = _became(model.SerializeToString())
    except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
        refused = _refusal(str(error), operator, domain, [t for t in inputs if t])
        return ("partly", "the type of an input is unknown, and it does not take float32", "see what stands before it",
                "note") if guessed and "registered" not in str(error) else refused
    return _catch(operator, became)


def _body(helper: Any, operator: str, inputs: tuple, outputs: tuple, codes: dict[str, int]) -> list[Any]:
    """The smallest body for a control-flow node; the nodes of its real one are asked about one by one."""
    import onnx

    def value(name: str, code: int, shape: Any = None) -> Any:
        return helper.make_tensor_value_info(name, code, shape)

    if operator == "If":
        made = []
        for branch in ("then_branch", "else_branch"):
            nodes, results = [], []
            for k, t in enumerate(outputs):
                code = codes.get(t, onnx.TensorProto.FLOAT)
                nodes.append(helper.make_node("ConstantOfShape", [f"{branch}{k}s"], [f"{branch}{k}"],
                                              value=helper.make_tensor("v", code, [1], [0])))
                nodes.insert(0, helper.make_node("Constant", [], [f"{branch}{k}s"], value=helper.make_tensor(
                    "s", onnx.TensorProto.INT64, [1], [1])))
                results.append(value(f"{branch}{k}", code))
            made.append(helper.make_attribute(branch, helper.make_graph(nodes, branch, [], results)))
        return made
    if operator == "Loop":
        carried = [codes.get(t, onnx.TensorProto.FLOAT) for t in inputs[2:]]
        scanned = [codes.get(t, onnx.TensorProto.FLOAT) for t in outputs[len(carried):]]
        heads = [value("step", onnx.TensorProto.INT64, []), value("go", onnx.TensorProto.BOOL, [])]
        states = [value(f"s{k}", code) for k, code in enumerate(carried)]
        nodes = [helper.make_node("Identity", ["go"], ["go_on"]),
                 *[helper.make_node("Identity", [f"s{k}"], [f"t{k}"]) for k in range(len(carried))],
                 *[helper.make_node("Constant", [], [f"u{k}"], value=helper.make_tensor("v", code, [1], [0]))
                   for k, code in enumerate(scanned)]]
        results = [value("go_on", onnx.TensorProto.BOOL, []), *[value(f"t{k}", c) for k, c in enumerate(carried)],
                   *[value(f"u{k}", c) for k, c in enumerate(scanned)]]
        return [helper.make_attribute("body", helper.make_graph(nodes, "body", [*heads, *states], results))]
    return []


@functools.cache
def _limits() -> tuple[int, int]:
    """Highest opset and IR version: the runtime names both when it is asked for more."""
    found = []
    for opset, ir_version, pattern in ((999, 8, r"till opset (\d+)"), (13, 999, r"max supported IR version: (\d+)")):
        try:
            _session(_relu(opset, ir_version))
            found.append(opset if opset == 999 else ir_version)
        except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
            said = re.search(pattern, str(error))
            found.append(int(said[1]) if said else (21, 10)[len(found)])
    return found[0], found[1]


def _relu(opset: int, ir_version: int) -> bytes:
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    return helper.make_model(graph, ir_version=ir_version,
                             opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()


def _session(model: bytes | Path, optimised: str = "") -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if optimised:
        options.optimized_model_filepath = optimised
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _became(model: bytes) -> tuple[str, ...]:
    """The operators that the runtime really runs for a model of one node."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="kit-probe-") as folder:
        path = str(Path(folder) / "asked.onnx")
        _session(model, path)
        return tuple(node.op_type for node in onnx.load(path).graph.node)


def _catch(operator: str, became: tuple[str, ...]) -> tuple[str, ...]:
    others = [name for name in became if name != operator]
    if operator in became and "Cast" in others:
        return ("partly", "no kernel for this type: the runtime casts to float32 and back around it",
                "keep this node in float32, or run on a device with float16 kernels", "note")
    if operator not in became and others and operator != "Cast":
        kinds = list(dict.fromkeys(others))
        names = " + ".join(kinds[:3]) + (f" and {len(kinds) - 3} more" if len(kinds) > 3 else "")
        return ("partly", f"no kernel of its own: the runtime runs it as {names}, unless a fusion takes it up",
                "nothing to do; it only costs some speed", "note")
    return "supported", "", "", ""


def _refusal(text: str, operator: str, domain: str, types: list[str]) -> tuple[str, ...]:
    words = ", ".join(dict.fromkeys(types))
    if "NOT_IMPLEMENTED" in text or "Could not find an implementation" in text:
        return ("not", f"no kernel for {words} inputs", "cast its inputs to float32, or replace the operator", "")
    if "not a registered function/op" in text or "No Op registered" in text:
        where = "the installed runtime does not know it" if domain in _STANDARD else \
            f"the domain {domain} is not part of the runtime"
        return ("not", where, "replace it by standard operators, or load the library that implements it with "
                "SessionOptions.register_custom_ops_library", "")
    if "opset" in text.lower() and "guarantee" in text:
        return ("not", "the model's opset is newer than this runtime", "export with the recommended opset", "")
    if "Type Error" in text or "Type parameter" in text or "type inference failed" in text.lower():
        return ("not", f"it does not take these input types ({words})", "cast its inputs to a type it takes", "")
    return ("partly", f"alone it could not be tried: {_brief(text)}", "the whole model was loaded too: see there",
            "note")


def _brief(text: str) -> str:
    """The message without its code prefix, file and function names."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.strip())
    text = re.sub(r"/\S+?\.(?:cc|h):\d+ .*?\) ", "", text)
    text = re.sub(r"Load model from \S+ failed:", "", text)
    return " ".join(text.split())[:400]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
