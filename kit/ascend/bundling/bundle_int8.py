"""The INT8 route of a bundle: calibration samples and configuration for AMCT or atc, and the steps before atc.

AMCT runs on the box (``amct_onnx``, no NPU needed) and writes the model that atc reads; atc's own calibration runs on
the device inside the atc call.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.ascend.atc.flag_table import chip
from kit.ascend.bundling.bundle import BundleOptions, write_text
from kit.ascend.bundling.golden_samples import chosen, subset
from kit.ascend.bundling.input_shapes import InputShapes
from kit.ascend.precision.calibration_files import CalibrationFiles, write_calibration
from kit.ascend.precision.int8_routes import (
    AmctOptions,
    Int8Steps,
    amct_config,
    amct_steps,
    compression_conf,
    qat_steps,
)
from kit.errors import BadInput
from kit.inspection.findings import counted
from kit.model import Model

CONFIG, COMPRESSION = "config/amct.cfg", "config/compression.cfg"
DATA = "calibration"


@dataclass(frozen=True)
class Int8:
    """A route.

    Attributes:
        route: ``none``, ``amct``, ``qat`` or ``atc``.
        words: about it, for people; "" without.
        steps: commands before atc.
        model: what atc reads instead of the bundle's model; "" for that itself.
        compression: file for ``--compression_optimize_conf``; "" without.
        files: what belongs to it, relative to the bundle.
        notes: sentences for the reader.
    """

    route: str = "none"
    words: str = ""
    steps: tuple[tuple[str, ...], ...] = ()
    model: str = ""
    compression: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The steps for a shell."""
        return [shlex.join(step) for step in self.steps]

    def manifest(self) -> dict[str, Any]:
        """As it stands in ``bundle.json``."""
        return {"route": self.route, "files": list(self.files), "steps": [list(step) for step in self.steps],
                "note": " ".join(self.notes)}


def int8_route(model: Model, path: str, options: BundleOptions, given: Any, shapes: InputShapes,
               folder: Path) -> Int8:
    """Write what the route needs into a bundle's folder.

    Args:
        model: the float model; for ``qat`` the QDQ model.
        path: of the model in the bundle.
        given: samples and sensitivity, see ``kit.compiling.ascend.Given``.
        shapes: sizes; INT8 takes no profiles.
        folder: of the bundle.

    Raises:
        BadInput: profiles or a precision that INT8 excludes, no samples to calibrate with, unknown nodes.
        UnsupportedModel: AMCT can make nothing of the model.
    """
    if options.int8 == "none":
        return Int8()
    if shapes.kind != "static":
        raise BadInput(f"int8={options.int8!r} and profiles of {shapes.kind}: an INT8 .om takes no profiles.",
                       remedy="give one batch and one size; compile a bundle for each")
    if options.precision in ("origin", "cube_fp16in_fp32out"):
        raise BadInput(f"int8={options.int8!r} and precision={options.precision!r} exclude each other.",
                       remedy="leave precision at fp16, or take mixed_float16")
    return _ROUTES[options.int8](model, path, options, given, shapes, folder)


def _amct(model: Model, path: str, options: BundleOptions, given: Any, shapes: InputShapes, folder: Path) -> Int8:
    files = _calibration(model, options, given.samples, shapes, folder, options.calibration_samples, 1)
    config = amct_config(model, _asked(options, files, "amct_onnx"), ranking=given.sensitivity, share=options.share)
    write_text(folder / CONFIG, config.text)
    steps = amct_steps(path, files, config, config_path=CONFIG, data=DATA)
    words = f"AMCT on the box with {counted(files.samples, 'sample')}: {config.title()}"
    return _with_steps(steps, words, (CONFIG, *_names(files)), (*config.notes, *steps.notes))


def _qat(model: Model, path: str, options: BundleOptions, given: Any, shapes: InputShapes, folder: Path) -> Int8:
    steps = qat_steps(model, path)
    note = "The golden answers are those of the QDQ model in ONNX Runtime: it rounds to INT8 and computes in float."
    return _with_steps(steps, "AMCT on the box converts the QDQ model", (), (*steps.notes, note))


def _atc(model: Model, path: str, options: BundleOptions, given: Any, shapes: InputShapes, folder: Path) -> Int8:
    batch = shapes.batches[0] if shapes.batches else 1
    files = _calibration(model, options, given.samples, shapes, folder, batch, batch)
    config_path = ""
    if options.keep_float or given.sensitivity is not None:
        config = amct_config(model, _asked(options, files, "atc"), ranking=given.sensitivity, share=options.share)
        config_path = CONFIG
        write_text(folder / CONFIG, config.text)
    conf = compression_conf(files, chip(options.target).soc_version, config_path=config_path, data=DATA)
    write_text(folder / COMPRESSION, conf.text)
    note = (f"atc calibrates with one batch, that of the .om: {counted(files.samples, 'sample')}; batches=(32,) gives "
            "it more.")
    return Int8("atc", f"atc calibrates on the device with {counted(files.samples, 'sample')}", compression=COMPRESSION,
                files=(COMPRESSION, *([config_path] if config_path else []), *_names(files)),
                notes=(*conf.notes, note))


_ROUTES: dict[str, Callable[..., Int8]] = {"amct": _amct, "qat": _qat, "atc": _atc}


def _asked(options: BundleOptions, files: CalibrationFiles, reader: Any) -> AmctOptions:
    return AmctOptions(reader=reader, soc_version=chip(options.target).soc_version, keep_float=options.keep_float,
                       batches=len(files.of(files.inputs[0].name)))


def _with_steps(steps: Int8Steps, words: str, files: Sequence[str], notes: Sequence[str]) -> Int8:
    return Int8(steps.route, words, steps.argv, steps.deploy, files=tuple(files), notes=tuple(notes))


def _names(files: CalibrationFiles) -> list[str]:
    return [f"{DATA}/manifest.json", *(f"{DATA}/{file.path}" for file in files.files)]


def _calibration(model: Model, options: BundleOptions, samples: Any, shapes: InputShapes, folder: Path, limit: int,
                 batch: int) -> CalibrationFiles:
    """Write the samples that fit, spread over the set."""
    if samples is None or not len(samples):
        raise BadInput(f"int8={options.int8!r} is calibrated with samples, and there are none.",
                       remedy="give samples=..., some tens that look like what the model will meet")
    numbers = chosen(samples, limit, shapes.fits)
    if len(numbers) < batch:
        raise BadInput(f"int8='atc' calibrates with one batch of {batch}, and {len(numbers)} samples fit.",
                       remedy=f"give {batch} samples, or a smaller batch with batches=(...)")
    return write_calibration(subset(samples, numbers), model.inputs, folder / DATA, limit, batch=batch)
