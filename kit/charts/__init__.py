"""Charts made from results: interactive where a plotly renderer is at hand, a picture with alt text everywhere else.

One module per stage holds functions ``name(result, ...) -> Chart``; they are all reachable as ``kit.charts.name``.
"""

from __future__ import annotations

import importlib
import importlib.util

_MODULES = ("chart", "picture", "exporting", "layouts", "operators", "graph", "calibration", "quantization",
            "searching", "verification", "benchmarking", "rooflines", "ascend", "ocr", "detection", "diffusion",
            "diffusion_ranges")


def __getattr__(name: str):
    if name.startswith("_"):
        raise AttributeError(name)
    for module in _present():
        found = vars(importlib.import_module(f"{__name__}.{module}")).get(name)
        # Only what the module defines itself: a helper it imported is no chart.
        if getattr(found, "__module__", None) == f"{__name__}.{module}":
            return found
    raise AttributeError(f"kit.charts has no {name!r}. It has: {', '.join(__dir__())}")


def __dir__() -> list[str]:
    names = {"Chart"}
    for module in _present():
        home = importlib.import_module(f"{__name__}.{module}")
        names |= {name for name, found in vars(home).items() if not name.startswith("_") and callable(found)
                  and getattr(found, "__module__", None) == home.__name__}
    return sorted(names)


def _present() -> list[str]:
    return [module for module in _MODULES if importlib.util.find_spec(f"{__name__}.{module}")]
