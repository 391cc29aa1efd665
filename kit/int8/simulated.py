"""INT8 in float arithmetic, with a switch and a range at every place that INT8 would round: one session, any trial.

Trying a range or leaving a layer out by writing an INT8 model takes a new file and a new session each time. Here the
float graph gets QuantizeLinear and DequantizeLinear wherever the written INT8 model has them, with scale and zero point
as inputs of the graph and a switch behind them; weights are inputs too, fed as they are or rounded. A trial is one run.

Where INT8 rounds is not decided here: it is read off a model that ``qdq.write`` has made, edge by edge. What differs
from a session on that model is the order of additions: a value that falls between two levels may go to the other one,
and a deep model carries that on. Two runtimes, or two graph levels of one, differ from each other as much.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import UnsupportedModel, unknown
from kit.int8 import qdq
from kit.int8.quantizable import MOVERS, Network
from kit.model import Model
from kit.need import need
from kit.record import explain_os_error
from kit.runner import Runner, open_runner

Range = tuple[float, float]
Place = tuple[str, str]  # a tensor, and the node that reads it rounded; "" for an output of the model
_LIMIT = 2_000_000_000  # bytes of a protocol buffer, which the written model is held in
_SCALE, _ZERO, _ON, _FLOAT, _ROUNDED, _BIAS = "/scale", "/zero", "/on", "/float", "/rounded", "/bias"


class Simulated:
    """A float model that rounds as INT8 would, place by place; use it in a ``with`` block.

    Attributes:
        tensors: activations that are rounded, by their names in the float model, in topological order.
        weights: constants that are rounded.
        sources: activation -> the measured tensor whose range it takes; one that is always rounded to the same range
            (Softmax: 0 to 1) is not in it.
        readers: activation or constant -> the nodes that read it rounded; "" where it is an output of the model.

    Args:
        network: prepared, with its weights; unchanged.
        model: the file it was read from.
        ranges: ``(low, high)`` of the measured tensors, used where a call gives no other.
        nodes: names of the nodes that INT8 would take.
        recipe: how INT8 would be written.
        threads: processor cores to use.

    Raises:
        UnsupportedModel: the model holds more than 2 GB of weights.
        ToolFailed: ONNX Runtime's quantizer refuses the nodes.
    """

    def __init__(self, network: Network, model: Model, ranges: Mapping[str, Range], nodes: Collection[str],
                 recipe: qdq.Recipe, *, threads: int = 2) -> None:
        import onnx

        size = sum(4 * int(np.prod(tensor.dims)) for tensor in network.proto.graph.initializer)
        if size > _LIMIT:
            raise UnsupportedModel(
                f"{model.path.name} holds {size / 1e9:.1f} GB of weights; trying INT8 in one session takes up to 2 GB.",
                remedy="quantize with one range method, and compare the written models with kit.verify")
        self._network, self._dtype, self._ranges = network, recipe.activation, dict(ranges)
        marked = _distinct(ranges, self._dtype)
        places = _Places(network, qdq.write(network, marked, nodes, recipe))
        owner = {float(_parameters(*pair, self._dtype)[0]): name for name, pair in marked.items()}
        self.sources = {name: owner[float(scale)] for name, (scale, _) in places.activations.items()
                        if float(scale) in owner}
        self.tensors, self.weights, self.readers = tuple(places.activations), tuple(places.constants), places.readers
        self._fixed = {name: pair for name, pair in places.activations.items() if name not in self.sources}
        self._rounded, self._biases = places.constants, places.biases
        self._floats = {name: network.values(name) for name in self.weights}
        self._folder = tempfile.TemporaryDirectory(prefix="kit-simulated-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / model.path.name
        try:
            onnx.save_model(_switched(network, places, recipe.activation), str(path))
            self._runner: Runner = open_runner(path, threads=threads, spinning=False)
        except OSError as error:
            self._folder.cleanup()
            raise explain_os_error(error, path) from error
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Simulated:
        return self

    def __exit__(self, *exc: object) -> None:
        self._runner.close()
        self._folder.cleanup()

    def __call__(self, feeds: Mapping[str, np.ndarray], *, ranges: Mapping[str, Range] | None = None,
                 off: Collection[str | Place] = ()) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feeds: of the float model.
            ranges: of measured tensors, in place of those the session was made with.
            off: activations and constants that are not rounded: by name wherever they are read, or as a pair with
                the node that reads them.

        Returns:
            The model's outputs.

        Raises:
            BadInput: a name that is not rounded.
        """
        for entry in off:
            name = entry if isinstance(entry, str) else entry[0]
            if name not in self.readers:
                raise unknown("rounded tensor", name, self.readers)
        return self._runner({**feeds, **self._settings(ranges or {}, frozenset(off))})

    def without(self, nodes: Collection[str]) -> frozenset[Place]:
        """What to switch off so that only ``nodes`` are INT8: as ``qdq.write`` would write them, place by place.

        A node in INT8 reads its inputs rounded, and rounds what it makes for everyone who reads it. One that only
        moves values does so where they come as bytes.
        """
        kept, found = set(nodes), set()
        for node in self._network.nodes:
            if node.name in kept and node.op_type in MOVERS and not self._comes_rounded(node.input[0], kept):
                kept.discard(node.name)
        for name, readers in self.readers.items():
            maker = self._network.producers.get(name)
            made = maker is not None and maker.name in kept and not self._open_ended(maker, kept)
            found.update((name, reader) for reader in readers if not (reader in kept or made))
        return frozenset(found)

    def _comes_rounded(self, name: str, kept: set[str]) -> bool:
        maker, readers = self._network.producers.get(name), self._network.consumers[name]
        return (maker is not None and maker.name in kept) or any(
            node.name in kept and node.op_type not in MOVERS for node in readers)

    def _open_ended(self, maker: Any, kept: set[str]) -> bool:
        """Whether a product is answered in float because nobody reads it as bytes; see ``qdq_edits.open_ends``."""
        after = self._network.consumers.get(maker.output[0], ())
        read = {name for name in kept for name in self._network.by_name[name].input}
        return maker.op_type in ("MatMul", "Gemm") and bool(after) and not any(
            node.name in kept or read.intersection(node.output) for node in after)

    def _settings(self, ranges: Mapping[str, Range], off: frozenset[str | Place]) -> dict[str, np.ndarray]:
        """What the inputs that are not the model's own are fed with."""
        found = {}
        for name in self.tensors:
            source = self.sources.get(name)
            found[name + _SCALE], found[name + _ZERO] = self._fixed[name] if source is None else _parameters(
                *(ranges[source] if source in ranges else self._ranges[source]), self._dtype)
            for reader in self.readers[name]:
                found[_label(name, reader) + _ON] = np.array(name not in off and (name, reader) not in off)
        for name in self.weights:
            for reader in self.readers[name]:
                exact = name in off or (name, reader) in off
                found[_label(name, reader) + _ROUNDED] = (self._floats if exact else self._rounded)[name]
        for node, bias in self._biases.items():
            exact = any(name in off or (name, node) in off for name in (bias.tensor, bias.weights))
            found[node + _BIAS] = bias.values if exact else bias.round(found[bias.tensor + _SCALE])
        return found


def _label(name: str, reader: str) -> str:
    return f"{name} > {reader}"


@dataclass(frozen=True)
class _Bias:
    """A bias that INT8 stores on the grid of its node's products.

    Attributes:
        tensor: the activation that the node reads.
        weights: of the node.
        scale: of the weights, one or one a channel.
        values: as they are in the float model.
    """

    tensor: str
    weights: str
    scale: np.ndarray
    values: np.ndarray

    def round(self, scale: np.ndarray) -> np.ndarray:
        """The values on the grid that goes with a scale of the activation."""
        grid = scale * self.scale
        return np.clip(np.rint(self.values / grid), -(2.0**31), 2.0**31 - 1).astype(np.float32) * grid


class _Places:
    """What a QDQ model rounds, seen from the float model.

    Attributes:
        activations: tensor -> scale and zero point, in topological order.
        constants: tensor -> its values after rounding, float32.
        biases: node -> its bias, which is its third input.
        edges: (node, which input) -> the tensor read rounded there; an output of the model is ("", its name).
        readers: tensor -> the nodes that read it rounded.
    """

    def __init__(self, network: Network, written: Any) -> None:
        self._made = {output: node for node in written.graph.node for output in node.output}
        self._stored = {tensor.name: tensor for tensor in written.graph.initializer}
        self.constants: dict[str, np.ndarray] = {}
        self.biases: dict[str, _Bias] = {}
        self.edges: dict[tuple[str, int | str], str] = {}
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for node in written.graph.node:
            original = network.by_name.get(node.name)
            if original is not None:
                for at, (before, now) in enumerate(zip(original.input, node.input, strict=True)):
                    self._look(network, found, before, now, (node.name, at))
                self._look_at_bias(network, original, node)
        for name in network.outputs:
            self._look(network, found, name, name, ("", name))
        order = [value.name for value in network.proto.graph.input]
        order += [output for node in network.nodes for output in node.output]
        self.activations = {name: found[name] for name in order if name in found}
        readers: dict[str, dict[str, None]] = {name: {} for name in (*self.activations, *self.constants)}
        for (node, _), name in self.edges.items():
            readers[name][node] = None
        self.readers = {name: tuple(nodes) for name, nodes in readers.items()}

    def _look(self, network: Network, found: dict, before: str, now: str, edge: tuple[str, int | str]) -> None:
        """See how an edge that reads ``before`` in the float model reads it now."""
        restoring = self._made.get(now)
        if restoring is None or restoring.op_type != "DequantizeLinear":
            return
        values = self._stored.get(restoring.input[0])
        if values is None:
            rounding = self._made[restoring.input[0]]
            found[before] = self._array(rounding.input[1]), self._array(rounding.input[2])
        elif before not in network.constants or self._array(values.name).dtype.itemsize > 1:
            return  # a bias
        elif before not in self.constants:
            self.constants[before] = self._restored(restoring)
        self.edges[edge] = before

    def _look_at_bias(self, network: Network, original: Any, node: Any) -> None:
        import onnx

        restoring = self._made.get(node.input[2]) if len(node.input) > 2 else None
        stored = self._stored.get(restoring.input[0]) if restoring is not None else None
        both_rounded = (node.name, 0) in self.edges and (node.name, 1) in self.edges
        if both_rounded and stored is not None and stored.data_type == onnx.TensorProto.INT32:
            self.biases[node.name] = _Bias(
                original.input[0], original.input[1], self._array(self._made[node.input[1]].input[1]),
                network.values(original.input[2]))

    def _array(self, name: str) -> np.ndarray:
        import onnx

        return onnx.numpy_helper.to_array(self._stored[name])

    def _restored(self, node: Any) -> np.ndarray:
        """What a DequantizeLinear makes of a constant, float32."""
        values, scale, *zero = map(self._array, node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if at == axis % values.ndim else 1 for at in range(values.ndim)] if scale.size > 1 else []
        made = values.astype(np.float32)
        if zero and zero[0].any():
            made -= zero[0].astype(np.float32).reshape(shape)
        made *= scale.reshape(shape)
        return made


def _switched(network: Network, places: _Places, dtype: str) -> Any:
    """The float graph with a switch wherever INT8 rounds, as ``onnx.ModelProto``."""
    import onnx

    helper, kinds = onnx.helper, onnx.TensorProto
    proto = onnx.ModelProto(ir_version=network.proto.ir_version, opset_import=network.proto.opset_import,
                            functions=network.proto.functions)
    graph, given = proto.graph, network.proto.graph
    graph.name = given.name
    graph.input.extend(given.input)
    graph.output.extend(given.output)
    ends = {name for name in network.outputs if ("", name) in places.edges}  # these keep their names behind the switch
    byte = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def place(name: str, kind: int, dims: Sequence[int] = ()) -> str:
        graph.input.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def switch(name: str) -> None:
        parameters = place(name + _SCALE, kinds.FLOAT), place(name + _ZERO, byte)
        for reader in places.readers[name]:
            label = _label(name, reader)
            graph.node.append(_switch(name + _FLOAT if name in ends else name, name if not reader else label + _ROUNDED,
                                      place(label + _ON, kinds.BOOL), parameters))

    for value in given.input:
        if value.name in places.activations:
            switch(value.name)
    for tensor in given.initializer:
        for reader in places.readers.get(tensor.name, ()):
            place(_label(tensor.name, reader) + _ROUNDED, kinds.FLOAT, tensor.dims)
    for original in given.node:
        node = graph.node.add()
        node.CopyFrom(original)
        for at, name in enumerate(original.input):
            if (original.name, at) in places.edges:
                node.input[at] = _label(name, original.name) + _ROUNDED
            elif name in ends:
                node.input[at] = name + _FLOAT
        if original.name in places.biases:
            node.input[2] = place(original.name + _BIAS, kinds.FLOAT, network.constants[original.input[2]].dims)
        for at, name in enumerate(original.output):
            if name in ends:
                node.output[at] = name + _FLOAT
            if name in places.activations:
                switch(name)
    read = {name for node in graph.node for name in node.input} | set(network.outputs)
    nested = any(a.HasField("g") or a.graphs for node in given.node for a in node.attribute)
    for tensor in given.initializer:
        if tensor.name in read or nested:  # a graph inside a node may read any tensor
            inside = tensor.data_location != kinds.EXTERNAL
            graph.initializer.append(tensor if inside else onnx.numpy_helper.from_array(
                np.asarray(network.values(tensor.name)), tensor.name))
    return proto


def _switch(before: str, after: str, is_on: str, parameters: tuple[str, str]) -> Any:
    """The node that rounds a tensor or lets it pass.

    If runs one of its two graphs. Where, measured in its place, makes a run twice as long, for it needs both.
    """
    import onnx

    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    stored, back, same = (f"{after}/{part}" for part in ("bytes", "back", "same"))
    rounding = [make("QuantizeLinear", [before, *parameters], [stored]),
                make("DequantizeLinear", [stored, *parameters], [back])]
    return make("If", [is_on], [after], f"{after}/switch",
                then_branch=onnx.helper.make_graph(rounding, "on", [], [info(back, 1, None)]),
                else_branch=onnx.helper.make_graph([make("Identity", [before], [same])], "off", [],
                                                   [info(same, 1, None)]))


@functools.lru_cache(maxsize=1 << 14)
def _parameters(low: float, high: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of a range, as ONNX Runtime's quantizer works them out."""
    tool = need("onnxruntime.quantization.quant_utils", to="try INT8 ranges", extra="base")
    limits = np.iinfo(dtype)
    zero, scale = tool.compute_scale_zp(np.float32(low), np.float32(high), np.array(limits.min, dtype),
                                        np.array(limits.max, dtype))
    return np.asarray(scale, np.float32), np.asarray(zero, dtype)


def _distinct(ranges: Mapping[str, Range], dtype: str) -> dict[str, Range]:
    """The ranges, some widened by a hair so that no two have the same scale: a written scale then tells whose it is."""
    found: dict[str, Range] = {}
    taken: set[float] = set()
    for name, (low, high) in ranges.items():
        if high - low < 256 * np.finfo(np.float32).tiny:  # the quantizer takes such a tensor for zero, and scale 1
            low, high = 0.0, 255.0
        while (scale := float(_parameters(low, high, dtype)[0])) in taken:
            low, high = low * (1 + 2**-20), high * (1 + 2**-20)
        taken.add(scale)
        found[name] = low, high
    return found
