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
# # Move an OCR model from PaddlePaddle to a verified, faster INT8 model
#
# ![A bank slip with numbered boxes around every line of text that the migrated models found](images/ocr.jpg)

# %% [markdown]
# **You will** take a text detector and a text recogniser that were trained in PaddlePaddle, and end with two INT8
# models that read the same bank slips, with the proof and the measured speed in one report.
#
# **You will learn**
# - to find out, at every step, whether the model still answers as it did, and which step broke it
# - to see what plain quantization costs, layer by layer, and to repair it
# - to compare latencies on a noisy machine without fooling yourself
# - to leave the panels behind: each one shows the Python call it makes
#
# **You need** basic Python; about 5 minutes on 2 CPU cores; no accelerator; nothing to download beyond the packages.
# Models and slips lie in `data/` (models Apache-2.0, slips CC0).
#
# *OCR* is optical character recognition. *ONNX* is a file format for neural networks that most runtimes read.
# *FP32* numbers take 32 bits, *INT8* numbers 8.

# %% tags=["parameters"]
model = "receipts"  # "receipts": the small models in data/; "ppocrv4": PaddleOCR's real ones (rapidocr-onnxruntime)
data = "../data"  # the project's data folder
runs = "../runs"  # where results are kept; a finished stage is instant the second time
calibration_pages = 24  # slips whose activations are measured
calibration_lines = 160  # text lines likewise
test_pages = 48  # slips to judge by
test_lines = 600  # text lines to judge by
threads = 2  # of every runtime
hard_lines = 80  # text lines for the model that quantization breaks
detector_float = 0  # groups of the detector's layers that stay in float, dearest first; ppocrv4 needs 4
rounds = 20  # turns each runtime takes in the benchmark

# %%
import os

import kit
from kit.families import ocr, ocr_models, ocr_tasks

os.environ["KIT_RUNS"] = runs
kit.check_environment("paddle", "ocr", "ui")

# %% [markdown]
# ## Look at the task first
#
# A slip goes through two networks. The *detector* marks where text is; the *recogniser* reads one line at a time.
# Before anything is converted, let the original detector look at a slip. No ONNX is involved yet: `kit.open_runner`
# runs the Paddle model in a process of its own, takes a dictionary of arrays and gives one back.

# %%
source = ocr_models.models(model, data)
pages = ocr_tasks.pages(f"{data}/receipts", "test", limit=test_pages)
first = pages.items[0]
with kit.open_runner(source.detector, threads=threads) as detect:
    boxes = ocr.sort_boxes(ocr_tasks.DetectorTask().answer(detect(pages[0]), first, pages[0]))
    print(detect)
kit.charts.page(first.load(), boxes, truth=first.truth.quads)

# %% [markdown]
# Thick numbered boxes were found, thin ones are the truth. This picture is what must not change while the model moves.

# %% [markdown]
# ## Export: from Paddle to ONNX
#
# Every later step works on ONNX. An export can change the answers without a word: a shape gets frozen, a
# normalisation layer stays in training mode. So the comparison with the original is part of this stage.
#
# **Predict**: how far apart will the two runtimes be, at the worst of all pixels of all maps?

# %%
guess = None  # for example 1e-3; leave None to just look

# %%
panel = kit.ui.panel(kit.export, source.detector, samples=pages[:4])
panel

# %%
detector = panel.get()
detector

# %%
worst = max(row.max_abs for row in detector.parity)
assert detector, "The export changed the answers: see the table above for the output and the usual causes."
kit.teach.compare(guess, worst)

# %% [markdown]
# The recogniser goes the same way, without a panel: the call is what the panel shows under its buttons.

# %%
lines = ocr_tasks.lines(f"{data}/receipts", "test", limit=test_lines)
recogniser = kit.export(source.recogniser, samples=lines[:8])
characters = tuple(ocr.characters_of(recogniser.model.path))
recogniser

# %%
kit.charts.operator_map(detector)

# %% [markdown]
# **What just happened**: the chart counts operators before and after. One Paddle operator often becomes several ONNX
# operators; that is why a count alone never proves an export right, and the comparison of outputs does.

# %% [markdown]
# <details><summary><b>Going deeper</b>: what counts as equal</summary>
#
# Two correct runtimes add the same numbers in a different order, so the last bits differ. The kit calls a largest
# difference up to 1e-5 *equal* and above 1e-3 *failed*; for outputs larger than 1 it is taken relative to the largest
# magnitude. Between the two it warns and shows the index of the worst element.
# </details>

# %% [markdown]
# ## Audit: what will the target take?
#
# A runtime or compiler refuses operators it does not know, usually one at a time and late. The audit asks about all of
# them at once, and says who claims it: the runtime itself where it is installed, the vendor's tables where it is not.

# %%
panel = kit.ui.panel(kit.audit, detector.model, options=kit.AuditOptions(target="onnxruntime"))
panel

# %%
audited = panel.get()
audited

# %% [markdown]
# The same question for a Huawei Ascend 310P3, which is not in this machine. Its answers come from the facts that the
# kit carries; a registered operator can still fail inside Ascend's compiler.

# %%
kit.audit(detector.model, kit.AuditOptions(target="ascend310p3"))

# %%
kit.charts.operator_support(audited)

# %% [markdown]
# **What just happened**: a few convolutions do nearly all of the arithmetic. Quantization pays where the long bars are.

# %% [markdown]
# ## Fix: rewrite what can be better, and prove each edit
#
# Exporters leave debris: constants computed at run time, activations in pieces, normalisation layers that could be
# part of a convolution. Each rule below says why it acts, is checked on real slips, and can be undone alone.
#
# **Predict**: how many nodes will be left of every 100?

# %%
guess = None

# %%
edits = kit.FixOptions(opset=17)  # HardSwish and LayerNormalization are one operator each in it
panel = kit.ui.panel(kit.fix, detector.model, samples=pages[:2], options=edits)
panel

# %%
fixed_detector = panel.get()
fixed_detector

# %%
before, after = sum(fixed_detector.operators_before.values()), sum(fixed_detector.operators_after.values())
fixed_recogniser = kit.fix(recogniser.model, edits, samples=lines[:4])
kit.teach.compare(guess, 100 * after / before, unit="of 100")

# %%
kit.charts.operator_counts(fixed_detector)

# %% [markdown]
# **What just happened**: copies vanished, normalisation moved into the weights of the convolutions, what could be
# computed once was. Nothing here is a matter of taste: an edit that moved the answers would have been refused and named.

# %% [markdown]
# ## Calibrate: measure what flows through the model
#
# INT8 has 256 values, so each tensor needs a range. Calibration runs real inputs through the model and keeps a
# histogram per tensor. Wrong preprocessing here ruins everything after it, silently; so look at what the model sees.

# %%
line_samples = ocr_tasks.lines(f"{data}/receipts", "calibration", limit=calibration_lines)
page_samples = ocr_tasks.pages(f"{data}/receipts", "calibration", limit=calibration_pages)
kit.charts.seen(line_samples, (0, 1, 2, 3))

# %%
how = kit.CalibrateOptions(samples=calibration_lines, threads=threads)
panel = kit.ui.panel(kit.calibrate, fixed_recogniser.model, line_samples, options=how)
panel

# %%
measured_recogniser = panel.get()
measured_recogniser

# %%
measured_detector = kit.calibrate(fixed_detector.model, page_samples, how)
kit.charts.range_widths(measured_recogniser, count=12)

# %% [markdown]
# **What just happened**: each bar is the share of a tensor's min-max range that a method would keep. Covering every
# value (1.0) can waste many of the 256 steps on a few outliers; cutting too early clips what matters.

# %% [markdown]
# ## Quantize: first the naive way
#
# Quantize everything with the settings one gets by default elsewhere: smallest to largest value as range, one scale for
# all weights of a layer. Reported from real projects: a recogniser went from 67.4 to 40.6 points, a small detector from
# 32.5 mAP to 0. A small model trained for one kind of slip is forgiving, so the failure is shown on the real PP-OCRv4
# recogniser, reading the same lines (where its package is not installed, on the small model).
#
# **Predict**: how much of the exact match will the recogniser lose?

# %%
guess = None  # 0.1 would be ten lines of a hundred

# %%
which = "ppocrv4" if ocr_models.is_here("ppocrv4") else model
hard_export = kit.export(ocr_models.models(which, data).recogniser, samples=lines[:2])
hard = kit.fix(hard_export.model, edits, samples=lines[:2])
hard_measured = kit.calibrate(hard.model, line_samples[:hard_lines // 2])
naive = kit.quantize(hard.model, hard_measured, kit.QuantizeOptions(method="minmax", per_channel=False))
some_lines = ocr_tasks.lines(f"{data}/receipts", "test", limit=hard_lines)
read_hard = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(hard.model.path)))
dropped = kit.verify({"FP32": hard, "INT8 naive": naive}, some_lines, task=read_hard)
dropped

# %%
kit.teach.compare(guess, dropped.rows[-1].change.loss, unit="of exact match")

# %% [markdown]
# (PP-OCRv4 writes the full-width forms of some signs where the slips' ground truth has the plain ones, and such a line
# counts as wrong; that is why FP32 itself does not reach 1. What matters here is the difference between the two rows.)
#
# ### Where does it go wrong?
#
# The next result quantizes one group of nodes at a time, the naive way, and looks at the model's output. A few groups
# make most of the noise.

# %%
naive_way = kit.SensitivityOptions(method="minmax", per_channel=False)
ranking = kit.sensitivity(hard.model, hard_measured, options=naive_way)
kit.charts.sensitivity_bars(ranking, count=12)

# %%
kit.charts.layer_error_bars(kit.layer_errors(hard.model, naive, some_lines[:4]), count=12)

# %% [markdown]
# **What just happened**: the first chart says which groups are to blame, the second how much signal is left in each
# tensor of the naive model; diamonds, where a tensor is rounded itself, say what that rounding alone would leave. At
# 40 dB a hundredth of the amplitude is noise; at 0 dB there is as much noise as signal.
# The next chart shows the weights of the worst group: where one scale serves all channels, a single far value takes
# most of the 256 steps from all the others.

# %%
kit.charts.weight_histogram(hard.model, naive, ranking.groups[0].name)

# %% [markdown]
# ### The repair
#
# First one scale per output channel of the weights, and ranges chosen by the error at the output. Then, in addition,
# the guiltiest nodes stay in float.

# %%
guilty = kit.suggest_float(ranking, groups=4)
better = kit.quantize(hard.model, hard_measured)
best = kit.quantize(hard.model, hard_measured, kit.QuantizeOptions(keep_float=guilty, float_weights="int8"))
steps = {"FP32": hard, "INT8 naive": naive, "INT8 per channel": better, "INT8 and guilty in float": best}
repaired = kit.verify(steps, some_lines, task=read_hard)
repaired

# %%
assert max(row.scores["exact match"] for row in repaired.rows[2:]) >= repaired.rows[0].scores["exact match"] - 0.01
kit.charts.accuracy_waterfall(repaired)

# %% [markdown]
# ### The bank's own models
#
# The same repaired settings for the models that will be shipped. The panel lets you keep nodes in float by name.

# %%
panel = kit.ui.panel(kit.quantize, fixed_recogniser.model, measured_recogniser)
panel

# %%
int8_recogniser = panel.get()
int8_recogniser

# %%
spared = ()
if detector_float:
    costs = kit.sensitivity(fixed_detector.model, measured_detector)
    spared = kit.suggest_float(costs, groups=detector_float)
int8_detector = kit.quantize(fixed_detector.model, measured_detector, kit.QuantizeOptions(keep_float=spared))
widest = max(measured_detector.tensors, key=lambda tensor: tensor.maximum - tensor.minimum)
kit.charts.activation_histogram(measured_detector, widest.name)

# %% [markdown]
# ## Compile: the artefact to ship
#
# For ONNX Runtime, compiling means: store the graph as the runtime rewrites it, with the settings it was measured with
# and a manifest that says what it was made from. Another machine needs `onnxruntime` and `numpy`, nothing of the kit.

# %%
panel = kit.ui.panel(kit.compile, int8_recogniser.model, options=kit.CompileOptions(threads=threads))
panel

# %%
compiled_recogniser = panel.get()
compiled_detector = kit.compile(int8_detector.model, kit.CompileOptions(threads=threads))
compiled_recogniser

# %%
kit.charts.operator_counts(compiled_detector)

# %% [markdown]
# **What just happened**: a convolution between a DequantizeLinear and a QuantizeLinear became one QLinearConv, which
# computes on bytes. The DequantizeLinear and QuantizeLinear that are left convert to float and back around operators
# without an integer form. Remember them when you look at the latency.

# %% [markdown]
# ## Verify: the whole way, stage by stage
#
# Each stage is compared with the first on the same samples: tensor by tensor, and by what the task is about. The
# interval comes from resampling the samples: a loss whose interval holds 0 may be nothing but the choice of slips.

# %%
detector_stages = {"Paddle": source.detector, "ONNX": detector, "fixed FP32": fixed_detector,
                   "INT8": int8_detector, "compiled INT8": compiled_detector}
panel = kit.ui.panel(kit.verify, detector_stages, pages, task=ocr_tasks.DetectorTask())
panel

# %%
detector_verdict = panel.get()
detector_verdict

# %%
recogniser_stages = {"Paddle": source.recogniser, "ONNX": recogniser, "fixed FP32": fixed_recogniser,
                     "INT8": int8_recogniser, "compiled INT8": compiled_recogniser}
recogniser_verdict = kit.verify(recogniser_stages, lines, task=ocr_tasks.RecogniserTask(characters))
recogniser_verdict

# %%
kit.charts.accuracy_waterfall(recogniser_verdict)

# %%
kept = {"detector": detector_verdict, "recogniser": recogniser_verdict}
for name, verdict in kept.items():
    loss = verdict.rows[-1].change.loss
    assert loss <= 0.01, f"The compiled {name} lost {loss:.3f}: keep more nodes in float."
    print(f"The compiled {name} lost {max(0, loss):.4f} of {verdict.metric}: within 0.01.")

# %% [markdown]
# ### Whole pages
#
# Two good halves can still make a bad whole: the recogniser now reads what the INT8 detector cut out.

# %%
pictures = ocr_tasks.pages(f"{data}/receipts", "test", preprocess=ocr_tasks.PICTURE, input="image", limit=12)
readers = {"Paddle": ocr_tasks.Reader(source.detector, source.recogniser, characters),
           "compiled INT8": ocr_tasks.Reader(compiled_detector, compiled_recogniser, characters)}
pages_verdict = kit.verify(readers, pictures, task=ocr_tasks.PageTask())
pages_verdict

# %%
with kit.open_runner(compiled_detector) as detect, kit.open_runner(compiled_recogniser) as recognise:
    found = ocr.read_page(first.load(), detect, recognise, characters)
picture = kit.charts.page(first.load(), found, what="read")
picture

# %%
print("\n".join(f"{number:>2}  {line.text}" for number, line in enumerate(found, start=1)))

# %% [markdown]
# ## Benchmark: is it faster?
#
# On a shared machine the same program takes 20 ms now and 30 ms a minute later. So the candidates take turns, A B A B,
# each in a process of its own, and what counts is the ratio within each round, with an interval.
#
# **Predict**: how many times as fast as Paddle Inference will the INT8 recogniser be?

# %%
guess = None

# %%
fixed_size = kit.Preprocess(resize="stretch", size=(48, 320), mean=(0.5,) * 3, std=(0.5,) * 3)
one_line = ocr_tasks.lines(f"{data}/receipts", "test", preprocess=fixed_size, limit=1)
candidates = {"Paddle": source.recogniser, "fixed FP32": fixed_recogniser,
              "compiled INT8": compiled_recogniser}
turns = kit.BenchmarkOptions(rounds=rounds, threads=threads)
panel = kit.ui.panel(kit.benchmark, candidates, one_line, options=turns)
panel

# %%
recogniser_times = panel.get()
recogniser_times

# %%
kit.teach.compare(guess, recogniser_times.timings[-1].speedup, unit="×")

# %%
square = kit.Preprocess(resize="stretch", size=(640, 640))
one_page = ocr_tasks.pages(f"{data}/receipts", "test", preprocess=square, limit=1)
candidates = {"Paddle": source.detector, "fixed FP32": fixed_detector, "compiled INT8": compiled_detector}
detector_times = kit.benchmark(candidates, one_page, turns)
detector_times

# %%
kit.charts.latency(detector_times)

# %% [markdown]
# ### Why is INT8 not four times as fast?

# %%
kit.why_not_faster(int8_detector)

# %% [markdown]
# ## Report: one page to hand on

# %% tags=["summary"]
story = {
    "Detector": [detector, audited, fixed_detector, measured_detector, int8_detector, compiled_detector,
                 detector_verdict, detector_times],
    "Recogniser": [recogniser, fixed_recogniser, measured_recogniser, int8_recogniser, compiled_recogniser,
                   recogniser_verdict, recogniser_times],
    "Whole pages": [pages_verdict],
}
page = kit.report(story)
page

# %% [markdown]
# ## Your turn
#
# **1. The wrong colours.** Someone calibrates with RGB where the model was trained on BGR. Make that mistake: the
# same calibration pages, prepared with the channels the other way round.

# %%
from dataclasses import replace

exercise_1 = kit.teach.Exercise(
    "Give page_samples with RGB channels and everything else as it is.",
    lambda answer: "The channels are still BGR." if answer.preprocess.channels != "RGB" else
    answer.items == page_samples.items or "These are other pages.",
    hints=("Samples and Preprocess are dataclasses: dataclasses.replace makes a changed copy",
           "replace(page_samples, preprocess=replace(page_samples.preprocess, channels='RGB'))"),
    praise="Right. Every tensor is wrong now, and no step before the verification would have told you.")
exercise_1.show()

# %% tags=["solution"]
in_rgb = None
# Your turn
in_rgb = replace(page_samples, preprocess=replace(page_samples.preprocess, channels="RGB"))

# %%
exercise_1.check(in_rgb)

# %% [markdown]
# **2. One edit taken back.** Undo a single change of the fixed detector; the answers must stay equal.

# %%
exercise_2 = kit.teach.Exercise(
    "Give a Fixed without the first change of fixed_detector.",
    lambda answer: len(answer.changes) < len(fixed_detector.changes) or "It still has every change.",
    hints=("fixed_detector.changes[0].id names it", "fixed_detector.undo(...) takes that name"))
exercise_2.show()

# %% tags=["solution"]
undone = None
# Your turn
undone = fixed_detector.undo(fixed_detector.changes[0].id, samples=pages[:2])

# %%
exercise_2.check(undone)

# %% [markdown]
# **3. How little is enough?** Quantize `hard` per channel with only the worst group in float. What exact match is left?

# %%
exercise_3 = kit.teach.Exercise(
    "Give the Verdict of FP32 against INT8 with one group kept in float.",
    lambda answer: len(answer.rows) == 2 or "Give a verdict with two stages: FP32 and yours.",
    hints=("kit.suggest_float(ranking, groups=1)", "quantize with keep_float=..., then verify as in the naive case"))
exercise_3.show()

# %% tags=["solution"]
verdict = None
# Your turn
one_kept = kit.QuantizeOptions(keep_float=kit.suggest_float(ranking, groups=1))
mine = kit.quantize(hard.model, hard_measured, one_kept)
verdict = kit.verify({"FP32": hard, "INT8 mine": mine}, some_lines, task=read_hard)

# %%
exercise_3.check(verdict)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | `0th elementwise MUST be ir::FloatAttribute` during export | PaddlePaddle 3.3 with Paddle2ONNX 2.1.0 | `kit.check_environment` shows it in red: use the pinned versions, or give Paddle an interpreter of its own with `kit.worker.use("paddle", python=...)` |
# | The Paddle reference runs "without oneDNN" | oneDNN crashes on this model in some Paddle versions | nothing to do: the kit tried again without it and says so; its times are slower for that |
# | Export names several unsupported operators | the exporter does not know them | replace them in the model; the table gives all of them, not the first |
# | The ONNX model answers differently | preprocessing, a normalisation layer in training mode, a frozen shape, exchanged axes | compare the inputs first; call `eval()` before saving; look at the index of the worst element |
# | INT8 finds nothing at all | boxes and scores share one range, or calibration saw other preprocessing | the verdict raises an alarm; look at `kit.charts.seen`, then at the sensitivity chart |
# | INT8 is no faster | depthwise convolutions and activations that are not fused | `kit.why_not_faster`; another runtime or precision may win |
# | `WorkerDied` with signal 9 | the machine ran out of memory | fewer samples or smaller pictures; the kernel is unharmed |
# | "Error displaying widget" after reopening | JupyterLab does not restore widgets | run the cell again: finished stages are instant |
# | "No version of module anywidget is registered" | server and kernel live in different environments | start JupyterLab with `make lab` |

# %% [markdown]
# ## Recap
#
# You took a detector and a recogniser from PaddlePaddle to two INT8 models, and you have:

# %%
from kit.card import bytes_text

pairs = {"detector": (fixed_detector, compiled_detector), "recogniser": (fixed_recogniser, compiled_recogniser)}
for name, (start, end) in pairs.items():
    print(f"{name}: {end.model.path.name}, {bytes_text(end.model.size)} "
          f"({end.model.size / start.model.size:.2f} of FP32), with manifest and settings beside it")
print("the report, with the proof of every step")

# %% [markdown]
# ## Next
#
# - **Forward**: run this notebook with `model = "ppocrv4"` and `detector_float = 4`: the real PP-OCRv4 models on the same slips.
# - **Sideways**: give `kit.audit` another target, and read what it would take to get there.
# - **To read**: `ARCHITECTURE.md`, one page on why a stage is a function and a panel is only a view of it.
