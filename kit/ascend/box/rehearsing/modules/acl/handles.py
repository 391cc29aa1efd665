"""What the FAKE pyACL knows: which handles live, where memory is, what was called in which order.

Everything that a call may get wrong is a code of the documented table and a sentence on standard error that says what
was wrong. Handles are numbers, as in pyACL; a number that was given back is not accepted again. Device memory is kept
here under addresses that no host memory has.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from typing import Any

FAKE = "FAKE acl of the migration notebook kit: it runs on this machine's processor"
SUCCESS = 0
INVALID_PARAM, UNINITIALIZE, REPEAT_INITIALIZE = 100000, 100001, 100002
INVALID_FILE, INPUT_NOT_MATCH, OUTPUT_NOT_MATCH, NOT_DYNAMIC, REPEAT_FINALIZE = 100003, 100017, 100018, 100019, 100037
RT_PARAM_INVALID, RT_INVALID_DEVICE, RT_CONTEXT_NULL, RT_MODEL_CONTEXT = 107000, 107001, 107002, 107004
RT_INVALID_HANDLE, RT_INVALID_MALLOC_TYPE = 107017, 107018
GE_MODEL_PATH_INVALID, GE_MODEL_ID_INVALID, GE_DYNAMIC_SIZE_INVALID = 145002, 145003, 145013
RESOURCE_NOT_CLEARED = 148051
RT_MEMORY_ALLOCATION, GE_LOAD_MODEL, RT_SOC_VERSION, RT_AICORE_EXCEPTION = 207001, 545001, 507008, 507015
ALIGNED = 32  # bytes: sizes of buffers are multiples
DEVICE_BASE = 0x7000_0000_0000_0000  # no address of a process lies there
DTYPES = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4, "int16": 6, "uint16": 7, "uint32": 8,
          "int64": 9, "uint64": 10, "float64": 11, "bool": 12}


class State:
    """One process's use of pyACL."""

    def __init__(self) -> None:
        self.initialised = self.finalised = False
        self.devices: set[int] = set()
        self.context: int | None = None
        self.live: dict[str, dict[int, Any]] = {kind: {} for kind in (
            "context", "stream", "model", "desc", "dataset", "data buffer", "device memory", "host memory")}
        self.kept: dict[int, bytes | Any] = {}  # host memory handed in by its owner: address -> what lies there
        self.message = ""
        self.executions = 0
        self._numbers = itertools.count(0x1000, 0x10)
        self._addresses = itertools.count(DEVICE_BASE, 1 << 40)

    def refuse(self, code: int, why: str) -> int:
        """Say what was wrong, and give the code."""
        self.message = f"FAKE acl: {code}: {why}"
        print(self.message, file=sys.stderr, flush=True)
        return code

    def make(self, kind: str, thing: Any) -> int:
        """A handle of a new thing."""
        number = next(self._addresses) if kind == "device memory" else next(self._numbers)
        self.live[kind][number] = thing
        return number

    def ready(self, context: bool = True) -> int:
        """Was acl initialised, and is there a context?"""
        if not self.initialised:
            return self.refuse(UNINITIALIZE, "acl.init was not called")
        if context and self.context is None:
            return self.refuse(RT_CONTEXT_NULL, "there is no context: call acl.rt.set_device and "
                               "acl.rt.create_context first")
        return SUCCESS

    def lost(self, kind: str, handle: Any) -> int:
        """Is this no living handle of that kind?"""
        if handle in self.live[kind]:
            return SUCCESS
        owner = next((other for other, known in self.live.items() if handle in known), "")
        what = f"it is one of a {owner}" if owner else "it was given back already, or never made"
        return self.refuse(RT_INVALID_HANDLE, f"{handle!r} is no handle of a {kind}: {what}")

    def give_back(self, kind: str, handle: Any, held_by: str = "") -> int:
        """End a handle; refused while something else holds it."""
        code = self.ready(context=kind != "context") or self.lost(kind, handle)
        if code:
            return code
        if held_by:
            return self.refuse(RESOURCE_NOT_CLEARED, f"the {kind} is still in use: {held_by}")
        del self.live[kind][handle]
        return SUCCESS

    # ---- memory

    def place(self, address: int, count: int, device: bool) -> Any:
        """A writable view of ``count`` bytes at an address of the device or the host; None where they are not there."""
        for start, memory in self.live["device memory" if device else "host memory"].items():
            if start <= address and address + count <= start + len(memory):
                return memoryview(memory).cast("B")[address - start:address - start + count]
        return None

    def host(self, address: int, count: int) -> Any:
        """Bytes of the host: of malloc_host, or handed in through acl.util."""
        view = self.place(address, count, device=False)
        if view is not None:
            return view
        for start, (size, _) in self.kept.items():
            if start <= address and address + count <= start + size:
                return memoryview((ctypes.c_char * count).from_address(address)).cast("B")
        return None


state = State()
fault = os.environ.get("KIT_FAKE_FAULT", "")


def whole(value: Any, name: str) -> int:
    """A number, as the C wrapper takes it.

    Raises:
        TypeError: as PyArg_ParseTuple does.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} args parse failed! an int was expected, not {type(value).__name__}")
    return value.__index__()
