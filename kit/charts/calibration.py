"""Charts of what calibration measured: a tensor's histogram with the clip of each method, and ranges side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.calibration import Calibration
from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.int8.noise import decibels
from kit.int8.range_cost import mean_square
from kit.int8.ranges import METHODS, ErrorCurve, choose, error_curve, squared_errors
from kit.need import need

_BARS = 240
# Colour, dash and symbol of each method: any one of the three is enough to tell them apart.
_LOOKS = {"minmax": (COLOURS[1], "solid", "square"), "percentile": (COLOURS[2], "dash", "triangle-up"),
          "mse": (COLOURS[0], "dot", "circle"), "entropy": (COLOURS[3], "dashdot", "diamond")}
_OWN = (COLOURS[6], "longdash", "star")


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
        return _empty(tensor)
    figure = go.Figure(_bars(histogram))
    clips = _clips(histogram, percentile)
    top = float(figure.data[0].y.max())
    for clip in clips:
        figure.add_trace(_edges(clip, top))
    made = _maker(calibration, tensor)
    figure.update_layout(title={"text": f"Values of {tensor}{made}"}, bargap=0, xaxis={"title": {"text": "value"}},
                         yaxis=_counts_axis(top))
    return Chart(figure, _histogram_words(tensor, made, histogram, clips))


def range_chart(calibration: Calibration, tensor: str, *, percentile: float = 99.99,
                chosen: tuple[str, tuple[float, float]] | None = None) -> Chart:
    """A tensor's histogram with every method's clip and, on the same axis, what clipping there costs.

    The curve below is drawn for both ends drawn in together; the methods' own marks may lie off it, as some of them
    draw in one end further than the other.

    Args:
        calibration: what was measured.
        tensor: its name.
        percentile: of the percentile method.
        chosen: a range to mark besides, with the words for it, such as ``("in the model", (-1.0, 4.0))``.

    Raises:
        BadInput: no such tensor.
    """
    need("plotly", to="draw charts", extra="base")
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    histogram = calibration.histogram(tensor)
    low, high = choose(histogram, "minmax")
    if not histogram.elements or low == high:
        return _empty(tensor)
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.56, 0.44])
    figure.add_trace(_bars(histogram), 1, 1)
    top = float(figure.data[0].y.max())
    clips, power = _clips(histogram, percentile, chosen), mean_square(histogram)
    for clip in clips:
        figure.add_trace(_edges(clip, top), 1, 1)
        ends = _ends(clip.low, clip.high)
        figure.add_trace(go.Scatter(
            x=ends, y=[_positive(clip.error / power)] * len(ends), mode="markers", name=clip.name, showlegend=False,
            hovertext=[clip.words()] * len(ends), hoverinfo="text",
            marker={"symbol": clip.symbol, "size": 10, "color": clip.colour, "line": {"color": "#FFFFFF", "width": 1}},
        ), 2, 1)
    curve = error_curve(histogram)
    for name, part, look in (("error", curve.errors, {"color": "#000000", "width": 2}),
                             ("of it rounding", curve.rounding, {"color": "#555555", "width": 1.5, "dash": "dash"}),
                             ("of it clipping", curve.clipping, {"color": "#555555", "width": 1.5, "dash": "dot"})):
        x, y = [], []
        for end in _ends(low, high):
            x += [*(end * curve.clips / curve.clips[-1]).tolist(), None]
            y += [*(value if value > 0 else None for value in (part / power).tolist()), None]
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=name, line=look,
                                    hovertemplate="clipped at %{x:.4g}: %{y:.2g}"), 2, 1)
    made = _maker(calibration, tensor)
    figure.update_layout(title={"text": f"Values of {tensor}{made}, and what clipping costs"}, bargap=0, height=520,
                         yaxis=_counts_axis(top), xaxis2={"title": {"text": "value, or where it is clipped"}},
                         yaxis2={"title": {"text": "error / signal"}, "type": "log", "tickformat": ".0e",
                                 "range": _error_span(curve, clips, power)})
    best = min(clips, key=lambda clip: clip.error)
    worst = max(clips, key=lambda clip: clip.error)
    return Chart(figure, _histogram_words(tensor, made, histogram, clips) + " Below: the mean squared error as a share "
                 "of the signal, against where both ends are clipped, with its parts from rounding and from clipping. "
                 f"Least of the methods: {best.name} ({_decibel_words(best.error, power)}); most: {worst.name} "
                 f"({_decibel_words(worst.error, power)}).")


def channel_ranges(calibration: Calibration, tensor: str) -> Chart:
    """Smallest and largest value of each channel: a few wide ones take the levels from all others.

    Args:
        calibration: what was measured.
        tensor: one that feeds or leaves a node with weights.

    Raises:
        BadInput: no such tensor, or none whose channels were measured.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    channels = calibration.channels(tensor)
    seen = np.isfinite(channels.minimum)  # a channel may never have held a finite value
    low, high = (np.where(seen, side, 0).astype(np.float64) for side in (channels.minimum, channels.maximum))
    widths = np.maximum(high, 0) - np.minimum(low, 0)
    whole = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    figure = go.Figure(go.Bar(
        x=list(range(len(low))), y=high - low, base=low, name="from minimum to maximum", marker={"line": {"width": 0}},
        hovertext=[f"channel {at}: {a:.4g} to {b:.4g}" for at, (a, b) in enumerate(zip(low, high, strict=True))],
        hoverinfo="text"))
    figure.add_trace(go.Scatter(x=list(range(len(low))), y=np.where(seen, channels.mean, None).tolist(), mode="markers",
                                name="mean", marker={"symbol": "diamond", "size": 5}))
    figure.update_layout(title={"text": f"Channels of {tensor}"}, bargap=0.2, legend={"orientation": "h"},
                         xaxis={"title": {"text": "channel" + (" (last axis)" if channels.axis == -1 else "")},
                                "dtick": max(1, len(low) // 10)},
                         yaxis={"title": {"text": "value"}})
    narrow = int((widths < whole / 8).sum())
    wide = int(np.argmax(widths))
    return Chart(figure, f"Bars from minimum to maximum for {len(low)} channels of tensor {tensor}, with their means. "
                 f"The widest is channel {wide}, {low[wide]:.4g} to {high[wide]:.4g}. {narrow} channels use less than "
                 "an eighth of the whole range, so that INT8 leaves them at most 32 of 256 levels.")


def sample_maxima(calibration: Calibration, tensor: str) -> Chart:
    """Largest ``|x|`` of a tensor in every sample; the samples far above the others are named.

    Args:
        calibration: what was measured.
        tensor: its name.

    Raises:
        BadInput: no such tensor.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    maxima = calibration.sample_maxima(tensor)
    names, values = list(maxima), np.array(list(maxima.values()), np.float64)
    limit = _far(values)
    far = values > limit
    figure = go.Figure([
        go.Scatter(x=np.flatnonzero(which).tolist(), y=values[which].tolist(), mode="markers" + "+text" * labelled,
                   name=label, text=[names[at] + "  " * labelled for at in np.flatnonzero(which)],
                   textposition="middle left" if labelled else None,
                   hovertemplate="%{text}: %{y:.4g}<extra></extra>", marker={"symbol": symbol, "size": size})
        for which, label, symbol, size, labelled in ((~far, "sample", "circle", 6, False),
                                                     (far, "far above the others", "diamond", 10, True))
        if which.any()])
    figure.add_hline(y=limit, line={"dash": "dot", "width": 1.5})
    figure.update_layout(title={"text": f"Largest magnitude of {tensor} in each sample"}, legend={"orientation": "h"},
                         showlegend=True,
                         xaxis={"title": {"text": "sample, in order"}, "dtick": max(1, len(names) // 10)},
                         yaxis={"title": {"text": "largest |value|"}, "rangemode": "tozero"})
    outliers = sorted(np.flatnonzero(far), key=lambda at: -values[at])
    told = "No sample lies far above the others." if not outliers else (
        f"Far above the others (more than {limit:.4g}): "
        + ", ".join(f"{names[at]} ({values[at]:.4g})" for at in outliers[:5])
        + (f" and {len(outliers) - 5} more." if len(outliers) > 5 else "."))
    return Chart(figure, f"Points: the largest magnitude of tensor {tensor} in each of {len(names)} samples, median "
                 f"{np.median(values):.4g}, largest {values.max():.4g}. {told}")


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


@dataclass(frozen=True)
class _Clip:
    """A range with how it is drawn: its method's name, and the mean squared error that it makes."""

    name: str
    low: float
    high: float
    error: float
    colour: str
    dash: str
    symbol: str

    def words(self) -> str:
        return f"{self.name} {self.low:.4g} to {self.high:.4g} (mean squared error {self.error:.2g})"


def _clips(histogram: Any, percentile: float, chosen: tuple[str, tuple[float, float]] | None = None) -> list[_Clip]:
    ranges = {f"percentile {percentile:g}" if method == "percentile" else method:
              (choose(histogram, method, percentile=percentile), _LOOKS.get(method, _OWN)) for method in METHODS}
    if chosen is not None:
        ranges[chosen[0]] = (chosen[1], _OWN)
    return [_Clip(name, low, high, float(squared_errors(histogram, np.array([low]), np.array([high]))[0]), *look)
            for name, ((low, high), look) in ranges.items()]


def _bars(histogram: Any) -> Any:
    """The histogram as a trace: neighbouring bins put together until few enough are left to draw."""
    import plotly.graph_objects as go

    together = max(1, -(-len(histogram.counts) // _BARS))
    padded = np.pad(histogram.counts, (0, -len(histogram.counts) % together))
    counts = padded.reshape(-1, together).sum(axis=1)
    width = histogram.width * together
    centres = histogram.edges()[0] + (np.arange(len(counts)) + 0.5) * width
    return go.Bar(x=centres[counts > 0], y=counts[counts > 0], width=width, name="values",
                  marker={"line": {"width": 0}, "color": COLOURS[4]})


def _edges(clip: _Clip, top: float) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(x=[clip.low, clip.low, None, clip.high, clip.high], y=[0.8, top, None, 0.8, top], mode="lines",
                      name=clip.name, hovertext=clip.words(), hoverinfo="text",
                      line={"dash": clip.dash, "width": 2, "color": clip.colour})


def _counts_axis(top: float) -> dict[str, Any]:
    return {"title": {"text": "how often"}, "type": "log", "range": [np.log10(0.8), np.log10(top) + 0.2]}


def _maker(calibration: Calibration, tensor: str) -> str:
    node = next((t for t in calibration.tensors if t.name == tensor), None)
    return "" if node is None else f", made by {node.operator}" if node.node else ", an input"


def _histogram_words(tensor: str, made: str, histogram: Any, clips: list[_Clip]) -> str:
    return (f"Histogram of tensor {tensor}{made}: {histogram.elements:,} values from {histogram.minimum:.4g} to "
            f"{histogram.maximum:.4g}, counts on a logarithmic axis. Ranges by method: "
            + "; ".join(clip.words() for clip in clips) + ".")


def _empty(tensor: str) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure(layout={"title": {"text": f"{tensor}: nothing but zero, or no values"}})
    return Chart(figure, f"Tensor {tensor} never held a finite value other than zero: there is nothing to clip.")


def _decibel_words(error: float, power: float) -> str:
    return f"{decibels(error / power):.1f} dB"


def _far(values: np.ndarray) -> float:
    """Where far begins: six median distances above the median, as a normal spread reaches once in 40,000 samples."""
    middle = float(np.median(values))
    return middle + max(6 * float(np.median(np.abs(values - middle))), 0.1 * middle)


def _positive(value: float) -> float:
    """A logarithmic axis has no zero."""
    return max(value, 1e-15)


def _ends(low: float, high: float) -> list[float]:
    """The ends that the error curve is drawn against: a much nearer one would only be a squeezed copy."""
    farther = max(-low, high)
    return [end for end in (low, high) if abs(end) > 0.2 * farther]


def _error_span(curve: ErrorCurve, clips: list[_Clip], power: float) -> list[float]:
    """Powers of ten from just under the least error to just over the largest."""
    seen = [*curve.errors.tolist(), *(clip.error for clip in clips)]
    return [np.log10(_positive(min(seen) / power)) - 0.7, np.log10(_positive(max(seen) / power)) + 0.3]
