"""What AIPP does to a picture, in numpy, bit by bit: bytes in, float16 out.

The order is documented: swap of channels, crop, colour conversion, mean and factor, padding. So are the formulas:
``out = (in - mean_chn - min_chn) * var_reci_chn``; YUV to RGB ``(matrix * (in - input_bias)) >> 8``; RGB to YUV
``((matrix * in) >> 8) + output_bias``.

Read in the kernel that ATC compiles (CANN 8.1.RC1): ``min_chn`` and ``var_reci_chn`` are rounded to float16 and stored
beside the integer ``mean_chn``; on Ascend310B ``mean_chn + min_chn`` becomes one float32, ``var_reci_chn`` another.

Inference, for no source says it: each of the two steps rounds to the width of its registers (``rounding="once"`` shows
a chip that rounds at the end alone); colour conversion clips to 0..255; the four pixels of a YUV420 cell share their
chroma as it is. All of this stands in ``kit/targets/ascend/aipp.json`` with its sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kit.errors import BadInput

Rounding = Literal["steps", "once"]


@dataclass(frozen=True)
class Settings:
    """One block of a static AIPP, as far as it computes. Channels count after the swap and the colour conversion.

    Attributes:
        input_format: such as ``RGB888_U8``.
        swap: R and B, or U and V, change places first.
        ax_swap: four bytes a pixel start with X, which moves behind.
        crop: top, left, height, width; None takes the whole picture.
        matrix: colour conversion, nine integers row by row, 256 is 1.0; empty for none.
        input_bias: taken off before the matrix (YUV input).
        output_bias: added behind it (RGB input).
        mean: integers taken off.
        minimum: taken off too.
        factor: multiplied with.
        padding: left, right, top, bottom, in pixels.
        padding_value: what is put there, already normalised.
        registers: how wide the chip keeps ``minimum`` and ``factor``.
    """

    input_format: str = "RGB888_U8"
    swap: bool = False
    ax_swap: bool = False
    crop: tuple[int, int, int, int] | None = None
    matrix: tuple[int, ...] = ()
    input_bias: tuple[int, int, int] = (0, 0, 0)
    output_bias: tuple[int, int, int] = (0, 0, 0)
    mean: tuple[int, ...] = (0, 0, 0)
    minimum: tuple[float, ...] = (0.0, 0.0, 0.0)
    factor: tuple[float, ...] = (1.0, 1.0, 1.0)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    padding_value: float = 0.0
    registers: Literal["float16", "float32"] = "float16"

    @property
    def channels(self) -> int:
        """Of the output."""
        return 1 if self.input_format == "YUV400_U8" else 3


def split_mean(mean: float) -> tuple[int, float]:
    """A mean of pixels as ``mean_chn`` (an integer) and ``min_chn`` (the rest).

    float16 keeps a rest below 1 to within 2**-12; a whole mean of 123.675 it keeps only to within 2**-5.

    Raises:
        BadInput: AIPP has no place for it: ``min_chn`` is not negative, and neither goes beyond 255.
    """
    if not 0 <= mean <= 510:
        raise BadInput(f"AIPP cannot take off a mean of {mean:g}: mean_chn and min_chn lie in 0..255.",
                       remedy="put the shift into the model (an Add behind the input), or feed floats without AIPP")
    whole = min(math.floor(mean), 255)
    return whole, mean - whole


def run(settings: Settings, picture: np.ndarray, rounding: Rounding = "steps") -> np.ndarray:
    """What the model gets for one picture.

    Args:
        settings: of the block.
        picture: uint8: [h, w, 3] for RGB888_U8, [h, w, 4] for XRGB8888_U8, [h, w] for YUV400_U8, and for YUV420SP_U8
            [h * 3 / 2, w], the Y plane above the plane of U and V in turn.
        rounding: see the module.

    Returns:
        float16 [1, channels, h', w'].

    Raises:
        BadInput: a picture of another form, or smaller than the crop.
    """
    pixels = colours(settings, picture)
    normalised = np.stack([lut[pixels[:, :, at]] for at, lut in enumerate(table(settings, rounding))])
    left, right, top, bottom = settings.padding
    return np.pad(normalised, ((0, 0), (top, bottom), (left, right)),
                  constant_values=np.float16(np.float32(settings.padding_value)))[None]


def table(settings: Settings, rounding: Rounding = "steps") -> np.ndarray:
    """The normalised value of every byte: float16 [channels, 256]. All that AIPP computes in floats is in here."""
    byte = np.arange(256)
    rows = list(zip(settings.mean, settings.minimum, settings.factor, strict=True))[: settings.channels]
    with np.errstate(over="ignore"):  # a factor that leaves float16 gives infinities, as on the chip
        return np.stack([_normalised(byte, settings.registers, rounding, *row) for row in rows])


def _normalised(byte: np.ndarray, registers: str, rounding: Rounding, mean: int, minimum: float,
                factor: float) -> np.ndarray:
    width = np.dtype(registers).type
    # A configuration's numbers pass through protobuf's float32 before they are rounded to what the chip keeps.
    if registers == "float32":
        shift, factor = float(np.float32(mean + float(np.float32(minimum)))), float(np.float32(factor))
    else:
        shift, factor = mean + float(np.float16(np.float32(minimum))), float(np.float16(np.float32(factor)))
    if rounding == "once":  # exact in float64: 8, 11 and 11 bits, or nearly so: 24 and 24
        return ((byte - shift) * factor).astype(np.float16)
    if registers == "float32":
        return ((byte.astype(width) - width(shift)) * width(factor)).astype(np.float16)
    # Whole numbers up to 255 are exact in float16. numpy computes each operation in float32 and rounds it, which for
    # one operation is the correctly rounded float16.
    return ((byte - mean).astype(width) - width(np.float32(minimum))) * width(factor)


def colours(settings: Settings, picture: np.ndarray) -> np.ndarray:
    """The picture before it is normalised: swapped, cut and converted, uint8 [h, w, channels]."""
    pixels = _unpacked(settings, picture)
    if settings.crop is not None:
        top, left, height, width = settings.crop
        if top + height > pixels.shape[0] or left + width > pixels.shape[1]:
            raise BadInput(f"AIPP cuts {width} x {height} pixels at ({left}, {top}); the picture has "
                           f"{pixels.shape[1]} x {pixels.shape[0]}.", remedy="feed a picture of the source's size")
        pixels = pixels[top : top + height, left : left + width]
    if not settings.matrix:
        return pixels
    matrix = np.array(settings.matrix, np.int32).reshape(3, 3)
    if settings.input_format.startswith("YUV"):
        made = (pixels.astype(np.int32) - np.array(settings.input_bias, np.int32)) @ matrix.T >> 8
    else:
        made = (pixels.astype(np.int32) @ matrix.T >> 8) + np.array(settings.output_bias, np.int32)
    return np.clip(made, 0, 255).astype(np.uint8)


def _unpacked(settings: Settings, picture: np.ndarray) -> np.ndarray:
    """The bytes as [h, w, channels], with the swaps done."""
    shapes = {"RGB888_U8": (3, "[h, w, 3]"), "XRGB8888_U8": (3, "[h, w, 4]"), "YUV400_U8": (2, "[h, w]"),
              "YUV420SP_U8": (2, "[h * 3 / 2, w], h and w even")}
    if settings.input_format not in shapes:
        raise BadInput(f"A picture of {settings.input_format} cannot be simulated.",
                       remedy=f"use one of {', '.join(shapes)}")
    axes, words = shapes[settings.input_format]
    fits = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == axes and picture.size
    if fits and axes == 3:
        fits = picture.shape[2] == (3 if settings.input_format == "RGB888_U8" else 4)
    if fits and settings.input_format == "YUV420SP_U8":
        fits = picture.shape[0] % 3 == 0 and picture.shape[1] % 2 == 0
    if not fits:
        kind = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise BadInput(f"A picture for {settings.input_format} is uint8 {words}; this is {kind}.",
                       remedy="give the bytes as the host feeds them, before any normalising")
    if settings.input_format == "YUV400_U8":
        return picture[:, :, None]
    if settings.input_format == "YUV420SP_U8":
        pixels = _yuv444(picture)
        return pixels[:, :, [0, 2, 1]] if settings.swap else pixels
    if settings.input_format == "XRGB8888_U8":  # the chip drops the fourth byte; X in front has to move there first
        picture = picture[:, :, 1:] if settings.ax_swap else picture[:, :, :3]
    return picture[:, :, ::-1] if settings.swap else picture


def _yuv444(picture: np.ndarray) -> np.ndarray:
    height = picture.shape[0] // 3 * 2
    chroma = picture[height:].reshape(height // 2, -1, 2).repeat(2, axis=0).repeat(2, axis=1)
    return np.concatenate([picture[:height, :, None], chroma], axis=2)


def nv12(picture: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """A picture as a decoder would hand it over: BGR to NV12 (``swapped``: NV21), full range as in JPEG (BT.601).

    Args:
        picture: uint8 [h, w, 3], BGR, both sides even.

    Returns:
        uint8 [h * 3 / 2, w].
    """
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        raise BadInput(f"A picture of {width} x {height} pixels has no YUV420 form: both sides must be even.",
                       remedy="cut or resize it to even sides")
    blue, green, red = (picture[:, :, at].astype(np.float64) for at in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [part.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
              for part in ((blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128)]
    pairs = np.stack(chroma[::-1] if swapped else chroma, axis=2).reshape(height // 2, width)
    return np.clip(np.rint(np.concatenate([luma, pairs])), 0, 255).astype(np.uint8)
