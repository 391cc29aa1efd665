import dataclasses
import json
import os
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers import Doubled, DoubleOptions, double

from kit import record
from kit.errors import BadInput, StaleResult
from kit.progress import Cancelled


def test_the_second_run_is_read_back_not_made(array_file, tmp_path):
    first = double(array_file, runs=tmp_path / "runs")
    stamp = first.path.stat().st_mtime_ns
    second = double(array_file, runs=tmp_path / "runs")
    assert second == first
    assert second.path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("change", ["options", "input"])
def test_a_change_makes_another_result(array_file, tmp_path, change):
    first = double(array_file, runs=tmp_path / "runs")
    if change == "input":
        np.save(array_file, np.arange(9, dtype=np.float32))
    second = double(array_file, DoubleOptions(times=2 if change == "options" else 1), runs=tmp_path / "runs")
    assert second.provenance.key != first.provenance.key
    assert second.largest != first.largest


def test_a_changed_artefact_is_refused_and_made_again(array_file, tmp_path):
    first = double(array_file, runs=tmp_path / "runs")
    np.save(first.path, np.zeros(3))
    with pytest.raises(StaleResult, match=r"double\.npy was changed"):
        record.load(Doubled, first.provenance.folder)
    again = double(array_file, runs=tmp_path / "runs")
    assert np.load(again.path).max() == 10


def test_cancelling_leaves_nothing_half_written(array_file, tmp_path):
    def report(tick):
        if tick.done:
            raise Cancelled

    with pytest.raises(Cancelled):
        double(array_file, DoubleOptions(pause=5), runs=tmp_path / "runs", report=report)
    assert [p for p in (tmp_path / "runs").rglob("*") if p.is_file()] == []


def test_a_killed_process_leaves_no_result_that_could_be_taken_for_one(array_file, tmp_path):
    from kit import worker

    def report(tick):
        if tick.done:
            raise Cancelled

    with pytest.raises(Cancelled):
        worker.run(double, array_file, DoubleOptions(pause=5), runs=tmp_path / "runs", report=report, pass_report=True)
    assert list((tmp_path / "runs" / "toy").glob("double-*")) == []
    assert double(array_file, runs=tmp_path / "runs").largest == 10


def test_a_full_disk_is_named_and_nothing_stays(array_file, tmp_path, monkeypatch):
    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(helpers.np, "save", full)
    with pytest.raises(BadInput, match="disk is full") as caught:
        double(array_file, runs=tmp_path / "runs")
    assert "KIT_RUNS" in caught.value.remedy
    assert [p for p in (tmp_path / "runs").rglob("*") if p.is_file()] == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="root may write anywhere here")
def test_no_permission_is_named(array_file):
    with pytest.raises(BadInput, match=r"permission|does not exist|cannot|Invalid|proc"):
        double(array_file, runs="/proc/none")


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none\.npy does not exist"):
        double(tmp_path / "none.npy", runs=tmp_path / "runs")


def test_stored_text_holds_no_absolute_path(array_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = double(array_file, runs="runs")
    assert str(tmp_path) not in (made.provenance.folder / "result.json").read_text()


def test_a_result_moves_with_its_folder(array_file, tmp_path):
    made = double(array_file, runs=tmp_path / "runs")
    moved = made.provenance.folder.rename(tmp_path / "elsewhere")
    assert np.load(record.load(Doubled, moved).path).max() == 10


def test_another_version_of_a_result_is_refused(array_file, tmp_path):
    made = double(array_file, runs=tmp_path / "runs")
    file = made.provenance.folder / "result.json"
    kept = json.loads(file.read_text())
    del kept["largest"]
    file.write_text(json.dumps(kept))
    with pytest.raises(StaleResult, match="cannot be read as Doubled"):
        record.load(Doubled, made.provenance.folder)


def test_find_lists_the_newest_first(array_file, tmp_path):
    double(array_file, runs=tmp_path / "runs")
    double(array_file, DoubleOptions(times=3), runs=tmp_path / "runs")
    assert len(record.find(Doubled, "double", "toy", tmp_path / "runs")) == 2


def test_digests_tell_types_and_contents_apart(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert record.digest(tmp_path / "a") == record.digest(tmp_path / "b")
    things = [1, 1.0, "1", True, None, [1], (1, 2), {"a": 1}, np.float32([1]), np.float64([1]), tmp_path / "a"]
    assert len({record.digest(thing) for thing in things}) == len(things)
    with pytest.raises(TypeError, match="object"):
        record.digest(object())


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "_REMEMBERED", 4)
    read, feed = [], record._feed_bytes
    monkeypatch.setattr(record, "_feed_bytes", lambda hasher, path: (read.append(path.name), feed(hasher, path)))
    large, twin = tmp_path / "large", tmp_path / "twin"
    large.write_bytes(b"12345")
    twin.write_bytes(b"12345")
    first = record.digest(large)
    assert record.digest(large) == first == record.digest(twin)
    large.write_bytes(b"12346")
    os.utime(large, ns=(1, 1))  # the clock of a file system may be too coarse for a test
    assert record.digest(large) != first
    assert read == ["large", "twin", "large"]


def test_fields_left_out_of_comparison_do_not_count(array_file, tmp_path):
    made = double(array_file, runs=tmp_path / "runs")
    assert record.digest(made) == record.digest(dataclasses.replace(made, provenance=None))
