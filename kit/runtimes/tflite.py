"""A TFLite model behind ``open_runner``, as TensorFlow's own interpreter runs it.

Always in a worker, for the reason of ``kit.runtimes.tensorflow``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import BadInput, ToolFailed
from kit.model import TensorSpec
from kit.need import need
from kit.runtimes import peak_memory, timed
from kit.runtimes.tensorflow import plain, sentence


class TFLite:
    """One signature of a ``.tflite`` on the CPU.

    Args:
        graph: the file.
        threads: of the interpreter.
        signature: which one; a file without signatures has its tensors' own names.
        delegate: let XNNPACK compute what it can, as TFLite does by default; its own kernels round in other places.
    """

    def __init__(self, graph: str, weights: str | None = None, *, threads: int = 2,
                 signature: str = "serving_default", delegate: bool = True) -> None:
        tf = need("tensorflow", to="run a TFLite model", extra="tensorflow")
        self._name = Path(graph).name
        self._interpreter = interpreter(Path(graph), threads, delegate)
        self._shapes: dict[str, tuple[int, ...]] = {}
        names, chosen = names_of(self._interpreter, signature, self._name)
        details = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        inputs, outputs = ({names[detail["name"]]: detail for detail in some if detail["name"] in names}
                           for some in details)
        self._in, self._out = inputs, outputs
        self._settings = {"runtime": f"TFLite of TensorFlow {tf.__version__}", "threads": threads,
                          "kernels": "XNNPACK where it can" if delegate else "TFLite's own",
                          **({"signature": chosen} if chosen else {})}

    def describe(self) -> dict[str, Any]:
        return {"inputs": tuple(_spec(name, detail) for name, detail in self._in.items()),
                "outputs": tuple(_spec(name, detail) for name, detail in self._out.items()),
                "settings": self._settings}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes = {name: array.shape for name, array in feeds.items()}
        try:
            if shapes != self._shapes:
                for name, shape in shapes.items():
                    self._interpreter.resize_tensor_input(self._in[name]["index"], shape, strict=True)
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for name, array in feeds.items():
                self._interpreter.set_tensor(self._in[name]["index"], array)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            self._shapes = {}
            raise BadInput(f"TFLite could not run {self._name} on {dict((n, list(s)) for n, s in shapes.items())}: "
                           f"{sentence(error)}", remedy="give sizes that the model takes; many a TFLite file was made "
                           "for one size", detail=str(error)) from error
        return {name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._out.items()}

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self.run(feeds), runs)

    def memory(self) -> int:
        return peak_memory()


def interpreter(path: Path, threads: int = 2, delegate: bool = True) -> Any:
    """TensorFlow's interpreter of a file.

    Raises:
        ToolFailed: it cannot read the file.
    """
    tf = need("tensorflow", to="run a TFLite model", extra="tensorflow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the interpreter will move to another package
            kinds = tf.lite.experimental.OpResolverType
            made = tf.lite.Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=kinds.AUTO
                                       if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
            made.allocate_tensors()
            return made
    except (ValueError, RuntimeError) as error:
        remedy = "register the library of its custom operators with TensorFlow, or make the model without them" \
            if "unresolved" in str(error).lower() or "custom op" in str(error).lower() else \
            "the file is damaged, or made for a newer TFLite: make it again with this TensorFlow"
        raise ToolFailed(f"TFLite of TensorFlow {tf.__version__} cannot load {path.name}: {sentence(error)}",
                         remedy=remedy, detail=str(error)) from error


def names_of(made: Any, signature: str, where: str) -> tuple[dict[str, str], str]:
    """Tensor name -> the name to show, of every input and output, and the signature that says so ("" for none).

    Raises:
        BadInput: no such signature.
    """
    from kit.runtimes.tensorflow import check_signature

    details = [*made.get_input_details(), *made.get_output_details()]
    known = made.get_signature_list()
    if not known:
        return {detail["name"]: plain(detail["name"]) for detail in details}, ""
    check_signature(signature, known, where)
    runner = made.get_signature_runner(signature)
    named = {**runner.get_input_details(), **runner.get_output_details()}
    return {detail["name"]: key for key, detail in named.items()}, signature


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    sides = detail.get("shape_signature", detail["shape"])
    return TensorSpec(name, np.dtype(detail["dtype"]).name,
                      tuple("?" if side < 0 else int(side) for side in sides))
