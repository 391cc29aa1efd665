"""The configuration of a bundle: AIPP, INT8 route, mixed precision, and the atc command that refers to them.

Everything that can be refused is refused here, before the model is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.ascend.atc.atc_options import AtcOptions, Profiles
from kit.ascend.atc.command import AtcCommand, atc_command
from kit.ascend.atc.flag_table import chip
from kit.ascend.bundling.bundle import BundleOptions, write_text
from kit.ascend.bundling.bundle_int8 import Int8, int8_route
from kit.ascend.bundling.input_shapes import InputShapes
from kit.ascend.precision.mixed_precision import PrecisionFile, float_candidates, keep_dtype, mixlist, op_precision_mode
from kit.ascend.preprocessing.aipp_config import Aipp, AippOptions, aipp
from kit.errors import BadInput
from kit.model import Model
from kit.samples import Samples

OVERFLOW = ("With an INT8 route no node is kept in float32 for values beyond float16, because AMCT gives nodes other "
            "names. The audit tells where there are any.")
COMPARED = 8  # samples on which AIPP is simulated
_FIELDS = {"--keep_dtype": "keep_dtype", "--modify_mixlist": "mixlist", "--op_precision_mode": "op_precision"}


@dataclass(frozen=True)
class Config:
    """What lies in ``config/`` and ``calibration/``, and what follows from it.

    Attributes:
        command: the atc command, its paths relative to the bundle.
        aipp: what prepares pictures on the chip; None where the host feeds floats.
        aipp_words: about it, for people; "" without.
        int8: the route.
        precision: what float operators compute in, in words.
        notes: sentences for the reader.
    """

    command: AtcCommand
    aipp: Aipp | None
    aipp_words: str
    int8: Int8
    precision: str
    notes: tuple[str, ...] = field(default=())


def configured(model: Model, name: str, options: BundleOptions, given: Any, shapes: InputShapes, golden: Any,
               folder: Path) -> Config:
    """Write ``config/`` and ``calibration/`` into a bundle's folder and compose the command.

    Args:
        model: what atc reads, or what AMCT makes it from.
        name: of the model, for files.
        given: samples, calibration and sensitivity, see ``kit.compiling.ascend.Given``.
        shapes: sizes or profiles.
        golden: those samples that become golden inputs.
        folder: of the bundle.

    Raises:
        BadInput: ATC would refuse the command, or AIPP or the INT8 route does not fit; names the valid choices.
        UnsupportedModel: AMCT can make nothing of the model.
    """
    made = _aipp(model, options, golden, shapes)
    if made:
        write_text(folder / "config" / "aipp.cfg", made.text)
    path = f"model/{name}.onnx"
    int8 = int8_route(model, path, options, given, shapes, folder)
    precise = _precise(model, options, given) if options.int8 == "none" else None
    if precise:
        write_text(folder / "config" / precise.name, precise.text)
    asked = AtcOptions(
        soc_version=chip(options.target).soc_version, cann=options.cann or "", precision=options.precision,
        shapes=tuple(f"{label}={','.join(map(str, shape))}" for label, shape in shapes.inputs.items()),
        profiles=str(Profiles(shapes.kind, shapes.values if shapes.kind != "static" else ())),
        aipp="config/aipp.cfg" if made else "", compression=int8.compression,
        **({_FIELDS[precise.flag]: f"config/{precise.name}"} if precise else {}), extra=options.extra,
        plugins=options.force or options.int8 == "qat")  # AMCT takes the QDQ pairs away before atc reads it
    command = atc_command(model, asked, output=f"om/{name}", path=int8.model or path, folder=folder)
    write_text(folder / "config" / "atc.sh", command.script.replace(
        command.text, "\n".join([*int8.lines, command.text])))
    words = f"{options.precision}; {len(precise.entries)} kept precise by {precise.flag}" if precise else \
        options.precision
    beside = (OVERFLOW,) if options.int8 != "none" and given.calibration is not None else ()
    return Config(command, made, _aipp_words(made, golden), int8, words,
                  (*command.notes, *int8.notes, *(precise.notes if precise else ()), *beside))


def _precise(model: Model, options: BundleOptions, given: Any) -> PrecisionFile | None:
    """The file that tells atc what stays precise; None where nothing was asked or found."""
    if not options.keep_float and given.calibration is None and given.sensitivity is None:
        return None
    found = float_candidates(model, soc_version=chip(options.target).soc_version, ranking=given.sensitivity,
                             calibration=given.calibration, keep_float=options.keep_float, share=options.share)
    if not found:
        return None
    if options.keep_by == "mixlist":
        return mixlist(found, precision=options.precision)
    if options.keep_by == "op_precision":
        return op_precision_mode(model, found)
    return keep_dtype(model, found, precision=options.precision)


def _aipp(model: Model, options: BundleOptions, samples: Any, shapes: InputShapes) -> Aipp | None:
    if not options.aipp:
        return None
    if not isinstance(samples, Samples):
        raise BadInput("aipp=True needs to know how pictures are prepared.",
                       remedy="give samples=kit.Samples(...): their Preprocess is what AIPP is made from")
    # With dims there is no one size: aipp() says why that cannot be.
    size = (0, 0) if shapes.kind == "dims" else shapes.concrete()[-1].get(samples.input, (0, 0, 0, 0))[2:]
    asked = AippOptions(soc_version=chip(options.target).soc_version,
                        host_padding=samples.preprocess.resize == "height",
                        profiles="none" if shapes.kind == "static" else shapes.kind)
    return aipp(samples.preprocess, size, input=samples.input, model=model, options=asked)


def _aipp_words(made: Aipp | None, samples: Any) -> str:
    if made is None:
        return ""
    found = made.compare(samples, limit=COMPARED)
    return (f"input {made.input!r} takes {made.options.picture} bytes; its floats differ from the Preprocess by "
            f"{found.largest:.2g} at most over {found.samples} samples (simulated)")
