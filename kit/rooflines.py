"""A roofline forecast: how long each layer would take on a chip at best, and what holds it up. Nothing is run.

A layer takes as long as the slowest of four: its products in the matrix units (cube), its other arithmetic in the
vector units, its bytes through the memory, and through the L2 cache (Williams, Waterman, Patterson 2009). Real layers
take longer: kernels start, tiles do not fit, units wait for each other. So the figures are a floor and a sense of
proportion, never a measurement, and are labelled a forecast wherever they are seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Annotated, Any, Literal

from kit.card import Card, Table, bytes_text
from kit.describing import forms, layouts
from kit.describing.net import Net, Piece, net_of
from kit.inspection.costs import cost
from kit.inspection.findings import counted
from kit.inspection.graph import Graph, Node, Tensor, graph_of, onnx_source
from kit.options import Help, Options, Range, expect
from kit.targets.ascend.speed import Speed, speed

__all__ = ["LayerForecast", "Roofline", "RooflineOptions", "roofline"]

Limit = Literal["cube", "vector", "memory", "L2", "unknown"]
FINE_PRINT = ("A forecast from published figures: nothing was run. Each layer is taken at the peak of one part of the "
              "chip; weights, inputs and outputs go through the memory once, other tensors through L2 where those of "
              "the layer fit. Starting kernels, tiles that do not fit, operators on AI CPU and copies to the host are "
              "not in it: real times are longer.")
_FLOATS = ("float32", "float16", "bfloat16", "float64")
_FREE = frozenset({"reshape", "shape", "constant", "identity"})  # no numbers are moved or made


@dataclass(frozen=True)
class RooflineOptions(Options):
    """What the forecast is for."""

    precision: Annotated[Literal["fp16", "int8"], Help(
        "Of convolutions and matrix products, and of what they read and write. All else is taken in fp16.")] = "fp16"
    bind: Annotated[tuple[str, ...], Help("Sizes for open axes, such as x=1,3,48,320.")] = ()
    bandwidth: Annotated[float | None, Range(0.1, 100_000), Help(
        "Of the chip's memory in GB/s; empty: what a document says, where one does.")] = None
    fuse: Annotated[bool, Help("Take a convolution and its activation, and other usual groups, as one layer.")] = True
    padding: Annotated[bool, Help("Count channels as the matrix units do: in blocks of 16 (32 in int8).")] = True


@dataclass(frozen=True)
class LayerForecast:
    """What is forecast for one layer.

    Attributes:
        name: of its last node in the file.
        operator: ONNX operators in it, ``Conv+Relu``.
        nodes: names of all its nodes.
        shapes: of its first input and its result.
        macs: products it needs.
        padded_macs: products that the matrix units make for it.
        operations: other arithmetic.
        bytes: read from and written to the memory.
        cached: read from and written to the L2 cache instead.
        cube_us, vector_us: microseconds in the matrix and vector units.
        memory_us, cache_us: microseconds in the memory and in L2; None where no bandwidth is known.
        limit: what it waits for; ``unknown`` where a shape is missing.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    shapes: str
    macs: int
    padded_macs: int
    operations: int
    bytes: int
    cached: int
    cube_us: float
    vector_us: float
    memory_us: float | None
    cache_us: float | None
    limit: Limit

    @property
    def us(self) -> float:
        """The forecast: the longest of the four, in microseconds."""
        return max(self.cube_us, self.vector_us, self.memory_us or 0.0, self.cache_us or 0.0)

    @property
    def flops(self) -> int:
        """Twice the products, where there are any; the arithmetic beside them is hidden behind them."""
        return 2 * self.macs or self.operations

    @property
    def intensity(self) -> float:
        """Operations for each byte moved, through whatever; 0 where nothing is moved."""
        moved = self.bytes + self.cached
        return self.flops / moved if moved else 0.0


@dataclass(frozen=True)
class Roofline(Card):
    """A forecast, layer by layer. It is no measurement and is never mixed with one.

    Attributes:
        file: of the model.
        speed: of the chip, with the source of every figure.
        precision: of the matrix units.
        bound: the input sizes it is for.
        layers: in the order of computation.
        unknown: nodes without a known shape, which are not in it.
        inside: nodes in bodies of If, Loop and Scan, which are not in it.
        kind: always ``forecast``.
    """

    file: str
    speed: Speed
    precision: str
    bound: dict[str, str]
    layers: tuple[LayerForecast, ...] = field(repr=False)
    unknown: int
    inside: int
    kind: Literal["forecast"] = "forecast"

    @property
    def ms(self) -> float:
        """Milliseconds of all layers, one after the other."""
        return sum(layer.us for layer in self.layers) / 1000

    def shares(self) -> dict[str, float]:
        """Limiting factor -> part of the time, the largest first."""
        total = self.ms * 1000 or 1.0
        found: Counter[str] = Counter()
        for layer in self.layers:
            found[layer.limit] += layer.us / total
        return dict(found.most_common())

    def title(self) -> str:
        return (f"FORECAST, not measured: {self.file} on {self.speed.chip} in {self.precision}, at least "
                f"{self.ms:.3g} ms a run")

    def facts(self) -> dict[str, object]:
        macs, padded = (sum(getattr(layer, name) for layer in self.layers) for name in ("macs", "padded_macs"))
        unit = "TOPS" if self.precision == "int8" else "TFLOPS"
        said = {
            "kind": "forecast",
            "at": "; ".join(f"{name}={shape}" for name, shape in self.bound.items()),
            "limited by": ", ".join(f"{name} {share:.0%}" for name, share in self.shares().items()) or "nothing",
            "peak of the matrix units": f"{2 * self.speed.cube / 1e12:.1f} {unit}: {self.speed.sources['cube']}",
            "peak of the vector units": f"{self.speed.vector / 1e12:.2f} TFLOPS: {self.speed.sources['vector']}",
            "memory": f"{_rate(self.speed.memory)}: {self.speed.sources['memory']}",
            "L2 cache": f"{bytes_text(self.speed.cache_size)}, {_rate(self.speed.cache)}: "
                        f"{self.speed.sources['cache']}",
            "products": f"{macs / 1e9:.3g} G, {padded / max(macs, 1):.2f} times that in blocks of "
                        f"{'x'.join(map(str, self.speed.block))}",
        }
        left = [counted(self.unknown, "node") + " of unknown shape"] if self.unknown else []
        left += [counted(self.inside, "node") + " in bodies of If, Loop or Scan"] if self.inside else []
        return {**said, **({"not in it": "; ".join(left)} if left else {}), "fine print": FINE_PRINT}

    def tables(self) -> Sequence[Table]:
        total = self.ms * 1000 or 1.0
        slow = sorted(self.layers, key=lambda layer: -layer.us)
        rows = tuple((layer.name, layer.operator, f"{layer.us:.2f}", f"{layer.us / total:.1%}", layer.limit,
                      f"{layer.cube_us:.2f}", f"{layer.vector_us:.2f}",
                      _us(layer.memory_us), _us(layer.cache_us), f"{layer.intensity:.1f}", layer.shapes)
                     for layer in slow)
        return (Table("FORECAST of every layer, the longest first (microseconds, not measured)", (
            "layer", "operators", "us", "share", "limited by", "cube us", "vector us", "memory us", "L2 us",
            "FLOP/byte", "shapes"), rows),)


def roofline(model: Any, chip: str, options: RooflineOptions = RooflineOptions()) -> Roofline:
    """Forecast how long each layer of a model would take on a chip at best, and what limits it.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        chip: its soc_version, such as ``"ascend310p3"``.
        options: precision, sizes, and the memory's bandwidth where you know it.

    Returns:
        Roofline: labelled a forecast everywhere.

    Raises:
        BadInput: the file cannot be read, or there is no such chip or input.
        UnsupportedModel: nothing is known about the speed of the chip's cores.
    """
    expect(RooflineOptions, options)
    peaks = speed(chip, options.precision, options.bandwidth)
    graph = graph_of(onnx_source(model, "roofline").graph, options.bind)
    net = net_of(graph)
    named = {node.name: node for node in graph.nodes}
    changes = [named[name] for name in layouts.settle(net)]
    forms.merge(net)
    counter = _Counter(net, peaks, options)
    layers = [counter.layer(pieces) for pieces in _groups(net, options.fuse)]
    layers += [counter.moved(node) for node in changes]
    place = {node.name: at for at, node in enumerate(graph.nodes)}
    layers.sort(key=lambda layer: place[layer.name])
    known = [layer for layer in layers if layer.limit != "unknown"]
    return Roofline(graph.path.name, peaks, options.precision,
                    {name: "x".join(map(str, shape)) for name, shape in graph.bound.items()},
                    tuple(layer for layer in known if layer.us),
                    sum(len(layer.nodes) for layer in layers) - sum(len(layer.nodes) for layer in known),
                    _inside(graph))


def _rate(bandwidth: float | None) -> str:
    return "not known, so not in the forecast" if bandwidth is None else f"{bandwidth / 1e9:.0f} GB/s"


def _us(time: float | None) -> str:
    return "not known" if time is None else f"{time:.2f}"


def _inside(graph: Graph) -> int:
    return sum(bool(node.scope) for node in graph.nodes)


def _groups(net: Net, fuse: bool) -> list[list[Piece]]:
    """The pieces of each layer, in order; those that move and make nothing are left out."""
    together = forms.grouped(net) if fuse else {}
    found: dict[object, list[Piece]] = {}
    for piece in net.pieces:
        if piece.operator not in _FREE:
            found.setdefault(together.get(piece, piece), []).append(piece)
    return list(found.values())


class _Counter:
    """Counts the work of layers and turns it into time."""

    def __init__(self, net: Net, peaks: Speed, options: RooflineOptions) -> None:
        self.net, self.peaks, self.options = net, peaks, options
        self.readers = net.readers()
        self.outside = {*net.graph.bound, *net.results.values()}

    def layer(self, pieces: list[Piece]) -> LayerForecast:
        nodes = [node for piece in pieces for node in piece.nodes]
        inside = Counter(name for piece in pieces for name in piece.inputs)
        made = [name for piece in pieces for name in piece.outputs]
        reads = [name for name in inside if name and name not in made]
        writes = [name for name in made if self.readers[name] > inside[name]]
        products = [(node, cost(node).macs) for node in nodes]
        heavy = any(macs for _, macs in products)
        blocks = [padded(node, macs, self.peaks.block) if self.options.padding else macs for node, macs in products]
        return self._forecast(nodes, sum(macs for _, macs in products), sum(blocks),
                              sum(_operations(piece) for piece in pieces), [*reads, *writes], heavy)

    def moved(self, node: Node) -> LayerForecast:
        """A Transpose that only changes the layout: it still has to be done."""
        return self._forecast([node], 0, 0, 0, [t.name for t in (*node.inputs, *node.outputs) if t is not None], False)

    def _bytes(self, name: str, heavy: bool) -> int:
        tensor = self.net.tensors.get(name)
        if tensor is None or not tensor.elements:
            return 0
        if tensor.dtype not in _FLOATS:
            return tensor.bytes
        count = tensor.elements
        is_inner = name not in self.outside and not tensor.constant
        if self.options.padding and is_inner and self.net.layouts.get(name) == layouts.FIRST:
            channels, depth = tensor.shape[1], self.peaks.block[2]  # type: ignore[index]
            count = count // channels * _up(channels, depth)
        return count * (1 if heavy and self.options.precision == "int8" else 2)

    def _forecast(self, nodes: list[Node], macs: int, padded_macs: int, operations: int, names: list[str],
                  heavy: bool) -> LayerForecast:
        first, last = nodes[0], nodes[-1]
        stays = {name: self._bytes(name, heavy) for name in names
                 if name not in self.outside and not self.net.is_constant(name)}
        cached = sum(stays.values())
        moved = sum(self._bytes(name, heavy) for name in names) - cached
        if not self.peaks.cache or cached > self.peaks.cache_size:
            moved, cached = moved + cached, 0
        peaks = {"cube": (padded_macs, self.peaks.cube), "vector": (operations, self.peaks.vector),
                 "memory": (moved, self.peaks.memory), "L2": (cached, self.peaks.cache)}
        times: dict[Any, float] = {name: work / peak * 1e6 for name, (work, peak) in peaks.items() if peak}
        known = all(t.elements is not None for node in nodes for t in (*node.inputs[:1], *node.outputs)
                    if t is not None)
        return LayerForecast(
            last.name, "+".join(dict.fromkeys(node.label for node in nodes)), tuple(node.name for node in nodes),
            f"{first.input(0) or ''} -> {last.outputs[0] if last.outputs else ''}", macs, padded_macs, operations,
            moved, cached, times["cube"], times["vector"], times.get("memory"), times.get("L2"),
            max(times, key=lambda name: times[name]) if known else "unknown")


def _operations(piece: Piece) -> int:
    """Arithmetic outside the matrix units. What is folded into a convolution or matrix product costs nothing more."""
    costs = [cost(node) for node in piece.nodes]
    return 0 if any(c.macs for c in costs) else sum(c.flops for c in costs)


def padded(node: Node, macs: int, block: tuple[int, int, int]) -> int:
    """Products that matrix units make for a node when every side of its matrices is rounded up to their block.

    A convolution is a product of pixels x (kernel x channels) by (kernel x channels) x channels out. Groups with fewer
    channels than a block share one, so that a depthwise kernel costs a sixteenth of what a full one does.
    """
    m, n, k = block
    x, w, y = node.input(0), node.input(1), node.outputs[0] if node.outputs else None
    if x is None or w is None or y is None or not all(_known(t) for t in (x, w, y)):
        return macs
    if node.operator in ("Conv", "ConvTranspose"):
        groups = int(node.attributes.get("group", 1))
        kernel = prod(w.shape[2:])
        transposed = node.operator == "ConvTranspose"
        pixels = x.shape[0] * prod((x if transposed else y).shape[2:])
        into, out = (w.shape[0] // groups, w.shape[1]) if transposed else (w.shape[1], w.shape[0] // groups)
        share = max(1, k // into)  # groups in one block
        blocks = -(-groups // share)
        depth, width = kernel * _up(into * min(share, groups), k), out * min(share, groups)
        if transposed:  # the kernel widens the result instead of the depth
            depth, width = _up(into * min(share, groups), k), kernel * width
        return blocks * _up(pixels, m) * depth * _up(width, n)
    if node.operator in ("MatMul", "Gemm"):
        inner = macs // max(1, y.elements or 1)
        batch = prod(y.shape[:-2]) if len(w.shape) > 2 else 1
        rows = (y.elements or 0) // max(1, batch * y.shape[-1])
        return batch * _up(rows, m) * _up(inner, k) * _up(y.shape[-1], n)
    return macs


def _known(tensor: Tensor) -> bool:
    return bool(tensor.elements) and len(tensor.shape or ()) > 0


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
