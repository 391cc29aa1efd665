"""The ranges of a model's tensors, one at a time and the worst first; a person may choose another method for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kit.calibration import Calibration
from kit.charts.calibration import channel_ranges, range_chart, sample_maxima
from kit.errors import BadInput, unknown
from kit.int8 import qdq_read
from kit.int8.range_cost import tensor_sqnr
from kit.int8.ranges import METHODS, Range, choose
from kit.model import read
from kit.need import need
from kit.ui.view import ChartBox, Stepper, View

_AS_CHOSEN = "as chosen"
_PICTURES = {"values and error": range_chart, "channels": channel_ranges, "samples": sample_maxima}


def ranges(calibration: Calibration, quantized: Any = None, *, method: str = "mse",
           percentile: float = 99.99) -> RangeView:
    """Look at the range of every tensor, worst first, and overrule the method of some.

    Args:
        calibration: what was measured.
        quantized: an INT8 model made with it, whose ranges are then the ones shown as chosen.
        method: the one that counts as chosen where there is no model.
        percentile: of the percentile method.

    Raises:
        BadInput: unknown method, or no tensor to show.
        MissingTool: ipywidgets is not installed.
    """
    if quantized is None:
        found = calibration.ranges(method, percentile=percentile)
        said = f"percentile {percentile:g}" if method == "percentile" else method
    else:
        found, said = _written(calibration, quantized), "in the model"
    return RangeView(calibration, found, said, percentile)


class RangeView(View):
    """What ``ranges`` returns. ``get()`` gives the overrules, ``{tensor: method}``; empty where nobody chose.

    Attributes:
        tensors: their names, worst first.
        sqnr: tensor -> its values against what INT8 makes of them in the range as chosen, dB.
        tensor: the list to choose from.
        method: the drop-down that overrules.
        chart: the place of the chart.
    """

    def __init__(self, calibration: Calibration, chosen: Mapping[str, Range], said: str, percentile: float) -> None:
        super().__init__("Ranges of the tensors", "Worst first, by how far INT8 moves the tensor's own values. That is "
                         "not yet what it costs the output: kit.sensitivity says that.")
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self._calibration, self._percentile, self._said = calibration, percentile, said
        histograms = calibration.histograms()
        self._chosen = {name: span for name, span in chosen.items() if span[0] < span[1]}
        self.sqnr = {name: tensor_sqnr(histograms[name], span) for name, span in self._chosen.items()}
        if not self.sqnr:
            raise BadInput("There is no tensor whose range could be shown.",
                           remedy="calibrate with samples that make values other than zero")
        self.tensors = tuple(sorted(self.sqnr, key=self.sqnr.__getitem__))
        self._makers = {t.name: t.operator for t in calibration.tensors}
        self._overrules: dict[str, str] = {}
        self._busy = False
        style = {"description_width": "7em"}
        self.find = widgets.Text(description="Find", placeholder="part of a tensor's or operator's name", style=style)
        self.tensor = widgets.Select(description="Tensor", rows=8, style=style)
        self._steps = Stepper(self.tensor)
        self.previous, self.next = self._steps.previous, self._steps.next
        self.method = widgets.Dropdown(description="Method", style=style)
        self.show = widgets.Dropdown(description="Show", options=list(_PICTURES), style=style)
        self._status, self.chart = widgets.HTML(), ChartBox()
        for part in (self.find, self.tensor, self.method, self.show):
            part.add_class("kit-list")
        buttons = widgets.HBox([self.previous, self.next, self._status]).add_class("kit-buttons")
        self.box.children = (self._head, self.find, self.tensor, buttons, self.method, self.show, self.chart.view,
                             self._call)
        self._list(self.tensors[0])
        self.find.observe(lambda _: self._list(self.tensor.value), "value")
        self.tensor.observe(lambda _: self._moved(), "value")
        self.method.observe(lambda _: self._overruled(), "value")
        self.show.observe(lambda _: self._draw(), "value")
        self._moved()
        self._tell()

    def get(self) -> dict[str, str]:
        """Tensor -> the method that a person chose for it."""
        return dict(self._overrules)

    def choose(self, tensor: str, method: str | None) -> None:
        """Overrule a tensor's method from code; None takes it back.

        Raises:
            BadInput: no such tensor, or no such method.
        """
        if tensor not in self.sqnr:
            raise unknown("tensor with a range", tensor, self.sqnr, self._calibration.model_name)
        if method is not None and method not in METHODS:
            raise unknown("range method", method, METHODS)
        self._set(tensor, method)
        if tensor == self.tensor.value:
            self._moved()

    def picture(self) -> Any:
        """The chart of the tensor in view, or of the worst."""
        return self.chart.chart or self._chart(self.tensors[0], "values and error")

    # ---- what the widgets do ------------------------------------------------------------------------------------

    def _list(self, wanted: str | None) -> None:
        """Fill the list with the tensors that fit what was typed, and keep the one in view if it is among them."""
        word = self.find.value.strip().lower()
        names = [name for name in self.tensors
                 if word in name.lower() or word in self._makers.get(name, "").lower()]
        keep = wanted if wanted in names else names[0] if names else None
        before = self.tensor.value
        self._busy = True
        self.tensor.options = [(self._line(name), name) for name in names]
        self.tensor.value = keep
        self._busy = False
        if keep is None:
            self._status.value = '<span role="status">No tensor fits.</span>'
        if keep != before or keep is None:
            self._moved()

    def _line(self, name: str) -> str:
        overruled = f", now {self._overrules[name]}" if name in self._overrules else ""
        return f"{self.sqnr[name]:5.1f} dB  {name} ({self._makers.get(name, 'input')}){overruled}"

    def _moved(self) -> None:
        """Another tensor is in view: its methods with what each costs, and its chart."""
        if self._busy:
            return
        name = self.tensor.value
        self.method.disabled = self.show.disabled = name is None
        self._steps.enable()
        if name is None:
            self.chart.say("No tensor fits what is typed above.")
            return
        histogram = self._calibration.histogram(name)
        costs = {method: tensor_sqnr(histogram, choose(histogram, method, percentile=self._percentile))
                 for method in METHODS}
        self._busy = True
        self.method.options = [(f"{_AS_CHOSEN} ({self._said}): {self.sqnr[name]:.1f} dB", ""),
                               *((f"{method}: {cost:.1f} dB", method) for method, cost in costs.items())]
        self.method.value = self._overrules.get(name, "")
        self._busy = False
        at = self.tensors.index(name) + 1
        self._status.value = f'<span role="status">{at} of {len(self.tensors)}, worst first</span>'
        self._draw()

    def _overruled(self) -> None:
        if not self._busy and self.tensor.value is not None:
            self._set(self.tensor.value, self.method.value)
            self._draw()

    def _set(self, tensor: str, method: str | None) -> None:
        if not method:
            self._overrules.pop(tensor, None)
        else:
            self._overrules[tensor] = method
        self._list(self.tensor.value)
        self._tell()

    def _draw(self) -> None:
        name = self.tensor.value
        if name is None or self._busy:
            return
        try:
            self.chart.show(self._chart(name, self.show.value))
        except BadInput as error:  # channels are measured only beside nodes with weights
            self.chart.say(f"{error.what} Try: {error.remedy}")

    def _chart(self, name: str, picture: str) -> Any:
        if picture != "values and error":
            return _PICTURES[picture](self._calibration, name)
        return range_chart(self._calibration, name, percentile=self._percentile,
                           chosen=(self._said, self._chosen[name]) if self._said not in METHODS else None)

    def _tell(self) -> None:
        chosen = tuple(f"{tensor}={method}" for tensor, method in sorted(self._overrules.items()))
        if chosen:
            self._show_call(f"kit.quantize(model, calibration, kit.QuantizeOptions(tensor_methods={chosen!r}))")
        else:
            self._call.value = ('<span class="kit-small">No method is overruled: every tensor keeps its range as '
                                "chosen.</span>")


def _written(calibration: Calibration, quantized: Any) -> dict[str, Range]:
    """The ranges in a QDQ model, of the tensors that were measured."""
    measured = calibration.histograms()
    found = {}
    for name, rounded in qdq_read.rounded(read(quantized.model.path)).items():
        limits = np.iinfo(rounded.dtype)
        if name in measured and measured[name].elements:
            found[name] = ((limits.min - rounded.zero) * rounded.scale, (limits.max - rounded.zero) * rounded.scale)
    if not found:
        raise BadInput(f"{quantized.model.path.name} rounds none of the tensors that {calibration.model_name} holds.",
                       remedy="give the calibration this model was made with")
    return found
