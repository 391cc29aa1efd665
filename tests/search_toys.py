"""Worlds to search in without measuring anything: every candidate has a speed and a loss, drawn from a seed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.searching import SearchOptions
from kit.trials.conduct import conduct
from kit.trials.log import Log, Trial
from kit.trials.space import Candidate, baseline, space

OPTIONS = SearchOptions(methods=("mse", "minmax", "tensor"))
OFFERED = {"onnxruntime": ("fp32", "int8", "int8-weights", "int4-weights"),
           "openvino": ("fp32", "bf16", "int8", "int8+bf16", "int8-weights", "int4-weights")}
ALLOWED = 0.01


def candidates(options: SearchOptions = OPTIONS) -> tuple[Candidate, ...]:
    return space(options, OFFERED, multiplies=False)


@dataclass(frozen=True)
class World:
    """Latency is of runtime, precision and groups in float; loss of precision, method and groups; 2 % of both is luck.

    Attributes:
        seed: another world.
        luck: share by which figures stray from that rule.
    """

    seed: int
    luck: float = 0.02

    def ratio(self, candidate: Candidate) -> float:
        if candidate == baseline(OPTIONS):
            return 1.0
        random = np.random.default_rng([self.seed, 1])
        kinds = {("onnxruntime", "fp32"): 1.0, ("onnxruntime", "int8"): random.uniform(0.3, 1.5),
                 ("openvino", "fp32"): random.uniform(0.85, 1.1), ("openvino", "bf16"): random.uniform(0.45, 0.7),
                 ("openvino", "int8"): random.uniform(0.25, 0.8)}
        kinds["openvino", "int8+bf16"] = kinds["openvino", "int8"] * random.uniform(0.75, 1.1)
        kept = 1 + candidate.keep * random.uniform(0.003, 0.02)
        threads = 1.0 if candidate.threads > 1 else random.uniform(1.2, 1.9)
        level = 1.0 if candidate.level != "extended" else random.uniform(0.98, 1.3)
        return kinds[candidate.kind] * kept * threads * level * self._luck(candidate, 2)

    def loss(self, candidate: Candidate) -> float:
        if not candidate.method:
            return {"fp32": 0.0}.get(candidate.precision, 0.0005)
        random = np.random.default_rng([self.seed, 3])
        level = 10 ** random.uniform(-3, -1)
        methods = dict(zip(("mse", "minmax", "tensor"), 10 ** random.uniform(-0.4, 0.4, 3), strict=True))
        return level * methods[candidate.method] * random.uniform(0.2, 0.9) ** candidate.keep * self._luck(candidate, 4)

    def _luck(self, candidate: Candidate, what: int) -> float:
        at = candidates().index(candidate)
        return float(np.exp(self.luck * np.random.default_rng([self.seed, what, at]).uniform(-1, 1)))

    def best(self, allowed: float = ALLOWED) -> float:
        return min(self.ratio(c) for c in candidates() if self.loss(c) <= allowed)


@dataclass(frozen=True)
class Attempt:
    """A trial in a world; takes ``seconds`` and leaves a small file."""

    world: World
    folder: Path
    seconds: float = 0.0

    def __call__(self, ask, report=None) -> Trial:
        time.sleep(self.seconds)
        artifact = self.folder / f"{'-'.join(map(str, ask.candidate.made_of))}.onnx"
        if not artifact.is_file():
            write_model(artifact, float(ask.number))
        ratio, loss = self.world.ratio(ask.candidate), self.world.loss(ask.candidate)
        return Trial(ask.number, ask.candidate, "measured", ratio, ratio * 0.98, ratio * 1.02, 10 * ratio, 10.0, loss,
                     1 - loss, None, 100, True, artifact, artifact.stat().st_size)


def write_model(path: Path, value: float = 2.0) -> Path:
    """y = x + value."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.full(4, value, np.float32), "c")])
    half = path.with_suffix(".half")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(half))
    half.replace(path)
    return path


def search(seed: int, folder: Path, pause: float = 0.0, **more) -> Log:
    """Search a world; goes on where an earlier call was."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    about = {"title": "toy.onnx", "metric": "score", "allowed": ALLOWED, "space": len(candidates()),
             "float_model": "", "notes": [], "ended": False}
    log = Log(folder / "search", about)
    ended = conduct(log, Attempt(World(seed), files, pause), baseline(OPTIONS), candidates(), allowed=ALLOWED,
                    **{"seconds": 1e9, **more})
    log.say(ended=ended)
    return log


if __name__ == "__main__":
    search(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
