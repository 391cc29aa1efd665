"""The migration notebook kit: move a trained model to another runtime, and see every step.

One plain function per stage; the table below is the whole kit. Modules are loaded when they are first asked for, so
``import kit`` is quick and imports no framework.
"""

from __future__ import annotations

import importlib

__version__ = "0.5.0"

_HOME = {  # public name -> the module that defines it
    "export": "exporting", "ExportOptions": "exporting", "Exported": "exporting",
    "audit": "operators", "AuditOptions": "operators", "Audit": "operators",
    "fix": "graph", "FixOptions": "graph", "Fixed": "graph",
    "calibrate": "calibration", "CalibrateOptions": "calibration", "Calibration": "calibration",
    "merge_calibrations": "calibration", "forecast": "forecasting", "Forecast": "forecasting",
    "equalize": "equalization", "EqualizeOptions": "equalization", "Equalized": "equalization",
    "quantize": "quantization", "QuantizeOptions": "quantization", "Quantized": "quantization",
    "read_quantized": "quantized_file",
    "sensitivity": "layers", "SensitivityOptions": "layers", "suggest_float": "layers", "layer_errors": "layers",
    "why_not_faster": "int8.integer_kernels",
    "search": "searching", "SearchOptions": "searching", "Found": "searching",
    "compile": "compilation", "CompileOptions": "compilation", "Compiled": "compilation",
    "BundleOptions": "ascend.bundling.bundle", "SavedModelOptions": "compiling.saved",
    "verify": "verification", "VerifyOptions": "verification", "Verdict": "verification",
    "benchmark": "benchmarking", "BenchmarkOptions": "benchmarking", "Benchmark": "benchmarking",
    "report": "reporting", "ReportOptions": "reporting", "Report": "reporting",
    "explain": "ascend.logs.explaining",
    "describe": "description", "Description": "description", "DescribeOptions": "description",
    "roofline": "rooflines", "RooflineOptions": "rooflines", "Roofline": "rooflines",
    "check_environment": "preflight",
    "open_runner": "runner", "Runner": "runner", "CannProvider": "runtimes.cann_provider",
    "Model": "model", "TensorSpec": "model",
    "Preprocess": "samples", "Sample": "samples", "Samples": "samples",
    "KitError": "errors", "BadInput": "errors", "MissingTool": "errors", "UnsupportedModel": "errors",
    "StaleResult": "errors", "ToolFailed": "errors", "WorkerDied": "errors",
    "Cancelled": "progress", "Tick": "progress",
}  # fmt: skip
_ROOMS = ("ascend", "charts", "environments", "families", "record", "serving", "targets", "teach", "ui", "worker")

__all__ = [*_HOME, *_ROOMS]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"kit.{_HOME[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"kit.{name}")
    raise AttributeError(f"kit has no {name!r}. It has: {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
