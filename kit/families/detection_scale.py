"""``fold_scale_factor``: PaddleDetection's second input, folded to 1; boxes are then in pixels of the network's input.

Public through ``detection``. PaddleDetection exports detectors with ``scale_factor`` [N, 2] (height and width of the
input over those of the picture), and some with ``im_shape`` [N, 2] (height and width of the input): boxes are divided
by the one and clipped by both, in the graph. Compilers and servers want one input, and a picture's size is no business
of a network: `scale_boxes` divides afterwards.

Source: PaddleDetection, ppdet/modeling/heads/ppyoloe_head.py (post_process) and ppdet/engine/trainer.py (inputs of an
export).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.calibration import model_of, short_name
from kit.comparison import Parity, TensorParity
from kit.errors import BadInput, ToolFailed, UnsupportedModel
from kit.families.detection_constants import FOLDED, compute_ahead, free_name, new_constant
from kit.families.detection_heads import Heads
from kit.families.detection_result import Edited, GraphEdit, require_equal
from kit.graph import files
from kit.graph.feeds import from_samples, that_run, total
from kit.graph.mapped import mapped
from kit.graph.values import bypass, cannot_bypass, constant, rank, shape
from kit.model import Model, TensorSpec, external_files, read
from kit.progress import Report, Tick, silent
from kit.record import check_files, run_stage

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 1
SAMPLES = 4
SCALE, SHAPE = "scale_factor", "im_shape"
PROBE = np.float32([[0.5, 0.25]])  # powers of two: dividing by them rounds nothing


def fold_scale_factor(model: Any, heads: Heads | Path | str | None = None, *,
                      samples: Iterable[Mapping[str, np.ndarray]] | None = None, runs: Path | str | None = None,
                      report: Report = silent) -> Edited:
    """Take the inputs ``scale_factor`` and ``im_shape`` out of a PaddleDetection model: the factor is 1 from then on.

    Checked on the way: the new graph against the old one fed with 1; and its boxes, divided afterwards, against those
    of the old one fed with another factor.

    Args:
        model: an .onnx path, a Model, or a result that carries one; raw heads or with suppression in the graph.
        heads: what its outputs mean, or where the ``detection.json`` lies; comes back without the second input.
        samples: feeds to compare on, with or without the second input; made-up ones where there are none.
        runs: where results go.
        report: hears the progress.

    Raises:
        BadInput: the model has no such input.
        UnsupportedModel: ``im_shape`` is wanted, and the size of the picture is not fixed.
        ToolFailed: the answers moved.
    """
    heads = heads if isinstance(heads, Heads) or heads is None else Heads.read(heads)
    if getattr(model, "provenance", None) is not None:
        check_files(model)
    source = model_of(model)
    specs = _second_inputs(source, heads)
    given = None if samples is None else list(itertools.islice(samples, SAMPLES))

    def work(folder: Path, tell: Report) -> Edited:
        return _fold(source, specs, heads, given, folder, tell)

    return run_stage("fold-scale", Edited, work, options="", name=short_name(source), version=VERSION, runs=runs,
                     inputs={"model": source, "heads": heads, "samples": given}, report=report)


def _second_inputs(source: Model, heads: Heads | None) -> dict[str, TensorSpec]:
    """The inputs to fold: kind -> input."""
    known = {heads.scale_factor: SCALE} if heads and heads.scale_factor else {}
    known |= {SCALE: SCALE, SHAPE: SHAPE}
    found = {known[spec.name]: spec for spec in source.inputs if spec.name in known}
    if SCALE not in found:
        raise BadInput(f"{source.path.name} has no input {SCALE!r}: it takes "
                       f"{', '.join(spec.name for spec in source.inputs)}.",
                       remedy="its boxes are in pixels of the input already, or the input has another name: give "
                       "heads=... with it")
    for spec in found.values():
        if len(spec.shape) != 2 or spec.shape[1] != 2:
            raise BadInput(f"The input {spec} of {source.path.name} is not [N, 2].",
                           remedy="this is not the input of a PaddleDetection model")
    return found


def _fold(source: Model, specs: Mapping[str, TensorSpec], heads: Heads | None, samples: list | None, folder: Path,
          report: Report) -> Edited:
    values = {SCALE: np.ones((1, 2), np.float32)}
    if SHAPE in specs:
        values[SHAPE] = np.float32([_picture_size(source)])
    report(Tick(0, 2, "folding"))
    graph = files.open_graph(source.path)
    fed, feeds = _feeds(source, samples)
    edits, instead = _replace(graph, specs, values, lambda names: _sizes(source, names, feeds[0]))
    for value in graph.graph.initializers.values():
        value.metadata_props.pop(FOLDED, None)
    path = folder / f"{short_name(source)}.folded.onnx"
    files.write(graph, path, outside=bool(external_files(source.path)))
    if objection := files.check(path):
        raise ToolFailed(f"onnx's checker refuses {source.path.name} without its second input.",
                         remedy="please report this model with the details", detail=objection)
    report(Tick(1, 2, "comparing"))
    rows = _compare(source, path, specs, values, feeds)
    require_equal(rows, source.path.name)
    return Edited(source.derived(path, "fold-scale", f"{' and '.join(sorted(specs))} folded to a constant"), source,
                  tuple(edits), _renamed(heads, instead), None, rows, 0, fed,
                  ("Boxes are in pixels of the input: scale_boxes(found, factor) brings them to the picture's.",))


def _replace(graph: ir.Model, specs: Mapping[str, TensorSpec],
             values: Mapping[str, np.ndarray], measured: Callable[[list[str]], dict[str, list[int]]]
             ) -> tuple[list[GraphEdit], dict[str, str]]:
    """Make constants of the inputs, and compute ahead what follows from them alone.

    Args:
        graph: changed in place.
        specs: the inputs.
        values: what each becomes.
        measured: gives the sizes of tensors of the source, for where the graph does not tell them.

    Returns:
        The edits, and the names of tensors that went: what is read in their place.
    """
    import onnx_ir as ir

    edits, starts = [], []
    inputs = {value.name: value for value in graph.graph.inputs}
    for name, spec in specs.items():
        old = inputs[spec.name]
        graph.graph.inputs.remove(old)
        old.name = free_name(f"{spec.name}_input", graph)
        new = new_constant(graph, values[name], spec.name)
        ir.convenience.replace_all_uses_with(old, new)
        starts.append(new)
        edits.append(GraphEdit(f"is the constant {values[name][0].tolist()}, and no input any more", spec.name))
    edits += compute_ahead(graph, starts)
    instead = {}
    suspects = [node for node in graph.graph if node.op_type in ("Div", "Mul")
                and node.inputs[1].metadata_props.get(FOLDED) and not cannot_bypass(node, node.inputs[0])]
    unknown = [node.inputs[0].name for node in suspects if rank(node.inputs[0]) is None]
    sizes = measured(unknown) if unknown else {}
    for node in suspects:
        kept, by = node.inputs
        own = sizes.get(kept.name) or shape(kept)
        if kept.producer() is not None and (constant(by) == 1).all() and _fits(by.const_value.shape, own):
            gone, name = node.outputs[0].name, node.name
            bypass(node, kept)
            instead[gone] = kept.name
            edits.append(GraphEdit("removed: it divides by 1", name))
    return edits, instead


def _fits(ones: Sequence[int], sizes: Sequence[int | None]) -> bool:
    """Does a tensor keep its shape when it is divided by one of the shape ``ones``?"""
    ones = tuple(ones)
    return len(ones) <= len(sizes) and all(
        one in (1, size) for one, size in zip(ones[::-1], list(sizes)[::-1], strict=False))


def _sizes(source: Model, tensors: list[str], feed: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """How large tensors of the source are for a feed."""
    proto = read(source.path, weights=False)
    for name in dict.fromkeys(tensors):
        if name not in {value.name for value in proto.graph.output}:
            proto.graph.output.add(name=name)
    answer = mapped(proto.SerializeToString(), source.path.parent, source.path.name)(feed)
    return {name: list(answer[name].shape) for name in tensors}


def _renamed(heads: Heads | None, instead: Mapping[str, str]) -> Heads | None:
    """The heads of the folded graph."""
    if heads is None:
        return None
    return replace(heads, scale_factor="", boxes=instead.get(heads.boxes, heads.boxes),
                   scores=instead.get(heads.scores, heads.scores))


def _picture_size(source: Model) -> tuple[int, int]:
    """Height and width of the input with the picture.

    Raises:
        UnsupportedModel: they are not fixed.
    """
    spec = next((spec for spec in source.inputs if len(spec.shape) == 4), None)
    sides = () if spec is None else spec.shape[1:3] if spec.shape[3] in (1, 3) else spec.shape[2:]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UnsupportedModel(f"{source.path.name} takes {SHAPE!r}, and the size of its picture is not fixed: "
                               f"{spec or 'there is none'}.",
                               remedy='fix it first: kit.FixOptions(shapes=("image=?,3,640,640",))')
    return sides


def _feeds(source: Model, samples: list | None) -> tuple[str, list[dict[str, np.ndarray]]]:
    if not samples:
        feeds = that_run(source, source.inputs, 2)
        return total(feeds, "made-up inputs"), feeds
    feeds, skipped = from_samples(samples, source.inputs, SAMPLES, source.path.name)
    if not feeds:
        raise BadInput(f"None of the first {skipped} samples fits the inputs of {source.path.name}.",
                       remedy="give samples of the size of its input")
    return total(feeds, "samples"), feeds


def _compare(source: Model, path: Path, specs: Mapping[str, TensorSpec], values: Mapping[str, np.ndarray],
             feeds: list[dict[str, np.ndarray]]) -> tuple[TensorParity, ...]:
    """The folded graph against the source: fed with 1, and with a factor that boxes are divided by afterwards."""
    before = mapped(source.path.read_bytes(), source.path.parent, source.path.name)
    after = mapped(path.read_bytes(), path.parent, path.name)
    ones, scaled = Parity(), Parity()
    taken = {spec.name for spec in specs.values()}
    for feed in feeds:
        rest = {name: array for name, array in feed.items() if name not in taken}
        pictures = len(next(array for array in rest.values() if array.ndim == 4))
        second = {spec.name: np.repeat(values[name], pictures, axis=0) for name, spec in specs.items()}
        mine = after(rest)
        ones.add(before({**rest, **second}), mine)
        other = {**second, specs[SCALE].name: np.repeat(PROBE, pictures, axis=0)}
        scaled.add(before({**rest, **other}), {name: _divided(array) for name, array in mine.items()})
    return (*ones.result(), *(replace(row, name=f"{row.name}, divided by {PROBE[0].tolist()} afterwards")
                              for row in scaled.result()))


def _divided(array: np.ndarray) -> np.ndarray:
    """The boxes of an output, whether [.., 4] or rows of (class, score, box), divided by the probe; others as is."""
    sides = PROBE[0][[1, 0, 1, 0]]
    if array.ndim >= 2 and array.shape[-1] == 6:
        return np.concatenate([array[..., :2], array[..., 2:] / sides], axis=-1)
    return array / sides if array.ndim >= 2 and array.shape[-1] == 4 else array
