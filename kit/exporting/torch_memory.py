"""How much memory an export from PyTorch will take, said before it begins.

What the libraries take by themselves, and how often an exporter holds the weights, was measured with torch 2.13,
onnxscript 0.7 and diffusers 0.42: the UNet of Stable Diffusion 1.5 (3.44 GB as float32) took 4.40 GB with dynamo and
5.10 GB with the classic exporter; parts of a few megabytes took 0.50 to 0.67 GB. (2026-11-25)
"""

from __future__ import annotations

from kit.card import bytes_text

BASE = 600_000_000  # bytes: torch, diffusers and transformers imported, and their graphs
#: Exporter -> bytes of memory a byte of float32 weights.
TIMES = {"dynamo": 1.12, "classic": 1.33}


def forecast(weights: int, exporter: str) -> int:
    """Bytes of resident memory at the peak.

    Args:
        weights: bytes that the weights take as float32.
        exporter: ``dynamo`` or ``classic``.
    """
    return round(BASE + TIMES[exporter] * weights)


def words(needed: int) -> str:
    """A sentence where the machine has less than that free; "" otherwise."""
    import psutil

    free = psutil.virtual_memory().available
    return f"the export was forecast to take {bytes_text(needed)}, and {bytes_text(free)} were free" \
        if needed > free else ""
