"""What is asked of every script that travels to the box: Python 3.8, and nothing that is not there."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from kit.ascend.box import box_script

LATER = {"removeprefix", "removesuffix", "file_digest", "is_relative_to", "bit_count", "pairwise", "hardlink_to"}


def names_of(tree: ast.Module) -> Iterator[str]:
    """Everything that a module defines at its top."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))


def foreign(text: str) -> set[str]:
    """What is imported and no part of the standard library."""
    tree = ast.parse(text, feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def too_new(text: str) -> list[str]:
    """What came after Python 3.8."""
    nodes = list(ast.walk(ast.parse(text, feature_version=(3, 8))))
    return [*(node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr in LATER),
            *("strict=" for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"),
            *("dict | dict" for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
              and isinstance(node.left, ast.Dict))]


def taken_twice(parts: Sequence[str]) -> list[str]:
    """Names that more than one of the modules defines."""
    taken = Counter(name for part in parts for name in set(names_of(ast.parse(box_script._source(part)))))
    return [name for name, count in taken.items() if count > 1]
