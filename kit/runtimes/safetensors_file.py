"""Weights of a .safetensors file, one at a time: what is in it, and reading it without a second copy in memory.

The format: 8 bytes with the length of a JSON table, little-endian; the table (name, type, shape and place of every
tensor); the tensors. Source: github.com/huggingface/safetensors, README. The library maps the file, so that a process
is charged for the file's pages beside its own copy; reading into the tensors themselves takes their size and no more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.card import bytes_text
from kit.errors import BadInput, UnsupportedModel
from kit.record import explain_os_error

_AGAIN = "copy the file again and compare the sizes"
#: Type in the file -> PyTorch's name of it.
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
         "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: type as the file names it, shape, first byte and length in bytes."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    length: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def table(path: Path) -> dict[str, Stored]:
    """What a file holds, by name.

    Raises:
        BadInput: the file is missing, of another format, or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 1 < length <= size - 8:
                raise BadInput(f"{path} is no .safetensors file, or it is cut off ({bytes_text(size)}).", remedy=_AGAIN)
            entries = json.loads(stream.read(length))
            found = {name: Stored(about["dtype"], tuple(about["shape"]), 8 + length + about["data_offsets"][0],
                                  about["data_offsets"][1] - about["data_offsets"][0])
                     for name, about in entries.items() if name != "__metadata__"}
    except OSError as error:
        raise explain_os_error(error, path) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path} has no table of its tensors that can be read.", remedy=_AGAIN,
                       detail=repr(error)) from error
    end = max((tensor.begin + tensor.length for tensor in found.values()), default=8 + length)
    if size < end:
        raise BadInput(f"{path} is cut off: it has {bytes_text(size)} of {bytes_text(end)}.", remedy=_AGAIN)
    return found


def chosen(folder: Path) -> list[Path]:
    """The files of a sub-model's folder that count: those in full precision where both are there."""
    files = sorted(folder.glob("*.safetensors"))
    full = [path for path in files if ".fp16." not in path.name]
    return full or files


def float32_bytes(folder: Path) -> int:
    """Bytes that the weights in a folder take as float32, whatever they are stored as.

    Raises:
        BadInput: a file is missing, of another format, or cut off.
    """
    return sum(4 * tensor.count for path in chosen(folder) for tensor in table(path).values())


def tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every weight in a folder as a ``torch.Tensor``, floats as float32.

    Raises:
        BadInput: a file is missing, of another format, or cut off.
        UnsupportedModel: a type that is none of `TYPES`.
    """
    import torch

    for path in chosen(folder):
        found = table(path)
        with path.open("rb", buffering=0) as stream:
            for name, about in found.items():
                if about.kind not in TYPES:
                    raise UnsupportedModel(f"{path}: {name} is of the type {about.kind}.",
                                           remedy="save the model in float32 or float16")
                tensor = torch.empty(about.shape, dtype=getattr(torch, TYPES[about.kind]))
                if about.length:
                    stream.seek(about.begin)
                    _fill(stream, memoryview(tensor.view(-1).view(torch.uint8).numpy()))
                yield name, tensor.float() if tensor.is_floating_point() else tensor


def _fill(stream: Any, room: memoryview) -> None:
    while len(room):  # one read gives at most 2 GB
        room = room[stream.readinto(room):]
