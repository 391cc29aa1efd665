"""The file that bundles carry: one, of Python 3.8, without the kit, and the same code as here."""

import ast

from box_scripts import foreign, names_of, taken_twice, too_new

from kit.ascend.box import box_script

TEXT = box_script.script_text()


def test_it_is_python_3_8_and_imports_nothing_but_numpy_and_what_cann_brings():
    assert foreign(TEXT) == {"numpy", "acl", "ais_bench"}
    assert not too_new(TEXT), "these came after Python 3.8"


def test_no_part_takes_a_name_of_another():
    assert not taken_twice(box_script.PARTS)


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
