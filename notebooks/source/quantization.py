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
# # Quantize a model and keep its answers
#
# ![Loss against latency of everything that a search tried on a text recogniser, with the pick ringed](images/quantization.png)

# %% [markdown]
# **You will** turn float models into INT8 ones, see where each decision helps or hurts, and let a search find the
# fastest version that still answers well enough on your own machine.
#
# **You will learn**
# - what a range is, why clipping can help, and how wrong ranges break a model
# - why one scale per channel rescues depthwise convolutions
# - to find the layers that cost most, and to decide on them with figures
# - when training with rounding in the loop (QAT) beats rounding afterwards (PTQ)
#
# **You need** basic Python; about 8 minutes on 2 CPU cores; no accelerator; nothing to download beyond the packages.
# The digits are real scans (UCI, through scikit-learn, CC BY 4.0); slips CC0, models Apache-2.0; all lie in `data/`.
#
# *FP32* numbers take 32 bits, *INT8* numbers 8. *PTQ* is post-training quantization, *QAT* quantization-aware training,
# *QDQ* the form of an ONNX file that marks what is rounded with QuantizeLinear and DequantizeLinear.

# %% tags=["parameters"]
data = "../data"  # the project's data folder
runs = "../runs"  # where results are kept; a finished stage is instant the second time
calibration_lines = 96  # text lines whose activations are measured
test_lines = 200  # text lines to judge by
search_seconds = 120  # how long the search may try
rounds = 12  # turns each candidate takes in the last benchmark
threads = 2  # of every runtime

# %%
import os
from dataclasses import replace

import numpy as np

import kit
from kit.families import digits

os.environ["KIT_RUNS"] = runs
kit.check_environment("paddle", "ocr", "openvino", "ui")

# %% [markdown]
# ## A small network on real digits
#
# The first half uses a convolutional network that reads 8x8 scans of handwritten digits. It was trained in PyTorch by
# the recipe in `data/recipes/digits`, and is small enough that every experiment takes a second.

# %%
folder = f"{data}/models/digits"
float_digits = kit.Model.open(f"{folder}/digits.onnx")
calibration_digits = digits.digits_samples("calibration", data)
test_digits = digits.digits_samples("test", data)
task = digits.DigitsTask()
first = kit.verify({"FP32": float_digits}, test_digits, task=task)
first

# %% [markdown]
# ## Ranges: what calibration measures
#
# INT8 has 256 values. To store a tensor in them, we must say which part of the number line they cover: its *range*.
# A range that is too wide wastes steps; one that is too narrow clips. Calibration runs real inputs through the float
# model and keeps a histogram of each tensor, from which any range can be chosen later.
#
# **Predict**: calibrating with 20 digits is forecast to take the memory printed below. What will 200 digits take?

# %%
few = kit.forecast(float_digits, calibration_digits[:20])
print(f"20 digits: {few.memory / 1e6:.0f} MB")
guess = None  # MB for 200 digits; leave None to just look

# %%
expected = kit.forecast(float_digits, calibration_digits, kit.CalibrateOptions(samples=200))
kit.teach.compare(guess, round(expected.memory / 1e6), unit="MB")

# %%
everything = kit.CalibrateOptions(samples=200)
panel = kit.ui.panel(kit.calibrate, float_digits, calibration_digits, options=everything)
panel

# %%
measured = panel.get()
measured

# %%
assert measured.complete, "A guard stopped the calibration early."
ranges = kit.ui.ranges(measured)
ranges

# %%
widest = max(measured.tensors, key=lambda tensor: tensor.maximum - tensor.minimum)
kit.charts.range_chart(measured, widest.name)

# %% [markdown]
# **What just happened**: the forecast came first, and it does not depend on the number of samples: only histograms are
# kept. The picture shows one of them with the range that each method would choose, and below it the error for every
# place where one could clip: rounding gets finer as the range shrinks, and clipping gets worse. The best range lies where the two
# lines meet, seldom at the largest value.
#
# <details><summary><b>Going deeper</b>: why the histogram is exact</summary>
#
# The width of a bin is always a power of two, and the grid starts at zero. When a larger value arrives, neighbouring
# bins are added in pairs and the width doubles; that is exactly what one would have counted with the wide bins from the
# start. So the order of the samples, how they are cut into batches, or a run that was interrupted and resumed leave no
# trace: the result has the same bytes.
# </details>

# %% [markdown]
# ## What goes wrong elsewhere
#
# Here are the faults of ONNX Runtime's own calibrators, live, on a network of one convolution that changes nothing.
# Eight samples of ordinary noise; the third holds a single 60.

# %%
from kit.evidence.other_calibrators import onnxruntime_ranges

noise = np.random.default_rng(0)
toy = kit.teach.passing_model(f"{runs}/toy.onnx", shape=(1, 1, 32, 32))
samples = [{"x": noise.standard_normal((1, 1, 32, 32)).astype("float32")} for _ in range(8)]
samples[2]["x"][0, 0, 3, 3] = 60
print("theirs, min-max          ", onnxruntime_ranges(toy, samples)["x"])
print("theirs, at most 3 outputs", onnxruntime_ranges(toy, samples, max_intermediate_outputs=3)["x"])
print("theirs, entropy          ", onnxruntime_ranges(toy, samples, "entropy")["x"])

# %% [markdown]
# With a limit on the outputs kept in memory the outlier is *dropped*, without a word; and the entropy method, which is
# meant to clip, returns min-max: with its default settings it has only one candidate. Now the same samples in another order,
# collected in four portions:

# %%
for name, some in {"in order": samples, "backwards": samples[::-1]}.items():
    theirs = onnxruntime_ranges(toy, some, "percentile", batches=4)["x"]
    ours = kit.calibrate(toy, some).ranges("percentile", percentile=99.999)["x"]
    print(f"{name:>9}: theirs {theirs[0]:.3f} to {theirs[1]:.3f}, ours {ours[0]:.3f} to {ours[1]:.3f}")

# %% [markdown]
# The last fault is the quietest: a sample with NaN ("not a number", the result of 0/0) in it.

# %%
broken = [dict(sample) for sample in samples]
broken[5]["x"] = np.where(broken[5]["x"] > 3, np.nan, broken[5]["x"]).astype("float32")
print("theirs:", onnxruntime_ranges(toy, broken)["x"])
try:
    kit.calibrate(toy, broken)
except kit.KitError as error:
    print("ours:  ", error, "|", error.remedy)

# %% [markdown]
# ## Quantize, the naive way and per channel
#
# **Predict**: with min-max ranges and one scale for all weights of a layer, how much of the accuracy is lost?

# %%
guess = None  # 0.1 would be ten digits of a hundred

# %%
naive_way = kit.QuantizeOptions(method="minmax", per_channel=False, bias_correction="no")
naive = kit.quantize(float_digits, measured, naive_way)
panel = kit.ui.panel(kit.quantize, float_digits, measured)
panel

# %%
quantized = panel.get()
quantized

# %%
steps = {"FP32": float_digits, "naive INT8": naive, "INT8 per channel": quantized}
verdict = kit.verify(steps, test_digits, task=task)
verdict

# %%
kit.teach.compare(guess, verdict.rows[1].change.loss, unit="of accuracy")

# %%
kit.charts.weight_channels(float_digits)

# %% [markdown]
# **What just happened**: each bar is one channel's largest weight; the line is what one scale for all of them must
# cover. A small channel then uses a handful of the 255 steps. One scale per channel gives each all of them, and costs
# nothing at run time.

# %% [markdown]
# ## Sensitivity: which layers cost most?
#
# One layer at a time is made INT8, and the output is compared with float: that needs no labels and takes a run each.
# For the three that cost most, the accuracy is measured too. Ticks say what goes into INT8.

# %%
from kit.evidence.scoring import TaskScore

alone = kit.SensitivityOptions(per_channel=False, method="minmax", confirm=3)
accuracy = TaskScore(task, test_digits)
ranking = kit.sensitivity(float_digits, measured, options=alone, metric=accuracy)
picker = kit.ui.layers(ranking)
picker

# %%
kept = picker.get() or kit.suggest_float(ranking, groups=4)  # what you took the ticks off, or the four dearest
mixed = kit.quantize(float_digits, measured, replace(naive_way, keep_float=kept))
verdict = kit.verify({"FP32": float_digits, "naive INT8": naive, "naive, dearest in float": mixed}, test_digits, task=task)
kit.charts.sensitivity_bars(ranking)

# %%
verdict

# %% [markdown]
# **What just happened**: the depthwise layers, and the ones that feed them, do nearly all of the damage. With four of
# eleven layers in float the accuracy is back, even with the naive settings for all others. Noise at the output ranks
# quickly and needs no labels, but it is not the accuracy: look at the column `metric` of `ranking` and compare.

# %% [markdown]
# ## Repairs that cost nothing at run time
#
# *Cross-layer equalization* moves scale from one layer's channels into the next, which changes no answer, so that one
# scale fits all channels. *Bias correction* takes back the mean shift that rounding the weights causes; that helps when
# the rounding error is small, and can hurt when it is not, so `kit.quantize` keeps it only where the output gains.
#
# **Predict**: which of the two will rescue the naive settings?

# %%
equalized = kit.equalize(float_digits, samples=calibration_digits[:4])
equalized

# %%
remeasured = kit.calibrate(equalized.model, calibration_digits, everything)
tries = {
    "naive": naive,
    "with bias correction": kit.quantize(float_digits, measured, replace(naive_way, bias_correction="yes")),
    "equalized": kit.quantize(equalized.model, remeasured, naive_way),
}
repairs = kit.verify({"FP32": float_digits, **tries}, test_digits, task=task)
repairs

# %% [markdown]
# ## Training with rounding in the loop
#
# Down to INT8, rounding afterwards is often enough. With 4-bit weights it is not: there the network must be trained
# while its weights are rounded. The recipe did both with torchao; the four models are read here as they came from PyTorch.

# %%
names = ("PTQ INT8", "QAT INT8", "PTQ INT4", "QAT INT4")
files = {name: f"{folder}/digits_{name.lower().replace(' ', '_')}.onnx" for name in names}
trained = {name: kit.read_quantized(path, float_digits) for name, path in files.items()}
trained["QAT INT4"]

# %%
bits = kit.verify({"FP32": float_digits, **trained}, test_digits, task=task)
kit.charts.accuracy_waterfall(bits)

# %%
bits

# %% [markdown]
# **What just happened**: at 8 bits the two lie within each other's intervals; at 4 bits rounding afterwards loses,
# and training with it wins most of that back. QAT needs the training data and the time: try PTQ first.

# %% [markdown]
# ## The search: the fastest that is accurate enough
#
# INT8 is not always faster: an operator without an integer kernel costs two conversions, and another runtime in
# another precision may win. So the kit measures instead of believing. Take the text recogniser of the bank slips.

# %%
from kit.families import ocr, ocr_models, ocr_tasks

recogniser = kit.export(ocr_models.models("receipts", data).recogniser)
fixed = kit.fix(recogniser.model, kit.FixOptions(opset=17))
two_sizes = replace(ocr.RECOGNISER, multiple=320)  # 320 or 640 pixels wide: a runtime prepares itself for each size
lines = ocr_tasks.lines(f"{data}/receipts", "calibration", limit=calibration_lines, preprocess=two_sizes)
judged = ocr_tasks.lines(f"{data}/receipts", "test", limit=test_lines, preprocess=two_sizes)
reading = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(recogniser.model.path)))

# %% [markdown]
# **Predict**: how many times as fast as FP32 in ONNX Runtime will the fastest version be that loses at most 1 point?

# %%
guess = None

# %%
wanted = kit.SearchOptions(loss=0.01, seconds=search_seconds)
search = kit.ui.search(fixed.model, lines, metric=TaskScore(reading, judged), options=wanted)
search

# %%
found = search.get()
found

# %%
kit.teach.compare(guess, found.pick.speedup, unit="×")

# %%
kit.charts.pareto(found)

# %% [markdown]
# **What just happened**: each mark is one version that was built and timed in turns with FP32. What lies to the right of
# the dashed line loses too much; the grey strip holds those that were slower than one already known to be accurate, so
# their loss was not measured. The pick is the fastest on the left, measured once more against its nearest rivals.

# %%
turns = kit.BenchmarkOptions(rounds=rounds, threads=threads)
times = kit.benchmark({"FP32": fixed.model, "pick": found}, judged[:1], turns)
times

# %%
final = kit.verify({"FP32": fixed.model, "pick": found}, judged, task=reading)
assert final.rows[-1].change.loss <= 0.02, "The pick loses more than was allowed, on all lines."
final

# %% tags=["summary"]
story = {"Digits": [measured, quantized, verdict, repairs, bits], "Recogniser": [recogniser, fixed, found, final, times]}
page = kit.report(story)
page

# %% [markdown]
# ## Your turn
#
# **1. Clip by hand.** Choose the upper end of the range of `widest` so that the mean squared error is smallest.

# %%
from kit.int8.ranges import error_curve

curve = error_curve(measured.histogram(widest.name), points=200)


def clip_is_good(answer):
    error = np.interp(answer, curve.clips, curve.errors)
    if error <= 1.1 * curve.errors.min():
        return True
    return "Too high: rounding costs more." if answer > curve.clips[curve.errors.argmin()] else "Too low: it clips."


exercise_1 = kit.teach.Exercise(
    "Give the upper end, in the tensor's own unit, with the least error of rounding and clipping together.",
    clip_is_good,
    hints=("the lower line of the chart above has its minimum there",
           'measured.ranges("mse")[widest.name] is what the kit would take'))
exercise_1.show()

# %% tags=["solution"]
clip = None
# Your turn
clip = measured.ranges("mse")[widest.name][1]

# %%
exercise_1.check(clip)

# %% [markdown]
# **2. Both directions.** Rank the layers by what the output gains when a layer alone is spared. Is the same one on top?

# %%
exercise_2 = kit.teach.Exercise(
    "Give a Sensitivity of the naive settings in the direction 'spared'.",
    lambda answer: answer.direction == "spared" or "That one quantizes each layer alone.",
    hints=("SensitivityOptions has a field direction", "keep per_channel=False and method='minmax' as above"))
exercise_2.show()

# %% tags=["solution"]
spared = None
# Your turn
spared = kit.sensitivity(float_digits, measured, options=kit.SensitivityOptions(
    per_channel=False, method="minmax", direction="spared"))

# %%
exercise_2.check(spared)

# %% [markdown]
# **3. Half the search.** Search again with OpenVINO left out. What does that cost?

# %%
exercise_3 = kit.teach.Exercise(
    "Give a Found whose trials use ONNX Runtime alone.",
    lambda answer: {trial.candidate.runtime for trial in answer.trials} == {"onnxruntime"}
    or "Some trials use another runtime.",
    hints=("SearchOptions has a field runtimes", 'runtimes=("onnxruntime",)'))
exercise_3.show()

# %% tags=["solution"]
without = None
# Your turn
without = kit.search(fixed.model, lines, replace(wanted, runtimes=("onnxruntime",)), metric=TaskScore(reading, judged))

# %%
exercise_3.check(without)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | `In ...: ... made 3 NaN` during calibration | an input or a layer overflows in float already | look at that sample; `bad_values="skip"` leaves such samples out and names them |
# | "has opset 12; INT8 ... needs opset 13" | an old export | `kit.fix(model, kit.FixOptions(opset=17))` |
# | INT8 answers nonsense | one scale for all channels, or ranges by min-max with an outlier | `per_channel=True`, another `method`, then `kit.sensitivity` |
# | INT8 is slower than FP32 | operators without an integer kernel, conversions between them | `kit.why_not_faster`; or `kit.search`, which tries other runtimes and precisions |
# | "StaleResult" when quantizing | the calibration belongs to another model (it was fixed or equalized afterwards) | calibrate that model again |
# | Calibration stopped early | the guard reached `memory_limit_mb` or `seconds` | call again: it goes on where it stopped; or give more room |
# | Two people get different ranges with another tool | its histograms depend on order and batch size | calibrate here: same samples, same bytes |
# | A search takes too long | every trial is built and timed | lower `seconds`: the best so far is always on disk; or give an `executor` with more machines |

# %% [markdown]
# ## Recap
#
# You turned float models into INT8 ones, saw what each decision did, and let a search choose. You have:

# %%
print(f"the digits network in INT8: {quantized.ratio:.2f} of its size, "
      f"{verdict.metric} within {abs(verdict.rows[-1].change.loss):.3f} of float where it was repaired")
print(f"the recogniser's fastest accurate version: {found.pick.candidate.label}, {found.pick.speedup:.2f}x as fast as FP32")
print("the log of every trial, and the report with the proof")

# %% [markdown]
# ## Next
#
# - **Forward**: give `kit.search` a model of your own and a list of samples; without labels it judges by the outputs.
# - **Sideways**: `ocr.ipynb` shows the whole way from PaddlePaddle, with these steps in their place.
# - **To read**: Nagel et al. 2021, "A White Paper on Neural Network Quantization" (arXiv 2106.08295).
