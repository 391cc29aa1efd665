"""What holds for the package as a whole."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kit

HOME = Path(kit.__file__).parent
HEAVY = ("onnx", "onnxruntime", "paddle", "tensorflow", "torch", "openvino", "plotly", "matplotlib", "ipywidgets",
         "cv2", "numba", "pandas")
GROUND = {"card", "comparison", "environments", "errors", "model", "need", "options", "progress", "record", "runner",
          "runtimes", "samples", "source", "weights_file", "worker"}


def test_importing_the_kit_loads_nothing_but_the_standard_library():
    code = ("import sys; before = set(sys.modules); import kit;"
            "print({name.partition('.')[0] for name in set(sys.modules) - before})")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert loaded <= {"kit", "__future__", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", kit.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(kit, name)
    assert (thing.__doc__ or "").strip()


def test_a_typo_answers_with_what_exists():
    with pytest.raises(AttributeError, match="quantize"):
        kit.quantise  # noqa: B018


def test_every_module_can_be_imported_without_loading_a_framework():
    names = [m.name for m in pkgutil.walk_packages([str(HOME)], "kit.")]
    code = (f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
            f"print([m for m in {HEAVY!r} if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def imports_of(path):
    """The rooms of the kit that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kit"):
            if node.module == "kit":
                yield from (alias.name for alias in node.names)
            else:
                yield node.module.split(".")[1]


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda p: p.relative_to(HOME).as_posix())
def test_floors_are_kept(path):
    room = path.relative_to(HOME).parts[0].removesuffix(".py")
    above = set(imports_of(path)) - GROUND - {room}
    if room in GROUND:
        assert not above, f"{room} stands on the ground floor and imports {above}"
    if room != "ui":
        assert "ui" not in above, "nothing imports the panels"


def test_the_floors_of_the_documentation_are_those_that_are_checked():
    text = (HOME.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in text.splitlines() if row.startswith("| ")}
    assert set(re.findall(r"`(\w+)/?`", rows["ground"])) == GROUND
    named = set(re.findall(r"`(\w+)/", " ".join(rows.values())))
    assert named == {path.parent.name for path in HOME.glob("*/__init__.py")}


def test_modules_are_not_named_like_their_functions():
    for name, home in kit._HOME.items():
        assert name != home.rpartition(".")[2], f"importing kit.{home} would replace the function kit.{name}"
        importlib.import_module(f"kit.{home}")
