"""The same small classifier with the same weights, as a Paddle layer and in Keras; each is built in a worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kit.worker import Process


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def paddle_saved(folder: Path) -> Path:
    """A Paddle inference folder."""
    with Process(framework="paddle") as process:
        process.call(save_paddle, folder)
    return folder


def keras_onnx(paths: dict[int, Path]) -> dict[int, Path]:
    """ONNX files by tf2onnx, one for each stride of the first convolution; a stride of 1 gives Paddle's twin."""
    with Process(framework="tensorflow") as process:
        for stride, path in paths.items():
            process.call(save_keras, path, stride)
    return paths


def save_paddle(folder: Path) -> None:
    """Runs in a worker."""
    import paddle
    from paddle import nn

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2D(3, 8, 3, padding=1), nn.BatchNorm2D(8, epsilon=1e-3)
            self.squeeze, self.excite = nn.Conv2D(8, 2, 1), nn.Conv2D(2, 8, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            x = nn.functional.hardswish(self.norm(self.conv(x)))
            x = nn.functional.max_pool2d(x, 2)
            weight = nn.functional.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1)))
            x = x * nn.functional.hardsigmoid(self.excite(weight))
            x = nn.functional.adaptive_avg_pool2d(x, 1)
            return nn.functional.softmax(self.head(paddle.flatten(x, 1)))

    paddle.disable_static()
    net = Net()
    for at, part in enumerate((net.conv, net.squeeze, net.excite, net.head)):
        part.weight.set_value(numbers(at, *part.weight.shape))
        part.bias.set_value(numbers(10 + at, *part.bias.shape))
    net.norm.weight.set_value(1 + numbers(20, 8))
    net.eval()
    paddle.jit.save(net, str(folder / "inference"),
                    input_spec=[paddle.static.InputSpec([1, 3, 16, 16], "float32", "x")])


def save_keras(path: Path, stride: int) -> None:
    """Runs in a worker."""
    import keras
    import tensorflow as tf
    import tf2onnx
    from keras import layers

    inputs = layers.Input((16, 16, 3), batch_size=1, name="x")
    x = layers.Conv2D(8, 3, strides=stride, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(epsilon=1e-3, name="norm")(x)
    x = layers.MaxPooling2D(2)(layers.Activation(keras.activations.hard_silu)(x))
    weight = layers.Conv2D(2, 1, activation="relu", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    weight = layers.Activation("hard_sigmoid")(layers.Conv2D(8, 1, name="excite")(weight))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, weight]))
    net = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))
    shapes = ((8, 3, 3, 3), (2, 8, 1, 1), (8, 2, 1, 1))
    for at, (name, shape) in enumerate(zip(("conv", "squeeze", "excite"), shapes, strict=True)):
        net.get_layer(name).set_weights([numbers(at, *shape).transpose(2, 3, 1, 0), numbers(10 + at, shape[0])])
    net.get_layer("head").set_weights([numbers(3, 8, 4), numbers(13, 4)])
    _, beta, mean, variance = net.get_layer("norm").get_weights()
    net.get_layer("norm").set_weights([1 + numbers(20, 8), beta, mean, variance])
    run = tf.function(lambda x: net(x, training=False),
                      input_signature=[tf.TensorSpec((1, 16, 16, 3), tf.float32, name="x")])
    tf2onnx.convert.from_function(run, input_signature=run.input_signature, opset=17, output_path=str(path))
