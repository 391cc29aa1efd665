"""Pictures compared with a reference's: likeness, a judge, intervals in pairs, and what is refused."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import sd_random
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kit.errors import BadInput
from kit.families.diffusion import Alarm, Drawn, DrawOptions
from kit.families.diffusion_judge import PictureJudge
from kit.families.diffusion_likeness import medians, prompt_weights, psnr, shares, ssim
from kit.families.diffusion_pictures import PictureOptions, compare_pictures

PROMPTS = ("dark", "bright", "dark", "bright")


def drawn(name, pictures, prompts=PROMPTS, alarms=(), **options):
    pictures = np.asarray(pictures, np.float32)
    return Drawn(name, tuple(prompts), DrawOptions(**options), pictures, np.zeros((len(pictures), 4, 2, 2), np.float32),
                 (1,), {}, tuple(alarms))


def pictures(levels, noise=0.0, seed=0):
    """One grey picture, 16 x 16, a level; with a pattern, so that none is flat."""
    made = np.zeros((len(levels), 16, 16, 3), np.float32) + np.reshape(levels, (-1, 1, 1, 1))
    made += 0.05 * np.sin(np.arange(16))[None, :, None, None]
    return (made + noise * np.random.default_rng(seed).standard_normal(made.shape)).astype(np.float32)


@pytest.fixture
def judge(tmp_path):
    """Says "dark" or "bright" by the mean."""
    weights = numpy_helper.from_array(np.array([[-1.0, 1.0]], np.float32), "w")
    bias = numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "b")
    nodes = [helper.make_node("ReduceMean", ["picture"], ["m"], axes=[1, 2, 3], keepdims=0),
             helper.make_node("Unsqueeze", ["m", "one"], ["u"]),
             helper.make_node("Gemm", ["u", "w", "b"], ["logits"])]
    graph = helper.make_graph(
        nodes, "judge", [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [weights, bias, numpy_helper.from_array(np.array([1], np.int64), "one")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              tmp_path / "judge.onnx")
    labels = [{"prompt": "dark", "label": [0]}, {"prompt": "bright", "label": [1]}]
    (tmp_path / "judge.json").write_text(json.dumps({"parts": [2], "prompts": labels}))
    return PictureJudge.read(tmp_path)


def test_psnr_is_the_formula_and_is_bounded():
    left = pictures([0.5])[0]
    assert psnr(left, left) == 100
    assert psnr(left, left + np.float32(0.1)) == pytest.approx(20, abs=1e-3)
    assert psnr(np.zeros_like(left), np.ones_like(left)) == 0
    assert psnr(left, np.full_like(left, np.nan)) == ssim(left, np.full_like(left, np.nan)) == 0


def test_ssim_sees_structure_and_not_only_distance():
    left = np.random.default_rng(0).random((32, 32, 3), np.float32)
    assert ssim(left, left) == pytest.approx(1)
    assert ssim(left, left[::-1]) < 0.2
    with pytest.raises(BadInput, match="5 x 5 are too small"):
        ssim(left[:5, :5], left[:5, :5])


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 4)), min_size=1, max_size=12).filter(
    lambda rows: sum(count for _, count in rows)))
def test_the_weighted_median_is_that_of_the_values_written_out(rows):
    values, counts = np.array([value for value, _ in rows]), np.array([count for _, count in rows])
    assert medians(values, counts[None])[0] == pytest.approx(np.median(np.repeat(values, counts)))
    right = values > 50
    assert shares(right, counts[None])[0] == pytest.approx(np.repeat(right, counts).mean())


def test_pictures_of_one_prompt_are_drawn_together():
    weights = prompt_weights(PROMPTS, 500, 1)
    assert weights.shape == (500, 4)
    np.testing.assert_array_equal(weights[:, :2], weights[:, 2:])
    assert set(weights.sum(axis=1)) == {4}
    np.testing.assert_array_equal(weights, prompt_weights(PROMPTS, 500, 1))


def test_a_row_for_each_pipeline_with_its_change_in_pairs(judge):
    first = drawn("PyTorch", pictures([0.2, 0.8, 0.3, 0.7]))
    same = drawn("ORT", pictures([0.2, 0.8, 0.3, 0.7], noise=1e-3))
    worse = drawn("INT8", pictures([0.2, 0.4, 0.3, 0.4], noise=1e-2))
    found = compare_pictures(first, {"ORT": same, "INT8": worse}, judge)
    assert [row.name for row in found.rows] == ["PyTorch", "ORT", "INT8"]
    assert [row.accuracy for row in found.rows] == [1, 1, 0.5]
    assert found.row("ORT").change.loss == 0
    change = found.row().change
    assert (change.against, change.loss) == ("PyTorch", 0.5)
    assert change.low <= 0.5 <= change.high == 1
    assert found.row("INT8").right == (True, False, True, False)
    assert not found
    assert "INT8: PSNR" in found.title()
    assert "more than the 0.03 allowed is lost" in found.title()
    assert compare_pictures(first, {"ORT": same}, judge)
    table = found.tables()[0]
    assert [row[0] for row in table.rows] == ["PyTorch", "ORT", "INT8"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "rule of three" in str(found)


def test_the_farthest_comes_first_and_is_told_with_what_is_read(judge):
    first = drawn("a", pictures([0.2, 0.8, 0.3, 0.7]))
    found = compare_pictures(first, {"b": drawn("b", pictures([0.2, 0.45, 0.3, 0.75]))}, judge)
    assert found.order()[:2] == (1, 3)
    assert found.tables()[1].rows[0][:2] == (1, "bright")
    assert found.tables()[1].rows[0][4] == "wrong: [0]"


def test_a_border_of_shares_is_no_loss(judge):
    first = drawn("a", pictures([0.8] * 100), ["bright"] * 100)
    other = drawn("b", pictures([0.8] * 97 + [0.2] * 3), ["bright"] * 100)
    assert compare_pictures(first, {"b": other}, judge)
    assert not compare_pictures(first, {"b": other}, judge, PictureOptions(allowed_loss=0.02))


def test_without_a_judge_the_median_psnr_decides():
    first = drawn("a", pictures([0.2, 0.8, 0.3, 0.7]))
    far = drawn("b", pictures([0.5, 0.5, 0.6, 0.4]))
    assert compare_pictures(first, {"b": drawn("b", first.pictures)})
    found = compare_pictures(first, {"b": far})
    assert not found
    assert "below the 20 dB asked for" in found.title()
    assert found.rows[0].accuracy is None


def test_an_alarm_of_its_own_makes_it_false_and_a_broken_picture_shows_nothing(judge):
    first = drawn("a", pictures([0.2, 0.8, 0.3, 0.7]))
    broken = first.pictures.copy()
    broken[0] = np.nan
    alarm = Alarm(0, "dark", "NaN", "unet", 3, 101, "its answer holds NaN")
    found = compare_pictures(first, {"b": drawn("b", broken, alarms=[alarm])}, judge)
    assert not found
    assert found.row("b").psnr[0] == 0
    assert found.row("b").right == (False, True, True, True)
    assert found.row("b").alarmed == (0,)
    assert "b: picture 0 ('dark') is NaN" in found.facts()["ALARM 1"]
    both = drawn("a", broken, alarms=[alarm])
    assert compare_pictures(both, {"b": drawn("b", broken, alarms=[alarm])}, judge), "broken in the reference too"


@pytest.mark.parametrize(("other", "message"), [
    (drawn("b", pictures([0.2] * 4), steps=9), "other options .*: steps 9 and not 20"),
    (drawn("b", pictures([0.2] * 4), ["x"] * 4), "other prompts"),
    (drawn("b", pictures([0.2] * 4)[:, :8]), "other sizes"),
])
def test_pictures_that_do_not_belong_together_are_refused(other, message):
    with pytest.raises(BadInput, match=message):
        compare_pictures(drawn("a", pictures([0.2] * 4)), {"b": other})


def test_names_must_differ_and_are_known(judge):
    first = drawn("a", pictures([0.2] * 4))
    with pytest.raises(BadInput, match="name of the reference"):
        compare_pictures(first, {"a": first})
    with pytest.raises(BadInput, match="'c'"):
        compare_pictures(first, {"b": first}).row("c")
    with pytest.raises(BadInput, match="'grey'"):
        compare_pictures(dataclasses.replace(first, prompts=("grey",) * 4), {}, judge)


def test_another_number_of_threads_is_no_other_picture():
    first, other = drawn("a", pictures([0.2] * 4)), drawn("b", pictures([0.2] * 4), threads=1)
    assert compare_pictures(first, {"b": other})


def test_a_damaged_judge_is_told(judge, tmp_path):
    (tmp_path / "judge.json").write_text('{"parts": [2], "prompts": [{"prompt": "dark", "label": [2]}]}')
    with pytest.raises(BadInput, match=r"label of 'dark' is \[2\]"):
        PictureJudge.read(tmp_path)
    (tmp_path / "judge.json").write_text('{"parts": [2]}')
    with pytest.raises(BadInput, match="lacks its parts"):
        PictureJudge.read(tmp_path)
    with pytest.raises(BadInput, match=r"judge.json says 3 logits"):
        dataclasses.replace(judge, parts=(3,)).answers(pictures([0.1]))


def test_what_is_read_is_said_in_words(judge):
    named = dataclasses.replace(judge, parts=(2, 3, 3, 3, 3), colours=("red", "blue"), shapes=("circle", "square"))
    assert named.words([1, 0, 0, 1, 1]) == "a red circle above a blue square"
    assert named.words([0, 2, 2, 1, 0]) == "a colourless nothing left of a blue circle"


def test_a_pipeline_with_random_weights_is_compared_with_itself_in_another_runtime():
    from kit.families.diffusion import draw

    pipeline = sd_random.pipeline()
    other = pipeline.replaced("OpenVINO", unet=(pipeline.parts["unet"], {"runtime": "openvino", "precision": "f32"}))
    options = DrawOptions(steps=2)
    found = compare_pictures(draw(pipeline, sd_random.PROMPTS, options),
                             {"OpenVINO": draw(other, sd_random.PROMPTS, options)})
    assert found.row("OpenVINO").psnr_of_all.worst > 60
    assert found.row("OpenVINO").ssim_of_all.worst > 0.999
