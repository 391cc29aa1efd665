"""FAKE ``acl.rt``: devices, contexts, streams and memory."""

from __future__ import annotations

import ctypes
from typing import Any

from .handles import (
    RESOURCE_NOT_CLEARED,
    RT_INVALID_DEVICE,
    RT_INVALID_MALLOC_TYPE,
    RT_MEMORY_ALLOCATION,
    RT_PARAM_INVALID,
    SUCCESS,
    fault,
    state,
    whole,
)

DEVICES = 1
ACL_HOST = 1
KINDS = {0: (False, False), 1: (False, True), 2: (True, False), 3: (True, True)}  # kind -> source, target on device


def set_device(device: int) -> int:
    """Choose the device; a context of its own comes with create_context."""
    code = state.ready(context=False)
    if code:
        return code
    if not 0 <= whole(device, "acl.rt.set_device") < DEVICES:
        return state.refuse(RT_INVALID_DEVICE, f"there is no device {device}, only 0 to {DEVICES - 1}")
    state.devices.add(device)
    return SUCCESS


def reset_device(device: int) -> int:
    """Give the device back; its contexts must be gone."""
    code = state.ready(context=False)
    if code:
        return code
    if device not in state.devices:
        return state.refuse(RT_INVALID_DEVICE, f"device {device} was not set")
    if state.live["context"]:
        return state.refuse(RESOURCE_NOT_CLEARED, "a context of the device is still there")
    state.devices.discard(device)
    return SUCCESS


def create_context(device: int) -> tuple[int, int]:
    """A context, which becomes the current one."""
    code = state.ready(context=False)
    if not code and device not in state.devices:
        code = state.refuse(RT_INVALID_DEVICE, f"acl.rt.set_device({device}) was not called")
    if code:
        return 0, code
    state.context = state.make("context", device)
    return state.context, SUCCESS


def set_context(context: int) -> int:
    """Make a context the current one."""
    code = state.ready(context=False) or state.lost("context", context)
    if not code:
        state.context = context
    return code


def get_context() -> tuple[int, int]:
    """The current context."""
    code = state.ready()
    return (0, code) if code else (state.context or 0, SUCCESS)


def destroy_context(context: int) -> int:
    """Last of all in it: models, streams and memory must be gone."""
    held = [kind for kind in ("model", "stream", "device memory", "host memory") if state.live[kind]]
    code = state.give_back("context", context, ", ".join(held))
    if not code and state.context == context:
        state.context = None
    return code


def create_stream() -> tuple[int, int]:
    """A stream of the current context."""
    code = state.ready()
    return (0, code) if code else (state.make("stream", state.context), SUCCESS)


def destroy_stream(stream: int) -> int:
    """End a stream."""
    return state.give_back("stream", stream)


def synchronize_stream(stream: int) -> int:
    """Nothing waits here: every call has ended when it returns."""
    return state.ready() or state.lost("stream", stream)


def get_run_mode() -> tuple[int, int]:
    """This FAKE says that it stands beside a host (ACL_HOST)."""
    code = state.ready()
    return ACL_HOST, code


def malloc(size: int, policy: int) -> tuple[int, int]:
    """Device memory."""
    size, policy = whole(size, "acl.rt.malloc"), whole(policy, "acl.rt.malloc")
    code = state.ready()
    if not code and size <= 0:
        code = state.refuse(RT_PARAM_INVALID, f"cannot allocate {size} bytes")
    if not code and policy not in (0, 1, 2):
        code = state.refuse(RT_INVALID_MALLOC_TYPE, f"there is no policy {policy}")
    if not code and fault == "no-memory":
        code = state.refuse(RT_MEMORY_ALLOCATION, f"no {size} bytes are left on the device")
    return (0, code) if code else (state.make("device memory", bytearray(size)), SUCCESS)


def free(pointer: int) -> int:
    """Give device memory back, after the data buffers that wrap it."""
    memory = state.live["device memory"].get(pointer)
    size = len(memory) if memory is not None else 0
    held = [buffer for buffer, (start, _) in state.live["data buffer"].items() if pointer <= start < pointer + size]
    return state.give_back("device memory", pointer, f"{len(held)} data buffers" if held else "")


def malloc_host(size: int) -> tuple[int, int]:
    """Host memory that the device reads fast."""
    code = state.ready()
    if not code and whole(size, "acl.rt.malloc_host") <= 0:
        code = state.refuse(RT_PARAM_INVALID, f"cannot allocate {size} bytes")
    if code:
        return 0, code
    memory = (ctypes.c_char * size)()
    address = ctypes.addressof(memory)
    state.live["host memory"][address] = memory
    return address, SUCCESS


def free_host(pointer: int) -> int:
    """Give host memory back."""
    return state.give_back("host memory", pointer)


def memcpy(target: int, limit: int, source: int, count: int, kind: int) -> int:
    """Copy; the kind must say where the two lie, and nothing may reach beyond what was allocated."""
    target, limit, source, count, kind = (
        whole(value, "acl.rt.memcpy") for value in (target, limit, source, count, kind))
    code = state.ready()
    if code:
        return code
    if kind not in KINDS:
        return state.refuse(RT_PARAM_INVALID, f"there is no kind of copy {kind}")
    if count <= 0 or count > limit:
        return state.refuse(RT_PARAM_INVALID, f"{count} bytes do not fit into {limit}")
    from_device, to_device = KINDS[kind]
    views: list[Any] = []
    for address, size, device, what in ((source, count, from_device, "source"), (target, limit, to_device, "target")):
        view = state.place(address, size, device=True) if device else state.host(address, size)
        if view is None:
            side = "device" if device else "host"
            return state.refuse(RT_PARAM_INVALID, f"the {what}, {size} bytes at {address:#x}, is not in {side} memory "
                                f"(kind {kind})")
        views.append(view)
    views[1][:count] = views[0]
    return SUCCESS
