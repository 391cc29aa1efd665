"""The log is whole after any kill, and the best artefact is whole at every moment."""

import json

import pytest
from search_toys import candidates, write_model

import kit
from kit.errors import StaleResult
from kit.trials.log import Log, Trial, best, keep_best, read_trials

ABOUT = {"title": "toy.onnx", "metric": "", "allowed": 0.01, "space": 70, "float_model": "", "notes": [], "ended": True}


def trial(number, artifact=None, ratio=0.5, **more):
    return Trial(number, candidates()[number], "measured", ratio, ratio, ratio, 1.0, 2.0, 0.0, 200.0, None, 8, True,
                 artifact, **more)


def test_a_trial_comes_back_as_it_was(tmp_path):
    log = Log(tmp_path / "search", ABOUT)
    log.add(trial(0, write_model(tmp_path / "a.onnx"), at=1.5, why="späte Änderung"))
    log.add(Trial(1, candidates()[1], "failed", why="it crashed"))
    assert list(read_trials(log.path)) == log.trials
    assert Log(tmp_path / "search", ABOUT).spent == 1.5


def test_paths_in_the_log_move_with_the_folder(tmp_path):
    (tmp_path / "runs").mkdir()
    log = Log(tmp_path / "runs" / "search", ABOUT)
    log.add(trial(0, write_model(tmp_path / "runs" / "a.onnx")))
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert read_trials(tmp_path / "moved" / "search" / "trials.jsonl")[0].artifact == tmp_path / "moved" / "a.onnx"


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_and_written_over(tmp_path, cut):
    log = Log(tmp_path, ABOUT)
    for number in range(3):
        log.add(trial(number))
    log.path.write_bytes(log.path.read_bytes()[:-cut])
    assert len(read_trials(log.path)) == 2
    again = Log(tmp_path, ABOUT)
    again.add(trial(2))
    assert [t.number for t in read_trials(log.path)] == [0, 1, 2]


def test_a_damaged_line_in_the_middle_is_refused(tmp_path):
    log = Log(tmp_path, ABOUT)
    log.add(trial(0))
    log.path.write_bytes(b'{"number": 7\n' + log.path.read_bytes())
    with pytest.raises(StaleResult, match="Line 1"):
        read_trials(log.path)


def test_no_log_has_no_trials(tmp_path):
    assert read_trials(tmp_path / "trials.jsonl") == ()


def test_the_best_is_a_copy_with_its_settings(tmp_path):
    log = Log(tmp_path / "search", ABOUT)
    for number, value in ((0, 1.0), (1, 7.0)):
        found = trial(number, write_model(tmp_path / f"{number}.onnx", value))
        log.add(found)
        keep_best(log.folder, found)
    number, path = best(log.folder)
    (tmp_path / "1.onnx").unlink()
    assert number == 1
    note = json.loads((log.folder / "best" / "best.json").read_text())
    assert note["runner_settings"] == candidates()[1].runner_settings
    with kit.open_runner(path) as run:
        import numpy as np

        assert run({"x": np.zeros((1, 4), np.float32)})["y"][0, 0] == 7.0
    assert [p.name for p in (log.folder / "best").glob("trial-*")] == ["trial-1"]


def test_best_json_names_whole_files_while_a_new_best_is_copied(tmp_path, monkeypatch):
    log = Log(tmp_path / "search", ABOUT)
    keep_best(log.folder, trial(0, write_model(tmp_path / "0.onnx")))

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="space"):
            keep_best(log.folder, trial(1, write_model(tmp_path / "1.onnx")))
    number, path = best(log.folder)
    assert number == 0
    assert path.is_file()
    keep_best(log.folder, trial(1, tmp_path / "1.onnx"))
    assert best(log.folder)[0] == 1


def test_weights_beside_the_file_are_kept_too(tmp_path):
    import onnx

    proto = onnx.load(write_model(tmp_path / "a.onnx"))
    onnx.save_model(proto, str(tmp_path / "b.onnx"), save_as_external_data=True, location="b.data", size_threshold=0)
    keep_best(tmp_path / "search", trial(0, tmp_path / "b.onnx"))
    assert (best(tmp_path / "search")[1].parent / "b.data").is_file()
