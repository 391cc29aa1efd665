"""Large weights, one at a time: read from where they lie in a file, and written without being gathered first.

A model is handled as a light graph whose large constants are references to a place in a file. ONNX has such references
for weights beside the model; ``read_light`` makes them for weights inside it too, so that one path serves small and
large models. Nothing here holds more than one weight; arrays are mapped from the disk where their type allows.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kit.errors import BadInput, unknown
from kit.model import check_whole, read
from kit.need import need
from kit.record import explain_os_error

LARGE = 65_536  # bytes from which a constant is worth a reference of its own
# Bytes of weights from which they go beside the file. Runtimes map what lies beside it and copy what lies inside: of
# 0.9 GB inside, OpenVINO 2026.4 held 2.1 GB at the peak of reading. A file of protocol buffers ends at 2 GB anyway.
EXTERNAL_ABOVE = 500_000_000
_PAGE = 4096  # weights begin on a page, so that they can be mapped
_MAPPED = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
           10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}  # ONNX's numbers of the types numpy has
_HALF_BYTES = (21, 22)  # UINT4 and INT4: two values a byte


class Weights:
    """The constants of a model, by name, read when they are asked for.

    Args:
        path: the .onnx file.
        proto: read with ``weights=False``, or by ``read_light``.
    """

    def __init__(self, path: Path | str, proto: Any) -> None:
        self._path = Path(path)
        self._tensors = {tensor.name: tensor for tensor in proto.graph.initializer}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constants, in the order of the file."""
        return tuple(self._tensors)

    def array(self, name: str) -> np.ndarray:
        """One constant; mapped from the disk and read-only where it lies in a file of its own or in a light graph.

        Raises:
            BadInput: no such constant; names the closest.
        """
        if name not in self._tensors:
            raise unknown("constant", name, self._tensors, self._path.name)
        return tensor_array(self._tensors[name], self._path.parent)


def tensor_array(tensor: Any, folder: Path) -> np.ndarray:
    """The values of an ``onnx.TensorProto``; a reference is looked up in ``folder``.

    Raises:
        BadInput: the file it refers to is missing or too short.
    """
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return onnx.numpy_helper.to_array(tensor)
    if tensor.data_type not in _MAPPED:
        return onnx.numpy_helper.to_array(tensor, str(folder))
    place = {entry.key: entry.value for entry in tensor.external_data}
    path = folder / place["location"]
    shape, offset = tuple(tensor.dims), int(place.get("offset", 0))
    if not np.prod(shape):
        return np.empty(shape, _MAPPED[tensor.data_type])
    try:
        if path.stat().st_size < offset + tensor_bytes(tensor):
            raise BadInput(f"{path} ends before the values of {tensor.name!r}.", remedy="copy or export it again")
        return np.memmap(path, _MAPPED[tensor.data_type], "r", offset, shape or (1,)).reshape(shape)
    except OSError as error:
        raise explain_os_error(error, path) from error


def tensor_bytes(tensor: Any) -> int:
    """How many bytes the values of an ``onnx.TensorProto`` take when stored plainly, whether they are there or not."""
    import onnx

    count = int(np.prod(tensor.dims, dtype=np.int64))
    if tensor.data_type in _HALF_BYTES:
        return (count + 1) // 2
    if tensor.data_type in _MAPPED:
        return count * np.dtype(_MAPPED[tensor.data_type]).itemsize
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    # bfloat16 has two bytes, the float8 types one; numpy stands in for both with a wider type.
    return count * (2 if tensor.data_type == onnx.TensorProto.BFLOAT16 else
                    1 if tensor.data_type in (17, 18, 19, 20) else
                    onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def weights_bytes(proto: Any) -> int:
    """Bytes of all constants of a model."""
    return sum(tensor_bytes(tensor) for tensor in proto.graph.initializer)


def read_light(path: Path | str, *, above: int = LARGE) -> Any:
    """The ``onnx.ModelProto`` of a file, with a reference in place of every constant of more than ``above`` bytes.

    For those inside the file the reference names the file itself. Do not save such a graph over its own file.

    Raises:
        BadInput: the file is missing, truncated or not ONNX.
    """
    onnx = need("onnx", to="read an ONNX file", extra="base")
    path = Path(path)
    try:
        if path.stat().st_size <= above:
            return read(path, weights=False)
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
            light = _without_values(view, "model", 0, len(view), above, path.name)
        proto = onnx.ModelProto()
        proto.ParseFromString(light)
    except OSError as error:
        raise explain_os_error(error, path) from error
    except Exception:  # not a file of protocol buffers, or a form of it that is not known here
        return read(path, weights=False)  # says what is wrong with it, if anything is
    check_whole(path, proto)
    return proto


#: Message -> number of a field -> the message in it: the way from a model to its constants (onnx.proto3).
_WAY = {"model": {7: "graph"}, "graph": {1: "node", 5: "tensor"}, "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph"}}


def _without_values(view: Any, kind: str, start: int, end: int, above: int, location: str) -> bytes:
    """The bytes of a message, with references in place of large values."""
    import onnx

    kept, place, float_values = [], [], False
    for number, wire, begin, inside, after in _fields(view, start, end):
        large = wire == 2 and after - inside > above
        if large and kind == "tensor" and number in (4, 9):  # float_data and raw_data hold the same bytes
            place.append((inside, after - inside))
            float_values = number == 4
        elif large and number in _WAY.get(kind, ()):
            inner = _without_values(view, _WAY[kind][number], inside, after, above, location)
            kept.append(_varint(number << 3 | 2) + _varint(len(inner)) + inner)
        else:
            kept.append(view[begin:after])
    found = b"".join(kept)
    if not place:
        return found
    tensor = onnx.TensorProto.FromString(found)
    if len(place) > 1 or (float_values and tensor.data_type != onnx.TensorProto.FLOAT):
        return view[start:end]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", place[0][0]), ("length", place[0][1])):
        tensor.external_data.add(key=key, value=str(value))
    return tensor.SerializeToString()


def _fields(view: Any, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message: number, wire type, where it begins, where its value begins, and where it ends.

    Source: https://protobuf.dev/programming-guides/encoding
    """
    at = start
    while at < end:
        begin = at
        tag, at = _read_varint(view, at)
        wire = tag & 7
        if wire == 2:
            length, at = _read_varint(view, at)
            after = at + length
        elif wire == 0:
            after = _read_varint(view, at)[1]
        elif wire in (1, 5):
            after = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if after > end:
            raise ValueError("cut off")
        yield tag >> 3, wire, begin, at, after
        at = after


def _read_varint(view: Any, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def save_streamed(proto: Any, path: Path, arrays: Callable[[str], np.ndarray | None], *,
                  external_above: int = EXTERNAL_ABOVE) -> None:
    """Write a model one constant at a time, so that memory holds the graph and the largest of them.

    Args:
        proto: the ``onnx.ModelProto``; unchanged. A constant whose values are not in it says its type and shape.
        path: of the .onnx file. Above ``external_above`` bytes of constants those of a page and more go into
            ``<name>.data`` beside it.
        arrays: the values of a constant by its name; None for those that ``proto`` holds itself.

    Raises:
        BadInput: an array that does not have the size its constant says, or that is missing.
    """
    path = Path(path)
    data = path.with_name(path.name + ".data") if weights_bytes(proto) > external_above else None
    try:
        if data is None:
            _write_whole(proto, path, arrays)
        else:
            _write_beside(proto, path, data, arrays)
    except OSError as error:
        raise explain_os_error(error, path) from error


def without_constants(proto: Any) -> Any:
    """A copy of a model whose graph holds no constants; their values are not copied on the way."""
    import onnx

    copy = onnx.ModelProto()
    for source, target, left_out in ((proto, copy, "graph"), (proto.graph, copy.graph, "initializer")):
        for about, value in source.ListFields():
            if about.name == left_out:
                continue
            if isinstance(value, str | int | float | bytes):
                setattr(target, about.name, value)
            else:
                getattr(target, about.name).MergeFrom(value)
    return copy


def _write_whole(proto: Any, path: Path, arrays: Callable[[str], np.ndarray | None]) -> None:
    """Model fields, then the graph: its own fields, then every constant; each with its length before it."""
    frame = without_constants(proto)
    body = frame.graph.SerializeToString()
    frame.ClearField("graph")
    heads = [_head(tensor) for tensor in proto.graph.initializer]
    total = len(body) + sum(len(head) + (0 if _is_inside(tensor) else tensor_bytes(tensor))
                            for tensor, head in zip(proto.graph.initializer, heads, strict=True))
    # In the order of their numbers: OpenVINO 2026.4 takes a file with two opset_imports before the graph for no ONNX.
    around = frame.SerializeToString()
    cut = next((begin for number, _, begin, _, _ in _fields(around, 0, len(around)) if number > 7), len(around))
    with path.open("wb") as stream:
        stream.write(around[:cut] + _varint(7 << 3 | 2) + _varint(total) + body)
        for tensor, head in zip(proto.graph.initializer, heads, strict=True):
            stream.write(head)
            if not _is_inside(tensor):
                _stream(tensor, arrays(tensor.name), stream)
        stream.write(around[cut:])


def _write_beside(proto: Any, path: Path, data: Path, arrays: Callable[[str], np.ndarray | None]) -> None:
    import onnx

    frame = without_constants(proto)
    with data.open("wb") as stream:
        for tensor in proto.graph.initializer:
            inside, size = _is_inside(tensor), tensor_bytes(tensor)
            if size < _PAGE:
                kept = tensor if inside else onnx.numpy_helper.from_array(
                    np.asarray(_checked(tensor, arrays(tensor.name))), tensor.name)
                frame.graph.initializer.add().CopyFrom(kept)
                continue
            stream.write(b"\0" * (-stream.tell() % _PAGE))
            place = frame.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims,
                                                data_location=onnx.TensorProto.EXTERNAL)
            for key, value in (("location", data.name), ("offset", stream.tell()), ("length", size)):
                place.external_data.add(key=key, value=str(value))
            _stream(tensor, tensor_array(tensor, path.parent) if inside else arrays(tensor.name), stream)
    path.write_bytes(frame.SerializeToString())


def _is_inside(tensor: Any) -> bool:
    return tensor.data_location != 1


def _head(tensor: Any) -> bytes:
    """The bytes of a constant in its graph, up to its values where those are not in ``tensor``."""
    if _is_inside(tensor):
        whole = tensor.SerializeToString()
        return _varint(5 << 3 | 2) + _varint(len(whole)) + whole
    about = type(tensor)(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    about += _varint(9 << 3 | 2) + _varint(tensor_bytes(tensor))
    return _varint(5 << 3 | 2) + _varint(len(about) + tensor_bytes(tensor)) + about


def _checked(tensor: Any, values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise BadInput(f"There are no values for the constant {tensor.name!r}.", remedy="give its array")
    if values.nbytes != tensor_bytes(tensor):
        raise BadInput(f"The values of {tensor.name!r} take {values.nbytes} bytes; its shape {list(tensor.dims)} says "
                       f"{tensor_bytes(tensor)}.", remedy="give an array of that shape and type")
    return values


def _stream(tensor: Any, values: np.ndarray | None, stream: BinaryIO) -> None:
    stream.write(np.ascontiguousarray(_checked(tensor, values)).reshape(-1).view(np.uint8).data
                 if tensor_bytes(tensor) else b"")
