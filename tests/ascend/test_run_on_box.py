"""run_on_box.py as a person starts it, on a FAKE box: what it does, what it writes, what it says when a step fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from box_bundles import box, bundle, pictures, sealed
from onnx_graphs import FLOAT, INT64, line, node, save

FEEDS = pictures(2, 1, 3, 8, 8)


@pytest.fixture
def made(tmp_path):
    """A bundle with two batches."""
    model = tiny.conv_net(tmp_path / "m.onnx")
    return bundle(tmp_path / "bundle", model, FEEDS, shape="x:-1,3,8,8", kind="batch", values=[[2], [4]],
                  batches=(2, 4), flags=("--dynamic_batch_size=2,4",))


def start(folder, environment, *options):
    # A shell's background jobs ignore Ctrl-C, and hand that down; here it is to be heard.
    return subprocess.Popen([sys.executable, str(folder / "run_on_box.py"), *options], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def run(folder, environment, *options):
    """Exit code, results, what was printed."""
    child = start(folder, environment, *options)
    out, err = child.communicate(timeout=120)
    file = folder / "results" / "results.json"
    return child.returncode, json.loads(file.read_text()) if file.is_file() else {}, out + err


def states(results):
    return {row["step"]: row["state"] for row in results["steps"]}


def test_the_one_command_goes_through_and_leaves_the_results_and_nothing_else(made, tmp_path):
    code, results, said = run(made, box(tmp_path / "box"))
    assert code == 0, said
    assert states(results) == {"check": "done", "build": "done", "infer": "done", "compare": "done",
                               "benchmark": "done", "profile": "skipped"}
    assert results["fake"] == "FAKE acl, FAKE atc, FAKE npu-smi"
    assert results["device"]["soc"] == "Ascend310P3 (FAKE)"
    assert results["bundle"]["goldens"] == [{"name": f"slip_000{n}.png", "feed": f"{n:064d}"} for n in range(2)]
    assert sorted(path.name for path in (made / "results").iterdir()) == [
        "atc.log", "fusion_result.json", "outputs.npz", "results.json"], "no scratch folder, no kernel_meta"
    assert not (made / "kernel_meta").exists()
    assert str(tmp_path) not in (made / "results" / "results.json").read_text(), "where it was made stays there"
    assert "FAKE acl: " not in said, "the order of pyACL's calls was kept"
    # Goldens of one picture ran in the batch of two: what filled it up is gone again.
    with np.load(made / "results" / "outputs.npz") as kept, np.load(made / "goldens" / "001.npz") as golden:
        assert sorted(kept.files) == ["0/y", "1/y"]
        np.testing.assert_allclose(kept["1/y"], golden["out:y"], atol=2e-3)  # rounded to float16
    assert [row["batch"] for row in results["benchmark"]] == [2, 4]
    assert all(len(row["times_ms"]) == len(row["with_copies"]["times_ms"]) == 5 for row in results["benchmark"])
    assert {(row["golden"], row["ok"]) for row in results["comparison"]} == {("slip_0000.png", True),
                                                                            ("slip_0001.png", True)}


def test_what_is_built_is_used_again_until_the_bundle_or_cann_changes(made, tmp_path):
    environment = box(tmp_path / "box")
    first = run(made, environment, "--build-only")
    assert first[0] == 0
    assert states(first[1])["infer"] == "skipped"
    again = run(made, environment, "--build-only")
    assert again[1]["build"] == {**first[1]["build"], "reused": True}
    assert "there already" in again[2]
    assert run(made, environment, "--build-only", "--rebuild")[1]["build"]["reused"] is False
    other = box(tmp_path / "newer", cann="8.2.RC1")
    assert run(made, other, "--build-only")[1]["build"]["reused"] is False
    (made / "om" / "net.om").write_bytes(b"changed")
    assert run(made, other, "--build-only")[1]["build"]["reused"] is False


def test_without_atc_what_was_built_can_still_be_run(made, tmp_path):
    code, results, said = run(made, box(tmp_path / "none", fault="no-atc"), "--skip-build")
    assert (code, states(results)["build"]) == (1, "failed")
    assert "run without --skip-build" in said
    assert run(made, box(tmp_path / "box"), "--build-only")[0] == 0
    code, results, said = run(made, box(tmp_path / "box2", fault="no-atc"), "--skip-build", "--runs", "2")
    assert code == 0, said
    assert "FAKE atc" in results["fake"], "it was built by a FAKE"
    assert results["benchmark"][0]["runs"] == 2


def test_answers_out_of_tolerance_fail_but_are_measured_all_the_same(made, tmp_path):
    about = json.loads((made / "bundle.json").read_text())
    about["tolerances"] = {"cosine": 0.99, "relative": 1e-9}
    sealed(made, about)
    code, results, said = run(made, box(tmp_path / "box"))
    assert code == 1
    assert states(results)["compare"] == "failed"
    assert states(results)["benchmark"] == "done"
    assert "2 of 2 answers are out of tolerance, worst y of slip_000" in said
    assert (made / "results" / "outputs.npz").is_file()


def test_what_atc_refuses_is_explained_with_the_node(tmp_path):
    model = line(tmp_path / "m.onnx", node("Gelu", ["x"], ["y"], name="g"), shape=(1, 4), opset=20)
    folder = bundle(tmp_path / "bundle", model, [{"x": np.ones((1, 4), np.float32)}], shape="x:1,4")
    code, results, said = run(folder, box(tmp_path / "box"))
    assert code == 1
    assert states(results) == {"check": "done", "build": "failed", "infer": "skipped", "compare": "skipped",
                               "benchmark": "skipped", "profile": "skipped"}
    row = results["steps"][1]
    assert row["message"] == "atc ended with 1: see atc.log."
    assert row["explained"][0]["node"] == "g"
    assert "lower-opset" in row["explained"][0]["next"]
    assert "No parser is registered for Op [g" in results["build"]["log_tail"]
    assert "E16002 no parser for ai.onnx::20::Gelu at this opset. Next: opset 20 is newer than any" in said
    assert not list((folder / "results").glob(".scratch*"))


def test_a_crash_of_atc_is_explained_though_its_log_says_nothing(tmp_path):
    model = save(tmp_path / "m.onnx", [node("NonMaxSuppression", ["boxes", "scores", "n"], ["y"])],
                 {"boxes": (FLOAT, [1, 4, 4]), "scores": (FLOAT, [1, 1, 4])}, {"y": (INT64, None)},
                 {"n": np.int64([3])})
    feed = {"boxes": np.zeros((1, 4, 4), np.float32), "scores": np.zeros((1, 1, 4), np.float32)}
    folder = bundle(tmp_path / "bundle", model, [feed], shape="boxes:1,4,4;scores:1,1,4")
    _, results, _ = run(folder, box(tmp_path / "box"))
    said = results["steps"][1]["explained"][0]
    assert said["cause"].startswith("atc crashed (segmentation fault)")
    assert "nms-five-inputs" in said["next"]


def test_ctrl_c_leaves_results_and_gives_the_device_back(made, tmp_path):
    child = start(made, box(tmp_path / "box"), "--runs", "1000000")
    file = made / "results" / "results.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (file.is_file() and states(json.loads(file.read_text()))["compare"] ==
                                               "done"):
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    try:
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130, err
    assert "Interrupted. What was done until then" in out
    results = json.loads(file.read_text())
    assert results["steps"][4]["message"] == "interrupted"
    assert results["comparison"], "what was done is kept"
    assert "FAKE acl" not in err, "buffers, model, context and device were given back in order"


def test_a_job_that_is_stopped_while_atc_builds_leaves_no_atc_behind(made, tmp_path):
    environment = box(tmp_path / "box")
    slow = tmp_path / "box" / "bin" / "atc"
    slow.write_text(f"#!{sys.executable}\n# FAKE\nimport os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write("
                    "str(os.getpid()))\ntime.sleep(60)\n")
    child = start(made, environment)
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list((made / "results").glob(".scratch*"))


def test_paths_inside_a_configuration_file_lead_into_the_bundle(tmp_path):
    model = tiny.conv_net(tmp_path / "m.onnx")
    folder = bundle(tmp_path / "bundle", model, FEEDS, shape="x:1,3,8,8",
                    flags=("--compression_optimize_conf=config/int8.cfg",))
    (folder / "calibration").mkdir()
    (folder / "calibration" / "x.bin").write_bytes(b"\0" * 768)
    (folder / "config" / "int8.cfg").write_text('calibration : { input_data_dir : "calibration/x.bin" }')
    sealed(folder)
    assert run(folder, box(tmp_path / "box"), "--build-only")[0] == 0
    for name in ("calibration", "results", "om"):
        shutil.rmtree(folder / name)
    sealed(folder)
    code, results, _ = run(folder, box(tmp_path / "box2"), "--build-only")
    assert code == 1
    assert "E10410" in results["build"]["log_tail"]


def test_a_fixed_batch_of_four_is_filled_from_one_picture_and_emptied_again(tmp_path):
    model = tiny.conv_net(tmp_path / "m.onnx")
    folder = bundle(tmp_path / "bundle", model, FEEDS, shape="x:4,3,8,8")
    code, results, said = run(folder, box(tmp_path / "box"))
    assert code == 0, said
    assert [row["batch"] for row in results["benchmark"]] == [4]
    with np.load(folder / "results" / "outputs.npz") as kept:
        assert kept["0/y"].shape == (1, 1, 8, 8)


def test_answers_of_an_earlier_run_do_not_outlive_one_that_gives_none(made, tmp_path):
    (made / "results").mkdir()
    (made / "results" / "outputs.npz").write_bytes(b"of an earlier run")
    code, results, _ = run(made, box(tmp_path / "box", fault="no-driver"))
    assert (code, results["outputs"]) == (1, "")
    assert not (made / "results" / "outputs.npz").exists()


def test_a_machine_that_goes_down_leaves_the_step_it_was_in(made, tmp_path):
    child = start(made, box(tmp_path / "box"), "--runs", "1000000")
    file = made / "results" / "results.json"
    while not file.is_file() or states(json.loads(file.read_text()))["benchmark"] != "failed":
        time.sleep(0.02)
    child.kill()
    child.communicate(timeout=30)
    assert json.loads(file.read_text())["steps"][4]["message"] == "did not end"


def test_what_was_answered_before_an_error_is_kept(made, tmp_path):
    code, results, _ = run(made, box(tmp_path / "box", fault="core-error"))
    assert (code, states(results)["infer"]) == (1, "failed")
    assert [row["golden"] for row in results["comparison"]] == ["slip_0000.png"]
    with np.load(made / "results" / "outputs.npz") as kept:
        assert kept.files == ["0/y"]


def test_the_steps_of_an_int8_route_go_before_atc(tmp_path):
    model = tiny.conv_net(tmp_path / "m.onnx")
    step = ["amct_onnx", "calibration", "--model=model/net.onnx", "--save_path=int8/net", "--data_dir=goldens"]
    folder = bundle(tmp_path / "bundle", model, FEEDS, shape="x:1,3,8,8",
                    int8={"route": "amct", "files": [], "steps": [step], "note": ""})
    about = json.loads((folder / "bundle.json").read_text())
    about["atc"]["argv"][1] = "--model=int8/net_deploy_model.onnx"
    sealed(folder, about)
    code, results, said = run(folder, box(tmp_path / "box"), "--build-only")
    assert code == 0, said
    assert results["bundle"]["int8"] == "amct"
    assert "FAKE amct_onnx" in results["fake"]
    assert said.index("amct_onnx calibration") < said.index("running atc")


def test_help_and_a_missing_bundle_answer_without_a_traceback(made, tmp_path):
    done = subprocess.run([sys.executable, str(made / "run_on_box.py"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--build-only" in done.stdout
    assert "python3 run_on_box.py" in done.stdout
    (made / "bundle.json").unlink()
    done = subprocess.run([sys.executable, str(made / "run_on_box.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.strip() == "There is no bundle.json beside run_on_box.py: copy the whole folder."
