"""Run All without a browser: what papermill, CI and make-the-notebooks do."""

import shutil
from pathlib import Path

import nbformat
import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

CELLS = (
    "from fake_stages import *\nfrom kit.ui import panel",
    "baking = panel(bake, 'cake.onnx')\nbaking.controls['steps'].value = 2\nbaking",
    "baked = baking.get()\nbaked",
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs cells from top to bottom in a kernel of their own and gives the notebook back."""
    shutil.copy(Path(__file__).parent / "fake_stages.py", tmp_path)
    home = str(Path(__file__).parent.parent.parent)
    monkeypatch.setenv("PYTHONPATH", home)

    def execute(cells):
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = nbclient.NotebookClient(made, timeout=120, kernel_name="python3", store_widget_state=False,
                                         record_timing=False, resources={"metadata": {"path": str(tmp_path)}})
        return client.execute()

    return execute


def test_a_notebook_with_a_panel_runs_from_top_to_bottom_and_keeps_the_plain_result(run):
    made = run(CELLS)
    view, result = made.cells[1].outputs[0], made.cells[2].outputs[0]
    assert view.data["text/plain"] == "Panel for bake: needs a running kernel. In code: panel.get()"
    assert "Baked in 2 steps by minmax" in result.data["text/plain"]
    assert "<table>" in result.data["text/html"]
    assert "widgets" not in made.metadata
    assert len(nbformat.writes(made)) < 10_000


def test_a_failing_stage_stops_run_all_with_its_remedy(run):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Try: choose one with inputs="):
        run([CELLS[0], "panel(refuse, 'two.onnx').get()"])


ENGINE = (
    "import sys\nsys.path.insert(0, {tests!r})\nfrom quantization_models import conv_net, feeds\nimport kit\n"
    "path = conv_net('toy.onnx')\nmeasured = kit.calibrate(path, feeds(3))",
    "ranges = kit.ui.ranges(measured)\nranges",
    "ranges.get()",
    "picker = kit.ui.layers(kit.sensitivity(path, measured))\npicker",
    "picker.get()",
    "options = kit.SearchOptions(runtimes=('onnxruntime',), precisions=('fp32',), threads=(1,), levels=('all',))\n"
    "search = kit.ui.search(path, measured, options=options)\nsearch",
    "found = search.get()\nfound",
)


def test_the_panels_of_the_engine_run_through_and_leave_pictures_and_plain_results(run):
    made = run([cell.format(tests=str(Path(__file__).parent.parent)) if "{tests" in cell else cell for cell in ENGINE])
    outputs = [cell.outputs[0].data for cell in made.cells[1:]]
    assert outputs[1]["text/plain"] == "{}"
    assert outputs[3]["text/plain"] == "()"
    for shown in (outputs[0], outputs[2]):
        assert "needs a running kernel" in shown["text/plain"]
        assert len(shown["image/png"]) < 60_000
    assert outputs[4]["text/plain"] == "Panel for search: needs a running kernel. In code: panel.get()"
    assert "candidates in" in outputs[5]["text/plain"]
    assert "widgets" not in made.metadata
    assert len(nbformat.writes(made)) < 150_000
