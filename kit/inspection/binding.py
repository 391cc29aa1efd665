"""Sizes for axes that a model leaves open: those that a person gives, and usual ones for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.errors import BadInput, unknown

# For axes that nobody bound: a picture, a line of text, a picture for a net with a fixed head. The first that fits.
PICTURES = ((640, 640), (48, 320), (224, 224))
BATCH, CHANNELS, LENGTH = 1, 3, 64


def bind_axes(proto: Any, bind: tuple[str, ...], file: str,
              picture: tuple[int, int]) -> tuple[dict[str, tuple[int, ...]], tuple[tuple[str, int, str], ...]]:
    """A shape for every input, and the axes that the file leaves open.

    Args:
        proto: the ``onnx.ModelProto``.
        bind: sizes, ``"x=1,3,640,640"`` for an input or ``"width=640"`` for a named axis.
        file: its name, for errors.
        picture: height and width for open axes of four that nobody bound.

    Returns:
        Input -> shape; and (input, axis, name of the axis or "?") of each open one.

    Raises:
        BadInput: ``bind`` names no input or axis, or contradicts a fixed one.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input
              if value.name not in stored and value.type.HasField("tensor_type")}
    axes = {d.dim_param for v in inputs.values() for d in v.type.tensor_type.shape.dim if d.dim_param}
    sizes: dict[str, tuple[int, ...]] = {}
    for text in bind:
        name, _, numbers = text.partition("=")
        try:
            sizes[name.strip()] = tuple(int(n) for n in numbers.replace("x", ",").split(","))
        except ValueError:
            raise BadInput(f"bind={text!r} is not a name and sizes.", remedy='write it like "x=1,3,640,640"') from None
        if name.strip() not in inputs and name.strip() not in axes:
            raise unknown("input or axis", name.strip(), {*inputs, *axes}, file)
    bound, dynamic = {}, []
    for name, value in inputs.items():
        declared = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?"
                    for d in value.type.tensor_type.shape.dim]
        dynamic += [(name, at, axis) for at, axis in enumerate(declared) if isinstance(axis, str)]
        bound[name] = _shape(name, declared, sizes, picture)
    return bound, tuple(dynamic)


def _shape(name: str, declared: list[int | str], sizes: Mapping[str, tuple[int, ...]],
           picture: tuple[int, int]) -> tuple[int, ...]:
    asked = sizes.get(name)
    if asked and (len(asked) != len(declared) or any(isinstance(d, int) and d != a
                                                     for d, a in zip(declared, asked, strict=True))):
        raise BadInput(f"bind gives {name} the shape {list(asked)}, but the model has {declared}.",
                       remedy="keep the fixed axes as they are and give a size for each open one")
    usual = asked or _usual(declared, picture)
    return tuple(d if isinstance(d, int) else (sizes[d][0] if d in sizes and not asked else usual[at])
                 for at, d in enumerate(declared))


def _usual(declared: list[int | str], picture: tuple[int, int]) -> tuple[int, ...]:
    """Sizes for open axes: one sample, three channels, and the picture; a fixed low height means a line of text."""
    if len(declared) == 4:
        height = declared[2] if isinstance(declared[2], int) else picture[0]
        return BATCH, CHANNELS, height, 320 if height < 100 else picture[1]
    return (BATCH, *[LENGTH] * (len(declared) - 1)) if declared else ()
