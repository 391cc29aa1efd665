"""The run of a calibration: samples go through the parts of a model, several at a time, and are counted on the way.

Every thread has a collector of its own; as they merge exactly, it does not show who counted what. Now and then the
state goes to a folder beside the results, from which a run that was killed, cancelled or stopped goes on.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import bytes_text
from kit.collecting.arrays import load_arrays, save_arrays
from kit.collecting.collector import Collector
from kit.collecting.counting import kernels
from kit.collecting.parts import Lane, Parts
from kit.errors import BadInput
from kit.int8.quantizable import WEIGHTED, Network
from kit.model import Model
from kit.progress import Report, Tick
from kit.record import digest
from kit.samples import Samples, sample_name

CHECKPOINT_SECONDS = 10.0  # work that may be lost
_STATE = "state.npz"


@dataclass(frozen=True)
class Fault:
    """Values that are not finite: the first node that made them, and the sample it was given."""

    sample: str
    tensor: str
    node: str
    operator: str
    nan: int
    infinite: int

    def __str__(self) -> str:
        made = f"{self.operator} node {self.node!r} made" if self.node else "its input holds"
        return f"{self.sample}: {made} {self.nan} NaN and {self.infinite} infinite values in {self.tensor!r}"


@dataclass(frozen=True)
class Identities:
    """Who the samples are, by content, so that neither order nor batches show.

    Attributes:
        names: one a sample, for people.
        items: for each sample the digest of every item of its batch.
        digest: of all of them and their preparation; order counts.
    """

    names: tuple[str, ...]
    items: tuple[tuple[str, ...], ...]
    digest: str = field(repr=False)

    def spread(self, count: int) -> dict[int, str]:
        """Places of ``count`` samples taken evenly among all, whatever their order, and the digest of each."""
        first = {items: at for at, items in reversed(list(enumerate(self.items)))}
        return {first[items]: digest(items)[:16] for items in sorted(first)[:count]}

    def named(self) -> dict[str, str]:
        """Digest of each item -> the name of its sample; a number is added for the items of a batch."""
        return {item: name if len(items) == 1 else f"{name}, item {at}"
                for name, items in zip(self.names, self.items, strict=True) for at, item in enumerate(items)}


def identify(samples: Sequence, threads: int = 2) -> Identities:
    """Find out who the samples are; pictures by their files, feeds by their arrays, each looked at once."""
    names = tuple(sample_name(samples, at) for at in range(len(samples)))
    if isinstance(samples, Samples):
        found = tuple((each[:16],) for each in samples.identities())
        return Identities(names, found, digest([found, samples.preparation]))
    with ThreadPoolExecutor(threads) as pool:
        found = tuple(pool.map(lambda at: _items(samples[at]), range(len(samples))))
    return Identities(names, found, digest(found))


def _items(feeds: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    arrays = {name: np.asarray(array) for name, array in feeds.items()}
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    batch = lengths.pop() if len(lengths) == 1 else 1
    if batch <= 1:
        return (digest(arrays)[:16],)
    return tuple(digest({name: array[at : at + 1] for name, array in arrays.items()})[:16] for at in range(batch))


def channel_axes(network: Network, tensors: Sequence[str]) -> dict[str, int]:
    """For each tensor the axis of its channels, where a node with weights reads or makes it; else 0."""
    found = dict.fromkeys(tensors, 0)
    for node in network.nodes:
        if node.op_type not in WEIGHTED or not network.weights(node):
            continue
        axis = 1 if node.op_type.startswith("Conv") else -1
        turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        if turned or (node.op_type == "MatMul" and node.input[0] in network.constants):
            continue
        for name in (node.input[0], node.output[0]):
            name = network.same_range.get(name, name) if name == node.input[0] else name
            if name in found:
                found[name] = max(found[name], axis) if found[name] else axis
    return found


@dataclass
class Measured:
    """What a run has found so far.

    Attributes:
        collector: the counts.
        done: how many samples were run, from the first on.
        faults: samples with values that are not finite.
        skipped: places of the samples left out.
        stopped: why it ended early, "" when it did not.
    """

    collector: Collector
    done: int = 0
    faults: list[Fault] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    stopped: str = ""


@dataclass(frozen=True)
class Setup:
    """What a run needs to know.

    Attributes:
        network: prepared graph.
        model: its file.
        axes: the tensors to measure, in topological order, and the axis of their channels.
        sizes: bytes of each for one sample.
        parts: how many parts the model is run in.
        workers: how many samples at a time.
        bad_values: see ``CalibrateOptions``.
        histograms: see ``CalibrateOptions``.
        probes: how many samples to keep with their answers.
        memory: bytes of this process at which to stop; 0 for no limit.
        seconds: likewise.
    """

    network: Network
    model: Model
    axes: dict[str, int]
    sizes: dict[str, int]
    parts: int
    workers: int
    bad_values: str
    histograms: bool
    probes: int
    memory: int = 0
    seconds: float = 0


def measure(setup: Setup, samples: Sequence, who: Identities, partial: Path, report: Report) -> Measured:
    """Run the samples that ``partial`` does not hold yet; leaves the state there when it does not come to the end.

    Raises:
        BadInput: a sample that does not fit, or holds NaN where that is refused.
    """
    return _Run(setup, samples, who, partial).go(report)


@dataclass(frozen=True)
class _Ran:
    fault: Fault | None
    skipped: bool


class _Run:
    def __init__(self, setup: Setup, samples: Sequence, who: Identities, partial: Path) -> None:
        self.setup, self.samples, self.who, self.partial = setup, samples, who, partial
        self.kept = who.spread(min(setup.probes, len(samples)))
        self.found = restore(partial) or Measured(self.empty())
        self.began = self.saved = time.monotonic()
        self.lanes: queue.SimpleQueue[tuple[Lane, list[Collector]]] = queue.SimpleQueue()

    def empty(self) -> Collector:
        return Collector(self.setup.axes, histograms=self.setup.histograms)

    def go(self, report: Report) -> Measured:
        setup, found, total = self.setup, self.found, len(self.samples)
        waiting: deque[Future[_Ran]] = deque()
        own = [[self.empty()] for _ in range(setup.workers)]
        # Probes that the state counts but that did not reach the disk in time are run again by themselves.
        lost = [at for at, key in self.kept.items()
                if at < found.done and at not in found.skipped and not probe_file(self.partial, key).is_file()]
        begun = found.done
        report(Tick(begun, total, "loading the counting loops; the first time compiles them"))
        kernels()
        with Parts(setup.network, setup.model, tuple(setup.axes), setup.sizes, setup.parts) as parts, \
                ThreadPoolExecutor(setup.workers) as pool:
            for mine in own:
                self.lanes.put((parts.lane(), mine))
            try:
                for at in lost:
                    pool.submit(self._one, at, False).result()
                while found.done < total:
                    # The first by itself: it finds the shapes, with memory for which the others need not ask again.
                    many = setup.workers if parts.plans else 1
                    while begun < total and len(waiting) < many and not found.stopped:
                        waiting.append(pool.submit(self._one, begun))
                        begun += 1
                    if not waiting:
                        break
                    report(Tick(found.done, total, "calibrating"))
                    self._take(waiting.popleft().result())
                    if self._due(found.done):
                        while waiting:
                            self._take(waiting.popleft().result())
                        self._gather(own)
                        self._save()
                    found.stopped = found.stopped or self._limit()
            except BaseException as error:
                for future in waiting:
                    future.cancel()
                # A fault is found again at once; what a cancel would lose is worth keeping when it took a while.
                if not isinstance(error, BadInput) and time.monotonic() - self.saved > 2:
                    while waiting:
                        future = waiting.popleft()
                        if not future.cancelled():
                            self._take(future.result())
                    self._gather(own)
                    self._save()
                elif not (self.partial / _STATE).is_file():
                    wait([future for future in waiting if not future.cancelled()])  # they may write a probe yet
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise
        self._gather(own)
        if found.stopped:
            self._save()
        else:
            report(Tick(total, total, "calibrating"))
        return found

    def _one(self, at: int, counted: bool = True) -> _Ran:
        """Run one sample and count it in the collector of the thread that does."""
        lane, mine = self.lanes.get()
        try:
            feeds = dict(self.samples[at])
            skip = self.setup.bad_values == "skip"
            collector = self.empty() if skip or not counted else mine[0]
            before, fault = collector.bad(), None
            outputs: dict[str, np.ndarray] = {}
            for arrays in lane.run(feeds):
                collector.add(arrays, self.who.items[at])
                fault = fault or self._fault(collector, arrays, before, at)
                if at in self.kept:
                    outputs.update((name, np.array(arrays[name])) for name in self.setup.network.outputs
                                   if name in arrays)
                if fault and self.setup.bad_values != "count":
                    return _Ran(fault, skip)
            if counted and skip:
                mine[0].merge(collector)
            if at in self.kept:
                self._keep(at, feeds, outputs)
            return _Ran(fault, False)
        finally:
            self.lanes.put((lane, mine))

    def _fault(self, collector: Collector, arrays: Mapping[str, np.ndarray], before: dict, at: int) -> Fault | None:
        after = collector.bad()
        if after == before:
            return None
        for name in self.setup.axes:  # in topological order, so the first is where it began
            if name in arrays and after.get(name) != before.get(name):
                node = self.setup.network.producers.get(name)
                nan, infinite = (now - then for now, then in zip(after[name], before.get(name, (0, 0)), strict=True))
                return Fault(self.who.names[at], name, node.name if node else "", node.op_type if node else "", nan,
                             infinite)
        return None

    def _keep(self, at: int, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        path = probe_file(self.partial, self.kept[at])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, [*((f"in/{name}", np.asarray(array)) for name, array in feeds.items()),
                           *((f"out/{name}", outputs[name]) for name in self.setup.network.outputs)], compress=False)

    def _take(self, ran: _Ran) -> None:
        """Note how the next sample in order went."""
        found, fault = self.found, ran.fault
        if fault and self.setup.bad_values == "refuse":
            where = "look at the sample: its tensor is bad before the model runs" if not fault.node else \
                "look at what goes into that node"
            raise BadInput(f"In {fault}.", remedy=f"{where}; or leave such samples out with bad_values='skip', or "
                           "count them with bad_values='count' if the model means them (attention masks)")
        if fault:
            found.faults.append(fault)
        if ran.skipped:
            found.skipped.append(found.done)
        found.done += 1

    def _gather(self, own: list[list[Collector]]) -> None:
        for mine in own:
            self.found.collector.merge(mine[0])
            mine[0] = self.empty()

    def _due(self, done: int) -> bool:
        return done < len(self.samples) and time.monotonic() - self.saved >= CHECKPOINT_SECONDS

    def _save(self) -> None:
        self.partial.mkdir(parents=True, exist_ok=True)
        found = self.found
        about = json.dumps({"done": found.done, "skipped": found.skipped, "faults": [asdict(f) for f in found.faults]})
        save_arrays(self.partial / _STATE, {**found.collector.arrays(),
                                            "about": np.frombuffer(about.encode(), np.uint8)}.items())
        self.saved = time.monotonic()

    def _limit(self) -> str:
        setup = self.setup
        if self.found.done >= len(self.samples):
            return ""
        if setup.seconds and time.monotonic() - self.began >= setup.seconds:
            return f"the time limit of {setup.seconds:g} s was reached"
        if setup.memory and resident() >= setup.memory:
            return f"memory reached {bytes_text(resident())}, the limit is {bytes_text(setup.memory)}"
        return ""


def resident() -> int:
    """Bytes of memory of this process that are its own; files mapped into it do not count, they can be let go."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
    except (OSError, StopIteration):
        import psutil

        return psutil.Process(os.getpid()).memory_info().rss


def probe_file(partial: Path, key: str) -> Path:
    """Where a run keeps one probe sample."""
    return partial / f"probe-{key}.npz"


def restore(partial: Path) -> Measured | None:
    """The state that an earlier run left; None when there is none, or it cannot be read."""
    try:
        stored = load_arrays(partial / _STATE)
        about: dict[str, Any] = json.loads(stored.pop("about").tobytes().decode())
        return Measured(Collector.restore(stored), about["done"], [Fault(**f) for f in about["faults"]],
                        about["skipped"])
    except (OSError, ValueError, KeyError, EOFError):
        return None
