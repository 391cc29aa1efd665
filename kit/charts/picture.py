"""A photograph in a result: a JPEG with alt text. ``Chart`` is for figures; a picture with boxes needs no hover."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels to show.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        alt: what a reader who cannot see it needs to know.
        quality: of the JPEG, 1 to 95.
    """

    pixels: np.ndarray
    alt: str
    quality: int = 80

    def jpeg(self) -> bytes:
        """The file's bytes."""
        import cv2

        _, data = cv2.imencode(".jpg", self.pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return data.tobytes()

    def save(self, path: Path | str) -> Path:
        """Write the JPEG."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.jpeg())
        return path

    def html(self) -> str:
        """An ``<img>`` that carries its data, for the report."""
        data = base64.b64encode(self.jpeg()).decode()
        return f'<img alt="{escape(self.alt)}" src="data:image/jpeg;base64,{data}">'

    def __str__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict[str, object], dict[str, object]]:
        # The HTML form carries the alt text, which image/jpeg has no place for; the JPEG is for readers of the file.
        return {"text/plain": self.alt, "image/jpeg": base64.b64encode(self.jpeg()).decode()}, {
            "image/jpeg": {"alt": self.alt}}
