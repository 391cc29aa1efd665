"""Charts of an export: which operators became which, and how close the answers are."""

from __future__ import annotations

import math
from typing import Any

from kit.charts.chart import Chart
from kit.comparison import EQUAL, FAILED
from kit.exporting.result import Exported
from kit.need import need

_SOURCES = {"paddle": "Paddle", "dygraph": "Paddle", "onnx": "as given", "savedmodel": "TensorFlow",
            "keras": "TensorFlow", "graphdef": "TensorFlow", "tflite": "TFLite"}
_FLOOR = 1e-9  # a log axis has no zero: an exact match is drawn here


def operator_map(exported: Exported, most: int = 20) -> Chart:
    """Operators of the source beside operators of the ONNX file, with how often each occurs.

    Args:
        exported: an export's result.
        most: bars a side; the rarer ones are added up in one.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="ui")
    subplots = need("plotly.subplots", to="draw a chart", extra="ui")
    label = _SOURCES[exported.kind]
    sides = [(f"{label}: {sum(exported.operators_source.values())} operators", _most(exported.operators_source, most)),
             (f"ONNX opset {exported.opset}: {sum(exported.operators_onnx.values())} operators",
              _most(exported.operators_onnx, most))]
    figure = subplots.make_subplots(rows=1, cols=2, subplot_titles=[title for title, _ in sides],
                                    horizontal_spacing=0.25)
    for column, (title, counts) in enumerate(sides, start=1):
        names = list(reversed(counts))  # plotly draws the first bar lowest
        values = [counts[name] for name in names]
        figure.add_trace(go.Bar(x=values, y=names, orientation="h", text=[str(v) for v in values], name=title,
                                showlegend=False), row=1, col=column)
        figure.update_xaxes(title_text="how often", row=1, col=column)
    figure.update_layout(title=f"Operators of {exported.model.path.stem}: source and ONNX",
                         height=max(300, 24 * max(len(counts) for _, counts in sides) + 140), width=900)
    alt = "; ".join(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items())
                    for title, counts in sides)
    return Chart(figure, f"Bars of operator counts before and after the export. {alt}.")


def export_parity(exported: Exported) -> Chart:
    """Largest relative difference of each output, on a log axis with the two limits as lines."""
    go = need("plotly.graph_objects", to="draw a chart", extra="ui")
    layer = "Keras model against SavedModel" if exported.kind == "keras" else "layer against saved model"
    groups = [(title, rows) for title, rows in ((layer, exported.dygraph_parity),
                                                ("source against ONNX", exported.parity)) if rows]
    names = list(dict.fromkeys(row.name for _, rows in groups for row in rows))
    figure = go.Figure()
    looks = (("diamond", "top center"), ("circle", "bottom center"))  # so that labels of close marks stay apart
    for (symbol, place), (title, rows) in zip(looks, reversed(groups), strict=False):
        figure.add_trace(go.Scatter(
            x=[_drawn(row.relative) for row in rows], y=[names.index(row.name) for row in rows], name=title,
            mode="markers+text", text=[f"{row.relative:.1e}" for row in rows], textposition=place,
            marker={"symbol": symbol, "size": 12}))
    for limit, words, dash in ((EQUAL, f"equal up to {EQUAL:g}", "dash"), (FAILED, f"failed above {FAILED:g}", "dot")):
        figure.add_trace(go.Scatter(x=[limit, limit], y=[-0.5, max(len(names), 1) - 0.5], mode="lines", name=words,
                                    line={"dash": dash}))
    top = max([_drawn(row.relative) for _, rows in groups for row in rows] + [FAILED])
    low = min([_drawn(row.relative) for _, rows in groups for row in rows] + [EQUAL])
    figure.update_xaxes(type="log", title_text="largest relative difference", exponentformat="power", dtick=1,
                        range=[math.floor(math.log10(low)) - 0.5, math.ceil(math.log10(top)) + 0.5])
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, max(len(names), 1) - 0.4])
    figure.update_layout(title=f"How far the answers are apart: {exported.verdict}",
                         height=max(300, 60 * len(names) + 200))
    said = "; ".join(f"{title}: " + ", ".join(f"{row.name} {row.relative:.1e} ({row.verdict})" for row in rows)
                     for title, rows in groups)
    return Chart(figure, f"Largest relative difference of each output, verdict {exported.verdict}. "
                 f"{said or 'Nothing was compared'}.")


def _most(counts: dict[str, int], most: int) -> dict[str, int]:
    ordered: list[tuple[str, int]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[most:])
    return dict(ordered[:most]) | ({f"{len(ordered) - most} others": rest} if rest else {})


def _drawn(value: Any) -> float:
    """Inside the log axis: a zero at the floor, infinity at the top."""
    return min(max(float(value), _FLOOR), 1e3)
