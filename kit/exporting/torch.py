"""What runs in the PyTorch worker of an export: build the module, trace it, write the file as the exporter makes it.

Both of PyTorch's exporters: ``dynamo`` (``torch.export``, then onnxscript's translations), ``classic`` (TorchScript).
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.errors import BadInput
from kit.exporting.factories import made, tail
from kit.exporting.pir import Unsupported
from kit.exporting.specs import LayerSource
from kit.exporting.torch_refusals import explain, fixed, remembered, unconvertible, untranslated
from kit.model import TensorSpec
from kit.record import digest
from kit.runtimes import peak_memory, timed
from kit.runtimes.torch import start
from kit.runtimes.torch_parts import Part, first_line, load_part
from kit.samples import generated
from kit.weights_file import EXTERNAL_ABOVE

#: Exporter -> the opsets that it writes by itself. Asked for less, dynamo keeps its lowest.
OPSETS = {"dynamo": (18, 23), "classic": (7, 20)}


@dataclass(frozen=True)
class Asked:
    """What to export, and how.

    Attributes:
        source: a sub-model of a diffusers pipeline, or a factory.
        inputs: in the order of the module's arguments, with a word at every dynamic axis.
        outputs: names; empty: ``output``, or ``output_0`` and so on.
        exporter: which of PyTorch's two.
        opset: to be written by the exporter itself.
        sizes: word of an axis -> the size to trace with.
    """

    source: Part | LayerSource
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    exporter: Literal["dynamo", "classic"]
    opset: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class Converted:
    """What came of it.

    Attributes:
        operators: what the module is made of: operators that torch.export saw, or for ``classic`` classes of modules.
        modules: place of a module, such as ``down_blocks.0.resnets.0.norm1`` -> its class.
        unsupported: operators without a counterpart; then there is no file.
        seconds: of the conversion and of writing the file, loading left out.
        memory: bytes: the highest resident memory of the process.
        notes: sentences for the reader.
    """

    operators: dict[str, int]
    modules: dict[str, str]
    unsupported: tuple[Unsupported, ...]
    seconds: float
    memory: int
    notes: tuple[str, ...]


_CLASSES = "pkg.torch.onnx.class_hierarchy"


def convert(asked: Asked, path: Path) -> Converted:
    """Write the ONNX file; large weights (``EXTERNAL_ABOVE``) beside it.

    Raises:
        BadInput: the factory fails, or the module cannot take these inputs.
        UnsupportedModel: the exporter cannot trace it, or an axis asked to be dynamic is fixed by the module.
        ToolFailed: the exporter stopped for another reason.
    """
    torch = start(2)
    module, notes = _built(asked.source)
    shapes = {spec.name: tuple(asked.sizes[side] if isinstance(side, str) else side for side in spec.shape)
              for spec in asked.inputs}
    given = tuple(torch.from_numpy(array) for array in generated(asked.inputs, shapes, 0).values())
    try:
        with torch.no_grad():
            count = len(_tensors(torch, module(*given)))
    except Exception as error:
        raise BadInput(f"{_name(asked)} cannot take {', '.join(f'{k} {list(v)}' for k, v in shapes.items())}: "
                       f"{first_line(error)}", remedy="check the number, order, types and sizes of the inputs",
                       detail=tail(error)) from error
    outputs = _outputs(asked, count)
    modules = {place: type(part).__name__ for place, part in module.named_modules() if place}
    large = sum(value.numel() * value.element_size() for value in module.state_dict().values()) > EXTERNAL_ABOVE
    began = time.monotonic()
    work = _dynamo if asked.exporter == "dynamo" else _classic
    operators, lacking = work(torch, module, given, asked, outputs, path, large)
    return Converted(operators, modules, lacking, time.monotonic() - began, peak_memory(), tuple(notes))


def _dynamo(torch: Any, module: Any, given: tuple[Any, ...], asked: Asked, outputs: list[str], path: Path,
            large: bool) -> tuple[dict[str, int], tuple[Unsupported, ...]]:
    axes = tuple({at: side for at, side in enumerate(spec.shape) if isinstance(side, str)} or None
                 for spec in asked.inputs)
    seen: list[Any] = []
    try:
        with remembered(torch, seen):
            program = torch.onnx.export(
                module, given, dynamo=True, opset_version=asked.opset, verbose=False, dynamic_shapes=axes,
                input_names=[spec.name for spec in asked.inputs], output_names=outputs)
    except Exception as error:
        lacking = untranslated(torch, seen[-1], asked.opset) if seen else ()
        if lacking:
            return {}, lacking
        raise explain(_name(asked), asked.exporter, asked.inputs, error) from error
    _check_axes(asked, [(value.name, [side if isinstance(side, int) else str(side) for side in value.shape])
                        for value in program.model.graph.inputs])
    _name_nodes(program.model)
    program.save(str(path), external_data=large)
    counts = Counter(str(node.target).removesuffix(".default") for node in program.exported_program.graph.nodes
                     if node.op == "call_function")
    return dict(counts.most_common()), ()


def _classic(torch: Any, module: Any, given: tuple[Any, ...], asked: Asked, outputs: list[str], path: Path,
             large: bool) -> tuple[dict[str, int], tuple[Unsupported, ...]]:
    axes = {spec.name: {at: side for at, side in enumerate(spec.shape) if isinstance(side, str)}
            for spec in asked.inputs}
    try:
        torch.onnx.export(module, given, str(path), dynamo=False, opset_version=asked.opset,
                          input_names=[spec.name for spec in asked.inputs], output_names=outputs,
                          dynamic_axes={name: sides for name, sides in axes.items() if sides})
    except Exception as error:
        if isinstance(error, torch.onnx.errors.UnsupportedOperatorError):
            return {}, unconvertible(torch, module, given, asked.opset, error)
        raise explain(_name(asked), asked.exporter, asked.inputs, error) from error
    leaves = Counter(type(part).__name__ for part in module.modules() if not any(part.children()))
    return dict(leaves.most_common()), ()


class Factory:
    """The module that a factory makes, to be compared with; held by a worker and called like a runtime."""

    def __init__(self, source: LayerSource, inputs: Sequence[TensorSpec], outputs: Sequence[str], threads: int = 2
                 ) -> None:
        self._torch = start(threads)
        self._module, _ = _built(source)
        self._source, self._inputs, self._outputs = source, tuple(inputs), tuple(outputs)

    def describe(self) -> dict[str, Any]:
        return {"runtime": f"PyTorch {self._torch.__version__}", "mode": "eager"}

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        torch = self._torch
        try:
            with torch.no_grad():
                answer = self._module(*(torch.from_numpy(np.array(feeds[spec.name])) for spec in self._inputs))
        except Exception as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise BadInput(f"{self._source.short} cannot take {shapes}: {first_line(error)}", remedy="give sizes it "
                           "takes with ExportOptions(probe=...)", detail=tail(error)) from error
        found = _tensors(torch, answer)
        return dict(zip(self._outputs, (tensor.numpy() for tensor in found), strict=True))

    def time(self, feeds: dict[str, np.ndarray], runs: int) -> list[float]:
        return timed(lambda: self.run(feeds), runs)


def stamp(source: LayerSource) -> tuple[str, int]:
    """What tells whether a factory's module is still the same, and how many bytes its weights take.

    The digest covers the weights, the structure and the code of the classes.
    """
    start(2)
    module, _ = _built(source)
    codes = []
    for kind in sorted({type(part) for part in module.modules()}, key=lambda kind: kind.__qualname__):
        with contextlib.suppress(OSError, TypeError):  # classes without a file, such as those made at run time
            codes.append(inspect.getsource(kind))
    weights = {name: (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
               for name, value in module.state_dict().items()}
    return digest([repr(module), codes, weights]), sum(array.nbytes for array in weights.values())


def _built(source: Part | LayerSource) -> tuple[Any, list[str]]:
    """The module in eval mode, and a note when it was not."""
    import torch

    if isinstance(source, Part):
        return load_part(source), []
    torch.manual_seed(0)  # a factory with random weights must give the same module when it is called again
    np.random.seed(0)
    module = made(source)
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"{source.short} gave a {type(module).__name__}, not a torch.nn.Module.",
                       remedy="return the module itself from the factory; for another framework's model give "
                       "ExportOptions(framework=...)")
    notes = [f"{source.factory} came in training mode; it was exported in eval mode"] if module.training else []
    return module.eval().requires_grad_(False), notes


def _outputs(asked: Asked, count: int) -> list[str]:
    if asked.outputs and len(asked.outputs) != count:
        raise BadInput(f"{_name(asked)} gives {count} tensors; {len(asked.outputs)} outputs were named.",
                       remedy="name each of them once, in order")
    return list(asked.outputs or (["output"] if count == 1 else [f"output_{at}" for at in range(count)]))


def _tensors(torch: Any, answer: Any) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(answer)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _name(asked: Asked) -> str:
    return asked.source.kind if isinstance(asked.source, Part) else asked.source.short


def _check_axes(asked: Asked, inputs: Sequence[tuple[str, list[Any]]]) -> None:
    """Refuse an axis that tracing took for a constant: the file would take one size only."""
    written = dict(inputs)
    for spec in asked.inputs:
        for at, (want, have) in enumerate(zip(spec.shape, written.get(spec.name, spec.shape), strict=True)):
            if isinstance(want, str) and isinstance(have, int):
                raise fixed(_name(asked), spec, at, have)


def _name_nodes(model: Any) -> None:
    """Nodes get the place of their module for a name, as the classic exporter gives it: ``/conv_in/Conv``."""
    taken: Counter[str] = Counter()
    for node in model.graph:
        place = _place(node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        name = f"{place}/{node.op_type}"
        node.name = f"{name}_{taken[name]}" if taken[name] else name
        taken[name] += 1
        # Of the trace of Python code, which is as large as the graph itself, only PyTorch's operator is kept.
        kinds = re.findall(r"'(aten\.[\w.]+)'", node.metadata_props.get(_CLASSES, ""))
        node.metadata_props.clear()
        if kinds:
            node.metadata_props[_CLASSES] = kinds[-1]


def _place(scopes: str) -> str:
    """``['', 'a.0', 'a.0.norm', 'group_norm']`` -> ``/a.0/norm``: each module by its name within the one around it."""
    found = re.findall(r"'([^']*)'", scopes)[:-1]
    place, before = "", ""
    for scope in filter(None, found):
        place += "/" + (scope.removeprefix(before + ".") if before else scope)
        before = scope
    return place
