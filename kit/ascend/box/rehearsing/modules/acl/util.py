"""FAKE ``acl.util``: addresses of what Python holds, and bytes at an address."""

from __future__ import annotations

import ctypes
from typing import Any

from .handles import state


def bytes_to_ptr(data: bytes) -> int:
    """The address of these bytes."""
    if not isinstance(data, bytes):
        raise TypeError(f"acl.util.bytes_to_ptr takes bytes, not {type(data).__name__}")
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    state.kept[address] = (len(data), data)
    return address


def ptr_to_bytes(pointer: int, size: int) -> bytes:
    """A copy of the bytes at a host address."""
    return _copied(pointer, size)


def numpy_to_ptr(array: Any) -> int:
    """The address of an array (the older form)."""
    state.kept[array.ctypes.data] = (array.nbytes, array)
    return array.ctypes.data


def ptr_to_numpy(pointer: int, shape: tuple[int, ...], kind: int) -> Any:
    """The bytes at a host address as an array of NPY_BYTE (the older form)."""
    import numpy as np

    if kind != 1:
        raise ValueError("FAKE acl: only NPY_BYTE (1) is known")
    return np.frombuffer(_copied(pointer, int(np.prod(shape))), np.int8).reshape(shape)


def _copied(pointer: int, size: int) -> bytes:
    view = state.host(pointer, size)
    if view is None:
        raise ValueError(f"FAKE acl: {size} bytes at {pointer:#x} are not in host memory")
    return bytes(view)
