"""The report: one page that stands alone, tells nothing private, and cannot be broken by a model's names."""

import getpass
import re
import socket
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import kit
from kit import ReportOptions, record, report
from kit.benchmarking import Benchmark, BenchmarkOptions, compare
from kit.card import Card, Table
from kit.comparison import TensorParity
from kit.errors import BadInput, StaleResult
from kit.evidence.privacy import private
from kit.model import Model
from kit.record import Provenance
from kit.reporting import summary
from kit.verification import Change, StageRow, Verdict

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
PRIVATE = "/home/ada lovelace/secret project/weights.bin"


@dataclass(frozen=True)
class Exported(Card):
    """Stands for the export stage: only the attributes count."""

    model: Model
    source: str = "/home/ada/models/receipts_det"
    kind: str = "paddle"
    operators_source: dict = field(default_factory=lambda: {"pd_op.conv2d": 2, HOSTILE: 1})
    operators_onnx: dict = field(default_factory=lambda: {"Conv": 2, "Sigmoid": 1})
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self):
        return f"exported {HOSTILE}"

    def facts(self):
        return {"worst node": HOSTILE, "read from": "/home/ada/models/receipts_det/inference.json"}

    def tables(self):
        return (Table(f"rows of {HOSTILE}", ("node", "state"), tuple((f"node_{n}", "partly") for n in range(200))),)


def provenance(stage, folder):
    options = f"{stage.title()}Options(level='all', folder=PosixPath('/home/ada/models'), names=('a', 'b'))"
    return Provenance(stage, "0123456789ab", folder / f"{stage}-0123456789ab", "2026-01-02 03:04:05", 1.25, {}, options,
                      {})


def row(name, status, value, change=None, relative=None, notes=()):
    parity = () if relative is None else (TensorParity(HOSTILE, relative, relative, relative, 1.0, (0, 1), 9),)
    snr = None if relative is None else 40.0
    return StageRow(name, status, "because", "onnxruntime", "float", 1_000_000, parity, snr, {"hmean": value},
                    (value - 0.02, value + 0.02), change, change, 9, (), {}, notes, 1.0)


@pytest.fixture
def results(tiny_onnx, tmp_path):
    home = tmp_path / "runs" / "det"
    verdict = Verdict((row("paddle", "reference", 0.93),
                       row("int8", "lost", 0.80, Change("paddle", 0.13, 0.1, 0.2), 0.3)), "hmean", "higher", (), 40, 40,
                      0.95, 0.01, provenance=provenance("verify", home))
    random = np.random.default_rng(0)
    times = {"paddle": random.lognormal(1, 0.05, (10, 3)), "int8": random.lognormal(0.3, 0.05, (10, 3))}
    about = {"paddle": {"notes": ("runs without oneDNN",), "memory": 10**8}}
    benchmark = Benchmark(compare(times, BenchmarkOptions(), about), 10, 3, 2, 0.95, "x float32[1, 3, 8, 8]", {},
                          ("the machine was busy",), provenance("benchmark", home))
    return [Exported(Model.open(tiny_onnx).derived(tiny_onnx, "export", f"from {PRIVATE}"),
                     provenance=provenance("export", home)), verdict, benchmark]


class Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.text, self.stack = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(results, tmp_path):
    made = report(results, runs=tmp_path / "runs")
    return Page(made.path.read_text(encoding="utf-8")), made


def test_the_page_needs_nothing_from_outside(page):
    parsed, made = page
    assert not parsed.all("script")
    assert not parsed.all("link")
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "poster", "action"):
            target = attributes.get(name) or ""
            assert target.startswith(("data:", "#")) or not target, (tag, target)
    text = made.path.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", text)
    assert made.size == made.path.stat().st_size < 3_000_000


def test_the_page_holds_no_absolute_path_and_no_names_of_people_or_machines(page, tmp_path):
    text = re.sub(r"data:image/png;base64,[^\"]+", "", page[1].path.read_text(encoding="utf-8"))
    for told in ("/home/", "/root/", "/tmp/", "ada ", "ada/", str(tmp_path)):
        assert told not in text, told
    for name in {getpass.getuser(), socket.gethostname()} - {"root", "user", "runner"}:  # words of the page itself
        assert not re.search(rf"\b{re.escape(name)}\b", text), name
    assert "receipts_det" in text  # the last part stays


def test_names_from_strangers_models_are_shown_and_not_obeyed(page):
    parsed, made = page
    assert not parsed.all("script")
    assert all("onerror" not in attributes for attributes in parsed.all("img"))
    assert HOSTILE in "".join(parsed.text)
    assert any(HOSTILE in (attributes.get("aria-label") or "") for attributes in parsed.all("div"))
    assert "&lt;script&gt;" in made.path.read_text(encoding="utf-8")


def test_the_page_can_be_read_by_everybody(page):
    parsed, _ = page
    assert parsed.all("html")[0]["lang"] == "en"
    assert parsed.headings[0] == 1
    assert parsed.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 8
    assert all(attributes.get("scope") in ("col", "row") for attributes in parsed.all("th"))
    pictures = parsed.all("img")
    assert len(pictures) == 5
    assert all(len(attributes["alt"]) > 40 for attributes in pictures)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in parsed.all("a")} <= set(ids)


def test_warnings_come_first(page):
    parsed, made = page
    text = "".join(parsed.text)
    assert [w.partition(":")[0] for w in made.warnings] == ["verify", "benchmark", "benchmark, paddle"]
    assert "'int8' is where the answers are lost first" in made.warnings[0]
    for warning in made.warnings:
        assert text.index(warning) < text.index("At a glance", text.index("3 warnings"))


def test_the_page_has_lineage_operators_accuracy_latency_settings_and_versions(page):
    text = " ".join(" ".join(page[0].text).split())
    for part in ("Lineage: where the model comes from", "weights.bin", "Operators of the source", "pd_op.conv2d",
                 "ONNX operators, stage by stage", "Accuracy, stage by stage", "lost 0.130 [0.100, 0.200]", "Latency",
                 "p95 ms", "Settings of this stage", "level all", "folder models",
                 "names a, b", "onnxruntime", "processor", "0123456789ab",
                 "... and 160 more rows"):
        assert part in text, part


def test_several_models_are_chapters_of_one_page(results, tmp_path):
    models = {"Detector": results, "识别": results, "检测": results, "Recogniser": results[1]}
    made = report(models, ReportOptions(title="Slips", charts=False), runs=tmp_path / "runs")
    parsed = Page(made.path.read_text(encoding="utf-8"))
    assert made.heading == "Slips"
    assert not parsed.all("img")
    assert "Detector: latency" in "".join(parsed.text)
    assert all(after <= before + 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))  # names without a Latin letter have anchors of their own too
    lines = made.summary.splitlines()
    assert lines[1].split()[:3] == ["model", "stage", "accuracy"]
    assert sum(line.strip().startswith("Recogniser") for line in lines) == 2


def test_the_summary_joins_accuracy_size_and_speed_by_name(results):
    text = summary(results)
    line = next(line for line in text.splitlines() if line.strip().startswith("int8"))
    assert "0.800 hmean" in line
    assert "lost 0.130" in line
    assert "1.0 MB" in line
    assert re.search(r"\d\.\d\d ms .*[12]\.\d\dx as fast \[", line)


def test_a_summary_works_with_a_benchmark_alone_and_with_nothing(results):
    assert "as fast" in summary(results[2])
    assert "accuracy" not in summary(results[2])
    assert summary(results[:1]) == ""


def test_a_page_without_warnings_says_so(results, tmp_path):
    good = replace(results[1], rows=results[1].rows[:1])
    made = report([good], ReportOptions(charts=False), runs=tmp_path / "runs")
    assert made.warnings == ()
    assert "No stage reported a failure or an alarm." in made.path.read_text(encoding="utf-8")


def test_the_report_is_stored_and_made_anew_when_a_result_changes(results, tmp_path):
    options = ReportOptions(charts=False)
    first = report(results, options, runs=tmp_path / "runs")
    assert report(results, options, runs=tmp_path / "runs").provenance == first.provenance
    assert record.load(kit.Report, first.provenance.folder) == first
    later = replace(results[1], provenance=replace(results[1].provenance, key="ffffffffffff"))
    assert report([later], options, runs=tmp_path / "runs").provenance.key != first.provenance.key
    assert first.summary in str(first)
    assert "0.800 hmean" in str(first)


def test_a_result_whose_file_was_changed_afterwards_is_refused(results, tmp_path):
    origin = results[0].provenance
    origin.folder.mkdir(parents=True)
    (origin.folder / "model.onnx").write_bytes(b"as it was")
    made = replace(results[0], provenance=replace(origin, files={"model.onnx": record.digest(
        origin.folder / "model.onnx")}))
    report([made], ReportOptions(charts=False), runs=tmp_path / "runs")
    (origin.folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(StaleResult, match=r"model\.onnx was changed"):
        report([made], ReportOptions(charts=False), runs=tmp_path / "runs")


def test_what_is_no_result_is_refused():
    with pytest.raises(BadInput, match="no results"):
        report([])
    with pytest.raises(BadInput, match="A str is no stage's result"):
        report(["verdict"])


@pytest.mark.parametrize(("text", "shown"), [
    ("see /home/ada/models/det.onnx, please", "see det.onnx, please"),
    ("PosixPath('/opt/models/det')", "PosixPath('det')"),
    (r"C:\Users\ada\det.onnx failed", "det.onnx failed"),
    ("/home/ada lovelace/models/det.onnx", "det.onnx"),
    (r"C:\Users\ada lovelace\det.onnx", "det.onnx"),
    ("/backbone/conv_1/Conv", "/backbone/conv_1/Conv"),
    ("blocks/data/x and a/b", "blocks/data/x and a/b"),
    ("3/4 of 10", "3/4 of 10"),
])
def test_paths_are_cut_to_their_last_part_and_node_names_stay(text, shown):
    assert private(text) == shown


def test_the_current_folder_is_cut_even_with_a_space_in_its_name(tmp_path, monkeypatch):
    place = tmp_path / "ada lovelace"
    place.mkdir()
    monkeypatch.chdir(place)
    assert private(f"wrote {Path.cwd()}/out/det.onnx") == "wrote out/det.onnx"


# ---- what a box recorded ------------------------------------------------------------------------------------------


def boxed(folder, results, **settings):
    """The results of a box, and verdict and benchmark with its rows."""
    from box_results import box_results

    from kit.ascend.box.recorded import Recorded, label, timings

    feed = {"x": np.ones((1, 4), np.float32)}
    box = box_results(folder, [feed], [feed], **settings)
    name = label("npu", box)
    _, verdict, benchmark = results
    own = replace(row(name, "kept", 0.92), device=box.label, notes=Recorded(box).notes, size=Recorded(box).size)
    return [box, replace(verdict, rows=(*verdict.rows, own), provenance=None),
            replace(benchmark, recorded=timings(name, box), provenance=None)]


def test_a_box_has_a_part_of_the_page_with_its_tables(results, tmp_path):
    made = report(boxed(tmp_path / "box", results), runs=tmp_path / "runs")
    parsed = Page(made.path.read_text(encoding="utf-8"))
    text = "".join(parsed.text)
    assert "On the device" in text
    assert "Recorded on Ascend310P3; nothing of it ran on the machine that wrote this page." in text
    assert text.count("Milliseconds a run on Ascend310P3") == 1, "the stage's own section does not repeat it"
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in parsed.all("a")} <= set(ids)
    assert all(after <= before + 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))
    line = next(line for line in made.lines if line[0] == "npu on Ascend310P3")
    assert line[-2:] == ("4.00 ms on Ascend310P3", "measured on Ascend310P3, not interleaved here")
    assert not any("FAKE" in warning for warning in made.warnings)


def test_a_fake_is_the_first_warning_and_never_a_figure(results, tmp_path):
    made = report(boxed(tmp_path / "box", results, fake="FAKE atc, FAKE acl"), runs=tmp_path / "runs")
    assert made.warnings[0] == ("on the box: FAKE, nothing of it comes from a real tool or device "
                                "(FAKE atc, FAKE acl)")
    fakes = ["FAKE" in warning for warning in made.warnings]
    assert fakes == sorted(fakes, reverse=True)
    line = next(line for line in made.lines if "npu" in line[0])
    assert line[0] == "npu on Ascend310P3 (FAKE)"
    assert line[-2:] == ("-", "FAKE, nothing was measured: FAKE atc, FAKE acl")
    assert "4.00 ms" not in made.path.read_text(encoding="utf-8")
