"""What ATC minds about a model as a whole: open axes, types of inputs, names, size, constants, and the chip itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit.card import bytes_text
from kit.inspection.findings import Finding, Severity, counted
from kit.inspection.graph import Graph
from kit.targets.ascend.float16 import constants

if TYPE_CHECKING:
    from kit.targets.ascend import AscendTarget

CACHE = re.compile(r"past|cache|present|key_values|kv_", re.IGNORECASE)  # how exporters call the keys kept for later
PROTOBUF = 2_000_000_000  # bytes: where a file of protocol buffers ends


def whole(graph: Graph, target: AscendTarget) -> Iterator[Finding]:
    """What is wrong with the model as a whole."""
    for name in dict.fromkeys(name for name, _, _ in graph.dynamic):
        yield _open_axes(name, {at: word for input_, at, word in graph.dynamic if input_ == name}, target.family)
    caches = tuple(dict.fromkeys(name for name, _, _ in graph.dynamic if CACHE.search(name)))
    if caches:
        yield _told("warning", "dynamic-dims-cache", f"{counted(len(caches), 'input')} for a cache of attention with "
                    f"open axes ({', '.join(caches[:3])}): profiles of --dynamic_dims have failed on such models "
                    "(E20001)", fix="fix-shapes")
    for value in graph.proto.graph.input:
        if value.type.tensor_type.elem_type == 7:  # int64
            yield _told("warning", "int64", f"input {value.name} is int64: its first operators land on AI CPU")
    yield from _names(graph)
    yield from constants(graph)
    yield from _size(graph)
    if target.chip["short_soc"] == "Ascend910":
        yield Finding("note", "", (), f"{target.chip['soc_version']} is a chip of the first generation (Ascend 910), "
                      "not the A2, whose names end in B and a digit (Ascend910B3)", target.chip["source"],
                      advice="npu-smi info shows which one the box has")
    if not target.family:
        yield Finding("note", "", (), f"no kernel lists of {target.chip['soc_version']} are known: its operators were "
                      "looked up, their types were not", target.chip["source"],
                      advice="audit for a chip of a known family too")


def _told(severity: Severity, row: str, what: str, nodes: tuple[str, ...] = (), *, fix: str = "",
          advice: str = "") -> Finding:
    """A finding about the model whose evidence is a row of ``breakers.json``."""
    from kit.targets.ascend import breaker, breaker_source

    return Finding(severity, "", nodes, what, breaker_source(row), fix, advice or breaker(row)["fix"])


def _open_axes(name: str, axes: dict[int, str], family: str) -> Finding:
    words = ", ".join(f"{at} ({word})" for at, word in axes.items())
    what = f"input {name}: dynamic {'axes' if len(axes) > 1 else 'axis'} {words}"
    if set(axes) == {0}:
        return _told("note", "dynamic-size", what, fix="fix-shapes",
                     advice="a fixed batch, or 2 to 100 batch sizes with --dynamic_batch_size")
    return _told("error" if family == "ascend310" else "warning", "dynamic-size", what, fix="fix-shapes")


def _names(graph: Graph) -> Iterator[Finding]:
    names = Counter(node.name for node in graph.nodes)
    twice = tuple(name for name, count in names.items() if count > 1)
    if twice:
        yield _told("error", "duplicate-names", f"{counted(len(twice), 'node name')} used more than once (ATC: E13009)",
                    twice, advice="unique names; any edit of kit.fix gives every node a name of its own")
    empty = tuple(node.name for node in graph.nodes if not node.proto.name and node.operator != "Constant")
    if empty:
        yield _told("note", "duplicate-names", f"{counted(len(empty), 'node')} without a name: messages of ATC, "
                    "keep_dtype and profiles cannot point to them", empty,
                    advice="any edit of kit.fix gives every node a name")
    inputs = Counter(value.name for value in graph.proto.graph.input)
    again = tuple(name for name, count in inputs.items() if count > 1)
    if again:
        yield _told("error", "duplicate-names", f"{counted(len(again), 'input')} listed more than once", again,
                    advice="export again; the file is damaged")


def _size(graph: Graph) -> Iterator[Finding]:
    size = graph.path.stat().st_size
    if size > PROTOBUF:
        yield _told("error", "two-gigabytes", f"the file is {bytes_text(size)}: protobuf stops at 2 GB")
    elif graph.weight_bytes > PROTOBUF:
        yield _told("note", "two-gigabytes", f"the weights are {bytes_text(graph.weight_bytes)}, in files beside the "
                    "model", advice="copy those along; --external_weight=1 keeps the .om small as well")
