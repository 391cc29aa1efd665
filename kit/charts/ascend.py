"""Charts of what one does with an Ascend chip in mind."""

from __future__ import annotations

from kit.ascend.preprocessing.aipp_difference import BINS, AippDifference
from kit.charts.chart import Chart
from kit.need import need


def aipp_difference(difference: AippDifference) -> Chart:
    """How many values AIPP moves, and how far, in spacings of float16.

    Args:
        difference: what ``Aipp.compare`` found.
    """
    go = need("plotly.graph_objects", to="draw charts", extra="base")
    names = ["equal" if high == 0 else f"over {BINS[-2]:g}" if high == float("inf") else f"up to {high:g}"
             for high in BINS]
    shares = [count / difference.values for count in difference.histogram]
    figure = go.Figure(go.Bar(x=names, y=shares, name="share of values",
                              hovertext=[f"{count:,} values" for count in difference.histogram]))
    figure.update_layout(title={"text": f"AIPP against the float preprocessing of {difference.input}"},
                         xaxis={"title": {"text": "difference in spacings of float16"}, "type": "category"},
                         yaxis={"title": {"text": "share of values"}, "tickformat": ".0%", "rangemode": "tozero"})
    most = max(range(len(shares)), key=shares.__getitem__)
    return Chart(figure, f"Bars: how far {difference.values:,} values of {difference.samples} pictures are from the "
                 f"float preprocessing, in spacings of float16. Most, {shares[most]:.0%}, differ by {names[most]}. The "
                 f"largest difference is {difference.largest:.3g}, {difference.steps:.2g} of one step of a byte; "
                 f"float16 alone makes {difference.rounded:.3g}. Simulated, not run on a chip.")
