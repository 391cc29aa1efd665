"""Draw synthetic pictures of steel surfaces with four kinds of defects and their exact boxes.

The one idea: every defect is a mask of how much of the surface it covers, so its box is read off the mask itself and
not guessed. The surface is rolled steel: streaks along the rolling direction, slow changes of light, grain. Then come
blur and JPEG, as from a camera over a conveyor.

    python data/recipes/defects.py --out data/defects

What ``steel`` is given as generator decides everything; training draws fresh pictures from seeds that never meet the
committed ones (see ``fresh``). The kinds of defects follow what surface inspection of hot-rolled strip looks for (Song
and Yan 2013, the NEU surface defect database, https://doi.org/10.1016/j.apsusc.2013.09.002); nothing is taken from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("scratch", "pit", "inclusion", "stain")
SPLITS = {"train": 240, "val": 40, "test": 120}
SEED = 11
FOLDER = Path(__file__).resolve().parents[1] / "defects"
QUALITY = 72  # of JPEG

Box = tuple[int, float, float, float, float]


def steel(rng: np.random.Generator, size: int = 256) -> tuple[np.ndarray, list[Box]]:
    """Draw one picture.

    Args:
        rng: decides every pixel.
        size: of both sides, in pixels; defects keep their size in pixels.

    Returns:
        The picture, uint8 [size, size, 3] in BGR with three equal channels, and its boxes: class index, x, y, width,
        height in pixels. One picture in ten has none.
    """
    surface = _surface(rng, size)
    boxes: list[Box] = []
    wanted = 0 if rng.random() < 0.1 else int(rng.integers(1, 6))
    for _ in range(wanted * 4):
        if len(boxes) == wanted:
            break
        kind = int(rng.integers(len(CLASSES)))
        cover = _DRAW[kind](rng, size)
        box = _box(cover)
        if box is None or any(_overlap(box, other[1:]) > 0.05 for other in boxes):
            continue
        surface = _put(surface, cover, kind, rng)
        boxes.append((kind, *box))
    surface = cv2.GaussianBlur(surface, (0, 0), rng.uniform(0.4, 0.9))
    surface += rng.normal(0, rng.uniform(1.5, 4.0), surface.shape)
    picture = np.clip(surface, 0, 255).astype(np.uint8)
    return np.repeat(picture[:, :, None], 3, axis=2), boxes


def fresh(number: int, size: int = 256) -> tuple[np.ndarray, list[Box]]:
    """Draw the training picture of this number, JPEG artefacts included; none of them is in ``data/defects``."""
    picture, boxes = steel(np.random.default_rng((SEED, 1, number)), size)
    data = cv2.imencode(".jpg", picture[:, :, 0], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR), boxes


def material(cache: Path, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pictures to learn from: so many fresh ones, then the committed split ``train``.

    Args:
        cache: folder where drawn pictures are kept.
        count: of fresh pictures.

    Returns:
        Pictures, uint8 [P, 256, 256], and the boxes of each, float32 [B, 5]: class, x, y, width, height.
    """
    stored = cache / f"fresh_{count}.npz"
    if not stored.is_file():
        drawn = [fresh(number) for number in range(count)]
        flat = [(at, *box) for at, (_, own) in enumerate(drawn) for box in own]
        np.savez(stored, pictures=np.stack([picture[:, :, 0] for picture, _ in drawn]), boxes=np.float32(flat))
    with np.load(stored) as found:
        pictures, flat = found["pictures"], found["boxes"]
    boxes = [flat[flat[:, 0] == at, 1:] for at in range(len(pictures))]
    content = json.loads((FOLDER / "train.json").read_text(encoding="utf-8"))
    for image in content["images"]:
        own = [(a["category_id"] - 1, *a["bbox"]) for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes.append(np.float32(own).reshape(-1, 5))
    committed = [cv2.imread(str(FOLDER / "images" / i["file_name"]), cv2.IMREAD_GRAYSCALE) for i in content["images"]]
    return np.concatenate([pictures, np.stack(committed)]), boxes


def write(folder: Path) -> None:
    """Write the committed set: ``images/*.jpg`` and a COCO file for each split."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    number = marked = 0
    for split, count in SPLITS.items():
        images, annotations = [], []
        for _ in range(count):
            picture, boxes = steel(np.random.default_rng((SEED, 0, number)))
            name = f"steel_{number:03d}.jpg"
            data = cv2.imencode(".jpg", picture[:, :, 0], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            (folder / "images" / name).write_bytes(data.tobytes())
            number += 1
            images.append({"id": number, "file_name": name, "width": picture.shape[1], "height": picture.shape[0]})
            for kind, x, y, width, height in boxes:
                marked += 1
                annotations.append({"id": marked, "image_id": number, "category_id": kind + 1,
                                    "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0})
        categories = [{"id": at + 1, "name": name, "supercategory": "defect"} for at, name in enumerate(CLASSES)]
        content = {"info": {"description": f"Synthetic steel surfaces, split {split}", "seed": SEED},
                   "licenses": [{"id": 1, "name": "CC0-1.0",
                                 "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
                   "images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def images_sha256(folder: Path) -> str:
    """Of all pictures, concatenated in the order of their names."""
    hasher = hashlib.sha256()
    for path in sorted((folder / "images").glob("*.jpg")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _surface(rng: np.random.Generator, size: int) -> np.ndarray:
    """Bare steel, float64 [size, size], about 60 to 190."""
    streaks = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), sigmaX=0.7, sigmaY=float(rng.uniform(8, 25)))
    grain = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 1.2)
    light = cv2.resize(rng.normal(0, 1, (4, 4)), (size, size), interpolation=cv2.INTER_CUBIC)
    made = rng.uniform(95, 160) + 9 * light
    for part, strength in ((streaks, rng.uniform(3, 8)), (grain, rng.uniform(2, 5))):
        made = made + strength * part / part.std()
    return made


def _scratch(rng: np.random.Generator, size: int) -> np.ndarray:
    """A bent line, never parallel to the sides: a box two pixels high says nothing about where a detector looks."""
    length = rng.uniform(36, 130)
    angle = np.deg2rad(rng.uniform(20, 70)) * rng.choice((-1, 1))
    bend = rng.uniform(-0.15, 0.15) * length
    along = np.linspace(-0.5, 0.5, 24)
    x, y = along * length, bend * (1 - 4 * along**2)
    turned = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    points = turned + rng.uniform(0.12, 0.88, 2) * size
    cover = np.zeros((size, size), np.float32)
    width = int(rng.integers(2, 5))
    cv2.polylines(cover, [np.int32(points * 16)], False, 1.0, width, cv2.LINE_AA, 4)
    return cover


def _pit(rng: np.random.Generator, size: int) -> np.ndarray:
    """A round hole."""
    cover = np.zeros((size, size), np.float32)
    axes = rng.uniform(7, 15) * rng.uniform(0.85, 1.15, 2)
    _ellipse(cover, rng.uniform(0.06, 0.94, 2) * size, axes, 0)
    return cover


def _inclusion(rng: np.random.Generator, size: int) -> np.ndarray:
    """A ragged streak of slag along the rolling direction."""
    height, width = rng.uniform(34, 90), rng.uniform(6, 13)
    sides = int(rng.integers(6, 10))
    levels = np.linspace(-height / 2, height / 2, sides)
    half = width * rng.uniform(0.45, 1.0, (2, sides)) * np.sqrt(np.clip(1.05 - (2 * levels / height) ** 2, 0.08, 1))
    outline = np.concatenate([np.stack([half[0], levels], 1), np.stack([-half[1], levels], 1)[::-1]])
    points = outline + rng.uniform(0.1, 0.9, 2) * size
    cover = np.zeros((size, size), np.float32)
    cv2.fillPoly(cover, [np.int32(points * 16)], 1.0, cv2.LINE_AA, 4)
    return cover


def _stain(rng: np.random.Generator, size: int) -> np.ndarray:
    """A wide pale patch, three discs melted into one."""
    cover = np.zeros((size, size), np.float32)
    radius = rng.uniform(17, 36)
    centre = rng.uniform(0.12, 0.88, 2) * size
    for _ in range(3):
        axes = radius * rng.uniform(0.7, 1.0, 2)
        _ellipse(cover, centre + rng.uniform(-0.4, 0.4, 2) * radius, axes, rng.uniform(0, 180))
    return cv2.GaussianBlur(cover, (0, 0), 2.0)


_DRAW = (_scratch, _pit, _inclusion, _stain)


def _ellipse(cover: np.ndarray, centre: np.ndarray, axes: np.ndarray, angle: float) -> None:
    middle, half = np.int32(centre * 16), np.int32(axes * 16)
    cv2.ellipse(cover, tuple(map(int, middle)), tuple(map(int, half)), float(angle), 0, 360, 1.0, -1, cv2.LINE_AA, 4)


def _put(surface: np.ndarray, cover: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    """The surface with a defect: scratches shine, pits have a lit rim, inclusions are dark, stains pale or dull."""
    name = CLASSES[kind]
    if name == "scratch":
        return surface + cover * rng.uniform(35, 70)
    if name == "pit":
        slope = cv2.Sobel(cv2.GaussianBlur(cover, (0, 0), 1.5), cv2.CV_32F, 1, 1, ksize=3)
        return surface - cover * rng.uniform(40, 70) + 90 * np.clip(slope, -0.4, 0.4)
    if name == "inclusion":
        speckle = cv2.GaussianBlur(rng.normal(0, 1, cover.shape), (0, 0), 1.0) * 25
        return surface - cover * (rng.uniform(35, 60) + speckle)
    return surface + cover * rng.choice((-1, 1)) * rng.uniform(22, 38)


def _box(cover: np.ndarray) -> tuple[float, float, float, float] | None:
    """Where a defect covers half of a pixel or more; None where the picture's edge leaves less than 12 pixels of it."""
    rows, columns = np.where(cover.max(axis=1) >= 0.5)[0], np.where(cover.max(axis=0) >= 0.5)[0]
    if not rows.size:
        return None
    x, y = float(columns[0]), float(rows[0])
    width, height = float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)
    return (x, y, width, height) if min(width, height) >= 12 else None


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """Intersection over the smaller of two boxes."""
    wide = min(one[0] + one[2], two[0] + two[2]) - max(one[0], two[0])
    high = min(one[1] + one[3], two[1] + two[3]) - max(one[1], two[1])
    return max(0.0, wide) * max(0.0, high) / min(one[2] * one[3], two[2] * two[3])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    out = parser.parse_args().out
    write(out)
    print(f"pictures: {images_sha256(out)}")
    for path in sorted(out.glob("*.json")):
        print(f"{path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}")
