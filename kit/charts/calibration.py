"""Charts of what calibration measured: a tensor's histogram with the clip of each method, and ranges side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.calibration import Calibration
from kit.charts.chart import Chart
from kit.int8.ranges import METHODS, choose, squared_errors
from kit.need import need

_BARS = 240
_DASHES = {"minmax": "solid", "percentile": "dash", "mse": "dot", "entropy": "dashdot"}


def activation_histogram(calibration: Calibration, tensor: str, *, percentile: float = 99.99) -> Chart:
    """How often each value of a tensor occurred (logarithmic), and where each method would clip.

    Args:
        calibration: what was measured.
        tensor: its name.
        percentile: of the percentile method.

    Raises:
        BadInput: no such tensor.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    histogram = calibration.histogram(tensor)
    if not histogram.elements:
        figure = go.Figure(layout={"title": {"text": f"{tensor}: no values"}})
        return Chart(figure, f"Tensor {tensor} never held a finite value, so there is no histogram.")
    centres, counts, width = _bars(histogram)
    figure = go.Figure(go.Bar(x=centres, y=counts, width=width, name="values", marker={"line": {"width": 0}}))
    top, said = float(counts.max()), []
    for method in METHODS:
        low, high = choose(histogram, method, percentile=percentile)
        error = float(squared_errors(histogram, np.array([low]), np.array([high]))[0])
        label = f"percentile {percentile:g}" if method == "percentile" else method
        figure.add_trace(go.Scatter(
            x=[low, low, None, high, high], y=[0.8, top, None, 0.8, top], mode="lines", name=label,
            line={"dash": _DASHES[method], "width": 2}))
        said.append(f"{label} {low:.4g} to {high:.4g} (mean squared error {error:.2g})")
    node = next((t for t in calibration.tensors if t.name == tensor), None)
    made = f", made by {node.operator}" if node else ""
    figure.update_layout(
        title={"text": f"Values of {tensor}{made}"}, bargap=0, xaxis={"title": {"text": "value"}},
        yaxis={"title": {"text": "how often"}, "type": "log", "range": [np.log10(0.8), np.log10(top) + 0.2]})
    return Chart(figure, f"Histogram of tensor {tensor}{made}: {histogram.elements:,} values from "
                 f"{histogram.minimum:.4g} to {histogram.maximum:.4g}, counts on a logarithmic axis. Ranges by method: "
                 + "; ".join(said) + ".")


def range_widths(calibration: Calibration, *, count: int = 20, percentile: float = 99.99) -> Chart:
    """The tensors that a few far values stretch most: width by percentile and mse as a share of min-max.

    Args:
        calibration: what was measured.
        count: how many tensors are shown.
        percentile: of the percentile method.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    full = calibration.ranges("minmax")
    shares: dict[str, dict[str, float]] = {}
    for method in ("percentile", "mse"):
        for name, (low, high) in calibration.ranges(method, percentile=percentile).items():
            width = full[name][1] - full[name][0]
            shares.setdefault(name, {})[method] = (high - low) / width if width else 1.0
    worst = sorted(shares, key=lambda name: shares[name]["percentile"])[:count][::-1]
    figure = go.Figure([
        go.Bar(y=worst, x=[shares[name][method] for name in worst], orientation="h", name=label,
               marker={"pattern": {"shape": shape}})
        for method, label, shape in (("percentile", f"percentile {percentile:g}", ""), ("mse", "mse", "/"))])
    figure.update_layout(title={"text": "Tensors stretched by few far values"}, barmode="group",
                         xaxis={"title": {"text": "width kept, as a share of min-max"}, "range": [0, 1]},
                         yaxis={"type": "category"}, height=160 + 22 * len(worst))
    first = worst[-1] if worst else "none"
    kept = f"{shares[first]['percentile']:.0%}" if worst else "all"
    return Chart(figure, f"Bars for {len(worst)} of {len(shares)} tensors: how much of the min-max range the methods "
                 f"percentile {percentile:g} and mse keep. The most stretched is {first}: percentile keeps {kept}.")


def _bars(histogram: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Neighbouring bins put together until few enough are left to draw."""
    together = max(1, -(-len(histogram.counts) // _BARS))
    padded = np.pad(histogram.counts, (0, -len(histogram.counts) % together))
    counts = padded.reshape(-1, together).sum(axis=1)
    width = histogram.width * together
    centres = histogram.edges()[0] + (np.arange(len(counts)) + 0.5) * width
    return centres[counts > 0], counts[counts > 0], width
