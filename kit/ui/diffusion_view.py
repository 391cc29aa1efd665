"""Pictures of two diffusion pipelines over each other, with a line to wipe from the one to the other.

The one farthest from the reference comes first; a person filters by what the judge says and steps through the rest.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from kit.charts.diffusion import checked, difference, picture_pair
from kit.charts.style import picture_source
from kit.errors import BadInput, unknown
from kit.families.diffusion_drawn import data_uri
from kit.families.diffusion_pictures import PictureComparison, PictureRow
from kit.need import need
from kit.ui.view import Stepper, View

FARTHEST, DRAWN, WRONG, OTHERWISE, ALARMED = (
    "all, farthest first", "all, as drawn", "judged wrong", "judged otherwise", "with an alarm")
_WIDTH, _HEIGHT = 360, 420  # CSS pixels that a picture gets, at most
_LOSSLESS = 512 * 512  # larger pictures are sent as JPEG: a wipe must stay quick
_STYLE = """<style>
.kit-panel .kit-pair { flex-flow: row wrap; gap: 16px; overflow: visible; align-items: flex-start;
  margin: 8px 2px 4px; }
.kit-panel .kit-pair *:is(.widget-html, .widget-box, .kit-wipe) { margin: 0; }
.kit-panel .kit-wipe { position: relative; overflow: hidden; flex: none; }
.kit-panel .kit-line { margin: 0; }
.kit-panel .kit-wipe .kit-upper { position: absolute; left: 0; top: 0; height: 100%; overflow: hidden;
  border-right: 2px solid #fff; box-shadow: 1px 0 0 #000; box-sizing: border-box; }
.kit-panel .kit-pair .widget-html-content, .kit-panel .kit-pair .jupyter-widget-html-content { line-height: 1.4; }
.kit-panel .kit-pair img { display: block; max-width: none; }
.kit-panel .kit-sides { display: flex; justify-content: space-between; gap: 12px; }
.kit-panel .kit-alarm { border-left: 4px solid var(--jp-error-color1, #c62828); padding: 2px 10px; margin: 4px 0; }
</style>"""


def pictures(comparison: PictureComparison) -> PictureView:
    """Browse pictures of diffusion pipelines against those of their reference.

    Args:
        comparison: what ``kit.families.diffusion.compare_pictures`` found, of two pipelines or more.

    Raises:
        BadInput: there is one pipeline only.
        MissingTool: ipywidgets is not installed.
    """
    return PictureView(comparison)


class PictureView(View):
    """What ``pictures`` returns. ``get()`` gives the numbers of the pictures listed, for a closer look in code.

    Attributes:
        pipeline: whose pictures are held against the reference's.
        show: the filter.
        picture_list: the pictures that fit.
        wipe: how much of the picture shows the reference, from the left, in percent.
    """

    def __init__(self, comparison: PictureComparison) -> None:
        names = [row.name for row in comparison.rows]
        if len(names) < 2:
            raise BadInput("There is one pipeline only: nothing to hold its pictures against.",
                           remedy="compare the pictures of two pipelines or more")
        super().__init__("Pictures side by side", f"Left of the line {names[0]}, right of it the other pipeline, from "
                         "the same prompt and noise. Move the line to wipe from the one to the other.")
        self._head.value += _STYLE
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self.comparison = comparison
        self._busy = False
        style = {"description_width": "7em"}
        self.pipeline = widgets.Dropdown(description="Pipeline", options=names[1:], value=names[-1], style=style)
        judged = (WRONG, OTHERWISE) if comparison.rows[0].right else ()
        self.show = widgets.Dropdown(description="Show", options=[FARTHEST, DRAWN, *judged, ALARMED], style=style)
        self.picture_list = widgets.Select(description="Picture", rows=6, style=style)
        self._steps = Stepper(self.picture_list)
        self.previous, self.next = self._steps.previous, self._steps.next
        # As wide as the picture under it, without a readout, so that its handle stands at the line.
        self.wipe = widgets.FloatSlider(value=50, min=0, max=100, step=1, readout=False).add_class("kit-line")
        self._status, self._told, self._difference = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._lower, self._over, self._sides = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._upper = widgets.Box([self._over]).add_class("kit-upper")
        self._stack = widgets.Box([self._lower, self._upper]).add_class("kit-wipe")
        left = widgets.VBox([self._sides, self._stack, self.wipe])
        self._pair = widgets.HBox([left, self._difference]).add_class("kit-pair")
        for part in (self.pipeline, self.show, self.picture_list):
            part.add_class("kit-list")
        buttons = widgets.HBox([self.previous, self.next, self._status]).add_class("kit-buttons")
        several = (self.pipeline,) if len(names) > 2 else ()
        self.box.children = (self._head, *several, self.show, self.picture_list, buttons, self._told, self._pair,
                             self._call)
        for part in (self.pipeline, self.show):
            part.observe(lambda _: self._list(), "value")
        self.picture_list.observe(lambda _: self._moved(), "value")
        self.wipe.observe(lambda _: self._wiped(), "value")
        self._wiped()
        self._list()

    @property
    def row(self) -> PictureRow:
        """Of the pipeline in view."""
        return self.comparison.row(self.pipeline.value)

    def get(self) -> tuple[int, ...]:
        """Numbers of the pictures that the filter leaves, in the order of the list."""
        return tuple(self._steps.listed)

    def filter(self, show: str) -> None:
        """Set the filter from code, with the words that the drop-down has.

        Raises:
            BadInput: no such filter.
        """
        if show not in self.show.options:
            raise unknown("filter", show, self.show.options, "this panel")
        self.show.value = show

    def go(self, number: int) -> None:
        """Bring a picture into view by its number; the filter goes where it hides it.

        Raises:
            BadInput: no such picture.
        """
        checked(self.comparison, number)
        if number not in self.get():
            self.show.value = FARTHEST
        self.picture_list.value = number

    def picture(self) -> Any:
        """A chart of the pair in view, or of the pair that differs most."""
        return picture_pair(self.comparison, self.row.name, self.picture_list.value)

    # ---- what the widgets do ------------------------------------------------------------------------------------

    def _fits(self) -> list[int]:
        """The pictures that fit the filter, in its order."""
        row, first, show = self.row, self.comparison.rows[0], self.show.value
        if show == DRAWN:
            return list(range(len(row.psnr)))
        keep = {FARTHEST: lambda at: True, WRONG: lambda at: not row.right[at],
                OTHERWISE: lambda at: row.right[at] != first.right[at],
                ALARMED: lambda at: at in {*row.alarmed, *first.alarmed}}[show]
        return [at for at in self.comparison.order(row.name) if keep(at)]

    def _list(self) -> None:
        """Fill the list with the pictures that fit, and keep the one in view if it is among them."""
        fits, before, row = self._fits(), self.picture_list.value, self.row
        self._busy = True
        self.picture_list.options = [(f"{at}: {self.comparison.prompts[at]}, {row.psnr[at]:.1f} dB"
                                      + (", wrong" if row.right and not row.right[at] else ""), at) for at in fits]
        self.picture_list.value = before if before in fits else fits[0] if fits else None
        self._busy = False
        self._moved()

    def _moved(self) -> None:
        """Another picture is in view."""
        if self._busy:
            return
        at, listed = self.picture_list.value, self._steps.listed
        self._steps.enable()
        self.wipe.disabled = at is None
        place = f"{listed.index(at) + 1} of {len(listed)}, {self._order()}" if listed else "No picture fits."
        self._status.value = f'<span role="status">{place}</span>'
        self._pair.layout.display = "none" if at is None else ""
        if at is None:
            self._told.value = self._call.value = ""
        else:
            self._draw(at)

    def _order(self) -> str:
        return "as drawn" if self.show.value == DRAWN else "farthest first"

    def _wiped(self) -> None:
        self._upper.layout.width = f"{self.wipe.value:g}%"

    def _draw(self, at: int) -> None:
        row, first = self.row, self.comparison.rows[0]
        left, right = (self.comparison.drawn[each.name].pictures[at] for each in (first, row))
        apart, gain = difference(left, right)
        height, width = left.shape[:2]
        shown = min(_WIDTH / width, _HEIGHT / height)
        size = f"{round(width * shown)}px", f"{round(height * shown)}px"
        prompt = self.comparison.prompts[at]
        # Each has its full size, so that the narrower box above the other only cuts it.
        self._lower.value, self._over.value = (_img(pixels, f"{prompt}, drawn by {each.name}", size)
                                               for pixels, each in ((right, row), (left, first)))
        self._stack.layout.width, self._stack.layout.height = size
        self.wipe.layout.width = size[0]
        self._sides.value = (f'<div class="kit-sides kit-small" style="width:{size[0]}"><span>{escape(first.name)}'
                             f"</span><span>{escape(row.name)}</span></div>")
        lost = "; orange: no number" if not np.isfinite(left - right).all() else ""
        words = "no difference" if not apart.any() else f"difference, times {gain:g}{lost}"
        self._difference.value = f'<div class="kit-small">{words}</div>{_img(apart, words, size)}'
        self._told.value = self._words(at)
        self._show_call(f"kit.charts.picture_pair(comparison, {row.name!r}, {at})")

    def _words(self, at: int) -> str:
        """Prompt, figures, what the judge reads, and alarms."""
        row, first = self.row, self.comparison.rows[0]
        alarms = "".join(
            f'<p class="kit-alarm"><b>Alarm, {escape(each.name)}:</b> {escape(str(alarm))}</p>'
            for each in (first, row) for alarm in self.comparison.drawn[each.name].alarms if alarm.prompt == at)
        lines = [f"<li>{escape(row.name)} against {escape(first.name)}: PSNR {row.psnr[at]:.1f} dB, SSIM "
                 f"{row.ssim[at]:.3f}</li>"]
        lines += [f"<li>{escape(each.name)}: judged {'right' if each.right[at] else 'wrong'}, it reads "
                  f"{escape(each.read[at])}</li>" for each in (first, row) if each.right]
        return f"<p><b>Picture {at}: {escape(self.comparison.prompts[at])}</b></p><ul>{''.join(lines)}</ul>{alarms}"


def _img(picture: np.ndarray, words: str, size: tuple[str, str]) -> str:
    height, width = picture.shape[:2]
    source = data_uri(picture) if height * width <= _LOSSLESS else picture_source(
        (np.clip(np.nan_to_num(picture, posinf=1, neginf=0), 0, 1) * 255).round().astype(np.uint8))
    large = "pixelated" if width < 256 else "auto"  # the pixels as they are, where they are few
    return (f'<img src="{source}" alt="{escape(words)}" draggable="false" style="width:{size[0]};height:{size[1]};'
            f'image-rendering:{large}">')
