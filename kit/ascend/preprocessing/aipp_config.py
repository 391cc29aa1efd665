"""AIPP from the kit's own preprocessing: the chip takes bytes and does what ``Preprocess`` does after resizing.

``aipp(preprocess, size, input="x")`` writes the file for atc's ``--insert_op_conf``; ``.compare(samples)`` shows how
far its float16 arithmetic is from the float preprocessing, before anyone trusts it; ``read_aipp`` reads foreign files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np

from kit.ascend.chip_family import exact_name, family_of
from kit.ascend.preprocessing.aipp_arithmetic import Rounding, Settings, nv12, run, split_mean
from kit.ascend.preprocessing.aipp_difference import AippDifference, compare
from kit.ascend.preprocessing.aipp_entries import check_ranges
from kit.ascend.preprocessing.aipp_geometry import check_geometry
from kit.ascend.preprocessing.aipp_reading import AippReading, Block, Mistake, read_aipp
from kit.ascend.preprocessing.aipp_text import write
from kit.calibration import model_of
from kit.card import Card, Listing, Table
from kit.errors import BadInput, UnsupportedModel, unknown
from kit.options import Help, Options, Range, expect
from kit.samples import Preprocess, Samples
from kit.targets.ascend import facts

__all__ = ["Aipp", "AippDifference", "AippOptions", "AippReading", "Mistake", "aipp", "read_aipp"]

_WITHOUT = "or feed floats: leave AIPP out, the host prepares as before"


@dataclass(frozen=True)
class AippOptions(Options):
    """What the host feeds, and what the chip does with it."""

    soc_version: Annotated[str, Help("the chip, as npu-smi names it")] = "Ascend310P3"
    picture: Annotated[
        Literal["BGR", "RGB", "NV12", "NV21"],
        Help("what the host feeds: BGR as OpenCV reads, RGB, or what a video decoder gives"),
    ] = "BGR"
    colours: Annotated[
        Literal["JPEG", "BT-601NARROW", "BT-601WIDE", "BT-709NARROW", "BT-709WIDE"],
        Help("which standard NV12 and NV21 pictures follow"),
    ] = "JPEG"
    split: Annotated[
        bool, Help("the mean's whole part in mean_chn, the rest in min_chn; off: all of it in min_chn, less exact")
    ] = True
    right: Annotated[
        int, Range(0, 32), Help("resize='height': columns of zeros that the chip adds on the right, the same for all")
    ] = 0
    host_padding: Annotated[
        bool, Help("resize='height': the host pads on the right, with the byte nearest to a normalised 0")
    ] = False
    profiles: Annotated[
        Literal["none", "batch", "image", "dims"], Help("which of atc's dynamic profiles the model is built with")
    ] = "none"
    fp16_inputs: Annotated[tuple[str, ...], Help("inputs given to atc's --input_fp16_nodes")] = ()


@dataclass(frozen=True)
class Aipp(Card):
    """A static AIPP for one input.

    Attributes:
        text: of the file for ``--insert_op_conf``.
        preprocess: what it stands for.
        size: height and width of the model's input; (0, 0) where profiles say.
        input: name of the model's input.
        rank: which input that is, 0 is the first.
        options: see there.
        settings: what it computes.
        notes: sentences for the reader.
    """

    text: str = field(repr=False)
    preprocess: Preprocess
    size: tuple[int, int]
    input: str
    rank: int
    options: AippOptions
    settings: Settings
    notes: tuple[str, ...] = ()

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """What the host feeds for a picture: resized, padded where it was asked for, and still bytes.

        Args:
            picture: uint8 [H, W, 3], BGR as OpenCV reads it.

        Returns:
            uint8 [h, w, 3], or [h * 3 / 2, w] for NV12 and NV21.

        Raises:
            BadInput: after resizing it does not have the size that this AIPP is for.
        """
        small = self.preprocess.resized(picture)
        if self.size != (0, 0):
            small = self._fitted(small)
        if self.options.picture in ("NV12", "NV21"):
            return nv12(small, swapped=self.options.picture == "NV21")
        return np.ascontiguousarray(small[:, :, ::-1] if self.options.picture == "RGB" else small)

    def simulate(self, picture: np.ndarray, rounding: Rounding = "steps") -> np.ndarray:
        """What the model gets for a picture as the host feeds it, bit by bit; see ``aipp_arithmetic``.

        Args:
            picture: uint8 as ``prepare`` gives it.
            rounding: where the chip rounds.

        Returns:
            float16 [1, 3, h, w].
        """
        return run(self.settings, picture, rounding)

    def compare(self, samples: Samples, *, limit: int = 32) -> AippDifference:
        """How far the chip's arithmetic is from ``Preprocess``, on real pictures.

        Args:
            samples: with the same preprocessing.
            limit: at most so many, the first ones.

        Raises:
            BadInput: none, or samples that are prepared in another way.
        """
        return compare(self, samples, limit)

    def title(self) -> str:
        size = f"{self.size[1]} x {self.size[0]}" if self.size != (0, 0) else "sizes of the profiles"
        return f"AIPP for input {self.input!r} on {self.options.soc_version}: {self.options.picture} bytes, {size}"

    def facts(self) -> dict[str, object]:
        made = self.settings
        return {
            "feed": "uint8 [N, h * 3 / 2, w]" if made.input_format == "YUV420SP_U8" else "uint8 [N, h, w, 3]",
            "channels": f"{self.preprocess.channels} for the model" + (", swapped by the chip" if made.swap else ""),
            "mean": ", ".join(f"{m} + {r:.4g}" if self.options.split else f"{r:.6g}"
                              for m, r in zip(made.mean, made.minimum, strict=True)),
            "factor": ", ".join(f"{one:.8g}" for one in made.factor),
            **({"padding": f"{made.padding[1]} columns of 0 on the right"} if any(made.padding) else {}),
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        return (Listing("For --insert_op_conf", self.text),)

    def _fitted(self, small: np.ndarray) -> np.ndarray:
        height, width = self.size[0], self.size[1] - self.options.right
        if self.options.host_padding and small.shape[0] == height and small.shape[1] < width:
            grey = np.array(_grey(self.preprocess), np.uint8)
            right = np.broadcast_to(grey, (height, width - small.shape[1], 3))
            return np.concatenate([small, right], axis=1)
        if small.shape[:2] != (height, width):
            more = ("allow host_padding=True for narrower ones" if self.preprocess.resize == "height" and
                    small.shape[1] < width else "make an AIPP and a model for that size, or pad or cut the picture "
                    "before")
            raise BadInput(f"This picture becomes {small.shape[1]} x {small.shape[0]} pixels by resize="
                           f"{self.preprocess.resize!r}; the AIPP takes {width} x {height}.", remedy=more)
        return small


def aipp(preprocess: Preprocess, size: tuple[int, int], *, input: str, rank: int | None = None, model: Any = None,
         options: AippOptions = AippOptions()) -> Aipp:
    """The static AIPP that does what ``preprocess`` does after resizing.

    Args:
        preprocess: as used for calibration and verification.
        size: height and width of the model's input; ignored with ``profiles="image"``.
        input: name of the model's input.
        rank: which of the model's inputs that is; None asks ``model``, and is 0 without one.
        model: a path, a Model or a result that carries one: name, place, type and shape of the input are checked.
        options: see there.

    Raises:
        BadInput: something that AIPP cannot express, or a size, name or option that does not fit; with what can be
            done instead.
        UnsupportedModel: the input is no picture of three channels.
    """
    expect(AippOptions, options)
    if not isinstance(preprocess, Preprocess):
        raise BadInput(f"AIPP is made from a Preprocess, not from {type(preprocess).__name__}.",
                       remedy="give kit.Preprocess(...), such as samples.preprocess")
    if not (isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise BadInput(f"size cannot be {size!r}.", remedy="give height and width of the input, such as (640, 640)")
    size = (size[0], size[1])
    soc_version, family = exact_name(options.soc_version), family_of(options.soc_version)
    options = replace(options, soc_version=soc_version)
    if options.profiles == "dims":
        raise BadInput("atc takes no AIPP together with --dynamic_dims.",
                       remedy="use batch or image profiles, or leave AIPP out")
    rank = _input(model, input, rank, size, options)
    if options.profiles == "image":
        size = (0, 0)
    _expressible(preprocess, size, input, options)
    settings, notes = _settings(preprocess, size, options, family)
    block = _block(settings, size, rank)
    comments = [f"Input {input!r}, the host feeds {options.picture} bytes and does not normalise.",
                f"Stands for (x * {preprocess.scale:.8g} - mean) / std, mean {_numbers(preprocess.mean)}, "
                f"std {_numbers(preprocess.std)}, channels {preprocess.channels}."]
    made = Aipp(write([block], comments), preprocess, size, input, rank, options, settings, notes)
    _check_sizes(block, soc_version, family, size if size != (0, 0) else None)
    return made


def _input(model: Any, name: str, rank: int | None, size: tuple[int, int], options: AippOptions) -> int:
    """The input's place; the model is asked whether all fits."""
    if name in options.fp16_inputs:
        raise BadInput(f"Input {name!r} has AIPP and stands in fp16_inputs (atc: E10034).",
                       remedy="take it out of fp16_inputs: with AIPP it is uint8")
    if model is None:
        return rank or 0
    model = model_of(model)
    names = [spec.name for spec in model.inputs]
    if name not in names:
        raise unknown("input", name, names, model.path.name)
    place = names.index(name)
    if rank is not None and rank != place:
        raise BadInput(f"Input {name!r} of {model.path.name} is number {place}, not {rank}: AIPP counts inputs from 0, "
                       f"in the order {', '.join(names)}.", remedy=f"give rank={place}, or leave it out")
    spec = model.inputs[place]
    if not spec.dtype.startswith("float") or len(spec.shape) != 4:
        pictures = [s.name for s in model.inputs if s.dtype.startswith("float") and len(s.shape) == 4]
        raise UnsupportedModel(f"AIPP prepares pictures; {spec} is none (a float input of 4 axes).", remedy=(
            f"choose input {' or '.join(map(repr, pictures))}" if pictures else "leave AIPP out: no input is one"))
    channels = spec.shape[1]
    if channels != 3 and isinstance(channels, int):
        last = spec.shape[3] == 3
        raise UnsupportedModel(
            f"{spec} takes {channels} channels; this preprocessing makes 3.", remedy="its layout is NHWC: export the "
            "model with NCHW, which is what atc wants of ONNX" if last else f"AIPP for {channels} channel"
            f"{'s' * (channels != 1)} is written by hand (YUV400_U8 for one), {_WITHOUT}")
    if options.profiles != "image":
        for axis, wanted, there in (("height", size[0], spec.shape[2]), ("width", size[1], spec.shape[3])):
            if isinstance(there, int) and there != wanted:
                raise BadInput(f"{spec} has a {axis} of {there}; the AIPP was asked for {wanted}.",
                               remedy=f"give size=({spec.shape[2]}, {spec.shape[3]})")
    return place


def _expressible(preprocess: Preprocess, size: tuple[int, int], name: str, options: AippOptions) -> None:
    """Refuse what AIPP has no means for.

    Raises:
        BadInput: says what and why.
    """
    if preprocess.layout != "NCHW":
        raise BadInput("The model takes NHWC; atc's AIPP needs --input_format=NCHW for ONNX models.",
                       remedy="export the model with NCHW and use Preprocess(layout='NCHW'), " + _WITHOUT)
    if not preprocess.scale or not all(preprocess.std):
        raise BadInput("A scale or std of 0 leaves nothing of the picture.", remedy="check the Preprocess")
    if (options.right or options.host_padding) and preprocess.resize != "height":
        raise BadInput(f"resize={preprocess.resize!r} pads nothing: right and host_padding belong to resize='height'.",
                       remedy="leave them out")
    if options.profiles == "image":
        if options.right:
            raise BadInput("With image profiles AIPP can neither cut nor pad.", remedy="give right=0")
        return
    if preprocess.resize == "stretch" and preprocess.size != size:
        raise BadInput(f"The preprocessing resizes to {preprocess.size[1]} x {preprocess.size[0]}, the model takes "
                       f"{size[1]} x {size[0]}: AIPP does not resize.", remedy="give both the same size")
    if preprocess.resize == "limit" and any(side % preprocess.multiple for side in size):
        raise BadInput(f"resize='limit' makes sides that are multiples of {preprocess.multiple}; {size[1]} x {size[0]} "
                       "are not.", remedy="choose such a size")
    if preprocess.resize == "height" and not (options.right or options.host_padding):
        raise BadInput(
            f"resize='height' pads every picture to {name!r}'s width by itself, after normalising; a static AIPP adds "
            "the same columns to all, 32 at most.", remedy="give host_padding=True (the host pads with the byte "
            "nearest to 0; compare() tells what that costs), or right=N for pictures that are all N columns short, "
            + _WITHOUT)
    if preprocess.resize == "height" and preprocess.size[0] != size[0]:
        raise BadInput(f"The preprocessing makes lines {preprocess.size[0]} pixels high, the model takes {size[0]}.",
                       remedy="give both the same height")


def _settings(preprocess: Preprocess, size: tuple[int, int], options: AippOptions,
              family: str) -> tuple[Settings, tuple[str, ...]]:
    means, factors = [], []
    for mean, std in zip(preprocess.mean, preprocess.std, strict=True):
        means.append(mean / preprocess.scale)
        factors.append(preprocess.scale / std)
    if any(abs(one) > 65504 for one in factors):
        raise BadInput(f"A factor of {max(map(abs, factors)):g} is beyond float16.", remedy="scale inside the model, "
                       + _WITHOUT)
    parts = [split_mean(mean) if options.split else _whole(mean) for mean in means]
    data, notes = facts("aipp"), []
    if any(abs(one) < 2.0**-14 for one in factors):
        notes.append("A factor lies below 2^-14, where float16 has fewer digits: see compare().")
    yuv = options.picture in ("NV12", "NV21")
    matrix: tuple[int, ...] = ()
    bias = (0, 0, 0)
    if yuv:
        preset = data["yuv_to_rgb"][options.colours]
        rows = [preset["matrix"][at : at + 3] for at in (0, 3, 6)]
        matrix = tuple(one for row in (rows if preprocess.channels == "RGB" else rows[::-1]) for one in row)
        bias = tuple(preset["input_bias"])
        swap = options.picture == "NV21"
        notes.append("compare() makes NV12 pictures of the samples by JPEG's rule: what a decoder does to colours "
                     "counts as a difference.")
    else:
        swap = options.picture != preprocess.channels
    chip = data["families"][family]
    if options.right and size[1] > chip.get("padded_width_8.1", size[1]):
        notes.append(f"CANN 8.1.RC1 refuses padding beyond a width of {chip['padded_width_8.1']} on this chip too; "
                     "later documents allow it.")
    if options.host_padding:
        notes.append(f"The host pads with the bytes {_grey(preprocess)} (BGR), nearest to a normalised 0.")
    return Settings("YUV420SP_U8" if yuv else "RGB888_U8", swap, matrix=matrix, input_bias=bias,
                    mean=tuple(whole for whole, _ in parts), minimum=tuple(rest for _, rest in parts),
                    factor=tuple(factors), padding=(0, options.right, 0, 0),
                    registers=chip["registers"]), tuple(notes)


def _whole(mean: float) -> tuple[int, float]:
    if not 0 <= mean <= 255:
        raise BadInput(f"min_chn takes 0..255, not {mean:g}.", remedy="give split=True")
    return 0, mean


def _grey(preprocess: Preprocess) -> tuple[int, ...]:
    """The byte of each channel, in BGR, that is nearest to 0 when it is normalised."""
    bytes_ = [int(np.clip(round(mean / preprocess.scale), 0, 255)) for mean in preprocess.mean]
    return tuple(bytes_ if preprocess.channels == "BGR" else bytes_[::-1])


def _block(settings: Settings, size: tuple[int, int], rank: int) -> dict[str, Any]:
    """Keys and values in the order of the documents; what equals the default is left out, means and factors are not."""
    block: dict[str, Any] = {"aipp_mode": "static", "related_input_rank": rank, "input_format": settings.input_format}
    if size != (0, 0):
        block |= {"src_image_size_w": size[1] - settings.padding[1], "src_image_size_h": size[0]}
    if any(settings.padding):
        block |= {"padding": True, "right_padding_size": settings.padding[1], "padding_value": 0.0}
    block |= {"csc_switch": bool(settings.matrix), "rbuv_swap_switch": settings.swap}
    block |= {f"matrix_r{at // 3}c{at % 3}": value for at, value in enumerate(settings.matrix)}
    if settings.matrix:
        block |= {f"input_bias_{at}": value for at, value in enumerate(settings.input_bias)}
    for name, values in (("mean_chn", settings.mean), ("min_chn", settings.minimum), ("var_reci_chn", settings.factor)):
        block |= {f"{name}_{at}": value for at, value in enumerate(values)}
    return block


def _check_sizes(values: dict[str, Any], soc_version: str, family: str, size: tuple[int, int] | None) -> None:
    """Hold the block against the rules that foreign files are read by."""
    block = Block((), [], dict(values))
    check_ranges(block)
    check_geometry(block, family, size)
    if block.mistakes:
        first = block.mistakes[0]
        said = f"{first.key} is {first.was or 'missing'}, and {first.why}"
        raise BadInput(f"AIPP on {soc_version} cannot do this: {said}.",
                       remedy=f"choose another size or less padding, {_WITHOUT}")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{one:.6g}" for one in values)
