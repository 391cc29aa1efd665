"""Tiny detectors with the post-processing of their frameworks, as exporters write it. The factories run in workers."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from kit import worker

FRAMEWORKS = {"combined": "tensorflow", "clipped": "tensorflow", "single": "tensorflow", "apart": "tensorflow",
              "paddle": "paddle", "grown": "paddle"}


def exported(kind: str) -> Path:
    """An .onnx file: ``combined``, ``clipped``, ``single`` or ``apart`` (TensorFlow), ``paddle`` or ``grown``."""
    return _exported(FRAMEWORKS[kind]) / f"{kind}.onnx"


@functools.cache
def _exported(framework: str) -> Path:
    """A folder with all of a framework's: importing it takes longer than they do."""
    folder = Path(tempfile.mkdtemp(prefix="kit-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with worker.Process(framework=framework) as process:
        for kind, own in FRAMEWORKS.items():
            if own == framework:
                process.call(from_paddle if own == "paddle" else from_tensorflow, kind, folder / f"{kind}.onnx")
    return folder


def from_tensorflow(kind: str, path: Path) -> None:
    """Boxes [N, 50, 4] (y first) and scores [N, 50, 3]; of one picture, without N, for ``single`` and ``apart``."""
    import tensorflow as tf
    import tf2onnx

    many = kind in ("combined", "clipped")
    head = [None] if many else []
    scores = [50] if kind == "single" else [50, 3]
    specs = (tf.TensorSpec([*head, 50, 4], tf.float32, name="b"), tf.TensorSpec(head + scores, tf.float32, name="s"))

    @tf.function(input_signature=specs)
    def run(b, s):
        if many:
            found = tf.image.combined_non_max_suppression(b[:, :, None], s, 20, 30, 0.5, 0.25,
                                                          clip_boxes=kind == "clipped")
            return dict(zip(("found_boxes", "found_scores", "found_classes", "count"), found, strict=True))
        if kind == "single":
            return {"kept": tf.gather(b, tf.image.non_max_suppression(b, s, 20, 0.5, 0.25))}
        return {f"kept{at}": tf.gather(b, tf.image.non_max_suppression(b, s[:, at], 20, 0.5)) for at in range(3)}

    tf2onnx.convert.from_function(run, input_signature=specs, opset=17, output_path=str(path))


def from_paddle(kind: str, path: Path) -> None:
    """A picture [N, 3, 8, 8] and ``scale_factor``; 16 boxes, 3 classes, and ``multiclass_nms3``."""
    import paddle
    import paddle2onnx
    from paddle import _C_ops, nn

    paddle.disable_static()
    paddle.seed(5)

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.boxes, self.scores = nn.Conv2D(3, 4, 2, stride=2), nn.Conv2D(3, 3, 2, stride=2)
            self.places = paddle.stack(paddle.meshgrid(paddle.arange(4.0), paddle.arange(4.0)), -1).reshape([1, 16, 2])

        def forward(self, image, scale_factor):
            sides = nn.functional.softplus(self.boxes(image)).flatten(2).transpose([0, 2, 1]) * 3
            middle = self.places.flip([2]) * 2 + 1
            boxes = paddle.concat([middle - sides[:, :, :2], middle + sides[:, :, 2:]], -1)
            scale_y, scale_x = paddle.split(scale_factor, 2, axis=-1)
            boxes = boxes / paddle.concat([scale_x, scale_y, scale_x, scale_y], -1).reshape([-1, 1, 4])
            scores = nn.functional.sigmoid(self.scores(image)).flatten(2)
            found, _, count = _C_ops.multiclass_nms3(boxes, scores, None, 0.3, 16, 10, 0.4, kind != "grown", 1.0, -1)
            return found, count

    net = Net()
    net.eval()
    saved = path.with_suffix("") / "inference"
    paddle.jit.save(net, str(saved), input_spec=[
        paddle.static.InputSpec([1, 3, 8, 8], "float32", "image"),
        paddle.static.InputSpec([1, 2], "float32", "scale_factor")])
    paddle2onnx.export(f"{saved}.json", f"{saved}.pdiparams", str(path), opset_version=17)
