"""What the model and the files beside it say about a command: names, shapes, operators, AIPP, calibration.

The graph is read without its weights. What is wrong comes out as problems under the rules of ``atc_flags.json``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.ascend.atc.atc_options import AtcOptions
from kit.ascend.atc.flag_rules import breach
from kit.ascend.atc.flag_table import Problem
from kit.card import bytes_text
from kit.errors import BadInput, unknown
from kit.inspection.graph import Node
from kit.model import Model, TensorSpec
from kit.targets.ascend import AscendTarget

TWO_GIGABYTES = 2_000_000_000
DEPLOYED = ("AscendQuant", "AscendDequant", "AscendAntiQuant")
_KEEPS_FLOAT = ("origin", "cube_fp16in_fp32out")


@dataclass(frozen=True)
class GraphNames:
    """The names and operators of a graph.

    Attributes:
        nodes: name -> how many outputs, of nodes in the main graph.
        tensors: every tensor that a node of the main graph makes.
        operators: (domain, type, version) -> how often, bodies of If, Loop and Scan included.
        twice: node names used more than once.
        opset: of the standard domain.
        imports: how often the standard domain is imported.
    """

    nodes: Mapping[str, int]
    tensors: frozenset[str]
    operators: Mapping[tuple[str, str, int], int]
    twice: tuple[str, ...]
    opset: int
    imports: int

    @classmethod
    def of(cls, path: Path) -> GraphNames:
        """Read them from a file."""
        from kit.weights_file import read_light

        proto = read_light(path)
        standard = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
        versions = {entry.domain: entry.version for entry in proto.opset_import}
        opset = max(standard, default=0)
        operators: Counter[tuple[str, str, int]] = Counter()
        for node in nodes_of(proto.graph):
            domain = "" if node.domain == "ai.onnx" else node.domain
            operators[domain, node.op_type, versions.get(domain, 0) if domain else opset] += 1
        names = Counter(node.name for node in proto.graph.node if node.name)
        return cls({node.name: len(node.output) for node in proto.graph.node if node.name},
                   frozenset(name for node in proto.graph.node for name in node.output),
                   operators, tuple(name for name, count in names.items() if count > 1), opset, len(standard))


def nodes_of(graph: Any) -> Iterator[Any]:
    """All nodes, those in the bodies of If, Loop and Scan too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def input_shape(model: Model, options: AtcOptions) -> dict[str, tuple[str, ...]]:
    """The shape of every input as ``--input_shape`` takes it.

    Raises:
        BadInput: a shape for no input, of another rank, at odds with a fixed axis, or an open axis without a size.
    """
    known = {spec.name: spec for spec in model.inputs}
    given: dict[str, tuple[str, ...]] = {}
    for text in options.shapes:
        name, equals, axes = text.rpartition("=")
        if not equals:
            raise BadInput(f"shapes has {text!r}, which is no name and sizes.", remedy='write it like "x=1,3,640,640"')
        if name.strip() not in known:
            raise unknown("input", name.strip(), known, model.path.name)
        if name.strip() in given:
            raise BadInput(f"shapes gives {name.strip()} twice.", remedy="give each input once")
        given[name.strip()] = tuple("-1" if axis.strip() == "?" else axis.strip()
                                    for axis in axes.split(",") if axis.strip())
    return {spec.name: _given(spec, given[spec.name]) if spec.name in given else _own(spec, options)
            for spec in model.inputs}


def _given(spec: TensorSpec, axes: tuple[str, ...]) -> tuple[str, ...]:
    if len(axes) != len(spec.shape):
        raise breach("rank", f"shapes gives {spec.name} {len(axes)} axes, and the model has {len(spec.shape)}: {spec}",
                     "give one size an axis").exception()
    for at, (axis, own) in enumerate(zip(axes, spec.shape, strict=True)):
        if isinstance(own, int) and axis != str(own):
            raise BadInput(f"shapes gives axis {at} of {spec.name} the size {axis}, and the model has {own} there, "
                           "perhaps built into a Reshape too.",
                           remedy=f"give {own}; to vary that axis, export the model with it open")
    return axes


def _own(spec: TensorSpec, options: AtcOptions) -> tuple[str, ...]:
    """The input's own shape, with -1 where the profiles fill it."""
    kind, rank = options.sizes.kind, len(spec.shape)
    filled = {"batch": (0,), "image": (2, 3) if rank == 4 else (), "dims": range(rank)}.get(kind, ())
    axes = tuple(str(axis) if isinstance(axis, int) else "-1" if at in filled else axis
                 for at, axis in enumerate(spec.shape))
    left = [axis for axis, own in zip(axes, spec.shape, strict=True) if isinstance(own, str) and axis == own]
    if left:
        example = ",".join(axis if axis not in left else "1" if at == 0 else "640" for at, axis in enumerate(axes))
        other = ', or profiles such as "batch 1,4,8" or "image 640x640 960x960"' if kind == "static" else ""
        raise BadInput(f"The input {spec} leaves {', '.join(left)} open, and ATC builds for sizes that it knows.",
                       remedy=f"give shapes=(\"{spec.name}={example}\",){other}")
    return axes


def model_problems(model: Model, names: GraphNames, options: AtcOptions, flags: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong between the command and the model."""
    file = model.path.name
    for spec in model.inputs:
        if re.search("[;\n]", spec.name):
            yield breach("input-names", f"{file} has an input named {spec.name!r}, and --input_shape parts inputs by ;",
                         "rename the input", "--input_shape")
    wrong = [name for name in options.fp16_inputs if name not in {spec.name for spec in model.inputs}]
    if wrong:
        yield breach("input-names", f"fp16_inputs has {wrong[0]}, which is no input of {file}",
                     f"choose from {', '.join(spec.name for spec in model.inputs)}", "--input_fp16_nodes")
    yield from _out_nodes(flags.get("--out_nodes", ""), names, file)
    if names.twice:
        yield breach("node-names", f"{file} has {len(names.twice)} node name{'s' * (len(names.twice) > 1)} more than "
                     f"once: {', '.join(names.twice[:3])}", "give every node its own name", "--model")
    if names.imports > 1:
        yield breach("one-opset", f"{file} imports the standard domain {names.imports} times", "keep one import",
                     "--model")
    yield from _operators(names, options, file)
    if model.size > TWO_GIGABYTES and options.external_weight == "inside":
        yield breach("two-gigabytes", f"{file} has {bytes_text(model.size)} with its weights, too much for one .om",
                     "leave external_weight at auto", "--external_weight")


def _out_nodes(value: str, names: GraphNames, file: str) -> Iterator[Problem]:
    given = [piece for piece in value.split(";") if piece]
    forms = set()
    for piece in given:
        node, _, index = piece.rpartition(":")
        if node in names.nodes and index.isdigit():
            forms.add("node:index")
            if int(index) >= names.nodes[node]:
                yield breach("out-names", f"out_nodes has {piece}, and {node} has {names.nodes[node]} output"
                             f"{'s' * (names.nodes[node] > 1)}", f"count from 0: {node}:0", "--out_nodes")
        elif piece in names.tensors:
            forms.add("tensor")
        else:
            error = unknown("node or tensor", node if index.isdigit() else piece,
                            names.nodes if index.isdigit() else {*names.nodes, *names.tensors}, file)
            yield breach("out-names", error.what.rstrip("."), f"{error.remedy}; write nodes as node:0", "--out_nodes")
    if len(forms) > 1:
        yield breach("out-names", f"out_nodes mixes nodes and tensors: {value}", "write all as node:0, or all as "
                     "names of tensors", "--out_nodes")


def _operators(names: GraphNames, options: AtcOptions, file: str) -> Iterator[Problem]:
    deployed = any(kind in DEPLOYED for _, kind, _ in names.operators)
    if deployed and options.sizes.kind != "static":
        yield breach("int8-static", f"{file} is an INT8 deploy model, and profiles={options.profiles!r}",
                     "build it for fixed shapes, one .om for each", "--model")
    if deployed and options.precision in _KEEPS_FLOAT:
        yield breach("int8-precision", f"{file} is an INT8 deploy model, and precision={options.precision!r}",
                     "leave precision at fp16, or take mixed_float16", "--model")
    if options.plugins:
        return
    target = AscendTarget("ascend310p3")  # the parser is the same for every chip
    for (domain, kind, version), count in names.operators.items():
        node = Node(kind, kind, domain, version, (), (), {}, None)
        said = target.looked_up(node, names.opset)
        if said.state == "not":
            advice = said.advice or "kit.audit(...) says what can be done"
            yield breach("parser", f"{file}: {said.reason} ({count} node{'s' * (count > 1)})",
                         f"{f'kit.fix(...) with the rule {said.fix}; ' if said.fix else ''}{advice}; where a plugin on "
                         "the box has the operator, plugins=True", "--model")


def file_text(name: str, folder: Path | None) -> str | None:
    """The text of an option's file where it lies here; None where it does not."""
    path = (folder or Path()) / name
    try:
        return path.read_text(encoding="utf-8", errors="replace") if name and path.is_file() else None
    except OSError:
        return None


def file_problems(model: Model, options: AtcOptions, shapes: Mapping[str, tuple[str, ...]],
                  folder: Path | None) -> Iterator[Problem]:
    """What is wrong between the command and its files, as far as they can be read here."""
    precision = file_text(options.op_precision, folder) or ""
    if calibrates(options, folder) and "high_precision" in precision:
        yield breach("calibration-high", f"{options.op_precision} asks for high_precision, and {options.compression} "
                     "calibrates for INT8", "leave one of them out", "--op_precision_mode")
    if options.aipp:
        yield from _aipp(model, options, shapes, file_text(options.aipp, folder))


def _aipp(model: Model, options: AtcOptions, shapes: Mapping[str, tuple[str, ...]],
          text: str | None) -> Iterator[Problem]:
    if text is not None:
        from kit.ascend.preprocessing.aipp_reading import read_aipp

        for one in read_aipp(text, soc_version=options.soc_version).mistakes:
            yield breach("aipp-file", f"{options.aipp}, line {one.line or '-'}: {one.key}: {one.why}",
                         f"{f'write {one.now}; ' if one.now else ''}kit.ascend.read_aipp(text).corrected is the whole "
                         "file put right", "--insert_op_conf")
    ranks = [int(rank) for rank in re.findall(r"related_input_rank\s*:\s*(\d+)", text or "")] or [0]
    if text is not None or len(model.inputs) == 1:
        fed = [spec.name for at, spec in enumerate(model.inputs) if at in ranks]
        both = [name for name in options.fp16_inputs if name in fed]
        if both:
            yield breach("aipp-fp16", f"{both[0]} has AIPP and is in fp16_inputs", "take it out of fp16_inputs: AIPP "
                         "makes it bytes", "--input_fp16_nodes", "--insert_op_conf")
    dynamic = re.search(r"aipp_mode\s*:\s*dynamic", text or "")
    is_open = any(axis == "-1" or "~" in axis for axes in shapes.values() for axis in axes)
    if options.sizes.kind == "static" and is_open and len(model.inputs) == 1 and text is not None and not dynamic:
        yield breach("aipp-open", f"{options.aipp} is static AIPP for the only input, whose shape is open",
                     "give fixed sizes, or profiles", "--insert_op_conf", "--input_shape")
    if options.sizes.kind == "image" and not dynamic:
        found = re.search(r"(?:crop|padding)\s*:\s*true|src_image_size_[wh]\s*:\s*[1-9]\d*", text or "")
        if found:
            yield breach("aipp-image", f"{options.aipp} has {found[0]!r}, and the picture size comes from profiles",
                         "leave crop and padding off, and src_image_size_w and _h at 0", "--insert_op_conf")


def calibrates(options: AtcOptions, folder: Path | None) -> bool:
    """Whether the compression file asks for calibration; one that is not here is taken to."""
    text = file_text(options.compression, folder)
    return bool(options.compression) and (text is None or re.search(r"^\s*calibration\b", text, re.M) is not None)
