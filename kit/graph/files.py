"""Reads an ONNX file into onnx-ir and writes it back; weights kept outside the file stay on the disk until needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import BadInput, UnsupportedModel
from kit.graph.inference import infer, infer_proto
from kit.graph.values import name_nodes
from kit.model import external_files, read
from kit.need import need
from kit.record import explain_os_error
from kit.weights_file import EXTERNAL_ABOVE, read_light

if TYPE_CHECKING:
    import onnx_ir as ir

LARGE = 1_000_000_000  # bytes that a graph is held in the memory at most: protobuf ends at 2 GB


def open_graph(path: Path, *, light: bool = False) -> ir.Model:
    """The model at ``path``, every node named, types and shapes filled in; external weights are mapped, not read.

    Args:
        path: the .onnx file.
        light: map the large weights inside the file as well; such a model is to be looked at, not to be written.

    Raises:
        BadInput: missing, truncated or not ONNX.
        UnsupportedModel: it has sparse weights.
    """
    need("onnxscript", to="fix a graph", extra="base")
    ir = need("onnx_ir", to="fix a graph", extra="base")
    proto = read_light(path) if light else read(path, weights=False)
    if proto.graph.sparse_initializer:
        raise UnsupportedModel(f"{path.name} has sparse weights ({proto.graph.sparse_initializer[0].values.name}).",
                               remedy="export it with dense weights")
    inferred = infer_proto(proto)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx-ir wraps every defect of a file in errors of its own
        raise BadInput(f"{path.name} is not a well-formed ONNX model.",
                       remedy="run kit.audit on it, or export it again", detail=str(error)) from error
    ir.external_data.set_base_dir(model.graph, str(path.parent))
    name_nodes(model)
    if not inferred:
        infer(model)
    return model


def write(model: ir.Model, path: Path, *, outside: bool = False) -> None:
    """Write ``model``; its weights go into ``<path>.data`` when asked, or when they are large (``EXTERNAL_ABOVE``).

    Raises:
        BadInput: the disk is full or not writable.
    """
    import onnx_ir as ir

    try:
        if outside or _weight_bytes(model) > EXTERNAL_ABOVE:
            ir.save(model, path, external_data=f"{path.name}.data")
        else:
            ir.save(model, path)
    except OSError as error:
        raise explain_os_error(error, path) from error


def graph_bytes(model: ir.Model) -> bytes:
    """The file of ``model`` without its external weights; empty when what is left is over 1 GB."""
    import onnx_ir as ir

    return b"" if _weight_bytes(model, inside=True) > LARGE else ir.to_proto(model).SerializeToString()


def copy(source: Path, path: Path) -> None:
    """The same file, byte for byte, with the files of its external weights."""
    try:
        shutil.copyfile(source, path)
        for file in external_files(source):
            to = path.parent / file.relative_to(source.parent)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)
    except OSError as error:
        raise explain_os_error(error, path) from error


def _weight_bytes(model: ir.Model, *, inside: bool = False) -> int:
    import onnx_ir as ir

    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors
               if tensor is not None and not (inside and isinstance(tensor, ir.ExternalTensor)))


def check(path: Path) -> str:
    """What onnx's checker objects to in the file; "" when nothing."""
    onnx = need("onnx", to="check an ONNX file", extra="base")
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, or C++ errors without a common class
        return str(error)
    return ""
