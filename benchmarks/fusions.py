"""What each fusion is worth on the UNet of a diffusion pipeline: alone and all together, in two runtimes.

    python benchmarks/fusions.py [--size sd-tiny|block|sd15] [--exporter dynamo|classic] [--runtime NAME ...]
                                 [--rounds 15] [--runs 3] [--folder FOLDER] [--out runs/fusions]

``sd-tiny`` is the pipeline of ``data/models``; ``sd15`` the full UNet with random weights (3.4 GB; each of two
candidates is loaded in a process of its own, so think of 12 GB); ``block`` is one stage of that UNet, cut out of it at
full size: a resnet with its two group norms and a transformer with two attentions and a GEGLU. ``--folder`` is a
diffusers folder or an .onnx file of a UNet that is at hand already.

Every fused model is timed in turns with the one that has no fusion, both in fresh processes, batch 2 as guidance needs
it. The ratio is of medians, with a 95 % interval over the rounds; beside it the peak memory of both. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kit
from kit.families.diffusion import PipelineExportOptions, export_pipeline, sd15
from kit.graph import RULES, FixOptions

# what it is called in the table -> rules, and the opset they need
FUSIONS = {
    "fuse-gelu": (("fuse-gelu",), 0),
    "fuse-attention": (("fuse-attention",), 0),
    "fuse-skip-layernorm": (("fuse-skip-layernorm",), 0),
    "merge-gelu, opset 20": (("raise-opset", "merge-gelu"), 20),
    "merge-groupnorm, opset 21": (("raise-opset", "merge-groupnorm"), 21),
    "all that help": (("fuse-gelu", "fuse-attention"), 0),
    "all": (("raise-opset", "merge-gelu", "merge-groupnorm", "fuse-attention", "fuse-skip-layernorm"), 21),
}
STAGE = ("/down_blocks.0/resnets.0/", "/down_blocks.0/attentions.0/")  # names of the nodes of one stage


def main() -> None:
    """Fuse, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("sd-tiny", "block", "sd15"), default="sd-tiny")
    parser.add_argument("--exporter", choices=("dynamo", "classic"), default="dynamo")
    parser.add_argument("--runtime", nargs="*", default=["onnxruntime", "openvino"])
    parser.add_argument("--fusion", nargs="*", choices=list(FUSIONS), default=list(FUSIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="a diffusers folder, or an .onnx file of its UNet")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fusions")
    asked = parser.parse_args()
    path = unet(asked)
    # What else the kit repairs is in both: only the fusions are to differ.
    plain = kit.fix(path, FixOptions(skip=tuple(name for name in RULES if name.startswith("fuse-"))), runs=asked.out)
    feeds = inputs(plain.model)
    print(f"{asked.size}, {asked.exporter}: {plain.source.nodes} nodes as exported, {plain.model.nodes} without "
          f"fusion, batch 2, {asked.rounds} rounds of {asked.runs} runs\n")
    print(f"| Fusion | edits | nodes | answers differ by | {' | '.join(asked.runtime)} |")
    print("|---|--:|--:|--:|" + "---|" * len(asked.runtime))
    alarms = []
    for name in asked.fusion:
        rules, opset = FUSIONS[name]
        made = kit.fix(plain.model.path, FixOptions(rules=rules, opset=opset), runs=asked.out)
        edits = sum(count for rule, count in made.counts().items() if rule != "raise-opset")
        cells = []
        for runtime in asked.runtime:
            found, heard = ratio(plain.model, made.model, feeds, runtime, asked) if edits else ("-", ())
            cells.append(found)
            alarms += [f"{name}, {runtime}: {alarm.partition(':')[0]}" for alarm in heard]
        moved = max((row.relative for row in made.parity), default=0.0)
        print(f"| {name} | {edits} | {made.model.nodes} | {moved:.1e} | {' | '.join(cells)} |", flush=True)
    print("".join(f"\n- {alarm}" for alarm in alarms))


def ratio(plain: Any, made: Any, feeds: dict[str, np.ndarray], runtime: str,
          asked: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """How many times as fast as without fusion, in words, and what the machine did to the figures."""
    from kit.benchmarking import BenchmarkOptions

    settings = {"runtime": runtime, **({"precision": "f32"} if runtime == "openvino" else {})}
    try:
        found = kit.benchmark({"plain": (plain, settings), "fused": (made, settings)}, feeds,
                              BenchmarkOptions(rounds=asked.rounds, runs=asked.runs, warm_up=2), runs=asked.out)
    except kit.KitError as error:  # a runtime need not know an operator of another one
        return f"does not run: {str(error).splitlines()[0][:80]}", ()
    base, row = found.timings
    memory = f"{base.memory / 1e6:,.0f} -> {row.memory / 1e6:,.0f} MB"
    return f"{row.speedup:.2f} [{row.low:.2f}, {row.high:.2f}]; {memory}", found.alarms


def inputs(model: Any) -> dict[str, np.ndarray]:
    """Two pictures' worth of noise, a timestep where there is one."""
    random = np.random.default_rng(0)
    return {spec.name: np.full(spec.shape, 500, np.int64) if spec.dtype == "int64" else random.standard_normal(
        [size if isinstance(size, int) else 2 for size in spec.shape]).astype(np.float32) for spec in model.inputs}


def unet(asked: argparse.Namespace) -> Path:
    """The UNet as exported, or one stage of it."""
    if asked.folder is not None and asked.folder.suffix == ".onnx":
        path = asked.folder
    else:
        folder = asked.folder or (ROOT / "data" / "models" / "sd-tiny" if asked.size == "sd-tiny"
                                  else sd15(asked.out / "sd15").folder)
        options = PipelineExportOptions(exporter=asked.exporter, parts=("unet",), compare=False)
        path = export_pipeline(folder, options, runs=asked.out).exported["unet"].model.path
    return stage(path, asked.out) if asked.size == "block" else path


def stage(path: Path, out: Path) -> Path:
    """The nodes of one stage as a model of their own; reads only their weights."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    from kit.graph.files import open_graph

    model = onnx.load(str(path), load_external_data=False)
    shapes = {value.name: value for node in open_graph(path).graph for value in (*node.inputs, *node.outputs) if value}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    inside = [node for node in model.graph.node if node.name.startswith(STAGE)]
    if not inside:
        raise SystemExit(f"{path} has no nodes named {STAGE[0]}...")
    made = {name for node in inside for name in node.output}
    read = {name for node in inside for name in node.input if name and name not in made}
    later = {name for node in model.graph.node if not node.name.startswith(STAGE) for name in node.input}

    def described(name: str) -> Any:
        value = shapes[name]
        axes = [axis if isinstance(axis, int) else "N" for axis in value.shape]
        return onnx.helper.make_tensor_value_info(name, int(value.dtype), axes)

    graph = onnx.helper.make_graph(
        inside, "stage", [described(name) for name in sorted(read - set(weights))],
        [described(name) for name in sorted(made & later)], [weights[name] for name in sorted(read & set(weights))])
    cut = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    load_external_data_for_model(cut, str(path.parent))
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(cut, str(out / "stage.onnx"))
    return out / "stage.onnx"


if __name__ == "__main__":
    main()
