"""Tiny TensorFlow models, built in a worker: TensorFlow never enters the process of the tests."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
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


@functools.cache
def models() -> Path:
    """A folder with one model of every kind, made once a test process.

    ``net`` (see `saved`), ``pictures.keras``, ``pictures.h5``, ``pictures.tflite``, ``int8.tflite``, ``resizes.pb``
    (frozen, every resize with every flag), ``lacking`` (a SavedModel with operators that tf2onnx has not),
    ``loose.pb`` (not frozen), ``weights.h5`` (no model in it).
    """
    folder = Path(tempfile.mkdtemp(prefix="kit-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    worker.run(save_all, folder, framework="tensorflow")
    return folder


def save_all(folder: Path) -> None:
    """Runs in the worker."""
    import numpy as np
    import tensorflow as tf

    save(folder / "net")
    model = pictures()
    model.save(folder / "pictures.keras")
    model.save(folder / "pictures.h5")
    model.save_weights(folder / "only.weights.h5")
    (folder / "only.weights.h5").rename(folder / "weights.h5")
    model.export(str(folder / "exported"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "exported"))
    (folder / "pictures.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "exported"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    random = np.random.default_rng(0)
    converter.representative_dataset = lambda: ([random.standard_normal((1, 16, 24, 3)).astype(np.float32)]
                                                for _ in range(8))
    (folder / "int8.tflite").write_bytes(converter.convert())
    graph = tf.Graph()
    with graph.as_default():
        resizes(tf)
    (folder / "resizes.pb").write_bytes(graph.as_graph_def().SerializeToString())
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.get_variable("w", [3], use_resource=True) + tf.compat.v1.placeholder(tf.float32, [3], name="x")
    (folder / "loose.pb").write_bytes(graph.as_graph_def().SerializeToString())

    class Lacking(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": tf.math.digamma(x) + tf.math.lgamma(x) + tf.math.digamma(x + 1) + tf.math.erfinv(x / 100)}

    lacking = Lacking()
    tf.saved_model.save(lacking, str(folder / "lacking"), signatures={"serving_default": lacking.__call__})


def pictures():
    """A Keras model of pictures with an open batch: a convolution, an upsampling, outputs ``scores`` and ``small``."""
    import keras

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 24, 3), name="image")
    x = keras.layers.Rescaling(1 / 4, offset=0.5)(image)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(image, {"scores": keras.layers.Conv2D(2, 1)(x), "small": keras.layers.GlobalMaxPooling2D()(x)})


def subclassed():
    """A Keras model of a class of its own, never built: it does not know what it takes."""
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    return Own()


def open_upsampling():
    """What Keras 3.15.1 cannot trace: a bilinear UpSampling2D with open height and width."""
    import keras

    image = keras.Input((None, None, 3), name="image")
    return keras.Model(image, keras.layers.UpSampling2D(2, interpolation="bilinear")(image))


def no_model():
    """Not a Keras model."""
    return 3


RESIZES = {
    "linear_corners": ("resize_bilinear", "align_corners"), "linear_half": ("resize_bilinear", "half_pixel_centers"),
    "linear_legacy": ("resize_bilinear", ""), "near_corners": ("resize_nearest_neighbor", "align_corners"),
    "near_half": ("resize_nearest_neighbor", "half_pixel_centers"), "near_legacy": ("resize_nearest_neighbor", ""),
    "cubic_corners": ("resize_bicubic", "align_corners"), "cubic_half": ("resize_bicubic", "half_pixel_centers"),
    "cubic_legacy": ("resize_bicubic", "")}  # fmt: skip


def resizes(tf) -> None:
    """Every resize with every flag, of one picture; sizes that are no whole multiple."""
    picture = tf.compat.v1.placeholder(tf.float32, [None, 15, 20, 3], name="picture")
    for name, (operator, flag) in RESIZES.items():
        made = getattr(tf.compat.v1.image, operator)(picture, [27, 37], name=name, **({flag: True} if flag else {}))
        tf.identity(made, name=f"out_{name}")
