"""Charts of what an export changed beside the numbers: the order of axes, and where a Resize takes its pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kit.card import bytes_text
from kit.charts.chart import Chart
from kit.exporting.resizing import ramp, resize_with
from kit.exporting.transposes import LayoutCost
from kit.graph.pixels import by_size, coordinate
from kit.need import need
from kit.resizes import Modes


def layout_costs(costs: Mapping[str, LayoutCost]) -> Chart:
    """Transposes in the file and as run, and their share of the time, one group a variant.

    Args:
        costs: what to call it -> its cost, such as ``{"NHWC in": one.layout, "NCHW in": other.layout}``.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="ui")
    subplots = need("plotly.subplots", to="draw a chart", extra="ui")
    names = list(costs)
    figure = subplots.make_subplots(rows=1, cols=2, horizontal_spacing=0.15,
                                    subplot_titles=["Transposes", "share of the time"])
    for label, count in (("at inputs", lambda c: c.at_inputs), ("at outputs", lambda c: c.at_outputs),
                         ("inside", lambda c: c.inside)):
        values = [count(cost) for cost in costs.values()]
        figure.add_trace(go.Bar(x=names, y=values, name=f"in the file, {label}", offsetgroup="file",
                                text=[str(value) if value else "" for value in values]), row=1, col=1)
    run = [len(cost.run) for cost in costs.values()]
    figure.add_trace(go.Bar(x=names, y=run, name="as run", offsetgroup="run", text=list(map(str, run))), row=1, col=1)
    shares = [100 * cost.share for cost in costs.values()]
    figure.add_trace(go.Bar(x=names, y=shares, name="of the time", showlegend=False, offsetgroup="share",
                            text=[f"{share:.1f} %" for share in shares]), row=1, col=2)
    figure.update_yaxes(title_text="how many", row=1, col=1)
    figure.update_yaxes(title_text="% of a run", rangemode="tozero", row=1, col=2)
    figure.update_layout(title="What the order of axes costs", barmode="stack", height=380, width=900)
    said = "; ".join(f"{name}: {cost.count} in the file ({cost.at_inputs} at inputs, {cost.at_outputs} at outputs), "
                     f"{len(cost.run)} run, moving {bytes_text(cost.moved)}, {cost.share:.1%} of the time"
                     for name, cost in costs.items())
    return Chart(figure, f"Transposes by order of axes. {said}.")


def resize_grids(before: Modes, after: Modes, size: tuple[int, int] = (4, 4), out: tuple[int, int] = (8, 8)) -> Chart:
    """Where two Resizes take their pixels along one axis, and how a small ramp differs between them.

    Args:
        before: modes of the one, such as a converter wrote them.
        after: modes of the other, such as TensorFlow computes with.
        size: height and width of the ramp.
        out: height and width that it is resized to.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="ui")
    subplots = need("plotly.subplots", to="draw a chart", extra="ui")
    axis = by_size(size[1], out[1])
    picture = ramp(*size)
    both = [resize_with(modes, picture, out)[0, :, :, 0] for modes in (before, after)]
    gap = both[0] - both[1]
    figure = subplots.make_subplots(rows=1, cols=2, horizontal_spacing=0.12, subplot_titles=[
        "where output pixels lie among input pixels", f"difference on a ramp, at most {np.abs(gap).max():.2g}"])
    for name, modes, symbol in (("before", before, "x"), ("after", after, "circle-open")):
        figure.add_trace(go.Scatter(
            x=[float(coordinate(x, axis, modes.place)) for x in range(axis.out)], y=list(range(axis.out)), name=name
            + f": {modes}", mode="markers", marker={"symbol": symbol, "size": 10}), row=1, col=1)
    figure.update_xaxes(title_text="input pixel", dtick=1, row=1, col=1)
    figure.update_yaxes(title_text="output pixel", dtick=1, row=1, col=1)
    limit = float(np.abs(gap).max()) or 1.0
    figure.add_trace(go.Heatmap(z=gap, colorscale="RdBu", zmin=-limit, zmax=limit, colorbar={"title": "difference"}),
                     row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=2)
    figure.update_layout(title="Two ways to resize the same picture", height=420, width=900,
                         legend={"orientation": "h", "y": -0.25})
    shift = max(abs(float(coordinate(x, axis, before.place) - coordinate(x, axis, after.place)))
                for x in range(axis.out))
    return Chart(figure, f"Sampling points of {before} and of {after} for {size[1]} to {out[1]} pixels: they lie up to "
                 f"{shift:.3g} pixels apart, and pixels of a ramp from 0 to 1 differ by up to {np.abs(gap).max():.3g}.")
