"""Make the executed notebooks from their reviewed source.

    python notebooks/build.py              every notebook: run, clean, write notebooks/NAME.ipynb and its exercise edition
    python notebooks/build.py ocr          that one
    python notebooks/build.py --demo ocr   run it, print its progress and its summary; the result goes to runs/demo
    python notebooks/build.py ocr --set threads=1 --set model=ppocrv4   other parameters

The source is ``notebooks/source/NAME.py`` (jupytext percent). What is kept: outputs with a static form. What is not:
widget state, timestamps, absolute paths.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import os
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCE = HERE / "source"
WIDGET = "application/vnd.jupyter.widget-view+json"
TURN = "# Your turn"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks; all when none is given")
    parser.add_argument("--demo", metavar="NAME", help="run one and print its summary")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a parameter")
    parser.add_argument("--out", type=Path, help="folder to write to instead of notebooks/")
    chosen = parser.parse_args(arguments)
    parameters = dict(_parameter(text) for text in chosen.set)
    every = sorted(path.stem for path in SOURCE.glob("*.py"))
    names = [chosen.demo] if chosen.demo else chosen.names or every
    for name in names:
        if name not in every:
            parser.error(f"there is no notebook named {name!r}; choose from {', '.join(every)}")
    for name in names:
        folder = chosen.out or (ROOT / "runs" / "demo" if chosen.demo else HERE)
        make(name, folder, parameters, exercises=not chosen.demo and not chosen.out, summary=bool(chosen.demo))
    return 0


def make(name: str, folder: Path, parameters: dict | None = None, *, exercises: bool = False,
         summary: bool = False) -> Path:
    """Run one notebook and write it; the path of the file.

    Args:
        name: of the source file, without ``.py``.
        folder: where to write.
        parameters: values for names of the cell tagged ``parameters``.
        exercises: write the edition without solutions beside it, in ``exercises/``.
        summary: print what the cells tagged ``summary`` show.
    """
    import jupytext
    import nbformat

    source = jupytext.read(SOURCE / f"{name}.py")
    notebook = edition(source, solved=True)
    inject(notebook, parameters or {})
    began = time.monotonic()
    print(f"{name}: {sum(c.cell_type == 'code' for c in notebook.cells)} code cells", flush=True)
    path = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        execute(notebook)
    finally:
        # Also after an error: the notebook as far as it came is what shows where.
        failed = any(o.get("output_type") == "error" for c in notebook.cells for o in c.get("outputs", ()))
        clean(notebook)
        nbformat.write(notebook, path.with_suffix(".failed.ipynb") if failed else path)
    print(f"{name}: done in {time.monotonic() - began:.0f} s, written to {_near(path)}", flush=True)
    if exercises:
        bare = edition(source, solved=False)
        clean(bare)
        (folder / "exercises").mkdir(exist_ok=True)
        nbformat.write(bare, folder / "exercises" / f"{name}.ipynb")
    if summary:
        # The notebook lives one folder further down than the person at the terminal.
        print("\n".join(shown(notebook, "summary")).replace("../runs", _near(ROOT / "runs")))
    return path


def edition(source, *, solved: bool):
    """A new notebook with the cells of ``source``; a cell tagged ``solution`` keeps only what stands above its TURN line."""
    made = copy.deepcopy(source)
    made.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                     "language_info": {"name": "python"}}
    for number, cell in enumerate(made.cells):
        if "solution" in cell.metadata.get("tags", ()) and not solved:
            cell.source = f"{cell.source.partition(TURN)[0].rstrip()}\n{TURN}\n...".lstrip()
        if not solved:  # this edition lies one folder further down
            old, new = ("../", "../../") if cell.cell_type == "code" else ("](images/", "](../images/")
            cell.source = cell.source.replace(old, new)
        # Ids that do not change from build to build keep the diff of a notebook to what did.
        cell.id = hashlib.blake2b(f"{number}{cell.source}".encode(), digest_size=4).hexdigest()
    return made


def inject(notebook, parameters: dict) -> None:
    """Set values in the cell tagged ``parameters``; an unknown name ends the program with the known ones."""
    cell = next((c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())), None)
    for name, value in parameters.items():
        pattern = re.compile(rf"^{re.escape(name)} = .*?(?=\s+#|$)", re.MULTILINE)
        if cell is None or not pattern.search(cell.source):
            known = re.findall(r"^(\w+) = ", cell.source if cell else "", re.MULTILINE)
            raise SystemExit(f"There is no parameter {name!r}. Choose from: {', '.join(known)}")
        cell.source = pattern.sub(f"{name} = {value!r}", cell.source)


def execute(notebook) -> None:
    """Run every cell in order, in ``notebooks/``, printing each section's heading as it begins."""
    from nbclient import NotebookClient

    total = len(notebook.cells)

    def announce(cell, cell_index):
        heading = re.match(r"#+ (.*)", cell.source)
        if cell.cell_type == "markdown" and heading:
            print(f"  [{cell_index + 1:>3}/{total}] {heading[1]}", flush=True)

    client = NotebookClient(notebook, timeout=1800, store_widget_state=False, record_timing=False,
                            extra_arguments=["--log-level=ERROR"],
                            resources={"metadata": {"path": str(HERE)}}, on_cell_start=announce)
    client.execute()


def clean(notebook) -> None:
    """Drop what a stored notebook must not hold."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata = {"tags": list(cell.metadata["tags"])} if cell.metadata.get("tags") else {}
        for output in cell.get("outputs", ()):
            if WIDGET in output.get("data", {}):
                # A view without its model shows an error after reopening; the sentence beside it says what it was.
                del output.data[WIDGET]
            output.get("metadata", {}).pop(WIDGET, None)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("output_type") != "stream" or o.get("name") != "stderr"]
            for output in cell.outputs:
                _without_paths(output)


def shown(notebook, tag: str) -> list[str]:
    """The plain text that cells with ``tag`` show."""
    texts = []
    for cell in notebook.cells:
        if tag in cell.metadata.get("tags", ()):
            for output in cell.get("outputs", ()):
                texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return [text.rstrip() for text in texts if text]


def _near(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(ROOT) else str(path)


def _without_paths(output) -> None:
    places = {str(ROOT): "..", str(Path.home()): "~"}
    for place, short in places.items():
        if "text" in output:
            output.text = output.text.replace(place, short)
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and kind.startswith("text/"):
                output.data[kind] = value.replace(place, short)


def _parameter(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"--set takes NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
