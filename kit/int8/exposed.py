"""Run a model and see its inner tensors: a copy of the graph with more outputs, opened for running."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.int8.quantizable import Network
from kit.model import Model, external_files
from kit.record import explain_os_error
from kit.runner import Runner, open_runner


class Exposed:
    """A copy of a model with more outputs, opened for running in a ``with`` block; the copy is removed at the end.

    Args:
        proto: the graph as ``onnx.ModelProto``, external weights not loaded; not changed.
        model: the file it was read from.
        outputs: the ``onnx.ValueInfoProto`` of each tensor to hand out besides the model's own outputs.
        graph_level: how far ONNX Runtime rewrites the graph. "extended" keeps the plain layout of tensors: the
            blocked one would be undone for every tensor handed out.
    """

    def __init__(self, proto: Any, model: Model, outputs: Sequence[Any], *, threads: int = 2,
                 graph_level: str = "extended") -> None:
        import onnx

        grown = onnx.ModelProto()
        grown.CopyFrom(proto)
        grown.graph.output.extend(outputs)
        self._folder = tempfile.TemporaryDirectory(prefix="kit-exposed-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / model.path.name
        try:
            sources = external_files(model.path, proto)
            if any(entry.key == "location" and entry.value == model.path.name
                   for tensor in proto.graph.initializer for entry in tensor.external_data):
                sources.append(model.path)  # a light graph: its weights are in the file itself, so keep that one's name
                path = path.with_name(f"light-{path.name}")
            for weights in sources:
                beside = path.parent / weights.relative_to(model.path.parent)
                beside.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(weights, beside)
                except OSError:
                    shutil.copy(weights, beside)
            onnx.save_model(grown, str(path))
            self.runner: Runner = open_runner(path, threads=threads, graph_level=graph_level, spinning=False)
        except OSError as error:
            self._folder.cleanup()
            raise explain_os_error(error, path) from error
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Runner:
        return self.runner

    def __exit__(self, *exc: object) -> None:
        self.runner.close()
        self._folder.cleanup()


def exposed(network: Network, model: Model, tensors: Sequence[str], *, threads: int = 2) -> Exposed:
    """A runner of a float model that hands out ``tensors`` too; use it in a ``with`` block."""
    present = {*network.outputs, *(value.name for value in network.proto.graph.input)}
    known = {value.name: value for value in network.proto.graph.value_info}
    return Exposed(network.proto, model, [known[name] for name in tensors if name not in present], threads=threads)
