"""ONNX to a SavedModel by onnx2tf. Everything here runs in a worker, under the environment that onnx2tf has of its own.

The SavedModel is written here and not by onnx2tf: one frozen graph, one signature with the names of the ONNX model,
whatever characters they have, and the axes that were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.compiling.onnx2tf_model import (
    TO_FIRST,
    TO_LAST,
    Port,
    call_each,
    call_model,
    keras_model,
    readers,
    simplify,
    turn_back,
)
from kit.progress import Report, Tick


@dataclass(frozen=True)
class Plan:
    """What to convert.

    Attributes:
        graph: the .onnx file, with fixed sizes but for the batch.
        folder: the version directory to write.
        work: for what is written on the way.
        inputs: of the ONNX model, in order.
        outputs: likewise.
        feed: .npz with one input of batch 1, as the ONNX model takes it.
        answer: .npz with what the ONNX model answers to it.
        layout: of pictures in the signature.
        signature: its name.
        batch: "open": any; "each": any, one after the other; "fixed".
    """

    graph: Path
    folder: Path
    work: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    feed: Path
    answer: Path
    layout: str
    signature: str
    batch: str


@dataclass(frozen=True)
class Written:
    """What was written: how each tensor of the signature lies, and by which versions."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    tools: dict[str, str]


def convert(plan: Plan, report: Report) -> Written:
    """Write the SavedModel.

    Raises:
        ToolFailed: onnx2tf gave up, or gave answers of another shape; names what it said.
    """
    report(Tick(0, 3, "starting TensorFlow and onnx2tf"))
    tools = _versions()
    graph = plan.work / "simplified.onnx"
    simplify(plan.graph, plan.inputs, plan.outputs, graph)
    report(Tick(1, 3, f"onnx2tf converts, batch {plan.batch}"))
    feed, answer = dict(np.load(plan.feed)), dict(np.load(plan.answer))
    model = keras_model(graph, plan.inputs, feed, plan.work)
    reads = readers(model, plan.inputs)
    got = call_model(model, reads, [feed[port.name] for port in plan.inputs])
    turns = [turn_back(port.name, answer[port.name], value.numpy())
             for port, value in zip(plan.outputs, got, strict=True)]
    report(Tick(2, 3, "writing the SavedModel"))
    last = plan.layout == "NHWC"
    enters = [TO_FIRST[4] if last and len(port.shape) == 4 and not port.channels_last else None for port in plan.inputs]
    leaves = [TO_LAST[4] if last and len(answer[port.name].shape) == 4 else None for port in plan.outputs]

    def answers(values: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        values = [tf.transpose(value, by) if by else value for value, by in zip(values, enters, strict=True)]
        found = call_each(model, reads, values) if plan.batch == "each" else call_model(model, reads, values)
        found = [tf.transpose(value, by) if by else value for value, by in zip(found, turns, strict=True)]
        found = [tf.transpose(value, by) if by else value for value, by in zip(found, leaves, strict=True)]
        return [tf.cast(value, port.dtype) for value, port in zip(found, plan.outputs, strict=True)]

    specs = [Port(port.name, port.dtype, _moved(_served(port, plan.batch), by, TO_LAST))
             for port, by in zip(plan.inputs, enters, strict=True)]
    write(plan.folder, plan.signature, specs, [port.name for port in plan.outputs], answers)
    report(Tick(3, 3, "written"))
    return Written({port.name: _word(len(port.shape), bool(by) or port.channels_last)
                    for port, by in zip(plan.inputs, enters, strict=True)},
                   {port.name: _word(answer[port.name].ndim, bool(by))
                    for port, by in zip(plan.outputs, leaves, strict=True)}, tools)


def write(folder: Path, signature: str, inputs: Sequence[Port], outputs: Sequence[str],
          answers: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
    """Trace ``answers``, freeze it, and save it under one signature.

    The form of TensorFlow 1 is written, a graph and a signature: in the form of TensorFlow 2 names must be names of
    Python, and an ONNX model's often are not. Both load everywhere.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(port.shape, port.dtype, f"input_{at}") for at, port in enumerate(inputs)]
    traced = tf.function(lambda *values: list(answers(values)), input_signature=specs).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")

        def info(tensor: Any) -> Any:
            return v1.saved_model.build_tensor_info(graph.get_tensor_by_name(tensor.name))

        described = v1.saved_model.build_signature_def(
            {port.name: info(tensor) for port, tensor in zip(inputs, frozen.inputs, strict=True)},
            {name: info(tensor) for name, tensor in zip(outputs, frozen.outputs, strict=True)},
            v1.saved_model.signature_constants.PREDICT_METHOD_NAME)
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [v1.saved_model.tag_constants.SERVING], {signature: described})
        builder.save()


def write_warm_up(folder: Path, feeds: Path, names: Sequence[str], model: str, signature: str) -> int:
    """Write ``assets.extra/tf_serving_warmup_requests`` and read it back.

    Args:
        folder: the version directory.
        feeds: .npz with arrays ``0/name``, ``1/name``..., as the signature takes them.
        names: of the inputs.
        model: the name that the server gives it.
        signature: its name.

    Returns:
        Records read back.

    Source: tensorflow/serving, g3doc/saved_model_warmup.md.
    """
    import tensorflow as tf

    from kit.serving import messages

    stored = np.load(feeds)
    count = len({key.partition("/")[0] for key in stored.files})
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for at in range(count):
            asked = messages.request(model, {name: stored[f"{at}/{name}"] for name in names}, signature=signature)
            writer.write(messages.warm_up(asked))
    kind = messages.message("tensorflow.serving.PredictionLog")
    read = [kind.FromString(bytes(record.numpy())) for record in tf.data.TFRecordDataset(str(path))]
    return sum(len(record.predict_log.request.inputs) == len(names) for record in read)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"onnx2tf": version("onnx2tf"), "tensorflow": version("tensorflow-cpu")}


def _served(port: Port, batch: str) -> Port:
    shape = (None, *port.shape[1:]) if batch == "each" else port.shape
    return Port(port.name, port.dtype, shape)


def _moved(port: Port, by: tuple[int, ...] | None, to: Mapping[int, tuple[int, ...]]) -> tuple[int | None, ...]:
    return tuple(port.shape[axis] for axis in to[len(port.shape)]) if by else port.shape


def _word(rank: int, last: bool) -> str:
    return ("NHWC" if last else "NCHW") if rank == 4 else "as in the ONNX model"
