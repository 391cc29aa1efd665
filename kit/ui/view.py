"""What the panels on a finished result share: a frame, a place for a chart, and what a reader without a kernel sees."""

from __future__ import annotations

import base64
import itertools
from html import escape
from typing import TYPE_CHECKING, Any

from kit.charts.chart import PLOTLY
from kit.need import need
from kit.ui.look import STYLE

if TYPE_CHECKING:
    from kit.charts.chart import Chart

_COUNT = itertools.count(1)
CHARTS = """<style>
.kit-panel .kit-chart { overflow: auto; margin: 6px 0 0; }
.kit-panel .kit-chart .jp-OutputArea-prompt { display: none; }
.kit-panel .kit-chart .jp-OutputArea-output { padding: 0; }
.kit-panel .kit-words { margin: 2px 0 6px; }
.kit-panel .kit-words summary { cursor: pointer; }
.kit-panel .kit-list { width: 100%; max-width: 46em; }
.kit-panel .kit-list > label, .kit-panel .kit-control > label { text-align: left; }
</style>"""


class View:
    """A panel on a result: nothing runs, a person looks and chooses; ``get()`` gives what was chosen.

    Attributes:
        box: the widgets.
    """

    def __init__(self, title: str, words: str) -> None:
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self._title = title
        self._head = widgets.HTML(
            f"{STYLE}{CHARTS}<h4>{escape(title)}</h4><p>{escape(words)}</p>").add_class("kit-head")
        self._call, self._mark = widgets.HTML(), f"kit-view-{next(_COUNT)}"
        self.box = widgets.VBox().add_class("kit-panel")

    def get(self) -> Any:
        """What was chosen."""
        raise NotImplementedError

    def picture(self) -> Chart:
        """The chart that stands for the panel where there is no kernel."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"Panel {self._title!r}: needs a running kernel. In code: panel.get()"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        bundle = self.box._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        chart = self.picture()
        width, height = chart.size()
        return ({**data, "image/png": base64.b64encode(chart.png(1)).decode(), "text/plain": f"{self!r}\n{chart.alt}"},
                {**metadata, "image/png": {"alt": chart.alt, "width": width, "height": height}})

    def _show_call(self, text: str, words: str = "The same in Python:") -> None:
        self._call.value = (f'<span class="kit-small" id="{self._mark}">{escape(words)}</span>'
                            f'<pre class="kit-call" aria-labelledby="{self._mark}"><code>{escape(text)}</code></pre>')


class Stepper:
    """Previous and Next for a list, which go to its neighbours and are off at its ends.

    Attributes:
        previous: a button.
        next: a button.
    """

    def __init__(self, select: Any) -> None:
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self._select = select
        self.previous, self.next = widgets.Button(description="Previous"), widgets.Button(description="Next")
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))

    @property
    def listed(self) -> list[Any]:
        """The values in the list, in order."""
        return [value for _, value in self._select.options]

    def enable(self) -> None:
        """Turn the buttons on and off, as the value in view asks for."""
        value, listed = self._select.value, self.listed
        self.previous.disabled = value is None or value == listed[0]
        self.next.disabled = value is None or value == listed[-1]

    def _step(self, by: int) -> None:
        listed = self.listed
        if self._select.value in listed:
            self._select.value = listed[max(0, min(len(listed) - 1, listed.index(self._select.value) + by))]


class ChartBox:
    """A place for an interactive chart that changes, and its words folded below.

    The ``outputs`` of an Output widget are set as data. Nothing is captured by it, so what is printed elsewhere in the
    kernel never lands here. No static picture goes along: drawing one takes longer than everything else, and while a
    search runs it would disturb what is timed.

    Attributes:
        view: the widgets.
        chart: the one in view.
    """

    def __init__(self) -> None:
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self.chart: Chart | None = None
        self._output = widgets.Output().add_class("kit-chart")
        self._words = widgets.HTML().add_class("kit-words")
        self.view = widgets.VBox([self._output, self._words])

    def show(self, chart: Chart) -> None:
        """Put a chart in the place of the one before."""
        self.chart = chart
        self._output.outputs = ({"output_type": "display_data", "metadata": {},
                                 "data": {PLOTLY: chart.spec, "text/plain": chart.alt}},)
        self._words.value = ('<details class="kit-small"><summary>This chart in words</summary>'
                             f'<p role="status">{escape(chart.alt)}</p></details>')

    def say(self, text: str) -> None:
        """Words in place of a chart."""
        self.chart, self._output.outputs = None, ()
        self._words.value = f'<p role="status">{escape(text)}</p>'
