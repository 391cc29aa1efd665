"""An .om on an Ascend chip behind ``open_runner``, through pyACL; in a worker, for pyACL starts once a process.

pyACL is spoken in ``om_session``, which bundles carry to the box. Where the chip is a FAKE of a rehearsal, ``settings``
say so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, KitError, MissingTool, ToolFailed
from kit.model import TensorSpec
from kit.runtimes import om_session, peak_memory


class Acl:
    """An .om and its buffers on a device.

    Args:
        graph: the .om.
        threads: taken for the sake of the other runtimes; the chip has no use for it.
        device: number of the chip.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2, device: int = 0) -> None:
        self._name = Path(graph).name
        try:
            self._acl = om_session.import_acl()
        except om_session.Failure as error:
            raise MissingTool(
                f"To run {self._name}, the kit needs pyACL, the module acl of CANN.",
                remedy=f"with an Ascend chip {om_session.set_env_hint()}, then start Python again; without one run the "
                "ONNX model that it was built from", detail=error.what) from error
        try:
            self._model = om_session.AclModel(graph, device)
        except om_session.Failure as error:
            raise self._explained(error, ToolFailed, f"pyACL cannot load {self._name} on device {device}") from error
        self._inputs, self._outputs = map(_specs, (self._model.inputs, self._model.outputs))
        fake = getattr(self._acl, "__fake__", "")
        kind, values = self._model.profiles["kind"], self._model.profiles["values"]
        self._settings = {
            "runtime": "FAKE pyACL" if fake else "pyACL", **({"FAKE": fake} if fake else {}),
            "device": f"{self._model.soc or 'unknown chip'}, number {device}",
            "CANN": om_session.cann_version() or "unknown",
            "profiles": f"{kind}: {', '.join('x'.join(map(str, value)) for value in values)}" if values else kind}

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._inputs, "outputs": self._outputs, "settings": self._settings, "closes": True}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return self._model.run(feeds)
        except om_session.Failure as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise self._explained(error, BadInput, f"pyACL could not run {self._name} on {shapes}") from error

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        """Inputs are on the device already; the ways there and back are not counted."""
        try:
            return self._model.time(feeds, runs)
        except om_session.Failure as error:
            raise self._explained(error, BadInput, f"pyACL could not run {self._name}") from error

    def memory(self) -> int:
        return peak_memory()

    def close(self) -> None:
        """Give the device back in the documented order."""
        self._model.close()

    @staticmethod
    def _explained(error: Any, kind: type[KitError], what: str) -> KitError:
        code = re.search(r"error code (\d+)", error.what)
        remedy = _NEXT.get(code.group(1), f"kit.explain({code.group(1)!r}) says what the code means") if code else \
            "the runner's inputs and settings say what this .om takes"
        return kind(f"{what}: {error.what}", remedy=remedy, detail=error.log)


# What to do about the codes that loading and running meet most. The names are those of the public headers of CANN.
_NEXT = {
    "107001": "choose a device that npu-smi info lists, with device=...",  # ACL_ERROR_RT_INVALID_DEVICEID
    "145013": "feed one of the profiles that the .om was built with: see settings",  # GE_DYNAMIC_BATCH_SIZE_INVALID
    "207001": "free memory on the device: npu-smi info shows who holds it",  # ACL_ERROR_RT_MEMORY_ALLOCATION
    "507008": "build the .om for this chip: an .om runs on the chip that it was built for",  # ACL_ERROR_RT_SOC_VERSION
    "545001": "build the .om with a CANN that is not newer than the one here",  # ACL_ERROR_GE_LOAD_MODEL
}


def _specs(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Open sides are "?"."""
    return tuple(TensorSpec(one["name"], one["dtype"], tuple(side if side >= 0 else "?" for side in one["shape"]))
                 for one in entries)
