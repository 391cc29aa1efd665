"""A picture as a PNG file with nothing but the standard library and numpy. Python 3.8.

This travels to an Ascend box inside ``draw_on_box.py``.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png(picture: np.ndarray) -> bytes:
    """A picture, [H, W, 3] in 0..1, as the bytes of a PNG file; what is not finite becomes black."""
    height, width, _ = picture.shape
    pixels = (np.nan_to_num(picture, posinf=1, neginf=0) * 255).round().astype(np.uint8)
    # Each line of a PNG begins with the number of its filter; 0 is none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1).tobytes()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines)),
              (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks)
