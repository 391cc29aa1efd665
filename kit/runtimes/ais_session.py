"""An .om on an Ascend chip through ais_bench, where pyACL is not to be used. Standard library and numpy, Python 3.8.

It travels to the box as ``om_session`` does, and has the same face.
"""

# ruff: noqa: B905
from __future__ import annotations

import time

import numpy as np

from kit.runtimes.om_session import Failure, in_order, tensor_names

MODES = {"static": "static", "batch": "dymbatch", "image": "dymhw", "dims": "dymdims"}  # as ais_bench spells them


class AisModel:
    """An .om on a device, through ais_bench; the same face as ``AclModel``."""

    backend = "ais_bench"

    def __init__(self, om, device=0, profiles=None):
        try:
            from ais_bench.infer.interface import InferSession
        except ImportError as error:
            raise Failure(f"ais_bench does not load ({error}): install the wheels aclruntime and ais_bench, or use "
                          "--backend acl.") from error
        self.profiles = profiles or {"kind": "static", "values": []}
        try:
            self._session = InferSession(device, str(om))
            given, wanted = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # ais_bench raises RuntimeError with the code in its text
            raise Failure(f"ais_bench cannot load {om}: {error}", f"failed: {error}") from error
        names = tensor_names([meta.name for meta in wanted])
        self.inputs = [{"name": meta.name, "shape": [int(side) for side in meta.shape]} for meta in given]
        self.outputs = [{"name": name, "shape": [int(side) for side in meta.shape]}
                        for name, meta in zip(names, wanted)]
        if self.profiles["kind"] == "image" and any(spec["shape"][-1:] == [3] for spec in self.inputs):
            self.close()
            raise Failure("ais_bench looks for height and width in axes 2 and 3; this model takes pictures as NHWC. "
                          "Use --backend acl.")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Give the device back."""
        self._session.free_resource()

    def run(self, feeds):
        """The answers to ``feeds``, by name."""
        answers = self._infer(in_order(feeds, self.inputs))
        return {spec["name"]: np.array(answer) for spec, answer in zip(self.outputs, answers)}

    def time(self, feeds, runs, copies=False):
        """Milliseconds of each run, as ais_bench counts them; with ``copies`` by the clock around it."""
        arrays, times = in_order(feeds, self.inputs), []
        self._session.reset_summaryinfo()
        for _ in range(runs):
            start = time.perf_counter()
            self._infer(arrays)
            times.append((time.perf_counter() - start) * 1000)
        return times if copies else [float(ms) for ms in self._session.summary().exec_time_list[-runs:]]

    def _infer(self, arrays):
        try:
            return self._session.infer(arrays, mode=MODES[self.profiles["kind"]])
        except Exception as error:
            raise Failure(f"ais_bench failed: {error}", f"failed: {error}") from error
