"""How long an audit takes, and how much memory: a net of 1,000 nodes, and one whose weights are gigabytes.

    python benchmarks/audit.py [--nodes 1000] [--gigabytes 3.4] [--rounds 5] [--target ascend310p3] [--folder FOLDER]

Both models are made here. The net has convolutions, batch normalisations, HardSwish in parts, transposes, shape
arithmetic and a few forms that ATC does not take, so that the rules have work to do. The weights of the large one are a
hole in a file, which takes no room on the disk and is read as zeros: an audit that loaded them would show it in its
memory. Every case runs in a fresh process. The first round includes imports; the best of the others is what a second
model costs. The processor's time is what is left of that when other programs wait for the same cores; the ratio is to
the same of ``onnx.shape_inference`` alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WIDTH, BLOCK = 16, 10  # channels, and nodes of one block
SIDE = 4096  # rows and columns of a large matrix


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--gigabytes", type=float, default=3.4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", default="ascend310p3")
    parser.add_argument("--folder", type=Path, help="where the models are made; a temporary folder by default")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(one_case(asked.case, asked.folder, asked.target, asked.rounds)))
        return
    with tempfile.TemporaryDirectory(prefix="kit-audit-", dir=asked.folder) as scratch:
        folder = Path(scratch)
        net(folder / "net.onnx", asked.nodes)
        large(folder / "large.onnx", asked.gigabytes)
        found = {case: _fresh(case, folder, asked) for case in ("net", "net, rules not asked", "large")}
    _print(found, asked.gigabytes)


def _fresh(case: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--case", case, "--folder", str(folder), "--target", asked.target,
                           "--rounds", str(1 if case == "large" else asked.rounds)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _print(found: dict[str, dict[str, Any]], gigabytes: float) -> None:
    print("| Audit | nodes | best, s | median, s | best of the processor's time, s | first in a process, s | "
          "best : shape inference | findings | rules with edits |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for case, row in found.items():
        if case != "large":
            rest = row["seconds"][1:]
            print(f"| {case} | {row['nodes']:,} | {min(rest):.2f} | {np.median(rest):.2f} | {row['processor']:.2f} | "
                  f"{row['seconds'][0]:.2f} | {row['processor'] / row['inference']:.0f} | {row['findings']} | "
                  f"{row['rules']} |")
    row = found["large"]
    print(f"\n{gigabytes:g} GB of weights, {row['nodes']} nodes: peak memory grew by {row['growth'] / 1e6:.0f} MB, of "
          f"which {row['imports'] / 1e6:.0f} MB are imported libraries; {row['seconds'][0]:.0f} s, of which "
          f"{row['digest']:.0f} s go into the digest of the file.")


def one_case(case: str, folder: Path, target: str, rounds: int) -> dict[str, Any]:
    """Seconds of every round, growth of the peak memory, and what was found; in this process."""
    import kit
    from kit.runtimes import peak_memory

    path = folder / ("large.onnx" if case == "large" else "net.onnx")
    options = kit.AuditOptions(target=target, rules="not asked" not in case)
    start = peak_memory()
    if case == "large":
        import onnx_ir  # noqa: F401
        import onnxscript.optimizer  # noqa: F401
    imports = peak_memory()
    seconds, processor = [], []
    for _ in range(rounds + (case != "large")):
        runs = folder / "runs"
        shutil.rmtree(runs, ignore_errors=True)
        began, busy = time.perf_counter(), time.process_time()
        made = kit.audit(path, options, runs=runs)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    peak = peak_memory()
    return {"seconds": seconds, "processor": min(processor),
            "growth": peak - start, "imports": imports - start, "nodes": len(made.nodes),
            "findings": len(made.findings), "rules": sum(row.edits > 0 for row in made.rules),
            **({"digest": _seconds(lambda: kit.Model.open(path).digest())} if case == "large" else
               {"inference": min(_inference(path) for _ in range(rounds))})}


def _seconds(work: Any, clock: Any = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def _inference(path: Path) -> float:
    import onnx

    proto = onnx.load(str(path))
    return _seconds(lambda: onnx.shape_inference.infer_shapes(proto, data_prop=True), time.process_time)


def net(path: Path, count: int) -> None:
    """About ``count`` nodes in blocks, with open axes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random, nodes, weights = np.random.default_rng(0), [], []

    def weight(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def add(operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    here = add("Conv", ["x", weight("stem", random.normal(size=(WIDTH, 3, 3, 3)).astype(np.float32))], "stem/conv",
               pads=[1, 1, 1, 1])
    for at in range(count // BLOCK):
        scale = [weight(f"{at}/{name}", np.full(WIDTH, value, np.float32)) for name, value in
                 (("gamma", 1), ("beta", 0), ("mean", 0), ("variance", 1))]
        kernel = weight(f"{at}/kernel", random.normal(size=(WIDTH, WIDTH, 3, 3)).astype(np.float32) / 12)
        wide = add("BatchNormalization", [add("Conv", [here, kernel], f"{at}/conv", kernel_shape=[3, 3],
                                              pads=[1, 1, 1, 1]), *scale], f"{at}/norm")
        wide = add("Mul", [wide, add("HardSigmoid", [wide], f"{at}/gate", alpha=1 / 6, beta=0.5)], f"{at}/swish")
        if at % 25 == 0:  # a few forms that ATC does not take
            wide = add("Transpose", [add("Transpose", [wide], f"{at}/there")], f"{at}/back")
        else:
            wide = add("Relu", [add("Sigmoid", [wide], f"{at}/sigmoid")], f"{at}/relu")
        if at % 5 == 0:  # a shape that is computed
            size = add("Shape", [wide], f"{at}/shape")
            wide = add("Reshape", [wide, size], f"{at}/reshape")
        else:
            wide = add("Tanh", [add("Neg", [wide], f"{at}/neg")], f"{at}/tanh")
        here = add("Abs", [add("Add", [wide, here], f"{at}/add")], f"{at}/abs")
    nodes.append(helper.make_node("GlobalAveragePool", [here], ["y"], "pool"))
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH, 1, 1])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def large(path: Path, gigabytes: float) -> None:
    """Matrix products whose weights are a hole in a file beside the graph."""
    import onnx
    from onnx import TensorProto, helper

    size = SIDE * SIDE * 4
    count = int(np.ceil(gigabytes * 1e9 / size))
    nodes, tensors, here = [], [], "x"
    for at in range(count):
        tensor = TensorProto(name=f"w{at}", data_type=1, dims=[SIDE, SIDE], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", f"{path.name}.data"), ("offset", at * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        nodes += [helper.make_node("MatMul", [here, f"w{at}"], [f"m{at}"], f"matmul{at}"),
                  helper.make_node("Gelu", [f"m{at}"], [f"g{at}"], f"gelu{at}")]
        here = f"g{at}"
    nodes.append(helper.make_node("Softmax", [here], ["y"], "softmax"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    with path.with_name(f"{path.name}.data").open("wb") as stream:
        stream.truncate(count * size)


if __name__ == "__main__":
    main()
