"""The contract of every walkthrough, and a run of each with small parameters."""

import importlib.util
import itertools
import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
SOURCES = sorted((NOTEBOOKS / "source").glob("*.py"))
STORED = sorted(NOTEBOOKS.glob("*.ipynb")) + sorted((NOTEBOOKS / "exercises").glob("*.ipynb"))
SMALL = {"detection_tensorflow": {"calibration_pictures": 4, "test_pictures": 12, "judge_pictures": 4,
                                 "search_seconds": 10, "rounds": 5},
         "detection_paddle": {"calibration_pictures": 4, "test_pictures": 12, "judge_pictures": 4, "search_seconds": 10,
                              "rounds": 5, "savedmodel": False},
         "stable_diffusion": {"steps": 4, "calibration_prompts": 2, "calibration_inputs": 12, "test_prompts": 4,
                              "rounds": 5, "goldens": 1},
         "ascend": {"goldens": 2, "calibration_pages": 2, "test_lines": 4},
         "ocr": {"calibration_pages": 3, "calibration_lines": 24, "test_pages": 4, "test_lines": 60, "hard_lines": 16,
                 "rounds": 5},
         "quantization": {"calibration_lines": 12, "test_lines": 24, "search_seconds": 10, "rounds": 5}}
SECTIONS = ("You will", "You need", "Predict", "What just happened", "Going deeper", "Your turn", "If it fails",
            "Recap", "Next")

spec = importlib.util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def cells(path, kind):
    return [cell for cell in jupytext.read(path).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_a_walkthrough_has_its_sections_in_order_and_one_title(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert text.startswith("# ")
    at = [text.find(section) for section in SECTIONS]
    assert -1 not in at, f"missing: {[s for s, i in zip(SECTIONS, at, strict=True) if i < 0]}"
    ends = at[-4:]
    assert ends == sorted(ends)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_headings_go_down_one_level_at_a_time(path):
    levels = [len(h) for cell in cells(path, "markdown") for h in re.findall(r"^(#+) ", cell.source, re.MULTILINE)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_cells_are_short_and_pictures_have_alt_text(path):
    for cell in cells(path, "code"):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 18, cell.source
    for cell in cells(path, "markdown"):
        for alt, target in re.findall(r"!\[(.*?)\]\((.*?)\)", cell.source):
            assert len(alt) > 20
            assert (NOTEBOOKS / target).is_file(), target


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_there_is_one_parameters_cell_and_each_line_says_what_it_is(path):
    tagged = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+ = .+?  # .+", line), line


def test_every_source_has_a_stored_notebook_and_its_exercises():
    for source in SOURCES:
        assert (NOTEBOOKS / f"{source.stem}.ipynb").is_file()
        assert (NOTEBOOKS / "exercises" / f"{source.stem}.ipynb").is_file()


@pytest.mark.parametrize("path", STORED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_stored_notebook_is_what_a_reader_can_use(path):
    notebook = nbformat.read(path, as_version=4)
    assert nbformat.validator.isvalid(notebook)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in notebook.metadata
    assert build.WIDGET not in text
    for bad in ("/root/", "/home/", "/work/", "/tmp/", "Traceback (most recent call last)", "FigureWidget"):
        assert bad not in text, bad
    prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", prose):
        assert (path.parent / picture).is_file(), picture
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        for output in cell.get("outputs", ()):
            assert output["output_type"] != "error"
            data = output.get("data", {})
            if "application/vnd.plotly.v1+json" in data:
                assert {"image/png", "text/plain"} <= set(data), "an interactive chart needs its static picture"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_the_stored_notebook_was_made_from_the_source_of_today(path):
    stored = nbformat.read(NOTEBOOKS / f"{path.stem}.ipynb", as_version=4)
    made = build.edition(jupytext.read(path), solved=True)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in made.cells], "run: make notebooks"
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "every cell ran once, in order"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_the_exercise_edition_has_no_solutions(path):
    bare = build.edition(jupytext.read(path), solved=False)
    tagged = [cell for cell in bare.cells if "solution" in cell.metadata.get("tags", ())]
    assert tagged
    assert all(cell.source.rstrip().endswith("...") for cell in tagged)
    whole = [cell.source for cell in build.edition(jupytext.read(path), solved=True).cells]
    assert len(whole) == len(bare.cells)


def test_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match=r"no parameter 'sampels'.*threads"):
        build.inject(build.edition(jupytext.read(NOTEBOOKS / "source" / "ocr.py"), solved=True), {"sampels": 1})


def test_cleaning_removes_widget_views_paths_and_timings():
    notebook = nbformat.v4.new_notebook(metadata={"widgets": {}})
    cell = nbformat.v4.new_code_cell("panel", metadata={"execution": {"iopub": "1"}, "tags": ["x"]})
    cell.outputs = [nbformat.v4.new_output("display_data", {build.WIDGET: {"model_id": "1"}, "text/plain": "Panel"}),
                    nbformat.v4.new_output("stream", name="stdout", text=f"{ROOT}/runs"),
                    nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    notebook.cells = [cell]
    build.clean(notebook)
    assert json.dumps(notebook).count("model_id") == 0
    assert [o["output_type"] for o in cell.outputs] == ["display_data", "stream"]
    assert cell.outputs[1]["text"] == "../runs"
    assert cell.metadata == {"tags": ["x"]}


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_the_walkthrough_runs_with_small_parameters(path, tmp_path, capsys):
    made = build.make(path.stem, tmp_path, {**SMALL[path.stem], "runs": str(tmp_path / "runs")}, summary=True)
    assert nbformat.read(made, as_version=4).cells[-1].cell_type == "markdown"
    assert "report.html" in capsys.readouterr().out


@pytest.mark.timeout(1500)
def test_the_ocr_walkthrough_runs_on_the_real_pp_ocrv4(tmp_path):
    if importlib.util.find_spec("rapidocr_onnxruntime") is None:
        pytest.skip("rapidocr-onnxruntime, which carries the PP-OCRv4 models, is not installed")
    small = {"calibration_pages": 2, "calibration_lines": 8, "test_pages": 2, "test_lines": 20, "hard_lines": 8,
             "rounds": 5, "detector_float": 4}
    build.make("ocr", tmp_path, {**small, "model": "ppocrv4", "runs": str(tmp_path / "runs")})


