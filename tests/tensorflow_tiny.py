"""A tiny SavedModel, built in a worker: TensorFlow never enters the process of the tests."""

from __future__ import annotations

from pathlib import Path

from kit import worker


def saved(folder: Path) -> Path:
    """Two signatures: ``serving_default`` gives y = x w + 1 and its sum along the last axis, ``half`` y = x / 2."""
    worker.run(save, folder, framework="tensorflow")
    return folder


def save(folder: Path) -> None:
    """Runs in the worker."""
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def call(self, x):
            y = x @ self.w + 1
            return {"y": y, "sum": tf.reduce_sum(y, axis=-1)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def half(self, x):
            return {"y": x / 2}

    net = Net()
    tf.saved_model.save(net, str(folder), signatures={"serving_default": net.call, "half": net.half})
