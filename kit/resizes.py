"""What TensorFlow's resize operators compute, in the words of ONNX's Resize; and how a model remembers it.

Sources, read 2026-11-25: tensorflow/core/kernels/image/ resize_bilinear_op.cc, resize_nearest_neighbor_op.cc,
resize_bicubic_op.cc and core/util/image_resizer_state.h; ONNX Resize-11 to Resize-19. For nearest neighbours with
``half_pixel_centers`` TensorFlow takes pixel floor((x + 0.5) * scale): that is ``half_pixel`` with
``round_prefer_ceil``, and what Resize-11 called ``tf_half_pixel_for_nn``, which later versions do not define.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

#: Key of the metadata entry that says which TensorFlow operator each Resize was.
METADATA = "kit.resizes"
#: Key of the metadata entry that says where a model came from.
FRAMEWORK = "kit.source_framework"
_OPERATORS = {"ResizeBilinear": "linear", "ResizeNearestNeighbor": "nearest", "ResizeBicubic": "cubic"}
OPERATORS = tuple(_OPERATORS)


@dataclass(frozen=True)
class Modes:
    """The attributes of an ONNX Resize that decide which pixels it takes; ``rounding`` only where it is nearest.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        place: coordinate_transformation_mode.
        rounding: nearest_mode; "" for the other modes.
        cubic: cubic_coeff_a; 0 for the other modes.
        exclude_outside: pixels outside the picture get no weight; for cubic only.
    """

    mode: str
    place: str
    rounding: str = ""
    cubic: float = 0.0
    exclude_outside: bool = False

    def __str__(self) -> str:
        words = [self.mode, self.place, self.rounding, f"a = {self.cubic:g}" if self.mode == "cubic" else "",
                 "exclude_outside" if self.exclude_outside else ""]
        return ", ".join(filter(None, words))


@dataclass(frozen=True)
class TfResize:
    """A resize operator of TensorFlow: ``ResizeBilinear``, ``ResizeNearestNeighbor`` or ``ResizeBicubic``."""

    operator: str
    align_corners: bool = False
    half_pixel_centers: bool = False

    def __str__(self) -> str:
        flags = [name for name in ("align_corners", "half_pixel_centers") if getattr(self, name)]
        return f"{self.operator}({', '.join(flags) or 'legacy: neither flag'})"

    def modes(self) -> Modes:
        """What an ONNX Resize must say to take the same pixels."""
        mode = _OPERATORS[self.operator]
        place = "align_corners" if self.align_corners else "half_pixel" if self.half_pixel_centers else "asymmetric"
        if mode == "nearest":
            return Modes(mode, place, "floor" if place == "asymmetric" else "round_prefer_ceil")
        if mode == "cubic":  # Keys' kernel, with weights made to add up inside the picture, came with the half pixels
            keys = self.half_pixel_centers and not self.align_corners
            return Modes(mode, place, cubic=-0.5 if keys else -0.75, exclude_outside=keys)
        return Modes(mode, place)


def remember(resizes: Mapping[str, TfResize]) -> str:
    """Text for the metadata: ONNX node -> what it was."""
    return json.dumps({name: [r.operator, r.align_corners, r.half_pixel_centers] for name, r in resizes.items()},
                      sort_keys=True)


def recall(text: str) -> dict[str, TfResize]:
    """What `remember` wrote; nothing where the text is of another kind."""
    try:
        found = json.loads(text or "{}")
        return {name: TfResize(operator, bool(align), bool(half)) for name, (operator, align, half) in found.items()
                if operator in _OPERATORS}
    except (ValueError, TypeError, AttributeError):
        return {}
