"""Train the digits CNN, round it after training (PTQ) and in training (QAT), export all as ONNX, and compare.

    python data/recipes/digits/train.py --out data/models/digits

Everything is done from several seeds, because one test split of 600 digits cannot tell 0.980 from 0.985; the models of
the first seed are exported. A run takes 9 minutes of processor time, and gives the same files again on the same machine
and versions.

``--quick`` trains a few steps only: it shows that the way from training to files works, nothing about accuracy.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import logging
import multiprocessing
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from exports import export_float, export_qdq
from network import WIDE, DigitsNet, plant_wide_channels
from quantizer import DigitsQuantizer, Scheme, round_biases

from kit.families.digits import digits_arrays

DATA = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """One way to round the network. ``name`` is that of the file, ``digits_<name>.onnx``."""

    name: str
    scheme: Scheme
    qat: bool


CASES = tuple(
    Case(f"{how}_int{bits}{'' if per_channel else '_tensor'}", Scheme(bits, per_channel), how == "qat")
    for bits, per_channel in ((8, False), (8, True), (4, True))
    for how in ("ptq", "qat")
)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    epochs: int = 40
    rate: float = 1e-2
    qat_epochs: int = 15
    qat_rate: float = 1e-3
    batch: int = 64


class Split:
    """The images and digits of one split as tensors."""

    def __init__(self, name: str):
        images, labels = digits_arrays(name, DATA)
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)


def fit(net: torch.nn.Module, parameters: list, split: Split, *, seed: int, epochs: int, rate: float, batch: int):
    """Train in place with AdamW and one rise and fall of the rate; pictures are shifted by up to one pixel."""
    chance = torch.Generator().manual_seed(seed)
    steps = len(split.labels) // batch
    optimiser = torch.optim.AdamW(parameters, rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(split.labels), generator=chance)[: steps * batch].split(batch):
            down, right = torch.randint(0, 3, (2,), generator=chance).tolist()
            images = functional.pad(split.images[chosen], (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]
            loss = functional.cross_entropy(net(images), split.labels[chosen], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def train_float(seed: int, train: Split, plan: Plan) -> tuple[DigitsNet, dict[str, list[int]]]:
    """A trained network in eval mode with wide channels planted, and which they are."""
    torch.manual_seed(seed)
    net = DigitsNet()
    fit(net, list(net.parameters()), train, seed=seed, epochs=plan.epochs, rate=plan.rate, batch=plan.batch)
    return net.eval(), plant_wide_channels(net, seed)


def capture(net: DigitsNet) -> torch.fx.GraphModule:
    """The network as a graph of operators, for any number of images."""
    any_number = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(net, (torch.zeros(4, 1, 8, 8),), dynamic_shapes=any_number).module()


def ptq(net: DigitsNet, scheme: Scheme, calibration: Split) -> torch.nn.Module:
    """Round the network to the lowest and highest values that it shows on the calibration split."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    observed = prepare_pt2e(capture(copy.deepcopy(net).eval()), DigitsQuantizer(scheme, qat=False))
    with torch.no_grad():
        observed(calibration.images)
    return round_biases(convert_pt2e(observed))


def qat(net: DigitsNet, scheme: Scheme, train: Split, plan: Plan, seed: int) -> torch.nn.Module:
    """Train the network on with rounding in it, then convert it.

    Only weight matrices learn. Batch norm's factors stay: in a planted channel they are small, so that a step which is
    nothing for the others would throw it over (seen from one seed: INT4 ended at 0.963, though at a third of the
    rate, instead of 0.983).
    """
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    rounded = prepare_qat_pt2e(capture(copy.deepcopy(net).train()), DigitsQuantizer(scheme, qat=True))
    allow_exported_model_train_eval(rounded)
    matrices = [parameter for parameter in rounded.parameters() if parameter.ndim > 1]
    fit(rounded, matrices, train, seed=seed, epochs=plan.qat_epochs, rate=plan.qat_rate, batch=plan.batch)
    rounded.eval()
    return round_biases(convert_pt2e(rounded))


@torch.no_grad()
def right(net: torch.nn.Module, split: Split) -> np.ndarray:
    """Which digits are told right: bool [N]."""
    return (net(split.images).argmax(1) == split.labels).numpy()


def one_seed(seed: int, plan: Plan, cases: tuple[Case, ...], out: Path | None) -> dict:
    """Train, round and measure from one seed; export to ``out`` where it is given.

    Returns:
        Per network (``float`` and the cases' names) which test digits are right; the planted channels; how well the
        files agree with PyTorch.
    """
    # One thread: seeds run side by side, and sums come in the same order every time.
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    train, calibration, test = Split("train"), Split("calibration"), Split("test")
    net, planted = train_float(seed, train, plan)
    found = {"seed": seed, "planted": planted, "right": {"float": right(net, test)}, "files": {}}
    if out:
        export_float(net, out / "digits.onnx")
        found["files"]["digits.onnx"] = agreement(net, out / "digits.onnx", test)
    for case in cases:
        rounded = qat(net, case.scheme, train, plan, seed) if case.qat else ptq(net, case.scheme, calibration)
        found["right"][case.name] = right(rounded, test)
        if out:
            path = out / f"digits_{case.name}.onnx"
            export_qdq(rounded, path, bits=case.scheme.bits)
            found["files"][path.name] = agreement(rounded, path, test)
    return found


def agreement(net: torch.nn.Module, path: Path, split: Split) -> dict[str, float]:
    """Compare PyTorch's answers with ONNX Runtime's, as it runs the file by default."""
    import onnxruntime

    with torch.no_grad():
        ours = net(split.images).numpy()
    theirs = onnxruntime.InferenceSession(path).run(None, {"image": split.images.numpy()})[0]
    labels = split.labels.numpy()
    return {
        "accuracy in PyTorch": float((ours.argmax(1) == labels).mean()),
        "accuracy in ONNX Runtime": float((theirs.argmax(1) == labels).mean()),
        "same digit": float((ours.argmax(1) == theirs.argmax(1)).mean()),
        "largest difference of a logit": float(np.abs(ours - theirs).max()),
        "largest logit": float(np.abs(ours).max()),
        "bytes": path.stat().st_size,
    }


def gain(results: list[dict], name: str, base: str) -> dict[str, object]:
    """How much more ``name`` tells right than ``base``: mean over seeds, and a 95 % interval.

    The interval comes from drawing the test digits anew 2,000 times; both networks see the same digits.
    """
    each = np.array([result["right"][name].astype(float) - result["right"][base] for result in results])
    draws = np.random.default_rng(0).integers(0, each.shape[1], (2000, each.shape[1]))
    low, high = np.quantile(each.mean(0)[draws].mean(1), (0.025, 0.975))
    return {
        "of": name, "over": base, "gain": float(each.mean()), "low": float(low), "high": float(high),
        "seeds that gain": int((each.mean(1) > 0).sum()),
    }


def summary(results: list[dict], plan: Plan, seconds: float) -> dict:
    """Everything worth keeping of a run, ready for JSON."""
    names = list(results[0]["right"])
    accuracies = {name: [float(result["right"][name].mean()) for result in results] for name in names}
    pairs = [(name, name.replace("qat", "ptq")) for name in names if name.startswith("qat")]
    pairs += [(name, "float") for name in names if name != "float"]
    packages = ("torch", "torchao", "onnx", "onnxscript", "onnxruntime", "numpy")
    return {
        "plan": asdict(plan),
        "seeds": [result["seed"] for result in results],
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "seconds": round(seconds),
        "accuracy on the test split": {
            name: {"mean": float(np.mean(v)), "standard deviation": float(np.std(v, ddof=len(v) > 1)), "each": v}
            for name, v in accuracies.items()
        },
        "gains": [gain(results, *pair) for pair in pairs if pair[1] in names],
        "wide channels": {"factors": WIDE, "planted": results[0]["planted"]},
        "files": results[0]["files"],
    }


def show(log: dict) -> None:
    """Print the table."""
    print(f"{len(log['seeds'])} seeds, {log['seconds']} s\n\n{'network':18} {'mean':>7} {'std':>7}   each")
    for name, row in log["accuracy on the test split"].items():
        each = " ".join(f"{value:.4f}" for value in row["each"])
        print(f"{name:18} {row['mean']:7.4f} {row['standard deviation']:7.4f}   {each}")
    print()
    for row in log["gains"]:
        print(f"{row['of']:16} over {row['over']:16} {row['gain']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
              f"  {row['seeds that gain']} of {len(log['seeds'])} seeds")
    print()
    for name, row in log["files"].items():
        print(f"{name:28} {row['bytes']:7,} bytes, accuracy {row['accuracy in ONNX Runtime']:.4f} (PyTorch "
              f"{row['accuracy in PyTorch']:.4f}), logits differ by {row['largest difference of a logit']:.1e} at most")


def main(arguments: list[str] | None = None) -> None:
    """Run it from the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA / "models" / "digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few steps, one seed, two of the cases")
    given = parser.parse_args(arguments)
    plan, cases, seeds = Plan(), CASES, given.seeds
    if given.quick:
        plan, seeds = Plan(epochs=1, qat_epochs=1), 1
        cases = tuple(case for case in CASES if case.name in ("ptq_int8", "qat_int4"))
    given.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    jobs = [(seed, plan, cases, None if seed else given.out) for seed in range(seeds)]
    if seeds == 1:
        results = [one_seed(*jobs[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            results = pool.starmap(one_seed, jobs, chunksize=1)
    log = summary(results, plan, time.monotonic() - start)
    (given.out / "training.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    show(log)


if __name__ == "__main__":
    main()
