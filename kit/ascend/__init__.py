"""What one does with an Ascend box in mind, most of it without one: the ``atc`` command, its logs, what goes with it.

Facts about chips, flags and errors lie in ``kit/targets/ascend/`` as data; here they become commands and answers.
Modules are loaded when one of their names is first asked for.
"""

from __future__ import annotations

import importlib

_NAMES = {  # module -> the public names that it defines
    "atc.atc_options": ("AtcOptions", "Profiles"),
    "atc.command": ("AtcCommand", "atc_command"),
    "atc.articles": ("history", "History"),
    "atc.translating": ("translate", "Translated"),
    "logs.explaining": ("explain", "Explained"),
    "box.results": ("load_results", "BoxResults"),
    "box.rehearsal": ("rehearse",),
    "bundling.bundle": ("BundleOptions", "Bundled"),
    "bundling.golden_samples": ("goldens", "Goldens"),
    "preprocessing.aipp_config": ("aipp", "Aipp", "AippOptions", "AippDifference"),
    "preprocessing.aipp_reading": ("read_aipp", "AippReading"),
    "precision.calibration_files": ("write_calibration", "read_calibration", "CalibrationFiles"),
    "precision.amct_layers": ("name_nodes",),
    "precision.int8_routes": ("AmctOptions", "AmctConfig", "Int8Steps", "amct_config", "amct_steps", "qat_steps"),
    "precision.qat_route": ("qat_check", "QatCheck", "qat_model", "QatModel"),
    "precision.own_calibration": ("compression_conf", "CompressionConf"),
    "precision.mixed_precision": (
        "float_candidates", "FloatCandidates", "PrecisionFile", "keep_dtype", "mixlist", "op_precision_mode"),
    "neighbours": (
        "mindspore_lite", "MindSporeLiteOptions", "paddle_npu", "PaddleNpuOptions", "kunlunxin", "KunlunxinOptions",
        "Neighbour"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"kit.ascend.{_HOME[name]}"), name)
    raise AttributeError(f"kit.ascend has no {name!r}. It has: {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
