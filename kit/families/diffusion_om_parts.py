"""The parts of a pipeline as .om files on a device, each in a process of its own; and how alike two pictures are.

This travels to an Ascend box inside ``draw_on_box.py``. Standard library and numpy, Python 3.8.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time

import numpy as np

from kit.runtimes.ais_session import AisModel
from kit.runtimes.om_session import AclModel, Failure

HIGHEST = 100.0  # dB: from here on two pictures differ by rounding alone


class PartProcess:
    """A part's .om in a process of its own, since acl can be begun once a process; called with feeds, float32 back.

    Args:
        name: of the part.
        om: the file.
        backend: acl or ais_bench.
        device: its number.
        bundle: of the part.
        spent: takes the milliseconds of every call.
    """

    def __init__(self, name, om, backend, device, bundle, spent):
        self._name, self._bundle, self._spent = name, bundle, spent
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._child = context.Process(target=serve, daemon=True, args=(
            there, str(om), backend, device, bundle["profiles"]))
        self._child.start()
        there.close()  # so that the end of the child is an end of the pipe
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __call__(self, feeds):
        with contextlib.suppress(OSError):  # of a child that died: told below
            self._pipe.send({spec["name"]: np.ascontiguousarray(feeds[spec["name"]], spec["dtype"])
                             for spec in self._bundle["inputs"]})
        answers, ms = self._answer()
        self._spent.append(ms)
        wanted = self._bundle["outputs"][0]["name"]
        return np.asarray(answers.get(wanted, next(iter(answers.values()))), np.float32)

    def close(self):
        """Let the device go."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._child.join(60)
        if self._child.is_alive():
            self._child.terminate()
            self._child.join()
        self._pipe.close()

    def _answer(self):
        try:
            kind, *said = self._pipe.recv()
        except EOFError:
            self._child.join()
            raise Failure(f"The process that ran the .om of {self._name} died (exit code {self._child.exitcode}).",
                          "", self._child.exitcode) from None
        if kind == "failed":
            raise Failure(f"{self._name}: {said[0]}", said[1])
        return said


def serve(pipe, om, backend, device, profiles):
    """In the process of a part: open its .om and answer feeds until there is None, or nobody to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks ends us in order
    try:
        with AisModel(om, device, profiles) if backend == "ais_bench" else AclModel(om, device) as model:
            pipe.send(("ready",))
            for feeds in iter(pipe.recv, None):
                began = time.perf_counter()
                answers = model.run(feeds)
                pipe.send(("answer", answers, (time.perf_counter() - began) * 1000))
    except Failure as error:
        pipe.send(("failed", error.what, error.log))
    except (EOFError, BrokenPipeError):
        pass


def likeness(reference, picture):
    """PSNR of two pictures in 0..1, in dB, 0 to 100; 0 where one of them is not finite."""
    if not (np.isfinite(reference).all() and np.isfinite(picture).all()):
        return 0.0
    error = float(np.mean((reference.astype(np.float64) - picture) ** 2))
    return min(HIGHEST, max(0.0, -10 * float(np.log10(error)))) if error else HIGHEST
