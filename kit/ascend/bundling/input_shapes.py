"""What sizes a model is built for: one set of fixed shapes, or profiles (batch sizes, picture sizes, open axes).

ATC builds for sizes that are known beforehand. Open axes get theirs from the options, else from the first sample, else
from the usual sizes that the audit uses too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from kit.errors import BadInput
from kit.inspection.graph import graph_of
from kit.model import Model, TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputShapes:
    """The shapes that ATC is told.

    Attributes:
        inputs: name -> shape; -1 where the profiles differ.
        kind: ``static``; ``batch``, ``image`` (height and width) or ``dims`` (all open axes) for profiles.
        values: one entry a profile: the sizes of its -1 axes; for ``static`` one empty entry.
        chosen: who chose the sizes, in words.
    """

    inputs: dict[str, Shape]
    kind: Literal["static", "batch", "image", "dims"]
    values: tuple[Shape, ...]
    chosen: str

    def concrete(self) -> list[dict[str, Shape]]:
        """The shapes of every profile."""
        return [self._filled(value) for value in self.values]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that can be run, ascending."""
        return tuple(sorted({shape[0] for shapes in self.concrete() for shape in list(shapes.values())[:1] if shape}))

    def fits(self, feed: Mapping[str, np.ndarray]) -> bool:
        """Whether a feed can be run: every input of a profile's shape; of a smaller batch is padded on the box."""
        return any(set(feed) == set(shapes) and all(
            np.shape(feed[name])[1:] == shape[1:] and len(np.shape(feed[name])) == len(shape)
            and (not shape or np.shape(feed[name])[0] <= shape[0]) for name, shape in shapes.items())
            for shapes in self.concrete())

    def words(self) -> str:
        """For a table: ``x 1x3x640x640``, or the profiles."""
        shown = "; ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in self.inputs.items())
        if self.kind == "static":
            return shown
        what = {"batch": "batch sizes", "image": "picture sizes", "dims": "open axes"}[self.kind]
        return f"{shown}, -1 being {what} {', '.join('x'.join(map(str, value)) for value in self.values)}"

    def _filled(self, value: Shape) -> dict[str, Shape]:
        left = list(value)
        found = {}
        for name, shape in self.inputs.items():
            # A batch or picture size is the same for every input; open axes are listed input by input.
            rest = left if self.kind == "dims" else list(value)
            found[name] = tuple(rest.pop(0) if size == -1 else size for size in shape)
        return found


def input_shapes(model: Model, first: Mapping[str, np.ndarray] | None, *, shapes: Sequence[str] = (),
                 batches: Sequence[int] = (), sizes: Sequence[str] = (), profiles: Sequence[str] = ()) -> InputShapes:
    """Decide on sizes.

    Args:
        model: whose inputs they are.
        first: a feed whose shapes open axes take where ``shapes`` is empty; None without samples.
        shapes: ``x=1,3,640,640`` or ``axis=640``.
        batches: one fixes the first axis, several become profiles; empty leaves it as the shapes have it.
        sizes: heights and widths, ``640x640``: one fixes them, several become profiles.
        profiles: sizes of all open axes in the order of the inputs, ``1,128``; each is a profile.

    Raises:
        BadInput: sizes that contradict the model or each other; names the axis and the choices.
    """
    several = [name for name, given in (("batches", len(batches) > 1), ("sizes", len(sizes) > 1),
                                        ("profiles", bool(profiles))) if given]
    if len(several) > 1:
        raise BadInput(f"{' and '.join(several)} are profiles of different kinds; ATC takes one kind.",
                       remedy="keep one of them; profiles=(\"1,640,640\", \"4,640,640\") can vary several axes at once")
    if len(batches) == 1:
        _numbers(str(batches[0]), 1, "batches", "8")  # several are checked as profiles
    base, chosen = _base(model, first, shapes)
    if len(sizes) == 1:
        base = _with_axes(model, base, (2, 3), _sizes(sizes)[0], "sizes")
    if len(batches) == 1:
        base = _with_axes(model, base, (0,), (batches[0],), "batches")
    if len(batches) > 1:
        return InputShapes(_opened(model, base, (0,), "batches"), "batch", tuple((b,) for b in batches), chosen)
    if len(sizes) > 1:
        return InputShapes(_opened(model, base, (2, 3), "sizes"), "image", tuple(_sizes(sizes)), chosen)
    if profiles:
        return _dims(model, profiles)
    return InputShapes(base, "static", ((),), chosen)


def _base(model: Model, first: Mapping[str, np.ndarray] | None, shapes: Sequence[str]) -> tuple[dict[str, Shape], str]:
    is_open = any(isinstance(axis, str) for spec in model.inputs for axis in spec.shape)
    chosen = "fixed in the model"
    bind = tuple(shapes)
    if is_open:
        chosen = "given" if shapes else "of the first sample" if first is not None else "usual ones, not given"
    if is_open and not shapes and first is not None:
        bind = tuple(f"{spec.name}={','.join(map(str, np.shape(first[spec.name])))}" for spec in model.inputs
                     if spec.name in first and np.shape(first[spec.name]))
    return {name: tuple(shape) for name, shape in graph_of(model.path, bind).bound.items()}, chosen


def _with_axes(model: Model, base: dict[str, Shape], axes: Shape, values: Shape, option: str) -> dict[str, Shape]:
    """Fix these axes of every input that has them open."""
    opened = _opened(model, base, axes, option, values)
    found = {}
    for name, shape in opened.items():
        left = list(values)
        found[name] = tuple(left.pop(0) if size == -1 else size for size in shape)
    return found


def _opened(model: Model, base: dict[str, Shape], axes: Shape, option: str,
            values: Shape | None = None) -> dict[str, Shape]:
    """-1 at these axes of every input that has all of them open.

    Raises:
        BadInput: no input has, unless its fixed sizes are ``values`` already.
    """
    found = {spec.name: _with_hole(spec, base[spec.name], axes) for spec in model.inputs}
    if any(-1 in shape for shape in found.values()):
        return found
    if values is not None and any(len(shape) > axes[-1] and tuple(shape[at] for at in axes) == tuple(values)
                                  for shape in base.values()):
        return found
    what = "its first axis" if axes == (0,) else "height and width"
    fixed = "; ".join(map(str, model.inputs))
    raise BadInput(f"{option} is given, but no input of {model.path.name} has {what} open: {fixed}.",
                   remedy=f"export the model with {what} open, or leave {option} out")


def _with_hole(spec: TensorSpec, shape: Shape, axes: Shape) -> Shape:
    if len(shape) <= axes[-1] or (len(axes) > 1 and len(shape) != 4):
        return shape
    if not all(isinstance(spec.shape[at], str) for at in axes):
        return shape
    return tuple(-1 if at in axes else size for at, size in enumerate(shape))


def _sizes(texts: Sequence[str]) -> list[Shape]:
    return [_numbers(text, 2, "sizes", "640x640") for text in texts]


def _dims(model: Model, profiles: Sequence[str]) -> InputShapes:
    inputs = {spec.name: tuple(-1 if isinstance(axis, str) else axis for axis in spec.shape) for spec in model.inputs}
    count = sum(shape.count(-1) for shape in inputs.values())
    if not count:
        raise BadInput(f"profiles is given, but {model.path.name} has no open axis: "
                       f"{'; '.join(map(str, model.inputs))}.", remedy="leave profiles out")
    return InputShapes(inputs, "dims", tuple(_numbers(text, count, "profiles", ",".join(["1"] * count))
                                             for text in profiles), "given")


def _numbers(text: str, count: int, option: str, example: str) -> Shape:
    try:
        found = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if len(found) != count or prod(found) <= 0 or min(found) < 1:
        raise BadInput(f"{option} has {text!r}: {count} whole number{'s' if count > 1 else ''} above 0 are needed.",
                       remedy=f'write each like "{example}"')
    return found
