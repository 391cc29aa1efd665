"""Train the bank-slip detector and recogniser on CPU, export them as Paddle inference models, measure them.

    python data/recipes/train_receipts.py --model det --minutes 45
    python data/recipes/train_receipts.py --model rec --minutes 45
    python data/recipes/train_receipts.py --model rec --evaluate

Training never sees the committed slips: every batch comes from slips drawn afresh, from other seeds. The learning rate
falls with the clock (a cosine over ``--minutes``), so a run ends trained, however fast the machine is.

Two processes of one thread each use two cores better than one process of two threads: Paddle's CPU convolutions gain
little from a second thread (measured with 3.2.2: 1.0 to 1.7 times). Start each with ``OMP_NUM_THREADS=1`` and
``FLAGS_allocator_strategy=naive_best_fit``: with the default, every large tensor is mapped afresh from the system, and
half of the time goes into that.

Leave ``receipts_models.py`` as it is while it trains: the export at the end reads its source again. Should it fail all
the same, the weights are safe, and ``--export`` does that step alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import receipts

from kit.families import ocr, ocr_metrics

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
SLIPS = HERE.parent / "receipts"
TRAINING_SEEDS = 20_000_000  # first number of every training slip's seed; committed slips start with their --seed, 7
SHRINK = 0.7  # share of area/perimeter text is shrunk by: undone, for a line four times as wide as high, by unclip 1.5


class Log:
    """Print lines, and keep them in ``training.log`` of the model's folder."""

    def __init__(self, folder: Path, *, append: bool):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "training.log"
        if not append:
            self.path.write_text("", encoding="utf-8")

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


# --------------------------------------------------------------------------------------------- the training loop


def train(which: str, minutes: float, seed: int, *, resume: bool, peak: float) -> None:
    """Train one model for some minutes and save its weights as it goes.

    Args:
        which: "det" or "rec".
        minutes: wall-clock time; the learning rate reaches zero at its end.
        seed: of weights and slips.
        resume: start from the saved weights (the optimiser starts anew).
        peak: highest learning rate.
    """
    import paddle
    import receipts_models

    folder = MODELS / f"receipts_{which}"
    log = Log(folder, append=resume)
    paddle.seed(seed)
    if resume:
        model = receipts_models.detector() if which == "det" else receipts_models.recogniser()
    else:
        classes = len(receipts.CHARACTERS) + 2
        model = receipts_models.Detector() if which == "det" else receipts_models.Recogniser(classes)
    log(f"# {which}: {receipts_models.parameter_count(model)} parameters, {minutes:g} minutes, seed {seed}")
    optimiser = paddle.optimizer.AdamW(
        peak, parameters=model.parameters(), weight_decay=1e-4, grad_clip=paddle.nn.ClipGradByGlobalNorm(5.0)
    )
    batches, loss_of = {"det": (detector_batches, detector_loss), "rec": (recogniser_batches, recogniser_loss)}[which]
    # a resumed run draws slips the first one has not seen
    stream = batches(seed + (1000 if resume else 0))
    start = said = saved = time.monotonic()
    total, count, seen = 0.0, 0, 0
    for step in itertools.count(1):
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1:
            break
        rate = peak * min(1.0, step / 100) * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))
        optimiser.set_lr(rate)
        model.train()
        batch = next(stream)
        loss = loss_of(model, batch)
        loss.backward()
        optimiser.step()
        optimiser.clear_grad()
        total, count, seen = total + float(loss), count + 1, seen + len(batch[0])
        if time.monotonic() - said > 60:
            said = time.monotonic()
            mean = total / count
            log(f"{(said - start) / 60:5.1f} min  step {step:6d}  seen {seen:7d}  loss {mean:.4f}  rate {rate:.5f}")
            total, count = 0.0, 0
        if time.monotonic() - saved > 300:
            saved = time.monotonic()
            paddle.save(model.state_dict(), str(folder / "weights.pdparams"))
            log(f"{(saved - start) / 60:5.1f} min  fresh slips: {_glance(which, model, seed)}")
    paddle.save(model.state_dict(), str(folder / "weights.pdparams"))
    log(
        f"{(time.monotonic() - start) / 60:5.1f} min  done, {step} steps, {seen} samples: {_glance(which, model, seed)}"
    )


def _glance(which: str, model, seed: int) -> str:
    """Measure a model in training on four slips nobody trains on."""
    import paddle

    model.eval()
    slips = [receipts.draw_slip((TRAINING_SEEDS, seed, 999_999, index)) for index in range(4)]
    with paddle.no_grad():
        score = _measure(which, lambda feed: {"y": model(paddle.to_tensor(feed["x"])).numpy()}, slips)
    return "  ".join(f"{name} {value:.4f}" for name, value in score.items())


# --------------------------------------------------------------------------------------------- detector


def detector_batches(seed: int, *, side: int = 256, batch: int = 4) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield normalised crops [N, 3, side, side] with shrunk-text, threshold and threshold-weight maps [N, 1, ...]."""
    rng = np.random.default_rng([TRAINING_SEEDS, seed, 1])
    pool: list[receipts.Slip] = []
    for index in itertools.count():
        slip = receipts.draw_slip((TRAINING_SEEDS, seed, index))
        # four crops a slip are cheap, a slip is not: keep the last 48 and draw from all of them
        pool = [*pool[-47:], slip]
        parts = [_random_part(rng, pool[int(rng.integers(len(pool)))], side) for _ in range(batch)]
        images = np.stack([part[0] for part in parts]).astype(np.float32)
        x = (images / 255 - np.float32(ocr.DETECTOR.mean)) / np.float32(ocr.DETECTOR.std)
        yield (
            np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
            *(np.stack([part[k] for part in parts])[:, None] for k in (1, 2, 3)),
        )


def _random_part(rng, slip: receipts.Slip, side: int) -> tuple[np.ndarray, ...]:
    """Cut a square at a random place and scale, with changed light; and the three maps for it."""
    scale = float(np.exp(rng.uniform(np.log(0.62), np.log(1.3))))
    turn = cv2.getRotationMatrix2D((480, 320), float(rng.normal(0, 1.5)), scale)
    room = np.array([receipts.WIDTH, receipts.HEIGHT]) * scale - side
    middle = np.array([480, 320]) + rng.uniform(-0.5, 0.5, 2) * np.maximum(room, 40)
    turn[:, 2] -= middle - side / 2
    image = cv2.warpAffine(slip.image, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gain, offset = rng.uniform(0.75, 1.2), rng.uniform(-20, 20)
    image = np.clip(image * gain + offset, 0, 255)
    quads = [line.quad @ turn[:, :2].T + turn[:, 2] for line in slip.lines]
    return image, *detector_maps([quad.astype(np.float32) for quad in quads], side)


def detector_maps(quads: list[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what a DB detector shall answer: shrunk text, threshold, and where the threshold counts; [side, side].

    The threshold falls from 0.7 on a text's border to 0.3 at the distance of shrinking, inside and outside.
    """
    text, threshold, weight = (np.zeros((side, side), np.float32) for _ in range(3))
    for quad in quads:
        if (quad.max(axis=0) < 0).any() or (quad.min(axis=0) >= side).any():
            continue
        distance = SHRINK * cv2.contourArea(quad) / cv2.arcLength(quad, True)
        cv2.fillPoly(text, [_offset(quad, -distance)], 1.0)
        x0, y0 = np.clip(np.floor(quad.min(axis=0) - distance - 1).astype(int), 0, side - 1)
        x1, y1 = np.clip(np.ceil(quad.max(axis=0) + distance + 1).astype(int), 1, side)
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        away = np.ones((y1 - y0, x1 - x0), np.uint8)
        cv2.polylines(away, [np.round(quad - [x0, y0]).astype(np.int32)], True, 0, 1)
        near = np.clip(1 - cv2.distanceTransform(away, cv2.DIST_L2, 3) / distance, 0, 1)
        region = (slice(y0, y1), slice(x0, x1))
        threshold[region] = np.maximum(threshold[region], near)
        weight[region] = np.maximum(weight[region], near > 0)
    return text, threshold * 0.4 + 0.3, weight


def _offset(quad: np.ndarray, distance: float) -> np.ndarray:
    """Move the sides of a clockwise quad outwards (inwards where negative) by ``distance`` px; int32 for OpenCV."""
    sides = np.roll(quad, -1, axis=0) - quad
    normals = np.stack([sides[:, 1], -sides[:, 0]], 1) / np.maximum(np.linalg.norm(sides, axis=1, keepdims=True), 1e-6)
    # text boxes are nearly right-angled: moving a corner by its two sides' normals is the exact offset for those
    return np.round(quad + distance * (normals + np.roll(normals, 1, axis=0))).astype(np.int32)


def detector_loss(model, batch):
    """Dice and cross entropy on the text map, dice on the differentiable binarisation, L1 on the threshold."""
    import paddle
    from paddle.nn import functional

    x, text, threshold, weight = (paddle.to_tensor(part) for part in batch)
    maps = model(x)
    probability, border = maps[:, :1], maps[:, 1:]
    binary = functional.sigmoid(50 * (probability - border))

    def dice(prediction):
        return 1 - 2 * (prediction * text).sum() / (prediction.sum() + text.sum() + 1e-6)

    # text covers about a tenth of a slip: weigh it up instead of sorting out the hardest background
    entropy = functional.binary_cross_entropy(probability.clip(1e-6, 1 - 1e-6), text, weight=1 + 3 * text)
    level = ((border - threshold).abs() * weight).sum() / (weight.sum() + 1e-6)
    return dice(probability) + 2 * entropy + dice(binary) + 3 * level


# --------------------------------------------------------------------------------------------- recogniser


def recogniser_batches(seed: int, *, columns: int = 5120) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield lines [N, 3, 48, W] with labels [N, L] and their lengths; N x W is about ``columns``.

    Lines of like width share a batch; a third of the batches is padded to 320 and more, as a reader pads short lines.
    """
    rng = np.random.default_rng([TRAINING_SEEDS, seed, 2])
    index_of = {character: index for index, character in enumerate(receipts.CHARACTERS + " ", start=1)}
    narrow = replace(ocr.RECOGNISER, size=(48, 8))
    pool: list[tuple[np.ndarray, str]] = []
    for index in itertools.count():
        while len(pool) < 400:
            slip = receipts.draw_slip((TRAINING_SEEDS, seed, index, len(pool)), practice=rng.random() < 0.7)
            pool += [(_loose_crop(rng, slip.image, line.quad), line.text) for line in slip.lines]
        rng.shuffle(pool)
        chosen, pool = sorted(pool[:300], key=lambda item: item[0].shape[1] / item[0].shape[0]), pool[300:]
        batches, start = [], 0
        while start < len(chosen):
            # look ahead: the widest of the batch decides how many fit
            count = 4
            while start + count < len(chosen) and count < 64:
                image = chosen[start + count][0]
                if count * 48 * image.shape[1] / image.shape[0] > columns:
                    break
                count += 1
            batches.append(chosen[start : start + count])
            start += count
        for number in rng.permutation(len(batches)):
            lines = batches[number]
            x = ocr.recogniser_input([image for image, _ in lines], narrow)
            extra = 8 * int(rng.integers(0, 6))
            if rng.random() < 0.33:
                extra += max(0, 320 - x.shape[3])
            x = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, extra)))
            lengths = np.array([len(text) for _, text in lines], np.int64)
            labels = np.zeros((len(lines), lengths.max()), np.int32)
            for row, (_, text) in enumerate(lines):
                labels[row, : len(text)] = [index_of[character] for character in text]
            yield x, labels, lengths


def _loose_crop(rng, image: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """Crop a line as a detector would find it, a little off, and change its light, sharpness and grain."""
    height = float(np.linalg.norm(quad[3] - quad[0]))
    spread = 0.08 * height
    outwards = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    # found boxes are rather too large than too small, and shifted as a whole more than bent
    moved = (
        quad
        + outwards * rng.uniform(-0.05, 0.14, 2) * height
        + rng.normal(0, spread * 0.5, 2)
        + rng.normal(0, spread * 0.4, (4, 2))
    )
    line = ocr.crop(image, moved.astype(np.float32))
    line = line.astype(np.float32) * rng.uniform(0.75, 1.2) + rng.uniform(-20, 20)
    if rng.random() < 0.25:
        line = cv2.GaussianBlur(line, (0, 0), rng.uniform(0.3, 0.9))
    if rng.random() < 0.25:
        line += rng.standard_normal(line.shape, np.float32) * rng.uniform(1, 8)
    return np.clip(line, 0, 255).astype(np.uint8)


def recogniser_loss(model, batch):
    """CTC loss, averaged over lines and divided by their lengths."""
    import paddle
    from paddle.nn import functional

    x, labels, lengths = (paddle.to_tensor(part) for part in batch)
    logits = model(x).transpose([1, 0, 2])
    steps = paddle.full([logits.shape[1]], logits.shape[0], "int64")
    return functional.ctc_loss(logits, labels, steps, lengths, blank=0, reduction="mean")


# --------------------------------------------------------------------------------------------- export and measure


def export(which: str) -> Path:
    """Save the trained model as a Paddle inference model (PIR, ``inference.json``) with its ``inference.yml``."""
    import paddle
    import receipts_models

    folder = MODELS / f"receipts_{which}"
    model = receipts_models.detector() if which == "det" else receipts_models.recogniser()
    shape = [None, 3, None, None] if which == "det" else [None, 3, 48, None]
    paddle.jit.save(model, str(folder / "inference"), input_spec=[paddle.static.InputSpec(shape, "float32", "x")])
    (folder / "inference.yml").write_text(_DET_YML if which == "det" else _rec_yml(), encoding="utf-8")
    return folder


def evaluate(which: str, split: str = "test", *, onednn: bool = True) -> dict[str, float]:
    """Measure the exported model with Paddle Inference on a split of the committed slips.

    Returns:
        For "det" precision, recall and hmean at IoU 0.5; for "rec" exact match and character error rate on the crops
        of the ground truth.
    """
    from paddle import inference

    folder = MODELS / f"receipts_{which}"
    config = inference.Config(str(folder / "inference.json"), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(2)
    if onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    predictor = inference.create_predictor(config)

    def run(feed):
        handle = predictor.get_input_handle("x")
        handle.reshape(feed["x"].shape)
        handle.copy_from_cpu(feed["x"])
        predictor.run()
        return {name: predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()}

    return _measure(which, run, read_split(split))


def read_split(split: str) -> list[receipts.Slip]:
    """Read the committed slips of "train", "calibration" or "test" with their ground truth."""
    labels = json.loads((SLIPS / "labels.json").read_text(encoding="utf-8"))
    wanted = set(labels["splits"][split])
    return [
        receipts.Slip(
            cv2.imread(str(SLIPS / "images" / slip["file"])),
            tuple(receipts.Line(np.array(line["quad"], np.float32), line["text"]) for line in slip["lines"]),
        )
        for slip in labels["slips"]
        if slip["file"] in wanted
    ]


def _measure(which: str, run: ocr.Run, slips: list[receipts.Slip]) -> dict[str, float]:
    if which == "det":
        found = []
        for slip in slips:
            x, scale = ocr.detector_input(slip.image)
            probabilities = next(iter(run({"x": x}).values()))[0, 0]
            found.append([box.quad for box in ocr.boxes_from_map(probabilities, scale=scale)])
        score = ocr_metrics.detection_score(found, [[line.quad for line in slip.lines] for slip in slips])
        return {"precision": score.precision, "recall": score.recall, "hmean": score.hmean}
    crops = [ocr.crop(slip.image, line.quad) for slip in slips for line in slip.lines]
    truth = [line.text for slip in slips for line in slip.lines]
    characters = ["", *receipts.CHARACTERS, " "]
    read = [text for text, _ in ocr.read_lines(crops, run, characters)]
    return {
        "exact match": ocr_metrics.exact_match(read, truth),
        "character error rate": ocr_metrics.character_error_rate(read, truth),
    }


_DET_YML = """\
Global:
  model_name: receipts_det
PreProcess:
  transform_ops:
  - DecodeImage:
      channel_first: false
      img_mode: BGR
  - DetResizeForTest:
      limit_side_len: 960
      limit_type: max
  - NormalizeImage:
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
      scale: 1./255.
      order: hwc
  - ToCHWImage: null
  - KeepKeys:
      keep_keys: [image, shape]
PostProcess:
  name: DBPostProcess
  thresh: 0.3
  box_thresh: 0.6
  max_candidates: 1000
  unclip_ratio: 1.5
"""


def _rec_yml() -> str:
    # JSON strings are YAML strings; quoting keeps "0" text and "*" no alias
    listed = "\n".join(f"  - {json.dumps(character, ensure_ascii=False)}" for character in receipts.CHARACTERS)
    return f"""\
Global:
  model_name: receipts_rec
PreProcess:
  transform_ops:
  - DecodeImage:
      channel_first: false
      img_mode: BGR
  - RecResizeImg:
      image_shape: [3, 48, 320]
  - KeepKeys:
      keep_keys: [image]
PostProcess:
  name: CTCLabelDecode
  use_space_char: true
  character_dict:
{listed}
"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["det", "rec"], required=True)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peak", type=float, default=0.003, help="highest learning rate")
    parser.add_argument("--resume", action="store_true", help="start from the saved weights")
    parser.add_argument("--evaluate", action="store_true", help="only measure the exported model on the test split")
    parser.add_argument("--export", action="store_true", help="only export the saved weights")
    chosen = parser.parse_args()
    if not (chosen.evaluate or chosen.export):
        train(chosen.model, chosen.minutes, chosen.seed, resume=chosen.resume, peak=chosen.peak)
    if not chosen.evaluate:
        export(chosen.model)
    for name, value in evaluate(chosen.model).items():
        print(f"{name}: {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
