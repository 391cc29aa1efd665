"""Optional imports that explain themselves."""

from __future__ import annotations

import importlib
from types import ModuleType

from kit.errors import MissingTool


def need(module: str, *, to: str, extra: str) -> ModuleType:
    """Import ``module``, or say what it was for and how to get it.

    Args:
        module: dotted name, such as ``"onnxruntime"``.
        to: what it is needed for, completing "To ..., the kit needs".
        extra: the extra of this project that installs it.

    Raises:
        MissingTool: it is absent, or present and failing to load (the two are told apart).
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        absent = getattr(error, "name", None) == top
        state = "which is not installed" if absent else "which is installed but failed to load"
        raise MissingTool(
            f"To {to}, the kit needs {top}, {state}.",
            remedy=f'pip install -c constraints.txt -e ".[{extra}]" in the project folder, then restart the kernel'
            if absent
            else "see the details: a system library is often missing; reinstalling the package helps when it is broken",
            detail=str(error),
        ) from error
