"""Pictures of what an OCR model finds, reads and sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kit.charts.picture import Picture
from kit.samples import Samples

FOUND = (0, 114, 178)  # Okabe-Ito blue
TRUTH = (213, 94, 0)  # vermillion
WIDTH = 760  # of a picture in a notebook, pixels: sharp enough to read, small enough to store


def page(image: np.ndarray, found: Sequence[Any], *, truth: Sequence[Any] = (), what: str = "found") -> Picture:
    """A page with its boxes: what was found with solid lines and numbers, the truth with thin ones.

    Lines that were read are written out below, each where it was found, if the machine has a font for Chinese.

    Args:
        image: uint8 [H, W, 3], BGR.
        found: boxes or lines with ``quad`` [4, 2] in pixels of the image, and ``text`` where it was read.
        truth: true corners, [4, 2] each.
        what: a word for the alt text.
    """
    import cv2

    scale = WIDTH / image.shape[1]
    shown = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:, :, ::-1].copy()

    def outline(quad: Any, colour: tuple[int, int, int], width: int) -> np.ndarray:
        points = np.rint(np.float32(quad) * scale).astype(np.int32)
        cv2.polylines(shown, [points], True, colour, width, cv2.LINE_AA)
        return points

    for quad in truth:
        outline(quad, TRUTH, 1)
    for number, box in enumerate(found, start=1):
        corner = outline(box.quad, FOUND, 2)[0]
        cv2.putText(shown, str(number), (int(corner[0]), max(10, int(corner[1]) - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                    FOUND, 1, cv2.LINE_AA)
    if any(getattr(box, "text", "") for box in found) and (font := cjk_font()):
        shown = np.concatenate([shown, _written(found, shown.shape, scale, font)])
    texts = [f"{n} {box.text}" for n, box in enumerate(found, start=1) if getattr(box, "text", "")]
    said = f": {'; '.join(texts[:8])}{' ...' if len(texts) > 8 else ''}" if texts else ""
    return Picture(shown, f"A page with {len(found)} boxes {what}{said}")


def cjk_font() -> str:
    """Path of an installed font with Chinese glyphs; "" when there is none."""
    from matplotlib import font_manager

    wanted = ("notosanscjk", "notosanssc", "wqy-microhei", "wqy-zenhei", "sourcehansans", "simhei", "msyh", "pingfang")
    for path in sorted(font_manager.findSystemFonts()):
        if any(name in path.lower() for name in wanted):
            return path
    return ""


def _written(lines: Sequence[Any], shape: tuple[int, ...], scale: float, font: str) -> np.ndarray:
    """The texts on white, each at its place and about as large as on the page."""
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", (shape[1], shape[0]), "white")
    draw = ImageDraw.Draw(sheet)
    for line in lines:
        quad = np.float32(line.quad) * scale
        size = max(8, round(0.8 * float(np.linalg.norm(quad[3] - quad[0]))))
        draw.text(tuple(quad[0]), line.text, fill=FOUND, font=ImageFont.truetype(font, size))
    return np.asarray(sheet)


def seen(samples: Samples, at: Sequence[int] = (0, 1, 2)) -> Picture:
    """What the model sees of some samples: their tensors, turned back into pictures, one under the other."""
    import cv2

    views = []
    for index in at:
        view = samples.preview(index)
        if view.shape[1] > WIDTH:
            scale = WIDTH / view.shape[1]
            view = cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        views.append(view)
    width = max(view.shape[1] for view in views)
    rows = [np.pad(view, ((0, 6), (0, width - view.shape[1]), (0, 0)), constant_values=255) for view in views]
    names = ", ".join(samples.items[index].name for index in at)
    return Picture(np.concatenate(rows), f"What the model sees of {names}: after resizing, padding and channel order")
