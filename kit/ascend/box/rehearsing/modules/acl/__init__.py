"""FAKE pyACL: the calls that running an .om needs, with their documented signatures, order, handles and codes.

Functions that give data return ``(value, ret)``; those that do not return ``ret``; ``create_desc``, ``create_dataset``
and ``create_data_buffer`` return the handle alone. ``finalize`` tells which handles were not given back. Which chip
this is said to be comes from the environment variable KIT_FAKE_SOC.
"""

from __future__ import annotations

import os

from . import mdl, rt, util
from .handles import (
    FAKE,
    INVALID_FILE,
    INVALID_PARAM,
    REPEAT_FINALIZE,
    REPEAT_INITIALIZE,
    RESOURCE_NOT_CLEARED,
    RT_PARAM_INVALID,
    SUCCESS,
    state,
    whole,
)

__fake__ = FAKE
__all__ = ["create_data_buffer", "destroy_data_buffer", "finalize", "get_data_buffer_addr", "get_data_buffer_size",
           "get_recent_err_msg", "get_soc_name", "init", "mdl", "rt", "util"]


def init(config: str | None = None) -> int:
    """Once a process."""
    if state.initialised or state.finalised:
        return state.refuse(REPEAT_INITIALIZE, "acl.init is called once a process")
    if config is not None and not os.path.isfile(config):  # noqa: PTH113
        return state.refuse(INVALID_FILE, f"{config} does not exist")
    state.initialised = True
    return SUCCESS


def finalize() -> int:
    """Last; everything must have been given back."""
    if state.finalised:
        return state.refuse(REPEAT_FINALIZE, "acl.finalize was called already")
    code = state.ready(context=False)
    if code:
        return code
    left = [f"{len(handles)} {kind}" for kind, handles in state.live.items() if handles]
    left += ["the device"] if state.devices else []
    state.initialised, state.finalised = False, True
    return state.refuse(RESOURCE_NOT_CLEARED, f"not given back: {', '.join(left)}") if left else SUCCESS


def get_soc_name() -> str:
    """The chip of this FAKE."""
    return f"{os.environ.get('KIT_FAKE_SOC', 'Ascend310P3')} (FAKE)"


def get_recent_err_msg() -> str:
    """What the last refusal said."""
    said, state.message = state.message, ""
    return said


def create_data_buffer(pointer: int, size: int) -> int:
    """Wrap device memory; the handle alone comes back, 0 where that is not possible."""
    pointer, size = whole(pointer, "acl.create_data_buffer"), whole(size, "acl.create_data_buffer")
    if state.ready() or state.place(pointer, size, device=True) is None:
        state.refuse(RT_PARAM_INVALID, f"{size} bytes at {pointer:#x} are not in device memory")
        return 0
    return state.make("data buffer", (pointer, size))


def destroy_data_buffer(buffer: int) -> int:
    """Unwrap; the memory stays."""
    return state.give_back("data buffer", buffer)


def get_data_buffer_addr(buffer: int) -> int:
    """Where the memory lies."""
    return 0 if state.lost("data buffer", buffer) else state.live["data buffer"][buffer][0]


def get_data_buffer_size(buffer: int) -> int:
    """How much of it there is."""
    if state.lost("data buffer", buffer):
        state.refuse(INVALID_PARAM, "no such data buffer")
        return 0
    return state.live["data buffer"][buffer][1]
