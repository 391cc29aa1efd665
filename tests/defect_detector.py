"""What the committed Keras detector says of itself. For workers: TensorFlow never enters the process of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"


def facts() -> dict:
    """The signature, every anchor of the recipe, and how far the rebuilt Keras model is from the SavedModel."""
    train, detector = _recipe()
    import numpy as np
    import tensorflow as tf

    signature = _signature(detector)
    picture = np.random.default_rng(5).uniform(0, 255, (2, detector.SIZE, detector.SIZE, 3)).astype(np.float32)
    stored = signature(image=tf.constant(picture))
    built = detector.detector()
    again = built(picture, training=False)
    return {
        "inputs": {name: (part.dtype.name, part.shape.as_list())
                   for name, part in signature.structured_input_signature[1].items()},
        "outputs": {name: (part.dtype.name, part.shape.as_list())
                    for name, part in signature.structured_outputs.items()},
        "anchors": detector.anchors(),
        "parameters": built.count_params(),
        "farthest": max(float(np.abs(stored[name] - again[name]).max()) for name in stored),
        "largest": max(float(np.abs(stored[name]).max()) for name in stored),
        "fusions": sum(type(layer).__name__ == "WeightedSum" for layer in built.layers),
        "interpolations": sorted({layer.interpolation for layer in built.layers if hasattr(layer, "interpolation")}),
        "assigned": _assigned(train, detector),
    }


def scores(split: str) -> dict[str, float]:
    """mAP of the SavedModel on a split, by the recipe's own decoding and NMS."""
    train, detector = _recipe()
    signature = _signature(detector)
    return train.evaluate(lambda image, training: signature(image=image), split)


def _recipe():
    sys.path.insert(0, str(DATA / "recipes"))
    import efficientdet
    import train_efficientdet

    return train_efficientdet, efficientdet


def _signature(detector):
    import tensorflow as tf

    _signature.keep = tf.saved_model.load(str(detector.FOLDER))  # a signature dies with its model
    return _signature.keep.signatures["serving_default"]


def _assigned(train, detector) -> dict:
    """Targets of two boxes, and what decoding them gives back."""
    import numpy as np

    boxes = np.float32([[2, 40, 60, 20, 70], [0, 100, 30, 90, 80]])
    kinds, deltas = train.assign(detector.anchors(), boxes)
    logits = np.where(kinds[:, None] == np.arange(4), 8.0, -8.0)
    return {"kinds": sorted(set(kinds.tolist())), "found": train.detections(logits, deltas)}
