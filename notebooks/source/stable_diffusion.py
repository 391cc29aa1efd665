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
# # Move Stable Diffusion from PyTorch
#
# ![Four drawn pictures of coloured shapes, as PyTorch draws them and as the INT8 version does](images/stable_diffusion.png)

# %% [markdown]
# **You will** take a Stable Diffusion pipeline from PyTorch to ONNX Runtime and OpenVINO, quantize its UNet, prove that the
# pictures still show what the prompts say, and bundle the whole for an Ascend server.
#
# **You will learn**
# - what a pipeline consists of, and why each part is exported and verified alone first
# - how activations change along the sampler, and why calibration must see all of the way
# - why errors of single steps add up, and how to see it
# - to judge pictures: by pixels, by structure, and by whether they show what was asked for
#
# **You need** basic Python; about 8 minutes on 2 CPU cores; no accelerator; nothing to download beyond the packages. The
# pipeline in `data/models/sd-tiny` has the classes of Stable Diffusion 1.5, only smaller, and is trained on drawn shapes
# (Apache-2.0). The same cells take SD 1.5 itself: give its folder as `pipeline_folder`, and prompts of your own.
#
# A *UNet* removes noise step by step; a *text encoder* tells it what to draw; *latents* are the small pictures it works on;
# a *VAE* (variational autoencoder) turns latents into pixels. *Guidance* asks the UNet twice, with and without the prompt,
# and exaggerates the difference. *PSNR* is a distance of pixels in dB, *SSIM* a likeness of structure, 1 at best.

# %% tags=["parameters"]
pipeline_folder = "../data/models/sd-tiny"  # a diffusers folder: text encoder, UNet, VAE, tokenizer, scheduler
runs = "../runs"  # where results are kept; a finished stage is instant the second time
steps = 20  # of the sampler
guidance = 4.0  # how far the prompt is followed
calibration_prompts = 8  # prompts whose way is measured
calibration_inputs = 64  # inputs of the UNet kept of it
test_prompts = 24  # prompts to judge by; the model was trained on none of them
rounds = 8  # turns each candidate takes in the benchmark
goldens = 2  # prompts that travel with the Ascend bundle
threads = 2  # of every runtime

# %%
import os
import random
from itertools import product

import kit
from kit.families import diffusion

os.environ["KIT_RUNS"] = runs
kit.check_environment("diffusion", "openvino", "ui")

# %% [markdown]
# ## The pipeline
#
# Four sub-models and a scheduler lie in one folder. The kit draws with its own loop, in numpy, and starting noise that every
# runtime gets alike: what differs afterwards is the sub-models' doing.

# %%
torch = diffusion.Pipeline.read(pipeline_folder)
judge = diffusion.PictureJudge.read(pipeline_folder)
testing = judge.prompts[:test_prompts]
torch

# %%
draw = diffusion.DrawOptions(steps=steps, guidance=guidance, threads=threads)
drawn_by_torch = diffusion.draw(torch, testing, draw)
drawn_by_torch

# %% [markdown]
# **What just happened**: PyTorch drew prompts that it was not trained on. Parts were opened one after the other, so the memory
# was that of the largest; the UNet ran once a step with a batch of two.

# %% [markdown]
# ## Export
#
# Each part is exported by PyTorch's own exporter in a process of its own, and answers beside its original.
#
# **Predict**: which part will take most memory while it is exported?

# %%
guess = None  # "text_encoder", "unet", "vae_decoder" or "vae_encoder"

# %%
how = diffusion.PipelineExportOptions(exporter="dynamo")
panel = kit.ui.panel(diffusion.export_pipeline, pipeline_folder, options=how)
panel

# %%
exported = panel.get()
exported

# %%
largest = max(exported.exported, key=lambda name: exported.exported[name].memory_peak)
kit.teach.compare(guess, largest)

# %% [markdown]
# **What just happened**: four ONNX files, nodes named after the modules they come from. For SD 1.5 the same cell forecasts and
# then measures some 4.5 GB; above half a gigabyte weights lie in a file beside the graph.
#
# <details><summary><b>Going deeper</b>: the other exporter, and operators of your own</summary>
#
# `exporter="classic"` traces instead. A device may have a kernel of its own for a module or a pattern:
# `operators={"GroupNormSiLU": "groupnorm_silu"}` writes it as one node of the domain `kit.custom`, and keeps the standard
# operators inside it, so that any other runtime still runs the file. The full size is made by `diffusion.sd15(folder)`: the
# configuration of SD 1.5 to the digit, weights by lot.
# </details>

# %% [markdown]
# ## Each part alone
#
# A wrong picture does not say which part is wrong. So every part is fed what it is really fed, and compared alone.

# %%
onnx = exported.pipeline.replaced("ONNX Runtime")
parts = diffusion.verify_parts(torch, onnx, prompts=testing[:2], drawing=draw)
parts

# %%
assert parts, "A part answers otherwise than its original."
unet = exported.exported["unet"].model
openvino = onnx.replaced("OpenVINO", **{
    part: (exported.exported[part].model, {"runtime": "openvino"}) for part in ("text_encoder", "unet", "vae_decoder")})

# %% [markdown]
# ## Fix: attention in one operator
#
# The exporter writes attention as many small operators, and the table of all pixels against all pixels goes through memory. ONNX
# Runtime has one operator for the whole. The rules find the pattern, and each edit is checked by running the graph.
#
# **Predict**: how many nodes will be left, of those in the table above?

# %%
guess = None

# %%
panel = kit.ui.panel(kit.fix, unet)
panel

# %%
fixed = panel.get()
onnx = onnx.replaced(unet=fixed.model)
fixed

# %%
kit.teach.compare(guess, fixed.model.nodes, unit="nodes")

# %% [markdown]
# **What just happened**: only fusions that were measured to help are made by default; OpenVINO finds these by itself, so its FP32
# version stays as exported. All that follows starts from the fused UNet: at the size of SD 1.5 the table that goes is 1 GB.

# %% [markdown]
# ## What the UNet sees on its way
#
# At first the UNet is fed pure noise, in the end nearly a picture, and each time with the prompt and without it. Inputs are kept
# evenly from all of these; the prompts are not those that we judge by.
#
# **Predict**: take the layer that changes most. How many times wider is its range at its widest than at its narrowest?

# %%
guess = None

# %%
things = [f"{colour} {shape}" for colour, shape in product(judge.colours, judge.shapes)]
scenes = [f"a {one} {where} a {other}" for one, where, other in product(things, ("above", "left of"), things)
          if one != other]
learning = random.Random(0).sample([scene for scene in scenes if scene not in judge.prompts], calibration_prompts)
keep = diffusion.CaptureOptions(inputs=calibration_inputs, steps=steps, guidance=guidance, threads=threads)
captured = diffusion.capture(onnx, learning, keep)
captured

# %%
ranges = diffusion.range_by_timestep(fixed, captured)
ranges

# %%
kit.charts.timestep_ranges(ranges)

# %%
kit.charts.timestep_range_lines(ranges)

# %%
kit.teach.compare(guess, ranges.most_changed(1)[0].growth, unit="times")

# %% [markdown]
# **What just happened**: each span of timesteps was calibrated by itself, and the histograms were merged to one calibration. A
# layer whose row changes colour would be clipped by ranges that saw only one end of the way.

# %% [markdown]
# ## INT8: everything, or hybrid?
#
# *Full* makes all of the UNet INT8. *Hybrid* stores the weights of all blocks in 8 bits, and computes in INT8 only in the
# convolutions of ResNet blocks and samplers; those that cost the output most are left out. The first and the last
# convolution and the embedding of the timestep stay in float.

# %%
hybrid = diffusion.UnetQuantizeOptions(mode="hybrid", runtime="openvino")
panel = kit.ui.panel(diffusion.quantize_unet, fixed, ranges.calibration, options=hybrid)
panel

# %%
int8 = panel.get()
int8

# %%
measured = ranges.calibration
full = diffusion.quantize_unet(fixed, measured, diffusion.UnetQuantizeOptions("full", "openvino", method="minmax"))
weights = diffusion.quantize_unet(fixed, options=diffusion.UnetQuantizeOptions("weights", "openvino"))
versions = {"FP32": openvino, "naive INT8": openvino.replaced(unet=full),
            "hybrid INT8": openvino.replaced(unet=int8), "INT8 weights": openvino.replaced(unet=weights)}
pictures = {name: diffusion.draw(pipeline, testing, draw) for name, pipeline in versions.items()}

# %% [markdown]
# **Predict**: by how many dB will the pictures of the hybrid be nearer to PyTorch's than those of the naive version?

# %%
guess = None

# %%
compared = diffusion.compare_pictures(drawn_by_torch, pictures, judge)
compared

# %%
naive_psnr, hybrid_psnr = (compared.row(name).psnr_of_all.median for name in ("naive INT8", "hybrid INT8"))
kit.teach.compare(guess, hybrid_psnr - naive_psnr, unit="dB")

# %%
browser = kit.ui.pictures(compared)
browser

# %%
kit.charts.picture_grid(compared, name="hybrid INT8")

# %% [markdown]
# **What just happened**: the same noise was walked with four UNets. Pixels tell how far a picture has moved, the judge whether it
# still shows what was asked for; either alone would mislead. Pull the slider: the left of the line is PyTorch's.

# %% [markdown]
# ## Do errors add up?
#
# A step starts where the one before ended. The chart holds two things against each other: the error each step adds when it
# starts from PyTorch's latents, and the error of the latents when all steps are the hybrid's own.

# %%
errors = diffusion.step_errors(onnx, versions["hybrid INT8"].replaced("hybrid INT8"), captured[:16], draw, prompts=testing[:4])
errors

# %%
kit.charts.step_errors_chart(errors)

# %% [markdown]
# ## Which is the fastest?
#
# **Predict**: how many times as fast as PyTorch is a step of the fastest version?

# %%
guess = None

# %%
compiled = torch.replaced("torch.compile", unet=(f"{pipeline_folder}/unet", {"compiled": True}))
paths = {"PyTorch": torch, "torch.compile": compiled, "ONNX Runtime FP32": onnx, "OpenVINO FP32": openvino,
         "OpenVINO INT8 hybrid": versions["hybrid INT8"], "OpenVINO INT8 weights": versions["INT8 weights"]}
export_seconds = sum(part.seconds for part in exported.exported.values())
seconds = {"ONNX Runtime FP32": export_seconds, "OpenVINO FP32": export_seconds,
           "OpenVINO INT8 hybrid": export_seconds + int8.seconds}
timing = diffusion.PipelineBenchmarkOptions(rounds=rounds, steps=steps, guidance=guidance, threads=threads)
times = diffusion.benchmark_pipelines(paths, timing, prompts=testing[:4], judge=judge, conversion=seconds)
times

# %%
kit.teach.compare(guess, max(row.step.speedup for row in times.rows if row.step), unit="×")

# %% [markdown]
# **What just happened**: each path ran in processes of its own and took turns with the others, so that a busy minute slows all of
# them. Conversion time, latency, memory and error stand side by side, all of them measured here.

# %% [markdown]
# ## To an Ascend server
#
# Each part is audited, repaired and bundled; beside them travel token numbers, starting noise, golden pictures and one
# script that walks the scheduler there. Nothing of it needs PyTorch or a tokenizer on the server.

# %%
box = diffusion.PipelineBundleOptions(target="ascend310p3", steps=steps, guidance=guidance, goldens=2)
bundle = diffusion.bundle_pipeline(exported.pipeline, testing[:goldens], box)
bundle

# %%
rehearsed = diffusion.rehearse_pipeline(bundle)
rehearsed

# %% [markdown]
# **What just happened**: the one command was rehearsed with FAKE tools: `atc` and the chip are played by programs that compute
# with ONNX Runtime. It proves that the bundle is whole and the script right, and nothing about a chip or its speed.

# %% tags=["summary"]
story = {"Pipeline": [exported, parts, fixed, captured, ranges, int8, compared, errors, times, bundle]}
page = kit.report(story)
page

# %% [markdown]
# ## Your turn
#
# **1. Fewer sampler steps.** Draw the first prompt with the hybrid version in 10 steps.

# %%
exercise_1 = kit.teach.Exercise(
    "Give what diffusion.draw returns for the first test prompt, with 10 steps.",
    lambda answer: (answer.options.steps == 10 and answer.prompts == testing[:1]) or "That has other steps or prompts.",
    hints=("DrawOptions has the field steps", "diffusion.draw(versions['hybrid INT8'], testing[:1], ...)"))
exercise_1.show()

# %% tags=["solution"]
quick = None
# Your turn
quick = diffusion.draw(versions["hybrid INT8"], testing[:1], diffusion.DrawOptions(steps=10, guidance=guidance))

# %%
exercise_1.check(quick)

# %% [markdown]
# **2. A worse calibration.** Capture the same number of inputs, but the first ones that come. Which timesteps and prompts are they?

# %%
exercise_2 = kit.teach.Exercise(
    "Give what diffusion.capture returns with the choice 'first'.",
    lambda answer: (answer.options.choice == "first" and len(answer) == len(captured)) or "That was chosen otherwise.",
    hints=("CaptureOptions has the field choice", "dataclasses.replace(keep, choice='first') changes one field"))
exercise_2.show()

# %% tags=["solution"]
first = None
# Your turn
first = diffusion.capture(onnx, learning, diffusion.CaptureOptions(
    inputs=calibration_inputs, choice="first", steps=steps, guidance=guidance, threads=threads))

# %%
exercise_2.check(first)

# %% [markdown]
# ## If it fails
#
# | You see | Cause | Remedy |
# |---|---|---|
# | Black pictures, or an alarm that names NaN and a part | float16 overflows, mostly in the VAE decoder | keep that part in float: `float_parts=("vae_decoder",)` in the bundle |
# | The export is killed | memory; its forecast is in the result and in the error | close other programs; the parts are exported one after the other already |
# | "unet.onnx" without its ".onnx.data" is refused | weights above 0.5 GB lie beside the graph | move both files together |
# | Pictures differ although each part is alike | another scheduler, another starting noise, other guidance | draw both with the same `DrawOptions`; noise comes from `(seed, n)` |
# | INT8 pictures are good early and break late | calibration saw one end of the way | `CaptureOptions(choice="stratified")`, and look at the ranges by timestep |
# | INT8 is not faster in ONNX Runtime | this processor has no VNNI, or weights are unpacked on every run | take OpenVINO, or measure first: the table above says it |
# | Prompts are cut | CLIP reads 77 tokens, this model 16 | the result of `draw` names the prompts |

# %% [markdown]
# ## Recap
#
# You took Stable Diffusion from PyTorch to files that draw the same pictures faster. You have:

# %%
fastest = max((row for row in times.rows if row.step), key=lambda row: row.step.speedup)
print(f"the UNet in 8 bits: {int8.model.path.name}, {int8.size_after / 1e6:.1f} of {int8.size_before / 1e6:.1f} MB")
print(f"the fastest path: {fastest.name}, {fastest.step.words()} a step against PyTorch")
print(f"judged right: {compared.row('hybrid INT8').accuracy:.3f}, PyTorch {compared.rows[0].accuracy:.3f}")
print(f"for the server: {bundle.folder.name}, finished there by: python3 draw_on_box.py")

# %% [markdown]
# ## Next
#
# - Back: [ranges, clipping and sensitivity in detail](quantization.ipynb)
# - Sideways: [what happens on an Ascend server](ascend.ipynb)
# - To read: Rombach et al. 2022, [Latent Diffusion](https://arxiv.org/abs/2112.10752); Ho and Salimans 2022,
#   [classifier-free guidance](https://arxiv.org/abs/2207.12598)
