"""A model that a function makes: ``module:factory``, found, imported and called in the worker of its framework."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from kit.errors import BadInput, unknown
from kit.exporting.specs import LayerSource

_ROOTS = {"paddle": "paddle", "tensorflow": "tensorflow", "keras": "tensorflow", "tf_keras": "tensorflow",
          "torch": "torch", "diffusers": "torch", "transformers": "torch"}
_WORDS = {"paddle": "Paddle", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def framework_of(source: LayerSource) -> str:
    """What the factory's module imports, without running it; ``paddle`` where nothing tells.

    Raises:
        BadInput: it imports several frameworks.
    """
    path = _file(source.module)
    try:
        tree = ast.parse(path.read_bytes()) if path else ast.parse("")
    except (OSError, SyntaxError, ValueError):
        return "paddle"  # the worker that runs it says what is wrong with it
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    found = {_ROOTS[name.partition(".")[0]] for name in names if name.partition(".")[0] in _ROOTS}
    if len(found) > 1:
        both = sorted(found)
        raise BadInput(f"{source.short} imports {' and '.join(_WORDS[name] for name in both)}, so nothing says which "
                       "of them its model is of.", remedy=f"give ExportOptions(framework={both[0]!r}) or "
                       f"framework={both[1]!r}")
    return found.pop() if found else "paddle"


def made(source: LayerSource) -> Any:
    """Import the module in this process and call the factory.

    Raises:
        BadInput: the module cannot be imported, the factory is not there, or raises.
    """
    module = _module(source.module)
    factory = getattr(module, source.factory, None)
    if factory is None:
        names = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")
                 and getattr(thing, "__module__", "") == module.__name__]
        raise unknown("factory", source.factory, names, source.module)
    if not callable(factory):
        raise BadInput(f"{source} is a {type(factory).__name__}, not a function.", remedy="name a function without "
                       "arguments that returns the layer")
    try:
        return factory()
    except Exception as error:
        raise BadInput(f"{source} raised {type(error).__name__}: {_first(error)}", remedy="call it in a cell of "
                       "its own until it works; the details show where it failed", detail=tail(error)) from error


def tail(error: BaseException) -> str:
    """The last of an exception's traceback, for an error's details."""
    return "".join(traceback.format_exception(error))[-4000:]


def _file(module: str) -> Path | None:
    """The file of a module that has not been imported; None where it cannot be told."""
    if module.endswith(".py"):
        return Path(module)
    relative = Path(*module.split("."))
    for folder in ("", *sys.path):
        for path in (Path(folder) / relative.with_suffix(".py"), Path(folder) / relative / "__init__.py"):
            if path.is_file():
                return path
    return None


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(name)
        except Exception as error:
            raise BadInput(f"Module {name} could not be imported: {type(error).__name__}: {_first(error)}",
                           remedy="the module must lie in the current folder or be installed; or give its file: "
                           "folder/file.py:factory", detail=tail(error)) from error
    path = Path(name).resolve()
    if not path.is_file():
        raise BadInput(f"{name} does not exist.", remedy="give the path of the .py file with the factory")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # classes find their module by name while the program is traced
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{name} could not be imported: {type(error).__name__}: {_first(error)}",
                       remedy="run the file by itself until it works; the details show where it failed",
                       detail=tail(error)) from error
    return module


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
