"""Chart of a roofline forecast: where each layer lies under the peaks of a chip. It shows no measured figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kit.charts.chart import Chart
from kit.charts.style import COLOURS
from kit.need import need

if TYPE_CHECKING:
    from kit.rooflines import LayerForecast, Roofline

# Colour and symbol: either is enough to tell them apart.
_LOOKS = {"cube": (COLOURS[0], "circle", "matrix units"), "vector": (COLOURS[2], "diamond", "vector units"),
          "memory": (COLOURS[1], "square", "memory"), "L2": (COLOURS[5], "triangle-up", "L2 cache")}
_LINES = (("memory", "dash"), ("cache", "dot"))
_NAMED = 4  # layers that carry their name


def roofline(forecast: Roofline) -> Chart:
    """Each layer at its operations per byte and forecast operations per second, under the peaks of the chip.

    A point on a slope waits for the memory or the cache, one near a level line for that unit. Its size says how much of
    the forecast time it takes. Layers without arithmetic are left out: they have no place on these axes.

    Args:
        forecast: what ``kit.roofline`` gave.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    layers = [layer for layer in forecast.layers if layer.flops and layer.intensity]
    low, high = _span(layers)
    x = np.logspace(np.log10(low), np.log10(high), 60)
    figure = go.Figure()
    for name, dash in _LINES:
        rate = getattr(forecast.speed, name)
        if rate:
            # A product counts two: the peak of the matrix units is twice their multiply-accumulates.
            figure.add_scatter(x=x, y=np.minimum(rate * x, 2 * forecast.speed.cube) / 1e12, mode="lines",
                               name=f"{_rate(name)} {rate / 1e9:.0f} GB/s", hoverinfo="skip",
                               line={"color": "#8A9099", "dash": dash, "width": 1.5})
    for name, peak in (("matrix units", 2 * forecast.speed.cube), ("vector units", forecast.speed.vector)):
        figure.add_scatter(x=[low, high], y=[peak / 1e12] * 2, mode="lines", hoverinfo="skip",
                           name=f"{name} {peak / 1e12:.3g} T/s",
                           line={"color": COLOURS[6], "width": 2 if name == "matrix units" else 1})
    total = forecast.ms * 1000 or 1.0
    for limit, (colour, symbol, words) in _LOOKS.items():
        own = [layer for layer in layers if layer.limit == limit]
        if own:
            figure.add_scatter(
                x=[layer.intensity for layer in own], y=[_speed(layer) for layer in own], mode="markers",
                name=f"waits for {words}", hoverinfo="text", hovertext=[_hover(layer, total) for layer in own],
                customdata=[layer.name for layer in own],
                marker={"color": colour, "symbol": symbol, "opacity": 0.75, "line": {"width": 0.5, "color": "#FFFFFF"},
                        "size": [7 + 22 * (layer.us / total) ** 0.5 for layer in own]})
    for layer in sorted(layers, key=lambda one: -one.us)[:_NAMED]:
        figure.add_annotation(x=float(np.log10(layer.intensity)), y=float(np.log10(_speed(layer))), text=layer.name,
                              showarrow=False, yshift=14, font={"size": 10})
    figure.update_layout(
        title={"text": f"FORECAST, not measured: {forecast.file} on {forecast.speed.chip}, {forecast.precision}"},
        height=520, legend={"orientation": "h"}, showlegend=True, hoverlabel={"align": "left"},
        xaxis={"type": "log", "range": [float(np.log10(low)), float(np.log10(high))],
               "title": {"text": "operations per byte moved (forecast)"}},
        yaxis={"type": "log", "title": {"text": "10¹² operations a second (forecast)"}})
    return Chart(figure, _words(forecast, layers))


def _span(layers: list[LayerForecast]) -> tuple[float, float]:
    found = [layer.intensity for layer in layers] or [1.0]
    return min(*found, 1.0) / 2, max(*found, 100.0) * 2


def _speed(layer: LayerForecast) -> float:
    """10¹² operations a second."""
    return layer.flops / layer.us / 1e6


def _rate(name: str) -> str:
    return "memory" if name == "memory" else "L2 cache"


def _hover(layer: LayerForecast, total: float) -> str:
    def us(time: float | None) -> str:
        return "not known" if time is None else f"{time:.2f} µs"

    lines = [f"<b>{layer.name}</b> {layer.operator}", layer.shapes,
             f"forecast: {layer.us:.2f} µs, {layer.us / total:.1%} of all; waits for {layer.limit}",
             f"matrix units {us(layer.cube_us)}, vector units {us(layer.vector_us)}",
             f"memory {us(layer.memory_us)}, L2 {us(layer.cache_us)}"]
    return "<br>".join(lines)


def _words(forecast: Roofline, layers: list[LayerForecast]) -> str:
    said = [f"A forecast, nothing measured: {len(layers)} layers of {forecast.file} on {forecast.speed.chip} in "
            f"{forecast.precision}, by operations per byte and operations per second, both logarithmic."]
    shares = ", ".join(f"{share:.0%} {name}" for name, share in forecast.shares().items())
    said.append(f"Of at least {forecast.ms:.3g} milliseconds the time goes to: {shares}.")
    if layers:
        slow = max(layers, key=lambda layer: layer.us)
        said.append(f"The longest is {slow.name} ({slow.operator}), {slow.us:.1f} microseconds, waiting for "
                    f"{_LOOKS[slow.limit][2]}.")
    if forecast.speed.memory is None:
        said.append("The memory's bandwidth is not known and has no line.")
    return " ".join(said)
