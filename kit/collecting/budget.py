"""What a calibration will take, before it runs: sizes of the tensors, and from them parts, threads and memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.card import bytes_text
from kit.collecting.counting import SLOTS
from kit.collecting.histogram import BINS
from kit.collecting.measuring import resident
from kit.collecting.parts import Parts, Span, layout, spans
from kit.errors import UnsupportedModel
from kit.inspection.stand_ins import infer_shapes
from kit.int8.quantizable import Network
from kit.model import Model
from kit.weights_file import weights_bytes

PART_BYTES = 8_000_000  # of measured tensors in a part: they are counted while the processor's cache still has them
MOST_PARTS = 64
# Measured on Linux, x86-64: what loading the libraries and opening a session adds to a process.
_LIBRARIES = {"onnx": 10_000_000, "onnxruntime": 45_000_000, "numba": 130_000_000}
_SESSION = 1_500_000
_TABLES = 4 * BINS * 2  # of the counting loop, a thread


@dataclass(frozen=True)
class Budget:
    """How a calibration is run, and what memory it takes.

    Attributes:
        parts: how many parts the model is run in.
        workers: how many samples at a time.
        sizes: bytes of each measured tensor for one sample.
        activations: bytes of the largest part's tensors, with what is handed on.
        state: bytes of the counts.
        weights: bytes of the model's constants.
        memory: bytes of the process at its peak.
        grows: bytes of that which the calibration adds.
    """

    parts: int
    workers: int
    sizes: dict[str, int]
    activations: int
    state: int
    weights: int
    memory: int
    grows: int


def budget(network: Network, model: Model, axes: Mapping[str, int], feeds: Mapping[str, np.ndarray], *, parts: int,
           workers: int, limit: int, histograms: bool = True) -> Budget:
    """Choose parts and threads so that the memory stays below a limit.

    Args:
        network: prepared graph.
        model: its file.
        axes: tensors to measure, see ``Collector``.
        feeds: the first sample; the others are taken to be alike.
        parts: how many; 0 to choose.
        workers: how many samples at a time, at most.
        limit: bytes of memory this process may come to.
        histograms: see ``CalibrateOptions``.

    Raises:
        UnsupportedModel: even the smallest way takes more than the limit; says how much.
    """
    sizes = tensor_sizes(network, model, tuple(axes), feeds)
    usual = min(MOST_PARTS // 2, max(1, -(-sum(sizes.values()) // PART_BYTES)))
    tries = [(count, many) for many in range(workers, 0, -1)
             for count in ([parts] if parts else [usual, min(2 * usual, MOST_PARTS), MOST_PARTS])]
    found = [_weigh(network, model, axes, sizes, feeds, count, many, histograms) for count, many in tries[:1]]
    for count, many in tries[1:]:
        if found[-1].memory <= limit:
            break
        found.append(_weigh(network, model, axes, sizes, feeds, count, many, histograms))
    best = found[-1] if found[-1].memory <= limit else min(found, key=lambda way: way.memory)
    if best.memory > limit:
        raise UnsupportedModel(
            f"Calibrating {model.path.name} would take {bytes_text(best.memory)} of memory, of which "
            f"{bytes_text(best.workers * best.activations)} for the tensors of one part; the limit is "
            f"{bytes_text(limit)}.",
            remedy=("let passes=0 choose, or raise passes" if parts else "give smaller samples (fewer items a batch, a "
                    "smaller picture), or free memory") + "; or raise memory_limit_mb")
    return best


def tensor_sizes(network: Network, model: Model, tensors: Sequence[str], feeds: Mapping[str, np.ndarray]
                 ) -> dict[str, int]:
    """Bytes of each tensor for one sample: by shape inference where that reaches, else by a run."""
    shapes = _inferred(network, feeds)
    missing = [name for name in tensors if name not in shapes]
    if missing:
        with Parts(network, model, tensors, dict.fromkeys(tensors, 1), min(16, len(tensors))) as parts:
            for arrays in parts.lane().run(feeds):
                shapes.update((name, array.shape) for name, array in arrays.items() if name in missing)
    return {name: 4 * int(np.prod(shapes[name], dtype=np.int64)) for name in tensors}


def _inferred(network: Network, feeds: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        if value.name in feeds:
            kind = value.type.tensor_type
            kind.shape.CopyFrom(onnx.TensorShapeProto())
            for size in np.shape(feeds[value.name]):
                kind.shape.dim.add().dim_value = size
    for value in proto.graph.output:  # what is said of them may be of another input size
        value.type.tensor_type.ClearField("shape")
    try:
        proto = infer_shapes(proto)
    except Exception:  # then a run tells
        return {}
    found = {}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            found[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return found


def _weigh(network: Network, model: Model, axes: Mapping[str, int], sizes: dict[str, int],
           feeds: Mapping[str, np.ndarray], parts: int, workers: int, histograms: bool) -> Budget:
    cut = spans(network, tuple(axes), sizes, parts)
    activations = max(_held(cut, at, sizes) for at in range(len(cut)))
    channels = sum(_channels(network, name, axis) for name, axis in axes.items())
    state = channels * (8 * SLOTS + 16) + (len(axes) * 8 * BINS * 5 // 8 if histograms else 0)
    weights = weights_bytes(network.proto)
    sample = sum(np.asarray(array).nbytes for array in feeds.values())
    libraries = sum(size for name, size in _LIBRARIES.items() if name not in sys.modules)
    # Of a thread: the place for all that is handed out, and what ONNX Runtime needs inside of the largest part, where
    # a tensor is once more as large (in the order of its kernels). The first run also keeps its outputs. Twice the
    # weights: as they lie in the file, and in the order ONNX Runtime computes in. The last count is the merged state,
    # twice to be written.
    _, places = layout(cut, [{name: sizes.get(name, 0) for name in span.outputs} for span in cut])
    lane = places + activations + 2 * sample + _TABLES
    grows = libraries + 2 * weights + len(cut) * _SESSION + activations + workers * lane + (workers + 2) * state
    return Budget(parts, workers, sizes, activations, state, weights, _resident_all() + grows, grows)


def _held(cut: Sequence[Span], at: int, sizes: Mapping[str, int]) -> int:
    later = {name for span in cut[at + 1 :] for name in span.inputs}
    handed = {name for span in cut[:at] for name in span.needed if name in later or name in cut[at].inputs}
    return sum(sizes.get(name, 0) for name in {*handed, *cut[at].outputs})


def _channels(network: Network, name: str, axis: int) -> int:
    if not axis:
        return 0
    value = next((v for v in (*network.proto.graph.value_info, *network.proto.graph.input, *network.proto.graph.output)
                  if v.name == name), None)
    dims = value.type.tensor_type.shape.dim if value is not None else ()
    return dims[axis].dim_value if len(dims) >= 2 else 0


def _resident_all() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))
    except (OSError, StopIteration):
        return resident()


def memory_limit(megabytes: int) -> int:
    """Bytes this process may come to: what is asked for, or nine tenths of what is free."""
    if megabytes:
        return megabytes * 1_000_000
    import psutil

    return _resident_all() + int(0.9 * psutil.virtual_memory().available)
