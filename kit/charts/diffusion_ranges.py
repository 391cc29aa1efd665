"""How the activations of a diffusion model's layers change along the walk from noise to picture."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from kit.charts.chart import Chart
from kit.charts.style import COLOURS, logarithmic
from kit.errors import BadInput
from kit.need import need

if TYPE_CHECKING:
    from kit.families.diffusion_ranges import LayerRanges, RangesByTimestep

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_LETTERS = 40  # of a layer's name beside an axis; its end says more than its beginning
_WIDE, _TALL = 34, 14  # CSS pixels that a label takes


def timestep_ranges(ranges: RangesByTimestep) -> Chart:
    """The range of every layer's input by timestep: its largest ``|x|`` over the layer's own median, in powers of two.

    A layer of one colour has the same range at every timestep, and one scale serves it. A layer that goes from -2 to
    +2 has values sixteen times as large at one end of the walk: a scale for the one end leaves the other four bits
    fewer.

    Args:
        ranges: what ``kit.families.diffusion.range_by_timestep`` found.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    layers, table = ranges.layers, _changes(ranges)
    known = np.isfinite(table)
    limit = max(1.0, float(np.ceil(np.abs(table[known]).max(initial=0.0))))
    height = int(np.clip(170 + 15 * len(layers), 320, 1100))
    names = [f"{at} {_end(layer.layer)}" for at, layer in enumerate(layers)]  # numbered: two may end alike
    steps = list(map(str, ranges.timesteps))
    figure = go.Figure(go.Heatmap(
        z=table.astype(np.float32), x=steps, y=names, colorscale="RdBu", reversescale=True, zmin=-limit, zmax=limit,
        colorbar={"title": {"text": "log2"}},
        # As numbers: a text for each cell would be a megabyte for the UNet of SD 1.5.
        customdata=np.array([[layer.low, layer.high] for layer in layers], np.float32).transpose(0, 2, 1),
        hovertemplate="%{y}<br>timestep %{x}: %{customdata[0]:.4g} to %{customdata[1]:.4g}<br>"
                      "log2 against the median %{z:+.2f}<extra></extra>"))
    figure.update_layout(
        title="Largest |x| of each layer's input, against its median over the timesteps", height=height,
        xaxis={"type": "category", "tickvals": _some(steps, _WIDE, 450),
               "title": {"text": "timestep, the walk begins at the left"}},
        yaxis={"type": "category", "autorange": "reversed", "tickvals": _some(names, _TALL, height - 150)})
    return Chart(figure, f"Heat map of {len(layers)} layers of {ranges.model}, in the order of the graph, and "
                         f"{len(ranges.timesteps)} timesteps from {ranges.timesteps[0]} to {ranges.timesteps[-1]}: "
                         f"the logarithm to base 2 of the largest magnitude of the layer's input over its median. "
                         f"{_words(ranges)}")


def timestep_range_lines(ranges: RangesByTimestep, *, count: int = 6) -> Chart:
    """The largest ``|x|`` by timestep of the layers that change most, on a logarithmic axis.

    Args:
        ranges: what ``kit.families.diffusion.range_by_timestep`` found.
        count: how many lines; layers that are fed the same share one.

    Raises:
        BadInput: a count below 1.
    """
    if count < 1:
        raise BadInput(f"{count} layers cannot be drawn.", remedy="ask for 1 or more")
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    figure, shown = go.Figure(), _alike(ranges)[:count]
    for place, group in enumerate(shown):
        layer = group[0]
        figure.add_scatter(
            x=list(map(str, ranges.timesteps)), y=[value or None for value in _reaches(layer).tolist()],
            mode="lines+markers", name=f"{_end(layer.layer)} ({layer.kind}){_more(group)}", hoverinfo="text",
            line={"color": COLOURS[place % len(COLOURS)], "dash": _DASHES[place % len(_DASHES)]},
            marker={"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 7},
            hovertext=[_told(layer, step, ranges.timesteps) for step in range(len(ranges.timesteps))])
    figure.update_layout(
        title="The layers whose range changes most", height=360 + 22 * len(shown), legend={"orientation": "h"},
        showlegend=True,
        xaxis={"type": "category", "tickvals": _some(list(map(str, ranges.timesteps)), _WIDE, 650),
               "title": {"text": "timestep, the walk begins at the left"}},
        yaxis=logarithmic("largest |x| of the layer's input", [v for trace in figure.data for v in trace.y]))
    return Chart(figure, f"Lines of the largest magnitude of the inputs of {sum(map(len, shown))} of "
                         f"{len(ranges.layers)} layers of {ranges.model}, by timestep, those that change most. "
                         f"{_words(ranges, count)}")


def _alike(ranges: RangesByTimestep) -> list[list[LayerRanges]]:
    """The layers, those that change most first; layers with the same ranges, most often fed the same, together."""
    groups: dict[object, list[LayerRanges]] = {}
    for layer in ranges.most_changed(len(ranges.layers)):
        groups.setdefault((layer.low, layer.high), []).append(layer)
    return list(groups.values())


def _more(group: list[LayerRanges]) -> str:
    return f" and {len(group) - 1} with the same" if len(group) > 1 else ""


def _reaches(layer: LayerRanges) -> np.ndarray:
    """The largest ``|x|`` at each timestep, float64."""
    return np.maximum(np.abs(layer.low), np.abs(layer.high)).astype(np.float64)


def _changes(ranges: RangesByTimestep) -> np.ndarray:
    """log2 of the largest ``|x|`` over the layer's median, float64 [layers, timesteps]; nan where it is 0."""
    reach = np.array([_reaches(layer) for layer in ranges.layers]).reshape(-1, len(ranges.timesteps))
    reach[reach == 0] = np.nan
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "All-NaN")  # a layer that is fed nothing but zero
        return np.log2(reach / np.nanmedian(reach, axis=1, keepdims=True))


def _words(ranges: RangesByTimestep, count: int = 3) -> str:
    said = []
    for group in _alike(ranges)[:count]:
        layer = group[0]
        reach = _reaches(layer)
        top, low = int(reach.argmax()), int(reach.argmin())
        said.append(f"{layer.layer} ({layer.kind}){_more(group)} by a factor of {layer.growth:.3g}, "
                    f"{reach[low]:.3g} at timestep {ranges.timesteps[low]} and {reach[top]:.3g} at "
                    f"{ranges.timesteps[top]}")
    return f"{ranges.title()}. Most: {'; '.join(said)}."


def _told(layer: LayerRanges, at: int, timesteps: tuple[int, ...]) -> str:
    return f"{layer.layer} ({layer.kind})<br>timestep {timesteps[at]}: {layer.low[at]:.4g} to {layer.high[at]:.4g}"


def _some(labels: list[str], each: int, room: int) -> list[str]:
    """As many evenly spaced labels as have room."""
    return labels[::max(1, -(-each * len(labels) // room))]


def _end(name: str) -> str:
    return name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS:]}"
