"""Tiny Paddle models, built and saved in workers; each is made once a test process."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

from kit.worker import Process


@functools.cache
def saved(kind: str = "net") -> Path:
    """A folder with a saved inference model: ``net``, ``old`` (.pdmodel), ``lacking`` or ``double``."""
    folder = Path(tempfile.mkdtemp(prefix="kit-test-")) / kind
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    if kind == "double":
        shutil.copytree(saved("net"), folder)
        widen(folder / "inference.json")
        return folder
    old = {"FLAGS_enable_pir_api": "0"} if kind == "old" else {}
    with Process(framework="paddle", environment=old) as process:
        process.call(save, kind, folder)
    return folder


def save(kind: str, folder: Path) -> None:
    """Runs in the worker."""
    import paddle

    paddle.seed(7)
    layer = {"net": net, "old": old_net, "lacking": lacking}[kind]()
    layer.eval()
    shape = [None, 3, None, None] if kind != "lacking" else [None, 16]
    paddle.jit.save(layer, str(folder / "inference"),
                    input_spec=[paddle.static.InputSpec(shape, "float32", "x")])


def widen(graph: Path) -> None:
    """What Paddle 3.3 does: store the scale of an upsampling with 64 bits."""
    program = json.loads(graph.read_text())

    def walk(thing):
        if isinstance(thing, dict):
            if thing.get("N") == "scale" and thing["AT"]["#"] == "0.a_array":
                for number in thing["AT"]["D"]:
                    number["#"] = "0.a_f64"
            for value in thing.values():
                walk(value)
        elif isinstance(thing, list):
            for value in thing:
                walk(value)

    walk(program)
    graph.write_text(json.dumps(program))


# ---- factories; a layer's class is made inside, because paddle is imported in workers only ---------------------------


def net():
    """HardSwish, squeeze-and-excite, nearest upsampling and a transposed convolution: a detector in miniature."""
    import paddle
    from paddle import nn

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2D(3, 8, 3, stride=2, padding=1), nn.BatchNorm2D(8)
            self.squeeze, self.excite = nn.Conv2D(8, 2, 1), nn.Conv2D(2, 8, 1)
            self.up = nn.Upsample(scale_factor=2, mode="nearest")
            self.out = nn.Conv2DTranspose(8, 1, 2, stride=2)

        def forward(self, x):
            x = nn.functional.hardswish(self.norm(self.conv(x)))
            weight = nn.functional.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1)))
            x = x * nn.functional.hardsigmoid(self.excite(weight))
            return nn.functional.sigmoid(self.out(nn.functional.max_pool2d(self.up(x), 2)))

    paddle.disable_static()
    return Net()


def old_net():
    """Without what paddle 3.2 can no longer save in the old format (Sigmoid, Upsample)."""
    from paddle import nn

    return nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4), nn.Hardswish(),
                         nn.Conv2DTranspose(4, 2, 2, stride=2))


def lacking():
    """Three operators that Paddle2ONNX has no counterpart for, one of them twice."""
    import paddle
    from paddle import nn

    class Lacking(nn.Layer):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 16)

        def forward(self, x):
            x = paddle.logit(nn.functional.sigmoid(self.first(x)))
            return paddle.kthvalue(paddle.erfinv(x.clip(-0.9, 0.9)) + paddle.erfinv(x * 0.01), 2)[0]

    return Lacking()


def seeded():
    """A layer with random weights, in training mode, with Dropout."""
    from paddle import nn

    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


def from_file():
    """A layer whose weights lie in the file that the environment names."""
    import os

    import paddle
    from paddle import nn

    layer = nn.Linear(4, 2)
    layer.weight.set_value(paddle.to_tensor(json.loads(Path(os.environ["TINY_WEIGHTS"]).read_text()), "float32"))
    return layer


def raising():
    raise ValueError("no weights today")


def no_layer():
    return "a string"


number = 3
