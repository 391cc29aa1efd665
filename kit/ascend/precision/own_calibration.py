"""atc's own calibration: the file for ``--compression_optimize_conf``. It needs an NPU in the host that runs atc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kit.ascend.chip_family import exact_name, family_of
from kit.ascend.precision.calibration_files import CalibrationFiles
from kit.card import Card, Listing, Table
from kit.errors import BadInput
from kit.targets.ascend import facts


@dataclass(frozen=True)
class CompressionConf(Card):
    """The file for ``--compression_optimize_conf``.

    Attributes:
        text: of the file.
        shape: what ``--input_shape`` of the atc call has to be.
        notes: sentences for the reader.
    """

    text: str = field(repr=False)
    shape: str
    notes: tuple[str, ...]

    def title(self) -> str:
        return f"atc calibrates by itself, at {self.shape}"

    def facts(self) -> dict[str, object]:
        return {"note": " ".join(self.notes)}

    def tables(self) -> tuple[Table, ...]:
        return (Listing("For --compression_optimize_conf", self.text),)


def compression_conf(files: CalibrationFiles, soc_version: str, *, config_path: str = "", data: str = "calibration",
                     device: int = 0, cores: int | None = None, first_layer: bool = False,
                     log: Literal["debug", "info", "warning", "error"] = "info", precision_mode: str = "",
                     precision_mode_v2: str = "", op_precision: Sequence[str] = ()) -> CompressionConf:
    """The file with which atc calibrates by itself.

    Args:
        files: calibration samples, all in one file an input (``batch`` as large as their number).
        soc_version: the chip that calibrates: the one in the host.
        config_path: of an ``amct_config`` with reader ``atc``; "" for AMCT's defaults.
        data: the folder of ``files`` there.
        device: number of the NPU.
        cores: AI cores to use.
        first_layer: fold AIPP into the first convolution's rounding.
        log: how much it tells.
        precision_mode: as given to atc, to be checked.
        precision_mode_v2: likewise.
        op_precision: values in the file for --op_precision_mode, likewise.

    Raises:
        BadInput: more than one file an input, a chip or precision that excludes calibration.
    """
    about, chip = facts("amct")["in_atc"], exact_name(soc_version)
    family = family_of(chip)
    if about["families"].get(family) is False:
        raise BadInput(f"atc does not calibrate for {chip}.", remedy="take the route of AMCT: amct_config, amct_steps")
    for name, value in (("precision_mode", precision_mode), ("precision_mode_v2", precision_mode_v2)):
        if value in about["conflicts"][name]:
            raise BadInput(f"Calibration and {name}={value} exclude each other: nothing would be gained in speed or in "
                           "accuracy.", remedy=f"leave {name} out")
    if set(op_precision) & set(about["conflicts"]["op_precision_mode"]):
        raise BadInput("Calibration and high_precision in the file for --op_precision_mode exclude each other.",
                       remedy="leave one of them out")
    if first_layer and family not in about["first_layer_families"]:
        raise BadInput(f"enable_first_layer_quantization is not there for {chip}.", remedy="first_layer=False")
    if log not in about["log"]:
        raise BadInput(f"log cannot be {log!r}.", remedy=f"choose one of {', '.join(about['log'])}")
    names = [spec.name for spec in files.inputs]
    more = next((name for name in names if len(files.of(name)) != 1), "")
    if more:
        raise BadInput(f"atc reads one file an input; {more!r} has {len(files.of(more))}.", remedy="write them again "
                       f"with batch={files.samples}: kit.ascend.write_calibration(..., batch={files.samples})")
    paths = [f"{data}/{files.of(name)[0].path}" for name in names]
    lines = ["enable_first_layer_quantization: true"] if first_layer else []
    lines += ["calibration:", "{", f"    input_data_dir: {','.join(paths)}", f"    input_shape: {files.input_shape()}",
              *([f"    config_file: {config_path}"] if config_path else []), f"    infer_soc: {chip}",
              *([f"    infer_aicore_num: {cores}"] if cores else []), f"    infer_device_id: {device}",
              f"    log: {log}", "}"]
    notes = [f"The atc call needs {about['needs']}.",
             f"It has to say --input_shape=\"{files.input_shape()}\": the .om is built for this batch of "
             f"{files.inputs[0].shape[0] if files.inputs[0].shape else 1}.",
             "Do not combine it with fp32 or origin precision."]
    if about["families"].get(family) is None:
        notes.append(f"The documents say nothing about {chip}.")
    if first_layer:
        notes.append("Give atc --enable_small_channel=1 too.")
    return CompressionConf("\n".join(lines) + "\n", files.input_shape(), tuple(notes))
