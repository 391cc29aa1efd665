"""The same notebook with other parameters: papermill sets them, the panel starts at them, ``get()`` gives it."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

papermill = pytest.importorskip("papermill")
pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")

HERE = Path(__file__).parent
CELLS = (
    "method = 'minmax'\nsteps = 3",
    "from fake_stages import *\nfrom kit.ui import panel",
    "baking = panel(bake, 'cake.onnx', options=BakeOptions(method=method, steps=steps))\nbaking",
    "baked = baking.get()\nbaked",
    "assert (baked.method, baked.steps) == (method, steps), baked",
)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs the cells by papermill with parameters, in a kernel of its own, and gives the notebook back."""
    shutil.copy(HERE / "fake_stages.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE.parent.parent), *sys.path])))
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    made.cells[0].metadata["tags"] = ["parameters"]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, tmp_path / "in.ipynb")

    def run(**parameters):
        return papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", parameters=parameters,
                                          cwd=tmp_path, kernel_name="python3", progress_bar=False)

    return run


def test_a_parameter_of_papermill_reaches_the_panel_and_its_result(execute, tmp_path):
    made = execute(method="entropy", steps=2)
    view, result = (cell.outputs[0].data for cell in made.cells[-3:-1])
    assert view["text/plain"] == "Panel for bake: needs a running kernel. In code: panel.get()"
    assert "Baked in 2 steps by entropy" in result["text/plain"]
    assert "BakeOptions" not in result["text/plain"]
    stored = next((tmp_path / "runs" / "cake").glob("bake-*/result.json")).read_text(encoding="utf-8")
    assert '"entropy"' in stored


def test_a_parameter_that_the_options_refuse_stops_the_notebook(execute):
    with pytest.raises(papermill.PapermillExecutionError, match="steps"):
        execute(steps=500)
