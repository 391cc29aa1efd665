"""What one does with an Ascend box in mind, most of it without one: the ``atc`` command, its logs, what goes with it.

Facts about chips, flags and errors lie in ``kit/targets/ascend/`` as data; here they become commands and answers.
Modules are loaded when one of their names is first asked for.
"""

from __future__ import annotations

import importlib

_HOME = {  # public name -> the module that defines it
    "AtcOptions": "atc_options", "Profiles": "atc_options", "AtcCommand": "command", "atc_command": "command",
    "history": "articles", "History": "articles", "translate": "translating", "Translated": "translating",
    "explain": "explaining", "Explained": "explaining",
    "load_results": "results", "BoxResults": "results", "rehearse": "rehearsal",
    "BundleOptions": "bundle", "Bundled": "bundle", "goldens": "golden_samples", "Goldens": "golden_samples",
    "aipp": "aipp_config", "Aipp": "aipp_config", "AippOptions": "aipp_config", "AippDifference": "aipp_config",
    "read_aipp": "aipp_reading", "AippReading": "aipp_reading",
    "write_calibration": "calibration_files", "read_calibration": "calibration_files",
    "CalibrationFiles": "calibration_files", "name_nodes": "amct_layers",
    "AmctOptions": "int8_routes", "AmctConfig": "int8_routes", "Int8Steps": "int8_routes",
    "amct_config": "int8_routes", "amct_steps": "int8_routes", "qat_steps": "int8_routes",
    "qat_check": "qat_route", "QatCheck": "qat_route", "qat_model": "qat_route", "QatModel": "qat_route",
    "compression_conf": "own_calibration", "CompressionConf": "own_calibration",
    "float_candidates": "mixed_precision", "FloatCandidates": "mixed_precision", "PrecisionFile": "mixed_precision",
    "keep_dtype": "mixed_precision", "mixlist": "mixed_precision", "op_precision_mode": "mixed_precision",
    "mindspore_lite": "neighbours", "MindSporeLiteOptions": "neighbours", "paddle_npu": "neighbours",
    "PaddleNpuOptions": "neighbours", "kunlunxin": "neighbours", "KunlunxinOptions": "neighbours",
    "Neighbour": "neighbours",
}  # fmt: skip

__all__ = [*_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"kit.ascend.{_HOME[name]}"), name)
    raise AttributeError(f"kit.ascend has no {name!r}. It has: {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
