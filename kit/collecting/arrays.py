"""Arrays in a file whose bytes depend on nothing but the arrays: ``.npz`` without a time of day."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that the format can say


def save_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]], *, compress: bool = True) -> None:
    """Write named arrays so that ``numpy.load`` reads them, whole or not at all; equal arrays give equal bytes."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    beside = path.with_name(f".{path.name}.new")
    with zipfile.ZipFile(beside, "w", kind, allowZip64=True) as archive:
        for name, array in arrays:
            about = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            about.compress_type = kind
            with archive.open(about, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)
    beside.replace(path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file, by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
