"""Drawn pictures, comparisons and other results of diffusion made by hand: no model runs."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kit.families.diffusion_alarms import Alarm
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_judge import PictureJudge
from kit.families.diffusion_pictures import compare_pictures
from kit.families.diffusion_steps import StepErrors, StepRow, TimestepRow

PROMPTS = ("dark left", "bright <b>sky</b>", "dark right", "bright road", "dark & small")
SIDE = 16


def drawn(name, levels, alarms=(), size=SIDE):
    """A picture of one grey each, with a pattern, so that none is flat; the name of what drew it."""
    made = np.zeros((len(levels), size, size, 3), np.float32) + np.reshape(np.float32(levels), (-1, 1, 1, 1))
    made += 0.05 * np.sin(np.arange(size, dtype=np.float32))[None, :, None, None]
    return Drawn(name, PROMPTS[:len(levels)], DrawOptions(), np.clip(made, 0, 1),
                 np.zeros((len(levels), 4, 2, 2), np.float32), (1,), {}, tuple(alarms))


def reference(**more):
    return drawn("PyTorch", (0.2, 0.8, 0.3, 0.7, 0.25), **more)


def int8(**more):
    """Picture 3 is judged wrong and farthest, then come 1, 2, 4; picture 0 is the same."""
    return drawn("INT8", (0.2, 0.7, 0.32, 0.4, 0.25 + 1e-3), **more)


def broken():
    """Picture 2 is not finite and has an alarm."""
    made = drawn("FP16", (0.2, 0.8, 0.3, 0.7, 0.25), [
        Alarm(2, PROMPTS[2], "NaN", "unet", 4, 801, "its <answer> is NaN")])
    made.pictures[2] = np.nan
    return made


def judge(folder):
    """Says "dark" (0) or "bright" (1) by the mean of a picture."""
    one, weights, bias = (numpy_helper.from_array(value, name) for name, value in (
        ("one", np.array([1], np.int64)), ("w", np.array([[-1.0, 1.0]], np.float32)),
        ("b", np.array([0.5, -0.5], np.float32))))
    nodes = [helper.make_node("ReduceMean", ["picture"], ["m"], axes=[1, 2, 3], keepdims=0),
             helper.make_node("Unsqueeze", ["m", "one"], ["u"]),
             helper.make_node("Gemm", ["u", "w", "b"], ["logits"])]
    graph = helper.make_graph(
        nodes, "judge", [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])], [weights, bias, one])
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              folder / "judge.onnx")
    labels = [{"prompt": prompt, "label": [int(prompt.startswith("bright"))]} for prompt in PROMPTS]
    (folder / "judge.json").write_text(json.dumps({"parts": [2], "prompts": labels}))
    return PictureJudge.read(folder)


def comparison(folder=None, *others):
    """Of INT8, or of what is given, with the reference; judged where there is a folder for the judge."""
    others = others or (int8(),)
    return compare_pictures(reference(), {each.pipeline: each for each in others},
                            judge(folder) if folder is not None else None)


def step_errors(closed=(0.01, 0.02, 0.05), captured=True):
    """Three steps that add 1, 2 and 2 %."""
    added = np.array([[0.01, 0.02, 0.02]] * 2)
    rows = tuple(StepRow(at, timestep, 0.03, 0.04, 0.09, float(added[0, at]), float(closed[at]))
                 for at, timestep in enumerate((901, 501, 1)))
    return StepErrors("PyTorch", "INT8", ("a", "b"), DrawOptions(), rows, added, np.array([closed] * 2),
                      (TimestepRow(701, 4, 0.05, 0.08),) if captured else ())
