"""The pictures in which two stages of a detector find different things, with the boxes of both.

What changed most comes first; a person filters by lost, new and moved and by class, and steps through the rest.
"""

from __future__ import annotations

from html import escape
from typing import Any

from kit.charts.detection import changed_picture, counted, fates, picture_of
from kit.errors import BadInput, unknown
from kit.families.detection_changes import KINDS, PictureChange
from kit.families.detection_comparison import Comparison
from kit.need import need
from kit.ui.view import ChartBox, Stepper, View

_ANY = "any change"
_ALL = "all pictures"
_EVERY = "every class"


def detections(comparison: Comparison) -> DetectionView:
    """Browse the pictures in which a stage finds other things than another one.

    Args:
        comparison: what ``kit.families.detection.compare`` found, of two stages or more.

    Raises:
        BadInput: there is one stage only.
        MissingTool: ipywidgets is not installed.
    """
    return DetectionView(comparison)


class DetectionView(View):
    """What ``detections`` returns. ``get()`` gives the changes of the pictures listed, for a closer look in code.

    Attributes:
        before: the stage whose boxes are solid.
        after: the stage whose boxes are dashed.
        show: the filter by what became of detections.
        of_class: the filter by class.
        truth: whether true boxes are drawn.
        picture_list: the pictures that fit, what changed most first.
        chart: the place of the picture.
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__("Pictures that changed", "Boxes of the one stage are solid and blue, of the other dashed and "
                         f"orange, with class and score, from {comparison.task.shown:g} on. What changed most comes "
                         "first.")
        names = [stage.name for stage in comparison.stages]
        if len(names) < 2:
            raise BadInput("There is one stage only: nothing can have changed.",
                           remedy="compare two stages or more")
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self.comparison = comparison
        self._changes: dict[int, PictureChange] = {}
        self._busy = False
        style = {"description_width": "7em"}
        self.before = widgets.Dropdown(description="Solid", options=names, value=names[0], style=style)
        self.after = widgets.Dropdown(description="Dashed", options=names, value=names[-1], style=style)
        self.show = widgets.Dropdown(description="Show", options=[_ANY, *KINDS, _ALL], style=style)
        self.of_class = widgets.Dropdown(description="Class", style=style, options=[
            (_EVERY, None), *((name, at) for at, name in enumerate(comparison.classes))])
        self.picture_list = widgets.Select(description="Picture", rows=8, style=style)
        self._steps = Stepper(self.picture_list)
        self.previous, self.next = self._steps.previous, self._steps.next
        self.truth = widgets.Checkbox(description="True boxes too, dotted", indent=False)
        self._status, self._told, self.chart = widgets.HTML(), widgets.HTML(), ChartBox()
        for part in (self.before, self.after, self.show, self.of_class, self.picture_list):
            part.add_class("kit-list")
        buttons = widgets.HBox([self.previous, self.next, self.truth, self._status]).add_class("kit-buttons")
        stages = (self.before, self.after) if len(names) > 2 else ()
        self.box.children = (self._head, *stages, self.show, self.of_class, self.picture_list, buttons, self._told,
                             self.chart.view, self._call)
        for part in (self.before, self.after):
            part.observe(lambda _: self._compare(), "value")
        for part in (self.show, self.of_class):
            part.observe(lambda _: self._list(), "value")
        self.picture_list.observe(lambda _: self._moved(), "value")
        self.truth.observe(lambda _: self._draw(), "value")
        self._compare()

    def get(self) -> tuple[PictureChange, ...]:
        """The changes of the pictures that the filters leave, what changed most first."""
        return tuple(self._changes[at] for at in self._steps.listed)

    def filter(self, show: str = _ANY, of_class: str | None = None) -> None:
        """Set the filters from code: ``lost``, ``new``, ``moved``, ``any change`` or ``all pictures``; a class's name.

        Raises:
            BadInput: no such filter or class.
        """
        if show not in self.show.options:
            raise unknown("filter", show, self.show.options, "this panel")
        classes = self.comparison.classes
        if of_class is not None and of_class not in classes:
            raise unknown("class", of_class, classes, "this comparison")
        self.show.value = show
        self.of_class.value = None if of_class is None else classes.index(of_class)

    def picture(self) -> Any:
        """The picture in view, or the one that changed most."""
        return self.chart.chart or changed_picture(self.comparison, stage=self.after.value, against=self.before.value)

    # ---- what the widgets do ------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Other stages: all changes anew."""
        found = self.comparison.changes(self.after.value, self.before.value)
        self._changes = {each.at: each for each in found}
        self._list()

    def _list(self) -> None:
        """Fill the list with the pictures that fit, and keep the one in view if it is among them."""
        show, kind = self.show.value, self.of_class.value
        self.of_class.disabled = show == _ALL
        fits = [each for each in self._changes.values()
                if show == _ALL or each.has("" if show == _ANY else show, kind)]
        before = self.picture_list.value
        self._busy = True
        self.picture_list.options = [(f"{each.name}: {counted(each)}", each.at) for each in fits]
        self.picture_list.value = before if before in [each.at for each in fits] else fits[0].at if fits else None
        self._busy = False
        self._moved()

    def _moved(self) -> None:
        """Another picture is in view."""
        if self._busy:
            return
        at, listed = self.picture_list.value, self._steps.listed
        self._steps.enable()
        self.truth.disabled = at is None
        place = f"{listed.index(at) + 1} of {len(listed)}, most changed first" if listed else "No picture fits."
        self._status.value = f'<span role="status">{place}</span>'
        self._draw()

    def _draw(self) -> None:
        at = self.picture_list.value
        before, after = self.before.value, self.after.value
        if at is None:
            self.chart.say("No picture fits the choices above.")
            self._told.value = ""
        else:
            change = self._changes[at]
            try:
                self.chart.show(picture_of(self.comparison, change, after, before, truth=self.truth.value))
            except BadInput as error:  # the picture's file has gone
                self.chart.say(f"{error.what} Try: {error.remedy}")
            lines = [f"<li>{fate}: {escape(', '.join(each))}</li>"
                     for fate, each in fates(self.comparison, change).items() if each]
            self._told.value = f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nothing changed in this picture.</p>"
        place = [each.at for each in self._changes.values()].index(at) if at is not None else None
        stages = f", stage={after!r}, against={before!r}" if len(self.comparison.stages) > 2 else ""
        truth = ", truth=True" if self.truth.value else ""
        if place is None:
            self._call.value = ""
        else:
            self._show_call(f"kit.charts.changed_picture(comparison, {place}{stages}{truth})")
