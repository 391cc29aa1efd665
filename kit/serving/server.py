"""TensorFlow's own model server, where it is installed: started on a SavedModel, asked, stopped."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, KitError, MissingTool, ToolFailed
from kit.progress import Report, Tick, silent
from kit.serving.client import ask_grpc, ask_rest, state

PROGRAM = "tensorflow_model_server"


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        model: name of the model on it.
        version: of the model.
        signature: that is asked.
        grpc: ``host:port``.
        rest: ``host:port``.
    """

    model: str
    version: int
    signature: str
    grpc: str
    rest: str

    def ask(self, feeds: Mapping[str, np.ndarray], through: str = "grpc") -> dict[str, np.ndarray]:
        """One answer, through ``"grpc"`` or ``"rest"``."""
        if through not in ("grpc", "rest"):
            raise BadInput(f"A server cannot be asked through {through!r}.", remedy='choose "grpc" or "rest"')
        asked = {"signature": self.signature, "version": self.version}
        return ask_grpc(self.grpc, self.model, feeds, **asked) if through == "grpc" else ask_rest(
            self.rest, self.model, feeds, **asked)


def find_server() -> str:
    """The program.

    Raises:
        MissingTool: it is not on the PATH.
    """
    found = shutil.which(PROGRAM)
    if not found:
        raise MissingTool(f"{PROGRAM} is not on the PATH.",
                          remedy="install tensorflow-model-server from TensorFlow's apt source, or run the image "
                          "tensorflow/serving and use kit.serving.ask_grpc and ask_rest with its ports")
    return found


@contextlib.contextmanager
def serve(saved: Any, *, seconds: float = 60, report: Report = silent) -> Iterator[Server]:
    """Start the server on a SavedModel; a context manager.

    Args:
        saved: a result of ``kit.compile`` for a SavedModel, or a version directory ``.../name/1``.
        seconds: to wait until the model is available, warm-up requests included.
        report: hears the waiting; what it raises stops the server.

    Raises:
        MissingTool: the server is not installed.
        BadInput: no version directory, or one that calls Python.
        ToolFailed: the server ended or did not come up; the log's tail is the detail.
    """
    folder, signature = _folder(saved)
    program, name, version = find_server(), folder.parent.name, int(folder.name)
    grpc, rest = _free_ports(2)
    with tempfile.TemporaryDirectory(prefix="kit-serving-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "log.txt"
        with log.open("wb") as output:
            child = subprocess.Popen(
                [program, f"--port={grpc}", f"--rest_api_port={rest}", f"--model_name={name}",
                 f"--model_base_path={folder.parent}"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait(child, f"127.0.0.1:{rest}", name, version, seconds, log, report)
            yield Server(name, version, signature, f"127.0.0.1:{grpc}", f"127.0.0.1:{rest}")
        finally:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _folder(saved: Any) -> tuple[Path, str]:
    about = getattr(saved, "saved", None)
    if about is not None and about.how == "call":
        raise BadInput("This SavedModel calls a Python function, and the server holds no Python.",
                       remedy='compile it with how="convert", or run assets.extra/kit_call.py in a Python process')
    path = Path(getattr(saved, "artifact", None) or saved).resolve()
    if not path.name.isdigit() or not (path / "saved_model.pb").is_file():
        raise BadInput(f"{path} is no version directory: a server wants NAME/NUMBER/saved_model.pb.",
                       remedy="give what kit.compile made with target savedmodel, or its artifact")
    return path, about.signature if about is not None else "serving_default"


def _wait(child: subprocess.Popen, rest: str, name: str, version: int, seconds: float, log: Path,
          report: Report) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if child.poll() is not None:
            raise ToolFailed(f"{PROGRAM} ended early (exit code {child.returncode}).",
                             remedy="the details show its last words", detail=_tail(log))
        with contextlib.suppress(KitError):
            if state(rest, name).get(version) == "AVAILABLE":
                return
        report(Tick(0, None, "waiting for the model server"))
        time.sleep(0.2)
    raise ToolFailed(f"{PROGRAM} did not offer {name} within {seconds:.0f} s.",
                     remedy="the details show its log; give more seconds for a large model", detail=_tail(log))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
