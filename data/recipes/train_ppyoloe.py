"""Train the detector of ``ppyoloe.py`` on freshly drawn surfaces, and write it as a Paddle inference model.

    OMP_NUM_THREADS=1 python data/recipes/train_ppyoloe.py --minutes 40 --work /tmp/ppyoloe
    python data/recipes/train_ppyoloe.py --evaluate       the mAP of what lies in data/models/defects_ppyoloe

Pictures come from ``defects.fresh`` and the committed ``train`` split, flipped both ways at random; ``val`` picks
nothing and ``test`` is looked at once, at the end. One CPU core is enough. ``--export`` writes the model from the last
checkpoint of a run, also while it goes on.

Sources: Feng et al. 2021, "TOOD" (https://arxiv.org/abs/2108.07755), which point learns which box; Zhang et al. 2021,
"VarifocalNet" (https://arxiv.org/abs/2008.13367); Rezatofighi et al. 2019, "Generalized intersection over union"
(https://arxiv.org/abs/1902.09630); Li et al. 2020, "Generalized focal loss" (https://arxiv.org/abs/2006.04388).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))
import defects
import ppyoloe

DATA = Path(__file__).resolve().parents[1] / "defects"
BATCH = 8
FRESH = 4000  # freshly drawn pictures
NEAR = 10  # points that may learn a box

Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Train for so many minutes, export, or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--work", type=Path, default=Path("runs/ppyoloe"), help="checkpoints and drawn pictures")
    parser.add_argument("--export", action="store_true", help="only write the model from the last checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="only measure the written model on the test split")
    chosen = parser.parse_args()
    state = chosen.work / "averaged.pdparams"
    if not (chosen.export or chosen.evaluate):
        chosen.work.mkdir(parents=True, exist_ok=True)
        train(chosen.minutes, chosen.work, state)
    if not chosen.evaluate:
        save(state, ppyoloe.FOLDER)
    print("test", json.dumps(evaluate(predictor(ppyoloe.FOLDER), "test")), flush=True)


def train(minutes: float, work: Path, state: Path) -> None:
    """Train from scratch by the clock; ``state`` gets the averaged weights every few minutes and at the end."""
    pictures, boxes = defects.material(work, FRESH)
    for own in boxes:  # corners
        own[:, 3:] += own[:, 1:3]
    paddle.seed(0)
    model, rng = ppyoloe.Detector(), np.random.default_rng(0)
    optimizer = paddle.optimizer.AdamW(0.0, parameters=model.parameters(), weight_decay=0.02,
                                       grad_clip=paddle.nn.ClipGradByGlobalNorm(10.0))
    averaged = {name: value.numpy() for name, value in model.state_dict().items()}
    began = said = kept = time.monotonic()
    steps, losses = 0, []
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimizer.set_lr(2.5e-3 * min(1.0, (steps + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * share)) + 2e-5)
        picks = rng.integers(len(pictures), size=BATCH)
        batch = [_flipped(pictures[at], boxes[at], rng) for at in picks]
        parts = loss(model, prepared([picture for picture, _ in batch]), [own for _, own in batch])
        total = parts[0] + 2.5 * parts[1] + 0.5 * parts[2]
        if not np.isfinite(float(total)):
            raise ValueError(f"the loss is {float(total)} in step {steps}; the weights of before lie in {state}")
        total.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append([float(part) for part in parts])
        steps += 1
        keep = min(0.998, steps / (steps + 20))
        for name, value in model.state_dict().items():
            averaged[name] += (1 - keep) * (value.numpy() - averaged[name])
        if time.monotonic() - said > 60:
            mean = " ".join(f"{name} {part:.3f}" for name, part in
                            zip(("class", "giou", "dfl"), np.mean(losses, axis=0), strict=True))
            print(f"minute {(time.monotonic() - began) / 60:5.1f}  step {steps:5d}  {mean}", flush=True)
            said, losses = time.monotonic(), []
        if time.monotonic() - kept > 240:
            paddle.save(_tensors(averaged), str(state))
            scores = evaluate(_layer(state), "val")
            print(f"  val mAP@0.5 {scores['mAP@0.5']:.3f}  mAP@0.5:0.95 {scores['mAP@0.5:0.95']:.3f}", flush=True)
            kept = time.monotonic()
    paddle.save(_tensors(averaged), str(state))
    print(f"{steps} steps of {BATCH} pictures in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    print("val", json.dumps(evaluate(_layer(state), "val")), flush=True)


def prepared(pictures: list[np.ndarray]) -> np.ndarray:
    """Grey pictures, uint8 [256, 256] each, as the model takes them: float32 [N, 3, 256, 256]."""
    mean, std = (np.float32(part).reshape(3, 1, 1) for part in (ppyoloe.MEAN, ppyoloe.STD))
    return (np.float32(pictures)[:, None] / 255 - mean) / std


def loss(model: ppyoloe.Detector, images: np.ndarray, boxes: list[np.ndarray]) -> tuple[paddle.Tensor, ...]:
    """Varifocal loss of the classes, GIoU loss of the boxes, distribution focal loss of their sides.

    Args:
        model: in training mode.
        images: as `prepared` gives them.
        boxes: float32 [B, 5] a picture: class, x1, y1, x2, y2 in pixels.
    """
    logits, sides = model(paddle.to_tensor(images))
    logits, sides = logits.transpose([0, 2, 1]), sides.transpose([0, 3, 1, 2])
    scores = functional.sigmoid(logits)
    middles, strides = ppyoloe.points()
    guessed = np.exp(sides.numpy())
    guessed = (guessed @ np.arange(ppyoloe.BINS, dtype=np.float32)) / guessed.sum(axis=3)
    guessed = np.concatenate([middles - guessed[..., :2], middles + guessed[..., 2:]], axis=2) * strides
    asked = [assign(middles * strides, *each) for each in zip(guessed, scores.numpy(), boxes, strict=True)]
    wanted, owners = (np.stack(part) for part in zip(*asked, strict=True))
    weight = max(float(wanted.sum()), 1.0)

    truth = paddle.to_tensor(wanted)
    fading = paddle.where(truth > 0, truth, 0.75 * scores.detach() ** 2)
    classes = functional.binary_cross_entropy_with_logits(logits, truth, weight=fading, reduction="sum") / weight
    picture, point = np.nonzero(owners >= 0)
    if not len(point):
        return classes, paddle.zeros([]), paddle.zeros([])
    true = np.stack([boxes[p][owners[p, a], 1:] for p, a in zip(picture, point, strict=True)])
    centre, stride = middles[point], strides[point]
    part = paddle.to_tensor(wanted[picture, point].sum(axis=1))
    own = sides.reshape([-1, 4, ppyoloe.BINS]).gather(paddle.to_tensor(picture * len(middles) + point))
    distance = functional.softmax(own, axis=2) @ paddle.arange(ppyoloe.BINS, dtype="float32")
    middle = paddle.to_tensor(centre)
    found = paddle.concat([middle - distance[:, :2], middle + distance[:, 2:]], axis=1)
    giou = (_giou_loss(found, paddle.to_tensor(true / stride)) * part).sum() / weight

    exact = np.concatenate([centre - true[:, :2] / stride, true[:, 2:] / stride - centre], axis=1)
    exact = np.clip(exact, 0, ppyoloe.BINS - 1.01)
    lower = np.floor(exact)
    spread = np.zeros((*exact.shape, ppyoloe.BINS), np.float32)
    np.put_along_axis(spread, np.int64(lower)[..., None], (lower + 1 - exact)[..., None], axis=2)
    np.put_along_axis(spread, np.int64(lower)[..., None] + 1, (exact - lower)[..., None], axis=2)
    entropy = -(functional.log_softmax(own, axis=2) * paddle.to_tensor(spread)).sum(axis=2).mean(axis=1)
    return classes, giou, (entropy * part).sum() / weight


def assign(points: np.ndarray, guessed: np.ndarray, scores: np.ndarray,
           boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which point learns which box: those inside it whose class and box are best already (task alignment).

    Args:
        points: float32 [A, 2], pixels.
        guessed: float32 [A, 4], boxes as the model has them now.
        scores: float32 [A, classes], likewise.
        boxes: float32 [B, 5], class, x1, y1, x2, y2.

    Returns:
        float32 [A, classes], the score to learn; int64 [A], the index of the box, -1 for none.
    """
    wanted, owners = np.zeros_like(scores), np.full(len(points), -1)
    if not len(boxes):
        return wanted, owners
    inside = ((points[:, None] > boxes[:, 1:3]) & (points[:, None] < boxes[:, 3:])).all(axis=2)
    shared = np.clip(np.minimum(guessed[:, None, 2:], boxes[:, 3:]) - np.maximum(guessed[:, None, :2], boxes[:, 1:3]),
                     0, None).prod(axis=2)
    area, true = (guessed[:, 2:] - guessed[:, :2]).prod(axis=1), (boxes[:, 3:] - boxes[:, 1:3]).prod(axis=1)
    iou = shared / (area[:, None] + true - shared + 1e-9)
    fit = np.where(inside, scores[:, boxes[:, 0].astype(int)] * iou**6 + 1e-12, 0)
    mine = inside & (np.argsort(np.argsort(-fit, axis=0, kind="stable"), axis=0) < NEAR)
    best = np.where(mine, iou, -1).argmax(axis=1)
    chosen = np.nonzero(mine.any(axis=1))[0]
    owners[chosen] = best[chosen]
    for box in range(len(boxes)):
        own = np.nonzero(owners == box)[0]
        if own.size:
            highest = max(float(iou[own, box].max()), 0.05)  # a box that nothing fits yet must still be looked for
            wanted[own, int(boxes[box, 0])] = fit[own, box] / fit[own, box].max() * highest
    return wanted, owners


def evaluate(run: Run, split: str) -> dict[str, float]:
    """Give the mAP by pycocotools over a committed split: at an IoU of 0.5, over 0.5 to 0.95, and per class at 0.5."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(DATA / f"{split}.json"))
        rows = []
        for image in truth.dataset["images"]:
            picture = cv2.imread(str(DATA / "images" / image["file_name"]), cv2.IMREAD_GRAYSCALE)
            found, _ = run(prepared([picture]), np.ones((1, 2), np.float32))
            rows += [(image["id"], x1, y1, x2 - x1, y2 - y1, score, kind + 1) for kind, score, x1, y1, x2, y2 in found]
        if not rows:
            return dict.fromkeys(("mAP@0.5", "mAP@0.5:0.95", *defects.CLASSES), 0.0)
        judge = COCOeval(truth, truth.loadRes(np.float64(rows).reshape(-1, 7)), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    precision = judge.eval["precision"][0, :, :, 0, 2]
    each = {name: round(float(precision[:, at].mean()), 4) for at, name in enumerate(defects.CLASSES)}
    return {"mAP@0.5": round(float(judge.stats[1]), 4), "mAP@0.5:0.95": round(float(judge.stats[0]), 4), **each}


def predictor(folder: Path, *, onednn: bool = True) -> Run:
    """The written model in Paddle Inference, one thread."""
    from paddle import inference

    config = inference.Config(str(folder / "inference.json"), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(1)
    config.enable_mkldnn() if onednn else config.disable_mkldnn()
    engine = inference.create_predictor(config)

    def run(image, scale_factor):
        for name, value in {"image": image, "scale_factor": scale_factor}.items():
            handle = engine.get_input_handle(name)
            handle.reshape(value.shape)
            handle.copy_from_cpu(value)
        engine.run()
        return tuple(engine.get_output_handle(name).copy_to_cpu() for name in engine.get_output_names())

    return run


def save(state: Path, folder: Path) -> None:
    """The weights of a checkpoint as an inference model, and what a program must know to use it."""
    model = ppyoloe.Detector()
    model.set_state_dict(paddle.load(str(state)))
    ppyoloe.write(ppyoloe.Deployed(model, nms=True), folder)
    side = ppyoloe.SIZE
    listed = "\n".join(f"- {name}" for name in defects.CLASSES)
    (folder / "infer_cfg.yml").write_text(f"""\
mode: paddle
draw_threshold: 0.5
metric: COCO
use_dynamic_shape: false
arch: YOLO
min_subgraph_size: 3
Preprocess:
- interp: 1
  keep_ratio: false
  target_size:
  - {side}
  - {side}
  type: Resize
- is_scale: true
  mean: {list(ppyoloe.MEAN)}
  norm_type: mean_std
  std: {list(ppyoloe.STD)}
  type: NormalizeImage
- type: Permute
label_list:
{listed}
""", encoding="utf-8")
    description = {
        "format": "kit-detection", "classes": defects.CLASSES, "size": (side, side),
        "preprocess": {"resize": "stretch", "size": (side, side), "multiple": 32, "channels": "RGB", "scale": 1 / 255,
                       "mean": ppyoloe.MEAN, "std": ppyoloe.STD, "layout": "NCHW"},
        "inputs": {"image": "image", "scale_factor": "scale_factor"},
        # the last tensors before the NMS, as Paddle2ONNX 2.1.0 names them
        "outputs": {"scores": "p2o.pd_op.concat.14.0", "boxes": "p2o.pd_op.divide.0.0"},
        "scores": {"activation": "none", "classes_axis": 1}, "boxes": {"coding": "xyxy"}}
    (folder / "detection.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _layer(state: Path) -> Run:
    """A checkpoint in its deployed form, without Paddle Inference."""
    model = ppyoloe.Detector()
    model.set_state_dict(paddle.load(str(state)))
    deployed = ppyoloe.Deployed(model, nms=True)

    def run(image, scale_factor):
        with paddle.no_grad():
            return tuple(part.numpy() for part in deployed(paddle.to_tensor(image), paddle.to_tensor(scale_factor)))

    return run


def _tensors(averaged: dict[str, np.ndarray]) -> dict[str, paddle.Tensor]:
    return {name: paddle.to_tensor(value) for name, value in averaged.items()}


def _flipped(picture: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    boxes, side = boxes.copy(), picture.shape[0]
    if rng.random() < 0.5:
        picture, boxes[:, [1, 3]] = picture[:, ::-1], side - boxes[:, [3, 1]]
    if rng.random() < 0.5:
        picture, boxes[:, [2, 4]] = picture[::-1], side - boxes[:, [4, 2]]
    return picture, boxes


def _giou_loss(found: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
    """1 - GIoU of boxes [P, 4] as corners."""
    size = _area(found[:, 2:] - found[:, :2]) + _area(true[:, 2:] - true[:, :2])
    low, high = paddle.maximum(found[:, :2], true[:, :2]), paddle.minimum(found[:, 2:], true[:, 2:])
    shared = _area(functional.relu(high - low))
    around = _area(paddle.maximum(found[:, 2:], true[:, 2:]) - paddle.minimum(found[:, :2], true[:, :2]))
    union = size - shared
    return 1 - shared / (union + 1e-9) + (around - union) / (around + 1e-9)


def _area(sides: paddle.Tensor) -> paddle.Tensor:
    return sides[:, 0] * sides[:, 1]  # not prod: its gradient divides by each side, and a side may be 0


if __name__ == "__main__":
    main()
