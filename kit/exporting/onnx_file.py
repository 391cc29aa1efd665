"""The last touches to an exported ONNX file: names that a person can read, metadata, checks; no change of meaning."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.exporting.pir import Unsupported
from kit.model import TensorSpec, external_files
from kit.need import need

_SMALL = 64_000  # bytes of a configuration file that still goes into the metadata
_WITH_RUNTIME = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}  # what ONNX Runtime has


def tidy(proto: Any, inputs: Sequence[TensorSpec], *, name: str, producer: tuple[str, str]) -> None:
    """Put weights where weights belong, and names where names are missing, in place.

    Args:
        proto: an onnx.ModelProto.
        inputs: name and shape of each input, with a word at every dynamic axis.
        name: for the graph.
        producer: name and version of what wrote the file.
    """
    proto.producer_name, proto.producer_version = producer
    proto.graph.name = name
    _lift_constants(proto.graph)
    _name_nodes(proto.graph)
    name_axes(proto, inputs)


def drop_copies(proto: Any) -> None:
    """Take out nodes that only hand on a constant: PyTorch's classic exporter writes them where weights are alike."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    final = {value.name for value in proto.graph.output}
    copies = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Identity"
              and node.input[0] in constants and node.output[0] not in final}
    if copies and not any(attribute.HasField("g") for node in proto.graph.node for attribute in node.attribute):
        kept = [type(node).FromString(node.SerializeToString()) for node in proto.graph.node
                if node.output[0] not in copies]
        for node in kept:
            node.input[:] = [copies.get(name, name) for name in node.input]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)


def name_outputs(proto: Any, inputs: Sequence[TensorSpec], runs: Sequence[tuple[Any, Sequence[Any]]]) -> bool:
    """Give a dynamic axis of an output the word of the one input axis that it was as long as in every run.

    Shape inference loses the words at a Resize or Reshape; runs at two sizes show what they are.

    Args:
        proto: the model, changed in place.
        inputs: with words at dynamic axes.
        runs: for each, the feed and the outputs in order.

    Returns:
        Whether anything was named.
    """
    sizes: dict[str, list[int]] = {}
    for spec in inputs:
        for at, side in enumerate(spec.shape):
            if isinstance(side, str) and side not in sizes:
                sizes[side] = [feed[spec.name].shape[at] for feed, _ in runs]
    changed = False
    for place, value in enumerate(proto.graph.output):
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param != _plain(value.name, at):
                continue
            seen = [outputs[place].shape[at] for _, outputs in runs if outputs[place].ndim > at]
            alike = [word for word, given in sizes.items() if given == seen and len(set(given)) > 1]
            if len(alike) == 1:
                dim.dim_param, changed = alike[0], True
    return changed


def add_metadata(proto: Any, entries: dict[str, str]) -> None:
    """Add key-value pairs, in order of key, keeping what is there already."""
    have = {entry.key for entry in proto.metadata_props}
    for key in sorted(entries):
        if key not in have:
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, entries[key]


def write(proto: Any, path: Path, *, check: bool, beside: Path | None = None) -> None:
    """Write the file, the same bytes for the same model, and have the ONNX checker look at it.

    Args:
        proto: the model; external weights are not loaded.
        check: run the full checker: types and shapes too.
        beside: the file whose external weights belong to this one; they are copied.

    Raises:
        UnsupportedModel: the checker refuses it.
    """
    if beside:
        for weights in external_files(beside, proto):
            shutil.copyfile(weights, path.parent / weights.name)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    if check:
        check_file(path)


def check_file(path: Path) -> None:
    """Have the ONNX checker look at a file, types and shapes included.

    Raises:
        UnsupportedModel: the checker refuses it.
    """
    onnx = need("onnx", to="check an ONNX file", extra="base")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise UnsupportedModel(f"The model does not pass the ONNX checker: {text[0] if text else error}"[:500],
                               remedy="try another opset; or look at the file with ExportOptions(check=False) and "
                               "kit.audit", detail=str(error)) from error


def missing_weights(proto: Any) -> list[str]:
    """Tensors that nodes take and nobody gives: Paddle2ONNX leaves parameters out that it could not read."""
    graph = proto.graph
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    given |= {name for node in graph.node for name in node.output}
    return list(dict.fromkeys(name for node in graph.node for name in node.input if name not in given))


def to_opset(proto: Any, opset: int, path: Path) -> Any:
    """The model in another opset, by ONNX's own version converter.

    Raises:
        ToolFailed: it has no adapter for one of the operators.
    """
    import onnx.version_converter

    try:
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise ToolFailed(f"{path.name} cannot be brought from opset {version(proto)} to {opset}: {text}"[:500],
                         remedy="leave opset=None to keep the file's own, or export it anew from its source",
                         detail=str(error)) from error


def version(proto: Any) -> int:
    """The opset of the default domain."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def needed_ir_version(opsets: Mapping[str, int]) -> int:
    """The lowest IR version that goes with these versions of domains; those of one's own do not count."""
    import onnx

    pairs = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.find_min_ir_version_for(pairs, ignore_unknown=True)


def operators(proto: Any) -> dict[str, int]:
    """How often each operator occurs, inside branches and loops too, most frequent first."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                     for graph in graphs(proto.graph) for node in graph.node)
    return dict(counts.most_common())


def unknown_operators(proto: Any) -> tuple[Unsupported, ...]:
    """Operators that neither ONNX nor ONNX Runtime defines, all at once."""
    import onnx

    opset, local = version(proto), {(f.domain, f.name) for f in proto.functions}
    found: dict[str, list[Any]] = {}
    for graph in graphs(proto.graph):
        for node in graph.node:
            domain = "" if node.domain == "ai.onnx" else node.domain
            lacking = domain not in _WITH_RUNTIME or (not domain and not _defined(onnx, node.op_type, opset))
            if lacking and (node.domain, node.op_type) not in local:
                found.setdefault(f"{domain}::{node.op_type}" if domain else node.op_type, []).append(node)
    return tuple(Unsupported(name, len(nodes), ", ".join(node.name or node.output[0] for node in nodes[:3]),
                             "a custom operator: register its library with the runtime, or replace it with kit.fix")
                 for name, nodes in sorted(found.items()))


def configuration(path: Path | None) -> tuple[dict[str, str], list[str]]:
    """Metadata from an inference.yml: its text, and the characters of a recogniser.

    Returns:
        Metadata, and notes for the reader. The characters are under ``character``, one a line, as RapidOCR's models
        have them; `kit.families.ocr` reads them from there.

    Raises:
        BadInput: the file cannot be read.
    """
    if path is None:
        return {}, []
    yaml = need("yaml", to="read inference.yml", extra="ocr")
    from kit.record import explain_os_error

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not YAML: {str(error).splitlines()[0]}", remedy="mend or remove it",
                       detail=str(error)) from error
    entries, notes = {}, []
    process = content.get("PostProcess") if isinstance(content, dict) else None
    characters = process.get("character_dict") if isinstance(process, dict) else None
    if characters:
        entries["character"] = "\n".join(map(str, characters))
        notes.append(f"{len(characters)} characters from {path.name} are in the metadata (key 'character')")
    if len(text.encode()) <= _SMALL:
        entries[path.name] = text
    else:
        notes.append(f"{path.name} is larger than {_SMALL} bytes and was not copied into the metadata")
    return entries, notes


def _plain(name: str, at: int) -> str:
    """The word for an axis of which nothing is known."""
    return f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_{at}"


def _defined(onnx: Any, op_type: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _lift_constants(graph: Any) -> None:
    """Paddle2ONNX writes weights as Constant nodes; tools expect initializers."""
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] not in outputs and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) != len(graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def _name_nodes(graph: Any) -> None:
    """Every node gets a name of its own, so that it can be pointed at; names that are there stay."""
    taken = {node.name for node in graph.node if node.name}
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    for node in graph.node:
        if not node.name or node.name in seen:
            while (name := f"{node.op_type}_{counts[node.op_type]}") in taken:
                counts[node.op_type] += 1
            node.name = name
            taken.add(name)
        seen.add(node.name)


def name_axes(proto: Any, inputs: Sequence[TensorSpec]) -> None:
    """Words for dynamic axes: at the inputs as given, at the outputs as far as shape inference carries them."""
    import onnx

    words = {spec.name: spec.shape for spec in inputs}
    for value in proto.graph.input:
        for dim, side in zip(value.type.tensor_type.shape.dim, words.get(value.name, ()), strict=False):
            if isinstance(side, str):
                dim.ClearField("dim_value")
                dim.dim_param = side
            else:
                dim.dim_value = side
    known = {side for shape in words.values() for side in shape if isinstance(side, str)}
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                dim.Clear()
    del proto.graph.value_info[:]
    inferred = {}
    if proto.ByteSize() < 2**31 - 1:
        try:
            found = onnx.shape_inference.infer_shapes(proto, data_prop=True)
            inferred = {value.name: value.type.tensor_type.shape.dim for value in found.graph.output}
        except Exception:  # only names are lost; the checker will say what is wrong with the model
            inferred = {}
    for value in proto.graph.output:
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            guess = inferred[value.name][at] if at < len(inferred.get(value.name, ())) else None
            if guess is not None and guess.HasField("dim_value"):
                dim.dim_value = guess.dim_value
            elif guess is not None and guess.dim_param in known:
                dim.dim_param = guess.dim_param
            else:
                dim.dim_param = _plain(value.name, at)


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and all those inside its nodes, branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)
