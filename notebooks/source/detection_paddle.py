# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags
#     notebook_metadata_filter: kernelspec,-all
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Move a PP-YOLOE detector from PaddlePaddle, into TensorFlow too
#
# ![A steel surface with the boxes of the Paddle model and of its INT8 version drawn over each other](images/detection_paddle.png)

# %% [markdown]
# **You will** take a detector of PP-YOLOE's kind out of PaddlePaddle: its second input, its NMS and its scores made fit for
# INT8, and the same network as a SavedModel for a platform that is built on TensorFlow.
#
# **You will learn**
# - to fold PaddleDetection's `scale_factor` and to take NMS out of a graph, with the proof that nothing moved
# - why boxes and scores under one INT8 scale detect nothing, and how the repair finds itself
# - to turn ONNX into a SavedModel, and to judge whether it answers alike
# - to compare Paddle, ONNX Runtime and TensorFlow in one line
#
# **You need** basic Python; about 8 minutes on 2 CPU cores; no accelerator. The SavedModel needs a converter that is kept in an
# environment of its own: about 0.5 GB are downloaded the first time, and can be removed again; set `savedmodel = False` to
# leave it out. The steel surfaces in `data/defects` are drawn (CC0), the detector is trained on such drawings (Apache-2.0).
#
# *NMS* is non-maximum suppression: of boxes that overlap, the best is kept. *mAP* is mean average precision, 1 at best.

# %% tags=["parameters"]
data = "../data"  # the project's data folder
runs = "../runs"  # where results are kept; a finished stage is instant the second time
calibration_pictures = 48  # pictures whose activations are measured
test_pictures = 120  # pictures to judge by
judge_pictures = 24  # pictures that confirm which layers cost most
search_seconds = 120  # how long the search may try
savedmodel = True  # also make a TensorFlow SavedModel
rounds = 12  # turns each candidate takes in the benchmark
threads = 2  # of every runtime

# %%
import os
from dataclasses import replace

import kit
from kit.evidence.scoring import TaskScore
from kit.families import detection

os.environ["KIT_RUNS"] = runs
kit.check_environment("paddle", "detection", "openvino", "ui")

# %% [markdown]
# ## The detector
#
# PaddleDetection exports a network with two inputs: the picture, and `scale_factor`, by how much it was resized. The graph
# divides its boxes by it, and ends in an NMS of Paddle's own.

# %%
folder = f"{data}/models/defects_ppyoloe"
heads = detection.Heads.read(folder)
learning = detection.images(f"{data}/defects", "train", heads=heads, limit=calibration_pictures)
testing = detection.images(f"{data}/defects", "test", heads=heads, limit=test_pictures)
task = detection.DetectionTask(heads)
testing

# %% [markdown]
# ## Export
#
# **Predict**: the NMS becomes ONNX operators. Will the exported model still take a batch of two pictures?

# %%
guess = None  # True or False; leave None to just look

# %%
one_picture = kit.ExportOptions(probe=("image=1,3,256,256; scale_factor=1,2",))
panel = kit.ui.panel(kit.export, folder, samples=learning[:2], options=one_picture)
panel

# %%
exported = panel.get()
exported

# %%
suppression = detection.find_nms(exported.model)
suppression[0]

# %%
kit.teach.compare(guess, False)

# %% [markdown]
# **What just happened**: the converter writes the NMS for one picture only, and says so. What it became was found in the graph:
# who made it, with which thresholds, and what goes in.

# %% [markdown]
# ## Fix: one input, no NMS
#
# First the NMS is cut off, then the second input is folded to 1. Both are proven: numpy's NMS must find, to the last
# bit, what the uncut graph found; and boxes that are divided afterwards must be the old ones.

# %%
cut = detection.cut_nms(exported.model, heads, samples=testing[:4])
cut

# %%
folded = detection.fold_scale_factor(cut.model, cut.heads, samples=testing[:4])
folded

# %%
heads = folded.heads
learning = detection.images(f"{data}/defects", "train", heads=heads, limit=calibration_pictures)  # without the factor
panel = kit.ui.panel(kit.fix, folded.model, samples=learning[:2])
panel

# %%
fixed = panel.get()
task = detection.DetectionTask(heads)
fixed

# %% [markdown]
# **What just happened**: the network takes one picture or many again, and gives plain boxes and scores. Its boxes are in pixels of
# its input; the task below scales them back to the picture.
#
# <details><summary><b>Going deeper</b>: where scale_factor goes wrong</summary>
#
# It holds height before width, resized over original, and the boxes are divided by it as width before height. Runtimes that
# feed it swapped, or as float64, or leave it at zero, give boxes that look plausible on square pictures. Folded, it cannot be fed.
# </details>

# %% [markdown]
# ## INT8, the naive way
#
# Many exports have a single output: boxes and scores side by side in one tensor, pixels beside probabilities. The cell below
# joins the two here as those exports do; in float nothing changes.
#
# **Predict**: everything that can become INT8 does, with ranges from the extremes. How much mAP@0.5 will that cost?

# %%
guess = None  # 0.1 would be a tenth of perfect

# %%
from kit.quantization import KNOWN_TYPES

joined = kit.teach.merged_heads(fixed.model, f"{runs}/lesson/joined.onnx", heads.boxes, heads.scores)
measured = kit.calibrate(joined, learning)
naive_way = kit.QuantizeOptions(method="minmax", per_channel=False, bias_correction="no", quantize_types=KNOWN_TYPES)
naive = kit.quantize(joined, measured, naive_way)
apart = kit.quantize(fixed.model, kit.calibrate(fixed.model, learning), naive_way)
naive

# %%
steps = {"Paddle": folder, "ONNX": fixed.model, "naive, two outputs": apart, "one output": joined,
         "naive, one output": naive}
drop = kit.verify(steps, testing, task=task)
drop

# %%
kit.teach.compare(guess, drop.rows[-1].change.loss, unit="of mAP")

# %%
kit.charts.accuracy_waterfall(drop)

# %% [markdown]
# **What just happened**: boxes and scores apart, even the naive INT8 model answers well here. Joined, it finds *nothing*, in any
# picture: one scale for 0 to 256 pixels has steps of 1, and every probability is rounded to 0. No tool fails, no
# warning appears; only the alarm of the verdict says so.

# %% [markdown]
# ## The repair finds itself
#
# One layer at a time is made INT8, and the error of the outputs is looked at.

# %%
accuracy = TaskScore(task, testing[:judge_pictures])
alone = kit.SensitivityOptions(per_channel=False, method="minmax", confirm=3, quantize_types=KNOWN_TYPES)
ranking = kit.sensitivity(joined, measured, options=alone, metric=accuracy)
ranking

# %%
kit.charts.sensitivity_bars(ranking)

# %%
kept = kit.suggest_float(ranking)
print("stay in float:", ", ".join(kept))
repaired = kit.quantize(joined, measured, kit.QuantizeOptions(keep_float=kept))
complete = detection.add_nms(repaired.model, heads, detection.FOR_MAP, samples=learning[:4])
complete

# %% [markdown]
# **What just happened**: one layer makes nearly all of the noise, the one whose result ends in the joined tensor. It and the
# arithmetic behind it stay in float; everything before is INT8.

# %% [markdown]
# ## Paddle against INT8, in one line

# %%
compared = detection.compare({"Paddle": folder, "onnxruntime-int8": complete}, testing, task)
compared

# %%
assert compared.verdict.rows[-1].change.loss <= 0.01, "INT8 loses more than was allowed."
browser = kit.ui.detections(compared)
browser

# %%
kit.charts.changed_picture(compared)

# %% [markdown]
# **What just happened**: Paddle answered with its own NMS, ONNX Runtime with the one in the graph. The picture that changed most
# is drawn with the boxes of both.

# %% [markdown]
# ## Into TensorFlow
#
# Some platforms (TensorFlow Serving, Kunlunxin's) load SavedModels and nothing else. A converter, onnx2tf, translates each operator;
# it pins old packages, so it lives in an environment of its own. The result is loaded with TensorFlow and compared.

# %%
into_tensorflow = kit.SavedModelOptions(name="defects")
served = kit.compile(fixed.model, into_tensorflow, samples=learning[:3]) if savedmodel else None
served

# %%
stages = {"Paddle": folder, **({"TensorFlow": served} if savedmodel else {}), "onnxruntime-int8": complete}
everywhere = detection.compare(stages, testing, task)
everywhere

# %% [markdown]
# **What just happened**: the version directory holds what a server expects: the signature, the variables, and requests to warm up
# with. Its largest error against the ONNX model is in the table; up to 1e-5 of the largest value counts as equal.

# %% [markdown]
# ## Which version is the fastest?
#
# **Predict**: how many times as fast as Paddle Inference will the fastest version be that loses at most a hundredth of mAP?

# %%
guess = None

# %%
asked = kit.SearchOptions(loss=0.01, seconds=search_seconds)
search = kit.ui.search(fixed.model, learning, metric=TaskScore(task, testing), options=asked)
search

# %%
found = search.get()
found

# %%
kit.charts.pareto(found)

# %%
turns = kit.BenchmarkOptions(rounds=rounds, threads=threads)
times = kit.benchmark({"Paddle": folder, "FP32": fixed.model, "pick": found}, testing[:1], turns)
times

# %%
kit.teach.compare(guess, times.timings[-1].speedup, unit="×")

# %% [markdown]
# **What just happened**: Paddle's time holds its NMS, which the others leave to numpy here; add the post-processing to the graph
# with `add_nms` where that matters, and time it again.

# %% tags=["summary"]
story = {"Detector": [exported, cut, folded, fixed, drop, ranking, repaired, everywhere.verdict, found, times]}
page = kit.report(story)
page

# %% [markdown]
# ## Your turn
#
# **1. Who suppresses?** Name the tool whose NMS stands in the exported graph, as `find_nms` tells it.

# %%
exercise_1 = kit.teach.Exercise(
    "Give the value of the field that says who made the NMS.",
    lambda answer: answer == suppression[0].maker or "That is not what the result says.",
    hints=("look at the fields of suppression[0]", "the field is called maker"))
exercise_1.show()

# %% tags=["solution"]
maker = None
# Your turn
maker = suppression[0].maker

# %%
exercise_1.check(maker)

# %% [markdown]
# **2. By hand.** Quantize the joined model with every `Concat` in float instead. Does it still find defects?

# %%
exercise_2 = kit.teach.Exercise(
    "Give the Quantized of the naive settings, with the operator type Concat in float.",
    lambda answer: any(n.asked == "float" and n.operator == "Concat" for n in answer.nodes)
    or "No Concat was kept in float.",
    hints=("QuantizeOptions has keep_float_types", "dataclasses.replace(naive_way, ...) changes one field"))
exercise_2.show()

# %% tags=["solution"]
by_type = None
# Your turn
by_type = kit.quantize(joined, measured, replace(naive_way, keep_float_types=("Concat",)))

# %%
exercise_2.check(by_type)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | The export says "only supports inference with input batch_size == 1" | Paddle's NMS in the graph | `detection.cut_nms`, then `add_nms` where one file is wanted |
# | "needs input 'scale_factor' too" | PaddleDetection exports two inputs | `detection.fold_scale_factor`, or `Samples(scale_factor="scale_factor")` |
# | INT8 finds nothing | boxes and scores share a scale, or decoding runs in INT8 | rank with `kit.sensitivity`, keep the dearest in float |
# | Boxes are right on square pictures only | height and width of `scale_factor` swapped | fold it |
# | "onnx2tf is not installed" | its environment is made on first use, and needs a network | `kit.SavedModelOptions(install=True)`; remove it with `kit.environments.remove("onnx2tf")` |
# | The SavedModel differs by more than 1e-3 | an operator that was translated otherwise, often Resize or Pad | the result names the first layer that differs |
# | A server refuses the SavedModel | it holds a Python function (`how="call"`) | compile with `how="convert"` |

# %% [markdown]
# ## Recap
#
# You took a PP-YOLOE detector out of PaddlePaddle, with one input and its NMS under control. You have:

# %%
print(f"model and NMS in one INT8 file: {complete.model.path.name}, {complete.model.size / 1e6:.1f} MB")
print(everywhere.title())
print(f"the fastest accurate version: {found.pick.candidate.label}, {times.timings[-1].speedup:.2f}x as fast as Paddle")

# %% [markdown]
# ## Next
#
# - Forward: [Prepare a model for an Ascend server](ascend.ipynb)
# - Sideways: [the same data in TensorFlow](detection_tensorflow.ipynb), with layouts and up-sampling
# - To read: Xu et al. 2022, [PP-YOLOE](https://arxiv.org/abs/2203.16250)
