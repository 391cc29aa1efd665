"""What verify and benchmark take by name: an artefact, an artefact with runtime settings, or a plain function.

An entry opens as a runner and says what it can about itself: digest, size on disk, precision. What a box recorded is an
entry too; its name then says the device, and FAKE where no device was there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Literal

from kit.ascend.box.recorded import Recorded, label
from kit.ascend.box.results import BoxResults
from kit.errors import BadInput, KitError
from kit.record import digest
from kit.runner import open_runner, runtime_for
from kit.source import Source, recognise

Precision = Literal["float", "half", "quantized", "unknown"]
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "paddlepaddle", "paddlepaddle-gpu", "openvino", "tensorflow-cpu",
            "tensorflow", "onnx", "numpy")


@dataclass(frozen=True)
class Entry:
    """One named thing to run.

    Attributes:
        name: as the caller gave it.
        thing: an artefact, a function from feeds to outputs, or an open runner.
        settings: for ``open_runner``.
    """

    name: str
    thing: Any
    settings: dict[str, Any]

    @cached_property
    def source(self) -> Source | None:
        """The files; None for a function."""
        return None if callable(self.thing) or hasattr(self.thing, "time") else recognise(self.thing)

    @property
    def device(self) -> str:
        """The device that recorded it; "" for what runs here."""
        return self.thing.device if isinstance(self.thing, Recorded) else ""

    @property
    def is_stored(self) -> bool:
        """Whether a result made from it can be told apart later: a function's code cannot be fingerprinted."""
        if self.source:
            return True
        return hasattr(self.thing, "digest") or (
            dataclasses.is_dataclass(self.thing) and not isinstance(self.thing, type))

    def digest(self) -> str:
        """Of the name, the files and the settings."""
        return digest([self.name, self.source or self.thing, self.asked])

    @property
    def asked(self) -> dict[str, Any]:
        """Settings that were asked for: a compiled model brings its own, the caller's go before them."""
        return {**getattr(self.thing, "runner_settings", {}), **self.settings}

    def settings_of(self, runner: Any) -> dict[str, str]:
        """The settings as they are, with what was asked for where the runner says nothing, as words."""
        found = {**{name.replace("_", " "): value for name, value in self.asked.items()},
                 **getattr(runner, "settings", {})}
        return {str(name): ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
                for name, value in found.items()}

    @cached_property
    def size(self) -> int:
        """Bytes on disk; 0 for a function."""
        return self.source.size if self.source else self.thing.size if self.device else 0

    @cached_property
    def precision(self) -> Precision:
        """What the numbers inside are: decides whether equal outputs may be expected."""
        if self.source is None:
            return self.thing.precision if self.device else "unknown"
        found = {"onnx": _onnx_precision, "openvino": _openvino_precision, "om": _half}.get(self.source.kind, _float)(
            self.source)
        if found == "float" and self._is_rounded:
            return "half"
        return found

    @property
    def _is_rounded(self) -> bool:
        """Whether OpenVINO computes in 16 bits what is stored in 32."""
        with self.naming():
            runtime = self.asked.get("runtime") or runtime_for(self.source)
        if runtime != "openvino":
            return False
        from kit.runtimes.openvino import float_precision

        return float_precision(self.asked.get("precision", "auto")) != "f32"

    @contextlib.contextmanager
    def naming(self, where: str = "") -> Iterator[None]:
        """Put this entry's name before whatever error is raised inside."""
        try:
            yield
        except KitError as error:
            raise type(error)(f"{self.name!r}{where}: {error.what}", remedy=error.remedy,
                              detail=error.detail) from error

    @contextlib.contextmanager
    def open(self, *, threads: int, isolated: bool = False, **settings: Any) -> Iterator[Any]:
        """A runner; ``settings`` go before the entry's own. A function or an open runner is handed out as it is."""
        if self.source:
            # Threads that a search has found best belong to what it found.
            asked = {"threads": self.asked.get("threads", threads), "isolated": isolated, **settings, **self.settings}
            with self.naming():
                runner = open_runner(self.thing, **asked)
            with runner:
                yield runner
        elif hasattr(self.thing, "__enter__") and not hasattr(self.thing, "settings"):
            with self.thing as opened:
                yield opened
        else:
            yield self.thing


def entries(things: Mapping[str, Any], what: str) -> tuple[Entry, ...]:
    """Make entries of a mapping of names to artefacts, ``(artefact, settings)`` pairs, functions, or a box's results.

    Raises:
        BadInput: the mapping is empty or no mapping, or an artefact is not there; names it.
    """
    if not isinstance(things, Mapping) or not things:
        raise BadInput(f"There is no {what}.", remedy=f'give a mapping of names to models, such as '
                       f'{{"paddle": folder, "onnx": exported}}; the first {what} is what the others are compared with')
    made = []
    for name, thing in things.items():
        if isinstance(thing, BoxResults):
            made.append(Entry(label(str(name), thing), Recorded(thing), {}))
            continue
        pair = isinstance(thing, tuple) and len(thing) == 2 and isinstance(thing[1], Mapping)
        entry = Entry(str(name), thing[0], dict(thing[1])) if pair else Entry(str(name), thing, {})
        try:
            # Asked now, so that a missing file is not found after an hour.
            if entry.source and entry.source.kind == "onnx" and not entry.source.graph.is_file():
                raise BadInput(f"{entry.source.graph} does not exist.", remedy="check the path")
        except BadInput as error:
            raise BadInput(f"{what} {name!r}: {error.what}", remedy=error.remedy, detail=error.detail) from error
        except TypeError as error:
            raise BadInput(f"{what} {name!r} is a {type(thing).__name__}, which is no model.",
                           remedy="give a path, a Model, a stage's result, or a function from feeds to outputs"
                           ) from error
        made.append(entry)
    return tuple(made)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of those packages that are installed."""
    found = {}
    for name in packages or PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def run_name(made: tuple[Entry, ...]) -> str:
    """A name for the folder of results: the first artefact's, or what the first function is called."""
    named = "".join(c if c.isalnum() or c in "-_" else "-" for c in made[0].name)
    return next((entry.source.name for entry in made if entry.source), named)


def _float(source: Source) -> Precision:
    return "float"


def _half(source: Source) -> Precision:
    return "half"  # what ATC makes of floats unless it is told otherwise; the file does not say


def _openvino_precision(source: Source) -> Precision:
    text = source.graph.read_text(encoding="utf-8", errors="replace")
    if 'type="FakeQuantize"' in text:
        return "quantized"
    return "half" if 'element_type="f16"' in text or 'element_type="bf16"' in text else "float"


def _onnx_precision(source: Source) -> Precision:
    import onnx

    from kit.model import read

    graph = read(source.graph, weights=False).graph
    if any(is_quantized(node.op_type) for node in graph.node):
        return "quantized"
    half = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return "half" if any(tensor.data_type in half for tensor in graph.initializer) else "float"


def is_quantized(operator: str) -> bool:
    """Whether an operator computes with integers that stand for real numbers."""
    return operator.startswith(("QLinear", "QGemm", "QAttention")) or any(
        part in operator for part in ("uantizeLinear", "Integer", "NBits", "DynamicQuantize"))
