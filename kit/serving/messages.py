"""The messages of TensorFlow Serving that are used here, written down by field number.

The package tensorflow-serving-api would bring TensorFlow into this process. A message is its fields, so the few that
are needed are described here, in a pool of their own (TensorFlow registers the same names in the common one).

Source: tensorflow/serving, tensorflow_serving/apis/predict.proto, model.proto, prediction_log.proto; tensorflow,
core/framework/tensor.proto, tensor_shape.proto, types.proto.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kit.errors import BadInput

PREDICT = "/tensorflow.serving.PredictionService/Predict"

# message -> field -> (number, type, repeated); a type that starts with "." is a message
_FIELDS: dict[str, dict[str, tuple[int, str, bool]]] = {
    "tensorflow.Dim": {"size": (1, "int64", False), "name": (2, "string", False)},
    "tensorflow.TensorShapeProto": {"dim": (2, ".tensorflow.Dim", True), "unknown_rank": (3, "bool", False)},
    "tensorflow.TensorProto": {
        "dtype": (1, "int32", False),  # an enum, on the wire the same
        "tensor_shape": (2, ".tensorflow.TensorShapeProto", False), "version_number": (3, "int32", False),
        "tensor_content": (4, "bytes", False), "float_val": (5, "float", True), "double_val": (6, "double", True),
        "int_val": (7, "int32", True), "string_val": (8, "bytes", True), "int64_val": (10, "int64", True),
        "bool_val": (11, "bool", True), "half_val": (13, "int32", True), "uint32_val": (16, "uint32", True),
        "uint64_val": (17, "uint64", True)},
    "tensorflow.serving.Version": {"value": (1, "int64", False)},  # google.protobuf.Int64Value
    "tensorflow.serving.ModelSpec": {"name": (1, "string", False), "version": (2, ".tensorflow.serving.Version", False),
                                     "signature_name": (3, "string", False)},
    # A map is a repeated message of key and value.
    "tensorflow.serving.Entry": {"key": (1, "string", False), "value": (2, ".tensorflow.TensorProto", False)},
    "tensorflow.serving.PredictRequest": {"model_spec": (1, ".tensorflow.serving.ModelSpec", False),
                                          "inputs": (2, ".tensorflow.serving.Entry", True)},
    "tensorflow.serving.PredictResponse": {"outputs": (1, ".tensorflow.serving.Entry", True),
                                           "model_spec": (2, ".tensorflow.serving.ModelSpec", False)},
    "tensorflow.serving.PredictLog": {"request": (1, ".tensorflow.serving.PredictRequest", False)},
    "tensorflow.serving.PredictionLog": {"predict_log": (6, ".tensorflow.serving.PredictLog", False)},
}

# numpy name -> (number in tensorflow.DataType, field that holds values one by one)
_DTYPES = {"float32": (1, "float_val"), "float64": (2, "double_val"), "int32": (3, "int_val"), "uint8": (4, "int_val"),
           "int16": (5, "int_val"), "int8": (6, "int_val"), "int64": (9, "int64_val"), "bool": (10, "bool_val"),
           "uint16": (17, "int_val"), "float16": (19, "half_val"), "uint32": (22, "uint32_val"),
           "uint64": (23, "uint64_val")}


def message(name: str) -> type:
    """The class of a message, such as ``tensorflow.serving.PredictRequest``."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(name))


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    kinds = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.DescriptorPool()
    for package in ("tensorflow", "tensorflow.serving"):
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        if package != "tensorflow":
            file.dependency.append("tensorflow.proto")
        for full, fields in _FIELDS.items():
            if full.rpartition(".")[0] != package:
                continue
            made = file.message_type.add(name=full.rpartition(".")[2])
            for name, (number, kind, repeated) in fields.items():
                field = made.field.add(name=name, number=number, label=3 if repeated else 1)
                if kind.startswith("."):
                    field.type, field.type_name = kinds.TYPE_MESSAGE, kind
                else:
                    field.type = getattr(kinds, f"TYPE_{kind.upper()}")
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return pool


def tensor(array: np.ndarray) -> Any:
    """An array as ``TensorProto``, its bytes as they lie in memory.

    Raises:
        BadInput: of a type that TensorFlow Serving is not sent here.
    """
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise BadInput(f"An array of {array.dtype.name} cannot be sent to TensorFlow Serving.",
                       remedy=f"convert it to one of {', '.join(_DTYPES)}")
    made = message("tensorflow.TensorProto")(
        dtype=_DTYPES[array.dtype.name][0],
        tensor_content=np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    made.tensor_shape.SetInParent()  # a scalar has a shape too: an empty one
    for side in array.shape:
        made.tensor_shape.dim.add(size=side)
    return made


def array(made: Any) -> np.ndarray:
    """A ``TensorProto`` as an array; both ways in which a server may send the numbers are read.

    Raises:
        BadInput: a type that is not read here.
    """
    name = next((name for name, (number, _) in _DTYPES.items() if number == made.dtype), "")
    if not name:
        raise BadInput(f"The answer has the TensorFlow type {made.dtype}, which is not read here.",
                       remedy=f"leave that output out of the signature; read are {', '.join(_DTYPES)}")
    shape = [dim.size for dim in made.tensor_shape.dim]
    if made.tensor_content:
        return np.frombuffer(made.tensor_content, np.dtype(name).newbyteorder("<")).reshape(shape).astype(name)
    values = list(getattr(made, _DTYPES[name][1]))
    found = (np.array(values, np.uint16).view(np.float16) if name == "float16" else np.array(values, name))
    count = int(np.prod(shape, dtype=np.int64))
    # Shorter than the shape says: the last value stands for the rest, and nothing for zeros.
    rest = found[-1:] if len(found) else np.zeros(1, name)
    return np.concatenate([found, np.repeat(rest, count - len(found))]).reshape(shape)


def request(model: str, feeds: Mapping[str, np.ndarray], *, signature: str = "serving_default",
            version: int | None = None) -> Any:
    """A ``PredictRequest``."""
    made = message("tensorflow.serving.PredictRequest")()
    made.model_spec.name, made.model_spec.signature_name = model, signature
    if version is not None:
        made.model_spec.version.value = version
    for name, values in feeds.items():
        made.inputs.add(key=name, value=tensor(values))
    return made


def answers(response: Any) -> dict[str, np.ndarray]:
    """Output name -> array of a ``PredictResponse``."""
    return {entry.key: array(entry.value) for entry in response.outputs}


def warm_up(asked: Any) -> bytes:
    """One record of a warm-up file: a ``PredictionLog`` with a ``PredictRequest``."""
    made = message("tensorflow.serving.PredictionLog")()
    made.predict_log.request.CopyFrom(asked)
    return made.SerializeToString()
