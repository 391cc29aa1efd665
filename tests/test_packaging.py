"""pyproject.toml, constraints.txt and environment.yml install the same package with the same pins."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {}
for line in (ROOT / "constraints.txt").read_text().splitlines():
    if line and not line.startswith("#"):
        name, _, version = line.partition("==")
        PINS[canonicalize_name(name)] = version


def wanted():
    for text in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            yield requirement


def test_every_line_of_the_constraints_is_an_exact_pin_without_an_address():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line), line


@pytest.mark.parametrize("requirement", list(wanted()), ids=str)
def test_every_requirement_has_a_pin_that_it_allows(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(Version(pin))


def test_the_extras_are_there_and_all_holds_them():
    assert {"paddle", "tensorflow", "torch", "openvino", "ui", "all", "dev"} <= set(EXTRAS)
    inside = set(Requirement(EXTRAS["all"][0]).extras)
    assert inside == set(EXTRAS) - {"all", "dev"}


def test_conda_installs_the_same_package_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    assert python.partition("=")[2] in ("3.11", "3.12")
    lines = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "-c constraints.txt" in lines
    asked = next(Requirement(line.removeprefix("-e ").replace(".[", "kit[")) for line in lines if line.startswith("-e"))
    assert asked.extras <= set(EXTRAS)
    makefile = (ROOT / "Makefile").read_text()
    extras = re.search(r'-e "\.\[([\w,]+)\]"', makefile)[1]
    assert set(extras.split(",")) == asked.extras, "make demo and conda install the same"


def test_the_makefile_uses_the_pins():
    makefile = (ROOT / "Makefile").read_text()
    assert "-c constraints.txt" in makefile
    assert canonicalize_name("rapidocr-onnxruntime") in PINS


def test_no_file_names_an_absolute_home_or_an_address_of_a_registry():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    bad = re.compile(r"/root/|/work/|/home/\w|index-url|pypi\.(org|tuna)|mirrors?\.\w+\.\w+")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", ".ipynb", ".json", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            if not name.startswith("tests/") and path.stat().st_size < 3_000_000:  # tests hold such paths as bait
                found += [f"{name}: {hit[0]}" for hit in bad.finditer(text)]
    assert found == []


def test_the_installed_version_is_the_package_s():
    import kit

    done = subprocess.run([sys.executable, "-m", "pip", "show", PROJECT["name"]], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the package is not installed here, only importable")
    assert f"Version: {kit.__version__}" in done.stdout
