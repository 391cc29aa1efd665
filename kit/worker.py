"""Work in a process of its own: a crash, an out-of-memory kill or a cancel never costs the kernel.

``run`` calls one function there; ``serve`` keeps an object alive there and calls its methods. Each framework's
interpreter can be set with ``use("paddle", python=".../bin/python")``: importing torch, tensorflow and paddle in
one process ends in a segmentation fault, and an old framework may need an environment of its own.

The child connects back over ``multiprocessing.connection``, so any interpreter that can import the kit will do.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from kit import record
from kit.card import bytes_text
from kit.errors import BadInput, KitError, ToolFailed, WorkerDied
from kit.progress import Report, Tick, silent

_TAIL = 40  # lines of the log that travel with an error


def use(framework: str, *, python: str | Path | None) -> None:
    """Run ``framework`` ("paddle", "tensorflow", "torch") under another interpreter; None goes back to this one.

    Raises:
        BadInput: there is no such program.
    """
    if python is None:
        os.environ.pop(_variable(framework), None)
    elif not os.access(python, os.X_OK):
        raise BadInput(f"{python} is not a program that can be run.", remedy="give the path of a python, such as "
                       ".../bin/python of a virtual environment")
    else:
        os.environ[_variable(framework)] = str(python)


def interpreter(framework: str | None = None) -> str:
    """The interpreter that ``framework`` runs under."""
    return os.environ.get(_variable(framework or ""), sys.executable)


def _variable(framework: str) -> str:
    # In the environment, so that a stage that runs in a worker itself (from a panel) finds the same interpreter.
    return f"KIT_PYTHON_{framework.upper()}"


def run(
    function: Callable[..., Any],
    *args: Any,
    report: Report = silent,
    framework: str | None = None,
    log: Path | None = None,
    memory_limit: int | None = None,
    pass_report: bool = False,
    **kwargs: Any,
) -> Any:
    """Call ``function(*args, **kwargs)`` in a fresh process and return its result.

    Args:
        function: importable, at the top level of a module.
        report: hears the child's ticks; whatever it raises (``Cancelled``, ``KeyboardInterrupt``) stops the child.
        framework: chooses the interpreter, see ``use``.
        log: where the child's output goes; a temporary file by default.
        memory_limit: bytes of resident memory at which the child is stopped.
        pass_report: give the function a ``report=`` of its own.

    Raises:
        WorkerDied: the process crashed, was killed, or ran out of memory; the log's tail is the detail.
        ToolFailed: the function raised something that is not a KitError.
        KitError: as the function raised it.
    """
    with Process(framework=framework, log=log, memory_limit=memory_limit) as process:
        return process.call(function, *args, report=report, pass_report=pass_report, **kwargs)


def kill(child: subprocess.Popen) -> None:
    """Stop a process and all it started, now."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid)
        for member in [*family.children(recursive=True), family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    child.wait()


class Process:
    """A child process that answers calls one at a time. A context manager; ``close`` ends it."""

    def __init__(self, *, framework: str | None = None, log: Path | None = None,
                 memory_limit: int | None = None, environment: dict[str, str] | None = None) -> None:
        self.memory_limit = memory_limit
        self._looked = 0.0  # when memory was looked at last
        self.peak_memory = 0  # bytes of resident memory, the highest seen
        self._scratch = tempfile.TemporaryDirectory(prefix="kit-worker-", ignore_cleanup_errors=True)
        self._scratches = Path(self._scratch.name) / "scratches.txt"
        self.log = Path(log) if log else Path(self._scratch.name) / "log.txt"
        secret = os.urandom(16)
        # Not the default family: on Windows that would be a pipe, which cannot be waited for with a time limit.
        family, address = ("AF_INET", ("127.0.0.1", 0)) if os.name == "nt" else ("AF_UNIX", None)
        with Listener(address, family, authkey=secret) as listener, self.log.open("ab") as output:
            home = str(Path(__file__).resolve().parent.parent)
            path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
            self._child = subprocess.Popen(
                [interpreter(framework), "-X", "faulthandler", "-c",
                 "from kit.worker import _child_main; _child_main()"],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                # An interrupt of the kernel goes to its whole process group: ours is told in order, by us.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, record.SCRATCHES: str(self._scratches), **(environment or {})})
            assert self._child.stdin
            with contextlib.suppress(BrokenPipeError):  # already dead: _accept says so
                self._child.stdin.write(pickle.dumps((listener.address, secret, sys.path)))
                self._child.stdin.close()
            self._pipe = self._accept(listener)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._child.pid

    def call(self, function: Callable[..., Any] | str, *args: Any, report: Report = silent,
             pass_report: bool = False, **kwargs: Any) -> Any:
        """Call a function in the child, or by name a method of the object that an earlier ``make`` left there."""
        _check_importable(function)
        last = Tick(0, None, "starting")
        try:
            self._pipe.send_bytes(pickle.dumps((function, args, kwargs, pass_report)))
            while True:
                while not self._pipe.poll(0.1):
                    self._watch_memory()
                    report(last)  # repeated, so that a cancel gets through while the tool is silent
                kind, value = pickle.loads(self._pipe.recv_bytes())
                if kind == "tick":
                    last = Tick(*value)
                    report(last)
                else:
                    break
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise self._death() from error
        except BaseException:
            self.kill()
            raise
        if kind == "error":
            made, what, remedy, detail = value
            raise made(what, remedy=remedy, detail=detail)
        return value

    def make(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make an object in the child; later calls by method name go to it. Returns nothing."""
        return self.call(_keep, factory, args, kwargs)

    def kill(self) -> None:
        """Stop the child and all it started, now."""
        kill(self._child)

    def close(self) -> None:
        """End the child and remove its scratch folder."""
        with contextlib.suppress(OSError):
            self._pipe.close()  # the child leaves when its pipe closes
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=2)
        self.kill()
        record.sweep(self._scratches)  # a child that was killed could not tidy up after itself
        self._scratch.cleanup()

    def log_tail(self, lines: int = _TAIL) -> str:
        """The last lines of the child's output."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _accept(self, listener: Listener) -> Connection:
        # A child that dies before it connects would leave accept() waiting for ever.
        socket = listener._listener._socket  # type: ignore[attr-defined]
        socket.settimeout(0.1)
        while True:
            try:
                return listener.accept()
            except TimeoutError:
                if self._child.poll() is not None:
                    raise self._death() from None
            except BaseException:
                self.kill()
                raise

    def _watch_memory(self) -> None:
        import psutil

        # Looking costs a little processor time, which a benchmark in the child would feel.
        now = time.monotonic()
        if now - self._looked < (0.1 if self.memory_limit else 2):
            return
        self._looked = now
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self._child.pid)
            used = sum(p.memory_info().rss for p in [family, *family.children(recursive=True)])
            self.peak_memory = max(self.peak_memory, used)
            if self.memory_limit and used > self.memory_limit:
                self.kill()
                raise WorkerDied(
                    f"The worker used {bytes_text(used)} of memory, more than the limit of "
                    f"{bytes_text(self.memory_limit)}, and was stopped.",
                    remedy="use fewer samples or smaller inputs, or raise the limit", detail=self.log_tail())

    def _death(self) -> WorkerDied:
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._child.returncode
        return explain_exit(code, self.log_tail(), self.peak_memory)


def explain_exit(code: int, tail: str, peak_memory: int = 0) -> WorkerDied:
    """Words for the way a process ended."""
    used = f" It had used {bytes_text(peak_memory)} of memory." if peak_memory else ""
    if code == -9:  # SIGKILL, a name that Windows lacks
        return WorkerDied(f"The worker was killed (signal 9).{used}",
                          remedy="most often the machine ran out of memory: use fewer samples, smaller inputs or a "
                          "smaller batch, close other programs, then run again", detail=tail)
    if code < 0:
        name = signal.Signals(-code).name
        return WorkerDied(f"The worker crashed ({name}).{used}",
                          remedy="a native library failed: the details show where; try another version of the tool "
                          "or another input. The kernel is unharmed", detail=tail)
    return WorkerDied(f"The worker ended early (exit code {code}).{used}",
                      remedy="the details show its last words; run again when that is mended", detail=tail)


def _check_importable(function: Any) -> None:
    if isinstance(function, str):
        return
    if getattr(function, "__module__", None) == "__main__" or "<locals>" in getattr(function, "__qualname__", ""):
        raise BadInput(f"{function.__qualname__} is defined in the notebook; a worker process cannot import it.",
                       remedy="save it in a .py file beside the notebook and import it from there")


# ---- what runs in the child ---------------------------------------------------------------------------------------

_kept: Any = None


def _keep(factory: Callable[..., Any], args: tuple, kwargs: dict) -> None:
    global _kept
    _kept = factory(*args, **kwargs)


def _child_main() -> None:
    from multiprocessing.connection import Client

    address, secret, search = pickle.loads(sys.stdin.buffer.read())
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 - nothing in a worker may wait for a person
    for folder in search:  # so that modules beside a notebook can be imported here too
        if folder not in sys.path and "site-packages" not in folder and not folder.endswith(".zip"):
            sys.path.append(folder)
    pipe = Client(address, authkey=secret)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    while True:
        try:
            call = pipe.recv_bytes()
        except (EOFError, OSError):
            # Straight out: native libraries have crashed while being torn down in order.
            os._exit(0)
        pipe.send_bytes(_answer(pipe, call))


def _leave_with(parent: int) -> None:
    """End this process when the one that started it is gone: a killed kernel leaves no work behind."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answer(pipe: Connection, call: bytes) -> bytes:
    try:
        function, args, kwargs, pass_report = pickle.loads(call)
        if isinstance(function, str):
            function = getattr(_kept, function)
        if pass_report:
            kwargs["report"] = _Throttled(pipe)
        return pickle.dumps(("value", function(*args, **kwargs)))
    except BaseException as error:
        # Its words only: TensorFlow makes pickle take an exception's causes along, and this process would import it.
        said = _as_kit_error(error)
        return pickle.dumps(("error", (type(said), said.what, said.remedy, said.detail)))


class _Throttled:
    """The child's report: at most four ticks a second and every new note, so that the pipe is never the brake."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._when, self._note = pipe, 0.0, ""

    def __call__(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._when >= 0.25 or tick.note != self._note or tick.done == tick.total:
            self._when, self._note = now, tick.note
            self._pipe.send_bytes(pickle.dumps(("tick", tuple(tick))))


def _as_kit_error(error: BaseException) -> KitError:
    import traceback

    if isinstance(error, KitError):
        return error
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "bad allocation" in str(error):
        return WorkerDied("The worker ran out of memory.", remedy="use fewer samples, smaller inputs or a smaller "
                          "batch, close other programs, then run again", detail=detail)
    if isinstance(error, OSError) and error.errno:
        return record.explain_os_error(error, error.filename or "a file")
    text = str(error).strip().splitlines()
    return ToolFailed(f"{type(error).__name__}: {text[0] if text else 'no message'}"[:600],
                      remedy="the details show where it happened; check the inputs named there",
                      detail=detail[-6000:])
