"""The panel of a search: while it runs, a chart of what it has found so far; then every trial, to pick from."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit import searching
from kit.calibration import model_of, short_name
from kit.charts.searching import pareto, search_progress
from kit.errors import KitError
from kit.need import need
from kit.trials.found import Found
from kit.trials.log import ABOUT, TRIALS, Trial
from kit.ui.call import UNKNOWN, Spelling, spelling
from kit.ui.panel import Panel
from kit.ui.view import CHARTS, ChartBox

_LOOK = 1.0  # seconds between two looks at the log
_MAIN = ("seconds", "runtimes", "precisions", "threads")
_PICTURES = {"loss against time": pareto, "progress": search_progress}


def search(model: Any, samples: Any, *, options: searching.SearchOptions | None = None, metric: Any = None,
           **kwargs: Any) -> SearchPanel:
    """A panel that searches for the fastest artefact that is accurate enough.

    For an executor call ``kit.search`` itself: one cannot travel into the worker process of a panel. The chart of that
    search is ``kit.charts.pareto(folder)``.

    Args:
        model: the float model, or a result that carries one.
        samples: feeds, or a Calibration.
        options: what the controls start at.
        metric: from a runner to a number, larger is better; None judges by the output's error.
        kwargs: ``runs``.

    Raises:
        MissingTool: ipywidgets is not installed.
    """
    here = inspect.currentframe()
    if metric is not None:
        kwargs = {"metric": metric, **kwargs}
    spelt = spelling(here.f_back if here else None, 2, tuple(kwargs), before=0)
    return SearchPanel(model, samples, kwargs, options=options, spelt=spelt)


class SearchPanel(Panel):
    """What ``search`` returns. ``get()`` gives the ``Found``, with the trial that a person picked, if one did.

    Attributes:
        chart: the place of the chart.
        trials: the list of the trials to pick from.
        use: the button that picks the one chosen there.
    """

    _cancelled = "Stopped. What was found so far is kept; Run goes on from there."

    def __init__(self, model: Any, samples: Any, kwargs: Mapping[str, Any], *, options: Any = None,
                 spelt: Spelling = UNKNOWN, **more: Any) -> None:
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self._found: Found | None = None
        self._began, self._looked, self._seen = 0.0, 0.0, (None, 0)
        self._name = short_name(model_of(model))
        style = {"description_width": "4em"}
        self.chart = ChartBox()
        self.show = widgets.Dropdown(description="Show", options=list(_PICTURES), style=style).add_class("kit-list")
        self.trials = widgets.Dropdown(description="Trial", style=style).add_class("kit-list")
        self.use = widgets.Button(description="Use this one", layout={"width": "auto"},
                                  tooltip="Make the trial chosen beside it the result of this panel")
        self._picker = widgets.HBox([self.trials, self.use]).add_class("kit-row")
        self._live = widgets.VBox([self.show, self.chart.view, self._picker])
        super().__init__(searching.search, (model, samples), kwargs, options=options, spelt=spelt, **more)
        self._arrange(widgets)
        self.show.observe(lambda _: self._draw(), "value")
        self.trials.observe(lambda _: self._offer(), "value")
        self.use.on_click(lambda _: self.pick(self.trials.value))
        self._draw()

    def pick(self, number: int) -> None:
        """Make a trial the result, as the button does.

        Args:
            number: of the trial.

        Raises:
            BadInput: nothing has been found yet, there is no such trial, or its file is gone.
        """
        if self.running or self._found is None:
            return
        try:
            self._found = self._found.choose(number)
        except KitError as error:
            self.look.show_error(error)
            return
        self._outcome = self._found
        self.look.clear()
        self.look.show_result(self._found, f"Trial {number} is picked: get() gives it.")
        self._draw()

    # ---- while it runs ------------------------------------------------------------------------------------------

    def _work(self, *arguments: Any) -> None:
        self._began, self._looked, self._seen, self._found = time.time(), 0.0, (None, 0), None
        self.show.value = "progress"
        super()._work(*arguments)
        result = self.result
        self._found = result if isinstance(result, Found) else self._open(self._newest())
        self.show.value = "loss against time"
        self._draw()

    def _watch(self) -> None:
        """Draw the log's trials when there are more of them than a second ago."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        folder = self._newest()
        log = folder / TRIALS if folder else None
        size = log.stat().st_size if log and log.is_file() else 0
        if size and (folder, size) != self._seen:
            self._seen, self._found = (folder, size), self._open(folder)
            self._draw()

    def _newest(self) -> Path | None:
        """The folder of the search that this run has begun or gone on with."""
        found = [(path.stat().st_mtime, path.parent) for path in (self._runs() / self._name).glob(f"search-*/{ABOUT}")]
        # A clock of a file system may be behind by as much as its ticks are apart.
        recent = [entry for entry in found if entry[0] >= self._began - 2]
        return max(recent)[1] if recent else None

    def _open(self, folder: Path | None) -> Found | None:
        try:
            return Found.open(folder) if folder else None
        except (KitError, OSError):
            return None  # no trial has ended yet, or its line is being written: the next look will tell

    # ---- what is shown ------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        found = self._found
        under_way = self.running and self._outcome is None  # the thread still draws when the stage is done
        self._live.layout.display = "none" if found is None and not under_way else ""
        self._picker.layout.display = "none" if found is None or under_way else ""
        if found is None:
            self.chart.say("The float model is being prepared and measured; then the first point appears.")
            return
        self.chart.show(_PICTURES[self.show.value](found))
        if not under_way:
            self._fill(found)

    def _fill(self, found: Found) -> None:
        """The list to pick from: every trial that can be run again, fastest first."""
        front = {t.number for t in found.pareto()}
        kept = (t for t in found.trials if t.ratio is not None and t.artifact and t.artifact.is_file())
        trials = sorted({t.number: t for t in (*kept, found.pick)}.values(), key=lambda t: t.ratio)
        self.trials.options = [
            (f"{t.number}: {t.candidate.label}; {t.speedup:.2f}x, loss {found.loss_text(t)}{_judged(t, found.allowed)}"
             + (", nothing beats it in both" if t.number in front else "")
             + (" (the pick)" if t.number == found.pick.number else ""), t.number) for t in trials]
        self.trials.value = found.pick.number
        self._offer()

    def _offer(self) -> None:
        picked = self.result.pick.number if isinstance(self.result, Found) else None
        self.use.disabled = self.trials.value is None or self.trials.value == picked

    def _arrange(self, widgets: Any) -> None:
        """The options that matter first in view, the others folded; the chart between status and result."""
        main = ("loss" if "metric" in self._kwargs else "sqnr", *_MAIN)
        rest = widgets.Accordion([widgets.VBox([c.view for name, c in self.controls.items() if name not in main])],
                                 titles=("More settings",))
        views = [control.view for control in self.controls.values()]
        others = [part for part in self.look.box.children if part not in views]
        head, *tail = others
        tail.insert(tail.index(self.look.error), self._live)
        self.look.box.children = (head, widgets.HTML(CHARTS), *(self.controls[name].view for name in main), rest, *tail)


def _judged(trial: Trial, allowed: float) -> str:
    if trial.is_accurate(allowed) or trial.loss is None:
        return ""
    return ", more than allowed" if trial.complete else ", not measured on everything"
