"""A small detector of EfficientDet's kind in Keras: EfficientNet backbone, BiFPN, one head for classes, one for boxes.

The one idea: everything that makes EfficientDet hard to move is here (weighted fusion, nearest and bilinear
up-sampling, depthwise convolutions with SiLU, squeeze-and-excitation, heads shared over five levels), and nothing
that only makes it big. The backbone is that of keras.applications with other factors for width and depth.

``detector()`` returns the Keras model, trained where ``data/models/defects_efficientdet`` holds weights;
``train_efficientdet.py`` trains it and writes the SavedModel.

Sources: Tan, Pang and Le 2020, "EfficientDet" (https://arxiv.org/abs/1911.09070); Tan and Le 2019, "EfficientNet"
(https://arxiv.org/abs/1905.11946). Written afresh for this kit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import numpy as np
from keras import layers, ops
from keras.src.applications.efficientnet import EfficientNet  # B0 to B7 call it with their factors; it is not public

sys.path.insert(0, str(Path(__file__).resolve().parent))
from defects import CLASSES

FOLDER = Path(__file__).resolve().parents[1] / "models" / "defects_efficientdet"
SIZE = 256
WIDTH, DEPTH = 0.35, 0.5  # against EfficientNet-B0
STRIDES = (8, 16, 32, 64, 128)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.3, 1.0, 2.2)
ANCHOR = 2.5  # side of a level's first anchor, in strides
CHANNELS = 32
CELLS = 2
REPEATS = 2  # convolutions of a head before its last one


def detector(weights: str | Path | None = None) -> keras.Model:
    """Build the detector.

    Args:
        weights: a ``.weights.h5`` file; without it the trained ones where the SavedModel lies beside the recipes.

    Returns:
        A model from ``image`` float32 [N, 256, 256, 3], RGB, 0 to 255, to ``class_logits`` float32 [N, A, 4] and
        ``box_deltas`` float32 [N, A, 4] (y, x, height, width, coded by ``anchors``); A = 12,276.
    """
    model = build()
    if weights:
        model.load_weights(weights)
    elif (FOLDER / "saved_model.pb").is_file():
        import tensorflow as tf

        for variable, stored in zip(model.variables, tf.saved_model.load(str(FOLDER)).trained, strict=True):
            variable.assign(stored)
    return model


def build() -> keras.Model:
    """The detector with random weights; the backbone divides by 255, its normalisation stays at mean 0, variance 1."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    backbone = EfficientNet(WIDTH, DEPTH, SIZE, include_top=False, weights=None, input_tensor=image,
                            drop_connect_rate=0.0)
    features = [_last(backbone, stage) for stage in (3, 5, 7)]
    for _ in STRIDES[3:]:
        features.append(layers.MaxPooling2D(3, 2, "same")(_narrow(features[-1])))
    features = [_narrow(part) for part in features]
    for cell in range(CELLS):
        features = _fuse(features, "nearest" if cell % 2 == 0 else "bilinear")
    each = len(SCALES) * len(RATIOS)
    classes = _head(features, each * len(CLASSES), bias=-np.log(99.0), name="class")
    boxes = _head(features, each * 4, bias=0.0, name="box")
    return keras.Model(image, {"class_logits": _together(classes, len(CLASSES), "class_logits"),
                               "box_deltas": _together(boxes, 4, "box_deltas")}, name="efficientdet")


def anchors() -> np.ndarray:
    """All anchors, float32 [A, 4]: centre and size (y, x, height, width); by level, row, column, scale, ratio."""
    made = []
    for stride in STRIDES:
        middles = (np.arange(-(-SIZE // stride)) + 0.5) * stride
        sides = np.array([[ANCHOR * stride * scale / ratio**0.5, ANCHOR * stride * scale * ratio**0.5]
                          for scale in SCALES for ratio in RATIOS])
        y, x = np.meshgrid(middles, middles, indexing="ij")
        centres = np.repeat(np.stack([y, x], -1).reshape(-1, 1, 2), len(sides), axis=1)
        made.append(np.concatenate([centres, np.broadcast_to(sides, centres.shape)], -1).reshape(-1, 4))
    return np.concatenate(made).astype(np.float32)


@keras.saving.register_keras_serializable("kit")
class WeightedSum(layers.Layer):
    """Fast normalised fusion: inputs summed with weights that are not negative and sum to one."""

    def build(self, shapes):
        """One weight an input."""
        self.share = self.add_weight(shape=(len(shapes),), initializer="ones", name="share")

    def call(self, parts):
        """The weighted sum of tensors of one shape."""
        share = ops.relu(self.share)
        share = share / (ops.sum(share) + 1e-4)
        return sum(part * share[at] for at, part in enumerate(parts))


def _last(backbone: keras.Model, stage: int):
    """The output of a stage's last block."""
    names = [layer.name for layer in backbone.layers if layer.name.startswith(f"block{stage}")]
    return backbone.get_layer(names[-1]).output


def _narrow(x):
    """To the channels of the pyramid, where it has others."""
    return x if x.shape[-1] == CHANNELS else layers.BatchNormalization()(layers.Conv2D(CHANNELS, 1)(x))


def _fuse(features: list, interpolation: str) -> list:
    """One BiFPN cell: from the coarsest level down, then up again with the inputs once more."""
    down = [features[-1]]
    for feature in features[-2::-1]:
        finer = layers.UpSampling2D(2, interpolation=interpolation)(down[0])
        down.insert(0, _smooth(WeightedSum()([feature, finer])))
    up = [down[0]]
    for at in range(1, len(features)):
        coarser = layers.MaxPooling2D(3, 2, "same")(up[-1])
        parts = [features[at], coarser] if at == len(features) - 1 else [features[at], down[at], coarser]
        up.append(_smooth(WeightedSum()(parts)))
    return up


def _smooth(x):
    x = layers.SeparableConv2D(CHANNELS, 3, padding="same", use_bias=False)(layers.Activation("swish")(x))
    return layers.BatchNormalization()(x)


def _head(features: list, channels: int, bias: float, name: str) -> list:
    """The same convolutions for every level, with batch statistics of each level's own."""
    shared = [layers.SeparableConv2D(CHANNELS, 3, padding="same", use_bias=False, name=f"{name}_{at}")
              for at in range(REPEATS)]
    final = layers.SeparableConv2D(channels, 3, padding="same", bias_initializer=keras.initializers.Constant(bias),
                                   name=f"{name}_last")
    outputs = []
    for level, x in enumerate(features):
        for at, convolution in enumerate(shared):
            norm = layers.BatchNormalization(name=f"{name}_{at}_norm_{level}")
            x = layers.Activation("swish")(norm(convolution(x)))
        outputs.append(final(x))
    return outputs


def _together(outputs: list, width: int, name: str):
    return layers.Concatenate(axis=1, name=name)([layers.Reshape((-1, width))(part) for part in outputs])


def description() -> dict:
    """What a reader of the raw outputs must know, as ``detection.json`` says it."""
    anchoring = {"strides": STRIDES, "scales": SCALES, "ratios": RATIOS, "size": ANCHOR, "order": "yxhw"}
    # the graph divides by 255, as all EfficientNets of keras.applications do
    plain = {"resize": "stretch", "size": (SIZE, SIZE), "channels": "RGB", "scale": 1.0, "mean": (0, 0, 0),
             "std": (1, 1, 1), "layout": "NHWC"}
    return {"format": "kit-detection", "classes": CLASSES, "size": (SIZE, SIZE), "preprocess": plain,
            "inputs": {"image": "image"}, "outputs": {"scores": "class_logits", "boxes": "box_deltas"},
            "scores": {"activation": "sigmoid", "classes_axis": 2},
            "boxes": {"coding": "anchors", "anchors": anchoring}}
