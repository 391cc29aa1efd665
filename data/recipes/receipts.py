"""Draw synthetic Chinese bank slips with exact ground truth, the same ones for the same seed.

The one idea: text is placed on a flat slip first, where every line's box is known, then the slip is photographed: a
small perspective warp moves picture and boxes together, and light, stamps' ink, blur, noise and JPEG follow. So the
ground truth is exact, and the pictures carry no bank's, customer's or photographer's rights.

    python data/recipes/receipts.py --out data/receipts --count 176 --seed 7

Names, account numbers and banks' branches are drawn at random; any likeness is chance (see ``receipts_words.py``).
Stamps are not ground truth: a reader of slips wants the fields. Training draws fresh slips in memory with `draw_slip`;
what `draw_slip` is given as seed decides everything, so seeds of another first number never meet the committed ones.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent))
from receipts_words import CHARACTERS, FIELDS, KINDS, bank, date, labelled, mixed, pick, random_text, reference

__all__ = ["CHARACTERS", "HEIGHT", "WIDTH", "Line", "Slip", "draw_slip", "images_sha256", "write_slips"]

WIDTH, HEIGHT = 960, 640
SPLITS = {"train": 0.5, "calibration": 0.2273, "test": 0.2727}  # of 176: 88, 40, 48


@dataclass(frozen=True)
class Line:
    """One line of text: ``quad`` float32 [4, 2] in pixels, clockwise from top left, and what it says."""

    quad: np.ndarray
    text: str


@dataclass(frozen=True)
class Slip:
    """A drawn slip: ``image`` uint8 [640, 960, 3] in BGR as cv2 reads it, and its lines in reading order."""

    image: np.ndarray
    lines: tuple[Line, ...]


def draw_slip(seed: int | Sequence[int], *, jpeg: bool = True, practice: bool = False) -> Slip:
    """Draw one slip.

    Args:
        seed: anything ``numpy.random.default_rng`` takes; decides every pixel, given one version of the fonts,
            FreeType, numpy and OpenCV.
        jpeg: send the picture through JPEG at a random quality; not wanted where it is written as JPEG afterwards.
        practice: fill half of the fields with any kind of text, also characters by pure chance, so that a recogniser
            sees the rare ones often; never for slips it is measured on.

    Returns:
        Slip with 12 to 30 lines.

    Raises:
        FileNotFoundError: a font is missing (names the Debian package).
    """
    rng = np.random.default_rng(seed)
    paper, lines = _typeset(rng, practice)
    for _ in range(rng.choice([0, 1, 2], p=[0.2, 0.55, 0.25])):
        paper = _stamp(rng, paper)
    image, lines = _photograph(rng, paper, lines)
    if jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 90))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return Slip(image, tuple(lines))


def write_slips(out: Path, count: int, seed: int) -> Path:
    """Draw ``count`` slips into ``out/images`` with ``out/labels.json`` beside them.

    Slip ``i`` is drawn from the seed ``(seed, i)``. The first half is for training, then calibration, then test.

    Returns:
        Path of labels.json.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    slips = []
    for index in range(count):
        slip = draw_slip((seed, index), jpeg=False)
        name = f"slip_{index:03d}.jpg"
        # 62 to 77 keeps visible JPEG artefacts and the whole folder under 12 MB
        quality = [cv2.IMWRITE_JPEG_QUALITY, 62 + (index * 7) % 16]
        cv2.imwrite(str(out / "images" / name), slip.image, quality)
        lines = [{"quad": np.round(line.quad, 1).tolist(), "text": line.text} for line in slip.lines]
        slips.append({"file": name, "width": WIDTH, "height": HEIGHT, "lines": lines})
    names = [slip["file"] for slip in slips]
    first = round(count * SPLITS["train"])
    second = first + round(count * SPLITS["calibration"])
    labels = {
        "licence": "CC0-1.0",
        "seed": seed,
        "splits": {"train": names[:first], "calibration": names[first:second], "test": names[second:]},
        "slips": slips,
    }
    path = out / "labels.json"
    path.write_text(json.dumps(labels, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return path


def images_sha256(folder: Path) -> str:
    """Hash all pictures of a folder in the order of their names, as one SHA-256."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.jpg")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- typesetting


def _typeset(rng, practice: bool) -> tuple[np.ndarray, list[Line]]:
    """Lay out title and fields on flat paper; returns BGR float32 [H, W, 3] and lines in paper coordinates."""
    tint = np.array(pick(rng, [(255, 255, 255), (252, 250, 240), (255, 245, 246), (242, 248, 255), (246, 252, 244)]))
    base = tuple(int(v) for v in tint - rng.integers(0, 14))
    picture = Image.new("RGB", (WIDTH, HEIGHT), base)
    draw = ImageDraw.Draw(picture)
    size = int(rng.integers(20, 27))
    ink = _ink(rng)
    rule = tuple(int(v) for v in pick(rng, [(120, 120, 130), (170, 110, 110), (110, 130, 170), (90, 140, 110)]))
    lines: list[Line] = []
    left, right = int(rng.integers(56, 90)), WIDTH - int(rng.integers(56, 90))
    top = int(rng.integers(44, 62))

    title_size = int(rng.integers(28, 38))
    title = bank(rng) if rng.random() < 0.5 else ""
    kind = pick(rng, KINDS)
    title = f"{title}{kind}" if title and rng.random() < 0.6 else kind
    font = _font(pick(rng, ["sans-bold", "serif-bold"]), title_size)
    x = (WIDTH - font.getlength(title)) / 2 + rng.uniform(-120, 60)
    lines.append(_write(draw, max(left, x), top, title, font, _ink(rng)))
    top += title_size + int(rng.integers(14, 22))
    if rng.random() < 0.7:
        text = labelled("日期", date(rng))
        lines.append(_write(draw, left, top, text, _font(_face(rng, text), size - 2), ink))
        text = pick(rng, ["No.", "Ref:", "No:"]) + reference(rng)
        font = _font(_face(rng, text), size - 2)
        lines.append(_write(draw, right - font.getlength(text) - 4, top, text, font, ink))
        top += size + 14

    bottom = HEIGHT - int(rng.integers(48, 66))
    rows = int(rng.integers(6, 9))
    step = (bottom - top) / rows
    ruled = rng.random()
    if ruled < 0.75:
        for row in range(rows + 1):
            y = round(top + row * step)
            draw.line([(left - 8, y), (right + 8, y)], fill=rule, width=int(rng.integers(1, 3)))
        if ruled < 0.55:
            for x in (left - 8, right + 8):
                draw.line([(x, top), (x, bottom)], fill=rule, width=2)
    value_face = pick(rng, ["sans", "sans", "serif", "sans-bold"])
    label_face = pick(rng, ["sans", "serif", "sans-bold"])
    half = (right - left) / 2
    fields = list(rng.permutation(len(FIELDS)))
    for row in range(rows):
        y = top + row * step + (step - size) / 2 - size * 0.12
        columns = [(left, half - 10)] if rng.random() < 0.7 else [(left, 2 * half)]
        if columns[0][1] < half:
            columns.append((left + half + 6, half - 10))
            if 0.2 < ruled < 0.55:
                middle = round(left + half - 2)
                draw.line([(middle, top + row * step), (middle, top + (row + 1) * step)], fill=rule, width=1)
        for x, room in columns:
            label, make = FIELDS[fields.pop() if fields else int(rng.integers(len(FIELDS)))]
            if practice and rng.random() < 0.5:
                label, make = pick(rng, [label, mixed(rng)]), random_text
            _field(rng, draw, lines, (x, y, room), (label, str(make(rng))), size, (label_face, value_face), ink)
    return np.asarray(picture)[:, :, ::-1].astype(np.float32), lines


def _field(rng, draw, lines, place, words, size, faces, ink) -> None:
    """Write label and value at ``place`` (x, y, room in px): apart, or as one line; too long a value goes smaller."""
    x, y, room = place
    label, value = words
    together = rng.random() < 0.3
    if together:
        value = f"{label}:{value}"
    else:
        font = _font(faces[0], size)
        lines.append(_write(draw, x, y, label, font, ink))
        # a gap under one height would make two lines one: the detector could not know
        used = font.getlength(label) + size * rng.uniform(1.0, 1.8)
        x, room = x + used, room - used
    face = _face(rng, value, faces[1])
    bigger = int(rng.integers(-1, 4))
    for points in range(size + bigger, 14, -1):
        font = _font(face, points)
        if font.getlength(value) <= room:
            lines.append(_write(draw, x, y + rng.uniform(-2, 2) - (points - size) / 2, value, font, ink))
            return


def _write(draw, x, y, text, font, ink) -> Line:
    """Draw text and take the box of its ink, two pixels wider each side as an annotator would draw it."""
    x, y = round(x), round(y)
    draw.text((x, y), text, font=font, fill=ink)
    x0, y0, x1, y1 = draw.textbbox((x, y), text, font=font)
    x0, y0, x1, y1 = x0 - 2, y0 - 2, x1 + 2, y1 + 2
    return Line(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32), text)


def _face(rng, text: str, otherwise: str = "sans") -> str:
    """Numbers and Latin are often printed by another machine, in another face."""
    if all(ord(character) < 256 for character in text) and rng.random() < 0.6:
        return pick(rng, ["mono", "latin", "latin-bold", "latin-serif"])
    return otherwise


def _ink(rng) -> tuple[int, int, int]:
    tone = int(rng.integers(5, 80))
    return pick(
        rng, [(tone, tone, tone), (tone, tone, tone), (tone, tone, min(tone + 70, 140)), (tone + 30, tone, tone + 50)]
    )


# ---------------------------------------------------------------------------------------------- stamps and photograph


def _stamp(rng, paper: np.ndarray) -> np.ndarray:
    """Press a red seal, round, oval or square, somewhere on the right or lower part; text below stays readable."""
    width = int(rng.integers(130, 200))
    kind = rng.choice(["round", "oval", "square"], p=[0.5, 0.3, 0.2])
    height = {"round": width, "oval": int(width * 0.68), "square": int(width * 0.45)}[kind]
    side = int(width * 1.2)
    layer = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(layer)
    centre = side / 2
    box = (centre - width / 2, centre - height / 2, centre + width / 2, centre + height / 2)
    words = pick(rng, ["业务专用章", "转讫", "现金收讫", "核算专用章"])
    if kind == "square":
        draw.rectangle(box, outline=255, width=4)
        font = _font("sans-bold", min(int(height * 0.5), int(width * 0.8 / len(words))))
        draw.text((centre, centre), words, font=font, fill=255, anchor="mm")
    else:
        draw.ellipse(box, outline=255, width=int(rng.integers(3, 6)))
        _arc(rng, layer, f"{bank(rng)}{pick(rng, ['', '营业部'])}", (centre, width * 0.38, height * 0.38), width)
        if kind == "round":
            points = [
                (centre + r * math.sin(k * math.pi / 5), centre - r * math.cos(k * math.pi / 5))
                for k in range(10)
                for r in [width * (0.14 if k % 2 == 0 else 0.055)]
            ]
            draw.polygon(points, fill=255)
        font = _font("sans", max(12, int(width * 0.1)))
        draw.text((centre, centre + height * 0.24), words, font=font, fill=255, anchor="mm")
    layer = layer.rotate(float(rng.uniform(-25, 25)), resample=Image.Resampling.BILINEAR)
    mask = np.asarray(layer, np.float32) / 255
    # rubber takes ink unevenly: a coarse random field thins it
    patch = rng.uniform(0.45, 1.0, (9, 9)).astype(np.float32)
    mask *= cv2.resize(patch, (side, side), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.45, 0.85)
    x = int(rng.integers(WIDTH // 3, WIDTH - side - 20))
    y = int(rng.integers(HEIGHT // 4, HEIGHT - side - 10))
    colour = np.array([rng.integers(30, 80), rng.integers(20, 60), rng.integers(185, 230)], np.float32)
    region = paper[y : y + side, x : x + side]
    # ink multiplies: black print shines through a red seal
    region *= 1 - mask[..., None] * (1 - colour / 255)
    return paper


def _arc(rng, layer: Image.Image, text: str, ring: tuple[float, float, float], width: int) -> None:
    """Set text along the upper arc of an ellipse; ``ring`` is centre and the two radii in px."""
    centre, radius_x, radius_y = ring
    points = max(12, int(width * 0.115))
    font = _font("sans-bold", points)
    sweep = min(math.radians(230), len(text) * points * 1.15 / ((radius_x + radius_y) / 2))
    for index, character in enumerate(text):
        angle = -sweep / 2 + sweep * (index + 0.5) / len(text)
        glyph = Image.new("L", (points * 2, points * 2), 0)
        ImageDraw.Draw(glyph).text((points, points), character, font=font, fill=255, anchor="mm")
        glyph = glyph.rotate(-math.degrees(angle), resample=Image.Resampling.BILINEAR)
        x = centre + radius_x * math.sin(angle) - points
        y = centre - radius_y * math.cos(angle) - points
        layer.paste(255, (round(x), round(y)), glyph)


def _photograph(rng, paper: np.ndarray, lines: list[Line]) -> tuple[np.ndarray, list[Line]]:
    """Tilt up to 5 degrees with a little perspective, then light, blur and noise."""
    angle = float(np.clip(rng.normal(0, 2.2), -5, 5))
    scale = rng.uniform(0.9, 0.96)
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), angle, scale)
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float32)
    moved = corners @ turn[:, :2].T.astype(np.float32) + turn[:, 2].astype(np.float32)
    moved = (moved + rng.uniform(-10, 10, (4, 2))).astype(np.float32)
    warp = cv2.getPerspectiveTransform(corners, moved)
    table = rng.integers(50, 180) + rng.integers(-22, 23, 3).astype(np.float64)  # desks are greyish or brownish
    image = cv2.warpPerspective(
        paper, warp, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=tuple(table)
    )
    lines = [Line(cv2.perspectiveTransform(line.quad[None], warp)[0], line.text) for line in lines]
    lines.sort(key=lambda line: (round(float(line.quad[:, 1].mean()) / 14), float(line.quad[0, 0])))

    light = rng.uniform(0.72, 1.05, (3, 4)).astype(np.float32)
    image *= cv2.resize(light, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    image *= rng.uniform(0.94, 1.04, 3).astype(np.float32)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.95))
    # uint8-sized noise: a float32 field of 1.8 million values costs more than everything else here
    strength = rng.uniform(0.5, 5.0)
    noise = rng.standard_normal((HEIGHT // 2, WIDTH // 2), np.float32) * strength
    if rng.random() < 0.5:
        noise = np.tile(noise, (2, 2))  # fine grain: half the numbers, used four times
    else:
        noise = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    image += noise[..., None]
    return np.clip(image, 0, 255).astype(np.uint8), lines


@functools.cache
def _font(face: str, points: int) -> ImageFont.FreeTypeFont:
    name, index = _FACES[face]
    return ImageFont.truetype(_font_file(name), points, index=index)


@functools.cache
def _font_file(name: str) -> str:
    """Find a font file by name in the usual folders, then by fontconfig."""
    for folder in (Path("/usr/share/fonts"), Path.home() / ".local/share/fonts", Path("/Library/Fonts")):
        for path in sorted(folder.rglob(name)) if folder.is_dir() else ():
            return str(path)
    try:
        listed = subprocess.run(["fc-list", ":", "file"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        listed = ""
    for line in listed.splitlines():
        if line.rstrip(": ").endswith("/" + name):
            return line.rstrip(": ")
    package = "fonts-noto-cjk" if name.startswith("Noto") else "fonts-liberation"
    raise FileNotFoundError(f"The font {name} is not installed. On Debian: apt-get install {package}")


# index 2 of the collections is Simplified Chinese
_FACES = {
    "sans": ("NotoSansCJK-Regular.ttc", 2),
    "sans-bold": ("NotoSansCJK-Bold.ttc", 2),
    "serif": ("NotoSerifCJK-Regular.ttc", 2),
    "serif-bold": ("NotoSerifCJK-Bold.ttc", 2),
    "mono": ("LiberationMono-Regular.ttf", 0),
    "latin": ("LiberationSans-Regular.ttf", 0),
    "latin-bold": ("LiberationSans-Bold.ttf", 0),
    "latin-serif": ("LiberationSerif-Regular.ttf", 0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Draw synthetic bank slips with ground truth.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "receipts")
    parser.add_argument("--count", type=int, default=176)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args(arguments)
    labels = write_slips(chosen.out, chosen.count, chosen.seed)
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    print(f"labels.json sha256 {digest}\nimages      sha256 {images_sha256(chosen.out / 'images')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
