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
# # Move a defect detector from TensorFlow
#
# ![A steel surface with the boxes of the TensorFlow model and of its INT8 version drawn over each other](images/detection_tensorflow.png)

# %% [markdown]
# **You will** take a detector from a TensorFlow SavedModel to one ONNX file that holds model and post-processing, and to
# an INT8 version that finds what the original finds.
#
# **You will learn**
# - what a conversion does to layouts and to up-sampling, and how to see it
# - to put box decoding and NMS into the graph, and to prove that nothing moved
# - why a whole detector in INT8 can find nothing, and how to find the layers that must stay in float
# - to compare two frameworks in one line, and to look at the pictures that changed
#
# **You need** basic Python; about 6 minutes on 2 CPU cores; no accelerator; nothing to download beyond the packages.
# The steel surfaces in `data/defects` are drawn (CC0), the detector is trained on such drawings (Apache-2.0).
#
# *NMS* is non-maximum suppression: of boxes that overlap, the best is kept. *mAP* is mean average precision, 1 at best;
# *IoU* is the area that two boxes share over the area that they cover. *NHWC* and *NCHW* say where the channels stand.

# %% tags=["parameters"]
data = "../data"  # the project's data folder
runs = "../runs"  # where results are kept; a finished stage is instant the second time
calibration_pictures = 48  # pictures whose activations are measured
test_pictures = 120  # pictures to judge by
judge_pictures = 24  # pictures that confirm which layers cost most
search_seconds = 120  # how long the search may try
rounds = 12  # turns each candidate takes in the benchmark
threads = 2  # of every runtime

# %%
import os
from dataclasses import replace

import numpy as np

import kit
from kit.evidence.scoring import TaskScore
from kit.families import detection

os.environ["KIT_RUNS"] = runs
kit.check_environment("tensorflow", "detection", "openvino", "ui")

# %% [markdown]
# ## The detector
#
# It is of EfficientDet's kind: an EfficientNet backbone, a pyramid that mixes five resolutions with learnt weights, one
# head for classes and one for boxes. `detection.json` beside it says how its raw numbers become boxes.

# %%
saved = f"{data}/models/defects_efficientdet"
heads = detection.Heads.read(saved)
learning = detection.images(f"{data}/defects", "train", heads=heads, limit=calibration_pictures)
testing = detection.images(f"{data}/defects", "test", heads=heads, limit=test_pictures)
task = detection.DetectionTask(heads)
testing

# %% [markdown]
# ## Export
#
# TensorFlow keeps channels last, ONNX runtimes like them first; every border between the two is a *Transpose* that moves
# the whole picture. Up-sampling has half a dozen conventions for where a pixel's middle lies.
#
# **Predict**: how many Transposes will the ONNX graph hold?

# %%
guess = None  # leave None to just look

# %%
panel = kit.ui.panel(kit.export, saved, samples=learning[:2])
panel

# %%
exported = panel.get()
exported

# %%
kit.teach.compare(guess, exported.operators_onnx.get("Transpose", 0))

# %%
assert exported.verdict != "failed", "The ONNX model answers differently."
kit.charts.export_parity(exported)

# %% [markdown]
# **What just happened**: the same pictures went through TensorFlow and through ONNX Runtime, and each output was compared.
# The table of the result says where Transposes stand and what they cost, and how each up-sampling was translated.
#
# <details><summary><b>Going deeper</b>: why a Keras file takes a detour</summary>
#
# `kit.export` takes a SavedModel, a Keras file, a frozen graph or a .tflite. The converter, tf2onnx, does not read Keras
# 3 models, so those are saved as a SavedModel first; a .tflite goes straight to ONNX.
# </details>

# %% [markdown]
# ## Fix
#
# Constants are folded, batch normalisation goes into the convolutions, and what a converter leaves behind disappears. Each
# edit is checked on real pictures.

# %%
panel = kit.ui.panel(kit.fix, exported.model, samples=learning[:2])
panel

# %%
fixed = panel.get()
fixed

# %% [markdown]
# ## From raw numbers to boxes
#
# The network says, for each of 12,276 anchors (boxes of fixed size and place), how to shift it and how likely each class
# is. Decoding turns that into corners; NMS drops doubles. In most migrations both are written again by hand on the other
# side, and that is where detections move by a pixel or vanish. Here they go into the graph, and numpy does the same.

# %%
wanted = detection.NmsOptions(score_threshold=0.3, iou=0.5)
complete = detection.add_nms(fixed.model, heads, wanted, samples=testing[:8])
complete

# %%
with kit.open_runner(complete.model) as run, kit.open_runner(fixed.model) as raw:
    in_graph = detection.read_detections(run(testing[3]))
    in_numpy = detection.detect(raw(testing[3]), heads, wanted)
assert np.allclose(in_graph[0].boxes, in_numpy[0].boxes, atol=1e-3), "The graph and numpy disagree."
for kind, score, *corners in in_graph[0].rows():
    print(f"{heads.classes[kind]:>9}  {score:.2f}  " + "  ".join(f"{corner:6.1f}" for corner in corners))

# %% [markdown]
# ## INT8, the naive way
#
# First everything that can become INT8 does, the way most tools start: ranges from the extremes, one scale for the weights
# of a layer, the whole graph with its decoding.
#
# **Predict**: how much mAP@0.5 will that cost?

# %%
guess = None  # 0.1 would be a tenth of perfect

# %%
from kit.quantization import KNOWN_TYPES

for_map = detection.add_nms(fixed.model, heads, detection.FOR_MAP, samples=testing[:2])
measured_all = kit.calibrate(for_map.model, learning)
naive_way = kit.QuantizeOptions(method="minmax", per_channel=False, bias_correction="no", quantize_types=KNOWN_TYPES)
naive = kit.quantize(for_map.model, measured_all, naive_way)

# %%
drop = kit.verify({"TensorFlow": saved, "ONNX": exported.model, "with NMS": for_map, "naive INT8": naive}, testing, task=task)
drop

# %%
kit.teach.compare(guess, drop.rows[-1].change.loss, unit="of mAP")

# %%
kit.charts.accuracy_waterfall(drop)

# %% [markdown]
# **What just happened**: the float stages are alike, and the naive INT8 model loses. The verdict says in words where
# detections vanish. The thresholds here are low (0.01), as mAP asks for: it judges every ranking of boxes, not one threshold.
#
# <details><summary><b>Going deeper</b>: why decoding cannot be INT8</summary>
#
# A box has corners from 0 to 256 and a score from 0 to 1. If one scale has to serve both, a step is about 1, and every score
# is rounded to 0 or 1. Even alone, a corner in steps of 2 pixels spoils small boxes.
# </details>

# %% [markdown]
# ## The repair finds itself
#
# One layer at a time is made INT8 and the error is looked at right before the NMS: what comes out of it is a list whose order
# and length change, and says little. The dearest layers are confirmed by mAP itself.

# %%
accuracy = TaskScore(task, testing[:judge_pictures])
alone = kit.SensitivityOptions(per_channel=False, method="minmax", confirm=3, quantize_types=KNOWN_TYPES)
ranking = kit.sensitivity(for_map.model, measured_all, options=alone, metric=accuracy)
ranking

# %%
kit.charts.sensitivity_bars(ranking)

# %%
kept = kit.suggest_float(ranking)
dearest = kit.quantize(for_map.model, measured_all, replace(naive_way, keep_float=kept))
repaired = kit.quantize(for_map.model, measured_all, kit.QuantizeOptions(keep_float=kept))
repair = kit.verify({"float": for_map, "naive": naive, "naive, dearest in float": dearest, "repaired": repaired},
                    testing, task=task)
repair

# %% [markdown]
# **What just happened**: the box head with the decoding behind it is ranked first, without anyone having said so. A box's
# error counts by the size of that box and by its score, which is what NMS and mAP care about. With the dearest
# layers in float most of the loss is gone; better ranges and one scale a channel bring the rest.

# %% [markdown]
# ## TensorFlow against INT8, in one line
#
# The same pictures, the same mAP (from pycocotools), and an interval for the difference: what would come out for other
# pictures of the same kind.

# %%
compared = detection.compare({"TensorFlow": saved, "onnxruntime-int8": repaired}, testing, task)
compared

# %%
assert compared.verdict.rows[-1].change.loss <= 0.01, "INT8 loses more than was allowed."
browser = kit.ui.detections(compared)
browser

# %%
kit.charts.changed_picture(compared)

# %% [markdown]
# **What just happened**: the picture that changed most is drawn first, with the boxes of both. The browser steps through the
# others and filters by what was lost, is new, or moved. Seldom does mAP tell as much as looking at ten pictures.

# %% [markdown]
# ## Which version is the fastest?
#
# **Predict**: how many times as fast as TensorFlow will the fastest version be that loses at most a hundredth of mAP?

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
times = kit.benchmark({"TensorFlow": saved, "FP32": fixed.model, "pick": found}, testing[:1], turns)
times

# %%
kit.teach.compare(guess, times.timings[-1].speedup, unit="×")

# %% [markdown]
# **What just happened**: every candidate was timed in turns, so that a busy machine is busy for all. The pick answers with raw
# heads; `detection.detect` turns them into boxes in numpy, or `add_nms` puts that into the file.

# %% tags=["summary"]
story = {"Detector": [exported, fixed, complete, drop, ranking, repair, compared.verdict, found, times]}
page = kit.report(story)
page

# %% [markdown]
# ## Your turn
#
# **1. Stricter boxes.** Put a post-processing into the graph that keeps at most 10 boxes a picture, over all classes.

# %%
exercise_1 = kit.teach.Exercise(
    "Give what add_nms returns for fixed.model, with at most 10 boxes in all.",
    lambda answer: answer.options.total == 10 or f"It keeps {answer.options.total or 'any number'} of them.",
    hints=("NmsOptions has a field total", "the other thresholds may stay as in `wanted`"))
exercise_1.show()

# %% tags=["solution"]
few = None
# Your turn
few = detection.add_nms(fixed.model, heads, replace(wanted, total=10), samples=testing[:4])

# %%
exercise_1.check(few)

# %% [markdown]
# **2. Channels first.** Export the model again so that it takes pictures as NCHW.

# %%
exercise_2 = kit.teach.Exercise(
    "Give an Exported whose input has its three channels second.",
    lambda answer: answer.model.inputs[0].shape[1] == 3 or f"Its input is {answer.model.inputs[0]}.",
    hints=("ExportOptions has a field input_layout", "the SavedModel is `saved`"))
exercise_2.show()

# %% tags=["solution"]
first = None
# Your turn
first = kit.export(saved, kit.ExportOptions(input_layout="NCHW"))

# %%
exercise_2.check(first)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | "has no signature 'serve'; it has: serving_default" | SavedModels are exported by signature | name one that is there |
# | The converter ends without a file | it stopped inside, often at a new numpy or Keras | the error shows the last lines of its log; `kit.check_environment("tensorflow")` names pairs that are known to fail |
# | A .keras file is refused elsewhere | tf2onnx does not read Keras 3 | `kit.export` saves it as a SavedModel first |
# | Boxes are off by half a pixel | Resize with another rule for the middle of a pixel | see the table of Resizes in the export; `kit.fix` has the rule `resize-like-tensorflow` |
# | INT8 finds nothing | boxes and scores under one scale, or decoding in INT8 | rank with `kit.sensitivity`, keep the dearest in float |
# | The ONNX model is slower than hoped | Transposes at the borders | export with `input_layout="NCHW"` and feed that |
# | Boxes differ in their order only | equal scores, and frameworks that break ties in other ways | compare as sets, or with `detection.compare` |

# %% [markdown]
# ## Recap
#
# You took a detector out of TensorFlow, with its post-processing. You have:

# %%
print(f"one ONNX file with model, decoding and NMS: {complete.model.path.name}, {complete.model.size / 1e6:.1f} MB")
print(f"the same in INT8, {repaired.size_after / 1e6:.1f} MB. {compared.title()}")
print(f"the fastest accurate version: {found.pick.candidate.label}, {times.timings[-1].speedup:.2f}x as fast as TensorFlow")

# %% [markdown]
# ## Next
#
# - Forward: [the PP-YOLOE detector from PaddlePaddle](detection_paddle.ipynb), and the same network as a SavedModel
# - Sideways: [Quantize a model and keep its answers](quantization.ipynb), for what ranges and channels do
# - To read: Tan, Pang and Le 2020, [EfficientDet](https://arxiv.org/abs/1911.09070)
