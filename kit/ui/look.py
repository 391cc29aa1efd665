"""What a panel looks like: its widgets, its style, and the words for each state. Knows nothing of processes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from kit.errors import KitError
from kit.need import need
from kit.progress import Tick, words
from kit.ui.controls import label

_COUNT = itertools.count(1)

# Colours come from JupyterLab's theme, light or dark; the values after the commas serve hosts without one.
STYLE = """<style>
.kit-panel { border: 1px solid var(--jp-border-color2, #c8ccd1); border-radius: 6px; padding: 12px 16px; margin: 4px 0;
  color: var(--jp-ui-font-color1, #222); max-width: 62em; overflow: hidden; box-sizing: border-box; }
.kit-panel .widget-html-content, .kit-panel .jupyter-widget-html-content { line-height: 1.45; align-self: stretch; }
.kit-panel .kit-head h4 { margin: 0; font-size: 1.15em; font-weight: 600; }
.kit-panel .kit-head p { margin: 2px 0 8px; color: var(--jp-ui-font-color2, #555); }
.kit-panel .kit-row { flex-flow: row wrap; align-items: center; column-gap: 14px; min-height: 34px; overflow: visible; }
.kit-panel .kit-control { width: 27em; max-width: 100%; }
.kit-panel .kit-control > label { text-align: left; }
.kit-panel .kit-control.widget-checkbox { width: 27em; }
.kit-panel .kit-control.widget-checkbox label { display: flex; flex-direction: row-reverse; justify-content: flex-end;
  align-items: center; width: 100%; }
.kit-panel .kit-control.widget-checkbox label > span { width: 11.5em; padding-right: 4px; flex: none; }
.kit-panel .kit-control.widget-checkbox input { flex: none; width: auto; margin: 0 4px; }
.kit-panel .kit-help { flex: 1 1 18em; min-width: 14em; }
.kit-panel .kit-help span { color: var(--jp-ui-font-color2, #555); font-size: 0.93em; line-height: 1.35;
  display: block; white-space: normal; }
.kit-panel .kit-note { margin: 0 0 0 12em; min-height: 0; }
.kit-panel .kit-note:not(:has(span)) { display: none; }
.kit-panel .kit-note [role=alert] { color: var(--jp-error-color1, #c62828); }
.kit-panel pre.kit-call { background: var(--jp-layout-color2, #f3f4f6); color: inherit; padding: 8px 10px;
  border-radius: 4px; margin: 2px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.95em;
  word-break: normal; font-family: var(--jp-code-font-family, monospace); }
.kit-panel pre.kit-call code { word-break: normal; white-space: inherit; overflow-wrap: inherit; }
.kit-panel .kit-small { color: var(--jp-ui-font-color2, #555); font-size: 0.93em; }
.kit-panel .kit-buttons { margin: 10px 0 2px; align-items: center; flex-flow: row wrap; overflow: visible; }
.kit-panel button:focus-visible, .kit-panel input:focus-visible, .kit-panel select:focus-visible,
.kit-panel summary:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 2px; }
.kit-panel progress { width: 100%; height: 10px; accent-color: var(--jp-brand-color1, #1976d2); display: block; }
.kit-panel .kit-error { border-left: 4px solid var(--jp-error-color1, #c62828); padding: 6px 12px; margin: 6px 0 0;
  background: var(--jp-layout-color2, #f3f4f6); border-radius: 0 4px 4px 0; }
.kit-panel .kit-error p { margin: 2px 0; }
.kit-panel .kit-error pre { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 20em; overflow: auto;
  font-size: 0.9em; color: inherit; background: transparent; }
.kit-panel .kit-result { border-top: 1px solid var(--jp-border-color2, #c8ccd1); margin-top: 10px; padding-top: 8px;
  max-height: 32em; overflow: auto; }
.kit-panel .kit-result.kit-old { opacity: 0.6; }
.kit-panel .kit-result table { border-collapse: collapse; margin: 0 0 10px; font-size: 0.97em;
  min-width: min(100%, 36em); }
.kit-panel .kit-result > table:first-child { width: 100%; }
.kit-panel .kit-result > table:first-child th[scope=row] { width: 1%; }
.kit-panel .kit-result caption { text-align: left; font-weight: 600; padding: 2px 0 6px; caption-side: top;
  color: inherit; }
.kit-panel .kit-result th, .kit-panel .kit-result td { text-align: left; vertical-align: top; padding: 3px 14px 3px 0;
  border: 0; border-bottom: 1px solid var(--jp-border-color3, #e3e5e8); }
.kit-panel .kit-result th { font-weight: 500; color: var(--jp-ui-font-color2, #555); white-space: nowrap; }
</style>"""


class Look:
    """The widgets of one panel, and a method for each thing they can say."""

    def __init__(self, stage: Callable[..., Any], controls: Sequence[Any]) -> None:
        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self._name, self._words = stage.__name__, label(stage.__name__)
        self._mark = f"kit-{self._name}-{next(_COUNT)}"
        self.head = widgets.HTML(STYLE + _head(stage)).add_class("kit-head")
        self.call = widgets.HTML()
        self.run = widgets.Button(description="Run", button_style="primary", tooltip=f"Run {self._name}")
        self.again = widgets.Button(description="Run again",
                                    tooltip="Work afresh and replace the stored result")
        self.cancel = widgets.Button(description="Cancel", disabled=True,
                                     tooltip=f"Stop {self._name}; nothing half written stays")
        _answer_at_once(self.cancel)
        self.bar, self.status, self.note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.error, self.result = widgets.HTML(), widgets.HTML()
        buttons = widgets.HBox([self.run, self.again, self.cancel]).add_class("kit-buttons")
        self.box = widgets.VBox([self.head, *controls, self.call, buttons, self.bar, self.status, self.note, self.error,
                                 self.result]).add_class("kit-panel")
        for part in (self.bar, self.note, self.error, self.result):
            _fold(part)

    def set_busy(self, busy: bool, *, right: bool, stored: Any, shown: bool) -> None:
        """Buttons for a run under way or not. ``right``: the controls hold what they may."""
        self.run.disabled = busy or not right
        self.cancel.disabled = not busy
        self.again.disabled = busy or not right or stored is None
        self.again.layout.display = "" if stored is not None else "none"
        if busy:
            self._put(self.note, "")
            return
        self._put(self.bar, "")
        said = "" if stored is None or shown else (
            f'<p class="kit-small">A stored result fits these settings: {escape(stored.words())}. Run takes it up at '
            "once; Run again works afresh.</p>")
        self._put(self.note, said)

    def show_call(self, text: str) -> None:
        """The equal Python call."""
        self.call.value = (f'<span class="kit-small" id="{self._mark}">The same in Python:</span>'
                           f'<pre class="kit-call" aria-labelledby="{self._mark}"><code>{escape(text)}</code></pre>')

    def show_no_call(self) -> None:
        """A control holds what it cannot: there is no such call."""
        self.call.value = '<span class="kit-small">Mend the value marked above to run this stage.</span>'

    def show_progress(self, tick: Tick, seconds: float) -> None:
        """The bar and the words of a tick."""
        # Without a value the browser shows an unknown amount of work; only then is nothing rewritten each time.
        known = f' value="{tick.done}" max="{tick.total}"' if tick.total else ""
        self._put(self.bar, f'<progress aria-label="{escape(self._name)} progress"{known}></progress>')
        said = words(tick, seconds)
        if not tick.total and seconds >= 2:
            said += f", {seconds:.0f} s so far"
        self._say(said)

    def show_result(self, result: Any, how: str) -> None:
        """The result's card."""
        self._say(how)
        self._put(self.result, f'<div class="kit-result" role="region" tabindex="0" aria-label="Result of '
                               f'{escape(self._name)}">{_html(result)}</div>')

    def show_outdated(self, outdated: bool) -> None:
        """Say that the result in view was made with other settings."""
        self.result.value = self.result.value.replace('class="kit-result kit-old"', 'class="kit-result"')
        if outdated:
            self.result.value = self.result.value.replace('class="kit-result"', 'class="kit-result kit-old"')
            self._say("The result below was made with other settings. Run for these.")
        else:
            self._say("The result below was made with these settings.")

    def show_cancelled(self, said: str) -> None:
        """The run was stopped."""
        self._say(said)

    def show_error(self, error: BaseException) -> None:
        """What went wrong, what to do, and the details folded."""
        self._say(f"{self._words} did not finish.")
        what = getattr(error, "what", str(error))
        remedy = f"<p><b>Try:</b> {escape(error.remedy)}</p>" if isinstance(error, KitError) else ""
        detail = getattr(error, "detail", "")
        folded = f"<details><summary>Details</summary><pre>{escape(detail)}</pre></details>" if detail else ""
        self._put(self.error, f'<div class="kit-error" role="alert"><p><b>{escape(type(error).__name__)}:</b> '
                              f"{escape(what)}</p>{remedy}{folded}</div>")

    def show_mended(self, mended: bool) -> None:
        """Say whether the last run, which gave no result, was made with the settings in view.

        Its error stays: a person mends the settings by what it says.
        """
        self._say("The settings have changed since. Run for these." if mended else
                  "The last run with these settings gave no result.")

    def clear(self) -> None:
        """Take away the last run's error and result."""
        self._put(self.error, "")
        self._put(self.result, "")

    def _say(self, text: str) -> None:
        self.status.value = f'<span role="status">{escape(text)}</span>'

    def _put(self, part: Any, html: str) -> None:
        if part.value != html:
            part.value = html
        _fold(part)


def _answer_at_once(button: Any) -> None:
    """Let a click through while a cell is busy.

    ipykernel 7.4 sends a click to the loop that wrote to the button last, which is busy when a cell waits in
    ``get()``; without that rule it goes to the front end's own loop, as in 7.3. Only for Cancel: a Run that overtook
    the change of a control would run with the old value.
    """
    if hasattr(button.comm, "_reply_subshell_for"):
        button.comm._reply_subshell_for = None


def _fold(part: Any) -> None:
    """An empty HTML widget would still take a line's height."""
    part.layout.display = "" if part.value else "none"


def _head(stage: Callable[..., Any]) -> str:
    first = (inspect.getdoc(stage) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "")
    return f"<h4>{escape(label(stage.__name__))}</h4>" + (f"<p>{escape(first)}</p>" if first else "")


def _html(result: Any) -> str:
    if callable(getattr(result, "html", None)):
        return result.html()
    if callable(getattr(result, "_repr_html_", None)):
        return result._repr_html_()
    return f"<pre>{escape(str(result))}</pre>"
