"""From what a run has counted to a calibration on the disk; and several of those to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.collecting.arrays import load_arrays, save_arrays
from kit.collecting.collector import Collector
from kit.collecting.histogram import Extremes, Histogram
from kit.collecting.measuring import Identities, Measured, Setup, probe_file
from kit.collecting.result import Calibration, TensorStatistics
from kit.errors import BadInput
from kit.int8.quantizable import Network
from kit.int8.ranges import percentile
from kit.record import fingerprint

_PROBE_BYTES = 64_000_000  # inputs and outputs kept to compare by


def written(setup: Setup, measured: Measured, who: Identities, folder: Path, partial: Path) -> Calibration:
    """Write what a run has counted.

    Args:
        setup: of the run.
        measured: what it found.
        who: the samples.
        folder: where the files go.
        partial: where the run kept its probes.

    Raises:
        BadInput: every sample was left out.
    """
    network, model, collector = setup.network, setup.model, measured.collector
    if len(measured.skipped) == measured.done and measured.done:
        raise BadInput("Every sample made values that are not finite, so nothing was measured.",
                       remedy="run one sample through the float model: " + str(measured.faults[0]))
    collector.save(folder / "statistics.npz")
    makers = {name: network.producers.get(name) for name in collector.tensors}
    counted = [at for at in range(measured.done) if at not in set(measured.skipped)]
    names = {key: name for key, name in who.named().items() if any(key in who.items[at] for at in counted)}
    return Calibration(
        model=model.digest(), model_name=model.path.name, statistics=folder / "statistics.npz",
        probe=_save_probes([probe_file(partial, key) for key in who.spread(setup.probes).values()], folder),
        samples=len(counted), samples_digest=who.digest,
        tensors=tuple(_describe(node.name if node else "", node.op_type if node else "input", name,
                                collector.tensors[name]) for name, node in makers.items()),
        faults=tuple(measured.faults), left_out=tuple(who.names[at] for at in measured.skipped),
        notes=_notes(network, collector), complete=not measured.stopped, stopped=measured.stopped,
        with_histograms=setup.histograms, sample_names=names)


def _save_probes(found: Iterable[Path], folder: Path) -> Path | None:
    paths = [path for path in found if path.is_file()]
    paths = [path for at, path in enumerate(paths)
             if not at or sum(p.stat().st_size for p in paths[: at + 1]) <= _PROBE_BYTES]
    if not paths:
        return None

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        yield "count", np.array(len(paths))
        for at, path in enumerate(paths):
            for name, array in load_arrays(path).items():
                yield f"{at}/{name}", array

    save_arrays(folder / "probe.npz", arrays(), compress=False)
    return folder / "probe.npz"


def _merge_probes(parts: Sequence[Calibration], folder: Path) -> Path | None:
    kept = [probe for part in parts for probe in part.probes()]
    if not kept:
        return None
    wanted = max(len(list(part.probes())) for part in parts)
    kept = [kept[at * len(kept) // wanted] for at in range(wanted)]
    save_arrays(folder / "probe.npz", [("count", np.array(len(kept))), *(
        (f"{at}/{side}/{name}", array) for at, sides in enumerate(kept)
        for side, part in zip(("in", "out"), sides, strict=True) for name, array in part.items())], compress=False)
    return folder / "probe.npz"


def merged(parts: Sequence[Calibration], names: dict[str, str], folder: Path) -> Calibration:
    """Write the sum of calibrations of one model.

    Args:
        parts: of different samples.
        names: of all samples, by their digests.
        folder: where the files go.
    """
    first, whole = parts[0], Collector.load(parts[0].statistics)
    for part in parts[1:]:
        whole.merge(Collector.load(part.statistics))
    whole.save(folder / "statistics.npz")
    about = {t.name: t for t in first.tensors}
    return dataclasses.replace(
        first, statistics=folder / "statistics.npz", probe=_merge_probes(parts, folder),
        samples=sum(p.samples for p in parts), samples_digest=fingerprint(sorted(names)),
        tensors=tuple(_describe(about[n].node, about[n].operator, n, w) for n, w in whole.tensors.items()),
        faults=tuple(f for p in parts for f in p.faults), left_out=tuple(n for p in parts for n in p.left_out),
        notes=tuple(dict.fromkeys([f"{len(parts)} calibrations merged.", *(n for p in parts for n in p.notes)])),
        complete=all(p.complete for p in parts), stopped="; ".join(p.stopped for p in parts if p.stopped),
        sample_names=names, provenance=None)


def _describe(node: str, operator: str, name: str, watched: Any) -> TensorStatistics:
    kept = watched.histogram
    seen = kept.elements
    return TensorStatistics(name, node, operator, seen, kept.minimum if seen else 0.0, kept.maximum if seen else 0.0,
                            kept.occupied, kept.nan, kept.infinite, _is_stretched(kept))


def _is_stretched(kept: Histogram | Extremes) -> bool:
    """Whether 99.9 % of the values lie in a 64th of the range."""
    if not isinstance(kept, Histogram) or not kept.elements or kept.minimum == kept.maximum:
        return False
    low, high = percentile(kept, 99.9)
    return high - low < (kept.maximum - kept.minimum) / 64


def _notes(network: Network, collector: Collector) -> tuple[str, ...]:
    notes, kept = [], {name: watched.histogram for name, watched in collector.tensors.items()}
    empty = [name for name, found in kept.items() if not found.elements]
    if empty:
        notes.append(f"{len(empty)} tensors never held a value ({', '.join(empty[:3])}): their nodes stay in float.")
    zero = [name for name, found in kept.items() if found.elements and found.minimum == found.maximum == 0]
    if zero:
        notes.append(f"{len(zero)} tensors are zero for every sample ({', '.join(zero[:3])}).")
    folded = sum(node.op_type == "BatchNormalization" for node in network.nodes)
    if folded:
        notes.append(f"{folded} BatchNormalization nodes are not folded: run kit.fix first.")
    return tuple(notes)
