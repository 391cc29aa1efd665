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
# # Prepare a model for Huawei Ascend on a laptop
#
# ![Forecast of a text detector on an Ascend 310P3: each layer as a point, most of them on the slope of the L2 cache](images/ascend.png)

# %% [markdown]
# **You will** take a text detector from PaddlePaddle to a folder that one command finishes on an Ascend server, and bring
# the server's results back, without Ascend hardware or its software on this machine.
#
# **You will learn**
# - to find everything that Ascend's compiler would refuse, all at once, and who says so
# - to repair a model for it by rules that prove each edit
# - to write the compiler's command, the preprocessing on the chip and the INT8 files, and to tell real ones from invented ones
# - to rehearse the work on the server, and to read what comes back beside your own figures
#
# **You need** basic Python; about 2 minutes on 2 CPU cores; no accelerator; nothing to download beyond the packages.
# Models and slips lie in `data/` (models Apache-2.0, slips CC0).
#
# *CANN* is Ascend's software. *ATC* is its compiler: it turns an ONNX file into an *OM* file for one kind of chip. *AIPP*
# is the chip's own picture preprocessing. *AMCT* is CANN's quantization tool.

# %% tags=["parameters"]
model = "receipts"  # "receipts": the small models in data/; "ppocrv4": PaddleOCR's real ones (rapidocr-onnxruntime)
data = "../data"  # the project's data folder
runs = "../runs"  # where results are kept; a finished stage is instant the second time
chip = "ascend310p3"  # as npu-smi names it, with "ascend" before it
cann = "8.1.RC1"  # the CANN release on the server
side = 640  # pixels: height and width that the compiled model takes
goldens = 4  # slips that travel with the float model's answers
test_lines = 8  # text lines that travel with the recogniser
calibration_pages = 8  # slips for the INT8 files and the sensitivity

# %%
import os

import kit
from kit.families import ocr, ocr_models, ocr_tasks

os.environ["KIT_RUNS"] = runs
kit.check_environment("paddle", "ocr", "ui")

# %% [markdown]
# ## Start: an ONNX model
#
# Ascend's compiler reads no Paddle and no PyTorch model; ONNX comes first. This is the export of the OCR walkthrough.

# %%
source = ocr_models.models(model, data)
square = kit.Preprocess(resize="stretch", size=(side, side))
pages = ocr_tasks.pages(f"{data}/receipts", "test", preprocess=square, limit=goldens)
exported = kit.export(source.detector, samples=pages[:2])
exported

# %% [markdown]
# ## Audit: what would the compiler say?
#
# On the server one meets the errors one at a time, each after minutes. Here every node is looked up at once: is
# there a parser for exactly this operator in this version, a kernel for its type on this chip, an attribute that is
# silently ignored, a form that is known to crash? The facts are carried with their sources.
#
# **Predict**: how many findings (errors and warnings) will there be?

# %%
guess = None  # a number; leave None to just look

# %%
panel = kit.ui.panel(kit.audit, exported.model, options=kit.AuditOptions(target=chip, cann=cann))
panel

# %%
audited = panel.get()
audited

# %%
kit.teach.compare(guess, len(audited.of("error")) + len(audited.of("warning")))

# %%
kit.charts.operator_support(audited)

# %% [markdown]
# **What just happened**: the bars show where the arithmetic is and how the chip takes each operator. The audit never runs
# ATC, and says so: an operator that is registered can still fail inside the compiler.
#
# <details><summary><b>Going deeper</b>: why the opset matters so much here</summary>
#
# ATC's parser looks up the text `domain::opset::operator`, exactly. A file of opset 19 fails at its first node, however
# plain; an operator that came late is known in few versions only. So the audit recommends an opset, and the fix can
# move a model to it where every node has an equal older form.
# </details>

# %% [markdown]
# ## What the articles say
#
# Searching the web brings commands that the released compiler does not know; an unknown flag ends it. Paste
# such a command, and get the real one, with the reason for each change.

# %%
pasted = """
cann-onnx-fixer det.onnx -o det_fixed.onnx
atc --model=det_fixed.onnx --framework=7 --output=det --soc_version=Ascend310P --enable_paddle_opt=true \\
    --quant_type=int8 --calibrate_tool_path=./calib --precision_mode=allow_quantize
"""
kit.ascend.translate(pasted)

# %%
kit.ascend.history()

# %% [markdown]
# ## Fix: make it what the compiler takes
#
# Each rule says why it acts, and is checked on real slips. Fixed sizes matter here: with open axes the chip
# plans for every size, and some chips refuse them. Opset 16, because the nodes that CANN's INT8 tool will add are
# known in released versions up to 16 only.

# %%
name = exported.model.inputs[0].name
panel = kit.ui.panel(kit.fix, exported.model, samples=pages[:2],
                     options=kit.FixOptions(target=chip, opset=16, shapes=(f"{name}=1,3,{side},{side}",)))
panel

# %%
fixed = panel.get()
fixed

# %%
after = kit.audit(fixed.model, kit.AuditOptions(target=chip, cann=cann))
assert not [finding for finding in after.findings if finding.fix], "A rule could still repair something."
after

# %% [markdown]
# **What just happened**: what a rule can repair is repaired, and the answers on real slips are the same. What is left is for
# a person to know, or to measure on the chip.

# %% [markdown]
# ## Forecast: where would the time go?
#
# A *roofline* takes the chip's peak arithmetic and memory bandwidth and says of each layer which of the two holds it
# back. It is a forecast, nothing was measured.

# %%
forecast = kit.roofline(fixed.model, chip)
forecast

# %%
kit.charts.roofline(forecast)

# %% [markdown]
# ## Build: the command
#
# The options are typed: a combination that ATC refuses cannot be written down. Try one.

# %%
try:
    kit.ascend.AtcOptions(soc_version=chip, cann=cann, profiles="image 640x640")
except kit.KitError as error:
    print(error, "Try:", error.remedy, sep="\n")

# %%
command = kit.ascend.atc_command(fixed.model, kit.ascend.AtcOptions(soc_version=chip, cann=cann), output="om/detector")
command

# %% [markdown]
# ## Preprocessing on the chip
#
# AIPP can subtract and scale the picture's bytes on the chip, so that a quarter of the data crosses the bus. Its
# registers hold whole numbers and 16-bit floats; the same arithmetic is done here, bit by bit, and compared with the float preprocessing.
#
# **Predict**: how far apart will the two be, at the worst pixel? (The values reach from about -2 to 2.6.)

# %%
guess = None

# %%
on_chip = kit.ascend.aipp(square, (side, side), input=name)
print(on_chip.text)
difference = on_chip.compare(pages)
difference

# %%
kit.teach.compare(guess, difference.largest)

# %% [markdown]
# And a configuration as articles print it, with what is wrong in it:

# %%
kit.ascend.read_aipp("""aipp_op {
    aipp_mode: static
    input_format: BGR888_U8
    mean_chn_0: 123.675
    var_reci_chn_0: 4.37
}""")

# %% [markdown]
# ## INT8: what may be rounded
#
# Ascend takes no QDQ model; CANN's own tool calibrates. What the kit knows goes along: real inputs as files, and the layers
# that rounding hurts most, measured here.

# %%
slips = ocr_tasks.pages(f"{data}/receipts", "calibration", preprocess=square, limit=calibration_pages)
measured = kit.calibrate(fixed.model, slips)
ranking = kit.sensitivity(fixed.model, measured)
kit.charts.sensitivity_bars(ranking, count=12)

# %% [markdown]
# ## Bundle: one folder, one command
#
# Everything above in one folder: the model, the command, AIPP, calibration files, golden inputs with the float
# model's answers, and a script that needs only Python and CANN.

# %%
wanted = kit.BundleOptions(target=chip, cann=cann, aipp=True, int8="amct", goldens=goldens,
                           calibration_samples=calibration_pages)
panel = kit.ui.panel(kit.compile, fixed.model, samples=pages, calibration=measured, sensitivity=ranking, options=wanted)
panel

# %%
bundled = panel.get()
bundled

# %% [markdown]
# ## Rehearse
#
# The script can be run here against a *fake* compiler and a *fake* chip: they check every call as the real ones
# document it, and the fake chip computes with ONNX Runtime. This shows that the folder is whole, and nothing about speed.

# %%
rehearsed = kit.ascend.rehearse(bundled)
rehearsed

# %%
assert rehearsed.fake, "A rehearsal must say that it is one."
wrong_box = kit.ascend.rehearse(bundled, fault="wrong-soc")
wrong_box

# %% [markdown]
# On the server it is `python3 run_on_box.py`, and what comes back is one file. When a log is all you have:

# %%
kit.explain("[ERROR] E16002: No parser is registered for Op [Gelu_12, optype [ai.onnx::20::Gelu]].")

# %% [markdown]
# ## Read back
#
# Results from a box stand beside your own figures, labelled with where they come from. Here they come from the rehearsal.

# %%
truth = ocr_tasks.DetectorTask()
verdict = kit.verify({"FP32": fixed, "rehearsal": rehearsed}, pages, task=truth)
verdict

# %%
kit.charts.accuracy_waterfall(verdict)

# %% tags=["summary"]
page = kit.report([exported, audited, fixed, after, forecast, bundled, rehearsed, verdict])
page

# %% [markdown]
# ## The real PP-OCRv4
#
# The same way for the recogniser of PP-OCRv4, which comes as ONNX with open widths (where its package is not
# installed, for the small recogniser).

# %%
which = "ppocrv4" if ocr_models.is_here("ppocrv4") else model
recogniser = kit.export(ocr_models.models(which, data).recogniser)
lines = ocr_tasks.lines(f"{data}/receipts", "test", limit=test_lines,
                        preprocess=kit.Preprocess(resize="stretch", size=(48, 320), mean=(0.5,) * 3, std=(0.5,) * 3))
read_shape = f"{recogniser.model.inputs[0].name}=1,3,48,320"
fixed_recogniser = kit.fix(recogniser.model, kit.FixOptions(target=chip, shapes=(read_shape,)), samples=lines)
kit.audit(fixed_recogniser.model, kit.AuditOptions(target=chip, cann=cann))

# %%
small = kit.BundleOptions(target=chip, cann=cann, goldens=len(lines))
rehearsed_recogniser = kit.ascend.rehearse(kit.compile(fixed_recogniser.model, small, samples=lines))
rehearsed_recogniser

# %% [markdown]
# The fake chip rounds inputs, weights and outputs to float16, as ATC does by default. Where an answer moves by more than
# the bundle allows, the comparison fails and says so. Whether that matters is a question for the task: is the text
# still read?

# %%
read = ocr_tasks.RecogniserTask(tuple(ocr.characters_of(fixed_recogniser.model.path)))
kit.verify({"FP32": fixed_recogniser, "rehearsal": rehearsed_recogniser}, lines, task=read)

# %% [markdown]
# ## Your turn
#
# Three models that ONNX Runtime runs and ATC does not take. Audit each, and decide.
#
# **1. Boxes.** Its NonMaxSuppression crashes the compiler without a word. Give a fixed model.

# %%
boxes = kit.teach.broken_model(f"{runs}/broken/boxes.onnx", "boxes")


def clean(answer):
    """No error left that a rule could repair."""
    left = kit.audit(answer.model, kit.AuditOptions(target=chip)).findings
    return not any(f.fix or f.severity == "error" for f in left) or "; ".join(f.what for f in left if f.severity == "error")


exercise_1 = kit.teach.Exercise("Give a Fixed of the model boxes for the chip.", clean,
                                hints=("kit.fix takes the chip as target", "kit.fix(boxes, kit.FixOptions(target=chip))"),
                                praise="Right. Five inputs, and every box that was kept before is kept now.")
exercise_1.show()

# %% tags=["solution"]
repaired = None
# Your turn
repaired = kit.fix(boxes, kit.FixOptions(target=chip))

# %%
exercise_1.check(repaired)

# %% [markdown]
# **2. Modern.** A file of opset 20, with operators that ATC does not know.

# %%
modern = kit.teach.broken_model(f"{runs}/broken/modern.onnx", "modern")
exercise_2 = kit.teach.Exercise("Give a Fixed of the model modern for the chip, at an opset that ATC takes.", clean,
                                hints=("the rules come with the target", "look at fixed.changes: what was lowered?"))
exercise_2.show()

# %% tags=["solution"]
lowered = None
# Your turn
lowered = kit.fix(modern, kit.FixOptions(target=chip))

# %%
exercise_2.check(lowered)

# %% [markdown]
# **3. Counted.** How many values come out depends on the picture. Does a rule repair that?

# %%
counted = kit.teach.broken_model(f"{runs}/broken/counted.onnx", "counted")
exercise_3 = kit.teach.Exercise(
    "Name the operator that no rule can repair.", lambda answer: answer == "NonZero" or "Look at the findings.",
    hints=("audit it: which operator has an output whose size depends on the data?",),
    praise="Right. Cut the model before it, and do that step on the host.")
exercise_3.show()

# %% tags=["solution"]
culprit = None
# Your turn
culprit = "NonZero"

# %%
exercise_3.check(culprit)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | `E16002` or `E19010`, "No parser is registered" | the operator, or the whole opset, is not in ATC's table | audit names the nodes; `kit.fix` for the chip |
# | ATC ends with exit code 139 and no message | NonMaxSuppression with fewer than five inputs | rule `nms-five-inputs` |
# | `EZ3003`, no kernel found | the operator package of this chip is not installed on the server | install the kernels of the chip's family for your CANN release |
# | `E10001` for a flag | a value from an article | `kit.ascend.translate` |
# | the bundle refuses the chip | the server's chip is not the one asked for | read `npu-smi info`, make the bundle for that name |
# | answers drift although every step succeeded | float16 by default | `precision="origin"`, or keep the layers of the sensitivity chart in float |
# | everything is detected nowhere | preprocessing twice: on the chip and on the host | with AIPP feed the bytes of the picture |

# %% [markdown]
# ## Recap
#
# You took a detector from PaddlePaddle to a bundle for the chip, and you have:

# %%
from kit.card import bytes_text

print(f"a bundle of {bundled.bundle.files} files, {bytes_text(bundled.bundle.size)}, rehearsed with fakes")
print(f"{len(fixed.changes)} edits, each justified and checked")
print("the report, where the rehearsal is called one")

# %% [markdown]
# ## Next
#
# - **Forward**: carry the bundle to the server, run `python3 run_on_box.py`, and give `kit.ascend.load_results` its file.
# - **Sideways**: `ocr.ipynb` takes the same detector to INT8 for the CPU; `kit.ascend.neighbour` prepares other destinations.
# - **To read**: the `README.md` inside the bundle.
