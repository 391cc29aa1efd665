"""Why PyTorch's exporters refuse a module, in words, with everything they lack named at once; runs in the worker."""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kit.errors import KitError, ToolFailed, UnsupportedModel
from kit.exporting.factories import tail
from kit.exporting.pir import Unsupported
from kit.model import TensorSpec
from kit.runtimes.torch_parts import first_line


@contextlib.contextmanager
def remembered(torch: Any, seen: list[Any]) -> Iterator[None]:
    """Keep what torch.export made of the module: where the translation fails, it tells what all is lacking."""
    original = torch.export.export

    @functools.wraps(original)
    def remember(*args: Any, **kwargs: Any) -> Any:
        seen.append(original(*args, **kwargs))
        return seen[-1]

    torch.export.export = remember
    try:
        yield
    finally:
        torch.export.export = original


def untranslated(torch: Any, program: Any, opset: int) -> tuple[Unsupported, ...]:
    """Operators of an exported program that the exporter has no translation for, all at once."""
    from torch.onnx._internal.exporter import _decomp, _registration  # no public way asks for the whole list

    registry = _registration.ONNXRegistry().from_torchlib(opset_version=opset)
    with contextlib.suppress(Exception):  # some fail to decompose: then as they are
        program = program.run_decompositions(_decomp.create_onnx_friendly_decomposition_table(
            set(_decomp.get_onnx_implemented_overloads(registry))))
    places: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) \
                and not registry.get_decomps(node.target) and "_assert" not in str(node.target):
            places.setdefault(str(node.target).removesuffix(".default"), []).append(node.name)
    return tuple(_row(name, nodes) for name, nodes in sorted(places.items()))


def unconvertible(torch: Any, module: Any, given: tuple[Any, ...], opset: int, error: Exception
                  ) -> tuple[Unsupported, ...]:
    """The same for the classic exporter, whose error names the first only."""
    names: list[str] = []
    with contextlib.suppress(Exception):  # deprecated: it may go, and then the error's own words stay
        _, names = torch.onnx._internal.torchscript_exporter.utils.unconvertible_ops(module, given,
                                                                                     opset_version=opset)
    names = names or re.findall(r"operator '([^']+)'", str(error)) or ["unknown"]
    return tuple(_row(name, [""] * count) for name, count in sorted(Counter(names).items()))


def _row(name: str, nodes: list[str]) -> Unsupported:
    where = ", ".join(filter(None, nodes[:3])) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
    return Unsupported(name, len(nodes), where, "write it with other operators; or try the other exporter or a later "
                       "opset")


def fixed(module: str, spec: TensorSpec, at: int, have: int) -> UnsupportedModel:
    """The error where an axis asked to be dynamic takes one size only."""
    return UnsupportedModel(f"{module} takes only {have} for axis {spec.shape[at]!r} ({at}) of {spec.name!r}: its code "
                            "fixes that size.", remedy="write the number there in place of the word, or take the size "
                            "from the tensor in the module's code")


def explain(module: str, exporter: str, inputs: Sequence[TensorSpec], error: Exception) -> KitError:
    """Words for an exporter that stopped: an axis that is fixed after all, or what the innermost error says."""
    if isinstance(error, KitError):
        return error
    cause: BaseException = error
    while cause.__cause__ is not None:  # the exporter's own words are advice; the cause says what happened
        cause = cause.__cause__
    if static := re.search(r"static shape of (\d+) for dimension inputs\['(.+?)'\]\.shape\[(\d+)\]", str(cause)):
        named = [spec for spec in inputs if spec.name == static[2]] or list(inputs[:1])  # PyTorch says the argument's
        if len(named[0].shape) > int(static[3]):
            return fixed(module, named[0], int(static[3]), int(static[1]))
    other = "classic" if exporter == "dynamo" else "dynamo"
    return ToolFailed(f"PyTorch's {exporter} exporter stopped on {module}: {first_line(cause)}",
                      remedy=f"the details show where; exporter={other!r} sometimes takes what this one does not. "
                      "Branches on values and sizes taken from Python are the usual cause", detail=tail(error)[-6000:])
