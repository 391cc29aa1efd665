"""What onnx2tf makes of an ONNX file: a Keras model, called with arrays as the ONNX model takes them.

Runs in a worker, under the environment that onnx2tf has of its own. It rewrites the graph for channels last, loses
names on the way, turns answers by an axis, and stumbles over open batches; so inputs and outputs get plain names first,
and which way an answer is turned is measured.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ToolFailed

TO_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}  # channels first to channels last, by rank
TO_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
CHANNELS = (1, 3, 4)
_PAINT = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal
Reader = tuple[int, tuple[int, ...] | None, Any]  # which input of ours, how it is turned, its type in Keras


@dataclass(frozen=True)
class Port:
    """An input or output of the ONNX model: numpy dtype name, shape with None for an open axis."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def channels_last(self) -> bool:
        """Whether it is a picture whose last axis is the channels already."""
        return len(self.shape) == 4 and self.shape[3] in CHANNELS and self.shape[1] not in CHANNELS


def simplify(source: Path, inputs: Sequence[Port], outputs: Sequence[Port], path: Path) -> None:
    """Plain names outside, onnxsim inside: what onnx2tf would have a command line do.

    Args:
        source: the .onnx file.
        inputs: of it; called ``input_0``, ``input_1``... in what is written.
        outputs: likewise.
        path: what to write.
    """
    import onnx
    import onnxsim

    proto = onnx.load(str(source))
    plain = {port.name: f"input_{at}" for at, port in enumerate(inputs)}
    plain |= {port.name: f"output_{at}" for at, port in enumerate(outputs)}
    _rename(proto.graph, plain)
    for value in proto.graph.output:  # open axes of several outputs may not share a name that says nothing
        for at, axis in enumerate(value.type.tensor_type.shape.dim):
            if not axis.HasField("dim_value"):
                axis.dim_param = f"{value.name}_{at}"
    del proto.graph.value_info[:]
    with contextlib.suppress(Exception):  # what cannot be simplified may still be converted
        for _ in range(2):
            proto, _ = onnxsim.simplify(proto)
    onnx.save(proto, str(path))


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def keras_model(graph: Path, inputs: Sequence[Port], feed: Mapping[str, np.ndarray], work: Path) -> Any:
    """The Keras model that onnx2tf makes. It writes into the file it is given, so it gets a copy."""
    import onnx2tf
    import tensorflow as tf

    copy = Path(shutil.copy(graph, work / "given.onnx"))
    kept = [f"input_{at}" for at, port in enumerate(inputs) if port.channels_last]
    own = []
    for at, port in enumerate(inputs):
        values = feed[port.name]
        if not port.channels_last and values.ndim in TO_LAST:
            values = values.transpose(TO_LAST[values.ndim])
        np.save(work / f"input_{at}.npy", values)
        own.append([f"input_{at}", str(work / f"input_{at}.npy")])
    # It would fetch photographs for its checks of pictures with three channels: ours are closer to the model.
    onnx2tf.onnx2tf.download_test_image_data = lambda: np.load(own[0][1])
    said = io.StringIO()
    with _open_batches(tf), contextlib.redirect_stdout(said):
        try:
            return onnx2tf.convert(input_onnx_file_path=str(copy), output_folder_path=str(work / "onnx2tf"),
                                   disable_model_save=True, not_use_onnxsim=True, verbosity="error",
                                   custom_input_op_name_np_data_path=own,
                                   keep_shape_absolutely_input_names=kept or None)
        except (Exception, SystemExit) as error:  # it raises whatever TensorFlow does, and leaves by sys.exit
            raise _refusal(error, _PAINT.sub("", said.getvalue())) from None


def _refusal(error: BaseException, said: str) -> ToolFailed:
    """What onnx2tf printed names the node; what it raised says more, if it raised anything."""
    import traceback

    node = re.search(r"onnx_op_name: *(\S+)", said)
    lines = [line.partition("ERROR:")[2].strip() for line in said.splitlines() if "ERROR:" in line]
    lines = [line for line in lines if line and not line.startswith(("input_onnx", "onnx_op", "Read this", "http"))]
    raised = [line.strip() for line in str(error).splitlines() if line.strip() and not isinstance(error, SystemExit)]
    telling = [line for line in raised if re.search(r"must|cannot|expected|invalid|error|equal", line, re.IGNORECASE)]
    what = next(iter([*telling, *lines, *raised]), type(error).__name__)
    place = f" at node {node.group(1)!r}" if node else ""
    return ToolFailed(f"onnx2tf cannot convert the model{place}: {what[:300]}",
                      remedy='the details name the operator: kit.fix with fixed sizes often helps, another form of it '
                      'does, and how="call" needs no conversion',
                      detail=f"{said[-4000:]}\n{''.join(traceback.format_exception(error))[-6000:]}")


@contextlib.contextmanager
def _open_batches(tf: Any) -> Any:
    """Let a transposed convolution take the batch of its input: onnx2tf hands the open axis' name as its size."""
    whole = tf.nn.conv2d_transpose

    def conv2d_transpose(input: Any, filters: Any, output_shape: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(output_shape, list | tuple) and any(isinstance(side, str) for side in output_shape):
            output_shape = tf.stack([tf.shape(input)[0], *output_shape[1:]])
        return whole(input, filters, output_shape, *args, **kwargs)

    tf.nn.conv2d_transpose = conv2d_transpose
    try:
        yield
    finally:
        tf.nn.conv2d_transpose = whole


def readers(model: Any, inputs: Sequence[Port]) -> list[Reader]:
    """For each input of the Keras model: which of ours, how it is turned, and its type."""
    numbers = {f"input_{at}": at for at in range(len(inputs))}
    found = []
    for value in model.inputs:
        at = numbers[value.name.partition(":")[0]]
        found.append((at, None if inputs[at].channels_last else TO_LAST.get(len(inputs[at].shape)), value.dtype))
    return found


def call_model(model: Any, reads: Sequence[Reader], values: Sequence[Any]) -> list[Any]:
    """The answers of the Keras model, as they come; ``values`` lie as the ONNX model takes them."""
    import tensorflow as tf

    feed = [tf.cast(tf.transpose(values[at], by) if by else values[at], dtype) for at, by, dtype in reads]
    found = model(feed if len(feed) > 1 else feed[0])
    return list(found) if isinstance(found, list | tuple) else [found]


def call_each(model: Any, reads: Sequence[Reader], values: Sequence[Any]) -> list[Any]:
    """One item of the batch after the other, for a graph that was converted for one."""
    import tensorflow as tf

    def one(item: Sequence[Any]) -> list[Any]:
        return [value[0] for value in call_model(model, reads, [value[None] for value in item])]

    types = [tf.TensorSpec(value.shape[1:], value.dtype) for value in model.outputs]
    return list(tf.map_fn(one, list(values), fn_output_signature=types))


def turn_back(name: str, want: np.ndarray, have: np.ndarray) -> tuple[int, ...] | None:
    """How to turn an answer back to the axes of the ONNX model: measured, since onnx2tf does not always say.

    Raises:
        ToolFailed: no turn gives the shape.
    """
    found = [by for by in (None, TO_FIRST.get(have.ndim)) if fits(want, have, by)]
    if have.ndim != want.ndim or not found:
        raise ToolFailed(f"onnx2tf gives output {name!r} the shape {list(have.shape)}; the ONNX model has "
                         f"{list(want.shape)}.", remedy="fix the sizes with kit.fix first, or use how=\"call\"")
    return min(found, key=lambda by: _gap(want, have if by is None else have.transpose(by)))


def fits(want: np.ndarray, have: np.ndarray, by: tuple[int, ...] | None) -> bool:
    """Whether ``have``, turned, has the shape."""
    return want.shape == (have.shape if by is None else have.transpose(by).shape)


def _gap(want: np.ndarray, have: np.ndarray) -> float:
    return float(np.abs(want.astype(np.float64) - have.astype(np.float64)).max()) if want.size else 0.0
