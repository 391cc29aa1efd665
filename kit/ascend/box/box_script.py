"""The one file that a bundle carries to the box: ``run_on_box.py`` with its parts, put together without the kit.

The parts are ordinary modules here, each with its own tests and users; on the box they must be one file that needs
Python 3.8, the standard library and numpy. So their texts are joined, their imports gathered at the top.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

NAME = "run_on_box.py"
MAIN = "kit.ascend.box.run_on_box"
# Each needs only those before it.
PARTS = ("kit.runtimes.om_session", "kit.runtimes.ais_session", "kit.ascend.logs.log_reading",
         "kit.ascend.box.box_tools", "kit.ascend.box.box_steps", MAIN)
NUMPY = '''try:
    import numpy as np
except ImportError:  # the check says so
    np = None'''


def script_text(parts: Sequence[str] = PARTS) -> str:
    """The text of a script as it lies in a bundle, ``run_on_box.py`` by default.

    Args:
        parts: modules, each needing only those before it; the last one is what is started.
    """
    texts = {part: _source(part) for part in parts}
    imports, bodies = set(), []
    for part, text in texts.items():
        tree = ast.parse(text)
        imports |= {ast.unparse(node) for node in tree.body if _is_import(node) and not _is_ours(node)}
        heading = f"# ---- {part.rpartition('.')[2]} "
        bodies.append(heading.ljust(118, "-") + "\n\n" + _body(text, tree))
    main = ast.parse(texts[parts[-1]])
    future = "from __future__ import annotations"
    plain = "\n".join(sorted(imports - {future, "import numpy as np"},
                             key=lambda line: (not line.startswith("import"), line)))
    return "\n\n".join([f'#!/usr/bin/env python3\n"""{ast.get_docstring(main, clean=False)}"""',
                        f"# Put together by the migration notebook kit; zip() has no strict= in Python 3.8.\n{future}",
                        f"{plain}\n\n{NUMPY}\n", *(f"{body.strip()}\n" for body in bodies)])


def _source(part: str) -> str:
    """Found, not imported: nothing is run to put texts together."""
    spec = importlib.util.find_spec(part)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_ours(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "kit"


def _body(text: str, tree: ast.Module) -> str:
    """What is left of a module without its docstring, its imports and the comments above them."""
    lines = text.splitlines(keepends=True)
    docstring = int(isinstance(tree.body[0], ast.Expr))
    kept = next(node for node in tree.body[docstring:] if not _is_import(node))
    # Comments right above the first statement belong to it.
    start = max(node.end_lineno or 0 for node in tree.body[:tree.body.index(kept)])
    return "".join(lines[start:])
