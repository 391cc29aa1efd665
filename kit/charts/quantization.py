"""Charts of INT8: error by layer, what each group costs, weights before and after, where the bytes are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kit.calibration import model_of
from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.errors import unknown
from kit.layers import LayerErrors, Sensitivity
from kit.model import read
from kit.need import need
from kit.quantization import Quantized


def layer_error_bars(errors: LayerErrors, *, count: int = 20) -> Chart:
    """Signal-to-noise ratio of the tensors farthest from float, worst at the top, beside rounding each alone.

    Args:
        errors: what ``layer_errors`` found.
        count: how many tensors are shown.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    rows = errors.worst(count)[::-1]
    names = [f"{row.tensor} ({row.operator})" for row in rows]
    figure = go.Figure([
        go.Bar(y=names, x=[row.sqnr for row in rows], orientation="h", name="as it is in the INT8 model"),
        go.Scatter(y=names, x=[row.own for row in rows], mode="markers", name="this tensor rounded alone",
                   marker={"symbol": "diamond", "size": 9})])
    figure.update_layout(title={"text": "Tensors farthest from float"}, height=160 + 22 * len(rows),
                         xaxis={"title": {"text": "signal-to-noise ratio, dB (more is better)"}},
                         yaxis={"type": "category"})
    if not rows:
        return Chart(figure, "No tensor is in both models.")
    worst, best = rows[-1], rows[0]
    return Chart(figure, f"Bars of the signal-to-noise ratio of {len(rows)} of {len(errors.rows)} tensors against "
                 f"float. Worst: {worst.tensor} after {worst.operator}, {worst.sqnr:.1f} dB; the best of those shown "
                 f"has {best.sqnr:.1f} dB. Diamonds show what rounding the tensor alone would do.")


def error_path(errors: LayerErrors) -> Chart:
    """The error along the network, first tensor to last: where it falls, INT8 has lost something."""
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    figure = go.Figure(go.Scatter(
        x=list(range(len(errors.rows))), y=[row.sqnr for row in errors.rows], mode="lines+markers",
        text=[f"{row.tensor} ({row.operator})" for row in errors.rows], name="as it is", marker={"size": 4}))
    figure.update_layout(title={"text": "Error along the network"}, xaxis={"title": {"text": "tensor, first to last"}},
                         yaxis={"title": {"text": "signal-to-noise ratio, dB"}})
    steps = errors.drops(1)
    fall = f" The largest fall is {steps[0][1]:.1f} dB at {steps[0][0].operator} {steps[0][0].node}." if steps else ""
    return Chart(figure, f"Line of the signal-to-noise ratio of {len(errors.rows)} tensors in the order of the "
                 f"network.{fall}")


def sensitivity_bars(ranking: Sensitivity, *, count: int = 20) -> Chart:
    """What each layer or tensor adds to the output's noise, dearest at the top.

    Args:
        ranking: what ``sensitivity`` found.
        count: how many are shown.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    total = sum(group.noise for group in ranking.groups) or 1.0
    groups = ranking.groups[:count][::-1]
    figure = go.Figure(go.Bar(
        y=[f"{group.name} ({group.operator})" for group in groups], x=[group.noise / total for group in groups],
        orientation="h", name="share of noise"))
    figure.update_layout(title={"text": f"What each {ranking.by} costs the output"}, height=160 + 22 * len(groups),
                         xaxis={"title": {"text": f"share of the noise of all {ranking.by}s"}},
                         yaxis={"type": "category"})
    if not groups:
        return Chart(figure, f"No {ranking.by} was tried.")
    return Chart(figure, f"Bars of the {len(groups)} dearest of {len(ranking.groups)} {ranking.by}s. {groups[-1].name} "
                 f"makes {groups[-1].noise / total:.0%} of the noise, the {len(groups)} shown "
                 f"{sum(group.noise for group in groups) / total:.0%}.")


def weight_histogram(model: Any, quantized: Quantized, node: str) -> Chart:
    """A node's weights before and after INT8, counts logarithmic.

    Args:
        model: the float model, or a result that carries it.
        quantized: what became of it.
        node: name of a node that has INT8 weights.

    Raises:
        BadInput: no such node, or it has no INT8 weights.
    """
    from kit.int8 import qdq
    from kit.int8.quantizable import Network

    go = need("plotly.graph_objects", to="draw charts", extra="base")
    network = Network.of(model_of(model).path)
    after = qdq.weights(read(quantized.model.path))
    with_weights = {n.name: network.weights(n) for n in network.nodes if network.weights(n) in after}
    if node not in with_weights:
        raise unknown("node with INT8 weights", node, with_weights, quantized.model.path.name)
    before = network.values(with_weights[node]).ravel()
    now = after[with_weights[node]].ravel()
    edges = np.linspace(float(min(before.min(), now.min())), float(max(before.max(), now.max())) or 1e-6, 121)
    middles = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure([
        go.Scatter(x=middles, y=_or_gap(np.histogram(values, edges)[0]), mode="lines", name=name,
                   line={"dash": dash, "shape": "hvh"})
        for values, name, dash in ((before, "float", "solid"), (now, "INT8", "dot"))])
    figure.update_layout(title={"text": f"Weights of {node}"}, xaxis={"title": {"text": "weight"}},
                         yaxis={"title": {"text": "how many"}, "type": "log"})
    power = float(np.square(before.astype(np.float64)).sum())
    noise = float(np.square(before.astype(np.float64) - now).sum())
    ratio = f"{10 * np.log10(power / noise):.1f} dB" if power and noise else "no error"
    return Chart(figure, f"Weights of node {node}, {before.size:,} of them from {before.min():.4g} to "
                 f"{before.max():.4g}, before and after INT8: {ratio}, {len(np.unique(before)):,} different values "
                 f"became {len(np.unique(now)):,}.")


def weight_channels(model: Any, node: str | None = None) -> Chart:
    """The largest weight of every output channel, and the one that a scale for all of them has to cover.

    Args:
        model: the float model, or a result that carries it.
        node: name of a node with weights; None takes the one whose channels differ most.

    Raises:
        BadInput: no such node, or it has one scale for all its weights in any case.
    """
    from kit.int8.quantizable import Network

    go = need("plotly.graph_objects", to="draw charts", extra="base")
    path = model_of(model).path
    network = Network.of(path)
    nodes = {n.name: n for n in network.nodes if network.channel_axis(n) is not None}
    if not nodes or (node is not None and node not in nodes):
        raise unknown("node with weights by channel", node or "", nodes, path.name)
    sizes = {name: _channel_sizes(network, nodes[name]) for name in ([node] if node else nodes)}
    node = max(sizes, key=lambda name: _unevenness(sizes[name]))
    found, kind = sizes[node], nodes[node].op_type
    top = float(found.max())
    steps = 127 * found / (top or 1.0)
    coarse = steps < 127 / 8
    figure = go.Figure([
        go.Bar(x=np.flatnonzero(which).tolist(), y=found[which], name=name,
               marker={"pattern": {"shape": pattern}, "color": colour, "line": {"width": 0}},
               hovertext=[f"channel {at}: {found[at]:.4g}, {steps[at]:.0f} of 127 steps" for at in
                          np.flatnonzero(which)], hoverinfo="text")
        for which, name, pattern, colour in ((~coarse, "16 steps or more of one scale for all", "", COLOURS[0]),
                                             (coarse, "fewer than 16 steps", "/", COLOURS[5])) if which.any()])
    figure.add_trace(go.Scatter(x=[-0.5, len(found) - 0.5], y=[top, top], mode="lines", name="one scale for all covers",
                                line={"dash": "dash", "color": COLOURS[1]}, hoverinfo="skip"))
    figure.update_layout(title={"text": f"Weights of {node} ({kind}) by output channel"}, bargap=0.15,
                         barmode="overlay", legend={"orientation": "h"},
                         xaxis={"title": {"text": "output channel"}, "dtick": max(1, len(found) // 10)},
                         yaxis={"title": {"text": "largest |weight|"}, "rangemode": "tozero"})
    return Chart(figure, f"Bars of the largest magnitude among the weights of each of {len(found)} output channels of "
                 f"{kind} {node}: from {found.min():.4g} to {top:.4g}, median {np.median(found):.4g}. With one scale "
                 f"for all, which has to cover {top:.4g}, {int(coarse.sum())} channels are left with fewer than 16 of "
                 f"127 steps, the smallest with {steps.min():.0f}.")


def _channel_sizes(network: Any, node: Any) -> np.ndarray:
    """Largest magnitude of the weights of each output channel, float32 [C]."""
    values, axis = network.values(network.weights(node)), network.channel_axis(node)
    return np.abs(values).max(axis=tuple(at for at in range(values.ndim) if at != axis))


def _unevenness(sizes: np.ndarray) -> float:
    """How far the largest channel is above the usual one."""
    middle = float(np.median(sizes))
    return float(sizes.max()) / middle if middle else 0.0


def size_by_type(model: Any, quantized: Quantized) -> Chart:
    """Bytes of each number type in the float and the INT8 file, the rest being graph text.

    Args:
        model: the float model, or a result that carries it.
        quantized: what became of it.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    sides = {"float": _bytes_by_type(model_of(model)), "INT8": _bytes_by_type(quantized.model)}
    kinds = sorted({kind for found in sides.values() for kind in found}, key=lambda k: -sides["float"].get(k, 0))
    shapes = ("", "/", "x", ".", "-", "\\", "+", "|")
    figure = go.Figure([
        go.Bar(x=list(sides), y=[found.get(kind, 0) / 1e6 for found in sides.values()], name=kind,
               marker={"pattern": {"shape": shapes[at % len(shapes)]}})
        for at, kind in enumerate(kinds)])
    figure.update_layout(title={"text": f"File size: {quantized.ratio:.2f} of the float file"}, barmode="stack",
                         yaxis={"title": {"text": "MB"}}, xaxis={"type": "category"})
    words = "; ".join(f"{side} " + ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in found.most_common())
                      for side, found in sides.items())
    return Chart(figure, f"Stacked bars of file size by number type: {words}. The INT8 file is {quantized.ratio:.2f} "
                 "of the float file.")


def _bytes_by_type(model: Any) -> Counter:
    import onnx

    found: Counter = Counter()
    for tensor in read(model.path, weights=False).graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        found[kind.name] += int(np.prod(tensor.dims)) * kind.itemsize
    found["graph"] = max(0, model.size - sum(found.values()))
    return found


def _or_gap(counts: np.ndarray) -> list[int | None]:
    """A logarithmic axis has no zero: leave a gap there."""
    return [int(count) or None for count in counts]
