"""The file that bundles carry: one, of Python 3.8, without the kit, and the same code as here."""

import ast
import sys
from collections import Counter

from kit.ascend.box import box_script

TEXT = box_script.script_text()
LATER = {"removeprefix", "removesuffix", "file_digest", "is_relative_to", "bit_count", "pairwise", "hardlink_to"}


def names_of(tree):
    """Everything that a module defines at its top."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))


def test_it_is_python_3_8_and_imports_nothing_but_numpy_and_what_cann_brings():
    tree = ast.parse(TEXT, feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "acl", "ais_bench"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & LATER, "these came after Python 3.8"
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "strict"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
                and isinstance(node.left, ast.Dict)], "dict | dict came with Python 3.9"


def test_no_part_takes_a_name_of_another():
    taken = Counter(name for part in box_script.PARTS for name in set(names_of(ast.parse(box_script._source(part)))))
    assert not [name for name, count in taken.items() if count > 1]


def test_everything_that_the_parts_define_and_import_is_in_it():
    whole = ast.parse(TEXT)
    defined = set(names_of(whole))
    imported = {ast.unparse(node) for node in whole.body if isinstance(node, ast.Import | ast.ImportFrom)}
    for part in box_script.PARTS:
        tree = ast.parse(box_script._source(part))
        assert set(names_of(tree)) <= defined
        ours = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
                and "kit." not in ast.unparse(node)}
        assert ours - imported <= {"import numpy as np"}, "numpy is guarded, so that its absence can be told"


def test_it_starts_with_what_to_type_and_ends_with_the_start():
    assert TEXT.startswith("#!/usr/bin/env python3\n")
    assert "python3 run_on_box.py" in TEXT[:200]
    assert TEXT.rstrip().endswith("sys.exit(main())")
    assert box_script.script_text() == TEXT
