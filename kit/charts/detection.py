"""Pictures of what two stages of a detector find in one picture, and how much changed in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kit.charts.chart import Chart
from kit.charts.style import COLOURS, INK
from kit.errors import BadInput
from kit.need import need

if TYPE_CHECKING:
    from kit.families.detection_changes import Found, PictureChange
    from kit.families.detection_comparison import Comparison

BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
# fate -> colour and pattern: either is enough to tell them apart
LOOKS = {"lost": (VERMILLION, "x"), "new": (BLUE, "/"), "moved": (PURPLE, "")}
_SIDE = 480  # CSS pixels of the picture's longer side
_WORDS = 8  # detections that the words tell one by one


def changed_picture(comparison: Comparison, number: int = 0, *, stage: str | None = None, against: str | None = None,
                    truth: bool = False) -> Chart:
    """The boxes of two stages on one picture: of the earlier solid, of the later dashed.

    Args:
        comparison: what ``kit.families.detection.compare`` found.
        number: place among the pictures, what changed most first.
        stage: whose boxes are dashed; the last by default.
        against: whose boxes are solid; the first by default.
        truth: draw the true boxes too, dotted.

    Raises:
        BadInput: no such stage, or not so many pictures.
    """
    found = comparison.changes(stage, against)
    if not 0 <= number < len(found):
        raise BadInput(f"There is no picture {number}.", remedy=f"give a number from 0 to {len(found) - 1}")
    names = [each.name for each in comparison.stages]
    return picture_of(comparison, found[number], stage or names[-1], against or names[0], truth=truth)


def picture_of(comparison: Comparison, change: PictureChange, stage: str, against: str, *, truth: bool = False
               ) -> Chart:
    """Like ``changed_picture``, of a change that is at hand."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    item, classes = comparison.samples.items[change.at], comparison.classes
    pixels = item.load()[:, :, ::-1]
    height, width = pixels.shape[:2]
    figure = go.Figure(go.Image(z=pixels, hoverinfo="skip"))
    before = (*change.lost, *(pair.before for pair in (*change.moved, *change.same)))
    after = (*change.new, *(pair.after for pair in (*change.moved, *change.same)))
    for box in (*(each.box for each in (*before, *after)), *(item.truth.boxes if truth else ())):
        # A pale line under each: steel is dark and bright.
        figure.add_scatter(**_outline(box), line={"color": "#FFFFFF", "width": 4}, opacity=0.6, showlegend=False,
                           hoverinfo="skip")
    if truth:
        _draw(figure, item.truth.boxes, "truth", (GREEN, "dot"))
    for side, name, look in ((before, against, (BLUE, "solid")), (after, stage, (VERMILLION, "dash"))):
        _draw(figure, [each.box for each in side], name, look)
    for each in (*change.lost, *(pair.before for pair in change.moved)):
        _write(figure, each, _label(each, classes), under=False)
    for pair in change.same:  # one label for both: two would only hide more of the picture
        _write(figure, pair.before, f"{_label(pair.before, classes)} to {pair.after.score:.2f}", under=False)
    for each in (*change.new, *(pair.after for pair in change.moved)):
        _write(figure, each, _label(each, classes), under=True)
    scale = _SIDE / max(height, width)
    axes = {"visible": False}
    figure.update_layout(
        title=f"{item.name}: {counted(change)}", width=round(width * scale) + 90, height=round(height * scale) + 120,
        margin={"l": 10, "r": 10, "t": 50, "b": 60}, legend={"orientation": "h", "y": -0.04}, showlegend=True,
        xaxis={**axes, "range": [-0.5, width - 0.5]}, yaxis={**axes, "range": [height - 0.5, -0.5]})
    return Chart(figure, picture_words(comparison, change, stage, against))


def changes_by_class(comparison: Comparison, stage: str | None = None, against: str | None = None) -> Chart:
    """How many detections are lost, new and moved, for each class."""
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    counts, classes = comparison.counts(stage, against), comparison.classes
    names = [each.name for each in comparison.stages]
    figure = go.Figure()
    for fate, (colour, pattern) in LOOKS.items():
        values = [counts[fate][at] for at in range(len(classes))]
        figure.add_bar(x=list(classes), y=values, name=fate, text=list(map(str, values)), textposition="outside",
                       cliponaxis=False, marker={"color": colour, "pattern": {"shape": pattern}})
    most = max([1, *(count for each in counts.values() for count in each.values())])
    whole = {"dtick": 1} if most < 6 else {}  # half a detection there is not
    figure.update_layout(
        title=f"Detections that changed, {against or names[0]} to {stage or names[-1]}", barmode="group",
        yaxis={"title": "detections", "range": [0, most * 1.15], **whole}, xaxis={"title": "class"}, showlegend=True,
        legend={"orientation": "h"})
    said = "; ".join(f"{name}: " + ", ".join(f"{counts[fate][at]} {fate}" for fate in LOOKS)
                     for at, name in enumerate(classes))
    return Chart(figure, f"Detections with a score of {comparison.task.shown:g} or more that changed from "
                         f"{against or names[0]} to {stage or names[-1]}, in {comparison.verdict.samples} pictures. "
                         f"{said}.")


def counted(change: PictureChange) -> str:
    """``1 lost, 2 new, 0 moved``."""
    return ", ".join(f"{len(getattr(change, fate))} {fate}" for fate in LOOKS)


def picture_words(comparison: Comparison, change: PictureChange, stage: str, against: str) -> str:
    """What a picture with both stages' boxes shows, in words."""
    said = [f"{fate}: {', '.join(each)}" for fate, each in fates(comparison, change).items() if each]
    same = f"{len(change.same)} the same" if change.same else "none the same"
    return (f"{change.name}, boxes of {against} solid and of {stage} dashed: {counted(change)}, {same}"
            + (f". {'; '.join(said)}." if said else "."))


def fates(comparison: Comparison, change: PictureChange) -> dict[str, list[str]]:
    """``lost``, ``new`` and ``moved`` -> each detection in words, at most eight of each."""
    classes = comparison.classes
    told = {"lost": [f"{_label(each, classes)} {_place(each)}" for each in change.lost],
            "new": [f"{_label(each, classes)} {_place(each)}" for each in change.new],
            "moved": [f"{_label(pair.before, classes)} {_place(pair.before)}, overlap {pair.iou:.2f}"
                      for pair in change.moved]}
    return {fate: each[:_WORDS] + ([f"and {len(each) - _WORDS} more"] if len(each) > _WORDS else [])
            for fate, each in told.items()}


def _label(each: Found, classes: Sequence[str]) -> str:
    return f"{classes[each.kind]} {each.score:.2f}"


def _place(each: Found) -> str:
    x1, y1, x2, y2 = (round(edge) for edge in each.box)
    return f"at ({x1}, {y1}) to ({x2}, {y2})"


def _outline(box: Sequence[float]) -> dict[str, list[float]]:
    """A box as a closed line. A pixel's middle is a whole number, its edge half less."""
    x1, y1, x2, y2 = (edge - 0.5 for edge in box)
    return {"x": [x1, x2, x2, x1, x1], "y": [y1, y1, y2, y2, y1], "mode": "lines"}


def _draw(figure: Any, boxes: Sequence[Any], name: str, look: tuple[str, str]) -> None:
    """A line for each box, all under one entry of the legend."""
    line = {"color": look[0], "width": 2, "dash": look[1]}
    for at, box in enumerate(boxes):
        figure.add_scatter(**_outline(box), line=line, name=name, legendgroup=name, showlegend=at == 0,
                           hoverinfo="name")
    if not boxes:  # the legend still says who found nothing
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=f"{name} (nothing)", showlegend=True)


def _write(figure: Any, each: Found, label: str, *, under: bool) -> None:
    """The label of a box, above or under it."""
    figure.add_annotation(
        x=each.box[0] - 0.5, y=each.box[3 if under else 1] - 0.5, text=label, showarrow=False, xanchor="left",
        yanchor="top" if under else "bottom", yshift=-2 if under else 2, bgcolor="rgba(255,255,255,0.85)",
        font={"size": 11, "color": INK})
