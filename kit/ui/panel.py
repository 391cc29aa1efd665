"""A panel is a view of a stage: controls for its options, Run and Cancel, progress in words, the result or the error.

The work happens in a process of its own; one small thread here listens to it and sets what the widgets show. Callbacks
of buttons only flip flags, because the thread they arrive on differs between kernels. ``get()`` is the bridge to the
notebook: it waits for a run under way, or starts one, so Run All, papermill and a person clicking take the same path.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit import worker
from kit.errors import BadInput, KitError, ToolFailed
from kit.options import fields
from kit.progress import Cancelled, Tick
from kit.record import runs_folder
from kit.ui import stored
from kit.ui.call import UNKNOWN, Spelling, python_call, spelling
from kit.ui.controls import Control
from kit.ui.look import Look

_BLINK = 0.25  # seconds between two changes of the progress line


def panel(stage: Callable[..., Any], *args: Any, options: Any = None,
          choices: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> Panel:
    """Controls for a stage.

    Args:
        stage: a stage such as ``kit.quantize``; importable, since it runs in a process of its own.
        args: what the stage takes before its options, such as a model.
        options: what the controls start at; the stage's own defaults when left out.
        choices: for an option that takes several names, the names to choose from.
        kwargs: further arguments of the stage, by name.

    Raises:
        MissingTool: ipywidgets is not installed.
    """
    here = inspect.currentframe()
    spelt = spelling(here.f_back if here else None, len(args), tuple(kwargs))
    return Panel(stage, args, kwargs, options=options, choices=choices or {}, spelt=spelt)


class Panel:
    """What ``panel`` returns. ``get()`` gives the result; ``controls["bits"].value = 4`` sets a control.

    A stage whose files are worth watching while it runs has a panel of its own on this one: see ``_watch``.

    Attributes:
        stage: the function that does the work.
        controls: name of each option -> its control.
        look: the widgets.
    """

    _cancelled = "Cancelled. Nothing was written."

    def __init__(self, stage: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *,
                 options: Any = None, choices: Mapping[str, Sequence[str]] | None = None,
                 call: Callable[..., Any] = worker.run, spelt: Spelling = UNKNOWN) -> None:
        self.stage, self._args, self._kwargs, self._call = stage, tuple(args), dict(kwargs), call
        self._spelt = spelt
        self._takes = inspect.signature(stage).parameters
        default = getattr(self._takes.get("options"), "default", None)
        self._start_options = options if options is not None else default if dataclasses.is_dataclass(default) else None
        self.controls = {field.name: Control(field, getattr(self._start_options, field.name),
                                             (choices or {}).get(field.name, ()))
                         for field in (fields(type(self._start_options)) if self._start_options is not None else ())}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: Any = None
        self._made_with: Any = None
        self._digests: tuple[frozenset[str], ...] | None = None
        self._stored: stored.Stored | None = None
        self._clock = _Clock()
        self.look = Look(stage, [control.view for control in self.controls.values()])
        for name, control in self.controls.items():
            control.watch(self._checker(name), self._changed)
        self.look.run.on_click(lambda _: self._clicked(again=False))
        self.look.again.on_click(lambda _: self._clicked(again=True))
        self.look.cancel.on_click(lambda _: self.cancel())
        if "runs" in self._takes:
            self._digests = stored.digests_of([*self._args, *(v for k, v in self._kwargs.items() if k != "runs")])
        self._changed()

    @property
    def options(self) -> Any:
        """The controls as they stand, as the stage's options.

        Raises:
            BadInput: a control holds what it cannot.
        """
        if self._start_options is None:
            return None
        return dataclasses.replace(self._start_options, **{n: control.value for n, control in self.controls.items()})

    @property
    def result(self) -> Any:
        """The result of the last run that ended well; None before, and after a run that did not."""
        return None if isinstance(self._outcome, BaseException) else self._outcome

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, *, again: bool = False) -> bool:
        """Start a run with the controls as they stand; returns at once.

        Args:
            again: work afresh even where the result is stored.

        Returns:
            False when a run is under way already, or a control holds what it cannot (it says so itself).
        """
        with self._lock:
            if self.running:
                return False
            try:
                options = self.options
            except BadInput as error:
                self.look.show_error(error)
                return False
            self._stop.clear()
            self._outcome, self._made_with = None, options
            self._clock = _Clock()
            known = self._stored
            self._set_busy(True)
            self.look.clear()
            self.look.show_progress(Tick(0, None, "starting"), 0)
            self._thread = threading.Thread(target=self._work, args=(options, known, again), daemon=True,
                                            name=f"panel-{self.stage.__name__}")
            self._thread.start()
        return True

    def cancel(self) -> None:
        """Ask the run under way to stop; the worker is ended within a moment and nothing half written stays."""
        self._stop.set()

    def get(self) -> Any:
        """The result for the controls as they stand: waits for a run under way, starts one if needed.

        Raises:
            KitError: what the stage raised; the panel shows it too.
            Cancelled: the run was cancelled.
            KeyboardInterrupt: the kernel was interrupted; the run is cancelled first.
        """
        if not self.running:
            options = self.options
            if self.result is None or self._made_with != options:
                self.start()
        return self._wait()

    def _wait(self) -> Any:
        assert self._thread is not None
        try:
            while self._thread.is_alive():
                self._thread.join(0.1)  # short joins let the kernel's interrupt through
        except KeyboardInterrupt:
            self._stop.set()
            self._thread.join(10)
            raise
        if isinstance(self._outcome, BaseException):
            # A fresh traceback each time; the worker's own is in the error's details.
            raise self._outcome.with_traceback(None)
        return self._outcome

    def __repr__(self) -> str:
        return f"Panel for {self.stage.__name__}: needs a running kernel. In code: panel.get()"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        bundle = self.look.box._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": repr(self)}, metadata

    # ---- the run ----------------------------------------------------------------------------------------------

    def _work(self, options: Any, known: stored.Stored | None, again: bool) -> None:
        """On the reader thread: call the stage in its process and show what comes of it. Never raises."""
        began = time.time()
        try:
            with stored.set_aside(known if again else None):
                outcome = self._call(self.stage, *self._args, report=self._hear, **self._arguments(options))
        except BaseException as error:
            outcome = error if isinstance(error, KitError | Cancelled) else _wrapped(error)
        self._outcome = outcome
        try:
            if isinstance(outcome, Cancelled):
                self.look.show_cancelled(str(outcome))
            elif isinstance(outcome, BaseException):
                self.look.show_error(outcome)
            else:
                self.look.show_result(outcome, _how(outcome, began, None if again else known))
        finally:
            self._set_busy(False)

    def _arguments(self, options: Any) -> dict[str, Any]:
        arguments = {"pass_report": "report" in self._takes, **self._kwargs}
        if options is not None:
            arguments["options"] = options
        if "runs" in self._takes:
            arguments["runs"] = self._runs()
        return arguments

    def _runs(self) -> Path:
        """Where results go, as the kernel sees it: relative where it can be, as stored results name no machine."""
        runs = runs_folder(self._kwargs.get("runs")).absolute()
        return runs.relative_to(Path.cwd()) if runs.is_relative_to(Path.cwd()) else runs

    def _hear(self, tick: Tick) -> None:
        """The report of the run: shows the tick, or makes the run unwind."""
        if self._stop.is_set():
            raise Cancelled(self._cancelled)
        if self._clock.due(tick):
            self.look.show_progress(tick, self._clock.spent())
        self._watch()

    def _watch(self) -> None:
        """For a view of what a run has written so far. Must be quick and never raise.

        Called about ten times a second while a run is under way, on the reader thread.
        """

    # ---- what the controls say ---------------------------------------------------------------------------------

    def _clicked(self, *, again: bool) -> None:
        if self.start(again=again):
            self.look.cancel.focus()  # a focused button that becomes disabled would drop the focus

    def _checker(self, name: str) -> Callable[[Any], None]:
        return lambda value: dataclasses.replace(self._start_options, **{name: value}) and None

    def _changed(self) -> None:
        """After any change of a control: the call, the buttons, and what is known about this setting."""
        try:
            options = self.options
        except BadInput:
            self.look.run.disabled = self.look.again.disabled = True
            self.look.show_no_call()
            return
        self.look.show_call(python_call(self.stage, self._args, self._kwargs, options, self._spelt))
        if not self.running:
            self._set_busy(False)
            if self.result is not None:
                self.look.show_outdated(self._made_with != options)
            elif isinstance(self._outcome, BaseException):
                self.look.show_mended(self._made_with != options)

    def _set_busy(self, busy: bool) -> None:
        self._stored = None if busy else self._find()
        try:
            right = busy or self.options is not None or not self.controls
        except BadInput:
            right = False
        self.look.set_busy(busy, right=right, stored=self._stored, shown=self.result is not None)
        for control in self.controls.values():
            control.widget.disabled = busy

    def _find(self) -> stored.Stored | None:
        try:
            if self.result is not None and self._made_with == self.options:
                return stored.find_of(self.stage, self.result)
            if self._digests is not None:
                return stored.find(self.stage, self.options, self._digests, self._runs())
        except BadInput:
            pass  # the control says so itself
        return None


class _Clock:
    """When the progress line is due a change, and how long the present step has taken."""

    def __init__(self) -> None:
        self._shown, self._note, self._since = 0.0, "", time.monotonic()

    def due(self, tick: Tick) -> bool:
        now = time.monotonic()
        if tick.note != self._note:
            self._note, self._since = tick.note, now
        elif now - self._shown < _BLINK:
            return False
        self._shown = now
        return True

    def spent(self) -> float:
        return time.monotonic() - self._since


def _how(result: Any, began: float, known: stored.Stored | None) -> str:
    """Words for where a result came from; ``known`` is what was found on disk before."""
    made = getattr(getattr(result, "provenance", None), "made", "")
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))
    if made and (made < clock or (known is not None and known.made == made)):
        return f"Stored result from {stored.when(made)}: nothing had to run."
    spent = time.time() - began
    return f"Done in {spent:.0f} s." if spent >= 1 else "Done."


def _wrapped(error: BaseException) -> KitError:
    made = ToolFailed(f"{type(error).__name__}: {error}", remedy="the details show where it happened",
                      detail="".join(traceback.format_exception(error)))
    made.__cause__ = error
    return made
