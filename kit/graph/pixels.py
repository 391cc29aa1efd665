"""Which input pixel an output pixel of a Resize comes from: in exact numbers, by ONNX's formulas and by CANN's.

For ``nearest``, CANN's parser hands two flags to ResizeNearestNeighborV2, which documents itself as "compatible with
tensorflow ResizeNearestNeighbor": corners aligned, pixels with centres, or neither. So two Resizes are the same when
their lists of pixels are, whatever their attributes are called.

Sources: ONNX Resize-19 (its ``coordinate_transformation_mode``); hicann/ops-cv resize_onnx_plugin.cpp and
resize_nearest_neighbor_v2_proto.h; TensorFlow's kernel scaler for nearest neighbours.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np

HALF = Fraction(1, 2)
STEADY = (1, 2, 3, 4)  # sizes that stand for every size where the scale is a whole number
# Modes in which moving on by one input pixel moves everything by one: a few sizes then speak for all.
SHIFTING = frozenset({"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "tf_half_pixel_for_nn"})


@dataclass(frozen=True)
class Axis:
    """One axis that is resized: its size before and after, and the scale its coordinates are computed with."""

    size: int
    out: int
    scale: Fraction

    @property
    def even(self) -> bool:
        """Is the scale exactly what the sizes say?"""
        return self.size * self.scale == self.out


def exact(scale: float) -> Fraction:
    """The fraction meant by a float32 factor: a third for 0.33333334."""
    plain = Fraction(float(scale)).limit_denominator(4096)
    return plain if np.float32(plain) == np.float32(scale) else Fraction(float(scale))


def by_scale(size: int, scale: Fraction) -> Axis:
    """An axis resized by a factor; ONNX rounds its new size down."""
    return Axis(size, floor(size * scale), scale)


def by_size(size: int, out: int) -> Axis:
    """An axis resized to a size."""
    return Axis(size, out, Fraction(out, size))


def coordinate(x: int, axis: Axis, mode: str) -> Fraction:
    """Where output pixel ``x`` lies among the input pixels, by ONNX's formulas.

    Raises:
        KeyError: ``tf_crop_and_resize``, which needs a region, or an unknown mode.
    """
    centred = (x + HALF) / axis.scale - HALF
    return {
        "half_pixel": lambda: centred,
        "pytorch_half_pixel": lambda: centred if axis.out > 1 else Fraction(0),
        "half_pixel_symmetric": lambda: centred + Fraction(axis.size, 2) * (
            1 - axis.out / (axis.scale * axis.size)),
        "asymmetric": lambda: x / axis.scale,
        "tf_half_pixel_for_nn": lambda: (x + HALF) / axis.scale,
        "align_corners": lambda: Fraction(x * (axis.size - 1), axis.out - 1) if axis.out > 1 else Fraction(0),
    }[mode]()


_ROUNDINGS = {
    "round_prefer_floor": lambda x: ceil(x - HALF), "round_prefer_ceil": lambda x: floor(x + HALF), "floor": floor,
    "ceil": ceil,
}


@functools.lru_cache(maxsize=256)
def onnx_pixels(axis: Axis, mode: str, rounding: str) -> tuple[int, ...]:
    """The input pixel of every output pixel along an axis, as ONNX says."""
    return tuple(min(max(_ROUNDINGS[rounding](coordinate(x, axis, mode)), 0), axis.size - 1) for x in range(axis.out))


@functools.lru_cache(maxsize=256)
def cann_pixels(axis: Axis, mode: str) -> tuple[int, ...]:
    """The same as CANN's kernel computes it: from the sizes alone, and without a rounding mode."""
    if mode == "align_corners" and axis.out > 1:
        found = (floor(Fraction(x * (axis.size - 1), axis.out - 1) + HALF) for x in range(axis.out))
    elif mode in ("half_pixel", "pytorch_half_pixel"):
        found = ((2 * x + 1) * axis.size // (2 * axis.out) for x in range(axis.out))
    else:
        found = (x * axis.size // axis.out for x in range(axis.out))
    return tuple(min(pixel, axis.size - 1) for pixel in found)
