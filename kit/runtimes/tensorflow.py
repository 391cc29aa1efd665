"""A TensorFlow SavedModel or frozen graph behind ``open_runner``: the source answers without a detour through ONNX.

Always in a worker: TensorFlow next to torch or Paddle crashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed, unknown
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes import kit_call, peak_memory, timed

#: Operators through which a graph is fed.
FED = ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")
# Operators that hold a state which a file with the graph alone does not have.
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable", "ReadVariableOp")
_NO_OUTPUTS = ("NoOp", "Assert", "Const", "SaveV2", "RestoreV2", "Print", "PrintV2")


def start(threads: int) -> Any:
    """TensorFlow with its threads set, without a GPU; once a process, before its first operation."""
    tf = need("tensorflow", to="run a TensorFlow model", extra="tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    return tf


class Function:
    """What SavedModels, frozen graphs and Keras models have in common once they are a function of named tensors.

    A subclass sets ``_tf``, ``_run``, ``_inputs``, ``_outputs`` and ``_settings``.
    """

    _tf: Any
    _run: Any
    _inputs: tuple[TensorSpec, ...]
    _outputs: tuple[TensorSpec, ...]
    _settings: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        return {"inputs": self._inputs, "outputs": self._outputs, "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Copying in and out counts in time() too, as feeding and fetching do in the other runtimes.
        try:
            answers = self._run(**{name: self._tf.constant(array) for name, array in feeds.items()})
        except self._tf.errors.OpError as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise BadInput(f"TensorFlow could not run the model on {shapes}: {sentence(error)}",
                           remedy="the details name the node; a shape the model cannot take is the usual cause",
                           detail=str(error)) from error
        return {spec.name: np.array(answers[spec.name]) for spec in self._outputs}

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self.run(feeds), runs)

    def memory(self) -> int:
        return peak_memory()


class SavedModel(Function):
    """One signature of a SavedModel on the CPU.

    Args:
        graph: ``saved_model.pb``; its folder is loaded.
        threads: of one operator.
        signature: which one.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2,
                 signature: str = "serving_default") -> None:
        tf = self._tf = start(threads)
        folder = Path(graph).parent
        if (folder / "assets.extra" / kit_call.ABOUT).is_file():  # it calls a model that lies beside it
            kit_call.register(folder / "assets.extra")
        try:
            self._model = tf.saved_model.load(str(folder))  # kept: the signature does not hold its variables
        except Exception as error:  # what TensorFlow raises is of many kinds
            raise ToolFailed(f"TensorFlow {tf.__version__} cannot load {folder.name}: {sentence(error)}",
                             remedy="check that the folder is whole (saved_model.pb and variables/), and save it again",
                             detail=str(error)) from error
        check_signature(signature, self._model.signatures, folder.name)
        self._run = self._model.signatures[signature]
        inputs = self._run.structured_input_signature[1]
        self._inputs = tuple(spec_of(name, spec) for name, spec in sorted(inputs.items()))
        self._outputs = tuple(spec_of(name, spec) for name, spec in sorted(self._run.structured_outputs.items()))
        self._settings = {"runtime": f"TensorFlow {tf.__version__}", "signature": signature,
                          "threads": tf.config.threading.get_intra_op_parallelism_threads()}


class FrozenGraph(Function):
    """A graph with its weights as constants, run between its inputs and outputs.

    Args:
        graph: the ``.pb``.
        threads: of one operator.
        inputs: names of nodes to feed; empty for every placeholder.
        outputs: names of nodes to read; empty for those that nothing else reads.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2, inputs: Sequence[str] = (),
                 outputs: Sequence[str] = ()) -> None:
        tf = self._tf = start(threads)
        definition = read_graph(Path(graph))
        names = ends(definition, inputs, outputs, Path(graph).name)
        try:
            wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
            tensors = [[wrapped.graph.get_tensor_by_name(tensor(name)) for name in some] for some in names]
            pruned = wrapped.prune(*tensors)
        except (ValueError, KeyError, tf.errors.OpError) as error:
            raise ToolFailed(f"TensorFlow {tf.__version__} cannot load {Path(graph).name}: {sentence(error)}",
                             remedy="freeze the model again with the TensorFlow that it was trained with",
                             detail=str(error)) from error
        keys = [[plain(name) for name in some] for some in names]
        self._inputs, self._outputs = (tuple(spec_of(key, found) for key, found in zip(some, those, strict=True))
                                       for some, those in zip(keys, tensors, strict=True))
        self._run = lambda **feeds: dict(zip(keys[1], pruned(*(feeds[key] for key in keys[0])), strict=True))
        self._settings = {"runtime": f"TensorFlow {tf.__version__}",
                          "threads": tf.config.threading.get_intra_op_parallelism_threads()}


def check_signature(asked: str, known: Any, where: str) -> None:
    """Refuse a signature that is not there.

    Raises:
        BadInput: there is none at all, or not this one; names those there are.
    """
    names = [name for name in known if not name.startswith("__")]
    if not names:
        raise BadInput(f"{where} has no signature, so nothing says what it takes.",
                       remedy="save it with signatures, or with Keras model.export(folder)")
    if asked not in names:
        raise unknown("signature", asked, names, where)


def read_graph(path: Path) -> Any:
    """The GraphDef of a file.

    Raises:
        BadInput: it is no GraphDef, is empty, or keeps its weights elsewhere.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise BadInput(f"{path.name} is not a frozen TensorFlow graph: it is cut off, or of another format.",
                       remedy="a .pb with a text graph, a SavedModel (give its folder) or a checkpoint is something "
                       "else; copy or freeze it again", detail=str(error)) from error
    if not graph.node:
        raise BadInput(f"{path.name} holds no node.", remedy="freeze the model again; the .pb of a SavedModel is "
                       "called saved_model.pb: give its folder")
    loose = [node.name for node in graph.node if node.op in _VARIABLES]
    if loose:
        raise BadInput(f"{path.name} is not frozen: {len(loose)} of its nodes are variables ({', '.join(loose[:3])}"
                       f"{', ...' if len(loose) > 3 else ''}), and their values lie elsewhere.",
                       remedy="freeze it (tf.compat.v1.graph_util.convert_variables_to_constants), or give the "
                       "SavedModel folder", detail="\n".join(loose))
    return graph


def ends(graph: Any, inputs: Sequence[str], outputs: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """Where a graph is fed and where it is read: as asked for, otherwise its placeholders and its sinks.

    Raises:
        BadInput: a name that is not there, or nothing was found.
    """
    nodes = {node.name: node for node in graph.node}
    for name in (*inputs, *outputs):
        if tensor(name).rpartition(":")[0] not in nodes:
            raise unknown("node", name, nodes, where)
    read = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    fed = list(inputs) or [node.name for node in graph.node if node.op in FED]
    sinks = list(outputs) or [node.name for node in graph.node if node.name not in read and node.op not in _NO_OUTPUTS
                              and node.op not in FED]
    for names, what, option in ((fed, "placeholder to feed", "inputs"), (sinks, "output", "outputs")):
        if not names:
            raise BadInput(f"{where} has no {what}.", remedy=f"name the nodes with {option}=(...)")
    return fed, sinks


def tensor(name: str) -> str:
    """``name:0`` for the name of a node; a tensor's name stays."""
    return name if ":" in name else f"{name}:0"


def plain(name: str) -> str:
    """A tensor's name as the kit shows it: without the ``:0`` of a node's first output."""
    return name.removesuffix(":0")


def sentence(error: BaseException) -> str:
    """The first line of what TensorFlow said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def spec_of(name: str, spec: Any) -> TensorSpec:
    """Name, type and shape of a tensor or TensorSpec of TensorFlow's."""
    sides = () if spec.shape.rank is None else tuple("?" if side is None else int(side) for side in spec.shape)
    return TensorSpec(name, spec.dtype.name, sides)
