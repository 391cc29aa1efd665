"""The stage waterfall: what is compared, how it is judged, what raises an alarm."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import kit
from kit import Preprocess, Sample, Samples, VerifyOptions, record, verify
from kit.errors import BadInput
from kit.evidence import waterfall
from kit.evidence.entries import entries, is_quantized
from kit.verification import Change, evenly

FEEDS = [{"x": np.random.default_rng(n).normal(size=(1, 8)).astype(np.float32)} for n in range(6)]


def same(feed):
    return {"y": feed["x"] * 2}


def off_by(gap):
    return lambda feed: {"y": feed["x"] * 2 + np.float32(gap)}


@dataclass(frozen=True)
class Bright:
    """Is the picture bright? Truth is True or False; the answer is None where the outputs say nothing."""

    name: str = "right"
    better: str = "higher"

    def answer(self, outputs, sample, feed):
        value = float(next(iter(outputs.values())).mean())
        return "" if value == 0 else "bright" if value > 0.5 else "dark"

    def count(self, answer):
        return int(bool(answer))

    def tally(self, answer, sample):
        return float(answer == sample.truth), 1.0

    def scores(self, totals):
        return {"accuracy": totals[0] / totals[1], "wrong": totals[1] - totals[0]}


@pytest.fixture
def samples(tmp_path):
    items = []
    for n in range(40):
        level = 5 * n + 10  # 10 ... 205: half of them below 128
        path = tmp_path / f"grey_{n:02d}.png"
        cv2.imwrite(str(path), np.full((4, 4, 3), level, np.uint8))
        items.append(Sample(path, truth="bright" if level / 255 > 0.5 else "dark"))
    return Samples(tuple(items), Preprocess(size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1)), "x")


def good(feed):
    return {"m": feed["x"].mean(axis=(2, 3))}


def dim(feed):
    return {"m": feed["x"].mean(axis=(2, 3)) * np.float32(0.8)}


def blind(feed):
    return {"m": np.zeros((1, 3), np.float32)}


# ---- tensors ------------------------------------------------------------------------------------------------------


def test_equal_outputs_are_equal_and_the_verdict_is_true():
    verdict = verify({"paddle": same, "onnx": same}, FEEDS)
    assert verdict
    assert verdict.where == ""
    assert [row.status for row in verdict.rows] == ["reference", "equal"]
    assert verdict.rows[1].snr_db == np.inf
    assert "exact" in str(verdict)


@pytest.mark.parametrize(("gap", "status", "is_good"), [
    (5e-6, "equal", True), (1e-4, "warning", True), (0.1, "lost", False)])
def test_float_stages_are_judged_by_the_tensors(gap, status, is_good):
    verdict = verify({"paddle": same, "onnx": off_by(gap)}, FEEDS)
    assert verdict.rows[1].status == status
    assert bool(verdict) is is_good
    assert "'y'" in verdict.rows[1].why


def test_the_first_stage_that_lost_is_named():
    verdict = verify({"a": same, "b": same, "c": off_by(1), "d": off_by(2)}, FEEDS)
    assert verdict.where == "c"
    assert verdict.title().startswith("'c' is where the answers are lost first")


def test_snr_is_signal_power_over_noise_power():
    left = np.array([3.0, 4.0])
    assert waterfall.snr_db(left, left + np.array([0.3, 0.4])) == pytest.approx(20.0)
    assert waterfall.snr_db(left, left) == np.inf
    assert waterfall.snr_db(left, np.array([np.nan, 4.0])) == -np.inf
    # over several samples the row's ratio is that of the summed powers
    verdict = verify({"a": same, "b": lambda f: {"y": f["x"] * np.float32(2.2)}}, FEEDS)
    assert verdict.rows[1].snr_db == pytest.approx(20.0, abs=0.01)


def test_outputs_with_other_names_are_paired_by_position():
    assert verify({"a": same, "b": lambda feed: {"other": feed["x"] * 2}}, FEEDS)


def test_another_shape_is_refused_naming_stage_and_sample():
    with pytest.raises(BadInput, match=r"'b' on sample 0: Output 'y' has shape \[1, 8\]"):
        verify({"a": same, "b": lambda feed: {"y": feed["x"][:, :4]}}, FEEDS)


def test_texts_among_the_outputs_are_left_to_the_task():
    def reads(feed):
        return {"y": feed["x"], "text": np.array(["abc"], object)}

    assert [p.name for p in verify({"a": reads, "b": reads}, FEEDS).rows[1].parity] == ["y"]


def test_a_quantized_stage_without_a_task_is_judged_by_its_ratio():
    options = VerifyOptions(judge_by_task=("int8",))
    assert verify({"a": same, "int8": off_by(0.1)}, FEEDS, options).rows[1].status == "kept"
    verdict = verify({"a": same, "int8": off_by(5)}, FEEDS, options)
    assert verdict.where == "int8"
    assert "below 10 dB" in verdict.title()


# ---- the task -----------------------------------------------------------------------------------------------------


def test_the_task_is_scored_with_an_interval_at_every_stage(samples):
    verdict = verify({"paddle": good, "onnx": good}, samples, task=Bright())
    assert verdict.metric == "accuracy"
    assert [row.scores["accuracy"] for row in verdict.rows] == [1.0, 1.0]
    assert verdict.rows[0].interval == (1.0, 1.0)
    assert str(verdict.rows[1].change) == "no change"
    assert verdict.rows[1].found == 40


def test_a_loss_of_the_metric_has_a_paired_interval_and_names_the_step(samples):
    """At 0.8 times the brightness, the samples of 130 to 155 (6 of 40) are called dark: a loss of 0.15."""
    options = VerifyOptions(judge_by_task=("int8", "compiled"))
    verdict = verify({"paddle": good, "onnx": good, "int8": dim, "compiled": dim}, samples, options, task=Bright())
    row = verdict.stage("int8")
    assert row.status == "lost"
    assert row.change.loss == pytest.approx(0.15)
    assert 0 < row.change.low < 0.15 < row.change.high < 0.3
    assert row.step == replace(row.change, against="onnx")
    assert verdict.stage("compiled").step == Change("int8", 0.0, 0.0, 0.0)
    assert verdict.where == "int8"
    assert "lost 0.150" in verdict.title()


def test_paired_differences_are_narrower_than_the_intervals_of_the_scores(samples):
    def half_right(feed):  # wrong on every third sample, whatever the stage
        return {"m": np.full((1, 3), 0.9 if round(float(feed["x"].max() * 255)) % 3 else 0.1, np.float32)}

    def one_worse(feed):
        return blind(feed) if round(float(feed["x"].max() * 255)) == 15 else half_right(feed)

    options = VerifyOptions(judge_by_task=("b",), allowed_loss=0.1)
    verdict = verify({"a": half_right, "b": one_worse}, samples, options, task=Bright())
    low, high = verdict.rows[0].interval
    change = verdict.rows[1].change
    assert change.high - change.low < (high - low) / 2


def test_changed_samples_are_named_worst_first(samples):
    options = VerifyOptions(judge_by_task=("int8",))
    verdict = verify({"paddle": good, "int8": dim}, samples, options, task=Bright())
    rows = verdict.changed("int8")
    assert {row.name for row in rows} == {f"grey_{n}.png" for n in (24, 25, 26, 27, 28, 29)}
    losses = [row.snr_db["int8"] for row in rows]
    assert losses == sorted(losses)  # all lost the same; then the noisiest first
    assert rows[0].tallies == {"paddle": (1.0, 1.0), "int8": (0.0, 1.0)}
    assert rows[0].texts == {"paddle": "bright", "int8": "dark"}
    assert rows[0].name in str(verdict)


def test_a_lower_is_better_metric_loses_upwards(samples):
    @dataclass(frozen=True)
    class Error(Bright):
        better: str = "lower"

        def scores(self, totals):
            return {"error rate": 1 - totals[0] / totals[1]}

    options = VerifyOptions(judge_by_task=("int8",))
    verdict = verify({"paddle": good, "int8": dim}, samples, options, task=Error())
    assert verdict.rows[1].change.loss == pytest.approx(0.15)
    assert len(verdict.changed("int8")) == 6


def test_words_of_a_change():
    assert str(Change("a", 0.004, 0.0, 0.010)) == "lost 0.004 [0.000, 0.010]; within noise"
    assert str(Change("a", 0.02, 0.01, 0.03)) == "lost 0.020 [0.010, 0.030]"
    assert str(Change("a", -0.02, -0.03, 0.01)) == "gained 0.020 [-0.010, 0.030]; within noise"
    assert str(Change("a", 0.0, 0.0, 0.0)) == "no change"


def test_one_sample_gives_no_interval(samples):
    row = verify({"a": good, "b": good}, samples[:1], task=Bright()).rows[1]
    assert row.interval is None
    assert row.change.low is None


# ---- alarms -------------------------------------------------------------------------------------------------------


def test_a_stage_that_finds_nothing_raises_an_alarm_and_is_lost(samples):
    options = VerifyOptions(judge_by_task=("int8",), allowed_loss=1.0)
    verdict = verify({"paddle": good, "int8": blind}, samples, options, task=Bright())
    assert verdict.where == "int8"
    assert any("finds nothing in any of 40 samples, where 'paddle' found 40" in a for a in verdict.alarms)


def test_finding_nothing_in_some_samples_is_an_alarm_that_names_them(samples):
    def blinks(feed):
        return blind(feed) if round(float(feed["x"].max() * 255)) in (10, 15) else good(feed)

    options = VerifyOptions(judge_by_task=("int8",), allowed_loss=0.2)
    verdict = verify({"paddle": good, "int8": blinks}, samples, options, task=Bright())
    assert verdict
    assert verdict.rows[1].alarms == ("finds nothing in 2 of 40 samples where 'paddle' did: grey_00.png, grey_01.png",)


def test_the_same_outputs_for_different_inputs_are_an_alarm():
    frozen = {"y": FEEDS[0]["x"] * 2}
    verdict = verify({"a": same, "b": lambda feed: frozen}, FEEDS, VerifyOptions(judge_by_task=("b",)))
    assert "output 'y' is the same for all 6 different inputs" in verdict.rows[1].alarms
    assert verdict.where == "b"


def test_the_same_outputs_for_the_same_input_are_no_alarm():
    assert verify({"a": same, "b": same}, [FEEDS[0], FEEDS[0]]).alarms == ()


def test_an_output_that_was_always_constant_is_no_alarm():
    def with_priors(feed):
        return {"y": feed["x"], "priors": np.arange(3.0)}

    assert verify({"a": with_priors, "b": with_priors}, FEEDS).alarms == ()


def test_nan_is_an_alarm_that_names_the_samples():
    def breaks(feed):
        return {"y": np.full_like(feed["x"], np.nan) if feed is FEEDS[2] else feed["x"] * 2}

    verdict = verify({"a": same, "b": breaks}, FEEDS, VerifyOptions(judge_by_task=("b",)))
    assert verdict.rows[1].alarms == ("NaN or infinite outputs in 1 of 6 samples: sample 2",)
    assert verdict.where == "b"


# ---- real models, storing -----------------------------------------------------------------------------------------


def pictures(tmp_path, count=3):
    for n in range(count):
        noise = np.random.default_rng(n).integers(0, 255, (16, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"p{n}.png"), noise)
    return Samples.from_folder(tmp_path, Preprocess(size=(16, 16)), input="x")


def disturbed(path, tmp_path, factor):
    proto = onnx.load(path)
    first = proto.graph.initializer[0]
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first) * np.float32(factor), first.name))
    onnx.save(proto, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


def test_models_are_compared_and_the_verdict_is_stored(tiny_onnx, tmp_path):
    samples, runs = pictures(tmp_path), tmp_path / "runs"
    other = disturbed(tiny_onnx, tmp_path, 1.5)
    verdict = verify({"onnx": tiny_onnx, "other": other}, samples, runs=runs)
    assert verdict.where == "other"
    assert verdict.rows[0].size == tiny_onnx.stat().st_size
    assert verdict.rows[0].runtime.startswith("onnxruntime")
    assert verdict.rows[0].precision == "float"
    assert not list(verdict.provenance.folder.glob("reference*"))  # scaffolding is gone
    assert verify({"onnx": tiny_onnx, "other": other}, samples, runs=runs).provenance == verdict.provenance
    assert record.load(kit.Verdict, verdict.provenance.folder) == verdict


def test_a_panel_can_run_it_in_a_worker(tiny_onnx, tmp_path):
    from kit import worker

    runs, ticks = tmp_path / "runs", []
    verdict = worker.run(verify, {"a": tiny_onnx, "b": (tiny_onnx, {"graph_level": "none"})}, pictures(tmp_path),
                         runs=runs, pass_report=True, report=ticks.append)
    assert verdict.rows[1].settings["graph level"] == "none"
    assert any("b: running" in tick.note for tick in ticks)


def test_a_verdict_is_made_anew_when_truth_order_or_task_change(tiny_onnx, tmp_path, samples):
    samples = replace(samples[:2], preprocess=Preprocess(size=(16, 16)))
    runs = tmp_path / "runs"

    def key(samples=samples, task=Bright(), names=("a", "b")):
        return verify(dict.fromkeys(names, tiny_onnx), samples, task=task, runs=runs).provenance.key

    told_otherwise = replace(samples, items=tuple(replace(item, truth="dark!") for item in samples.items))
    keys = {key(), key(told_otherwise), key(task=replace(Bright(), better="lower")), key(names=("b", "a"))}
    assert len(keys) == 4


def test_the_noise_floor_runs_the_first_stage_under_other_settings(tiny_onnx, tmp_path):
    verdict = verify({"onnx": tiny_onnx}, pictures(tmp_path), VerifyOptions(noise_floor=True), runs=tmp_path / "runs")
    floor, = verdict.noise_floor
    assert floor.elements > 0
    assert floor.relative < 1e-5
    assert "rounding alone" in str(verdict)


def test_a_plain_function_is_not_stored(tmp_path):
    verdict = verify({"a": same}, FEEDS, runs=tmp_path / "runs")
    assert verdict.provenance is None
    assert not (tmp_path / "runs").exists()


def test_precision_is_read_from_the_operators():
    assert is_quantized("QuantizeLinear")
    assert is_quantized("DequantizeLinear")
    assert is_quantized("QLinearConv")
    assert is_quantized("ConvInteger")
    assert is_quantized("MatMulNBits")
    assert not is_quantized("Conv")


def test_half_precision_is_told_from_the_weights(tiny_onnx, tmp_path):
    proto = onnx.load(tiny_onnx)
    first = proto.graph.initializer[0]
    first.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(first).astype(np.float16), first.name))
    onnx.save(proto, tmp_path / "half.onnx")
    half, = entries({"half": tmp_path / "half.onnx"}, "stage")
    assert half.precision == "half"


# ---- being asked wrongly ------------------------------------------------------------------------------------------


def test_bad_requests_are_answered_in_words(samples, tmp_path):
    with pytest.raises(BadInput, match="no stage"):
        verify({}, FEEDS)
    with pytest.raises(BadInput, match="no samples"):
        verify({"a": same}, [])
    with pytest.raises(BadInput, match=r"stage 'gone': .*nowhere\.onnx"):
        verify({"gone": tmp_path / "nowhere.onnx"}, FEEDS, runs=tmp_path)
    with pytest.raises(BadInput, match="stage named 'int9'"):
        verify({"int8": same}, FEEDS, VerifyOptions(judge_by_task=("int9",)))
    with pytest.raises(BadInput, match=r"lacks .*answer"):
        verify({"a": same}, samples, task=object())
    with pytest.raises(BadInput, match="A task needs Samples"):
        verify({"a": same}, FEEDS, task=Bright())
    with pytest.raises(BadInput, match="'b' answered with ndarray"):
        verify({"a": same, "b": lambda feed: feed["x"]}, FEEDS)


def test_a_limit_takes_samples_from_the_whole_set():
    assert evenly(10, None) == list(range(10))
    assert evenly(10, 4) == [0, 3, 6, 9]
    assert evenly(3, 9) == [0, 1, 2]
    verdict = verify({"a": same, "b": same}, FEEDS, VerifyOptions(samples=2))
    assert (verdict.samples, verdict.of) == (2, 6)
    assert [row.at for row in verdict.answers] == [0, 5]


def test_cancelling_leaves_nothing_behind(tiny_onnx, tmp_path):
    def stop(tick):
        if tick.done == 2:
            raise kit.Cancelled

    with pytest.raises(kit.Cancelled):
        verify({"a": tiny_onnx}, pictures(tmp_path), runs=tmp_path / "runs", report=stop)
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]


# ---- recorded on a box --------------------------------------------------------------------------------------------


def boxed(folder, feeds, gap=0.0, **settings):
    from box_results import box_results

    return box_results(folder, feeds, [{"y": f["x"] * 2 + np.float32(gap)} for f in feeds], **settings)


def test_answers_of_a_box_are_a_stage_labelled_with_the_device(tmp_path):
    verdict = verify({"float": same, "npu": boxed(tmp_path, FEEDS, 3e-3)}, FEEDS)
    row = verdict.rows[1]
    assert verdict
    assert (row.name, row.device, row.precision) == ("npu on Ascend310P3", "Ascend310P3", "half")
    assert (row.runtime, row.size) == ("recorded on Ascend310P3", 12_000)
    assert row.status == "kept", "16 bits may differ by more than the rounding of 32"
    assert row.settings["cann"] == "8.1.RC1"
    assert "did not run here" in str(verdict)
    assert "FAKE" not in str(verdict)


def test_wrong_answers_of_a_box_are_lost(tmp_path):
    verdict = verify({"float": same, "npu": boxed(tmp_path, FEEDS, 3.0)}, FEEDS)
    assert verdict.where == "npu on Ascend310P3"


def test_a_fake_box_is_called_so_in_the_title_and_in_every_row(tmp_path):
    verdict = verify({"float": same, "npu": boxed(tmp_path, FEEDS, fake="FAKE acl")}, FEEDS)
    assert "[FAKE, nothing ran on a device: npu on Ascend310P3 (FAKE)]" in verdict.title()
    assert verdict.rows[1].notes == ("FAKE: nothing ran on a device (FAKE acl).",)
    assert all("FAKE" in str(row) for table in verdict.tables() for row in table.rows if "npu" in str(row))


def test_a_task_is_scored_on_what_a_box_recorded(samples, tmp_path):
    from box_results import box_results

    golden = replace(samples, items=samples.items[::10])
    results = box_results(tmp_path / "box", list(golden), [good(f) for f in golden])
    verdict = verify({"float": good, "npu": results}, golden, task=Bright())
    assert [row.scores["accuracy"] for row in verdict.rows] == [1.0, 1.0]
    with pytest.raises(BadInput, match=r"'npu on Ascend310P3' on grey_01\.png: Ascend310P3 was not given this input"):
        verify({"float": good, "npu": results}, samples, task=Bright())


def test_recorded_verdicts_are_stored(samples, tmp_path):
    path = tmp_path / "m.onnx"
    weights = numpy_helper.from_array(np.full((1, 3, 1, 1), 0.3, np.float32), "w")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "w"], ["y"])], "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 3, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 3, 4, 4])], [weights]),
        opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    from box_results import box_results

    feeds = list(samples[:3])
    results = box_results(tmp_path / "box", feeds, [{"y": f["x"] * np.float32(0.3)} for f in feeds])
    made, again = (verify({"float": path, "npu": results}, feeds, runs=tmp_path / "runs") for _ in range(2))
    assert made.provenance
    assert again == made
    assert record.load(type(made), made.provenance.folder).rows[1].device == "Ascend310P3"


def test_a_runner_of_fakes_is_called_fake(tmp_path):
    class Live:
        settings, notes = {"runtime": "FAKE pyACL"}, ()

        def __call__(self, feed):
            return same(feed)

    verdict = verify({"float": same, "om": Live()}, FEEDS)
    assert verdict.rows[1].name == "om (FAKE)"
    assert "[FAKE" in verdict.title()
