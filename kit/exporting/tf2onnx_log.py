"""What tf2onnx says in its log about operators and nodes that it cannot convert, gathered instead of met one by one."""

from __future__ import annotations

import logging
import re

from kit.exporting.pir import Unsupported
from kit.runtimes.tensorflow import sentence

# Another way to write what tf2onnx lacks.
SUBSTITUTES = {
    "CombinedNonMaxSuppression": "cut the model before it and let kit.families.detection decode and suppress",
    "Erfinv": "no exact substitute: move it out of the model, or approximate it by a polynomial",
    "Lgamma": "no substitute in the graph: compute it after the model",
    "Digamma": "no substitute in the graph: compute it after the model",
    "DecodeJpeg": "read pictures outside the model: a signature that takes tensors",
    "DecodeImage": "read pictures outside the model: a signature that takes tensors",
    "ParseExampleV2": "choose a signature that takes tensors, not serialised examples",
    "ResizeArea": "tf.image.resize with method='bilinear', or average pooling where the factor is whole",
    "MatrixInverse": "compute the inverse beforehand where the matrix is constant",
    "Svd": "no substitute in the graph: move it out of the model",
    "PyFunc": "Python code is not in the graph: write it with TensorFlow operators, or do it outside",
    "EagerPyFunc": "Python code is not in the graph: write it with TensorFlow operators, or do it outside",
}
_ADVICE = "rewrite it with other operators, or choose outputs before it"


class Failures(logging.Handler):
    """Hears what tf2onnx says about operators and nodes that it cannot convert."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lacking: dict[str, list[str]] = {}
        self._refused: dict[tuple[str, str], list[str]] = {}
        self._other: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        args = record.args if isinstance(record.args, tuple) else ()
        if "is not supported" in record.msg and len(args) == 2:
            self._lacking.setdefault(str(args[1]), []).append(str(args[0]))
        elif record.msg.startswith("Failed to convert node") and args:
            kind = re.search(r"OP=(\w+)", str(args[2])) if len(args) > 2 else None
            why = sentence(record.exc_info[1]) if record.exc_info and record.exc_info[1] else "no reason given"
            self._refused.setdefault((kind[1] if kind else "?", why), []).append(str(args[0]))
        elif record.msg.startswith("rewriter"):
            self._other.append(f"tf2onnx left a pattern as it was: {sentence(Exception(record.getMessage()))}")

    def rows(self) -> tuple[Unsupported, ...]:
        plainly = [Unsupported(name, len(nodes), _few(nodes), SUBSTITUTES.get(name.removeprefix("TFL_"), _ADVICE))
                   for name, nodes in sorted(self._lacking.items())]
        # What could not be converted is not named again where that only followed from the first.
        return (*plainly, *(Unsupported(name, len(nodes), _few(nodes), f"it is refused as it is used here: {why}")
                            for (name, why), nodes in sorted(self._refused.items())))

    def remarks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._other))


def _few(nodes: list[str]) -> str:
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
