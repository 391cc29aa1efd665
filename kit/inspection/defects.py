"""What can be wrong with an ONNX file whatever its target: all of it, in one pass, never only the first."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from kit.card import bytes_text
from kit.inspection.findings import Finding, Severity, counted
from kit.inspection.graph import LARGE, Graph, Node, light
from kit.inspection.shape_arithmetic import STEERING
from kit.targets import Target

REPEATED = 256  # elements: smaller repeats are not worth a word
_LOOKED_THROUGH = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13})  # ONNX's numbers of the types that numpy has


def defects(graph: Graph, target: Target) -> Iterator[Finding]:
    """Every finding that no single operator's support explains."""
    yield from _versions(graph, target)
    yield from _shapes(graph)
    yield from _initializers(graph)
    yield from _dead(graph)
    yield from _foreign(graph)
    yield from _doubles(graph)
    yield from _computed_shapes(graph, target)
    if target.name == "onnxruntime" and graph.dynamic:
        axes = ", ".join(f"{name}[{at}] ({word})" for name, at, word in graph.dynamic)
        yield Finding("note", "", (), f"dynamic axes: {axes}", "the file", "fix-shapes", "fine for this runtime; a "
                      "fixed shape lets it plan memory once and fold shape arithmetic")


def _versions(graph: Graph, target: Target) -> Iterator[Finding]:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if target.ir_version and graph.ir_version > target.ir_version:
        yield Finding("error", "", (), f"IR version {graph.ir_version} is newer than {target.title} reads "
                      f"({target.ir_version})", target.source, "lower-ir-version",
                      "lower the IR version, or install a newer runtime")
    if graph.ir_version > onnx.IR_VERSION:
        yield Finding("warning", "", (), f"IR version {graph.ir_version} is newer than the installed onnx "
                      f"{onnx.__version__} knows ({onnx.IR_VERSION}); its checker cannot judge the file",
                      f"onnx {onnx.__version__}", "lower-ir-version", "lower the IR version, or install a newer onnx")
    low, high = target.opsets
    if graph.opset and not low <= graph.opset <= high:
        yield Finding("error", "", (), f"opset {graph.opset} is outside {low} to {high}, which {target.title} takes",
                      target.source, "raise-opset" if graph.opset < low else "lower-opset",
                      f"export again at opset {target.recommended_opset(graph)[0]}")
    elif graph.opset > newest:
        yield Finding("warning", "", (), f"opset {graph.opset} is newer than the installed onnx {onnx.__version__} "
                      f"knows ({newest}): shapes and costs may be missing", f"onnx {onnx.__version__}",
                      advice="export at the recommended opset")
    if not graph.opset and any(not node.domain for node in graph.nodes):
        yield Finding("error", "", (), "the file imports no version of the standard operators", "the file",
                      advice="export again; the file is damaged")


def checked(graph: Graph) -> Iterator[Finding]:
    """What onnx.checker says of the file. It stops at the first fault; so one that fails is checked node by node."""
    import onnx

    source = f"onnx.checker {onnx.__version__}"
    if graph.ir_version > onnx.IR_VERSION:
        return  # it would say only that
    try:
        # It reads a file whole; where that is much, the graph is checked without its weights.
        onnx.checker.check_model(str(graph.path) if graph.path.stat().st_size <= LARGE else light(graph))
        return
    except Exception as error:  # ValidationError, or a RuntimeError for unknown operators
        whole = _line(error)
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = graph.ir_version, graph.opsets
    said = []
    for node in graph.nodes:
        if node.scope or node.proto.op_type in ("If", "Loop", "Scan"):
            continue  # its names come from outside: alone it would always fail
        try:
            onnx.checker.check_node(node.proto, context)
        except Exception as error:  # as above
            said.append(_line(error))
            yield Finding("error", node.label, (node.name,), said[-1], source, advice="export again with a newer "
                          "exporter, or correct the node")
    if not any(text[:60] in whole or whole[:60] in text for text in said):
        # A result without a shape breaks the standard, but no runtime minds.
        severity: Severity = "warning" if "Field 'shape'" in whole else "error"
        yield Finding(severity, "", (), whole, source, advice="export again; the file does not follow the standard")


def _shapes(graph: Graph) -> Iterator[Finding]:
    import onnx

    source = f"onnx {onnx.__version__} shape inference"
    size = ", ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in graph.bound.items())
    missing = tuple(n.name for n in graph.nodes if any(t.elements is None for t in n.outputs))
    if missing:
        yield Finding("warning", "", missing, f"shapes of {len(missing)} of {len(graph.nodes)} nodes are unknown at "
                      f"{size}: their cost is not counted", source, advice="give the sizes it is meant for, such "
                      'as bind=("x=1,3,48,320",); behind an operator that onnx does not know nothing can be inferred')
        if graph.trouble:
            yield Finding("warning", "", (), _line(graph.trouble), source, advice="the nodes named there do not fit at "
                          "this size, or at any")


def _initializers(graph: Graph) -> Iterator[Finding]:
    used = Counter(t.name for n in graph.nodes for t in n.inputs if t is not None)
    used.update(_results(graph))
    unused, groups, broken, endless, doubled = [], {}, [], [], Counter()
    for tensor in graph.proto.graph.initializer:
        doubled[tensor.name] += 1
        if not used[tensor.name]:
            unused.append(tensor.name)
    unseen = []
    for name, tensor in graph.weights:
        values = graph.array(tensor) if tensor.data_type in _LOOKED_THROUGH else None
        if values is None:
            unseen += [name] if tensor.external_data else []
            continue
        if values.size >= REPEATED:
            groups.setdefault(_content(tensor, values), []).append(name)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            broken += [name] if np.isnan(values).any() else []
            endless += [name] if np.isinf(values).any() else []
    if unseen:
        yield Finding("note", "", (), f"{counted(len(unseen), 'weight')} left on the disk, because all together are "
                      f"{bytes_text(graph.weight_bytes)}: nobody looked for NaN, infinity, repeats or numbers beyond "
                      "float16 in them", "the audit", advice="nothing to do; kit.calibrate sees what they lead to")
    if unused:
        yield Finding("note", "", tuple(unused), f"{counted(len(unused), 'initializer')} used by no node", "the file",
                      "drop-unused", "they only make the file larger")
    same = [names for names in groups.values() if len(names) > 1]
    if same:
        extra = tuple(name for names in same for name in names[1:])
        yield Finding("note", "", extra, f"{counted(len(extra), 'weight')} with the same content as another one",
                      "the file", "merge-initializers", "they only make the file larger")
    if broken:
        yield Finding("error", "", tuple(broken), f"{counted(len(broken), 'weight')} with NaN", "the file",
                      advice="training diverged or the file is damaged: export from a good checkpoint")
    if endless:
        yield Finding("warning", "", tuple(endless), f"{counted(len(endless), 'constant')} with infinity", "the file",
                      advice="usual in attention masks; INT8 cannot hold it: use a finite value such as -1e4")
    twice = tuple(name for name, count in doubled.items() if count > 1)
    if twice:
        yield Finding("error", "", twice, f"{counted(len(twice), 'initializer')} with the name of another", "the file",
                      advice="the second one wins or loses by chance: give each its own name")


def _dead(graph: Graph) -> Iterator[Finding]:
    inner = {n.name for n in graph.nodes if n.scope}
    needed = set(_results(graph))
    dead = []
    for node in reversed(graph.nodes):
        if node.name in inner or needed & {t.name for t in node.outputs}:
            needed |= {t.name for t in node.inputs if t is not None}
        else:
            dead.append(node.name)
    if dead:
        yield Finding("note", "", tuple(reversed(dead)), f"{counted(len(dead), 'node')} leading to no output",
                      "the file", "drop-unused",
                      "runtimes leave them out")


def _foreign(graph: Graph) -> Iterator[Finding]:
    for domain in sorted({n.domain for n in graph.nodes} - {"", "ai.onnx.ml"}):
        nodes = [n for n in graph.nodes if n.domain == domain]
        kinds = ", ".join(sorted({n.operator for n in nodes}))
        local = {(f.domain, f.name) for f in graph.proto.functions}
        advice = "the file holds their standard form: a runtime that takes functions runs that, and the rule " \
            "inline-functions writes it out" if all((n.domain, n.operator) in local for n in nodes) else \
            "only a runtime that brings this domain can run them"
        yield Finding("note", "", tuple(n.name for n in nodes), f"operators outside the ONNX standard: {domain} "
                      f"({kinds})", "the file", advice=advice)


def _doubles(graph: Graph) -> Iterator[Finding]:
    nodes = tuple(n.name for n in graph.nodes if any(t.dtype == "float64" for t in n.outputs)
                  and n.operator not in ("Constant", "Cast"))
    if nodes:
        yield Finding("warning", "", nodes, f"{counted(len(nodes), 'node')} in float64: slow everywhere, and no "
                      "accelerator has it", "the file", advice="export in float32")


def _computed_shapes(graph: Graph, target: Target) -> Iterator[Finding]:
    """Chains such as Shape, Gather, Concat that make a shape out of another at every run."""
    nodes = tuple(n.name for n in graph.nodes if _makes_shapes(n))
    said = f"{counted(len(nodes), 'node')} for computing shapes in int64"
    if nodes and graph.dynamic:
        severity: Severity = "note" if target.name == "onnxruntime" else "warning"
        yield Finding(severity, "", nodes, f"{said} at every run, because axes are dynamic", "the file", "fix-shapes",
                      "with fixed input shapes they fold away (fold-constants)")
    elif nodes:
        yield Finding("note", "", nodes, f"{said} although the input shapes are fixed", "the file", "fold-constants",
                      "they fold away")
    folding = tuple(n.name for n in graph.nodes if n.inputs and n.outputs and n.outputs[0].constant
                    and n.operator not in ("QuantizeLinear", "DequantizeLinear"))  # a small weight, on purpose
    if folding:
        yield Finding("note", "", folding, f"{counted(len(folding), 'node')} with constants only for inputs",
                      "the file", "fold-constants", "they fold away; runtimes do that each time they load the model")


def _makes_shapes(node: Node) -> bool:
    return (not node.domain and node.operator in {*STEERING, "Shape", "Size"} and bool(node.outputs)
            and not node.outputs[0].constant
            and all(t.dtype == "int64" and len(t.shape or (1, 1)) < 2 for t in node.outputs))


def _results(graph: Graph) -> Iterator[str]:
    """Names of what the model and every body in it give back."""
    from onnx import GraphProto

    yield from (value.name for value in graph.proto.graph.output)
    for node in graph.nodes:
        for body in node.attributes.values():
            if isinstance(body, GraphProto):
                yield from (value.name for value in body.output)


def _content(tensor: Any, values: np.ndarray) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(f"{tensor.data_type} {list(tensor.dims)}".encode())
    hasher.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return hasher.digest()


def _line(error: Exception | str) -> str:
    return " ".join(str(error).split())[:500]
