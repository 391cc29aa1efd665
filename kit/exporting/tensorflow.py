"""What runs in the TensorFlow worker: read the source, freeze it, convert it with tf2onnx.

tf2onnx is made to go on where it cannot convert a node, so that all of them can be named: `kit.exporting.tf2onnx_log`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed
from kit.exporting.factories import tail
from kit.exporting.pir import Unsupported
from kit.exporting.tf2onnx_log import Failures
from kit.model import TensorSpec
from kit.need import need
from kit.resizes import OPERATORS, TfResize
from kit.runtimes.tensorflow import FED, check_signature, ends, plain, read_graph, sentence, tensor
from kit.runtimes.tflite import interpreter, names_of

# Operators in which no work is done.
_FRAME = {"Const", "Identity", "IdentityN", "Placeholder", "PlaceholderWithDefault", "NoOp", "StopGradient"}

@dataclass(frozen=True)
class Asked:
    """What to convert, and how.

    Attributes:
        kind: of `kit.source`: ``savedmodel``, ``graphdef`` or ``tflite``.
        graph: its file.
        opset: to write.
        signature: of a SavedModel or TFLite.
        inputs: of a frozen graph: names, types and shapes; empty for its placeholders.
        outputs: of a frozen graph; empty for its sinks.
        nchw: take inputs with four axes, which are NHWC in TensorFlow, as NCHW.
        dequantize: take a quantized TFLite as float.
    """

    kind: str
    graph: Path
    opset: int
    signature: str = "serving_default"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[str, ...] = ()
    nchw: bool = False
    dequantize: bool = False


@dataclass(frozen=True)
class Resized:
    """A resize of the source and the ONNX node it became ("" when that node is gone).

    Attributes:
        name: of the source's node.
        tf: what it is there.
        node: the ONNX Resize.
        size: height and width before; 0 where not known.
        out: height and width after.
    """

    name: str
    tf: TfResize
    node: str
    size: tuple[int, int]
    out: tuple[int, int]


@dataclass(frozen=True)
class Converted:
    """What a conversion gave besides the file.

    Attributes:
        operators: of the source -> how often.
        unsupported: operators, or uses of them, without a counterpart.
        resizes: every resize.
        inputs: names the graph is fed through, as in the source.
        outputs: names it is read from.
        nchw: those inputs that were turned to NCHW.
        quantized: the ONNX model has scales to round by.
        notes: sentences for the reader.
    """

    operators: dict[str, int] = field(default_factory=dict)
    unsupported: tuple[Unsupported, ...] = ()
    resizes: tuple[Resized, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nchw: tuple[str, ...] = ()
    quantized: bool = False
    notes: tuple[str, ...] = ()


def convert(asked: Asked, path: Path) -> Converted:
    """Write the ONNX file, unless something has no counterpart: then only say what.

    Raises:
        BadInput: no such signature or node; the file is damaged.
        ToolFailed: TensorFlow or tf2onnx stopped for another reason.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    need("tf2onnx", to="convert a TensorFlow model", extra="tensorflow")
    if asked.kind == "tflite":
        given = _from_tflite(asked)
    elif asked.kind == "graphdef":
        given = _from_graph(asked)
    else:
        given = _from_saved(asked)
    graph, settings, found = given
    return _convert(asked, graph, settings, found if asked.nchw else replace(found, nchw=()), path)


def resized(resizes: Sequence[tuple[TfResize, tuple[int, int]]], pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow's own operators make of pictures.

    Args:
        resizes: operator and new height and width, one a picture.
        pictures: float32 [1, H, W, 1].

    Returns:
        float32 [1, h, w, 1] each.
    """
    import tensorflow as tf

    return [np.asarray(getattr(tf.raw_ops, tf_resize.operator)(
        images=picture, size=np.int32(size), align_corners=tf_resize.align_corners,
        half_pixel_centers=tf_resize.half_pixel_centers)) for (tf_resize, size), picture in
        zip(resizes, pictures, strict=True)]


# ---- the three ways in: a graph or None, settings of tf2onnx, what is known of the source ----------------------------

def _from_saved(asked: Asked) -> tuple[Any, dict[str, Any], Converted]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2
    from tf2onnx import tf_loader

    stored = saved_model_pb2.SavedModel()
    folder = asked.graph.parent
    try:
        stored.ParseFromString(asked.graph.read_bytes())
    except DecodeError as error:
        raise BadInput(f"{folder.name}/{asked.graph.name} is cut off, or no SavedModel.",
                       remedy="copy or save it again", detail=str(error)) from error
    signatures = {name: s for meta in stored.meta_graphs for name, s in meta.signature_def.items()}
    check_signature(asked.signature, signatures, folder.name)
    tags = list(stored.meta_graphs[0].meta_info_def.tags)
    try:
        graph, inputs, outputs, tables, names = tf_loader.from_saved_model(
            str(folder), None, None, tag=tags, signatures=[asked.signature], return_initialized_tables=True,
            return_tensors_to_rename=True)
    except Exception as error:  # what TensorFlow raises is of many kinds
        raise ToolFailed(f"TensorFlow cannot load {folder.name}: {sentence(error)}", remedy="check that the folder is "
                         "whole (saved_model.pb and variables/), and save it again", detail=tail(error)) from error
    found = Converted(_operators(graph), inputs=tuple(names.get(n, plain(n)) for n in inputs),
                      outputs=tuple(names.get(n, plain(n)) for n in outputs),
                      nchw=tuple(name for name, info in signatures[asked.signature].inputs.items()
                                 if len(info.tensor_shape.dim) == 4))
    names |= {name: plain(name) for name in (*inputs, *outputs) if name not in names}
    return graph, {"input_names": inputs, "output_names": outputs, "tensors_to_rename": names,
                   "initialized_tables": tables}, found


def _from_graph(asked: Asked) -> tuple[Any, dict[str, Any], Converted]:
    from tf2onnx import tf_loader

    given = tuple(spec.name for spec in asked.inputs)
    inputs, outputs = ends(read_graph(asked.graph), given, asked.outputs, asked.graph.name)
    notes = [] if given and asked.outputs else [
        f"nobody said where the frozen graph begins and ends: it is fed through {', '.join(inputs)} and read from "
        f"{', '.join(outputs)}"]
    operators = _operators(read_graph(asked.graph))
    try:
        graph, fed, read = tf_loader.from_graphdef(str(asked.graph), list(map(tensor, inputs)),
                                                   list(map(tensor, outputs)))
    except Exception as error:
        raise ToolFailed(f"TensorFlow cannot read {asked.graph.name} from {', '.join(inputs)} to {', '.join(outputs)}: "
                         f"{sentence(error)}", remedy="name other inputs and outputs, or freeze the model again",
                         detail=tail(error)) from error
    shapes = {tensor(spec.name): [-1 if isinstance(side, str) else side for side in spec.shape]
              for spec in asked.inputs}
    settings = {"input_names": fed, "output_names": read, "shape_override": shapes or None,
                "tensors_to_rename": {name: plain(name) for name in (*fed, *read)}}
    ranks = {node.name: len(node.attr["shape"].shape.dim) for node in graph.node if node.op in FED}
    ranks |= {spec.name: len(spec.shape) for spec in asked.inputs}
    return graph, settings, Converted(operators, inputs=tuple(map(plain, fed)), outputs=tuple(map(plain, read)),
                                      nchw=tuple(plain(n) for n in fed if ranks.get(plain(n)) == 4), notes=tuple(notes))


def _from_tflite(asked: Asked) -> tuple[Any, dict[str, Any], Converted]:
    made = interpreter(asked.graph)
    names, _ = names_of(made, asked.signature, asked.graph.name)
    details = made._get_ops_details()  # no public way tells the operators of a file
    counts = Counter(detail["op_name"] for detail in details if detail["op_name"] != "DELEGATE")
    known = [detail["name"] for detail in made.get_input_details()], \
        [detail["name"] for detail in made.get_output_details()]
    inputs, outputs = (tuple(names.get(name, plain(name)) for name in some) for some in known)
    pictures = [names.get(detail["name"], plain(detail["name"])) for detail in made.get_input_details()
                if len(detail["shape"]) == 4]
    count = _quantized(made)
    said = (f"{count} of the TFLite model's tensors are quantized; the ONNX model is float, as asked: its answers "
            "differ by that rounding",) if count and asked.dequantize else ()
    found = Converted(dict(counts.most_common()), inputs=inputs, outputs=outputs, nchw=tuple(pictures),
                      quantized=bool(count) and not asked.dequantize, notes=said)
    return None, {"tflite_path": str(asked.graph), "dequantize": asked.dequantize, "tensors_to_rename": names}, found


def _quantized(made: Any) -> int:
    """How many tensors have a scale."""
    return sum(bool(len(tensor["quantization_parameters"]["scales"])) for tensor in made.get_tensor_details())


# ---- tf2onnx --------------------------------------------------------------------------------------------------------

def _convert(asked: Asked, graph: Any, settings: dict[str, Any], found: Converted, path: Path) -> Converted:
    import tensorflow as tf
    from tf2onnx import convert as tf2onnx

    resizes: list[Resized] = []
    failures = Failures()
    logging.getLogger("tf2onnx").addHandler(failures)
    proto, stopped = None, None
    names = settings["tensors_to_rename"]
    fed = [name for name, shown in names.items() if shown in found.nchw and name not in names.values()] or \
        list(found.nchw)
    watch = {name: (_watched(name, resizes), []) for name in OPERATORS} if asked.opset >= 11 else None
    try:
        with tf.device("/cpu:0"):
            proto, _ = tf2onnx._convert_common(
                graph, name=asked.graph.stem, opset=asked.opset, continue_on_error=True,
                inputs_as_nchw=fed, custom_op_handlers=watch, **settings)
    except Exception as error:
        stopped = error
    finally:
        logging.getLogger("tf2onnx").removeHandler(failures)
    lacking = failures.rows()
    if stopped is not None and not lacking:
        raise ToolFailed(f"tf2onnx stopped: {type(stopped).__name__}: {sentence(stopped)}", remedy="the details show "
                         "where; another opset sometimes helps. kit.check_environment('tensorflow') lists version "
                         "pairs that are known to fail", detail=tail(stopped))
    if lacking:
        return replace(found, unsupported=lacking)
    if proto.ByteSize() >= 2**31 - 1:
        raise ToolFailed("The converted model is larger than 2 GB, which one ONNX file cannot hold.",
                         remedy="export its parts one by one, or convert it with tf2onnx --large_model")
    path.write_bytes(proto.SerializeToString(deterministic=True))
    kept = {node.name for node in proto.graph.node}
    return replace(found, resizes=tuple(r if r.node in kept else replace(r, node="") for r in resizes),
                   notes=(*found.notes, *failures.remarks()))


def _watched(name: str, into: list[Resized]) -> Any:
    """tf2onnx's own handler of a resize, which also notes which ONNX node came of it."""
    from tf2onnx.onnx_opset.nn import Resize

    def handle(ctx: Any, node: Any, label: str, args: Any) -> None:
        have = {other.name for other in ctx.get_nodes() if other.type == "Resize"}
        flags = [bool(node.attr[flag].i) if flag in node.attr else False
                 for flag in ("align_corners", "half_pixel_centers")]
        shapes = [ctx.get_shape(node.input[0]), ctx.get_shape(node.output[0])]
        sizes = [tuple(max(0, side) for side in shape[1:3]) if shape and len(shape) == 4 else (0, 0)
                 for shape in shapes]
        node.type = name  # of TFLite's it has the type already; a handler of another name would not read its flags
        Resize.version_11(ctx, node)
        new = [other for other in ctx.get_nodes() if other.type == "Resize" and other.name not in have]
        into.append(Resized(label, TfResize(name, *flags), new[0].name if new else "", *sizes))

    return handle


def _operators(graph: Any) -> dict[str, int]:
    counts = Counter(node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes
                     if node.op not in _FRAME)
    return dict(counts.most_common())
