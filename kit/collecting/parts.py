"""A model run in consecutive parts, so that only one part's inner tensors are in memory at a time.

Each part is a graph of its own with the tensors to be measured as outputs; what later parts need is handed on. A sample
passes once through all parts: nothing is computed twice, whatever their number. ONNX Runtime writes into memory that
all parts share and every run uses again, and maps the weights from the model's own file.

A cut lies only where all that crosses it is measured anyway, or is no float32: ONNX Runtime fuses nodes across anything
else, and the answers of the parts shall be those of the whole to the last bit.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.int8.quantizable import Network
from kit.model import Model, external_files
from kit.need import need
from kit.record import explain_os_error
from kit.runner import check_feeds
from kit.runtimes.onnxruntime import LEVELS, explain

_ALIGNED = 64
#: Of each part, shape and type of every output.
Plans = list[dict[str, tuple[tuple[int, ...], np.dtype]]]


@dataclass(frozen=True)
class Span:
    """A part of a graph.

    Attributes:
        nodes: the first node's place and the place after the last.
        inputs: tensors it takes, the model's own inputs among them.
        outputs: tensors it hands out: those to be measured, the model's own outputs, and what later parts need.
        needed: those of the outputs that later parts need.
    """

    nodes: tuple[int, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    needed: frozenset[str]


def spans(network: Network, tensors: Collection[str], sizes: Mapping[str, int], count: int) -> tuple[Span, ...]:
    """Cut a network so that each part holds about the same bytes of measured tensors.

    Args:
        network: prepared.
        tensors: those to be measured.
        sizes: bytes of each, as far as known.
        count: how many parts; fewer come back where there is no place to cut.
    """
    reads = [_reads(node) for node in network.nodes]
    last = {name: at for at, names in enumerate(reads) for name in names}
    made = {name: at for at, node in enumerate(network.nodes) for name in node.output if name}
    types = _types(network)
    free = {value.name for value in network.proto.graph.input} | set(network.constants)
    watched, open_, held, running = set(tensors), set(), [], 0
    allowed = []  # places after which the graph may be cut
    for at, node in enumerate(network.nodes):
        open_ = {name for name in open_ if last.get(name, -1) > at}
        open_ |= {name for name in node.output if name and last.get(name, -1) > at}
        running += sum(sizes.get(name, 0) for name in node.output if name in watched)
        held.append(running)
        if all(name in watched or types.get(name, 1) not in (0, 1, 10, 11, 16) for name in open_):
            allowed.append(at)
    cuts = []
    for number in range(1, count):
        target = running * number / count
        rest = [at for at in allowed if at < len(held) - 1 and (not cuts or at > cuts[-1])]
        if rest:
            cuts.append(min(rest, key=lambda at: abs(held[at] - target)))
    found = []
    for begin, end in zip([0, *(cut + 1 for cut in cuts)], [*(cut + 1 for cut in cuts), len(reads)], strict=True):
        takes = dict.fromkeys(name for names in reads[begin:end] for name in names
                              if name not in network.constants and (name in free or made.get(name, begin) < begin))
        gives = [name for node in network.nodes[begin:end] for name in node.output if name]
        needed = frozenset(name for name in gives if last.get(name, -1) >= end)
        outputs = tuple(name for name in gives if name in watched or name in needed or name in network.outputs)
        found.append(Span((begin, end), tuple(takes), outputs, needed))
    return tuple(found)


class Parts:
    """A float model open for running part by part, by several threads at once; a context manager.

    Each run works on one core. Several samples at a time keep the cores busier than several cores on one sample, and
    the answer does not depend on how many there are.

    Args:
        network: prepared, best read by ``kit.weights_file.read_light``.
        model: the file it was read from.
        tensors: the tensors to hand out.
        sizes: bytes of each as far as known, to cut by.
        count: how many parts.
    """

    def __init__(self, network: Network, model: Model, tensors: Sequence[str], sizes: Mapping[str, int],
                 count: int) -> None:
        self.model, self.tensors = model, frozenset(tensors)
        self.plans: dict[tuple, Plans] = {}  # by the shapes of the inputs, found by the first run with them
        self.spans = spans(network, tensors, sizes, count)
        self._folder = tempfile.TemporaryDirectory(prefix="kit-parts-", ignore_cleanup_errors=True)
        try:
            folder = Path(self._folder.name)
            for weights in {model.path, *external_files(model.path, network.proto)}:
                _link(weights, folder / weights.relative_to(model.path.parent))
            self.sessions = [_session(network, span, folder / f"part{at}.kit.onnx")
                             for at, span in enumerate(self.spans)]
        except OSError as error:
            self._folder.cleanup()
            raise explain_os_error(error, self._folder.name) from error
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sessions = []
        self._folder.cleanup()

    def lane(self) -> Lane:
        """A place to run in, for one thread."""
        return Lane(self)


class Lane:
    """Memory to run in. Outputs are written to the same place in every run, as long as the shapes stay the same."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._shapes: tuple = ()
        self._memory = np.empty(0, np.uint8)
        self._bound: list[tuple[Any, dict[str, np.ndarray]]] = []

    def run(self, feeds: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Run once; yields the measured and the output tensors of part after part, those among the inputs first.

        The arrays are good until the next part is asked for; copy what shall be kept.

        Raises:
            BadInput: feeds that do not fit.
        """
        model, parts = self._parts.model, self._parts
        feeds = check_feeds(feeds, model.inputs, model.path.name)
        yield {name: array for name, array in feeds.items() if name in parts.tensors}
        shapes = tuple((name, array.shape) for name, array in sorted(feeds.items()))
        if shapes != self._shapes:
            self._shapes, self._bound = shapes, []
        if not self._bound and shapes in parts.plans:
            self._bind(parts.plans[shapes])
        bound, plans = self._bound, []
        held = dict(feeds)
        for at, span in enumerate(parts.spans):
            try:
                found = self._run(at, {name: held[name] for name in span.inputs})
                plans.append({name: (array.shape, array.dtype) for name, array in found.items()})
            except Exception as error:
                taken = {name: list(array.shape) for name, array in feeds.items()}
                raise BadInput(f"onnxruntime could not run {model.path.name} on {taken}.",
                               remedy="the details name the node; a shape the model cannot take is the usual cause",
                               detail=str(error)) from error
            held.update((name, found[name]) for name in span.needed)
            later = {name for span in parts.spans[at + 1 :] for name in span.inputs}
            held = {name: array for name, array in held.items() if name in later}
            yield found
            found = {}
        if not bound:
            parts.plans[shapes] = plans

    def _run(self, at: int, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        session, names = self._parts.sessions[at], list(self._parts.spans[at].outputs)
        if not self._bound:
            return dict(zip(names, session.run(names, feeds), strict=True))
        binding, places = self._bound[at]
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        try:
            session.run_with_iobinding(binding)
            return places
        except Exception:  # a shape follows from the values, and is another one now
            return dict(zip(names, session.run(names, feeds), strict=True))

    def _bind(self, plans: Plans) -> None:
        """Give every output a place in one piece of memory; a place is used again once nobody needs what it held."""
        parts = self._parts
        places, size = layout(parts.spans, [{name: _room(*about) for name, about in plan.items()} for plan in plans])
        if self._memory.size < size + _ALIGNED:
            self._memory = np.empty(0, np.uint8)  # let go before more is taken
            self._memory = np.empty(size + _ALIGNED, np.uint8)
        begin = -self._memory.ctypes.data % _ALIGNED
        for session, plan in zip(parts.sessions, plans, strict=True):
            binding, arrays = session.io_binding(), {}
            for name, (shape, dtype) in plan.items():
                at, length = begin + places[name], int(np.prod(shape)) * dtype.itemsize
                arrays[name] = self._memory[at : at + length].view(dtype).reshape(shape)
                binding.bind_output(name, "cpu", 0, dtype, shape, arrays[name].ctypes.data)
            self._bound.append((binding, arrays))


def layout(spans: Sequence[Span], rooms: Sequence[Mapping[str, int]]) -> tuple[dict[str, int], int]:
    """Where in one piece of memory each output lies, and how long that is: the first gap that is free.

    Args:
        spans: the parts.
        rooms: bytes of each output, part by part.
    """
    last = {name: at for at, span in enumerate(spans) for name in (*span.outputs, *span.inputs)}
    places: dict[str, int] = {}
    live: list[tuple[int, int, int]] = []  # begin, end, last part that needs it
    size = 0
    for at, wanted in enumerate(rooms):
        live = [piece for piece in live if piece[2] >= at]
        for name, room in wanted.items():
            begin = 0
            for other in sorted(live):
                if begin + room <= other[0]:
                    break
                begin = max(begin, other[1])
            places[name] = begin
            live.append((begin, begin + room, last[name]))
            size = max(size, begin + room)
    return places, size


def _room(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-int(np.prod(shape)) * dtype.itemsize // _ALIGNED) * _ALIGNED


def _session(network: Network, span: Span, path: Path) -> Any:
    ort = need("onnxruntime", to="run an ONNX model", extra="base")
    path.write_bytes(_graph(network, span).SerializeToString())
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel(LEVELS["all"])
    if _one_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    else:
        options.enable_cpu_mem_arena = False  # one for each part would keep what the others could use
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen kinds, none documented as stable
        raise explain(error, network.name, ort.__version__) from error


@functools.cache
def _one_arena() -> bool:
    """Let all parts take their memory from one place, which grows by no more than is asked for."""
    ort = need("onnxruntime", to="run an ONNX model", extra="base")
    try:
        about = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(about, ort.OrtArenaCfg(0, 1, -1, -1))
    except Exception:  # this process has registered one already, for purposes of its own
        return False
    return True


def _graph(network: Network, span: Span) -> Any:
    import onnx

    graph = network.proto.graph
    made = onnx.ModelProto(ir_version=network.proto.ir_version)
    made.opset_import.extend(network.proto.opset_import)
    made.functions.extend(network.proto.functions)
    known = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    part = made.graph
    part.name = graph.name or "part"
    part.node.extend(network.nodes[span.nodes[0] : span.nodes[1]])
    for node in part.node:
        _pool_alike(node, known, network, made)
    used = {name for node in part.node for name in _reads(node)}
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in used)
    own = {value.name for value in graph.input}
    for name in span.inputs:
        part.input.append(known[name] if name in own else
                          onnx.helper.make_tensor_value_info(name, known[name].type.tensor_type.elem_type, None))
    part.output.extend(known[name] if name in known else onnx.ValueInfoProto(name=name) for name in span.outputs)
    return made


def _pool_alike(node: Any, known: Mapping[str, Any], network: Network, made: Any) -> None:
    """Make a global pool a mean: ONNX Runtime sums a pool in another order when its input comes out of a cut."""
    import onnx

    about = known.get(node.input[0]) if node.op_type == "GlobalAveragePool" else None
    if about is None or not about.type.tensor_type.HasField("shape"):
        return
    axes = list(range(2, len(about.type.tensor_type.shape.dim)))
    node.op_type = "ReduceMean"
    if next(o.version for o in network.proto.opset_import if o.domain in ("", "ai.onnx")) >= 18:
        name = f"{node.output[0]}.kit.axes"
        node.input.append(name)
        made.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(axes)], axes))
    else:
        node.attribute.append(onnx.helper.make_attribute("axes", axes))


def _reads(node: Any) -> set[str]:
    """Tensors that a node reads, those that graphs inside it (If, Loop) take from around them included."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            inside = {name for inner in graph.node for name in inner.output} | {v.name for v in graph.input} | {
                t.name for t in graph.initializer}
            outer = {name for inner in graph.node for name in _reads(inner)} | {v.name for v in graph.output}
            found |= outer - inside
    return found


def _types(network: Network) -> dict[str, int]:
    graph = network.proto.graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
