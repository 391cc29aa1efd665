"""Sizes in an AIPP configuration: source, crop and padding must fit each other, the chip, and the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.targets.ascend import facts

if TYPE_CHECKING:
    from kit.ascend.preprocessing.aipp_reading import Block

_MOST_SIDE, _ROUNDS = 4096, 40
_SIDES = {"w": ("left_padding_size", "right_padding_size"), "h": ("top_padding_size", "bottom_padding_size")}
_PADS = (*_SIDES["w"], *_SIDES["h"])


@dataclass(frozen=True)
class _Wrong:
    """One thing that does not fit, with the likeliest repair: ``key`` becomes ``now``, ``gone`` are taken out."""

    key: str
    now: Any
    why: str
    gone: tuple[str, ...] = ()
    sure: bool = False


def check_geometry(block: Block, family: str, size: tuple[int, int] | None) -> None:
    """Repair one thing after the other until all fits.

    Args:
        block: is corrected.
        family: of the chip.
        size: height and width of the model's input, None where they are not known.
    """
    if block.values.get("aipp_mode") == "dynamic":
        return
    for _ in range(_ROUNDS):
        wrong = next(_wrong(block, family, size), None)
        if wrong is None:
            return
        block.say(wrong.key, wrong.now, wrong.why, sure=wrong.sure, line=_line(block, wrong))
        for key in wrong.gone:
            block.values.pop(key, None)
    for key in [key for key in block.values if key in (*_PADS, "crop", "padding", "src_image_size_w",
                                                       "src_image_size_h") or key.startswith(("crop_", "load_"))]:
        block.say(key, None, "sizes, crop and padding do not fit each other in any way", sure=False)


def _line(block: Block, wrong: _Wrong) -> int:
    return block.line(wrong.key) or max((block.line(key) for key in wrong.gone), default=0)


def _wrong(block: Block, family: str, size: tuple[int, int] | None) -> Iterator[_Wrong]:
    chip = facts("aipp")["families"][family]
    yield from _colours(block)
    if not block["padding"] and any(block[side] for side in _PADS):
        yield _Wrong("padding", True, "padding is off: the sizes given for it have no effect")
    even = block["input_format"] == "YUV420SP_U8"
    for axis, model in (("w", size[1] if size else 0), ("h", size[0] if size else 0)):
        pads = sum(block[side] for side in _SIDES[axis]) if block["padding"] else 0
        if pads and model and model - pads < (2 if axis == "w" else 1):
            yield _no_padding(f"the padding leaves nothing of the model's {model} pixels for the picture")
        yield from (_cut if block["crop"] else _uncut)(block, axis, model, pads, even)
        source = f"src_image_size_{axis}"
        if even and block[source] % 2:
            yield _Wrong(source, block[source] + 1 if block["crop"] and block[source] < _MOST_SIDE else
                         block[source] - 1, "the sides of a YUV420SP_U8 picture are even")
        if even and not chip["odd_crop_start"] and block["crop"] and block[f"load_start_pos_{axis}"] % 2:
            yield _Wrong(f"load_start_pos_{axis}", block[f"load_start_pos_{axis}"] - 1,
                         "YUV420SP_U8 is cut at even places on this chip")
    across = block["crop_size_w"] if block["crop"] else block["src_image_size_w"]
    across += sum(block[side] for side in _SIDES["w"])
    if block["padding"] and across > chip["padded_width"]:
        yield _no_padding(f"with padding the width is at most {chip['padded_width']} on this chip, here it is {across}")


def _no_padding(why: str) -> _Wrong:
    return _Wrong("padding", False, why + "; pad on the host", _PADS)


def _cut(block: Block, axis: str, model: int, pads: int, even: bool) -> Iterator[_Wrong]:
    """The crop gives what the model takes less the padding, and lies inside the source."""
    source, start, cut = (f"{name}_{axis}" for name in ("src_image_size", "load_start_pos", "crop_size"))
    if model and block[cut] != model - pads and (block[cut] or pads):
        yield _Wrong(cut, model - pads, f"the model takes {model}: crop and padding together give that")
    if block["padding"] and not block[cut]:
        yield _Wrong(cut, max(block[source] - block[start], 1), "with padding the size of the cut must be given")
    needed = block[start] + (block[cut] or model or 2)
    if needed > _MOST_SIDE:
        yield _Wrong(start, 0, f"the source has {_MOST_SIDE} pixels at most")
    if block[source] < needed:
        yield _Wrong(source, needed + (even and needed % 2), f"the source must be given and hold the cut: {needed} "
                     "pixels and more")


def _uncut(block: Block, axis: str, model: int, pads: int, even: bool) -> Iterator[_Wrong]:
    """Without a crop the source and the padding give what the model takes."""
    source = f"src_image_size_{axis}"
    if model and even and (model - pads) % 2:
        yield _Wrong("input_format", "RGB888_U8", f"a YUV420SP_U8 picture has even sides; the model and the padding "
                     f"leave {model - pads}")
    if model and block[source] != model - pads and (block[source] or pads or block["padding"]):
        yield _Wrong(source, model - pads, f"the model takes {model}: source and padding together give that")
    if block["padding"] and not block[source]:
        yield _Wrong(source, 2, "with padding the size of the source must be given")


def _colours(block: Block) -> Iterator[_Wrong]:
    if not block["csc_switch"]:
        return
    if block["input_format"] == "YUV400_U8":
        yield _Wrong("csc_switch", False, "a grey picture has no colours to convert", sure=True)
    elif not block["input_format"].startswith("YUV") and not any(key.startswith("matrix_") for key in block.values):
        yield _Wrong("csc_switch", False, "with RGB input and no matrix it makes YUV of the picture; a model of RGB or "
                     "BGR wants it off")
