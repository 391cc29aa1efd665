"""What the documents say is true: links lead somewhere, commands exist, the code in the README runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md"))
             if not {"runs", ".venv", "node_modules"} & set(path.relative_to(ROOT).parts)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere_and_pictures_have_alt_text(path):
    text = path.read_text(encoding="utf-8")
    for mark, words, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", text):
        assert not mark or len(words) > 20, f"{target} needs alt text"
        if not target.startswith(("http", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        said = set(re.findall(r"`make (\w+)`|^make (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert {one or other for one, other in said} <= targets, path.name


def test_files_and_folders_named_in_the_guides_exist():
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        for path in re.findall(r"`((?:kit|tests|notebooks|data|benchmarks)/[\w/.]+)`", (ROOT / name).read_text()):
            if "NAME" not in path:
                assert (ROOT / path).exists(), f"{name} names {path}"


def test_the_code_of_the_readme_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "KIT_RUNS": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hmean" in done.stdout
