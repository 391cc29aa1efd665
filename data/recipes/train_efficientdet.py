"""Train the detector of ``efficientdet.py`` on freshly drawn surfaces, and write it as a SavedModel.

    python data/recipes/train_efficientdet.py --minutes 40 --work /tmp/efficientdet
    python data/recipes/train_efficientdet.py --evaluate     the mAP of what lies in data/models/defects_efficientdet
    python data/recipes/train_efficientdet.py --export /tmp/efficientdet/last.weights.h5     a checkpoint as SavedModel

Pictures come from ``defects.fresh`` and the committed ``train`` split, flipped both ways at random; ``val`` picks
nothing and ``test`` is looked at once, at the end. Two CPU cores are enough.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import cv2
import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parent))
import defects
import efficientdet

DATA = Path(__file__).resolve().parents[1] / "defects"
BATCH = 8
FRESH = 3000  # freshly drawn pictures


def main() -> None:
    """Train for so many minutes, or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--work", type=Path, default=Path("runs/efficientdet"), help="checkpoints and drawn pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--export", type=Path, metavar="WEIGHTS")
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(chosen.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if chosen.evaluate:
        print(json.dumps(evaluate(efficientdet.detector(), "test"), indent=1))
        return
    if chosen.export:
        save(efficientdet.detector(chosen.export), efficientdet.FOLDER)
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    model = train(chosen.minutes, chosen.work)
    scores = evaluate(model, "test")
    save(model, efficientdet.FOLDER)
    print("test", json.dumps(scores), flush=True)


def train(minutes: float, work: Path) -> keras.Model:
    """Train from scratch; the model holds averaged weights at the end. Prints a line a minute."""
    pictures, boxes = defects.material(work, FRESH)
    model, rng = efficientdet.build(), np.random.default_rng(0)
    optimizer = keras.optimizers.AdamW(2.5e-3, weight_decay=1e-4, clipnorm=5.0)
    learnt = [weight for weight in model.weights if "float" in weight.dtype]
    averaged = [tf.Variable(weight, trainable=False) for weight in learnt]
    anchors = efficientdet.anchors()

    @tf.function
    def step(image, kinds, deltas):
        with tf.GradientTape() as tape:
            found = model(tf.cast(image, tf.float32), training=True)
            loss = _focal(found["class_logits"], kinds) + 2.0 * _distance(found["box_deltas"], deltas, kinds)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    began, said, steps, losses, saved = time.monotonic(), time.monotonic(), 0, [], time.monotonic()
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        slope = min(1.0, (steps + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * share))
        optimizer.learning_rate.assign(2.5e-3 * slope + 1e-5)
        picks = rng.integers(len(pictures), size=BATCH)
        batch = [_flipped(pictures[at], boxes[at], rng) for at in picks]
        targets = [assign(anchors, own) for _, own in batch]
        image = np.repeat(np.stack([picture for picture, _ in batch])[..., None], 3, axis=3)
        loss = step(tf.constant(image), tf.constant(np.stack([t[0] for t in targets])),
                    tf.constant(np.stack([t[1] for t in targets])))
        losses.append(float(loss))
        steps += 1
        keep = min(0.998, steps / (steps + 20))
        for mean, weight in zip(averaged, learnt, strict=True):
            mean.assign(keep * mean + (1 - keep) * weight)
        if time.monotonic() - said > 60:
            print(f"minute {share * minutes:5.1f}  step {steps:5d}  loss {np.mean(losses):.4f}", flush=True)
            said, losses = time.monotonic(), []
        if time.monotonic() - saved > 300:
            with _weights(learnt, averaged):
                scores = evaluate(model, "val")
                model.save_weights(work / "last.weights.h5")
            print(f"  val mAP@0.5 {scores['mAP@0.5']:.3f}  mAP@0.5:0.95 {scores['mAP@0.5:0.95']:.3f}", flush=True)
            saved = time.monotonic()
    print(f"{steps} steps of {BATCH} pictures in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    for mean, weight in zip(averaged, learnt, strict=True):
        weight.assign(mean)
    return model


def assign(anchors: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each anchor should say.

    Args:
        anchors: of ``efficientdet.anchors``.
        boxes: float32 [B, 5], class, x, y, width, height.

    Returns:
        int32 [A], the class, -1 for none, -2 where the anchor is not asked; float32 [A, 4], the deltas.
    """
    kinds, deltas = np.full(len(anchors), -1, np.int32), np.zeros((len(anchors), 4), np.float32)
    if not len(boxes):
        return kinds, deltas
    true = np.stack([boxes[:, 2] + boxes[:, 4] / 2, boxes[:, 1] + boxes[:, 3] / 2, boxes[:, 4], boxes[:, 3]], 1)
    shared = np.ones((len(anchors), len(true)), np.float32)
    for axis in (0, 1):
        centre, half = anchors[:, None, axis], anchors[:, None, axis + 2] / 2
        low = np.maximum(centre - half, true[:, axis] - true[:, axis + 2] / 2)
        high = np.minimum(centre + half, true[:, axis] + true[:, axis + 2] / 2)
        shared *= np.clip(high - low, 0, None)
    iou = shared / (anchors[:, None, 2] * anchors[:, None, 3] + true[:, 2] * true[:, 3] - shared)
    best, owner = iou.max(axis=1), iou.argmax(axis=1)
    kinds[best > 0.4] = -2
    mine = best > 0.5
    for box in range(len(true)):  # each box has a few anchors, however odd its shape
        for at in np.argsort(-iou[:, box])[:5]:
            mine[at], owner[at] = True, box
    kinds[mine] = boxes[owner[mine], 0].astype(np.int32)
    wanted, own = true[owner[mine]], anchors[mine]
    deltas[mine] = np.concatenate([(wanted[:, :2] - own[:, :2]) / own[:, 2:], np.log(wanted[:, 2:] / own[:, 2:])], 1)
    return kinds, deltas


def evaluate(model: keras.Model, split: str) -> dict[str, float]:
    """Score by pycocotools over a committed split: mAP at an IoU of 0.5, over 0.5 to 0.95, and each class at 0.5."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(DATA / f"{split}.json"))
        answer = tf.function(lambda image: model(image, training=False))
        rows = []
        for image in truth.dataset["images"]:
            picture = cv2.imread(str(DATA / "images" / image["file_name"]))[:, :, ::-1]
            found = answer(tf.constant(picture[None], tf.float32))
            rows += [(image["id"], x0, y0, x1 - x0, y1 - y0, score, kind + 1) for kind, score, x0, y0, x1, y1 in
                     detections(found["class_logits"][0].numpy(), found["box_deltas"][0].numpy())]
        if not rows:
            return dict.fromkeys(("mAP@0.5", "mAP@0.5:0.95", *defects.CLASSES), 0.0)
        judge = COCOeval(truth, truth.loadRes(np.float64(rows).reshape(-1, 7)), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    precision = judge.eval["precision"][0, :, :, 0, 2]
    each = {name: round(float(precision[:, at].mean()), 4) for at, name in enumerate(defects.CLASSES)}
    return {"mAP@0.5": round(float(judge.stats[1]), 4), "mAP@0.5:0.95": round(float(judge.stats[0]), 4), **each}


def detections(logits: np.ndarray, deltas: np.ndarray) -> list[tuple[float, ...]]:
    """Boxes of one picture after NMS: class, score, x0, y0, x1, y1."""
    anchors = efficientdet.anchors()
    scores = 1 / (1 + np.exp(-logits))
    centre = deltas[:, :2] * anchors[:, 2:] + anchors[:, :2]
    size = np.exp(np.clip(deltas[:, 2:], -8, 8)) * anchors[:, 2:]
    corners = np.clip(np.concatenate([centre - size / 2, centre + size / 2], 1)[:, [1, 0, 3, 2]], 0, efficientdet.SIZE)
    kept = []
    for kind in range(scores.shape[1]):
        at = np.where(scores[:, kind] > 0.02)[0]
        own = np.concatenate([corners[at, :2], corners[at, 2:] - corners[at, :2]], 1)
        picked = cv2.dnn.NMSBoxes(own.tolist(), scores[at, kind].tolist(), 0.02, 0.5) if len(at) else ()
        kept += [(kind, float(scores[at[k], kind]), *map(float, corners[at[k]])) for k in picked]
    return kept


def save(model: keras.Model, folder: Path) -> None:
    """The model as a SavedModel with one signature, ``serving_default``, and ``detection.json`` beside it."""
    image = tf.TensorSpec((None, efficientdet.SIZE, efficientdet.SIZE, 3), tf.float32, "image")
    serve = tf.function(lambda image: model(image, training=False), input_signature=[image])
    holder = tf.Module()  # Keras's own export writes every variable twice
    holder.trained = [variable.value for variable in model.variables]
    slim = tf.saved_model.SaveOptions(experimental_debug_stripper=True, experimental_custom_gradients=False)
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": serve}, options=slim)
    text = json.dumps(efficientdet.description(), indent=1) + "\n"
    (folder / "detection.json").write_text(text, encoding="utf-8")


def _flipped(picture: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    boxes = boxes.copy()
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
        boxes[:, 1] = picture.shape[1] - boxes[:, 1] - boxes[:, 3]
    if rng.random() < 0.5:
        picture = picture[::-1]
        boxes[:, 2] = picture.shape[0] - boxes[:, 2] - boxes[:, 4]
    return picture, boxes


def _focal(logits, kinds):
    """Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002), over the number of anchors that have a box."""
    true = tf.one_hot(kinds, logits.shape[-1])
    asked = tf.cast(kinds > -2, tf.float32)[..., None]
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(true, logits)
    right = tf.abs(1 - true - tf.sigmoid(logits))
    weight = (0.25 * true + 0.75 * (1 - true)) * (1 - right) ** 1.5
    return tf.reduce_sum(entropy * weight * asked) / (tf.reduce_sum(tf.cast(kinds >= 0, tf.float32)) + 1)


def _distance(found, true, kinds):
    """Huber loss of the deltas of anchors that have a box."""
    gap = tf.abs(found - true)
    huber = tf.where(gap < 0.1, 5 * gap**2, gap - 0.05)
    mine = tf.cast(kinds >= 0, tf.float32)
    return tf.reduce_sum(huber * mine[..., None]) / (tf.reduce_sum(mine) + 1)


@contextlib.contextmanager
def _weights(learnt, averaged):
    """The model with its averaged weights inside the block."""
    own = [tf.identity(weight) for weight in learnt]
    for mean, weight in zip(averaged, learnt, strict=True):
        weight.assign(mean)
    yield
    for before, weight in zip(own, learnt, strict=True):
        weight.assign(before)


if __name__ == "__main__":
    main()
